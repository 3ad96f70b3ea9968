//! The machine as the core sees it, and what belongs to the running thread besides its general registers.

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use kcore::kernel::Kernel;
use kcore::kmem::Kmem;
use kcore::lock::{Held, Lock, rank};
use kcore::machine::{
    CpuId, EXCEPTION_IMAGE_WORDS, Machine, Mmu, NoMemory, NodeRef, PhysAddr, PhysMem, SpaceRef, TcbRef, Tlb, UserRegs,
};
use kcore::mapdb::Node;
use kcore::options::Options;
use kcore::pool;
use kcore::space::Space;
use kcore::thread::{Tcb, is_page_vacant};
use kcore::trace::{Arg, Event};
use kcore::var::Var;
use kformats::paging::Amd64;
use khal::apic::{self, LocalApic};
use khal::cache;
use khal::cpu::Features;
use khal::cr::{Cr3, SharedIdentifier};
use khal::desc::Selector;
use khal::fpu::{self, FpuState};
use khal::irq::IrqOff;
use khal::timer::{Clocks, Scale, tsc};
use khal::tlb::{self, ContextFlush};
use l4_abi::{ThreadId, USER_FLAGS_MASK, Utcb, Word};

use crate::KERNEL;
use crate::area;
use crate::boot::paging::{KernelSpace, Stale};
use crate::config;
use crate::console;
use crate::frame::{FRAME_SIZE_LOG2, Frame, frame};
use crate::interrupts::Interrupts;
use crate::kdb;
use crate::layout;
use crate::mitigations;
use crate::once::BootCell;
use crate::port_map;
use crate::shootdown;
use crate::stubs;
use crate::trace;
use crate::trap::vector;

/// What was found out about the machine at boot.
pub struct Hardware {
    features: Features,
    kernel_space: KernelSpace,
    /// Guards the kernel's own page tables, and which pages of the core's tables are backed.
    tables: Lock<{ rank::KERNEL_TABLES }>,
    tsc_to_us: Scale,
    us_to_apic: Scale,
    context_flush: Option<ContextFlush>,
    options: Options,
    interrupts: Interrupts,
    /// For each of [`THREAD_TABLES`] a thread whose page there is kept though no thread has a slot in it: to give it back means to
    /// interrupt all processors. Guarded by `tables`.
    spares: [Var<Option<TcbRef>>; THREAD_TABLES.len()],
}

/// The machine.
pub static HARDWARE: BootCell<Hardware> = BootCell::new();

/// The word of a space says "keep the cached translations" when it is loaded.
const KEEP_TRANSLATIONS: usize = Cr3::KEEP;
/// User flags of a fresh thread: interrupts on (amd64 ABI, thread start state).
const DEFAULT_FLAGS: usize = 0x202;
/// The same, and all ports open to it: those without I/O fpages.
const DEFAULT_FLAGS_WITH_PORTS: usize = DEFAULT_FLAGS | 3 << 12;
const PAGE_BYTES: usize = 4096;

