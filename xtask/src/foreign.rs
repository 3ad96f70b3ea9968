//! Programs in C that know the kernel by its ABI alone: `apps/foreign`, built with the machine's C compiler for the tests.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{packages, project};

/// Where sigma0 is linked, and where root tasks are (Boot protocol).
const SIGMA0_BASE: &str = "0xF00000";
const ROOT_BASE: &str = "0x1000000";

/// A program.
pub struct Program {
    /// Its name, also that of its file.
    pub name: &'static str,
    sources: &'static [&'static str],
    base: &'static str,
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    Program { name: "sigma0", sources: &["sigma0.c"], base: SIGMA0_BASE },
    Program { name: "pingpong", sources: &["pingpong.c"], base: ROOT_BASE },
    Program { name: "grabmem", sources: &["grabmem.c"], base: ROOT_BASE },
    Program { name: "suite", sources: SUITE, base: ROOT_BASE },
];

const SUITE: &[&str] = &[
    "world.c",
    "suite.c",
    "suite_kip.c",
    "suite_arch.c",
    "suite_memory.c",
    "suite_ipc.c",
    "suite_strings.c",
    "suite_threads.c",
];

/// Freestanding, static, at fixed addresses, without a red zone, as calls push on the caller's stack.
const FLAGS: &[&str] = &[
    "-O2",
    "-g0",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mno-red-zone",
    "-Wall",
    "-Wextra",
    "-nostdlib",
    "-static",
    "-no-pie",
];

/// Builds `program` and returns its file, which is complete at any time. Installs the compiler if it is missing.
pub fn build(program: &Program) -> Result<PathBuf> {
    let dir = project::image_dir().join("foreign");
    fs::create_dir_all(&dir)?;
    let sources = project::root().join("apps/foreign");
    let new = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(&dir)?;
    let compiler = packages::program("cc", &["gcc"])?;
    let mut command = Command::new(compiler);
    command
        .current_dir(&sources)
        .args(FLAGS)
        .arg("-o")
        .arg(new.path())
        .args(["start.S", "base.c"])
        .args(program.sources);
    command.arg(format!("-Wl,-T,foreign.ld,--defsym=image_base={}", program.base));
    command.arg("-Wl,--build-id=none,-z,max-page-size=4096,-z,noexecstack");
    compile(&mut command, program.name)?;
    let file = dir.join(program.name);
    new.persist(&file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Runs the compiler, which must have nothing to say.
fn compile(command: &mut Command, name: &str) -> Result<()> {
    let output =
        command.output().with_context(|| format!("cannot start {}", Path::new(command.get_program()).display()))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !words.trim().is_empty() {
        bail!("the program {name} in apps/foreign does not compile cleanly:\n{}", words.trim());
    }
    Ok(())
}
