//! Boots of the programs in C, with our sigma0 and with theirs, and of ours with their sigma0.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::boots::{self, PATIENCE, tail};
use super::{Case, Lab};
use crate::foreign::{self, PROGRAMS};
use crate::qemu::{Console, End, Ended, Input, Machine, Module, Typing};

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("foreign::pingpong", "amd64 ABI, System calls, registers", |lab| pingpong(lab, Sigma0::Ours)),
        Case::new("foreign::pingpong_on_a_foreign_sigma0", "Sigma0 protocol, memory request", |lab| {
            pingpong(lab, Sigma0::Foreign)
        }),
        Case::new("foreign::grabmem", "Sigma0 protocol, memory request", |lab| check(lab, Sigma0::Ours, "grabmem", "")),
        Case::new("foreign::grabmem_on_a_foreign_sigma0", "Sigma0 protocol, memory request", |lab| {
            check(lab, Sigma0::Foreign, "grabmem", "")
        }),
        Case::new("foreign::suite", "amd64 ABI, System calls, registers", |lab| check(lab, Sigma0::Ours, "suite", "")),
        Case::new("foreign::suite_on_a_foreign_sigma0", "Sigma0 protocol, page fault", |lab| {
            check(lab, Sigma0::Foreign, "suite", "")
        }),
        Case::new("foreign::our_pingpong_on_a_foreign_sigma0", "Sigma0 protocol, memory request", ours),
    ]
}

/// Which sigma0 is booted.
#[derive(Clone, Copy)]
enum Sigma0 {
    Ours,
    Foreign,
}

fn program(name: &str) -> Result<PathBuf> {
    foreign::build(PROGRAMS.iter().find(|program| program.name == name).context("there is such a program")?)
}

/// A machine with the given programs in C.
fn machine(lab: &Lab, sigma0: Sigma0, root: Option<&str>, args: &str) -> Result<Machine> {
    let mut machine = boots::machine(lab, "max", 64);
    if let Sigma0::Foreign = sigma0 {
        machine.modules[1] = Module::new(program("sigma0")?);
    }
    if let Some(root) = root {
        machine.modules[2] = Module::new(program(root)?);
    }
    args.clone_into(&mut machine.modules[2].args);
    Ok(machine)
}

fn check_success(ended: &Ended) -> Result<()> {
    let failed: Vec<&str> = ended.console.lines().filter(|line| line.contains("FAILED")).collect();
    ensure!(
        ended.end == End::Program(0) && failed.is_empty(),
        "{}\n{}\n{}",
        ended.end,
        failed.join("\n"),
        tail(&ended.console)
    );
    Ok(())
}

/// Boots a program that checks itself.
fn check(lab: &Lab, sigma0: Sigma0, root: &str, args: &str) -> Result<()> {
    check_success(&machine(lab, sigma0, Some(root), args)?.boot(&Console::none(), Some(PATIENCE))?)
}

/// Three runs with 64 sizes of messages each, and back to the menu each time.
fn pingpong(lab: &Lab, sigma0: Sigma0) -> Result<()> {
    let input = Input::Typed(Typing { text: b"123q".to_vec(), prompt: Some("q: quit") });
    let machine = machine(lab, sigma0, Some("pingpong"), "")?;
    let ended = machine.boot(&Console { input, is_shown: false }, Some(PATIENCE))?;
    check_success(&ended)?;
    let rows = ended.console.lines().filter(|line| line.starts_with("IPC (")).count();
    ensure!(rows == 3 * 64, "{rows} rows instead of three tables\n{}", tail(&ended.console));
    Ok(())
}

/// Our benchmark makes its threads and spaces with memory of the other sigma0.
fn ours(lab: &Lab) -> Result<()> {
    check_success(&machine(lab, Sigma0::Foreign, None, "mrs=0..0")?.boot(&Console::none(), Some(PATIENCE))?)
}
