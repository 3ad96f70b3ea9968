//! A disc that GRUB boots: files, and what GRUB is to do with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::packages;

/// The program that makes one.
const PROGRAM: &str = "grub-mkrescue";
/// It, GRUB for a BIOS, and what it calls.
const PACKAGES: [&str; 4] = ["grub-common", "grub-pc-bin", "xorriso", "mtools"];
/// Where GRUB looks for its menu.
const MENU: &str = "boot/grub/grub.cfg";

/// A file on the disc.
pub struct File {
    /// Its path there, without a slash in front.
    pub path: String,
    /// What is in it: that of this file here.
    pub from: PathBuf,
}

/// Makes sure that discs can be made.
pub fn ensure() -> Result<()> {
    packages::program(PROGRAM, &PACKAGES).map(drop)
}

/// Makes the disc `out` with `files` and this menu.
pub fn make(out: &Path, files: &[File], menu: &str) -> Result<()> {
    let root = TempDir::new()?;
    let place = |path: &str| -> Result<PathBuf> {
        let place = root.path().join(path);
        fs::create_dir_all(place.parent().unwrap_or(root.path()))?;
        Ok(place)
    };
    for File { path, from } in files {
        fs::copy(from, place(path)?).with_context(|| format!("cannot read {}", from.display()))?;
    }
    fs::write(place(MENU)?, menu)?;
    let mut command = Command::new(PROGRAM);
    command.arg("-o").arg(out).arg(root.path()).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {PROGRAM}"))?;
    if !output.status.success() || !out.is_file() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{PROGRAM} failed: {}", text.lines().last().unwrap_or("no reason given"));
    }
    Ok(())
}

/// A line of the menu: words as GRUB's language has them, which takes nothing between single quotes for its own.
pub fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quote = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn words_of_the_menu_are_taken_as_they_are() {
        assert_eq!(line(["module", "/boot/a", "x=$y;", "it's"]), r"'module' '/boot/a' 'x=$y;' 'it'\''s'");
    }
}
