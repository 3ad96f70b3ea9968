//! `cargo xtask coverage`: which lines and branches of the core its tests execute.
//!
//! The compiler counts, LLVM's own programs read what it counted. Code of tests does not count, neither in files of their
//! own nor at the end of a file. A branch is each of the two ways of a condition; where the core is compiled for several
//! machines a way is taken if it is for one of them. What the debugger's tests execute of the core counts, too, and what
//! the explorations of interleavings do, which are another build of the core's tests ([`RUNS`]).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::progress::Progress;
use crate::{cargo, packages, project};

/// Of a hundred lines and branches so many must be executed.
const LINES_PERCENT: f64 = 95.0;
const BRANCHES_PERCENT: f64 = 85.0;
/// The sources that count, and parts of paths that do not.
const SOURCES: &str = "kernel/core/src";
const NOT_COUNTED: [&str; 4] = ["/tests/", "/explore/", "/tests.rs", "/sight.rs"];
/// Has the compiler count lines and both ways of conditions, which its stable versions can, too, but do not promise.
const WRAPPER: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec \"$@\" -Cinstrument-coverage -Zcoverage-options=branch\n";
/// What is run: all tests of the core but those that need the kernel's image, which compare, and execute nothing that others do
/// not; those of the debugger, which alone uses the views of the core's tables; and the explorations, in which alone
/// processors shoot translations down.
const RUNS: [Run; 3] = [
    Run { name: "debugger", package: "kdb", dir: "kernel/kdb", features: &[], tests: &[] },
    Run { name: "interleavings", package: "kcore", dir: "kernel/core", features: &["explore"], tests: &["explore::"] },
    Run { name: "core", package: "kcore", dir: "kernel/core", features: &[], tests: &["--skip", "equivalence"] },
];

/// Tests that count.
struct Run {
    name: &'static str,
    package: &'static str,
    /// Where they run.
    dir: &'static str,
    features: &'static [&'static str],
    /// Which of them.
    tests: &'static [&'static str],
}

/// Options of `coverage`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name the lines that no test executes, and the conditions of which one way is never taken
    #[arg(long)]
    missing: bool,
}

/// Counts of one file.
#[derive(Default)]
struct Counts {
    lines: BTreeMap<u64, u64>,
    /// By place, for either way.
    branches: BTreeMap<(u64, u64, u64, u64), [u64; 2]>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let dir = project::root().join("target/coverage");
    fs::create_dir_all(&dir)?;
    let version = llvm_version()?;
    let package = format!("llvm-{version}");
    let [merger, reader] =
        ["llvm-profdata", "llvm-cov"].map(|name| packages::program(&format!("{name}-{version}"), &[&package]));
    let (merger, reader) = (merger?, reader?);
    let mut counts = BTreeMap::new();
    for run in &RUNS {
        let program = run.build(&dir)?;
        let profile = run.execute(&dir, &program, &merger)?;
        read(&reader, &program, &profile, &mut counts)?;
    }
    leave_out_tests(&mut counts)?;
    Ok(tell(&counts, args.missing))
}

/// The version of LLVM that the compiler was built with: only programs of the same one read what it writes.
fn llvm_version() -> Result<String> {
    let output =
        Command::new("rustc").arg("-vV").current_dir(project::root()).output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version =
        text.lines().find_map(|line| line.strip_prefix("LLVM version: ")).and_then(|all| all.split('.').next());
    Ok(version.context("rustc does not say which LLVM it has")?.to_owned())
}

impl Run {
    /// Builds the tests so that they count.
    fn build(&self, dir: &Path) -> Result<PathBuf> {
        let wrapper = dir.join("wrapper");
        fs::write(&wrapper, WRAPPER)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        let mut command = project::cargo("test");
        command.args(["--no-run", "--package", self.package, "--lib", "--features", &self.features.join(",")]);
        // Cargo keeps what was compiled by a wrapper apart, and takes all crates of others as they are.
        command.env("RUSTC_WORKSPACE_WRAPPER", &wrapper);
        let report = cargo::build(&mut command, "building tests that count")?;
        ensure!(report.ok, "cannot build tests that count:\n{}", report.text());
        let program = report.executables.into_iter().find(|(name, _)| name == self.package);
        Ok(program.with_context(|| format!("cargo built no tests of {}", self.package))?.1)
    }

