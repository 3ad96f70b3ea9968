//! `cargo xtask feed`: parsers of foreign bytes, fed by libFuzzer with inputs that lead where none before led.
//!
//! The parsers are those of the tests in `tools/damage`, the program is in `fuzz/`. It is built with a counter on each edge of
//! the control flow and with what comparisons compare, which stable compilers can, too, but do not promise. Inputs that led
//! somewhere new stay, so each run begins where the last one ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::progress::Progress;
use crate::{cargo, packages, project, usage};

/// The package, and the feature with which it is linked with libFuzzer.
const PACKAGE: &str = "feed";
const LINK: &str = "link";
/// Has the compiler count edges and tell what is compared, and keep the assertions.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
                     -Cdebug-assertions -Coverflow-checks -Cpanic=abort -Ccodegen-units=1 --cfg=fuzzing";
/// Code with counters cannot be what the host runs while it builds.
const HOST: &str = "x86_64-unknown-linux-gnu";
/// Bytes of an input at most.
const LONGEST: usize = 8192;
/// Seconds that an input may take: all but a few take microseconds.
const PATIENCE: u64 = 10;

/// The parsers: the targets of `tools/damage`.
const PARSERS: [&str; 13] = [
    "elf",
    "multiboot_1",
    "multiboot_2",
    "start_information",
    "acpi",
    "kernel_interface_page",
    "boot_information",
    "messages_to_sigma0",
    "files_of_choices",
    "kconfig_files",
    "kernel_options",
    "seeds_and_counts",
    "instructions",
];

/// Options of `feed`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Feed these parsers alone [default: all]
    names: Vec<String>,
    /// Seconds for each
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// What all choices follow from; with the same inputs before it the same run
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    seed: u32,
    /// Feed the one parser that is named with this file alone
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Say what parsers there are, and stop
    #[arg(long)]
    list: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(name) = args.names.iter().find(|name| !PARSERS.contains(&name.as_str())) {
        usage!("there is no parser `{name}`: `cargo xtask feed --list` names all");
    }
    if args.input.is_some() && args.names.len() != 1 {
        usage!("--input is for one parser: name it");
    }
    if args.list {
        PARSERS.iter().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let program = build()?;
    if let (Some(file), [name]) = (&args.input, &args.names[..]) {
        return feed_file(&program, name, file);
    }
    let is_wanted = |name: &&&str| args.names.is_empty() || args.names.iter().any(|wanted| wanted == **name);
    let mut failed = 0;
    for name in PARSERS.iter().filter(is_wanted) {
        match feed(&program, name, args)? {
            End::Well(Figures { inputs, edges, kept }) => {
                println!("{name:24} {inputs:>10} inputs  {edges:>5} edges  {kept:>5} inputs kept");
            }
            End::Failed(file) => {
                println!("{name:24} FAILED");
                println!("it fails with: cargo xtask feed {name} --input {}", project::relative(&file).display());
                failed += 1;
            }
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where everything is that is made here.
fn dir() -> PathBuf {
    project::root().join("target/feed")
}

/// Builds the program.
fn build() -> Result<PathBuf> {
    // It builds libFuzzer.
    packages::program("c++", &["g++"])?;
    let mut command = project::cargo("build");
    command.args(["--release", "--package", PACKAGE, "--features", LINK, "--target", HOST]);
    command.args(["--config", "profile.release.lto=false", "--config", "profile.release.debug=\"line-tables-only\""]);
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", dir().join("target"));
    let report = cargo::build(&mut command, "building what feeds parsers")?;
    if !report.ok {
        bail!("cannot build {PACKAGE}:\n{}", report.text());
    }
    let program = report.executables.into_iter().find(|(name, _)| name == PACKAGE);
    Ok(program.context("cargo built no program")?.1)
}

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Figures {
    inputs: u64,
    edges: u64,
    kept: u64,
}

/// How it ended.
enum End {
    Well(Figures),
    /// With this input.
    Failed(PathBuf),
}

fn command(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.env("FEED", name).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

/// Feeds one parser for a while. The sound input is where it begins.
fn feed(program: &Path, name: &str, args: &Args) -> Result<End> {
    let corpus = dir().join("corpus").join(name);
    let failures = dir().join("failures").join(name);
    for dir in [&corpus, &failures] {
        fs::create_dir_all(dir)?;
    }
    let progress = Progress::start(format!("feeding {name}"));
    let sound = command(program, name).env("FEED_SOUND", corpus.join("sound")).status()?;
    ensure!(sound.success(), "{name}: the sound input cannot be written");
    let mut command = command(program, name);
    command.arg(format!("-max_total_time={}", args.seconds)).arg(format!("-seed={}", args.seed));
    command.arg(format!("-max_len={LONGEST}")).arg(format!("-timeout={PATIENCE}"));
    command.args(["-print_final_stats=1", "-verbosity=1", "-use_value_profile=1"]);
    command.arg(format!("-artifact_prefix={}/", failures.display())).arg(&corpus);
    let (ok, log) = cargo::follow(&mut command, &progress, |_| ())?;
    drop(progress);
    if ok {
        return Ok(End::Well(figures(&log)));
    }
    log.iter().rev().take(12).rev().for_each(|line| eprintln!("{line}"));
    let failure = log.iter().find_map(|line| line.split_once("Test unit written to ")).map(|(_, file)| file.trim());
    Ok(End::Failed(failure.with_context(|| format!("{name} failed without an input"))?.into()))
}

/// Feeds one parser with one file, and shows what it says.
fn feed_file(program: &Path, name: &str, file: &Path) -> Result<ExitCode> {
    ensure!(file.is_file(), "there is no file {}", file.display());
    let status = command(program, name).env("RUST_BACKTRACE", "1").arg(file).status()?;
    println!("{name}: {}", if status.success() { "the input is read or refused" } else { "FAILED" });
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What libFuzzer says at the end.
fn figures(log: &[String]) -> Figures {
    let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok());
    let last = |key: &str| log.iter().rev().find_map(|line| number(line.split_once(key)?.1)).unwrap_or(0);
    let kept = log.iter().rev().find_map(|line| line.split_once("corp: ")?.1.split('/').next()?.parse().ok());
    Figures { inputs: last("stat::number_of_executed_units:"), edges: last("cov: "), kept: kept.unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parsers_are_known() {
        let text = fs::read_to_string(project::root().join("tools/damage/src/targets.rs")).expect("the file is there");
        let named = text.lines().filter_map(|line| line.trim().strip_prefix("Target { name: \"")?.split('"').next());
        assert_eq!(named.collect::<Vec<_>>(), PARSERS);
    }

    #[test]
    fn figures_are_the_last_ones() {
        let log = "#2 INITED cov: 44 ft: 45 corp: 1/208b exec/s: 0 rss: 41Mb\n#99 DONE cov: 61 ft: 100 corp: 17/2Kb\n\
                   stat::number_of_executed_units: 99\n";
        let log: Vec<String> = log.lines().map(str::to_owned).collect();
        assert_eq!(figures(&log), Figures { inputs: 99, edges: 61, kept: 17 });
    }
}
