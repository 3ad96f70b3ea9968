//! Address spaces: page tables, their shadow, and the operations on mappings (X.2, Mappings).
//!
//! Each table of a space is a pair of frames: the table that the processor walks, and its *shadow*, which holds for an
//! entry that maps a page the [`Slot`] with the mapping's node, and for an entry that leads to a table the address of
//! that table's shadow. A table goes only with its space, or when a larger page takes its place, which a walk finds out
//! (`clear`); so tables may be walked without a lock. What an entry maps is only certain under a lock:
//!
//! - an entry is *filled* under the lock of its space and, if it gets a node, the lock of the frame's tree;
//! - an entry with a node is *cleared* or changed under the lock of the frame's tree.
//!
//! So an operation reads an entry, takes the lock of the tree for the frame it saw, and reads again. Locks are taken in
//! the order space, tree, node pool, kernel memory, one of each at a time.
//!
//! Pages in the KIP area and in the UTCB area are the kernel's: they have no node, cannot be mapped or unmapped by users
//! and vanish with the space.
//!
//! Operations on ranges run in steps: [`MapCursor`] says how far one has come, a budget bounds the work of a step, and
//! between two steps anything may happen to the mappings. The spaces named in an operation must live for all of it.

use kformats::paging::{Access, PAGE_LOG2, PageFormat};
use l4_abi::{Fpage, Rights, ThreadId};

use crate::kmem::Kmem;
use crate::lock::{Held, Lock, rank};
use crate::machine::{Mmu, NoMemory, PhysAddr, SpaceRef};
use crate::mapdb::{LEVEL_MAX, MapDb, Node, SUPERPAGE};
use crate::pool::{Head, Pool, Pooled, Table};
use crate::sync::{AtomicU32, Ordering};
use crate::var::{AsWord, Var};

mod account;
mod check;
mod clear;
mod kernel_pages;
mod map;
mod map_page;
mod ports;
mod release;
mod roots;
#[cfg(test)]
mod sight;
mod tables;
#[cfg(all(test, not(feature = "explore")))]
mod tests;
mod unmap;

pub use account::NO_QUOTA;
pub(crate) use account::{bytes_of, kib_of};
pub use check::{Broken, Census, Rest};
pub use map::Transfer;
pub(crate) use map_page::PageTransfer;
pub use ports::PortTransfer;
pub use tables::Mapping;
pub(crate) use tables::{Place, Slot};

const PAGE_SIZE: u64 = 1 << PAGE_LOG2;

impl AsWord for Fpage {
    type Cell = crate::sync::AtomicUsize;
    #[inline(always)]
    fn to_word(self) -> usize {
        self.raw() as usize
    }
    #[inline(always)]
    fn from_word(word: usize) -> Self {
        Self::from_raw(word as _)
    }
}

/// Who runs in a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceKind {
    /// Programs.
    Ordinary,
    /// A server that may use the privileged system calls.
    Privileged,
    /// sigma0: privileged, and the owner of all physical memory. There is one.
    Sigma0,
}

/// An address space. A slot of the table lies in one page, so that one page backs it.
#[derive(Default)]
#[repr(align(256))]
pub struct Space {
    root: Var<PhysAddr>,
    shadow: Var<PhysAddr>,
    kip_area: Area,
    utcb_area: Area,
    machine_word: Var<usize>,
    threads: AtomicU32,
    is_used: Var<bool>,
    is_initialised: Var<bool>,
    is_privileged: Var<bool>,
    is_sigma0: Var<bool>,
    /// Not 0 while threads of the space must not take the IPC fast path.
    fast_path_bar: Var<u32>,
    /// Who gets what leaves the space; nilthread: whoever it is sent to.
    redirector: Var<ThreadId>,
    lock: Lock<{ rank::SPACE }>,
    ports: ports::Ports,
    account: account::Account,
    /// Tables that gave way to larger pages, counted.
    tables_taken_out: Var<u32>,
    /// In a free slot, the next one.
    next_free: Var<Option<SpaceRef>>,
    page: PageHead,
}

