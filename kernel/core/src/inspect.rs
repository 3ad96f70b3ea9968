//! The core's tables as somebody sees them who must not rely on them: the debugger, which is called when something is
//! wrong, and who reads the memory of a dead machine.
//!
//! Everything here is read word by word and taken as it stands. A word that means nothing is told as such, a reference is
//! followed only where it leads into its table, an address only where there is kernel memory, and every walk has a bound.
//! Nothing is changed and no lock is taken: nobody else may run meanwhile, or what is seen is of no moment.

use core::fmt;

use kformats::paging::{Access, Entry, PageFormat, PatIndex};
use l4_abi::{Fpage, ThreadId, Time};

use crate::kernel::Kernel;
use crate::kmem::FRAME_SIZE;
use crate::list::{Link, Walk};
use crate::machine::{CpuId, Machine, Mmu, NodeRef, PhysAddr, SpaceRef, TcbRef};
use crate::mapdb::Node;
use crate::sched::Cpu;
use crate::space::{Slot, Space, Spaces};
use crate::thread::{Arrival, Purpose, Status, Tcb, Work, plain_name};
use crate::var::AsWord;

/// Why a walk ends before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loose {
    /// A link leads out of its table.
    Outside,
    /// A link leads to somebody who is not linked.
    Unlinked,
    /// A link leads to where there is no kernel memory.
    NoMemory,
    /// There are more members than can be.
    Endless,
}

impl fmt::Display for Loose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "a link leads out of its table",
            Self::Unlinked => "a link leads to somebody who is not linked",
            Self::NoMemory => "a link leads to where there is no kernel memory",
            Self::Endless => "the links do not end",
        })
    }
}

/// A thread control block, copied. `None` stands for words that mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names of the fields of Tcb, which says what they are")]
pub struct ThreadView {
    pub id: ThreadId,
    pub local_id: ThreadId,
    /// [`Tcb::status`]: a plain wait counts as waiting.
    pub status: Option<Status>,
    pub is_plain: bool,
    pub purpose: Option<Purpose>,
    pub work: Option<Work>,
    pub arrival: Option<Arrival>,
    pub is_halted: bool,
    pub is_dying: bool,
    pub is_claimed: bool,
    /// Whom a waiting thread waits for; whom the phase of any other one is about.
    pub partner: ThreadId,
    pub peer: Option<TcbRef>,
    pub outer_peer: Option<TcbRef>,
    pub space: Option<SpaceRef>,
    pub dying_space: Option<SpaceRef>,
    pub utcb: usize,
    pub space_word: usize,
    pub ip: usize,
    pub sp: usize,
    pub flags: usize,
    pub home: u16,
    pub affinity: u16,
    pub priority: u8,
    pub sensitive_priority: u8,
    pub scheduler: ThreadId,
    pub time_slice: Time,
    pub slice_left_us: u64,
    pub total_quantum: Time,
    pub quantum_left_us: u64,
    pub max_delay_us: u16,
    pub delay_left_us: u16,
    /// When the timeout of its wait ends, microseconds on the clock.
    pub deadline: Option<u64>,
    pub is_ready: bool,
    pub is_queued: bool,
    pub has_senders: bool,
    pub propagated_senders: u32,
    pub sends_as: ThreadId,
    pub is_sender: bool,
}

impl ThreadView {
    /// Whether there is anything in the slot.
    pub fn is_anything(&self) -> bool {
        !self.id.is_nil() || self.is_dying
    }
}

impl Tcb {
    /// The block as it stands.
    pub fn view(&self) -> ThreadView {
        let plain = self.waits_for.get();
        let is_plain = !plain.is_nil();
        let home = self.home.get();
        let partner = if is_plain { plain_name(plain, CpuId::new(home.into())) } else { self.partner.get() };
        ThreadView {
            id: self.id.get(),
            local_id: self.local_id.get(),
            status: if is_plain { Some(Status::Waiting) } else { self.status.checked() },
            is_plain,
            purpose: if is_plain { Some(Purpose::User) } else { self.purpose.checked() },
            work: self.work.checked(),
            arrival: self.arrival.checked(),
            is_halted: self.halted.get(),
            is_dying: self.is_dying.get(),
            is_claimed: self.claimed.get(),
            partner,
            peer: self.peer.get(),
            outer_peer: self.outer_peer.get(),
            space: self.space.get(),
            dying_space: self.dying_space.get(),
            utcb: self.utcb.get(),
            space_word: self.space_word.get(),
            ip: self.ip.get(),
            sp: self.sp.get(),
            flags: self.flags.get(),
            home,
            affinity: self.affinity.get(),
            priority: self.priority.get(),
            sensitive_priority: self.sensitive_priority.get(),
            scheduler: self.scheduler.get(),
            time_slice: self.time_slice.get(),
            slice_left_us: self.slice_left_us.get(),
            total_quantum: self.total_quantum.get(),
            quantum_left_us: self.quantum_left_us.get(),
            max_delay_us: self.max_delay_us.get(),
            delay_left_us: self.delay_left_us.get(),
            deadline: self.timeout_link.is_linked().then(|| self.deadline.get()),
            is_ready: self.ready_link.is_linked(),
            is_queued: self.send_link.is_linked(),
            has_senders: self.send_queue.get().is_some(),
            propagated_senders: self.propagated_senders.get(),
            sends_as: self.user_sends_as.get(),
            is_sender: self.transfer.as_sender.get(),
        }
    }

