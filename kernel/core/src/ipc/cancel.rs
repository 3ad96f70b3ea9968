//! The end of an IPC from outside (X.2, Cancel and unwinding): timeouts, ExchangeRegisters, deletion.

use l4_abi::{IpcErrorKind, MsgTag, Phase, Word};

use super::without_result_flags;
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::thread::{Purpose, Status, Work};

/// Why an IPC ends before it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its timeout is over.
    Timeout,
    /// Another thread cancelled it.
    Canceled,
}

impl<M: Machine> Here<'_, M> {
    /// The timeout of `thread` is over; it is off the wheel.
    pub(crate) fn timeout_fired(&mut self, thread: TcbRef) {
        self.unwind(thread, Reason::Timeout);
    }

    /// Whether `thread` is in its send phase: blocked, or in the transfer.
    pub(crate) fn is_sending(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        match tcb.status() {
            Status::PendingSend | Status::Sending => true,
            Status::Running => tcb.work.get() == Work::Transfer && tcb.carries_as_sender.get(),
            _ => false,
        }
    }

    /// Whether `thread` is in its receive phase: blocked, in the transfer, or about to find a queued sender.
    pub(crate) fn is_receiving(&self, thread: TcbRef) -> bool {
        let tcb = self.k.tcb(thread);
        match tcb.status() {
            Status::Waiting | Status::Receiving => true,
            Status::Running => match tcb.work.get() {
                Work::Transfer => !tcb.carries_as_sender.get(),
                Work::ReceivePhase => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// Takes `thread` out of the IPC it is in; it becomes ready. A thread in none is left alone.
    pub(crate) fn unwind(&mut self, thread: TcbRef, reason: Reason) {
        let kind = match reason {
            Reason::Timeout => IpcErrorKind::Timeout,
            Reason::Canceled => IpcErrorKind::Canceled,
        };
        let tcb = self.k.tcb(thread);
        match tcb.status() {
            Status::PendingSend => {
                self.leave_send_queue(thread);
                let tag = self.own_tag_with_error(thread);
                self.fail(thread, Phase::Send, kind, tag);
            }
            Status::Waiting => {
                self.cpu.timeouts.cancel(self.k.tcbs, thread);
                tcb.make_wait_ordinary();
                self.fail(thread, Phase::Receive, kind, MsgTag::ERROR_ONLY);
            }
            Status::Sending | Status::Receiving => {
                let carrier = tcb.peer.get().expect("a transfer has two sides");
                self.abort_transfer(carrier);
            }
            Status::Running if tcb.work.get() == Work::Transfer => self.abort_transfer(thread),
            Status::Running if tcb.work.get() == Work::ReceivePhase => {
                tcb.work.set(Work::None);
                self.dequeue(thread);
                self.fail(thread, Phase::Receive, kind, MsgTag::ERROR_ONLY);
            }
            Status::Running | Status::Inactive => {}
        }
    }

    /// Cuts off the transfer that `carrier` carries out: both sides see "aborted".
    fn abort_transfer(&mut self, carrier: TcbRef) {
        let (sender, receiver) = self.transfer_pair(carrier);
        let tcb = self.k.tcb(carrier);
        tcb.work.set(Work::None);
        self.dequeue(carrier);
        let tag = MsgTag::from_raw(tcb.tag.get() as Word);
        self.end_transfer(sender, receiver, tag, Some(IpcErrorKind::Aborted));
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
