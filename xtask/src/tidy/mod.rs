//! `cargo xtask tidy`: the rules of the project that a program can check. Each check is a test as well.

mod arrows;
mod clauses;
mod links;
mod lints;
mod sources;
mod unsafe_sites;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::project;

pub use clauses::{ClauseMap, program_names};

/// Options of `tidy`.
#[derive(clap::Args)]
pub struct Args {
    /// Accept the present number of unsafe sites: writes xtask/unsafe.toml
    #[arg(long)]
    bless: bool,
}

/// Looks at the project and returns what is wrong.
pub type Check = fn() -> Result<Vec<Finding>>;

/// All checks, by name.
pub const CHECKS: &[(&str, Check)] = &[
    ("format", lints::format),
    ("lints_on_the_host", lints::host),
    ("lints_on_bare_metal", lints::bare_metal),
    ("crate_arrows", arrows::check),
    ("unsafe_sites", unsafe_sites::check),
    ("links_in_documents", links::check),
    ("words_and_files", words::check),
    ("clause_map", clauses::check),
];

/// Something that is wrong, with the mend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The file and the line, if it is about a place.
    place: Option<(PathBuf, usize)>,
    what: String,
}

impl Finding {
    fn at(file: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { place: Some((project::relative(file).to_owned(), line)), what: what.into() }
    }

    /// Whether it is about a file in a folder of the project.
    fn is_below(&self, dir: &Path) -> bool {
        self.place.as_ref().is_some_and(|(file, _)| file.starts_with(dir))
    }

    fn anywhere(what: impl Into<String>) -> Self {
        Self { place: None, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((file, line)) => write!(f, "{}:{line}: {}", file.display(), self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.bless {
        unsafe_sites::bless()?;
    }
    let progress = Progress::start("tidying");
    let mut is_tidy = true;
    for (name, check) in CHECKS {
        progress.note(*name);
        let findings = check()?;
        progress.println(&format!("{name}: {}", if findings.is_empty() { "ok" } else { "not tidy" }));
        findings.iter().for_each(|finding| progress.println(&format!("    {finding}")));
        is_tidy &= findings.is_empty();
    }
    Ok(if is_tidy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fails with the findings of `check`, one in a line.
pub fn as_test(check: Check) -> Result<()> {
    let findings = check()?;
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}", findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}
