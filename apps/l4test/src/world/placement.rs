//! The processors of a test's threads.
//!
//! Usually all threads run on the first processor, where priorities decide who goes first. If they are spread, a thread that
//! is made to run before the tester goes on is waited for: until it, and all of its kind, have blocked. What happens between
//! threads after that, and while the tester waits, happens in whatever order the processors bring about. A test that is about
//! the order on one processor says so in the list of its chapter.

use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

use l4::{ScheduleResult, schedule};
use l4test::placement::Placement;

use super::threads::{self, SLOTS, Thread};
use crate::failure::Outcome;
use crate::registry::Test;

/// The processor of each slot.
static PROCESSORS: [AtomicU16; SLOTS] = [const { AtomicU16::new(ANYWHERE) }; SLOTS];
/// The processor of whoever makes the thread.
const ANYWHERE: u16 = u16::MAX;

/// How often in a row they have to be found blocked: a message may be on its way from one to another that was looked at
/// before.
const LOOKS: usize = 3;

/// The next threads are those of this test.
pub fn begin_test(test: &Test, placement: Option<Placement>) {
    let placement = placement.filter(|_| test.together.is_none());
    for (slot, processor) in PROCESSORS.iter().enumerate() {
        processor.store(placement.map_or(ANYWHERE, |placement| placement.processor(test.name, slot)), Relaxed);
    }
}

/// The processor that a thread is to run on.
fn processor_of(thread: Thread) -> Option<u16> {
    Some(PROCESSORS[thread.slot()].load(Relaxed)).filter(|&processor| processor != ANYWHERE)
}

/// Whether the threads of this test are spread.
pub fn is_spread() -> bool {
    processor_of(threads::tester()).is_some()
}

/// The processor of a thread that nobody has moved, made by one of the first processor.
pub fn expected_processor(thread: Thread) -> u16 {
    processor_of(thread).unwrap_or(0)
}

/// Brings a thread, which has not started, to its processor.
#[track_caller]
pub fn place(thread: Thread) -> Outcome {
    if let Some(processor) = processor_of(thread) {
        schedule::set_processor_no(thread.id(), processor)?;
    }
    Ok(())
}

/// Waits until all threads have blocked that run before the tester goes on. On one processor they have. If they
/// never do, the supervisor loses patience.
pub fn settle() {
    if !is_spread() {
        return;
    }
    let mut looks = 0;
    while looks < LOOKS {
        looks = if threads::living().any(is_busy) { 0 } else { looks + 1 };
    }
}

/// Whether the thread has not come to its first wait, or to the next one. The question takes in who is on the way to its
/// processor.
fn is_busy(thread: Thread) -> bool {
    thread.is_first() && thread.state().is_ok_and(|state| state == ScheduleResult::Running || !thread.has_begun())
}
