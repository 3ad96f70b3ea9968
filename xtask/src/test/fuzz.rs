//! The program that makes random system calls.

use anyhow::{Result, ensure};

use super::boots;
use super::{Case, Lab};
use crate::fuzz::machine;
use crate::qemu::{Console, End};

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![Case::new("boot::fuzz_refuses_unknown_words", "", refuses)]
}

fn refuses(lab: &Lab) -> Result<()> {
    let mut machine = machine(&lab.dir, 1, 1, 1);
    "calls=0".clone_into(&mut machine.modules[2].args);
    let ended = machine.boot(&Console::none(), Some(boots::PATIENCE))?;
    ensure!(ended.end == End::Program(2), "{}\n{}", ended.end, boots::tail(&ended.console));
    ensure!(ended.console.contains("calls=0"), "{}", boots::tail(&ended.console));
    Ok(())
}
