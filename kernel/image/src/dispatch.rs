//! The dispatcher: decides with an empty stack what the processor does next.

use kcore::kernel::Here;
use kcore::machine::TcbRef;
use kcore::thread::Work;
use khal::irq::IrqOff;

use crate::machine::{self, Hardware};
use crate::trap::entry::resume_user;
use crate::trap::vector;
use crate::{KERNEL, area, layout};

/// The core as this processor sees it.
pub fn here() -> Here<'static, Hardware> {
    Here::new(KERNEL.get(), area::cpu())
}

/// Finds something to do and does it; called with an empty stack, never returns.
pub extern "C" fn dispatch() -> ! {
    loop {
        let mut here = here();
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

/// To user mode, with everything that belongs to `thread` in place.
fn leave(here: &Here<'static, Hardware>, thread: TcbRef) -> ! {
    machine::enter_space(here.k.tcb(thread));
    machine::enter_registers(thread, here.may_call_fast(thread));
    machine::arm(here.next_event());
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
