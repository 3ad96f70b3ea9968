//! Control registers (Intel SDM 3A, Control Registers), and the protections that the kernel switches on in them.

use core::arch::asm;

use bitflags::bitflags;

use crate::cpu::Features;
use crate::msr::Efer;

bitflags! {
    /// Bits of CR0.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Cr0: usize {
        /// Protected mode.
        const PE = 1 << 0;
        /// WAIT traps when TS is set.
        const MP = 1 << 1;
        /// There is no FPU.
        const EM = 1 << 2;
        /// The FPU holds another thread's registers: its next use traps (#NM).
        const TS = 1 << 3;
        /// FPU errors are exception 16.
        const NE = 1 << 5;
        /// The kernel obeys write protection.
        const WP = 1 << 16;
        /// EFLAGS.AC makes user code trap on unaligned access.
        const AM = 1 << 18;
        /// Not write-through.
        const NW = 1 << 29;
        /// Caches are off.
        const CD = 1 << 30;
        /// Paging.
        const PG = 1 << 31;
        const _ = !0;
    }
}

bitflags! {
    /// Bits of CR4.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Cr4: usize {
        /// RDTSC is for the kernel only.
        const TSD = 1 << 2;
        /// 64-bit page-table entries.
        const PAE = 1 << 5;
        /// Machine-check exceptions.
        const MCE = 1 << 6;
        /// Global pages.
        const PGE = 1 << 7;
        /// RDPMC is for all.
        const PCE = 1 << 8;
        /// FXSAVE, FXRSTOR and SSE.
        const OSFXSR = 1 << 9;
        /// SSE errors are exception 19.
        const OSXMMEXCPT = 1 << 10;
        /// SGDT, SIDT, SLDT, STR and SMSW are for the kernel only.
        const UMIP = 1 << 11;
        /// RDFSBASE, WRGSBASE and their like are for all.
        const FSGSBASE = 1 << 16;
        /// Translations carry the identifier of their space.
        const PCIDE = 1 << 17;
        /// XSAVE and what it saves.
        const OSXSAVE = 1 << 18;
        /// The kernel cannot execute user pages.
        const SMEP = 1 << 20;
        /// The kernel cannot touch user pages, except between STAC and CLAC.
        const SMAP = 1 << 21;
        const _ = !0;
    }
}

macro_rules! control_register {
    ($ty:ident, $read:literal, $write:literal) => {
        impl $ty {
            /// The present value.
            #[inline(always)]
            pub fn read() -> Self {
                let bits: usize;
                // SAFETY: reading changes nothing; the kernel runs privileged.
                unsafe { asm!($read, out(reg) bits, options(nostack, preserves_flags)) };
                Self::from_bits_retain(bits)
            }

            /// Makes this the value.
            ///
            /// # Safety
            /// The processor has the features that the bits ask for, and what the kernel relies on (paging, protection)
            /// still holds with them.
            #[inline(always)]
            pub unsafe fn write(self) {
                // SAFETY: by contract.
                unsafe { asm!($write, in(reg) self.bits(), options(nostack, preserves_flags)) };
            }
        }
    };
}

control_register!(Cr0, "mov {}, cr0", "mov cr0, {}");
control_register!(Cr4, "mov {}, cr4", "mov cr4, {}");

/// The address of the last page fault.
#[inline(always)]
pub fn cr2() -> usize {
    let address;
    // SAFETY: reading changes nothing; the kernel runs privileged.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nostack, preserves_flags)) };
    address
}

/// The identifier of the spaces that have none of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedIdentifier {
    /// That of the kernel's own tables, where each space maps the kernel as these do.
    OfKernel = 0,
    /// The last one, and never the kernel's.
    Last = 0xFFF,
}

/// What CR3 holds: the root of the page tables and the identifier under which translations are cached (0 without PCID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cr3(usize);

impl Cr3 {
    const PCID_MASK: usize = 0xFFF;
    /// In a value that is loaded: "keep the translations cached under this identifier" (Intel SDM 3A, MOV to CR3).
    pub const KEEP: usize = 1 << (usize::BITS - 1);

