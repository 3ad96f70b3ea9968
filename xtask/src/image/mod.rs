//! `cargo xtask image`: one file that boots on machines with BIOS and with UEFI, as a CD and as a USB stick.
//!
//! [`menu`] says what there is to choose, [`medium`] makes the file. The same commit gives the same bytes.

mod firmware;
mod medium;
mod menu;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::config::Chosen;
use crate::progress::Progress;
use crate::qemu::{self, Console, End, Input};
use crate::{build, project, run, usage};

pub use firmware::Firmware;
pub use medium::{Item, Medium};
pub use menu::{DIR, Entry, Menu, line};

/// The largest image that is of use to anybody with a small stick or a slow line.
pub const MAX_BYTES: u64 = 8 << 20;

/// What the kernel with the debugger is built with.
const DEBUGGER_CONFIG: &str = "kdb";

/// What stands for the commit's time where there is no repository: 2026-01-01.
const DEFAULT_TIME: i64 = 1_767_225_600;

/// Longest run when nobody watches.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);

/// Options of `image`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to write it [default: target/marcona/marcona.iso]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Kernel configuration, by name or file [default: the current one]
    #[arg(long, value_name = "NAME|FILE")]
    config: Option<String>,
    /// Boots pingpong, l4test, scale, debugger; -serial, -screen
    #[arg(long, value_name = "ENTRY", default_value = "pingpong")]
    entry: String,
    /// How long the menu waits for a key before that
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u32).range(0..=3600))]
    wait: u32,
    /// Boot it in QEMU with this firmware
    #[arg(long, value_enum, value_name = "bios|uefi", hide_possible_values = true)]
    run: Option<Firmware>,
    /// Print how long it takes to user mode by both firmwares
    #[arg(long, conflicts_with_all = ["run", "output", "entry", "wait"])]
    times: bool,
    /// With --run: as a USB stick (default)
    #[arg(long, requires = "run", conflicts_with = "cd")]
    usb: bool,
    /// With --run: as a CD
    #[arg(long, requires = "run")]
    cd: bool,
    /// With --run: open a window
    #[arg(long, requires = "run")]
    display: bool,
    /// With --run: processors
    #[arg(long, requires = "run", value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=qemu::MAX_CPUS))]
    cpus: u32,
    /// With --run: memory in MiB
    #[arg(long, requires = "run", value_name = "MIB", default_value = "512", value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    memory: u64,
    /// With --run: longest run; over it the status is 124 [default: 180]
    #[arg(long, requires = "run", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
}

/// What the loader says first, and what the first program of the user's does.
const LOADER_SPEAKS: &str = "kickstart ";
const PROGRAM_SPEAKS: &str = ", one way";