impl Hardware {
    /// The machine with these options, features, tables, clocks and interrupt controllers.
    pub fn new(
        options: Options,
        features: Features,
        kernel_space: KernelSpace,
        clocks: Clocks,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            features,
            kernel_space,
            tables: Lock::new(),
            tsc_to_us: clocks.tsc_to_us(),
            us_to_apic: clocks.us_to_apic(khal::apic::Divider::By2.divisor()),
            context_flush: ContextFlush::with(features, !mitigations::isolate_tables()),
            options,
            interrupts,
            spares: [const { Var::zero() }; THREAD_TABLES.len()],
        }
    }

    /// What the processors can do.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Shows the page of physical memory at `frame` in the first copy window of this processor, for the debugger: no copy is
    /// in progress where it is entered.
    pub fn show_to_debugger(&self, frame: u64) {
        // SAFETY: nothing is being copied; the debugger only reads, whatever it is.
        unsafe { self.kernel_space.show(area::copy_windows(), PhysAddr(frame)) };
    }

    /// The interrupt controllers.
    pub fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// Maps a fresh frame at `address` in one of the linear tables, unless there is one.
    fn back(&self, kmem: &Kmem, held: &mut Held<{ rank::KERNEL_TABLES }>, address: usize) -> Result<(), NoMemory> {
        if self.kernel_space.is_backed(address) {
            return Ok(());
        }
        let frame = kmem.alloc(self, held).ok_or(NoMemory)?;
        // SAFETY: frames of kernel memory belong to whom they were given to; the lock of the tables is held, as `held`
        // shows; the page read as zeroes, and the frame is zero.
        let stale = unsafe { self.kernel_space.back_page(page_of(address), frame) };
        if let Some(stale) = stale {
            forget_everywhere(stale);
        }
        note_tcbs(address, true);
        Ok(())
    }

    /// Gives back the frame at `address` in one of the linear tables, if there is one.
    fn release(&self, kmem: &Kmem, held: &mut Held<{ rank::KERNEL_TABLES }>, address: usize) {
        if !self.kernel_space.is_backed(address) {
            return;
        }
        note_tcbs(address, false);
        // SAFETY: the lock of the tables is held, as `held` shows; by the core's word nothing in the page is in use.
        let (frame, stale) = unsafe { self.kernel_space.release_page(page_of(address)) };
        forget_everywhere(stale);
        kmem.free(self, held, frame);
    }

    /// Releases the pages in which `thread` has its slots, as far as nobody has claimed a slot there.
    fn release_vacant(&self, kmem: &Kmem, held: &mut Held<{ rank::KERNEL_TABLES }>, thread: TcbRef) {
        for table in THREAD_TABLES {
            if table.is_vacant(thread) {
                self.release(kmem, held, (table.address)(thread));
            }
        }
    }

    /// Keeps those pages for the next thread, and releases the ones that were kept before.
    fn keep_vacant(&self, kmem: &Kmem, held: &mut Held<{ rank::KERNEL_TABLES }>, thread: TcbRef) {
        for (table, spare) in THREAD_TABLES.iter().zip(&self.spares) {
            if !table.is_vacant(thread) {
                continue;
            }
            let before = spare.replace(Some(thread)).filter(|&before| !table.share_a_page(before, thread));
            if let Some(before) = before.filter(|&before| table.is_vacant(before)) {
                self.release(kmem, held, (table.address)(before));
            }
        }
    }

    /// Whether the space with this word keeps its translations while it is not loaded.
    pub fn has_identifier(&self, word: usize) -> bool {
        self.context_flush.is_some() && word & KEEP_TRANSLATIONS != 0
    }

    /// This processor forgets the page at `address` in the space with `word`, which lives.
    ///
    /// What counts is what is loaded: a non-maskable interrupt can come between the announcement of another space
    /// ([`enter_space`], and the fast path) and its loading. Where spaces do not show the kernel, none is loaded in the kernel.
    pub fn forget_page_here(&self, word: usize, address: usize) {
        if Cr3::read() == Self::cr3(word) {
            tlb::invalidate_page(address);
        } else if let Some(flush) = self.context_flush.filter(|_| self.has_identifier(word)) {
            // SAFETY: PCID is on, and the word is that of a living space, whose root maps the kernel where that is asked for.
            unsafe { flush.invalidate_page(Self::cr3(word), address) };
        }
        // Without an identifier of its own, a space that is not loaded has nothing cached.
    }

    /// This processor forgets all of the space with `word`, which lives, and leaves it if it has it loaded.
    pub fn forget_space_here(&self, word: usize) {
        let root = self.kernel_space.root();
        if Cr3::read() == Self::cr3(word) {
            // SAFETY: the kernel's tables map the kernel as every space does. Whoever was about to load another space still
            // does so.
            unsafe { Cr3::new(root.0 as usize, 0).load() };
        }
        if area::here().space_word.get() == word {
            area::here().space_word.set(root.0 as usize);
        }
        if let Some(flush) = self.context_flush.filter(|_| self.has_identifier(word)) {
            // SAFETY: PCID is on; the root exists until whoever asks for this goes on.
            unsafe { flush.invalidate_space(Self::cr3(word)) };
        }
    }

    fn cr3(word: usize) -> Cr3 {
        let word = word & !KEEP_TRANSLATIONS;
        Cr3::new(word & !(PAGE_BYTES - 1), (word & (PAGE_BYTES - 1)) as u16)
    }
}

/// The kernel has read at `address` and found nothing. Whether that was a gap in a table of the core, where it finds zeroes when
/// it reads again, or what somebody has put there meanwhile.
pub fn fill_gap(address: usize) -> bool {
    layout::is_sparse(address) && HARDWARE.get().kernel_space.fill_gap(page_of(address))
}

/// Pages that a word of a map has bits for, in bytes of the table.
const MAP_WORD_BYTES: usize = PAGE_BYTES * usize::BITS as usize;

/// Which pages of TCBs are backed, a bit for each. Changed under `tables`; who looks without that learns what was.
static TCB_PAGES: [AtomicUsize; layout::TCB_TABLE_BYTES / MAP_WORD_BYTES] =
    [const { AtomicUsize::new(0) }; layout::TCB_TABLE_BYTES / MAP_WORD_BYTES];

/// The word and the bit in [`TCB_PAGES`] of the page with byte `offset` of the table.
fn tcb_page(offset: usize) -> Option<(&'static AtomicUsize, usize)> {
    Some((TCB_PAGES.get(offset / MAP_WORD_BYTES)?, 1 << (offset / PAGE_BYTES % usize::BITS as usize)))
}

