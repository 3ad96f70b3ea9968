//! 4-level paging of 64-bit x86 (Intel SDM 3A, 4-Level Paging).

use super::*;

/// The format of 64-bit x86: four levels, pages of 4 KiB and 2 MiB, and of 1 GiB where wanted.
#[derive(Clone, Copy, Debug)]
pub struct Amd64 {
    /// EFER.NXE is set: pages can be protected against execution. Otherwise that bit is reserved.
    pub no_execute: bool,
    /// CR4.PGE is set: global pages are used.
    pub global: bool,
    /// The processor has a page attribute table, and it is loaded with the memory types of X.2.
    pub pat: bool,
    /// Pages of 1 GiB are used.
    pub huge: bool,
}

const NO_EXECUTE: u64 = 1 << 63;
/// Physical addresses have at most 52 bits.
const ADDRESS_MASK: u64 = (1 << 52) - 1;

impl Amd64 {
    /// The bits of an entry that hold the frame of a page of `level`.
    #[inline(always)]
    fn frame_mask(level: u32) -> u64 {
        ADDRESS_MASK & !((1 << Self::size_log2(level)) - 1)
    }
}

impl PageFormat for Amd64 {
    const LEVELS: u32 = 4;
    const INDEX_BITS: u32 = 9;
    const ENTRY_LOG2: u32 = 3;
    const TABLE_MASK: u64 = ADDRESS_MASK & !0xFFF;

    #[inline(always)]
    fn leaf_allowed(&self, level: u32) -> bool {
        level < 2 || level == 2 && self.huge
    }

    #[inline(always)]
    fn table(&self, frame: u64) -> u64 {
        frame & Self::TABLE_MASK | PRESENT | WRITABLE | USER
    }

    #[inline(always)]
    fn leaf(&self, level: u32, leaf: Leaf) -> u64 {
        leaf.frame & Self::frame_mask(level)
            | common_leaf(level, &leaf, self.global)
            | when(self.no_execute && !leaf.access.execute, NO_EXECUTE)
    }

    #[inline(always)]
    fn decode(&self, level: u32, entry: u64) -> Entry {
        if entry & PRESENT == 0 {
            Entry::Empty
        } else if is_leaf(level, entry) {
            let frame = entry & Self::frame_mask(level);
            Entry::Leaf(common_decode(level, entry, frame, entry & NO_EXECUTE == 0))
        } else {
            Entry::Table(entry & Self::TABLE_MASK)
        }
    }

    #[inline(always)]
    fn effective(&self, access: Access) -> Access {
        Access { execute: access.execute | !self.no_execute, ..access }
    }

    #[inline(always)]
    fn cache_allowed(&self, cache: PatIndex) -> bool {
        cache.index() < 4 || self.pat
    }

    #[inline(always)]
    fn set_access(&self, access: Access) -> Edit {
        let set = when(access.write, WRITABLE) | when(self.no_execute && !access.execute, NO_EXECUTE);
        Edit { clear: (WRITABLE | NO_EXECUTE) & !set, set }
    }
}
