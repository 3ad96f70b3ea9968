//! Cached translations (Intel SDM 3A, Invalidation of TLBs and Paging-Structure Caches).

use core::arch::asm;

use crate::cpu::Features;
use crate::cr::{Cr3, Cr4};

/// Forgets the translation of the page at `address`: global ones and those of the current identifier.
#[inline(always)]
pub fn invalidate_page(address: usize) {
    // SAFETY: forgetting a translation only makes the processor read the tables again.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// Forgets the non-global translations of the current space.
#[inline(always)]
pub fn invalidate_current() {
    // SAFETY: the tables stay the same.
    unsafe { Cr3::read().load() };
}

/// Forgets all translations, global ones and those of all identifiers included.
pub fn invalidate_all() {
    let cr4 = Cr4::read();
    // SAFETY: the kernel does not rely on global pages for anything but speed; without PGE the write changes nothing,
    // and the reload below does the work.
    unsafe { cr4.difference(Cr4::PGE).write() };
    // SAFETY: as it was.
    unsafe { cr4.write() };
    if !cr4.contains(Cr4::PGE) {
        invalidate_current();
    }
}

/// How translations of another space than the current one are forgotten, when PCID is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextFlush {
    /// By the INVPCID instruction.
    Invpcid,
    /// By a short visit to the other space.
    Visit,
}

impl ContextFlush {
    /// The best way on a processor with `features`.
    const fn best(features: Features) -> Self {
        if features.contains(Features::INVPCID) { Self::Invpcid } else { Self::Visit }
    }

    /// The way on a processor with `features`; `None`: spaces have no identifiers. Tables that do not map the kernel cannot
    /// be visited, so with such ones INVPCID must be there.
    pub const fn with(features: Features, spaces_show_kernel: bool) -> Option<Self> {
        let best = Self::best(features);
        let is_possible = spaces_show_kernel || matches!(best, Self::Invpcid);
        if features.contains(Features::PCID) && is_possible { Some(best) } else { None }
    }

    /// Forgets the non-global translations cached under the identifier of `space`.
    ///
    /// # Safety
    /// 1. CR4.PCIDE is set and the way exists on this processor.
    /// 2. `space` holds a root that maps the kernel as the current one does, unless the way is [`ContextFlush::Invpcid`].
    pub unsafe fn invalidate_space(self, space: Cr3) {
        match self {
            // SAFETY: by 1.
            Self::Invpcid => unsafe { invpcid(InvpcidType::Context, space.pcid(), 0) },
            Self::Visit => {
                let here = Cr3::read();
                // The visit uses the space's own root: what the processor caches ahead of need meanwhile is right.
                // SAFETY: by 2.
                unsafe { space.load() };
                // SAFETY: these tables were current until just now, and what is cached under their identifier is theirs;
                // if both identifiers are the same, the load above has emptied it.
                unsafe { here.load_keeping() };
            }
        }
    }

    /// Forgets the non-global translation of the page at `address` cached under the identifier of `space`.
    ///
    /// # Safety
    /// As for [`ContextFlush::invalidate_space`]; the translations cached under the identifier are those of `space`.
    pub unsafe fn invalidate_page(self, space: Cr3, address: usize) {
        match self {
            // SAFETY: by contract.
            Self::Invpcid => unsafe { invpcid(InvpcidType::Address, space.pcid(), address) },
            Self::Visit => {
                let here = Cr3::read();
                // SAFETY: by contract.
                unsafe { space.load_keeping() };
                invalidate_page(address);
                // SAFETY: these tables were current until just now.
                unsafe { here.load_keeping() };
            }
        }
    }
}

#[repr(usize)]
enum InvpcidType {
    Address = 0,
    Context = 1,
}

/// # Safety
/// The processor has INVPCID.
#[inline(always)]
unsafe fn invpcid(kind: InvpcidType, pcid: u16, address: usize) {
    let descriptor: [u64; 2] = [u64::from(pcid), address as u64];
    // SAFETY: by contract the instruction exists; it reads the 16 bytes of `descriptor` and forgets translations.
    unsafe {
        asm!("invpcid {}, [{}]", in(reg) kind as usize, in(reg) descriptor.as_ptr(), options(nostack, readonly));
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_without_the_kernel_are_not_visited() {
        let (old, new) = (Features::PCID, Features::PCID | Features::INVPCID);
        for (features, shows, expected) in [
            (Features::INVPCID, true, None),
            (old, true, Some(ContextFlush::Visit)),
            (old, false, None),
            (new, true, Some(ContextFlush::Invpcid)),
            (new, false, Some(ContextFlush::Invpcid)),
        ] {
            assert_eq!(ContextFlush::with(features, shows), expected, "{features}, {shows}");
        }
    }
}
