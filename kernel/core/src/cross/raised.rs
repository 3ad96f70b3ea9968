//! Interrupts that a processor took whose line belongs to another one.
//!
//! An interrupt goes to the processor where the line's thread runs, which alone knows what to do with it. After the line
//! was moved one may still come to the old place; it is passed on by a bit of the line at the new one.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

const WORD_BITS: usize = usize::BITS as usize;
/// Lines there can be, at most: an interrupt is told by a vector.
pub const LINES_MAX: usize = 256;

/// Lines that others passed on to one processor.
pub struct Raised {
    lines: [AtomicUsize; LINES_MAX / WORD_BITS],
    is_any: AtomicBool,
}

impl Raised {
    /// No line.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self { lines: [const { AtomicUsize::new(0) }; LINES_MAX / WORD_BITS], is_any: AtomicBool::new(false) }
    }

    /// Whether there are lines to take.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// Passes `line` on. The owner must be told.
    pub fn post(&self, line: usize) {
        self.lines[line / WORD_BITS].fetch_or(1 << (line % WORD_BITS), Ordering::Relaxed);
        self.is_any.store(true, Ordering::Release);
    }

    /// Gives `each` all lines that were passed on. For the owner alone.
    pub fn take(&self, mut each: impl FnMut(u32)) {
        if !self.is_any.swap(false, Ordering::Acquire) {
            return;
        }
        for (index, word) in self.lines.iter().enumerate() {
            let mut lines = word.swap(0, Ordering::Relaxed);
            while lines != 0 {
                each((index * WORD_BITS) as u32 + lines.trailing_zeros());
                lines &= lines - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_once() {
        let raised = Raised::new();
        let take = || {
            let mut taken = Vec::new();
            raised.take(|line| taken.push(line));
            taken
        };
        assert!(!raised.is_any() && take().is_empty());
        [200, 3, 64, 3].into_iter().for_each(|line| raised.post(line));
        assert!(raised.is_any());
        assert_eq!(take(), [3, 64, 200]);
        assert!(!raised.is_any() && take().is_empty());
    }
}
