//! A machine without hardware: frames and UTCBs are values that appear when they are first touched, the clock stands
//! until a test moves it, and of the saved registers it keeps what the core asked to be kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use kformats::paging::Amd64;
use l4_abi::{Rights, ThreadId, USER_FLAGS_MASK, UTCB_SIZE, Utcb, Word};

use super::backing::{Backing, Kind};
use super::shared::Shared;
use super::stage;
use super::world::World;
use crate::kmem::{FRAME_SIZE, Kmem};
use crate::lock::{Held, rank};
use crate::machine::{
    CpuId, EXCEPTION_IMAGE_WORDS, Machine, Mmu, NoMemory, NodeRef, PhysAddr, PhysMem, SpaceRef, TcbRef, Tlb, UserRegs,
};
use crate::mapdb::Node;
use crate::space::Mapping;
use crate::sync::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::thread::{Tcb, is_page_vacant};
use crate::trace::{Args, Event, Sink};
use crate::var::Var;

/// Where kernel memory begins.
pub const KMEM_BEGIN: PhysAddr = PhysAddr(0x10_0000);
/// Where it ends.
pub const KMEM_END: PhysAddr = PhysAddr(KMEM_BEGIN.0 + KMEM_FRAMES as u64 * FRAME_SIZE);
const KMEM_FRAMES: usize = 1024;
/// Processors at most.
pub const CPUS: usize = 16;
/// Slots for threads.
pub const THREADS: usize = 96;
/// Slots for mapping nodes, in whole pages.
pub const NODES: usize = 2048;
/// Slots for spaces, in whole pages.
pub const SPACES: usize = 32;
/// Flags of a fresh thread.
pub const DEFAULT_FLAGS: usize = 0x202;
/// General registers that an exception message has besides ip, sp and flags.
pub const GENERAL_REGISTERS: usize = EXCEPTION_IMAGE_WORDS - 3;

/// Where calls of Ipc return to: where the image has its stub.
pub const IPC_RETURN_IP: usize = 0xFFFF_FFFF_FFB0_0002;

/// Interrupt lines. Those below [`EDGE_LINES`] the machine masks when they come, the others it cannot hold back.
pub const LINES: usize = 16;
/// See [`LINES`].
pub const EDGE_LINES: u32 = 8;
/// No device can be below this one.
pub const FIRST_LINE: u32 = 4;

/// Distance of kernel memory from where the kernel sees it.
const KERNEL_BASE: usize = 0xFFFF_8000_0000_0000;
const UTCBS_PER_FRAME: usize = FRAME_SIZE as usize / UTCB_SIZE;
const WORDS_PER_FRAME: usize = FRAME_SIZE as usize / size_of::<usize>();

/// The machine.
pub struct Fake {
    frames: Vec<OnceLock<Box<[AtomicUsize]>>>,
    utcbs: Vec<OnceLock<Box<Utcb>>>,
    saved: Vec<Saved>,
    /// Pages of user memory by their addresses.
    user: Shared<BTreeMap<u64, Vec<u8>>>,
    clock_us: Shared<u64>,
    lines: [Shared<Line>; LINES],
    /// For each processor whether the thread in user mode may take the fast path; who wakes by it inherits that.
    pub allows_fast_path: [Shared<bool>; CPUS],
    /// For each processor whether it was kicked and has not looked since.
    kicked: [AtomicBool; CPUS],
    /// The world, once it is there.
    pub world: OnceLock<World>,
    kmem: &'static Kmem,
    tables: Tables,
    /// How often words of kernel memory were read and written.
    pub accesses: std::sync::atomic::AtomicUsize,
    /// The UTCBs as they were kept, for explorations.
    #[cfg(feature = "explore")]
    kept_utcbs: OnceLock<Vec<(usize, Box<Utcb>)>>,
    /// Whether there are I/O fpages.
    pub io_fpages: Shared<bool>,
    /// Whether there is a page attribute table.
    pub has_pat: Shared<bool>,
    /// How often the caches were flushed.
    pub cache_flushes: Shared<u32>,
    /// What is behind the tables.
    pub backing: Backing,
    /// Spaces of which processors may have something cached.
    known: Shared<BTreeSet<(CpuId, SpaceRef)>>,
    /// The translations that processors have cached.
    cached: Shared<BTreeMap<Page, (PhysAddr, Rights)>>,
    /// What they are being told to forget: space, address, size.
    forgetting: Shared<Vec<(SpaceRef, usize, u32)>>,
    /// What was printed.
    pub console: Shared<String>,
    /// Characters that the console still takes.
    pub console_room: Shared<usize>,
    /// Events that are wanted, a bit for each.
    pub wanted: std::sync::atomic::AtomicU64,
    /// Those that came, oldest first: the thread they are about, if it is not the running one, and what they say.
    pub events: Shared<Vec<(Event, Option<ThreadId>, Args)>>,
}

