//! The atomics of the core, its fences and its way to wait: the one place that says what they are.
//!
//! Everything of the core that more than one processor reaches is made of these. They are the processor's own. Only the
//! tests that explore interleavings (feature `explore`, which does nothing to any other build) put words in their place
//! that a scheduler watches.

#[cfg(all(test, feature = "explore"))]
pub use crate::explore::words::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, fence, spin_loop};
#[cfg(not(test))]
pub use core::hint::spin_loop;
pub use core::sync::atomic::Ordering;
#[cfg(not(all(test, feature = "explore")))]
pub use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, fence};

#[cfg(all(test, feature = "explore"))]
pub(crate) use crate::explore::mistakes::looks_again;

/// Waits for another processor. In the simulation that one goes on only if this one stands back.
#[cfg(all(test, not(feature = "explore")))]
pub fn spin_loop() {
    if !crate::tests::stage::pause() {
        core::hint::spin_loop();
    }
}

/// Orders a change in one step that was just made before the loads that follow. The processor does so by itself (Intel SDM
/// 3A, Locked Operations), but the language's memory model promises it for no order of the change itself.
#[inline(always)]
pub(crate) fn fence_after_change() {
    #[cfg(all(not(all(test, feature = "explore")), any(target_arch = "x86", target_arch = "x86_64")))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(not(all(test, feature = "explore")), any(target_arch = "x86", target_arch = "x86_64"))))]
    fence(Ordering::SeqCst);
}

/// Something that the core looks at a second time, as it may have changed meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Which lock it is, with the lock taken.
    ChosenLock,
    /// Whether somebody wants something of a processor that is about to sleep.
    Demand,
    /// Whether a thread has the id that a question is about.
    Id,
}

/// Whether the core looks again: always, but where a test plants the mistake not to.
#[cfg(not(all(test, feature = "explore")))]
#[inline(always)]
pub(crate) const fn looks_again(_what: Look) -> bool {
    true
}
