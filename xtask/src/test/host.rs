//! Tests that run on the host: `cargo test` for each crate that has some, its results read line by line. The core's are
//! built twice: those that explore interleavings need words that a scheduler watches.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use super::{Filter, Outcome, Outcomes, Verdict};
use crate::build;
use crate::cargo;
use crate::config::Chosen;
use crate::progress::Progress;
use crate::project::{self, CRATES, Crate, HostTests};

/// The crate whose tests execute code of the kernel's image, and what is in the names of those that do.
const EXECUTES_THE_KERNEL: (&str, &str) = ("kcore", "equivalence");

/// The feature of a crate with which it is built a second time, and the module with the tests that need it.
const EXPLORE: &str = "explore";
/// The crate that has it.
const EXPLORED: &str = "kcore";

/// A build of a crate's tests.
#[derive(Clone, Copy)]
struct Suite {
    entry: &'static Crate,
    /// It is the one that explores interleavings.
    explores: bool,
}

/// All builds of all crates.
fn suites() -> Result<impl Iterator<Item = Suite>> {
    let whole = CRATES.iter().filter(|entry| entry.tests == HostTests::All);
    let plain = whole.chain(project::host_libraries()?).map(|entry| Suite { entry, explores: false });
    let explored = CRATES.iter().filter(|entry| entry.name == EXPLORED);
    Ok(plain.chain(explored.map(|entry| Suite { entry, explores: true })))
}

/// What is drawn afresh each time.
#[derive(Clone, Copy, Default)]
pub struct Draw {
    /// What it is drawn from.
    pub seed: u64,
    /// How many interleavings are; `None`: as many as usual.
    pub schedules: Option<u64>,
}

/// Runs the tests of all crates. Those that execute code of the kernel build it after `wait`, which returns when nobody else
/// does.
pub fn run(filter: &Filter, draw: Draw, wait: &dyn Fn(), outcomes: &Outcomes) -> Result<()> {
    for suite in suites()?.filter(|suite| filter.may_take_from(suite.entry.name)) {
        run_suite(suite, draw, filter, wait)?.into_iter().for_each(|outcome| {
            let _ = outcomes.send(outcome);
        });
    }
    Ok(())
}

/// The names of the tests of all crates.
pub fn names() -> Result<Vec<String>> {
    let progress = Progress::start("listing tests");
    let mut all = Vec::new();
    for suite in suites()? {
        let (names, (ok, log)) = list(suite, &progress)?;
        ensure!(ok, "cannot list the tests of {}: {}", suite.entry.name, log.join("\n"));
        all.extend(names);
    }
    Ok(all)
}

/// Whether a command succeeded, and what it said.
type Followed = (bool, Vec<String>);

/// The full names of a build's tests, and what came of the listing.
fn list(suite: Suite, progress: &Progress) -> Result<(Vec<String>, Followed)> {
    let parser = Parser::new(suite.entry.name);
    let mut names = Vec::new();
    let mut listing = command(suite, Draw::default());
    let listed = cargo::follow(listing.args(["--", "--list"]).args(suite.module()), progress, |line| {
        names.extend(line.strip_suffix(": test").map(|name| parser.full(name)));
    })?;
    Ok((names, listed))
}

fn run_suite(suite: Suite, draw: Draw, filter: &Filter, wait: &dyn Fn()) -> Result<Vec<Outcome>> {
    let started = Instant::now();
    let progress = Progress::start(format!("host tests of {}", suite.entry.name));
    let mut parser = Parser::new(suite.entry.name);
    let mut names: Vec<String> = suite.module().map(str::to_owned).into_iter().collect();
    if filter.is_set() {
        let (all, listed) = list(suite, &progress)?;
        let wanted = all.iter().filter(|name| filter.takes(name));
        names = wanted.filter_map(|name| parser.own(name)).map(str::to_owned).collect();
        if names.is_empty() {
            return Ok(vec![outcome_of_build(suite, listed, started)]);
        }
    }

    let mut built = None;
    let mut command = command(suite, draw);
    if suite.executes_the_kernel() {
        if names.is_empty() || names.iter().any(|name| name.contains(EXECUTES_THE_KERNEL.1)) {
            wait();
            let result = Chosen::by_default().and_then(|config| build::images(&["kernel"], &config)).map(drop);
            built = Some(Outcome::of_build("build::kernel", result, started));
        }
        command.env("KCORE_IMAGE", project::image_dir().join("kernel.debug"));
        command.env("KCORE_FRESH_SEED", draw.seed.to_string());
    }
    if filter.is_set() {
        names.insert(0, "--exact".to_owned());
    }
    command.args(["--", "--show-output"]).args(names);
    let ended = cargo::follow(&mut command, &progress, |line| parser.enter(line))?;
    let has_failed = parser.outcomes.iter().any(|outcome| outcome.result == Verdict::Failed);
    let of_tests = (!has_failed).then(|| outcome_of_build(suite, ended, started));
    Ok(built.into_iter().chain(parser.outcomes).chain(of_tests).collect())
}