/// Notes that the page at `address`, if it is one of TCBs, is backed or not.
fn note_tcbs(address: usize, is_backed: bool) {
    if let Some((word, bit)) = address.checked_sub(layout::TCB_TABLE).and_then(tcb_page) {
        let others = word.load(Relaxed) & !bit;
        word.store(if is_backed { others | bit } else { others }, Release);
    }
}

/// A table in which each thread has a slot.
struct ThreadTable {
    address: fn(TcbRef) -> usize,
    slots_per_page: usize,
}

const THREAD_TABLES: [ThreadTable; 2] = [
    ThreadTable { address: tcb_address, slots_per_page: PAGE_BYTES / size_of::<Tcb>() },
    ThreadTable { address: frame_address, slots_per_page: PAGE_BYTES >> FRAME_SIZE_LOG2 },
];

impl ThreadTable {
    fn is_vacant(&self, thread: TcbRef) -> bool {
        // A page of saved registers is of threads whose TCBs share a page, which may have gone before.
        !HARDWARE.get().has_memory(thread) || is_page_vacant(KERNEL.get().tcbs, thread, self.slots_per_page)
    }

    fn share_a_page(&self, a: TcbRef, b: TcbRef) -> bool {
        page_of((self.address)(a)) == page_of((self.address)(b))
    }
}

fn tcb_address(thread: TcbRef) -> usize {
    layout::TCB_TABLE + thread.index() * size_of::<Tcb>()
}

fn frame_address(thread: TcbRef) -> usize {
    layout::FRAME_TABLE + (thread.index() << FRAME_SIZE_LOG2)
}

fn page_of(address: usize) -> usize {
    address & !(PAGE_BYTES - 1)
}

/// Makes all processors forget what they knew of a page of the kernel's. When it returns, none can reach the frame that
/// was there, and none takes the page for zeroes.
///
/// While the initial servers are made the other processors sleep and know nothing.
fn forget_everywhere(stale: Stale) {
    let page = stale.forget_here();
    shootdown::forget_kernel_page(page);
}

// --- memory ---

/// Where a frame of kernel memory is.
pub fn direct_map(frame: PhysAddr) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(layout::DIRECT_MAP + frame.0 as usize)
}

fn direct(at: PhysAddr) -> &'static AtomicUsize {
    debug_assert!((at.0 as usize) < layout::DIRECT_MAP_BYTES);
    // SAFETY: kernel memory is mapped at this distance for ever; its words are only touched as atomics.
    unsafe { &*core::ptr::with_exposed_provenance(layout::DIRECT_MAP + at.0 as usize) }
}

/// Kernel memory where the kernel sees it, for a processor of this locality. Exists before [`HARDWARE`].
pub struct DirectMap {
    /// The locality.
    pub locality: usize,
}

impl PhysMem for DirectMap {
    #[inline(always)]
    fn read(&self, at: PhysAddr) -> usize {
        direct(at).load(Relaxed)
    }

    #[inline(always)]
    fn write(&self, at: PhysAddr, word: usize) {
        direct(at).store(word, Relaxed);
    }

    fn update(&self, at: PhysAddr, clear: usize, set: usize) -> usize {
        let changed = direct(at).fetch_update(Relaxed, Relaxed, |word| Some(word & !clear | set));
        changed.expect("the closure never refuses")
    }

    fn replace(&self, at: PhysAddr, old: usize, new: usize) -> bool {
        direct(at).compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }

    fn zero_frame(&self, frame: PhysAddr) {
        // SAFETY: the frame is kernel memory that nobody uses yet.
        unsafe { direct_map(frame).write_bytes(0, PAGE_BYTES) };
    }

    fn locality(&self) -> usize {
        self.locality
    }
}

/// The direct map where it does not matter who asks.
const MEMORY: DirectMap = DirectMap { locality: 0 };

impl PhysMem for Hardware {
    #[inline(always)]
    fn read(&self, at: PhysAddr) -> usize {
        MEMORY.read(at)
    }

    #[inline(always)]
    fn write(&self, at: PhysAddr, word: usize) {
        MEMORY.write(at, word);
    }

    #[inline(always)]
    fn update(&self, at: PhysAddr, clear: usize, set: usize) -> usize {
        MEMORY.update(at, clear, set)
    }

    fn replace(&self, at: PhysAddr, old: usize, new: usize) -> bool {
        MEMORY.replace(at, old, new)
    }

    fn zero_frame(&self, frame: PhysAddr) {
        MEMORY.zero_frame(frame);
    }

    #[inline(always)]
    fn locality(&self) -> usize {
        area::here().locality.get().into()
    }
}

impl Tlb for Hardware {
    fn invalidate(&self, space: SpaceRef, at: usize, _size_log2: u32) {
        let word = KERNEL.get().spaces.get(space).machine_word();
        self.forget_page_here(word, at);
        shootdown::add_page(word, at);
    }

