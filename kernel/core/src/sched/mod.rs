//! Scheduling (X.2, Scheduling): who runs on a processor, for how long, and what wakes it.
//!
//! The running thread is in no queue. Its time is charged to the *slice owner*, which is the thread itself unless it got
//! the processor by donation. A thread that becomes ready with a strictly higher priority than the running one preempts
//! it; the preempted thread goes to the head of its queue and keeps the rest of its slice. At the end of a slice the
//! running thread goes to the tail, its donor, if that is ready, behind it, and the owner's next slice is a full one.
//! A slice without end, or of which a second and more is left, is its owner's while that runs. Who runs on it by donation
//! while others are ready is weighed against them at the next multiple of 16,384 us.
//!
//! Besides slices there is the *total quantum* of a thread, which all its slices use up. At its end the thread owes its
//! scheduler a preemption message, which it sends before it is in user mode again ([`Work::Preemption`]); who runs on its
//! time goes on on its own. A thread can hold back its preemption for a while: see [`delay`].

pub mod delay;
pub mod ready_queue;
pub mod timeouts;

use l4_abi::Time;

use crate::cross::ask::Questions;
use crate::cross::attention::Attention;
use crate::cross::mailbox::Mailbox;
use crate::cross::raised::Raised;
use crate::kernel::Here;
use crate::list::Head;
use crate::machine::{Machine, TcbRef};
use crate::thread::{Arrival, Status, Tcb, Work};
use crate::trace::{Arg, Event};
use crate::var::{AsWord, Var, Var64};
use delay::Preemption;
use ready_queue::ReadyQueue;
use timeouts::Timeouts;

/// Who runs: the byte offset of the thread's TCB in the table, or idle. The fast path uses it as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Current(usize);

impl Current {
    /// Nobody runs: not a multiple of the size of a TCB.
    pub const IDLE: Self = Self(1);

    /// `thread` runs.
    #[inline]
    pub const fn running(thread: TcbRef) -> Self {
        Self(thread.index() << crate::thread::TCB_SIZE_LOG2)
    }

    /// The running thread.
    #[inline]
    pub fn thread(self) -> Option<TcbRef> {
        (self != Self::IDLE).then(|| TcbRef::new((self.0 >> crate::thread::TCB_SIZE_LOG2) as u32))
    }
}

impl AsWord for Current {
    type Cell = crate::sync::AtomicUsize;
    #[inline(always)]
    fn to_word(self) -> usize {
        self.0
    }
    #[inline(always)]
    fn from_word(word: usize) -> Self {
        Self(word)
    }
}

/// The scheduling state of one processor. `current` is first: the fast path reads and writes it.
#[repr(C)]
pub struct Cpu {
    /// Who runs.
    pub current: Var<Current>,
    /// A thread that is to get the processor by donation, before any queue is looked at.
    pub(crate) donee: Var<Option<TcbRef>>,
    /// The running thread must not simply go on: someone better may be ready.
    pub(crate) must_choose: Var<bool>,
    /// Who gets the processor from the running thread is compared with who is ready: the time of both has no end, or none soon.
    pub(crate) must_compare: Var<bool>,
    /// Who pays for the time: `None` when idle.
    pub(crate) slice_owner: Var<Option<TcbRef>>,
    /// When the current charge began.
    pub(crate) charged_until: Var64,
    /// The running thread, while it holds back its preemption.
    pub(crate) delaying: Var<Option<TcbRef>>,
    /// Either of both: something is to be decided when the running thread gives the processor away.
    pub(crate) weighs_hand_overs: Var<bool>,
    /// When it has to stop, microseconds on the clock.
    pub(crate) delay_end: Var64,
    /// Who is ready and does not run.
    pub ready: ReadyQueue,
    pub(crate) timeouts: Timeouts,
    /// Threads that come here from other processors.
    pub(crate) mailbox: Mailbox,
    /// What this processor asks others, and who asks it.
    pub(crate) questions: Questions,
    /// Others want something, and the processor was told so: it looks before it goes to user mode.
    pub attention: Attention,
    /// Threads that are queued on threads that were moved away, until they follow them.
    pub(crate) orphans: Head,
    /// Interrupts that others passed on.
    pub(crate) raised: Raised,
    /// A thread is just arriving: what it does is not done by the running one.
    pub(crate) is_receiving: Var<bool>,
}

