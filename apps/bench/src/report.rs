//! The output.

use core::fmt;

use measure::figure::{Hundredths, Json, Tick};

/// What all figures of a run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the architecture.
    pub arch: &'static str,
    /// Number of processors.
    pub cpus: usize,
    /// What a tick is.
    pub tick: Tick,
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What was measured.
    pub bench: &'static str,
    /// In which way.
    pub mode: &'static str,
    /// Ticks of all operations; `None`: the clock does not tell what matters.
    pub ticks: Option<u64>,
    /// Operations times the parts of an operation for which the value is.
    pub parts: u64,
}

impl Figure {
    fn value(&self) -> Option<Hundredths> {
        self.ticks.map(|ticks| Hundredths::quotient(ticks, self.parts))
    }
}

/// The head of the table.
pub struct Head(pub Setting);

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Ticks of kernel and user code, mean; {}", self.0.tick.sentence())
    }
}

/// A figure as a row of the table.
pub struct Row(pub Figure);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(figure) = self;
        write!(f, "{:20} {:16} ", figure.bench, figure.mode)?;
        match figure.value() {
            Some(value) => writeln!(f, "{value:12}"),
            None => writeln!(f, "{:>12}", "-"),
        }
    }
}

/// A figure as a JSON object in a line.
pub struct Line(pub Setting, pub Figure);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Setting { arch, cpus, tick }, figure) = *self;
        let Figure { bench, mode, .. } = figure;
        writeln!(f, "{}}}", Json { bench, mode, mrs: None, arch, cpus, tick, value: figure.value() })
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::{Figure, Head, Line, Row, Setting};
    use measure::figure::Tick;

    const SETTING: Setting = Setting { arch: "x86_64", cpus: 1, tick: Tick::Instructions };
    const FIGURE: Figure = Figure { bench: "unmap", mode: "64 pages", ticks: Some(6450), parts: 100 };

    #[test]
    fn a_table_has_a_row_per_figure() {
        assert!(format!("{}", Head(SETTING)).ends_with("; a tick is an instruction\n"));
        assert_eq!(format!("{}", Row(FIGURE)), "unmap                64 pages                64.50\n");
        let unknown = Figure { ticks: None, ..FIGURE };
        assert_eq!(format!("{}", Row(unknown)), "unmap                64 pages                    -\n");
    }

    #[test]
    fn json_has_an_object_per_line() {
        let expected = concat!(
            r#"{"bench":"unmap","arch":"x86_64","cpus":1,"mode":"64 pages","unit":"instructions","value":64.50}"#,
            "\n"
        );
        assert_eq!(format!("{}", Line(SETTING, FIGURE)), expected);
    }
}
