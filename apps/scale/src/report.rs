//! The output.

use core::fmt;

use l4::topology::Relation;
use measure::figure::{Hundredths, Json, Tick};

use crate::options::Part;

/// What all figures of a run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Print JSON.
    pub is_json: bool,
    /// Name of the architecture.
    pub arch: &'static str,
    /// Number of processors.
    pub cpus: usize,
    /// What a tick is.
    pub tick: Tick,
    /// Whether the processors say how they lie to each other.
    pub knows_topology: bool,
}

/// What a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// From one processor to another, and how they lie.
    Between(usize, usize, Relation),
    /// So many pairs or processors.
    Count(usize),
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What was measured.
    pub part: Part,
    /// In which way, if there are several.
    pub way: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// Ticks of all operations.
    pub ticks: u64,
    /// Operations.
    pub count: u64,
    /// How long all took.
    pub us: u64,
}

impl Figure {
    fn value(&self) -> Hundredths {
        Hundredths::quotient(self.ticks, self.count)
    }

    /// Operations per second; `None` if it was too short to say.
    fn per_second(&self) -> Option<u64> {
        (self.count * 1_000_000).checked_div(self.us)
    }
}

/// The lines in front of the figures of a part.
pub struct Head(pub Setting, pub Part);

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(setting, part) = self;
        if setting.is_json {
            return Ok(());
        }
        let title = match part {
            Part::Latency => "IPC between two spaces, one way, from processor (row) to processor (column)",
            Part::Pairs => "IPC of independent pairs, each on a processor of its own, per message of any of them",
            Part::Migrate => {
                "Schedule: a thread moves itself from processor 0 to another or back; another waits and is moved"
            }
            Part::Unmap => "Unmap of a page that a space uses on so many processors besides the caller's",
            Part::Fault => "a page fault on processor 0 whose pager is on another",
        };
        writeln!(f, "{title}; {}", setting.tick.sentence())?;
        if setting.tick == Tick::Instructions {
            writeln!(f, "instructions of all processors count together, one runs at a time")?;
        }
        if matches!(part, Part::Latency) {
            let source = match setting.knows_topology {
                true => "how processors lie to each other is what each says of itself (CPUID leaf 0Bh)",
                false => "the processors do not say how they lie to each other (no CPUID leaf 0Bh)",
            };
            writeln!(f, "{source}")?;
        }
        Ok(())
    }
}

/// A figure as it is printed.
pub struct Line(pub Setting, pub Figure);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(setting, figure) = self;
        if setting.is_json {
            return self.json(f);
        }
        match (figure.part, figure.subject) {
            (Part::Latency, Subject::Between(from, to, _)) => {
                if to == 0 {
                    write!(f, "{from:>4} |")?;
                }
                write!(f, " {:>9}", figure.value())?;
                if to + 1 == setting.cpus { writeln!(f) } else { Ok(()) }
            }
            (_, Subject::Between(_, to, relation)) => {
                writeln!(f, "{:8} {to:>4} {:14} | {:12}", figure.way, relation.name(), figure.value())
            }
            (_, Subject::Count(count)) => {
                write!(f, "{:8} {count:>4} {:14} | {:12}", figure.way, "", figure.value())?;
                match figure.per_second().filter(|_| figure.part == Part::Pairs) {
                    Some(rate) => writeln!(f, " | {rate} per second"),
                    None => writeln!(f),
                }
            }
        }
    }
}

impl Line {
    fn json(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Setting { arch, cpus, tick, .. }, figure) = *self;
        let value = Some(figure.value());
        let mode = figure.part.name();
        write!(f, "{}", Json { bench: "scale", mode, mrs: None, arch, cpus, tick, value })?;
        if !figure.way.is_empty() {
            write!(f, r#","way":"{}""#, figure.way)?;
        }
        match figure.subject {
            Subject::Between(from, to, relation) => {
                write!(f, r#","from":{from},"to":{to},"relation":"{}""#, relation.name())?;
            }
            Subject::Count(count) => write!(f, r#","count":{count}"#)?,
        }
        if let Some(rate) = figure.per_second().filter(|_| figure.part == Part::Pairs) {
            write!(f, r#","per_second":{rate}"#)?;
        }
        writeln!(f, "}}")
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use l4::topology::Relation;
    use measure::figure::Tick;

    use super::{Figure, Head, Line, Setting, Subject};
    use crate::options::Part;

    const SETTING: Setting =
        Setting { is_json: false, arch: "x86_64", cpus: 2, tick: Tick::Instructions, knows_topology: true };

    fn latency(from: usize, to: usize) -> Figure {
        let subject = Subject::Between(from, to, Relation::SameSocket);
        Figure { part: Part::Latency, way: "", subject, ticks: 6500, count: 100, us: 7 }
    }

    #[test]
    fn latencies_are_a_matrix() {
        let lines: String =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(from, to)| format!("{}", Line(SETTING, latency(from, to)))).concat();
        assert_eq!(lines, "   0 |     65.00     65.00\n   1 |     65.00     65.00\n");
    }

    #[test]
    fn pairs_tell_messages_per_second() {
        let figure = Figure { part: Part::Pairs, subject: Subject::Count(3), us: 1000, ..latency(0, 0) };
        let line = format!("{}", Line(SETTING, figure));
        assert!(line.contains("   3 ") && line.ends_with("|        65.00 | 100000 per second\n"), "{line}");
        assert!(!format!("{}", Line(SETTING, Figure { us: 0, ..figure })).contains("second"));
    }

    #[test]
    fn json_has_an_object_per_line_and_no_head() {
        let setting = Setting { is_json: true, ..SETTING };
        assert_eq!(format!("{}", Head(setting, Part::Latency)), "");
        let expected = concat!(
            r#"{"bench":"scale","arch":"x86_64","cpus":2,"mode":"latency","unit":"instructions","value":65.00,"#,
            r#""from":0,"to":1,"relation":"same socket"}"#,
            "\n"
        );
        assert_eq!(format!("{}", Line(setting, latency(0, 1))), expected);
        let figure = Figure { part: Part::Unmap, way: "all", subject: Subject::Count(3), ..latency(0, 0) };
        assert!(format!("{}", Line(setting, figure)).ends_with("\"value\":65.00,\"way\":\"all\",\"count\":3}\n"));
    }

    #[test]
    fn the_head_says_what_the_numbers_mean() {
        let head = |tick, part| format!("{}", Head(Setting { tick, ..SETTING }, part));
        assert!(head(Tick::Instructions, Part::Pairs).contains("instructions of all processors count together"));
        assert!(head(Tick::Meaningless, Part::Pairs).contains("meaningless"));
        assert!(head(Tick::Cycles, Part::Latency).contains("CPUID leaf 0Bh"));
    }
}
