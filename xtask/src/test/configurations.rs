//! What can be chosen when the kernel is built: that each two choices fit together, and that they do what they say.

use anyhow::{Context, Result, bail, ensure};
use kconfig::{Settings, cover};

use super::boots::{self, Measured, PATIENCE};
use super::{Case, Lab};
use crate::build;
use crate::config::{self, Chosen};
use crate::qemu::{Console, End, Ended, Machine, Module};

/// What a kernel for one processor may save in a message between threads of one processor, instructions.
const SMP_COST: f64 = 5.0;
/// Members that the short covering set takes of a choice.
const MEMBERS: usize = 3;

/// Wishes of the kernels that tests boot.
const ONE_PROCESSOR: &[&str] = &["SMP=n"];
const ANOTHER_WAY: &[&str] = &["SMP=n", "IOAPIC=n", "IPC_FASTPATH=n", "PERFMON=y", "X86_IO_FLEXPAGES=y"];

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("kconfig::each_two_choices_compile_together", "", compile),
        Case::new("kconfig::kernel_for_one_processor_passes", "", one_processor),
        Case::new("kconfig::many_processors_cost_few_instructions", "X.2, Ipc, message transfer", costs),
        Case::new("kconfig::kernel_without_fast_path_and_apics_passes", "", another_way),
        Case::new("kconfig::kernel_with_assertions_passes", "", with_assertions),
        Case::new("kconfig::kernel_for_40_processors_runs_40", "X.2, Processors", forty),
        Case::new("kconfig::wheels_turn_on_the_screen", "", wheels),
        Case::new(
            "kconfig::tracepoints_cost_the_fast_path_nothing",
            "X.2, Ipc, message transfer",
            costs_of_tracepoints,
        ),
        Case::new("kconfig::events_cost_what_is_said", "", costs_of_events),
        Case::new("kconfig::kernel_that_records_everything_passes", "Kernel debugger, trace buffer", all_recorded),
    ]
}

/// The configuration of these wishes.
pub fn chosen(wishes: &[&str]) -> Result<Chosen> {
    let options = config::options()?;
    let mut settings = Settings::default();
    for wish in wishes {
        let (name, value) = wish.split_once('=').context("NAME=VALUE")?;
        if let Err(refusal) = settings.set(&options, name, value) {
            bail!("{refusal}");
        }
    }
    Ok(Chosen::new(&wishes.join(" "), &options, &settings))
}

/// A boot of a kernel with this configuration, of one program.
fn machine(lab: &Lab, config: &Chosen, program: &str, args: &str) -> Result<Machine> {
    let dir = build::images(&["kernel"], config)?;
    let mut machine = boots::machine(lab, "max", 256);
    machine.modules[0] = Module::new(dir.join("kernel"));
    machine.modules[2] = Module { file: lab.image(program), args: args.to_owned() };
    Ok(machine)
}

fn boot(machine: &Machine) -> Result<Ended> {
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    boots::check_success(&ended)?;
    Ok(ended)
}

/// The figures of pingpong on one processor, in instructions.
fn figures(lab: &Lab, config: &Chosen, kernel_args: &str) -> Result<Vec<Measured>> {
    let mut machine = machine(lab, config, "pingpong", "inter intra mrs=0..63 json tick=instructions")?;
    machine.icount = true;
    machine.modules[0].args = kernel_args.to_owned();
    let rows = boots::rows(&boot(&machine)?.console);
    ensure!(rows.len() == 128, "128 rows were asked for");
    Ok(rows)
}

fn check_line(ended: &Ended, line: &str) -> Result<()> {
    ensure!(ended.console.contains(line), "no `{line}`\n{}", boots::tail(&ended.console));
    Ok(())
}

fn compile(_: &Lab) -> Result<()> {
    let options = config::options()?;
    let rows = cover::pairs(&options, MEMBERS);
    for (number, settings) in rows.iter().enumerate() {
        let config = Chosen::new(&format!("{} of {} rows", number + 1, rows.len()), &options, settings);
        build::check_kernel(&config).with_context(|| config.resolved_in_a_line())?;
    }
    Ok(())
}

