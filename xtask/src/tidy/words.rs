//! Files that must not be there, and words and signs that do not pass.

use std::path::Path;

use anyhow::Result;

use super::{Finding, sources};
use crate::project;

/// What a file of text must not contain, and the mend. The words are cut in two so that this file is clean.
const WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "finish it, or say what is missing in a document"),
    (concat!("FIX", "ME"), "finish it, or say what is missing in a document"),
    (concat!("to", "do!("), "finish it"),
    (concat!("unimple", "mented!("), "finish it"),
    (concat!("#[ig", "nore]"), "give the reason, as in #[ignore = \"reason\"]"),
    ("\u{2014}", "use a comma, a colon or a full stop"),
    ("\u{2013}", "use a hyphen"),
];

/// The extensions of files of text.
const TEXT: [&str; 9] = ["rs", "md", "toml", "ld", "S", "sh", "c", "h", "cc"];

/// Looks at the names of all files and the words of those of text.
pub fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in sources::files()? {
        findings.extend(misplaced(&file));
        if TEXT.iter().any(|extension| sources::has_extension(&file, extension)) {
            findings.extend(check_text(&file, &sources::read(&file)?));
        }
    }
    Ok(findings)
}

/// A file that would make rustup fetch a toolchain or stop without it.
fn misplaced(file: &Path) -> Option<Finding> {
    let name = file.file_name()?.to_string_lossy();
    let what = "remove it: the build takes whatever compiler there is";
    name.starts_with("rust-toolchain").then(|| Finding::at(file, 1, what))
}

fn check_text(file: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (word, mend) in WORDS {
        let places = text.match_indices(word);
        findings
            .extend(places.map(|(at, _)| Finding::at(file, sources::line_of(text, at), format!("`{word}`: {mend}"))));
    }
    let is_config = project::relative(file).starts_with(".cargo");
    if let Some(at) = text.find("\ntarget =").filter(|_| is_config) {
        let what = "remove build.target: the host's crates are built for the host";
        findings.push(Finding::at(file, sources::line_of(text, at + 1), what));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{check_text, misplaced};
    use crate::project;

    fn check(file: &str, text: &str, expected: &[&str]) {
        let findings = check_text(&project::root().join(file), text);
        assert_eq!(findings.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn unfinished_work_and_odd_signs_are_found_with_their_line() {
        check("a.rs", "fn main() {}\n", &[]);
        check(
            "a.rs",
            concat!("\n// TO", "DO\n"),
            &[concat!("a.rs:2: `TO", "DO`: finish it, or say what is missing in a document")],
        );
        check("b.md", "a \u{2013} b", &["b.md:1: `\u{2013}`: use a hyphen"]);
        check(
            ".cargo/config.toml",
            "[build]\ntarget = \"x\"\n",
            &[".cargo/config.toml:2: remove build.target: the host's crates are built for the host"],
        );
        check("kernel/Cargo.toml", "[build]\ntarget = \"x\"\n", &[]);
    }

    #[test]
    fn a_toolchain_file_is_found() {
        assert!(misplaced(Path::new("/p/rust-toolchain.toml")).is_some());
        assert!(misplaced(Path::new("/p/toolchain.rs")).is_none());
    }
}
