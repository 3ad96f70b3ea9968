//! The kernel debugger in the image: how it is entered and left, and how the other processors stand still meanwhile.
//!
//! One processor at a time runs the debugger: the *owner*, whose number stands in [`OWNER`]. It interrupts the others by
//! non-maskable interrupts, in whose handler they stay, *parked*, until nobody owns it any more. A parked processor says
//! where it was, and reads registers of its own for the owner. What is asked for, printed and kept belongs to the owner
//! alone: [KDB-OWNER].
//!
//! Where the debugger is entered the kernel is about to go back to user mode, or sleeps, or is stuck: by a breakpoint or a
//! step of user code, a key during an interrupt of the timer, a non-maskable interrupt from outside, or a panic, after
//! which nothing goes on. In a kernel that was built without it nothing of this is called.

mod hardware;
mod terminal;

pub use terminal::take_kept_key;

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayString;
use kcore::kernel::Here;
use kcore::machine::{CpuId, Machine, SpaceRef, TcbRef};
use kcore::trace::Event;
use kdb::names::{NAME_BYTES, Name, Named, Names};
use kdb::{Entry, Leave, Session, State};
use khal::debug;
use khal::irq::IrqOff;
use l4_abi::ThreadId;

use crate::area::{self, Area};
use crate::config::{self, MAX_CPUS};
use crate::machine::{HARDWARE, Hardware, local_apic};
use crate::post_mortem::Place;
use crate::{KERNEL, console, layout, mitigations};

use hardware::Bench;
use terminal::Line;

type Core<'a> = Here<'a, Hardware>;

/// The processor that runs the debugger, and one more; 0: none.
static OWNER: AtomicU32 = AtomicU32::new(0);
/// Which processors are parked.
static PARKED: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
/// Where each one was.
static PLACES: [Stop; MAX_CPUS] = [const { Stop::new() }; MAX_CPUS];
/// When a processor was last interrupted non-maskably by another one, microseconds on the clock and one more; all ones: it
/// has been sent one that it has not taken.
static SENT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// Whether keys are looked for that stop the system.
static LOOKS_FOR_KEYS: AtomicBool = AtomicBool::new(true);
/// A single step is under way.
static IS_STEPPING: AtomicBool = AtomicBool::new(false);
/// What programs called their threads and spaces. Tools find it by this name.
static NAMES: Names = Names::new();
/// What lasts from one stay to the next.
static STATE: Owned<State> = Owned(UnsafeCell::new(State::new()));

/// How long others may take to stop.
const PATIENCE_US: u64 = 1_000_000;
/// How often keys are looked for.
const POLL_US: u64 = 10_000;
/// An interrupt that comes so soon after one from another processor may be an echo of that.
const ECHO_US: u64 = 10_000;

const TRAP_FLAG: usize = 1 << 8;
const INTERRUPTS_FLAG: u64 = 1 << 9;
const RESUME_FLAG: usize = 1 << 16;

/// Something that only the owner touches.
struct Owned<T>(UnsafeCell<T>);

// SAFETY: [KDB-OWNER] only the owner gets at it, and there is one.
unsafe impl<T: Send> Sync for Owned<T> {}

/// Where a processor was, in atomics, as another one reads it.
struct Stop {
    ip: AtomicU64,
    sp: AtomicU64,
    flags: AtomicU64,
    is_user: AtomicBool,
}

impl Stop {
    const fn new() -> Self {
        Self { ip: AtomicU64::new(0), sp: AtomicU64::new(0), flags: AtomicU64::new(0), is_user: AtomicBool::new(false) }
    }

    fn set(&self, frame: &InterruptFrame) {
        self.ip.store(frame.ip, Ordering::Relaxed);
        self.sp.store(frame.sp, Ordering::Relaxed);
        self.flags.store(frame.flags, Ordering::Relaxed);
        self.is_user.store(frame.is_user(), Ordering::Relaxed);
    }

    fn entry(&self, cpu: CpuId) -> Entry {
        Entry {
            vector: crate::trap::vector::NON_MASKABLE as u8,
            error: 0,
            ip: self.ip.load(Ordering::Relaxed),
            sp: self.sp.load(Ordering::Relaxed),
            flags: self.flags.load(Ordering::Relaxed),
            is_user: self.is_user.load(Ordering::Relaxed),
            registers: None,
            thread: current(cpu),
        }
    }
}

