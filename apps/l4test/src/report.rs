//! The lines that are printed: some before the first test, some for each test, some at the end.

use core::fmt::{self, Write};

use crate::options::Format;
use crate::placement::Placement;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// As expected.
    Ok,
    /// Not as expected, and why.
    Failed(&'a str),
    /// It cannot run here, and why.
    Skipped(&'a str),
}

/// A test that ran.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// Its name.
    pub name: &'a str,
    /// What of the specification it is about.
    pub clause: &'a str,
    /// How it ended.
    pub verdict: Verdict<'a>,
    /// How long it took, milliseconds.
    pub ms: u64,
}

/// Something to be printed in a format, without the last line's end.
#[derive(Clone, Copy, Debug)]
pub struct Printed<T>(pub T, pub Format);

/// What comes before the results.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// How many tests there will be.
    pub tests: usize,
    /// Where their threads run, unless they all run where the first one does.
    pub placement: Option<Placement>,
}

impl fmt::Display for Printed<Head> {
    /// The seed, and what the format demands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { tests, placement } = self.0;
        let is_ktap = self.1 == Format::Ktap;
        if is_ktap {
            write!(f, "KTAP version 1\n1..{tests}\n")?;
        }
        match placement {
            Some(Placement { seed, processors }) => {
                let mark = if is_ktap { "# " } else { "" };
                writeln!(f, "{mark}l4test: spread={seed} processors={processors}")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Printed<Line<'_>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Format::Plain => self.0.plain(f),
            Format::Json => self.0.json(f),
            Format::Ktap => self.0.ktap(f),
        }
    }
}

impl Line<'_> {
    fn plain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "test {} ... ", self.name)?;
        match self.verdict {
            Verdict::Ok => f.write_str("ok"),
            Verdict::Failed(why) => write!(f, "FAILED: {why}"),
            Verdict::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }

    fn json(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (result, why) = match self.verdict {
            Verdict::Ok => ("ok", None),
            Verdict::Failed(why) => ("failed", Some(why)),
            Verdict::Skipped(why) => ("skipped", Some(why)),
        };
        let (name, clause, ms) = (Quoted(self.name), Quoted(self.clause), self.ms);
        write!(f, "{{\"test\":{name},\"clause\":{clause},\"result\":\"{result}\",\"ms\":{ms}")?;
        if let Some(why) = why {
            write!(f, ",\"why\":{}", Quoted(why))?;
        }
        f.write_char('}')
    }

    /// The reason of a failure is a diagnostic line before the result, that of a skip belongs to its directive.
    fn ktap(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, name) = (self.number, OneLine(self.name));
        match self.verdict {
            Verdict::Ok => write!(f, "ok {number} - {name}"),
            Verdict::Failed(why) => {
                write!(f, "# {}: {}\nnot ok {number} - {name}", OneLine(self.clause), OneLine(why))
            }
            Verdict::Skipped(why) => write!(f, "ok {number} - {name} # SKIP {}", OneLine(why)),
        }
    }
}

/// Text without line ends.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| f.write_char(if character.is_control() { ' ' } else { character }))
    }
}

/// Text as a JSON string (RFC 8259, Strings).
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                '\0'..='\x1F' => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        f.write_char('"')
    }
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that cannot run here.
    pub skipped: usize,
}

impl Totals {
    /// Counts one more test.
    pub fn count(&mut self, verdict: Verdict<'_>) {
        match verdict {
            Verdict::Ok => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
        }
    }
}

impl fmt::Display for Printed<Totals> {
    /// The last line says how many passed and failed. How many were skipped has a line of its own, if any were.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { passed, failed, skipped } = self.0;
        match self.1 {
            Format::Ktap => write!(f, "# Totals: pass:{passed} fail:{failed} skip:{skipped}"),
            Format::Plain | Format::Json if skipped > 0 => {
                write!(f, "{skipped} skipped\n{passed} passed, {failed} failed")
            }
            Format::Plain | Format::Json => write!(f, "{passed} passed, {failed} failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use super::{Format, Head, Line, Placement, Printed, Totals, Verdict};

    const OK: Line<'static> =
        Line { number: 7, name: "ipc::words", clause: "X.2, Ipc, phases", verdict: Verdict::Ok, ms: 3 };

    fn line(verdict: Verdict<'_>, format: Format) -> String {
        Printed(Line { verdict, ..OK }, format).to_string()
    }

    #[test]
    fn lines_say_name_and_result() {
        let check = |verdict, expected| assert_eq!(line(verdict, Format::Plain), expected);
        check(Verdict::Ok, "test ipc::words ... ok");
        check(Verdict::Failed("MR1: 2"), "test ipc::words ... FAILED: MR1: 2");
        check(Verdict::Skipped("one processor"), "test ipc::words ... skipped: one processor");
    }

    #[test]
    fn the_head_tells_the_seed() {
        let check = |placement, format, expected| {
            assert_eq!(Printed(Head { tests: 9, placement }, format).to_string(), expected, "{format:?}");
        };
        let placement = Some(Placement { seed: 5, processors: 4 });
        for format in [Format::Plain, Format::Json] {
            check(None, format, "");
            check(placement, format, "l4test: spread=5 processors=4\n");
        }
        check(None, Format::Ktap, "KTAP version 1\n1..9\n");
        check(placement, Format::Ktap, "KTAP version 1\n1..9\n# l4test: spread=5 processors=4\n");
    }

    #[test]
    fn json_lines_are_objects() {
        let check = |verdict, expected| assert_eq!(line(verdict, Format::Json), expected);
        check(Verdict::Ok, r#"{"test":"ipc::words","clause":"X.2, Ipc, phases","result":"ok","ms":3}"#);
        check(
            Verdict::Failed("a \"b\" \\\n"),
            r#"{"test":"ipc::words","clause":"X.2, Ipc, phases","result":"failed","ms":3,"why":"a \"b\" \\\u000a"}"#,
        );
        check(
            Verdict::Skipped("one processor"),
            r#"{"test":"ipc::words","clause":"X.2, Ipc, phases","result":"skipped","ms":3,"why":"one processor"}"#,
        );
    }

    #[test]
    fn ktap_lines_have_number_name_and_directive() {
        let check = |verdict, expected| assert_eq!(line(verdict, Format::Ktap), expected);
        check(Verdict::Ok, "ok 7 - ipc::words");
        check(Verdict::Failed("MR1:\n2"), "# X.2, Ipc, phases: MR1: 2\nnot ok 7 - ipc::words");
        check(Verdict::Skipped("one\nprocessor"), "ok 7 - ipc::words # SKIP one processor");
    }

    #[test]
    fn last_line_counts_what_passed_and_failed() {
        let mut totals = Totals::default();
        [Verdict::Ok, Verdict::Failed("x"), Verdict::Ok].into_iter().for_each(|verdict| totals.count(verdict));
        assert_eq!(Printed(totals, Format::Plain).to_string(), "2 passed, 1 failed");
        totals.count(Verdict::Skipped("y"));
        assert_eq!(Printed(totals, Format::Json).to_string(), "1 skipped\n2 passed, 1 failed");
        assert_eq!(Printed(totals, Format::Ktap).to_string(), "# Totals: pass:2 fail:1 skip:1");
    }
}
