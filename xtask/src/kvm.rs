//! Whether KVM truly works here. `/dev/kvm` alone says little: it may be nested in software and emulate every
//! instruction. So the processor must have the extension, and a boot must answer in time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tempfile::NamedTempFile;

use crate::qemu::{self, Accel, Console, End};

/// A boot sector: `out 0xf4, al` with al = [`ANSWER`], then `cli; hlt`.
const PROBE: [u8; 6] = [0xB0, ANSWER, 0xE6, qemu::EXIT_PORT, 0xFA, 0xF4];
const ANSWER: u8 = 42;
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether guests run on the processor itself.
pub fn works() -> bool {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let device = File::options().read(true).write(true).open("/dev/kvm");
    has_extension(&info) && device.is_ok() && probe(Accel::Kvm, PATIENCE).unwrap_or(false)
}

fn has_extension(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// Boots [`PROBE`]; whether it answered within `patience`.
pub fn probe(accel: Accel, patience: Duration) -> Result<bool> {
    let mut sector = [0; 512];
    sector[..PROBE.len()].copy_from_slice(&PROBE);
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    let mut disk = NamedTempFile::new()?;
    disk.write_all(&sector)?;
    let ended = qemu::supervise(&options(accel, disk.path()), &Console::none(), Some(patience))?;
    Ok(ended.end == End::Program(ANSWER))
}

fn options(accel: Accel, disk: &Path) -> Vec<OsString> {
    let words = ["-accel", accel.name(), "-m", "16", "-nodefaults", "-no-reboot", "-display", "none", "-drive"];
    let drive = format!("format=raw,if=ide,file={}", disk.display());
    words.into_iter().map(OsString::from).chain([drive.into()]).chain(qemu::EXIT_DEVICE.map(OsString::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::has_extension;

    #[test]
    fn the_extension_is_a_flag_of_its_own() {
        assert!(has_extension("processor : 0\nflags\t: fpu svm sse\n"));
        assert!(has_extension("flags\t\t: fpu vmx\n"));
        assert!(!has_extension("flags\t\t: fpu vmx_unrestricted\nvmx flags : vnmi\n"));
        assert!(!has_extension(""));
    }
}
