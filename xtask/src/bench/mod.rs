//! `cargo xtask bench`: figures of what the kernel does, counted in an emulator, the same in every run.
//!
//! Two programs are measured, `pingpong` and `bench`. Each prints a figure per row, by the time-stamp counter, which counts
//! instructions there; and it marks what it measures, so that a plugin of the emulator can tell what the kernel did: see
//! docs/performance.md.

pub mod baseline;
mod figures;
mod plot;
mod region;
pub mod scale;
mod symbols;
mod table;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

pub use figures::{Figure, Rig, Seen};

use crate::config::Chosen;
use crate::project::{self, Arch};
use crate::{qemu, usage};

/// Options of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure: ipc, null_call, ..., or scale (many processors); all but scale if left out
    name: Option<String>,
    /// Write one JSON object per figure into a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the figures as SVG files into a folder
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// List the lines of data and code that each operation touches
    #[arg(long)]
    lines: bool,
    /// List functions of the kernel with their instructions, and ways through it
    #[arg(long)]
    functions: bool,
    /// Processors; of two or more, two exchange messages, too
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=qemu::MAX_CPUS))]
    cpus: u32,
    /// Sockets over which processors are spread; for scale
    #[arg(long, value_name = "S", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=qemu::MAX_CPUS))]
    sockets: u32,
    /// By what time is measured; others than icount for scale
    #[arg(long, value_enum, default_value = "icount", hide_possible_values = true, value_name = "icount|tcg|kvm")]
    clock: scale::Clock,
    /// Accept the figures: writes xtask/baseline.json, which tests compare with
    #[arg(long)]
    bless: bool,
    /// Kernel configuration, by name or file
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    config: String,
    /// Architecture
    #[arg(long, value_enum, default_value = "x86_64", hide_possible_values = true, value_name = "x86_64|x86_32")]
    arch: Arch,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.arch.check()?;
    if args.bless && args.name.is_some() {
        usage!("--bless accepts all figures: leave out the name");
    }
    if args.bless && args.cpus > 1 {
        usage!("--bless accepts the figures of one processor: leave out --cpus");
    }
    let config = Chosen::of(Some(&args.config))?;
    if args.bless && !config.is_default() {
        usage!("--bless accepts the figures of the default configuration: leave out --config");
    }
    if args.name.as_deref() == Some(scale::NAME) {
        let (json, plot) = (args.json.as_deref(), args.plot.as_deref());
        let plan =
            scale::Plan { cpus: args.cpus, sockets: args.sockets, clock: args.clock, config: &config, json, plot };
        return plan.run().map(|()| ExitCode::SUCCESS);
    }
    if args.sockets > 1 || args.clock != scale::Clock::Icount {
        usage!("--sockets and --clock are for scale: say `cargo xtask bench scale`, or leave them out");
    }
    let names = figures::names()?;
    if let Some(name) = args.name.as_deref().filter(|name| !names.iter().any(|own| own == name)) {
        usage!("nothing is called {name}: there are {}, {}", names.join(", "), scale::NAME);
    }
    let json = match &args.json {
        Some(file) => match File::create(file) {
            Ok(file) => Some(BufWriter::new(file)),
            Err(error) => usage!("cannot write {}: {error}; name another file", file.display()),
        },
        None => None,
    };
    qemu::ensure()?;
    let rig = Rig::build(&config)?.with_cpus(args.cpus);
    let figures = rig.measure(args.name.as_deref())?;
    if !rig.has_plugin() {
        eprintln!("this QEMU takes no plugins of version 1: only instructions in all are counted");
    }
    let mut out = io::stdout().lock();
    table::print(&mut out, &figures, args.name.is_some())?;
    if args.lines {
        table::print_lines(&mut out, &figures)?;
    }
    if args.functions {
        table::print_functions(&mut out, &figures)?;
    }
    if let Some(mut json) = json {
        let commit = commit();
        figures.iter().try_for_each(|figure| {
            writeln!(json, "{}", figure.json(&config.name, &commit)?).map_err(anyhow::Error::from)
        })?;
        json.flush().context("cannot write the JSON file")?;
    }
    if let Some(dir) = &args.plot {
        plot::draw(dir, &figures)?;
    }
    if args.bless {
        baseline::bless(&figures, rig.compiler())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The commit of the sources, with a plus if they were changed since.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(project::root()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|files| !files.is_empty());
    if is_changed { format!("{hash}+") } else { hash }
}
