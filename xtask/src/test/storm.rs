//! The programs storm, siege and scale, on several processors.

use anyhow::{Context, Result, ensure};

use super::boots::{self, PATIENCE};
use super::{Case, Lab};
use crate::bench::scale;
use crate::qemu::{Console, End, Ended, Machine, Module};

/// The seed of the run that is the same each time.
const SEED: u64 = 1;
/// Operations of a run.
const OPS: u64 = 20_000;

/// How much more a message may take, on average, while other pairs exchange messages, too.
const GROWTH: f64 = 1.05;

/// How much more a message on one processor may take where there are many.
const GROWTH_WITH_PROCESSORS: f64 = 1.01;

/// What a call between processors and its reply may take.
const CALL_INSTRUCTIONS: f64 = 1200.0;

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("boot::storm_of_a_fixed_seed_loses_nothing", "X.2, Processors", |lab| storm(lab, SEED, true)),
        Case::new("boot::storm_of_a_fresh_seed_loses_nothing", "X.2, Processors", |lab| storm(lab, lab.seed, false)),
        Case::new("boot::siege_leaves_the_victim_alone", "X.2, System calls, kernel memory", siege),
        Case::new("boot::siege_refuses_unknown_words", "", |lab| refuses(lab, "siege", "rounds=0")),
        Case::new("boot::storm_refuses_unknown_words", "", |lab| refuses(lab, "storm", "ops=0")),
        Case::new("boot::pairs_of_threads_do_not_slow_each_other_down", "X.2, Processors, IPC", pairs),
        Case::new("boot::a_call_between_processors_is_cheap", "X.2, Processors, IPC", call_between_processors),
        Case::new("boot::a_message_takes_as_much_with_64_processors", "X.2, Processors, IPC", same_on_many),
        Case::new("boot::scale_prints_tables", "", tables),
        Case::new("boot::scale_refuses_unknown_words", "", |lab| refuses(lab, "scale", "pair")),
    ]
}

fn machine(lab: &Lab, program: &str, args: String, cpus: u32) -> Machine {
    Machine { cpus, ..Machine::new(&lab.dir, Module { file: lab.image(program), args }) }
}

fn boot(machine: &Machine) -> Result<Ended> {
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, boots::tail(&ended.console));
    Ok(ended)
}

/// A run of counted instructions is the same each time; one that is not has processors that truly run in parallel.
fn storm(lab: &Lab, seed: u64, icount: bool) -> Result<()> {
    let machine = Machine {
        icount,
        boot_args: KERNEL_MEMORY.to_owned(),
        ..machine(lab, "storm", format!("seed={seed} ops={OPS}"), CPUS)
    };
    let command = format!("cargo xtask run storm --cpus {CPUS} --args \"seed={seed} ops={OPS}\"");
    let ended = boot(&machine).with_context(|| command)?;
    let last = ended.console.lines().last().unwrap_or_default();
    ensure!(last.ends_with("; nothing is lost"), "{}", boots::tail(&ended.console));
    ensure!(ended.console.contains(&format!("storm: seed={seed} ")), "{}", boots::tail(&ended.console));
    Ok(())
}

/// Kernel memory runs out so often.
const SIEGES: u64 = 100;
/// With less kernel memory it runs out, and is measured, sooner.
const BESIEGED_MEMORY: &str = "kmem=2M";

/// With counted instructions a call takes the same time each time, to the instruction.
fn siege(lab: &Lab) -> Result<()> {
    let machine = Machine {
        icount: true,
        boot_args: BESIEGED_MEMORY.to_owned(),
        ..machine(lab, "siege", format!("seed={} rounds={SIEGES}", lab.seed), CPUS)
    };
    let ended = boot(&machine).with_context(|| format!("seed={}", lab.seed))?;
    let last = ended.console.lines().last().unwrap_or_default();
    let expected = format!("siege: memory ran out {SIEGES} times, and not with quotas; a call takes ");
    ensure!(last.starts_with(&expected) && last.ends_with("; nothing is lost"), "{}", boots::tail(&ended.console));
    Ok(())
}

/// Processors of a storm.
const CPUS: u32 = 4;
/// The storm measures the kernel's memory by filling it, which takes long with much: each page that is released interrupts all
/// processors.
const KERNEL_MEMORY: &str = "kmem=4M";

