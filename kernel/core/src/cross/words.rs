//! The short way of a message between processors: untyped words to a thread that waits.
//!
//! The sender travels as for any message ([`super::travel`]). If it meets a receiver that waits for it, and the message is
//! one of untyped words in the sender's own name, all that is left to do is done here at once: the words are copied, the
//! receiver is ready, and the sender is back in its receive phase. Anything else takes the phases of [`crate::ipc`], one by
//! one, with the same result.
//!
//! A wait without timeout has no trace at the processor where the thread runs but in its TCB. So the sender need not be
//! posted back: it is *handed back*, by the words that say where it is at home. That must not pass unnoticed by those who
//! began to wait for it there meanwhile, or moved it. Both sides write first and look then: who hands back says that the
//! thread is coming, and looks whether somebody is queued on it or it runs elsewhere; who has queued somebody or moved it
//! looks whether it is coming. So at least one of them sees the other.

use core::ops::Range;

use l4_abi::{MR_COUNT, MsgTag, ThreadId, Time, Timeouts, Utcb, Word};

use crate::ipc::{NEVER, RECEIVES};
use crate::kernel::Here;
use crate::machine::{CpuId, Machine, TcbRef};
use crate::sched::Current;
use crate::sync::{Ordering, fence};
use crate::thread::{Arrival, Purpose, Status, Tcb, Work, plain_name};
use crate::trace::{Arg, Event};

/// What a tag has for typed words, and for a message in another's name.
const NOT_JUST_WORDS: Word = MsgTag::new(0, 0, 63).raw() | MsgTag::PROPAGATED;

/// A thread that has a message, and is to know from whom.
pub(super) struct Receipt<'h> {
    thread: TcbRef,
    tcb: &'h Tcb,
    from: ThreadId,
}

/// A thread that has a message and runs where nobody ran.
pub struct Woken<'h> {
    /// The thread.
    pub thread: TcbRef,
    /// Its TCB.
    pub tcb: &'h Tcb,
    /// Whom the message is from, as [`Machine::ipc_return`] must tell it.
    pub from: ThreadId,
    /// When its time is over, microseconds on the clock; all ones: never.
    pub end: u64,
}

/// Copies so many words behind the tag. Of the few that most messages have, each is at a place that the code knows: a loop takes
/// five instructions a word, this two, and some to find out how many there are. The last comes first, so that all numbers of
/// words end alike.
#[inline(always)]
fn copy_untyped(source: &Utcb, dest: &Utcb, count: usize) {
    let (from, to) = (source.mrs(), dest.mrs());
    let copy = |words: Range<usize>| {
        for index in words.rev() {
            to[index].store(from[index].load(Ordering::Relaxed), Ordering::Relaxed);
        }
    };
    match count {
        0 => {}
        1 => copy(1..2),
        2 => copy(1..3),
        3 => copy(1..4),
        4 => copy(1..5),
        5 => copy(1..6),
        6 => copy(1..7),
        7 => copy(1..8),
        _ => copy(1..MR_COUNT.min(count + 1)),
    }
}

