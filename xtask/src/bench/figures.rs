//! Measuring: boots of the two programs, their rows joined with what the plugin saw.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::region::{self, Counts};
use super::symbols::Symbols;
use crate::config::Chosen;
use crate::progress::Progress;
use crate::qemu::{Accel, Console, End, Ended, Machine, Module};
use crate::toolchain::Toolchain;
use crate::{build, cargo, project};

/// What pingpong measures.
const IPC: &str = "ipc";
/// The figure that only the plugin has.
const IDLE: &str = "idle";
/// The crate of the plugin.
const PLUGIN: &str = "plugin";

/// The source with the names of what the program bench measures.
const OPTIONS: &str = "apps/bench/src/options.rs";

/// The time after which a boot counts as hanging.
const PATIENCE: Duration = Duration::from_secs(300);

/// A row that a program prints.
#[derive(Deserialize)]
struct Row {
    bench: String,
    arch: String,
    cpus: u32,
    mode: String,
    mrs: Option<u32>,
    unit: String,
    value: Option<f64>,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub bench: String,
    /// In which way.
    pub mode: String,
    /// Words of the message.
    pub mrs: Option<u32>,
    /// Instructions: per message one way, per page, per KiB or per operation.
    pub value: f64,
    /// What the plugin saw, per operation.
    pub counts: Option<Seen>,
    /// Name of the architecture.
    pub arch: String,
    /// Number of processors.
    pub cpus: u32,
    /// What the value is counted in.
    pub unit: String,
    /// What the kernel was told to do about weaknesses of processors, as it said itself.
    pub mitigations: String,
}

/// What the plugin saw in an operation.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The numbers.
    pub counts: Counts,
    /// Instructions of each function of the kernel.
    pub functions: BTreeMap<String, f64>,
    /// The names of the places where the ways through the kernel begin.
    pub ways: Vec<String>,
    /// The lines of data, by name, with the part of the operations that touch them.
    pub data: Vec<(String, f64)>,
    /// The lines of code.
    pub code: Vec<(String, f64)>,
}

/// The JSON object of a figure.
#[derive(Serialize)]
struct Json<'a> {
    bench: &'a str,
    arch: &'a str,
    cpus: u32,
    accel: &'a str,
    mode: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mrs: Option<u32>,
    unit: &'a str,
    value: f64,
    config: &'a str,
    mitigations: &'a str,
    commit: &'a str,
    #[serde(flatten)]
    operation: Option<Operation<'a>>,
}

/// What an operation takes.
#[derive(Serialize)]
struct Operation<'a> {
    entries: f64,
    kernel_instructions: f64,
    user_instructions: f64,
    loads: f64,
    stores: f64,
    data_lines: f64,
    code_lines: f64,
    locked: f64,
    privileged: &'a BTreeMap<String, f64>,
}

impl Figure {
    /// What it is called in tables and messages.
    pub fn name(&self) -> String {
        let mrs = self.mrs.map(|mrs| format!("{mrs} words")).unwrap_or_default();
        [self.bench.as_str(), &self.mode, &mrs]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The object for scripts.
    pub fn json(&self, config: &str, commit: &str) -> Result<String> {
        let operation = self.counts.as_ref().map(|Seen { counts, .. }| Operation {
            entries: counts.entries,
            kernel_instructions: counts.kernel,
            user_instructions: counts.user,
            loads: counts.loads,
            stores: counts.stores,
            data_lines: counts.data.mean,
            code_lines: counts.code.mean,
            locked: counts.locked,
            privileged: &counts.privileged,
        });
        let Self { bench, mode, mrs, value, arch, cpus, unit, mitigations, .. } = self;
        let (mrs, value, cpus, accel) = (*mrs, *value, *cpus, Accel::Tcg.name());
        let json = Json { bench, arch, cpus, accel, mode, mrs, unit, value, config, mitigations, commit, operation };
        Ok(serde_json::to_string(&json)?)
    }
}

/// The names of all that can be measured: pingpong's, and those that the program bench knows.
pub fn names() -> Result<Vec<String>> {
    let file = project::root().join(OPTIONS);
    let source = fs::read_to_string(&file).with_context(|| format!("cannot read {OPTIONS}"))?;
    let table = source.split_once("pub const BENCHES").and_then(|(_, rest)| rest.split_once("];"));
    let (table, _) = table.with_context(|| format!("{OPTIONS} has no table BENCHES"))?;
    let rows = table.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split_once('"'));
    Ok([IPC].into_iter().chain(rows.map(|(name, _)| name)).map(str::to_owned).collect())
}