fn refuses(lab: &Lab, program: &str, word: &str) -> Result<()> {
    let ended = machine(lab, program, word.to_owned(), 1).boot(&Console::none(), Some(PATIENCE))?;
    ensure!(ended.end == End::Program(2), "{}\n{}", ended.end, boots::tail(&ended.console));
    ensure!(ended.console.contains(word), "{}", boots::tail(&ended.console));
    Ok(())
}

/// Where instructions of all processors add up, a message costs as much with many pairs as with one.
fn pairs(lab: &Lab) -> Result<()> {
    const SIDE: usize = 4;
    let args = "latency pairs rounds=50 json tick=instructions".to_owned();
    let machine = Machine { icount: true, sockets: 2, ..machine(lab, "scale", args, SIDE as u32) };
    let ended = boot(&machine)?;
    let rows = scale::rows(&ended)?;
    let pairs: Vec<f64> = rows.iter().filter(|row| row.mode == "pairs").map(|row| row.value).collect();
    ensure!(pairs.len() == SIDE, "the numbers of pairs are {pairs:?}");
    let most = pairs.iter().copied().fold(0.0, f64::max);
    ensure!(most <= pairs[0] * GROWTH, "a message of 1, 2, ... pairs takes {pairs:?}");
    let latencies: Vec<_> = rows.iter().filter(|row| row.mode == "latency").collect();
    ensure!(latencies.len() == SIDE * SIDE, "{} latencies", latencies.len());
    for row in latencies {
        let (Some(from), Some(to)) = (row.from, row.to) else { continue };
        let expected = match (from == to, from / 2 == to / 2) {
            (true, _) => "same processor",
            (_, true) => "same socket",
            (_, false) => "other socket",
        };
        ensure!(row.relation == expected, "processors {from} and {to}: {}", row.relation);
        ensure!(row.value > 1.0, "from {from} to {to} it takes {}", row.value);
    }
    Ok(())
}

/// A call to another processor and its reply, with words that are registers: instructions of both together, of kernel and user
/// code, on a machine of two processors and on one of many.
fn call_between_processors(lab: &Lab) -> Result<()> {
    for cpus in [2, 64] {
        let args = "xcpu mrs=0..7 rounds=100 json tick=instructions".to_owned();
        let ended = boot(&Machine { icount: true, ..machine(lab, "pingpong", args, cpus) })?;
        let rows = boots::rows(&ended.console);
        ensure!(rows.len() == 8, "{} rows\n{}", rows.len(), boots::tail(&ended.console));
        for row in rows {
            ensure!(row.mode == "xcpu" && row.value > 1.0, "{row}");
            ensure!(2.0 * row.value <= CALL_INSTRUCTIONS, "one way of at most {CALL_INSTRUCTIONS} both ways: {row}");
        }
    }
    Ok(())
}

/// Messages between threads of one processor, on a machine that has one and on one that has many.
fn same_on_many(lab: &Lab) -> Result<()> {
    let measure = |cpus: u32| -> Result<Vec<boots::Measured>> {
        let args = "inter intra mrs=0..8 rounds=100 json tick=instructions".to_owned();
        Ok(boots::rows(&boot(&Machine { icount: true, ..machine(lab, "pingpong", args, cpus) })?.console))
    };
    let (alone, many) = (measure(1)?, measure(64)?);
    ensure!(alone.len() == 18 && many.len() == 18, "18 rows were asked for, not {} and {}", alone.len(), many.len());
    for (alone, many) in alone.iter().zip(&many) {
        ensure!(many.value > 1.0 && many.value <= alone.value * GROWTH_WITH_PROCESSORS, "{many}, not {alone}");
    }
    Ok(())
}

fn tables(lab: &Lab) -> Result<()> {
    // Time in instructions is the same on every host.
    let ended = boot(&Machine { icount: true, ..machine(lab, "scale", "rounds=2".to_owned(), 2) })?;
    let starting = |text: &str| ended.console.lines().filter(|line| line.starts_with(text)).count();
    // Two rows of the matrix; a move itself and by another; faults on the same processor and another.
    for (text, count) in [("   0 | ", 1), ("   1 | ", 1), ("itself ", 1), ("another ", 1), ("            0 ", 2)] {
        ensure!(
            starting(text) == count,
            "{} lines start with `{text}`\n{}",
            starting(text),
            boots::tail(&ended.console)
        );
    }
    Ok(())
}
