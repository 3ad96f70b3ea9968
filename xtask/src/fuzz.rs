//! `cargo xtask fuzz`: random system calls from a seed, and the shortest run that still fails.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::config::Chosen;
use crate::qemu::{self, Console, End, Ended, Machine, Module};
use crate::{build, test};

/// Kernel memory: little, so that it runs out now and then, and is soon measured.
const KERNEL_MEMORY: &str = "kmem=4M";
/// What a run may take, at least, and for each so many calls more.
const PATIENCE: Duration = Duration::from_secs(120);
const CALLS_A_SECOND: u64 = 500;
/// How long the search for a shorter run goes on before it begins no other.
const SEARCH: Duration = Duration::from_secs(600);

/// Options of `fuzz`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What all choices follow from [default: a fresh one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// System calls in all
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
    /// Processors
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=qemu::MAX_CPUS))]
    cpus: u32,
    /// Kernel configuration, by name or file; `debug` keeps the kernel's assertions
    #[arg(long, value_name = "NAME|FILE")]
    config: Option<String>,
    /// Processors that truly run in parallel: more happens, but not the same in every run
    #[arg(long)]
    parallel: bool,
    /// Leave a run that fails as long as it is
    #[arg(long)]
    as_is: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(test::fresh_seed);
    println!("seed {seed}");
    qemu::ensure()?;
    let config = Chosen::of(args.config.as_deref())?;
    let dir = build::images(&["kickstart", "kernel", "sigma0", "fuzz"], &config)?;
    let boot = |calls: u64, is_shown: bool| {
        let machine = Machine { icount: !args.parallel, ..machine(&dir, seed, calls, args.cpus) };
        machine.boot(&Console { is_shown, ..Console::none() }, Some(patience(calls)))
    };
    let ended = boot(args.calls, true)?;
    if is_well(&ended) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {}", ended.end);
    let end = Instant::now() + SEARCH;
    let calls = match args.parallel || args.as_is {
        true => args.calls,
        false => shortest(args.calls, || Instant::now() < end, |calls| Ok(is_well(&boot(calls, false)?)))?,
    };
    let parallel = if args.parallel { " --parallel" } else { "" };
    println!("it fails with: cargo xtask fuzz --seed {seed} --calls {calls} --cpus {}{parallel}", args.cpus);
    Ok(ExitCode::FAILURE)
}

/// A machine that boots the fuzzer. Its command line is as long for every number of calls: so what happens is the same, but
/// for how long it goes on.
pub fn machine(dir: &Path, seed: u64, calls: u64, cpus: u32) -> Machine {
    let root = Module { file: dir.join("fuzz"), args: format!("seed={seed} calls={calls:020}") };
    Machine { cpus, boot_args: KERNEL_MEMORY.to_owned(), ..Machine::new(dir, root) }
}

/// How long a run of so many calls may take.
fn patience(calls: u64) -> Duration {
    PATIENCE + Duration::from_secs(calls / CALLS_A_SECOND)
}

/// Whether the run came to its end, and the program found nothing.
pub fn is_well(ended: &Ended) -> bool {
    ended.end == End::Program(0) && ended.console.contains("; nothing is lost")
}

/// The smallest number of calls that fails, if a failure once there stays, as far as there is time to look; `calls` fails.
fn shortest(calls: u64, has_time: impl Fn() -> bool, is_well: impl Fn(u64) -> Result<bool>) -> Result<u64> {
    let (mut well, mut fails) = (0, calls);
    while fails - well > 1 + calls / 64 && has_time() {
        let middle = well + (fails - well) / 2;
        match is_well(middle)? {
            true => well = middle,
            false => fails = middle,
        }
    }
    Ok(fails)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_failure_is_found_to_a_sixty_fourth() {
        for (calls, first) in [(100_000, 1), (100_000, 31_415), (100_000, 100_000), (1, 1), (7, 3)] {
            let found = shortest(calls, || true, |calls| Ok(calls < first)).expect("nothing else fails");
            assert!((first..=first + calls / 64 + 1).contains(&found), "{found} of {calls} for {first}");
            assert!(found <= calls);
            assert_eq!(shortest(calls, || false, |_| Ok(true)).expect("nothing else fails"), calls);
        }
    }
}
