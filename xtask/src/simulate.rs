//! `cargo xtask simulate`: the core as a simulation of a machine, for as long as one likes.
//!
//! The simulation is a test of the core ([`TEST`]); this builds it, runs it, and says how far it is. A run is cut into
//! parts, a process each: the worlds of a part stay in memory until its end.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::progress::Progress;
use crate::{cargo, project, test};

/// The test that is run.
const TEST: &str = "tests::random::runs::long_run";
/// The steps of a world at most, as the test has it. Each world has the next seed.
const STEPS_OF_A_WORLD: u64 = 1 << 20;
/// Worlds of a part.
const WORLDS: u64 = 16;
/// The profile of the workspace that it is built with.
const PROFILE: &str = "simulation";
/// How a line of the test begins that tells nothing that is told here.
const TOLD_HERE: [&str; 4] = ["seed ", "running ", "test ", "{"];

/// Options of `simulate`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What all choices follow from [default: a fresh one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Steps in all; after each 2^20 a fresh world begins, with the next seed
    #[arg(long, value_name = "N", default_value = "10000000", value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Processors
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u64).range(1..=16))]
    cpus: u64,
    /// Parts of the run at a time, each of which keeps a processor of this host busy
    #[arg(long, value_name = "N", default_value_t = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN))]
    jobs: NonZero<usize>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(test::fresh_seed);
    println!("seed {seed}");
    let program = build()?;
    let progress = Progress::start("simulating");
    let begin = Instant::now();
    let (waiting, done, has_failed) = (Mutex::new(parts(args, seed)), AtomicU64::new(0), AtomicBool::new(false));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next().filter(|_| !has_failed.load(Relaxed));
    let tell = |more: u64| {
        let (now, seconds) = (done.fetch_add(more, Relaxed) + more, begin.elapsed().as_secs_f64());
        progress.note(format!("{now} steps of {}, {:.0} a second", args.steps, now as f64 / seconds.max(0.001)));
    };
    let work = || -> Result<()> {
        while let Some(part) = next() {
            has_failed.fetch_or(!run_part(&program, part, &progress, tell)?, Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs.get()).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    drop(progress);
    if has_failed.into_inner() {
        return Ok(ExitCode::FAILURE);
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{} steps on {} processors in {seconds:.0} s: all invariants held", args.steps, args.cpus);
    Ok(ExitCode::SUCCESS)
}

/// A part of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    seed: u64,
    steps: u64,
    cpus: u64,
}

/// The parts of a run.
fn parts(args: &Args, seed: u64) -> impl Iterator<Item = Part> + use<> {
    const STEPS: u64 = WORLDS * STEPS_OF_A_WORLD;
    let (steps, cpus) = (args.steps, args.cpus);
    (0..steps.div_ceil(STEPS)).map(move |part| {
        let steps = STEPS.min(steps - part * STEPS);
        Part { seed: seed.wrapping_add(part * WORLDS), steps, cpus }
    })
}

/// Builds the tests of the core; where they are.
fn build() -> Result<PathBuf> {
    let mut command = project::cargo("test");
    let report = cargo::build(
        command.args(["--no-run", "--package", "kcore", "--lib", "--profile", PROFILE]),
        "building the simulation",
    )?;
    if !report.ok {
        bail!("cannot build the simulation:\n{}", report.text());
    }
    let program = report.executables.into_iter().find(|(name, _)| name == "kcore");
    Ok(program.context("cargo built no tests of the core")?.1)
}

/// Whether the part came to its end. `tell` hears how many more steps were taken.
fn run_part(program: &Path, part: Part, progress: &Progress, tell: impl Fn(u64)) -> Result<bool> {
    let mut command = Command::new(program);
    command.args(["--ignored", "--exact", TEST, "--nocapture"]).current_dir(project::root());
    command.env("RUST_BACKTRACE", "0");
    let words = [("SIMULATE_SEED", part.seed), ("SIMULATE_STEPS", part.steps), ("SIMULATE_CPUS", part.cpus)];
    command.envs(words.map(|(name, word)| (name, word.to_string())));
    let mut done = 0;
    let (ok, log) = cargo::follow(&mut command, progress, |line| match steps_told(line) {
        Some(steps) => tell(steps - std::mem::replace(&mut done, steps)),
        None if line.is_empty() || TOLD_HERE.iter().any(|word| line.starts_with(word)) => {}
        None => progress.println(line),
    })?;
    if !ok {
        log.iter().filter(|line| line.starts_with("it fails")).for_each(|line| progress.println(line));
    }
    Ok(ok)
}

/// The number in a line such as `1048576 steps, 90000 a second`.
fn steps_told(line: &str) -> Option<u64> {
    line.split_once(" steps, ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole_run() {
        let parts = |seed, steps| {
            let args = Args { seed: Some(seed), steps, cpus: 4, jobs: NonZero::<usize>::MIN };
            parts(&args, seed).map(|part| (part.seed, part.steps)).collect::<Vec<_>>()
        };
        let whole = WORLDS * STEPS_OF_A_WORLD;
        assert_eq!(parts(7, 100), [(7, 100)]);
        assert_eq!(parts(7, whole), [(7, whole)]);
        assert_eq!(parts(7, whole + 1), [(7, whole), (7 + WORLDS, 1)]);
        assert_eq!(parts(0, 1_000_000_000).into_iter().map(|(_, steps)| steps).sum::<u64>(), 1_000_000_000);
    }

    #[test]
    fn progress_is_told_in_steps() {
        assert_eq!(steps_told("1048576 steps, 90000 a second"), Some(1_048_576));
        assert_eq!(steps_told("the shortest trace that still fails has 3 steps:"), None);
    }
}