crate::load::load_fields!(Area: fpage, first, end);
crate::load::load_fields!(PageHead: next, prev, free, counts);
crate::load::load_fields!(Space: root, shadow, kip_area, utcb_area, machine_word, threads, is_used, is_initialised,
    is_privileged, is_sigma0, fast_path_bar, redirector, ports, account, tables_taken_out, next_free, page);

/// What the pool keeps in the last slot of a page.
#[derive(Default)]
struct PageHead {
    next: Var<Option<SpaceRef>>,
    prev: Var<Option<SpaceRef>>,
    free: Var<Option<SpaceRef>>,
    counts: Var<usize>,
}

impl Pooled for Space {
    type Ref = SpaceRef;

    fn next_free(&self) -> &Var<Option<SpaceRef>> {
        &self.next_free
    }

    fn head(&self) -> Head<'_, SpaceRef> {
        let PageHead { next, prev, free, counts } = &self.page;
        Head { next, prev, free, counts }
    }
}

/// A part of a space that is the kernel's; empty at first.
#[derive(Default)]
struct Area {
    fpage: Var<Fpage>,
    first: Var<usize>,
    end: Var<usize>,
}

impl Area {
    fn set(&self, fpage: Fpage) {
        let size = if fpage.is_nil() { 0 } else { 1 << fpage.size_log2() };
        self.fpage.set(fpage);
        self.first.set(fpage.base() as usize);
        self.end.set(fpage.base() as usize + size);
    }

    /// Whether it has an address in the 2^`size_log2` bytes at `address`, a multiple of that size.
    #[inline(always)]
    fn meets(&self, address: u64, size_log2: u32) -> bool {
        address < self.end.get() as u64 && self.first.get() as u64 >> size_log2 << size_log2 <= address
    }
}

impl Space {
    /// Whether the space has its KIP and UTCB areas: before, it can have neither mappings nor active threads.
    #[inline]
    pub fn is_initialised(&self) -> bool {
        self.is_initialised.get()
    }

