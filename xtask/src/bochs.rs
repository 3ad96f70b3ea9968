//! `cargo xtask bochs`: boots in Bochs, which has what QEMU's translator lacks: identifiers of spaces (PCID, INVPCID), by which
//! translations outlive the load of another space.
//!
//! A command of its own, as next to none of the options of `run` means anything here: a disc is booted through firmware and
//! GRUB, nothing can be typed, and nothing counts. The serial line goes to a file, which is followed. Bochs has no device
//! that ends it with a status; a program that has ended says so on the line ([`qemu::told_status`]).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::config::Chosen;
use crate::image::Item;
use crate::progress::Progress;
use crate::qemu::{self, End, Ended, Module, Times};
use crate::{build, image, packages, run};

/// The emulator. What is called `bochs` is a script that would stay between us and it.
const PROGRAM: &str = "bochs-bin";
/// It and its firmware.
const PACKAGES: [&str; 3] = ["bochs", "bochsbios", "vgabios"];
/// Its firmware, as Debian has it.
const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
const VGA_BIOS: &str = "/usr/share/bochs/VGABIOS-lgpl-latest";

/// Processors that Bochs can have.
const MAX_CPUS: i64 = 8;
/// A processor with PCID and INVPCID.
pub const DEFAULT_CPU: &str = "corei7_haswell_4770";

/// How the kernel says that it stops, and with what status it does in QEMU.
const PANIC: &str = "marcona: kernel panic: ";
const PANIC_STATUS: u8 = 0x7E;
/// How kickstart says that it refuses to boot.
const REFUSAL: &str = "kickstart: ";

/// How often the serial line is looked at, and how long for more behind the last words.
const LOOK: Duration = Duration::from_millis(20);
const LAST_LOOKS: u32 = 10;

/// The time that a run may take.
const DEFAULT_TIMEOUT: u64 = 120;

/// Options of `bochs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    booted: run::Booted,
    /// Processors
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=MAX_CPUS))]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value = "256", value_parser = clap::value_parser!(u64).range(32..=2048))]
    memory: u64,
    /// Processor model, of `bochs -help cpu`
    #[arg(long, value_name = "MODEL", default_value = DEFAULT_CPU)]
    cpu: String,
    /// Longest run; over it the status is 124
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let program = args.booted.program.as_deref().unwrap_or(run::DEFAULT_PROGRAM);
    run::check_program(program)?;
    let config = Chosen::of(args.booted.config.as_deref())?;
    ensure()?;
    let dir = build::images(&["kickstart", "kernel", "sigma0", program], &config)?;
    let root = Module { file: dir.join(program), args: args.booted.args.clone().unwrap_or_default() };
    let mut machine = Machine::new(&dir, root);
    machine.cpus = args.cpus;
    machine.memory_mib = args.memory;
    machine.cpu.clone_from(&args.cpu);
    machine.boot_args = args.booted.boot_args.clone().unwrap_or_default();
    machine.modules[0].args = args.booted.kernel_args.clone().unwrap_or_default();
    let ended = machine.boot(true, Duration::from_secs(args.timeout))?;
    Ok(ExitCode::from(run::status(&ended.end)))
}

/// Makes sure that there is Bochs, and what makes its discs.
pub fn ensure() -> Result<()> {
    image::ensure()?;
    packages::program(PROGRAM, &PACKAGES)?;
    let missing = [BIOS, VGA_BIOS].into_iter().find(|file| !Path::new(file).is_file());
    match missing {
        Some(file) => bail!("{file} is missing: install what Debian calls {}", PACKAGES.join(" ")),
        None => Ok(()),
    }
}

/// A machine and what it boots.
pub struct Machine {
    /// Processors, at most 8.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Bochs's name of the processor model.
    pub cpu: String,
    /// The loader.
    kickstart: PathBuf,
    /// Its own command line.
    pub boot_args: String,
    /// The modules: kernel, sigma0, root task.
    pub modules: Vec<Module>,
}

