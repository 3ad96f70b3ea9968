//! Schedule (X.2, Schedule).

use l4_abi::{
    PreemptionControl, PrioControl, ProcessorControl, ScheduleResult, SysError, ThreadId, Time, TimeControl, Word,
};

use crate::cross::ask::{Reply, Subject, Words, words};
use crate::kernel::Here;
use crate::machine::{CpuId, Machine, TcbRef};
use crate::sched::{NEVER_ENDS, period_us};
use crate::thread::{Status, Work};

/// What the caller passes; all ones in a word: no change.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleArgs {
    /// The thread, by global or local id.
    pub dest: ThreadId,
    /// Time slice and total quantum.
    pub time: TimeControl,
    /// Processor.
    pub processor: ProcessorControl,
    /// Priority.
    pub prio: PrioControl,
    /// Sensitive priority and maximum delay.
    pub preemption: PreemptionControl,
}

/// State and times before the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleReply {
    /// What the thread was doing.
    pub state: ScheduleResult,
    /// The rest of the time slice and of the total quantum.
    pub time: TimeControl,
}

impl ScheduleArgs {
    fn to_words(self, dest: TcbRef) -> Words {
        words([
            dest.index(),
            self.time.raw() as usize,
            self.processor.raw() as usize,
            self.prio.raw() as usize,
            self.preemption.raw() as usize,
        ])
    }

    fn from_words(words: Words) -> (TcbRef, Self) {
        let [dest, time, processor, prio, preemption, ..] = words;
        let args = Self {
            dest: ThreadId::NIL,
            time: TimeControl::from_raw(time as Word),
            processor: ProcessorControl::from_raw(processor as Word),
            prio: PrioControl::from_raw(prio as Word),
            preemption: PreemptionControl::from_raw(preemption as Word),
        };
        (TcbRef::new(dest as u32), args)
    }
}

impl ScheduleReply {
    fn to_words(self) -> Words {
        words([self.state.raw() as usize, self.time.raw() as usize])
    }

    fn from_words(words: Words) -> Self {
        let state = ScheduleResult::from_raw(words[0] as Word).unwrap_or(ScheduleResult::Error);
        Self { state, time: TimeControl::from_raw(words[1] as Word) }
    }
}