    fn invalidate_all(&self, space: SpaceRef) {
        let word = KERNEL.get().spaces.get(space).machine_word();
        self.forget_space_here(word);
        shootdown::forget_space(word);
    }

    #[inline]
    fn complete(&self) {
        shootdown::complete();
    }

    fn flush_caches(&self) {
        if !self.features.contains(Features::SELF_SNOOP) {
            cache::flush();
            shootdown::flush_caches();
        }
    }
}

impl Mmu for Hardware {
    type Format = Amd64;

    const THREAD_BYTES: usize = size_of::<Tcb>() + size_of::<Frame>();
    const PORT_MAP_FRAMES: usize = port_map::LEVELS_BELOW;

    #[inline(always)]
    fn format(&self) -> Amd64 {
        Amd64 {
            no_execute: self.features.contains(Features::NX),
            global: self.features.contains(Features::PGE),
            pat: self.features.contains(Features::PAT),
            huge: self.features.contains(Features::PAGES_1G),
        }
    }

    fn init_root(&self, root: PhysAddr) {
        for (index, entry) in self.kernel_space.root_entries() {
            self.write(PhysAddr(root.0 + (index * size_of::<usize>()) as u64), entry as usize);
        }
    }

    /// With PCID the first 4095 spaces have an identifier each and keep their translations; the others share one, which is
    /// emptied whenever it is loaded: 0, which is the kernel's, or, as the kernel's must keep what is known under it where
    /// spaces show something else, the last one.
    fn space_word(&self, space: SpaceRef, root: PhysAddr) -> usize {
        let isolates = mitigations::isolate_tables();
        let shared = if isolates { SharedIdentifier::Last } else { SharedIdentifier::OfKernel };
        match self.context_flush {
            Some(_) => Cr3::word_of_space(root.0 as usize, space.index(), shared),
            None => root.0 as usize,
        }
    }

    fn back_nodes(&self, kmem: &Kmem, held: &mut Held<{ rank::NODES }>, first: NodeRef) -> Result<(), NoMemory> {
        self.back(kmem, self.tables.lock(held).held(), node_address(first))
    }

    fn release_nodes(&self, kmem: &Kmem, held: &mut Held<{ rank::NODES }>, first: NodeRef) {
        self.release(kmem, self.tables.lock(held).held(), node_address(first));
    }

    fn back_spaces(&self, kmem: &Kmem, held: &mut Held<{ rank::SPACE }>, first: SpaceRef) -> Result<(), NoMemory> {
        self.back(kmem, self.tables.lock(held).held(), space_address(first))
    }

    fn release_spaces(&self, kmem: &Kmem, held: &mut Held<{ rank::SPACE }>, first: SpaceRef) {
        self.release(kmem, self.tables.lock(held).held(), space_address(first));
    }

    fn has_io_fpages(&self) -> bool {
        self.options.io_fpages
    }

    fn open_port_map(
        &self,
        kmem: &Kmem,
        held: &mut Held<{ rank::PORTS }>,
        space: SpaceRef,
        root: PhysAddr,
        [low, high]: [PhysAddr; 2],
    ) -> Result<(), NoMemory> {
        let end = self.kernel_space.ones().expect("with I/O fpages there are port maps");
        port_map::open(self, self.format(), kmem, held, root, [low, high, end])?;
        (0..port_map::PAGES).for_each(|page| self.invalidate(space, port_map::page(page), PAGE_BYTES.ilog2()));
        Ok(())
    }

    fn close_port_map(&self, kmem: &Kmem, held: &mut Held<{ rank::PORTS }>, root: PhysAddr) {
        port_map::close(self, self.format(), kmem, held, root);
    }
}

fn node_address(node: NodeRef) -> usize {
    layout::NODE_TABLE + node.index() * size_of::<Node>()
}

fn space_address(space: SpaceRef) -> usize {
    layout::SPACE_TABLE + space.index() * size_of::<Space>()
}

// --- threads ---

impl Machine for Hardware {
    const IS_MULTIPROCESSOR: bool = config::SMP;

    #[inline]
    fn now_us(&self) -> u64 {
        // A tick is shorter than a microsecond, as the stub of SystemClock takes it, too.
        ((u128::from(tsc()) * u128::from(self.tsc_to_us.fraction())) >> u64::BITS) as u64
    }

    #[inline(always)]
    fn kernel_address(&self, phys: PhysAddr) -> usize {
        layout::DIRECT_MAP + phys.0 as usize
    }

    #[inline(always)]
    fn utcb(&self, address: usize) -> &Utcb {
        // SAFETY: the address came from `kernel_address` for a UTCB's place in a frame of kernel memory that lives as
        // long as its space; a UTCB is made of atomics, as user code writes to it too.
        unsafe { &*core::ptr::with_exposed_provenance(address) }
    }