    /// A word of the kernel's message in the name of the thread: a fault's address, for one.
    pub fn message_word(&self, index: usize) -> usize {
        self.kernel_message.get(index).map_or(0, crate::var::Var::get)
    }
}

/// What a processor does, copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names of the fields of Cpu, which says what they are")]
pub struct CpuView {
    /// The slot of who runs; it may lead nowhere.
    pub current: Option<TcbRef>,
    pub slice_owner: Option<TcbRef>,
    pub donee: Option<TcbRef>,
    pub delaying: Option<TcbRef>,
    pub must_choose: bool,
    pub sleepers: usize,
    pub has_mail: bool,
    pub has_orphans: bool,
}

impl Cpu {
    /// The processor as it stands.
    pub fn view(&self) -> CpuView {
        CpuView {
            current: self.current.get().thread(),
            slice_owner: self.slice_owner.get(),
            donee: self.donee.get(),
            delaying: self.delaying.get(),
            must_choose: self.must_choose.get(),
            sleepers: self.timeouts.count(),
            has_mail: !self.mailbox.is_empty(),
            has_orphans: self.orphans.get().is_some(),
        }
    }
}

impl<M: Machine> Kernel<'_, M> {
    /// The TCB in a slot that may lead nowhere.
    pub fn tcb_at(&self, thread: TcbRef) -> Option<&Tcb> {
        self.tcbs.get(thread.index()).filter(|_| self.machine.has_memory(thread))
    }

    /// All slots with memory behind them, in order.
    pub fn backed(&self) -> impl Iterator<Item = (TcbRef, &Tcb)> {
        let slots = self.tcbs.iter().enumerate().map(|(index, tcb)| (TcbRef::new(index as u32), tcb));
        slots.filter(|&(thread, _)| self.machine.has_memory(thread))
    }

    /// All slots with something in them, in order.
    pub fn inhabited(&self) -> impl Iterator<Item = (TcbRef, ThreadView)> {
        let is_anything = |tcb: &Tcb| !tcb.id.get().is_nil() || tcb.is_dying.get();
        self.backed().filter(move |(_, tcb)| is_anything(tcb)).map(|(thread, tcb)| (thread, tcb.view()))
    }

    /// Those who are queued on `thread` to send to it.
    pub fn senders(&self, thread: TcbRef) -> Walk<'_> {
        let head = self.tcb_at(thread).and_then(|tcb| tcb.send_queue.get());
        Walk::new(self.tcbs, head, |tcb: &Tcb| -> &Link { &tcb.send_link })
    }

    /// Those who are ready at processor `cpu` with `priority`.
    pub fn ready(&self, cpu: CpuId, priority: u8) -> Walk<'_> {
        let head = self.cpus.get(cpu.index()).and_then(|cpu| cpu.ready.first_of(priority));
        Walk::new(self.tcbs, head, |tcb: &Tcb| -> &Link { &tcb.ready_link })
    }

    /// The priorities of processor `cpu` that have a queue or a mark that there is one, highest first.
    pub fn ready_priorities(&self, cpu: CpuId) -> impl Iterator<Item = u8> {
        self.cpus.get(cpu.index()).into_iter().flat_map(|cpu| cpu.ready.priorities())
    }

    /// Those who are queued on threads that left processor `cpu`.
    pub fn orphans(&self, cpu: CpuId) -> Walk<'_> {
        let head = self.cpus.get(cpu.index()).and_then(|cpu| cpu.orphans.get());
        Walk::new(self.tcbs, head, |tcb: &Tcb| -> &Link { &tcb.send_link })
    }

    /// Those who are on their way to processor `cpu`.
    pub fn arriving(&self, cpu: CpuId) -> impl Iterator<Item = Result<TcbRef, Loose>> {
        let begins = self.cpus.get(cpu.index()).map_or([None; 2], |cpu| cpu.mailbox.heads());
        begins.into_iter().flat_map(move |begin| {
            let mut left = self.tcbs.len();
            let mut next = begin;
            core::iter::from_fn(move || {
                let thread = next?;
                next = None;
                let Some(tcb) = self.tcb_at(thread) else { return Some(Err(Loose::Outside)) };
                left = match left.checked_sub(1) {
                    Some(left) => left,
                    None => return Some(Err(Loose::Endless)),
                };
                next = tcb.mail_link.get();
                Some(Ok(thread))
            })
        })
    }
}

