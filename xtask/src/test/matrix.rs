//! `cargo xtask matrix`: the benchmark on machines of many kinds, each of which must print its tables, on the screen where
//! there is one. A part of it in which each choice occurs is among the tests.
//!
//! A row is a processor, a number of processors or a size of memory, a column a way to start a machine ([`Start`]), of which
//! one is another emulator: Bochs, for what QEMU's translator has not.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::boots::{PATIENCE, check_memory_of_host, check_success, machine, tail};
use super::media::{check_tables, see_tables, with_console};
use super::{Case, Lab, Skipped, fresh_seed};
use crate::config::Chosen;
use crate::image::{self, Entry, Firmware, Medium, Menu};
use crate::progress::Progress;
use crate::qemu::{Console, Machine, Module};
use crate::{bochs, build, project, qemu};

/// Options of `matrix`.
#[derive(clap::Args)]
pub struct Args {
    /// Run the cells whose names contain this, as in `q35` or `max,-nx`
    filter: Option<String>,
    /// Kernel configuration, by name or file
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    config: String,
    /// Print the cells and stop
    #[arg(long)]
    list: bool,
}

/// Processors: models, and models with and without each protection that the kernel uses.
const MODELS: &[&str] = &[
    "qemu64",
    "Nehalem",
    "Haswell",
    "EPYC",
    "max",
    "max,-nx",
    "max,-smep",
    "max,-smap",
    "max,-umip",
    "max,-pge",
    "max,-fsgsbase",
    "max,-pdpe1gb",
    "max,-xsave",
    "qemu64,-nx",
    "qemu64,+smep",
    "qemu64,+smap",
    "qemu64,+umip",
];
const PROCESSORS: &[u32] = &[1, 2, 3, 4, 8, 40, 255];
const MEMORY_MIB: &[u64] = &[64, 256, 1024, 4096, 16 << 10];

/// What cells have where it is not what they are about.
const USUAL: Size = Size { cpus: 2, memory_mib: 512 };

/// How many processors, how much memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Size {
    cpus: u32,
    memory_mib: u64,
}

/// How a machine starts, and what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    /// A PC with its first chip set; QEMU loads the modules.
    Pc,
    /// A PC with PCI Express.
    Q35,
    /// A machine for virtual machines alone, whose loader is started by PVH.
    Microvm,
    /// Without high-precision timer.
    NoHpet,
    /// Without the timer of the first PC.
    NoPit,
    /// With a text screen; a console server prints.
    Text,
    /// With a text screen and without a serial line.
    NoSerial,
    /// From the image in a drive, by a BIOS, on a screen of pixels.
    Bios,
    /// From the image on a stick, by UEFI, on a screen of pixels.
    Uefi,
    /// From a disc by a BIOS, in Bochs.
    Bochs,
}

impl Start {
    const ALL: [Self; 10] = [
        Self::Pc,
        Self::Q35,
        Self::Microvm,
        Self::NoHpet,
        Self::NoPit,
        Self::Text,
        Self::NoSerial,
        Self::Bios,
        Self::Uefi,
        Self::Bochs,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Pc => "pc",
            Self::Q35 => "q35",
            Self::Microvm => "microvm-pvh",
            Self::NoHpet => "no-hpet",
            Self::NoPit => "no-pit",
            Self::Text => "text",
            Self::NoSerial => "no-serial",
            Self::Bios => "bios-cd",
            Self::Uefi => "uefi-usb",
            Self::Bochs => "bochs",
        }
    }

    /// Whether there can be a machine with this processor and of this size: UEFI itself needs more memory than the least, and
    /// a minute for many processors; Bochs has models and limits of its own.
    fn takes(self, model: &str, size: Size) -> bool {
        match self {
            Self::Uefi => size.memory_mib > 64 && size.cpus <= 8,
            Self::Bochs => bochs_model(model).is_some() && size.memory_mib <= 2048 && size.cpus <= 8,
            _ => true,
        }
    }
}