/// A page as a processor knows it.
type Page = (CpuId, SpaceRef, usize);

/// An interrupt line.
#[derive(Clone, Copy)]
struct Line {
    is_open: bool,
    /// The processor that its interrupts go to.
    goes_to: CpuId,
    /// The one they go to when the line is unmasked next.
    will_go_to: CpuId,
}

impl Default for Line {
    fn default() -> Self {
        Self { is_open: false, goes_to: CpuId::new(0), will_go_to: CpuId::new(0) }
    }
}

/// The tables that the machine puts memory behind.
#[derive(Clone, Copy)]
pub struct Tables {
    /// Threads.
    pub tcbs: &'static [Tcb],
    /// Mapping nodes.
    pub nodes: &'static [Node],
}

const TCBS_PER_PAGE: usize = FRAME_SIZE as usize / size_of::<Tcb>();
/// Saved registers take twice as much.
const REGISTERS_PER_PAGE: usize = TCBS_PER_PAGE / 2;
const SPACES_PER_PAGE: usize = FRAME_SIZE as usize / size_of::<crate::space::Space>();
const NODES_PER_PAGE: usize = FRAME_SIZE as usize / size_of::<Node>();

/// The pages of the tables in which a thread has its TCB and its registers.
fn pages_of(thread: TcbRef) -> [((Kind, usize), usize); 2] {
    let page = |kind, per_page| ((kind, thread.index() / per_page), per_page);
    [page(Kind::Tcbs, TCBS_PER_PAGE), page(Kind::Frames, REGISTERS_PER_PAGE)]
}

/// The saved registers of a thread.
pub struct Saved {
    /// The `from` of its last IPC; `None` while it has not ended.
    pub from: Shared<Option<ThreadId>>,
    /// How often an Unmap of its ended.
    pub unmaps: Shared<u32>,
    /// The general registers of its exception messages.
    pub general: [Shared<Word>; GENERAL_REGISTERS],
    /// The frame of the image's: rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15.
    pub frame: [Var<usize>; FRAME_REGISTERS],
}

/// Registers in a frame.
pub const FRAME_REGISTERS: usize = 15;
/// Where `rsi`, which passes the sender, is in a frame.
pub const FRAME_RSI: usize = 4;
/// Where `rdi`, which passes the local id, is in a frame.
pub const FRAME_RDI: usize = 5;
/// Where MR0 to MR7 are in a frame (amd64 ABI, Ipc).
pub const FRAME_MRS: [usize; 8] = [8, 0, 1, 9, 11, 12, 13, 14];

impl Saved {
    fn load_message_registers(&self, utcb: &Utcb) {
        FRAME_MRS.into_iter().enumerate().for_each(|(i, place)| self.frame[place].set(utcb.mr(i) as usize));
    }
}

