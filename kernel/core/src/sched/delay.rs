//! Delayed preemption (X.2, Delayed Preemption): a thread may hold back, for a while, preemptions that it has asked to be
//! held back.
//!
//! What the thread asks for stands in its PreemptFlags, which are user memory: they are read at the moment of each
//! preemption, and nothing is kept of them. How long it may hold back is its *budget*, [`Tcb::delay_left_us`], which
//! Schedule sets, delays use up and ThreadSwitch fills again.
//!
//! At most one delay is in progress on a processor, and it is the running thread's: [`Cpu::delaying`]. It ends when the
//! thread gives up the processor or loses it, or with the budget. While it lasts, the thread does not take the IPC fast
//! path, so the kernel sees it leave.
//!
//! [`Tcb::delay_left_us`]: crate::thread::Tcb
//! [`Cpu::delaying`]: super::Cpu

use l4_abi::PreemptFlags;

use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::thread::Work;
use crate::trace::{Arg, Event};

/// What comes of a preemption.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preemption {
    /// It happens.
    Now,
    /// The running thread goes on; there will be a timer interrupt at the end of the delay.
    Later,
    /// The running thread tells its exception handler first, which takes the processor from it.
    Fault,
}

impl<M: Machine> Here<'_, M> {
    /// Whether `thread`, the running one, may take the IPC fast path, which neither ends a delay nor compares anybody.
    #[inline(always)]
    pub fn may_call_fast(&self, thread: TcbRef) -> bool {
        self.k.may_call_fast(thread) && self.may_pass_on()
    }

    /// Whether the running thread may give the processor to whom it likes, with nothing to be decided.
    #[inline(always)]
    pub(crate) fn may_pass_on(&self) -> bool {
        !self.cpu.weighs_hand_overs.get()
    }

    /// A delay, or the need to compare, has begun or ended.
    pub(super) fn note_hand_overs(&self) {
        let is_weighed = self.cpu.delaying.get().is_some() || self.cpu.must_compare.get();
        self.cpu.weighs_hand_overs.set(is_weighed);
    }

    /// What comes of the preemption of `running` by `other`, which has a higher priority.
    pub(super) fn preemption_by(&self, running: TcbRef, other: TcbRef) -> Preemption {
        if self.k.tcb(other).priority() > self.k.tcb(running).sensitive_priority.get() {
            self.trace_overruled(running, other);
            return Preemption::Now;
        }
        self.preemption_of(running)
    }

    /// Traces that `running` is preempted by `other`, if it would delay that.
    #[inline(always)]
    fn trace_overruled(&self, running: TcbRef, other: TcbRef) {
        let would_delay = || PreemptFlags::from_raw(self.k.utcb(running).preempt_flags()).contains(PreemptFlags::DELAY);
        if self.k.machine.traces(Event::SchedulePmDelayOverruled.bit()) && would_delay() {
            self.trace(Event::SchedulePmDelayOverruled, |k| [k.id_of(running).arg(), k.id_of(other).arg()]);
        }
    }

    /// What comes of a preemption of `running` that it may delay: at the end of a slice, or by a thread that is not above
    /// its sensitive priority.
    pub(super) fn preemption_of(&self, running: TcbRef) -> Preemption {
        let (tcb, utcb) = (self.k.tcb(running), self.k.utcb(running));
        let flags = PreemptFlags::from_raw(utcb.preempt_flags());
        if !flags.contains(PreemptFlags::DELAY) {
            return Preemption::Now;
        }
        if self.cpu.delaying.get() == Some(running) {
            return Preemption::Later;
        }
        let budget_us = u64::from(tcb.delay_left_us.get());
        if budget_us > 0 {
            self.cpu.delaying.set(Some(running));
            self.note_hand_overs();
            self.cpu.delay_end.set(self.k.machine.now_us().saturating_add(budget_us));
            self.trace(Event::SchedulePmDelayed, |k| [k.id_of(running).arg(), self.cpu.delay_end.get()]);
            utcb.raise_preempt_flags(PreemptFlags::PENDING);
            return Preemption::Later;
        }
        if !flags.contains(PreemptFlags::SIGNAL) {
            return Preemption::Now;
        }
        tcb.owes_fault.set(true);
        // In the middle of its work it cannot send: it does so before it is in user mode again.
        if tcb.work() == Work::None { Preemption::Fault } else { Preemption::Now }
    }

    /// Ends the delay in progress: its thread keeps what is left of its budget.
    pub(crate) fn end_delay(&self) {
        if let Some(thread) = self.cpu.delaying.replace(None) {
            self.note_hand_overs();
            let left_us = self.cpu.delay_end.get().saturating_sub(self.k.machine.now_us());
            self.k.tcb(thread).delay_left_us.set(u16::try_from(left_us).unwrap_or(u16::MAX));
        }
    }

    /// Ends the delay in progress, if there is one; who was made to wait may have the processor now.
    pub(crate) fn stop_delay(&self) {
        if self.cpu.delaying.get().is_some() {
            self.end_delay();
            self.cpu.must_choose.set(true);
        }
    }

    /// Ends the delay in progress if its time is over.
    pub(super) fn expire_delay(&self, now_us: u64) {
        if self.cpu.delaying.get().is_some() && now_us >= self.cpu.delay_end.get() {
            self.stop_delay();
        }
    }

    /// `thread`, the running one, gives the processor up by ThreadSwitch: whom it made wait may have it, and the next delay
    /// may be as long as the first.
    pub(crate) fn refresh_delay(&self, thread: TcbRef) {
        if self.k.machine.traces(Event::SchedulePmDelayRefresh.bit()) && self.cpu.delaying.get().is_some() {
            self.trace(Event::SchedulePmDelayRefresh, |k| [k.id_of(thread).arg()]);
        }
        self.stop_delay();
        let tcb = self.k.tcb(thread);
        tcb.delay_left_us.set(tcb.max_delay_us.get());
        let utcb = self.k.utcb(thread);
        if PreemptFlags::from_raw(utcb.preempt_flags()).contains(PreemptFlags::PENDING) {
            utcb.lower_preempt_flags(PreemptFlags::PENDING);
        }
    }

    /// Sets how long `thread` may hold back preemptions, from now on.
    pub(crate) fn set_max_delay(&self, thread: TcbRef, max_delay_us: u16) {
        if self.cpu.delaying.get() == Some(thread) {
            // It is decided anew whether it may.
            self.stop_delay();
        }
        let tcb = self.k.tcb(thread);
        tcb.max_delay_us.set(max_delay_us);
        tcb.delay_left_us.set(max_delay_us);
    }
}
