//! The program that makes random system calls.

use anyhow::{Context, Result, ensure};

use super::boots;
use super::{Case, Lab};
use crate::fuzz::{is_well, machine};
use crate::qemu::{Console, End, Machine};

/// System calls of a run, and its processors.
const CALLS: u64 = 60_000;
const CPUS: u32 = 4;
/// The seed of the run that is the same each time.
const SEED: u64 = 1;

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("boot::fuzz_of_a_fixed_seed_loses_nothing", "X.2, System calls, wild arguments", |lab| {
            random_calls(lab, SEED, true)
        }),
        Case::new("boot::fuzz_of_a_fresh_seed_loses_nothing", "X.2, System calls, wild arguments", |lab| {
            random_calls(lab, lab.seed, false)
        }),
        Case::new("boot::fuzz_refuses_unknown_words", "", refuses),
    ]
}

/// A run of counted instructions is the same each time; one that is not has processors that truly run in parallel.
fn random_calls(lab: &Lab, seed: u64, icount: bool) -> Result<()> {
    let machine = Machine { icount, ..machine(&lab.dir, seed, CALLS, CPUS) };
    let parallel = if icount { "" } else { " --parallel" };
    let command = format!("cargo xtask fuzz --seed {seed} --calls {CALLS} --cpus {CPUS}{parallel}");
    let ended = machine.boot(&Console::none(), Some(boots::PATIENCE)).with_context(|| command.clone())?;
    ensure!(is_well(&ended), "{command}: {}\n{}", ended.end, boots::tail(&ended.console));
    ensure!(ended.console.contains(&format!("fuzz: seed={seed} ")), "{}", boots::tail(&ended.console));
    Ok(())
}

fn refuses(lab: &Lab) -> Result<()> {
    let mut machine = machine(&lab.dir, 1, 1, 1);
    "calls=0".clone_into(&mut machine.modules[2].args);
    let ended = machine.boot(&Console::none(), Some(boots::PATIENCE))?;
    ensure!(ended.end == End::Program(2), "{}\n{}", ended.end, boots::tail(&ended.console));
    ensure!(ended.console.contains("calls=0"), "{}", boots::tail(&ended.console));
    Ok(())
}
