//! Firmware that lies, and machines that lack what others have: each is named, and survived where that can be.
//!
//! A small program in C stands between QEMU's firmware and kickstart and spoils what the firmware left; its words are
//! explained in `apps/foreign/liar.c`.

use std::fs;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::boots::{self, PATIENCE, check_success, tail};
use super::media::{await_screen, watched};
use super::{Case, Lab};
use crate::foreign::{self, PROGRAMS};
use crate::qemu::{Console, End, Ended, Machine, Module};

/// A boot with lies: name of the test, board, processors, lies, options of the kernel, what is said of it.
type Row = (&'static str, &'static str, u32, &'static str, &'static str, &'static [&'static str]);

/// Boots that survive it. Time in instructions makes a processor of 1000 MHz.
const SURVIVED: &[Row] = &[
    ("honest_firmware_is_believed", "pc", 2, "", "", &[", 2 processors", "clocks measured by the PIT", "1000 MHz"]),
    (
        "a_wrong_checksum_of_the_table_of_processors",
        "pc",
        2,
        "checksum=APIC",
        "",
        &["ACPI: the APIC has a wrong checksum", ", 1 processors", " 0 I/O APICs"],
    ),
    (
        "a_wrong_checksum_of_the_table_of_a_timer",
        "pc",
        1,
        "checksum=HPET",
        "",
        &["ACPI: the HPET has a wrong checksum"],
    ),
    ("a_wrong_checksum_of_the_fixed_table", "pc", 1, "checksum=FACP", "", &["ACPI: the FACP has a wrong checksum"]),
    ("a_wrong_checksum_of_pci_express", "q35", 1, "checksum=MCFG", "", &["ACPI: the MCFG has a wrong checksum"]),
    ("a_missing_table_of_processors", "pc", 2, "gone=APIC", "", &["ACPI: there is no APIC", ", 1 processors"]),
    ("pci_express_is_found", "q35", 1, "", "", &["PCI Express 0: buses 0 to 255 at 0xb0000000\n"]),
    (
        "pci_express_in_memory_is_told",
        "q35",
        1,
        "allram",
        "",
        &["PCI Express 0: buses 0 to 255 at 0xb0000000, which is in memory", "ACPI: its tables lie in memory"],
    ),
    (
        "a_memory_map_of_nothing_but_memory",
        "pc",
        2,
        "allram",
        "",
        &["ACPI: its tables lie in memory", ", 2 processors"],
    ),
    (
        "a_processor_that_does_not_answer",
        "pc",
        3,
        "silent",
        "",
        &["the processor with APIC number 77 does not answer", ", 2 processors"],
    ),
    ("a_missing_pit", "pc,pit=off", 1, "", "", &["clocks measured by the timer of ACPI", "1000 MHz"]),
    ("a_missing_pit_and_timer_of_acpi", "pc,pit=off", 1, "gone=FACP", "", &["clocks measured by the HPET", "1000 MHz"]),
    ("the_hpet_by_choice", "q35", 1, "", "clock=hpet", &["clocks measured by the HPET", "1000 MHz"]),
    ("the_timer_of_acpi_by_choice", "q35", 1, "", "clock=acpi", &["clocks measured by the timer of ACPI", "1000 MHz"]),
    ("a_chosen_clock_that_is_missing", "pc,hpet=off", 1, "", "clock=hpet", &["clocks measured by the PIT", "1000 MHz"]),
];

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    let survived = SURVIVED.iter().map(|&(name, board, cpus, lies, options, lines)| {
        Case::new(format!("boot::firmware::{name}"), "Boot, firmware", move |lab| {
            let ended = boot(lab, board, cpus, lies, options)?;
            check_success(&ended)?;
            check_lines(&ended, lines)
        })
    });
    let others = [
        Case::new("boot::firmware::no_timer_at_all_is_named", "Boot, firmware", no_timer),
        Case::new("boot::firmware::steps_are_shown_on_port_80", "Boot, firmware", steps),
        Case::new("boot::firmware::a_refusal_is_on_serial_line_and_screen", "Boot, loader", refusal),
        Case::new("boot::firmware::a_panic_is_on_serial_line_and_screen", "Boot, firmware", panic),
    ];
    survived.chain(others).collect()
}

