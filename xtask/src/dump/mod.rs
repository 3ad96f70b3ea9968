//! `cargo xtask dump`: what is left of a kernel in the memory of its machine, shown by the commands of the kernel debugger.

pub mod memory;
pub mod remains;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use kcore::machine::{CpuId, TcbRef};
use kdb::names::{Name, Named};
use kdb::{Control, Entry, Probe, Registers, Session, State, Terminal};
use kformats::symbols::Symbols;

use crate::build;
use crate::config::Chosen;
use crate::trace::{self, Trace};
use crate::usage;
use memory::Memory;
use remains::{Dead, Image, Remains};

/// What is shown when nothing is asked for.
const REPORT: [&str; 6] = ["threads", "waits", "showqueueall", "listspaces", "mdb all", "check"];

/// What is shown besides, if the kernel has tracepoints: the last events, whenever they came.
const LAST_EVENTS: &str = "trace dump #1000 0";

/// Options of `dump`.
#[derive(clap::Args)]
pub struct Args {
    /// Memory as QEMU's dump-guest-memory writes it
    file: PathBuf,
    /// Commands of the kernel debugger, each quoted [default: a report]
    commands: Vec<String>,
    /// Print the registers of a thread, as NAME=VALUE
    #[arg(long, value_name = "THREAD", conflicts_with = "commands")]
    registers: Option<String>,
    /// Write what the kernel's tracepoints recorded, as `run --trace` does
    #[arg(long, value_name = "FILE", conflicts_with = "registers")]
    trace: Option<PathBuf>,
    /// The kernel's file with symbols
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    kernel: Option<PathBuf>,
    /// Configuration of the kernel that ran [default: the current one]
    #[arg(long, value_name = "NAME|FILE")]
    config: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    if !args.file.is_file() {
        usage!("there is no file {}: name one that exists", args.file.display());
    }
    let kernel = match &args.kernel {
        Some(file) => file.clone(),
        None => build::images(&["kernel"], &Chosen::of(args.config.as_deref())?)?.join("kernel.debug"),
    };
    if let Some(thread) = &args.registers {
        print!("{}", registers(&args.file, &kernel, thread)?);
        return Ok(ExitCode::SUCCESS);
    }
    let commands: Vec<&str> = args.commands.iter().map(String::as_str).collect();
    let report = report(&args.file, &kernel, &commands)?;
    print!("{}", report.text);
    if let Some(file) = &args.trace {
        print!("{}", write_trace(&args.file, &kernel, file)?);
    }
    for unknown in &report.unknown {
        eprintln!("no such command: {unknown}; help lists them");
    }
    Ok(ExitCode::from(if report.unknown.is_empty() { 0 } else { 2 }))
}

/// Writes what the tracepoints of the kernel recorded, and returns what it comes to in words.
pub fn write_trace(dump: &Path, kernel: &Path, file: &Path) -> Result<String> {
    Trace::of_dump(Memory::open(dump)?, kernel)?.write(file, trace::TICKS)
}

/// What was shown.
pub struct Report {
    /// The text.
    pub text: String,
    /// Commands that there are not.
    unknown: Vec<String>,
}

/// Shows what is left of the kernel in a dump: what `commands` ask for, or all there is.
pub fn report(dump: &Path, kernel: &Path, commands: &[&str]) -> Result<Report> {
    let image = Image::open(kernel)?;
    let dead = Dead::new(Memory::open(dump)?, &image)?;
    let mut bench = Bench { dead: &dead, image: &image, chosen: CpuId::new(0) };
    let mut report = Report { text: String::new(), unknown: Vec::new() };
    let mut state = State::new().for_programs();
    let has_headings = commands.len() != 1;
    let commands = match commands {
        [] => whole_report(&dead, bench.trace_word(0).is_some()),
        commands => owned(commands),
    };
    for command in commands {
        if has_headings {
            report.text.push_str(&format!("--- {command} ---\n"));
        }
        let is_known = Session::new(dead.kernel, &mut bench, &mut report, &mut state).execute(&command);
        if !is_known {
            report.unknown.push(command);
        }
    }
    Ok(report)
}

/// The saved registers of a thread, and the root table of its space.
pub fn registers(dump: &Path, kernel: &Path, thread: &str) -> Result<String> {
    let image = Image::open(kernel)?;
    let dead = Dead::new(Memory::open(dump)?, &image)?;
    let mut bench = Bench { dead: &dead, image: &image, chosen: CpuId::new(0) };
    let mut report = Report { text: String::new(), unknown: Vec::new() };
    let found = Session::new(dead.kernel, &mut bench, &mut report, &mut State::new()).thread_of(thread);
    let view = found.and_then(|found| dead.kernel.tcb_at(found)).map(|tcb| tcb.view()).filter(|view| !view.id.is_nil());
    let (Some(found), Some(view)) = (found, view) else {
        usage!("there is no thread {thread}: name one by its number, its id or its name");
    };
    let Some(r) = bench.registers(found) else { usage!("the registers of {thread} are not in the dump") };
    let root = view.space.and_then(|space| dead.kernel.spaces.view(space)).map_or(0, |space| space.root.0);
    let named = [
        ("rax", r.rax),
        ("rbx", r.rbx),
        ("rcx", r.rcx),
        ("rdx", r.rdx),
        ("rsi", r.rsi),
        ("rdi", r.rdi),
        ("rbp", r.rbp),
        ("rsp", view.sp as u64),
        ("r8", r.r8),
        ("r9", r.r9),
        ("r10", r.r10),
        ("r11", r.r11),
        ("r12", r.r12),
        ("r13", r.r13),
        ("r14", r.r14),
        ("r15", r.r15),
        ("rip", view.ip as u64),
        ("eflags", view.flags as u64),
        ("cr3", root),
    ];
    Ok(named.iter().map(|(name, value)| format!("{name}={value:#x}\n")).collect())
}

