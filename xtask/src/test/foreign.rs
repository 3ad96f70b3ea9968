//! Boots of the programs in C, with our sigma0 and with theirs, and of ours with their sigma0.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::elf::{ET_EXEC, PT_LOAD, ProgramHeader64};

use super::boots::{self, PATIENCE, tail};
use super::{Case, Lab};
use crate::elf::Image;
use crate::foreign::{self, PROGRAMS};
use crate::qemu::{Console, End, Ended, Input, Machine, Module, Typing};

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("foreign::pingpong", "amd64 ABI, System calls, registers", |lab| pingpong(lab, Sigma0::Ours)),
        Case::new("foreign::pingpong_on_a_foreign_sigma0", "Sigma0 protocol, memory request", |lab| {
            pingpong(lab, Sigma0::Foreign)
        }),
        Case::new("foreign::grabmem", "Sigma0 protocol, memory request", |lab| check(lab, Sigma0::Ours, "grabmem", "")),
        Case::new("foreign::grabmem_on_a_foreign_sigma0", "Sigma0 protocol, memory request", |lab| {
            check(lab, Sigma0::Foreign, "grabmem", "")
        }),
        Case::new("foreign::suite", "amd64 ABI, System calls, registers", |lab| check(lab, Sigma0::Ours, "suite", "")),
        Case::new("foreign::suite_with_the_debugger_s_keys", "Kernel debugger, input", keys),
        Case::new("foreign::suite_on_a_foreign_sigma0", "Sigma0 protocol, page fault", |lab| {
            check(lab, Sigma0::Foreign, "suite", "")
        }),
        Case::new("foreign::suite_on_a_foreign_kickstart", "Boot, kernel interface page", on_kickstart),
        Case::new("foreign::plus", "amd64 ABI, System calls, registers", |lab| check(lab, Sigma0::Ours, "plus", "")),
        Case::new("foreign::a_32_bit_root_task_is_refused", "Boot, initial servers", narrow),
        Case::new("foreign::kernel_file_suits_any_loader", "Boot, kernel interface page", kernel_file),
        Case::new("foreign::our_pingpong_on_a_foreign_sigma0", "Sigma0 protocol, memory request", ours),
    ]
}

/// Which sigma0 is booted.
#[derive(Clone, Copy)]
enum Sigma0 {
    Ours,
    Foreign,
}

fn program(name: &str) -> Result<PathBuf> {
    foreign::build(PROGRAMS.iter().find(|program| program.name == name).context("there is such a program")?)
}

/// A machine with the given programs in C. Time passes with the instructions, so that each run is the same.
fn machine(lab: &Lab, sigma0: Sigma0, root: Option<&str>, args: &str) -> Result<Machine> {
    let mut machine = boots::machine(lab, "max", 64);
    machine.icount = true;
    if let Sigma0::Foreign = sigma0 {
        machine.modules[1] = Module::new(program("sigma0")?);
    }
    if let Some(root) = root {
        machine.modules[2] = Module::new(program(root)?);
    }
    args.clone_into(&mut machine.modules[2].args);
    Ok(machine)
}

fn check_success(ended: &Ended) -> Result<()> {
    let failed: Vec<&str> = ended.console.lines().filter(|line| line.contains("FAILED")).collect();
    ensure!(
        ended.end == End::Program(0) && failed.is_empty(),
        "{}\n{}\n{}",
        ended.end,
        failed.join("\n"),
        tail(&ended.console)
    );
    Ok(())
}

/// Boots a program that checks itself.
fn check(lab: &Lab, sigma0: Sigma0, root: &str, args: &str) -> Result<()> {
    check_success(&machine(lab, sigma0, Some(root), args)?.boot(&Console::none(), Some(PATIENCE))?)
}

/// Three runs with 64 sizes of messages each, and back to the menu each time.
fn pingpong(lab: &Lab, sigma0: Sigma0) -> Result<()> {
    let input = Input::Typed(Typing::at("q: quit", "123q"));
    let machine = machine(lab, sigma0, Some("pingpong"), "")?;
    let ended = machine.boot(&Console { input, ..Console::none() }, Some(PATIENCE))?;
    check_success(&ended)?;
    let rows = ended.console.lines().filter(|line| line.starts_with("IPC (")).count();
    ensure!(rows == 3 * 64, "{rows} rows instead of three tables\n{}", tail(&ended.console));
    let instructions: Vec<f64> = ended.console.lines().filter_map(instructions_without_words).collect();
    let [_, ipc, lipc] = instructions[..] else { bail!("not three of them: {instructions:?}") };
    ensure!(
        lipc < ipc + LOCAL_ID_COST,
        "{lipc} instructions for an Lipc by local ids, {ipc} for an IPC by global ones"
    );
    Ok(())
}

/// Instructions that the library and the kernel may take more for an IPC if the partner is named by a local id.
const LOCAL_ID_COST: f64 = 50.0;

/// The figure of a row of the benchmark that is about messages of no words.
fn instructions_without_words(row: &str) -> Option<f64> {
    row.strip_prefix("IPC ( 0 MRs): ")?.split(' ').next()?.parse().ok()
}

