//! 32-bit paging (Intel SDM 3A, 32-Bit Paging), without the extension of large pages to 40-bit addresses.

use super::*;

/// The format of 32-bit x86: two levels, pages of 4 KiB and 4 MiB. Every readable page can be executed.
#[derive(Clone, Copy, Debug)]
pub struct Ia32 {
    /// CR4.PSE is set: pages of 4 MiB are used.
    pub large: bool,
    /// CR4.PGE is set: global pages are used.
    pub global: bool,
    /// The processor has a page attribute table, and it is loaded with the memory types of X.2.
    pub pat: bool,
}

impl Ia32 {
    #[inline(always)]
    fn frame_mask(level: u32) -> u64 {
        0xFFFF_FFFF & !((1 << Self::size_log2(level)) - 1)
    }
}

impl PageFormat for Ia32 {
    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 10;
    const ENTRY_LOG2: u32 = 2;
    const TABLE_MASK: u64 = 0xFFFF_F000;

    #[inline(always)]
    fn leaf_allowed(&self, level: u32) -> bool {
        level == 0 || level == 1 && self.large
    }

    #[inline(always)]
    fn table(&self, frame: u64) -> u64 {
        frame & Self::TABLE_MASK | PRESENT | WRITABLE | USER
    }

    #[inline(always)]
    fn leaf(&self, level: u32, leaf: Leaf) -> u64 {
        leaf.frame & Self::frame_mask(level) | common_leaf(level, &leaf, self.global)
    }

    #[inline(always)]
    fn decode(&self, level: u32, entry: u64) -> Entry {
        if entry & PRESENT == 0 {
            Entry::Empty
        } else if is_leaf(level, entry) {
            Entry::Leaf(common_decode(level, entry, entry & Self::frame_mask(level), true))
        } else {
            Entry::Table(entry & Self::TABLE_MASK)
        }
    }

    #[inline(always)]
    fn effective(&self, access: Access) -> Access {
        Access { execute: true, ..access }
    }

    #[inline(always)]
    fn cache_allowed(&self, cache: PatIndex) -> bool {
        cache.index() < 4 || self.pat
    }

    #[inline(always)]
    fn set_access(&self, access: Access) -> Edit {
        let set = when(access.write, WRITABLE);
        Edit { clear: WRITABLE & !set, set }
    }
}
