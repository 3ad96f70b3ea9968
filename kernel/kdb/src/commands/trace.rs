//! Tracepoints and the trace (menus `r` and `y`): what is recorded, and what was.

use core::fmt::{self, Display, Write};
use core::ops::ControlFlow;

use kcore::machine::Machine;
use kformats::trace::{Event, Group, Memory, Merged, POINTS, Record, Ring, Shown, Store, head, root};
use l4_abi::trace_buffer::{header, record};
use l4_abi::{ThreadId, Word};

use crate::menu::Done;
use crate::names::{Name, Named};
use crate::probe::Probe;
use crate::session::Session;
use crate::words;

/// What of the trace is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filters {
    /// Events of these groups, and these events: a bit for each.
    pub(crate) groups: u64,
    pub(crate) events: u64,
    /// Of this processor alone.
    pub(crate) cpu: Option<u16>,
    /// About this thread alone, by its global id.
    pub(crate) thread: Option<u64>,
}

impl Filters {
    /// Everything is shown.
    pub const NONE: Self = Self { groups: u64::MAX, events: u64::MAX, cpu: None, thread: None };

    fn mean(&self, record: &Record) -> bool {
        let bit = 1u64.checked_shl(record.event.into()).unwrap_or(0);
        self.groups & self.events & bit != 0
            && self.cpu.is_none_or(|cpu| cpu == record.processor)
            && self.thread.is_none_or(|thread| thread == record.thread)
    }
}

/// Events that a dump shows unless another number is asked for.
const SHOWN: u64 = 100;

/// The rings as the probe has them.
struct Rings<'p>(&'p dyn Probe);

impl Memory for Rings<'_> {
    fn load(&self, at: u64) -> Option<u64> {
        self.0.ring_word(at)
    }
}

impl Store for Rings<'_> {
    fn get(&self, at: u64) -> u64 {
        self.0.ring_word(at).unwrap_or(0)
    }
    fn set(&self, at: u64, word: u64) {
        self.0.set_ring_word(at, word);
    }
}

/// The ring of a processor.
fn ring_of(probe: &dyn Probe, cpu: usize) -> Option<Ring> {
    let count = probe.trace_word(root::RINGS_COUNT)?;
    let at = probe.trace_word(root::RINGS + cpu).filter(|_| (cpu as u64) < count)?;
    (at != 0).then_some(Ring(at))
}