crate::load::load_fields!(Cpu: current, donee, must_choose, must_compare, slice_owner, charged_until, delaying,
    weighs_hand_overs, delay_end, ready, timeouts, mailbox, orphans, is_receiving);

#[allow(clippy::new_without_default, reason = "for statics")]
impl Cpu {
    /// A processor that has not started: see [`Cpu::start`].
    pub const fn new() -> Self {
        Self {
            current: Var::zero(),
            donee: Var::zero(),
            must_choose: Var::zero(),
            must_compare: Var::zero(),
            slice_owner: Var::zero(),
            charged_until: Var64::zero(),
            delaying: Var::zero(),
            weighs_hand_overs: Var::zero(),
            delay_end: Var64::zero(),
            ready: ReadyQueue::new(),
            timeouts: Timeouts::new(),
            mailbox: Mailbox::new(),
            questions: Questions::new(),
            attention: Attention::new(),
            orphans: Head::zero(),
            raised: Raised::new(),
            is_receiving: Var::zero(),
        }
    }

    /// Makes the processor idle: from now on threads can become ready on it.
    pub fn start(&self) {
        self.current.set(Current::IDLE);
    }
}

/// The default time slice: 10 ms (X.2, Scheduling: defaults).
pub const DEFAULT_TIME_SLICE_US: u64 = 10_000;
/// The priority of a new thread.
pub const DEFAULT_PRIORITY: u8 = 100;
/// How long a thread runs while the processor is behind in what others want of it.
const ATTEND_AGAIN_US: u64 = 20;
/// Left time that never runs out.
pub const NEVER_ENDS: u64 = u64::MAX;
/// What is left of a slice that is as good as one without end, microseconds: about a second.
const LONG_US: u64 = 1 << 20;
/// How often, by the clock, it is looked at who runs on such a slice, microseconds: about twice a default slice.
const LOOK_US: u64 = DEFAULT_TIME_SLICE_US.next_power_of_two();

/// Microseconds of a time slice or quantum given as a period: "never" and zero are both without end.
pub fn period_us(period: Time) -> u64 {
    match period.deadline_us(0) {
        None | Some(0) => NEVER_ENDS,
        Some(us) => us,
    }
}