/// Makes the image that boots the benchmark at once, and prints how long it takes from power on to the loader and to user mode,
/// by both firmwares and from both media, and how long the image took to make.
fn print_times(config: &Chosen) -> Result<ExitCode> {
    qemu::ensure()?;
    let dir = tempfile::TempDir::new()?;
    let image = dir.path().join("marcona.iso");
    let first = Entry::of_name("pingpong-serial").context("the menu has it")?;
    let menu = Menu { first, wait_seconds: 0 };
    let built = build::images(&menu::files().collect::<Vec<_>>(), config)?;
    from_images(&built, menu, &image)?;
    let started = Instant::now();
    from_images(&built, menu, &image)?;
    println!("image       {:.1} s, {} KiB", started.elapsed().as_secs_f64(), fs::metadata(&image)?.len() >> 10);
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        for medium in [Medium::Cd, Medium::Usb] {
            let flash = firmware.flash()?;
            let ended = medium.machine(&image, flash.as_ref()).boot(&Console::none(), Some(DEFAULT_TIMEOUT))?;
            let time = |text| ended.times.of(&ended.console, text).map(|time| time.as_secs_f64());
            let (Some(loader), Some(program)) = (time(LOADER_SPEAKS), time(PROGRAM_SPEAKS)) else {
                bail!("{firmware:?} from {medium:?}: {}\n{}", ended.end, ended.console);
            };
            println!(
                "{:4} {:6} {loader:.2} s to the loader, {program:.2} s to user mode",
                word(firmware),
                word(medium)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of a variant in small letters.
fn word(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// Makes the image, prints its path, and boots it if asked to.
pub fn run(args: &Args) -> Result<ExitCode> {
    let Some(entry) = Entry::of_name(&args.entry) else {
        usage!("the menu has no entry {}: there are {}", args.entry, Entry::names().collect::<Vec<_>>().join(", "));
    };
    let config = Chosen::of(args.config.as_deref())?;
    if args.times {
        return print_times(&config);
    }
    let output = args.output.clone().unwrap_or_else(|| project::root().join("target/marcona/marcona.iso"));
    if output.is_dir() {
        usage!("{} is a folder: name a file", output.display());
    }
    make(&config, Menu { first: entry, wait_seconds: args.wait }, &output)?;
    let Some(firmware) = args.run else {
        println!("{}", project::relative(&output).display());
        return Ok(ExitCode::SUCCESS);
    };
    let medium = if args.cd { Medium::Cd } else { Medium::Usb };
    let ended = boot(args, firmware, medium, &output)?;
    println!("{}", project::relative(&output).display());
    Ok(ExitCode::from(run::status(&ended)))
}

/// Builds what is on the image, and the image.
pub fn make(config: &Chosen, menu: Menu, output: &Path) -> Result<()> {
    let names: Vec<&str> = menu::files().collect();
    from_images(&build::images(&names, config)?, menu, output)
}

/// Makes the image of what was built into `dir`.
pub fn from_images(dir: &Path, menu: Menu, output: &Path) -> Result<()> {
    let tools = medium::Tools::find()?;
    let _progress = Progress::start("making the image");
    let debugger = build::images(&["kernel"], &Chosen::of(Some(DEBUGGER_CONFIG))?)?.join("kernel");
    let files = menu::files().map(|name| (name, dir.join(name))).chain([(menu::DEBUGGER, debugger)]);
    let items = files.map(|(name, file)| Item::of_file(format!("{DIR}/{name}"), &file));
    let bytes = medium::make(&tools, items.collect::<Result<_>>()?, &menu.text(), time_of_commit()?)?;
    let size = bytes.len() as u64;
    ensure!(size <= MAX_BYTES, "the image has {size} bytes, more than {MAX_BYTES}");
    build::replace(output, &bytes)
}

/// Makes sure that media can be made.
pub fn ensure() -> Result<()> {
    medium::Tools::find().map(drop)
}

/// Makes a medium of any size with these files and this menu.
pub fn with_menu(items: Vec<Item>, menu: &str, output: &Path) -> Result<()> {
    build::replace(output, &medium::make(&medium::Tools::find()?, items, menu, time_of_commit()?)?)
}

/// Boots the image in the emulator.
fn boot(args: &Args, firmware: Firmware, medium: Medium, image: &Path) -> Result<End> {
    qemu::ensure()?;
    if args.display {
        qemu::ensure_window()?;
    }
    let flash = firmware.flash()?;
    let mut machine = medium.machine(image, flash.as_ref());
    (machine.cpus, machine.memory_mib, machine.display) = (args.cpus, args.memory, args.display);
    let input = if run::is_at_terminal() { Input::Terminal } else { Input::Nothing };
    let is_watched = args.display || input == Input::Terminal;
    let timeout = args.timeout.map(Duration::from_secs).or_else(|| (!is_watched).then_some(DEFAULT_TIMEOUT));
    Ok(machine.boot(&Console { input, is_shown: true, ..Console::none() }, timeout)?.end)
}

/// The time that all files on the image have: that of the commit, so that it is the same whenever the image is made.
/// `SOURCE_DATE_EPOCH` names another one, as it does for other tools.
fn time_of_commit() -> Result<i64> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    if let Ok(text) = env::var(VARIABLE) {
        return match text.parse() {
            Ok(seconds) if (0..1 << 32).contains(&seconds) => Ok(seconds),
            _ => usage!("{VARIABLE} is {text:?}: give it seconds since 1970, or unset it"),
        };
    }
    let git = Command::new("git").current_dir(project::root()).args(["log", "-1", "--format=%ct"]).output();
    let seconds = git.ok().filter(|output| output.status.success());
    let seconds = seconds.and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok());
    Ok(seconds.unwrap_or(DEFAULT_TIME))
}

/// The bytes of a file.
fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
