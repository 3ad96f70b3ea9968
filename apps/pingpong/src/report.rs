//! The output.

use core::fmt;

use measure::figure::{Hundredths, Json, Tick};

use crate::options::{Format, Mode};

/// What all rows of a run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How to print.
    pub format: Format,
    /// What is measured.
    pub mode: Mode,
    /// What a tick is.
    pub tick: Tick,
    /// Round trips per row.
    pub rounds: u64,
    /// Name of the architecture.
    pub arch: &'static str,
    /// Number of processors.
    pub cpus: usize,
}

impl Run {
    /// The figure of a row.
    fn json(&self, mrs: u64, ticks: Hundredths) -> Json<'_> {
        Json {
            bench: "ipc",
            mode: self.mode.name(),
            mrs: Some(mrs),
            arch: self.arch,
            cpus: self.cpus,
            tick: self.tick,
            value: Some(ticks),
        }
    }
}

/// A row: a message of some words, sent there and back in each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Words of the message.
    pub mrs: u64,
    /// Ticks of all rounds.
    pub ticks: u64,
    /// Microseconds of all rounds.
    pub us: u64,
}

/// The lines in front of the rows.
pub struct Head<'a>(pub &'a Run);

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.0;
        match run.format {
            Format::Json => Ok(()),
            Format::Lines => writeln!(f, "{}", self.title()),
            Format::Table => {
                writeln!(f, "{}", self.title())?;
                writeln!(f, "{:>4} | {:>12} | {:>12}", "MRs", "ticks", "us")
            }
        }
    }
}

impl Head<'_> {
    fn title(&self) -> impl fmt::Display {
        let Run { mode, tick, rounds, .. } = *self.0;
        fmt::from_fn(move |f| {
            write!(f, "{} ({}), one way, mean of {rounds} rounds; {}", mode.title(), mode.name(), tick.sentence())
        })
    }
}

/// A row as it is printed.
pub struct Line<'a>(pub &'a Run, pub Row);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(run, row) = self;
        let (ticks, us) =
            (Hundredths::quotient(row.ticks, 2 * run.rounds), Hundredths::quotient(row.us, 2 * run.rounds));
        match run.format {
            Format::Table => writeln!(f, "{:>4} | {ticks:12} | {us:12}", row.mrs),
            Format::Lines => writeln!(f, "IPC ({:2} MRs): {ticks} ticks, {us}us", row.mrs),
            Format::Json => writeln!(f, r#"{},"us":{us}}}"#, run.json(row.mrs, ticks)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    fn run(format: Format) -> Run {
        Run { format, mode: Mode::Inter, tick: Tick::Instructions, rounds: 1000, arch: "x86_64", cpus: 1 }
    }

    const ROW: Row = Row { mrs: 7, ticks: 123_456, us: 1234 };

    #[test]
    fn table_has_columns() {
        let run = run(Format::Table);
        assert_eq!(format!("{}", Line(&run, ROW)), "   7 |        61.73 |         0.62\n");
        let head = format!("{}", Head(&run));
        assert!(head.contains("(inter)") && head.contains("a tick is an instruction"), "{head}");
        assert!(head.ends_with(" MRs |        ticks |           us\n"), "{head}");
    }

    #[test]
    fn lines_are_sentences() {
        assert_eq!(format!("{}", Line(&run(Format::Lines), ROW)), "IPC ( 7 MRs): 61.73 ticks, 0.62us\n");
    }

    #[test]
    fn json_has_a_row_per_line_and_no_head() {
        let run = run(Format::Json);
        assert_eq!(format!("{}", Head(&run)), "");
        let expected = concat!(
            r#"{"bench":"ipc","arch":"x86_64","cpus":1,"mode":"inter","mrs":7,"unit":"instructions","#,
            r#""value":61.73,"us":0.62}"#,
            "\n"
        );
        assert_eq!(format!("{}", Line(&run, ROW)), expected);
    }
}
