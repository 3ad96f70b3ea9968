//! ThreadSwitch (X.2, ThreadSwitch).

use l4_abi::ThreadId;

use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};

impl<M: Machine> Here<'_, M> {
    /// Gives the processor to `dest` for the rest of the caller's time slice if it is ready here, or else to whoever is
    /// next; in that case the caller goes behind the others of its priority and gets a fresh slice.
    pub fn thread_switch(&mut self, caller: TcbRef, dest: ThreadId) {
        match self.k.thread_or_local(dest, self.k.space_of(caller)) {
            Some(thread) if thread == caller => {}
            Some(thread) if self.k.tcb(thread).ready_link.is_linked() => self.donate_to(thread),
            _ => {
                self.charge();
                self.refill_slice(caller);
                self.yield_processor(caller);
            }
        }
    }
}
