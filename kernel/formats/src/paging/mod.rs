//! Page-table entries of both widths.
//!
//! A [`PageFormat`] is a value that knows the geometry of a tree of page tables and the bits of its entries; it is asked
//! by code that walks tables without knowing the processor. Levels count from the bottom: the entries of level 0 map
//! pages of 4 KiB, the root table has level `LEVELS - 1`. Rights are kept in leaf entries alone: entries that lead to
//! tables allow everything, so a page's rights are read and changed in one place.

mod amd64;
mod ia32;
#[cfg(test)]
mod tests;

pub use amd64::Amd64;
pub use ia32::Ia32;

/// log2 of the smallest page, and of the size of a table.
pub const PAGE_LOG2: u32 = 12;

/// What user code may do with a page besides reading it: on x86 a present page is always readable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// May be written.
    pub write: bool,
    /// Instructions may be fetched from it.
    pub execute: bool,
}

impl Access {
    /// Reading only.
    pub const READ_ONLY: Self = Self { write: false, execute: false };
    /// Everything.
    pub const FULL: Self = Self { write: true, execute: true };

    /// What both allow.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self { write: self.write & other.write, execute: self.execute & other.execute }
    }

    /// What either allows.
    #[inline(always)]
    pub const fn or(self, other: Self) -> Self {
        Self { write: self.write | other.write, execute: self.execute | other.execute }
    }

    /// What is left of this without `other`.
    #[inline(always)]
    pub const fn without(self, other: Self) -> Self {
        Self { write: self.write & !other.write, execute: self.execute & !other.execute }
    }

    /// Whether this allows all that `other` does.
    #[inline(always)]
    pub const fn covers(self, other: Self) -> bool {
        !(other.write & !self.write | other.execute & !self.execute)
    }
}

/// What was done with a page since its status was last reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Read, written or executed.
    pub accessed: bool,
    /// Written.
    pub dirty: bool,
}

/// The entry of the page attribute table that gives a page its memory type, 0 to 7; 0 is the default, write-back
/// (Intel SDM 3A, Page Attribute Table).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PatIndex(u8);

impl PatIndex {
    /// `None` unless `index < 8`.
    pub const fn new(index: u8) -> Option<Self> {
        if index < 8 { Some(Self(index)) } else { None }
    }

    /// The index.
    pub const fn index(self) -> u8 {
        self.0
    }

    /// The bits PWT and PCD, and PAT at the place it has in this entry.
    #[inline(always)]
    const fn bits(self, pat: u64) -> u64 {
        let index = self.0 as u64;
        (index & 3) << PWT_SHIFT | if index & 4 != 0 { pat } else { 0 }
    }

    #[inline(always)]
    const fn of(entry: u64, pat: u64) -> Self {
        Self((entry >> PWT_SHIFT & 3) as u8 | if entry & pat != 0 { 4 } else { 0 })
    }
}

/// An entry that maps a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Physical address of the page, a multiple of its size.
    pub frame: u64,
    /// Rights beyond reading.
    pub access: Access,
    /// Whether user code may use it at all.
    pub user: bool,
    /// Whether the translation survives a change of the root table, where the processor can do that.
    pub global: bool,
    /// Memory type.
    pub cache: PatIndex,
    /// Accessed and dirty flags.
    pub status: Status,
}

/// The meaning of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nothing is mapped.
    Empty,
    /// Leads to the table of the next lower level at this physical address.
    Table(u64),
    /// Maps a page.
    Leaf(Leaf),
}

/// A change of an entry that leaves all other bits alone, those that the processor sets among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edit {
    /// Bits to clear.
    pub clear: u64,
    /// Bits to set.
    pub set: u64,
}

/// A format of page tables.
pub trait PageFormat: Copy {
    /// Levels of tables.
    const LEVELS: u32;
    /// Address bits that one table resolves.
    const INDEX_BITS: u32;
    /// log2 of the size of an entry in bytes.
    const ENTRY_LOG2: u32;

    /// The bits of an entry that hold the address of a table.
    const TABLE_MASK: u64;

    /// log2 of the bytes that one entry of `level` covers.
    #[inline(always)]
    fn size_log2(level: u32) -> u32 {
        PAGE_LOG2 + level * Self::INDEX_BITS
    }