    /// Runs the tests; what they counted.
    fn execute(&self, dir: &Path, program: &Path, merger: &Path) -> Result<PathBuf> {
        let progress = Progress::start(format!("running tests that count, {}", self.name));
        let [raw, profile] = ["profraw", "profdata"].map(|kind| dir.join(format!("{}.{kind}", self.name)));
        let mut command = Command::new(program);
        command.args(self.tests).env("LLVM_PROFILE_FILE", &raw).env("RUST_BACKTRACE", "0");
        command.current_dir(project::root().join(self.dir));
        let (ok, log) = cargo::follow(&mut command, &progress, |line| progress.note(line))?;
        ensure!(ok, "tests fail: mend that first\n{}", log.join("\n"));
        let mut merge = Command::new(merger);
        let status = merge.args(["merge", "-sparse", "-o"]).args([&profile, &raw]).status()?;
        ensure!(status.success(), "{} cannot read what was counted", merger.display());
        Ok(profile)
    }
}

/// Adds the counts of a run to those of all files that count.
fn read(reader: &Path, program: &Path, profile: &Path, counts: &mut BTreeMap<String, Counts>) -> Result<()> {
    let export = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(reader);
        command.arg("export").args(arguments).arg("-instr-profile").arg(profile).arg(program).stderr(Stdio::inherit());
        let output = command.output()?;
        ensure!(output.status.success(), "{} cannot read what was counted", reader.display());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    enter_lines(&export(&["-format=lcov"])?, counts);
    enter_branches(&export(&["-skip-functions"])?, counts)
}

/// Takes out what is counted of tests at the ends of files.
fn leave_out_tests(counts: &mut BTreeMap<String, Counts>) -> Result<()> {
    for (file, counts) in counts {
        let text = fs::read_to_string(project::root().join(file)).with_context(|| format!("cannot read {file}"))?;
        let end = end_of_code(&text);
        counts.lines.retain(|line, _| *line < end);
        counts.branches.retain(|place, _| place.0 < end);
    }
    Ok(())
}

/// The path of a file that counts, from the root.
fn counted(path: &str) -> Option<String> {
    let path = project::relative(Path::new(path)).to_str()?;
    let is_counted = path.starts_with(SOURCES) && NOT_COUNTED.iter().all(|part| !path.contains(part));
    is_counted.then(|| path.to_owned())
}

/// The first line of the tests at the end of a file.
fn end_of_code(text: &str) -> u64 {
    let mut lines = (1..).zip(text.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        let next = lines.peek().map_or("", |(_, next)| next);
        let begins = line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
        if begins && !next.ends_with(';') {
            return number;
        }
    }
    u64::MAX
}

/// Enters lines in LCOV's format.
fn enter_lines(text: &str, counts: &mut BTreeMap<String, Counts>) {
    let mut file = None;
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = counted(path);
        }
        let (Some(file), Some((number, count))) = (&file, line.strip_prefix("DA:").and_then(|da| da.split_once(',')))
        else {
            continue;
        };
        if let (Ok(number), Ok(count)) = (number.parse(), count.parse::<u64>()) {
            *counts.entry(file.clone()).or_default().lines.entry(number).or_default() += count;
        }
    }
}

#[derive(Deserialize)]
struct Export {
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    #[serde(default)]
    branches: Vec<Vec<u64>>,
}

/// Enters the ways of conditions, in LLVM's own format: a place, then how often each way was taken.
fn enter_branches(text: &str, counts: &mut BTreeMap<String, Counts>) -> Result<()> {
    let export: Export = serde_json::from_str(text).context("LLVM writes another format than it did")?;
    for file in export.data.into_iter().flat_map(|data| data.files) {
        let Some(path) = counted(&file.filename) else { continue };
        let counts = counts.entry(path).or_default();
        for branch in file.branches {
            let [line, column, end_line, end_column, taken, not_taken, ..] = branch[..] else { continue };
            let ways = counts.branches.entry((line, column, end_line, end_column)).or_default();
            ways[0] += taken;
            ways[1] += not_taken;
        }
    }
    Ok(())
}