    /// Whether the slot holds a space.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.get()
    }

    /// The root table and its shadow.
    pub(crate) fn tables(&self) -> (PhysAddr, PhysAddr) {
        (self.root.get(), self.shadow.get())
    }

    /// Whether it begins the list of spaces with ports.
    pub(crate) fn is_first_with_ports(&self) -> bool {
        self.ports.is_first()
    }

    /// Frames for ports.
    pub(crate) fn port_frames(&self) -> usize {
        self.ports.frames()
    }

    /// The frame with the ranges of ports, and how many there are.
    pub(crate) fn ports_table(&self) -> (PhysAddr, u32) {
        self.ports.table()
    }

    /// Whether threads in it may use the privileged system calls.
    #[inline]
    pub fn is_privileged(&self) -> bool {
        self.is_privileged.get()
    }

    /// Whether this is sigma0's space.
    #[inline]
    pub fn is_sigma0(&self) -> bool {
        self.is_sigma0.get()
    }

    /// The thread that gets the IPC that leaves the space, by its global id; nilthread: there is no redirection.
    #[inline]
    pub fn redirector(&self) -> ThreadId {
        self.redirector.get()
    }

    /// Whether threads of the space must leave their IPC to the general path, which knows of redirection.
    #[inline]
    pub fn bars_fast_path(&self) -> bool {
        self.fast_path_bar.get() != 0
    }

    /// Sets the redirector. The fast path is barred, and no thread of the space is in a plain wait.
    pub(crate) fn set_redirector(&self, redirector: ThreadId) {
        debug_assert!(self.bars_fast_path(), "the fast path does not redirect");
        self.redirector.set(redirector);
    }

    /// Ends redirection.
    pub(crate) fn clear_redirector(&self) {
        self.redirector.set(ThreadId::NIL);
        self.fast_path_bar.set(0);
    }

    /// The number of the bar to the fast path, another one each time that it is set; 0: there is none.
    pub(crate) fn fast_path_bar(&self) -> u32 {
        self.fast_path_bar.get()
    }

    /// The machine's word for this space ([`Mmu::space_word`]).
    #[inline]
    pub fn machine_word(&self) -> usize {
        self.machine_word.get()
    }

    /// The root table.
    pub fn root(&self) -> PhysAddr {
        self.root.get()
    }

    /// Where the kernel interface page is; nilpage before initialisation.
    pub fn kip_area(&self) -> Fpage {
        self.kip_area.fpage.get()
    }

    /// Where UTCBs may be; nilpage before initialisation.
    pub fn utcb_area(&self) -> Fpage {
        self.utcb_area.fpage.get()
    }

    /// Threads in the space, active or not.
    pub fn threads(&self) -> u32 {
        self.threads.load(Ordering::Relaxed)
    }

    /// One thread more.
    pub fn add_thread(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }

    /// One thread more, unless there is none: then the space is being released. Says whether there was one.
    pub fn try_add_thread(&self) -> bool {
        let more = |threads: u32| (threads > 0).then(|| threads + 1);
        self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// One thread less; returns how many are left.
    pub fn remove_thread(&self) -> u32 {
        self.threads.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// Whether two fpages have an address in common.
    pub fn overlap(a: Fpage, b: Fpage) -> bool {
        a.base() <= b.last() && b.base() <= a.last()
    }

    /// Whether the 2^`size_log2` bytes at `address`, a multiple of that size, meet an area of the kernel.
    #[inline]
    fn is_protected(&self, address: u64, size_log2: u32) -> bool {
        self.kip_area.meets(address, size_log2) || self.utcb_area.meets(address, size_log2)
    }
}

/// Facts about spaces that the boot code knows.
#[derive(Clone, Copy, Debug)]
pub struct SpaceConfig {
    /// First address that is not the users'; a multiple of the page size.
    pub user_end: u64,
    /// First physical address that the processor does not have; a multiple of the size of a superpage. No page is there.
    pub physical_end: u64,
    /// The frame of the kernel interface page.
    pub kip: PhysAddr,
}

/// All address spaces, with what they are made of.
pub struct Spaces<'k, M> {
    machine: &'k M,
    kmem: &'k Kmem,
    mapdb: MapDb<'k>,
    ports: ports::PortsOfAll,
    config: SpaceConfig,
    /// Guards which slots are in use.
    lock: Lock<{ rank::SPACE }>,
    table: Pool<'k, Space>,
    /// The last number of a bar to the fast path.
    bars: AtomicU32,
}

impl<'k, M: Mmu> Spaces<'k, M> {
    /// No space yet. `table` and `nodes` are zero; they are backed with memory as far as they are needed.
    pub fn new(
        machine: &'k M,
        kmem: &'k Kmem,
        table: Table<'k, Space>,
        nodes: Table<'k, Node>,
        config: SpaceConfig,
    ) -> Self {
        Self {
            machine,
            kmem,
            mapdb: MapDb::new(nodes, M::Format::size_log2(SUPERPAGE), M::Format::size_log2(LEVEL_MAX)),
            ports: ports::PortsOfAll::default(),
            config,
            lock: Lock::new(),
            table: Pool::new(table),
            bars: AtomicU32::new(0),
        }
    }

