//! Spaces on a fake machine, and a small language to use them in tests.
//!
//! A script is a list of commands, separated by commas:
//!
//! - `map S:A -> D:B`, `grant S:A -> D:B`: from space S, send fpage A, to space D, window B; `@ hex` adds a send base
//! - `unmap S:A`, `flush S:A`: `? rights` checks the access status that comes back
//! - `cache S:A ^ n`: sets the memory type to entry n of the page attribute table
//! - `touch S:hex`, `write S:hex`: an access by user code; `fault hex`: by sigma0, where it has nothing
//! - `utcb S:hex`: a page of UTCBs; `release S`: the end of a space
//!
//! An fpage is `hex`, `hex/size` or `all`, then `=rights`, all three if left out. Sizes are `1k`, `64k`, and `S` for a
//! superpage, which is larger on one format than on the other; `2S` are two of them, and `L` is the next larger page. What is mapped is printed as trees:
//! `space:hex/size=rights@frame (derived, ...)`, where size is `/S` or `/L`, full rights are left out, and so is
//! the frame unless it is part of a larger page above. A memory type other than the default follows as `^n`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use kformats::paging::{Access, Amd64, Edit, Entry, Ia32, Leaf, PageFormat, PatIndex, Status};
use l4_abi::{Fpage, MapItem, MapKind, Rights, Word};

use crate::kmem::{FRAME_SIZE, Kmem};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, NoMemory, NodeRef, PhysAddr, PhysMem, SpaceRef, Tlb};
use crate::mapdb::{MapCursor, Node, Progress, UnmapScope};
use crate::pool::Table;
use crate::space::tables::Mapped;
use crate::space::{Place, Rest, Space, SpaceConfig, SpaceKind, Spaces, Transfer, access_of, rights_of};
use crate::tests::backing::{Backing, Kind};
use crate::trace::Sink;
use crate::var::Var;

/// Names of the spaces, in the order of their slots.
pub const NAMES: [&str; 5] = ["sigma0", "root", "app", "web", "disk"];
const MEMORY_BASE: u64 = 0x10_0000;
const NODES_PER_FRAME: usize = FRAME_SIZE as usize / size_of::<Node>();
const KIP: PhysAddr = PhysAddr(0x9000);
pub const KIP_AREA: u64 = 0xBFF0_0000;
pub const UTCB_AREA: u64 = 0xBF00_0000;
/// An entry of the kernel, which nobody but the kernel touches.
const KERNEL_ENTRY: usize = 0x0DEA_D063;
pub const UNLIMITED: u32 = 1_000_000;
/// Words of page tables that a step may touch, for each unit of its budget and besides.
const TOUCHES_PER_UNIT: u64 = 100;
const TOUCHES_PER_STEP: u64 = 1200;

/// A format with what the tests must know about it.
pub trait TestFormat: PageFormat + 'static {
    const FORMAT: Self;
    const USER_END: u64;
}

impl TestFormat for Amd64 {
    const FORMAT: Self = Amd64 { no_execute: true, global: true, pat: true, huge: true };
    const USER_END: u64 = 0x7FFF_FFFF_F000;
}

impl TestFormat for Ia32 {
    const FORMAT: Self = Ia32 { large: true, global: true, pat: true };
    const USER_END: u64 = 0xC000_0000;
}

/// A small copy of 64-bit x86: pages of three sizes, of which a larger one has only eight smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Toy;

impl Toy {
    const LIKE: Amd64 = Amd64 { no_execute: true, global: true, pat: true, huge: true };
    /// A bit that the processor ignores: the entry maps a page.
    const IS_LEAF: u64 = 1 << 9;
}

impl PageFormat for Toy {
    const LEVELS: u32 = 8;
    const INDEX_BITS: u32 = 3;
    const ENTRY_LOG2: u32 = 9;
    const TABLE_MASK: u64 = Amd64::TABLE_MASK;

    fn leaf_allowed(&self, level: u32) -> bool {
        level < 3
    }

    fn table(&self, frame: u64) -> u64 {
        Self::LIKE.table(frame)
    }

