//! A value that is set once while the boot processor is alone, and only read afterwards.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

/// Empty until [`BootCell::set`].
pub struct BootCell<T> {
    value: UnsafeCell<MaybeUninit<T>>,
    is_set: AtomicBool,
}

// SAFETY: `set` refuses to run twice, and a value is only read after it was set; from then on it is shared.
unsafe impl<T: Sync> Sync for BootCell<T> {}

impl<T> BootCell<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { value: UnsafeCell::new(MaybeUninit::uninit()), is_set: AtomicBool::new(false) }
    }

    /// Sets the value.
    ///
    /// # Panics
    /// If it was set before.
    pub fn set(&self, value: T) {
        assert!(!self.is_set.load(Ordering::Acquire), "set once");
        // SAFETY: nobody reads before `is_set`, and the boot processor is alone when it sets.
        unsafe { (*self.value.get()).write(value) };
        self.is_set.store(true, Ordering::Release);
    }

    /// The value, if it was set.
    pub fn try_get(&self) -> Option<&T> {
        self.is_set.load(Ordering::Acquire).then(|| self.get())
    }

    /// The value.
    ///
    /// # Panics
    /// Before it was set.
    #[inline(always)]
    pub fn get(&self) -> &T {
        assert!(self.is_set.load(Ordering::Acquire), "read after boot has set it");
        // SAFETY: nobody writes any more, so it can be shared.
        let value = unsafe { &*self.value.get() };
        // SAFETY: it was set.
        unsafe { value.assume_init_ref() }
    }
}
