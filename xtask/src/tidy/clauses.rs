//! The map of the specification: `docs/clauses.txt` names the clauses, `docs/spec.md` has a row for each, and the row
//! names code and tests that exist. No clause is without a test.
//!
//! A test's name in a row is one that `cargo xtask test` takes: the whole name or a beginning of it that ends at `::`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, anyhow};
use proc_macro2::{Ident, TokenStream, TokenTree};

use super::{Finding, sources};
use crate::{project, test};

const LIST: &str = "docs/clauses.txt";
const MAP: &str = "docs/spec.md";
const CHAPTERS: &str = "apps/l4test/src/chapters";

/// What the state of a clause may be.
const STATES: [&str; 3] = ["complete", "partly", "not here"];
/// What stands for nothing in a cell.
const NOTHING: &str = "-";

/// Compares the list, the map, the sources and the tests.
pub fn check() -> Result<Vec<Finding>> {
    let (list, map) = (project::root().join(LIST), project::root().join(MAP));
    let (list_text, map_text) = (sources::read(&list)?, sources::read(&map)?);
    let program = program_tests()?;
    let mut tests: Vec<String> = program.iter().map(|test| test.name.clone()).collect();
    tests.extend(test::names()?);
    let (clauses, rows) = (clauses(&list_text), rows(&map_text));
    let mut findings = compare_order(&clauses, &rows);
    for row in &rows {
        findings.extend(row.check(&tests, |path| project::root().join(path).exists()));
    }
    findings.extend(check_program(&program, &rows));
    let unknown = test::clauses().into_iter().filter(|name| clauses.iter().all(|clause| clause.name != *name));
    findings.extend(unknown.map(|name| {
        Finding::anywhere(format!(
            "a test of the build tool is about `{name}`, which is not in {LIST}: mend its clause"
        ))
    }));
    Ok(findings)
}

/// Which clauses tests are about, as the rows say that name them.
pub struct ClauseMap(Vec<(String, String)>);

impl ClauseMap {
    /// The map as it is now.
    pub fn load() -> Result<Self> {
        Ok(Self::of_text(&sources::read(&project::root().join(MAP))?))
    }

    fn of_text(map: &str) -> Self {
        let pairs = rows(map).into_iter().flat_map(|row| quoted(row.tests).map(move |test| (test, row.clause.name)));
        Self(pairs.map(|(test, clause)| (test.to_owned(), clause.to_owned())).collect())
    }

    /// The clauses of the rows that name a test most closely; empty if none does.
    pub fn clauses_of(&self, test: &str) -> String {
        let rows = || self.0.iter().filter(|(name, _)| is_within(test, name));
        let closest = rows().map(|(name, _)| name.len()).max();
        let clauses = rows().filter(|(name, _)| Some(name.len()) == closest).map(|(_, clause)| clause.as_str());
        clauses.collect::<Vec<_>>().join("; ")
    }
}

/// A clause in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Clause<'a> {
    part: &'a str,
    name: &'a str,
}

fn clauses(list: &str) -> Vec<Clause<'_>> {
    let mut part = "";
    let mut clauses = Vec::new();
    for line in list.lines() {
        match line.strip_prefix("## ") {
            Some(title) => part = title,
            None if line.is_empty() || line.starts_with('#') => {}
            None => clauses.push(Clause { part, name: line }),
        }
    }
    clauses
}

/// A row of the map.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Row<'a> {
    line: usize,
    clause: Clause<'a>,
    state: &'a str,
    code: &'a str,
    tests: &'a str,
    deviation: &'a str,
}

/// The rows in the sections before the first one that has a table of another kind.
fn rows(map: &str) -> Vec<Row<'_>> {
    let mut part = "";
    let mut is_map = false;
    let mut rows = Vec::new();
    for (index, line) in map.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            (part, is_map) = (title, false);
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = cells.split(" | ").map(str::trim).collect();
        match cells[..] {
            ["clause", "state", "code", "tests", "deviation"] => is_map = true,
            [name, state, code, tests, deviation] if is_map => {
                let clause = Clause { part, name };
                rows.push(Row { line: index + 1, clause, state, code, tests, deviation });
            }
            [name, ..] if is_map => {
                let clause = Clause { part, name };
                rows.push(Row { line: index + 1, clause, state: "", code: "", tests: "", deviation: "" });
            }
            _ => {}
        }
    }
    rows
}

