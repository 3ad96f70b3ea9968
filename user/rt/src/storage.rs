//! Statics with one owner.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A static value that one place of the program gets, to change as it likes.
pub struct Storage<T> {
    value: UnsafeCell<T>,
    is_taken: AtomicBool,
}

// SAFETY: the value is reached by the one that `take` gives it to, and by nobody else.
unsafe impl<T: Send> Sync for Storage<T> {}

impl<T> Storage<T> {
    /// The value, which nobody has yet.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), is_taken: AtomicBool::new(false) }
    }

    /// The value; `None` if it was taken before.
    #[allow(clippy::mut_from_ref, reason = "one caller gets it")]
    pub fn take(&'static self) -> Option<&'static mut T> {
        // SAFETY: `is_taken` was false, and is so once: there is no other reference.
        (!self.is_taken.swap(true, Relaxed)).then(|| unsafe { &mut *self.value.get() })
    }
}