    /// What is loaded for the space with number `index`, whose root table is at `root`, when there are identifiers. The first
    /// spaces have one each and keep their translations. The others have `shared` together, which is emptied whenever it is
    /// loaded.
    pub const fn word_of_space(root: usize, index: usize, shared: SharedIdentifier) -> usize {
        let (number, own) = (shared as usize, index + 1);
        let is_own = own <= Self::PCID_MASK && own != number;
        if is_own { root | own | Self::KEEP } else { root | number }
    }

    /// `root`: physical address of the 4 KiB root table; `pcid`: 0..4096, 0 while CR4.PCIDE is clear.
    #[inline(always)]
    pub const fn new(root: usize, pcid: u16) -> Self {
        debug_assert!(root & Self::PCID_MASK == 0 && (pcid as usize) <= Self::PCID_MASK);
        Self(root | pcid as usize)
    }

    /// Physical address of the root table.
    #[inline(always)]
    pub const fn root(self) -> usize {
        self.0 & !Self::PCID_MASK
    }

    /// The identifier of cached translations.
    #[inline(always)]
    pub const fn pcid(self) -> u16 {
        (self.0 & Self::PCID_MASK) as u16
    }

    /// The present value.
    #[inline(always)]
    pub fn read() -> Self {
        let bits;
        // SAFETY: reading changes nothing; the kernel runs privileged.
        unsafe { asm!("mov {}, cr3", out(reg) bits, options(nostack, preserves_flags)) };
        Self(bits)
    }

    /// Goes to these tables and forgets the non-global translations cached under their identifier.
    ///
    /// # Safety
    /// The tables map the kernel's code, stack and data as now.
    #[inline(always)]
    pub unsafe fn load(self) {
        // SAFETY: by contract.
        unsafe { asm!("mov cr3, {}", in(reg) self.0, options(nostack, preserves_flags)) };
    }

    /// Goes to these tables and keeps the translations cached under their identifier (Intel SDM 3A, Process-Context
    /// Identifiers).
    ///
    /// # Safety
    /// 1. As for [`Cr3::load`].
    /// 2. CR4.PCIDE is set, and the translations cached under this identifier are those of these tables.
    #[inline(always)]
    pub unsafe fn load_keeping(self) {
        // SAFETY: by contract.
        unsafe { asm!("mov cr3, {}", in(reg) self.0 | Self::KEEP, options(nostack, preserves_flags)) };
    }
}

/// CR0 as the kernel wants it: write protection for itself, native FPU errors, alignment checks for user code that sets
/// EFLAGS.AC, caches on. TS is kept.
pub const fn wanted_cr0(now: Cr0) -> Cr0 {
    let on = now.union(Cr0::WP).union(Cr0::NE).union(Cr0::MP).union(Cr0::AM);
    on.difference(Cr0::EM).difference(Cr0::NW).difference(Cr0::CD)
}

/// Who may read the performance counters with RDPMC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counters {
    /// The kernel.
    OfKernel,
    /// User code, too.
    OfAll,
}

/// CR4 as the kernel wants it on a processor with `features`: each protection that exists, SSE for user code, RDTSC for
/// all; FSGSBASE stays off, as the `gs` base belongs to the kernel, and so does XSAVE, as only FXSAVE state is switched.
pub const fn wanted_cr4(now: Cr4, features: Features, counters: Counters) -> Cr4 {
    const ALWAYS_OFF: Cr4 = Cr4::TSD.union(Cr4::PCE).union(Cr4::FSGSBASE).union(Cr4::OSXSAVE);
    const OPTIONAL: [(Features, Cr4); 6] = [
        (Features::PGE, Cr4::PGE),
        (Features::FXSR, Cr4::OSFXSR.union(Cr4::OSXMMEXCPT)),
        (Features::UMIP, Cr4::UMIP),
        (Features::SMEP, Cr4::SMEP),
        (Features::SMAP, Cr4::SMAP),
        (Features::PCID, Cr4::PCIDE),
    ];
    let mut wanted = now.difference(ALWAYS_OFF);
    if matches!(counters, Counters::OfAll) {
        wanted = wanted.union(Cr4::PCE);
    }
    let mut i = 0;
    while i < OPTIONAL.len() {
        let (feature, bit) = OPTIONAL[i];
        if features.contains(feature) {
            wanted = wanted.union(bit);
        }
        i += 1;
    }
    wanted
}