/// What it takes to measure: images, the plugin, the names of addresses.
pub struct Rig {
    images: PathBuf,
    plugin: PathBuf,
    symbols: Symbols,
    compiler: String,
    /// Processors of the machine.
    cpus: u32,
    /// Known after the first boot.
    has_plugin: OnceLock<bool>,
}

impl Rig {
    /// Builds all parts, the kernel with this configuration.
    pub fn build(config: &Chosen) -> Result<Self> {
        let images = build::images(&["kickstart", "kernel", "sigma0", "pingpong", "bench"], config)?;
        Self::of_images(images)
    }

    /// Builds what is not an image of the kernel or for it.
    pub fn of_images(images: PathBuf) -> Result<Self> {
        let symbols = Symbols::read(&images.join("kernel.debug"))?;
        let compiler = Toolchain::find()?.version()?;
        Ok(Self { images, plugin: build_plugin()?, symbols, compiler, cpus: 1, has_plugin: OnceLock::new() })
    }

    /// Takes a machine with so many processors.
    #[must_use]
    pub fn with_cpus(self, cpus: u32) -> Self {
        Self { cpus, ..self }
    }

    /// The compiler of the images.
    pub fn compiler(&self) -> &str {
        &self.compiler
    }

    /// The address of a function or label of the kernel.
    pub fn code(&self, name: &str) -> Option<u64> {
        self.symbols.code(name)
    }

    /// Whether the emulator takes the plugin.
    ///
    /// # Panics
    /// Before something was measured.
    pub fn has_plugin(&self) -> bool {
        *self.has_plugin.get().expect("something was measured")
    }

    /// Takes another file for the plugin.
    #[must_use]
    pub fn with_plugin(self, plugin: PathBuf) -> Self {
        Self { plugin, has_plugin: OnceLock::new(), ..self }
    }

    /// Measures what is called `name`, or all.
    pub fn measure(&self, name: Option<&str>) -> Result<Vec<Figure>> {
        let progress = Progress::start("measuring");
        let mut figures = Vec::new();
        if name.is_none_or(|name| name == IPC) {
            progress.note("pingpong");
            let modes = if self.cpus > 1 { "inter intra xcpu json" } else { "json" };
            figures.extend(self.boot("pingpong", modes)?.0);
        }
        if name != Some(IPC) {
            progress.note("bench");
            figures.extend(self.boot("bench", &format!("{} json", name.unwrap_or_default()))?.0);
        }
        Ok(figures)
    }

    /// Boots a program; the figures, and the bytes that the plugin wrote.
    pub fn boot(&self, program: &str, args: &str) -> Result<(Vec<Figure>, String)> {
        let dir = TempDir::new()?;
        let file = dir.path().join("regions");
        let mut machine = self.machine(program, args);
        if self.has_plugin.get() != Some(&false) {
            machine.plugin = Some(self.plugin_option(&file));
        }
        let mut ended = machine.boot(&Console::none(), Some(PATIENCE))?;
        if matches!(&ended.end, End::Emulator(reason) if reason.contains("plugin")) {
            machine.plugin = None;
            ended = machine.boot(&Console::none(), Some(PATIENCE))?;
        }
        let has_plugin = *self.has_plugin.get_or_init(|| machine.plugin.is_some());
        let regions =
            if has_plugin { fs::read_to_string(&file).context("the plugin wrote nothing")? } else { String::new() };
        Ok((self.join(&ended, &regions, has_plugin).with_context(|| format!("measuring by {program}"))?, regions))
    }

    fn machine(&self, program: &str, args: &str) -> Machine {
        let args = format!("{args} tick=instructions").trim_start().to_owned();
        let machine = Machine::new(&self.images, Module { file: self.images.join(program), args });
        Machine { cpus: self.cpus, icount: true, ..machine }
    }

    /// The plugin as QEMU's option has it: commas in paths are doubled.
    fn plugin_option(&self, out: &Path) -> String {
        let path = |path: &Path| path.display().to_string().replace(',', ",,");
        let stubs = self.symbols.table("stubs").map(|page| format!(",stubs={page:#x}")).unwrap_or_default();
        format!("{},out={}{stubs}", path(&self.plugin), path(out))
    }

