//! Walks through page tables and their shadows.

use kformats::paging::{Access, Entry, Leaf, PageFormat, PatIndex, Status};
use l4_abi::Rights;

use super::account::FRAME;
use super::{Space, Spaces, low_bits, rights_of, spend};
use crate::kmem::{FRAME_SIZE, Reserved};
use crate::lock::Held;
use crate::machine::{Mmu, NoMemory, NodeRef, PhysAddr, SpaceRef};
use crate::mapdb::LEVEL_MAX;
use crate::sync::{Ordering, fence};
use crate::var::AsWord;

/// What the shadow of a page's entry holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Slot {
    /// The node of the mapping. Beside a page of the kernel: the detached root for the frame of that address.
    pub node: Option<NodeRef>,
    /// The entry maps a page of the kernel.
    pub kernel: Option<KernelPage>,
}

/// A page of the kernel in a user space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KernelPage {
    /// The frame is in several spaces, and not theirs: the kernel interface page.
    Shared,
    /// The frame belongs to this space and is freed with the last of so many UTCBs on it.
    Utcbs(u32),
}

impl Slot {
    /// The word: the node below, then the count of UTCBs, which is never zero on a page of them, then the mark of the
    /// kernel interface page.
    const SHARED: usize = 1 << (usize::BITS - 1);
    const UTCBS_SHIFT: u32 = if usize::BITS == 64 { 32 } else { 26 };
    /// A count that cannot go on stays: on 32-bit machines, if more threads than there is room for have their UTCB on one
    /// page, and so share some, the page is freed with its space.
    const UTCBS_MAX: usize = (Self::SHARED - 1) >> Self::UTCBS_SHIFT;

    #[inline]
    pub(crate) fn of(node: NodeRef) -> Self {
        Self { node: Some(node), kernel: None }
    }

    /// The slot of a word that may mean nothing.
    pub(crate) fn of_word(word: usize) -> Self {
        Self::from_word(word)
    }

    #[inline]
    fn to_word(self) -> usize {
        let kernel = match self.kernel {
            None => 0,
            Some(KernelPage::Shared) => Self::SHARED,
            Some(KernelPage::Utcbs(count)) => (count as usize) << Self::UTCBS_SHIFT,
        };
        self.node.to_word() | kernel
    }

    #[inline]
    fn from_word(word: usize) -> Self {
        let count = (word & !Self::SHARED) >> Self::UTCBS_SHIFT;
        let kernel = match (word & Self::SHARED, count) {
            (0, 0) => None,
            (0, count) => Some(KernelPage::Utcbs(count as u32)),
            _ => Some(KernelPage::Shared),
        };
        Self { node: AsWord::from_word(word & ((1 << Self::UTCBS_SHIFT) - 1)), kernel }
    }
}

impl KernelPage {
    /// A page of UTCBs with one more.
    pub(super) fn with_one_more(count: u32) -> Self {
        Self::Utcbs((count + 1).min(Slot::UTCBS_MAX as u32))
    }

    /// A page of UTCBs with one less; `None`: without any.
    pub(super) fn with_one_less(count: u32) -> Option<Self> {
        let is_certain = (count as usize) < Slot::UTCBS_MAX;
        let left = if is_certain { count - 1 } else { count };
        (left > 0).then_some(Self::Utcbs(left))
    }
}

/// An entry of a table, and its shadow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Level of the table.
    pub level: u32,
    /// The entry.
    pub entry_at: PhysAddr,
    /// Its shadow.
    pub slot_at: PhysAddr,
    /// The entry as it was read; [`Spaces::entry`] tells what it means.
    pub word: u64,
    /// How many tables of the space had been taken out then.
    pub tables_taken_out: u32,
}

/// A page that a user has mapped: valid under the lock of its frame's tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped {
    pub node: NodeRef,
    pub level: u32,
    pub frame: u64,
    pub access: Access,
    pub cache: PatIndex,
}

/// A page as it is mapped now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The physical address that the address asked about leads to.
    pub phys: PhysAddr,
    /// log2 of the page's size.
    pub size_log2: u32,
    /// Rights of the page.
    pub rights: Rights,
    /// Memory type of the page.
    pub cache: PatIndex,
    /// Whether the page is the kernel's: the KIP or UTCBs.
    pub is_kernel_page: bool,
}

