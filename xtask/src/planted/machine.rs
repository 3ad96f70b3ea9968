//! Bugs of the kernel's machine side: a kernel is built for each, and booted.
//!
//! In assembly there is no "if" that leaves the flags alone, and before the machine is set up nobody could say which bug is
//! meant. So each bug has a build of its own, of two crates and what is linked of the others.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::suite::{self, End};
use super::{Bug, copy_with, dir, weave};
use crate::test::hunt::{self, Hunt};
use crate::toolchain::Toolchain;
use crate::{build, cargo, project, qemu};

/// The image with the bugs.
const KERNEL: &str = "kernel";
/// The tests of the core that execute the kernel's machine code, and how many calls they make.
const EQUIVALENCE: [&str; 2] =
    ["equivalence::fast_path_is_the_general_path_from_a_fixed_seed", "equivalence::branches"];
const CALLS: &str = "100000";

/// What kernels with bugs are tried with.
pub struct Laboratory {
    /// The tests of the core, of which some execute a kernel's image.
    tests: PathBuf,
    /// The images that are booted.
    dir: PathBuf,
}

impl Laboratory {
    /// Builds all that has no bugs.
    pub fn new() -> Result<Self> {
        qemu::ensure()?;
        let sound = build::images(&hunt::IMAGES, &crate::config::Chosen::by_default()?)?;
        let images = dir().join("machine");
        fs::create_dir_all(&images)?;
        for name in hunt::IMAGES {
            build::replace(&images.join(name), &fs::read(sound.join(name))?)?;
        }
        let mut command = project::cargo("test");
        let report = cargo::build(command.args(["--no-run", "--package", "kcore", "--lib"]), "building tests")?;
        let tests = report.executables.iter().find(|(name, _)| name == "kcore").map(|(_, file)| file.clone());
        let Some(tests) = tests.filter(|_| report.ok) else {
            bail!("cannot build the tests of the core:\n{}", report.text())
        };
        Ok(Self { tests, dir: images })
    }

    /// What the tests say of a kernel without bugs: they must say nothing.
    pub fn check_sound(&self) -> Result<()> {
        self.build(None)?;
        match self.try_all()? {
            End::Missed => Ok(()),
            end => bail!("the kernel without bugs is caught {end}"),
        }
    }

    /// Builds the kernel with this bug and tries it with one test after the other, up to the first that fails.
    pub fn look_for(&self, bug: &Bug) -> Result<End> {
        self.build(Some(bug)).with_context(|| bug.name)?;
        self.try_all()
    }

    fn try_all(&self) -> Result<End> {
        for name in EQUIVALENCE {
            let image = self.dir.join(format!("{KERNEL}.debug"));
            let variables = [("KCORE_IMAGE", image.into_os_string()), ("KCORE_CALLS", CALLS.into())];
            match suite::run(&self.tests, &project::root().join("kernel/core"), &[name], variables)? {
                End::Missed => {}
                end => return Ok(end),
            }
        }
        let lab = hunt::lab(self.dir.clone())?;
        for hunt in Hunt::ALL {
            if let Err(error) = hunt.run(&lab) {
                return Ok(End::Failed(format!("{}: {}", hunt.name(), one_line(&format!("{error:#}")))));
            }
        }
        Ok(End::Missed)
    }

    /// Builds the kernel, with a bug or without.
    fn build(&self, bug: Option<&Bug>) -> Result<()> {
        let tree = dir().join("machine-tree");
        copy_with(&tree, |file, bytes| match bug.filter(|bug| bug.file == file) {
            Some(bug) => Ok(weave::replace(&String::from_utf8(bytes)?, bug)?.into_bytes()),
            None => Ok(bytes),
        })?;
        let mut command: Command = Toolchain::find()?.cargo("build");
        command.args(["--package", KERNEL]).current_dir(&tree);
        command.env("CARGO_TARGET_DIR", dir().join("machine-target")).env_remove(build::VARIABLE);
        let report = cargo::build(&mut command, "building a kernel with a bug")?;
        let file = report.executables.iter().find(|(name, _)| name == KERNEL);
        let Some((_, file)) = file.filter(|_| report.ok) else {
            bail!("cannot build the kernel:\n{}", report.text());
        };
        build::install(file, &self.dir, KERNEL)
    }
}

/// The first line of what a test says, which is long enough.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 100;
    text.lines().next().unwrap_or_default().chars().take(LONGEST).collect()
}
