//! `cargo xtask build`: the files that a boot needs, below `target/marcona/ARCH/`.
//!
//! Each stands there twice: `NAME`, stripped, is booted; `NAME.debug` has the symbols.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use tempfile::Builder;

use crate::cargo;
use crate::config::Chosen;
use crate::elf::Image;
use crate::project::{self, Arch};
use crate::symbols;
use crate::toolchain::Toolchain;

/// The loader, and the same for machines that start it by PVH: as QEMU takes what has a Multiboot header for a Multiboot
/// kernel, this one has none.
const LOADER: &str = "kickstart";
pub const PVH_LOADER: &str = "kickstart-pvh";

/// The image that configurations are about.
const KERNEL: &str = "kernel";
/// The crates that it is made of.
const KERNEL_CRATES: [&str; 6] = ["kernel", "kcore", "kdb", "khal", "kformats", "l4-abi"];
/// Names the file of the configuration to the kernel's build script.
pub const VARIABLE: &str = "MARCONA_KERNEL_CONFIG";
/// Where kernels are compiled that are not the default one.
const CONFIGURED_DIR: &str = "target/configured";

/// Options of `build`.
#[derive(clap::Args)]
pub struct Args {
    /// Architecture
    #[arg(long, value_enum, default_value = "x86_64", hide_possible_values = true, value_name = "x86_64|x86_32")]
    arch: Arch,
    /// Kernel configuration, by name or file [default: the current one]
    #[arg(long, value_name = "NAME|FILE")]
    config: Option<String>,
}

