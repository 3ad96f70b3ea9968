//! Ranges of physical memory.

use core::fmt;

/// The bytes from `start` to before `end`, which is not below `start`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Address of the first byte.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
}

impl Extent {
    /// The bytes from `start` to before `end`; none if `end` is below.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end: if end < start { start } else { end } }
    }

    /// `len` bytes from `start`, as far as there are addresses.
    pub const fn sized(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }

    /// Size in bytes.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether some byte is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start < other.end && other.start < self.end
    }

    /// The part below `limit`.
    pub fn below(self, limit: u64) -> Self {
        Self::new(self.start.min(limit), self.end.min(limit))
    }

    /// The part from `limit` on.
    pub fn from(self, limit: u64) -> Self {
        Self::new(self.start.max(limit), self.end.max(limit))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}
