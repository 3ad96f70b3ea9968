//! Threads that go on at another processor.

use l4_abi::{IpcErrorKind, ThreadId};

use super::Place;
use super::ask::{Reply, Subject, Words, question};
use crate::ipc::Cut;
use crate::kernel::Here;
use crate::machine::{CpuId, Machine, TcbRef};
use crate::sched::Current;
use crate::sync::{Ordering, fence, fence_after_change};
use crate::thread::{Arrival, Purpose, Status, Tcb, Work};
use crate::trace::{Arg, Event};

/// Arrivals between two looks for interrupts.
const ARRIVALS_PER_STEP: usize = 16;

impl<M: Machine> Here<'_, M> {
    /// Whether `thread` is at home at this processor, and has arrived.
    #[inline]
    pub(crate) fn is_here(&self, thread: TcbRef) -> bool {
        self.k.tcb(thread).is_at(self.id)
    }

    /// Where `thread` is, which runs here.
    #[inline]
    pub(crate) fn place_of(&self, thread: TcbRef) -> Place {
        let tcb = self.k.tcb(thread);
        match !M::IS_MULTIPROCESSOR || tcb.home() == self.id {
            true if tcb.is_at(self.id) => Place::Here,
            true => Place::Coming,
            false => Place::Away,
        }
    }

    /// Whether `thread`, which was not here and about which something was noted here, is back or coming by now: whoever
    /// [hands it back](super::words) may have missed the note.
    pub(crate) fn is_coming_back(&self, thread: TcbRef) -> bool {
        self.look_for_silent_arrivals();
        self.k.tcb(thread).home() == self.id
    }

    /// Whether `thread` runs at this processor.
    #[inline]
    pub(crate) fn runs_here(&self, thread: TcbRef) -> bool {
        !M::IS_MULTIPROCESSOR || self.k.tcb(thread).affinity() == self.id
    }

    /// Whether `thread` is ready at this processor, and does not run.
    pub(crate) fn is_ready_here(&self, thread: TcbRef) -> bool {
        self.is_here(thread) && self.k.tcb(thread).ready_link.is_linked()
    }

    /// Sends `thread`, which is at home here, to processor `cpu`, where it goes on with `arrival`. From now on it is that
    /// processor's. If that is this one, it goes on when all others have arrived that were posted before.
    #[inline]
    pub(crate) fn travel(&self, thread: TcbRef, cpu: CpuId, arrival: Arrival) {
        self.set_off(thread, cpu, arrival);
        self.post(thread, cpu);
    }

    /// First half of a journey: `thread` is nobody's.
    #[inline]
    fn set_off(&self, thread: TcbRef, cpu: CpuId, arrival: Arrival) {
        let tcb = self.k.tcb(thread);
        debug_assert!(self.is_here(thread), "a thread leaves its home");
        debug_assert!(!tcb.timeout_link.is_linked() && !tcb.send_link.is_linked(), "nothing is left of it here");
        self.trace(Event::IpcXcpuDetails, |k| [k.id_of(thread).arg(), self.id.arg(), cpu.arg()]);
        self.leave_scheduling(thread);
        // What it did to mappings is done before it can go on.
        self.k.machine.complete();
        if self.runs_here(thread) {
            tcb.left.set(self.id.index() as u16);
        }
        tcb.arrival.set(arrival);
        tcb.set_home(cpu);
    }

    /// Second half: it is that of `cpu`.
    #[inline]
    fn post(&self, thread: TcbRef, cpu: CpuId) {
        let tcb = self.k.tcb(thread);
        let arrival = tcb.arrival.get();
        self.k.cpus[cpu.index()].mailbox.post(self.k.tcbs, thread);
        // Whoever is queued on it either is seen here, or sees it there (`Self::look_for_silent_arrivals`).
        fence_after_change();
        if cpu == self.id {
            self.cpu.attention.demand_of_oneself();
        } else if arrival != Arrival::Receive || self.must_hurry(thread) || tcb.affinity() != cpu {
            self.tell(cpu);
        }
    }

    /// `thread`, which nobody has, goes on with its receive phase where it runs.
    #[cold]
    #[inline(never)]
    pub(super) fn post_to_receive(&self, thread: TcbRef) {
        let there = self.k.tcb(thread).affinity();
        self.k.tcb(thread).set_home(there);
        self.post(thread, there);
    }

    /// Whether the receive phase for which `thread` was just posted must begin at once. One that waits for ever, and has
    /// nobody queued, can begin as late as with the next one who comes there: the processor need not be told. It looks into
    /// its mailbox itself before it lets somebody queue on a thread that is away, or after.
    fn must_hurry(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        // A partner to whom it has just sent exists; whether another one does is not known here.
        let from = tcb.then_from.get();
        let waits = match tcb.purpose.get() {
            Purpose::User => tcb.then_timeout.get().is_never() && (from == ThreadId::ANY || from == tcb.destination()),
            // Of a page fault in the middle of a string the timeout of the string goes on.
            _ => tcb.outer_peer.get().is_none() || tcb.transfer.deadline.get() == u64::MAX,
        };
        !waits || tcb.send_queue.get().is_some()
    }

    /// Somebody was queued on a thread of this processor that is away, and may have been posted back meanwhile without a
    /// word.
    fn look_for_silent_arrivals(&self) {
        fence(Ordering::SeqCst);
        if !self.cpu.mailbox.is_empty() {
            self.cpu.attention.demand_of_oneself();
        }
    }

    /// Nothing of this processor's scheduling refers to `thread` any more. Time is never charged to a thread elsewhere.
    #[inline]
    fn leave_scheduling(&self, thread: TcbRef) {
        if self.cpu.current.is(Current::running(thread)) {
            // It is in no queue. It may be on its way back before this processor looks again.
            self.cpu.current.set(Current::IDLE);
            self.cpu.must_choose.set(true);
        } else {
            self.dequeue(thread);
        }
        if self.cpu.delaying.get() == Some(thread) {
            self.stop_delay();
        }
        if self.cpu.slice_owner.get() == Some(thread) {
            self.charge();
            self.cpu.slice_owner.set(None);
            self.cpu.must_choose.set(true);
        }
    }

    /// Receives threads that were posted to this processor, a bounded number.
    pub(super) fn receive_arrivals(&mut self) {
        for _ in 0..ARRIVALS_PER_STEP {
            let Some(thread) = self.cpu.mailbox.take(self.k.tcbs) else { return };
            self.arrive(thread);
        }
    }

    /// Receives all threads that were posted to this processor before now.
    #[inline]
    pub(super) fn receive_posted(&mut self) {
        if !self.cpu.mailbox.is_empty() {
            self.receive_those_posted();
        }
    }

    #[inline(never)]
    fn receive_those_posted(&mut self) {
        let Some(last) = self.cpu.mailbox.last(self.k.tcbs) else { return };
        while let Some(thread) = self.cpu.mailbox.take(self.k.tcbs) {
            self.arrive(thread);
            if thread == last {
                return;
            }
        }
    }

    pub(super) fn arrive(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        debug_assert!(tcb.is_on_its_way_to(self.id), "a thread is posted to its home");
        self.cpu.is_receiving.set(true);
        match tcb.arrival.replace(Arrival::None) {
            Arrival::None => unreachable!("a thread on its way goes on with something"),
            Arrival::Ready => self.make_ready(thread),
            Arrival::Send => match self.deliver_words(thread) {
                Some(receipt) => self.complete_receipt(receipt),
                None => self.resume_send_phase(thread),
            },
            Arrival::Receive => self.resume_receive_phase(thread),
            Arrival::Transfer => self.resume_transfer(thread),
            Arrival::Cut => self.end_cut_elsewhere(thread),
            Arrival::VirtualSender => self.meet_virtual_sender(thread),
            Arrival::Moved => self.settle(thread),
        }
        self.cpu.is_receiving.set(false);
    }

    // --- moves ---

    /// Lets `thread`, as long as its id is `id`, run at processor `cpu` from now on (X.2, Schedule, processor control).
    /// What it is in the middle of with a partner, or as the running thread of a processor, it ends before it goes.
    pub(crate) fn move_thread(&mut self, thread: TcbRef, id: l4_abi::ThreadId, cpu: CpuId) {
        let tcb = self.k.tcb(thread);
        while tcb.id.get() == id && tcb.affinity() != cpu {
            match self.ask(tcb.affinity(), Subject::Move, question(id, [thread.index(), cpu.index()])) {
                Reply::Done(_) | Reply::Gone => return,
                _ => self.wait_a_moment(),
            }
        }
    }

    /// The act, at the processor where the thread runs.
    pub(crate) fn move_here(&mut self, question: Words) -> Reply {
        let (thread, cpu) = (TcbRef::new(question[0] as u32), CpuId::new(question[1] as u32));
        if !self.runs_here(thread) {
            return Reply::Moved;
        }
        if cpu == self.id {
            return Reply::Done(question);
        }
        // Those who are queued on a thread that comes back to them could not be told from those who are not.
        if self.k.cpus[cpu.index()].orphans.get().is_some() {
            return Reply::Moved;
        }
        self.trace(Event::ThreadMigrate, |k| [k.id_of(thread).arg(), self.id.arg(), cpu.arg()]);
        self.leave_affinity(thread, cpu);
        let tcb = self.k.tcb(thread);
        // The running one goes when its kernel entry is over: `Self::choose` sees to that.
        let is_occupied = self.running() == Some(thread) || self.is_asking(thread) || self.is_with_partner(thread);
        if self.is_here(thread) && !is_occupied {
            self.pack(thread);
            self.set_off(thread, cpu, Arrival::Moved);
            // Who finds that it runs there finds that it is coming.
            tcb.set_affinity(cpu);
            self.post(thread, cpu);
        } else {
            tcb.set_affinity(cpu);
            self.send_on(thread);
        }
        Reply::Done(question)
    }

    /// `thread`, which does not run here any more and was not free to go, may have been handed back meanwhile by somebody
    /// who did not see that.
    fn send_on(&mut self, thread: TcbRef) {
        fence(Ordering::SeqCst);
        while self.k.tcb(thread).is_on_its_way_to(self.id) {
            self.receive_posted();
            self.k.machine.relax();
        }
        if self.is_here(thread) && self.k.tcb(thread).status() == Status::Waiting {
            self.depart(thread);
        }
    }

    /// `thread` will run at `cpu`, and no more here: who is queued on it follows.
    fn leave_affinity(&self, thread: TcbRef, cpu: CpuId) {
        let tcb = self.k.tcb(thread);
        self.k.machine.let_go(thread);
        if tcb.is_active() && tcb.utcb.get() != 0 {
            self.k.utcb(thread).set_processor_no(cpu.index() as l4_abi::Word);
        }
        self.look_for_silent_arrivals();
        self.orphans().append(&self.send_queue(thread));
        tcb.propagated_senders.set(0);
        self.k.machine.route_line(thread, cpu);
    }

    /// Whether `thread`, which is at home here, has to stay until it is done with its partner.
    fn is_with_partner(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        match tcb.status() {
            Status::PendingSend | Status::Sending | Status::Receiving => true,
            Status::Running => tcb.work() == Work::Transfer,
            Status::Waiting | Status::Inactive => false,
        }
    }

    /// `thread`, which is at home here without partner, goes to where it runs.
    pub(crate) fn depart(&self, thread: TcbRef) {
        debug_assert!(!self.is_with_partner(thread));
        self.pack(thread);
        self.travel(thread, self.k.tcb(thread).affinity(), Arrival::Moved);
    }

    /// Puts what goes on elsewhere into the TCB of `thread`.
    fn pack(&self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        tcb.make_wait_ordinary(self.k.machine.ipc_return_ip());
        if !tcb.timeout_link.is_linked() {
            tcb.deadline.set(u64::MAX);
        }
        self.cpu.timeouts.cancel(self.k.tcbs, thread);
    }

    /// Sends a few of those who were queued on moved threads after them. For the dispatcher, again and again.
    pub(super) fn release_orphans(&mut self) {
        for _ in 0..ARRIVALS_PER_STEP {
            let Some(thread) = self.orphans().first() else { return };
            let dest = self.k.tcb(thread).peer.get().expect("a blocked sender is queued on its partner");
            self.leave_send_queue(thread);
            self.travel(thread, self.k.tcb(dest).affinity(), Arrival::Send);
        }
    }

    /// Whether a thread of some processor is still queued on one that was moved away. Who was queued on a thread that is
    /// dead now is not forgotten by then: its slot must stay.
    pub(crate) fn are_there_orphans(&self) -> bool {
        self.k.cpus.iter().any(|cpu| cpu.orphans.get().is_some())
    }

    /// `thread` was moved here, in the state it was in; its wait goes on until its deadline.
    fn settle(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        if !self.runs_here(thread) {
            // It was moved on meanwhile.
            return self.travel(thread, tcb.affinity(), Arrival::Moved);
        }
        if tcb.purpose.get() == Purpose::Interrupt {
            return self.settle_line(thread);
        }
        if tcb.status() == Status::Waiting && tcb.deadline.get() != u64::MAX {
            self.cpu.timeouts.start(self.k.tcbs, thread, tcb.deadline.get());
        }
        if self.is_runnable(thread) {
            self.enqueue(thread);
        }
    }
}

impl Tcb {
    /// Notes how the transfer ends, elsewhere: in the place of what is not needed any more.
    pub(crate) fn set_cut(&self, cut: Cut) {
        self.transfer.buffer.set(cut.sender.raw());
        self.transfer.buffer_part.set(cut.receiver.raw());
    }

    /// How the transfer ends.
    pub(crate) fn cut(&self) -> Cut {
        let kind = |raw| IpcErrorKind::from_raw(raw).expect("a cut is two numbers of errors");
        Cut { sender: kind(self.transfer.buffer.get()), receiver: kind(self.transfer.buffer_part.get()) }
    }
}
