//! The system calls other than Ipc, a file each. Each handler is checks, then the act: after an error nothing has changed.

mod exchange_registers;
mod memory_control;
mod schedule;
mod space_control;
mod thread_control;
mod thread_switch;
mod unmap;

pub use exchange_registers::{Exregs, ExregsResult};
pub use schedule::{ScheduleArgs, ScheduleReply};
pub use space_control::SpaceControlArgs;
pub use thread_control::ThreadControlArgs;

use l4_abi::SysError;

use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::thread::Work;

impl<M: Machine> Here<'_, M> {
    /// Does a bounded part of what `thread`, the running one, still has to do in the kernel.
    pub fn step(&mut self, thread: TcbRef) {
        match self.k.tcb(thread).work() {
            Work::None => {}
            Work::ReceivePhase => self.resume_receive_phase(thread),
            Work::SendPhase => self.resume_send_phase(thread),
            Work::Transfer => self.transfer_items(thread),
            Work::Unmap => self.unmap_step(thread),
            Work::MemoryControl => self.memory_control_step(thread),
            Work::Delete => self.delete_step(thread),
            Work::Redirect => self.redirect_step(thread),
            Work::Print => self.print_step(thread),
            Work::Preemption => self.send_preemption(thread),
        }
    }

    /// Refuses callers whose space is not privileged.
    fn require_privilege(&self, caller: TcbRef) -> Result<(), SysError> {
        if self.k.is_privileged(caller) { Ok(()) } else { Err(SysError::NoPrivilege) }
    }
}