/// The model of Bochs's that is like one of QEMU's; the last has all that Bochs has.
fn bochs_model(model: &str) -> Option<&'static str> {
    match model {
        "qemu64" => Some("athlon64_venice"),
        "Nehalem" => Some("corei5_lynnfield_750"),
        "Haswell" => Some(bochs::DEFAULT_CPU),
        "EPYC" => Some("ryzen"),
        "max" => Some("corei7_icelake_u"),
        _ => None,
    }
}

/// A machine to be tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    model: &'static str,
    size: Size,
    start: Start,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { cpus, memory_mib } = self.size;
        write!(f, "{}_{}_{cpus}_processors_{memory_mib}_mib", self.start.name(), self.model)
    }
}

/// The rows of the matrix, each with its name.
fn rows() -> impl Iterator<Item = (String, &'static str, Size)> {
    let models = MODELS.iter().map(|model| ((*model).to_owned(), *model, USUAL));
    let processors = PROCESSORS.iter().map(|&cpus| (format!("{cpus} processors"), "max", Size { cpus, ..USUAL }));
    let memory =
        MEMORY_MIB.iter().map(|&memory_mib| (format!("{memory_mib} MiB"), "max", Size { memory_mib, ..USUAL }));
    models.chain(processors).chain(memory)
}

/// All cells there can be, row by row.
fn cells() -> impl Iterator<Item = Cell> {
    rows()
        .flat_map(|(_, model, size)| Start::ALL.map(|start| Cell { model, size, start }))
        .filter(|cell| cell.start.takes(cell.model, cell.size))
}

/// Cells in which each model, number of processors, size of memory and start occurs. The largest machines take long, so they are
/// left to the command.
fn covering() -> Vec<Cell> {
    let processors: Vec<u32> = PROCESSORS.iter().copied().filter(|cpus| *cpus <= 40).collect();
    let memory: Vec<u64> = MEMORY_MIB.iter().copied().filter(|memory| *memory <= 4096).collect();
    let cell = |index: usize| {
        let size =
            Size { cpus: processors[index % processors.len()], memory_mib: memory[(index / 2 + 1) % memory.len()] };
        // UEFI and Bochs take long: once is enough, and there are tests of Bochs alone.
        let start = if index == 1 { Start::Uefi } else { Start::ALL[index % (Start::ALL.len() - 2)] };
        Cell { model: MODELS[index], size, start }
    };
    let in_bochs = Cell { model: "max", size: Size { cpus: 2, memory_mib: 64 }, start: Start::Bochs };
    (0..MODELS.len()).map(cell).chain([in_bochs]).collect()
}

/// The tests of this file.
pub fn cases() -> Vec<Case> {
    let case = |cell: Cell| {
        Case::new(format!("matrix::{cell}"), "Boot, machines", move |lab| {
            let dir = TempDir::new()?;
            let image = if cell.needs_image() { Some(make_image(lab, dir.path())?) } else { None };
            cell.try_out(lab, image.as_deref())
        })
    };
    covering().into_iter().map(case).collect()
}

fn make_image(lab: &Lab, dir: &Path) -> Result<PathBuf> {
    let first = Entry::of_name("pingpong").expect("the menu has it");
    let image = dir.join("marcona.iso");
    image::from_images(&lab.dir, Menu { first, wait_seconds: 0 }, &image)?;
    Ok(image)
}

impl Cell {
    fn needs_image(self) -> bool {
        matches!(self.start, Start::Bios | Start::Uefi)
    }

