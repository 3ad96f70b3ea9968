//! What the formatter, the linter and the compiler have to say: nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Finding;
use crate::build;
use crate::cargo::{self, Report};
use crate::packages::{self, Rust};
use crate::progress::Progress;
use crate::project::{self, CRATES, Crate, Kind};
use crate::toolchain::{self, Toolchain};

/// Whether all files are formatted.
pub fn format() -> Result<Vec<Finding>> {
    ensure_tool("fmt", |rust| rust.formatter)?;
    let mut findings = Vec::new();
    let mut command = project::cargo("fmt");
    let (ok, log) = cargo::follow(command.args(["--all", "--check"]), &Progress::start("formatting"), |line| {
        findings.extend(difference(line));
    })?;
    if !ok && findings.is_empty() {
        findings.push(Finding::anywhere(log.join(" ")));
    }
    Ok(findings)
}

/// The place in a line `Diff in FILE:LINE:`; older formatters write ` at line LINE:`.
fn difference(line: &str) -> Option<Finding> {
    let place = line.strip_prefix("Diff in ")?.trim_end_matches(':');
    let (file, line) = place.split_once(" at line ").or_else(|| place.rsplit_once(':'))?;
    Some(Finding::at(Path::new(file), line.parse().ok()?, "not formatted: run `cargo fmt`"))
}

/// Lints of what compiles for the host.
pub fn host() -> Result<Vec<Finding>> {
    ensure_tool("clippy", |rust| rust.linter)?;
    let mut command = project::cargo("clippy");
    command.arg("--all-targets");
    for entry in CRATES.iter().filter(|entry| is_of_host(entry)) {
        command.args(["--package", entry.name]);
    }
    let mut report = cargo::build(&mut command, "linting for the host")?;
    // The programs of these packages need the bare machine.
    let mut command = project::cargo("clippy");
    command.args(["--lib", "--profile", "test"]);
    for entry in project::host_libraries()? {
        command.args(["--package", entry.name]);
    }
    let more = cargo::build(&mut command, "linting for the host")?;
    report.ok &= more.ok;
    report.diagnostics.extend(more.diagnostics);
    report.log.extend(more.log);
    Ok(findings(report))
}

fn is_of_host(entry: &Crate) -> bool {
    matches!(entry.kind, Kind::Library | Kind::Tool)
}

/// Lints of what needs the bare machine, by the linter of the compiler that builds it. Without that linter, what the
/// compiler itself has to say.
pub fn bare_metal() -> Result<Vec<Finding>> {
    let toolchain = Toolchain::find()?;
    let driver = toolchain::clippy_driver(&toolchain.sysroot);
    let mut command = toolchain.cargo("check");
    // Where configurations are checked: the compiler's own library is there already.
    let _lock = build::in_folder_of_configurations(&mut command)?;
    match &driver {
        Ok(driver) => drop(command.env("RUSTC_WORKSPACE_WRAPPER", driver)),
        Err(error) => eprintln!("bare-metal crates are checked by the compiler alone: {error:#}"),
    }
    for entry in CRATES.iter().filter(|entry| !is_of_host(entry)) {
        command.args(["--package", entry.name]);
    }
    let mut findings = findings(cargo::build(&mut command, "linting for bare metal")?);
    // What those crates share with the host is linted there.
    let shared = project::packages()?
        .into_iter()
        .filter(|package| CRATES.iter().any(|entry| entry.name == package.name && is_of_host(entry)));
    let shared: Vec<PathBuf> = shared.map(|package| project::relative(package.dir()).to_owned()).collect();
    findings.retain(|finding| !shared.iter().any(|dir| finding.is_below(dir)));
    Ok(findings)
}

fn findings(report: Report) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for diagnostic in report.diagnostics {
        let finding = match diagnostic.place {
            Some((file, line)) => Finding::at(&file, line, diagnostic.message),
            None => Finding::anywhere(diagnostic.message),
        };
        // A file that is compiled for several targets is complained about for each.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    if !report.ok && findings.is_empty() {
        findings.push(Finding::anywhere(report.log.join(" ")));
    }
    findings
}

/// Makes sure that cargo knows `subcommand`: the system's cargo gets it from a package. rustup is not asked.
fn ensure_tool(subcommand: &str, packages: fn(&Rust) -> &[&'static str]) -> Result<()> {
    let mut version = project::cargo(subcommand);
    let is_there = version.arg("--version").output().is_ok_and(|output| output.status.success());
    let cargo = PathBuf::from(version.get_program());
    if !is_there && packages::is_of_system(&cargo) {
        packages::install(&format!("cargo {subcommand}"), packages(Rust::newest()))?;
    } else if !is_there {
        let component = if subcommand == "fmt" { "rustfmt" } else { subcommand };
        anyhow::bail!("cargo {subcommand} is missing: type `rustup component add {component}`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_formatter_s_places_are_understood() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(difference(line).map(|finding| finding.to_string()).as_deref(), expected);
        };
        check("Diff in /p/src/a.rs:12:", Some("/p/src/a.rs:12: not formatted: run `cargo fmt`"));
        check("Diff in /p/src/a.rs at line 12:", Some("/p/src/a.rs:12: not formatted: run `cargo fmt`"));
        check("+    let a = 1;", None);
    }
}
