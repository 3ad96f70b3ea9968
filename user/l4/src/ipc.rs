//! Sending and receiving (X.2, IPC).
//!
//! The message is in the message registers, before and after: [`crate::message::Msg`] builds and reads it.
//! These functions are safe because what may be received besides words is set up by [`crate::message::accept`], and that
//! is not.

use l4_abi::{IpcError, IpcErrorKind, MsgTag, Phase, ThreadId, Time, Timeouts};

use crate::{arch, utcb};

/// What an IPC came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The sender, if there was a receive phase: its local id if it is in our space, else its global id.
    pub from: ThreadId,
    /// The tag: of the received message, or with the error flag.
    #[doc(alias = "L4_MsgTag")]
    pub tag: MsgTag,
}

impl Outcome {
    /// The outcome, or the error that the tag announces.
    #[doc(alias = "L4_IpcSucceeded")]
    #[doc(alias = "L4_IpcFailed")]
    pub fn result(self) -> Result<Self, IpcError> {
        if self.tag.is_error() { Err(last_error()) } else { Ok(self) }
    }
}

/// Why the last IPC of this thread failed.
fn last_error() -> IpcError {
    // A kernel that gives no reason has not let us through, which is what canceled says.
    IpcError::from_raw(utcb().error_code()).unwrap_or(IpcError::new(Phase::Send, IpcErrorKind::Canceled))
}

/// Sends to `to` unless nilthread, then receives from `from` unless nilthread.
#[doc(alias = "L4_Ipc")]
pub fn ipc(to: ThreadId, from: ThreadId, timeouts: Timeouts) -> Outcome {
    // SAFETY: whoever set acceptor and buffers promised that their memory is free to be overwritten.
    let (from, tag) = unsafe { arch::ipc(to, from, timeouts) };
    Outcome { from, tag }
}

/// [`ipc`] for partners in the same space, on the same processor.
#[doc(alias = "L4_Lipc")]
pub fn lipc(to: ThreadId, from: ThreadId, timeouts: Timeouts) -> Outcome {
    // SAFETY: whoever set acceptor and buffers promised that their memory is free to be overwritten.
    let (from, tag) = unsafe { arch::lipc(to, from, timeouts) };
    Outcome { from, tag }
}

/// Sends to a thread and waits for its answer.
#[doc(alias = "L4_Call")]
pub fn call(to: ThreadId) -> Result<Outcome, IpcError> {
    ipc(to, to, Timeouts::NEVER).result()
}

/// [`call`] with timeouts.
#[doc(alias = "L4_Call_Timeouts")]
pub fn call_timeouts(to: ThreadId, timeouts: Timeouts) -> Result<Outcome, IpcError> {
    ipc(to, to, timeouts).result()
}

/// Sends.
#[doc(alias = "L4_Send")]
pub fn send(to: ThreadId) -> Result<Outcome, IpcError> {
    send_timeout(to, Time::NEVER)
}

/// [`send`] with a timeout.
#[doc(alias = "L4_Send_Timeout")]
pub fn send_timeout(to: ThreadId, snd: Time) -> Result<Outcome, IpcError> {
    ipc(to, ThreadId::NIL, Timeouts::new(snd, Time::NEVER)).result()
}

/// Sends to a thread that is waiting for it.
#[doc(alias = "L4_Reply")]
pub fn reply(to: ThreadId) -> Result<Outcome, IpcError> {
    send_timeout(to, Time::ZERO)
}

/// Receives from one thread.
#[doc(alias = "L4_Receive")]
pub fn receive(from: ThreadId) -> Result<Outcome, IpcError> {
    receive_timeout(from, Time::NEVER)
}

/// [`receive`] with a timeout.
#[doc(alias = "L4_Receive_Timeout")]
pub fn receive_timeout(from: ThreadId, rcv: Time) -> Result<Outcome, IpcError> {
    ipc(ThreadId::NIL, from, Timeouts::new(Time::NEVER, rcv)).result()
}

/// Receives from anybody.
#[doc(alias = "L4_Wait")]
#[doc(alias = "L4_Wait_Timeout")]
pub fn wait() -> Result<Outcome, IpcError> {
    receive(ThreadId::ANY)
}

/// Replies to a thread that waits for it, then receives from anybody. After an error of the send phase nothing has been
/// received.
#[doc(alias = "L4_ReplyWait")]
pub fn reply_wait(to: ThreadId) -> Result<Outcome, IpcError> {
    ipc(to, ThreadId::ANY, Timeouts::new(Time::ZERO, Time::NEVER)).result()
}

/// [`call`] to a thread of the same space.
#[doc(alias = "L4_Lcall")]
pub fn lcall(to: ThreadId) -> Result<Outcome, IpcError> {
    lipc(to, to, Timeouts::NEVER).result()
}

/// [`reply_wait`] for threads of the same space.
#[doc(alias = "L4_LreplyWait")]
pub fn lreply_wait(to: ThreadId) -> Result<Outcome, IpcError> {
    lipc(to, ThreadId::ANY_LOCAL, Timeouts::new(Time::ZERO, Time::NEVER)).result()
}

/// Calls a thread `rounds` times with `untyped` undefined words and looks at no answer: the loop that a benchmark times.
pub fn call_rounds(partner: ThreadId, untyped: usize, rounds: u64) {
    // SAFETY: whoever set acceptor and buffers promised that their memory is free to be overwritten.
    unsafe { arch::ipc_rounds(partner, MsgTag::new(0, untyped, 0), rounds) }
}

/// [`call_rounds`] to a thread of the same space.
pub fn lcall_rounds(partner: ThreadId, untyped: usize, rounds: u64) {
    // SAFETY: whoever set acceptor and buffers promised that their memory is free to be overwritten.
    unsafe { arch::lipc_rounds(partner, MsgTag::new(0, untyped, 0), rounds) }
}
