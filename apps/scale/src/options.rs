//! The command line.

use core::fmt;

use measure::figure::Tick;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The time of a message between each two processors.
    Latency,
    /// Messages of independent pairs, each on a processor of its own.
    Pairs,
    /// Moves to another processor.
    Migrate,
    /// Unmap of a page that several processors use.
    Unmap,
    /// A page fault whose pager is elsewhere.
    Fault,
}

impl Part {
    /// All parts, in the order in which they are run.
    pub const ALL: [Self; 5] = [Self::Latency, Self::Pairs, Self::Migrate, Self::Unmap, Self::Fault];

    /// The word of the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Pairs => "pairs",
            Self::Migrate => "migrate",
            Self::Unmap => "unmap",
            Self::Fault => "fault",
        }
    }
}

/// Most rounds of a measurement.
pub const ROUNDS_MAX: u64 = 1_000_000;

/// Most pairs: one for each processor of the largest machine.
pub const PAIRS_MAX: usize = 255;

/// The command line, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether each of [`Part::ALL`] is to be run.
    chosen: [bool; Part::ALL.len()],
    /// Operations per figure.
    pub rounds: u64,
    /// So many pairs and no other numbers of them; 0: from one to as many as there are processors.
    pub pairs: usize,
    /// Print a JSON object per figure.
    pub is_json: bool,
    /// What a tick is.
    pub tick: Tick,
}

impl Options {
    /// Understands a command line.
    ///
    /// # Errors
    /// The first word that is none of ours.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, BadWord<'a>> {
        let mut options =
            Self { chosen: [false; Part::ALL.len()], rounds: 100, pairs: 0, is_json: false, tick: Tick::Tsc };
        for word in words {
            options.take(word).ok_or(BadWord(word))?;
        }
        if options.chosen == [false; Part::ALL.len()] {
            options.chosen = [true; Part::ALL.len()];
        }
        Ok(options)
    }

    /// Takes one word in; `None` if it is none of ours.
    fn take(&mut self, word: &str) -> Option<()> {
        match word.split_once('=') {
            Some(("rounds", number)) => {
                self.rounds = number.parse().ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))?;
            }
            Some(("pairs", number)) => {
                self.pairs = number.parse().ok().filter(|pairs| (1..=PAIRS_MAX).contains(pairs))?;
                self.chosen[Part::Pairs as usize] = true;
            }
            Some(("tick", unit)) => self.tick = Tick::of_name(unit)?,
            Some(_) => return None,
            None if word == "json" => self.is_json = true,
            None => self.chosen[Part::ALL.iter().position(|part| part.name() == word)?] = true,
        }
        Some(())
    }

    /// The parts to be run.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().zip(self.chosen).filter_map(|(part, is_chosen)| is_chosen.then_some(part))
    }
}

/// A word of the command line that means nothing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWord<'a>(&'a str);

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scale: bad argument '{}'; known are ", self.0)?;
        Part::ALL.iter().try_for_each(|part| write!(f, "{}, ", part.name()))?;
        write!(f, "json, rounds=N (1 to {ROUNDS_MAX}), pairs=N (1 to {PAIRS_MAX})")
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec::Vec;

    use measure::figure::Tick;

    use super::{BadWord, Options, Part};

    fn parse(line: &str) -> Result<Options, BadWord<'_>> {
        Options::parse(line.split_ascii_whitespace())
    }

    #[test]
    fn words_choose_parts() {
        let chosen = |line: &str| -> Vec<Part> { parse(line).expect("good").parts().collect() };
        assert_eq!(chosen("json"), Part::ALL);
        assert_eq!(chosen("fault latency"), [Part::Latency, Part::Fault]);
    }

    #[test]
    fn values_are_taken() {
        let options = parse("rounds=7 tick=cycles json").expect("good");
        assert_eq!((options.rounds, options.tick, options.is_json), (7, Tick::Cycles, true));
    }

    #[test]
    fn bad_words_are_named() {
        for line in ["foo", "rounds=0", "rounds=x", "tick=hour", "pairs=0", "Pairs"] {
            let error = format!("{}", parse(line).expect_err(line));
            assert!(error.contains(&format!("'{line}'")) && error.contains("latency, pairs"), "{error}");
        }
    }
}
