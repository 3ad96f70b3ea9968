//! Records as lines of text.

use core::fmt;

use super::{Event, Kind, Record};

/// How thread ids are shown.
pub type Names<'n> = &'n dyn Fn(u64, &mut fmt::Formatter<'_>) -> fmt::Result;

/// Thread ids as numbers, in hexadecimal.
pub fn numbers(thread: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{thread:#x}")
}

/// A record as a line: time, processor, thread, event, arguments.
#[derive(Clone, Copy)]
pub struct Shown<'r> {
    /// What it says.
    pub record: &'r Record,
    /// What the time-stamp counter counts in a millisecond; 0: not known.
    pub tsc_khz: u64,
    /// How threads are shown.
    pub names: Names<'r>,
}

impl Shown<'_> {
    /// The time, microseconds on the kernel's clock; 0 if that is not known.
    pub fn time_us(&self) -> u64 {
        let ticks = u128::from(self.record.tsc) * 1000;
        ticks.checked_div(self.tsc_khz.into()).and_then(|us| u64::try_from(us).ok()).unwrap_or(0)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (record, us) = (self.record, self.time_us());
        write!(f, "{:4}.{:06} cpu {:<2} ", us / 1_000_000, us % 1_000_000, record.processor)?;
        (self.names)(record.thread, f)?;
        f.write_str(" ")?;
        let Some(event) = record.event() else {
            let [a, b, c, d] = record.args;
            return write!(f, "event {} [{a:#x}, {b:#x}, {c:#x}, {d:#x}]", record.event);
        };
        let point = event.point();
        f.write_str(point.name)?;
        for ((name, kind), arg) in point.args.iter().zip(record.args) {
            if *kind != Kind::None {
                write!(f, " {name} ")?;
                match kind {
                    Kind::Thread => (self.names)(arg, f)?,
                    _ => argument(f, *kind, arg)?,
                }
            }
        }
        Ok(())
    }
}

/// An argument as its kind says.
fn argument(f: &mut fmt::Formatter<'_>, kind: Kind, arg: u64) -> fmt::Result {
    match kind {
        Kind::None => Ok(()),
        Kind::Clock if arg == u64::MAX => f.write_str("never"),
        Kind::Space | Kind::Clock | Kind::Processor | Kind::Line | Kind::Number => write!(f, "{arg}"),
        Kind::Call => match usize::try_from(arg).ok().and_then(Event::new) {
            Some(event) => f.write_str(event.point().name),
            None => write!(f, "{arg}"),
        },
        Kind::Rights => {
            let letters = [(4, 'r'), (2, 'w'), (1, 'x')];
            letters.into_iter().try_for_each(|(bit, letter)| write!(f, "{}", if arg & bit != 0 { letter } else { '-' }))
        }
        Kind::Thread
        | Kind::Tag
        | Kind::Address
        | Kind::Physical
        | Kind::Fpage
        | Kind::Timeouts
        | Kind::IpcError
        | Kind::SysError
        | Kind::Port
        | Kind::Word => write!(f, "{arg:#x}"),
    }
}
