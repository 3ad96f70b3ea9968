//! Numbers that look random and follow from a seed, for programs whose choices must come again, and the command line
//! that tells the seed.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod options;

use core::ops::Range;

/// A source of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A source for the `n`th user of a seed, unlike those of all others.
    pub fn new(seed: u64, n: u64) -> Self {
        let mut dice = Self(seed ^ mix(n.wrapping_add(1)));
        dice.0 = dice.next();
        dice
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// If there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of the numbers of a range.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        let count = range.end.checked_sub(range.start).filter(|&count| count > 0).expect("a range to choose from");
        range.start + self.below(count as u64) as usize
    }

    /// Whether something happens that happens `percent` times of a hundred.
    pub fn is(&mut self, percent: usize) -> bool {
        self.within(0..100) < percent
    }

    /// One of several.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.within(0..all.len())]
    }
}

/// Spreads the bits of a number over all bits of another; different numbers stay different.
pub const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Dice;

    #[test]
    fn users_of_one_seed_get_their_own_numbers() {
        let numbers: BTreeSet<u64> = (0..1000).map(|n| Dice::new(5, n).next()).collect();
        assert_eq!(numbers.len(), 1000);
        assert_eq!(Dice::new(5, 3).next(), Dice::new(5, 3).next());
        assert_ne!(Dice::new(5, 3).next(), Dice::new(6, 3).next());
    }

    #[test]
    fn each_number_of_a_range_comes() {
        let mut dice = Dice::new(1, 1);
        let numbers: BTreeSet<usize> = (0..1000).map(|_| dice.within(3..9)).collect();
        assert_eq!(numbers, (3..9).collect());
        assert!((0..1000).all(|_| dice.is(100) && !dice.is(0)));
    }
}