    fn read_user_word(&self, at: PhysAddr) -> usize {
        let offset = at.0 as usize % PAGE_BYTES;
        // SAFETY: no copy is in progress; frames of user pages hold no data of the kernel.
        unsafe { self.kernel_space.show(area::copy_windows(), PhysAddr(at.0 - offset as u64)) };
        let word: *const AtomicUsize = core::ptr::with_exposed_provenance(area::copy_windows() + offset);
        // SAFETY: an aligned word in the window; user code may write to it at any time, so it is read as an atomic.
        unsafe { &*word }.load(Relaxed)
    }

    fn ipc_return_ip(&self) -> usize {
        stubs::IPC_RETURN as usize
    }

    fn copy(&self, from: PhysAddr, to: PhysAddr, len: usize) {
        let windows = area::copy_windows();
        let [source, dest] = [(from, windows), (to, windows + PAGE_BYTES)].map(|(PhysAddr(phys), window)| {
            let offset = phys as usize % PAGE_BYTES;
            // SAFETY: the windows are this copy's; frames of user pages hold no data of the kernel.
            unsafe { self.kernel_space.show(window, PhysAddr(phys - offset as u64)) };
            window + offset
        });
        let source: *const u8 = core::ptr::with_exposed_provenance(source);
        let dest: *mut u8 = core::ptr::with_exposed_provenance_mut(dest);
        // SAFETY: both runs lie in their windows, as the caller keeps them within a page; both may be the same frame.
        unsafe { core::ptr::copy(source, dest, len) };
    }

    fn back_thread(&self, held: &mut Held<{ rank::NONE }>, thread: TcbRef) -> Result<(), NoMemory> {
        let Kernel { kmem, tcbs, .. } = KERNEL.get();
        let mut tables = self.tables.lock(held);
        let held = tables.held();
        let backed =
            self.back(kmem, held, tcb_address(thread)).and_then(|()| self.back(kmem, held, frame_address(thread)));
        match backed {
            Ok(()) => tcbs[thread.index()].set_claimed(true),
            Err(NoMemory) => self.release_vacant(kmem, held, thread),
        }
        backed
    }

    #[inline]
    fn has_memory(&self, thread: TcbRef) -> bool {
        let page = tcb_page(thread.index() * size_of::<Tcb>());
        page.is_some_and(|(word, bit)| word.load(Acquire) & bit != 0)
    }

    fn release_thread(&self, held: &mut Held<{ rank::NONE }>, thread: TcbRef) {
        let Kernel { kmem, tcbs, .. } = KERNEL.get();
        let mut tables = self.tables.lock(held);
        tcbs[thread.index()].set_claimed(false);
        self.keep_vacant(kmem, tables.held(), thread);
    }

    fn reclaim(&self, held: &mut Held<{ rank::NONE }>) -> bool {
        let kmem = KERNEL.get().kmem;
        let mut tables = self.tables.lock(held);
        let mut has_reclaimed = false;
        for (table, spare) in THREAD_TABLES.iter().zip(&self.spares) {
            if let Some(thread) = spare.replace(None).filter(|&thread| table.is_vacant(thread)) {
                self.release(kmem, tables.held(), (table.address)(thread));
                has_reclaimed = true;
            }
        }
        has_reclaimed
    }

    fn reset_registers(&self, thread: TcbRef) {
        self.forget_thread(thread);
        let frame = frame(thread);
        for register in frame.general() {
            register.set(0);
        }
        // SAFETY: the thread is not running, and the processor does not hold its registers any more.
        unsafe { frame.fpu.reset() };
    }

    fn default_flags(&self) -> usize {
        if self.options.io_fpages { DEFAULT_FLAGS } else { DEFAULT_FLAGS_WITH_PORTS }
    }

    fn user_flags(&self, old: usize, wanted: usize) -> usize {
        const CHANGEABLE: usize = USER_FLAGS_MASK as usize;
        old & !CHANGEABLE | wanted & CHANGEABLE
    }

    fn begin_copy(&self) {
        shootdown::begin_copy();
    }

    fn end_copy(&self) {
        shootdown::end_copy();
    }