impl<'h, M: Machine> Here<'h, M> {
    /// The call of Ipc of the running thread `caller`, whose send phase goes to the thread `receiver` of another processor,
    /// which has the global id `to`: unless the send phase has a timeout or something is in the way, it sets off. `false`:
    /// nothing has happened. After that the dispatcher decides.
    #[inline(always)]
    pub fn send_away(
        &self,
        caller: TcbRef,
        (receiver, to): (TcbRef, ThreadId),
        from: ThreadId,
        timeouts: Timeouts,
    ) -> bool {
        let (dest, tcb) = (self.k.tcb(receiver), self.k.tcb(caller));
        let there = dest.affinity();
        // Who sends to nobody does not leave; nilthread is found in the slot of an interrupt that nobody has.
        if dest.id.get() != to || to.is_nil() {
            return false;
        }
        if there == self.id || !timeouts.snd().is_never() || !self.may_set_off(tcb) {
            return false;
        }
        self.trace(Event::IpcXcpuDetails, |_| [tcb.id.get().arg(), self.id.arg(), there.arg()]);
        tcb.purpose.set(Purpose::User);
        tcb.user_intended.set(ThreadId::NIL);
        tcb.then_from.set(from);
        tcb.then_timeout.set(timeouts.rcv());
        tcb.transfer.tag.set(to.raw() as usize);
        tcb.deadline.set(NEVER);
        tcb.status.set(Status::PendingSend);
        if self.cpu.slice_owner.is(Some(caller)) {
            self.stop_paying(tcb);
        }
        self.cpu.current.set(Current::IDLE);
        self.cpu.must_choose.set(true);
        tcb.left.set(self.id.index() as u16);
        tcb.arrival.set(Arrival::Send);
        tcb.set_home(there);
        self.k.cpus[there.index()].mailbox.post_as((caller, tcb));
        self.tell(there);
        true
    }

    /// Whether nothing keeps the running thread of `tcb` here.
    #[inline(always)]
    fn may_set_off(&self, tcb: &Tcb) -> bool {
        // A redirector may be one that is not there: then nobody leaves.
        let is_redirected = self.k.spaces.get(tcb.space()).bars_fast_path();
        self.cpu.attention.is_quiet()
            && self.cpu.delaying.get().is_none()
            && tcb.affinity() == self.id
            && !is_redirected
    }

