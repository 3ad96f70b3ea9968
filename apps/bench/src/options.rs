//! The command line.

use core::fmt;

use measure::figure::Tick;

/// What can be measured, with what an operation is.
pub const BENCHES: [(&str, &str); 16] = [
    ("null_call", "ThreadSwitch to oneself: entry and exit"),
    ("thread_switch", "ThreadSwitch to another thread and back"),
    ("system_clock", "SystemClock"),
    ("exchange_registers", "ExchangeRegisters of a waiting thread"),
    ("schedule", "Schedule of a waiting thread"),
    ("ipc_general", "a call and its reply that the fast path does not take"),
    ("send", "a send without receive phase to a thread that waits and is not above the sender"),
    ("string_copy", "a string to another space and the reply; the value is per KiB"),
    ("page_fault", "a fault, the pager's mapping of 4 KiB into a table that is there, resumption"),
    ("unmap", "Unmap; the value is per page"),
    ("thread_create", "ThreadControl, and what else it takes to have a thread"),
    ("thread_delete", "ThreadControl"),
    ("interrupt", "an interrupt, its handler in user mode, back to what was interrupted"),
    ("preemption", "the end of a time slice: another thread of the same priority runs"),
    ("timeout", "a timeout wakes a thread, which waits for the next"),
    ("idle", "a second in which nobody is ready; the value is what the kernel executes"),
];

/// Most rounds of a measurement.
pub const ROUNDS_MAX: u64 = 1_000_000;

/// The command line, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether each of [`BENCHES`] is to be run.
    chosen: [bool; BENCHES.len()],
    /// Operations per figure, unless what is measured sets its own number.
    pub rounds: u64,
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
        let mut options = Self { chosen: [false; BENCHES.len()], rounds: 48, is_json: false, tick: Tick::Tsc };
        for word in words {
            options.take(word).ok_or(BadWord(word))?;
        }
        if options.chosen == [false; BENCHES.len()] {
            options.chosen = [true; BENCHES.len()];
        }
        Ok(options)
    }

    /// Takes one word in; `None` if it is none of ours.
    fn take(&mut self, word: &str) -> Option<()> {
        match word.split_once('=') {
            Some(("rounds", number)) => {
                self.rounds = number.parse().ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))?;
            }
            Some(("tick", unit)) => self.tick = Tick::of_name(unit)?,
            Some(_) => return None,
            None if word == "json" => self.is_json = true,
            None => self.chosen[BENCHES.iter().position(|(name, _)| *name == word)?] = true,
        }
        Some(())
    }

    /// What is to be measured: the numbers in [`BENCHES`].
    pub fn chosen(&self) -> impl Iterator<Item = usize> {
        self.chosen.into_iter().enumerate().filter_map(|(index, is_chosen)| is_chosen.then_some(index))
    }
}

/// A word of the command line that means nothing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWord<'a>(&'a str);

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bench: bad argument '{}'; known are ", self.0)?;
        BENCHES.iter().try_for_each(|(name, _)| write!(f, "{name}, "))?;
        write!(f, "json, rounds=N (1 to {ROUNDS_MAX})")
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec::Vec;

    use measure::figure::Tick;

    use super::{BENCHES, BadWord, Options};

    fn parse(line: &str) -> Result<Options, BadWord<'_>> {
        Options::parse(line.split_ascii_whitespace())
    }

    #[test]
    fn words_choose_what_is_measured() {
        let chosen =
            |line: &str| -> Vec<&str> { parse(line).expect("good").chosen().map(|index| BENCHES[index].0).collect() };
        assert_eq!(chosen("json").len(), BENCHES.len());
        assert_eq!(chosen("unmap json null_call"), ["null_call", "unmap"]);
    }

    #[test]
    fn values_are_taken() {
        let options = parse("rounds=7 tick=cycles json").expect("good");
        assert_eq!((options.rounds, options.tick, options.is_json), (7, Tick::Cycles, true));
    }

    #[test]
    fn bad_words_are_named() {
        for line in ["foo", "rounds=0", "rounds=x", "tick=hour", "unmap=1", "Unmap"] {
            let error = format!("{}", parse(line).expect_err(line));
            assert!(error.contains(&format!("'{line}'")) && error.contains("null_call, "), "{error}");
        }
    }
}