fn machine(lab: &Lab, board: &str, cpus: u32, lies: &str, options: &str) -> Result<Machine> {
    let liar = foreign::build(PROGRAMS.iter().find(|program| program.name == "liar").context("there is a liar")?)?;
    let mut machine = boots::machine(lab, "max", 128);
    // The kernel waits for seconds for who does not answer, which would be many instructions.
    (machine.board, machine.cpus, machine.icount) = (board.to_owned(), cpus, lies != "silent");
    options.clone_into(&mut machine.modules[0].args);
    "inter mrs=0..0".clone_into(&mut machine.modules[2].args);
    machine.modules.insert(0, Module { file: machine.kickstart, args: lies.to_owned() });
    Ok(Machine { kickstart: liar, ..machine })
}

fn boot(lab: &Lab, board: &str, cpus: u32, lies: &str, options: &str) -> Result<Ended> {
    machine(lab, board, cpus, lies, options)?.boot(&Console::none(), Some(PATIENCE))
}

fn check_lines(ended: &Ended, lines: &[&str]) -> Result<()> {
    let missing = lines.iter().find(|line| !ended.console.contains(*line));
    ensure!(missing.is_none(), "no {missing:?}\n{}", tail(&ended.console));
    Ok(())
}

fn no_timer(lab: &Lab) -> Result<()> {
    let ended = boot(lab, "pc,pit=off,hpet=off", 1, "gone=FACP", "")?;
    ensure!(matches!(ended.end, End::Program(1..)), "{}\n{}", ended.end, tail(&ended.console));
    check_lines(&ended, &["marcona: kernel panic: no clock to calibrate by"])
}

/// Boots with a device that writes down what comes to port 80h.
fn shown_steps(machine: Machine) -> Result<(Ended, Vec<u8>)> {
    let dir = TempDir::new()?;
    let file = dir.path().join("steps");
    let chardev = format!("file,id=steps,path={}", file.display());
    let more = ["-chardev", &chardev, "-device", "isa-debugcon,iobase=0x80,chardev=steps"];
    let machine = Machine { more: more.map(str::to_owned).into(), ..machine };
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    Ok((ended, fs::read(&file)?))
}

/// The numbers of the steps come in order; of a boot that fails it is the last one that says where.
fn steps(lab: &Lab) -> Result<()> {
    let of_kernel = |shown: &[u8]| {
        // The firmware shows numbers of its own before.
        let start = shown.windows(3).rposition(|numbers| numbers == [1, 2, 3]).context("no steps 1, 2, 3")?;
        Ok::<_, anyhow::Error>(shown[start..].to_vec())
    };
    let (ended, shown) = shown_steps(machine(lab, "pc", 1, "", "")?)?;
    check_success(&ended)?;
    let whole = of_kernel(&shown)?;
    ensure!(whole.len() >= 10 && whole.iter().zip(1..).all(|(step, number)| *step == number), "{whole:?}");
    let (_, shown) = shown_steps(machine(lab, "pc,pit=off,hpet=off", 1, "gone=FACP", "")?)?;
    let failed = of_kernel(&shown)?;
    let (last, before) = failed.split_last().context("steps were shown")?;
    ensure!(before.len() < whole.len() && *last == 0x80 | before.len() as u8, "{failed:?}");
    let mut refused = boots::machine(lab, "max", 128);
    refused.modules.truncate(2);
    let (ended, shown) = shown_steps(refused)?;
    ensure!(ended.end == End::BootError && shown.last() == Some(&0x7F), "{}: {shown:?}", ended.end);
    Ok(())
}

/// What is wrong stands on the screen as well as on the serial line, though there is nobody yet who owns either.
fn seen(mut machine: Machine, text: &'static str) -> Result<()> {
    machine.has_screen = true;
    let (_, serial) =
        watched(machine, |monitor| await_screen(monitor, |lines| lines.iter().any(|line| line.contains(text))))?;
    ensure!(serial.contains(text), "{}", tail(&serial));
    Ok(())
}

fn refusal(lab: &Lab) -> Result<()> {
    let mut machine = boots::machine(lab, "max", 128);
    machine.modules.truncate(2);
    seen(machine, "kickstart: module 2 (root task): is missing")
}

fn panic(lab: &Lab) -> Result<()> {
    seen(machine(lab, "pc,pit=off,hpet=off", 1, "gone=FACP", "")?, "marcona: kernel panic: no clock to calibrate by")
}