    fn leaf(&self, _level: u32, leaf: Leaf) -> u64 {
        Self::LIKE.leaf(0, leaf) | Self::IS_LEAF
    }

    fn below(&self, level: u32, entry: u64) -> Option<u64> {
        match self.decode(level, entry) {
            Entry::Table(table) => Some(table),
            _ => None,
        }
    }

    fn decode(&self, _level: u32, entry: u64) -> Entry {
        match entry & Self::IS_LEAF {
            0 => Self::LIKE.decode(1, entry),
            _ => Self::LIKE.decode(0, entry & !Self::IS_LEAF),
        }
    }

    fn effective(&self, access: Access) -> Access {
        Self::LIKE.effective(access)
    }

    fn set_access(&self, access: Access) -> Edit {
        Self::LIKE.set_access(access)
    }

    fn cache_allowed(&self, cache: PatIndex) -> bool {
        Self::LIKE.cache_allowed(cache)
    }

    fn set_cache(&self, _level: u32, cache: PatIndex) -> Edit {
        Self::LIKE.set_cache(0, cache)
    }
}

impl TestFormat for Toy {
    const FORMAT: Self = Self;
    const USER_END: u64 = 0x2_0000_0000;
}

/// A machine of ordinary memory.
pub struct Fake<F> {
    words: Vec<Cell<usize>>,
    /// Words that are not zero, in frames that were cleared.
    used: RefCell<BTreeSet<usize>>,
    pub invalidated: RefCell<BTreeSet<(usize, usize, u32)>>,
    pub backing: Backing,
    nodes: Vec<Node>,
    /// Root tables with a port map: a frame that it needs, and the bits it shows.
    pub port_maps: RefCell<BTreeMap<PhysAddr, (PhysAddr, [PhysAddr; 2])>>,
    /// Words of page tables and their shadows that were read or written.
    touches: Cell<u64>,
    /// What another processor does, and after how many reads.
    event: RefCell<Option<(u32, Event)>>,
    format: F,
}

type Event = Box<dyn FnOnce()>;

impl<F: TestFormat> Fake<F> {
    fn new(format: F, frames: usize) -> Self {
        let words = frames << (12 - F::ENTRY_LOG2);
        Self {
            // Memory is full of garbage until it is cleared.
            words: vec![Cell::new(0xA5A5_A5A5); words],
            used: RefCell::default(),
            invalidated: RefCell::default(),
            backing: Backing::default(),
            nodes: (0..1 << 14).map(|_| Node::default()).collect(),
            port_maps: RefCell::default(),
            touches: Cell::new(0),
            event: RefCell::default(),
            format,
        }
    }

    /// Counts a word that is read or written. The bits of ports are no page tables.
    fn note_touch(&self, at: PhysAddr) {
        let frame = PhysAddr(at.0 & !(FRAME_SIZE - 1));
        let maps = self.port_maps.borrow();
        if !maps.values().any(|(_, bits)| bits.contains(&frame)) {
            self.touches.set(self.touches.get() + 1);
        }
    }

    /// Has something done by another processor once so many more words were read.
    pub fn in_the_middle(&self, reads: u32, act: impl FnOnce() + 'static) {
        *self.event.borrow_mut() = Some((reads, Box::new(act)));
    }

    fn let_it_happen(&self) {
        let mut event = self.event.borrow_mut();
        match event.take() {
            Some((0, act)) => {
                drop(event);
                act();
            }
            later => *event = later.map(|(reads, act)| (reads - 1, act)),
        }
    }

    /// The number of the word at `at`.
    fn index(&self, at: PhysAddr) -> usize {
        assert_eq!(at.0 % (1 << F::ENTRY_LOG2), 0, "words are aligned");
        (at.0.checked_sub(MEMORY_BASE).expect("only kernel memory is used") >> F::ENTRY_LOG2) as usize
    }

    fn set(&self, at: PhysAddr, word: usize) {
        let index = self.index(at);
        self.words[index].set(word);
        match word {
            0 => self.used.borrow_mut().remove(&index),
            _ => self.used.borrow_mut().insert(index),
        };
    }