fn one_processor(lab: &Lab) -> Result<()> {
    let config = chosen(ONE_PROCESSOR)?;
    let mut two = machine(lab, &config, "pingpong", "mrs=0..0")?;
    two.cpus = 2;
    let ended = boot(&two)?;
    check_line(&ended, ", 1 processors")?;
    check_line(&ended, "1 processors more than the kernel can run are left off")?;
    passes_l4test(lab, &config, "")
}

/// All tests of l4test pass, or those with a word in their names.
fn passes_l4test(lab: &Lab, config: &Chosen, args: &str) -> Result<()> {
    let mut machine = machine(lab, config, "l4test", args)?;
    // Time in instructions is the same on every host.
    machine.icount = true;
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    let failed: Vec<&str> = ended.console.lines().filter(|line| line.contains("... FAILED")).collect();
    ensure!(
        failed.is_empty() && ended.end == End::Program(0),
        "{}: {failed:?}\n{}",
        ended.end,
        boots::tail(&ended.console)
    );
    check_line(&ended, " passed, 0 failed")
}

/// Whether a kernel can run many processors costs next to nothing where threads of one exchange messages.
fn costs(lab: &Lab) -> Result<()> {
    let (many, one) = (figures(lab, &Chosen::by_default()?, "")?, figures(lab, &chosen(ONE_PROCESSOR)?, "")?);
    for (many, one) in many.iter().zip(&one) {
        let cost = many.value - one.value;
        ensure!(many.mode == one.mode && cost <= SMP_COST, "{many}, {cost} more than for one processor");
    }
    Ok(())
}

/// What interrupts of the clock, which are no part of a message, may make of the mean of a thousand rounds, instructions. A
/// tracepoint on the way would cost each message one at least.
const INTERRUPTS: f64 = 1.0;

/// In a kernel with tracepoints of which none is enabled, or none that messages make, each message of the fast path takes the
/// instructions that it takes without.
fn costs_of_tracepoints(lab: &Lab) -> Result<()> {
    let by_default = figures(lab, &Chosen::by_default()?, "")?;
    for trace in ["none", "memory,interrupts,x86,threads"] {
        let traced = figures(lab, &Chosen::of(Some("trace"))?, &format!("trace={trace}"))?;
        for (with, without) in traced.iter().zip(&by_default) {
            let cost = (with.value - without.value).abs();
            ensure!(with.mode == without.mode && cost < INTERRUPTS, "{with}, without tracepoints {without}");
        }
    }
    Ok(())
}

/// Events that a message makes, as pingpong's go to and fro: call, return, transfer, wait, switch.
const EVENTS_OF_A_MESSAGE: &str = "SYSCALL_IPC,SYSCALL_RETURN,IPC_TRANSFER,IPC_DETAILS,SCHEDULE_DETAILS";
/// What docs/tracing.md says that an event costs with both rings and trace buffer, and a little more, instructions.
const EVENT_COST: f64 = 260.0;

fn costs_of_events(lab: &Lab) -> Result<()> {
    let config = Chosen::of(Some("trace"))?;
    let mean = |trace: &str| -> Result<f64> {
        let rows = figures(lab, &config, &format!("trace={trace}"))?;
        Ok(rows.iter().map(|row| row.value).sum::<f64>() / rows.len() as f64)
    };
    let cost = (mean(EVENTS_OF_A_MESSAGE)? - mean("IPC_TRANSFER")?) / 4.0;
    ensure!(cost > 0.0 && cost <= EVENT_COST, "an event takes {cost} instructions");
    Ok(())
}

/// All tests of the trace buffer pass, and those of other chapters, while everything is recorded, also into that buffer.
fn all_recorded(lab: &Lab) -> Result<()> {
    let config = Chosen::of(Some("trace"))?;
    for part in ["trace_buffer", "kip::", "ipc::"] {
        let mut machine = machine(lab, &config, "l4test", &format!("run={part}"))?;
        machine.modules[0].args = "trace=all".to_owned();
        machine.icount = true;
        let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
        ensure!(ended.end == End::Program(0), "{part}: {}\n{}", ended.end, boots::tail(&ended.console));
        check_line(&ended, " passed, 0 failed")?;
        ensure!(part != "trace_buffer" || !ended.console.contains(" skipped"), "{}", boots::tail(&ended.console));
    }
    Ok(())
}