impl Fake {
    /// The machine at power-on, with these tables, and memory to put behind them.
    pub fn new(tables: Tables, kmem: &'static Kmem) -> Self {
        let saved = || Saved {
            from: Shared::new(None),
            unmaps: Shared::new(0),
            general: Default::default(),
            frame: Default::default(),
        };
        Self {
            frames: (0..KMEM_FRAMES).map(|_| OnceLock::new()).collect(),
            utcbs: (0..KMEM_FRAMES * UTCBS_PER_FRAME).map(|_| OnceLock::new()).collect(),
            saved: tables.tcbs.iter().map(|_| saved()).collect(),
            user: Shared::default(),
            clock_us: Shared::new(0),
            lines: Default::default(),
            allows_fast_path: Default::default(),
            kicked: Default::default(),
            world: OnceLock::new(),
            kmem,
            tables,
            accesses: Default::default(),
            #[cfg(feature = "explore")]
            kept_utcbs: OnceLock::new(),
            io_fpages: Shared::new(false),
            has_pat: Shared::new(true),
            cache_flushes: Shared::new(0),
            backing: Backing::default(),
            known: Shared::default(),
            cached: Shared::default(),
            forgetting: Shared::default(),
            console: Shared::default(),
            console_room: Shared::new(usize::MAX),
            wanted: Default::default(),
            events: Shared::default(),
        }
    }

    /// Sets the clock, which never goes back.
    pub fn set_clock(&self, us: u64) {
        assert!(us >= self.clock_us.get(), "time goes on");
        self.clock_us.set(us);
    }

    /// Processor `cpu` may have something of the space of `thread` cached.
    pub fn note_space(&self, cpu: CpuId, thread: TcbRef) {
        let space = self.tables.tcbs[thread.index()].space();
        self.known.borrow().insert((cpu, space));
    }

    /// Whether others know that it may.
    pub fn knows_space(&self, cpu: CpuId, space: SpaceRef) -> bool {
        self.known.borrow().contains(&(cpu, space))
    }

    /// Processor `cpu` has the translation of `address` in `space` cached.
    pub fn cache(&self, cpu: CpuId, space: SpaceRef, address: usize, page: &Mapping) {
        let offset = address % FRAME_SIZE as usize;
        let translation = (PhysAddr(page.phys.0 - offset as u64), page.rights);
        self.cached.borrow().insert((cpu, space, address - offset), translation);
    }

    /// The translations that are cached, and of which nobody was told to forget them.
    pub fn cached(&self) -> Vec<(Page, (PhysAddr, Rights))> {
        let (cached, forgetting) = (self.cached.borrow(), self.forgetting.borrow());
        let is_kept = |page: &Page| !forgetting.iter().any(|range| is_in(range, page));
        cached.iter().filter(|(page, _)| is_kept(page)).map(|(page, translation)| (*page, *translation)).collect()
    }

    /// Whether processors have forgotten all that they were told to forget.
    pub fn has_forgotten(&self) -> bool {
        self.forgetting.borrow().is_empty()
    }

    /// Writes to user memory at a physical address, within a page.
    pub fn poke(&self, at: PhysAddr, bytes: &[u8]) {
        let (page, offset) = (at.0 / FRAME_SIZE, (at.0 % FRAME_SIZE) as usize);
        let mut user = self.user.borrow();
        let page = user.entry(page).or_insert_with(|| vec![0; FRAME_SIZE as usize]);
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads user memory at a physical address, within a page.
    pub fn peek(&self, at: PhysAddr, len: usize) -> Vec<u8> {
        let (page, offset) = (at.0 / FRAME_SIZE, (at.0 % FRAME_SIZE) as usize);
        self.user.borrow().get(&page).map_or(vec![0; len], |page| page[offset..offset + len].to_vec())
    }

    /// The saved registers of a thread.
    pub fn saved(&self, thread: TcbRef) -> &Saved {
        &self.saved[thread.index()]
    }

    /// A device raises a line: the processor that its interrupt goes to; `None` if it is masked.
    pub fn raise(&self, line: u32) -> Option<CpuId> {
        let mut state = self.lines[line as usize].borrow();
        let is_open = state.is_open;
        state.is_open = is_open && line >= EDGE_LINES;
        is_open.then_some(state.goes_to)
    }

    /// Whether a line is not masked.
    pub fn is_open(&self, line: u32) -> bool {
        self.lines[line as usize].get().is_open
    }

    /// Whether a processor was kicked since it looked last. It looks now.
    pub fn take_kick(&self, cpu: CpuId) -> bool {
        let kicked = &self.kicked[cpu.index()];
        kicked.load(Acquire) && kicked.swap(false, AcqRel)
    }

    fn word(&self, at: PhysAddr) -> &AtomicUsize {
        assert!(at >= KMEM_BEGIN && at < KMEM_END && at.0.is_multiple_of(8), "a word of kernel memory, not {at:?}");
        // Not locked, which would be most of what a long run takes; those who count have one processor.
        self.accesses.store(self.accesses.load(Relaxed) + 1, Relaxed);
        let (frame, offset) = ((at.0 - KMEM_BEGIN.0) / FRAME_SIZE, at.0 % FRAME_SIZE);
        let words =
            self.frames[frame as usize].get_or_init(|| (0..WORDS_PER_FRAME).map(|_| AtomicUsize::new(0)).collect());
        &words[offset as usize / size_of::<usize>()]
    }
}

/// What explorations need of it.
#[cfg(feature = "explore")]
impl Fake {
    /// Lets the clock go on.
    pub fn advance(&self, us: u64) {
        *self.clock_us.borrow() += us;
    }

