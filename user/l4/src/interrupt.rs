//! Interrupts for device drivers (X.2, Interrupt protocol).
//!
//! Interrupt `n` has the id [`ThreadId::interrupt`]`(n)`. The thread that
//! [`associate_interrupt`](crate::thread::associate_interrupt) names, its *handler*, gets a message from it and answers,
//! after which the next one can come. Nothing is in the messages. The device is served before the answer: one that still
//! asks for service afterwards interrupts again.

use l4_abi::{IpcError, MsgTag, ThreadId, Time, Timeouts};

use crate::{ipc, kip, utcb};

/// Number of interrupts of the machine, used or not.
pub fn count() -> usize {
    kip().thread_info.system_base() as usize
}

/// Whether `id` is that of an interrupt.
pub fn is_interrupt(id: ThreadId) -> bool {
    id.is_global() && !id.is_any() && (id.thread_no() as usize) < count()
}

/// Waits for an interrupt of which the calling thread is the handler.
///
/// # Errors
/// Those of the IPC: somebody canceled it.
pub fn receive(interrupt: ThreadId) -> Result<(), IpcError> {
    ipc::receive(interrupt).map(|_| ())
}

/// Answers a message of the interrupt, without waiting.
///
/// # Errors
/// Timeout in the send phase: there is no message to answer.
pub fn acknowledge(interrupt: ThreadId) -> Result<(), IpcError> {
    utcb().set_tag(MsgTag::NIL);
    ipc::reply(interrupt).map(|_| ())
}

/// Answers a message of the interrupt and waits for its next.
///
/// # Errors
/// As [`acknowledge`] and [`receive`].
pub fn acknowledge_receive(interrupt: ThreadId) -> Result<(), IpcError> {
    utcb().set_tag(MsgTag::NIL);
    ipc::ipc(interrupt, interrupt, Timeouts::new(Time::ZERO, Time::NEVER)).result().map(|_| ())
}

/// Answers a message of the interrupt and waits for anybody, an interrupt or not.
///
/// # Errors
/// As [`acknowledge`] and [`ipc::wait`].
pub fn acknowledge_wait(interrupt: ThreadId) -> Result<ipc::Outcome, IpcError> {
    utcb().set_tag(MsgTag::NIL);
    ipc::reply_wait(interrupt)
}
