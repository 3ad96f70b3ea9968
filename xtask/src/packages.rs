//! What the machine lacks and its package manager has.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::progress::Progress;

/// The oldest compiler that has naked functions: 1.88.
pub const OLDEST_MINOR: u32 = 88;

/// The packages of one compiler.
#[derive(PartialEq, Eq, Debug)]
pub struct Rust {
    /// The compiler with the source of its core library.
    pub compiler: &'static [&'static str],
    /// Its linter.
    pub linter: &'static [&'static str],
    /// Its formatter.
    pub formatter: &'static [&'static str],
}

/// Every release has this one.
const PLAIN: Rust =
    Rust { compiler: &["rustc", "cargo", "rust-src"], linter: &["rust-clippy"], formatter: &["rustfmt"] };

/// Debian adds this one to a release whose own compiler became too old to build web browsers.
const WEB: Rust = Rust {
    compiler: &["rustc-web", "cargo-web", "rust-web-src"],
    linter: &["rust-web-clippy"],
    formatter: &["rustfmt-web"],
};

impl Rust {
    /// The newest compiler that the system's packages offer.
    pub fn newest() -> &'static Self {
        let mut ages = [WEB.minor(), PLAIN.minor()];
        // A fresh machine has no lists of packages, or lists from before an update brought a newer compiler. Without the
        // right to fetch them the plain name is a good guess.
        let is_old = ages.into_iter().flatten().all(|age| age < OLDEST_MINOR);
        if is_old && prefix().is_some_and(|prefix| apt_get(&prefix, &["update"]).is_ok()) {
            ages = [WEB.minor(), PLAIN.minor()];
        }
        if ages[0] > ages[1] { &WEB } else { &PLAIN }
    }

    /// The age of what would be installed.
    fn minor(&self) -> Option<u32> {
        let policy = Command::new("apt-cache").env("LC_ALL", "C").args(["policy", self.compiler[0]]).output().ok()?;
        candidate(&String::from_utf8_lossy(&policy.stdout))
    }
}

/// 96 from the line `Candidate: 1.96.0+dfsg1`.
fn candidate(policy: &str) -> Option<u32> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: 1."))?;
    version.split('.').next()?.parse().ok()
}

/// The program `name` in the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The program `name`; installs `packages` if it is missing.
pub fn program(name: &str, packages: &[&str]) -> Result<PathBuf> {
    if let Some(file) = find_program(name) {
        return Ok(file);
    }
    install(name, packages)?;
    match find_program(name) {
        Some(file) => Ok(file),
        None => bail!("{name} is still missing after the installation of {}", packages.join(" ")),
    }
}

/// Installs `packages`, because `missing` is; as root or with sudo if that asks for no password.
///
/// # Errors
/// Without those rights, or where there is no apt-get: one line with the command to type.
pub fn install(missing: &str, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if find_program("apt-get").is_none() {
        bail!("{missing} is missing: install what Debian calls {list}");
    }
    let Some(prefix) = prefix() else {
        bail!("{missing} is missing: type `sudo apt-get install --no-install-recommends {list}`");
    };
    eprintln!("{missing} is missing: installing {list}");
    let _progress = Progress::start(format!("installing {list}"));
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(packages);
    // The lists of a fresh machine may be absent or too old to name files that are still served.
    if apt_get(&prefix, &install).is_err() {
        apt_get(&prefix, &["update"])?;
        apt_get(&prefix, &install)?;
    }
    Ok(())
}

/// What must stand before a command that changes the system; `None` if it may not be changed.
fn prefix() -> Option<Vec<&'static OsStr>> {
    if rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let may = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    may.is_ok_and(|status| status.success()).then(|| vec!["sudo".as_ref(), "-n".as_ref()])
}

fn apt_get(prefix: &[&OsStr], arguments: &[&str]) -> Result<()> {
    let mut words = prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"].map(OsStr::new));
    let mut command = Command::new(words.next().expect("the list of words begins with a program"));
    command.args(words).args(["-q", "-o", "DPkg::Lock::Timeout=120"]).args(arguments);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = text.lines().find(|line| line.starts_with("E: ")).unwrap_or("E: no reason given");
    bail!("apt-get {} failed: {}", arguments.join(" "), &reason[3..]);
}

/// Whether `file` belongs to the system's packages rather than to rustup.
pub fn is_of_system(file: &Path) -> bool {
    file.starts_with("/usr")
}

#[cfg(test)]
mod tests {
    use super::candidate;

    #[test]
    fn the_age_of_a_package_is_read_from_its_policy() {
        let check = |policy: &str, expected| assert_eq!(candidate(policy), expected, "{policy}");
        check("rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n", Some(96));
        check("rustc:\n  Installed: 1.63.0\n  Candidate: 1.63.0+dfsg1-2\n", Some(63));
        check("rustc:\n  Candidate: (none)\n", None);
        check("", None);
    }
}
