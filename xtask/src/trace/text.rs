//! Events as lines of text.

use std::fmt::Write;

use kformats::trace::Record;

use super::args::{arguments, name_of};
use super::who::Who;

/// What stands above the lines.
pub const HEADING: &str = "            us  cpu  event                        thread";

/// An event in a line: when, in microseconds of the kernel's clock, on which processor, which, about whom, its arguments.
/// `khz`: what the time-stamp counter counts in a millisecond, at least 1.
pub fn line(record: &Record, khz: u64, who: &Who) -> String {
    let ns = u128::from(record.tsc) * 1_000_000 / u128::from(khz);
    let thread = if record.thread == 0 { "-".to_owned() } else { who.thread(record.thread) };
    let (us, part, name) = (ns / 1000, ns % 1000, name_of(record));
    let mut line = format!("{us:>10}.{part:03}  {:>3}  {name:<27}  {thread:<24}", record.processor);
    for (name, value) in arguments(record, who) {
        // Memory takes any text.
        let _ = write!(line, "  {name}: {value}");
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use kformats::trace::{Event, Record};
    use l4_abi::ThreadId;

    use super::{HEADING, line};
    use crate::trace::who::Who;

    #[test]
    fn a_line_says_it_all() {
        let (a, b) = (ThreadId::global(0x40, 1).raw(), ThreadId::global(0x41, 1).raw());
        let (tsc, event, processor) = (3_703_701, Event::ScheduleDetails as u16, 1);
        let record = Record { tsc, event, processor, thread: a, args: [a, b, 0, 0] };
        let shown = line(&record, 3_000_000, &Who::nobody());
        let expected =
            "      1234.567    1  SCHEDULE_DETAILS             40.1                      from: 40.1  to: 41.1";
        assert_eq!(shown, expected);
        assert_eq!(HEADING.find("event"), shown.find("SCHEDULE"));
        let idle = Record { event: Event::ScheduleIdle as u16, thread: 0, ..record };
        assert!(line(&idle, 3_000_000, &Who::nobody()).ends_with("SCHEDULE_IDLE                -"));
    }
}
