//! The dispatcher: decides with an empty stack what the processor does next.

use kcore::kernel::Here;
use kcore::machine::TcbRef;
use kcore::thread::{Tcb, Work};
use khal::irq::IrqOff;

use crate::machine::{self, Hardware};
use crate::trap::entry::resume_user;
use crate::trap::vector;
use crate::{KERNEL, area, layout};

/// The core as this processor sees it.
#[inline(always)]
pub fn here() -> Here<'static, Hardware> {
    Here::at(KERNEL.get(), &area::here().cpu, area::cpu())
}

/// Finds something to do and does it; called with an empty stack, never returns.
pub extern "C" fn dispatch() -> ! {
    decide(here())
}

/// The same, in a kernel entry that has begun.
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
        let is_behind = here.attend();
        let Some(thread) = here.choose() else {
            if is_behind {
                let_interrupts_in();
                continue;
            }
            if here.receive_before_sleep() {
                continue;
            }
            idle(&here)
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
    machine::enter_space(tcb);
    machine::enter_registers(thread, may_call_fast);
    // SAFETY: the running thread's frame and TCB hold user registers with a canonical instruction pointer, its space is
    // loaded, and nothing on the stack is needed any more.
    unsafe { resume_user() }
}

/// Nobody is ready.
fn idle(here: &Here<'static, Hardware>) -> ! {
    machine::arm(here.next_event());
    wait_for_interrupt()
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
fn let_interrupts_in() {
    // SAFETY: as in `idle`; what is on the stack is not needed if an interrupt comes.
    let mut irq = unsafe { IrqOff::assume() };
    irq.let_pending_in();
}
