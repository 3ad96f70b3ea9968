//! Values of the fake machine that all its processors share, which may be threads of the host or of an exploration. An
//! execution of an exploration finds them as they were before the exploration began, and so does who comes after it.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value that one processor at a time looks at.
#[derive(Default)]
pub struct Shared<T>(Mutex<Kept<T>>);

#[derive(Default)]
struct Kept<T> {
    now: T,
    /// What it was before the exploration.
    before: Option<T>,
    /// The execution that `now` is of.
    execution: u64,
}

impl<T: Clone> Kept<T> {
    /// Makes `now` the value in this execution.
    fn enter(&mut self, execution: u64) {
        if self.execution == execution {
            return;
        }
        self.execution = execution;
        match (execution, self.before.take()) {
            (_, None) => self.before = Some(self.now.clone()),
            (0, Some(before)) => self.now = before,
            (_, Some(before)) => {
                self.now = before.clone();
                self.before = Some(before);
            }
        }
    }
}

/// The execution that runs on this thread of the host; 0: none.
fn execution() -> u64 {
    #[cfg(feature = "explore")]
    return crate::explore::execution();
    #[cfg(not(feature = "explore"))]
    0
}

/// A value that is being looked at.
pub struct Borrowed<'a, T>(MutexGuard<'a, Kept<T>>);

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.now
    }
}

impl<T> DerefMut for Borrowed<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.now
    }
}

impl<T: Clone> Shared<T> {
    /// The value.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Kept { now: value, before: None, execution: execution() }))
    }

    /// The value, for reading or writing. After a failed test it is as it was then.
    pub fn borrow(&self) -> Borrowed<'_, T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.enter(execution());
        Borrowed(kept)
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

impl<T: Clone + Default> Shared<T> {
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
