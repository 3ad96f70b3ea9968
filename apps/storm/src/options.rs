//! The command line: words in any order.

use core::fmt;

/// Operations if nobody says how many.
pub const DEFAULT_OPS: u64 = 20_000;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `seed=N`: what all choices follow from; without it the clock is asked.
    pub seed: Option<u64>,
    /// `ops=N`: operations in all.
    pub ops: u64,
}

/// A word that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord<'a>(pub &'a str);

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "storm: \"{}\" means nothing; known words: seed=N, ops=N (1 or more)", self.0)
    }
}

impl Options {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// The first word that means nothing.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, UnknownWord<'a>> {
        let mut options = Self { seed: None, ops: DEFAULT_OPS };
        for word in words {
            options.take(word).ok_or(UnknownWord(word))?;
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> Option<()> {
        match word.split_once('=')? {
            ("seed", number) => self.seed = Some(number.parse().ok()?),
            ("ops", number) => self.ops = number.parse().ok().filter(|&ops| ops > 0)?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_OPS, Options, UnknownWord};

    #[test]
    fn words_come_in_any_order() {
        let check = |line: &'static str, expected| {
            assert_eq!(Options::parse(line.split_ascii_whitespace()), expected, "{line:?}");
        };
        check("", Ok(Options { seed: None, ops: DEFAULT_OPS }));
        check("seed=7", Ok(Options { seed: Some(7), ops: DEFAULT_OPS }));
        check("ops=5 seed=18446744073709551615", Ok(Options { seed: Some(u64::MAX), ops: 5 }));
        check("ops=0", Err(UnknownWord("ops=0")));
        check("seed=5 seeds=5", Err(UnknownWord("seeds=5")));
        check("seed=-1", Err(UnknownWord("seed=-1")));
        check("fast", Err(UnknownWord("fast")));
    }
}