impl Machine {
    /// A machine with one processor that boots `root` with the images in `dir`.
    pub fn new(dir: &Path, root: Module) -> Self {
        let [kernel, sigma0] = ["kernel", "sigma0"].map(|name| Module::new(dir.join(name)));
        Self {
            cpus: 1,
            memory_mib: 256,
            cpu: DEFAULT_CPU.to_owned(),
            kickstart: dir.join("kickstart"),
            boot_args: String::new(),
            modules: vec![kernel, sigma0, root],
        }
    }

    /// Boots it and stays until it ends, for at most `timeout`; `is_shown`: its output goes to stdout at once.
    pub fn boot(&self, is_shown: bool, timeout: Duration) -> Result<Ended> {
        let _progress = (!is_shown).then(|| Progress::start("Bochs"));
        let dir = TempDir::new()?;
        let [disc, serial, log, settings] = ["disc.iso", "serial", "log", "settings"].map(|name| dir.path().join(name));
        let (files, menu) = self.disc();
        let items = files.into_iter().map(|(path, from)| Item::of_file(path, &from));
        image::with_menu(items.collect::<Result<_>>()?, &menu, &disc)?;
        fs::write(&serial, "")?;
        fs::write(&settings, self.settings(&disc, &serial, &log))?;
        let mut emulator = Emulator::start(&settings)?;
        let mut line = Line { file: File::open(&serial)?, text: Vec::new(), is_shown };
        let end = line.follow(&mut emulator, timeout)?;
        drop(emulator);
        let end = end.unwrap_or_else(|| End::Emulator(reason(&fs::read_to_string(&log).unwrap_or_default())));
        Ok(Ended { end, console: String::from_utf8_lossy(&line.text).into_owned(), times: Times::default() })
    }

    /// What is on the disc: files by their paths there, and what GRUB is to do with them.
    fn disc(&self) -> (Vec<(String, PathBuf)>, String) {
        let boot = Module { file: self.kickstart.clone(), args: self.boot_args.clone() };
        let all = || [&boot].into_iter().chain(&self.modules).enumerate();
        let path = |index: usize| format!("boot/{index}");
        let files = all().map(|(index, module)| (path(index), module.file.clone()));
        let lines = all().map(|(index, module)| {
            let name = module.file.file_name().unwrap_or_default().to_string_lossy();
            let place = format!("/{}", path(index));
            // GRUB takes its own name of the loader for the first word, of the others what is said here.
            let start = if index == 0 { vec!["multiboot", &place] } else { vec!["module", &place, &name] };
            image::line(start.into_iter().chain(module.args.split_whitespace())) + "\n"
        });
        (files.collect(), lines.collect::<String>() + "boot\n")
    }

    fn settings(&self, disc: &Path, serial: &Path, log: &Path) -> String {
        let Self { cpus, memory_mib, cpu, .. } = self;
        let [disc, serial, log] = [disc, serial, log].map(Path::display);
        format!(
            "display_library: rfb, options=\"timeout=0\"\n\
             romimage: file={BIOS}\n\
             vgaromimage: file={VGA_BIOS}\n\
             cpu: count={cpus}, model={cpu}, ips=100000000, reset_on_triple_fault=0\n\
             memory: guest={memory_mib}, host={memory_mib}\n\
             clock: sync=none, time0=946684800\n\
             ata0-master: type=cdrom, path=\"{disc}\", status=inserted\n\
             boot: cdrom\n\
             com1: enabled=1, mode=file, dev=\"{serial}\"\n\
             port_e9_hack: enabled=1\n\
             sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n\
             speaker: enabled=1, mode=none\n\
             log: \"{log}\"\n\
             panic: action=fatal\n\
             error: action=report\n\
             info: action=ignore\n\
             debug: action=ignore\n"
        )
    }
}

/// Why Bochs ended, by its log.
fn reason(log: &str) -> String {
    // Lines are a time, a letter for how bad it is, the device, and the text.
    let is_panic =
        |line: &&str| line.split(']').next().is_some_and(|head| head.contains('p')) && line.contains(">>PANIC<<");
    let line = log.lines().find(is_panic).unwrap_or("it ended without a word");
    line.split(">>PANIC<<").last().unwrap_or(line).trim().to_owned()
}