impl<M: Machine> Here<'_, M> {
    /// Reads and changes the scheduling parameters of a thread. `None`: `dest` was nilthread, which asks for nothing.
    ///
    /// # Errors
    /// In this order: [`SysError::InvalidThread`]: no such thread; [`SysError::NoPrivilege`]: the caller is neither in the
    /// space of the thread's scheduler nor privileged; [`SysError::InvalidParameter`]: the hierarchical scheduler's
    /// extension; [`SysError::NoPrivilege`]: a priority above the caller's, which is not privileged;
    /// [`SysError::InvalidParameter`]: a time point as time; [`SysError::NoPrivilege`]: a sensitive priority above the
    /// caller's, which is not privileged; [`SysError::InvalidParameter`]: an absent processor.
    pub fn schedule(&mut self, caller: TcbRef, args: ScheduleArgs) -> Result<Option<ScheduleReply>, SysError> {
        if args.dest.is_nil() {
            return Ok(None);
        }
        let dest = self.k.thread_or_local(args.dest, self.k.space_of(caller));
        let dest = dest.or_else(|| self.k.interrupt_thread(args.dest)).ok_or(SysError::InvalidThread)?;
        self.may_schedule(caller, dest)?;
        self.check_schedule(caller, args)?;
        let id = self.k.tcb(dest).id.get();
        let answer = self.at_home_of(dest, Subject::Schedule, args.to_words(dest)).ok_or(SysError::InvalidThread)?;
        if let Some(processor) = args.processor.processor() {
            self.move_thread(dest, id, CpuId::new(processor.into()));
        }
        Ok(Some(ScheduleReply::from_words(answer)))
    }

    /// The act, at the home of the thread.
    pub(crate) fn schedule_here(&mut self, question: Words) -> Reply {
        let (dest, args) = ScheduleArgs::from_words(question);
        if !self.is_here(dest) {
            return Reply::Moved;
        }
        let reply = self.schedule_state(dest);
        self.commit_schedule(dest, args);
        Reply::Done(reply.to_words())
    }

    fn may_schedule(&self, caller: TcbRef, dest: TcbRef) -> Result<(), SysError> {
        let scheduler = self.k.thread(self.k.tcb(dest).scheduler.get());
        let is_scheduler =
            scheduler.is_some_and(|scheduler| self.k.tcb(scheduler).space.get() == Some(self.k.space_of(caller)));
        if is_scheduler || self.k.is_privileged(caller) { Ok(()) } else { Err(SysError::NoPrivilege) }
    }

    fn check_schedule(&self, caller: TcbRef, args: ScheduleArgs) -> Result<(), SysError> {
        if args.preemption.is_hs_extended() {
            return Err(SysError::InvalidParameter);
        }
        let limit = if self.k.is_privileged(caller) { u8::MAX } else { self.k.tcb(caller).priority() };
        if args.prio.priority().is_some_and(|priority| priority > limit) {
            return Err(SysError::NoPrivilege);
        }
        if !args.time.is_no_change() && (args.time.timeslice().is_point() || args.time.total_quantum().is_point()) {
            return Err(SysError::InvalidParameter);
        }
        if !args.preemption.is_no_change() && args.preemption.sensitive_priority() > limit {
            return Err(SysError::NoPrivilege);
        }
        if args.processor.processor().is_some_and(|cpu| usize::from(cpu) >= self.k.cpus.len()) {
            return Err(SysError::InvalidParameter);
        }
        Ok(())
    }

    fn schedule_state(&self, dest: TcbRef) -> ScheduleReply {
        self.charge();
        let tcb = self.k.tcb(dest);
        let left = |us: u64| if us == NEVER_ENDS { Time::NEVER } else { Time::period_us(us) };
        ScheduleReply {
            state: self.visible_state(dest),
            time: TimeControl::new(left(tcb.slice_left_us.get()), left(tcb.quantum_left_us.get())),
        }
    }

    fn visible_state(&self, dest: TcbRef) -> ScheduleResult {
        let transferring = |as_sender| if as_sender { ScheduleResult::Sending } else { ScheduleResult::Receiving };
        let tcb = self.k.tcb(dest);
        match tcb.status() {
            Status::Inactive => ScheduleResult::Dead,
            // A page fault in the middle of a string is part of the transfer.
            _ if tcb.outer_peer.get().is_some() => transferring(tcb.transfer.as_sender.get()),
            Status::PendingSend => ScheduleResult::PendingSend,
            Status::Waiting => ScheduleResult::Waiting,
            Status::Sending => ScheduleResult::Sending,
            Status::Receiving => ScheduleResult::Receiving,
            Status::Running if tcb.is_halted() => ScheduleResult::Inactive,
            Status::Running => match tcb.work() {
                Work::Transfer => transferring(tcb.transfer.as_sender.get()),
                _ => ScheduleResult::Running,
            },
        }
    }

    fn commit_schedule(&mut self, dest: TcbRef, args: ScheduleArgs) {
        let tcb = self.k.tcb(dest);
        if let Some(priority) = args.prio.priority() {
            self.set_priority(dest, priority);
        }
        if !args.preemption.is_no_change() {
            if args.preemption.sensitive_priority() >= tcb.priority() {
                tcb.sensitive_priority.set(args.preemption.sensitive_priority());
            }
            self.set_max_delay(dest, args.preemption.max_delay_us());
        }
        if !args.time.is_no_change() {
            tcb.time_slice.set(args.time.timeslice());
            tcb.total_quantum.set(args.time.total_quantum());
            tcb.quantum_left_us.set(period_us(args.time.total_quantum()));
            self.refill_slice(dest);
        }
    }

    /// Changes the priority; a ready thread goes behind the others of its new one.
    fn set_priority(&mut self, thread: TcbRef, priority: u8) {
        let tcb = self.k.tcb(thread);
        let is_queued = tcb.ready_link.is_linked();
        if is_queued {
            self.cpu.ready.remove(self.k.tcbs, thread);
        }
        tcb.priority.set(priority);
        tcb.sensitive_priority.set(tcb.sensitive_priority.get().max(priority));
        if is_queued {
            self.enqueue(thread);
        }
        self.cpu.must_choose.set(true);
    }
}
