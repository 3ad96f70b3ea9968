//! Page tables of the kernel's own part of the address space, in the format of either width.
//!
//! They are built at boot and then stay; their entries are the same in every space. Each page has a [`PageKind`], and
//! no kind is writable and executable at once. Where a table of the kernel is sparse and must read as zero in between,
//! the gaps map nothing until somebody reads there: that is a fault, and then they map one frame of zeroes
//! ([`KernelTables::fill_gap`]). What is not there is in no cache of translations (Intel SDM 3A, 4.10.2.3), so a page that is
//! backed before somebody has looked need not be forgotten by anybody. Such a place has its page tables from the start
//! ([`KernelTables::reserve`]), so
//! that what comes and goes later are entries of the lowest level alone: a page is backed and released by one write, no
//! processor ever walks through a table that is gone, and the only translations to forget are those of single pages.

use kformats::paging::{Access, Entry, Leaf, PAGE_LOG2, PageFormat, PatIndex, Status};

/// The memory that tables are made of, by physical address.
pub trait TableMemory {
    /// The entry at `at`, which lies in a frame that came from [`TableMemory::take_frame`].
    fn read(&self, at: u64) -> u64;
    /// Replaces that entry.
    fn write(&mut self, at: u64, entry: u64);
    /// Makes that entry `new` if it is `old`, and says whether it was. Atomic.
    fn replace(&mut self, at: u64, old: u64, new: u64) -> bool;
    /// A frame of 4 KiB filled with zeroes, never given back; `None` if there is no more.
    fn take_frame(&mut self) -> Option<u64>;
}

/// There is no frame left for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoFrame;

/// Who uses a page, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// The kernel executes and reads.
    KernelCode,
    /// The kernel reads.
    KernelConst,
    /// The kernel reads and writes.
    KernelData,
    /// The kernel reads and writes a device: not cached.
    KernelDevice,
    /// All execute and read.
    UserCode,
    /// All read.
    UserConst,
    /// All read and write.
    UserData,
    /// The kernel reads; each space may have something else there.
    SpaceConst,
}

impl PageKind {
    /// The entry of the page attribute table for "uncached", as processors come up with it (Intel SDM 3A, Programming
    /// the PAT).
    const UNCACHED: PatIndex = PatIndex::new(3).expect("3 is an index");

    /// An entry of this kind for the page at `frame`. Accessed and dirty from the start: nobody looks at these bits
    /// here, and the processor then has no reason to write the entry.
    pub const fn leaf(self, frame: u64) -> Leaf {
        let write = matches!(self, Self::KernelData | Self::KernelDevice | Self::UserData);
        let execute = matches!(self, Self::KernelCode | Self::UserCode);
        Leaf {
            frame,
            access: Access { write, execute },
            user: matches!(self, Self::UserCode | Self::UserConst | Self::UserData),
            global: !matches!(self, Self::SpaceConst),
            cache: if matches!(self, Self::KernelDevice) {
                Self::UNCACHED
            } else {
                PatIndex::new(0).expect("0 is one")
            },
            status: Status { accessed: true, dirty: write },
        }
    }
}

const PAGES: u32 = 0;
const LARGE_PAGES: u32 = 1;

/// The tables of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelTables<F> {
    format: F,
    root: u64,
    /// The entry that maps the frame of zeroes.
    zero_entry: u64,
}

impl<F: PageFormat> KernelTables<F> {
    /// Bytes of a page.
    pub const PAGE_BYTES: u64 = 1 << PAGE_LOG2;
    /// Bytes that a page table covers, and of a large page.
    pub const LARGE_PAGE_BYTES: u64 = 1 << (PAGE_LOG2 + F::INDEX_BITS);

    /// Tables that map nothing. Takes two frames.
    ///
    /// # Errors
    /// [`NoFrame`].
    pub fn new(format: F, memory: &mut impl TableMemory) -> Result<Self, NoFrame> {
        let mut frame = || memory.take_frame().ok_or(NoFrame);
        let (root, zero_frame) = (frame()?, frame()?);
        let zero_entry = format.leaf(PAGES, PageKind::KernelConst.leaf(zero_frame));
        Ok(Self { format, root, zero_entry })
    }