/// How many of how many.
#[derive(Clone, Copy, Default)]
struct Share {
    executed: usize,
    all: usize,
}

impl Share {
    fn of(counts: impl Iterator<Item = u64>) -> Self {
        counts.fold(Self::default(), |share, count| Self {
            executed: share.executed + usize::from(count > 0),
            all: share.all + 1,
        })
    }

    fn and(self, other: Self) -> Self {
        Self { executed: self.executed + other.executed, all: self.all + other.all }
    }

    fn percent(self) -> f64 {
        if self.all == 0 { 100.0 } else { self.executed as f64 * 100.0 / self.all as f64 }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:6.2} % {:>5} of {:<5}", self.percent(), self.executed, self.all)
    }
}

/// Prints a table; whether that is enough.
fn tell(counts: &BTreeMap<String, Counts>, is_missing_told: bool) -> ExitCode {
    let (mut lines, mut branches) = (Share::default(), Share::default());
    println!("{:44} {:24} {:24}", "", "lines", "branches");
    for (file, counts) in counts {
        let own_lines = Share::of(counts.lines.values().copied());
        let own_branches = Share::of(counts.branches.values().flatten().copied());
        println!("{file:44} {own_lines} {own_branches}");
        if is_missing_told {
            let missed = counts.lines.iter().filter(|(_, count)| **count == 0).map(|(line, _)| line.to_string());
            println!("    lines {}", missed.collect::<Vec<_>>().join(" "));
            let one_way = counts.branches.iter().filter(|(_, ways)| ways.contains(&0));
            let places =
                one_way.map(|(place, ways)| format!("{}:{}{}", place.0, place.1, if ways[0] == 0 { "+" } else { "-" }));
            println!("    conditions never true (+) or never false (-) {}", places.collect::<Vec<_>>().join(" "));
        }
        (lines, branches) = (lines.and(own_lines), branches.and(own_branches));
    }
    println!("{:44} {lines} {branches}", "all");
    let is_enough = lines.percent() >= LINES_PERCENT && branches.percent() >= BRANCHES_PERCENT;
    if is_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> String {
        project::root().join(SOURCES).join(name).display().to_string()
    }

    #[test]
    fn code_of_tests_does_not_count() {
        assert_eq!(counted(&path("ipc/mod.rs")).as_deref(), Some("kernel/core/src/ipc/mod.rs"));
        for name in ["tests/world.rs", "space/tests/rules.rs", "explore/mod.rs", "options/tests.rs", "space/sight.rs"] {
            assert_eq!(counted(&path(name)), None, "{name}");
        }
        assert_eq!(counted("/rustc/library/core/src/option.rs"), None);
        assert_eq!(end_of_code("a\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(end_of_code("#[cfg(test)]\nmod tests;\nb\n    #[cfg(test)]\n    fn c() {}\n"), u64::MAX);
    }

    #[test]
    fn counts_of_all_compilations_add_up() {
        let mut counts = BTreeMap::new();
        let file = path("list.rs");
        enter_lines(&format!("SF:{file}\nDA:1,0\nDA:2,5\nDA:1,3\nend_of_record\nSF:/other.rs\nDA:9,9\n"), &mut counts);
        let json = format!(
            r#"{{"data":[{{"files":[{{"filename":"{file}","branches":[[1,2,1,9,0,4,0,0,4],[1,2,1,9,3,0,0,0,4]]}},
                {{"filename":"/other.rs"}}]}}],"type":"llvm.coverage.json.export","version":"3.0.1"}}"#
        );
        enter_branches(&json, &mut counts).expect("LLVM's format");
        assert_eq!(counts.len(), 1);
        let own = &counts["kernel/core/src/list.rs"];
        assert_eq!(own.lines, BTreeMap::from([(1, 3), (2, 5)]));
        assert_eq!(own.branches.values().collect::<Vec<_>>(), [&[3, 4]]);
        assert!((Share::of([0, 1, 2].into_iter()).percent() - 66.67).abs() < 0.01);
    }
}
