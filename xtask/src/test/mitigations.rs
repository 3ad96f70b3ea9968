//! What the kernel does about weaknesses of processors, and says of it.
//!
//! The emulator has none of the registers and bits against them, so what it shows are processors of before 2018.

use anyhow::{Result, ensure};

use super::boots::{PATIENCE, check_success, counting, machine, rows, tail};
use super::{Case, Lab};
use crate::qemu::{Console, Ended, Machine};

/// A processor of Intel's with all weaknesses.
const WEAK: &str = "Skylake-Server";
/// One of AMD's.
const STRONGER: &str = "EPYC";

const OPEN: &str = "affected, not mitigated";
const APART: &str = "affected, user page tables without the kernel";
const NOT: &str = "not affected";
const ZERO: &str = "affected, entries of absent pages are zero";
const CLEARED: &str = "affected, buffers would be cleared on the way to user mode, but VERW is not said to do so";
const MASKED: &str = "affected, thread numbers are masked";
const JUMPS: &str = "affected, no indirect jumps in the kernel, returns not guarded";
const EMPTIED: &str = "affected, registers are emptied when their owner leaves";

const NAMES: [&str; 7] = ["Meltdown", "L1TF", "MDS", "Spectre v1", "Spectre v2", "SSB", "LazyFP"];

/// A boot: name of the test, processor, options of the kernel, the choice, what is said of each weakness.
type Row = (&'static str, &'static str, &'static str, &'static str, [&'static str; 7]);

const ROWS: &[Row] = &[
    ("a_weak_processor_is_helped_by_default", WEAK, "", "auto", [APART, ZERO, CLEARED, MASKED, JUMPS, OPEN, EMPTIED]),
    ("mitigations_can_be_off", WEAK, "mitigations=off", "off", [OPEN, ZERO, OPEN, MASKED, JUMPS, OPEN, OPEN]),
    ("mitigations_can_be_full", WEAK, "mitigations=full", "full", [APART, ZERO, CLEARED, MASKED, JUMPS, OPEN, EMPTIED]),
    (
        "a_wrong_choice_of_mitigations_is_the_default",
        WEAK,
        "mitigations=no",
        "auto",
        [APART, ZERO, CLEARED, MASKED, JUMPS, OPEN, EMPTIED],
    ),
    ("a_stronger_processor_needs_less", STRONGER, "", "auto", [NOT, NOT, NOT, MASKED, JUMPS, OPEN, NOT]),
];

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    let rows = ROWS.iter().map(|&(name, cpu, options, choice, lines)| {
        Case::new(format!("boot::{name}"), "Boot, kernel options", move |lab| says(lab, cpu, options, choice, lines))
    });
    let others = [Case::new("boot::mitigations_take_eight_instructions_of_a_message", "", cost)];
    rows.chain(others).collect()
}

fn boot(machine: &Machine) -> Result<Ended> {
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    check_success(&ended)?;
    Ok(ended)
}

/// The kernel says what was chosen, and of each weakness what it is to this processor.
fn says(lab: &Lab, cpu: &str, options: &str, choice: &str, lines: [&str; 7]) -> Result<()> {
    let mut machine = machine(lab, cpu, 256);
    "inter mrs=0..8 rounds=2".clone_into(&mut machine.modules[2].args);
    options.clone_into(&mut machine.modules[0].args);
    let ended = boot(&machine)?;
    let is_said = |line: &str| ended.console.lines().any(|own| own.strip_prefix("marcona: ") == Some(line));
    ensure!(is_said(&format!("mitigations={choice}")), "no choice\n{}", tail(&ended.console));
    for (name, text) in NAMES.iter().zip(lines) {
        ensure!(is_said(&format!("{name}: {text}")), "{name}: not `{text}`\n{}", tail(&ended.console));
    }
    let is_complained_of = ended.console.contains("\"mitigations=no\" is ignored: it takes auto, off or full");
    ensure!(is_complained_of == options.contains("=no"), "the complaint\n{}", tail(&ended.console));
    Ok(())
}

/// What a message takes more where it is needed: three instructions to the kernel's tables, three to the space's, a jump and
/// VERW. And nothing where it is not.
fn cost(lab: &Lab) -> Result<()> {
    let measure = |cpu: &str, options: &str| -> Result<Vec<f64>> {
        let mut machine = counting(lab, "inter intra mrs=0..9 json");
        cpu.clone_into(&mut machine.cpu);
        options.clone_into(&mut machine.modules[0].args);
        Ok(rows(&boot(&machine)?.console).iter().map(|row| row.value).collect())
    };
    let (off, auto) = (measure(WEAK, "mitigations=off")?, measure(WEAK, "")?);
    let (other_off, other_auto) = (measure(STRONGER, "mitigations=off")?, measure(STRONGER, "")?);
    ensure!(off.len() == 20, "20 rows were asked for");
    let more: Vec<f64> = auto.iter().zip(&off).map(|(auto, off)| auto - off).collect();
    // A mean of many messages, among which are a few general ways.
    ensure!(more.iter().all(|more| (7.9..8.1).contains(more)), "a message takes {more:?} more");
    ensure!(other_off == other_auto && other_off == off, "{other_off:?}, {other_auto:?}, {off:?}");
    Ok(())
}
