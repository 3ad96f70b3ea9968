//! Traces: what `run --trace` and `dump` make of what a kernel has recorded, read by others than those who wrote it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::boots::{self, PATIENCE};
use super::{Case, Lab, Skipped, kdb};
use crate::config::Chosen;
use crate::perfetto::Engine;
use crate::qemu::{Console, End, Machine, Module};
use crate::trace::{self, Traced};
use crate::{build, dump};

/// Round trips that ping and pong measure.
const ROUNDS: u64 = 20;
/// Messages that they send besides: in front of the measurement and behind it; pong is the one that begins and is not answered.
const MORE_OF_PING: u64 = 3;
const MORE_OF_PONG: u64 = 4;
/// Their numbers, from that of root on.
const PING: u64 = 2;
const PONG: u64 = 3;

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("trace::messages_are_arrows_between_threads", "", |lab| arrows(lab, 1, "inter")),
        Case::new("trace::messages_between_processors_are_arrows", "", |lab| arrows(lab, 2, "xcpu")),
        Case::new("trace::the_same_run_has_the_same_trace", "", same_each_time),
        Case::new("trace::what_is_lost_is_counted", "", losses),
        Case::new("trace::opens_in_the_viewer_s_engine", "", opens),
        Case::new("trace::a_dump_shows_the_last_events", "", from_a_dump),
        Case::new("trace::a_kernel_without_tracepoints_is_refused", "", refused),
    ]
}

/// A machine that boots `program` with a kernel that can be traced, and the file of that kernel with symbols.
fn machine(lab: &Lab, program: &str, args: &str) -> Result<Machine> {
    let dir = build::images(&["kernel"], &Chosen::of(Some(trace::CONFIGURATION))?)?;
    let mut machine = boots::machine(lab, "max", 64);
    machine.modules[0] = Module { file: dir.join("kernel"), args: trace::kernel_args("") };
    machine.modules[2] = Module { file: lab.image(program), args: args.to_owned() };
    Ok(machine)
}

/// Ping and pong on a machine whose runs are all the same.
fn pingpong(lab: &Lab, mode: &str) -> Result<Machine> {
    let machine = machine(lab, "pingpong", &format!("{mode} mrs=0..0 rounds={ROUNDS}"))?;
    Ok(Machine { icount: true, ..machine })
}

/// What a run left.
struct Traces {
    dir: TempDir,
    summary: String,
}

