//! More than one processor.
//!
//! A thread belongs to one processor at a time, its *home*, which alone changes its TCB. A thread that sends to one of
//! another processor goes there ([`travel`]): its send phase, the transfer and the page faults in it take place where its
//! partner runs, with the same code and as free of locks as between two threads of one processor. Its receive phase, and
//! all that it does in user mode, take place where it itself runs, its *affinity*; there are its send queue and whoever
//! waits in it. So two threads that meet are always at home at the same processor.
//!
//! A thread on its way is in the [`mailbox`] of the processor that it goes to. What one thread does to another by a system
//! call other than Ipc is done at the home of the other, which the caller's processor [asks](ask) for it and waits.
//!
//! | who | where it is at home |
//! |---|---|
//! | in user mode, ready, halted, or waiting in a receive phase | its affinity |
//! | blocked in a send phase, or with a message in transfer as the sender | the affinity of the receiver |
//! | in a receive phase with a message in transfer | its affinity |
//! | with a page fault in the middle of a string | until its pager has the message: the affinity of the pager; then its own; then that of the string's receiver |

pub mod ask;
pub mod attention;
pub mod claims;
pub mod mailbox;
pub mod raised;
pub mod shootdown;
mod travel;
pub mod words;

use crate::kernel::Here;
use crate::machine::{CpuId, Machine};

/// Where a thread is that runs here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// At home here: that stays so until this processor changes it.
    Here,
    /// On its way.
    Coming,
    /// With a partner elsewhere. It may come back at any moment.
    Away,
}

/// A place where a processor stops in tests, so that others can do anything.
#[inline(always)]
fn pause_in_tests() {
    #[cfg(test)]
    crate::tests::stage::may_pause();
}

impl<M: Machine> Here<'_, M> {
    /// Does what other processors want of this one, a bounded part of it; whether there is more. For the dispatcher, before
    /// it chooses.
    #[inline]
    pub fn attend(&mut self) -> bool {
        if !self.cpu.attention.is_quiet() {
            self.attend_others();
        }
        if self.cpu.orphans.get().is_some() {
            self.release_orphans();
        }
        self.k.machine.complete();
        self.is_behind()
    }

    /// Whether there is something left of what others want.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.cpu.attention.is_demanded() || self.cpu.orphans.get().is_some()
    }

    #[cold]
    #[inline(never)]
    fn attend_others(&mut self) {
        // Before it looks: what comes after the look sets it again.
        self.cpu.attention.give();
        self.serve();
        if self.cpu.raised.is_any() {
            self.receive_interrupts();
        }
        self.receive_arrivals();
        if !self.cpu.mailbox.is_empty() {
            self.cpu.attention.demand_of_oneself();
        }
        if self.cpu.questions.is_sought() {
            // Until that is over nobody sets out by a short way either.
            self.cpu.attention.demand_of_oneself();
            self.k.machine.pause();
        }
    }

    /// What has come and nobody was told of arrives. For the dispatcher, when nobody is ready.
    pub fn receive_before_sleep(&mut self) {
        self.receive_arrivals();
    }

    /// Whether nobody runs and there is nothing to do, as a glance tells. For the dispatcher, before it looks closer.
    #[inline(always)]
    pub fn is_at_rest(&self) -> bool {
        let cpu = self.cpu;
        if !self.is_idle() || cpu.slice_owner.get().is_some() || cpu.delaying.get().is_some() {
            return false;
        }
        if !cpu.attention.is_quiet() || cpu.orphans.get().is_some() || !cpu.mailbox.is_empty() {
            return false;
        }
        cpu.must_choose.set(false);
        self.k.machine.complete();
        true
    }

    /// Tells processor `cpu` to attend, unless it was told already or looks out.
    #[inline(always)]
    pub(crate) fn tell(&self, cpu: CpuId) {
        if M::IS_MULTIPROCESSOR && self.k.cpus[cpu.index()].attention.demand() {
            self.k.machine.kick(cpu);
        }
    }
}
