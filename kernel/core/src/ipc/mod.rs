//! IPC (X.2, Ipc): rendezvous, phases, blocking.
//!
//! An IPC is a send phase and a receive phase, either of which may be absent. Two threads meet when one sends to the
//! other while that waits for it, or when one receives while the other is queued on it; whoever comes second carries
//! out the [`transfer`], on its own time. A thread that blocks leaves everything it needs later in its TCB: the receive
//! phase of a blocked send, the deadline of a wait, the rest of a transfer.
//!
//! The kernel sends and receives in the name of a thread too (page faults, exceptions, the start message): the same
//! machinery with another [`Purpose`], which says where the message words are and what the end of the IPC means.

use core::cmp::Ordering;

use l4_abi::{IpcError, IpcErrorKind, MsgTag, Phase, ThreadId, Time, Timeouts, Word};

use crate::cross::Place;
use crate::kernel::Here;
use crate::list::{Kind, Link, List};
use crate::machine::{CpuId, Machine, SpaceRef, TcbRef};
use crate::sched::Current;
use crate::thread::{Arrival, Purpose, Status, Tcb, Work};
use crate::trace::{Arg, Event};

mod cancel;
mod fault;
mod interrupt;
mod redirect;
mod strings;
mod transfer;

pub(crate) use cancel::Reason;
pub(crate) use transfer::{Cut, STEP_BUDGET};

/// The deadline of a phase that does not wait.
const AT_ONCE: u64 = 0;
/// The deadline of a phase that waits for ever.
pub(crate) const NEVER: u64 = u64::MAX;

/// Phases, as events tell them.
const SENDS: u64 = 0;
pub(crate) const RECEIVES: u64 = 1;

/// Threads that wait to send to the same one.
pub(crate) struct Sending;

impl Kind for Sending {
    #[inline]
    fn link(tcb: &Tcb) -> &Link {
        &tcb.send_link
    }
}

/// Whether a wait for `partner` takes a message in the name of `sends_as` from a thread `sender` (X.2, Send).
fn takes(partner: ThreadId, sends_as: ThreadId, sender: ThreadId, same_space: bool) -> bool {
    partner == sends_as
        || partner == sender
        || partner == ThreadId::ANY
        || (partner == ThreadId::ANY_LOCAL && same_space)
}

/// The receiver of a send phase that has just ended.
#[derive(Clone, Copy)]
struct Woken {
    thread: TcbRef,
    /// Whether the dispatcher had to look for somebody better before it woke up.
    must_choose: bool,
}

/// `tag` without the flags that only results have.
fn without_result_flags(tag: MsgTag) -> MsgTag {
    tag.without_flags(MsgTag::REDIRECTED | MsgTag::XCPU | MsgTag::ERROR)
}

/// The tag that the receiver of a message with `tag` finds.
fn received_tag(tag: MsgTag, is_propagated: bool, is_redirected: bool, is_xcpu: bool) -> MsgTag {
    let flags = [(is_propagated, MsgTag::PROPAGATED), (is_redirected, MsgTag::REDIRECTED), (is_xcpu, MsgTag::XCPU)];
    let set = flags.into_iter().filter(|&(is_set, _)| is_set).fold(0, |set, (_, flag)| set | flag);
    tag.without_flags(MsgTag::FLAGS).with_flags(set)
}

