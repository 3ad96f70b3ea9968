//! Boots of sound images, on different machines.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use super::{Case, Lab, Skipped};
use crate::kvm;
use crate::qemu::{self, Accel, Console, End, Ended, Input, Machine, Module, Typing};

/// The time after which a boot counts as hanging: far more than the slowest host needs.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Instructions that a one-way IPC may take with message registers that are processor registers, by mode.
const IPC_BUDGETS: [(&str, f64); 2] = [("inter", 70.0), ("intra", 66.0)];
/// Instructions that one with one word more may take, and one with all words.
const LONGER_IPC_BUDGETS: [(u32, f64); 2] = [(8, 80.0), (63, 140.0)];

/// The modes that pingpong measures when it is not told which.
const DEFAULT_MODES: &[&str] = &["inter", "intra"];

/// Message registers of a message, from none to all.
const ALL_MRS: std::ops::RangeInclusive<u32> = 0..=63;

/// A boot of pingpong: name of the test, processor, memory in MiB, arguments, modes with a full table each.
type Row = (&'static str, &'static str, u64, &'static str, &'static [&'static str]);

const ROWS: &[Row] = &[
    ("pingpong_on_a_plain_processor", "qemu64", 256, "json", DEFAULT_MODES),
    ("pingpong_on_a_full_processor", "max", 256, "json", DEFAULT_MODES),
    ("pingpong_between_spaces", "max", 256, "inter json", &["inter"]),
    ("pingpong_within_a_space", "max", 256, "intra json", &["intra"]),
    ("pingpong_in_64_mib", "max", 64, "json", DEFAULT_MODES),
    ("pingpong_in_64_mib_on_a_plain_processor", "qemu64", 64, "inter json", &["inter"]),
    ("pingpong_in_8_gib", "max", 8 << 10, "json", DEFAULT_MODES),
    ("pingpong_without_the_kernel_in_user_tables", "Nehalem", 256, "json", DEFAULT_MODES),
    ("pingpong_without_no_execute_and_the_kernel_in_user_tables", "Penryn,-nx", 256, "inter json", &["inter"]),
];

/// A boot with options for kickstart: name of the test, memory in MiB, the options, KiB of kernel memory. `kmem` gives whole
/// superpages; what is beyond the limit of `maxmem` is the kernel's too, as far as it reaches.
const KERNEL_MEMORY: &[(&str, u64, &str, u64)] = &[
    ("kernel_memory_is_16_mib_by_default", 256, "", 16 << 10),
    ("kernel_memory_can_be_64_mib", 256, "kmem=64M", 64 << 10),
    ("kernel_memory_can_be_2_mib", 64, "kmem=4K", 2 << 10),
    ("kernel_memory_comes_in_superpages", 256, "kmem=5000K", 6 << 10),
    ("kernel_memory_can_be_in_pieces_up_to_where_the_kernel_reaches", 1024, "maxmem=128M kmem=16M", (16 + 384) << 10),
];

/// Machines by their processors and the sockets over which these are spread: the numbers of their local APICs have gaps where
/// a socket has no power of two of them.
const PROCESSORS: &[(u32, u32)] = &[(1, 1), (2, 1), (4, 1), (8, 2), (40, 4), (64, 2), (255, 1)];

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    let rows = ROWS.iter().map(|&(name, cpu, memory, args, modes)| {
        Case::new(format!("boot::{name}"), "X.2, Ipc, message transfer", move |lab| {
            check_memory_of_host(memory)?;
            let ended = pingpong(lab, cpu, memory, args).boot(&Console::none(), Some(PATIENCE))?;
            check_tables(&ended, modes)
        })
    });
    let memory = KERNEL_MEMORY.iter().map(|&(name, memory, boot_args, expected)| {
        Case::new(format!("boot::{name}"), "Boot, kernel memory", move |lab| {
            kernel_memory(lab, memory, boot_args, expected)
        })
    });
    let others = [
        Case::new("boot::no_kernel_memory_is_named", "Boot, kernel memory", no_kernel_memory),
        Case::new("boot::pages_of_1_gib_are_mapped", "X.2, Mappings, large pages", pages_of_1_gib),
        Case::new("boot::memory_of_two_nodes", "Boot, localities", |lab| nodes(lab, 2, 256)),
        Case::new("boot::memory_of_four_nodes_beyond_4_gib", "Boot, localities", |lab| nodes(lab, 4, 6 << 10)),
        Case::new("boot::processor_without_pages_of_1_gib", "X.2, Mappings, large pages", no_pages_of_1_gib),
        Case::new("boot::by_hand_with_three_modules", "Boot, initial servers", by_hand),
        Case::new("boot::virtual_machines_without_firmware_start_it", "Boot, loader", by_pvh),
        Case::new("boot::icount_gives_the_same_output_each_time", "", same_each_time),
        Case::new("boot::icount_counts_instructions", "", says_instructions),
        Case::new("boot::an_ipc_between_spaces_takes_few_instructions", "X.2, Ipc, message transfer", budget),
        Case::new("boot::lives_cost_the_same_each_time", "X.2, System calls, kernel memory", |lab| lives(lab, 1)),
        Case::new("boot::lives_cost_nothing_on_four_processors", "X.2, System calls, kernel memory", |lab| {
            lives(lab, 4)
        }),
        Case::new("boot::the_debugger_s_services_print", "Kernel debugger, output", debugger_output),
        Case::new("boot::the_debugger_s_services_read_keys", "Kernel debugger, input", debugger_input),
        Case::new("boot::traps_on_a_plain_processor", "X.2, Exception protocol, instructions", traps),
        Case::new("boot::an_ipc_with_io_fpages_takes_as_many_instructions", "X.2, I/O fpages", same_with_io_fpages),
        Case::new("boot::wrong_kernel_options_are_named", "Boot, kernel options", wrong_kernel_options),
        Case::new("boot::the_menu_takes_typed_keys", "", menu),
        Case::new("boot::drivers_get_their_interrupts", "X.2, Interrupt protocol", |lab| drivers(lab, "")),
        Case::new("boot::drivers_get_their_ports", "X.2, I/O port faults", |lab| drivers(lab, "ioflexpages=yes")),
        Case::new("boot::the_probe_for_kvm_answers", "", probe_answers),
    ];
    let processors = PROCESSORS.iter().map(|&(cpus, sockets)| {
        let name = format!("boot::pingpong_on_{cpus}_processors");
        Case::new(name, "X.2, Processors", move |lab| on_processors(lab, "max", cpus, sockets))
    });
    let isolated = [1, 4, 40].map(|cpus| {
        let name = format!("boot::pingpong_on_{cpus}_processors_without_the_kernel_in_user_tables");
        Case::new(name, "X.2, Processors", move |lab| on_processors(lab, "Nehalem", cpus, 1))
    });
    rows.chain(memory).chain(others).chain(processors).chain(isolated).collect()
}

/// The machine on which tests boot; the root task is pingpong without arguments.
pub fn machine(lab: &Lab, cpu: &str, memory_mib: u64) -> Machine {
    let machine = Machine::new(&lab.dir, Module::new(lab.image("pingpong")));
    Machine { memory_mib, cpu: cpu.to_owned(), ..machine }
}

fn pingpong(lab: &Lab, cpu: &str, memory_mib: u64, args: &str) -> Machine {
    let mut machine = machine(lab, cpu, memory_mib);
    args.clone_into(&mut machine.modules[2].args);
    machine
}

/// The same numbers in every run.
pub fn counting(lab: &Lab, args: &str) -> Machine {
    let mut machine = pingpong(lab, "max", 256, &format!("{args} tick=instructions"));
    machine.icount = true;
    machine
}

/// The end of the console's text, for a person.
pub fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    format!("the console ends with:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
}

/// The program must have ended with 0.
pub fn check_success(ended: &Ended) -> Result<()> {
    ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, tail(&ended.console));
    Ok(())
}