    /// Boots the benchmark and looks for its tables.
    fn try_out(self, lab: &Lab, image: Option<&Path>) -> Result<()> {
        if self.size.cpus > lab.config.processors {
            return Err(Skipped("the kernel was built for fewer processors").into());
        }
        check_memory_of_host(self.size.memory_mib)?;
        let sized = |machine: Machine| Machine {
            cpus: self.size.cpus,
            memory_mib: self.size.memory_mib,
            cpu: self.model.to_owned(),
            ..machine
        };
        let on_serial = |board: &str| {
            let dir = TempDir::new()?;
            let machine = Machine { board: board.to_owned(), ..machine(lab, self.model, self.size.memory_mib) };
            let machine = if self.start == Start::Microvm { machine.by_pvh(dir.path())? } else { machine };
            let ended = sized(machine).boot(&Console::none(), Some(PATIENCE))?;
            check_success(&ended)?;
            let lines: Vec<String> = ended.console.lines().map(str::to_owned).collect();
            ensure!(
                lines.iter().any(|line| line.contains(&format!("{} processors", self.size.cpus))),
                "{}",
                tail(&ended.console)
            );
            check_tables(&lines, MODES)
        };
        let on_medium = |firmware: Firmware, medium: Medium| {
            let flash = firmware.flash()?;
            let image = image.expect("the image was made for this cell");
            see_tables(sized(medium.machine(image, flash.as_ref())), MODES)
        };
        match self.start {
            Start::Bochs => self.try_in_bochs(lab),
            Start::Pc => on_serial("pc"),
            Start::Q35 => on_serial("q35"),
            Start::Microvm => on_serial("microvm"),
            Start::NoHpet => on_serial("pc,hpet=off"),
            Start::NoPit => on_serial("pc,pit=off"),
            Start::Text => see_tables(sized(with_console(lab, "pingpong", "", "console=both")), MODES),
            Start::NoSerial => {
                let machine = with_console(lab, "pingpong", "", "console=screen");
                see_tables(sized(Machine { has_serial: false, ..machine }), MODES)
            }
            Start::Bios => on_medium(Firmware::Bios, Medium::Cd),
            Start::Uefi => on_medium(Firmware::Uefi, Medium::Usb),
        }
    }
}

impl Cell {
    /// The same in Bochs, with fewer rounds; what its models are there for must be what the kernel finds.
    fn try_in_bochs(self, lab: &Lab) -> Result<()> {
        if bochs::ensure().is_err() {
            return Err(Skipped("Bochs is not here and cannot be installed").into());
        }
        let root = Module { file: lab.image("pingpong"), args: "rounds=20".to_owned() };
        let mut machine = bochs::Machine::new(&lab.dir, root);
        (machine.cpus, machine.memory_mib) = (self.size.cpus, self.size.memory_mib);
        bochs_model(self.model).context("Bochs has such a model")?.clone_into(&mut machine.cpu);
        let ended = machine.boot(false, PATIENCE)?;
        check_success(&ended)?;
        let lines: Vec<String> = ended.console.lines().map(str::to_owned).collect();
        let says = |text: String| lines.iter().any(|line| line.contains(&text));
        ensure!(says(format!("{} processors", self.size.cpus)), "{}", tail(&ended.console));
        let absent = lines.iter().find_map(|line| line.split_once("absent: ")).map_or("", |(_, absent)| absent);
        let lacks = |feature: &&str| absent.split_whitespace().any(|word| word == *feature);
        let lacking = BOCHS_FEATURES.iter().find(|feature| self.model == "max" && lacks(feature));
        ensure!(lacking.is_none(), "the processor lacks {lacking:?}: absent are {absent}");
        check_tables(&lines, MODES)
    }
}

/// What Bochs's newest processors have and QEMU's translator has not.
const BOCHS_FEATURES: [&str; 5] = ["pcid", "invpcid", "x2apic", "tsc-deadline", "monitor"];

/// What the benchmark measures.
const MODES: &[&str] = &["inter", "intra"];
/// Machines at a time.
const WORKERS: usize = 2;

/// What came of a cell.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Ok,
    /// It cannot be tried here, or not at all.
    None,
    Failed(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::None => "-",
            Self::Failed(_) => "FAILED",
        }
    }
}

