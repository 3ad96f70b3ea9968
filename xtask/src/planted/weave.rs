//! Sources with all bugs in them at once, each behind a number: one build serves them all, and a run has the bug that the
//! environment names.

use anyhow::{Result, ensure};

use super::Bug;

/// The variable with the number of the bug that a run has; 0 or nothing: none.
pub const VARIABLE: &str = "PLANTED";

/// What is added to a crate that has bugs.
pub const MODULE: &str = r#"
/// Which bug this run has.
#[doc(hidden)]
pub mod planted {
    extern crate std;

    static CHOSEN: std::sync::OnceLock<usize> = std::sync::OnceLock::new();

    /// Whether it is this one.
    pub fn is(number: usize) -> bool {
        let read = || std::env::var("PLANTED").ok().and_then(|word| word.parse().ok()).unwrap_or(0);
        *CHOSEN.get_or_init(read) == number
    }
}
"#;

/// Where a bug stands in its file.
pub fn place(text: &str, bug: &Bug) -> Result<std::ops::Range<usize>> {
    let mut anchors = text.match_indices(bug.after);
    let anchor = anchors.next().map(|(at, _)| at);
    ensure!(anchor.is_some() && anchors.next().is_none(), "`{}` does not stand once in {}", bug.after, bug.file);
    let anchor = anchor.unwrap_or_default();
    let found = text[anchor..].find(bug.old).map(|at| anchor + at);
    ensure!(found.is_some(), "`{}` does not stand behind `{}` in {}", bug.old, bug.after, bug.file);
    let begin = found.unwrap_or_default();
    Ok(begin..begin + bug.old.len())
}

/// The text of a file with these bugs, each with its number, in place of what they replace.
pub fn weave<'a>(text: &str, bugs: impl Iterator<Item = (usize, &'a Bug)>) -> Result<String> {
    let mut places = Vec::new();
    for (number, bug) in bugs {
        places.push((place(text, bug)?, number, bug));
    }
    places.sort_by_key(|(range, ..)| range.start);
    let mut woven = String::new();
    let mut done = 0;
    for (range, number, bug) in places {
        ensure!(range.start >= done, "{} stands in another bug", bug.name);
        woven.push_str(&text[done..range.start]);
        let choice = format!("if crate::planted::is({number}) {{ {} }} else {{ {} }}", bug.new, bug.old);
        let is_statement = bug.old.ends_with(';');
        woven.push_str(&if is_statement { choice } else { format!("({choice})") });
        done = range.end;
    }
    woven.push_str(&text[done..]);
    Ok(woven)
}

/// The text of a file with this bug alone, in place of what it replaces.
pub fn replace(text: &str, bug: &Bug) -> Result<String> {
    let range = place(text, bug)?;
    Ok([&text[..range.start], bug.new, &text[range.end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Kind;

    const fn bug(name: &'static str, after: &'static str, old: &'static str, new: &'static str) -> Bug {
        Bug { name, kind: Kind::Mutation, file: "a.rs", after, old, new, story: "" }
    }

    const TEXT: &str = "fn a() { x(); 1 < 2 }\nfn b() { x(); 1 < 2 }\n";

    #[test]
    fn expressions_and_statements_are_put_behind_numbers() {
        let bugs = [bug("less", "fn b", "1 < 2", "1 <= 2"), bug("none", "fn b", "x();", "")];
        let woven = weave(TEXT, (7..).zip(&bugs)).expect("both stand there");
        assert_eq!(
            woven,
            "fn a() { x(); 1 < 2 }\n\
             fn b() { if crate::planted::is(8) {  } else { x(); } (if crate::planted::is(7) { 1 <= 2 } else { 1 < 2 }) }\n"
        );
    }

    #[test]
    fn one_bug_alone_takes_the_place_of_what_was_there() {
        let replaced = replace(TEXT, &bug("none", "fn b", "x();", "")).expect("it stands there");
        assert_eq!(replaced, "fn a() { x(); 1 < 2 }\nfn b() {  1 < 2 }\n");
    }

    #[test]
    fn what_does_not_stand_there_is_told() {
        let check = |bugs: &[Bug], what: &str| {
            let error = weave(TEXT, (1..).zip(bugs)).expect_err("it does not stand there").to_string();
            assert!(error.contains(what), "{error}");
        };
        check(&[bug("twice", "x();", "1 < 2", "")], "does not stand once");
        check(&[bug("gone", "fn b", "3", "")], "does not stand behind");
        check(&[bug("one", "fn b", "1 < 2", ""), bug("in it", "fn b", "< 2", "")], "stands in another bug");
    }

    #[test]
    fn the_module_reads_the_variable() {
        assert!(MODULE.contains(&format!("\"{VARIABLE}\"")));
    }
}