/// The menu is read and written by breakpoints, as the kernel's debugger serves them.
fn keys(lab: &Lab) -> Result<()> {
    let input = Input::Typed(Typing::at("q: quit", "08q"));
    let machine = machine(lab, Sigma0::Ours, Some("suite"), "menu")?;
    let ended = machine.boot(&Console { input, ..Console::none() }, Some(PATIENCE))?;
    check_success(&ended)?;
    for text in ["--- \"a stop of the suite\" ---", "\n0kernel interface page", "\n8Schedule"] {
        ensure!(ended.console.contains(text), "no `{text}`\n{}", tail(&ended.console));
    }
    Ok(())
}

/// Our benchmark makes its threads and spaces with memory of the other sigma0.
fn ours(lab: &Lab) -> Result<()> {
    check_success(&machine(lab, Sigma0::Foreign, None, "mrs=0..0")?.boot(&Console::none(), Some(PATIENCE))?)
}

/// Nothing of ours but the kernel, on a processor as the Multiboot loader left it. The kernel finds its options.
fn on_kickstart(lab: &Lab) -> Result<()> {
    let mut machine = machine(lab, Sigma0::Foreign, Some("suite"), "")?;
    machine.kickstart = program("kickstart")?;
    "ioflexpages=no speed=high".clone_into(&mut machine.modules[0].args);
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    let complaints = ended.console.matches("command line:").count();
    let is_named = ended.console.contains("\"speed=high\" is no option");
    ensure!(is_named && complaints == 1, "the kernel does not name the one wrong option\n{}", tail(&ended.console));
    check_success(&ended)
}

/// A loader marks a 32-bit server by its stack pointer; the kernel must not run it as what it is not.
fn narrow(lab: &Lab) -> Result<()> {
    let ended = machine(lab, Sigma0::Ours, Some("narrow"), "")?.boot(&Console::none(), Some(PATIENCE))?;
    let is_said = ended.console.contains("the root task is a 32-bit program");
    ensure!(is_said && ended.end == End::Program(PANICKED), "{}\n{}", ended.end, tail(&ended.console));
    Ok(())
}

/// Words of the kernel interface page: the three servers, the memory descriptors, the boot information, page sizes.
const SERVERS: std::ops::Range<usize> = 8..20;
const MEMORY_INFO: usize = 21;
const BOOT_INFO: usize = 46;
const PAGE_INFO: usize = 50;
/// Descriptors that loaders which do not look at the capacity must have room for.
const LEAST_DESCRIPTORS: usize = 32;
/// The status with which the kernel ends the emulation when it panics.
const PANICKED: u8 = 0x7E;
/// From where on sigma0 is linked.
const SIGMA0: u64 = 0xF0_0000;
const KERNEL: u64 = 0x60_0000;

/// The kernel as the stock loader sees it: where its segments are, and its interface page before a loader writes there.
fn kernel_file(lab: &Lab) -> Result<()> {
    let mut image = Image { bytes: fs::read(lab.image("kernel"))? };
    let (kind, entry) = (image.header()?.e_type.get(LE), image.header()?.e_entry.get(LE));
    ensure!(kind == ET_EXEC, "the file is not of type EXEC");
    let memory = load(&image.clone(), image.segments()?)?;
    let end = KERNEL + memory.len() as u64;
    ensure!(end <= SIGMA0, "the kernel ends at {end:#x}, where sigma0 is linked");
    ensure!((KERNEL..end).contains(&entry), "the entry {entry:#x} is no physical address of the kernel");

    let is_magic = |at: &usize| memory[*at..].starts_with(b"L4\xE6K");
    let places: Vec<usize> = (0..memory.len()).step_by(4).filter(is_magic).collect();
    let &[page] = &places[..] else { bail!("the magic stands {} times in the kernel: {places:x?}", places.len()) };
    let word = |index: usize| memory[page + 8 * index..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    ensure!(word(0) >> 32 == 0, "the page is not a 64-bit one");
    ensure!(SERVERS.chain([BOOT_INFO]).all(|index| word(index) == 0), "a word that the loader writes is not zero");
    ensure!(word(PAGE_INFO) == 0x20_1007, "the page sizes are {:#x}", word(PAGE_INFO));
    let (capacity, offset) = (word(MEMORY_INFO) as u32 as usize, (word(MEMORY_INFO) >> 32) as usize);
    ensure!(capacity >= LEAST_DESCRIPTORS, "there is room for {capacity} memory descriptors");
    ensure!(offset % 8 == 0 && page + offset + 16 * capacity <= memory.len(), "the descriptors are not in the image");
    Ok(())
}

/// What is loaded, from the kernel's address on.
fn load(image: &Image, segments: &[ProgramHeader64<LE>]) -> Result<Vec<u8>> {
    let mut memory = Vec::new();
    for segment in segments.iter().filter(|segment| segment.p_type.get(LE) == PT_LOAD) {
        let [start, offset, bytes, all] =
            [segment.p_paddr.get(LE), segment.p_offset.get(LE), segment.p_filesz.get(LE), segment.p_memsz.get(LE)];
        let start = start.checked_sub(KERNEL).context("a segment is below the kernel's address")? as usize;
        memory.resize(memory.len().max(start + all as usize), 0);
        let from = image.bytes.get(offset as usize..(offset + bytes) as usize).context("a segment is cut off")?;
        memory[start..start + from.len()].copy_from_slice(from);
    }
    Ok(memory)
}
