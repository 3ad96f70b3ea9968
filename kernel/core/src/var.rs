//! Mutable words of shared tables.
//!
//! A [`Var`] is a word that any processor may read and its owner may write: a relaxed atomic with a type. Relaxed loads
//! and stores are plain moves on x86, so a `Var` costs what a `Cell` costs; unlike a `Cell` it is `Sync`, so the tables
//! of the core can be shared between processors without `unsafe`. A `Var` gives no order: order comes from locks and
//! mailboxes. It takes as many bytes as its type's [`AsWord::Cell`] has.

use crate::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering};

/// A value that fits a machine word, and back.
pub trait AsWord: Copy {
    /// The atomic that holds it.
    type Cell: Cell;
    /// The value as a word that fits the cell.
    fn to_word(self) -> usize;
    /// The value of a word made by [`AsWord::to_word`]. A zero word must be a valid value: tables start zeroed.
    fn from_word(word: usize) -> Self;
    /// The value of any word; `None` if it means nothing.
    #[inline]
    fn checked(word: usize) -> Option<Self> {
        Some(Self::from_word(word))
    }
}

/// An atomic of some width, accessed relaxed.
pub trait Cell {
    /// A cell that holds zero.
    const ZERO: Self;
    /// The word in the cell.
    fn load(&self) -> usize;
    /// Replaces the word; it fits.
    fn store(&self, word: usize);
}

macro_rules! cell {
    ($($atomic:ty as $t:ty),*) => {$(
        impl Cell for $atomic {
            const ZERO: Self = Self::new(0);
            #[inline(always)]
            fn load(&self) -> usize {
                <$atomic>::load(self, Ordering::Relaxed) as usize
            }
            #[inline(always)]
            fn store(&self, word: usize) {
                <$atomic>::store(self, word as $t, Ordering::Relaxed);
            }
        }
    )*};
}
cell!(AtomicU8 as u8, AtomicU16 as u16, AtomicU32 as u32, AtomicUsize as usize);

/// A mutable word in a shared table; zero when the table is fresh.
#[repr(transparent)]
pub struct Var<T: AsWord> {
    cell: T::Cell,
}

impl<T: AsWord> Var<T> {
    /// A `Var` whose word is zero.
    pub const fn zero() -> Self {
        Self { cell: T::Cell::ZERO }
    }

    /// A `Var` that holds `value`.
    pub fn new(value: T) -> Self {
        let var = Self::zero();
        var.set(value);
        var
    }

    /// The atomic.
    pub(crate) fn cell(&self) -> &T::Cell {
        &self.cell
    }

    /// The value.
    #[inline(always)]
    pub fn get(&self) -> T {
        T::from_word(self.cell.load())
    }

    /// The value, if the word means one: for those who look at tables that may be damaged.
    pub fn checked(&self) -> Option<T> {
        T::checked(self.cell.load())
    }

    /// Whether the value is `value`, told by its word.
    #[inline(always)]
    pub fn is(&self, value: T) -> bool {
        self.cell.load() == value.to_word()
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&self, value: T) {
        self.cell.store(value.to_word());
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

macro_rules! integer_as_word {
    ($($t:ty => $cell:ty),*) => {$(
        impl AsWord for $t {
            type Cell = $cell;
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
integer_as_word!(u8 => AtomicU8, u16 => AtomicU16, u32 => AtomicU32, usize => AtomicUsize);

impl AsWord for bool {
    type Cell = AtomicU8;
    #[inline(always)]
    fn to_word(self) -> usize {
        usize::from(self)
    }
    #[inline(always)]
    fn from_word(word: usize) -> Self {
        word != 0
    }
}

/// Machine words of a [`Var64`].
const WORDS: usize = (u64::BITS / usize::BITS) as usize;

/// A 64-bit [`Var`] on both widths: a clock value or a deadline. On 32-bit machines the halves are two words, so only
/// the owner may read it.
#[derive(Default)]
pub struct Var64 {
    /// The lowest first.
    words: [Var<usize>; WORDS],
}

impl Var64 {
    /// A `Var64` that holds zero.
    pub const fn zero() -> Self {
        Self { words: [const { Var::zero() }; WORDS] }
    }

    /// The value.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        let words = self.words.iter().enumerate();
        words.fold(0, |value, (index, word)| value | (word.get() as u64) << Self::shift(index))
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        for (index, word) in self.words.iter().enumerate() {
            word.set((value >> Self::shift(index)) as usize);
        }
    }

    #[inline(always)]
    const fn shift(index: usize) -> u32 {
        index as u32 * usize::BITS
    }
}

#[cfg(test)]
mod tests {
    use l4_abi::{ThreadId, Time};

    use super::*;
    use crate::machine::{PhysAddr, TcbRef};
    use crate::sched::Current;
    use crate::thread::{Purpose, Status, Work};

    #[track_caller]
    fn check<T: AsWord + PartialEq + core::fmt::Debug>(zero: T, values: &[T]) {
        let var = Var::zero();
        assert_eq!(var.get(), zero, "a fresh table");
        let mut last = zero;
        for &value in values {
            assert_eq!(var.replace(value), last);
            assert_eq!((var.get(), Var::new(value).get()), (value, value));
            assert_eq!((var.is(value), var.is(zero)), (true, value == zero));
            last = value;
        }
    }

    /// What is put in comes out, and fresh tables, which are zero, mean nothing.
    #[test]
    fn values_come_out_as_they_went_in() {
        check(0u8, &[1, u8::MAX]);
        check(0u16, &[1, u16::MAX]);
        check(0u32, &[1, u32::MAX]);
        check(0usize, &[1, usize::MAX]);
        check(false, &[true, false]);
        check(None, &[Some(TcbRef::new(0)), Some(TcbRef::new(u32::MAX - 1)), None]);
        check(PhysAddr(0), &[PhysAddr(0x1000), PhysAddr(0xFFFF_F000)]);
        check(ThreadId::NIL, &[ThreadId::ANY, ThreadId::ANY_LOCAL, ThreadId::global(5, 1)]);
        check(Time::NEVER, &[Time::ZERO, Time::from_raw(u16::MAX)]);
        check(Status::Inactive, &[Status::Running, Status::Receiving]);
        check(Purpose::User, &[Purpose::Preemption, Purpose::Start]);
        check(Work::None, &[Work::Delete, Work::MemoryControl]);
        check(Current::running(TcbRef::new(0)), &[Current::IDLE, Current::running(TcbRef::new(77))]);
    }

    /// A word takes the bytes of its type.
    #[test]
    fn words_are_as_small_as_their_types() {
        assert_eq!((size_of::<Var<u8>>(), size_of::<Var<bool>>(), size_of::<Var<Status>>()), (1, 1, 1));
        assert_eq!((size_of::<Var<u16>>(), size_of::<Var<Time>>()), (2, 2));
        assert_eq!((size_of::<Var<Option<TcbRef>>>(), size_of::<Var64>()), (4, 8));
    }

    /// Both halves of a long word count.
    #[test]
    fn all_bits_of_a_long_word_count() {
        let var = Var64::zero();
        for value in [1, u64::from(u32::MAX), 1 << 32, u64::MAX, 0] {
            var.set(value);
            assert_eq!(var.get(), value);
        }
    }

    /// The running thread is told by the offset of its TCB; idle is nobody's.
    #[test]
    fn idle_is_no_thread() {
        assert_eq!(Current::IDLE.thread(), None);
        for index in [0, 1, 0x3FFFF] {
            assert_eq!(Current::running(TcbRef::new(index)).thread(), Some(TcbRef::new(index)));
        }
    }
}