    /// The frame of the root table.
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// The index in the root table of the entry that covers `address`, and the entry: a space that has it too shares
    /// this part of the kernel.
    pub fn root_entry(&self, memory: &impl TableMemory, address: u64) -> (usize, u64) {
        let level = F::LEVELS - 1;
        (F::index(level, address), memory.read(slot::<F>(self.root, level, address)))
    }

    /// Maps the page at `address` to the frame at `frame`.
    ///
    /// # Errors
    /// [`NoFrame`]; nothing is mapped then.
    ///
    /// # Panics
    /// If another page is mapped there, or an address is not aligned.
    pub fn map(&self, memory: &mut impl TableMemory, address: u64, frame: u64, kind: PageKind) -> Result<(), NoFrame> {
        assert!((address | frame).is_multiple_of(Self::PAGE_BYTES), "pages are aligned");
        let at = self.slot(memory, PAGES, address)?;
        assert!(memory.read(at) == 0, "a kernel page is mapped once");
        memory.write(at, self.format.leaf(PAGES, kind.leaf(frame)));
        Ok(())
    }

    /// Maps the page at `address`, a gap of a sparse table, to the frame at `frame`. Whether the frame of zeroes was mapped
    /// there: then cached translations of it are the caller's to forget. Meanwhile others may fill the gap.
    ///
    /// # Panics
    /// If a page is backed there, no table is reserved, or an address is not aligned.
    #[must_use = "processors may know the page as zeroes"]
    pub fn back(&self, memory: &mut impl TableMemory, address: u64, frame: u64, kind: PageKind) -> bool {
        assert!((address | frame).is_multiple_of(Self::PAGE_BYTES), "pages are aligned");
        let at = self.reserved_slot(memory, address).expect("a sparse table has its page tables from the start");
        let leaf = self.format.leaf(PAGES, kind.leaf(frame));
        if memory.replace(at, 0, leaf) {
            return false;
        }
        assert!(memory.replace(at, self.zero_entry, leaf), "a page is backed once");
        true
    }

    /// Makes the page at `address` read as zero if it is a gap where nothing is. Whether something is there now. Others may
    /// fill or back the gap meanwhile.
    pub fn fill_gap(&self, memory: &mut impl TableMemory, address: u64) -> bool {
        let Some(at) = self.reserved_slot(memory, address) else { return false };
        // If it is not empty any more, somebody else was faster.
        memory.replace(at, 0, self.zero_entry);
        true
    }

    /// Where the entry of the page at `address` is, if there is a table for it.
    fn reserved_slot(&self, memory: &impl TableMemory, address: u64) -> Option<u64> {
        let mut table = self.root;
        for level in (PAGES + 1..F::LEVELS).rev() {
            match self.format.decode(level, memory.read(slot::<F>(table, level, address))) {
                Entry::Table(next) => table = next,
                _ => return None,
            }
        }
        Some(slot::<F>(table, PAGES, address))
    }

    /// Maps the page at `address`, which is mapped, to another frame. Cached translations of it are the caller's to
    /// forget.
    ///
    /// # Panics
    /// If no page is mapped there, or an address is not aligned.
    pub fn remap(&self, memory: &mut impl TableMemory, address: u64, frame: u64, kind: PageKind) {
        assert!((address | frame).is_multiple_of(Self::PAGE_BYTES), "pages are aligned");
        let (at, _) = self.page_entry(memory, address);
        memory.write(at, self.format.leaf(PAGES, kind.leaf(frame)));
    }

    /// Leaves a gap at `address`, where [`KernelTables::back`] put a frame, which is returned. Cached translations of the page
    /// are the caller's to forget before the frame is used for anything else.
    ///
    /// # Panics
    /// If no page is mapped there, or the address is not aligned.
    pub fn release(&self, memory: &mut impl TableMemory, address: u64) -> u64 {
        assert!(address.is_multiple_of(Self::PAGE_BYTES), "pages are aligned");
        assert!(self.is_backed(memory, address), "a gap has nothing to give back");
        let (at, leaf) = self.page_entry(memory, address);
        memory.write(at, 0);
        leaf.frame
    }