impl<M: Machine + 'static> Session<'_, '_, M> {
    /// The rings there are, with their processors.
    fn rings(&self) -> impl Iterator<Item = (usize, Ring)> + '_ {
        let count = self.probe.trace_word(root::RINGS_COUNT).unwrap_or(0) as usize;
        (0..count.min(self.k.cpus.len())).filter_map(|cpu| Some((cpu, ring_of(&*self.probe, cpu)?)))
    }

    fn head(&self, ring: Ring, word: usize) -> u64 {
        ring.head(&Rings(&*self.probe), word).unwrap_or(0)
    }

    /// Ends the command if the kernel has no tracepoints, or none that this debugger knows.
    fn need_trace(&mut self) -> fmt::Result {
        match self.probe.trace_word(root::LAYOUT) {
            Some(layout) if layout == kformats::trace::layout() => Ok(()),
            Some(_) => self.refuse(format_args!("the trace is of another kernel, or is not there yet")),
            None => self.refuse(format_args!("this kernel was built without tracepoints")),
        }
    }

    /// Events by name: tracepoints, groups, lists of both.
    fn ask_events(&mut self, what: &str) -> Result<u64, fmt::Error> {
        let names = |index: usize| {
            let groups = Group::ALL.get(index).map(|group| group.name());
            groups.or_else(|| Some(POINTS.get(index.checked_sub(Group::ALL.len())?)?.name))
        };
        let answer = self.ask_word(format_args!("{what}: a tracepoint or group, or a list"), &names)?;
        let by_number = || {
            let number = words::number(&answer)? as usize;
            Event::new(number).map(Event::bit)
        };
        match Event::list(answer.as_bytes()).or_else(by_number) {
            Some(events) => Ok(events),
            None => self.refuse(format_args!("{answer} is no tracepoint: l lists them")),
        }
    }

    /// Processors: one, or all.
    fn ask_cpus(&mut self) -> Result<Option<usize>, fmt::Error> {
        let answer = self.ask_text("processor [all]")?;
        match words::number(&answer).and_then(|number| usize::try_from(number).ok()) {
            _ if answer.is_empty() || answer.as_str() == "all" => Ok(None),
            Some(cpu) if cpu < self.k.cpus.len() => Ok(Some(cpu)),
            _ => self.refuse(format_args!("there are {} processors, from 0 on", self.k.cpus.len())),
        }
    }

    /// Changes a mask of some processors.
    fn change_masks(&mut self, cpu: Option<usize>, word: usize, clear: u64, set: u64) {
        for (own, ring) in self.rings() {
            if cpu.is_none_or(|cpu| cpu == own) {
                ring.set_mask(&Rings(&*self.probe), word, self.head(ring, word) & !clear | set);
            }
        }
        self.probe.trace_changed();
    }

    // --- tracepoints ---

    pub(super) fn list_tracepoints(&mut self) -> Done {
        self.need_trace()?;
        for (number, point) in POINTS.iter().enumerate() {
            let bit = point.event.bit();
            let (mut recorded, mut stops, mut count, mut rings) = (0, 0, 0u64, 0);
            for (_, ring) in self.rings() {
                rings += 1;
                recorded += u64::from(self.head(ring, head::RECORDED) & bit != 0);
                stops += u64::from(self.head(ring, head::STOPS) & bit != 0);
                count = count.wrapping_add(self.head(ring, head::COUNTERS + number));
            }
            write!(self.out, "{number:2x} {:28} {:10} {count:10} ", point.name, point.group.name())?;
            for (name, processors) in [("recorded", recorded), ("stops", stops)] {
                match processors {
                    0 => {}
                    all if all == rings => write!(self.out, " {name}")?,
                    some => write!(self.out, " {name} by {some} processors")?,
                }
            }
            writeln!(self.out)?;
        }
        self.list_restrictions()
    }

    /// Threads and lines of which alone events are recorded.
    fn list_restrictions(&mut self) -> Done {
        let word = |session: &Self, index: usize| session.probe.trace_word(index).unwrap_or(0);
        for index in 0..(word(self, root::CHOSEN_COUNT) as usize).min(root::CHOSEN_MAX) {
            let id = ThreadId::from_raw(word(self, root::CHOSEN + index) as Word);
            let shown = self.name_of(id);
            writeln!(self.out, "only of thread {shown}")?;
        }
        let lines: [u64; root::LINES_WORDS] = core::array::from_fn(|index| word(self, root::LINES + index));
        if lines != [0; root::LINES_WORDS] {
            write!(self.out, "only of interrupt lines")?;
            for line in (0..64 * root::LINES_WORDS).filter(|line| lines[line / 64] >> (line % 64) & 1 != 0) {
                write!(self.out, " {line}")?;
            }
            writeln!(self.out)?;
        }
        Ok(None)
    }

    pub(super) fn enable_tracepoint(&mut self) -> Done {
        self.need_trace()?;
        let events = self.ask_events("enable")?;
        let stops = self.ask_key("record, or enter the debugger", "re")? == 'e';
        let cpu = self.ask_cpus()?;
        self.change_masks(cpu, if stops { head::STOPS } else { head::RECORDED }, 0, events);
        Ok(None)
    }

    pub(super) fn disable_tracepoint(&mut self) -> Done {
        self.need_trace()?;
        let events = self.ask_events("disable")?;
        let cpu = self.ask_cpus()?;
        self.change_masks(cpu, head::RECORDED, events, 0);
        self.change_masks(cpu, head::STOPS, events, 0);
        Ok(None)
    }

    pub(super) fn enable_all_tracepoints(&mut self) -> Done {
        self.need_trace()?;
        self.change_masks(None, head::RECORDED, 0, Event::ALL);
        Ok(None)
    }

    pub(super) fn disable_all_tracepoints(&mut self) -> Done {
        self.need_trace()?;
        self.change_masks(None, head::RECORDED, u64::MAX, 0);
        self.change_masks(None, head::STOPS, u64::MAX, 0);
        Ok(None)
    }

    pub(super) fn reset_counters(&mut self) -> Done {
        self.need_trace()?;
        self.rings().for_each(|(_, ring)| ring.reset_counters(&Rings(&*self.probe)));
        Ok(None)
    }

    /// Events of interrupts are those of some lines.
    pub(super) fn restrict_interrupts(&mut self) -> Done {
        self.need_trace()?;
        let answer = self.ask_text("lines, with commas between them [all]")?;
        let mut lines = [0u64; root::LINES_WORDS];
        for part in answer.split(',').filter(|part| !part.trim().is_empty() && answer.as_str() != "all") {
            let line = words::number(part.trim()).map_or(usize::MAX, |line| line as usize);
            match lines.get_mut(line / 64) {
                Some(word) => *word |= 1 << (line % 64),
                None => return self.refuse(format_args!("{part} is no line")),
            }
        }
        for (index, word) in lines.into_iter().enumerate() {
            self.probe.set_trace_word(root::LINES + index, word);
        }
        Ok(None)
    }

    /// Events are those of one thread more, or of all.
    pub(super) fn choose_traced_thread(&mut self) -> Done {
        self.need_trace()?;
        if self.ask_key("a thread more, or all threads", "ta")? == 'a' {
            self.probe.set_trace_word(root::CHOSEN_COUNT, 0);
            return Ok(None);
        }
        let thread = self.ask_thread()?;
        let id = self.k.tcb(thread).view().id.raw() as u64;
        let count = self.probe.trace_word(root::CHOSEN_COUNT).unwrap_or(0) as usize;
        if count >= root::CHOSEN_MAX {
            return self.refuse(format_args!("{} threads are chosen, which is all there can be", root::CHOSEN_MAX));
        }
        self.probe.set_trace_word(root::CHOSEN + count, id);
        self.probe.set_trace_word(root::CHOSEN_COUNT, count as u64 + 1);
        Ok(None)
    }

    // --- the trace ---

    pub(super) fn dump_trace(&mut self) -> Done {
        self.need_trace()?;
        let count = self.ask_number("events at most", SHOWN)?;
        let window = self.ask_number("of the last microseconds, 0: all", 0)?;
        self.show_trace(count, window)
    }

    pub(super) fn dump_trace_at_once(&mut self) -> Done {
        self.need_trace()?;
        self.show_trace(SHOWN, 0)
    }

    fn show_trace(&mut self, count: u64, window_us: u64) -> Done {
        let khz = self.probe.trace_word(root::TSC_KHZ).unwrap_or(0);
        let oldest_us = if window_us == 0 { 0 } else { self.probe.now_us().saturating_sub(window_us) };
        let oldest = u128::from(oldest_us) * u128::from(khz) / 1000;
        let filters = self.state.filters;
        let probe = &*self.probe;
        let names = |thread: u64, f: &mut fmt::Formatter<'_>| match probe.name(named(thread)) {
            _ if thread == 0 => f.write_str("-"),
            name => NamedId(ThreadId::from_raw(thread as Word), name).fmt(f),
        };
        let is_meant = |record: &Record| filters.mean(record) && u128::from(record.tsc) >= oldest;
        let out = &mut self.out;
        let mut shown = 0;
        let whole = Merged { memory: &Rings(probe), ring_of: &|cpu| ring_of(probe, cpu), count: self.k.cpus.len() }
            .last(usize::try_from(count).unwrap_or(usize::MAX), is_meant, |record| {
                shown += 1;
                match writeln!(out, "{}", Shown { record, tsc_khz: khz, names: &names }) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                }
            });
        if let ControlFlow::Break(error) = whole {
            return Err(error);
        }
        writeln!(self.out, "{shown} events")?;
        Ok(None)
    }

    /// Records of programs in the trace buffer, from the one behind the last: those that are there longest come first.
    pub(super) fn dump_of_programs(&mut self) -> Done {
        let Some(capacity) = self.probe.trace_buffer_word(header::MAX).filter(|&capacity| capacity > 0) else {
            return self.refuse(format_args!("this kernel was built without a trace buffer for programs"));
        };
        let current = self.probe.trace_buffer_word(header::CURRENT).unwrap_or(0);
        let mut shown = 0;
        for step in 1..=capacity {
            let index = (current.wrapping_add(step) % capacity) as usize;
            let first = header::WORDS.saturating_add(index.saturating_mul(record::WORDS));
            let word = |word: usize| self.probe.trace_buffer_word(first.saturating_add(word));
            // The header is programs' to write: there may be less.
            let Some(kind) = word(record::TYPE) else { break };
            if kind & 0xFFFF == 0 {
                continue;
            }
            let [place, tsc, thread] = [record::WHERE, record::TSC, record::THREAD].map(|own| word(own).unwrap_or(0));
            let args: [u64; record::ARGS_MAX] = core::array::from_fn(|arg| word(record::ARGS + arg).unwrap_or(0));
            let name = self.name_of(ThreadId::from_raw(thread as Word));
            let (cpu, id) = (place & 0xFFFF, place >> 16 & 0xFFFF);
            writeln!(self.out, "{tsc:16x} cpu {cpu} {name} type {} event {id} {args:x?}", kind & 0xFFFF)?;
            shown += 1;
        }
        writeln!(self.out, "{shown} records")?;
        Ok(None)
    }

    pub(super) fn reset_trace(&mut self) -> Done {
        self.need_trace()?;
        self.rings().for_each(|(_, ring)| ring.clear(&Rings(&*self.probe)));
        Ok(None)
    }

    pub(super) fn show_counters(&mut self) -> Done {
        self.need_trace()?;
        for point in POINTS {
            let counts = |session: &Self| {
                let counter = head::COUNTERS + point.event.number();
                session.rings().fold(0, |sum: u64, (_, ring)| sum.wrapping_add(session.head(ring, counter)))
            };
            let all = counts(self);
            if all == 0 {
                continue;
            }
            write!(self.out, "{:28} {all:10} ", point.name)?;
            for cpu in 0..self.k.cpus.len() {
                let Some(ring) = ring_of(&*self.probe, cpu) else { continue };
                match self.head(ring, head::COUNTERS + point.event.number()) {
                    0 => {}
                    count => write!(self.out, " cpu {cpu}: {count}")?,
                }
            }
            writeln!(self.out)?;
        }
        Ok(None)
    }

    /// What is recorded, by all processors.
    pub(super) fn set_recorded(&mut self) -> Done {
        self.need_trace()?;
        let events = self.ask_events("record")?;
        self.change_masks(None, head::RECORDED, u64::MAX, events);
        Ok(None)
    }

    pub(super) fn filter_groups(&mut self) -> Done {
        self.state.filters.groups = self.ask_events("show")?;
        Ok(None)
    }

    pub(super) fn filter_events(&mut self) -> Done {
        self.state.filters.events = self.ask_events("show")?;
        Ok(None)
    }

    pub(super) fn filter_cpu(&mut self) -> Done {
        self.state.filters.cpu = self.ask_cpus()?.map(|cpu| cpu as u16);
        Ok(None)
    }

    pub(super) fn filter_thread(&mut self) -> Done {
        let thread = self.ask_thread()?;
        self.state.filters.thread = Some(self.k.tcb(thread).view().id.raw() as u64);
        Ok(None)
    }

    pub(super) fn clear_filters(&mut self) -> Done {
        self.state.filters = Filters::NONE;
        Ok(None)
    }

    pub(super) fn show_filters(&mut self) -> Done {
        let filters = self.state.filters;
        if let Some(cpu) = filters.cpu {
            writeln!(self.out, "of processor {cpu}")?;
        }
        if let Some(thread) = filters.thread {
            let shown = self.name_of(ThreadId::from_raw(thread as Word));
            writeln!(self.out, "about thread {shown}")?;
        }
        let events = filters.groups & filters.events & Event::ALL;
        if events == Event::ALL {
            writeln!(self.out, "all events")?;
            return Ok(None);
        }
        for point in POINTS.iter().filter(|point| events & point.event.bit() != 0) {
            writeln!(self.out, "{}", point.name)?;
        }
        Ok(None)
    }

    fn name_of(&self, id: ThreadId) -> NamedId {
        NamedId(id, self.probe.name(Named::Thread(id)))
    }
}

fn named(thread: u64) -> Named {
    Named::Thread(ThreadId::from_raw(thread as Word))
}

/// A thread id with the name that the thread has.
struct NamedId(ThreadId, Option<Name>);

impl fmt::Display for NamedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == ThreadId::ANY {
            return f.write_str("any");
        }
        if self.0.is_local() {
            return write!(f, "{:x}", self.0.raw());
        }
        write!(f, "{:x}.{:x}", self.0.thread_no(), self.0.version())?;
        match &self.1 {
            Some(name) => write!(f, "({})", name.as_str()),
            None => Ok(()),
        }
    }
}