    fn join(&self, ended: &Ended, regions: &str, has_plugin: bool) -> Result<Vec<Figure>> {
        let last: Vec<&str> = ended.console.lines().rev().take(5).collect();
        ensure!(ended.end == End::Program(0), "{}; the console ends with: {last:?}", ended.end);
        let rows: Vec<Row> = ended.console.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut counts =
            region::parse(regions)?.into_iter().map(|counts| self.seen(counts)).map(Some).collect::<Vec<_>>();
        if !has_plugin {
            counts.resize(rows.len(), None);
        }
        ensure!(rows.len() == counts.len() && !rows.is_empty(), "{} rows, {} regions", rows.len(), counts.len());
        let mitigations = mitigations(&ended.console)?;
        let figures = rows.into_iter().zip(counts).filter_map(|(row, counts)| {
            let kernel = counts.as_ref().map(|seen| seen.counts.kernel);
            let value = if row.bench == IDLE { kernel } else { row.value };
            let Row { bench, mode, mrs, arch, cpus, unit, .. } = row;
            let mitigations = mitigations.to_owned();
            Some(Figure { bench, mode, mrs, value: value?, counts, arch, cpus, unit, mitigations })
        });
        Ok(figures.collect())
    }

    fn seen(&self, counts: Counts) -> Seen {
        let mut functions = BTreeMap::new();
        for (address, count) in &counts.executed {
            *functions.entry(self.symbols.function(*address).to_owned()).or_default() += count;
        }
        let data = counts.data.lines.iter().map(|(line, part)| (self.symbols.data(*line), *part)).collect();
        let code = counts.code.lines.iter().map(|(line, part)| {
            let first = counts.executed.iter().find(|(at, _)| at + 15 >= *line).map_or(*line, |(at, _)| *at);
            (format!("{line:#x} {}", self.symbols.function(first.max(*line))), *part)
        });
        let ways = counts.ways.iter().map(|way| self.symbols.entry(way.at)).collect();
        Seen { functions, ways, data, code: code.collect(), counts }
    }
}

/// Under which setting of mitigations the kernel ran, by what it said at boot.
pub fn mitigations(console: &str) -> Result<&str> {
    let setting = console.lines().find_map(|line| line.strip_prefix("marcona: mitigations="));
    setting.context("the kernel does not say what it does about weaknesses of processors")
}

/// Builds the plugin, optimised: it is called for each instruction.
fn build_plugin() -> Result<PathBuf> {
    let mut command = project::cargo("build");
    let report = cargo::build(command.args(["--release", "--package", PLUGIN]), "building the plugin")?;
    if !report.ok {
        bail!("the build of the plugin failed:\n{}", report.text());
    }
    let found = report.dynamic_libraries.into_iter().find(|(name, _)| name == PLUGIN);
    Ok(found.context("the crate of the plugin is no dynamic library")?.1)
}

#[cfg(test)]
pub mod tests {
    use super::{Counts, Figure, Seen, names};

    /// A figure of ipc with one word, and instructions of functions in an operation.
    pub fn figure(value: f64, functions: &[(&str, f64)]) -> Figure {
        let functions = functions.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let counts = Seen { counts: Counts::default(), functions, ways: vec![], data: vec![], code: vec![] };
        Figure {
            bench: "ipc".to_owned(),
            mode: "inter".to_owned(),
            mrs: Some(1),
            value,
            counts: Some(counts),
            arch: "x86_64".to_owned(),
            cpus: 1,
            unit: "instructions".to_owned(),
            mitigations: "auto".to_owned(),
        }
    }

    #[test]
    fn the_names_are_those_of_the_programs() {
        let names = names().expect("the source is there");
        assert_eq!(names[..2], ["ipc", "null_call"]);
        assert!(names.len() > 10 && names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    }

    #[test]
    fn figures_are_objects_with_the_keys_of_all_benches() {
        let figure = Figure { mrs: Some(0), counts: None, ..figure(61.0, &[]) };
        let expected = r#"{"bench":"ipc","arch":"x86_64","cpus":1,"accel":"tcg","mode":"inter","mrs":0,"unit":"instructions","value":61.0,"config":"default","mitigations":"auto","commit":"abc"}"#;
        assert_eq!(figure.json("default", "abc").expect("plain data"), expected);
        assert_eq!(figure.name(), "ipc inter 0 words");
        assert_eq!(Figure { mrs: None, mode: String::new(), ..figure }.name(), "ipc");
    }
}