    /// Whether a processor was kicked and has not looked since.
    pub fn is_kicked(&self, cpu: CpuId) -> bool {
        self.kicked[cpu.index()].load(Acquire)
    }

    /// Keeps the UTCBs, once.
    pub fn keep_utcbs(&self) {
        let filled = self.utcbs.iter().enumerate().filter_map(|(index, utcb)| Some((index, utcb.get()?)));
        let copy = |utcb: &Utcb| {
            let kept: Box<Utcb> = Box::default();
            kept.copy_from(utcb);
            kept
        };
        let kept = filled.map(|(index, utcb)| (index, copy(utcb))).collect();
        assert!(self.kept_utcbs.set(kept).is_ok(), "they are kept once");
    }

    /// Makes all UTCBs what they were when they were kept.
    pub fn restore_utcbs(&self) {
        self.utcbs.iter().filter_map(OnceLock::get).for_each(|utcb| utcb.clear());
        for (index, kept) in self.kept_utcbs.get().expect("they were kept") {
            self.utcbs[*index].get().expect("it was there").copy_from(kept);
        }
    }
}

impl Sink for Fake {
    const TRACES: bool = true;

    fn wants(&self, events: u64) -> bool {
        self.wanted.load(Relaxed) & events != 0
    }

    fn take(&self, event: Event, thread: Option<ThreadId>, args: Args) {
        self.events.borrow().push((event, thread, args));
    }
}

impl PhysMem for Fake {
    fn read(&self, at: PhysAddr) -> usize {
        self.word(at).load(Relaxed)
    }

    fn write(&self, at: PhysAddr, word: usize) {
        self.word(at).store(word, Relaxed);
    }

    fn update(&self, at: PhysAddr, clear: usize, set: usize) -> usize {
        let changed = self.word(at).fetch_update(Relaxed, Relaxed, |word| Some(word & !clear | set));
        changed.expect("the closure never refuses")
    }

    fn replace(&self, at: PhysAddr, old: usize, new: usize) -> bool {
        self.word(at).compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }

    fn zero_frame(&self, frame: PhysAddr) {
        let index = (self.word(frame), (frame.0 - KMEM_BEGIN.0) / FRAME_SIZE).1 as usize;
        let leads_there = |&(_, (to, _)): &(&Page, &(PhysAddr, Rights))| to.0 & !(FRAME_SIZE - 1) == frame.0;
        let stale = self.cached.borrow().iter().find(leads_there).map(|(page, _)| *page);
        assert_eq!(stale, None, "{frame:?} is used anew, and somebody still knows it by this");
        self.frames[index].get().expect("was just touched").iter().for_each(|word| word.store(0, Relaxed));
        let utcbs = &self.utcbs[index * UTCBS_PER_FRAME..][..UTCBS_PER_FRAME];
        utcbs.iter().filter_map(OnceLock::get).for_each(|utcb| utcb.clear());
    }
}

/// Whether a page is in a range.
fn is_in(&(of, at, size_log2): &(SpaceRef, usize, u32), &(_, space, page): &Page) -> bool {
    of == space && page >> size_log2 == at >> size_log2
}

impl Tlb for Fake {
    fn invalidate(&self, space: SpaceRef, at: usize, size_log2: u32) {
        self.forgetting.borrow().push((space, at, size_log2));
    }
    fn invalidate_all(&self, space: SpaceRef) {
        self.known.borrow().retain(|&(_, known)| known != space);
        self.cached.borrow().retain(|&(_, known, _), _| known != space);
    }
    fn complete(&self) {
        stage::may_pause();
        let ranges = self.forgetting.take();
        if !ranges.is_empty() {
            self.cached.borrow().retain(|page, _| !ranges.iter().any(|range| is_in(range, page)));
        }
    }
    fn flush_caches(&self) {
        *self.cache_flushes.borrow() += 1;
    }
}

impl Mmu for Fake {
    type Format = Amd64;