/// Builds all images and prints their paths.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.arch.check()?;
    let names = project::images();
    let config = Chosen::of(args.config.as_deref())?;
    let built = images(&names, &config)?;
    // By hand one boots what stands here, whatever it was built with.
    let dir = project::image_dir();
    if built != dir {
        for name in names_with_symbols(&["kernel"]) {
            replace(&dir.join(&name), &fs::read(built.join(&name))?)?;
        }
        eprintln!("the kernel is built with configuration {}", config.name);
    }
    for name in names {
        println!("{}", project::relative(&dir.join(name)).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The files of images.
fn names_with_symbols(names: &[&str]) -> impl Iterator<Item = String> {
    names.iter().flat_map(|name| [(*name).to_owned(), format!("{name}.debug")])
}

/// Builds the images called `names`, the kernel with this configuration, and returns the folder in which they stand: one for
/// each configuration, so that those who build at the same time do not get each other's.
pub fn images(names: &[&str], config: &Chosen) -> Result<PathBuf> {
    let dir = project::image_dir();
    if config.is_default() || !names.contains(&KERNEL) {
        let mut command = Toolchain::find()?.cargo("build");
        command.env_remove(VARIABLE);
        return images_in(&dir, names, command, "").map(|()| dir);
    }
    let others: Vec<&str> = names.iter().copied().filter(|name| *name != KERNEL).collect();
    images_in(&dir, &others, Toolchain::find()?.cargo("build"), "")?;
    let configured = dir.join("config").join(config.key());
    kernel_in(&configured, config)?;
    let more = others.contains(&LOADER).then(|| PVH_LOADER.to_owned());
    for name in names_with_symbols(&others).chain(more) {
        replace(&configured.join(&name), &fs::read(dir.join(&name))?)?;
    }
    Ok(configured)
}

/// Builds the kernel with this configuration, which is not the default, unless this process has. It has a folder of its own
/// for what the compiler leaves, and a lock, as the next configuration takes the place of this one there.
fn kernel_in(dir: &Path, config: &Chosen) -> Result<()> {
    static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let file = config.file()?;
    let mut built = BUILT.lock().map_err(|_| anyhow!("another build ended too early"))?;
    if built.contains(dir) {
        return Ok(());
    }
    let mut command = Toolchain::find()?.cargo("build");
    let _lock = in_folder_of_configurations(&mut command)?;
    configure(&mut command, config, &file);
    images_in(dir, &[KERNEL], command, &format!(" with {}", config.name))?;
    built.insert(dir.to_owned());
    Ok(())
}

/// Has cargo compile the kernel with this configuration.
fn configure(command: &mut Command, config: &Chosen, file: &Path) {
    command.env(VARIABLE, file);
    if config.has_assertions() {
        for package in KERNEL_CRATES {
            command.args(["--config", &format!("profile.release.package.{package}.debug-assertions=true")]);
            command.args(["--config", &format!("profile.release.package.{package}.overflow-checks=true")]);
        }
    }
}

/// Compiles the kernel with this configuration as far as errors show, which does not take long.
pub fn check_kernel(config: &Chosen) -> Result<()> {
    let file = config.file()?;
    let mut command = Toolchain::find()?.cargo("check");
    let _lock = in_folder_of_configurations(&mut command)?;
    configure(&mut command, config, &file);
    command.args(["--package", KERNEL]);
    let report = cargo::build(&mut command, &format!("checking the kernel with {}", config.name))?;
    if !report.ok || !report.diagnostics.is_empty() {
        bail!("{}", report.text());
    }
    Ok(())
}

/// Has cargo work in the folder of configurations, from which others are kept out as long as the result lives.
pub fn in_folder_of_configurations(command: &mut Command) -> Result<File> {
    let dir = project::root().join(CONFIGURED_DIR);
    command.env("CARGO_TARGET_DIR", &dir);
    lock(&dir)
}

/// Keeps other processes out of a folder as long as the result lives.
pub fn lock(dir: &Path) -> Result<File> {
    fs::create_dir_all(dir)?;
    let file = File::create(dir.join("lock"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Builds images into a folder by `command`, which is cargo's and yet to be told which.
fn images_in(dir: &Path, names: &[&str], mut command: Command, how: &str) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    for name in names {
        command.args(["--package", name]);
    }
    let report = cargo::build(&mut command, &format!("building {}{how}", names.join(", ")))?;
    eprint!("{}", report.text());
    if !report.ok {
        bail!("the build of {}{how} failed", names.join(", "));
    }
    fs::create_dir_all(dir)?;
    for name in names {
        let found = report.executables.iter().find(|(target, _)| target == name);
        let (_, file) = found.with_context(|| format!("package {name} builds no program of that name"))?;
        install(file, dir, name)?;
    }
    Ok(())
}

/// Puts an image that was compiled into a folder, with symbols and without.
pub fn install(file: &Path, dir: &Path, name: &str) -> Result<()> {
    let mut bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if name == KERNEL {
        symbols::fill(&mut bytes).with_context(|| format!("cannot give {} its symbols", file.display()))?;
    }
    replace(&dir.join(format!("{name}.debug")), &bytes)?;
    let stripped = Image { bytes }.strip().with_context(|| format!("{} is not sound", file.display()))?;
    if name == LOADER {
        replace(&dir.join(PVH_LOADER), &without_multiboot(&stripped.bytes)?)?;
    }
    replace(&dir.join(name), &stripped.bytes)
}

/// The loader without the magic number of its Multiboot header.
fn without_multiboot(loader: &[u8]) -> Result<Vec<u8>> {
    const MAGIC: [u8; 4] = 0x1BAD_B002u32.to_le_bytes();
    const SEARCHED_BYTES: usize = 8 << 10;
    const ALIGN: usize = 4;
    let mut bytes = loader.to_vec();
    let searched = bytes.chunks_exact_mut(ALIGN).take(SEARCHED_BYTES / ALIGN);
    let header = searched.into_iter().find(|word| **word == MAGIC);
    header.context("the loader has no Multiboot header")?.fill(0);
    Ok(bytes)
}

/// Writes `file` such that an emulator that reads it at the same time sees the old or the new one.
pub fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let dir = file.parent().context("the file has no folder")?;
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut new = Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
    new.write_all(bytes)?;
    new.persist(file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}