impl Suite {
    /// A filter that takes its tests and no others.
    fn module(self) -> Option<&'static str> {
        self.explores.then_some("explore::")
    }

    fn executes_the_kernel(self) -> bool {
        self.entry.name == EXECUTES_THE_KERNEL.0 && !self.explores
    }
}

fn command(suite: Suite, draw: Draw) -> Command {
    let mut command = project::cargo("test");
    command.args(["--no-fail-fast", "--package", suite.entry.name]);
    if suite.entry.tests == HostTests::Library || suite.explores {
        command.arg("--lib");
    }
    if suite.explores {
        command.args(["--features", EXPLORE]).env("KCORE_SEED", draw.seed.to_string());
        // Planted mistakes are found by panics.
        command.env("RUST_BACKTRACE", "0");
        command.envs(draw.schedules.map(|count| ("KCORE_SCHEDULES", count.to_string())));
    }
    command
}

/// The outcome of building the tests: what else a failure without a failed test can be.
fn outcome_of_build(suite: Suite, (ok, log): Followed, started: Instant) -> Outcome {
    let result = if ok { Ok(()) } else { Err(anyhow!("{}", log.join("\n"))) };
    let explores = if suite.explores { "::explore" } else { "" };
    Outcome::of_build(format!("build::{}{explores}", suite.entry.name), result, started)
}

/// Reads what the standard test harness prints.
struct Parser {
    group: &'static str,
    outcomes: Vec<Outcome>,
    /// The test whose output is being read.
    telling: Option<String>,
    /// When the last test ended: the harness does not tell how long one took.
    last: Instant,
}

impl Parser {
    fn new(group: &'static str) -> Self {
        Self { group, outcomes: Vec::new(), telling: None, last: Instant::now() }
    }

    fn full(&self, name: &str) -> String {
        format!("{}::{name}", self.group)
    }

    /// The crate's own name of a test.
    fn own<'a>(&self, full: &'a str) -> Option<&'a str> {
        full.strip_prefix(self.group)?.strip_prefix("::")
    }

    fn enter(&mut self, line: &str) {
        if let Some((name, result)) = result(line) {
            self.outcomes.push(Outcome::new(self.full(name), result, self.last));
            self.last = Instant::now();
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
            self.telling = Some(self.full(name));
        } else if ["failures:", "successes:"].contains(&line) || line.starts_with("test result:") {
            self.telling = None;
        } else if let Some(name) = &self.telling {
            if let Some(outcome) = self.outcomes.iter_mut().rev().find(|outcome| outcome.test == *name) {
                outcome.details.push_str(line);
                outcome.details.push('\n');
            }
        }
    }
}

/// Name and result from a line such as `test elf::tests::cut ... ok`.
fn result(line: &str) -> Option<(&str, Verdict)> {
    let (name, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let result = match word.split(',').next()? {
        "ok" => Verdict::Ok,
        "FAILED" => Verdict::Failed,
        "ignored" => Verdict::Ignored,
        _ => return None,
    };
    let kinds = [" - should panic", " - compile fail", " - compile"];
    let name = kinds.iter().find_map(|kind| name.strip_suffix(kind)).unwrap_or(name);
    Some((name, result))
}

#[cfg(test)]
mod tests {
    use super::{Parser, Verdict};

    const OUTPUT: &str = "
running 4 tests
test elf::tests::cut ... ok
test elf::tests::wraps - should panic ... ok
test slow ... ignored, needs a day
test map::tests::grant ... FAILED

successes:

---- elf::tests::cut stdout ----
note: 7 cuts

successes:
    elf::tests::cut
    elf::tests::wraps

failures:

---- map::tests::grant stdout ----

thread 'map::tests::grant' panicked at src/map.rs:7:9:
left: 1

failures:
    map::tests::grant

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn results_and_outputs_are_found() {
        let mut parser = Parser::new("kcore");
        OUTPUT.lines().for_each(|line| parser.enter(line));
        let outcomes = parser.outcomes;
        let rows: Vec<_> = outcomes.iter().map(|outcome| (outcome.test.as_str(), outcome.result)).collect();
        assert_eq!(
            rows,
            [
                ("kcore::elf::tests::cut", Verdict::Ok),
                ("kcore::elf::tests::wraps", Verdict::Ok),
                ("kcore::slow", Verdict::Ignored),
                ("kcore::map::tests::grant", Verdict::Failed),
            ]
        );
        assert_eq!(outcomes[0].details, "note: 7 cuts\n\n");
        let details = &outcomes[3].details;
        assert!(details.contains("src/map.rs:7:9") && details.ends_with("left: 1\n\n"), "{details:?}");
    }
}
