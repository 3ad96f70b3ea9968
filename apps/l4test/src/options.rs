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
    /// `run=FILTER`: only tests with this text in their name.
    pub filter: &'a str,
}

/// What `help` prints.
pub const HELP: &str = "\
l4test runs the tests of its chapters, one after another, and ends with `N passed, N failed` and status 0 or 1.
  run=FILTER  only tests with this text in their name, as in run=ipc::
  list        name the tests below the clauses of the specification, and run none
  json        a JSON object a line for each test
  ktap        Kernel Test Anything Protocol, version 1
  keys        read keys through the kernel and say which, up to q and one more
  help        this text";

/// A word that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord<'a>(pub &'a str);

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l4test: \"{}\" means nothing; known words: help, list, json, ktap, keys, run=FILTER", self.0)
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
            match word {
                "help" => options.is_help = true,
                "list" => options.is_list = true,
                "json" => options.format = Format::Json,
                "ktap" => options.format = Format::Ktap,
                "keys" => options.reads_keys = true,
                _ => options.filter = word.strip_prefix("run=").ok_or(UnknownWord(word))?,
            }
        }
        Ok(options)
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
        check("run=a list", Ok(Options { is_list: true, filter: "a", ..all }));
        check("run=", Ok(all));
    }

    #[test]
    fn unknown_words_are_named() {
        check("list speed", Err(UnknownWord("speed")));
        check("list=1", Err(UnknownWord("list=1")));
        check("run", Err(UnknownWord("run")));
        check("KTAP", Err(UnknownWord("KTAP")));
    }

    #[test]
    fn each_word_is_in_the_help_and_in_the_error() {
        for word in ["run=FILTER", "list", "json", "ktap", "help"] {
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
