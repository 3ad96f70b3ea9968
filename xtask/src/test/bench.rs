//! What `cargo xtask bench` measures, against the committed figures and against itself.

use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::boots::{self, PATIENCE};
use super::{Case, Lab, Skipped};
use crate::bench::baseline::Baseline;
use crate::bench::{Figure, Rig, Seen};
use crate::qemu::{Console, End, Module};

/// Lines of 64 bytes that a call and its reply between spaces may touch, with words in registers.
const DATA_LINES: u64 = 14;
const CODE_LINES: u64 = 16;
/// Message registers that are registers of the processor, without the tag.
const REGISTERS: u32 = 7;

/// Messages that a pair of threads exchanges at least while many do.
const PAIR_MESSAGES: f64 = 100.0;

/// Instructions that the kernel may execute in a second in which nobody is ready: a few timer interrupts.
const IDLE_INSTRUCTIONS: f64 = 10_000.0;

/// How far the plugin's count of a call and its reply may be from the clock's: its rounding, and a timer interrupt at
/// either end of the region, shared out to a thousand rounds.
const ROUNDING: f64 = 1.0;

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("bench::no_figure_has_grown", "", grown),
        Case::new("bench::a_call_and_its_reply_touch_few_lines", "X.2, Ipc, message transfer", lines),
        Case::new("bench::messages_of_processors_share_nothing", "X.2, Processors, IPC", shared),
        Case::new("bench::a_crowd_of_threads_disturbs_nobody", "", crowd),
        Case::new("bench::the_plugin_agrees_with_the_clock", "", agreement),
        Case::new("bench::two_runs_count_the_same", "", same),
        Case::new("bench::a_second_without_work_is_idle", "", idle),
        Case::new("bench::without_the_plugin_there_are_figures_too", "", without_plugin),
        Case::new("boot::bench_prints_a_table", "", table),
        Case::new("boot::bench_refuses_unknown_words", "", refuses),
    ]
}

/// What all tests look at.
struct Measured {
    rig: Rig,
    figures: Vec<Figure>,
    /// What the plugin wrote about the program bench.
    regions: String,
}

/// Measures everything, once.
fn measured(lab: &Lab) -> Result<&'static Measured> {
    static MEASURED: OnceLock<Result<Measured, String>> = OnceLock::new();
    let measure = || -> Result<Measured> {
        let rig = Rig::of_images(lab.dir.clone())?;
        let mut figures = rig.boot("pingpong", "json")?.0;
        let (others, regions) = rig.boot("bench", "json")?;
        figures.extend(others);
        Ok(Measured { rig, figures, regions })
    };
    let measured = MEASURED.get_or_init(|| measure().map_err(|error| format!("{error:#}")));
    measured.as_ref().map_err(|error| anyhow!("{error}"))
}

/// What the plugin saw of the figures that `is_wanted`.
fn seen(lab: &Lab, is_wanted: impl Fn(&Figure) -> bool) -> Result<Vec<(&'static Figure, &'static Seen)>> {
    let Measured { rig, figures, .. } = measured(lab)?;
    if !rig.has_plugin() {
        return Err(Skipped("this QEMU takes no plugins of version 1").into());
    }
    let wanted = figures.iter().filter(|figure| is_wanted(figure));
    let seen: Vec<_> = wanted.filter_map(|figure| Some((figure, figure.counts.as_ref()?))).collect();
    ensure!(!seen.is_empty(), "nothing of that kind was measured");
    Ok(seen)
}

fn grown(lab: &Lab) -> Result<()> {
    if !lab.config.is_default() {
        return Err(Skipped("the committed figures are those of the default configuration").into());
    }
    let Measured { rig, figures, .. } = measured(lab)?;
    let findings = Baseline::read()?.findings(figures, rig.compiler());
    if findings.is_empty() { Ok(()) } else { bail!("{}", findings.join("\n")) }
}

fn lines(lab: &Lab) -> Result<()> {
    let is_wanted = |figure: &Figure| figure.mode == "inter" && figure.mrs.is_some_and(|mrs| mrs <= REGISTERS);
    for (figure, Seen { counts, data, code, .. }) in seen(lab, is_wanted)? {
        let name = figure.name();
        ensure!(counts.data.most <= DATA_LINES, "{name}: {} lines of data: {data:?}", counts.data.most);
        ensure!(counts.code.most <= CODE_LINES, "{name}: {} lines of code: {code:?}", counts.code.most);
        ensure!(counts.data.most > 0 && counts.code.most > 0, "{name}: no lines were seen");
        ensure!(counts.locked == 0.0, "{name}: {} instructions that lock memory", counts.locked);
    }
    Ok(())
}

