//! The kernel's trace: what becomes of events ([`kformats::trace`], docs/tracing.md).
//!
//! Each processor has a ring of its own in kernel memory near to it, and alone writes there, with interrupts off: nothing
//! is locked. Which events a processor records, and at which it enters the debugger, are masks in the head of its ring. All of them
//! together are [`WANTED`], the one word that a tracepoint looks at.
//!
//! The assembly of the fast path has no tracepoints. While a processor may have to tell what it would do, no thread has the
//! right to take it ([`crate::area::Area::allow_fast_path`]).
//!
//! In a kernel that was built without tracepoints nothing of this is called.

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use kcore::kmem::Kmem;
use kcore::lock::Held;
use kcore::machine::{CpuId, PhysAddr, PhysMem, TcbRef};
use kcore::trace::{Arg, Args, Event, Sink, args};
use kcore::var::Var;
use kformats::trace::{Memory, Record, Ring, Shown, Store, head, layout, numbers, root};
use khal::timer::{Clocks, tsc};
use l4_abi::{ThreadId, Utcb, Word};

use crate::config::{DEBUG, MAX_CPUS, TRACEBUFFER, TRACEPOINTS};
use crate::frame::Frame;
use crate::machine::{DirectMap, HARDWARE, Hardware};
use crate::stubs::Call;
use crate::{KERNEL, area, kdb, trace_buffer};

const RINGS: usize = if TRACEPOINTS { MAX_CPUS } else { 0 };
const ROOT_WORDS: usize = if TRACEPOINTS { root::RINGS + RINGS } else { 0 };

/// The root of the trace. Tools find it by this name.
#[unsafe(export_name = "kernel_trace")]
static ROOT: [AtomicU64; ROOT_WORDS] = [const { AtomicU64::new(0) }; ROOT_WORDS];

/// Events that some processor records or stops at: a bit for each. In a line of its own, which all processors share as long as
/// nobody changes what is traced.
static WANTED: Line = Line(AtomicU64::new(0));

#[repr(align(64))]
struct Line(AtomicU64);

/// Pages of a ring if nothing else is said, and the part of kernel memory that all rings together take at most.
const PAGES: usize = 64;
const PART_OF_MEMORY: usize = 8;

/// Kernel memory as rings are in.
pub struct Rings;

const MEMORY: DirectMap = DirectMap { locality: 0 };

impl Store for Rings {
    fn get(&self, at: u64) -> u64 {
        MEMORY.read(PhysAddr(at)) as u64
    }

    fn set(&self, at: u64, word: u64) {
        // The processor keeps the order of its writes by itself.
        compiler_fence(Ordering::Release);
        MEMORY.write(PhysAddr(at), word as usize);
    }
}

impl Memory for Rings {
    fn load(&self, at: u64) -> Option<u64> {
        let is_there =
            at.is_multiple_of(8) && KERNEL.try_get().is_some_and(|kernel| kernel.kmem.contains(PhysAddr(at)));
        compiler_fence(Ordering::Acquire);
        is_there.then(|| self.get(at))
    }
}

impl Sink for DirectMap {
    const TRACES: bool = TRACEPOINTS;

    #[inline(always)]
    fn wants(&self, events: u64) -> bool {
        wants(events)
    }

    fn take(&self, event: Event, thread: Option<ThreadId>, args: Args) {
        take(event, thread, args);
    }
}

impl Sink for Hardware {
    const TRACES: bool = TRACEPOINTS;

    #[inline(always)]
    fn wants(&self, events: u64) -> bool {
        wants(events)
    }

    fn take(&self, event: Event, thread: Option<ThreadId>, args: Args) {
        take(event, thread, args);
    }
}

/// Whether one of the events with these bits is traced by some processor.
#[inline(always)]
pub fn wants(events: u64) -> bool {
    TRACEPOINTS && WANTED.0.load(Ordering::Relaxed) & events != 0
}

/// A tracepoint of the image's own, about the running thread.
#[inline(always)]
pub fn point<const N: usize>(event: Event, what: impl FnOnce() -> [u64; N]) {
    if wants(event.bit()) {
        MEMORY.trace(event, || args(what()));
    }
}

