//! Slots of threads that are being made or freed.
//!
//! A thread that does not exist has no home: whoever creates it, or frees the slot of a deleted one, claims the slot for
//! as long as that takes. A claim is taken with no lock held, and its holder waits for nobody but locks.

use crate::machine::TcbRef;
use crate::sync::{AtomicBool, Ordering, spin_loop};

const CLAIMS: usize = 64;

/// Claims to slots; several slots share one.
pub struct Claims([AtomicBool; CLAIMS]);

impl Claims {
    /// Nothing is claimed.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self([const { AtomicBool::new(false) }; CLAIMS])
    }

    /// Claims the slot of `thread`; waits while another processor has it.
    pub(crate) fn claim(&self, thread: TcbRef) -> Claim<'_> {
        let claim = &self.0[thread.index() % CLAIMS];
        while claim.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        Claim(claim)
    }
}

/// A claim; dropping it gives it up.
pub(crate) struct Claim<'a>(&'a AtomicBool);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
