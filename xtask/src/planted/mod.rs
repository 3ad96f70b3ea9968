//! `cargo xtask planted`: bugs that are put into the kernel on purpose, to see which test catches each.
//!
//! The sources stay as they are. A copy of them gets all bugs of the core at once, each behind a number ([`weave`]), and is
//! built once with its tests; then these run once for each bug, up to the first that fails. So what is shipped has nothing of
//! it, and a bug costs seconds. For a bug of the kernel's machine side a kernel is built and booted ([`machine`]).

pub mod bugs;
mod machine;
pub mod machine_bugs;
mod suite;
mod weave;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::progress::Progress;
use crate::{cargo, project, usage};
use bugs::BUGS;
use suite::{Effort, End, Suite};

/// Of a hundred bugs so many must be caught.
const ENOUGH_PERCENT: usize = 95;

/// What a bug is an example of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A bound is one too far or too near.
    OffByOne,
    /// An id of the past is taken for one of now.
    StaleId,
    /// A translation is not forgotten.
    ShootDown,
    /// Something is not given back.
    Leak,
    /// Somebody who should go on does not.
    LostWakeUp,
    /// Somebody may do what he must not.
    Rights,
    /// Somebody sees what is another's.
    Registers,
    /// The wrong thread runs.
    Priority,
    /// There is more than there is room for.
    Overflow,
    /// Any other.
    Mutation,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OffByOne => "off by one",
            Self::StaleId => "stale id",
            Self::ShootDown => "missing shoot-down",
            Self::Leak => "leak",
            Self::LostWakeUp => "lost wake-up",
            Self::Rights => "wrong rights",
            Self::Registers => "what is another's",
            Self::Priority => "wrong thread runs",
            Self::Overflow => "overflow",
            Self::Mutation => "mutation",
        })
    }
}

/// A bug.
#[derive(Debug)]
pub struct Bug {
    /// What it is called.
    pub name: &'static str,
    /// What it is an example of.
    pub kind: Kind,
    /// The file, from the root of the workspace.
    pub file: &'static str,
    /// A text of the file behind which it stands.
    pub after: &'static str,
    /// What is right: an expression or statements.
    pub old: &'static str,
    /// What stands there instead.
    pub new: &'static str,
    /// What goes wrong.
    pub story: &'static str,
}

/// Options of `planted`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Plant these bugs alone [default: all]
    names: Vec<String>,
    /// Plant one bug of the core of each kind, and run tests that are soon over alone
    #[arg(long, conflicts_with = "names")]
    sample: bool,
    /// Bugs at a time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,
    /// Before bugs of the machine side, have the kernel without bugs tried
    #[arg(long)]
    sound: bool,
    /// Say what bugs there are, and stop
    #[arg(long)]
    list: bool,
}

/// All bugs: of the core, and of the kernel's machine side.
fn all() -> impl Iterator<Item = &'static Bug> {
    BUGS.iter().chain(machine_bugs::BUGS)
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(name) = args.names.iter().find(|name| all().all(|bug| bug.name != **name)) {
        usage!("there is no bug `{name}`: `cargo xtask planted --list` names all");
    }
    if args.list {
        all().for_each(|bug| println!("{:32} {:20} {}", bug.name, bug.kind, bug.story));
        return Ok(ExitCode::SUCCESS);
    }
    let names = if args.sample { sample() } else { args.names.iter().map(String::as_str).collect() };
    let is_wanted = |bug: &Bug| names.is_empty() || names.contains(&bug.name);
    let effort = if args.sample { Effort::Short } else { Effort::All };
    let wanted: Vec<usize> = (0..BUGS.len()).filter(|&index| is_wanted(&BUGS[index])).collect();
    let of_machine: Vec<&Bug> = machine_bugs::BUGS.iter().filter(|bug| is_wanted(bug)).collect();
    let mut ends: Vec<(&Bug, End)> = Vec::new();
    if !wanted.is_empty() {
        let suite = build()?;
        let progress = Progress::start("looking for bugs");
        let found = look_for_all(&suite, &wanted, effort, args.jobs as usize, |bug, end| tell(&progress, bug, end))?;
        ends.extend(found.into_iter().map(|(index, end)| (&BUGS[index], end)));
    }
    if !of_machine.is_empty() {
        let laboratory = machine::Laboratory::new()?;
        if args.sound {
            laboratory.check_sound()?;
        }
        let progress = Progress::start("looking for bugs of the machine side");
        for bug in of_machine {
            progress.note(bug.name);
            let end = laboratory.look_for(bug)?;
            tell(&progress, bug, &end);
            ends.push((bug, end));
        }
    }
    Ok(sum_up(&ends))
}

fn tell(progress: &Progress, bug: &Bug, end: &End) {
    let word = if *end == End::Missed { "MISSED" } else { "caught" };
    progress.println(&format!("{word} {:32} {:20} {end}", bug.name, bug.kind));
}

