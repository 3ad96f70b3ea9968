//! The end of a run that found something.

use core::fmt::{Debug, Display};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use l4_rt::{exit, println};

/// Exit status if something is wrong.
const STATUS_FAILURE: u8 = 1;

static SEED: AtomicU64 = AtomicU64::new(0);
static IS_FAILING: AtomicBool = AtomicBool::new(false);

/// The seed of the run.
pub fn seed() -> u64 {
    SEED.load(Relaxed)
}

/// Sets the seed of the run.
pub fn set_seed(seed: u64) {
    SEED.store(seed, Relaxed);
}

/// Says what is wrong and ends the program. The first to say so is heard.
#[track_caller]
pub fn fail(what: impl Display) -> ! {
    if IS_FAILING.swap(true, Relaxed) {
        l4::time::sleep_forever();
    }
    let at = core::panic::Location::caller();
    println!("storm: WRONG: {what} ({}:{}); seed={}", at.file(), at.line(), seed());
    exit(STATUS_FAILURE)
}

/// Fails unless it holds.
#[track_caller]
pub fn check(holds: bool, what: impl Display) {
    if !holds {
        fail(what);
    }
}

/// The result of a call that has to succeed.
#[track_caller]
pub fn must<T, E: Debug>(what: impl Display, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fail(format_args!("{what} fails: {error:?}")),
    }
}
