//! What starts the machine in the emulator.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::packages;

/// Where packages put UEFI for QEMU: its code, and what its variables begin with.
const UEFI: [[&str; 2]; 3] = [
    ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"],
    ["/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"],
    ["/usr/share/edk2/x64/OVMF_CODE.fd", "/usr/share/edk2/x64/OVMF_VARS.fd"],
];

/// The firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Firmware {
    /// QEMU's own BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

impl Firmware {
    /// The flash memory that the machine needs for it; installs a package if it is missing.
    pub fn flash(self) -> Result<Option<Flash>> {
        match self {
            Self::Bios => Ok(None),
            Self::Uefi => Flash::new().map(Some),
        }
    }
}

/// The two flash memories of UEFI: its code, and variables that are as new each time.
pub struct Flash {
    code: &'static str,
    variables: TempDir,
}

impl Flash {
    fn new() -> Result<Self> {
        let find = || UEFI.into_iter().find(|files| files.iter().all(|file| Path::new(file).is_file()));
        if find().is_none() {
            packages::install("UEFI for QEMU", &["ovmf"])?;
        }
        let [code, fresh] = find().context("UEFI for QEMU is still missing after the installation of ovmf")?;
        let variables = TempDir::new()?;
        fs::copy(fresh, variables.path().join("variables"))?;
        Ok(Self { code, variables })
    }

    /// QEMU's options; they hold as long as this value lives.
    pub fn options(&self) -> Vec<String> {
        let code = format!("if=pflash,format=raw,unit=0,readonly=on,file={}", self.code);
        let variables =
            format!("if=pflash,format=raw,unit=1,file={}", self.variables.path().join("variables").display());
        ["-drive", &code, "-drive", &variables].map(str::to_owned).into()
    }
}
