//! The files of the project: all but what git and cargo keep for themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::project;

/// Folders that hold no files of the project.
const FOREIGN: [&str; 2] = [".git", "target"];

/// All files, in the order of their paths.
pub fn files() -> Result<Vec<PathBuf>> {
    files_below(project::root())
}

/// All files below `dir`, in the order of their paths.
pub fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                files.push(entry.path());
            } else if !FOREIGN.iter().any(|name| entry.file_name() == *name) {
                dirs.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether the name of `file` ends with `.` and `extension`.
pub fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|own| own == extension)
}

/// The text of `file`.
pub fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The number of the line in which byte `at` of `text` is; the first is 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}
