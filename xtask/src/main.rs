//! `cargo xtask`: builds, runs, tests and checks the project. One file or folder per subcommand.
#![forbid(unsafe_code)]

mod bench;
mod bochs;
mod build;
mod bundle;
mod cargo;
mod config;
mod coverage;
mod dump;
mod elf;
mod feed;
mod foreign;
mod fuzz;
mod gdb;
mod image;
mod kvm;
mod monitor;
mod packages;
mod perfetto;
mod planted;
mod progress;
mod project;
mod qemu;
mod run;
mod screenshot;
mod simulate;
mod symbols;
mod test;
mod tidy;
mod toolchain;
mod trace;

use std::env;
use std::fmt;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Status of a command that was given a wrong option, file or value.
const USAGE_STATUS: u8 = 2;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
#[command(about = "Builds, runs, tests and checks Marcona, an L4 X.2 microkernel")]
#[command(after_help = "`cargo xtask COMMAND --help` explains the options of a command.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Build, boot a program as the root task in QEMU, exit with its status
    Run(Box<run::Args>),
    /// The same in Bochs, whose processors have identifiers of spaces
    Bochs(bochs::Args),
    /// Run all tests, on the host and in the emulator; last line `N passed, N failed`
    Test(test::Args),
    /// Measure: instructions, lines and privileged operations of what the kernel does
    Bench(bench::Args),
    /// Make random system calls from a seed; a failure comes with the shortest run that shows it
    Fuzz(fuzz::Args),
    /// Feed parsers of foreign bytes with what libFuzzer makes up
    Feed(feed::Args),
    /// Let the core run as a simulation of a machine; a failure comes with the shortest trace that shows it
    Simulate(simulate::Args),
    /// Plant bugs in the kernel and tell which test catches each
    Planted(planted::Args),
    /// Boot the benchmark on machines of many kinds, and print a matrix of what came of it
    Matrix(test::matrix::Args),
    /// Count which lines and branches of the core its tests execute
    Coverage(coverage::Args),
    /// Build the images below target/marcona/, bootable by hand
    Build(build::Args),
    /// Make an image that boots on BIOS and UEFI machines, from CD and USB stick; prints its path last
    Image(image::Args),
    /// Choose what the kernel is built with: a menu, or `set`, `check`, `default` and more without a terminal
    Config(config::Args),
    /// Boot a machine that waits, and start gdb with commands that know the kernel
    Gdb(Box<gdb::Args>),
    /// Show what is left of a kernel in a memory dump of its machine
    Dump(dump::Args),
    /// Check formatting, lints, crate arrows, the unsafe list, links, the map of the specification
    Tidy(tidy::Args),
}

/// An error of the caller: a wrong option, file or value. The text names the mend.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Returns with a [`Usage`] error.
#[macro_export]
macro_rules! usage {
    ($($text:tt)*) => { return Err($crate::Usage::new(format!($($text)*)).into()) };
}

impl Usage {
    /// An error with one line of text.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprintln!("{}", one_line(&error.to_string(), env::args().nth(1).as_deref()));
            return ExitCode::from(USAGE_STATUS);
        }
        // Help was asked for. If it cannot be printed, nobody is there to be told.
        Err(help) => return help.print().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
    };
    let result = match cli.command {
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Bochs(args)) => bochs::run(&args),
        Some(Command::Test(args)) => test::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Feed(args)) => feed::run(&args),
        Some(Command::Fuzz(args)) => fuzz::run(&args),
        Some(Command::Simulate(args)) => simulate::run(&args),
        Some(Command::Planted(args)) => planted::run(&args),
        Some(Command::Coverage(args)) => coverage::run(&args),
        Some(Command::Build(args)) => build::run(&args),
        Some(Command::Image(args)) => image::run(&args),
        Some(Command::Matrix(args)) => test::matrix::run(&args),
        Some(Command::Config(args)) => config::run(&args),
        Some(Command::Dump(args)) => dump::run(&args),
        Some(Command::Gdb(args)) => gdb::run(&args),
        Some(Command::Tidy(args)) => tidy::run(&args),
        None => Cli::command().print_help().map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        if error.is::<Usage>() { ExitCode::from(USAGE_STATUS) } else { ExitCode::FAILURE }
    })
}

/// The parser's message, which spreads over a screen, as one line: what is wrong, the mend, where to read more.
fn one_line(message: &str, subcommand: Option<&str>) -> String {
    let subcommand = subcommand.filter(|name| Cli::command().find_subcommand(name).is_some());
    let command: Vec<&str> = ["cargo xtask"].into_iter().chain(subcommand).collect();
    let text: Vec<&str> = message
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    format!("{}; see `{} --help`", text.join("; "), command.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, one_line};

    fn check(arguments: &str, expected: &str) {
        let words = ["cargo xtask"].into_iter().chain(arguments.split_whitespace());
        let error = Cli::try_parse_from(words).err().expect("these arguments are wrong");
        assert_eq!(one_line(&error.to_string(), arguments.split(' ').next()), expected);
    }

    #[test]
    fn wrong_arguments_are_one_line_with_the_mend() {
        check(
            "run --cpu-count 2",
            "error: unexpected argument '--cpu-count' found; tip: a similar argument exists: '--cpu'; \
             see `cargo xtask run --help`",
        );
        check(
            "run --accel hax",
            "error: invalid value 'hax' for '--accel <auto|tcg|kvm>'; [possible values: auto, tcg, kvm]; \
             see `cargo xtask run --help`",
        );
        check(
            "run --cpus 0",
            "error: invalid value '0' for '--cpus <N>': 0 is not in 1..=255; see `cargo xtask run --help`",
        );
        check(
            "rum",
            "error: unrecognized subcommand 'rum'; tip: some similar subcommands exist: 'dump', 'run'; see `cargo xtask --help`",
        );
    }

    #[test]
    fn the_definition_of_the_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_help_fits_on_a_screen() {
        let mut cli = Cli::command();
        assert!(cli.render_help().to_string().lines().count() <= 30);
        for command in cli.get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert!(help.lines().count() <= 40, "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 110), "{help}");
        }
    }
}