/// An address space, copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names of the fields of Space, which says what they are")]
pub struct SpaceView {
    pub root: PhysAddr,
    pub kip_area: Fpage,
    pub utcb_area: Fpage,
    pub machine_word: usize,
    pub threads: u32,
    pub is_initialised: bool,
    pub is_privileged: bool,
    pub is_sigma0: bool,
    pub redirector: ThreadId,
}

/// A page as a space has it, or a page-table entry without sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageView {
    /// Where it is in the space.
    pub address: u64,
    /// log2 of its size.
    pub size_log2: u32,
    /// The page-table entry.
    pub word: u64,
    /// Where the entry is.
    pub entry_at: PhysAddr,
    /// The physical address of the page.
    pub frame: u64,
    /// Rights beyond reading.
    pub access: Access,
    /// Memory type.
    pub cache: PatIndex,
    /// The node of the mapping.
    pub node: Option<NodeRef>,
    /// It is the kernel interface page, or one of UTCBs.
    pub is_kernel_page: bool,
}

/// A node of the mapping database, copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names of the fields of Node, which says what they are")]
pub struct NodeView {
    pub space: Option<SpaceRef>,
    pub page: u64,
    pub level: u32,
    pub is_detached: bool,
    pub parent: Option<NodeRef>,
    pub child: Option<NodeRef>,
    pub next: Option<NodeRef>,
    pub prev: Option<NodeRef>,
}

impl Node {
    /// The node as it stands.
    pub fn view(&self) -> NodeView {
        NodeView {
            space: self.space_word().get(),
            page: self.page(),
            level: self.level(),
            is_detached: self.is_detached(),
            parent: self.parent(),
            child: self.child(),
            next: self.next(),
            prev: self.prev(),
        }
    }
}

/// What a walk through the pages of a space ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagesEnd {
    /// Somebody had enough.
    pub is_cut: bool,
    /// Tables that could not be looked at.
    pub loose: u32,
    /// Tables that were looked at.
    pub tables: usize,
}

impl<M: Mmu> Spaces<'_, M> {
    /// All spaces that are in use.
    pub fn inhabited(&self) -> impl Iterator<Item = SpaceRef> {
        self.table_of_spaces().backed().filter(|&space| self.get(space).is_used())
    }

    /// Whether there is such a space.
    pub fn is_in_use(&self, space: SpaceRef) -> bool {
        self.space_at(space).is_some_and(Space::is_used)
    }

    /// The space, if there is one.
    pub fn view(&self, space: SpaceRef) -> Option<SpaceView> {
        let slot: &Space = self.space_at(space)?;
        slot.is_used().then(|| SpaceView {
            root: slot.root(),
            kip_area: slot.kip_area(),
            utcb_area: slot.utcb_area(),
            machine_word: slot.machine_word(),
            threads: slot.threads(),
            is_initialised: slot.is_initialised(),
            is_privileged: slot.is_privileged(),
            is_sigma0: slot.is_sigma0(),
            redirector: slot.redirector(),
        })
    }

    /// The node, which may be nobody's.
    pub fn node_view(&self, node: NodeRef) -> Option<NodeView> {
        self.mapdb().node_at(node).map(Node::view)
    }

    /// Nodes that there can be.
    pub fn nodes_max(&self) -> usize {
        self.mapdb().slots()
    }

    /// Calls `visit` with the pages of `space` from the address `from` on, in order, until it says that it has seen enough.
    /// Entries that lead to tables that are none are counted and left out. No more tables are looked at than there are frames.
    pub fn pages(&self, space: SpaceRef, from: u64, visit: &mut dyn FnMut(PageView) -> bool) -> PagesEnd {
        let mut walk = PageWalk { spaces: self, from, end: 0, visit, loose: 0, tables: self.kmem().total() };
        let Some(slot) = self.space_at(space).filter(|slot| slot.is_used()) else {
            return PagesEnd { is_cut: false, loose: 1, tables: 0 };
        };
        walk.end = self.end_of_view(slot);
        let goes_on = walk.table(M::Format::LEVELS - 1, slot.tables(), 0);
        PagesEnd { is_cut: !goes_on, loose: walk.loose, tables: self.kmem().total() - walk.tables }
    }

    /// Frames of kernel memory that `space` takes: tables with their shadows, pages of UTCBs, bits and ranges of ports.
    pub fn frames_of(&self, space: SpaceRef) -> usize {
        let Some(slot) = self.space_at(space).filter(|slot| slot.is_used()) else { return 0 };
        let utcbs = slot.utcb_area();
        let mut pages = 0;
        let end = self.pages(space, 0, &mut |page| {
            let is_there = !utcbs.is_nil() && (utcbs.base() as u64..=utcbs.last() as u64).contains(&page.address);
            pages += usize::from(is_there && page.is_kernel_page);
            true
        });
        2 * end.tables + pages + slot.port_frames()
    }

    /// Frames behind the table of mapping nodes.
    pub fn node_pages(&self) -> usize {
        self.mapdb().pages_in_use()
    }

    /// Frames behind the table of spaces.
    pub fn space_pages(&self) -> usize {
        self.table_of_spaces().backed_pages()
    }

    /// The page that `space` has at `address`.
    pub fn page_at(&self, space: SpaceRef, address: u64) -> Option<PageView> {
        let mut found = None;
        self.pages(space, address, &mut |page| {
            found = (page.address <= address).then_some(page);
            false
        });
        found
    }

    /// sigma0's space: where the mapping trees have their roots.
    pub fn sigma0_space(&self) -> Option<SpaceRef> {
        self.inhabited().find(|&space| self.get(space).is_sigma0())
    }

    /// The ports that `space` has from others: the first one, the last one, and from which space they came. There may be
    /// holes.
    pub fn port_origins(&self, space: SpaceRef) -> impl Iterator<Item = (u16, u16, SpaceRef)> {
        let slot = self.space_at(space).filter(|slot| slot.is_used());
        let (at, count) = slot.map_or((PhysAddr(0), 0), Space::ports_table);
        let count = if self.kmem().contains(at) { count.min(256) } else { 0 };
        (0..count).map(move |index| {
            let word =
                |n: u64| self.machine().read(PhysAddr(at.0 + (u64::from(index) * 2 + n) * size_of::<usize>() as u64));
            let ports = word(0);
            (ports as u16, (ports >> 16) as u16, SpaceRef::new(word(1) as u32))
        })
    }
}

