//! Results in the Kernel Test Anything Protocol, version 1, as far as a program without nested tests prints them.

use anyhow::{Context, Result, ensure};

/// A result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub name: String,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Ok,
    NotOk,
    Skip,
}

/// The results in a console's text, which may say other things before the version line. All that follows it must be
/// lines of the protocol, and as many results as planned.
pub fn parse(console: &str) -> Result<Vec<Entry>> {
    let mut lines = console.lines().skip_while(|line| *line != "KTAP version 1");
    lines.next().context("there is no line `KTAP version 1`")?;
    let plan = lines.next().and_then(|line| line.strip_prefix("1..")).context("no plan follows the version line")?;
    let planned: usize = plan.parse().with_context(|| format!("`1..{plan}` is no plan"))?;
    let mut entries = Vec::new();
    for line in lines.filter(|line| !line.starts_with('#')) {
        entries.push(entry(line, entries.len() + 1).with_context(|| format!("in the line `{line}`"))?);
    }
    ensure!(entries.len() == planned, "{planned} results were planned, {} came", entries.len());
    Ok(entries)
}

/// A line `ok N - NAME`, `not ok N - NAME` or `ok N - NAME # SKIP REASON`.
fn entry(line: &str, number: usize) -> Result<Entry> {
    let (is_ok, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ").context("it is neither a result nor a diagnostic line")?),
    };
    let (own_number, description) = rest.split_once(" - ").context("it has no description")?;
    ensure!(own_number == number.to_string(), "it should have the number {number}");
    let (name, directive) = match description.split_once(" # ") {
        Some((name, directive)) => (name, Some(directive)),
        None => (description, None),
    };
    ensure!(!name.is_empty() && !name.contains('#'), "its description is not one of the protocol");
    let verdict = match directive {
        None if is_ok => Verdict::Ok,
        None => Verdict::NotOk,
        Some(directive) => {
            let reason = directive.strip_prefix("SKIP").filter(|_| is_ok).context("the directive is none of ours")?;
            ensure!(reason.trim().len() > 3, "it is skipped without a reason");
            Verdict::Skip
        }
    };
    Ok(Entry { name: name.to_owned(), verdict })
}

#[cfg(test)]
mod tests {
    use super::{Verdict, parse};

    const CONSOLE: &str = "\
Marcona
KTAP version 1
1..3
ok 1 - ipc::words
# X.2, Ipc, phases: MR1 is 2
not ok 2 - ipc::wait
ok 3 - processors::two # SKIP there is 1 processor
# Totals: pass:1 fail:1 skip:1
";

    #[test]
    fn results_are_read() {
        let entries = parse(CONSOLE).expect("this is the protocol");
        let rows: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.verdict)).collect();
        assert_eq!(
            rows,
            [("ipc::words", Verdict::Ok), ("ipc::wait", Verdict::NotOk), ("processors::two", Verdict::Skip)]
        );
    }

    #[test]
    fn other_texts_are_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            let error = parse(&CONSOLE.replace(from, to)).expect_err(expected);
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        };
        check("KTAP version 1", "TAP version 14", "no line `KTAP version 1`");
        check("1..3\n", "", "no plan");
        check("1..3", "1..three", "no plan");
        check("1..3", "1..4", "4 results were planned, 3 came");
        check("ok 1 - ipc::words\n", "", "number 1");
        check("ok 3", "ok 4", "number 3");
        check("ok 1 - ", "ok 1 ", "no description");
        check("ok 1 - ipc::words", "panic", "neither a result");
        check("words", "#words", "description");
        check("SKIP there is 1 processor", "SKIP", "without a reason");
        check("SKIP there is 1 processor", "XFAIL later", "none of ours");
        check("# X.2", "X.2", "neither a result");
    }
}