/// What the processor pushes for an interrupt.
#[repr(C)]
struct InterruptFrame {
    ip: u64,
    cs: u64,
    flags: u64,
    sp: u64,
    ss: u64,
}

impl InterruptFrame {
    fn is_user(&self) -> bool {
        self.cs & 3 != 0
    }
}

/// Who runs at a processor.
fn current(cpu: CpuId) -> Option<TcbRef> {
    KERNEL.try_get()?.cpus.get(cpu.index())?.current.get().thread()
}

fn now_us() -> u64 {
    HARDWARE.try_get().map_or(0, Machine::now_us)
}

// --- stays ---

/// Why the debugger is entered, as it is shown.
type Reason = ArrayString<96>;

fn reason(text: fmt::Arguments<'_>) -> Reason {
    let mut reason = Reason::new();
    // What is too long is cut.
    let _ = reason.write_fmt(text);
    reason
}

/// A stay: this processor owns the debugger, the others are parked, and a person talks with it.
fn stay(reason: &Reason, entry: Entry, can_go: bool, stack: (usize, usize)) -> Leave {
    let Some(kernel) = KERNEL.try_get() else {
        let _ = writeln!(Line, "the debugger has nothing to look at yet");
        return Leave::Ended;
    };
    let own = area::cpu();
    own_debugger(own);
    stop_others(own);
    let was_left = config::KDB_CONS_KBD && console::take_screen();
    hardware::paint_stack(stack);
    // SAFETY: [KDB-OWNER] this processor is the owner until `OWNER` is reset below.
    let state = unsafe { &mut *STATE.0.get() };
    let mut bench = Bench::new(own, reason, entry, can_go, stack);
    let leave = Session::new(kernel, &mut bench, &mut Line, state).run();
    // SAFETY: [KDB-OWNER] as above; others load theirs when they go on.
    unsafe { hardware::load_breakpoints() };
    if was_left {
        console::leave_screen();
    }
    OWNER.store(0, Ordering::Release);
    leave
}

/// Whether a processor runs the debugger and the others stand still, or are about to.
pub fn is_staying() -> bool {
    OWNER.load(Ordering::Relaxed) != 0
}

/// Waits until nobody else owns the debugger. Who does stops this processor meanwhile.
fn own_debugger(own: CpuId) {
    let number = own.index() as u32 + 1;
    if OWNER.load(Ordering::Relaxed) == number {
        // A panic in the debugger.
        return;
    }
    while OWNER.compare_exchange(0, number, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        core::hint::spin_loop();
    }
}

/// Parks all other processors, and says if some do not answer.
fn stop_others(own: CpuId) {
    let count = KERNEL.try_get().map_or(1, |kernel| kernel.cpus.len());
    let others = || (0..count).filter(|&cpu| cpu != own.index());
    // SAFETY: interrupts are off in the kernel, and no other token is in use here.
    let irq = unsafe { IrqOff::assume() };
    for cpu in others().filter(|&cpu| !PARKED[cpu].load(Ordering::Acquire)) {
        note_sent(cpu);
        // SAFETY: the processors that the core knows have areas.
        let apic_id = unsafe { area::of(CpuId::new(cpu as u32)) }.apic_id.get();
        local_apic().interrupt_non_maskably(apic_id, &irq);
    }
    let end = now_us().saturating_add(PATIENCE_US);
    let is_running = |&cpu: &usize| !PARKED[cpu].load(Ordering::Acquire);
    while others().any(|cpu| is_running(&cpu)) && now_us() < end {
        core::hint::spin_loop();
    }
    let silent = others().filter(is_running).count();
    if silent > 0 {
        let _ = writeln!(Line, "{silent} processors do not stop");
    }
}

/// Notes that processor `cpu` is about to be interrupted non-maskably by this one.
pub fn note_sent(cpu: usize) {
    SENT[cpu].store(u64::MAX, Ordering::Release);
}

