//! The command line: words in any order.

use core::fmt;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// A line a test, for people.
    #[default]
    Plain,
    /// A JSON object a line.
    Json,
    /// Kernel Test Anything Protocol, version 1.
    Ktap,
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options<'a> {
    /// `help`: say what may be said instead of running anything.
    pub is_help: bool,
    /// `list`: name the tests instead of running them.
    pub is_list: bool,
    /// `json`, `ktap`: the last of them counts.
    pub format: Format,
    /// `keys`: read keys instead.
    pub reads_keys: bool,
    /// `kernel`: print what the kernel says of itself instead.
    pub tells_kernel: bool,
    /// `screen`: print what turns on the text screen instead.
    pub shows_screen: bool,
    /// `run=FILTER`: only tests with this text in their name.
    pub filter: &'a str,
    /// `spread=SEED`: threads run on processors that follow from the seed.
    pub spread: Option<u64>,
}

/// What `help` prints.
pub const HELP: &str = "\
l4test runs the tests of its chapters, one after another, and ends with `N passed, N failed` and status 0 or 1.
  run=FILTER  only tests with this text in their name, as in run=ipc::
  spread=SEED threads of tests run on processors that follow from this number
  list        name the tests below the clauses of the specification, and run none
  json        a JSON object a line for each test
  ktap        Kernel Test Anything Protocol, version 1
  keys        read keys through the kernel and say which, up to q and one more
  kernel      print what the kernel says of itself
  screen      print what turns in the corner of the text screen
  help        this text";

/// A word that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord<'a>(pub &'a str);

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "l4test: \"{}\" means nothing; known words: help, list, json, ktap, keys, kernel, screen, run=FILTER, spread=SEED",
            self.0
        )
    }
}

impl<'a> Options<'a> {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// The first word that means nothing.
    pub fn parse(words: impl Iterator<Item = &'a str>) -> Result<Self, UnknownWord<'a>> {
        let mut options = Self::default();
        for word in words {
            options.take(word).ok_or(UnknownWord(word))?;
        }
        Ok(options)
    }

    fn take(&mut self, word: &'a str) -> Option<()> {
        match word.split_once('=') {
            None => match word {
                "help" => self.is_help = true,
                "list" => self.is_list = true,
                "json" => self.format = Format::Json,
                "ktap" => self.format = Format::Ktap,
                "keys" => self.reads_keys = true,
                "kernel" => self.tells_kernel = true,
                "screen" => self.shows_screen = true,
                _ => return None,
            },
            Some(("run", filter)) => self.filter = filter,
            Some(("spread", seed)) => self.spread = Some(seed.parse().ok()?),
            Some(_) => return None,
        }
        Some(())
    }

    /// Whether the test is one of those asked for.
    pub fn includes(&self, name: &str) -> bool {
        name.contains(self.filter)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{Format, HELP, Options, UnknownWord};

    fn check(line: &'static str, expected: Result<Options<'static>, UnknownWord<'static>>) {
        assert_eq!(Options::parse(line.split_ascii_whitespace()), expected, "{line:?}");
    }

    #[test]
    fn words_come_in_any_order() {
        let all = Options::default();
        check("", Ok(all));
        check("list", Ok(Options { is_list: true, ..all }));
        check("help", Ok(Options { is_help: true, ..all }));
        check("json run=ipc::", Ok(Options { format: Format::Json, filter: "ipc::", ..all }));
        check("run=ipc ktap", Ok(Options { format: Format::Ktap, filter: "ipc", ..all }));
        check("json ktap", Ok(Options { format: Format::Ktap, ..all }));
        check("keys", Ok(Options { reads_keys: true, ..all }));
        check("kernel", Ok(Options { tells_kernel: true, ..all }));
        check("screen", Ok(Options { shows_screen: true, ..all }));
        check("run=a list", Ok(Options { is_list: true, filter: "a", ..all }));
        check("run=", Ok(all));
        check("run=a=b", Ok(Options { filter: "a=b", ..all }));
        check("spread=0 run=ipc", Ok(Options { spread: Some(0), filter: "ipc", ..all }));
        check("spread=18446744073709551615", Ok(Options { spread: Some(u64::MAX), ..all }));
    }

    #[test]
    fn unknown_words_are_named() {
        check("list speed", Err(UnknownWord("speed")));
        check("list=1", Err(UnknownWord("list=1")));
        check("run", Err(UnknownWord("run")));
        check("KTAP", Err(UnknownWord("KTAP")));
        check("spread", Err(UnknownWord("spread")));
        check("spread=-1", Err(UnknownWord("spread=-1")));
        check("spread=", Err(UnknownWord("spread=")));
    }

    #[test]
    fn each_word_is_in_the_help_and_in_the_error() {
        for word in ["run=FILTER", "spread=SEED", "list", "json", "ktap", "keys", "kernel", "screen", "help"] {
            let starts = |line: &str| line.trim_start().starts_with(word);
            assert!(HELP.lines().any(starts) && UnknownWord("x").to_string().contains(word), "{word}");
        }
    }

    #[test]
    fn filter_is_any_part_of_the_name() {
        let includes = |filter, name| Options { filter, ..Options::default() }.includes(name);
        assert!(includes("", "ipc::words") && includes("c::w", "ipc::words") && !includes("kip", "ipc::words"));
    }
}
