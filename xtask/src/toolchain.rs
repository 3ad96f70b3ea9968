//! The compiler, the core library and the linker for bare metal, from whatever the machine has.
//!
//! A fresh machine often has core for the host alone. The ways to get one, first match wins: a prebuilt core of the
//! active compiler, the source of the active compiler, the source of the system's compiler, the packages that bring the
//! latter. rustup is never asked to fetch anything.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::packages::{self, OLDEST_MINOR, Rust};
use crate::project::{self, TARGET};

/// Where packages put the system's compiler.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// The folder of bare-metal builds below the root of the workspace; core is in it as well, so it is compiled once.
const TARGET_DIR: &str = "target/bare";

/// How to build for bare metal on this machine.
pub struct Toolchain {
    /// The compiler, if it is not the active one.
    rustc: Option<&'static str>,
    /// Core is compiled from source.
    builds_core: bool,
    linker: PathBuf,
    /// Where the compiler lives.
    pub sysroot: PathBuf,
}

impl Toolchain {
    /// Looks for the parts, and installs packages for what is missing.
    pub fn find() -> Result<Self> {
        let active = active_rustc();
        let active_sysroot = ask(&active, &["--print", "sysroot"])?;
        let linker = linker(&active_sysroot)?;
        if has_prebuilt_core(&ask(&active, &["--print", "target-libdir", "--target", TARGET])?) {
            return Ok(Self { rustc: None, builds_core: false, linker, sysroot: active_sysroot });
        }
        if has_source(&active_sysroot) {
            return Ok(Self { rustc: None, builds_core: true, linker, sysroot: active_sysroot });
        }
        if system_sysroot().is_none() {
            packages::install("a core library for bare metal", Rust::newest().compiler)?;
        }
        let sysroot = system_sysroot().context(
            "the system's compiler has no source or is older than 1.88: type `rustup component add rust-src`",
        )?;
        Ok(Self { rustc: Some(SYSTEM_RUSTC), builds_core: true, linker, sysroot })
    }

    /// The compiler's name and version.
    pub fn version(&self) -> Result<String> {
        let rustc = self.rustc.map_or_else(active_rustc, str::to_owned);
        let output = Command::new(&rustc).env_remove("LD_LIBRARY_PATH").arg("--version").output();
        let output = output.with_context(|| format!("cannot start {rustc}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn has_stable_jump_tables(&self) -> bool {
        self.version().ok().and_then(|version| minor(&version)).is_none_or(|minor| minor >= STABLE_JUMP_TABLES_MINOR)
    }

    /// A cargo command that compiles for bare metal what is added as `-p PACKAGE`.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = project::cargo(subcommand);
        // A rustup proxy leaves the folders of its own libraries there, which the system's compiler must not load.
        command.env_remove("LD_LIBRARY_PATH").env("CARGO_ENCODED_RUSTFLAGS", self.flags().join("\u{1f}"));
        command.args(["--release", "--target", TARGET]).env("CARGO_TARGET_DIR", project::root().join(TARGET_DIR));
        if let Some(rustc) = self.rustc {
            command.env("RUSTC", rustc);
        }
        // build-std is unstable, though it has not changed for years; so are some flags.
        command.env("RUSTC_BOOTSTRAP", "1");
        if self.builds_core {
            command.args(["-Zbuild-std=core,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"]);
        }
        command
    }

    /// The same flags for the kernel and for user programs: other flags would be another core.
    ///
    /// Neither tables of jumps nor calls by way of a table of addresses, as indirect branches can be led astray (Spectre v2).
    fn flags(&self) -> [String; 8] {
        [
            if self.has_stable_jump_tables() { "-Cjump-tables=no" } else { "-Zno-jump-tables" }.to_owned(),
            "-Zplt=yes".to_owned(),
            "-Crelocation-model=static".to_owned(),
            "-Cforce-unwind-tables=no".to_owned(),
            "-Cforce-frame-pointers=yes".to_owned(),
            "-Clinker-flavor=ld".to_owned(),
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=-melf_x86_64".to_owned(),
        ]
    }
}

/// The oldest compiler that takes `-Cjump-tables`: 1.93.
const STABLE_JUMP_TABLES_MINOR: u32 = 93;

/// The compiler that cargo uses when it is not told.
fn active_rustc() -> String {
    env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned())
}

/// What the compiler prints for `arguments`, as a path.
fn ask(rustc: &str, arguments: &[&str]) -> Result<PathBuf> {
    let output = Command::new(rustc).args(arguments).output().with_context(|| format!("cannot start {rustc}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{rustc} {}: {}", arguments.join(" "), error.lines().next().unwrap_or_default());
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn has_prebuilt_core(target_libdir: &Path) -> bool {
    let Ok(files) = fs::read_dir(target_libdir) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

/// Where the system's compiler lives, if it has the source of core and is new enough.
fn system_sysroot() -> Option<PathBuf> {
    if !Path::new(SYSTEM_RUSTC).is_file() {
        return None;
    }
    let version = Command::new(SYSTEM_RUSTC).env_remove("LD_LIBRARY_PATH").arg("--version").output().ok()?;
    let sysroot = ask(SYSTEM_RUSTC, &["--print", "sysroot"]).ok()?;
    let is_new_enough = minor(&String::from_utf8_lossy(&version.stdout))? >= OLDEST_MINOR;
    (is_new_enough && has_source(&sysroot)).then_some(sysroot)
}

/// 96 from `rustc 1.96.0 (...)`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("rustc 1.")?.split('.').next()?.parse().ok()
}

/// The linker that comes with the active compiler, else the system's.
fn linker(sysroot: &Path) -> Result<PathBuf> {
    let hosts = fs::read_dir(sysroot.join("lib/rustlib")).into_iter().flatten().flatten();
    let bundled = hosts.map(|host| host.path().join("bin/gcc-ld/ld.lld")).find(|file| file.is_file());
    match bundled {
        Some(file) => Ok(file),
        None => packages::program("ld", &["binutils"]),
    }
}

/// The linter that belongs to the compiler in `sysroot`.
pub fn clippy_driver(sysroot: &Path) -> Result<PathBuf> {
    let driver = sysroot.join("bin/clippy-driver");
    if !driver.is_file() && packages::is_of_system(sysroot) {
        packages::install("the linter for bare metal", Rust::newest().linter)?;
    }
    if !driver.is_file() {
        bail!("{} is missing: type `rustup component add clippy`", driver.display());
    }
    Ok(driver)
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn the_age_of_a_compiler_is_read_from_its_version() {
        assert_eq!(minor("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"), Some(96));
        assert_eq!(minor("rustc 1.63.0"), Some(63));
        assert_eq!(minor("rustc 2.0.0"), None);
    }
}
