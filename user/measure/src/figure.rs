//! Figures: what is measured, in which unit, as a number with two decimals.

use core::fmt;

/// A number with two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hundredths(u64);

impl Hundredths {
    /// `value / divisor`, rounded to the nearest hundredth.
    pub const fn quotient(value: u64, divisor: u64) -> Self {
        let hundredths = (value as u128 * 100 + divisor as u128 / 2) / divisor as u128;
        Self(hundredths as u64)
    }
}

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match f.width() {
            Some(width) => write!(f, "{whole:width$}.{rest:02}", width = width.saturating_sub(3)),
            None => write!(f, "{whole}.{rest:02}"),
        }
    }
}

/// What the time-stamp counter counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nobody said.
    Tsc,
    /// Instructions: the emulator lets one nanosecond pass with each.
    Instructions,
    /// Cycles of the processor.
    Cycles,
    /// Nothing that says something: emulation as fast as it goes.
    Meaningless,
}

impl Tick {
    /// The unit of this name, which the command line says; nobody says [`Self::Tsc`].
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Instructions, Self::Cycles, Self::Meaningless].into_iter().find(|tick| tick.name() == name)
    }

    /// The unit as the command line and JSON write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tsc => "tsc",
            Self::Instructions => "instructions",
            Self::Cycles => "cycles",
            Self::Meaningless => "meaningless",
        }
    }

    /// The sentence for the head of a table.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Tsc => "ticks are TSC ticks",
            Self::Instructions => "a tick is an instruction",
            Self::Cycles => "a tick is a cycle",
            Self::Meaningless => "ticks are meaningless here: the emulator does not count",
        }
    }
}

/// A figure as a JSON object, without the brace at the end: more members may follow.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a> {
    /// What is measured.
    pub bench: &'a str,
    /// In which way.
    pub mode: &'a str,
    /// Words of the message, where there is one.
    pub mrs: Option<u64>,
    /// Name of the architecture.
    pub arch: &'a str,
    /// Number of processors.
    pub cpus: usize,
    /// What it is measured in.
    pub tick: Tick,
    /// The figure; `None`: the clock cannot tell.
    pub value: Option<Hundredths>,
}

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bench, mode, mrs, arch, cpus, tick, value } = self;
        write!(f, r#"{{"bench":"{bench}","arch":"{arch}","cpus":{cpus},"mode":"{mode}""#)?;
        if let Some(mrs) = mrs {
            write!(f, r#","mrs":{mrs}"#)?;
        }
        write!(f, r#","unit":"{}","value":"#, tick.name())?;
        match value {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::{Hundredths, Json, Tick};

    #[test]
    fn quotients_have_two_decimals_rounded() {
        let rows =
            [(0, 1, "0.00"), (1, 3, "0.33"), (2, 3, "0.67"), (123_456, 2000, "61.73"), (u64::MAX, u64::MAX, "1.00")];
        for (value, divisor, text) in rows {
            assert_eq!(format!("{}", Hundredths::quotient(value, divisor)), text);
        }
        assert_eq!(format!("{:8}|", Hundredths::quotient(61, 1)), "   61.00|");
    }

    #[test]
    fn units_have_names() {
        for tick in [Tick::Instructions, Tick::Cycles, Tick::Meaningless] {
            assert_eq!(Tick::of_name(tick.name()), Some(tick));
        }
        assert_eq!(Tick::of_name("hour"), None);
    }

    #[test]
    fn figures_are_members_of_an_object() {
        let mut json = Json {
            bench: "ipc",
            mode: "inter",
            mrs: Some(7),
            arch: "x86_64",
            cpus: 1,
            tick: Tick::Instructions,
            value: Some(Hundredths::quotient(123, 2)),
        };
        let expected =
            r#"{"bench":"ipc","arch":"x86_64","cpus":1,"mode":"inter","mrs":7,"unit":"instructions","value":61.50"#;
        assert_eq!(format!("{json}"), expected);
        (json.mrs, json.value) = (None, None);
        let expected = r#"{"bench":"ipc","arch":"x86_64","cpus":1,"mode":"inter","unit":"instructions","value":null"#;
        assert_eq!(format!("{json}"), expected);
    }
}