/// Runs the command: prints a line for each row, then what failed, last `N passed, N failed`.
pub fn run(args: &Args) -> Result<ExitCode> {
    let config = Chosen::of(Some(&args.config))?;
    let is_wanted = |cell: &Cell| args.filter.as_ref().is_none_or(|part| cell.to_string().contains(part.as_str()));
    let wanted: Vec<Cell> = cells().filter(is_wanted).collect();
    if wanted.is_empty() {
        crate::usage!("no cell has {} in its name: --list prints them", args.filter.as_deref().unwrap_or_default());
    }
    if args.list {
        wanted.iter().for_each(|cell| println!("{cell}"));
        return Ok(ExitCode::SUCCESS);
    }
    qemu::ensure()?;
    let lab = Lab { dir: build::images(&project::images(), &config)?, seed: fresh_seed(), config };
    let dir = TempDir::new()?;
    let image = if wanted.iter().any(|cell| cell.needs_image()) { Some(make_image(&lab, dir.path())?) } else { None };
    let progress = Progress::start("trying machines");
    println!("{}", line("", Start::ALL.map(Start::name)));
    let mut failed = vec![];
    let mut passed = 0;
    for (name, model, size) in rows() {
        let row: Vec<Cell> = wanted.iter().copied().filter(|cell| cell.model == model && cell.size == size).collect();
        if row.is_empty() {
            continue;
        }
        progress.note(&name);
        let outcomes = try_row(&lab, &row, image.as_deref());
        let words = Start::ALL.map(|start| {
            let found = row.iter().zip(&outcomes).find(|(cell, _)| cell.start == start);
            found.map_or(Outcome::None, |(_, outcome)| outcome.clone()).word()
        });
        progress.println(&line(&name, words));
        for (cell, outcome) in row.iter().zip(outcomes) {
            match outcome {
                Outcome::Ok => passed += 1,
                Outcome::None => {}
                Outcome::Failed(why) => failed.push((*cell, why)),
            }
        }
    }
    drop(progress);
    for (cell, why) in &failed {
        println!("\n{cell}:");
        why.lines().for_each(|line| println!("    {line}"));
    }
    println!("{passed} passed, {} failed", failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line of the matrix.
fn line(name: &str, words: [&str; Start::ALL.len()]) -> String {
    words.iter().fold(format!("{name:16}"), |line, word| line + &format!("{word:>12}"))
}

/// Tries the cells of a row, some at a time.
fn try_row(lab: &Lab, row: &[Cell], image: Option<&Path>) -> Vec<Outcome> {
    let next = Mutex::new(0..row.len());
    let outcomes = Mutex::new(vec![Outcome::None; row.len()]);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(index) = { next.lock().expect("no worker panics while it takes a cell").next() } {
                    let started = Instant::now();
                    let outcome = match row[index].try_out(lab, image) {
                        Ok(()) => Outcome::Ok,
                        Err(error) if error.is::<Skipped>() => Outcome::None,
                        Err(error) => Outcome::Failed(format!("{error:#}\nafter {:?}", started.elapsed())),
                    };
                    outcomes.lock().expect("no worker panics while it leaves an outcome")[index] = outcome;
                }
            });
        }
    });
    outcomes.into_inner().expect("no worker panics")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{MEMORY_MIB, MODELS, PROCESSORS, Start, cells, covering};

    #[test]
    fn cells_have_names_of_their_own() {
        let names: Vec<String> = cells().map(|cell| cell.to_string()).collect();
        assert!(names.len() > 200);
        // The usual machine is a row of each kind.
        let different: HashSet<&String> = names.iter().collect();
        assert!(names.len() - different.len() <= 3 * Start::ALL.len());
    }

    #[test]
    fn the_tests_have_each_choice() {
        let covering = covering();
        assert!(covering.iter().all(|cell| cell.start.takes(cell.model, cell.size)), "{covering:?}");
        for model in MODELS {
            assert!(covering.iter().any(|cell| cell.model == *model), "{model}");
        }
        for start in Start::ALL {
            assert!(covering.iter().any(|cell| cell.start == start), "{start:?}");
        }
        for cpus in PROCESSORS.iter().filter(|cpus| **cpus <= 40) {
            assert!(covering.iter().any(|cell| cell.size.cpus == *cpus), "{cpus}");
        }
        for memory in MEMORY_MIB.iter().filter(|memory| **memory <= 4096) {
            assert!(covering.iter().any(|cell| cell.size.memory_mib == *memory), "{memory}");
        }
    }
}