/// A word of the root.
pub fn root_word(index: usize) -> Option<u64> {
    Some(ROOT.get(index)?.load(Ordering::Relaxed))
}

/// Replaces one; `false`: there is none.
pub fn set_root_word(index: usize, value: u64) -> bool {
    ROOT.get(index).is_some_and(|word| {
        word.store(value, Ordering::Relaxed);
        true
    })
}

fn word(index: usize) -> u64 {
    root_word(index).unwrap_or(0)
}

/// The ring of a processor, if it has one.
pub fn ring_of(cpu: usize) -> Option<Ring> {
    Some(word(root::RINGS + cpu)).filter(|at| *at != 0).map(Ring)
}

fn id_of(thread: TcbRef) -> u64 {
    KERNEL.try_get().map_or(0, |kernel| kernel.tcb(thread).id.get().arg())
}

/// The id of the running thread; 0: nobody runs.
fn running() -> u64 {
    area::here().cpu.current.get().thread().map_or(0, id_of)
}

/// Whether events of a thread are recorded.
fn is_chosen(thread: u64) -> bool {
    match word(root::CHOSEN_COUNT) as usize {
        0 => true,
        count => (0..count.min(root::CHOSEN_MAX)).any(|index| word(root::CHOSEN + index) == thread),
    }
}

/// Whether events of an interrupt line are recorded.
fn is_chosen_line(line: u64) -> bool {
    const BITS: usize = u64::BITS as usize;
    let lines = || (0..root::LINES_WORDS).map(|index| word(root::LINES + index));
    let own = lines().nth(line as usize / BITS);
    own.is_none_or(|own| own >> (line as usize % BITS) & 1 != 0) || lines().all(|word| word == 0)
}

const OF_LINES: u64 = Event::Interrupt.bit() | Event::InterruptDetails.bit();

/// Records an event, and has the debugger entered, as the masks of this processor say.
fn take(event: Event, thread: Option<ThreadId>, args: Args) {
    let cpu = area::cpu().index();
    let Some(ring) = ring_of(cpu) else { return };
    let is_in = |mask| Rings.get(ring.head_word(mask)) & event.bit() != 0;
    let (is_recorded, stops) = (is_in(head::RECORDED), is_in(head::STOPS));
    let thread = thread.map_or_else(running, Arg::arg);
    if !(is_recorded || stops) || !is_chosen(thread) || event.bit() & OF_LINES != 0 && !is_chosen_line(args[0]) {
        return;
    }
    ring.count(&Rings, event);
    if is_recorded {
        let (event, processor) = (event.number() as u16, cpu as u16);
        let record = Record { tsc: tsc(), event, processor, thread, args };
        ring.add(&Rings, &record);
        if TRACEBUFFER {
            trace_buffer::write(&record);
        }
    }
    if stops && DEBUG {
        kdb::stop_at(event);
    }
}

// --- at boot ---

/// Gives the processors their rings and begins to record the events `recorded`. The core is there. `pages` for each ring, if they
/// are not too much for kernel memory; 0: as many as usual.
pub fn start(clocks: Clocks, kmem: &Kmem, recorded: u64, pages: u16) {
    if !TRACEPOINTS {
        return;
    }
    let cpus = KERNEL.get().cpus.len();
    let wanted = if pages == 0 { PAGES } else { usize::from(pages).min(head::PAGES_MAX) };
    let pages = wanted.min(kmem.free_count() / PART_OF_MEMORY / cpus).max(1);
    for cpu in 0..cpus {
        make_ring(kmem, cpu, pages);
    }
    set_root_word(root::TSC_KHZ, clocks.tsc_khz.get());
    set_root_word(root::RINGS_COUNT, RINGS as u64);
    set_root_word(root::LAYOUT, layout());
    set_root_word(root::MAGIC, root::MAGIC_WORD);
    (0..cpus).filter_map(ring_of).for_each(|ring| ring.set_mask(&Rings, head::RECORDED, recorded));
    masks_changed();
}

