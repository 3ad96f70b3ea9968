//! `cargo xtask test`: tests on the host, in the emulator, and of the project's rules.
//!
//! Each test of every kind is one [`Outcome`] with a name `GROUP::NAME`; the filter is a part of that name.

mod bench;
mod bochs;
mod boots;
mod commands;
pub mod configurations;
mod firmware;
mod foreign;
mod fuzz;
mod host;
pub mod hunt;
mod images;
mod isolation;
mod kdb;
mod ktap;
mod l4test;
pub mod matrix;
mod media;
mod mitigations;
mod panics;
mod servers;
mod storm;
mod trace;

pub use l4test::GROUP as PROGRAM;

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::config::Chosen;
use crate::progress::Progress;
use crate::project::{self, Arch, CRATES};
use crate::{build, qemu, tidy, usage};

/// How lines begin that a test has to say also when it is passed.
const NOTE: &str = "note: ";

/// Options of `test`.
#[derive(clap::Args)]
pub struct Args {
    /// Run the tests whose names contain this
    filter: Option<String>,
    /// Write one JSON object per test into a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seed of what is drawn afresh each time [default: from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Interleavings to draw, of worlds and of meetings [default: a few thousand]
    #[arg(long, value_name = "N")]
    schedules: Option<u64>,
    /// Kernel configuration, by name or file
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    config: String,
    /// Architecture
    #[arg(long, value_enum, default_value = "x86_64", hide_possible_values = true, value_name = "x86_64|x86_32")]
    arch: Arch,
}

/// How a test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As expected.
    Ok,
    /// Not as expected.
    Failed,
    /// It could not run here.
    #[serde(alias = "skipped")]
    Ignored,
}

/// A test that has ended. The fields are those of the JSON object, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Outcome {
    test: String,
    clause: String,
    result: Verdict,
    ms: u64,
    /// What a person needs to see when it failed, with lines to be seen always, which begin with [`NOTE`].
    #[serde(skip)]
    details: String,
    /// It is no test, but what tests need.
    #[serde(skip)]
    is_build: bool,
}

impl Outcome {
    fn new(test: impl Into<String>, result: Verdict, started: Instant) -> Self {
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self { test: test.into(), clause: String::new(), result, ms, details: String::new(), is_build: false }
    }

    /// The outcome of a test that is a function which began at `started`.
    fn of(test: impl Into<String>, result: Result<()>, started: Instant) -> Self {
        let Err(error) = result else { return Self::new(test, Verdict::Ok, started) };
        let verdict = if error.is::<Skipped>() { Verdict::Ignored } else { Verdict::Failed };
        Self::new(test, verdict, started).with_details(format!("{error:#}"))
    }

    /// The outcome of building what tests need.
    fn of_build(name: impl Into<String>, result: Result<()>, started: Instant) -> Self {
        Self { is_build: true, ..Self::of(name, result, started) }
    }

    fn with_details(mut self, details: String) -> Self {
        self.details = details;
        self
    }

    fn with_clause(mut self, clause: &str) -> Self {
        clause.clone_into(&mut self.clause);
        self
    }
}

/// Why a test cannot run here.
#[derive(Debug)]
struct Skipped(&'static str);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skipped {}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.arch.check()?;
    let json = match &args.json {
        Some(file) => match File::create(file) {
            Ok(file) => Some(file),
            Err(error) => usage!("cannot write {}: {error}; name another file", file.display()),
        },
        None => None,
    };
    let config = Chosen::of(Some(&args.config))?;
    let filter = Filter(args.filter.clone());
    let mut tally = Tally {
        progress: Progress::start("testing"),
        filter: filter.clone(),
        clauses: tidy::ClauseMap::load()?,
        json,
        passed: 0,
        failed: vec![],
    };
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let plan = Plan { filter, draw: host::Draw { seed, schedules: args.schedules }, config };
    plan.run(&mut tally)?;
    Ok(tally.finish())
}

/// The part of a name that was asked for.
#[derive(Clone, Debug)]
pub struct Filter(Option<String>);

impl Filter {
    fn takes(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }

    /// Whether the tests of crate `group` may match: only a filter that begins with the name of another crate rules them
    /// out. The tool itself has modules that are named like crates.
    fn may_take_from(&self, group: &str) -> bool {
        let first = self.0.as_deref().and_then(|part| part.split_once("::")).map_or("", |(first, _)| first);
        first == group || group == "xtask" || CRATES.iter().all(|entry| entry.name != first)
    }

    fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

/// Prints outcomes as they come, and counts them.
pub struct Tally {
    progress: Progress,
    filter: Filter,
    /// For tests that do not say themselves what they are about.
    clauses: tidy::ClauseMap,
    json: Option<File>,
    passed: usize,
    failed: Vec<String>,
}

impl Tally {
    /// Enters an outcome, unless nobody asked for it. What keeps tests from running counts always.
    fn enter(&mut self, mut outcome: Outcome) -> Result<()> {
        let is_obstacle = outcome.result == Verdict::Failed && outcome.is_build;
        if !is_obstacle && !self.filter.takes(&outcome.test) {
            return Ok(());
        }
        if outcome.clause.is_empty() {
            outcome.clause = self.clauses.clauses_of(&outcome.test);
        }
        let word = match outcome.result {
            Verdict::Ok => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Ignored => "ignored",
        };
        self.progress.println(&format!("test {} ... {word}", outcome.test));
        let is_told = |line: &&str| outcome.result != Verdict::Ok || line.starts_with(NOTE);
        outcome.details.lines().filter(is_told).for_each(|line| self.progress.println(&format!("    {line}")));
        if let Some(json) = &mut self.json {
            writeln!(json, "{}", serde_json::to_string(&outcome)?).context("cannot write the JSON file")?;
        }
        match outcome.result {
            Verdict::Ok => self.passed += 1,
            Verdict::Failed => self.failed.push(outcome.test),
            Verdict::Ignored => {}
        }
        Ok(())
    }

    /// Ends with the line of numbers.
    fn finish(self) -> ExitCode {
        let Self { progress, passed, failed, .. } = self;
        drop(progress);
        if !failed.is_empty() {
            println!("\nfailed:");
            failed.iter().for_each(|name| println!("    {name}"));
        }
        println!("{passed} passed, {} failed", failed.len());
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The images that tests boot.
pub struct Lab {
    dir: PathBuf,
    /// What tests draw from that are not the same each time.
    seed: u64,
    /// What the kernel was built with.
    config: Chosen,
}

impl Lab {
    fn image(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// A piece of work in the emulator; most end in one outcome.
type Job = Box<dyn FnOnce(&Lab) -> Vec<Outcome> + Send>;

/// Fails, or is [`Skipped`], or is passed.
type Check = Box<dyn FnOnce(&Lab) -> Result<()> + Send>;

/// A job that is one test.
pub struct Case {
    name: String,
    clause: &'static str,
    check: Check,
}

impl Case {
    fn new(
        name: impl Into<String>,
        clause: &'static str,
        check: impl FnOnce(&Lab) -> Result<()> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), clause, check: Box::new(check) }
    }

    fn into_job(self) -> Job {
        Box::new(move |lab| {
            let started = Instant::now();
            vec![Outcome::of(self.name, (self.check)(lab), started).with_clause(self.clause)]
        })
    }
}

/// All tests of this tool that are functions.
fn cases() -> impl Iterator<Item = Case> {
    let boots = boots::cases()
        .into_iter()
        .chain(images::cases())
        .chain(bochs::cases())
        .chain(l4test::cases())
        .chain(foreign::cases())
        .chain(storm::cases())
        .chain(firmware::cases())
        .chain(fuzz::cases())
        .chain(matrix::cases())
        .chain(media::cases())
        .chain(mitigations::cases())
        .chain(isolation::cases())
        .chain(panics::cases())
        .chain(configurations::cases())
        .chain(kdb::cases())
        .chain(trace::cases());
    boots.chain(commands::cases()).chain(bench::cases()).chain(servers::cases())
}

/// The names of all tests but those of the program l4test, and of the rules.
pub fn names() -> Result<Vec<String>> {
    let mut names = host::names()?;
    names.extend(cases().map(|case| case.name));
    Ok(names)
}

/// The clauses that this tool's own tests are about.
pub fn clauses() -> Vec<&'static str> {
    cases().map(|case| case.clause).filter(|clause| !clause.is_empty()).collect()
}

/// A seed that was not there before.
pub fn fresh_seed() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time.as_millis() as u64 % 1_000_000_000
}

/// What a call of the command runs. Two threads do it, as compilers and emulators rarely keep two processors busy: one
/// begins with the tests on the host, one with the images; then both take one boot after another, and at last the rules.
struct Plan {
    filter: Filter,
    draw: host::Draw,
    config: Chosen,
}

/// Where outcomes go, from any thread. Nobody listens any more after an error of the tally.
type Outcomes = mpsc::Sender<Outcome>;

impl Plan {
    fn run(&self, tally: &mut Tally) -> Result<()> {
        let cases = cases().filter(|case| self.filter.takes(&case.name));
        let boots: VecDeque<Job> = l4test::jobs(&self.filter).into_iter().chain(cases.map(Case::into_job)).collect();
        if !boots.is_empty() {
            qemu::ensure()?;
            tally.progress.println(&format!("what is drawn is drawn with --seed {}", self.draw.seed));
        }
        let needs_images = !boots.is_empty();
        let (boots, rules) = (Mutex::new(boots), Mutex::new(self.rules()));
        let (sender, outcomes) = mpsc::channel();
        // Who needs it first builds it, and the other waits.
        let to_lab = sender.clone();
        let lab = LazyLock::new(move || if needs_images { self.build(&to_lab) } else { None });
        let work = |outcomes: Outcomes| {
            if let Some(lab) = &*lab {
                work_off(&boots, &outcomes, |job| job(lab));
            }
            work_off(&rules, &outcomes, |(name, check)| {
                let started = Instant::now();
                vec![Outcome::of(name, tidy::as_test(check), started)]
            });
        };
        thread::scope(|scope| {
            let (lab, work, to_host) = (&lab, &work, sender.clone());
            let host = scope.spawn(move || {
                let wait = || _ = LazyLock::force(lab);
                let result = host::run(&self.filter, self.draw, &wait, &to_host);
                work(to_host);
                result
            });
            scope.spawn(move || work(sender));
            outcomes.into_iter().try_for_each(|outcome| {
                tally.progress.note(format!("last {}", outcome.test));
                tally.enter(outcome)
            })?;
            host.join().expect("the tests on the host do not panic here")
        })
    }

