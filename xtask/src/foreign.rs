//! Programs in C that know the kernel by its ABI alone: `apps/foreign`, built with the machine's C compiler for the tests.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{packages, project};

/// Where the loader is linked, sigma0, and root tasks (Boot protocol).
const KICKSTART_BASE: &str = "0x100000";
const SIGMA0_BASE: &str = "0xF00000";
const ROOT_BASE: &str = "0x1000000";

/// A program.
pub struct Program {
    /// Its name, also that of its file.
    pub name: &'static str,
    sources: &'static [&'static str],
    base: &'static str,
    flags: &'static [&'static str],
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    Program { name: "kickstart", sources: &["kickstart.S", "kickstart.c"], base: KICKSTART_BASE, flags: FLAGS_32 },
    Program { name: "narrow", sources: &["kickstart.S", "kickstart.c"], base: ROOT_BASE, flags: FLAGS_32 },
    user("sigma0", &["start.S", "base.c", "sigma0.c"], SIGMA0_BASE),
    user("pingpong", &["start.S", "base.c", "pingpong.c"], ROOT_BASE),
    user("grabmem", &["start.S", "base.c", "grabmem.c"], ROOT_BASE),
    user("suite", SUITE, ROOT_BASE),
];

const fn user(name: &'static str, sources: &'static [&'static str], base: &'static str) -> Program {
    Program { name, sources, base, flags: FLAGS_64 }
}

const SUITE: &[&str] = &[
    "start.S",
    "base.c",
    "world.c",
    "suite.c",
    "suite_kip.c",
    "suite_arch.c",
    "suite_memory.c",
    "suite_ipc.c",
    "suite_strings.c",
    "suite_threads.c",
];

/// Freestanding, static, at fixed addresses.
const FLAGS: &[&str] = &[
    "-O2",
    "-g0",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-Wall",
    "-Wextra",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none,-z,max-page-size=4096,-z,noexecstack,-T,foreign.ld",
];

/// A loader, without registers that need setting up.
const FLAGS_32: &[&str] = &["-m32", "-march=i686", "-mgeneral-regs-only", "-Wl,-m,elf_i386"];
/// A program without a red zone, as calls push on the caller's stack.
const FLAGS_64: &[&str] = &["-mno-red-zone"];

/// Builds `program` and returns its file, which is complete at any time. Installs the compiler if it is missing.
pub fn build(program: &Program) -> Result<PathBuf> {
    let dir = project::image_dir().join("foreign");
    fs::create_dir_all(&dir)?;
    let sources = project::root().join("apps/foreign");
    let new = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(&dir)?;
    let compiler = packages::program("cc", &["gcc"])?;
    let mut command = Command::new(compiler);
    command.current_dir(&sources).args(FLAGS).args(program.flags).arg("-o").arg(new.path()).args(program.sources);
    command.arg(format!("-Wl,--defsym=image_base={}", program.base));
    compile(&mut command, program.name)?;
    let file = dir.join(program.name);
    new.persist(&file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Runs the compiler. What it warns of is shown; compilers differ in that.
fn compile(command: &mut Command, name: &str) -> Result<()> {
    let output =
        command.output().with_context(|| format!("cannot start {}", Path::new(command.get_program()).display()))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the program {name} in apps/foreign does not compile:\n{}", words.trim());
    }
    eprint!("{words}");
    Ok(())
}