/// A processor for which there is no memory has no ring, and traces nothing.
fn make_ring(kmem: &Kmem, cpu: usize, pages: usize) {
    // SAFETY: the processors that the core knows have areas.
    let locality = unsafe { area::of(CpuId::new(cpu as u32)) }.locality.get().into();
    let memory = &DirectMap { locality };
    let frame = || kmem.alloc(memory, &mut Held::nothing()).map(|frame| frame.0);
    let Some((head, first)) = frame().and_then(|head| Some((head, frame()?))) else { return };
    let more = (1..pages).map_while(|_| frame());
    Ring(head).make(&Rings, cpu, core::iter::once(first).chain(more));
    set_root_word(root::RINGS + cpu, head);
}

/// The masks of some rings are others now: [`WANTED`] follows, and threads that run lose the right to the fast path if
/// messages are traced. Others run only while no debugger stops them at boot, when nobody has the right yet.
pub fn masks_changed() {
    let mask = |ring: Ring| Rings.get(ring.head_word(head::RECORDED)) | Rings.get(ring.head_word(head::STOPS));
    let cpus = KERNEL.get().cpus.len();
    let wanted = (0..cpus).filter_map(ring_of).fold(0, |wanted, ring| wanted | mask(ring));
    WANTED.0.store(wanted, Ordering::Relaxed);
    if wants(Event::OF_MESSAGES) {
        // SAFETY: the processors that the core knows have areas.
        (0..cpus).for_each(|cpu| unsafe { area::of(CpuId::new(cpu as u32)) }.allow_fast_path(false));
    }
}

// --- who runs ---

const OF_SWITCHES: u64 = Event::ScheduleDetails.bit() | Event::ScheduleIdle.bit();

/// `thread` is about to be in user mode.
#[inline(always)]
pub fn runs(thread: TcbRef) {
    if wants(OF_SWITCHES) {
        note_switch(Some(thread));
    }
}

/// Nobody is ready.
#[inline(always)]
pub fn rests() {
    if wants(OF_SWITCHES) {
        note_switch(None);
    }
}

#[cold]
#[inline(never)]
fn note_switch(thread: Option<TcbRef>) {
    let Some(ring) = ring_of(area::cpu().index()) else { return };
    let (before, now) = (Rings.get(ring.head_word(head::RAN)), thread.map_or(0, id_of));
    if before == now {
        return;
    }
    Rings.set(ring.head_word(head::RAN), now);
    take(Event::ScheduleDetails, Some(ThreadId::from_raw(before as Word)), args([before, now]));
    if now == 0 {
        take(Event::ScheduleIdle, None, args([]));
    }
}

// --- system calls ---

/// All system calls but Ipc.
pub const OTHER_CALLS: u64 = kformats::trace::Group::Calls.mask() & !Event::SyscallIpc.bit();

/// The event of a call of this thread, which its registers say more of.
fn event_of(call: Call, frame: &Frame) -> Event {
    match call {
        Call::Ipc => Event::SyscallIpc,
        Call::ExchangeRegisters => Event::SyscallExchangeRegisters,
        Call::ThreadControl => {
            let system_base = KERNEL.get().numbers.system_base;
            let number = ThreadId::from_raw(frame.rdi.get() as Word).thread_no();
            let is_line = number < Word::from(system_base);
            if is_line { Event::SyscallThreadControlIrq } else { Event::SyscallThreadControl }
        }
        Call::ThreadSwitch => Event::SyscallThreadSwitch,
        Call::Schedule => Event::SyscallSchedule,
        Call::Unmap => Event::SyscallUnmap,
        Call::SpaceControl => Event::SyscallSpaceControl,
        Call::ProcessorControl => Event::SyscallProcessorControl,
        Call::MemoryControl => Event::SyscallMemoryControl,
    }
}

