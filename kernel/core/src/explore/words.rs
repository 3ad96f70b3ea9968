//! Atomics that a scheduler watches.
//!
//! A word has the layout of the processor's atomic and holds what was there before an exploration began. While one runs
//! on this thread of the host, the word's value is kept elsewhere, by its address: so each execution begins with the same
//! world, and outside of explorations the words are what they always are.

use core::sync::atomic::{self as plain, Ordering};
use std::panic::Location;

use super::{Change, Mode, alone, exhaustive, mistakes, mode, random};

macro_rules! word {
    ($name:ident, $type:ty, |$value:ident| $to:expr, |$raw:ident| $from:expr) => {
        /// A watched atomic.
        #[derive(Default)]
        #[repr(transparent)]
        pub struct $name(plain::$name);

        #[allow(dead_code, reason = "each width offers the same")]
        impl $name {
            pub const fn new(value: $type) -> Self {
                Self(plain::$name::new(value))
            }

            fn from($raw: u64) -> $type {
                $from
            }

            fn to($value: $type) -> u64 {
                $to
            }

            fn address(&self) -> usize {
                &raw const *self as usize
            }

            fn base(&self) -> u64 {
                Self::to(self.0.load(Ordering::Relaxed))
            }

            #[track_caller]
            pub fn load(&self, order: Ordering) -> $type {
                let order = mistakes::weaken(order, Location::caller());
                match mode() {
                    Mode::Plain => self.0.load(order),
                    Mode::Exhaustive => Self::from(exhaustive::load(self.address(), self.base(), order)),
                    Mode::Random => Self::from(random::load(self.address(), self.base())),
                    Mode::Alone => Self::from(alone::load(self.address(), self.base())),
                }
            }

            #[track_caller]
            pub fn store(&self, value: $type, order: Ordering) {
                let order = mistakes::weaken(order, Location::caller());
                match mode() {
                    Mode::Plain => self.0.store(value, order),
                    Mode::Exhaustive => exhaustive::store(self.address(), self.base(), Self::to(value), order),
                    Mode::Random => random::store(self.address(), self.base(), Self::to(value), order),
                    Mode::Alone => _ = alone::change(self.address(), self.base(), Change::Set(Self::to(value))),
                }
            }

            #[track_caller]
            fn change(&self, change: Change, orders: (Ordering, Ordering)) -> Result<$type, $type> {
                let order = mistakes::weaken(orders.0, Location::caller());
                let done = match mode() {
                    Mode::Plain => unreachable!("the plain word has its own"),
                    Mode::Exhaustive => exhaustive::change(self.address(), self.base(), change, (order, orders.1)),
                    Mode::Random => random::change(self.address(), self.base(), change),
                    Mode::Alone => alone::change(self.address(), self.base(), change),
                };
                done.map(Self::from).map_err(Self::from)
            }

            #[track_caller]
            pub fn swap(&self, value: $type, order: Ordering) -> $type {
                match mode() {
                    Mode::Plain => self.0.swap(value, order),
                    _ => always(self.change(Change::Set(Self::to(value)), (order, Ordering::Relaxed))),
                }
            }

            #[track_caller]
            pub fn compare_exchange(
                &self,
                old: $type,
                new: $type,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$type, $type> {
                match mode() {
                    Mode::Plain => self.0.compare_exchange(old, new, success, failure),
                    _ => self.change(Change::Replace(Self::to(old), Self::to(new)), (success, failure)),
                }
            }

            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                old: $type,
                new: $type,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$type, $type> {
                self.compare_exchange(old, new, success, failure)
            }

            #[track_caller]
            pub fn fetch_or(&self, value: $type, order: Ordering) -> $type {
                match mode() {
                    Mode::Plain => self.0.fetch_or(value, order),
                    _ => always(self.change(Change::Or(Self::to(value)), (order, Ordering::Relaxed))),
                }
            }

            #[track_caller]
            pub fn fetch_and(&self, value: $type, order: Ordering) -> $type {
                match mode() {
                    Mode::Plain => self.0.fetch_and(value, order),
                    _ => always(self.change(Change::And(Self::to(value)), (order, Ordering::Relaxed))),
                }
            }
        }
    };
}

word!(AtomicBool, bool, |value| u64::from(value), |raw| raw != 0);
word!(AtomicU8, u8, |value| u64::from(value), |raw| raw as u8);
word!(AtomicU16, u16, |value| u64::from(value), |raw| raw as u16);
word!(AtomicU32, u32, |value| u64::from(value), |raw| raw as u32);
word!(AtomicUsize, usize, |value| value as u64, |raw| raw as usize);

macro_rules! arithmetic {
    ($($name:ident, $type:ty);*) => {$(
        #[allow(dead_code, reason = "each width offers the same")]
        impl $name {
            #[track_caller]
            pub fn fetch_add(&self, value: $type, order: Ordering) -> $type {
                match mode() {
                    Mode::Plain => self.0.fetch_add(value, order),
                    _ => always(self.change(Change::Add(Self::to(value)), (order, Ordering::Relaxed))),
                }
            }

            #[track_caller]
            pub fn fetch_sub(&self, value: $type, order: Ordering) -> $type {
                match mode() {
                    Mode::Plain => self.0.fetch_sub(value, order),
                    _ => always(self.change(Change::Subtract(Self::to(value)), (order, Ordering::Relaxed))),
                }
            }

            /// As a loop of [`Self::compare_exchange`].
            #[track_caller]
            pub fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                mut new: impl FnMut($type) -> Option<$type>,
            ) -> Result<$type, $type> {
                let mut old = self.load(failure);
                while let Some(value) = new(old) {
                    match self.compare_exchange(old, value, success, failure) {
                        Ok(old) => return Ok(old),
                        Err(now) => old = now,
                    }
                }
                Err(old)
            }
        }
    )*};
}
arithmetic!(AtomicU8, u8; AtomicU16, u16; AtomicU32, u32; AtomicUsize, usize);

fn always<T>(result: Result<T, T>) -> T {
    result.unwrap_or_else(|value| value)
}

/// A fence.
#[track_caller]
pub fn fence(order: Ordering) {
    let order = mistakes::weaken(order, Location::caller());
    match mode() {
        _ if order == Ordering::Relaxed => {}
        Mode::Plain => plain::fence(order),
        Mode::Exhaustive => loom::sync::atomic::fence(order),
        Mode::Random => random::fence(order),
        Mode::Alone => {}
    }
}

/// Lets others go on.
pub fn spin_loop() {
    match mode() {
        Mode::Plain => core::hint::spin_loop(),
        Mode::Exhaustive => exhaustive::wait(),
        Mode::Random => random::wait(),
        Mode::Alone => panic!("there is nobody to wait for"),
    }
}