/// A pair of threads on each processor exchange messages, all pairs together: no instruction locks memory, and no line is
/// written by the kernel that it reads or writes on another processor.
fn shared(lab: &Lab) -> Result<()> {
    for cpus in [4, 64] {
        let rig = Rig::of_images(lab.dir.clone())?.with_cpus(cpus);
        let (figures, _) = rig.boot("scale", &format!("pairs={cpus} rounds=1 json"))?;
        if !rig.has_plugin() {
            return Err(Skipped("this QEMU takes no plugins of version 1").into());
        }
        let [Figure { counts: Some(Seen { counts, data, .. }), .. }] = &figures[..] else { bail!("{figures:?}") };
        ensure!(counts.processors == cpus as usize, "{} of {cpus} processors were in the kernel", counts.processors);
        ensure!(counts.entries >= f64::from(cpus) * PAIR_MESSAGES, "only {} entries of the kernel", counts.entries);
        let name = |line: &u64| {
            let index = counts.data.lines.iter().position(|(own, _)| own == line);
            index.map_or(format!("{line:#x}"), |index| data[index].0.clone())
        };
        let names: Vec<String> = counts.shared.iter().map(name).collect();
        ensure!(names.is_empty(), "{cpus} processors write and read the same lines: {names:?}");
        ensure!(counts.locked == 0.0, "{} instructions lock memory on {cpus} processors", counts.locked);
    }
    Ok(())
}

/// The pages that are backed for many threads are known to no other processor, as nobody has looked there: none is interrupted.
fn crowd(lab: &Lab) -> Result<()> {
    const CPUS: u32 = 4;
    let rig = Rig::of_images(lab.dir.clone())?.with_cpus(CPUS);
    let interrupts = |program: &str| -> Result<f64> {
        let (figures, _) = rig.boot("bench", &format!("{program} json"))?;
        if !rig.has_plugin() {
            return Err(Skipped("this QEMU takes no plugins of version 1").into());
        }
        let crowd = figures.iter().find(|figure| figure.mode == "crowd").and_then(|figure| figure.counts.as_ref());
        let Seen { counts, .. } = crowd.context("nothing was seen of a crowd")?;
        // Each time the handler's first instruction is executed.
        let entry = rig.code("non_maskable_entry").context("the kernel has no such handler")?;
        Ok(counts.executed.iter().filter(|(at, _)| *at == entry).map(|(_, count)| count).sum())
    };
    let (create, delete) = (interrupts("thread_create")?, interrupts("thread_delete")?);
    ensure!(create == 0.0, "to make a crowd of threads interrupts other processors {create} times");
    ensure!(delete > 1.0, "to delete it does so {delete} times: the interrupts are not seen");
    Ok(())
}

/// The one counts instructions as they are executed, the other by the virtual time that they take.
fn agreement(lab: &Lab) -> Result<()> {
    for (figure, Seen { counts, .. }) in seen(lab, |figure| figure.mrs.is_some())? {
        let (counted, clock) = (counts.kernel + counts.user, 2.0 * figure.value);
        let name = figure.name();
        ensure!((counted - clock).abs() < ROUNDING, "{name}: the plugin counts {counted}, the clock {clock}");
    }
    Ok(())
}

fn same(lab: &Lab) -> Result<()> {
    seen(lab, |_| true)?;
    let Measured { rig, regions, .. } = measured(lab)?;
    let (_, again) = rig.boot("bench", "json")?;
    let differing = regions.lines().zip(again.lines()).position(|(one, other)| one != other);
    ensure!(differing.is_none(), "region {} differs between two runs", differing.unwrap_or_default());
    ensure!(*regions == again, "one run has more regions");
    Ok(())
}

fn idle(lab: &Lab) -> Result<()> {
    for (figure, _) in seen(lab, |figure| figure.bench == "idle")? {
        ensure!(figure.value < IDLE_INSTRUCTIONS, "{} instructions in an idle second", figure.value);
    }
    Ok(())
}

/// An emulator that refuses the plugin still counts by its clock.
fn without_plugin(lab: &Lab) -> Result<()> {
    let rig = Rig::of_images(lab.dir.clone())?.with_plugin(lab.image("kernel"));
    let (figures, regions) = rig.boot("pingpong", "inter mrs=0..0 json")?;
    ensure!(!rig.has_plugin() && regions.is_empty(), "the kernel is no plugin");
    ensure!(figures.len() == 1 && figures[0].value > 1.0 && figures[0].counts.is_none(), "{figures:?}");
    Ok(())
}

fn table(lab: &Lab) -> Result<()> {
    let mut machine = boots::machine(lab, "max", 256);
    machine.modules[2] = Module { file: lab.image("bench"), args: "null_call unmap rounds=3".to_owned() };
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, boots::tail(&ended.console));
    let rows = |name| ended.console.lines().filter(|line| line.starts_with(name)).count();
    ensure!(rows("null_call ") == 1 && rows("unmap ") == 3, "{}", boots::tail(&ended.console));
    ensure!(rows("schedule ") == 0, "{}", boots::tail(&ended.console));
    Ok(())
}

fn refuses(lab: &Lab) -> Result<()> {
    let mut machine = boots::machine(lab, "max", 256);
    machine.modules[2] = Module { file: lab.image("bench"), args: "nul_call".to_owned() };
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    ensure!(ended.end == End::Program(2), "{}\n{}", ended.end, boots::tail(&ended.console));
    ensure!(ended.console.contains("bad argument 'nul_call'"), "{}", boots::tail(&ended.console));
    Ok(())
}
