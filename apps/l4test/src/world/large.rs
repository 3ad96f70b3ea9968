//! Large pages of the program's, from sigma0. It is the supervisor that asks, once and for all: nothing goes back to
//! sigma0, and what a test's thread asks for is lost to the next test.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use l4::{Fpage, Rights, Word, sigma0};

use super::memory;
use crate::failure::{Failure, Outcome};

/// log2 of the size of [`LARGE`].
pub const LARGE_LOG2: u32 = 21;
/// log2 of the size of [`OF_1_GIB`].
pub const GIB_LOG2: u32 = 30;

/// A page larger than the smallest, beyond the playground, which is cleared after each test.
pub struct LargePage {
    size_log2: u32,
    base: Word,
    is_there: AtomicBool,
}

/// The smaller one.
pub static LARGE: LargePage = LargePage::new(LARGE_LOG2, 1 << 40);
/// The larger one. Machines with little memory have none.
pub static OF_1_GIB: LargePage = LargePage::new(GIB_LOG2, 2 << 40);

impl LargePage {
    const fn new(size_log2: u32, base: Word) -> Self {
        Self { size_log2, base, is_there: AtomicBool::new(false) }
    }

    /// Asks sigma0 for it. For the supervisor.
    pub fn request(&self) {
        let window = Fpage::new(self.base, self.size_log2, Rights::NONE).expect("the base is a multiple of the size");
        // SAFETY: nothing else is there.
        let given = unsafe { sigma0::get_any(self.size_log2, window) };
        self.is_there.store(matches!(given, Ok(Some(_))), Relaxed);
    }

    /// Whether sigma0 had one.
    pub fn is_there(&self) -> bool {
        self.is_there.load(Relaxed)
    }

    /// The page.
    #[track_caller]
    pub fn page(&self) -> Outcome<Fpage> {
        let page = Fpage::new(self.base, self.size_log2, Rights::NONE).filter(|_| self.is_there());
        page.ok_or(Failure::new("sigma0 has no large page for us"))
    }

    /// Writes a word in it.
    ///
    /// # Panics
    /// Outside, or before it is there.
    pub fn write(&self, offset: Word, value: Word) {
        assert!(offset < 1 << self.size_log2 && self.is_there(), "only the page is written");
        memory::write(self.base + offset, value);
    }
}