/// A row of the benchmark's table.
#[derive(Deserialize, PartialEq, Debug)]
pub struct Measured {
    /// Where the partners are.
    pub mode: String,
    mrs: u32,
    /// What a message takes.
    pub value: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} MRs: {}", self.mode, self.mrs, self.value)
    }
}

/// The rows of the benchmark's tables.
pub fn rows(console: &str) -> Vec<Measured> {
    console.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// One row for each number of message registers, in order, in each of `modes` and in no other.
fn check_tables(ended: &Ended, modes: &[&str]) -> Result<()> {
    check_success(ended)?;
    let mut tables: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for row in rows(&ended.console) {
        ensure!(row.value > 0.0, "took no time: {row}");
        tables.entry(row.mode).or_default().push(row.mrs);
    }
    let expected = modes.iter().map(|&mode| (mode.to_owned(), ALL_MRS.collect())).collect();
    ensure!(tables == expected, "the tables are {tables:?}\n{}", tail(&ended.console));
    Ok(())
}

/// QEMU takes the host's memory as the guest uses it, but refuses more than there is in all.
pub fn check_memory_of_host(needed_mib: u64) -> Result<()> {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match memory_mib(&info) {
        Some(memory) if memory < needed_mib + needed_mib / 8 => Err(Skipped("the host has too little memory").into()),
        _ => Ok(()),
    }
}

/// Memory and swap space in MiB.
fn memory_mib(meminfo: &str) -> Option<u64> {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((kib("MemTotal")? + kib("SwapTotal").unwrap_or(0)) >> 10)
}

/// With much memory sigma0 has a page of 1 GiB to give, and no test of it is skipped.
fn pages_of_1_gib(lab: &Lab) -> Result<()> {
    const MEMORY_MIB: u64 = 3 << 10;
    check_memory_of_host(MEMORY_MIB)?;
    let mut machine = l4test(lab, "max", "run=1_gib");
    // Time in instructions is the same on every host.
    (machine.memory_mib, machine.icount) = (MEMORY_MIB, true);
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    ensure!(ended.console.contains("\n6 passed, 0 failed"), "not all tests ran\n{}", tail(&ended.console));
    Ok(())
}

/// Each node has a sixteenth of its memory for the kernel, be it from the loader or the kernel's own choice, and all works.
fn nodes(lab: &Lab, nodes: u32, memory_mib: u64) -> Result<()> {
    check_memory_of_host(memory_mib)?;
    let boot = |part| {
        let mut machine = l4test(lab, "max", part);
        (machine.cpus, machine.nodes, machine.memory_mib, machine.icount) = (4, nodes, memory_mib, true);
        let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
        check_success(&ended).map(|()| ended)
    };
    boot("run=processors")?;
    let ended = boot("run=localities")?;
    for node in 0..nodes {
        let distances: Vec<u32> = (0..nodes).map(|to| qemu::distance(node, to)).collect();
        let line = ended.console.lines().find(|line| line.contains(&format!("locality {node}: ")));
        let line = line.with_context(|| format!("nothing is said of {node}\n{}", tail(&ended.console)))?;
        ensure!(line.ends_with(&format!("distances {distances:?}")), "{line}");
        ensure!(!line.contains(" 0 KiB"), "{line}");
    }
    ensure!(ended.console.contains("each_locality_has_kernel_memory ... ok"), "{}", tail(&ended.console));
    Ok(())
}

/// Without pages of 1 GiB, nothing says that there are, and the other sizes work.
fn no_pages_of_1_gib(lab: &Lab) -> Result<()> {
    let mut machine = l4test(lab, "qemu64", "run=page");
    machine.icount = true;
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    for line in [
        "page_of_1_gib_is_mapped ... skipped: the processor",
        "page_sizes_and_rights ... ok",
        "small_pages_give_way_to_a_large_page ... ok",
    ] {
        ensure!(ended.console.contains(line), "no `{line}`\n{}", tail(&ended.console));
    }
    Ok(())
}

/// The options that a person types, with QEMU's own processor and memory.
fn by_hand(lab: &Lab) -> Result<()> {
    let modules = ["kernel", "sigma0", "pingpong"].map(|name| lab.image(name).display().to_string());
    let kickstart = lab.image("kickstart").display().to_string();
    let mut words = vec!["-kernel", &kickstart, "-initrd"];
    let modules = modules.join(",");
    words.extend([modules.as_str(), "-display", "none", "-serial", "stdio", "-no-reboot"]);
    words.extend(qemu::EXIT_DEVICE);
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    check_success(&qemu::supervise(&words, &Console::none(), Some(PATIENCE))?)
}

/// By PVH, on a board that has firmware and on one that has next to none; words for modules and loader arrive, and so do
/// the tables of the firmware, without which there would be one processor.
fn by_pvh(lab: &Lab) -> Result<()> {
    for board in ["microvm", "q35", "pc"] {
        let dir = TempDir::new()?;
        let mut machine = pingpong(lab, "max", 256, "inter mrs=0..0");
        "kmem=24M".clone_into(&mut machine.boot_args);
        "nosuch=1".clone_into(&mut machine.modules[0].args);
        (machine.board, machine.cpus) = (board.to_owned(), 2);
        let ended = machine.by_pvh(dir.path())?.boot(&Console::none(), Some(PATIENCE))?;
        check_success(&ended)?;
        for line in [", 24576 KiB of kernel memory", ", 2 processors", "\"nosuch=1\" is no option", "(inter), one way"]
        {
            ensure!(ended.console.contains(line), "{board}: no `{line}`\n{}", tail(&ended.console));
        }
    }
    Ok(())
}

fn same_each_time(lab: &Lab) -> Result<()> {
    let machine = counting(lab, "mrs=0..7");
    let first = machine.boot(&Console::none(), Some(PATIENCE))?;
    let second = machine.boot(&Console::none(), Some(PATIENCE))?;
    check_success(&first)?;
    let differing = first.console.lines().zip(second.console.lines()).find(|(first, second)| first != second);
    ensure!(differing.is_none(), "two runs differ: {differing:?}");
    ensure!(first.console == second.console, "one run says more than the other");
    Ok(())
}

fn says_instructions(lab: &Lab) -> Result<()> {
    let ended = counting(lab, "inter mrs=0..0").boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    ensure!(ended.console.contains("instruction"), "the table names no instructions\n{}", tail(&ended.console));
    Ok(())
}

fn budget(lab: &Lab) -> Result<()> {
    let measure = |mrs: &str| -> Result<Vec<Measured>> {
        let ended = counting(lab, &format!("inter intra {mrs} json")).boot(&Console::none(), Some(PATIENCE))?;
        check_success(&ended)?;
        Ok(rows(&ended.console))
    };
    let short = measure("mrs=0..7")?;
    ensure!(short.len() == 16, "16 rows were asked for, not {}", short.len());
    for row in short {
        let budget = IPC_BUDGETS.iter().find(|(mode, _)| *mode == row.mode).context("nobody asked for this mode")?.1;
        ensure!(row.value > 1.0 && row.value <= budget, "the budget is {budget} instructions: {row}");
    }
    for (mrs, budget) in LONGER_IPC_BUDGETS {
        let rows = measure(&format!("mrs={mrs}..{mrs}"))?;
        ensure!(rows.len() == 2, "two rows with {mrs} MRs were asked for: {}", rows.len());
        let over = rows.iter().find(|row| row.value > budget);
        ensure!(over.is_none(), "the budget is {budget} instructions: {}", over.expect("just seen"));
    }
    Ok(())
}

/// So much memory is the kernel's, and programs run.
fn kernel_memory(lab: &Lab, memory_mib: u64, boot_args: &str, expected_kib: u64) -> Result<()> {
    check_memory_of_host(memory_mib)?;
    let mut machine = machine(lab, "max", memory_mib);
    boot_args.clone_into(&mut machine.boot_args);
    machine.modules[2] = Module { file: lab.image("l4test"), args: "run=kernel_memory::spaces_until".to_owned() };
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    let line = format!(", {expected_kib} KiB of kernel memory");
    ensure!(ended.console.contains(&line), "no `{line}`\n{}", tail(&ended.console));
    ensure!(ended.console.contains("1 passed, 0 failed"), "the test did not run\n{}", tail(&ended.console));
    Ok(())
}

fn no_kernel_memory(lab: &Lab) -> Result<()> {
    let mut machine = machine(lab, "max", 64);
    "kmem=0".clone_into(&mut machine.boot_args);
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    let line = "the loader reserved no kernel memory below 512 MiB";
    let is_panic = matches!(ended.end, End::Program(status) if status != 0);
    ensure!(is_panic && ended.console.contains(line), "no `{line}`; {}\n{}", ended.end, tail(&ended.console));
    Ok(())
}

/// Only where instructions are counted can l4test tell whether later threads and spaces cost as much as the first. There
/// only one processor runs at a time, so that as many live on several.
fn lives(lab: &Lab, cpus: u32) -> Result<()> {
    let mut machine = machine(lab, "max", 256);
    (machine.icount, machine.cpus) = (true, cpus);
    machine.modules[2] = Module { file: lab.image("l4test"), args: "run=kernel_memory::lives_".to_owned() };
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    for name in ["lives_of_threads_cost_no_memory", "lives_of_spaces_cost_no_memory", "lives_cost_the_same_each_time"] {
        let line = format!("test kernel_memory::{name} ... ok");
        ensure!(ended.console.contains(&line), "no `{line}`\n{}", tail(&ended.console));
    }
    Ok(())
}

/// Whether spaces have ports of their own does not matter on the way of a message.
fn same_with_io_fpages(lab: &Lab) -> Result<()> {
    let measure = |kernel_args: &str| -> Result<Vec<Measured>> {
        let mut machine = counting(lab, "inter intra mrs=0..7 json");
        kernel_args.clone_into(&mut machine.modules[0].args);
        let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
        check_success(&ended)?;
        Ok(rows(&ended.console))
    };
    let (without, with) = (measure("")?, measure("ioflexpages=yes")?);
    ensure!(with.len() == 16, "16 rows were asked for");
    let differing = without.iter().zip(&with).find(|(without, with)| without != with);
    if let Some((without, with)) = differing {
        bail!("{without} without I/O fpages, {with} with them");
    }
    Ok(())
}

/// What the kernel does not understand it says and ignores.
fn wrong_kernel_options(lab: &Lab) -> Result<()> {
    let mut machine = pingpong(lab, "max", 256, "inter mrs=0..0");
    "speed=high ioflexpages=perhaps".clone_into(&mut machine.modules[0].args);
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    for line in ["\"speed=high\" is no option", "\"ioflexpages=perhaps\" is ignored: it takes yes or no"] {
        ensure!(ended.console.contains(line), "no `{line}`\n{}", ended.console);
    }
    ensure!(ended.console.matches("command line:").count() == 2, "more complaints\n{}", ended.console);
    Ok(())
}

/// One measurement, back to the menu, quit.
fn menu(lab: &Lab) -> Result<()> {
    let input = Input::Typed(Typing::at("q: quit", "2qq"));
    let machine = pingpong(lab, "max", 256, "menu mrs=0..0");
    let ended = machine.boot(&Console { input, ..Console::none() }, Some(PATIENCE))?;
    check_success(&ended)?;
    ensure!(ended.console.contains("in one space (intra)"), "nothing was measured\n{}", tail(&ended.console));
    Ok(())
}

/// Timer interrupts are counted while what is typed is echoed; somebody else computes all the time.
pub fn drivers(lab: &Lab, kernel_args: &str) -> Result<()> {
    let mut machine = machine(lab, "max", 256);
    kernel_args.clone_into(&mut machine.modules[0].args);
    machine.modules[2] = Module::new(lab.image("drivers"));
    "ticks=20 busy".clone_into(&mut machine.modules[2].args);
    let input = Input::Typed(Typing::at("q ends", "abcq"));
    let ended = machine.boot(&Console { input, ..Console::none() }, Some(PATIENCE))?;
    check_success(&ended)?;
    for line in ["timer: 20 interrupts", "serial: 4 characters"] {
        ensure!(ended.console.contains(line), "no `{line}`\n{}", tail(&ended.console));
    }
    Ok(())
}

/// All processors are found and started, and threads of two of them call each other.
fn on_processors(lab: &Lab, cpu: &str, cpus: u32, sockets: u32) -> Result<()> {
    if cpus > lab.config.processors {
        return Err(Skipped("the kernel was built for fewer processors").into());
    }
    let modes: &[&str] = if cpus > 1 { &["inter", "xcpu"] } else { &["inter"] };
    let mut machine = pingpong(lab, cpu, 512, &format!("{} mrs=0..0 rounds=100 json", modes.join(" ")));
    (machine.cpus, machine.sockets) = (cpus, sockets);
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    let line = format!(", {cpus} processors");
    ensure!(ended.console.contains(&line), "no `{line}`\n{}", tail(&ended.console));
    let measured: Vec<String> = rows(&ended.console).into_iter().map(|row| row.mode).collect();
    ensure!(measured == modes, "it measures {measured:?}\n{}", tail(&ended.console));
    Ok(())
}

fn l4test(lab: &Lab, cpu: &str, args: &str) -> Machine {
    let mut machine = machine(lab, cpu, 256);
    machine.modules[2] = Module { file: lab.image("l4test"), args: args.to_owned() };
    machine
}

/// What the chapter prints through the kernel.
fn debugger_output(lab: &Lab) -> Result<()> {
    let ended = l4test(lab, "qemu64", "run=debugger").boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    let lines: Vec<&str> = ended.console.lines().collect();
    let expected = [
        "debugger: by characters",
        "debugger: by a text",
        "debugger: two",
        "debugger: lines",
        "debugger: at an address: [not mapped]",
        "debugger: at an address: zzz[not mapped]",
        "--- \"debugger: a text of the program\" ---",
        "--- unknown breakpoint ---",
        "--- unknown service 0x02 ---",
    ];
    let missing = expected.iter().find(|line| !lines.contains(line));
    ensure!(missing.is_none(), "no line {missing:?}\n{}", tail(&ended.console));
    let place = |line: &&str| line.starts_with("--- ip 0x") && line.contains(", sp 0x") && line.ends_with(" ---");
    ensure!(lines.iter().any(place), "no line with the place of a stop\n{}", tail(&ended.console));
    Ok(())
}

/// What is typed comes to a program that asks the kernel for it.
fn debugger_input(lab: &Lab) -> Result<()> {
    let input = Input::Typed(Typing::at("q ends", "ab\nqz"));
    let machine = l4test(lab, "max", "keys");
    let ended = machine.boot(&Console { input, ..Console::none() }, Some(PATIENCE))?;
    check_success(&ended)?;
    let said: Vec<&str> = ended.console.lines().filter(|line| line.starts_with("keys: ")).collect();
    let expected = ["keys: q ends", "keys: 'a'", "keys: 'b'", r"keys: '\n'", "keys: 'q'", "keys: at last 'z'"];
    ensure!(said == expected, "it says {said:?}\n{}", tail(&ended.console));
    Ok(())
}

/// A processor with fewer protections, on which some attempts go another way.
fn traps(lab: &Lab) -> Result<()> {
    for chapter in ["hostile", "exceptions", "kernel_interface"] {
        let machine = l4test(lab, "qemu64", &format!("run={chapter}"));
        check_success(&machine.boot(&Console::none(), Some(PATIENCE))?)?;
    }
    Ok(())
}

fn probe_answers(_: &Lab) -> Result<()> {
    ensure!(kvm::probe(Accel::Tcg, PATIENCE)?, "the boot sector did not end the emulation");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_tables, memory_mib, rows};
    use crate::qemu::{End, Ended, Times};

    #[test]
    fn rows_are_found_between_other_lines() {
        let console =
            "Marcona\n{\"bench\":\"ipc\",\"mode\":\"inter\",\"mrs\":3,\"unit\":\"x\",\"value\":61.5}\nend {}\n";
        let rows = rows(console);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].to_string(), "inter with 3 MRs: 61.5");
    }

    #[test]
    fn a_table_must_be_complete() {
        let table = |mode: &str, len: usize| {
            (0..len).map(|mrs| format!("{{\"mode\":\"{mode}\",\"mrs\":{mrs},\"value\":1}}\n")).collect::<String>()
        };
        let check = |console: String, end, modes: &[&str]| {
            check_tables(&Ended { end, console, times: Times::default() }, modes).is_ok()
        };
        assert!(check(table("inter", 64), End::Program(0), &["inter"]));
        assert!(check(table("inter", 64) + &table("intra", 64), End::Program(0), &["inter", "intra"]));
        assert!(!check(table("inter", 63), End::Program(0), &["inter"]));
        assert!(!check(table("inter", 64) + &table("inter", 1), End::Program(0), &["inter"]));
        assert!(!check(table("inter", 64) + &table("intra", 64), End::Program(0), &["inter"]));
        assert!(!check(table("inter", 64), End::Program(1), &["inter"]));
        assert!(!check(table("inter", 64), End::Overrun, &["inter"]));
    }

    #[test]
    fn memory_of_the_host_is_read_in_mib() {
        assert_eq!(memory_mib("MemTotal:       8388608 kB\nMemFree: 1 kB\nSwapTotal: 1024 kB\n"), Some(8193));
        assert_eq!(memory_mib(""), None);
    }
}