/// With the 8259A, without the fast path, with counters for programs, and with I/O fpages that nobody asked for at boot.
fn another_way(lab: &Lab) -> Result<()> {
    let config = chosen(ANOTHER_WAY)?;
    let ended = boot(&machine(lab, &config, "pingpong", "mrs=0..63")?)?;
    check_line(&ended, "16 interrupt lines, 0 I/O APICs")?;
    for part in ["ipc::", "counters", "ioports", "interrupts"] {
        passes_l4test(lab, &config, &format!("run={part}"))?;
    }
    let ended = boot(&machine(lab, &config, "l4test", "kernel")?)?;
    let line = ended.console.lines().find(|line| line.starts_with("kernel: ")).context("it does not tell")?;
    let words: Vec<&str> = line.split(' ').collect();
    let has = |word: &&&str| words.contains(word);
    let told = ["PERFMON", "X86_IO_FLEXPAGES", "NEW_MDB", "MITIGATIONS=auto"];
    ensure!(told.iter().all(|word| has(&word)), "{line}");
    ensure!(!["IPC_FASTPATH", "IOAPIC", "SMP=255"].iter().any(|word| has(&word)), "{line}");
    Ok(())
}

/// The kernel keeps its own promises, and says what it does.
fn with_assertions(lab: &Lab) -> Result<()> {
    let config = Chosen::of(Some("debug"))?;
    let mut machine = machine(lab, &config, "pingpong", "inter intra xcpu mrs=0..7")?;
    machine.cpus = 2;
    let ended = boot(&machine)?;
    check_line(&ended, "marcona: boot: initial servers")?;
    check_line(&ended, "ASSERTIONS")?;
    passes_l4test(lab, &config, "run=ipc")
}

fn forty(lab: &Lab) -> Result<()> {
    let config = Chosen::of(Some("forty-cores"))?;
    let mut machine = machine(lab, &config, "pingpong", "inter xcpu mrs=0..0 rounds=100")?;
    (machine.cpus, machine.memory_mib) = (42, 512);
    let ended = boot(&machine)?;
    check_line(&ended, ", 40 processors")?;
    check_line(&ended, "2 processors more than the kernel can run are left off")?;
    check_line(&ended, "SMP=40 SMP_IDLE_POLL IPC_FASTPATH")
}

fn wheels(lab: &Lab) -> Result<()> {
    let shown = |config: &Chosen| -> Result<Vec<String>> {
        let mut machine = machine(lab, config, "l4test", "screen")?;
        machine.has_screen = true;
        let console = boot(&machine)?.console;
        Ok(console.lines().filter_map(|line| line.strip_prefix("screen: ")).map(str::to_owned).collect())
    };
    let turns = |line: &String| ['|', '/', '-', '\\'].iter().filter(|shape| line.contains(**shape)).count() > 1;
    let (with, without) = (shown(&Chosen::of(Some("forty-cores"))?)?, shown(&Chosen::by_default()?)?);
    ensure!(with.len() == 3 && with.iter().all(turns), "the wheels show {with:?}");
    ensure!(without.len() == 3 && !without.iter().any(turns), "without wheels there is {without:?}");
    Ok(())
}

/// Builds and boots each configuration of the large covering set; whether all could be.
pub fn cover_all(lab_dir: &std::path::Path) -> Result<bool> {
    let options = config::options()?;
    let rows = cover::pairs(&options, usize::MAX);
    let mut failed = 0;
    for (number, settings) in rows.iter().enumerate() {
        let config = Chosen::new(&format!("{} of {} rows", number + 1, rows.len()), &options, settings);
        let result = build::images(&["kernel"], &config).and_then(|dir| {
            let mut machine =
                Machine::new(lab_dir, Module { file: lab_dir.join("pingpong"), args: "mrs=0..7".to_owned() });
            machine.modules[0] = Module::new(dir.join("kernel"));
            boot(&machine).map(drop)
        });
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{} ... {word}", config.resolved_in_a_line());
        if let Err(error) = result {
            failed += 1;
            println!("{error:#}");
        }
    }
    println!("{} passed, {failed} failed", rows.len() - failed);
    Ok(failed == 0)
}
