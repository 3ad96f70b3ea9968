//! The end of an IPC from outside (X.2, Cancel and unwinding): timeouts, ExchangeRegisters, deletion.

use l4_abi::{IpcError, IpcErrorKind, MsgTag, Phase, Word};

use super::transfer::Cut;
use super::without_result_flags;
use crate::cross::ask::{Reply, Words};
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::thread::{Arrival, Purpose, Status, Work};
use crate::trace::{Arg, Event};

/// Why an IPC ends before it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its timeout is over.
    Timeout,
    /// Another thread cancelled it.
    Canceled,
}

impl Reason {
    fn kind(self) -> IpcErrorKind {
        match self {
            Self::Timeout => IpcErrorKind::Timeout,
            Self::Canceled => IpcErrorKind::Canceled,
        }
    }
}

impl<M: Machine> Here<'_, M> {
    /// The timeout of `thread` is over; it is off the wheel.
    pub(crate) fn timeout_fired(&mut self, thread: TcbRef) {
        self.trace(Event::ScheduleWakeupTimeout, |k| [k.id_of(thread).arg()]);
        if self.k.tcb(thread).outer_peer.get().is_some() {
            self.cut_nested(thread, self.expired(thread));
        } else {
            self.unwind(thread, Reason::Timeout);
        }
    }

    /// The thread that faulted in the middle of the string that `thread` sends or receives.
    fn faulting_carrier(&self, thread: TcbRef) -> Option<TcbRef> {
        let tcb = self.k.tcb(thread);
        if tcb.outer_peer.get().is_some() {
            return Some(thread);
        }
        let is_coupled = matches!(tcb.status(), Status::Sending | Status::Receiving);
        tcb.peer.get().filter(|&peer| is_coupled && self.k.tcb(peer).outer_peer.get() == Some(thread))
    }

    /// Whether the partner of `thread` in a transfer is at home elsewhere, because of a page fault. It has to come back
    /// before `thread` can leave the transfer.
    fn has_partner_elsewhere(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        let is_coupled = matches!(tcb.status(), Status::Sending | Status::Receiving);
        is_coupled && tcb.peer.get().is_some_and(|peer| !self.is_here(peer))
    }

    /// Ends the IPC of `thread` as [`Self::unwind`] does. If its partner is elsewhere, it is over all the same, but `thread`
    /// can leave it only when that comes back; then it is `false`, and the asker has to [see it off](Self::see_off).
    pub(crate) fn end_ipc(&mut self, thread: TcbRef, reason: Reason) -> bool {
        let is_out = !self.has_partner_elsewhere(thread);
        if is_out {
            self.unwind(thread, reason);
        } else {
            self.trace_unwind(Event::IpcXcpuUnwind, thread, reason);
            self.k.tcb(thread).is_leaving.set(true);
        }
        is_out
    }

    /// Lets a thread that is in a page fault in the middle of the string that it exchanges with another one leave the
    /// transfer, if the other one is leaving it. What they may exchange afterwards is left alone.
    pub(crate) fn unwind_here(&mut self, question: Words) -> Reply {
        let [thread, partner] = [question[0], question[1]].map(|index| TcbRef::new(index as u32));
        let is_in_it = self.is_here(thread) && self.k.tcb(thread).outer_peer.get() == Some(partner);
        if is_in_it && self.k.tcb(partner).is_leaving.get() {
            self.cut_nested(thread, Cut::both(IpcErrorKind::Aborted));
        }
        Reply::Done(question)
    }

    /// Whether `thread` is in its send phase: blocked, or in the transfer and not leaving it.
    pub(crate) fn is_sending(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        if tcb.outer_peer.get().is_some() {
            return tcb.transfer.as_sender.get();
        }
        match tcb.status() {
            Status::PendingSend => true,
            Status::Sending => !tcb.is_leaving.get(),
            Status::Running => match tcb.work.get() {
                Work::Transfer => tcb.transfer.as_sender.get(),
                Work::SendPhase => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether `thread` is in its receive phase: blocked, in the transfer and not leaving it, or about to find a queued
    /// sender.
    pub(crate) fn is_receiving(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        if tcb.outer_peer.get().is_some() {
            return !tcb.transfer.as_sender.get();
        }
        match tcb.status() {
            Status::Waiting => true,
            Status::Receiving => !tcb.is_leaving.get(),
            Status::Running => match tcb.work.get() {
                Work::Transfer => !tcb.transfer.as_sender.get(),
                Work::ReceivePhase => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// Takes `thread`, whose partner is here if it has one in a transfer, out of the IPC it is in; it becomes ready, where it
    /// runs. A thread in none is left alone.
    pub(crate) fn unwind(&mut self, thread: TcbRef, reason: Reason) {
        debug_assert!(self.is_here(thread) && !self.has_partner_elsewhere(thread));
        self.trace_unwind(Event::IpcUnwind, thread, reason);
        let kind = reason.kind();
        if let Some(faulting) = self.faulting_carrier(thread) {
            return self.cut_nested(faulting, Cut::both(IpcErrorKind::Aborted));
        }
        let tcb = self.k.tcb(thread);
        match tcb.status() {
            Status::PendingSend => {
                self.leave_send_queue(thread);
                let tag = self.own_tag_with_error(thread);
                self.fail(thread, Phase::Send, kind, tag);
            }
            Status::Waiting => {
                self.cpu.timeouts.cancel(self.k.tcbs, thread);
                tcb.make_wait_ordinary(self.k.machine.ipc_return_ip());
                self.fail(thread, Phase::Receive, kind, MsgTag::ERROR_ONLY);
            }
            Status::Sending | Status::Receiving => {
                let carrier = tcb.peer.get().expect("a transfer has two sides");
                self.cut_off(carrier, Cut::both(IpcErrorKind::Aborted));
            }
            Status::Running if tcb.work.get() == Work::Transfer => {
                self.cut_off(thread, Cut::both(IpcErrorKind::Aborted));
            }
            Status::Running if tcb.work.get() == Work::ReceivePhase => {
                tcb.work.set(Work::None);
                self.dequeue(thread);
                self.fail(thread, Phase::Receive, kind, MsgTag::ERROR_ONLY);
            }
            Status::Running if tcb.work.get() == Work::SendPhase => {
                tcb.work.set(Work::None);
                self.dequeue(thread);
                let tag = self.own_tag_with_error(thread);
                self.fail(thread, Phase::Send, kind, tag);
            }
            Status::Running | Status::Inactive => {}
        }
    }

    /// Traces that the IPC of `thread` ends, if it is in one.
    #[inline(always)]
    fn trace_unwind(&self, event: Event, thread: TcbRef, reason: Reason) {
        if !self.k.machine.traces(event.bit()) {
            return;
        }
        let phase = match (self.is_sending(thread), self.is_receiving(thread)) {
            (true, _) => Phase::Send,
            (_, true) => Phase::Receive,
            _ => return,
        };
        let error = IpcError { phase, kind: reason.kind(), offset: 0 };
        self.trace(event, |k| [k.id_of(thread).arg(), k.tcb(thread).partner.get().arg(), error.raw() as u64]);
    }

    /// `carrier` has come here to end its transfer.
    pub(crate) fn end_cut_elsewhere(&mut self, carrier: TcbRef) {
        self.cut_off(carrier, self.k.tcb(carrier).cut());
    }

    /// Cuts off the transfer that `carrier` carries out: where its partner is.
    pub(super) fn cut_off(&mut self, carrier: TcbRef, cut: Cut) {
        let (sender, receiver) = self.transfer_pair(carrier);
        let partner = if carrier == sender { receiver } else { sender };
        if !self.is_here(partner) {
            self.k.tcb(carrier).set_cut(cut);
            return self.travel(carrier, self.k.tcb(partner).home(), Arrival::Cut);
        }
        let tcb = self.k.tcb(carrier);
        tcb.work.set(Work::None);
        self.dequeue(carrier);
        let tag = MsgTag::from_raw(tcb.transfer.tag.get() as Word);
        self.end_cut_off(sender, receiver, tag, cut, tcb.transfer.bytes.get() as Word);
    }

    fn own_tag_with_error(&self, thread: TcbRef) -> MsgTag {
        let tag = match self.k.tcb(thread).purpose.get() {
            Purpose::User => without_result_flags(self.k.utcb(thread).tag()),
            _ => MsgTag::from_raw(0),
        };
        tag.with_flags(MsgTag::ERROR)
    }

    /// Ends the send phase of one thread queued on `dying`, which is being deleted; `false` when none is left.
    pub(crate) fn fail_one_sender(&mut self, dying: TcbRef) -> bool {
        let Some(sender) = self.send_queue(dying).first() else { return false };
        self.leave_send_queue(sender);
        let tag = self.own_tag_with_error(sender);
        self.fail(sender, Phase::Send, IpcErrorKind::NonExisting, tag);
        true
    }
}
