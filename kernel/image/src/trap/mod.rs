//! What brought the processor into the kernel: system calls, exceptions, interrupts.
//!
//! Each function here is called by [`entry`] with an empty stack, does its part and ends in the dispatcher.

mod debugger;
pub mod decode;
pub mod entry;
mod fastpath;
mod io_fault;
mod settle;

use core::arch::asm;

use kcore::kernel::Here;
use kcore::machine::TcbRef;
use kcore::thread::TCB_SIZE_LOG2;
use kcore::trace::{Arg, Event};
use khal::{cr, msr};
use l4_abi::{KERNEL_INTERFACE_OPCODE, Rights, ThreadId, Timeouts, Word};

use crate::dispatch::{decide, decide_without_running, dispatch, go_on, here};
use crate::frame::frame;
use crate::machine::{self, Hardware};
use crate::post_mortem;
use crate::shootdown;
use crate::wheels::{self, Wheel};
use crate::{config, kdb, trace};

type Core<'a> = Here<'a, Hardware>;

/// Vectors by name (Intel SDM 3A, Exception and Interrupt Reference), and those of the local APIC.
#[allow(missing_docs, reason = "the processor's names")]
pub mod vector {
    pub const DEBUG: usize = 1;
    pub const NON_MASKABLE: usize = 2;
    pub const BREAKPOINT: usize = 3;
    pub const OVERFLOW: usize = 4;
    pub const INVALID_OPCODE: usize = 6;
    pub const DEVICE_NOT_AVAILABLE: usize = 7;
    pub const DOUBLE_FAULT: usize = 8;
    pub const GENERAL_PROTECTION: usize = 13;
    pub const PAGE_FAULT: usize = 14;
    pub const MACHINE_CHECK: usize = 18;
    /// Exceptions end here.
    pub const EXCEPTIONS: usize = 32;
    /// The first vector of interrupt lines.
    pub const LINES: u8 = 0x30;
    /// Lines that have a vector.
    pub const LINES_MAX: u32 = (TIMER - LINES) as u32;
    /// In a class above the lines, so that of two that wait the timer comes first.
    pub const TIMER: u8 = 0xF0;
    /// Another processor wants something.
    pub const KICK: u8 = 0xF1;
    pub const SPURIOUS: u8 = 0xFF;
}

/// Error code of a page fault of the kernel that read where nothing is.
const FAULT_NOT_PRESENT: usize = 0;
/// Bits of a page fault's error code.
const FAULT_WRITE: usize = 1 << 1;
const FAULT_FETCH: usize = 1 << 4;

fn running(here: &Core<'_>) -> TcbRef {
    here.cpu.current.get().thread().expect("user code runs as some thread")
}

/// A system call that the fast path did not take.
pub extern "C" fn syscall() -> ! {
    wheels::turn(Wheel::Call);
    let mut here = here();
    let thread = running(&here);
    match decode::syscall(&mut here, thread) {
        Some(next) => go_on(here, next),
        None => decide(here),
    }
}

/// A call of Ipc of the running thread with untyped words and without receive timeout, which are in its UTCB, to the thread
/// whose TCB is at `receiver` in the table, whose global id is `to`, and which does not run here. No registers are saved.
pub extern "C" fn ipc_elsewhere(receiver: usize, to: usize, from: usize, timeouts: usize) -> ! {
    let mut here = here();
    let caller = running(&here);
    let receiver = TcbRef::new((receiver >> TCB_SIZE_LOG2) as u32);
    let [to, from] = [to, from].map(|word| ThreadId::from_raw(word as Word));
    let timeouts = Timeouts::from_raw(timeouts as Word);
    trace::point(Event::SyscallIpc, || {
        let tag = here.k.utcb(caller).tag().raw();
        [to.arg(), from.arg(), timeouts.raw() as u64, tag as u64]
    });
    if here.send_away(caller, (receiver, to), from, timeouts) {
        decide_without_running(here)
    }
    match here.ipc(caller, to, from, timeouts) {
        Some(next) => go_on(here, next),
        None => decide(here),
    }
}

