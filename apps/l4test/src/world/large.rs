//! One large page of the program's, from sigma0. It is the supervisor that asks, once and for all: nothing goes back to
//! sigma0, and what a test's thread asks for is lost to the next test.

use core::sync::atomic::Ordering::Relaxed;

use l4::{AtomicWord, Fpage, Rights, Word, sigma0};

use super::memory;
use crate::failure::{Failure, Outcome};

/// log2 of its size.
pub const SIZE_LOG2: u32 = 21;
/// Where it is: beyond the playground, which is cleared after each test.
const BASE: Word = 1 << 40;

/// Its address once it is there.
static ADDRESS: AtomicWord = AtomicWord::new(0);

/// Asks sigma0 for it. For the supervisor.
pub fn request() {
    let window = Fpage::new(BASE, SIZE_LOG2, Rights::NONE).expect("the base is a multiple of the size");
    // SAFETY: nothing else is there.
    if let Ok(Some(_)) = unsafe { sigma0::get_any(SIZE_LOG2, window) } {
        ADDRESS.store(BASE, Relaxed);
    }
}

/// The page.
#[track_caller]
pub fn page() -> Outcome<Fpage> {
    match ADDRESS.load(Relaxed) {
        0 => Err(Failure::new("sigma0 has no large page for us")),
        base => Fpage::new(base, SIZE_LOG2, Rights::NONE).ok_or(Failure::new("the page is not aligned")),
    }
}

/// Writes a word in it.
///
/// # Panics
/// Outside, or before it is there.
pub fn write(offset: Word, value: Word) {
    assert!(offset < 1 << SIZE_LOG2 && ADDRESS.load(Relaxed) != 0, "only the page is written");
    memory::write(BASE + offset, value);
}
