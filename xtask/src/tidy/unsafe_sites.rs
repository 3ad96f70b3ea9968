//! Where `unsafe` is: the sites of each crate are counted against a committed list, so that growth is a decision that a
//! reviewer sees. Crates outside the list forbid `unsafe`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{TokenStream, TokenTree};

use super::{Finding, sources};
use crate::project::{self, CRATES, Package};

const LIST: &str = "xtask/unsafe.toml";
const LIST_HEAD: &str = "# Unsafe sites per crate: blocks, functions, impls, attributes. `cargo xtask tidy --bless` \
                         writes this file;\n# a number that grows is argued for in the commit.\n";
const FORBID: &str = "#![forbid(unsafe_code)]";

/// Compares the sources with the list, and looks for the attribute that forbids `unsafe`.
pub fn check() -> Result<Vec<Finding>> {
    let list = project::root().join(LIST);
    let mut findings = compare(&parse(&sources::read(&list).unwrap_or_default())?, &count_all()?);
    for package in project::packages()? {
        findings.extend(check_roots(&package)?);
    }
    Ok(findings)
}

/// Writes the list.
pub fn bless() -> Result<()> {
    let rows = count_all()?.into_iter().filter(|(name, sites)| may(name) && !sites.is_empty());
    let rows: String = rows.map(|(name, sites)| format!("{name} = {}\n", sites.len())).collect();
    fs::write(project::root().join(LIST), format!("{LIST_HEAD}\n{rows}"))
        .with_context(|| format!("cannot write {LIST}"))
}

/// Whether the crate may be unsafe at all.
fn may(name: &str) -> bool {
    CRATES.iter().any(|entry| entry.name == name && entry.may_be_unsafe)
}

/// The file and line of an `unsafe`.
type Site = (PathBuf, usize);

fn count_all() -> Result<BTreeMap<String, Vec<Site>>> {
    let mut all = BTreeMap::new();
    for package in project::packages()? {
        all.insert(package.name.clone(), count(package.dir())?);
    }
    Ok(all)
}

/// The sites below `dir`, without those of packages inside it.
fn count(dir: &Path) -> Result<Vec<Site>> {
    let mut sites = Vec::new();
    for file in sources::files_below(dir)?.into_iter().filter(|file| sources::has_extension(file, "rs")) {
        let inner = file.ancestors().skip(1).take_while(|inner| *inner != dir);
        if !inner.into_iter().any(|inner| inner.join("Cargo.toml").is_file()) {
            let lines = unsafe_lines(&sources::read(&file)?).with_context(|| format!("in {}", file.display()))?;
            sites.extend(lines.into_iter().map(|line| (file.clone(), line)));
        }
    }
    Ok(sites)
}

/// The lines with the keyword, outside of comments and strings.
fn unsafe_lines(source: &str) -> Result<Vec<usize>> {
    let mut lines = Vec::new();
    let mut streams = vec![TokenStream::from_str(source).map_err(|error| anyhow!("{error}"))?];
    while let Some(stream) = streams.pop() {
        for token in stream {
            match token {
                TokenTree::Group(group) => streams.push(group.stream()),
                TokenTree::Ident(word) if word == "unsafe" => lines.push(word.span().start().line),
                _ => {}
            }
        }
    }
    lines.sort_unstable();
    Ok(lines)
}

/// The list: a line `CRATE = NUMBER` per crate.
fn parse(list: &str) -> Result<BTreeMap<String, usize>> {
    let rows = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    rows.map(|row| {
        let (name, number) = row.split_once('=').with_context(|| format!("{LIST}: no number in `{row}`"))?;
        let number = number.trim().parse().with_context(|| format!("{LIST}: no number in `{row}`"))?;
        Ok((name.trim().to_owned(), number))
    })
    .collect()
}

fn compare(list: &BTreeMap<String, usize>, found: &BTreeMap<String, Vec<Site>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, sites) in found {
        let listed = list.get(name).copied().unwrap_or(0);
        if !may(name) {
            let what = format!(
                "{name} must do without unsafe and has {} sites, this is the first: move them to a crate that may have them",
                sites.len()
            );
            findings.extend(sites.first().map(|(file, line)| Finding::at(file, *line, what)));
        } else if sites.len() != listed {
            let what = format!(
                "{name} has {} unsafe sites, the list says {listed}: argue for the change in the commit and run \
                 `cargo xtask tidy --bless`",
                sites.len()
            );
            findings.push(Finding::at(&project::root().join(LIST), 1, what));
        }
    }
    findings
}

/// A crate that must not be unsafe says so at the top; so does the library of an image whose program may be.
fn check_roots(package: &Package) -> Result<Vec<Finding>> {
    let Some(entry) = CRATES.iter().find(|entry| entry.name == package.name) else { return Ok(Vec::new()) };
    let is_image = package.roots().any(|(_, is_library)| !is_library);
    let mut findings = Vec::new();
    for (root, is_library) in package.roots() {
        let must_forbid = !entry.may_be_unsafe || (is_image && is_library);
        if must_forbid && !sources::read(root)?.lines().any(|line| line == FORBID) {
            findings.push(Finding::at(root, 1, format!("add `{FORBID}`")));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::{compare, parse, unsafe_lines};

    #[test]
    fn the_keyword_is_found_and_nothing_else() {
        let source = "// unsafe\nfn a() {\n    unsafe { b() }\n}\nunsafe fn c() {}\nunsafe impl Send for D {}\n\
                      #[unsafe(no_mangle)]\nstatic E: &str = \"unsafe\";\n#![forbid(unsafe_code)]\n\
                      macro_rules! f { () => { unsafe { g() } } }\n";
        assert_eq!(unsafe_lines(source).expect("tokens of Rust"), [3, 5, 6, 7, 10]);
    }

    #[test]
    fn growth_and_trespass_are_found() {
        let list = parse("# head\n\nkhal = 2\n").expect("a sound list");
        let check = |name: &str, count: usize, expected: &str| {
            let sites = (1..=count).map(|line| (PathBuf::from("a.rs"), line)).collect();
            let findings = compare(&list, &BTreeMap::from([(name.to_owned(), sites)]));
            let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
            assert!(text.join("\n").contains(expected) && text.is_empty() == expected.is_empty(), "{text:?}");
        };
        check("khal", 2, "");
        check("khal", 3, "khal has 3 unsafe sites, the list says 2");
        check("khal", 1, "khal has 1 unsafe sites");
        check("kernel", 1, "the list says 0");
        check("kcore", 0, "");
        check("kcore", 2, "a.rs:1: kcore must do without unsafe and has 2 sites");
    }

    #[test]
    fn a_damaged_list_is_refused() {
        assert!(parse("khal 3\n").is_err());
        assert!(parse("khal = many\n").is_err());
    }
}