/// Entries of a table that cost as much to look at as one other thing that is done, generously.
pub(super) const SCANNED_FOR_ONE: u64 = 64;

impl<M: Mmu> Spaces<'_, M> {
    /// log2 of the page that an entry of `level` maps.
    #[inline(always)]
    pub(super) fn page_log2(level: u32) -> u32 {
        M::Format::size_log2(level)
    }

    #[inline(always)]
    pub(super) fn top() -> u32 {
        M::Format::LEVELS - 1
    }

    /// The end of the addresses that can be roots: those of physical memory, in sigma0's space the kernel's own part too,
    /// if superpages there do not need tables of their own.
    pub(super) fn root_end(&self) -> u64 {
        let end = if Self::top() <= LEVEL_MAX { 1 << Self::page_log2(M::Format::LEVELS) } else { self.config.user_end };
        end.min(self.config.physical_end)
    }

    /// The end of the addresses of `space` that can have mappings.
    #[inline]
    pub(super) fn end_of(&self, space: &Space) -> u64 {
        if space.is_sigma0() { self.root_end() } else { self.config.user_end }
    }

    /// The entry for `address` in the table at `table`, whose shadow is at `shadow`.
    #[inline(always)]
    pub(super) fn place(&self, level: u32, table: PhysAddr, shadow: PhysAddr, address: u64) -> Place {
        let at = (M::Format::index(level, address) as u64) << M::Format::ENTRY_LOG2;
        let (entry_at, slot_at) = (PhysAddr(table.0 + at), PhysAddr(shadow.0 + at));
        Place { level, entry_at, slot_at, word: self.machine.read(entry_at) as u64, tables_taken_out: 0 }
    }

    /// What the entry meant when it was read.
    #[inline(always)]
    pub(super) fn entry(&self, place: &Place) -> Entry {
        self.machine.format().decode(place.level, place.word)
    }

    /// The entry for `address` in the root table. What is the kernel's looks empty.
    #[inline(always)]
    fn root_place(&self, space: &Space, address: u64) -> Place {
        let place = self.place(Self::top(), space.root.get(), space.shadow.get(), address);
        if address < self.config.user_end { place } else { Place { word: 0, ..place } }
    }

    /// The table that the entry leads to, and its shadow.
    #[inline(always)]
    pub(super) fn below(&self, place: &Place) -> Option<(PhysAddr, PhysAddr)> {
        let table = self.machine.format().below(place.level, place.word)?;
        Some((PhysAddr(table), PhysAddr(self.machine.read(place.slot_at) as u64)))
    }

    /// The entry that decides about `address`, at `level` or above.
    #[inline(always)]
    pub(super) fn walk(&self, space: &Space, address: u64, level: u32) -> Place {
        loop {
            if let Some(place) = self.try_walk(space, address, level) {
                return place;
            }
        }
    }

    /// As [`Self::walk`], unless a table is taken out meanwhile.
    #[inline(always)]
    fn try_walk(&self, space: &Space, address: u64, level: u32) -> Option<Place> {
        let tables_taken_out = space.tables_taken_out.get();
        fence(Ordering::Acquire);
        let mut place = self.root_place(space, address);
        for next in (0..Self::top()).rev() {
            let Some((table, shadow)) = self.below(&place).filter(|_| next >= level) else { break };
            place = self.place(next, table, shadow, address);
            fence(Ordering::Acquire);
            if space.tables_taken_out.get() != tables_taken_out {
                return None;
            }
        }
        Some(Place { tables_taken_out, ..place })
    }

    /// The entry of the lowest level for `address`, a user's, where pages of the smallest size are. `None` if there is no
    /// table for it, or `is_certain` does not say after a read that what was read is true.
    #[inline(always)]
    pub(super) fn walk_to_page(&self, space: &Space, address: u64, is_certain: impl Fn() -> bool) -> Option<Place> {
        let mut place = self.place(Self::top(), space.root.get(), space.shadow.get(), address);
        for level in (0..Self::top()).rev() {
            let (table, shadow) = self.below(&place)?;
            place = self.place(level, table, shadow, address);
            fence(Ordering::Acquire);
            if !is_certain() {
                return None;
            }
        }
        Some(place)
    }

    /// The entry that decides about `address`: level, place and word. Only where no table can be freed meanwhile.
    #[inline(always)]
    fn walk_tables(&self, space: &Space, address: u64) -> (u32, PhysAddr, u64) {
        let read = |level, table: PhysAddr| {
            let at = PhysAddr(table.0 + ((M::Format::index(level, address) as u64) << M::Format::ENTRY_LOG2));
            (level, at, self.machine.read(at) as u64)
        };
        let mut found = read(Self::top(), space.root.get());
        for next in (0..Self::top()).rev() {
            let Some(table) = self.machine.format().below(found.0, found.2) else { break };
            found = read(next, PhysAddr(table));
        }
        found
    }

    /// The entry that decides about `address`, and the one that leads to its table; `None` in the root table.
    pub(super) fn walk_path(&self, space: &Space, address: u64) -> (Option<Place>, Place) {
        let mut above = None;
        let mut place = self.root_place(space, address);
        while let Some((table, shadow)) = self.below(&place) {
            above = Some(place);
            place = self.place(place.level - 1, table, shadow, address);
        }
        (above, place)
    }

    /// Claims the frames for the tables that [`Self::walk_and_fill`] will make on the way to `address`, and `others`; all of
    /// them will be used, and are charged to the space. Needs the lock of the space, which is held until then. The claim
    /// must be given back.
    ///
    /// # Errors
    /// [`NoMemory`]: not enough for all of it, or not for this space.
    pub(super) fn reserve_tables<const P: u8>(
        &self,
        held: &mut Held<P>,
        space: &Space,
        address: u64,
        level: u32,
        others: usize,
    ) -> Result<Reserved, NoMemory> {
        let place = self.walk(space, address, level);
        let missing = if place.word == 0 { (place.level - level) as usize } else { 0 };
        let frames = 2 * missing + others;
        if frames > 0 {
            self.charge(space, frames * FRAME)?;
        }
        self.kmem.reserve(held, frames).ok_or_else(|| {
            self.discharge(space, frames * FRAME);
            NoMemory
        })
    }

    /// As [`Self::walk`], with tables made where there are none, of frames from the claim. Needs the lock of the space.
    pub(super) fn walk_and_fill<const P: u8>(
        &self,
        held: &mut Held<P>,
        space: &Space,
        address: u64,
        level: u32,
        claim: &mut Reserved,
    ) -> Place {
        let mut place = self.root_place(space, address);
        while place.level > level {
            let (table, shadow) = match self.below(&place) {
                Some(below) => below,
                None if place.word == 0 => self.add_table(held, &place, claim),
                None => break,
            };
            place = self.place(place.level - 1, table, shadow, address);
        }
        place
    }

    fn add_table<const P: u8>(&self, held: &mut Held<P>, place: &Place, claim: &mut Reserved) -> (PhysAddr, PhysAddr) {
        let [table, shadow] = [(); 2].map(|()| self.kmem.alloc_reserved(self.machine, held, claim));
        self.link_table(place, table, shadow);
        (table, shadow)
    }

    /// Lets an empty entry lead to a table. Needs the lock of the space.
    pub(super) fn link_table(&self, place: &Place, table: PhysAddr, shadow: PhysAddr) {
        // The shadow first: who finds the table must find its shadow.
        self.machine.write(place.slot_at, shadow.0 as usize);
        self.machine.write(place.entry_at, self.machine.format().table(table.0) as usize);
    }

    /// As [`Self::walk_and_fill`], all of it or nothing: after an error no table was made.
    pub(super) fn make_tables<const P: u8>(
        &self,
        held: &mut Held<P>,
        space: &Space,
        address: u64,
        level: u32,
    ) -> Result<Place, NoMemory> {
        let mut claim = self.reserve_tables(held, space, address, level, 0)?;
        let place = self.walk_and_fill(held, space, address, level, &mut claim);
        self.kmem.give_back(held, claim);
        Ok(place)
    }

    /// Reads the entry for `address` again, for which a walk found `place`; `None` if its table may be gone. If the page
    /// that is found is mapped and the lock of its tree held, the table stays.
    #[inline]
    pub(super) fn reload(&self, space: &Space, place: &Place, address: u64) -> Option<Place> {
        if address >= self.config.user_end {
            return Some(*place);
        }
        let again = self.reread(place);
        fence(Ordering::Acquire);
        (space.tables_taken_out.get() == place.tables_taken_out).then_some(again)
    }

    /// Reads an entry again whose table is sure to be there: the lock of its space is held.
    #[inline]
    pub(super) fn reread(&self, place: &Place) -> Place {
        Place { word: self.machine.read(place.entry_at) as u64, ..*place }
    }

    /// What the shadow of a page's entry holds.
    #[inline]
    pub(super) fn slot(&self, place: &Place) -> Slot {
        Slot::from_word(self.machine.read(place.slot_at))
    }

    #[inline]
    pub(super) fn set_slot(&self, place: &Place, slot: Slot) {
        self.machine.write(place.slot_at, slot.to_word());
    }

    /// The page of a user at `address`, for which `place` was found. Certain under the lock of the frame's tree only.
    #[inline(always)]
    pub(super) fn mapped(&self, space: &Space, place: &Place, address: u64) -> Option<Mapped> {
        if space.is_sigma0() {
            return self.own_of_sigma0(place, address);
        }
        let Entry::Leaf(leaf) = self.entry(place) else { return None };
        let node = self.slot(place).node?;
        Some(Mapped { node, level: place.level, frame: leaf.frame, access: leaf.access, cache: leaf.cache })
    }

    /// The page of sigma0 at `address`. What it has is at its physical address, even where it can have no entry for it:
    /// among pages of the kernel, or above all user addresses.
    #[inline(never)]
    fn own_of_sigma0(&self, place: &Place, address: u64) -> Option<Mapped> {
        if !self.may_be_own(place, address) {
            return None;
        }
        let (level, entry) = (place.level, self.entry(place));
        let node = self.slot(place).node?;
        let frame = address >> Self::page_log2(level) << Self::page_log2(level);
        let (access, cache) = match entry {
            Entry::Leaf(leaf) if !self.mapdb.node(node).is_detached() => (leaf.access, leaf.cache),
            _ => (Access::FULL, PatIndex::default()),
        };
        Some(Mapped { node, level, frame, access, cache })
    }

    /// Whether the shadow of sigma0's entry for `address` may hold a node: beside a page, or where a root can be detached.
    /// Elsewhere a table may just be coming, and the shadow becoming a link to another.
    fn may_be_own(&self, place: &Place, address: u64) -> bool {
        match self.entry(place) {
            Entry::Leaf(_) => true,
            Entry::Table(_) => false,
            Entry::Empty => self.may_be_detached(place, address),
        }
    }

    /// Whether sigma0 can have a root without an entry there.
    fn may_be_detached(&self, place: &Place, address: u64) -> bool {
        place.level == 0 || address >= self.config.user_end
    }

    /// The frame of the user page at `address`, for which `place` was found. May be outdated.
    #[inline]
    pub(super) fn frame_at(&self, space: &Space, place: &Place, address: u64) -> Option<u64> {
        if space.is_sigma0() {
            // The slot may be that of another table by now: what it holds must not be used.
            let is_there = self.may_be_own(place, address) && self.slot(place).node.is_some();
            return is_there.then_some(address >> Self::page_log2(place.level) << Self::page_log2(place.level));
        }
        let Entry::Leaf(leaf) = self.entry(place) else { return None };
        // Pages of the kernel are small. The shadow of a large one may just be becoming a link.
        (place.level > 0 || self.slot(place).kernel.is_none()).then_some(leaf.frame)
    }

    /// The first address from `address` up to `end` that may not be in the hole where `place`, which is empty, was found.
    /// A table that is taken out meanwhile is as good as a hole. Goes no further than the budget and the end of the table
    /// allow; the first unit of the budget is spent already.
    pub(super) fn skip_hole(&self, space: &Space, place: &Place, address: u64, end: u64, budget: &mut u32) -> u64 {
        let size_log2 = Self::page_log2(place.level);
        let mut next = ((address >> size_log2) + 1) << size_log2;
        let limit = if !space.is_sigma0() { end } else { self.end_of_attached(place, next).min(end) };
        let mut at = PhysAddr(place.entry_at.0 + (1 << M::Format::ENTRY_LOG2));
        let behind_it = (FRAME_SIZE - place.entry_at.0 % FRAME_SIZE) >> M::Format::ENTRY_LOG2;
        let mut left = (behind_it - 1).min((limit.saturating_sub(next) + low_bits(size_log2)) >> size_log2);
        while left > 0 {
            let part = left.min(SCANNED_FOR_ONE);
            let empty = self.count_empty(at, part);
            next += empty << size_log2;
            left -= part;
            if empty < part || left == 0 || !spend(budget) {
                break;
            }
            at.0 += part << M::Format::ENTRY_LOG2;
        }
        next.min(end)
    }

    /// Where in the table of `place` roots of sigma0 can be without an entry, from `next` on: there the shadow must be looked
    /// at.
    fn end_of_attached(&self, place: &Place, next: u64) -> u64 {
        if place.level == 0 { next } else { self.config.user_end }
    }

    /// How many of the `count` entries from `at` on are empty before the first that is not.
    #[inline]
    fn count_empty(&self, at: PhysAddr, count: u64) -> u64 {
        const TOGETHER: u64 = 8;
        let read = |index: u64| self.machine.read(PhysAddr(at.0 + (index << M::Format::ENTRY_LOG2)));
        let mut empty = 0;
        while empty + TOGETHER <= count && (0..TOGETHER).fold(0, |all, index| all | read(empty + index)) == 0 {
            empty += TOGETHER;
        }
        while empty < count && read(empty) == 0 {
            empty += 1;
        }
        empty
    }

    /// A leaf entry for user code.
    #[inline]
    pub(super) fn leaf(&self, level: u32, frame: u64, access: Access, cache: PatIndex) -> usize {
        let leaf = Leaf { frame, access, user: true, global: false, cache, status: Status::default() };
        self.machine.format().leaf(level, leaf) as usize
    }

    /// The physical address of user memory at `address`, if `access` is allowed there; the page is marked as accessed,
    /// as if user code had done it. To be called, and the address to be used, between [`Machine::begin_copy`] and
    /// [`Machine::end_copy`], which keep frames and tables from being freed.
    ///
    /// [`Machine::begin_copy`]: crate::machine::Machine::begin_copy
    /// [`Machine::end_copy`]: crate::machine::Machine::end_copy
    pub fn touch(&self, space: SpaceRef, address: usize, access: Rights) -> Option<PhysAddr> {
        let address = address as u64;
        if address >= self.config.user_end {
            return None;
        }
        let (space, write) = (self.get(space), access.contains(Rights::WRITE));
        let set = self.machine.format().set_status(Status { accessed: true, dirty: write }).set;
        loop {
            let (level, at, word) = self.walk_tables(space, address);
            let Entry::Leaf(leaf) = self.machine.format().decode(level, word) else { return None };
            if write && !leaf.access.write {
                return None;
            }
            // An entry that was cleared meanwhile must stay empty.
            if word & set == set || self.machine.replace(at, word as usize, (word | set) as usize) {
                return Some(PhysAddr(leaf.frame | address & ((1 << Self::page_log2(level)) - 1)));
            }
        }
    }

    /// What is mapped at `address`. Only a hint unless the caller can rule out that it is being changed.
    pub fn lookup(&self, space: SpaceRef, address: usize) -> Option<Mapping> {
        let address = address as u64;
        if address >= self.config.user_end {
            return None;
        }
        let place = self.walk(self.get(space), address, 0);
        let Entry::Leaf(leaf) = self.entry(&place) else { return None };
        let size_log2 = Self::page_log2(place.level);
        Some(Mapping {
            phys: PhysAddr(leaf.frame | address & ((1 << size_log2) - 1)),
            size_log2,
            rights: rights_of(leaf.access),
            cache: leaf.cache,
            is_kernel_page: self.slot(&place).kernel.is_some(),
        })
    }
}