    fn kick(&self, cpu: CpuId) {
        kick(cpu);
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn note_plain_wait(&self, thread: TcbRef) {
        note_space(area::here(), KERNEL.get().tcb(thread).space_word.get());
    }

    fn pause(&self) {
        core::hint::spin_loop();
    }

    fn let_go(&self, thread: TcbRef) {
        let cpu = area::here();
        if cpu.fpu_owner.get() != Some(thread) {
            return;
        }
        fpu::unlock();
        // SAFETY: the registers are the thread's, which is not in user mode; CR4.OSFXSR is set, and CR0.TS clear.
        unsafe { frame(thread).fpu.save() };
        self.forget_thread(thread);
    }

    fn route_line(&self, thread: TcbRef, cpu: CpuId) {
        let line = thread.index() as u32;
        if line < KERNEL.get().numbers.system_base {
            // SAFETY: a processor that the core knows has an area.
            self.interrupts.route(line, unsafe { area::of(cpu) }.apic_id.get());
        }
    }

    fn has_line(&self, line: u32) -> bool {
        self.interrupts.is_available(line)
    }

    fn mask_line(&self, held: &mut Held<{ rank::NONE }>, line: u32) {
        self.interrupts.mask(held, line);
    }

    fn unmask_line(&self, held: &mut Held<{ rank::NONE }>, line: u32) {
        self.interrupts.unmask(held, line);
    }

    fn put_char(&self, character: u8) -> bool {
        console::put(character)
    }

    fn forget_thread(&self, thread: TcbRef) {
        let cpu = area::here();
        if cpu.fpu_owner.get() == Some(thread) {
            cpu.fpu_owner.set(None);
            cpu.fpu_is_live.set(false);
            fpu::lock();
        }
    }

    #[inline(always)]
    fn ipc_return(&self, thread: TcbRef, tcb: &Tcb, from: ThreadId) {
        trace::ipc_returned(tcb.id.get(), from, tcb.utcb_in(self));
        let frame = frame(thread);
        frame.rsi.set(from.raw() as usize);
        frame.rdi.set(tcb.local_id.get().raw() as usize);
        load_message_registers(frame, tcb.utcb_in(self));
    }

    fn unmap_return(&self, thread: TcbRef, utcb: &Utcb) {
        trace::unmap_returned(thread);
        load_message_registers(frame(thread), utcb);
    }

    fn exception_image(&self, thread: TcbRef, regs: UserRegs, words: &mut [Word; EXCEPTION_IMAGE_WORDS]) -> usize {
        let frame = frame(thread);
        words[0] = regs.ip as Word;
        for (word, register) in words[1..].iter_mut().zip(exception_registers(frame)) {
            *word = register.get() as Word;
        }
        let tail = [regs.sp, regs.flags, frame.vector.get(), frame.error_code.get()];
        for (word, value) in words[EXCEPTION_IMAGE_WORDS - tail.len()..].iter_mut().zip(tail) {
            *word = value as Word;
        }
        words.len()
    }

    fn load_exception_image(&self, thread: TcbRef, regs: UserRegs, words: &[Word]) -> UserRegs {
        let mut words = words.iter().map(|&word| word as usize);
        let ip = words.next().unwrap_or(regs.ip);
        for (register, word) in exception_registers(frame(thread)).into_iter().zip(words.by_ref()) {
            register.set(word);
        }
        let sp = words.next().unwrap_or(regs.sp);
        let flags = words.next().map_or(regs.flags, |flags| self.user_flags(regs.flags, flags));
        UserRegs { ip, sp, flags }
    }
}

/// The general registers in the order of the exception message, MR2 to MR16 (amd64 ABI, Exception message).
fn exception_registers(frame: &Frame) -> [&Var<usize>; 15] {
    let f = frame;
    [
        &f.rbx, &f.r10, &f.r12, &f.r13, &f.r14, &f.r15, &f.rax, &f.rcx, &f.rdx, &f.rsi, &f.rdi, &f.rbp, &f.r8, &f.r9,
        &f.r11,
    ]
}

#[inline(always)]
fn load_message_registers(frame: &Frame, utcb: &Utcb) {
    for (index, register) in frame.message_registers().into_iter().enumerate() {
        register.set(utcb.mr(index) as usize);
    }
}

/// Notes that `thread` raised exception `vector`, for the message to its handler.
pub fn set_exception(thread: TcbRef, vector: usize, error_code: usize) {
    let frame = frame(thread);
    frame.vector.set(vector);
    frame.error_code.set(error_code);
}

// --- what belongs to the running thread ---

/// Notes that this processor, which has `cpu`, may cache translations of the space with `word` though it is not loaded.
#[inline(always)]
fn note_space(cpu: &area::Area, word: usize) {
    // Without identifiers no word has this bit.
    if word & KEEP_TRANSLATIONS != 0 {
        cpu.batch.note_loaded(word);
    }
}

/// Makes the space and the UTCB pointer those of `tcb`, which is about to run.
#[inline(always)]
pub fn enter_space(tcb: &Tcb) {
    let (cpu, word) = (area::here(), tcb.space_word.get());
    if cpu.space_word.get() != word {
        note_space(cpu, word);
        cpu.space_word.set(word);
        // SAFETY: every space maps the kernel alike. The bit "keep" is set only in words with an identifier that no
        // other living space has, and whose translations were forgotten when its last user went.
        unsafe { mitigations::load_space(word) };
    }
    area::set_utcb_slot(tcb.local_id.get().raw() as usize);
}

/// Makes `gs`, the right to use floating-point registers and that to the fast path what `thread`, which is about to run,
/// must find.
#[inline(always)]
pub fn enter_registers(thread: TcbRef, may_call_fast: bool) {
    let cpu = area::here();
    let selector: u32;
    // SAFETY: reading a selector changes nothing.
    unsafe { asm!("mov {:e}, gs", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    if selector != u32::from(Selector::USER_GS.0) {
        trace::point(Event::X86Segreload, || []);
        // SAFETY: the descriptor table is loaded, the base canonical, and the kernel does not use `gs`.
        unsafe { area::porch().gdt.load_user_gs(layout::utcb_slot(area::cpu().index())) };
    }
    let is_owner = cpu.fpu_owner.is(Some(thread));
    if is_owner || cpu.fpu_is_live.get() {
        enter_fpu(is_owner);
    }
    // With live floating-point registers the next switch must lock them.
    cpu.allow_fast_path(!is_owner && may_call_fast && !trace::wants(Event::OF_MESSAGES));
}

/// Makes the right to use floating-point registers what it must be, with a thread that has its own in them or not.
#[inline(never)]
fn enter_fpu(is_owner: bool) {
    let cpu = area::here();
    if cpu.fpu_is_live.get() != is_owner {
        if !is_owner && mitigations::empty_fpu() {
            empty_fpu(cpu.fpu_owner.replace(None));
        }
        cpu.fpu_is_live.set(is_owner);
        if is_owner { fpu::unlock() } else { fpu::lock() }
    }
}

/// Leaves nothing in the floating-point registers, which are live: what they hold is that of `owner`, or nobody's.
fn empty_fpu(owner: Option<TcbRef>) {
    static INITIAL: FpuState = FpuState::initial();
    if let Some(owner) = owner {
        // SAFETY: the owner is not in user mode; CR4.OSFXSR is set, and CR0.TS clear, as the registers are live.
        unsafe { frame(owner).fpu.save() };
    }
    // SAFETY: as above; nobody writes to the state, and what the registers held is saved or not needed.
    unsafe { INITIAL.restore() };
}

/// Makes the segment registers what a fresh thread has in them.
pub fn reset_segments() {
    trace::point(Event::X86Segreload, || []);
    // SAFETY: the descriptor table is loaded, the base canonical, and the kernel uses none of the registers.
    unsafe { area::porch().gdt.load_user_data(layout::utcb_slot(area::cpu().index())) };
}

/// Nobody has used a floating-point register on this processor yet.
pub fn start_fpu() {
    fpu::lock();
    area::here().fpu_is_live.set(false);
}

/// The running thread `thread` uses a floating-point register that the processor does not hold.
pub fn use_fpu(thread: TcbRef) {
    fpu::unlock();
    let cpu = area::here();
    trace::point(Event::X86FpuReenable, || {
        [cpu.fpu_owner.get().map_or(0, |owner| KERNEL.get().tcb(owner).id.get().arg())]
    });
    cpu.fpu_is_live.set(true);
    if let Some(owner) = cpu.fpu_owner.replace(Some(thread)) {
        // SAFETY: the owner is not running; CR4.OSFXSR is set, and CR0.TS clear.
        unsafe { frame(owner).fpu.save() };
    }
    // SAFETY: as above; what the registers held is saved.
    unsafe { frame(thread).fpu.restore() };
}

// --- the timer ---

/// The local APICs are in x2APIC mode.
static IS_X2APIC: AtomicBool = AtomicBool::new(false);

/// Brings local APICs into x2APIC mode, this processor's now and the others' when they start. They have that mode.
pub fn use_x2apic() {
    IS_X2APIC.store(true, Relaxed);
}

/// Switches the local APIC of this processor on.
pub fn start_local_apic(irq: &mut IrqOff) {
    if IS_X2APIC.load(Relaxed) {
        // SAFETY: the mode was chosen because the processors have it; nobody uses the page then.
        unsafe { apic::enter_x2apic(irq) };
    }
    local_apic().enable(vector::SPURIOUS, irq);
}

/// The local APIC of this processor, its timer divided by 2.
pub fn local_apic() -> LocalApic {
    if IS_X2APIC.load(Relaxed) {
        // SAFETY: the mode was entered when the processor started; the value is the only one, as below.
        return unsafe { LocalApic::new_x2apic() };
    }
    let page = NonNull::new(core::ptr::with_exposed_provenance_mut(layout::LOCAL_APIC_PAGE));
    // SAFETY: the page maps the registers, uncached; the value is the only one while it lives, as nothing on this
    // processor interrupts its user.
    unsafe { LocalApic::new(page.expect("the page is not at 0")) }
}

/// Arms the timer for `event`, microseconds on the clock, unless it is armed for it or for something earlier: then it
/// will be armed anew when it fires. Most events are put off again and again before they come.
#[inline(always)]
pub fn arm(event: Option<u64>) {
    arm_until(event.unwrap_or(area::NOT_ARMED));
}

/// The same; all ones: nothing happens.
#[inline(always)]
pub fn arm_until(event: u64) {
    let event = if config::KDB_BREAKIN { event.min(kdb::next_poll()) } else { event };
    if event < area::here().armed_for.get() {
        arm_anew(event);
    }
}

/// Arms the timer for `event` and nothing before it, as [`arm`] need not: the processor is about to sleep, and should not be
/// woken up in vain.
pub fn arm_for_sleep(event: Option<u64>) {
    let (armed_for, event) = (&area::here().armed_for, event.unwrap_or(area::NOT_ARMED));
    let event = if config::KDB_BREAKIN { event.min(kdb::next_poll()) } else { event };
    if event == armed_for.get() {
        return;
    }
    if event != area::NOT_ARMED {
        return arm_anew(event);
    }
    armed_for.set(event);
    local_apic().stop_timer();
}

#[inline(never)]
fn arm_anew(event: u64) {
    area::here().armed_for.set(event);
    let hardware = HARDWARE.get();
    let wait_us = event.saturating_sub(hardware.now_us());
    local_apic().start_timer(vector::TIMER, hardware.us_to_apic.count_down(wait_us));
}

/// The timer's interrupt is here: it has to be armed anew.
pub fn timer_fired() {
    area::here().armed_for.set(area::NOT_ARMED);
    // SAFETY: interrupts are off in the kernel, and no other token is in use here.
    let irq = unsafe { IrqOff::assume() };
    local_apic().end_of_interrupt(&irq);
}

// --- other processors ---

/// Interrupts processor `cpu`, which has started: it then looks what there is for it to do.
pub fn kick(cpu: CpuId) {
    // SAFETY: interrupts are off in the kernel, and no other token is in use here.
    let irq = unsafe { IrqOff::assume() };
    // SAFETY: a processor that has started has an area.
    let apic_id = unsafe { area::of(cpu) }.apic_id.get();
    local_apic().interrupt_processor(apic_id, vector::KICK, &irq);
    trace::point(Event::SmpIpi, || [cpu.arg()]);
}

/// This processor was kicked: another one wants it to look what there is to do.
pub fn kicked() {
    // SAFETY: interrupts are off in the kernel, and no other token is in use here.
    let irq = unsafe { IrqOff::assume() };
    local_apic().end_of_interrupt(&irq);
}

/// A bit for each page of a table.
type PageMap<const BYTES: usize> = [Var<usize>; BYTES];

static NODE_PAGES: PageMap<{ layout::NODE_TABLE_BYTES / MAP_WORD_BYTES }> =
    [const { Var::zero() }; layout::NODE_TABLE_BYTES / MAP_WORD_BYTES];
static SPACE_PAGES: PageMap<{ layout::SPACE_TABLE_BYTES / MAP_WORD_BYTES }> =
    [const { Var::zero() }; layout::SPACE_TABLE_BYTES / MAP_WORD_BYTES];

/// The first `bytes` of the node table.
pub fn node_table(bytes: usize) -> pool::Table<'static, Node> {
    let count = bytes.min(layout::NODE_TABLE_BYTES) / size_of::<Node>();
    let start = core::ptr::with_exposed_provenance(layout::NODE_TABLE);
    // SAFETY: the table reads as zeroes where it is not backed; the core writes to a node only between `back_nodes` and
    // `release_nodes` for it; nodes are made of atomics.
    let slots = unsafe { core::slice::from_raw_parts(start, count) };
    pool::Table { slots, backed: &NODE_PAGES }
}

/// The first `bytes` of the table of spaces.
pub fn space_table(bytes: usize) -> pool::Table<'static, Space> {
    let count = bytes.min(layout::SPACE_TABLE_BYTES) / size_of::<Space>();
    let start = core::ptr::with_exposed_provenance(layout::SPACE_TABLE);
    // SAFETY: as for the nodes, with `back_spaces` and `release_spaces`.
    let slots = unsafe { core::slice::from_raw_parts(start, count) };
    pool::Table { slots, backed: &SPACE_PAGES }
}

const _: () = assert!(size_of::<Space>() << layout::MAX_THREADS_LOG2 == layout::SPACE_TABLE_BYTES);

/// The node that `index` names exists in the table.
const _: () = assert!(layout::NODE_TABLE_BYTES / size_of::<Node>() <= u32::MAX as usize && size_of::<NodeRef>() == 4);