    /// The space.
    #[inline(always)]
    pub fn get(&self, space: SpaceRef) -> &'k Space {
        self.table.get(space)
    }

    /// Bars the fast path for threads of `space` that come into the kernel from now on. Returns the number of the bar.
    pub(crate) fn bar_fast_path(&self, space: SpaceRef) -> u32 {
        let slot = self.get(space);
        if !slot.bars_fast_path() {
            slot.fast_path_bar.set(self.bars.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1));
        }
        slot.fast_path_bar()
    }

    /// The space in a slot that may lead nowhere, and may have no memory behind it: then it is not in use.
    pub(crate) fn space_at(&self, space: SpaceRef) -> Option<&'k Space> {
        self.table.at(space)
    }

    pub(crate) fn table_of_spaces(&self) -> &Pool<'k, Space> {
        &self.table
    }

    pub(crate) fn set_first_with_ports(&self, space: Option<SpaceRef>) {
        self.ports.set_first(space);
    }

    pub(crate) fn machine(&self) -> &'k M {
        self.machine
    }

    pub(crate) fn kmem(&self) -> &'k Kmem {
        self.kmem
    }

    /// The end of the addresses of `space` at which pages can be shown.
    pub(crate) fn end_of_view(&self, space: &Space) -> u64 {
        self.end_of(space).min(self.config.user_end)
    }

    /// The mapping database.
    pub fn mapdb(&self) -> &MapDb<'k> {
        &self.mapdb
    }

    /// Whether the addresses from `first` to `last` are the users'.
    pub fn is_user_range(&self, first: usize, last: usize) -> bool {
        first <= last && (last as u64) < self.config.user_end
    }

    /// A new space without areas, mappings and threads.
    ///
    /// # Errors
    /// [`NoMemory`]: no frames, or no slot.
    pub fn create(&self, held: &mut Held<{ rank::NONE }>, kind: SpaceKind) -> Result<SpaceRef, NoMemory> {
        let (root, shadow) = self.alloc_pair(held)?;
        let space = self.take_slot(held).inspect_err(|_| self.free_pair(held, root, shadow))?;
        self.machine.init_root(root);
        let slot = self.get(space);
        slot.root.set(root);
        slot.shadow.set(shadow);
        slot.kip_area.set(Fpage::NIL);
        slot.utcb_area.set(Fpage::NIL);
        slot.is_privileged.set(kind != SpaceKind::Ordinary);
        slot.is_sigma0.set(kind == SpaceKind::Sigma0);
        slot.machine_word.set(self.machine.space_word(space, root));
        slot.account.open();
        slot.is_used.set(true);
        Ok(space)
    }

    fn take_slot(&self, held: &mut Held<{ rank::NONE }>) -> Result<SpaceRef, NoMemory> {
        let mut guard = self.lock.lock(held);
        self.table.alloc(|first| self.machine.back_spaces(self.kmem, guard.held(), first))
    }

    /// Takes back the slot of a space that has nothing left. It may be gone then.
    fn free_slot(&self, held: &mut Held<{ rank::NONE }>, space: SpaceRef) {
        let mut guard = self.lock.lock(held);
        self.get(space).is_used.set(false);
        self.get(space).clear_redirector();
        self.table.free(space, |first| self.machine.release_spaces(self.kmem, guard.held(), first));
    }

    /// A frame for a table and one for its shadow.
    fn alloc_pair<const P: u8>(&self, held: &mut Held<P>) -> Result<(PhysAddr, PhysAddr), NoMemory> {
        let table = self.kmem.alloc(self.machine, held).ok_or(NoMemory)?;
        match self.kmem.alloc(self.machine, held) {
            Some(shadow) => Ok((table, shadow)),
            None => {
                self.kmem.free(self.machine, held, table);
                Err(NoMemory)
            }
        }
    }

    fn free_pair<const P: u8>(&self, held: &mut Held<P>, table: PhysAddr, shadow: PhysAddr) {
        self.kmem.free(self.machine, held, table);
        self.kmem.free(self.machine, held, shadow);
    }
}

/// The rights of a page-table entry that `rights` of a mapping come to: on x86 a page that can be used can be read.
#[inline]
fn access_of(rights: Rights) -> Access {
    Access { write: rights.contains(Rights::WRITE), execute: rights.contains(Rights::EXECUTE) }
}

/// The rights of a mapping whose entry has these.
fn rights_of(access: Access) -> Rights {
    let write = if access.write { Rights::WRITE } else { Rights::NONE };
    let execute = if access.execute { Rights::EXECUTE } else { Rights::NONE };
    Rights::READ | write | execute
}

/// The lowest `count` bits; of a 64-bit word at most.
#[inline]
fn low_bits(count: u32) -> u64 {
    if count >= u64::BITS { u64::MAX } else { (1 << count) - 1 }
}

/// Takes one from the budget; `false` if it is spent.
#[inline]
fn spend(budget: &mut u32) -> bool {
    let is_left = *budget > 0;
    *budget = budget.saturating_sub(1);
    is_left
}