/// An exception or interrupt in user mode.
pub extern "C" fn user_trap(vector: usize) -> ! {
    let mut here = here();
    if vector >= vector::EXCEPTIONS {
        interrupt(vector);
        decide(here)
    }
    let thread = running(&here);
    if vector != vector::PAGE_FAULT {
        user_exception(&mut here, thread, vector);
        decide(here)
    }
    match page_fault(&mut here, thread) {
        Some(next) => go_on(here, next),
        None => decide(here),
    }
}

/// An interrupt while the kernel waited for one.
pub extern "C" fn kernel_interrupt(vector: usize) -> ! {
    interrupt(vector);
    dispatch()
}

fn interrupt(vector: usize) {
    if vector == usize::from(vector::TIMER) {
        wheels::turn(Wheel::Timer);
        trace::point(Event::X86ApicTimer, || []);
        machine::timer_fired();
        // While the thread that was interrupted is still the running one.
        if config::KDB_BREAKIN {
            kdb::poll();
        }
        here().timer_interrupt();
    } else if vector == usize::from(vector::KICK) {
        machine::kicked();
        if config::DEBUG {
            kdb::kicked();
        }
    } else if vector != usize::from(vector::SPURIOUS)
        && let Some(line) = machine::HARDWARE.get().interrupts().take(vector)
    {
        here().interrupt(line);
    }
}

/// An exception other than a page fault.
fn user_exception(here: &mut Core<'_>, thread: TcbRef, vector: usize) {
    if trace::wants(OF_EXCEPTIONS) {
        trace_exception(here, thread, vector);
    }
    match vector {
        vector::DEVICE_NOT_AVAILABLE => machine::use_fpu(thread),
        vector::BREAKPOINT => debugger::breakpoint(here, thread),
        vector::DEBUG if config::DEBUG && kdb::debug_exception(here, thread) => {}
        vector::GENERAL_PROTECTION if io_fault::settle(here, thread) => {}
        vector::INVALID_OPCODE if is_kernel_interface(here, thread) => kernel_interface(here, thread),
        vector::GENERAL_PROTECTION if settle::settle(here, thread) => {}
        vector::MACHINE_CHECK | vector::DOUBLE_FAULT => {
            panic!("exception {vector} of the machine in user mode")
        }
        _ => {
            if config::DEBUG {
                kdb::unhandled(here, thread, vector);
            }
            here.exception(thread);
        }
    }
}

const OF_EXCEPTIONS: u64 =
    Event::X86Gp.bit() | Event::X86Ud.bit() | Event::X86Nomath.bit() | Event::X86Breakpoint.bit();

#[cold]
#[inline(never)]
fn trace_exception(here: &Core<'_>, thread: TcbRef, vector: usize) {
    let ip = here.k.tcb(thread).ip.get() as u64;
    match vector {
        vector::GENERAL_PROTECTION => trace::point(Event::X86Gp, || [frame(thread).error_code.get() as u64, ip]),
        vector::INVALID_OPCODE => trace::point(Event::X86Ud, || [ip]),
        vector::DEVICE_NOT_AVAILABLE => trace::point(Event::X86Nomath, || [ip]),
        vector::BREAKPOINT => trace::point(Event::X86Breakpoint, || [ip]),
        _ => {}
    }
}

/// Returns who runs, if there is nothing to decide about that.
fn page_fault(here: &mut Core<'_>, thread: TcbRef) -> Option<TcbRef> {
    let address = cr::cr2();
    let error = frame(thread).error_code.get();
    let access = match error {
        _ if error & FAULT_WRITE != 0 => Rights::WRITE,
        _ if error & FAULT_FETCH != 0 => Rights::EXECUTE,
        _ => Rights::READ,
    };
    let ip = here.k.tcb(thread).ip.get();
    here.page_fault(thread, address, access, ip)
}

