//! Boots in Bochs, which has identifiers of spaces: a context switch forgets nothing there, so what a space no longer has must
//! have been forgotten one by one.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::boots::tail;
use super::l4test::{failures, first_failure};
use super::{Case, Lab, Skipped};
use crate::bochs::{self, Machine};
use crate::qemu::{End, Ended, Module};

/// The time after which a boot counts as hanging.
const PATIENCE: Duration = Duration::from_secs(180);

/// Features of the processor without which none of this shows anything, as the kernel names those that are absent.
const NEEDED: [&str; 2] = ["pcid", "invpcid"];

/// What l4test runs: pages that are mapped and taken away in spaces that come and go, each with the identifier of one before.
const UNMAP: &str = "json run=unmap";
/// Jumps and accesses to addresses that are none.
const WILD: &str = "json run=canonical";
/// The least number of tests in it.
const UNMAP_TESTS: usize = 20;

/// All tests of this file. The kernel in Bochs isolates its tables unless it is told not to; both have identifiers.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("boot::bochs_pingpong", "", pingpong),
        Case::new("boot::bochs_l4test_on_one_processor", "X.2, Unmap", |lab| l4test(lab, 1, "")),
        Case::new("boot::bochs_l4test_with_the_kernel_in_user_tables", "X.2, Unmap", |lab| {
            l4test(lab, 2, "mitigations=off")
        }),
    ]
}

fn boot(lab: &Lab, cpus: u32, kernel_args: &str, program: &str, args: &str) -> Result<Ended> {
    if bochs::ensure().is_err() {
        return Err(Skipped("Bochs is not here and cannot be installed").into());
    }
    let mut machine = Machine::new(&lab.dir, Module { file: lab.image(program), args: args.to_owned() });
    machine.cpus = cpus;
    kernel_args.clone_into(&mut machine.modules[0].args);
    let ended = machine.boot(false, PATIENCE)?;
    let absent = ended.console.lines().find_map(|line| line.split_once("absent: ")).map_or("", |(_, absent)| absent);
    let lacks = |feature: &&str| absent.split([' ', ',']).any(|absent| absent == *feature);
    ensure!(!NEEDED.iter().any(lacks), "Bochs has no identifiers of spaces: absent are {absent}");
    Ok(ended)
}

fn pingpong(lab: &Lab) -> Result<()> {
    let ended = boot(lab, 1, "", "pingpong", "json rounds=20 mrs=0..8")?;
    ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, tail(&ended.console));
    let rows = |mode: &str| ended.console.lines().filter(|line| line.contains(&format!(r#""mode":"{mode}""#))).count();
    ensure!(rows("inter") == 9 && rows("intra") == 9, "{}", tail(&ended.console));
    Ok(())
}

/// The tests of addresses that are none, and those of Unmap with and without the kernel in user tables.
pub fn hunt(lab: &Lab) -> Result<()> {
    let wild = boot(lab, 1, "", "l4test", WILD)?;
    first_failure(&wild)?;
    l4test(lab, 1, "")?;
    l4test(lab, 2, "mitigations=off")
}

fn l4test(lab: &Lab, cpus: u32, kernel_args: &str) -> Result<()> {
    let ended = boot(lab, cpus, kernel_args, "l4test", UNMAP)?;
    let (ran, failed) = failures(&ended.console);
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    ensure!(ended.end == End::Program(0) && ran >= UNMAP_TESTS, "{}\n{}", ended.end, tail(&ended.console));
    Ok(())
}
