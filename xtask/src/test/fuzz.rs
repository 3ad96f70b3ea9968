//! Random system calls in the emulator.

use anyhow::{Context, Result, ensure};

use super::boots;
use super::{Case, Lab};
use crate::fuzz::{is_well, machine, patience};
use crate::qemu::{Console, End, Machine};

/// The seed of the run that is the same each time.
const SEED: u64 = 1;
/// System calls of a run.
const CALLS: u64 = 60_000;
const CPUS: u32 = 4;

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("boot::random_calls_of_a_fixed_seed_stop_nothing", "X.2, System calls, kernel memory", |lab| {
            fuzz(lab, SEED)
        }),
        Case::new("boot::random_calls_of_a_fresh_seed_stop_nothing", "X.2, System calls, kernel memory", |lab| {
            fuzz(lab, lab.seed)
        }),
        Case::new("boot::fuzz_refuses_unknown_words", "", refuses),
    ]
}

/// Instructions are counted, so that a seed is all that it takes to see a failure again.
fn fuzz(lab: &Lab, seed: u64) -> Result<()> {
    let machine = Machine { icount: true, ..machine(&lab.dir, seed, CALLS, CPUS) };
    let command = format!("cargo xtask fuzz --seed {seed} --calls {CALLS} --cpus {CPUS}");
    let ended = machine.boot(&Console::none(), Some(patience(CALLS))).with_context(|| command.clone())?;
    ensure!(is_well(&ended), "{command}: {}\n{}", ended.end, boots::tail(&ended.console));
    Ok(())
}

fn refuses(lab: &Lab) -> Result<()> {
    let mut machine = machine(&lab.dir, SEED, CALLS, 1);
    "calls=0".clone_into(&mut machine.modules[2].args);
    let ended = machine.boot(&Console::none(), Some(boots::PATIENCE))?;
    ensure!(ended.end == End::Program(2), "{}\n{}", ended.end, boots::tail(&ended.console));
    ensure!(ended.console.contains("calls=0"), "{}", boots::tail(&ended.console));
    Ok(())
}
