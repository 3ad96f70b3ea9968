//! The command line: words in any order.

use core::fmt;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options<'a> {
    /// `list`: name the tests instead of running them.
    pub is_list: bool,
    /// `json`: one JSON object a line for each test.
    pub is_json: bool,
    /// `run=FILTER`: only tests with this text in their name.
    pub filter: &'a str,
}

/// A word that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord<'a>(pub &'a str);

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l4test: \"{}\" means nothing; known words: list, json, run=FILTER", self.0)
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
            match word.split_once('=') {
                None if word == "list" => options.is_list = true,
                None if word == "json" => options.is_json = true,
                Some(("run", filter)) => options.filter = filter,
                _ => return Err(UnknownWord(word)),
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
    use super::{Options, UnknownWord};

    fn check(line: &'static str, expected: Result<Options<'static>, UnknownWord<'static>>) {
        assert_eq!(Options::parse(line.split_ascii_whitespace()), expected, "{line:?}");
    }

    #[test]
    fn words_come_in_any_order() {
        let all = Options::default();
        check("", Ok(all));
        check("list", Ok(Options { is_list: true, ..all }));
        check("json run=ipc::", Ok(Options { is_json: true, filter: "ipc::", ..all }));
        check("run=a list", Ok(Options { is_list: true, filter: "a", ..all }));
        check("run=", Ok(all));
    }

    #[test]
    fn unknown_words_are_named() {
        check("list speed", Err(UnknownWord("speed")));
        check("list=1", Err(UnknownWord("list=1")));
        check("run", Err(UnknownWord("run")));
    }

    #[test]
    fn filter_is_any_part_of_the_name() {
        let includes = |filter, name| Options { filter, ..Options::default() }.includes(name);
        assert!(includes("", "ipc::words") && includes("c::w", "ipc::words") && !includes("kip", "ipc::words"));
    }
}