    /// The entry of the page at `address`, and where it is.
    fn page_entry(&self, memory: &impl TableMemory, address: u64) -> (u64, Leaf) {
        let mut table = self.root;
        for level in (0..F::LEVELS).rev() {
            let at = slot::<F>(table, level, address);
            match self.format.decode(level, memory.read(at)) {
                Entry::Table(next) => table = next,
                Entry::Leaf(leaf) if level == PAGES => return (at, leaf),
                _ => panic!("a page is mapped before it is mapped to something else"),
            }
        }
        unreachable!("entries of the lowest level are pages")
    }

    /// Maps the large page at `address` to the memory at `frame`.
    ///
    /// # Errors
    /// [`NoFrame`]; nothing is mapped then.
    ///
    /// # Panics
    /// If anything is mapped there, an address is not aligned, or the format has no large pages.
    pub fn map_large(
        &self,
        memory: &mut impl TableMemory,
        address: u64,
        frame: u64,
        kind: PageKind,
    ) -> Result<(), NoFrame> {
        assert!((address | frame).is_multiple_of(Self::LARGE_PAGE_BYTES), "large pages are aligned");
        assert!(self.format.leaf_allowed(LARGE_PAGES), "the format has large pages");
        let at = self.slot(memory, LARGE_PAGES, address)?;
        assert!(memory.read(at) == 0, "a kernel page is mapped once");
        memory.write(at, self.format.leaf(LARGE_PAGES, kind.leaf(frame)));
        Ok(())
    }

    /// Makes the `bytes` at `address`, both multiples of a large page, a sparse table, all of it gaps. Takes a frame for each
    /// large page, so that pages are backed without taking any.
    ///
    /// # Errors
    /// [`NoFrame`]; the first pages may be mapped.
    ///
    /// # Panics
    /// If anything is mapped there, or an address is not aligned.
    pub fn reserve(&self, memory: &mut impl TableMemory, address: u64, bytes: u64) -> Result<(), NoFrame> {
        assert!((address | bytes).is_multiple_of(Self::LARGE_PAGE_BYTES), "whole page tables are sparse");
        for offset in (0..bytes).step_by(Self::LARGE_PAGE_BYTES as usize) {
            let at = self.slot(memory, LARGE_PAGES, address + offset)?;
            assert!(memory.read(at) == 0, "a kernel page is mapped once");
            let table = memory.take_frame().ok_or(NoFrame)?;
            memory.write(at, self.format.table(table));
        }
        Ok(())
    }

    /// Whether a page other than the frame of zeroes is mapped at `address`.
    pub fn is_backed(&self, memory: &impl TableMemory, address: u64) -> bool {
        let mut table = self.root;
        for level in (0..F::LEVELS).rev() {
            let entry = memory.read(slot::<F>(table, level, address));
            match self.format.decode(level, entry) {
                Entry::Empty => return false,
                Entry::Leaf(_) => return entry != self.zero_entry,
                Entry::Table(next) => table = next,
            }
        }
        unreachable!("entries of the lowest level are pages")
    }

    /// Where the entry of `level` for `address` is; makes the tables on the way to it.
    fn slot(&self, memory: &mut impl TableMemory, level: u32, address: u64) -> Result<u64, NoFrame> {
        let mut table = self.root;
        for above in (level + 1..F::LEVELS).rev() {
            table = self.own_table(memory, above, slot::<F>(table, above, address))?;
        }
        Ok(slot::<F>(table, level, address))
    }

    /// The table that the entry of `level` at `at` leads to, made if there is none.
    fn own_table(&self, memory: &mut impl TableMemory, level: u32, at: u64) -> Result<u64, NoFrame> {
        match self.format.decode(level, memory.read(at)) {
            Entry::Leaf(_) => panic!("a large page of the kernel is not split"),
            Entry::Table(table) => Ok(table),
            Entry::Empty => {
                let table = memory.take_frame().ok_or(NoFrame)?;
                memory.write(at, self.format.table(table));
                Ok(table)
            }
        }
    }
}

/// Where the entry for `address` is in `table` of `level`.
fn slot<F: PageFormat>(table: u64, level: u32, address: u64) -> u64 {
    table + ((F::index(level, address) as u64) << F::ENTRY_LOG2)
}

#[cfg(test)]
mod tests;
