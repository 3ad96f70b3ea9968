//! The dispatcher: decides with an empty stack what the processor does next.

use kcore::cross::words::Woken;
use kcore::kernel::Here;
use kcore::machine::{Machine, TcbRef};
use kcore::thread::{Tcb, Work};
use kcore::trace::Event;
use khal::cpu::Features;
use khal::irq::IrqOff;

use crate::machine::{self, Hardware};
use crate::trap::entry::{resume_from_ipc, resume_user};
use crate::trap::vector;
use crate::wheels::{self, Wheel};
use crate::{KERNEL, area, config, layout, trace};

/// How often a processor that has nothing to do looks out for others before it sleeps: a few microseconds, about as long
/// as it takes to interrupt it and to wake it up. Who calls a thread of another processor finds the answer in that time if
/// it comes at once.
const LOOKS: u32 = 100;

/// The core as this processor sees it.
#[inline(always)]
pub fn here() -> Here<'static, Hardware> {
    Here::at(KERNEL.get(), &area::here().cpu, area::cpu())
}

/// Finds something to do and does it; called with an empty stack, never returns.
pub extern "C" fn dispatch() -> ! {
    decide(here())
}

/// The same, in a kernel entry in which the running thread has left for another processor.
#[inline(always)]
pub fn decide_without_running(mut here: Here<'static, Hardware>) -> ! {
    if here.is_at_rest() {
        rest(&mut here);
    }
    decide(here)
}

/// The same, in any kernel entry that has begun.
#[inline(never)]
pub fn decide(mut here: Here<'static, Hardware>) -> ! {
    if let Some(thread) = here.undisputed()
        && layout::is_canonical(here.k.tcb(thread).ip.get())
    {
        leave(&here, thread)
    }
    choose_or_wait(here)
}

/// The same, if something has to be decided or done.
#[inline(never)]
fn choose_or_wait(mut here: Here<'static, Hardware>) -> ! {
    loop {
        if here.is_at_rest() {
            rest_later(&mut here);
        }
        let is_behind = here.attend();
        let Some(thread) = here.choose() else {
            if is_behind {
                let_interrupts_in();
            } else {
                here.receive_before_sleep();
            }
            continue;
        };
        if here.k.tcb(thread).work() != Work::None {
            here.step(thread);
            // Long work must neither keep others from their timeouts nor outlast its time slice.
            machine::arm(here.next_event());
            let_interrupts_in();
        } else if !layout::is_canonical(here.k.tcb(thread).ip.get()) {
            // IRET would fault in the kernel; the thread gets the exception that the jump deserves.
            machine::set_exception(thread, vector::GENERAL_PROTECTION, 0);
            here.exception(thread);
        } else {
            leave(&here, thread);
        }
    }
}

/// To user mode with `thread`, which the dispatcher has chosen.
#[inline(always)]
fn leave(here: &Here<'static, Hardware>, thread: TcbRef) -> ! {
    machine::arm(here.next_event());
    enter_user(here.k.tcb(thread), thread, here.may_call_fast(thread))
}

/// To user mode with `thread`, which runs and may take the fast path, as the core says: nothing is to be decided about that,
/// and nothing has happened since a thread was last in user mode that changes what the timer is armed for, or translations
/// that processors know. Others may want something of this processor, though.
#[inline(always)]
pub fn go_on(here: Here<'static, Hardware>, thread: TcbRef) -> ! {
    let tcb = here.k.tcb(thread);
    if here.is_behind() || !layout::is_canonical(tcb.ip.get()) {
        decide(here)
    }
    enter_user(tcb, thread, true)
}

/// To user mode, with everything in place that belongs to `thread`, the running one, whose TCB is `tcb`.
#[inline(always)]
fn enter_user(tcb: &Tcb, thread: TcbRef, may_call_fast: bool) -> ! {
    trace::runs(thread);
    machine::enter_space(tcb);
    machine::enter_registers(thread, may_call_fast);
    // SAFETY: the running thread's frame and TCB hold user registers with a canonical instruction pointer, its space is
    // loaded, and nothing on the stack is needed any more.
    unsafe { resume_user() }
}

