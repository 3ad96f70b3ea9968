//! Programs in C and C++ that know the kernel by its ABI alone: `apps/foreign`, built with the machine's C compiler for the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{packages, project};

/// Where the loader is linked, sigma0, and root tasks (Boot protocol).
const KICKSTART_BASE: &str = "0x100000";
const SIGMA0_BASE: &str = "0xF00000";
const ROOT_BASE: &str = "0x1000000";
/// Where neither the loader is nor what it loads.
const LIAR_BASE: &str = "0x400000";

/// A program.
pub struct Program {
    /// Its name, also that of its file.
    pub name: &'static str,
    sources: &'static [&'static str],
    base: &'static str,
    width: &'static Width,
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    Program { name: "kickstart", sources: &["kickstart.S", "kickstart.c"], base: KICKSTART_BASE, width: &W32 },
    Program { name: "narrow", sources: &["kickstart.S", "kickstart.c"], base: ROOT_BASE, width: &W32 },
    Program { name: "liar", sources: &["liar.S", "liar.c"], base: LIAR_BASE, width: &W32 },
    user("sigma0", &["start.S", "base.c", "sigma0.c"], SIGMA0_BASE),
    user("pingpong", &["start.S", "base.c", "pingpong.c"], ROOT_BASE),
    user("grabmem", &["start.S", "base.c", "grabmem.c"], ROOT_BASE),
    user("suite", SUITE, ROOT_BASE),
    user("plus", &["start.S", "base.c", "world.c", "plus.cc"], ROOT_BASE),
];

const fn user(name: &'static str, sources: &'static [&'static str], base: &'static str) -> Program {
    Program { name, sources, base, width: &W64 }
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

/// Options of one width.
struct Width {
    compile: &'static [&'static str],
    link: &'static [&'static str],
}

/// A loader, without registers that need setting up.
const W32: Width =
    Width { compile: &["-m32", "-march=i686", "-mgeneral-regs-only"], link: &["-m32", "-Wl,-m,elf_i386"] };
/// A program without a red zone, as calls push on the caller's stack.
const W64: Width = Width { compile: &["-mno-red-zone"], link: &[] };

/// Freestanding, for fixed addresses.
const COMPILE: &[&str] = &[
    "-c",
    "-O2",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-Wall",
    "-Wextra",
    "-Wno-missing-field-initializers",
];
/// C++ without what needs a library.
const COMPILE_CPP: &[&str] = &["-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"];
const LINK: &[&str] =
    &["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-z,max-page-size=4096,-z,noexecstack,-T,foreign.ld"];

/// Builds `program` and returns its file, which is complete at any time. Installs the compiler if it is missing.
pub fn build(program: &Program) -> Result<PathBuf> {
    let dir = project::image_dir().join("foreign");
    fs::create_dir_all(&dir)?;
    let objects = TempDir::new_in(&dir)?;
    let mut link = compiler("cc", "gcc")?;
    let linked = objects.path().join(program.name);
    for (index, source) in program.sources.iter().enumerate() {
        let object = objects.path().join(format!("{index}.o"));
        compile(program, source, &object)?;
        link.arg(object);
    }
    link.args(LINK).args(program.width.link).arg(format!("-Wl,--defsym=image_base={}", program.base));
    run(link.arg("-o").arg(&linked), program.name)?;
    let file = dir.join(program.name);
    fs::rename(linked, &file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn compile(program: &Program, source: &str, object: &Path) -> Result<()> {
    let is_cpp = source.ends_with(".cc");
    let mut command = if is_cpp { compiler("c++", "g++")? } else { compiler("cc", "gcc")? };
    command.args(COMPILE).args(program.width.compile).args(if is_cpp { COMPILE_CPP } else { &[] });
    run(command.arg(source).arg("-o").arg(object), source)
}

/// The compiler called `name`, in the folder of the sources.
fn compiler(name: &str, package: &str) -> Result<Command> {
    let mut command = Command::new(packages::program(name, &[package])?);
    command.current_dir(project::root().join("apps/foreign"));
    Ok(command)
}

/// Runs a compiler. What it warns of is shown; compilers differ in that.
fn run(command: &mut Command, what: &str) -> Result<()> {
    let output =
        command.output().with_context(|| format!("cannot start {}", Path::new(command.get_program()).display()))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("apps/foreign: {what} does not compile:\n{}", words.trim());
    }
    eprint!("{words}");
    Ok(())
}