/// Bochs's process; it does not outlive this value.
struct Emulator(Child);

impl Emulator {
    /// By way of setpriv, which has the kernel end Bochs whenever this process dies.
    fn start(settings: &Path) -> Result<Self> {
        let mut command = match packages::find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM", PROGRAM]);
                command
            }
            None => Command::new(PROGRAM),
        };
        command.arg("-q").arg("-f").arg(settings);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut emulator = Self(command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?);
        // Debian's has a debugger, which waits for a word before the first instruction and stops when nothing can come any more.
        if let Some(stdin) = &mut emulator.0.stdin {
            stdin.write_all(b"c\n").context("Bochs ended at once")?;
        }
        Ok(emulator)
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both do nothing when it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The serial line.
struct Line {
    file: File,
    text: Vec<u8>,
    is_shown: bool,
}

impl Line {
    /// Follows the line until it says how all ended; `None`: the emulator ended without that.
    fn follow(&mut self, emulator: &mut Emulator, timeout: Duration) -> Result<Option<End>> {
        let deadline = Instant::now() + timeout;
        loop {
            let has_ended = emulator.has_ended()?;
            self.take()?;
            if let Some(end) = end(&String::from_utf8_lossy(&self.text)) {
                self.take_the_rest()?;
                return Ok(Some(end));
            }
            if has_ended {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                return Ok(Some(End::Overrun));
            }
            thread::sleep(LOOK);
        }
    }

    /// What is said behind the end: where the kernel stopped, for one.
    fn take_the_rest(&mut self) -> Result<()> {
        for _ in 0..LAST_LOOKS {
            thread::sleep(LOOK);
            self.take()?;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        bytes.retain(|&byte| byte != b'\r');
        if self.is_shown {
            qemu::show(&bytes)?;
        }
        self.text.extend(bytes);
        Ok(())
    }
}

/// How all ended, if the serial line says so in a line that is complete.
fn end(text: &str) -> Option<End> {
    if let Some(status) = qemu::told_status(text) {
        return Some(End::Program(status));
    }
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).find_map(|line| {
        if line.starts_with(PANIC) {
            return Some(End::Program(PANIC_STATUS));
        }
        line.starts_with(REFUSAL).then_some(End::BootError)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Machine, end, reason};
    use crate::qemu::{End, Module};

    #[test]
    fn the_line_says_how_it_ended() {
        let check = |text: &str, expected| assert_eq!(end(text), expected, "{text}");
        check("", None);
        check("kickstart 0.1.0 (Marcona)\nmarcona: 24 interrupt lines\n", None);
        check("a\nl4-rt: ended with status 0\n", Some(End::Program(0)));
        check("l4-rt: ended with status 101\n", Some(End::Program(101)));
        check("l4-rt: ended with status 10", None);
        check("marcona: kernel panic: it is over\nmarcona: at x\n", Some(End::Program(126)));
        check("kickstart: no modules\n", Some(End::BootError));
    }

    #[test]
    fn the_log_says_why() {
        let log = "00001i[      ] started\n00042p[CPU0  ] >>PANIC<< 3rd (13) exception\n";
        assert_eq!(reason(log), "3rd (13) exception");
        assert_eq!(reason("00001i[      ] started\n"), "it ended without a word");
    }

    #[test]
    fn the_disc_has_loader_and_modules_with_their_words() {
        let root = Module { file: "x/pingpong".into(), args: "inter mrs=0..1".to_owned() };
        let mut machine = Machine::new(Path::new("x"), root);
        machine.boot_args = "kmem=4M".to_owned();
        let (files, menu) = machine.disc();
        assert_eq!(files.len(), 4);
        let expected = "'multiboot' '/boot/0' 'kmem=4M'\n'module' '/boot/1' 'kernel'\n'module' '/boot/2' 'sigma0'\n\
                        'module' '/boot/3' 'pingpong' 'inter' 'mrs=0..1'\nboot\n";
        assert_eq!(menu, expected);
    }
}