    fn format(&self) -> Amd64 {
        Amd64 { no_execute: true, global: true, pat: self.has_pat.get(), huge: false }
    }

    fn init_root(&self, _root: PhysAddr) {}

    fn space_word(&self, _space: SpaceRef, root: PhysAddr) -> usize {
        root.0 as usize
    }

    fn back_nodes(&self, kmem: &Kmem, held: &mut Held<{ rank::NODES }>, first: NodeRef) -> Result<(), NoMemory> {
        self.backing.back(self, kmem, held, (Kind::Nodes, first.index()))
    }

    fn release_nodes(&self, kmem: &Kmem, held: &mut Held<{ rank::NODES }>, first: NodeRef) {
        self.backing.release(self, kmem, held, (Kind::Nodes, first.index()));
        self.tables.nodes[first.index()..][..NODES_PER_PAGE].iter().for_each(Node::wipe);
    }

    fn back_spaces(&self, kmem: &Kmem, held: &mut Held<{ rank::SPACE }>, first: SpaceRef) -> Result<(), NoMemory> {
        self.backing.back(self, kmem, held, (Kind::Spaces, first.index() / SPACES_PER_PAGE))
    }

    fn release_spaces(&self, kmem: &Kmem, held: &mut Held<{ rank::SPACE }>, first: SpaceRef) {
        self.backing.release(self, kmem, held, (Kind::Spaces, first.index() / SPACES_PER_PAGE));
    }

    fn has_io_fpages(&self) -> bool {
        self.io_fpages.get()
    }
}

impl Machine for Fake {
    fn now_us(&self) -> u64 {
        stage::may_pause();
        self.clock_us.get()
    }

    fn kernel_address(&self, phys: PhysAddr) -> usize {
        KERNEL_BASE + phys.0 as usize
    }

    fn utcb(&self, address: usize) -> &Utcb {
        stage::may_pause();
        let offset = address - KERNEL_BASE - KMEM_BEGIN.0 as usize;
        assert_eq!(offset % UTCB_SIZE, 0, "a UTCB begins at {address:#x}");
        self.utcbs[offset / UTCB_SIZE].get_or_init(Default::default)
    }

    fn copy(&self, from: PhysAddr, to: PhysAddr, len: usize) {
        self.poke(to, &self.peek(from, len));
    }

    fn read_user_word(&self, at: PhysAddr) -> usize {
        assert!(at.0.is_multiple_of(size_of::<usize>() as u64), "an aligned word");
        let bytes = self.peek(at, size_of::<usize>());
        usize::from_le_bytes(bytes.try_into().expect("as long as a word"))
    }

    fn ipc_return_ip(&self) -> usize {
        IPC_RETURN_IP
    }

    fn back_thread(&self, held: &mut Held<{ rank::NONE }>, thread: TcbRef) -> Result<(), NoMemory> {
        let tcb = &self.tables.tcbs[thread.index()];
        assert!(!tcb.is_claimed(), "{thread:?} is claimed once");
        for (page, _) in pages_of(thread) {
            if !self.backing.is_backed(page) && self.backing.back(self, self.kmem, held, page).is_err() {
                self.release_thread(held, thread);
                return Err(NoMemory);
            }
        }
        tcb.set_claimed(true);
        Ok(())
    }

