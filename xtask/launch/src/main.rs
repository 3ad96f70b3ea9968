//! What `cargo xtask` starts: compiles the build tool and becomes it.
//!
//! `cargo run` either prints two lines above each command or, when quiet, nothing at all while some thirty crates
//! compile for the first time. So this program, which has no dependencies and is there in a second, lets cargo build
//! the tool and passes on what cargo says as soon as that takes longer than a moment.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long a build may be silent.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let error = match build() {
        Ok(true) => become_tool(),
        Ok(false) => return ExitCode::FAILURE,
        Err(error) => error,
    };
    eprintln!("error: the build tool does not start: {error}");
    ExitCode::FAILURE
}

/// Whether cargo could build the tool; shows cargo's words if that takes long or fails.
fn build() -> io::Result<bool> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        .args(["build", "--package", "xtask", "--manifest-path"])
        .arg(manifest)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let started = Instant::now();
    let mut held = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            held.push(line?);
            if started.elapsed() > PATIENCE {
                show(&mut held);
            }
        }
    }
    let built = child.wait()?.success();
    if !built {
        show(&mut held);
    }
    Ok(built)
}

fn show(held: &mut Vec<String>) {
    for line in held.drain(..) {
        eprintln!("{line}");
    }
}

/// Replaces this process by the tool, which cargo puts beside this program; returns only if that fails.
fn become_tool() -> io::Error {
    match env::current_exe() {
        Ok(launcher) => Command::new(launcher.with_file_name("xtask")).args(env::args_os().skip(1)).exec(),
        Err(error) => error,
    }
}