    /// Which words of these frames are not zero, by their place in the frame.
    fn used_in(&self, frames: [PhysAddr; 2]) -> BTreeSet<u64> {
        let used = self.used.borrow();
        let in_frame = |frame| {
            let first = self.index(frame);
            used.range(first..first + (1 << F::INDEX_BITS)).map(move |index| (index - first) as u64)
        };
        frames.into_iter().flat_map(in_frame).collect()
    }
}

impl<F: TestFormat> Sink for Fake<F> {}

impl<F: TestFormat> PhysMem for Fake<F> {
    fn read(&self, at: PhysAddr) -> usize {
        self.note_touch(at);
        self.let_it_happen();
        self.words[self.index(at)].get()
    }

    fn write(&self, at: PhysAddr, word: usize) {
        self.note_touch(at);
        self.set(at, word);
    }

    fn update(&self, at: PhysAddr, clear: usize, set: usize) -> usize {
        let old = self.read(at);
        self.set(at, old & !clear | set);
        old
    }

    fn replace(&self, at: PhysAddr, old: usize, new: usize) -> bool {
        let is_old = self.read(at) == old;
        if is_old {
            self.write(at, new);
        }
        is_old
    }

    fn zero_frame(&self, frame: PhysAddr) {
        let first = self.index(frame);
        let words = first..first + (1 << F::INDEX_BITS);
        self.words[words].iter().for_each(|word| word.set(0));
        for word in self.used_in([frame; 2]) {
            self.used.borrow_mut().remove(&(first + word as usize));
        }
    }
}

impl<F: TestFormat> Tlb for Fake<F> {
    fn invalidate(&self, space: SpaceRef, at: usize, size_log2: u32) {
        self.invalidated.borrow_mut().insert((space.index(), at, size_log2));
    }

    fn invalidate_all(&self, space: SpaceRef) {
        self.invalidated.borrow_mut().insert((space.index(), 0, u64::BITS));
    }

    fn complete(&self) {}

    fn flush_caches(&self) {}
}

impl<F: TestFormat> Mmu for Fake<F> {
    type Format = F;

    fn format(&self) -> F {
        self.format
    }

    fn init_root(&self, root: PhysAddr) {
        for index in kernel_entries::<F>() {
            self.write(PhysAddr(root.0 + (index << F::ENTRY_LOG2)), KERNEL_ENTRY);
        }
    }

    fn space_word(&self, space: SpaceRef, root: PhysAddr) -> usize {
        root.0 as usize | space.index()
    }

    fn back_nodes(&self, kmem: &Kmem, held: &mut Held<{ rank::NODES }>, first: NodeRef) -> Result<(), NoMemory> {
        self.backing.back(self, kmem, held, (Kind::Nodes, first.index()))
    }

    fn release_nodes(&self, kmem: &Kmem, held: &mut Held<{ rank::NODES }>, first: NodeRef) {
        self.backing.release(self, kmem, held, (Kind::Nodes, first.index()));
        self.nodes[first.index()..][..NODES_PER_FRAME].iter().for_each(Node::wipe);
    }

    fn back_spaces(&self, kmem: &Kmem, held: &mut Held<{ rank::SPACE }>, first: SpaceRef) -> Result<(), NoMemory> {
        self.backing.back(self, kmem, held, (Kind::Spaces, first.index()))
    }

    fn release_spaces(&self, kmem: &Kmem, held: &mut Held<{ rank::SPACE }>, first: SpaceRef) {
        self.backing.release(self, kmem, held, (Kind::Spaces, first.index()));
    }

    fn has_io_fpages(&self) -> bool {
        true
    }

    fn open_port_map(
        &self,
        kmem: &Kmem,
        held: &mut Held<{ rank::PORTS }>,
        _space: SpaceRef,
        root: PhysAddr,
        bits: [PhysAddr; 2],
    ) -> Result<(), NoMemory> {
        let frame = kmem.alloc(self, held).ok_or(NoMemory)?;
        assert_eq!(self.port_maps.borrow_mut().insert(root, (frame, bits)), None, "a space has one port map");
        Ok(())
    }

    fn close_port_map(&self, kmem: &Kmem, held: &mut Held<{ rank::PORTS }>, root: PhysAddr) {
        let (frame, _) = self.port_maps.borrow_mut().remove(&root).expect("the space has a port map");
        kmem.free(self, held, frame);
    }
}

