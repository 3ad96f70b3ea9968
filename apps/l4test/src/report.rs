//! The lines that are printed: one for each test, one at the end.

use core::fmt::{self, Write};

/// A line about a test that ran.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Name of the test.
    pub name: &'a str,
    /// What of the specification it is about.
    pub clause: &'a str,
    /// Why it failed; `None` if it did not.
    pub why: Option<&'a str>,
    /// How long it took, milliseconds.
    pub ms: u64,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            None => write!(f, "test {} ... ok", self.name),
            Some(why) => write!(f, "test {} ... FAILED: {why}", self.name),
        }
    }
}

/// The same as a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct JsonLine<'a>(pub Line<'a>);

impl fmt::Display for JsonLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { name, clause, why, ms } = self.0;
        let result = if why.is_some() { "failed" } else { "ok" };
        write!(f, "{{\"test\":{},\"clause\":{},\"result\":\"{result}\",\"ms\":{ms}", Quoted(name), Quoted(clause))?;
        if let Some(why) = why {
            write!(f, ",\"why\":{}", Quoted(why))?;
        }
        f.write_char('}')
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
}

impl Totals {
    /// Counts one more test.
    pub fn count(&mut self, is_ok: bool) {
        if is_ok {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{JsonLine, Line, Totals};

    const OK: Line<'static> = Line { name: "ipc::words", clause: "X.2, Ipc", why: None, ms: 3 };

    #[test]
    fn lines_say_name_and_result() {
        assert_eq!(OK.to_string(), "test ipc::words ... ok");
        assert_eq!(Line { why: Some("MR1: 2"), ..OK }.to_string(), "test ipc::words ... FAILED: MR1: 2");
    }

    #[test]
    fn json_lines_are_objects() {
        let ok = r#"{"test":"ipc::words","clause":"X.2, Ipc","result":"ok","ms":3}"#;
        assert_eq!(JsonLine(OK).to_string(), ok);
        let failed = r#"{"test":"ipc::words","clause":"X.2, Ipc","result":"failed","ms":3,"why":"a \"b\" \\\u000a"}"#;
        assert_eq!(JsonLine(Line { why: Some("a \"b\" \\\n"), ..OK }).to_string(), failed);
    }

    #[test]
    fn last_line_counts_both() {
        let mut totals = Totals::default();
        [true, false, true].into_iter().for_each(|is_ok| totals.count(is_ok));
        assert_eq!(totals.to_string(), "2 passed, 1 failed");
    }
}
