//! `cargo xtask bench scale`: how the kernel scales, by the program of that name, on a machine of many processors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::figures::mitigations;
use super::plot;
use crate::config::Chosen;
use crate::progress::Progress;
use crate::qemu::{Accel, Console, End, Ended, Machine, Module};
use crate::{build, kvm, usage};

/// The program, and its name among what can be measured.
pub const NAME: &str = "scale";

/// The time after which a boot counts as hanging.
const PATIENCE: Duration = Duration::from_secs(1800);

/// MiB of memory: for each processor two spaces, of which a sixteenth is the kernel's.
const MEMORY_MIB: u64 = 1024;

/// By what time is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Clock {
    /// QEMU's translator counts instructions, on one processor after the other.
    Icount,
    /// QEMU's translator on all processors of the host, as fast as it goes.
    Tcg,
    /// The host's processors.
    Kvm,
}

impl Clock {
    /// The word by which the program is told what its ticks are.
    fn tick(self) -> &'static str {
        match self {
            Self::Icount => "instructions",
            Self::Tcg => "meaningless",
            Self::Kvm => "cycles",
        }
    }

    /// What the figures mean.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Icount => {
                "instructions, those of all processors added up: the emulator runs one processor at a time. They show what a \
                 processor does because of others, not what it waits for: no caches, no contention. All distances are equal, \
                 and pairs that do not disturb each other cost as much per message as one pair alone"
            }
            Self::Tcg => {
                "meaningless as times: the emulator shares the host's processors among all, and lets locks and messages \
                 between them take as long as the host's scheduler does. They only show that everything runs in parallel"
            }
            Self::Kvm => {
                "cycles of the host's processors, on which the emulated ones run as threads: they are true as long as the \
                 host has one for each, lies as the emulated sockets do, and is idle"
            }
        }
    }
}

/// A figure as the program prints it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Row {
    /// Which part of the program.
    pub mode: String,
    /// In which way.
    #[serde(default)]
    pub way: String,
    /// From this processor.
    pub from: Option<usize>,
    /// To this one.
    pub to: Option<usize>,
    /// How they lie to each other.
    #[serde(default)]
    pub relation: String,
    /// So many pairs, or processors besides.
    pub count: Option<usize>,
    /// Ticks.
    pub value: f64,
    /// Messages per second of the clock.
    pub per_second: Option<f64>,
}

/// What to measure.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Processors.
    pub cpus: u32,
    /// Sockets over which they are spread.
    pub sockets: u32,
    /// By what time is measured.
    pub clock: Clock,
    /// What the kernel is built with.
    pub config: &'a Chosen,
    /// Where the rows go.
    pub json: Option<&'a Path>,
    /// Where the pictures go.
    pub plot: Option<&'a Path>,
}

impl Plan<'_> {
    /// Measures, and prints a summary.
    pub fn run(&self) -> Result<()> {
        if self.cpus % self.sockets != 0 {
            usage!("--cpus {} cannot be spread over --sockets {}: take a multiple", self.cpus, self.sockets);
        }
        if self.clock == Clock::Kvm && !kvm::works() {
            usage!("KVM does not work on this machine: say --clock icount");
        }
        let json = match self.json {
            Some(file) => match File::create(file) {
                Ok(created) => Some(BufWriter::new(created)),
                Err(error) => usage!("cannot write {}: {error}; name another file", file.display()),
            },
            None => None,
        };
        crate::qemu::ensure()?;
        let dir = build::images(&["kickstart", "kernel", "sigma0", NAME], self.config)?;
        let progress = Progress::start("measuring");
        progress.note(format!("{NAME} on {} processors", self.cpus));
        let ended = self.machine(&dir).boot(&Console::none(), Some(PATIENCE))?;
        drop(progress);
        let (rows, mitigations) = (rows(&ended)?, mitigations(&ended.console)?);
        println!("mitigations={mitigations}");
        print(&mut io::stdout().lock(), self, &rows)?;
        if let Some(mut json) = json {
            let objects = ended.console.lines().filter_map(|line| line.strip_prefix('{'));
            objects.for_each(|rest| drop(writeln!(json, "{{\"mitigations\":\"{mitigations}\",{rest}")));
            json.flush().context("cannot write the JSON file")?;
        }
        if let Some(dir) = self.plot {
            plot::draw_scale(dir, &rows, self)?;
        }
        Ok(())
    }

    fn machine(&self, dir: &Path) -> Machine {
        let args = format!("json tick={}", self.clock.tick());
        let machine = Machine::new(dir, Module { file: dir.join(NAME), args });
        Machine {
            cpus: self.cpus,
            sockets: self.sockets,
            memory_mib: MEMORY_MIB,
            accel: if self.clock == Clock::Kvm { Accel::Kvm } else { Accel::Tcg },
            icount: self.clock == Clock::Icount,
            ..machine
        }
    }
}

/// The rows of a run that succeeded.
pub fn rows(ended: &Ended) -> Result<Vec<Row>> {
    ensure!(ended.end == End::Program(0), "{}; the console ends with:\n{}", ended.end, last_lines(&ended.console));
    let rows: Vec<Row> = ended.console.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    ensure!(!rows.is_empty(), "{NAME} prints no figures; the console ends with:\n{}", last_lines(&ended.console));
    Ok(rows)
}

fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Least, mean and most of some values.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    least: f64,
    sum: f64,
    most: f64,
    count: usize,
}

impl Spread {
    fn with(self, value: f64) -> Self {
        Self { least: self.least.min(value), sum: self.sum + value, most: self.most.max(value), count: self.count + 1 }
    }
}

/// The values of one part and way, by how the processors lie to each other.
fn by_relation<'a>(rows: &'a [Row], mode: &str) -> BTreeMap<(&'a str, &'a str), Spread> {
    let none = Spread { least: f64::INFINITY, sum: 0.0, most: 0.0, count: 0 };
    rows.iter().filter(|row| row.mode == mode && !row.relation.is_empty()).fold(BTreeMap::new(), |mut all, row| {
        let spread = all.entry((row.way.as_str(), row.relation.as_str())).or_insert(none);
        *spread = spread.with(row.value);
        all
    })
}

/// Prints the figures, those between processors summed up.
fn print(out: &mut impl Write, plan: &Plan<'_>, rows: &[Row]) -> io::Result<()> {
    writeln!(out, "{} processors in {} sockets. The figures are {}.", plan.cpus, plan.sockets, plan.clock.meaning())?;
    writeln!(out, "\n{:10} {:8} {:15} {:>7} {:>11} {:>11} {:>11}", "", "", "", "number", "least", "mean", "most")?;
    for mode in ["latency", "migrate", "fault"] {
        for ((way, relation), spread) in by_relation(rows, mode) {
            let Spread { least, sum, most, count } = spread;
            let mean = sum / count as f64;
            writeln!(out, "{mode:10} {way:8} {relation:15} {count:>7} {least:>11.1} {mean:>11.1} {most:>11.1}")?;
        }
    }
    for (mode, title) in [("pairs", "pairs at a time, per message"), ("unmap", "other processors that use the page")] {
        writeln!(out, "\n{mode}: {title}")?;
        for row in rows.iter().filter(|row| row.mode == mode) {
            // One processor at a time: a second of the clock is none of the host's.
            let rate = row.per_second.filter(|_| plan.clock != Clock::Icount);
            let rate = rate.map(|rate| format!("{rate:>14.0} per second")).unwrap_or_default();
            writeln!(out, "{:>10} {:>11.1}{rate}", row.count.unwrap_or_default(), row.value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Clock, Plan, Row, by_relation, print, rows};
    use crate::config::Chosen;
    use crate::qemu::{End, Ended, Times};

    const CONSOLE: &str = r#"marcona: 2 processors
{"bench":"scale","arch":"x86_64","cpus":2,"mode":"latency","unit":"instructions","value":65.00,"from":0,"to":0,"relation":"same processor"}
{"bench":"scale","arch":"x86_64","cpus":2,"mode":"latency","unit":"instructions","value":3000.00,"from":0,"to":1,"relation":"same socket"}
{"bench":"scale","arch":"x86_64","cpus":2,"mode":"latency","unit":"instructions","value":3200.00,"from":1,"to":0,"relation":"same socket"}
{"bench":"scale","arch":"x86_64","cpus":2,"mode":"pairs","unit":"instructions","value":66.00,"count":2,"per_second":1500}
"#;

    fn sample() -> Vec<Row> {
        rows(&Ended { end: End::Program(0), console: CONSOLE.to_owned(), times: Times::default() })
            .expect("a sound run")
    }

    #[test]
    fn rows_are_read_from_runs_that_succeeded() {
        let rows_of = |end, console: &str| rows(&Ended { end, console: console.to_owned(), times: Times::default() });
        assert_eq!(sample().len(), 4);
        assert_eq!((sample()[1].from, sample()[1].to, sample()[3].count), (Some(0), Some(1), Some(2)));
        assert!(rows_of(End::Program(1), CONSOLE).is_err());
        assert!(rows_of(End::Program(0), "nothing\n").is_err());
    }

    #[test]
    fn values_are_summed_up_by_distance() {
        let rows = sample();
        let spread = by_relation(&rows, "latency")[&("", "same socket")];
        assert_eq!((spread.least, spread.sum, spread.most, spread.count), (3000.0, 6200.0, 3200.0, 2));
    }

    #[test]
    fn the_summary_says_what_the_figures_mean() {
        for (clock, word) in [(Clock::Icount, "added up"), (Clock::Tcg, "meaningless"), (Clock::Kvm, "cycles")] {
            let config = Chosen::by_default().expect("the options are sound");
            let plan = Plan { cpus: 2, sockets: 1, clock, config: &config, json: None, plot: None };
            let mut text = Vec::new();
            print(&mut text, &plan, &sample()).expect("memory takes all");
            let text = String::from_utf8(text).expect("it prints UTF-8");
            assert!(text.lines().next().is_some_and(|line| line.contains(word)), "{text}");
            assert!(
                text.contains("latency             same socket           2      3000.0      3100.0      3200.0"),
                "{text}"
            );
            let has_rate = text.contains("         2        66.0          1500 per second");
            assert!(has_rate != (clock == Clock::Icount) && text.contains("         2        66.0"), "{text}");
        }
    }
}