/// As [`rest`], for those who come there by longer ways.
#[inline(never)]
fn rest_later(here: &mut Here<'static, Hardware>) {
    rest(here);
}

/// Nobody is ready: looks out for others for a while, then sleeps. Either ends with an interrupt, which enters the
/// dispatcher anew, or with a demand. Returns if there is something to decide: whoever looked out many times would have a
/// full stack otherwise.
#[inline(always)]
fn rest(here: &mut Here<'static, Hardware>) {
    trace::rests();
    if !config::LOOKS_OUT || here.k.cpus.len() == 1 || !look_out(here) {
        sleep(here)
    }
    if let Some(woken) = here.receive_at_rest() {
        leave_at_once(here, woken);
    }
}

/// To user mode with a thread that runs where nobody ran: the timer is armed for all but the end of its time. Returns if
/// others want more.
#[inline(always)]
fn leave_at_once(here: &Here<'static, Hardware>, woken: Woken<'static>) {
    let Woken { thread, tcb, from, end } = woken;
    if here.is_behind() || tcb.ip.get() != here.k.machine.ipc_return_ip() {
        return here.k.machine.ipc_return(thread, tcb, from);
    }
    trace::runs(thread);
    trace::ipc_returned(tcb.id.get(), from, tcb.utcb_in(here.k.machine));
    machine::enter_space(tcb);
    machine::enter_registers(thread, !tcb.is_barred(here.k.spaces.get(tcb.space())));
    machine::arm_until(end);
    // SAFETY: the thread runs, in its space, and waited in a call of Ipc, whose result is in its UTCB; nothing on the stack
    // is needed any more.
    unsafe { resume_from_ipc(core::ptr::from_ref(tcb).addr(), from.raw() as usize) }
}

/// Looks out for what others want, for a while; whether they do. That is much cheaper for both than an interrupt. A
/// processor that is alone would do it in vain.
#[inline]
fn look_out(here: &Here<'static, Hardware>) -> bool {
    machine::arm(here.next_timeout());
    here.cpu.attention.look_out(LOOKS, let_interrupts_in)
}

/// Nothing happens any more until an interrupt comes.
#[inline(never)]
fn sleep(here: &Here<'static, Hardware>) -> ! {
    machine::arm_for_sleep(here.next_timeout());
    wheels::turn(Wheel::Idle);
    trace::point(Event::X86Hlt, || []);
    if !here.k.machine.features().contains(Features::MONITOR) {
        wait_for_interrupt()
    }
    // SAFETY: as in `wait_for_interrupt`.
    let mut irq = unsafe { IrqOff::assume() };
    let attention = &here.cpu.attention;
    loop {
        // A demand wakes the processor while the interrupt for it is on its way, which enters the dispatcher anew: so whoever
        // misses a write, as some processors and emulators do, misses nothing.
        // SAFETY: all processors have the features of the first.
        unsafe { irq.wait_for_write(attention, || attention.is_demanded()) };
        irq.let_pending_in();
    }
}

/// Waits for an interrupt, which enters the dispatcher anew.
pub fn wait_for_interrupt() -> ! {
    // SAFETY: interrupts are off, and this is the only token in use: nothing else runs on this processor.
    let mut irq = unsafe { IrqOff::assume() };
    loop {
        irq.wait_for_interrupt();
    }
}

/// Lets pending interrupts in between two steps of long work; their handler ends in the dispatcher.
#[inline]
fn let_interrupts_in() {
    // SAFETY: as in `wait_for_interrupt`; what is on the stack is not needed if an interrupt comes.
    let mut irq = unsafe { IrqOff::assume() };
    irq.let_pending_in();
}