    /// The entry for `address` in a table of `level`.
    #[inline(always)]
    fn index(level: u32, address: u64) -> usize {
        (address >> Self::size_log2(level)) as usize & ((1 << Self::INDEX_BITS) - 1)
    }

    /// Whether entries of `level` can map pages.
    fn leaf_allowed(&self, level: u32) -> bool;

    /// The entry that leads to the table at `frame`, with all rights.
    fn table(&self, frame: u64) -> u64;

    /// The entry of `level` that maps `leaf`. What the processor cannot do (no-execute, global) is left out.
    fn leaf(&self, level: u32, leaf: Leaf) -> u64;

    /// The table that an entry of `level` leads to; `None` if it maps a page or nothing.
    #[inline(always)]
    fn below(&self, level: u32, entry: u64) -> Option<u64> {
        (entry & PRESENT != 0 && !is_leaf(level, entry)).then_some(entry & Self::TABLE_MASK)
    }

    /// The meaning of an entry of `level`.
    fn decode(&self, level: u32, entry: u64) -> Entry;

    /// What `access` comes to: rights that the processor cannot withhold are added.
    fn effective(&self, access: Access) -> Access;

    /// Makes `access` the rights of a leaf entry.
    fn set_access(&self, access: Access) -> Edit;

    /// The leaf entry of the same page that passes on what the leaf entry `entry` has: rights as far as `access` has them,
    /// too, its frame and memory type, and no status.
    #[inline(always)]
    fn derived(&self, entry: u64, access: Access) -> u64 {
        let without = ACCESSED | DIRTY | when(!access.write, WRITABLE);
        entry & !without | self.set_access(Access { write: false, ..access }).set
    }

    /// Whether pages can have this memory type. Without a page attribute table there are the first four.
    fn cache_allowed(&self, cache: PatIndex) -> bool;

    /// Makes `cache` the memory type of a leaf entry of `level`.
    fn set_cache(&self, level: u32, cache: PatIndex) -> Edit {
        let set = cache.bits(pat(level));
        Edit { clear: PatIndex(7).bits(pat(level)) & !set, set }
    }

    /// Resets the status of a leaf entry.
    fn reset_status(&self) -> Edit {
        Edit { clear: ACCESSED | DIRTY, set: 0 }
    }

    /// Adds to the status of a leaf entry, as the processor does.
    fn set_status(&self, status: Status) -> Edit {
        Edit { clear: 0, set: when(status.accessed, ACCESSED) | when(status.dirty, DIRTY) }
    }
}

// Bits that both formats share (Intel SDM 3A, Paging, formats of paging-structure entries).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const PWT_SHIFT: u32 = 3;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// In entries above level 0: the entry maps a page.
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
/// Where level 0 has PAT instead of the page-size bit.
const PAT_SMALL: u64 = 1 << 7;
const PAT_LARGE: u64 = 1 << 12;

/// Whether an entry that is present maps a page.
#[inline(always)]
const fn is_leaf(level: u32, entry: u64) -> bool {
    level == 0 || entry & PAGE_SIZE != 0
}

#[inline(always)]
const fn pat(level: u32) -> u64 {
    if level == 0 { PAT_SMALL } else { PAT_LARGE }
}

#[inline(always)]
const fn when(condition: bool, bits: u64) -> u64 {
    if condition { bits } else { 0 }
}

/// The bits of a leaf entry that both formats share: all but the frame and no-execute.
#[inline(always)]
const fn common_leaf(level: u32, leaf: &Leaf, global: bool) -> u64 {
    PRESENT
        | when(leaf.access.write, WRITABLE)
        | when(leaf.user, USER)
        | when(leaf.status.accessed, ACCESSED)
        | when(leaf.status.dirty, DIRTY)
        | when(level > 0, PAGE_SIZE)
        | when(leaf.global && global, GLOBAL)
        | leaf.cache.bits(pat(level))
}

/// The leaf in `entry`, with the frame and the right to execute found by the caller.
#[inline(always)]
const fn common_decode(level: u32, entry: u64, frame: u64, execute: bool) -> Leaf {
    Leaf {
        frame,
        access: Access { write: entry & WRITABLE != 0, execute },
        user: entry & USER != 0,
        global: entry & GLOBAL != 0,
        cache: PatIndex::of(entry, pat(level)),
        status: Status { accessed: entry & ACCESSED != 0, dirty: entry & DIRTY != 0 },
    }
}