/// The kernel's entries of a root table.
fn kernel_entries<F: TestFormat>() -> std::ops::Range<u64> {
    let top = F::LEVELS - 1;
    F::USER_END.div_ceil(1 << F::size_log2(top))..1 << F::INDEX_BITS
}

/// What a world is made of.
pub struct Parts<F> {
    pub fake: Fake<F>,
    pub kmem: Kmem,
    table: Vec<Space>,
    maps: [Vec<Var<usize>>; 2],
}

impl<F: TestFormat> Parts<F> {
    /// A machine with this many frames of kernel memory.
    pub fn new(frames: usize) -> Self {
        Self::with(F::FORMAT, frames)
    }

    /// The same with other features.
    pub fn with(format: F, frames: usize) -> Self {
        let parts = Self {
            fake: Fake::new(format, frames),
            kmem: Kmem::default(),
            table: (0..FRAME_SIZE as usize / size_of::<Space>()).map(|_| Space::default()).collect(),
            maps: [1, 2].map(|words| (0..words).map(|_| Var::zero()).collect()),
        };
        let end = PhysAddr(MEMORY_BASE + frames as u64 * FRAME_SIZE);
        assert!(parts.kmem.add_region(&mut Held::nothing(), PhysAddr(MEMORY_BASE), end, 0));
        parts
    }
}

/// Spaces called [`NAMES`].
pub struct World<'a, F: TestFormat> {
    pub parts: &'a Parts<F>,
    pub spaces: Spaces<'a, Fake<F>>,
    /// Budget of a step.
    pub budget: u32,
    /// Words of page tables that the longest step touched.
    pub longest: Cell<u64>,
}

/// A part of a space: space, address, size.
type Part = (usize, u64, u32);

/// What processors may know of page tables.
pub struct Known {
    /// Translations, and what they say.
    pages: BTreeMap<Part, (u64, Access, Status, PatIndex)>,
    /// The ways to tables, which processors keep apart from translations, and which outlive those (Intel SDM 3A, Caching
    /// Paging Structures).
    tables: BTreeMap<Part, PhysAddr>,
}

impl<'a, F: TestFormat> World<'a, F> {
    /// All spaces, initialised. Needs memory for that.
    pub fn new(parts: &'a Parts<F>, budget: u32) -> Self {
        Self::empty(parts, budget).with_spaces()
    }

    /// The same, on a processor that has no physical addresses from `end` on.
    pub fn with_physical_memory(parts: &'a Parts<F>, end: u64) -> Self {
        Self::with_config(parts, u32::MAX, SpaceConfig { user_end: F::USER_END, physical_end: end, kip: KIP })
            .with_spaces()
    }

    fn with_spaces(self) -> Self {
        let world = self;
        for name in NAMES {
            world.create(name).expect("memory for the spaces");
        }
        world
    }

    /// No space yet.
    pub fn empty(parts: &'a Parts<F>, budget: u32) -> Self {
        Self::with_config(parts, budget, SpaceConfig { user_end: F::USER_END, physical_end: u64::MAX, kip: KIP })
    }

    fn with_config(parts: &'a Parts<F>, budget: u32, config: SpaceConfig) -> Self {
        let spaces = Table { slots: &parts.table, backed: &parts.maps[0] };
        let nodes = Table { slots: &parts.fake.nodes, backed: &parts.maps[1] };
        let spaces = Spaces::new(&parts.fake, &parts.kmem, spaces, nodes, config);
        Self { parts, spaces, budget, longest: Cell::new(0) }
    }

    /// Makes the next space, which gets the next name.
    pub fn create(&self, name: &str) -> Result<SpaceRef, NoMemory> {
        let held = &mut Held::nothing();
        let kind = if name == NAMES[0] { SpaceKind::Sigma0 } else { SpaceKind::Ordinary };
        let space = self.spaces.create(held, kind)?;
        assert_eq!(NAMES[space.index()], name);
        let kip = Fpage::new(KIP_AREA as Word, 12, Rights::NONE).expect("an fpage");
        let utcb = Fpage::new(UTCB_AREA as Word, 18, Rights::NONE).expect("an fpage");
        if let Err(error) = self.spaces.initialise(held, space, kip, utcb) {
            self.complete(|held, cursor, budget| self.spaces.release(held, space, cursor, budget));
            return Err(error);
        }
        Ok(space)
    }

