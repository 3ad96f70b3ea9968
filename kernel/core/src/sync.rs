//! The atomics of the core, its fences and its way to wait: the one place that says what they are.
//!
//! Everything of the core that more than one processor reaches is made of these.

pub use core::hint::spin_loop;
pub use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering, fence};

/// Orders a change in one step that was just made before the loads that follow. The processor does so by itself (Intel SDM
/// 3A, Locked Operations), but the language's memory model promises it for no order of the change itself.
#[inline(always)]
pub(crate) fn fence_after_change() {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    fence(Ordering::SeqCst);
}
