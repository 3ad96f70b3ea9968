//! What a trace comes to, in a page of text.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use kformats::trace::{Event, Group, Record};

use super::args::name_of;
use super::who::Who;

/// Threads that are listed, those that ran longest.
const THREADS_SHOWN: usize = 24;
/// Pairs that are listed, those with most messages.
const PAIRS_SHOWN: usize = 12;

/// What a thread did.
#[derive(Clone, Copy, Default)]
struct Deeds {
    /// Ticks that it ran.
    ran: u64,
    calls: u64,
    sent: u64,
    received: u64,
    faults: u64,
    moves: u64,
}

/// Who runs on a processor, and since when.
#[derive(Clone, Copy)]
struct Turn {
    thread: u64,
    since: u64,
}

/// Counts what events tell.
#[derive(Default)]
pub struct Summary {
    threads: BTreeMap<u64, Deeds>,
    pairs: BTreeMap<(u64, u64), u64>,
    events: BTreeMap<String, u64>,
    turns: BTreeMap<u16, Turn>,
    first: Option<u64>,
    last: u64,
    count: u64,
}

impl Summary {
    /// Counts the next event in the order of time.
    pub fn count(&mut self, record: &Record) {
        self.first.get_or_insert(record.tsc);
        self.last = record.tsc;
        self.count += 1;
        *self.events.entry(name_of(record)).or_default() += 1;
        let [first, second, ..] = record.args;
        let Some(event) = record.event() else { return };
        match event {
            Event::ScheduleDetails => self.turn(record.processor, second),
            Event::ScheduleIdle => self.turn(record.processor, 0),
            Event::IpcTransfer => {
                self.deeds(first).sent += 1;
                self.deeds(second).received += 1;
                *self.pairs.entry((first, second)).or_default() += 1;
            }
            Event::PagefaultUser | Event::PagefaultTunnel => self.deeds(record.thread).faults += 1,
            Event::ThreadMigrate => self.deeds(first).moves += 1,
            Event::SyscallReturn => {}
            _ if event.point().group == Group::Calls => {
                self.turn(record.processor, record.thread);
                self.deeds(record.thread).calls += 1;
            }
            _ => {}
        }
    }

    fn deeds(&mut self, thread: u64) -> &mut Deeds {
        self.threads.entry(thread).or_default()
    }

    /// From now on the processor runs this thread; 0: none.
    fn turn(&mut self, processor: u16, thread: u64) {
        let now = self.last;
        let before = self.turns.get(&processor).copied();
        if before.is_some_and(|turn| turn.thread == thread) {
            return;
        }
        if let Some(turn) = before {
            self.deeds(turn.thread).ran += now.saturating_sub(turn.since);
        }
        self.turns.insert(processor, Turn { thread, since: now });
    }

    /// All of it. `lost` and `left_out`: events that are not in the trace.
    pub fn shown<'s>(&'s self, who: &'s Who, unit: &'s str, lost: u64, left_out: u64) -> impl Display + 's {
        Shown { summary: self, who, unit, lost, left_out }
    }
}

struct Shown<'s> {
    summary: &'s Summary,
    who: &'s Who,
    unit: &'s str,
    lost: u64,
    left_out: u64,
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.summary.last - self.summary.first.unwrap_or(self.summary.last);
        writeln!(f, "trace: {} events in {span} {}", self.summary.count, self.unit)?;
        match self.lost {
            0 => writeln!(f, "trace: none was lost")?,
            lost => writeln!(f, "trace: {lost} were overwritten before they could be read")?,
        }
        if self.left_out > 0 {
            writeln!(f, "trace: {} came before these, which are the newest of each processor", self.left_out)?;
        }
        self.threads(f)?;
        self.pairs(f)?;
        writeln!(f, "\nevents")?;
        self.summary.events.iter().try_for_each(|(name, count)| writeln!(f, "{count:>12}  {name}"))
    }
}