impl Traces {
    /// Boots it, and writes its trace.
    fn of(machine: &Machine) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let kernel = machine.modules[0].file.with_extension("debug");
        let (ended, trace) = Traced::new(machine, &kernel)?.boot(&Console::none(), Some(PATIENCE))?;
        ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, boots::tail(&ended.console));
        let summary = trace.write(&dir.path().join("trace"), "instructions")?;
        Ok(Self { dir, summary })
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("trace")
    }

    fn events(&self) -> Result<Vec<Value>> {
        events(&self.file())
    }

    /// The number in front of an event in the summary.
    fn count(&self, event: &str) -> u64 {
        let line = self.summary.lines().find(|line| line.ends_with(&format!("  {event}")));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

/// The events in a trace file.
fn events(file: &Path) -> Result<Vec<Value>> {
    let mut whole: Value = serde_json::from_slice(&fs::read(file)?)?;
    let events = whole.get_mut("traceEvents").and_then(Value::as_array_mut).map(std::mem::take);
    events.context("the file has no events")
}

/// The row of an event.
type Row = (Option<u64>, Option<u64>);

fn row(event: &Value) -> Row {
    (event["pid"].as_u64(), event["tid"].as_u64())
}

/// What rows are called.
fn names(events: &[Value]) -> BTreeMap<Row, String> {
    let named = events.iter().filter(|event| event["name"] == "thread_name");
    named.filter_map(|event| Some((row(event), event["args"]["name"].as_str()?.to_owned()))).collect()
}

/// The numbers of arrows from row to row, by their names.
fn arrows_in(events: &[Value]) -> Result<BTreeMap<(String, String), u64>> {
    let names = names(events);
    let ends = |phase: &str| -> BTreeMap<Option<u64>, String> {
        let found = events.iter().filter(|event| event["ph"] == phase);
        found.map(|event| (event["id"].as_u64(), names.get(&row(event)).cloned().unwrap_or_default())).collect()
    };
    let (begins, ends) = (ends("s"), ends("f"));
    ensure!(begins.keys().eq(ends.keys()), "arrows without a beginning or an end");
    let mut counts = BTreeMap::new();
    begins.into_values().zip(ends.into_values()).for_each(|pair| *counts.entry(pair).or_default() += 1);
    Ok(counts)
}

/// The names of ping and pong: their numbers follow that of root.
fn players(names: &BTreeMap<Row, String>) -> Result<[String; 2]> {
    let root = names.values().find_map(|name| name.strip_suffix(" (root task)")).context("root has no row")?;
    let (number, _) = root.split_once('.').context("an id has a version")?;
    let root = u64::from_str_radix(number, 16)?;
    let find = |number: u64| {
        let start = format!("{number:x}.");
        names.values().find(|name| name.starts_with(&start)).cloned().context("a player has no row")
    };
    Ok([find(root + PING)?, find(root + PONG)?])
}

/// Ping and pong have sent each other as many messages as the program says, and slices are within each other.
fn arrows(lab: &Lab, cpus: u32, mode: &str) -> Result<()> {
    let traces = Traces::of(&Machine { cpus, ..pingpong(lab, mode)? })?;
    ensure!(traces.summary.contains("none was lost"), "{}", traces.summary);
    let events = traces.events()?;
    check_slices(&events)?;
    let [ping, pong] = players(&names(&events))?;
    let arrows = arrows_in(&events)?;
    let count = |from: &String, to: &String| arrows.get(&(from.clone(), to.clone())).copied().unwrap_or(0);
    let counts = (count(&ping, &pong), count(&pong, &ping));
    ensure!(counts == (ROUNDS + MORE_OF_PING, ROUNDS + MORE_OF_PONG), "{counts:?} messages\n{}", traces.summary);
    ensure!(arrows.values().sum::<u64>() == traces.count("IPC_TRANSFER"), "{arrows:?}\n{}", traces.summary);
    // Both ran, in user mode and in calls, and each on the processor that the mode says.
    let of_processors = names(&events).into_values().filter(|name| name.starts_with("processor ")).count();
    ensure!(of_processors == cpus as usize, "{of_processors} processors have rows");
    let calls = events.iter().filter(|event| event["ph"] == "B" && event["name"] == "Ipc").count() as u64;
    ensure!(calls == traces.count("SYSCALL_IPC"), "{calls} slices of calls\n{}", traces.summary);
    for what in ["page fault", "runs", "waits"] {
        ensure!(events.iter().any(|event| event["name"] == what), "nothing is called {what}");
    }
    Ok(())
}

/// In each row slices are within each other, and all end.
fn check_slices(events: &[Value]) -> Result<()> {
    let mut open = BTreeMap::<Row, Vec<&Value>>::new();
    let mut latest = 0.0;
    for event in events.iter().filter(|event| event["ph"] != "M") {
        let ts = event["ts"].as_f64().context("an event has no time")?;
        ensure!(ts >= latest, "{event} comes late");
        latest = ts;
        let row = open.entry(row(event)).or_default();
        match event["ph"].as_str() {
            Some("B") => row.push(&event["name"]),
            Some("E") => ensure!(row.pop() == Some(&event["name"]), "{event} ends what has not begun"),
            _ => {}
        }
    }
    ensure!(open.values().all(Vec::is_empty), "not all slices end: {open:?}");
    Ok(())
}

/// A run whose time passes with its instructions is not changed by who reads its trace meanwhile.
fn same_each_time(lab: &Lab) -> Result<()> {
    let machine = pingpong(lab, "intra")?;
    let [first, second] = [Traces::of(&machine)?, Traces::of(&machine)?];
    ensure!(first.summary == second.summary, "{}\n{}", first.summary, second.summary);
    ensure!(fs::read(first.file())? == fs::read(second.file())?, "two runs have different traces");
    Ok(())
}

/// With rings of a page, which are full within microseconds, events are lost, more or fewer each time. How many were recorded
/// does not hang on that: those that are there and those that are lost are as many as in large rings.
fn losses(lab: &Lab) -> Result<()> {
    let whole = pingpong(lab, "inter")?;
    let mut part = whole.clone();
    part.modules[0].args = trace::kernel_args("tracepages=1");
    let total = |traces: &Traces| -> Result<(u64, u64)> {
        let number = |start: &str| {
            let line = traces.summary.lines().find_map(|line| line.strip_prefix("trace: ")?.split_once(start));
            line.and_then(|(number, _)| number.parse::<u64>().ok())
        };
        let events = number(" events").context("the summary has no number of events")?;
        Ok((events, number(" were overwritten").unwrap_or(0)))
    };
    let (whole, part) = (Traces::of(&whole)?, Traces::of(&part)?);
    let (all, lost) = (total(&whole)?, total(&part)?);
    ensure!(all.1 == 0 && lost.0 + lost.1 == all.0, "{all:?}, {lost:?}\n{}", part.summary);
    check_slices(&part.events()?)
}

/// What the engine is asked: threads with their groups; arrows with the rows of both ends; slices by name; and what it took
/// amiss.
const QUERIES: [&str; 4] = [
    "select thread.name, process.name from thread join process using (upid) where thread.name is not null",
    "select source.name, target.name, count(1) from flow join slice one on one.id = slice_out \
     join slice two on two.id = slice_in join thread_track a on a.id = one.track_id \
     join thread_track b on b.id = two.track_id join thread source on source.utid = a.utid \
     join thread target on target.utid = b.utid group by 1, 2",
    "select name, count(1), min(dur) from slice group by name",
    "select name, value from stats where value > 0 and severity in ('error', 'data_loss')",
];

fn opens(lab: &Lab) -> Result<()> {
    let Ok(engine) = Engine::ensure() else {
        return Err(Skipped("the trace processor is not here and cannot be fetched").into());
    };
    let traces = Traces::of(&Machine { cpus: 2, ..pingpong(lab, "xcpu")? })?;
    let answers = engine.query(&traces.file(), &QUERIES)?;
    let [threads, arrows, slices, complaints] = &*answers else { unreachable!("an answer for each query") };
    ensure!(complaints.is_empty(), "{complaints:?}");
    // What it says is what the file says.
    let events = traces.events()?;
    let names = names(&events);
    let mut found: Vec<&str> = threads.iter().filter_map(|cells| cells[0].as_str()).collect();
    let mut expected: Vec<&str> = names.values().map(String::as_str).collect();
    found.sort_unstable();
    expected.sort_unstable();
    ensure!(found == expected, "{found:?}, {expected:?}");
    ensure!(threads.iter().any(|cells| cells[1] == "processors"), "{threads:?}");
    let found: BTreeMap<(String, String), u64> = arrows
        .iter()
        .filter_map(|cells| Some(((cells[0].as_str()?.to_owned(), cells[1].as_str()?.to_owned()), cells[2].as_u64()?)))
        .collect();
    ensure!(found == arrows_in(&events)?, "{found:?}");
    let [ping, pong] = players(&names)?;
    ensure!(found.get(&(ping, pong)) == Some(&(ROUNDS + MORE_OF_PING)), "{found:?}");
    let of_name =
        |name: &str| slices.iter().find(|cells| cells[0] == name).map_or(0, |cells| cells[1].as_u64().unwrap_or(0));
    ensure!(of_name("Ipc") == traces.count("SYSCALL_IPC"), "{slices:?}");
    ensure!(slices.iter().all(|cells| cells[2].as_i64() >= Some(0)), "a slice has no end: {slices:?}");
    // It refuses what is no trace.
    let nonsense = traces.dir.path().join("nonsense");
    fs::write(&nonsense, b"{\"traceEvents\":[{]}")?;
    let refused =
        engine.query(&nonsense, &["select value from stats where name = 'json_parser_failure' and value > 0"]);
    ensure!(refused.is_err() || refused.is_ok_and(|answers| !answers[0].is_empty()), "nonsense passes for a trace");
    Ok(())
}

/// The last events of a machine that stands still, and its trace file. What planted the ring has names.
fn from_a_dump(lab: &Lab) -> Result<()> {
    let machine = machine(lab, "deadlock", "wait")?;
    let dir = tempfile::tempdir()?;
    let kernel = machine.modules[0].file.with_extension("debug");
    let file = dir.path().join("trace");
    kdb::dumped_when(&machine, |dump| {
        let report = dump::report(dump, &kernel, &[])?.text;
        let (_, last) = report.split_once("--- trace dump").context("the report has no events")?;
        let count = last.lines().filter(|line| line.contains(" cpu ")).count();
        ensure!((1..=1000).contains(&count) && last.contains("(runaway)"), "{count} events:\n{last}");
        let summary = dump::write_trace(dump, &kernel, &file)?;
        for name in ["(ring.a)", "(server)", "(client)", "(runaway)"] {
            ensure!(summary.contains(name), "no {name} in\n{summary}");
        }
        let events = events(&file)?;
        check_slices(&events)?;
        let arrows = arrows_in(&events)?;
        let has = |from: &str, to: &str| arrows.keys().any(|(a, b)| a.ends_with(from) && b.ends_with(to));
        ensure!(has("(client)", "(server)") && has("(server)", "(client)"), "{arrows:?}");
        // The three in the ring wait in their calls for ever: no message goes between them.
        ensure!(!has("(ring.a)", "(ring.b)") && !has("(ring.b)", "(ring.c)"), "{arrows:?}");
        Ok(())
    })
}

/// A kernel without tracepoints has none of it: neither has it the words, nor is it taken for a trace.
fn refused(lab: &Lab) -> Result<()> {
    let plain = boots::machine(lab, "max", 64);
    let kernel = plain.modules[0].file.with_extension("debug");
    let refused = Traced::new(&plain, &kernel).err().context("a kernel without tracepoints is traced")?;
    ensure!(refused.to_string().contains("--config trace"), "{refused:#}");
    Ok(())
}