    /// Runs an operation to its end, in steps. Nothing is left to do for an access status: it comes with the cursor.
    pub fn complete(
        &self,
        mut step: impl FnMut(&mut Held<{ rank::NONE }>, &MapCursor, &mut u32) -> Progress,
    ) -> (Progress, Rights) {
        let cursor = MapCursor::default();
        loop {
            let progress = self.bounded_step(|held, budget| step(held, &cursor, budget));
            if progress != Progress::Again {
                return (progress, cursor.status());
            }
        }
    }

    /// Runs a step, which touches as much as its budget allows.
    pub fn bounded_step<T>(&self, step: impl FnOnce(&mut Held<{ rank::NONE }>, &mut u32) -> T) -> T {
        let before = self.parts.fake.touches.get();
        let result = step(&mut Held::nothing(), &mut self.budget.clone());
        let touches = self.parts.fake.touches.get() - before;
        self.longest.set(self.longest.get().max(touches));
        let bound = TOUCHES_PER_STEP + TOUCHES_PER_UNIT * u64::from(self.budget);
        assert!(touches <= bound, "a step with a budget of {} touched {touches} words", self.budget);
        result
    }

    /// Maps or grants.
    pub fn transfer(&self, transfer: Transfer) -> Progress {
        self.complete(|held, cursor, budget| self.spaces.map(held, &transfer, cursor, budget)).0
    }

    /// Unmaps or flushes; returns the access status.
    pub fn unmap(&self, space: usize, fpage: Fpage, scope: UnmapScope) -> Rights {
        let space = SpaceRef::new(space as u32);
        let unmap =
            |held: &mut _, cursor: &_, budget: &mut _| self.spaces.unmap(held, space, fpage, scope, cursor, budget);
        let (progress, status) = self.complete(unmap);
        assert_eq!(progress, Progress::Done);
        status
    }

    /// Sets a memory type.
    pub fn set_cache(&self, space: usize, fpage: Fpage, cache: PatIndex) -> Progress {
        let space = SpaceRef::new(space as u32);
        let set =
            |held: &mut _, cursor: &_, budget: &mut _| self.spaces.set_cache(held, space, fpage, cache, cursor, budget);
        self.complete(set).0
    }

    /// Ends a space.
    pub fn release(&self, space: usize) {
        let space = SpaceRef::new(space as u32);
        let (progress, _) = self.complete(|held, cursor, budget| self.spaces.release(held, space, cursor, budget));
        assert_eq!(progress, Progress::Done);
    }

    /// Ends all spaces; all memory must be free then.
    pub fn release_all(&self) {
        for space in (0..NAMES.len()).filter(|space| self.is_alive(*space)) {
            self.release(space);
        }
        let kmem = &self.parts.kmem;
        assert_eq!((kmem.free_count(), self.parts.fake.backing.count()), (kmem.total(), 0), "memory leaks");
        assert_eq!(self.spaces.mapdb().used(), 0, "nodes leak");
    }

    pub fn is_alive(&self, space: usize) -> bool {
        self.parts.table[space].is_used.get()
    }

    /// An access by user code: what the page walker does.
    pub fn access(&self, space: usize, address: u64, dirty: bool) {
        let slot = &self.parts.table[space];
        let place = self.spaces.walk(slot, address, 0);
        let Entry::Leaf(leaf) = self.spaces.entry(&place) else { panic!("{}:{address:x} is not mapped", NAMES[space]) };
        assert!(leaf.access.write || !dirty, "{}:{address:x} cannot be written", NAMES[space]);
        let bits = self.parts.fake.format.reset_status().clear as usize;
        let accessed = self.parts.fake.format.leaf(0, with_status(leaf, true, dirty)) as usize & bits;
        self.parts.fake.update(place.entry_at, 0, accessed);
    }