    /// What others want of a processor where nobody runs, if that is only that a thread gets words from another one: then it
    /// runs. In any other case there may be more to do, or nothing. For the dispatcher.
    #[inline(always)]
    pub fn receive_at_rest(&mut self) -> Option<Woken<'h>> {
        let (cpu, k) = (self.cpu, self.k);
        cpu.attention.give();
        if !cpu.questions.is_empty() || cpu.raised.is_any() {
            cpu.attention.demand_of_oneself();
            return None;
        }
        let sender = cpu.mailbox.take(k.tcbs)?;
        if !cpu.mailbox.is_empty() {
            cpu.attention.demand_of_oneself();
        }
        let tcb = k.tcb(sender);
        if tcb.arrival.is(Arrival::Send)
            && let Some(receipt) = self.deliver_words_at_once(sender, tcb)
        {
            return self.run_at_once(receipt);
        }
        self.arrive(sender);
        None
    }

    /// The receiver, which is ready, runs; `None` if that is to be decided.
    #[inline(always)]
    fn run_at_once(&self, receipt: Receipt<'h>) -> Option<Woken<'h>> {
        let Receipt { thread, tcb, from } = receipt;
        if tcb.is_halted() || tcb.owes_message() {
            self.complete_receipt(receipt);
            return None;
        }
        Some(Woken { thread, tcb, from, end: self.begin_to_run(thread, tcb) })
    }

    /// Makes the receiver ready.
    #[inline(never)]
    pub(super) fn complete_receipt(&self, receipt: Receipt<'_>) {
        let Receipt { thread, tcb, from } = receipt;
        self.k.machine.ipc_return(thread, tcb, from);
        self.make_ready(thread);
    }

    /// Gives the message of `sender`, which has come here for its send phase, to a receiver that waits for it, if both the
    /// message and what comes then are simple: the receiver has it, and is to be made ready. Else nothing has happened.
    #[inline(never)]
    pub(super) fn deliver_words(&self, sender: TcbRef) -> Option<Receipt<'h>> {
        self.deliver_words_at_once(sender, self.k.tcb(sender))
    }

    #[inline(always)]
    fn deliver_words_at_once(&self, sender: TcbRef, from: &Tcb) -> Option<Receipt<'h>> {
        if !from.purpose.is(Purpose::User) || !from.work.is(Work::None) || !from.then_timeout.is(Time::NEVER) {
            return None;
        }
        let to = ThreadId::from_raw(from.transfer.tag.get() as Word);
        let (receiver, dest) = self.k.thread_and_tcb(to)?;
        let utcb = from.utcb_in(self.k.machine);
        let tag = utcb.tag();
        if tag.raw() & NOT_JUST_WORDS != 0 || !self.takes_words(dest, from) {
            return None;
        }
        let then_from = from.then_from.get();
        let is_local = from.space.get() == dest.space.get();
        if then_from != to && then_from != ThreadId::ANY && !(is_local && then_from == dest.local_id.get()) {
            return None;
        }
        self.copy_words(utcb, dest.utcb_in(self.k.machine), tag, from.affinity());
        self.end_wait(receiver, dest);
        self.trace(Event::IpcTransfer, |_| [from.id.get().arg(), to.arg(), tag.raw() as u64]);
        let receipt =
            Receipt { thread: receiver, tcb: dest, from: if is_local { from.local_id.get() } else { from.id.get() } };
        self.hand_back((sender, from), if then_from == ThreadId::ANY { then_from } else { to });
        Some(receipt)
    }

    /// Whether the thread of `dest` waits here for a message from that of `from`, which nobody redirects.
    #[inline(always)]
    fn takes_words(&self, dest: &Tcb, from: &Tcb) -> bool {
        if !dest.is_at(self.id) {
            return false;
        }
        let plain = dest.waits_for.get();
        let partner = if !plain.is_nil() {
            plain_name(plain, self.id)
        } else if dest.status.is(Status::Waiting) && dest.purpose.is(Purpose::User) {
            dest.partner.get()
        } else {
            return false;
        };
        (partner == from.id.get() || partner == ThreadId::ANY) && !self.k.spaces.get(from.space()).bars_fast_path()
    }

    /// Gives the receiver what the sender, which runs at `from`, has in its UTCB.
    #[inline(always)]
    fn copy_words(&self, source: &Utcb, dest: &Utcb, tag: MsgTag, from: CpuId) {
        copy_untyped(source, dest, tag.untyped());
        let flags = if from == self.id { 0 } else { MsgTag::XCPU };
        dest.set_tag(tag.without_flags(MsgTag::FLAGS).with_flags(flags));
    }

    /// The receiver waits no more.
    #[inline(always)]
    fn end_wait(&self, receiver: TcbRef, dest: &Tcb) {
        if dest.timeout_link.is_linked() {
            self.end_timeout(receiver);
        }
        if !dest.waits_for.get().is_nil() {
            self.end_plain_wait(dest);
        }
        dest.status.set(Status::Running);
    }

    #[cold]
    #[inline(never)]
    fn end_timeout(&self, thread: TcbRef) {
        self.cpu.timeouts.cancel(self.k.tcbs, thread);
    }

    #[inline(never)]
    fn end_plain_wait(&self, tcb: &Tcb) {
        tcb.make_wait_ordinary(self.k.machine.ipc_return_ip());
    }

    /// `thread`, whose message was delivered, waits for `from` where it runs, without timeout.
    #[inline(always)]
    fn hand_back(&self, (thread, tcb): (TcbRef, &Tcb), from: ThreadId) {
        let there = CpuId::new(tcb.left.get().into());
        self.trace(Event::IpcXcpuDetails, |_| [tcb.id.get().arg(), self.id.arg(), there.arg()]);
        self.trace_of(Event::IpcDetails, thread, |_| [from.arg(), RECEIVES, NEVER]);
        tcb.partner.set(from);
        tcb.deadline.set(NEVER);
        tcb.status.set(Status::Waiting);
        tcb.arrival.set(Arrival::Receive);
        tcb.set_home(there);
        super::pause_in_tests();
        fence(Ordering::SeqCst);
        if tcb.send_queue.get().is_some() || tcb.affinity() != there {
            tcb.status.set(Status::Running);
            return self.post_to_receive(thread);
        }
        super::pause_in_tests();
        tcb.arrive();
    }
}
