//! The atomics of the core, its fences and its way to wait: the one place that says what they are.
//!
//! Everything of the core that more than one processor reaches is made of these.

pub use core::hint::spin_loop;
pub use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering, fence};
