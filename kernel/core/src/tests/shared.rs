//! Values of the fake machine that all its processors share, which may be threads of the host.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value that one processor at a time looks at.
#[derive(Default)]
pub struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    /// The value.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// The value, for reading or writing. After a failed test it is as it was then.
    pub fn borrow(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        *self.borrow() = value;
    }

    /// Replaces the value and returns the old one.
    pub fn replace(&self, value: T) -> T {
        std::mem::replace(&mut self.borrow(), value)
    }
}

impl<T: Default> Shared<T> {
    /// Takes the value out.
    pub fn take(&self) -> T {
        self.replace(T::default())
    }
}

impl<T: Copy> Shared<T> {
    /// A copy of the value.
    pub fn get(&self) -> T {
        *self.borrow()
    }
}
