//! Whether somebody wants something of a processor, and how it gets to know.
//!
//! Who has posted something for a processor demands its attention; who is the first to do so since it looked last also
//! interrupts it. A processor that has nothing to do may look out for demands for a while: then nobody need interrupt it.

use crate::sync::{AtomicU8, Look, Ordering, looks_again, spin_loop};

/// The state of one processor: nobody wants anything.
const QUIET: u8 = 0;
/// Somebody wants something, and the processor was told or will see it.
const DEMANDED: u8 = 1;
/// Nobody wants anything, and the processor would see at once if somebody did.
const LOOKING_OUT: u8 = 2;

/// What the others demand of one processor.
pub struct Attention(AtomicU8);

impl Attention {
    /// Nobody wants anything.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self(AtomicU8::new(QUIET))
    }

    /// Whether somebody wants something.
    #[inline]
    pub fn is_demanded(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DEMANDED
    }

    /// Whether the owner need not do anything about it: nobody wants anything, and it does not look out.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.load(Ordering::Relaxed) == QUIET
    }

    /// Demands attention for what was posted before; whether the owner must be interrupted to see that.
    #[inline]
    #[must_use]
    pub(crate) fn demand(&self) -> bool {
        self.0.swap(DEMANDED, Ordering::AcqRel) == QUIET
    }

    /// The owner reminds itself to look again. What others demanded before stays seen: a plain store would hide that they did.
    #[inline]
    pub(crate) fn demand_of_oneself(&self) {
        self.0.swap(DEMANDED, Ordering::AcqRel);
    }

    /// The owner looks now: it sees what was posted before a demand that this ends, and what comes after is a new one.
    #[inline]
    pub(crate) fn give(&self) {
        self.0.swap(QUIET, Ordering::AcqRel);
    }

    /// The owner looks out for demands, so often at most; whether there are any. If not, it will not look any more by itself.
    /// What it does `between` two looks may also end the lookout for good.
    #[inline(always)]
    pub fn look_out(&self, looks: u32, mut between: impl FnMut()) -> bool {
        self.begin_to_look_out();
        for _ in 0..looks {
            spin_loop();
            if self.is_demanded() {
                return true;
            }
            between();
        }
        !self.stop_looking_out()
    }

    /// The owner looks out from now on, unless somebody wants something already.
    #[inline]
    fn begin_to_look_out(&self) {
        // If it fails, the first look tells.
        let _ = self.0.compare_exchange(QUIET, LOOKING_OUT, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The owner will not look any more by itself; whether nobody wanted anything until now.
    #[inline]
    #[must_use]
    fn stop_looking_out(&self) -> bool {
        let stopped = self.0.compare_exchange(LOOKING_OUT, QUIET, Ordering::AcqRel, Ordering::Relaxed);
        stopped.is_ok() || !looks_again(Look::Demand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first demand interrupts, further ones do not until the owner has looked.
    #[test]
    fn only_the_first_demand_interrupts() {
        let attention = Attention::new();
        assert!(attention.is_quiet() && !attention.is_demanded());
        assert_eq!([attention.demand(), attention.demand()], [true, false]);
        assert!(attention.is_demanded() && !attention.is_quiet());
        attention.give();
        assert!(attention.is_quiet() && attention.demand());
        attention.give();
        attention.demand_of_oneself();
        assert!(attention.is_demanded() && !attention.demand());
    }

    /// Who looks out is not interrupted, and misses nothing.
    #[test]
    fn who_looks_out_is_not_interrupted() {
        let attention = Attention::new();
        attention.begin_to_look_out();
        assert!(!attention.is_quiet() && !attention.is_demanded());
        assert!(!attention.demand() && attention.is_demanded());
        assert!(!attention.stop_looking_out(), "there is something to do first");
        attention.begin_to_look_out();
        assert!(attention.is_demanded(), "nothing is forgotten");
        attention.give();
        attention.begin_to_look_out();
        assert!(attention.stop_looking_out());
        assert!(attention.demand(), "it does not look any more");
        // An interrupt of a device ends it, too.
        attention.give();
        attention.begin_to_look_out();
        attention.give();
        assert!(attention.demand());
    }
}
