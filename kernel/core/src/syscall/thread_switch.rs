//! ThreadSwitch (X.2, ThreadSwitch).

use l4_abi::ThreadId;

use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};

impl<M: Machine> Here<'_, M> {
    /// Gives the processor to `dest` for the rest of the caller's time slice if it is ready here, or else to whoever is
    /// next; in that case the caller goes behind the others of its priority and gets a fresh slice. Ends a delay of the
    /// caller's preemption and fills its budget, unless `dest` is the caller itself, which gives nothing up.
    pub fn thread_switch(&mut self, caller: TcbRef, dest: ThreadId) {
        let dest = self.k.thread_or_local(dest, self.k.space_of(caller));
        if dest == Some(caller) {
            return;
        }
        self.charge();
        self.refresh_delay(caller);
        // A slice that is used up, and only drawn out by a delay, is nothing to give.
        let has_time = self.owner_of_spent_slice().is_none();
        match dest.filter(|&thread| has_time && self.is_ready_here(thread)) {
            Some(thread) => self.donate_to(thread),
            None => self.yield_processor(caller),
        }
    }
}
