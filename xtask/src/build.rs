//! `cargo xtask build`: the files that a boot needs, below `target/marcona/ARCH/`.
//!
//! Each stands there twice: `NAME`, stripped, is booted; `NAME.debug` has the symbols.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tempfile::Builder;

use crate::cargo;
use crate::elf::Image;
use crate::project::{self, Arch};
use crate::toolchain::Toolchain;

/// Options of `build`.
#[derive(clap::Args)]
pub struct Args {
    /// Architecture
    #[arg(long, value_enum, default_value = "x86_64", hide_possible_values = true, value_name = "x86_64|x86_32")]
    arch: Arch,
}

/// Builds all images and prints their paths.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.arch.check()?;
    let names = project::images();
    let dir = images(&names)?;
    for name in names {
        println!("{}", project::relative(&dir.join(name)).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the images called `names` and returns the folder in which they stand.
pub fn images(names: &[&str]) -> Result<PathBuf> {
    let dir = project::image_dir();
    if names.is_empty() {
        return Ok(dir);
    }
    let mut command = Toolchain::find()?.cargo("build");
    for name in names {
        command.args(["--package", name]);
    }
    let report = cargo::build(&mut command, &format!("building {}", names.join(", ")))?;
    eprint!("{}", report.text());
    if !report.ok {
        bail!("the build of {} failed", names.join(", "));
    }
    fs::create_dir_all(&dir)?;
    for name in names {
        let found = report.executables.iter().find(|(target, _)| target == name);
        let (_, file) = found.with_context(|| format!("package {name} builds no program of that name"))?;
        install(file, &dir, name)?;
    }
    Ok(dir)
}

fn install(file: &Path, dir: &Path, name: &str) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    replace(&dir.join(format!("{name}.debug")), &bytes)?;
    let stripped = Image { bytes }.strip().with_context(|| format!("{} is not sound", file.display()))?;
    replace(&dir.join(name), &stripped.bytes)
}

/// Writes `file` such that an emulator that reads it at the same time sees the old or the new one.
fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let dir = file.parent().context("the file has no folder")?;
    let mut new = Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
    new.write_all(bytes)?;
    new.persist(file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}
