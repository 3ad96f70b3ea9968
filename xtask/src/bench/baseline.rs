//! The committed figures, and what a test says when one has grown.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::Figure;
use crate::project;

/// The file: the compiler in the first line, a figure in each line behind.
const FILE: &str = "xtask/baseline.json";

/// The growth that is let pass.
const TOLERANCE: f64 = 0.02;
/// The growth that is let pass if the compiler is another one, whose code for the same source may be longer.
const TOLERANCE_OF_COMPILERS: f64 = 0.25;
/// The least growth that counts, instructions.
const LEAST: f64 = 1.0;

/// Messages of words take a path that is assembly, the same with every compiler: one instruction more is growth.
const IN_ASSEMBLY: &str = "ipc";
const TOLERANCE_IN_ASSEMBLY: f64 = 0.5;

/// How to accept other figures.
const MEND: &str = "if it has to be, run `cargo xtask bench --bless`";

/// Functions that a message names at most.
const NAMED: usize = 3;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    compiler: String,
}

/// A figure as it was.
#[derive(Serialize, Deserialize, Clone, Debug)]
struct Row {
    bench: String,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mrs: Option<u32>,
    value: f64,
    /// Instructions of each function of the kernel in an operation.
    functions: BTreeMap<String, f64>,
}

impl Row {
    fn new(figure: &Figure) -> Self {
        let functions = figure.counts.as_ref().map(|seen| seen.functions.clone()).unwrap_or_default();
        let functions = functions.into_iter().map(|(name, count)| (name, rounded(count))).collect();
        let Figure { bench, mode, mrs, value, .. } = figure.clone();
        Self { bench, mode, mrs, value: rounded(value), functions }
    }

    fn is_of(&self, figure: &Figure) -> bool {
        (&self.bench, &self.mode, self.mrs) == (&figure.bench, &figure.mode, figure.mrs)
    }
}

/// To hundredths: what the programs print.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The figures to compare with.
#[derive(Debug)]
pub struct Baseline {
    compiler: String,
    rows: Vec<Row>,
}

