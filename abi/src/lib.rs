//! Every word that kernel and user programs both read: the data types, virtual registers, kernel interface page, boot
//! information and protocols of L4 X.2 as they look on x86.
//!
//! One set of files is compiled at both widths: [`w32`] and [`w64`] differ in `Word` and in a few layout constants
//! (their own files say which), so that a 64-bit host tests the 32-bit layouts and a loader of one width can write the
//! tables of the other. The native width is re-exported at the root. What has no width is in [`common`].
//!
//! Nothing here dereferences: addresses are plain words, and who owns raw memory casts it to these types himself.
#![no_std]
#![forbid(unsafe_code)]
// The width modules include the same files, where a cast to `Word` is idle at one of the two widths.
#![allow(clippy::duplicate_mod, clippy::unnecessary_cast)]

#[cfg(test)]
extern crate std;

/// A type of one word: transparent, built from and turned into any raw value.
macro_rules! word_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(transparent)]
        pub struct $name(Word);

        impl $name {
            /// The value with these bits; every pattern is a value, if not a sensible one.
            pub const fn from_raw(raw: Word) -> Self {
                Self(raw)
            }

            /// The bits.
            pub const fn raw(self) -> Word {
                self.0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

/// Set operators for a word type whose bits are independent flags.
macro_rules! flag_set {
    ($name:ident) => {
        impl $name {
            /// No flag.
            pub const NONE: Self = Self(0);

            /// Whether every flag of `other` is set here.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The flags of both.
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl core::ops::BitAnd for $name {
            type Output = Self;

            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }
    };
}

pub mod common;
pub mod w32;
pub mod w64;

#[cfg(target_pointer_width = "32")]
pub use w32::*;
#[cfg(target_pointer_width = "64")]
pub use w64::*;

#[cfg(test)]
mod tests;