impl Shown<'_> {
    /// What threads did, with the turns that have not ended.
    fn threads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut threads = self.summary.threads.clone();
        for turn in self.summary.turns.values() {
            threads.entry(turn.thread).or_default().ran += self.summary.last.saturating_sub(turn.since);
        }
        let idle = threads.remove(&0).unwrap_or_default();
        let mut threads: Vec<(u64, Deeds)> = threads.into_iter().collect();
        threads.sort_by_key(|(id, deeds)| (std::cmp::Reverse(deeds.ran), *id));
        writeln!(
            f,
            "\n{:<28} {:>14} {:>8} {:>8} {:>8} {:>7} {:>6}",
            "thread", "ran", "calls", "sent", "received", "faults", "moves"
        )?;
        for (id, deeds) in threads.iter().take(THREADS_SHOWN) {
            let Deeds { ran, calls, sent, received, faults, moves } = deeds;
            let name = self.who.thread(*id);
            writeln!(f, "{name:<28} {ran:>14} {calls:>8} {sent:>8} {received:>8} {faults:>7} {moves:>6}")?;
        }
        match threads.len().saturating_sub(THREADS_SHOWN) {
            0 => {}
            more => writeln!(f, "and {more} more that ran less")?,
        }
        writeln!(f, "{:<28} {:>14}", "nobody", idle.ran)
    }

    fn pairs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pairs: Vec<_> = self.summary.pairs.iter().collect();
        pairs.sort_by_key(|(pair, count)| (std::cmp::Reverse(**count), **pair));
        writeln!(f, "\nmessages")?;
        for ((from, to), count) in pairs.iter().take(PAIRS_SHOWN) {
            writeln!(f, "{count:>12}  {} -> {}", self.who.thread(*from), self.who.thread(*to))?;
        }
        match pairs.len().saturating_sub(PAIRS_SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more pairs with fewer messages"),
        }
    }
}

#[cfg(test)]
mod tests {
    use kformats::trace::{Event, Record};
    use l4_abi::ThreadId;

    use super::Summary;
    use crate::trace::who::Who;

    fn id(number: u64) -> u64 {
        ThreadId::global(number, 1).raw()
    }

    #[test]
    fn what_threads_did_is_counted() {
        let (a, b) = (id(0x40), id(0x41));
        let mut summary = Summary::default();
        let mut add = |tsc: u64, event: Event, thread: u64, args: [u64; 4]| {
            summary.count(&Record { tsc, event: event as u16, processor: 1, thread, args });
        };
        add(100, Event::ScheduleDetails, a, [0, a, 0, 0]);
        add(110, Event::SyscallIpc, a, [b, b, 0, 0]);
        add(115, Event::IpcTransfer, a, [a, b, 0, 0]);
        add(120, Event::ScheduleDetails, a, [a, b, 0, 0]);
        add(150, Event::PagefaultUser, b, [0x1000, 0, 2, 0]);
        add(160, Event::ScheduleIdle, 0, [0; 4]);
        add(200, Event::ScheduleDetails, 0, [0, a, 0, 0]);
        add(207, Event::ThreadMigrate, a, [a, 1, 0, 0]);
        let text = summary.shown(&Who::nobody(), "instructions", 3, 0).to_string();
        let expected = "trace: 8 events in 107 instructions\n\
            trace: 3 were overwritten before they could be read\n\n\
            thread                                  ran    calls     sent received  faults  moves\n\
            41.1                                     40        0        0        1       1      0\n\
            40.1                                     27        1        1        0       0      1\n\
            nobody                                   40\n\n\
            messages\n           1  40.1 -> 41.1\n\n\
            events\n           1  IPC_TRANSFER\n           1  PAGEFAULT_USER\n           3  SCHEDULE_DETAILS\n           \
            1  SCHEDULE_IDLE\n           1  SYSCALL_IPC\n           1  THREAD_MIGRATE\n";
        assert_eq!(text, expected);
    }
}
