//! The command line: words in any order.

use core::fmt;

/// System calls if nobody says how many.
pub const DEFAULT_CALLS: u64 = 100_000;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `seed=N`: what all choices follow from; without it the clock is asked.
    pub seed: Option<u64>,
    /// `calls=N`: system calls in all.
    pub calls: u64,
}

/// A word that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord<'a>(pub &'a str);

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fuzz: \"{}\" means nothing; known words: seed=N, calls=N (1 or more)", self.0)
    }
}

impl Options {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// The first word that means nothing.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, UnknownWord<'a>> {
        let mut options = Self { seed: None, calls: DEFAULT_CALLS };
        for word in words {
            options.take(word).ok_or(UnknownWord(word))?;
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> Option<()> {
        match word.split_once('=')? {
            ("seed", number) => self.seed = Some(number.parse().ok()?),
            ("calls", number) => self.calls = number.parse().ok().filter(|&calls| calls > 0)?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_CALLS, Options, UnknownWord};

    #[test]
    fn words_come_in_any_order() {
        let check = |line: &'static str, expected| {
            assert_eq!(Options::parse(line.split_ascii_whitespace()), expected, "{line:?}");
        };
        check("", Ok(Options { seed: None, calls: DEFAULT_CALLS }));
        check("seed=7", Ok(Options { seed: Some(7), calls: DEFAULT_CALLS }));
        check("calls=5 seed=18446744073709551615", Ok(Options { seed: Some(u64::MAX), calls: 5 }));
        check("calls=0", Err(UnknownWord("calls=0")));
        check("seed=5 seeds=5", Err(UnknownWord("seeds=5")));
        check("fast", Err(UnknownWord("fast")));
    }
}