    /// All that is mapped by users: space, address, place, page.
    pub fn mappings(&self) -> Vec<(usize, u64, Place, Mapped)> {
        let mut found = Vec::new();
        for index in (0..NAMES.len()).filter(|index| self.is_alive(*index)) {
            let slot = &self.parts.table[index];
            let root = (slot.root.get(), slot.shadow.get());
            self.scan(index, Spaces::<Fake<F>>::top(), root, 0, &mut found);
        }
        found
    }

    /// The tables of user memory below the roots.
    fn tables(&self) -> BTreeMap<Part, PhysAddr> {
        let mut found = BTreeMap::new();
        for index in (0..NAMES.len()).filter(|index| self.is_alive(*index)) {
            let slot = &self.parts.table[index];
            self.scan_tables(index, Spaces::<Fake<F>>::top(), (slot.root.get(), slot.shadow.get()), 0, &mut found);
        }
        found
    }

    fn scan_tables(
        &self,
        index: usize,
        level: u32,
        table: (PhysAddr, PhysAddr),
        base: u64,
        found: &mut BTreeMap<Part, PhysAddr>,
    ) {
        for entry in self.parts.fake.used_in([table.0; 2]) {
            let address = base + (entry << F::size_log2(level));
            let place = self.spaces.place(level, table.0, table.1, address);
            if let Some(below) = self.spaces.below(&place).filter(|_| address < F::USER_END) {
                found.insert((index, address, F::size_log2(level)), below.0);
                self.scan_tables(index, level - 1, below, address, found);
            }
        }
    }

    fn scan(
        &self,
        index: usize,
        level: u32,
        table: (PhysAddr, PhysAddr),
        base: u64,
        found: &mut Vec<(usize, u64, Place, Mapped)>,
    ) {
        let slot = &self.parts.table[index];
        let end = self.spaces.end_of(slot);
        for entry in self.parts.fake.used_in([table.0, table.1]) {
            let address = base + (entry << F::size_log2(level));
            if address >= end {
                return;
            }
            let mut place = self.spaces.place(level, table.0, table.1, address);
            if address >= F::USER_END {
                place.word = 0;
            }
            match self.spaces.below(&place) {
                Some(below) => self.scan(index, level - 1, below, address, found),
                None => {
                    found.extend(self.spaces.mapped(slot, &place, address).map(|page| (index, address, place, page)))
                }
            }
        }
    }

    /// What processors may know if they have used all pages.
    pub fn known(&self) -> Known {
        let known_page = |(space, address, place, page): (usize, u64, Place, Mapped)| match self.spaces.entry(&place) {
            Entry::Leaf(leaf) if !self.spaces.mapdb().node(page.node).is_detached() => {
                Some(((space, address, F::size_log2(page.level)), (leaf.frame, leaf.access, leaf.status, leaf.cache)))
            }
            _ => None,
        };
        Known { pages: self.mappings().into_iter().filter_map(known_page).collect(), tables: self.tables() }
    }

    /// Checks all invariants, and that processors forgot what changed since `before`.
    pub fn check(&self, before: &Known, rest: Rest) {
        self.check_structure(rest);
        self.check_forgotten(before);
    }

    /// Checks all invariants, the count of frames, and the kernel's entries.
    pub fn check_structure(&self, rest: Rest) {
        let census =
            self.spaces.check_invariants(rest).unwrap_or_else(|broken| panic!("{broken:x?}\n{}", self.print()));
        let kmem = &self.parts.kmem;
        let in_use = kmem.total() - kmem.free_count();
        let (used, pages) = self.spaces.mapdb().pool().check();
        let spaces_pages = self.parts.fake.backing.count() - pages;
        assert_eq!((used, spaces_pages), (census.mappings, census.spaces.min(1)), "tables have what they need");
        assert_eq!(
            census.frames + pages + spaces_pages + self.parts.fake.port_maps.borrow().len(),
            in_use,
            "frames leak"
        );
        for slot in self.parts.table.iter().filter(|slot| slot.is_used.get()) {
            for index in kernel_entries::<F>() {
                assert_eq!(self.parts.fake.read(PhysAddr(slot.root().0 + (index << F::ENTRY_LOG2))), KERNEL_ENTRY);
            }
        }
    }

