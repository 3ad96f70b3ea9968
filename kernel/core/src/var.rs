//! Mutable words of shared tables.
//!
//! A [`Var`] is a word that any processor may read and its owner may write: a relaxed atomic with a type. Relaxed loads
//! and stores are plain moves on x86, so a `Var` costs what a `Cell` costs; unlike a `Cell` it is `Sync`, so the tables
//! of the core can be shared between processors without `unsafe`. A `Var` gives no order: order comes from locks and
//! mailboxes.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A value that fits a machine word, and back.
pub trait AsWord: Copy {
    /// The value as a word.
    fn to_word(self) -> usize;
    /// The value of a word made by [`AsWord::to_word`]. A zero word must be a valid value: tables start zeroed.
    fn from_word(word: usize) -> Self;
}

/// A mutable word in a shared table; zero when the table is fresh.
#[repr(transparent)]
pub struct Var<T> {
    word: AtomicUsize,
    value: PhantomData<T>,
}

// `PhantomData<T>` would make `Var<T>` depend on `T: Sync`; every `AsWord` type used here is plain data, so it is.
impl<T: AsWord> Var<T> {
    /// A `Var` whose word is zero.
    pub const fn zero() -> Self {
        Self { word: AtomicUsize::new(0), value: PhantomData }
    }

    /// A `Var` that holds `value`.
    pub fn new(value: T) -> Self {
        Self { word: AtomicUsize::new(value.to_word()), value: PhantomData }
    }

    /// The value.
    #[inline(always)]
    pub fn get(&self) -> T {
        T::from_word(self.word.load(Ordering::Relaxed))
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&self, value: T) {
        self.word.store(value.to_word(), Ordering::Relaxed);
    }

    /// Replaces the value and returns the old one. Not atomic between processors: only the owner writes.
    #[inline(always)]
    pub fn replace(&self, value: T) -> T {
        let old = self.get();
        self.set(value);
        old
    }
}

impl<T: AsWord> Default for Var<T> {
    fn default() -> Self {
        Self::zero()
    }
}

impl<T: AsWord + core::fmt::Debug> core::fmt::Debug for Var<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.get().fmt(f)
    }
}

impl AsWord for usize {
    #[inline(always)]
    fn to_word(self) -> usize {
        self
    }
    #[inline(always)]
    fn from_word(word: usize) -> Self {
        word
    }
}

macro_rules! small_as_word {
    ($($t:ty),*) => {$(
        impl AsWord for $t {
            #[inline(always)]
            fn to_word(self) -> usize {
                self as usize
            }
            #[inline(always)]
            fn from_word(word: usize) -> Self {
                word as $t
            }
        }
    )*};
}
small_as_word!(u8, u16, u32);

impl AsWord for bool {
    #[inline(always)]
    fn to_word(self) -> usize {
        usize::from(self)
    }
    #[inline(always)]
    fn from_word(word: usize) -> Self {
        word != 0
    }
}

/// A 64-bit [`Var`] on both widths: a clock value or a deadline. On 32-bit machines the halves are two words, so only
/// the owner may read it.
#[derive(Default)]
pub struct Var64 {
    #[cfg(target_pointer_width = "64")]
    whole: Var<usize>,
    #[cfg(target_pointer_width = "32")]
    halves: [Var<u32>; 2],
}

#[cfg(target_pointer_width = "64")]
impl Var64 {
    /// The value.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.whole.get() as u64
    }
    /// Replaces the value.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.whole.set(value as usize);
    }
}

#[cfg(target_pointer_width = "32")]
impl Var64 {
    /// The value.
    pub fn get(&self) -> u64 {
        u64::from(self.halves[0].get()) | u64::from(self.halves[1].get()) << 32
    }
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.halves[0].set(value as u32);
        self.halves[1].set((value >> 32) as u32);
    }
}