/// Whether the invalid instruction of `thread` is the KernelInterface call. Its page may be gone by now; then it is not.
fn is_kernel_interface(here: &Core<'_>, thread: TcbRef) -> bool {
    let tcb = here.k.tcb(thread);
    let mut opcode = [0; KERNEL_INTERFACE_OPCODE.len()];
    let count = here.read_user(tcb.space(), tcb.ip.get(), &mut opcode);
    count == opcode.len() && opcode == KERNEL_INTERFACE_OPCODE
}

/// KernelInterface (X.2, KernelInterface): the KIP's address and the numbers that stand in it.
fn kernel_interface(here: &Core<'_>, thread: TcbRef) {
    let tcb = here.k.tcb(thread);
    let frame = frame(thread);
    let kip_area = here.k.spaces.get(tcb.space()).kip_area();
    frame.rax.set(kip_area.base() as usize);
    frame.rcx.set(l4_abi::API_VERSION as usize);
    frame.rdx.set(l4_abi::API_FLAGS as usize);
    frame.rsi.set(l4_abi::KERNEL_ID as usize);
    tcb.ip.set(tcb.ip.get().wrapping_add(KERNEL_INTERFACE_OPCODE.len()));
}

/// A non-maskable interrupt, in user mode or anywhere in the kernel: another processor asks this one to forget
/// translations, or did so a moment ago. It may touch nothing else.
pub extern "C" fn non_maskable() {
    let is_answered = shootdown::answer();
    if config::DEBUG && kdb::non_maskable(is_answered) {
        // While it stood still another one may have asked, whose interrupt was held back.
        shootdown::answer();
        return;
    }
    if !is_answered && khal::port::hardware_reports_an_error() {
        panic!("the hardware reports an error by a non-maskable interrupt");
    }
}

/// What the processor and the gate pushed on an exception in kernel mode.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct KernelFrame {
    vector: usize,
    error_code: usize,
    ip: usize,
    cs: usize,
    flags: usize,
    pub(super) sp: usize,
    ss: usize,
}

/// Mends an exception in kernel mode, if it is no bug: a failed try at a model-specific register goes on behind it, a look at a
/// gap in a table of the core is repeated.
pub extern "C" fn mend_exception(frame: &mut KernelFrame) -> bool {
    if frame.vector == vector::GENERAL_PROTECTION
        && let Some(ip) = msr::mended(frame.ip)
    {
        frame.ip = ip;
        return true;
    }
    if matches!(frame.vector, vector::GENERAL_PROTECTION | vector::PAGE_FAULT)
        && let Some(ip) = khal::probe::mended(frame.ip)
    {
        frame.ip = ip;
        return true;
    }
    let is_mended =
        frame.vector == vector::PAGE_FAULT && frame.error_code == FAULT_NOT_PRESENT && machine::fill_gap(cr::cr2());
    if is_mended {
        trace::point(Event::PagefaultKernel, || [cr::cr2() as u64, frame.ip as u64]);
    }
    is_mended
}

/// An exception in kernel mode that is a bug.
pub extern "C" fn kernel_exception(frame: &KernelFrame, scratch: &[usize; 9], preserved: &[usize; 6]) -> ! {
    // Where it stands the next fault of a probe puts its own.
    let frame = *frame;
    post_mortem::note_fault(frame.ip, frame.sp, preserved.iter().chain(scratch).copied());
    let root: usize;
    // SAFETY: reading CR3 changes nothing.
    unsafe { asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) };
    panic!(
        "exception {} in the kernel: error {:#x}, ip {:#x}, sp {:#x}, flags {:#x}, address {:#x}, cr3 {root:#x}",
        frame.vector,
        frame.error_code,
        frame.ip,
        frame.sp,
        frame.flags,
        cr::cr2(),
    );
}