impl<M: Machine> Here<'_, M> {
    /// Makes `thread` ready: its IPC ended, or it was resumed. A halted thread does not run. One that faulted in the middle
    /// of a string goes on with that, where its partner is; any other one goes on where it runs.
    pub(crate) fn make_ready(&self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        let partner = tcb.outer_peer.get();
        self.end_nested_fault(thread);
        let (there, arrival) = match partner {
            Some(partner) => (self.k.tcb(partner).home(), Arrival::Transfer),
            None => (tcb.affinity(), Arrival::Ready),
        };
        // To a partner here that is leaving the string it comes as from elsewhere, which ends the string.
        let has_to_end = || partner.is_some_and(|partner| self.k.tcb(partner).is_leaving.get());
        if there != self.id || has_to_end() {
            self.travel(thread, there, arrival);
        } else if self.is_runnable(thread) {
            self.enqueue(thread);
        }
    }

    /// Queues `thread`, which is ready and not running, and preempts the running thread if its priority is lower.
    pub(crate) fn enqueue(&self, thread: TcbRef) {
        if self.cpu.current.get().thread() == Some(thread) {
            return;
        }
        self.cpu.ready.push_back(self.k.tcbs, thread);
        match self.cpu.current.get().thread() {
            Some(running) if self.k.tcb(thread).priority() <= self.k.tcb(running).priority() => {}
            _ => self.cpu.must_choose.set(true),
        }
    }

    /// Whether nobody runs here, and nobody is ready to.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.cpu.current.get() == Current::IDLE && self.cpu.donee.get().is_none() && self.cpu.ready.is_empty()
    }

    /// The thread of `tcb`, which pays, leaves this processor: the time so far is charged to it, and nobody pays any more.
    #[inline(always)]
    pub(crate) fn stop_paying(&self, tcb: &Tcb) {
        let used = self.k.machine.now_us().saturating_sub(self.cpu.charged_until.get());
        for left in [&tcb.slice_left_us, &tcb.quantum_left_us] {
            let before = left.get();
            if before != NEVER_ENDS {
                left.set(before.saturating_sub(used));
            }
        }
        self.cpu.slice_owner.set(None);
    }

    /// `thread`, which has become ready where nobody runs, runs on its own time. When that is over, microseconds on the
    /// clock; all ones: never.
    #[inline(always)]
    pub(crate) fn begin_to_run(&self, thread: TcbRef, tcb: &Tcb) -> u64 {
        let now = self.k.machine.now_us();
        self.cpu.charged_until.set(now);
        self.cpu.slice_owner.set(Some(thread));
        self.cpu.current.set(Current::running(thread));
        if tcb.slice_left_us.get() == 0 {
            self.refill_slice(thread);
        }
        now.saturating_add(tcb.slice_left_us.get().min(tcb.quantum_left_us.get()))
    }

    /// Takes `thread` out of the ready queue, if it is there.
    pub(crate) fn dequeue(&self, thread: TcbRef) {
        if self.k.tcb(thread).ready_link.is_linked() {
            self.cpu.ready.remove(self.k.tcbs, thread);
        }
        if self.cpu.donee.get() == Some(thread) {
            self.cpu.donee.set(None);
        }
    }

    /// Whether `thread` may run: in user mode, or to go on with its work, which a halted thread finishes.
    pub(crate) fn is_runnable(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        let is_running = tcb.status.is(Status::Running) && tcb.waits_for.get().is_nil();
        self.is_here(thread) && is_running && (!tcb.is_halted() || !tcb.work.is(Work::None))
    }

    /// Switches to `thread` on the time slice of the running one, which blocked or stays ready. Who arrives from another
    /// processor has no time to give.
    pub(crate) fn donate_to(&self, thread: TcbRef) {
        if !self.is_runnable(thread) || self.cpu.is_receiving.get() {
            return;
        }
        self.dequeue(thread);
        if let Some(other) = self.cpu.donee.replace(Some(thread)) {
            self.cpu.ready.push_front(self.k.tcbs, other);
        }
    }

    /// The running thread, if it goes on in user mode with nothing to be decided or done before: what [`Self::attend`] and
    /// [`Self::choose`] would come to in the most frequent case, found by a look at each thing once.
    #[inline(always)]
    pub fn undisputed(&mut self) -> Option<TcbRef> {
        let cpu = self.cpu;
        if self.is_behind() {
            return None;
        }
        self.k.machine.complete();
        let thread = cpu.current.get().thread()?;
        let is_decided = !cpu.must_choose.get() && cpu.donee.get().is_none() && cpu.delaying.get().is_none();
        (is_decided && self.is_in_user_mode(self.k.tcb(thread))).then_some(thread)
    }

    /// Whether the running thread with this TCB runs here, and has nothing to do in the kernel.
    #[inline(always)]
    fn is_in_user_mode(&self, tcb: &Tcb) -> bool {
        tcb.status.is(Status::Running)
            && tcb.waits_for.get().is_nil()
            && tcb.work.is(Work::None)
            && !tcb.is_halted()
            && !tcb.owes_message()
            && tcb.is_at(self.id)
            && tcb.affinity() == self.id
    }

    /// Decides who runs now and charges time. The result is also in `cpu.current`; `None`: nobody is ready.
    pub fn choose(&self) -> Option<TcbRef> {
        let delaying = self.cpu.delaying.get();
        if delaying.is_some() && self.running() != delaying {
            self.stop_delay();
        }
        let next = self.choose_thread_of_here();
        if self.cpu.delaying.get() != next {
            self.end_delay();
        }
        if let Some(thread) = next {
            self.k.tcb(thread).recall_messages();
        }
        next
    }

    /// As [`Self::choose_thread`], among those that run here: a thread that was moved while it ran, or in the middle of its
    /// work, goes now.
    fn choose_thread_of_here(&self) -> Option<TcbRef> {
        let is_leaving = |&thread: &TcbRef| !self.runs_here(thread) && self.k.tcb(thread).work() == Work::None;
        let mut leaving = self.running().filter(is_leaving);
        loop {
            if let Some(thread) = leaving {
                self.depart(thread);
            }
            let next = self.choose_thread();
            leaving = next.filter(is_leaving);
            if leaving.is_none() {
                return next;
            }
        }
    }

    /// The thread that runs, unless it blocked or was halted.
    pub(crate) fn running(&self) -> Option<TcbRef> {
        self.cpu.current.get().thread().filter(|&thread| self.is_runnable(thread))
    }

    fn choose_thread(&self) -> Option<TcbRef> {
        let running = self.running();
        let mut must_choose = self.cpu.must_choose.replace(false);
        let running = match self.cpu.donee.replace(None) {
            Some(donee) => {
                if self.cpu.must_compare.replace(false) {
                    must_choose = true;
                    self.note_hand_overs();
                }
                self.put_back(running);
                self.take_over(donee);
                Some(donee)
            }
            None => running,
        };
        if running.is_some() && !must_choose {
            return running;
        }
        self.choose_highest(running)
    }

    /// `donee` runs on the time of whoever paid last, if that has any.
    fn take_over(&self, donee: TcbRef) {
        let payer = self.cpu.slice_owner.get();
        if payer.is_some() {
            self.charge();
        }
        if payer.is_none_or(|owner| self.k.tcb(owner).quantum_is_over()) {
            self.start_slice(Some(donee));
        }
        self.cpu.current.set(Current::running(donee));
    }

    /// Puts the running thread, which is preempted, at the head of its queue.
    fn put_back(&self, running: Option<TcbRef>) {
        if let Some(running) = running {
            self.cpu.ready.push_front(self.k.tcbs, running);
        }
    }

    fn choose_highest(&self, running: Option<TcbRef>) -> Option<TcbRef> {
        let is_better =
            |next| running.is_none_or(|running| self.k.tcb(next).priority() > self.k.tcb(running).priority());
        let Some(next) = self.cpu.ready.first().filter(|&next| is_better(next)) else {
            return self.go_on(running);
        };
        if running.is_some_and(|running| self.preemption_by(running, next) != Preemption::Now) {
            return self.go_on(running);
        }
        self.cpu.ready.remove(self.k.tcbs, next);
        self.preempt(running);
        self.start_slice(Some(next));
        self.cpu.current.set(Current::running(next));
        Some(next)
    }

    /// The running thread loses the processor: it is next, unless its slice is used up, too.
    fn preempt(&self, running: Option<TcbRef>) {
        let Some(running) = running else { return };
        self.charge();
        match self.owner_of_spent_slice() {
            Some(owner) => self.end_turn(owner, running),
            None => self.put_back(Some(running)),
        }
    }

    /// Nobody better is ready: the running thread goes on, on its own time if its donor is gone; without one, idle.
    fn go_on(&self, running: Option<TcbRef>) -> Option<TcbRef> {
        match (running, self.cpu.slice_owner.get()) {
            // Nobody paid, and nobody pays.
            (None, None) => {}
            (None, _) | (_, None) => self.start_slice(running),
            (Some(_), Some(_)) => {}
        }
        self.cpu.current.set(running.map_or(Current::IDLE, Current::running));
        running
    }

    /// Charges the time used so far to the slice owner.
    pub(crate) fn charge(&self) {
        let now = self.k.machine.now_us();
        let used = now.saturating_sub(self.cpu.charged_until.get());
        self.cpu.charged_until.set(now);
        let Some(owner) = self.cpu.slice_owner.get() else { return };
        let tcb = self.k.tcb(owner);
        for left in [&tcb.slice_left_us, &tcb.quantum_left_us] {
            if left.get() != NEVER_ENDS {
                left.set(left.get().saturating_sub(used));
            }
        }
        if tcb.quantum_is_over() {
            // It owes a message now, of which the fast path knows nothing.
            tcb.make_wait_ordinary(self.k.machine.ipc_return_ip());
        }
    }

    /// From now on the time is charged to `owner`, whose slice is refilled if it is used up.
    fn start_slice(&self, owner: Option<TcbRef>) {
        self.charge();
        self.cpu.slice_owner.set(owner);
        if let Some(owner) = owner
            && self.k.tcb(owner).slice_left_us.get() == 0
        {
            self.refill_slice(owner);
        }
    }

    /// Gives `thread` a full time slice.
    #[cold]
    pub(crate) fn refill_slice(&self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        tcb.slice_left_us.set(period_us(tcb.time_slice.get()));
    }

    /// The timer fired: ends what timed out, the slice and the quantum of who pays if they are used up, and the delay of a
    /// preemption if it has lasted long enough.
    pub fn timer_interrupt(&mut self) {
        let now = self.k.machine.now_us();
        while let Some(thread) = self.cpu.timeouts.expire(self.k.tcbs, now) {
            self.timeout_fired(thread);
        }
        self.expire_delay(now);
        self.charge();
        let Some(owner) = self.cpu.slice_owner.get() else { return };
        let running = self.running();
        if self.k.tcb(owner).quantum_is_over() && running != Some(owner) {
            // Who runs goes on, on its own time.
            self.cpu.slice_owner.set(None);
            self.cpu.must_choose.set(true);
        } else if self.k.tcb(owner).slice_left_us.get() == 0 {
            self.end_slice(owner, running);
        } else if self.k.tcb(owner).slice_left_us.get() >= LONG_US && !self.cpu.ready.is_empty() {
            self.bound_donation(owner, running);
        }
    }

    /// Others are ready, and the slice of `owner` has no end, or none soon. That is its right while it runs. Who runs on such
    /// time goes on on its own; else two threads that hand the processor to each other could keep everybody else from it, those
    /// with higher priorities, too, as one of the two may be as high whenever it is looked.
    fn bound_donation(&self, owner: TcbRef, running: Option<TcbRef>) {
        if running == Some(owner) {
            self.cpu.must_compare.set(true);
            self.note_hand_overs();
        } else {
            self.cpu.slice_owner.set(None);
            self.cpu.must_choose.set(true);
        }
    }

    /// The slice of `owner` is used up: the running thread goes behind the others of its priority, unless it delays that.
    fn end_slice(&self, owner: TcbRef, running: Option<TcbRef>) {
        self.trace(Event::TimesliceExpired, |k| [k.id_of(owner).arg()]);
        // Who owes its scheduler a message goes on to send it.
        let Some(running) = running.filter(|&running| !self.k.tcb(running).quantum_is_over()) else {
            return self.refill_slice(owner);
        };
        match self.preemption_of(running) {
            Preemption::Later => {}
            Preemption::Fault => self.refill_slice(owner),
            Preemption::Now => {
                self.end_turn(owner, running);
                self.leave_processor();
            }
        }
    }

    /// Queues the running thread and, if it is ready, `owner`, whose slice is used up, behind their equals: in the order in
    /// which they would be queued had there been no donation.
    fn end_turn(&self, owner: TcbRef, running: TcbRef) {
        self.refill_slice(owner);
        self.cpu.ready.push_back(self.k.tcbs, running);
        if running != owner && self.k.tcb(owner).ready_link.is_linked() {
            self.cpu.ready.remove(self.k.tcbs, owner);
            self.cpu.ready.push_back(self.k.tcbs, owner);
        }
    }

    /// The running thread gives up what is left of the slice: it goes behind its equals, and the best ready one runs.
    pub(crate) fn yield_processor(&self, running: TcbRef) {
        self.refill_slice(running);
        match self.owner_of_spent_slice() {
            Some(owner) => self.end_turn(owner, running),
            None => self.cpu.ready.push_back(self.k.tcbs, running),
        }
        self.leave_processor();
    }

    /// Who pays, if its slice is used up. The time so far must be charged.
    pub(crate) fn owner_of_spent_slice(&self) -> Option<TcbRef> {
        self.cpu.slice_owner.get().filter(|&owner| self.k.tcb(owner).slice_left_us.get() == 0)
    }

    /// The thread that ran is queued: whoever is best comes next.
    fn leave_processor(&self) {
        self.cpu.current.set(Current::IDLE);
        self.cpu.must_choose.set(true);
    }

    /// When the timer must fire next while the thread chosen last runs, microseconds on the clock.
    #[inline(always)]
    pub fn next_event(&self) -> Option<u64> {
        let cpu = self.cpu;
        let is_delaying = cpu.delaying.get().is_some();
        let mut event = match cpu.slice_owner.get() {
            Some(owner) => self.time_is_up(owner, is_delaying),
            None => NEVER_ENDS,
        };
        if is_delaying {
            event = event.min(cpu.delay_end.get());
        }
        if cpu.timeouts.count() != 0 {
            event = event.min(cpu.timeouts.next_event(self.k.tcbs).unwrap_or(NEVER_ENDS));
        }
        if self.is_behind() {
            event = event.min(self.goes_on_attending());
        }
        (event != NEVER_ENDS).then_some(event)
    }

    /// When the next timeout is over that was started here, microseconds on the clock, or before that. While nobody runs it
    /// is all that the timer is needed for.
    #[inline(always)]
    pub fn next_timeout(&self) -> Option<u64> {
        self.cpu.timeouts.next_event(self.k.tcbs)
    }

    /// When a processor that is behind in what others want of it attends to that again. Until then the running thread goes
    /// on, so that endless arrivals do not keep it from that.
    #[inline(never)]
    fn goes_on_attending(&self) -> u64 {
        self.k.machine.now_us().saturating_add(ATTEND_AGAIN_US)
    }

    /// When the slice or the quantum of `owner`, who pays, will be used up.
    #[inline(always)]
    fn time_is_up(&self, owner: TcbRef, is_delaying: bool) -> u64 {
        let tcb = self.k.tcb(owner);
        // The end of a slice that comes while a preemption is delayed changes nothing until the delay is over.
        let slice = if is_delaying { NEVER_ENDS } else { self.slice_left(tcb) };
        let mut quantum = tcb.quantum_left_us.get();
        if quantum == 0 && self.running() == Some(owner) {
            // Who is about to stop needs no reminder.
            quantum = NEVER_ENDS;
        }
        // What never ends stays at the end of time.
        self.cpu.charged_until.get().saturating_add(slice.min(quantum))
    }

    /// What is left of the slice of `tcb`, who pays, before something may have to be decided. Neither who is ready counts nor when
    /// the charge began: the fast path makes threads ready and charges nobody, and the timer is armed for the same all the same.
    #[inline(always)]
    fn slice_left(&self, tcb: &Tcb) -> u64 {
        match tcb.slice_left_us.get() {
            LONG_US.. => LOOK_US - self.cpu.charged_until.get() % LOOK_US,
            left => left,
        }
    }
}
