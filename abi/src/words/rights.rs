//! Access rights.

use super::*;

word_type! {
    /// Rights to a page: read, write, execute in any combination (X.2, Fpage).
    Rights
}
flag_set!(Rights);

impl Rights {
    /// Execute.
    pub const EXECUTE: Self = Self(1);
    /// Write.
    pub const WRITE: Self = Self(2);
    /// Read.
    pub const READ: Self = Self(4);
    /// Read and execute.
    pub const READ_EXECUTE: Self = Self(5);
    /// Read and write.
    pub const READ_WRITE: Self = Self(6);
    /// All three.
    pub const ALL: Self = Self(7);

    /// The rights in the low three bits.
    pub const fn from_bits_truncate(bits: Word) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The bits.
    pub const fn bits(self) -> Word {
        self.0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
