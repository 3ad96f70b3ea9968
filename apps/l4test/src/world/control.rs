//! Calls of ThreadControl by their parameters, most of which a test does not care for.

use core::fmt::Display;

use l4::{SysError, ThreadId, Word, thread, utcb};

use super::threads::supervisor;
use crate::failure::{Outcome, equal};

/// What no call leaves in ErrorCode.
pub const MARK: Word = 0x5A5A;

/// The parameters of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    dest: ThreadId,
    space: ThreadId,
    scheduler: ThreadId,
    pager: ThreadId,
    utcb: Option<Word>,
}

impl Control {
    /// Makes an inactive thread in the program's space.
    pub fn create(dest: ThreadId) -> Self {
        Self { dest, space: supervisor(), scheduler: supervisor(), pager: ThreadId::NIL, utcb: None }
    }

    /// Changes nothing of a thread.
    pub fn modify(dest: ThreadId) -> Self {
        Self { dest, space: dest, scheduler: ThreadId::NIL, pager: ThreadId::NIL, utcb: None }
    }

    /// Deletes a thread.
    pub fn delete(dest: ThreadId) -> Self {
        Self { space: ThreadId::NIL, ..Self::modify(dest) }
    }

    /// In the space of this thread.
    pub fn space(self, space: ThreadId) -> Self {
        Self { space, ..self }
    }

    /// With this scheduler.
    pub fn scheduler(self, scheduler: ThreadId) -> Self {
        Self { scheduler, ..self }
    }

    /// With this pager.
    pub fn pager(self, pager: ThreadId) -> Self {
        Self { pager, ..self }
    }

    /// With its UTCB at this address.
    pub fn utcb(self, location: Word) -> Self {
        Self { utcb: Some(location), ..self }
    }

    /// Does it.
    pub fn call(self) -> Result<(), SysError> {
        thread::thread_control(self.dest, self.space, self.scheduler, self.pager, self.utcb)
    }

    /// Fails unless the call is refused with this error; `what` says what is wrong with it.
    #[track_caller]
    pub fn refused(self, what: impl Display, error: SysError) -> Outcome {
        utcb().set_error_code(MARK);
        equal(what, self.call(), Err(error))?;
        equal("ErrorCode", utcb().error_code(), error.raw().into())
    }
}