impl<M: Machine> Here<'_, M> {
    /// The system call Ipc, and Lipc, which is the same (X.2, Ipc). The running thread `caller` gets its result, or
    /// blocks. Returns who runs, if there is nothing to decide about that.
    #[inline]
    pub fn ipc(&mut self, caller: TcbRef, to: ThreadId, from: ThreadId, timeouts: Timeouts) -> Option<TcbRef> {
        let next = self.answer_fault(caller, to, from, timeouts);
        if next.is_none() {
            self.begin_ipc(caller, to, from, timeouts);
        }
        next
    }

    #[inline(never)]
    pub(crate) fn begin_ipc(&mut self, caller: TcbRef, to: ThreadId, from: ThreadId, timeouts: Timeouts) {
        let tcb = self.k.tcb(caller);
        tcb.purpose.set(Purpose::User);
        tcb.user_intended.set(ThreadId::NIL);
        tcb.then_from.set(from);
        tcb.then_timeout.set(timeouts.rcv());
        match (to.is_nil(), from.is_nil()) {
            (true, true) => self.k.machine.ipc_return(caller, tcb, ThreadId::NIL),
            (true, false) => self.receive_phase(caller, None),
            (false, _) => self.send_phase(caller, to, self.deadline(timeouts.snd())),
        }
    }

    /// Sends the kernel's message in the buffer of `caller` to `partner` and waits for the reply, both without timeout.
    pub(crate) fn kernel_call(&mut self, caller: TcbRef, partner: ThreadId, purpose: Purpose) {
        let tcb = self.k.tcb(caller);
        tcb.purpose.set(purpose);
        tcb.partner.set(partner);
        tcb.kernel_is_redirected.set(false);
        if partner.is_nil() {
            return self.fail(caller, Phase::Send, IpcErrorKind::NonExisting, MsgTag::ERROR_ONLY);
        }
        self.send_phase(caller, partner, NEVER);
    }

    /// A fault of `thread` has nobody to handle it: it stops until somebody resumes it, and then faults again.
    pub(crate) fn halt_for_lack_of_partner(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        tcb.halted.set(true);
        tcb.purpose.set(Purpose::User);
        tcb.set_status(Status::Running);
        self.cpu.must_choose.set(true);
        if !self.runs_here(thread) {
            self.travel(thread, tcb.affinity(), Arrival::Ready);
        }
    }

    /// The deadline of a phase that begins now; 0: it ends at once if it has to wait, all ones: never.
    pub(crate) fn deadline(&self, timeout: Time) -> u64 {
        if timeout.is_zero() {
            return AT_ONCE;
        }
        timeout.deadline_us(self.k.machine.now_us()).map_or(NEVER, |deadline| deadline.max(AT_ONCE + 1))
    }

    /// The send phase of `sender` to the thread or interrupt `to`. It takes place where that runs.
    fn send_phase(&mut self, sender: TcbRef, to: ThreadId, deadline: u64) {
        let tcb = self.k.tcb(sender);
        let named = self.k.thread_or_local(to, tcb.space());
        let dest = match named {
            Some(named) => self.route(sender, named),
            None => self.k.interrupt_thread(to),
        };
        let Some(dest) = dest else {
            return self.fail(sender, Phase::Send, IpcErrorKind::NonExisting, MsgTag::ERROR_ONLY);
        };
        if !self.runs_here(dest) {
            return self.send_elsewhere(sender, named.unwrap_or(dest), dest, deadline);
        }
        let place = match self.place_of(dest) {
            // The sender looks again behind it. It never does so behind another sender: two of them would go on for ever.
            Place::Coming if self.k.tcb(dest).is_coming_to_wait_at(self.id) => {
                return self.travel_to_send(sender, named.unwrap_or(dest), self.id, deadline);
            }
            // One that comes to send looks at its queue when it has come.
            Place::Coming => Place::Here,
            place => place,
        };
        // Should the receiver be moved, the sender follows it.
        tcb.set_destination(self.k.tcb(named.unwrap_or(dest)).id.get());
        self.name_sender(sender, dest);
        if place == Place::Away || !self.is_deliverable(sender, dest) {
            self.wait_to_send(sender, (dest, place), deadline);
        } else if named.is_none() {
            self.answer(sender, dest);
        } else {
            self.begin_transfer(sender, dest, sender);
        }
    }

    /// The send phase of `sender` to `named`, which ends at `dest`, goes on where that runs.
    fn send_elsewhere(&mut self, sender: TcbRef, named: TcbRef, dest: TcbRef, deadline: u64) {
        let tcb = self.k.tcb(sender);
        let may_wait = self.cpu.current.is(Current::running(sender)) && tcb.work.is(Work::None);
        if may_wait && !self.cpu.questions.is_empty() {
            // Somebody may ask for it, and would not find it: that comes first.
            tcb.set_destination(self.k.tcb(named).id.get());
            tcb.deadline.set(deadline);
            return tcb.work.set(Work::SendPhase);
        }
        self.travel_to_send(sender, named, self.k.tcb(dest).affinity(), deadline);
    }

    #[inline]
    fn travel_to_send(&mut self, sender: TcbRef, named: TcbRef, cpu: CpuId, deadline: u64) {
        let tcb = self.k.tcb(sender);
        tcb.set_status(Status::PendingSend);
        tcb.set_destination(self.k.tcb(named).id.get());
        tcb.deadline.set(deadline);
        self.travel(sender, cpu, Arrival::Send);
    }

    /// The send phase of `sender` goes on here.
    pub(crate) fn resume_send_phase(&mut self, sender: TcbRef) {
        let tcb = self.k.tcb(sender);
        tcb.set_status(Status::Running);
        if tcb.work() == Work::SendPhase {
            tcb.work.set(Work::None);
        }
        match tcb.purpose.get() {
            Purpose::Interrupt => self.announce(sender),
            _ => self.send_phase(sender, tcb.destination(), tcb.deadline.get()),
        }
    }

    /// Settles in whose name `sender` sends to `dest`.
    fn name_sender(&self, sender: TcbRef, dest: TcbRef) {
        let tcb = self.k.tcb(sender);
        if tcb.purpose.get() == Purpose::User {
            let virtual_sender = self.valid_virtual_sender(sender, dest);
            tcb.user_propagates.set(virtual_sender.is_some());
            tcb.user_sends_as.set(virtual_sender.unwrap_or(tcb.id.get()));
        }
    }

    /// The virtual sender of what `sender` sends to `dest`, if there is one and it may (X.2, Propagation).
    fn valid_virtual_sender(&self, sender: TcbRef, dest: TcbRef) -> Option<ThreadId> {
        let utcb = self.k.utcb(sender);
        if !utcb.tag().is_propagated() {
            return None;
        }
        let virtual_sender = self.k.thread_or_local(utcb.virtual_sender(), self.k.space_of(sender))?;
        let may = [virtual_sender, dest].into_iter().any(|thread| self.may_speak_for_space_of(sender, thread));
        may.then(|| self.k.tcb(virtual_sender).id.get())
    }

    /// Whether `dest`, which is here, waits for what `sender` sends. A thread that waits for itself sleeps: nothing matches.
    fn is_deliverable(&self, sender: TcbRef, dest: TcbRef) -> bool {
        let (from, to) = (self.k.tcb(sender), self.k.tcb(dest));
        let same_space = from.space.get() == to.space.get();
        to.waiting_for()
            .is_some_and(|partner| partner != to.id.get() && takes(partner, from.sends_as(), from.id.get(), same_space))
    }

    /// `dest` does not wait for `sender`, which waits for it until `deadline`.
    fn wait_to_send(&mut self, sender: TcbRef, dest: (TcbRef, Place), deadline: u64) {
        if deadline == AT_ONCE {
            return self.fail(sender, Phase::Send, IpcErrorKind::Timeout, MsgTag::ERROR_ONLY);
        }
        self.block_sending(sender, dest, deadline);
    }

    /// Queues `sender` on `dest`, which runs here and was seen at `place`.
    fn block_sending(&mut self, sender: TcbRef, (dest, place): (TcbRef, Place), deadline: u64) {
        let (tcb, to) = (self.k.tcb(sender), self.k.tcb(dest));
        tcb.set_status(Status::PendingSend);
        tcb.peer.set(Some(dest));
        if tcb.intended().is_none() {
            tcb.partner.set(to.id.get());
        }
        self.send_queue(dest).push_back(sender);
        if tcb.sends_as() != tcb.id.get() {
            to.propagated_senders.set(to.propagated_senders.get() + 1);
            // The fast path does not look for them in a closed wait.
            to.make_wait_ordinary(self.k.machine.ipc_return_ip());
        }
        self.start_timeout(sender, deadline);
        self.trace_of(Event::IpcDetails, sender, |_| [tcb.partner.get().arg(), SENDS, deadline]);
        if place != Place::Here && self.is_coming_back(dest) {
            // Nobody need have seen that there is a sender now, which looks again when it has come.
            self.leave_send_queue(sender);
            tcb.deadline.set(deadline);
            self.travel(sender, self.id, Arrival::Send);
        }
    }

    /// Takes `sender`, which is blocked in its send phase, off the queue it is in.
    pub(crate) fn leave_send_queue(&self, sender: TcbRef) {
        let tcb = self.k.tcb(sender);
        let dest = tcb.peer.replace(None).expect("a blocked sender is queued on its partner");
        let is_orphan = !self.runs_here(dest);
        let queue = if is_orphan { self.orphans() } else { self.send_queue(dest) };
        queue.remove(sender);
        if !is_orphan && tcb.sends_as() != tcb.id.get() {
            let count = &self.k.tcb(dest).propagated_senders;
            count.set(count.get() - 1);
        }
        self.cpu.timeouts.cancel(self.k.tcbs, sender);
    }

    /// Those queued on threads that were moved away.
    pub(crate) fn orphans(&self) -> List<'_, Sending> {
        List::new(self.k.tcbs, &self.cpu.orphans)
    }

    pub(crate) fn send_queue(&self, receiver: TcbRef) -> List<'_, Sending> {
        List::new(self.k.tcbs, &self.k.tcb(receiver).send_queue)
    }

    /// Starts the timeout of a phase; for a page fault in the middle of a string that of the string goes on.
    pub(crate) fn start_timeout(&self, thread: TcbRef, deadline: u64) {
        let tcb = self.k.tcb(thread);
        let deadline = if tcb.outer_peer.get().is_some() { tcb.transfer.deadline.get() } else { deadline };
        tcb.deadline.set(deadline);
        if deadline != NEVER {
            self.cpu.timeouts.start(self.k.tcbs, thread, deadline);
        }
    }

    /// The receive phase of `thread`, as its TCB says; `woken` is the receiver of the send phase just ended, which gets
    /// the processor if `thread` blocks. It takes place where the thread runs.
    fn receive_phase(&mut self, thread: TcbRef, woken: Option<Woken>) {
        let tcb = self.k.tcb(thread);
        if !self.runs_here(thread) {
            tcb.set_status(Status::Running);
            return self.travel(thread, tcb.affinity(), Arrival::Receive);
        }
        // The kernel's own calls wait for whom they were sent to.
        let (from, timeout) = match tcb.purpose.get() {
            Purpose::User => (tcb.then_from.get(), tcb.then_timeout.get()),
            Purpose::Interrupt => return self.wait_for_answer(thread),
            _ => (tcb.partner.get(), Time::NEVER),
        };
        if from.is_nil() {
            return self.end_without_receive(thread);
        }
        let Some(partner) = self.global_partner(from, tcb.space()) else {
            return self.fail(thread, Phase::Receive, IpcErrorKind::NonExisting, MsgTag::ERROR_ONLY);
        };
        // A thread that faulted in the middle of a string cannot carry out another transfer: the pager sends to it.
        let is_free = tcb.outer_peer.get().is_none();
        if let Some(sender) = self.queued_sender(thread, partner).filter(|_| is_free) {
            if self.cpu.current.get().thread() != Some(thread) {
                return self.postpone_receive_phase(thread);
            }
            if let Some(woken) = woken {
                self.weigh(woken, sender);
            }
            self.leave_send_queue(sender);
            return self.begin_transfer(sender, thread, thread);
        }
        if timeout.is_zero() {
            self.fail(thread, Phase::Receive, IpcErrorKind::Timeout, MsgTag::ERROR_ONLY);
        } else {
            let is_plain = timeout.is_never() && self.may_wait_plainly(thread);
            if is_plain {
                self.k.machine.note_plain_wait(thread);
            }
            tcb.begin_wait(partner, is_plain);
            let deadline = self.deadline(timeout);
            self.start_timeout(thread, deadline);
            self.trace_of(Event::IpcDetails, thread, |_| [partner.arg(), RECEIVES, deadline]);
        }
        if let Some(woken) = woken.filter(|woken| self.is_ready_here(woken.thread)) {
            self.donate_to(woken.thread);
            if self.cpu.donee.get() == Some(woken.thread) {
                // It has the processor whatever the priorities are: nobody better has come.
                self.cpu.must_choose.set(woken.must_choose);
            }
        }
    }

    /// Whether the running thread, which has replied to `woken` and goes on to receive from `sender`, does so at once
    /// (X.2, Ipc, scheduling effects): the higher of the two decides, and `sender` if they are equals.
    fn weigh(&self, woken: Woken, sender: TcbRef) {
        let priority = |thread| self.k.tcb(thread).priority();
        if !self.is_ready_here(woken.thread) {
            return;
        }
        if priority(woken.thread) > priority(sender) {
            self.donate_to(woken.thread);
        } else {
            // It works for the sender now, which is not below the woken thread.
            self.cpu.must_choose.set(woken.must_choose);
        }
    }

    /// The running thread has received from `sender`, which was queued on it and, if it sent only, is ready: it is its turn,
    /// unless the receiver's priority is higher.
    fn switch_to_sender(&self, sender: TcbRef) {
        let tcb = self.k.tcb(sender);
        let sent_only = self.is_ready_here(sender) && tcb.work() == Work::None;
        let Some(receiver) = self.running().filter(|_| sent_only) else { return };
        match tcb.priority().cmp(&self.k.tcb(receiver).priority()) {
            Ordering::Less => {}
            Ordering::Equal => self.donate_to(sender),
            Ordering::Greater => {
                self.dequeue(sender);
                self.cpu.ready.push_front(self.k.tcbs, sender);
            }
        }
    }

    /// Whether a wait of `thread` without timeout may be ended by the fast path, which returns to the stub of Ipc at once.
    fn may_wait_plainly(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        let returns_to_stub = tcb.ip.get() == self.k.machine.ipc_return_ip();
        let is_free = !tcb.is_halted() && !tcb.owes_message();
        tcb.purpose.get() == Purpose::User && is_free && returns_to_stub && self.k.may_call_fast(thread)
    }

    /// Somebody else's step brought `thread` to its receive phase, and there is a sender: the transfer is its own work.
    fn postpone_receive_phase(&self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        tcb.set_status(Status::Running);
        tcb.work.set(Work::ReceivePhase);
        self.enqueue(thread);
    }

    /// Lets `thread`, which was just activated, wait for the start message of `pager`, which may be queued already.
    pub(crate) fn wait_for_start(&self, thread: TcbRef, pager: ThreadId) {
        let tcb = self.k.tcb(thread);
        tcb.purpose.set(Purpose::Start);
        tcb.partner.set(pager);
        match self.queued_sender(thread, pager) {
            Some(_) => self.postpone_receive_phase(thread),
            None => tcb.begin_wait(pager, false),
        }
    }

    /// Goes on with a receive phase that found senders queued while `thread` was not running.
    pub(crate) fn resume_receive_phase(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        // One that faulted in the middle of a string keeps its work.
        if tcb.work() == Work::ReceivePhase {
            tcb.work.set(Work::None);
        }
        self.receive_phase(thread, None);
    }

    /// A from specifier in global form; `None` if it names no thread (X.2, Receive).
    fn global_partner(&self, from: ThreadId, space: SpaceRef) -> Option<ThreadId> {
        if from == ThreadId::ANY || from == ThreadId::ANY_LOCAL || self.is_interrupt(from) {
            return Some(from);
        }
        self.k.thread_or_local(from, space).map(|thread| self.k.tcb(thread).id.get())
    }

    /// Whether `id` is the id of an interrupt.
    pub(crate) fn is_interrupt(&self, id: ThreadId) -> bool {
        id.is_global() && id.thread_no() < Word::from(self.k.numbers.system_base) && id.version() == 1
    }

    /// The first thread queued on `receiver` that a wait for `partner` takes. A thread that waits for itself sleeps.
    fn queued_sender(&self, receiver: TcbRef, partner: ThreadId) -> Option<TcbRef> {
        let to = self.k.tcb(receiver);
        let queue = self.send_queue(receiver);
        let first = queue.first().filter(|_| partner != to.id.get())?;
        if partner == ThreadId::ANY {
            return Some(first);
        }
        if partner != ThreadId::ANY_LOCAL && to.propagated_senders.get() == 0 {
            return self.k.thread_or_interrupt(partner).filter(|&sender| {
                let tcb = self.k.tcb(sender);
                self.is_here(sender) && tcb.status() == Status::PendingSend && tcb.peer.get() == Some(receiver)
            });
        }
        let mut candidate = Some(first);
        while let Some(sender) = candidate {
            let from = self.k.tcb(sender);
            if takes(partner, from.sends_as(), from.id.get(), from.space.get() == to.space.get()) {
                return Some(sender);
            }
            candidate = queue.after(sender);
        }
        None
    }

    /// Ends an IPC of `thread` that had no receive phase: the tag is the thread's own, without flags of the kernel.
    fn end_without_receive(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        if tcb.purpose.is(Purpose::User) {
            let utcb = tcb.utcb_in(self.k.machine);
            utcb.set_mr(0, without_result_flags(utcb.tag()).raw());
            self.k.machine.ipc_return(thread, tcb, ThreadId::NIL);
        }
        self.make_ready(thread);
    }

    /// Ends the IPC of `thread` with an error before any transfer (X.2, IPC errors).
    fn fail(&mut self, thread: TcbRef, phase: Phase, kind: IpcErrorKind, tag: MsgTag) {
        self.fail_at(thread, IpcError { phase, kind, offset: 0 }, tag);
    }

    fn fail_at(&mut self, thread: TcbRef, error: IpcError, tag: MsgTag) {
        let tcb = self.k.tcb(thread);
        self.trace_of(Event::IpcError, thread, |_| [error.raw() as u64]);
        match tcb.purpose.get() {
            Purpose::User => {
                let utcb = tcb.utcb_in(self.k.machine);
                utcb.set_error_code(error.raw());
                utcb.set_tag(tag);
                self.k.machine.ipc_return(thread, tcb, ThreadId::NIL);
                self.make_ready(thread);
            }
            Purpose::Interrupt => self.retire(thread),
            // The kernel's own message was cut off: the thread runs, and meets what it met before.
            _ if error.kind != IpcErrorKind::NonExisting => self.make_ready(thread),
            _ if tcb.outer_peer.get().is_some() => {
                self.cut_nested(thread, Cut::both(IpcErrorKind::Aborted));
            }
            _ => self.halt_for_lack_of_partner(thread),
        }
    }
}
