//! The command line of a program that draws: words in any order.

use core::fmt;

/// What a program can be told, and what holds if it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Its name.
    pub program: &'static str,
    /// The word that says how much it does.
    pub count: &'static str,
    /// How much that is if nobody says so.
    pub default_count: u64,
}

/// What a command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `seed=N`: what all choices follow from; without it the clock is asked.
    pub seed: Option<u64>,
    /// How much is to be done; at least 1.
    pub count: u64,
}

/// A word that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord<'a> {
    line: CommandLine,
    word: &'a str,
}

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line: CommandLine { program, count, .. }, word } = self;
        write!(f, "{program}: \"{word}\" means nothing; known words: seed=N, {count}=N (1 or more)")
    }
}

impl CommandLine {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// The first word that means nothing.
    pub fn parse<'a>(self, words: impl Iterator<Item = &'a str>) -> Result<Options, UnknownWord<'a>> {
        let mut options = Options { seed: None, count: self.default_count };
        for word in words {
            self.take(&mut options, word).ok_or(UnknownWord { line: self, word })?;
        }
        Ok(options)
    }

    fn take(self, options: &mut Options, word: &str) -> Option<()> {
        match word.split_once('=')? {
            ("seed", number) => options.seed = Some(number.parse().ok()?),
            (name, number) if name == self.count => options.count = number.parse().ok().filter(|&count| count > 0)?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{CommandLine, Options};

    const LINE: CommandLine = CommandLine { program: "draw", count: "ops", default_count: 7 };

    #[test]
    fn words_come_in_any_order() {
        let check = |line: &str, seed, count| {
            assert_eq!(LINE.parse(line.split_ascii_whitespace()), Ok(Options { seed, count }), "{line:?}");
        };
        check("", None, 7);
        check("seed=7", Some(7), 7);
        check("ops=5 seed=18446744073709551615", Some(u64::MAX), 5);
        check("ops=00000000000000000012", None, 12);
    }

    #[test]
    fn other_words_are_refused_by_name() {
        for (line, word) in [
            ("ops=0", "ops=0"),
            ("seed=5 seeds=5", "seeds=5"),
            ("seed=-1", "seed=-1"),
            ("calls=5", "calls=5"),
            ("fast ops=1", "fast"),
        ] {
            let refused = LINE.parse(line.split_ascii_whitespace()).expect_err(line).to_string();
            assert_eq!(refused, std::format!("draw: \"{word}\" means nothing; known words: seed=N, ops=N (1 or more)"),);
        }
    }
}