impl Baseline {
    /// Reads the file.
    pub fn read() -> Result<Self> {
        let file = project::root().join(FILE);
        Self::parse(&fs::read_to_string(file).with_context(|| format!("cannot read {FILE}"))?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let head: Head =
            serde_json::from_str(lines.next().unwrap_or_default()).with_context(|| format!("head of {FILE}"))?;
        let rows = lines.map(|line| serde_json::from_str(line).with_context(|| format!("{FILE}: {line}")));
        Ok(Self { compiler: head.compiler, rows: rows.collect::<Result<_>>()? })
    }

    /// What is wrong with `figures`, which `compiler` made: those that have grown, and those of which only one side knows.
    pub fn findings(&self, figures: &[Figure], compiler: &str) -> Vec<String> {
        let is_same_compiler = compiler == self.compiler;
        let tolerance = if is_same_compiler { TOLERANCE } else { TOLERANCE_OF_COMPILERS };
        let mut findings = Vec::new();
        for figure in figures {
            match self.rows.iter().find(|row| row.is_of(figure)) {
                Some(row) => findings.extend(grown(row, figure, tolerance)),
                None => findings.push(format!("{} is not in {FILE}: {MEND}", figure.name())),
            }
        }
        // Without the plugin some figures cannot be had.
        let has_counts = figures.iter().any(|figure| figure.counts.is_some());
        let lost = self.rows.iter().filter(|row| has_counts && !figures.iter().any(|figure| row.is_of(figure)));
        findings
            .extend(lost.map(|row| format!("{} {} is in {FILE}, and was not measured: {MEND}", row.bench, row.mode)));
        if !is_same_compiler && !findings.is_empty() {
            findings.push(format!("the figures of {FILE} are of {}, these are of {compiler}", self.compiler));
        }
        findings
    }
}

/// Says by how much a figure has grown beyond what is tolerated, and where.
fn grown(row: &Row, figure: &Figure, tolerance: f64) -> Option<String> {
    let growth = rounded(figure.value) - row.value;
    let limit = if row.bench == IN_ASSEMBLY { TOLERANCE_IN_ASSEMBLY } else { (row.value * tolerance).max(LEAST) };
    if growth <= limit {
        return None;
    }
    let mut functions: Vec<(&str, f64)> = figure
        .counts
        .iter()
        .flat_map(|seen| &seen.functions)
        .map(|(name, count)| (name.as_str(), count - row.functions.get(name).copied().unwrap_or(0.0)))
        .filter(|(_, growth)| *growth >= 0.5)
        .collect();
    functions.sort_by(|one, other| other.1.total_cmp(&one.1));
    let named: Vec<String> =
        functions.iter().take(NAMED).map(|(name, growth)| format!("{name} (+{growth:.1})")).collect();
    let place = match named.as_slice() {
        [] => "not in the kernel".to_owned(),
        named => format!("in an operation most in {}", named.join(", ")),
    };
    let percent = growth / row.value * 100.0;
    Some(format!(
        "{} has grown from {:.2} to {:.2} instructions (+{percent:.1} %), {place}: {MEND}",
        figure.name(),
        row.value,
        figure.value
    ))
}

/// Writes the file.
pub fn bless(figures: &[Figure], compiler: &str) -> Result<()> {
    if figures.iter().any(|figure| figure.counts.is_none()) {
        return Err(anyhow!("without the plugin not all figures are there: nothing is written"));
    }
    let head = serde_json::to_string(&Head { compiler: compiler.to_owned() })?;
    let rows: Vec<String> =
        figures.iter().map(|figure| serde_json::to_string(&Row::new(figure))).collect::<serde_json::Result<_>>()?;
    fs::write(project::root().join(FILE), format!("{head}\n{}\n", rows.join("\n")))
        .with_context(|| format!("cannot write {FILE}"))
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::super::figures::tests::figure;
    use super::{Baseline, MEND, Row, rounded};

    const COMPILER: &str = "rustc 1";

    fn baseline(figures: &[Figure]) -> Baseline {
        let rows = figures.iter().map(|figure| serde_json::to_string(&Row::new(figure)).expect("plain data"));
        let text = format!("{{\"compiler\":\"{COMPILER}\"}}\n{}\n", rows.collect::<Vec<_>>().join("\n"));
        Baseline::parse(&text).expect("what was just written")
    }

    fn unmap(value: f64) -> Figure {
        Figure { bench: "unmap".to_owned(), mrs: None, ..figure(value, &[]) }
    }

    fn check(before: f64, now: f64, compiler: &str, is_grown: bool) {
        let findings = baseline(&[unmap(before)]).findings(&[unmap(now)], compiler);
        assert_eq!(!findings.is_empty(), is_grown, "{before} -> {now}: {findings:?}");
    }

    #[test]
    fn growth_beyond_a_fiftieth_and_one_instruction_is_found() {
        check(65.03, 66.03, COMPILER, false);
        check(65.03, 66.33, COMPILER, false);
        check(65.03, 66.34, COMPILER, true);
        check(20.0, 21.0, COMPILER, false);
        check(20.0, 21.02, COMPILER, true);
        check(1000.0, 1020.0, COMPILER, false);
        check(1000.0, 1020.01, COMPILER, true);
        check(1000.0, 500.0, COMPILER, false);
    }

    #[test]
    fn messages_must_not_take_an_instruction_more() {
        for compiler in [COMPILER, "rustc 2"] {
            let findings = |now| baseline(&[figure(66.03, &[])]).findings(&[figure(now, &[])], compiler);
            assert!(findings(66.4).is_empty());
            assert!(findings(67.03)[0].contains("from 66.03 to 67.03"));
        }
    }

    #[test]
    fn other_compilers_may_be_worse() {
        check(1000.0, 1100.0, "rustc 2", false);
        check(1000.0, 1251.0, "rustc 2", true);
        let findings = baseline(&[unmap(1000.0)]).findings(&[unmap(2000.0)], "rustc 2");
        assert!(findings[1].contains("are of rustc 1, these are of rustc 2"), "{findings:?}");
    }

    #[test]
    fn the_function_that_grew_is_named() {
        let before = [figure(100.0, &[("entry", 50.0), ("choose", 40.0), ("leave", 10.0)])];
        let now = [figure(130.0, &[("entry", 49.0), ("choose", 52.0), ("leave", 10.3), ("lock", 19.0)])];
        let expected = format!(
            "ipc inter 1 words has grown from 100.00 to 130.00 instructions (+30.0 %), in an operation most in lock \
             (+19.0), choose (+12.0): {MEND}"
        );
        assert_eq!(baseline(&before).findings(&now, COMPILER), [expected]);
    }

    #[test]
    fn a_figure_of_one_side_alone_is_found() {
        let findings = baseline(&[figure(1.0, &[])]).findings(&[unmap(1.0)], COMPILER);
        assert!(findings[0].starts_with("unmap inter is not in"), "{findings:?}");
        assert!(findings[1].starts_with("ipc inter is in"), "{findings:?}");
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        assert!(Baseline::parse("").is_err());
        assert!(Baseline::parse("{\"compiler\":\"x\"}\n{}\n").is_err());
        assert!((rounded(65.034) - 65.03).abs() < 1e-9);
    }
}