/// Whether the non-maskable interrupt that this processor has got is one from another processor, or may be its echo.
fn is_from_another(own: usize) -> bool {
    let now = now_us() + 1;
    let sent = SENT[own].swap(now, Ordering::AcqRel);
    if sent == u64::MAX {
        return true;
    }
    let is_echo = sent != 0 && now.saturating_sub(sent) < ECHO_US;
    if !is_echo {
        SENT[own].store(0, Ordering::Release);
    }
    is_echo
}

/// Stands still until nobody owns the debugger, and answers its questions.
fn park(own: CpuId, frame: &InterruptFrame) {
    PLACES[own.index()].set(frame);
    PARKED[own.index()].store(true, Ordering::Release);
    while OWNER.load(Ordering::Acquire) != 0 {
        hardware::answer(own);
        core::hint::spin_loop();
    }
    // SAFETY: the owner has set them for user code.
    unsafe { hardware::load_breakpoints() };
    PARKED[own.index()].store(false, Ordering::Release);
}

/// A non-maskable interrupt that is not about translations, or not only. `false`: the debugger has nothing to do with it.
pub fn non_maskable(is_answered: bool) -> bool {
    let own = area::cpu();
    let owner = OWNER.load(Ordering::Acquire);
    let is_from_another = is_from_another(own.index());
    let frame = interrupted();
    if owner == own.index() as u32 + 1 {
        return true;
    }
    if owner != 0 {
        park(own, frame);
        return true;
    }
    if is_answered || is_from_another || khal::port::hardware_reports_an_error() {
        return is_answered || is_from_another;
    }
    if KERNEL.try_get().is_none() {
        return false;
    }
    let entry = Entry {
        vector: crate::trap::vector::NON_MASKABLE as u8,
        ip: frame.ip,
        sp: frame.sp,
        flags: frame.flags,
        is_user: frame.is_user(),
        thread: current(own),
        ..Entry::default()
    };
    // Where interrupts are let in the debugger comes with one, when all registers of the thread are saved.
    if frame.is_user() || frame.flags & INTERRUPTS_FLAG != 0 {
        IS_WANTED[own.index()].store(true, Ordering::Release);
        crate::machine::kick(own);
        return true;
    }
    stay(&reason(format_args!("non-maskable interrupt in the kernel")), entry, true, interrupt_stack());
    true
}

/// Whether a processor is to enter the debugger with its next interrupt.
static IS_WANTED: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// At which tracepoint it is to do so, and one more; 0: it is no tracepoint.
static STOP_AT: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// This processor has come to a tracepoint at which it is to enter the debugger: when this kernel entry is over, as nobody can
/// look at a kernel in the middle of something.
pub fn stop_at(event: Event) {
    let own = area::cpu();
    if OWNER.load(Ordering::Relaxed) != own.index() as u32 + 1 {
        STOP_AT[own.index()].store(event.number() as u32 + 1, Ordering::Relaxed);
        // The interrupt may itself be an event to stop at.
        if !IS_WANTED[own.index()].swap(true, Ordering::AcqRel) {
            crate::machine::kick(own);
        }
    }
}

/// What the processor pushed when the non-maskable interrupt came that it is handling.
fn interrupted() -> &'static InterruptFrame {
    let top = if mitigations::isolate_tables() {
        layout::AREA_INTERRUPT_ENTRY_STACK_TOP
    } else {
        layout::AREA_INTERRUPT_STACK_TOP
    };
    let at = area::start() + top - size_of::<InterruptFrame>();
    // SAFETY: in its handler these words stand at the end of the stack that the processor chooses for it.
    unsafe { &*core::ptr::with_exposed_provenance(at) }
}

/// The kernel stack of this processor: its begin and its end.
fn kernel_stack() -> (usize, usize) {
    (area::start() + layout::AREA_STACK, area::start() + layout::AREA_STACK_TOP)
}

fn interrupt_stack() -> (usize, usize) {
    (area::start() + layout::AREA_INTERRUPT_STACK, area::start() + layout::AREA_INTERRUPT_STACK_TOP)
}

// --- entries from user mode ---