    fn release_thread(&self, held: &mut Held<{ rank::NONE }>, thread: TcbRef) {
        self.tables.tcbs[thread.index()].set_claimed(false);
        for (page, per_page) in pages_of(thread) {
            if self.backing.is_backed(page) && is_page_vacant(self.tables.tcbs, thread, per_page) {
                self.backing.release(self, self.kmem, held, page);
            }
        }
    }

    fn reset_registers(&self, thread: TcbRef) {
        self.saved(thread).from.set(None);
        self.saved(thread).general.iter().for_each(|register| register.set(0));
        self.saved(thread).frame.iter().for_each(|register| register.set(0));
    }

    fn default_flags(&self) -> usize {
        DEFAULT_FLAGS
    }

    fn user_flags(&self, old: usize, wanted: usize) -> usize {
        const CHANGEABLE: usize = USER_FLAGS_MASK as usize;
        old & !CHANGEABLE | wanted & CHANGEABLE
    }

    fn has_line(&self, line: u32) -> bool {
        (FIRST_LINE..LINES as u32).contains(&line)
    }

    fn mask_line(&self, _held: &mut Held<{ rank::NONE }>, line: u32) {
        self.lines[line as usize].borrow().is_open = false;
    }

    fn unmask_line(&self, _held: &mut Held<{ rank::NONE }>, line: u32) {
        let mut state = self.lines[line as usize].borrow();
        state.is_open = true;
        state.goes_to = state.will_go_to;
    }

    fn route_line(&self, thread: TcbRef, cpu: CpuId) {
        if let Some(line) = self.lines.get(thread.index()) {
            line.borrow().will_go_to = cpu;
        }
    }

    fn kick(&self, cpu: CpuId) {
        self.kicked[cpu.index()].store(true, Release);
        stage::may_pause();
    }

    fn relax(&self) {
        #[cfg(feature = "explore")]
        if crate::explore::has_others() {
            return crate::sync::spin_loop();
        }
        if !stage::pause() {
            self.world.get().expect("there is a world by now").let_others_serve();
        }
    }

    fn put_char(&self, character: u8) -> bool {
        let Some(room) = self.console_room.get().checked_sub(1) else { return false };
        self.console_room.set(room);
        self.console.borrow().push(character.into());
        true
    }

    fn note_plain_wait(&self, thread: TcbRef) {
        self.note_space(self.tables.tcbs[thread.index()].home(), thread);
    }

    fn forget_thread(&self, _thread: TcbRef) {}

    fn ipc_return(&self, thread: TcbRef, tcb: &Tcb, from: ThreadId) {
        let saved = self.saved(thread);
        saved.from.set(Some(from));
        saved.frame[FRAME_RSI].set(from.raw() as usize);
        saved.frame[FRAME_RDI].set(tcb.local_id.get().raw() as usize);
        saved.load_message_registers(tcb.utcb_in(self));
    }

    fn unmap_return(&self, thread: TcbRef, utcb: &Utcb) {
        self.saved(thread).load_message_registers(utcb);
        let unmaps = &self.saved(thread).unmaps;
        unmaps.set(unmaps.get() + 1);
    }

    fn exception_image(&self, thread: TcbRef, regs: UserRegs, words: &mut [Word; EXCEPTION_IMAGE_WORDS]) -> usize {
        words[..3].copy_from_slice(&[regs.ip, regs.sp, regs.flags].map(|word| word as Word));
        for (word, register) in words[3..].iter_mut().zip(&self.saved(thread).general) {
            *word = register.get();
        }
        words.len()
    }

    fn load_exception_image(&self, thread: TcbRef, regs: UserRegs, words: &[Word]) -> UserRegs {
        for (register, &word) in self.saved(thread).general.iter().zip(words.iter().skip(3)) {
            register.set(word);
        }
        let word = |index, old| words.get(index).map_or(old, |&word: &Word| word as usize);
        let flags = self.user_flags(regs.flags, word(2, regs.flags));
        UserRegs { ip: word(0, regs.ip), sp: word(1, regs.sp), flags }
    }
}