/// Each clause has one row, below the heading of its part, in the order of the list.
fn compare_order(clauses: &[Clause<'_>], rows: &[Row<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, clause) in clauses.iter().enumerate() {
        let own: Vec<&Row<'_>> = rows.iter().filter(|row| row.clause.name == clause.name).collect();
        match own[..] {
            [] => {
                let after = i.checked_sub(1).map_or("the heading", |before| clauses[before].name);
                let what = format!("no row for `{}`: add one to `{}`, after `{after}`", clause.name, clause.part);
                findings.push(at(MAP, 1, what));
            }
            [row] if row.clause.part != clause.part => {
                let what = format!("`{}` is of the part `{}`: move the row there", clause.name, clause.part);
                findings.push(at(MAP, row.line, what));
            }
            [_] => {}
            [_, second, ..] => {
                findings.push(at(MAP, second.line, format!("a second row for `{}`: join them", clause.name)));
            }
        }
    }
    let place = |row: &Row<'_>| clauses.iter().position(|clause| clause.name == row.clause.name);
    for row in rows.iter().filter(|row| place(row).is_none()) {
        let what = format!("`{}` is not in {LIST}: enter it there, or mend the name", row.clause.name);
        findings.push(at(MAP, row.line, what));
    }
    let known: Vec<&Row<'_>> = rows.iter().filter(|row| place(row).is_some()).collect();
    let unordered = known.windows(2).find(|pair| place(pair[0]) > place(pair[1]));
    findings.extend(unordered.map(|pair| {
        at(MAP, pair[1].line, format!("`{}` stands before this row in {LIST}: use that order", pair[1].clause.name))
    }));
    findings
}

impl Row<'_> {
    fn check(&self, tests: &[String], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
        let name = self.clause.name;
        let mut findings = Vec::new();
        if !STATES.iter().any(|state| self.state.starts_with(state)) || self.deviation.is_empty() {
            let what = format!(
                "the row of `{name}` is not `clause | state | code | tests | deviation`: the state begins with `{}`, \
                 and `{NOTHING}` stands for no deviation",
                STATES.join("`, `")
            );
            return vec![at(MAP, self.line, what)];
        }
        for path in quoted(self.code).filter(|path| !exists(path)) {
            findings.push(at(MAP, self.line, format!("`{path}`, the code of `{name}`, does not exist: mend the path")));
        }
        for test in quoted(self.tests).filter(|test| !tests.iter().any(|full| is_within(full, test))) {
            findings.push(at(MAP, self.line, format!("`{test}`, a test of `{name}`, does not exist: mend the name")));
        }
        if quoted(self.tests).next().is_none() {
            findings.push(at(MAP, self.line, format!("`{name}` has no test: write one and name it here")));
        }
        if quoted(self.code).next().is_none() && !self.state.starts_with("not here") {
            findings.push(at(MAP, self.line, format!("`{name}` names no code: name the file that implements it")));
        }
        findings
    }
}

/// A test of the program l4test.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ProgramTest {
    /// With the group.
    name: String,
    clause: String,
    file: PathBuf,
    line: usize,
}

/// The names of the program's tests, with their group.
pub fn program_names() -> Result<Vec<String>> {
    Ok(program_tests()?.into_iter().map(|test| test.name).collect())
}

fn program_tests() -> Result<Vec<ProgramTest>> {
    let mut tests = Vec::new();
    for file in sources::files_below(&project::root().join(CHAPTERS))? {
        tests.extend(tests_in(&file, &sources::read(&file)?)?);
    }
    Ok(tests)
}

/// What the macro `chapter! { NAME: "CLAUSE" => [TEST, ...], ... }` makes tests of.
fn tests_in(file: &Path, source: &str) -> Result<Vec<ProgramTest>> {
    let tokens = TokenStream::from_str(source).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut tests = Vec::new();
    for call in tokens.windows(3) {
        let [TokenTree::Ident(name), TokenTree::Punct(mark), TokenTree::Group(body)] = call else { continue };
        if name != "chapter" || mark.as_char() != '!' {
            continue;
        }
        let mut chapter = String::new();
        let mut clause = String::new();
        for token in body.stream() {
            match token {
                TokenTree::Ident(name) => chapter = name.to_string(),
                TokenTree::Literal(text) => text.to_string().trim_matches('"').clone_into(&mut clause),
                TokenTree::Group(group) => {
                    tests.extend(names_in(group.stream()).map(|name| ProgramTest {
                        name: format!("{}::{chapter}::{name}", test::PROGRAM),
                        clause: clause.clone(),
                        file: file.to_owned(),
                        line: name.span().start().line,
                    }));
                }
                TokenTree::Punct(_) => {}
            }
        }
    }
    Ok(tests)
}