/// The entry of `thread`, which runs and whose registers are saved.
fn entry_of(here: &Core<'_>, thread: TcbRef, vector: usize) -> Entry {
    let tcb = here.k.tcb(thread);
    Entry {
        vector: vector as u8,
        error: crate::frame::frame(thread).error_code.get() as u64,
        ip: tcb.ip.get() as u64,
        sp: tcb.sp.get() as u64,
        flags: tcb.flags.get() as u64,
        is_user: true,
        registers: Some(hardware::registers_of(thread)),
        thread: Some(thread),
    }
}

/// A stay on behalf of the running thread, which then goes on as the person wants it to.
fn stay_for(here: &Core<'_>, thread: TcbRef, vector: usize, reason: &Reason) {
    let leave = stay(reason, entry_of(here, thread, vector), true, kernel_stack());
    let flags = &here.k.tcb(thread).flags;
    match leave {
        Leave::Go | Leave::Ended => {}
        Leave::Step | Leave::Branch => {
            // SAFETY: single steps are the debugger's: threads that set the flag themselves get the exception at each
            // instruction or branch.
            let can = unsafe { debug::step_by_branches(leave == Leave::Branch) };
            if !can {
                let _ = writeln!(Line, "this processor has no steps by branches: one instruction");
            }
            IS_STEPPING.store(true, Ordering::Relaxed);
            flags.set(flags.get() | TRAP_FLAG);
        }
    }
    // The instruction at a breakpoint is executed now.
    flags.set(flags.get() | RESUME_FLAG);
}

/// The running thread asks for the debugger by a breakpoint, with a text at `text` that says why.
pub fn requested(here: &Core<'_>, thread: TcbRef, text: Option<usize>) {
    let mut bytes = [0; 64];
    let len = text.map_or(0, |text| read_text(here, here.k.space_of(thread), text, &mut bytes));
    let text = core::str::from_utf8(&bytes[..len]).unwrap_or("");
    let tcb = here.k.tcb(thread);
    // The breakpoint is one byte long.
    let at = (tcb.ip.get().wrapping_sub(1), tcb.sp.get());
    if len > 0 {
        let _ = writeln!(Line, "--- \"{text}\" ---");
    }
    let _ = writeln!(Line, "--- ip {:#x}, sp {:#x} ---", at.0, at.1);
    stay_for(here, thread, crate::trap::vector::BREAKPOINT, &reason(format_args!("breakpoint of a program {text}")));
}

/// Reads a text of a program, up to a zero byte or what is not mapped; letters that can be printed.
fn read_text(here: &Core<'_>, space: SpaceRef, address: usize, bytes: &mut [u8]) -> usize {
    let read = here.read_user(space, address, bytes);
    let len = bytes[..read].iter().position(|&byte| byte == 0).unwrap_or(read);
    bytes[..len].iter_mut().filter(|byte| !(b' '..=b'~').contains(*byte)).for_each(|byte| *byte = b'.');
    len
}

/// The running thread asks by a breakpoint for something that there is not.
pub fn unknown(here: &Core<'_>, thread: TcbRef, service: Option<u8>) {
    let reason = match service {
        Some(number) => reason(format_args!("unknown service {number:#04x} of the debugger")),
        None => reason(format_args!("unknown breakpoint")),
    };
    stay_for(here, thread, crate::trap::vector::BREAKPOINT, &reason);
}

/// A debug exception of the running thread. `false`: it is the program's own.
pub fn debug_exception(here: &Core<'_>, thread: TcbRef) -> bool {
    let reasons = debug::take_reasons();
    let met = reasons & debug::MET;
    let is_step = reasons & debug::STEP != 0 && IS_STEPPING.swap(false, Ordering::Relaxed);
    if met == 0 && !is_step {
        return false;
    }
    if is_step {
        let flags = &here.k.tcb(thread).flags;
        flags.set(flags.get() & !TRAP_FLAG);
        // SAFETY: single steps are the debugger's, and this one is over.
        unsafe { debug::step_by_branches(false) };
    }
    let reason = if met != 0 {
        reason(format_args!("hardware breakpoint {}", met.trailing_zeros()))
    } else {
        reason(format_args!("single step"))
    };
    stay_for(here, thread, crate::trap::vector::DEBUG, &reason);
    true
}