/// Prints how many of each kind were caught, and those that were not; whether that is enough.
fn sum_up(ends: &[(&Bug, End)]) -> ExitCode {
    let mut kinds: BTreeMap<Kind, [usize; 2]> = BTreeMap::new();
    for (bug, end) in ends {
        let [caught, planted] = kinds.entry(bug.kind).or_default();
        *caught += usize::from(*end != End::Missed);
        *planted += 1;
    }
    kinds.iter().for_each(|(kind, [caught, planted])| println!("{kind:20} {caught:>3} of {planted}"));
    let missed = || ends.iter().filter(|(_, end)| *end == End::Missed);
    missed().for_each(|(bug, _)| println!("missed: {}, {}: {}", bug.name, bug.file, bug.story));
    let caught = ends.len() - missed().count();
    println!("{caught} of {} caught", ends.len());
    let is_enough = caught * 100 >= ends.len() * ENOUGH_PERCENT;
    if is_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first bug of the core of each kind.
fn sample() -> Vec<&'static str> {
    let mut chosen = BTreeMap::new();
    BUGS.iter().for_each(|bug| _ = chosen.entry(bug.kind).or_insert(bug.name));
    chosen.into_values().collect()
}

/// Looks for some bugs, a few at a time; what came of each.
fn look_for_all(
    suite: &Suite,
    wanted: &[usize],
    effort: Effort,
    jobs: usize,
    tell: impl Fn(&Bug, &End) + Sync,
) -> Result<BTreeMap<usize, End>> {
    let without = suite.look_for(0, Effort::Short)?;
    ensure!(without == End::Missed, "without any bug something is found {without}: mend that first");
    let (next, ends) = (AtomicUsize::new(0), Mutex::new(Ok(BTreeMap::new())));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A bug has the number of its row, from 1 on.
                    let end = suite.look_for(index + 1, effort);
                    if let Ok(end) = &end {
                        tell(&BUGS[index], end);
                    }
                    let mut ends = ends.lock().expect("nobody panics with the list");
                    match (&mut *ends, end) {
                        (Ok(all), Ok(end)) => _ = all.insert(index, end),
                        (Ok(_), Err(error)) => *ends = Err(error),
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    ends.into_inner().expect("nobody panics with the list")
}

/// The folder of everything that is made here.
fn dir() -> PathBuf {
    project::root().join("target/planted")
}

/// Copies the sources, plants all bugs, and builds the tests.
fn build() -> Result<Suite> {
    let tree = dir().join("tree");
    copy(&tree)?;
    let mut command = project::cargo("test");
    command.args(["--no-run", "--package", "kcore", "--lib"]).current_dir(&tree);
    // Cargo takes crates of a copy for those of the original, and would compile each anew after the other.
    command.env("CARGO_TARGET_DIR", dir().join("target"));
    let report = cargo::build(&mut command, "planting bugs")?;
    if !report.ok {
        bail!("cannot build the core with its bugs:\n{}", report.text());
    }
    let program = report.executables.into_iter().find(|(name, _)| name == "kcore");
    let program = program.context("cargo built no tests of the core")?.1;
    Ok(Suite { program, dir: tree.join("kernel/core") })
}

/// Copies all files of the project, with the bugs of the core in them.
fn copy(tree: &Path) -> Result<()> {
    let mut modules = BTreeMap::new();
    for bug in BUGS {
        let (folder, _) = bug.file.split_once("/src/").context("a bug is in the source of a crate")?;
        modules.insert(format!("{folder}/src/lib.rs"), weave::MODULE);
    }
    copy_with(tree, |file, mut bytes| {
        let of_file = || (1..).zip(BUGS).filter(|(_, bug)| bug.file == file);
        if of_file().next().is_some() {
            let text = String::from_utf8(bytes).with_context(|| format!("{file} is no text"))?;
            bytes = weave::weave(&text, of_file())?.into_bytes();
        }
        if let Some(module) = modules.get(file) {
            bytes.extend(module.bytes());
        }
        Ok(bytes)
    })
}

/// Copies all files of the project, each as `change` makes it. What is the same as before keeps its time.
fn copy_with(tree: &Path, change: impl Fn(&str, Vec<u8>) -> Result<Vec<u8>>) -> Result<()> {
    for file in files()? {
        // Deleted and not committed.
        let Ok(bytes) = fs::read(project::root().join(&file)) else { continue };
        let bytes = change(&file, bytes)?;
        let to = tree.join(&file);
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

/// The files of the project, from its root.
fn files() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.current_dir(project::root()).output().context("git names the files of the project")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let names = String::from_utf8(output.stdout).context("names of files are text")?;
    Ok(names.split_terminator('\0').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All bugs are where the sources have changed under them, too.
    #[test]
    fn each_bug_stands_in_its_file() {
        for bug in all() {
            let text = fs::read_to_string(project::root().join(bug.file)).expect("the file is there");
            weave::place(&text, bug).expect("the bug can be planted");
            assert_ne!(bug.old, bug.new, "{} changes something", bug.name);
        }
    }

    #[test]
    fn bugs_have_names_and_are_of_all_kinds() {
        let names: BTreeSet<&str> = all().map(|bug| bug.name).collect();
        let kinds: BTreeSet<Kind> = BUGS.iter().map(|bug| bug.kind).collect();
        assert!(names.len() == all().count() && BUGS.len() >= 60, "{} names for {} bugs", names.len(), all().count());
        assert_eq!(kinds.len(), 10);
        assert!(all().all(|bug| !bug.story.is_empty()));
        let is_of_machine = |bug: &Bug| ["kernel/image/", "kernel/hal/"].iter().any(|dir| bug.file.starts_with(dir));
        assert!(machine_bugs::BUGS.iter().all(is_of_machine) && !BUGS.iter().any(is_of_machine));
    }
}