    /// Checks that processors were told to forget the translations in `before` that are gone or say less now, and the ways
    /// to tables that are gone. Returns those of now.
    pub fn check_forgotten(&self, before: &Known) -> Known {
        let now = self.known();
        let forgotten = self.parts.fake.invalidated.take();
        for (key, old) in &before.tables {
            let (space, address, size_log2) = *key;
            let is_forgotten =
                forgotten.contains(&(space, address as usize, size_log2)) || forgotten.contains(&(space, 0, u64::BITS));
            let is_same = now.tables.get(key) == Some(old);
            assert!(is_same || is_forgotten, "the table of {}:{address:x} is still walked", NAMES[space]);
        }
        for (key, old) in &before.pages {
            let is_same = now.pages.get(key).is_some_and(|new| {
                (new.0, new.3) == (old.0, old.3)
                    && new.1.covers(old.1)
                    && new.2.accessed >= old.2.accessed
                    && new.2.dirty >= old.2.dirty
            });
            let (space, address, size_log2) = *key;
            let is_forgotten = forgotten.contains(&(space, address as usize, size_log2));
            assert!(is_same || is_forgotten, "{}:{address:x} is still in the TLB", NAMES[space]);
        }
        now
    }

    /// The trees of mappings.
    pub fn print(&self) -> String {
        let mut pages = BTreeMap::new();
        let mut children: BTreeMap<Option<usize>, BTreeMap<(usize, u64), NodeRef>> = BTreeMap::new();
        for (space, address, _, page) in self.mappings() {
            let parent = self.spaces.mapdb().node(page.node).parent().map(NodeRef::index);
            children.entry(parent).or_default().insert((space, address), page.node);
            pages.insert(page.node.index(), page);
        }
        self.print_below(None, &children, &pages)
    }

    fn print_below(
        &self,
        parent: Option<usize>,
        children: &BTreeMap<Option<usize>, BTreeMap<(usize, u64), NodeRef>>,
        pages: &BTreeMap<usize, Mapped>,
    ) -> String {
        let Some(nodes) = children.get(&parent) else { return String::new() };
        let print = |((space, address), node): (&(usize, u64), &NodeRef)| {
            let page = &pages[&node.index()];
            let size = ["", "/S", "/L"][page.level as usize];
            let rights = if page.access == Access::FULL { String::new() } else { format!("={}", letters(page.access)) };
            let is_part = parent.is_some_and(|parent| pages[&parent].level > page.level);
            let frame = if is_part { format!("@{:x}", page.frame) } else { String::new() };
            let below = self.print_below(Some(node.index()), children, pages);
            let below = if below.is_empty() { below } else { format!(" ({below})") };
            let cache = if page.cache.index() > 0 { format!("^{}", page.cache.index()) } else { String::new() };
            format!("{}:{address:x}{size}{rights}{frame}{cache}{below}", NAMES[*space])
        };
        nodes.iter().map(print).collect::<Vec<_>>().join(", ")
    }

    /// Runs a script and checks everything after each command.
    pub fn run(&self, script: &str) {
        for command in commands(script) {
            let before = self.known();
            assert_eq!(self.try_command(command), Ok(()), "{command}");
            self.check(&before, Rest::Settled);
        }
    }

