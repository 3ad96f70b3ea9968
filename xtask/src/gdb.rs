//! `cargo xtask gdb`: boots a machine that waits, and becomes gdb with the commands of tools/gdb loaded.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::qemu::{self, Console, Machine};
use crate::{packages, project, run, usage};

/// The commands that know the kernel.
const HELPER: &str = "tools/gdb/marcona.py";

/// Options of `gdb`.
#[derive(clap::Args, Debug)]
#[group(id = "gdb-options")]
pub struct Args {
    #[command(flatten)]
    run: run::Args,
    /// Commands of gdb in a file, which ends with them
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(script) = args.script.as_deref().filter(|script| !script.is_file()) {
        usage!("there is no file {}: name one with commands of gdb", script.display());
    }
    let machine = run::machine(&args.run)?;
    qemu::ensure()?;
    packages::program("gdb", &["gdb"])?;
    let log = project::root().join("target/marcona/gdb-console");
    let mut gdb = command(&machine, &log, args.script.as_deref())?;
    // This process becomes gdb: keys such as Ctrl-C are gdb's alone, and when it ends the emulator does, too.
    Err(gdb.exec()).context("cannot start gdb")
}

/// The file of this tool. If it was built anew while this runs, the system says of the file that it is gone, but another one
/// stands in its place.
fn tool() -> Result<PathBuf> {
    let tool = std::env::current_exe()?;
    let name = tool.to_str().context("the tool's path is not UTF-8")?;
    Ok(name.trim_end_matches(" (deleted)").into())
}

/// Starts the machine, which writes what it prints into `log`, and returns the command that debugs it.
pub fn command(machine: &Machine, log: &Path, script: Option<&Path>) -> Result<Command> {
    let port = match machine.gdb {
        Some(port) => port,
        None => TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port(),
    };
    let machine = Machine { gdb: Some(port), ..machine.clone() };
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    qemu::emulator_command(&machine.options(&Console::none()))
        .stdin(Stdio::null())
        .stdout(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", qemu::PROGRAM))?;
    let with_symbols = |module: &qemu::Module| module.file.with_extension("debug");
    let [kernel, programs @ ..] = &*machine.modules else { usage!("there is no kernel") };
    let programs: Vec<String> = programs.iter().map(|module| with_symbols(module).display().to_string()).collect();
    let mut gdb = Command::new("gdb");
    gdb.arg("-q").arg(with_symbols(kernel));
    gdb.arg("-ex").arg(format!("target remote 127.0.0.1:{port}"));
    gdb.arg("-x").arg(project::root().join(HELPER));
    if let Some(script) = script {
        gdb.arg("-batch").arg("-x").arg(script);
    }
    gdb.env("MARCONA_TOOL", tool()?);
    gdb.env("MARCONA_KERNEL", with_symbols(kernel))
        .env("MARCONA_PROGRAMS", programs.join(":"))
        .env("MARCONA_CONSOLE", log);
    Ok(gdb)
}