/// The running thread makes a call, with these registers. Returns its event.
#[cold]
#[inline(never)]
pub fn call(call: Call, frame: &Frame) -> Event {
    let f = frame;
    let event = event_of(call, frame);
    let mr0 = f.message_registers()[0];
    let registers: &[&Var<usize>] = match event {
        Event::SyscallIpc => &[&f.rsi, &f.rdx, &f.r8, mr0],
        Event::SyscallExchangeRegisters => &[&f.rax, &f.rsi, &f.rdx, &f.r8],
        Event::SyscallThreadControl => &[&f.rdi, &f.r8, &f.rdx, &f.rsi],
        Event::SyscallThreadControlIrq => &[&f.rdi, &f.r8, &f.rsi],
        Event::SyscallThreadSwitch => &[&f.rdi],
        Event::SyscallSchedule => &[&f.rdi, &f.rdx, &f.rsi, &f.r8],
        Event::SyscallUnmap => &[&f.rdx, mr0],
        Event::SyscallSpaceControl => &[&f.rdi, &f.rsi, &f.rdx, &f.r8],
        Event::SyscallProcessorControl => &[&f.rdi, &f.rsi, &f.rdx, &f.r8],
        Event::SyscallMemoryControl => &[&f.rdx, mr0],
        _ => &[],
    };
    let mut args = Args::default();
    args.iter_mut().zip(registers).for_each(|(arg, register)| *arg = register.get() as u64);
    if wants(event.bit()) {
        take(event, None, args);
    }
    event
}

/// The call of the running thread `thread` with this event has its result. That of Unmap comes later.
#[cold]
#[inline(never)]
pub fn returned(event: Event, thread: TcbRef, frame: &Frame) {
    if event == Event::SyscallUnmap || !wants(Event::SyscallReturn.bit()) {
        return;
    }
    let tcb = KERNEL.get().tcb(thread);
    let result = match event {
        Event::SyscallThreadSwitch => 1,
        _ => frame.rax.get() as u64,
    };
    // Who deletes itself has no UTCB any more.
    let error = if result == 0 && tcb.utcb.get() != 0 { tcb.utcb_in(HARDWARE.get()).error_code() as u64 } else { 0 };
    take(Event::SyscallReturn, Some(tcb.id.get()), args([event.number() as u64, result, error]));
}

/// The call of Ipc of the thread `id` ends, with `from` as its result and the rest in its UTCB.
#[inline(always)]
pub fn ipc_returned(id: ThreadId, from: ThreadId, utcb: &Utcb) {
    if wants(Event::SyscallReturn.bit()) {
        note_ipc_returned(id, from, utcb);
    }
}

#[cold]
#[inline(never)]
fn note_ipc_returned(id: ThreadId, from: ThreadId, utcb: &Utcb) {
    let tag = utcb.tag();
    let error = if tag.is_error() { utcb.error_code() as u64 } else { 0 };
    let call = Event::SyscallIpc.number() as u64;
    take(Event::SyscallReturn, Some(id), args([call, from.arg(), error, tag.raw() as u64]));
}

/// The call of Unmap of a thread ends.
#[inline(always)]
pub fn unmap_returned(thread: TcbRef) {
    if wants(Event::SyscallReturn.bit()) {
        let id = KERNEL.get().tcb(thread).id.get();
        take(Event::SyscallReturn, Some(id), args([Event::SyscallUnmap.number() as u64, 1]));
    }
}

// --- when all is over ---

/// Records that a panic shows of each processor, and processors of which it shows some besides its own.
const LAST: u64 = 16;
const OTHERS: usize = 7;

/// Prints what happened last: at this processor, and at some others.
pub fn print_last(out: &mut dyn Write) {
    let own = area::cpu().index();
    let others = (0..RINGS).filter(|&cpu| cpu != own && ring_of(cpu).is_some()).take(OTHERS);
    for cpu in core::iter::once(own).chain(others) {
        let Some(ring) = ring_of(cpu) else { continue };
        let there = ring.numbers(&Rings);
        for number in there.end.saturating_sub(LAST).max(there.start)..there.end {
            if let Some(record) = ring.read(&Rings, number) {
                let shown = Shown { record: &record, tsc_khz: word(root::TSC_KHZ), names: &numbers };
                // A console takes everything.
                let _ = writeln!(out, "marcona: {shown}");
            }
        }
    }
}