struct PageWalk<'w, 'k, M> {
    spaces: &'w Spaces<'k, M>,
    from: u64,
    end: u64,
    visit: &'w mut dyn FnMut(PageView) -> bool,
    loose: u32,
    /// Tables that may still be looked at.
    tables: usize,
}

impl<M: Mmu> PageWalk<'_, '_, M> {
    /// Walks a table of `level` and its shadow; `false`: enough is seen.
    fn table(&mut self, level: u32, (table, shadow): (PhysAddr, PhysAddr), base: u64) -> bool {
        let is_frame = |frame: PhysAddr| self.spaces.kmem().contains(frame) && frame.0.is_multiple_of(FRAME_SIZE);
        if !is_frame(table) || !is_frame(shadow) || self.tables == 0 {
            self.loose += 1;
            return self.tables > 0;
        }
        self.tables -= 1;
        let size_log2 = M::Format::size_log2(level);
        let format = self.spaces.machine().format();
        for index in 0..1u64 << M::Format::INDEX_BITS {
            let address = base + (index << size_log2);
            if address >= self.end {
                break;
            }
            if address + ((1 << size_log2) - 1) < self.from {
                continue;
            }
            let at = index << M::Format::ENTRY_LOG2;
            let (entry_at, slot_at) = (PhysAddr(table.0 + at), PhysAddr(shadow.0 + at));
            let word = self.spaces.machine().read(entry_at) as u64;
            let goes_on = match format.decode(level, word) {
                Entry::Empty => {
                    // Beside it there may be a root whose page the kernel has.
                    let node = Slot::of_word(self.spaces.machine().read(slot_at)).node;
                    self.loose += u32::from(node.is_some_and(|node| self.spaces.node_view(node).is_none()));
                    true
                }
                Entry::Table(below) if level > 0 => {
                    let shadow = PhysAddr(self.spaces.machine().read(slot_at) as u64);
                    self.table(level - 1, (PhysAddr(below), shadow), address)
                }
                Entry::Table(_) => {
                    self.loose += 1;
                    true
                }
                Entry::Leaf(leaf) => {
                    let slot = Slot::of_word(self.spaces.machine().read(slot_at));
                    (self.visit)(PageView {
                        address,
                        size_log2,
                        word,
                        entry_at,
                        frame: leaf.frame,
                        access: leaf.access,
                        cache: leaf.cache,
                        node: slot.node,
                        is_kernel_page: slot.kernel.is_some(),
                    })
                }
            };
            if !goes_on {
                return false;
            }
        }
        true
    }
}

/// A reference as a number, for those who ask about slots by number.
pub fn thread_at(index: usize) -> Option<TcbRef> {
    u32::try_from(index).ok().map(TcbRef::new)
}

/// The reference that a word of a table stands for.
pub fn thread_of_word(word: u32) -> Option<TcbRef> {
    <Option<TcbRef> as AsWord>::from_word(word as usize)
}
