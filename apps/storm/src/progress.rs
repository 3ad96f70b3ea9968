//! How far the run has come.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use l4::{Time, time};

/// Between two looks whether it has begun.
const MOMENT: Time = Time::period_us(1000);

static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
static IS_OVER: AtomicBool = AtomicBool::new(false);
static OPS: AtomicU64 = AtomicU64::new(0);

/// Counts an operation.
pub fn count() {
    OPS.fetch_add(1, Relaxed);
}

/// Operations so far.
pub fn ops() -> u64 {
    OPS.load(Relaxed)
}

/// Has everybody begin, now that all are there.
pub fn begin() {
    HAS_BEGUN.store(true, Relaxed);
}

/// Waits for that.
pub fn wait_for_beginning() {
    while !HAS_BEGUN.load(Relaxed) {
        time::sleep(MOMENT);
    }
}

/// Whether everybody is to come to an end.
pub fn is_over() -> bool {
    IS_OVER.load(Relaxed)
}

/// Has everybody come to an end.
pub fn end() {
    IS_OVER.store(true, Relaxed);
}