fn owned(commands: &[&str]) -> Vec<String> {
    commands.iter().map(|&command| command.to_owned()).collect()
}

/// Where each processor was comes first, the last events come last.
fn whole_report(dead: &Dead, has_tracepoints: bool) -> Vec<String> {
    let processors = 0..dead.kernel.cpus.len();
    let frames = processors.flat_map(|cpu| [format!("arch switch_cpu {cpu:x}"), "frame".to_owned()]);
    let events = has_tracepoints.then(|| LAST_EVENTS.to_owned());
    frames.chain(owned(&REPORT)).chain(events).collect()
}

impl Terminal for Report {
    fn key(&mut self) -> Option<u8> {
        None
    }
    fn print(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

/// The dead machine as the debugger asks about it.
struct Bench<'d> {
    dead: &'d Dead,
    image: &'d Image,
    chosen: CpuId,
}

impl Bench<'_> {
    fn remains(&self) -> &Remains {
        self.dead.kernel.machine
    }

    /// A word of what the image keeps beside a thread's TCB.
    fn frame_word(&self, thread: TcbRef, index: u64) -> Option<u64> {
        let [first, stride] = ["layout_frame", "layout_frame_stride"].map(|name| self.image.address(name).ok());
        let at = first? + thread.index() as u64 * stride? + index * 8;
        let mut word = [0; 8];
        (self.remains().read_kernel(at, &mut word) == word.len()).then(|| u64::from_le_bytes(word))
    }
}

impl Probe for Bench<'_> {
    fn cpu(&self) -> CpuId {
        self.chosen
    }
    fn choose_cpu(&mut self, cpu: CpuId) -> bool {
        self.chosen = cpu;
        true
    }
    fn can_go(&self) -> bool {
        false
    }
    fn symbols(&self) -> Symbols<'_> {
        self.image.symbols()
    }
    fn name(&self, named: Named) -> Option<Name> {
        self.dead.names.get(named)
    }
    fn read_kernel(&self, address: u64, bytes: &mut [u8]) -> usize {
        self.remains().read_kernel(address, bytes)
    }
    fn read_physical(&self, address: u64, bytes: &mut [u8]) -> usize {
        self.remains().memory.read(address, bytes)
    }
    fn tcb_table(&self) -> u64 {
        self.image.address("layout_tcb").unwrap_or(0)
    }
    fn kip(&self) -> u64 {
        self.dead.kip
    }
    fn registers(&self, thread: TcbRef) -> Option<Registers> {
        let word = |index| self.frame_word(thread, index);
        Some(Registers {
            rax: word(0)?,
            rbx: word(1)?,
            rcx: word(2)?,
            rdx: word(3)?,
            rsi: word(4)?,
            rdi: word(5)?,
            rbp: word(6)?,
            r8: word(7)?,
            r9: word(8)?,
            r10: word(9)?,
            r11: word(10)?,
            r12: word(11)?,
            r13: word(12)?,
            r14: word(13)?,
            r15: word(14)?,
        })
    }
    fn exception(&self, thread: TcbRef) -> Option<(u64, u64)> {
        self.frame_word(thread, 15).zip(self.frame_word(thread, 16))
    }
    fn entry(&self, cpu: CpuId) -> Option<Entry> {
        let processor = self.remains().memory.processors.get(cpu.index())?;
        Some(Entry {
            vector: 0,
            error: 0,
            ip: processor.ip,
            sp: processor.sp,
            flags: processor.flags,
            is_user: processor.is_user,
            registers: Some(processor.registers),
            thread: self.dead.kernel.cpus.get(cpu.index()).and_then(|cpu| cpu.view().current),
        })
    }
    fn callers(&self, addresses: &mut [u64]) -> usize {
        let entry = self.entry(self.chosen).filter(|entry| !entry.is_user);
        let read = |address: u64, bytes: &mut [u8]| self.read_kernel(address, bytes);
        let is_code = |address: u64| self.image.text.contains(&address);
        entry.map_or(0, |entry| kformats::code::callers::callers(&read, &is_code, entry.sp, addresses))
    }
    fn control(&mut self) -> Option<Control> {
        Some(self.remains().memory.processors.get(self.chosen.index())?.control)
    }
    fn trace_word(&self, index: usize) -> Option<u64> {
        let root = trace::root_of(self.image)?;
        self.remains().memory.word(root + index as u64 * 8)
    }
    fn ring_word(&self, at: u64) -> Option<u64> {
        self.remains().memory.word(at)
    }
    fn disassemble(&self, code: &[u8], f: &mut dyn core::fmt::Write) -> Option<usize> {
        kdb::disassemble(code, f)
    }
}
