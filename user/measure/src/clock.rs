//! Timing operations by the time-stamp counter, and marking them for an emulator that counts.

use core::hint::black_box;

use l4::arch::{mark, timestamp};

/// Operations before a measurement, after which code, stacks and caches are warm.
pub const WARM_UP: u64 = 8;

/// Adds up the time of operations.
#[derive(Debug)]
pub struct Clock {
    ticks: u64,
    /// Ticks of an operation that does nothing.
    overhead: u64,
}

impl Clock {
    fn new() -> Self {
        Self { ticks: 0, overhead: time(&mut || {}) }
    }

    /// Carries out an operation; its time counts.
    pub fn time(&mut self, mut operation: impl FnMut()) {
        self.ticks += time(&mut operation).saturating_sub(self.overhead);
    }
}

/// The ticks of one operation, with those that it takes to look at the clock. Not inlined, so that these are always the
/// same.
#[inline(never)]
fn time(operation: &mut dyn FnMut()) -> u64 {
    mark::operation();
    let start = timestamp();
    black_box(operation)();
    let ticks = timestamp() - start;
    mark::rest();
    ticks
}

/// The ticks of `rounds` operations, after some that do not count. `round` carries out one by [`Clock::time`], and
/// whatever is needed before and after it.
pub fn measure(rounds: u64, mut round: impl FnMut(&mut Clock)) -> u64 {
    let mut warm_up = Clock::new();
    (0..WARM_UP).for_each(|_| round(&mut warm_up));
    let mut clock = Clock::new();
    mark::begin::<0>();
    (0..rounds).for_each(|_| round(&mut clock));
    mark::end();
    clock.ticks
}
