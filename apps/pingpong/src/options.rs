//! The command line.

use core::fmt;

use measure::figure::Tick;

/// Most untyped words of a message.
pub const MRS_MAX: u64 = 63;
/// Most rounds of a measurement.
pub const ROUNDS_MAX: u64 = 1_000_000_000;

/// Which two threads call each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In two spaces.
    Inter,
    /// In one space.
    Intra,
    /// In one space, by Lipc.
    Lipc,
    /// In two spaces, on two processors.
    Xcpu,
}

impl Mode {
    /// All modes, in the order in which they are run.
    pub const ALL: [Self; 4] = [Self::Inter, Self::Intra, Self::Lipc, Self::Xcpu];

    /// The word of the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inter => "inter",
            Self::Intra => "intra",
            Self::Lipc => "lipc",
            Self::Xcpu => "xcpu",
        }
    }

    /// What is measured.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Inter => "IPC between two spaces",
            Self::Intra => "IPC in one space",
            Self::Lipc => "Lipc in one space",
            Self::Xcpu => "IPC between two processors",
        }
    }

    /// Whether both threads are in one space.
    pub const fn is_in_one_space(self) -> bool {
        matches!(self, Self::Intra | Self::Lipc)
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table.
    Table,
    /// A sentence per row.
    Lines,
    /// A JSON object per row.
    Json,
}

/// The command line, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether each of [`Mode::ALL`] is to be run.
    pub modes: [bool; Mode::ALL.len()],
    /// Whether modes were named one by one: what cannot be run is an error then.
    pub is_explicit: bool,
    /// Fewest words of a message.
    pub first_mrs: u64,
    /// Most words of a message.
    pub last_mrs: u64,
    /// Round trips per row.
    pub rounds: u64,
    /// Whether to ask what to run.
    pub is_menu: bool,
    /// How to print.
    pub format: Format,
    /// What a tick is.
    pub tick: Tick,
}

impl Options {
    /// What an empty command line means.
    pub const DEFAULT: Self = Self {
        modes: [true, true, false, false],
        is_explicit: false,
        first_mrs: 0,
        last_mrs: MRS_MAX,
        rounds: 1000,
        is_menu: false,
        format: Format::Table,
        tick: Tick::Tsc,
    };

    /// Understands a command line.
    ///
    /// # Errors
    /// The first word that is none of ours.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, BadWord<'a>> {
        let mut options = Self::DEFAULT;
        for word in words {
            options.take(word).ok_or(BadWord(word))?;
        }
        Ok(options)
    }

    /// Takes one word in; `None` if it is none of ours.
    fn take(&mut self, word: &str) -> Option<()> {
        match word.split_once('=') {
            Some(("mrs", range)) => (self.first_mrs, self.last_mrs) = parse_range(range)?,
            Some(("rounds", number)) => {
                self.rounds = number.parse().ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))?;
            }
            Some(("tick", unit)) => self.tick = Tick::of_name(unit)?,
            Some(_) => return None,
            None => self.take_flag(word)?,
        }
        Some(())
    }

    fn take_flag(&mut self, word: &str) -> Option<()> {
        match word {
            "all" => (self.modes, self.is_explicit) = ([true; Mode::ALL.len()], false),
            "menu" => self.is_menu = true,
            "json" => self.format = Format::Json,
            _ => {
                let mode = Mode::ALL.iter().position(|mode| mode.name() == word)?;
                if !self.is_explicit && self.modes == Self::DEFAULT.modes {
                    self.modes = [false; Mode::ALL.len()];
                    self.is_explicit = true;
                }
                self.modes[mode] = true;
            }
        }
        Some(())
    }

    /// The modes to be run.
    pub fn modes(&self) -> impl Iterator<Item = Mode> {
        Mode::ALL.into_iter().zip(self.modes).filter_map(|(mode, is_chosen)| is_chosen.then_some(mode))
    }
}

/// `A..B`, both included, or one number.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last <= MRS_MAX).then_some((first, last))
}

/// A word of the command line that means nothing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWord<'a>(&'a str);

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pingpong: bad argument '{}'; known are inter, intra, lipc, xcpu, all, menu, json, mrs=A..B (0 to {MRS_MAX}), \
             rounds=N (1 to {ROUNDS_MAX})",
            self.0
        )
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec::Vec;

    use super::*;

    fn parse(line: &str) -> Result<Options, BadWord<'_>> {
        Options::parse(line.split_ascii_whitespace())
    }

    #[test]
    fn words_choose_modes() {
        let rows: [(&str, &[Mode]); 8] = [
            ("", &[Mode::Inter, Mode::Intra]),
            ("json mrs=1..2", &[Mode::Inter, Mode::Intra]),
            ("inter", &[Mode::Inter]),
            ("intra inter", &[Mode::Inter, Mode::Intra]),
            ("inter intra xcpu", &[Mode::Inter, Mode::Intra, Mode::Xcpu]),
            ("lipc xcpu", &[Mode::Lipc, Mode::Xcpu]),
            ("all", &Mode::ALL),
            ("all inter", &Mode::ALL),
        ];
        for (line, modes) in rows {
            let chosen: Vec<Mode> = parse(line).expect("good").modes().collect();
            assert_eq!(chosen, modes, "{line}");
        }
    }

    #[test]
    fn values_are_taken() {
        let options = parse("mrs=3..7 rounds=50 json menu tick=instructions").expect("good");
        assert_eq!((options.first_mrs, options.last_mrs, options.rounds), (3, 7, 50));
        assert_eq!((options.format, options.is_menu, options.tick), (Format::Json, true, Tick::Instructions));
        let options = parse("mrs=63").expect("good");
        assert_eq!((options.first_mrs, options.last_mrs), (63, 63));
    }

    #[test]
    fn bad_words_are_named() {
        let lines = [
            "foo",
            "mrs=",
            "mrs=5..4",
            "mrs=0..64",
            "mrs=a..b",
            "rounds=0",
            "rounds=-1",
            "rounds=2000000000",
            "tick=hour",
            "Inter",
            "inter=1",
        ];
        for line in lines {
            let error = parse(line).expect_err(line);
            assert!(format!("{error}").contains(&format!("'{line}'")), "{error}");
        }
    }
}