/// An exception of the running thread, which is about to be its exception handler's: if it has none, a person may look before
/// it is halted.
pub fn unhandled(here: &Core<'_>, thread: TcbRef, vector: usize) {
    if here.k.utcb(thread).exception_handler().is_nil() {
        stay_for(here, thread, vector, &reason(format_args!("exception {vector} that nobody handles")));
    }
}

/// When keys are looked for next; never if this is not the processor that does.
pub fn next_poll() -> u64 {
    if area::cpu().index() == 0 { now_us() + POLL_US } else { area::NOT_ARMED }
}

/// Looks, in an interrupt of the timer, whether somebody wants to stop the system.
pub fn poll() {
    if area::cpu().index() == 0 && LOOKS_FOR_KEYS.load(Ordering::Relaxed) && terminal::wants_to_break_in() {
        interrupt("break-in");
    }
}

/// Looks, in an interrupt from another processor, whether a non-maskable one wants the debugger.
pub fn kicked() {
    let own = area::cpu().index();
    if !IS_WANTED[own].swap(false, Ordering::AcqRel) {
        return;
    }
    let number = STOP_AT[own].swap(0, Ordering::Relaxed);
    match number.checked_sub(1).and_then(|number| Event::new(number as usize)) {
        Some(event) => interrupt(event.point().name),
        None => interrupt("non-maskable interrupt"),
    }
}

/// A stay in an interrupt: a thread was in user mode, or the processor slept.
fn interrupt(why: &str) {
    let here = crate::dispatch::here();
    let reason = reason(format_args!("{why}"));
    match here.cpu.current.get().thread() {
        Some(thread) => stay_for(&here, thread, crate::trap::vector::TIMER.into(), &reason),
        None => {
            stay(&reason, Entry::default(), true, kernel_stack());
        }
    }
}

/// Programs switch the look-out for keys on or off.
pub fn toggle_break_in() {
    LOOKS_FOR_KEYS.fetch_xor(true, Ordering::Relaxed);
}

/// The running thread names itself, or its space, by a text at `text`.
pub fn name(here: &Core<'_>, thread: TcbRef, is_space: bool, text: usize) {
    let mut bytes = [0; NAME_BYTES];
    let len = read_text(here, here.k.space_of(thread), text, &mut bytes);
    let Some(name) = Name::of(&bytes[..len]) else { return };
    let named = if is_space {
        Named::Space(here.k.space_of(thread).index())
    } else {
        Named::Thread(here.k.tcb(thread).id.get())
    };
    let is_there = |named| match named {
        Named::Thread(id) => here.k.thread(id).is_some(),
        Named::Space(index) => here.k.spaces.view(SpaceRef::new(index as u32)).is_some(),
    };
    // Where there is no room the number must do.
    let _ = NAMES.give(named, name, is_there);
}

/// Enters the debugger when the initial threads are there, if the kernel was built so.
pub fn at_startup() {
    if config::KDB_ON_STARTUP {
        stay(&reason(format_args!("start")), Entry::default(), true, kernel_stack());
    }
}

// --- panics ---

/// The kernel cannot go on, and has said so: lets a person look around. `message` is what it said.
pub fn panicked(message: fmt::Arguments<'_>, place: &Place) {
    let entry = Entry { ip: place.ip as u64, sp: place.sp as u64, thread: place.thread, ..Entry::default() };
    let mut why = Reason::new();
    let _ = write!(why, "panic: ");
    let _ = why.write_fmt(message);
    // The words that led here have been printed; what is left of this stack is enough, or the other one is taken.
    stay(&why, entry, false, kernel_stack());
}

/// Prints a space and the name of a thread, if it has one.
pub fn print_name(out: &mut dyn Write, id: ThreadId) -> fmt::Result {
    NAMES.get(Named::Thread(id)).map_or(Ok(()), |name| write!(out, " {}", name.as_str()))
}

/// The areas that the debugger looks at.
fn area_of(cpu: CpuId) -> &'static Area {
    // SAFETY: the processors that the core knows have areas.
    unsafe { area::of(cpu) }
}
