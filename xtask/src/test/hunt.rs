//! The tests in emulators that show what is wrong with the kernel's image: for kernels in which something is, on purpose.
//!
//! They are tests that run anyway, each of them up to its first failure.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::{Lab, bochs, boots, isolation, l4test};
use crate::config::Chosen;

/// The images that they boot, but for the kernel.
pub const IMAGES: [&str; 6] = ["kickstart", "sigma0", "l4test", "pingpong", "storm", "drivers"];

/// A boot that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where a bug can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hunt {
    /// l4test on one processor.
    L4test,
    /// The same on four.
    L4testSmp,
    /// The same on four from whose user code the kernel is hidden.
    Isolated,
    /// Its tests of I/O ports, with I/O fpages.
    Ports,
    /// The drivers of two devices.
    Drivers,
    /// Page tables and control registers, seen from outside.
    Outside,
    /// Its tests with wild arguments in Bochs, which refuses what processors refuse and QEMU does not; and those of Unmap.
    Bochs,
}

impl Hunt {
    /// All, in the order in which they are tried.
    pub const ALL: [Self; 7] =
        [Self::L4test, Self::L4testSmp, Self::Isolated, Self::Ports, Self::Drivers, Self::Outside, Self::Bochs];

    /// What a person calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L4test => "l4test",
            Self::L4testSmp => "l4test on four processors",
            Self::Isolated => "l4test on four processors that hide the kernel",
            Self::Ports => "l4test with I/O fpages",
            Self::Drivers => "drivers",
            Self::Outside => "tables and registers seen from outside",
            Self::Bochs => "l4test in Bochs",
        }
    }

    /// Boots the images in `lab`.
    ///
    /// # Errors
    /// What failed first, in a line.
    pub fn run(self, lab: &Lab) -> Result<()> {
        let l4test = |cpus, cpu, args, kernel_args| l4test::hunt(lab, (cpus, cpu), args, kernel_args, PATIENCE);
        match self {
            Self::L4test => l4test(1, l4test::STRONG, "json", ""),
            Self::L4testSmp => l4test(4, l4test::STRONG, "json", ""),
            Self::Isolated => l4test(4, l4test::WEAK, "json", ""),
            Self::Ports => l4test(2, l4test::STRONG, "json run=ioports::", "ioflexpages=yes"),
            Self::Drivers => boots::drivers(lab, ""),
            Self::Outside => isolation::protections(lab)
                .and_then(|()| isolation::rights_of_all(lab, ""))
                .and_then(|()| isolation::porch(lab, "")),
            Self::Bochs => bochs::hunt(lab),
        }
    }
}

/// The images in a folder.
pub fn lab(dir: PathBuf) -> Result<Lab> {
    Ok(Lab { dir, seed: 1, config: Chosen::by_default()? })
}