/// Switches on, on this processor, all protections that `features` has: [`wanted_cr0`], [`wanted_cr4`], NX.
///
/// # Safety
/// 1. `features` are this processor's.
/// 2. The current page tables map nothing that the kernel executes or touches as a user page, nothing it writes as
///    read-only, and set no reserved bits once NX counts.
/// 3. CR3 holds identifier 0.
pub unsafe fn enable_protections(features: Features, counters: Counters) {
    if features.contains(Features::NX) {
        // SAFETY: a processor with NX has the register; 2. allows NXE, and no other bit changes.
        let efer = unsafe { Efer::read() };
        // SAFETY: as above.
        unsafe { (efer | Efer::NXE).write() };
    }
    // SAFETY: by 2. the kernel does not rely on writing to read-only pages; the FPU exists on every processor with
    // long mode, and caches on is what the loader left.
    unsafe { wanted_cr0(Cr0::read()).write() };
    // SAFETY: only bits of features that exist (1.) are set; 2. and 3. are the conditions of SMEP, SMAP and PCIDE.
    unsafe { wanted_cr4(Cr4::read(), features, counters).write() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protections_follow_the_features() {
        let check = |features, wanted: Cr4| {
            assert_eq!(wanted_cr4(Cr4::PAE, features, Counters::OfKernel), Cr4::PAE | wanted, "{features}");
        };
        check(Features::empty(), Cr4::empty());
        check(Features::SMEP | Features::SMAP, Cr4::SMEP | Cr4::SMAP);
        check(Features::FXSR | Features::PGE, Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::PGE);
        check(Features::PCID | Features::UMIP, Cr4::PCIDE | Cr4::UMIP);
        check(Features::FSGSBASE | Features::XSAVE, Cr4::empty());
    }

    #[test]
    fn what_firmware_left_on_is_switched_off() {
        let left = Cr4::PAE | Cr4::FSGSBASE | Cr4::TSD | Cr4::PCE;
        assert_eq!(wanted_cr4(left, Features::FSGSBASE, Counters::OfKernel), Cr4::PAE);
        assert_eq!(wanted_cr4(left, Features::FSGSBASE, Counters::OfAll), Cr4::PAE | Cr4::PCE);
        let cr0 = wanted_cr0(Cr0::PE | Cr0::PG | Cr0::CD | Cr0::EM | Cr0::TS);
        assert_eq!(cr0, Cr0::PE | Cr0::PG | Cr0::TS | Cr0::WP | Cr0::NE | Cr0::MP | Cr0::AM);
    }

    #[test]
    fn spaces_have_identifiers_as_long_as_there_are_some() {
        use SharedIdentifier::{Last, OfKernel};
        let root = 0x12_3000;
        for (index, shared, expected) in [
            (0, OfKernel, root | 1 | Cr3::KEEP),
            (4094, OfKernel, root | 4095 | Cr3::KEEP),
            (4095, OfKernel, root),
            (1 << 17, OfKernel, root),
            (0, Last, root | 1 | Cr3::KEEP),
            (4093, Last, root | 4094 | Cr3::KEEP),
            (4094, Last, root | 4095),
            (1 << 17, Last, root | 4095),
        ] {
            assert_eq!(Cr3::word_of_space(root, index, shared), expected, "{index}, {shared:?}");
        }
    }

    #[test]
    fn cr3_keeps_root_and_identifier_apart() {
        let cr3 = Cr3::new(0x12_3000, 0xABC);
        assert_eq!((cr3.root(), cr3.pcid()), (0x12_3000, 0xABC));
    }
}