    /// Builds the images. Older ones would tell nothing about these sources.
    fn build(&self, outcomes: &Outcomes) -> Option<Lab> {
        let started = Instant::now();
        let (dir, result) = match build::images(&project::images(), &self.config) {
            Ok(dir) => (Some(dir), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let _ = outcomes.send(Outcome::of_build("build::x86_64", result, started));
        dir.map(|dir| Lab { dir, seed: self.draw.seed, config: self.config.clone() })
    }

    /// The rules of the project that were asked for, with the names of their tests.
    fn rules(&self) -> VecDeque<(String, tidy::Check)> {
        let named = tidy::CHECKS.iter().map(|(name, check)| (format!("tidy::{name}"), *check));
        named.filter(|(name, _)| self.filter.takes(name)).collect()
    }
}

/// Takes from `jobs` until none is left.
fn work_off<T>(jobs: &Mutex<VecDeque<T>>, outcomes: &Outcomes, run: impl Fn(T) -> Vec<Outcome>) {
    let next = || jobs.lock().expect("no worker panics while it takes a job").pop_front();
    while let Some(job) = next() {
        for outcome in run(job) {
            let _ = outcomes.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Filter, Outcome, Verdict};

    #[test]
    fn a_filter_is_a_part_of_the_name() {
        let filter = |text: &str| Filter(Some(text.to_owned()));
        assert!(Filter(None).takes("kcore::ipc"));
        assert!(filter("ipc").takes("kcore::ipc::send"));
        assert!(!filter("ipc").takes("tidy::links"));
        assert!(filter("ipc").may_take_from("l4test"));
        assert!(filter("ipc::send").may_take_from("l4test"));
        assert!(filter("l4test::ipc").may_take_from("l4test"));
        assert!(!filter("kcore::ipc").may_take_from("l4test"));
    }

    #[test]
    fn outcomes_are_json_objects_with_stable_keys() {
        let mut outcome = Outcome::new("ipc::send_timeout", Verdict::Ok, Instant::now()).with_clause("X.2, Ipc");
        outcome.ms = 3;
        let json = serde_json::to_string(&outcome).expect("an outcome is plain data");
        assert_eq!(json, r#"{"test":"ipc::send_timeout","clause":"X.2, Ipc","result":"ok","ms":3}"#);
    }
}