/// The names in a list, without what stands behind colons: why the threads of a test stay together.
fn names_in(list: TokenStream) -> impl Iterator<Item = Ident> {
    let mut is_behind_colon = false;
    list.into_iter().filter_map(move |token| {
        let is_named =
            !std::mem::replace(&mut is_behind_colon, matches!(&token, TokenTree::Punct(mark) if mark.as_char() == ':'));
        match token {
            TokenTree::Ident(name) if is_named => Some(name),
            _ => None,
        }
    })
}

/// Each test of the program is named, by itself or with its chapter, in the row of its clause; and a chapter or test that
/// a row names is about that clause.
fn check_program(tests: &[ProgramTest], rows: &[Row<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut missing = BTreeMap::new();
    for test in tests {
        let row = rows.iter().find(|row| row.clause.name == test.clause);
        let chapter = test.name.rsplit_once("::").map_or("", |(chapter, _)| chapter);
        match row {
            None => findings.push(Finding::at(
                &test.file,
                test.line,
                format!("`{}` is about `{}`, which has no row in {MAP}: mend its clause", test.name, test.clause),
            )),
            Some(row) if !quoted(row.tests).any(|name| is_within(&test.name, name)) => {
                missing.entry((row.line, chapter.to_owned())).or_insert(&test.clause);
            }
            Some(_) => {}
        }
    }
    findings.extend(missing.into_iter().map(|((line, chapter), clause)| {
        at(MAP, line, format!("`{chapter}` has tests of `{clause}`: name it among the tests of the row"))
    }));
    for row in rows {
        let prefix = format!("{}::", test::PROGRAM);
        for name in quoted(row.tests).filter(|name| name.starts_with(&prefix)) {
            let mut named = tests.iter().filter(|test| is_within(&test.name, name)).peekable();
            if named.peek().is_some() && named.all(|test| test.clause != row.clause.name) {
                let what = format!("`{name}` has no test of `{}`: take it out of the row", row.clause.name);
                findings.push(at(MAP, row.line, what));
            }
        }
    }
    findings
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a test's name is the other or begins with it and `::`.
fn is_within(test: &str, name: &str) -> bool {
    test.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn at(file: &str, line: usize, what: String) -> Finding {
    Finding::at(&project::root().join(file), line, what)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{ClauseMap, check_program, clauses, compare_order, rows, tests_in};

    const LIST: &str = "# Text.\n\n## One\nX.2, A\nX.2, A, more\n\n## Two\nX.2, B\n";
    const HEAD: &str = "| clause | state | code | tests | deviation |\n|---|---|---|---|---|\n";

    fn map(one: &str, two: &str) -> String {
        format!("# Title\n\n## One\n\n{HEAD}{one}\n## Two\n\n{HEAD}{two}\n## Three\n\n| a | b | c | d | e |\n")
    }

    fn row(clause: &str) -> String {
        format!("| {clause} | complete | `src` | `k::a` | - |\n")
    }

    fn check_rows(map: &str, expected: &[&str]) {
        let rows = rows(map);
        let names = ["k::a::first".to_owned(), "l4test::x::first".to_owned()];
        let mut findings = compare_order(&clauses(LIST), &rows);
        findings.extend(rows.iter().flat_map(|row| row.check(&names, |path| path == "src")));
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings, expected);
    }

    #[test]
    fn each_clause_has_one_row_in_its_place() {
        let (a, more, b) = (row("X.2, A"), row("X.2, A, more"), row("X.2, B"));
        check_rows(&map(&format!("{a}{more}"), &b), &[]);
        check_rows(&map(&a, &b), &["docs/spec.md:1: no row for `X.2, A, more`: add one to `One`, after `X.2, A`"]);
        check_rows(
            &map(&format!("{a}{more}{b}"), ""),
            &["docs/spec.md:9: `X.2, B` is of the part `Two`: move the row there"],
        );
        check_rows(
            &map(&format!("{a}{more}{a}"), &b),
            &[
                "docs/spec.md:9: a second row for `X.2, A`: join them",
                "docs/spec.md:9: `X.2, A` stands before this row in docs/clauses.txt: use that order",
            ],
        );
        check_rows(
            &map(&format!("{a}{more}"), &format!("{b}{}", row("X.2, C"))),
            &["docs/spec.md:15: `X.2, C` is not in docs/clauses.txt: enter it there, or mend the name"],
        );
    }

    #[test]
    fn rows_name_code_and_tests_that_exist() {
        let check = |cells: &str, expected: &[&str]| {
            let rest = row("X.2, A, more");
            check_rows(&map(&format!("| X.2, A | {cells} |\n{rest}"), &row("X.2, B")), expected);
        };
        check("complete | `src` | `k::a::first`, `l4test::x` | rounds up", &[]);
        check("partly, without C | `src` | `k` | -", &[]);
        check("not here | - | `k::a` | -", &[]);
        check("done | `src` | `k` | -", &[SHAPE]);
        check("complete | `src` | `k`", &[SHAPE]);
        check("complete | `src` | - | -", &["docs/spec.md:7: `X.2, A` has no test: write one and name it here"]);
        check(
            "complete | `src` | `k::a::fir` | -",
            &["docs/spec.md:7: `k::a::fir`, a test of `X.2, A`, does not exist: mend the name"],
        );
        check(
            "complete | `lib` | `k::a` | -",
            &["docs/spec.md:7: `lib`, the code of `X.2, A`, does not exist: mend the path"],
        );
        check(
            "complete | - | `k::a` | -",
            &["docs/spec.md:7: `X.2, A` names no code: name the file that implements it"],
        );
    }

    const SHAPE: &str = "docs/spec.md:7: the row of `X.2, A` is not `clause | state | code | tests | deviation`: the \
                         state begins with `complete`, `partly`, `not here`, and `-` stands for no deviation";

    #[test]
    fn tests_have_the_clauses_of_the_rows_that_name_them() {
        let row = |clause, tests| format!("| {clause} | complete | `src` | {tests} | - |\n");
        let one = format!("{}{}", row("X.2, A", "`k::a`, `k::b::first`"), row("X.2, A, more", "`k::a`"));
        let map = ClauseMap::of_text(&map(&one, &row("X.2, B", "`k::a::second`, `k`")));
        let check = |test, expected| assert_eq!(map.clauses_of(test), expected, "{test}");
        check("k::a::first", "X.2, A; X.2, A, more");
        check("k::a::second", "X.2, B");
        check("k::b::first", "X.2, A");
        check("k::b::second", "X.2, B");
        check("kk::a::first", "");
    }

    const CHAPTER: &str = "//! Text.\nuse x;\nchapter! { ipc:\n    \"X.2, A\" => [first],\n    \"X.2, B\" => [\n        \
                           second: \"why\",\n        third: WHY,\n    ],\n}\nfn first() {}\n";

    #[test]
    fn tests_of_chapters_are_found_with_their_clause() {
        let tests = tests_in(Path::new("ipc.rs"), CHAPTER).expect("tokens of Rust");
        let found: Vec<_> = tests.iter().map(|test| (test.name.as_str(), test.clause.as_str(), test.line)).collect();
        assert_eq!(
            found,
            [
                ("l4test::ipc::first", "X.2, A", 4),
                ("l4test::ipc::second", "X.2, B", 6),
                ("l4test::ipc::third", "X.2, B", 7)
            ]
        );
    }

    #[test]
    fn rows_name_the_chapters_with_tests_of_their_clause() {
        let tests = tests_in(Path::new("ipc.rs"), CHAPTER).expect("tokens of Rust");
        let check = |a: &str, b: &str, expected: &[&str]| {
            let row = |clause, tests| format!("| {clause} | complete | `src` | {tests} | - |\n");
            let map = map(&row("X.2, A", a), b);
            let findings: Vec<String> = check_program(&tests, &rows(&map)).iter().map(ToString::to_string).collect();
            assert_eq!(findings, expected);
        };
        let b = |tests: &str| format!("| X.2, B | complete | `src` | {tests} | - |\n");
        check("`l4test::ipc`", &b("`l4test::ipc`"), &[]);
        check("`l4test::ipc::first`", &b("`l4test::ipc::second`, `l4test::ipc::third`"), &[]);
        check(
            "`k::a`",
            &b("`l4test::ipc::second`"),
            &[
                "docs/spec.md:7: `l4test::ipc` has tests of `X.2, A`: name it among the tests of the row",
                "docs/spec.md:13: `l4test::ipc` has tests of `X.2, B`: name it among the tests of the row",
            ],
        );
        check(
            "`l4test::ipc`, `l4test::ipc::second`",
            &b("`l4test::ipc`"),
            &["docs/spec.md:7: `l4test::ipc::second` has no test of `X.2, A`: take it out of the row"],
        );
        check(
            "`l4test::ipc`",
            "",
            &[
                "ipc.rs:6: `l4test::ipc::second` is about `X.2, B`, which has no row in docs/spec.md: mend its clause",
                "ipc.rs:7: `l4test::ipc::third` is about `X.2, B`, which has no row in docs/spec.md: mend its clause",
            ],
        );
    }
}
