//! l4test: one boot, many tests. Each line of result that it prints becomes a test of ours.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

use super::boots::{self, PATIENCE};
use super::{Filter, Job, Outcome, Verdict};
use crate::qemu::{Console, End, Module};

/// The group of its tests.
pub const GROUP: &str = "l4test";

/// The name of the boot as a whole.
const WHOLE: &str = "boot::l4test_ends_with_its_numbers";

/// Boots l4test with what `filter` leaves of it.
pub fn job(filter: &Filter) -> Job {
    let args = args(filter);
    Box::new(move |lab| {
        let started = Instant::now();
        let mut machine = boots::machine(lab, "max", 256);
        machine.modules[2] = Module { file: lab.image("l4test"), args };
        let (mut outcomes, whole) = match machine.boot(&Console::none(), Some(PATIENCE)) {
            Ok(ended) => {
                let outcomes = results(&ended.console);
                let whole = check(&ended.end, &ended.console, &outcomes);
                (outcomes, whole)
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        outcomes.push(Outcome::of(WHOLE, whole, started));
        outcomes
    })
}

/// It knows its tests without the name of the group. Those that match only by that name are left out afterwards.
fn args(filter: &Filter) -> String {
    match filter.0.as_deref() {
        Some(part) if !WHOLE.contains(part) && !GROUP.contains(part) => {
            format!("json run={}", part.rsplit_once("test::").map_or(part, |(_, rest)| rest))
        }
        _ => "json".to_owned(),
    }
}

/// A line of result.
#[derive(Deserialize)]
struct Line {
    test: String,
    clause: String,
    result: Verdict,
    ms: u64,
    #[serde(default)]
    why: String,
}

/// The tests in the console's text.
fn results(console: &str) -> Vec<Outcome> {
    let lines = console.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines
        .map(|Line { test, clause, result, ms, why }| Outcome {
            test: format!("{GROUP}::{test}"),
            clause,
            result,
            ms,
            details: why,
            is_build: false,
        })
        .collect()
}

/// The last line must agree with the lines before, and the status with the last line.
fn check(end: &End, console: &str, outcomes: &[Outcome]) -> Result<()> {
    let failed = outcomes.iter().filter(|outcome| outcome.result == Verdict::Failed).count();
    let expected = format!("{} passed, {failed} failed", outcomes.len() - failed);
    let last = console.lines().last().unwrap_or_default();
    ensure!(last == expected, "{end}; expected the last line `{expected}`\n{}", boots::tail(console));
    match end {
        End::Program(0) if failed == 0 => Ok(()),
        End::Program(1..) if failed > 0 => Ok(()),
        end => bail!("{end}, with {failed} failed tests"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Filter, Verdict};
    use super::{args, check, results};
    use crate::qemu::End;

    const CONSOLE: &str = r#"Marcona
{"test":"ipc::send","clause":"X.2, Ipc","result":"ok","ms":3}
{"test":"ipc::wait","clause":"X.2, Ipc","result":"failed","ms":4,"why":"MR1: 2"}
1 passed, 1 failed
"#;

    #[test]
    fn each_line_of_result_is_a_test() {
        let outcomes = results(CONSOLE);
        assert_eq!(outcomes.len(), 2);
        assert_eq!((outcomes[0].test.as_str(), outcomes[0].result), ("l4test::ipc::send", Verdict::Ok));
        assert_eq!((outcomes[0].clause.as_str(), outcomes[0].ms), ("X.2, Ipc", 3));
        assert_eq!((outcomes[1].test.as_str(), outcomes[1].result), ("l4test::ipc::wait", Verdict::Failed));
        assert_eq!(outcomes[1].details, "MR1: 2");
    }

    #[test]
    fn the_numbers_and_the_status_must_agree() {
        let is_right = |end: End, console: &str| check(&end, console, &results(console)).is_ok();
        let passed = CONSOLE.lines().nth(1).unwrap_or_default();
        assert!(is_right(End::Program(1), CONSOLE));
        assert!(!is_right(End::Program(0), CONSOLE));
        assert!(!is_right(End::Overrun, CONSOLE));
        assert!(is_right(End::Program(0), &format!("{passed}\n1 passed, 0 failed\n")));
        assert!(!is_right(End::Program(0), &format!("{passed}\n2 passed, 0 failed\n")));
        assert!(!is_right(End::Program(0), passed));
    }

    #[test]
    fn a_filter_reaches_the_program() {
        let check = |filter: Option<&str>, expected: &str| {
            assert_eq!(args(&Filter(filter.map(str::to_owned))), expected, "{filter:?}");
        };
        check(None, "json");
        check(Some("l4test"), "json");
        check(Some("boot::l4test"), "json");
        check(Some("ipc"), "json run=ipc");
        check(Some("l4test::ipc"), "json run=ipc");
        check(Some("test::ipc::send"), "json run=ipc::send");
    }
}