    /// Runs one command, which may find that there is no memory.
    pub fn try_command(&self, command: &str) -> Result<(), NoMemory> {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["map" | "grant", from, "->", to, ref rest @ ..] => {
                let base = if let ["@", base] = rest { hex(base) } else { 0 };
                let kind = if words[0] == "map" { MapKind::Map } else { MapKind::Grant };
                let ((source, fpage), (dest, window)) = (self.place_of(from), self.place_of(to));
                let (source, dest) = (SpaceRef::new(source as u32), SpaceRef::new(dest as u32));
                let item = MapItem { snd_base: base as Word, fpage, kind };
                if self.transfer(Transfer { source, dest, item, window }) == Progress::NoMemory {
                    return Err(NoMemory);
                }
            }
            ["unmap" | "flush", what, ref rest @ ..] => {
                let scope = if words[0] == "unmap" { UnmapScope::Derived } else { UnmapScope::Flush };
                let (space, fpage) = self.place_of(what);
                let status = self.unmap(space, fpage, scope);
                if let ["?", expected] = rest {
                    assert_eq!(status, rights(expected), "{command}");
                }
            }
            ["cache", what, "^", index] => {
                let (space, fpage) = self.place_of(what);
                let cache = PatIndex::new(hex(index) as u8).expect("an index");
                if self.set_cache(space, fpage, cache) == Progress::NoMemory {
                    return Err(NoMemory);
                }
            }
            ["touch" | "write", what] => {
                let (space, fpage) = self.place_of(what);
                self.access(space, fpage.base() as u64, words[0] == "write");
            }
            ["fault", address] => {
                let sigma0 = SpaceRef::new(0);
                let resolved = self.spaces.sigma0_fault(&mut Held::nothing(), sigma0, hex(address) as usize)?;
                assert!(resolved, "{command}");
            }
            ["utcb", what] => {
                let (space, fpage) = self.place_of(what);
                let space = SpaceRef::new(space as u32);
                self.spaces.add_utcb(&mut Held::nothing(), space, fpage.base() as usize)?;
            }
            ["release", name] => self.release(index_of(name)),
            _ => panic!("what is `{command}`?"),
        }
        Ok(())
    }

    /// The space and the fpage in `name:fpage`.
    fn place_of(&self, text: &str) -> (usize, Fpage) {
        let (name, fpage) = text.split_once(':').expect("a colon behind the space");
        let (place, letters) = fpage.split_once('=').unwrap_or((fpage, "rwx"));
        let rights = rights(letters);
        if place == "all" {
            return (index_of(name), Fpage::COMPLETE.with_rights(rights));
        }
        let (base, size) = place.split_once('/').unwrap_or((place, "4k"));
        let superpage = F::size_log2(1);
        let size_log2 = match size {
            "1k" => 10,
            "4k" => 12,
            "8k" => 13,
            "16k" => 14,
            "64k" => 16,
            "S" => superpage,
            "2S" => superpage + 1,
            "L" => F::size_log2(2),
            _ => panic!("what is the size `{size}`?"),
        };
        (index_of(name), Fpage::new(hex(base) as Word, size_log2, rights).expect("an aligned fpage"))
    }
}

/// The commands of a script.
pub fn commands(script: &str) -> impl Iterator<Item = &str> {
    script.split(',').map(str::trim).filter(|command| !command.is_empty())
}

fn with_status(leaf: kformats::paging::Leaf, accessed: bool, dirty: bool) -> kformats::paging::Leaf {
    kformats::paging::Leaf { status: Status { accessed, dirty }, ..leaf }
}

fn index_of(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap_or_else(|| panic!("what is the space `{name}`?"))
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("`{text}` is not hexadecimal"))
}

fn rights(letters: &str) -> Rights {
    letters.chars().fold(Rights::NONE, |rights, letter| {
        rights
            | match letter {
                'r' => Rights::READ,
                'w' => Rights::WRITE,
                'x' => Rights::EXECUTE,
                '-' => Rights::NONE,
                _ => panic!("what is the right `{letter}`?"),
            }
    })
}

fn letters(access: Access) -> String {
    let rights = rights_of(access);
    assert_eq!(access_of(rights), access);
    let letter = |right, letter| if rights.contains(right) { letter } else { "" };
    [letter(Rights::READ, "r"), letter(Rights::WRITE, "w"), letter(Rights::EXECUTE, "x")].concat()
}

/// Runs a script on one format, with steps of all sizes, and compares what is mapped in the end.
pub fn check_on<F: TestFormat>(script: &str, expected: &str) {
    for budget in [UNLIMITED, 1, 3] {
        let parts = Parts::<F>::new(256);
        let world = World::new(&parts, budget);
        world.run(script);
        assert_eq!(world.print(), expected, "{script}\n(budget {budget}, {} levels)", F::LEVELS);
        world.release_all();
    }
}

/// As [`check_on`], on both formats.
pub fn check(script: &str, expected: &str) {
    check_on::<Amd64>(script, expected);
    check_on::<Ia32>(script, expected);
}
