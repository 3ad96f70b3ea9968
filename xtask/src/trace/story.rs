//! What events tell of threads and processors, as slices, arrows and marks in a trace file.
//!
//! Each thread has a row in the group of its space. There it is, one after the other,
//!
//! - `runs`, on a processor, in user mode;
//! - `ready`, if it could run, but somebody else does;
//! - in a system call, or `page fault`, `port fault`, `exception`, until it is answered; in there it `waits` while others
//!   run in its place.
//!
//! Each processor has a row in a group of their own, with who runs there and the interrupts that come. A message is an
//! arrow from the row of the sender to that of the receiver; interrupts that send messages have rows, too. All else is a mark
//! in the row of whom it is about.
//!
//! Of `runs`, `ready` and `waits` those that took no time are left out: viewers see ends before beginnings at the same time, and
//! would take a slice without length for one without end.
//!
//! A trace need not begin at the beginning, and there may be gaps in it: then a thread is what the next event says that
//! it is, and what had begun before ends there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use kformats::trace::{Event, Group, Record};

use super::args::{arguments, name_of};
use super::json::{Args, Track, Writer};
use super::who::Who;

/// The group of processors.
const PROCESSORS: u64 = 1;
/// The group of interrupts.
const INTERRUPTS: u64 = 2;
/// The group of threads of which it is not known where they are.
const NOWHERE: u64 = 3;
/// The group of the first space; those of others follow by their numbers.
const SPACES: u64 = 1000;
/// What stands between the rows of two threads with one number, one after the other.
const GENERATION: u64 = 1_000_000;

/// What a thread is doing, from the outside to the inside.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Layer {
    Runs,
    Ready,
    /// A system call.
    Call(Event),
    /// A fault or an exception, which somebody answers.
    Fault(&'static str),
    Waits,
}

impl Layer {
    fn name(&self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Ready => "ready",
            Self::Call(event) => call_name(*event),
            Self::Fault(name) => name,
            Self::Waits => "waits",
        }
    }

    fn category(&self) -> &'static str {
        match self {
            Self::Runs | Self::Ready | Self::Waits => "schedule",
            Self::Call(_) => "call",
            Self::Fault(_) => "fault",
        }
    }
}

/// The manual's name of a system call.
fn call_name(event: Event) -> &'static str {
    match event {
        Event::SyscallIpc => "Ipc",
        Event::SyscallExchangeRegisters => "ExchangeRegisters",
        Event::SyscallThreadControl | Event::SyscallThreadControlIrq => "ThreadControl",
        Event::SyscallThreadSwitch => "ThreadSwitch",
        Event::SyscallSchedule => "Schedule",
        Event::SyscallUnmap => "Unmap",
        Event::SyscallSpaceControl => "SpaceControl",
        Event::SyscallProcessorControl => "ProcessorControl",
        Event::SyscallMemoryControl => "MemoryControl",
        other => other.point().name,
    }
}

/// What is known of a thread.
struct Actor {
    track: Track,
    /// Slices that have begun and not ended.
    layers: Vec<Layer>,
    /// The processor that it is on.
    on: Option<u16>,
}

/// Tells a trace into a file.
pub struct Story<'w, W: Write> {
    out: Writer<W>,
    who: &'w Who,
    actors: BTreeMap<u64, Actor>,
    /// Whom a processor runs.
    running: BTreeMap<u16, u64>,
    groups: BTreeSet<u64>,
    /// Threads that had a number, by it.
    generations: BTreeMap<u64, u64>,
    /// Spaces of threads as far as the trace has told.
    spaces: BTreeMap<u64, usize>,
    /// Threads with an innermost slice that begins now, which is told when time has gone on, with its arguments.
    pending: BTreeMap<u64, Args>,
    now: u64,
}

impl<'w, W: Write> Story<'w, W> {
    /// Begins a file.
    pub fn new(out: Writer<W>, who: &'w Who) -> Self {
        Self {
            out,
            who,
            actors: BTreeMap::new(),
            running: BTreeMap::new(),
            groups: BTreeSet::new(),
            generations: BTreeMap::new(),
            spaces: BTreeMap::new(),
            pending: BTreeMap::new(),
            now: 0,
        }
    }

    /// Ends it: what is still going on ends a nanosecond after the last event.
    pub fn finish(mut self, about: &Args) -> io::Result<W> {
        self.settle()?;
        self.now += self.out.ticks_of_ns();
        let all: Vec<u64> = self.actors.keys().copied().collect();
        all.into_iter().try_for_each(|thread| self.unwind(thread, 0, Args::new()))?;
        let processors: Vec<u16> = self.running.keys().copied().collect();
        processors.into_iter().try_for_each(|processor| self.run_nobody(processor))?;
        self.out.finish(about)
    }

    /// Tells the next event.
    pub fn tell(&mut self, record: &Record) -> io::Result<()> {
        if record.tsc > self.now {
            self.settle()?;
        }
        self.now = record.tsc;
        let [first, second, ..] = record.args;
        match record.event() {
            Some(Event::ScheduleDetails) => self.switch(record.processor, second),
            Some(Event::ScheduleIdle) => self.switch(record.processor, 0),
            Some(Event::SyscallReturn) => self.call_ends(record),
            Some(Event::IpcTransfer) => self.message(record, first, second),
            Some(Event::PagefaultUser) => self.enter(record, Layer::Fault("page fault")),
            Some(Event::X86IoPortSpace) => self.enter(record, Layer::Fault("port fault")),
            Some(Event::ExceptionIpc) => self.exception(record),
            Some(Event::ThreadCreate) => {
                self.spaces.insert(first, second as usize);
                self.mark(record, Some(first))
            }
            Some(Event::ThreadDelete) => {
                self.unwind(first, 0, Args::new())?;
                self.mark(record, Some(first))
            }
            Some(Event::ThreadMigrate | Event::IpcXcpuDetails) => self.mark(record, Some(first)),
            Some(event) if event.point().group == Group::Interrupts => self.mark(record, None),
            Some(Event::X86ApicTimer | Event::X86Hlt) => self.mark(record, None),
            Some(event) if event.point().group == Group::Calls => self.enter(record, Layer::Call(event)),
            _ => self.mark(record, Some(record.thread)),
        }
    }

    /// Tells of the slices that begin now: time goes on.
    fn settle(&mut self) -> io::Result<()> {
        for (thread, args) in std::mem::take(&mut self.pending) {
            let Some(actor) = self.actors.get(&thread) else { continue };
            let Some(layer) = actor.layers.last() else { continue };
            self.out.begin(actor.track, self.now, layer.category(), layer.name(), args)?;
        }
        Ok(())
    }

    fn args(&self, record: &Record) -> Args {
        arguments(record, self.who).map(|(name, text)| (name.to_owned(), text.into())).collect()
    }

    /// The row of a thread.
    fn track(&mut self, thread: u64) -> io::Result<Track> {
        if let Some(actor) = self.actors.get(&thread) {
            return Ok(actor.track);
        }
        let number = l4_abi::ThreadId::from_raw(thread).thread_no();
        let before = self.generations.entry(number).or_default();
        let tid = number + *before * GENERATION;
        *before += 1;
        let pid = self.group(thread)?;
        let track = Track { pid, tid };
        self.out.name_row(track, &self.who.thread(thread), tid)?;
        self.actors.insert(thread, Actor { track, layers: Vec::new(), on: None });
        Ok(track)
    }

    /// The group in which a thread's row is.
    fn group(&mut self, thread: u64) -> io::Result<u64> {
        let space = self.spaces.get(&thread).or_else(|| self.who.homes.get(&thread)).copied();
        let (pid, name) = match space {
            _ if self.who.is_interrupt(thread) => (INTERRUPTS, "interrupts".to_owned()),
            Some(space) => (SPACES + space as u64, self.who.space(space as u64)),
            None => (NOWHERE, "unknown space".to_owned()),
        };
        self.begin_group(pid, &name)?;
        Ok(pid)
    }

    fn begin_group(&mut self, pid: u64, name: &str) -> io::Result<()> {
        if self.groups.insert(pid) { self.out.name_group(pid, name, pid) } else { Ok(()) }
    }

    /// The row of a processor.
    fn processor(&mut self, processor: u16) -> io::Result<Track> {
        let track = Track { pid: PROCESSORS, tid: u64::from(processor) + 1 };
        self.begin_group(PROCESSORS, "processors")?;
        if self.groups.insert(u64::MAX - u64::from(processor)) {
            self.out.name_row(track, &format!("processor {processor}"), track.tid)?;
        }
        Ok(track)
    }

    fn layers(&self, thread: u64) -> &[Layer] {
        self.actors.get(&thread).map_or(&[], |actor| &actor.layers)
    }

    /// Ends slices of a thread until `left` are left; `args` belong to the last one of them.
    fn unwind(&mut self, thread: u64, left: usize, args: Args) -> io::Result<()> {
        let Some(actor) = self.actors.get_mut(&thread) else { return Ok(()) };
        let mut args = Some(args);
        while actor.layers.len() > left {
            let Some(layer) = actor.layers.pop() else { break };
            let args = if actor.layers.len() == left { args.take() } else { None };
            if self.pending.remove(&thread).is_some() {
                continue;
            }
            self.out.end(actor.track, self.now, layer.name(), args.unwrap_or_default())?;
        }
        Ok(())
    }

    fn push(&mut self, thread: u64, layer: Layer, args: Args) -> io::Result<()> {
        let track = self.track(thread)?;
        if matches!(layer, Layer::Call(_) | Layer::Fault(_)) {
            self.out.begin(track, self.now, layer.category(), layer.name(), args)?;
        } else {
            self.pending.insert(thread, args);
        }
        if let Some(actor) = self.actors.get_mut(&thread) {
            actor.layers.push(layer);
        }
        Ok(())
    }

    /// The processor runs another thread; 0: none.
    fn switch(&mut self, processor: u16, thread: u64) -> io::Result<()> {
        if !self.arrive(processor, thread)? {
            return Ok(());
        }
        match self.layers(thread) {
            [] => self.runs(thread),
            [Layer::Call(_), Layer::Waits] => self.unwind(thread, 1, Args::new()),
            // What has been answered, and ends with the first instruction.
            [Layer::Ready | Layer::Fault(_), ..] => {
                self.unwind(thread, 0, Args::new())?;
                self.runs(thread)
            }
            _ => Ok(()),
        }
    }

    /// The row of the processor says that it runs another thread, which this is not yet told of; `false`: it does not.
    fn arrive(&mut self, processor: u16, thread: u64) -> io::Result<bool> {
        if self.running.get(&processor).copied().unwrap_or(0) == thread {
            return Ok(false);
        }
        self.run_nobody(processor)?;
        if thread == 0 {
            return Ok(false);
        }
        if let Some(other) = self.actors.get(&thread).and_then(|actor| actor.on) {
            // That it left there is not in the trace.
            self.run_nobody(other)?;
        }
        self.track(thread)?;
        let row = self.processor(processor)?;
        let name = self.who.thread(thread);
        self.out.begin(row, self.now, "schedule", &name, Args::new())?;
        self.running.insert(processor, thread);
        if let Some(actor) = self.actors.get_mut(&thread) {
            actor.on = Some(processor);
        }
        Ok(true)
    }

    fn runs(&mut self, thread: u64) -> io::Result<()> {
        let processor = self.actors.get(&thread).and_then(|actor| actor.on);
        let args = processor.map(|processor| ("processor".to_owned(), processor.into()));
        self.push(thread, Layer::Runs, args.into_iter().collect())
    }

    /// Whoever the processor runs has left it.
    fn run_nobody(&mut self, processor: u16) -> io::Result<()> {
        let Some(thread) = self.running.remove(&processor) else { return Ok(()) };
        let row = self.processor(processor)?;
        self.out.end(row, self.now, &self.who.thread(thread), Args::new())?;
        if let Some(actor) = self.actors.get_mut(&thread) {
            actor.on = None;
        }
        match self.layers(thread) {
            [Layer::Runs, ..] => {
                self.unwind(thread, 0, Args::new())?;
                self.push(thread, Layer::Ready, Args::new())
            }
            [Layer::Call(_) | Layer::Fault(_)] => self.push(thread, Layer::Waits, Args::new()),
            _ => Ok(()),
        }
    }

    /// A thread enters the kernel; so it is the one that its processor runs.
    fn enter(&mut self, record: &Record, layer: Layer) -> io::Result<()> {
        self.arrive(record.processor, record.thread)?;
        self.unwind(record.thread, 0, Args::new())?;
        self.push(record.thread, layer, self.args(record))
    }

    /// An exception message is made of a thread. It may come of a fault that has begun already.
    fn exception(&mut self, record: &Record) -> io::Result<()> {
        match self.layers(record.thread) {
            [Layer::Runs] | [] => {
                self.unwind(record.thread, 0, Args::new())?;
                self.push(record.thread, Layer::Fault("exception"), self.args(record))
            }
            _ => self.mark(record, Some(record.thread)),
        }
    }

    /// A system call ends for a thread, which may not run yet.
    fn call_ends(&mut self, record: &Record) -> io::Result<()> {
        let thread = record.thread;
        if matches!(self.layers(thread), [Layer::Call(_), ..]) {
            self.unwind(thread, 0, self.args(record))?;
            self.go_on(thread)?;
        }
        Ok(())
    }

    /// A thread is back in user mode, or will be when it runs.
    fn go_on(&mut self, thread: u64) -> io::Result<()> {
        match self.actors.get(&thread).and_then(|actor| actor.on) {
            Some(_) => self.runs(thread),
            None => self.push(thread, Layer::Ready, Args::new()),
        }
    }

    /// A message goes over. For a thread with a fault it is the answer, unless it is the fault's own.
    fn message(&mut self, record: &Record, from: u64, to: u64) -> io::Result<()> {
        let (sender, receiver) = (self.track(from)?, self.track(to)?);
        let (sent, received) = (format!("to {}", self.who.thread(to)), format!("from {}", self.who.thread(from)));
        let args = self.args(record);
        self.out.arrow(self.now, "ipc", (sender, &sent, args.clone()), (receiver, &received, args))?;
        if matches!(self.layers(to), [Layer::Fault(_), ..]) {
            self.unwind(to, 0, Args::new())?;
            self.go_on(to)?;
        }
        Ok(())
    }

    /// A mark in the row of a thread, or of the processor.
    fn mark(&mut self, record: &Record, thread: Option<u64>) -> io::Result<()> {
        let mut args = self.args(record);
        let track = match thread.filter(|thread| *thread != 0) {
            Some(thread) => self.track(thread)?,
            None => self.processor(record.processor)?,
        };
        if record.thread != 0 && thread != Some(record.thread) {
            args.insert("thread".to_owned(), self.who.thread(record.thread).into());
        }
        let category = record.event().map_or("unknown", |event| event.point().group.name());
        self.out.instant(track, self.now, category, &name_of(record), args)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kcore::kernel::ThreadNumbers;
    use kformats::trace::{Event, Record};
    use l4_abi::ThreadId;
    use serde_json::Value;

    use super::super::json::{Args, Writer};
    use super::super::who::Who;
    use super::Story;

    fn id(number: u64) -> u64 {
        ThreadId::global(number, 1).raw()
    }

    /// An event: time, processor, which, thread, first two arguments.
    type Told = (u64, u16, Event, u64, [u64; 2]);

    /// What a trace file says of each row: `B name`, `E`, `i name`, `X name`, with the nanosecond, in its order. Slices in a
    /// row must be within each other, and every arrow must begin and end at a slice.
    fn rows(events: &[Told]) -> BTreeMap<String, Vec<String>> {
        let mut who = Who::nobody();
        who.numbers = Some(ThreadNumbers { system_base: 0x18, user_base: 0x30 });
        who.homes = [(id(0x40), 1), (id(0x41), 2)].into();
        let mut story = Story::new(Writer::new(Vec::new(), 1_000_000).expect("memory"), &who);
        for &(tsc, processor, event, thread, [first, second]) in events {
            let record = Record { tsc, event: event as u16, processor, thread, args: [first, second, 0, 0] };
            story.tell(&record).expect("memory");
        }
        let bytes = story.finish(&Args::new()).expect("memory");
        let whole: Value = serde_json::from_slice(&bytes).expect("JSON");
        let (mut names, mut rows) = (BTreeMap::new(), BTreeMap::<String, Vec<String>>::new());
        let (mut open, mut latest) = (BTreeMap::<_, Vec<_>>::new(), 0.0);
        for event in whole["traceEvents"].as_array().expect("a list") {
            let key = (event["pid"].as_u64(), event["tid"].as_u64());
            let (phase, name) = (event["ph"].as_str().expect("a phase"), event["name"].as_str().expect("a name"));
            if phase == "M" {
                if name == "thread_name" {
                    names.insert(key, event["args"]["name"].as_str().expect("a name").to_owned());
                }
                continue;
            }
            let ts = event["ts"].as_f64().expect("a time");
            assert!(ts >= latest, "times go on");
            latest = ts;
            let stack = open.entry(key).or_default();
            match phase {
                "B" => stack.push(name.to_owned()),
                "E" => assert_eq!(stack.pop().as_deref(), Some(name), "slices are within each other"),
                _ => {}
            }
            let row = rows.entry(names[&key].clone()).or_default();
            row.push(format!("{:.0} {phase} {name}", ts * 1000.0));
        }
        assert!(open.values().all(Vec::is_empty), "all slices end: {open:?}");
        rows
    }

    fn check(events: &[Told], expected: &[(&str, &[&str])]) {
        let rows = rows(events);
        for (row, lines) in expected {
            assert_eq!(rows.get(*row).map_or(&[][..], Vec::as_slice), *lines, "{row}");
        }
    }

    #[test]
    fn a_call_from_thread_to_thread() {
        let (a, b) = (id(0x40), id(0x41));
        let events = [
            (100, 0, Event::ScheduleDetails, a, [0, a]),
            (110, 0, Event::SyscallIpc, a, [b, b]),
            (112, 0, Event::IpcTransfer, a, [a, b]),
            (113, 0, Event::ScheduleDetails, a, [a, b]),
            (120, 0, Event::SyscallIpc, b, [a, a]),
            (122, 0, Event::IpcTransfer, b, [b, a]),
            (123, 0, Event::SyscallReturn, a, [0, b]),
            (124, 0, Event::ScheduleDetails, b, [b, a]),
            (130, 0, Event::ScheduleIdle, a, [0, 0]),
        ];
        let caller = [
            "0 B runs",
            "10 E runs",
            "10 B Ipc",
            "12 X to 41.1",
            "12 s ipc",
            "13 B waits",
            "22 X from 41.1",
            "22 f ipc",
            "23 E waits",
            "23 E Ipc",
            "23 B ready",
            "24 E ready",
            "24 B runs",
            "30 E runs",
            "30 B ready",
            "31 E ready",
        ];
        let callee = [
            "12 X from 40.1",
            "12 f ipc",
            "13 B runs",
            "20 E runs",
            "20 B Ipc",
            "22 X to 40.1",
            "22 s ipc",
            "24 B waits",
            "31 E waits",
            "31 E Ipc",
        ];
        let processor = ["0 B 40.1", "13 E 40.1", "13 B 41.1", "24 E 41.1", "24 B 40.1", "30 E 40.1"];
        check(&events, &[("40.1", &caller), ("41.1", &callee), ("processor 0", &processor)]);
    }

    #[test]
    fn a_page_fault_ends_with_its_answer() {
        let (a, pager) = (id(0x40), id(0x41));
        let events = [
            (0, 1, Event::ScheduleDetails, a, [0, a]),
            (5, 1, Event::PagefaultUser, a, [0x1000, 0x2000]),
            (6, 1, Event::IpcTransfer, a, [a, pager]),
            (7, 1, Event::ScheduleDetails, a, [a, pager]),
            (9, 1, Event::IpcTransfer, pager, [pager, a]),
            (11, 1, Event::ScheduleDetails, pager, [pager, a]),
            (12, 1, Event::Interrupt, a, [4, 0]),
        ];
        let faulter = [
            "0 B runs",
            "5 E runs",
            "5 B page fault",
            "6 X to 41.1",
            "6 s ipc",
            "7 B waits",
            "9 X from 41.1",
            "9 f ipc",
            "9 E waits",
            "9 E page fault",
            "9 B ready",
            "11 E ready",
            "11 B runs",
            "13 E runs",
        ];
        let processor = ["0 B 40.1", "7 E 40.1", "7 B 41.1", "11 E 41.1", "11 B 40.1", "12 i INTERRUPT", "13 E 40.1"];
        check(&events, &[("40.1", &faulter), ("processor 1", &processor)]);
    }

    #[test]
    fn who_enters_the_kernel_is_who_runs_whatever_is_missing() {
        let (a, b) = (id(0x40), id(0x41));
        let events = [
            // The beginning is missing; then that a left processor 0; then the end of its call.
            (0, 0, Event::SyscallThreadSwitch, a, [0, 0]),
            (5, 1, Event::SyscallIpc, a, [b, b]),
            (9, 1, Event::SyscallUnmap, a, [0, 0]),
            (10, 1, Event::SyscallReturn, b, [0, 0]),
        ];
        let row = ["0 B ThreadSwitch", "5 E ThreadSwitch", "5 B Ipc", "9 E Ipc", "9 B Unmap", "11 E Unmap"];
        check(&events, &[("40.1", &row), ("processor 0", &["0 B 40.1", "5 E 40.1"]), ("41.1", &[])]);
    }

    #[test]
    fn rows_belong_to_spaces_and_interrupts_have_their_own() {
        let (made, again, line) = (id(0x50), ThreadId::global(0x50, 2).raw(), id(4));
        let events = [
            (0, 0, Event::ThreadCreate, id(0x40), [made, 9]),
            (1, 0, Event::IpcTransfer, 0, [line, made]),
            (2, 0, Event::ThreadMigrate, id(0x40), [made, 0]),
            (3, 0, Event::ThreadDelete, id(0x40), [made, 0]),
            (4, 0, Event::ThreadCreate, id(0x40), [again, 10]),
        ];
        let row =
            ["0 i THREAD_CREATE", "1 X from 4.1 (interrupt 4)", "1 f ipc", "2 i THREAD_MIGRATE", "3 i THREAD_DELETE"];
        let sender = ["1 X to 50.1", "1 s ipc"];
        check(&events, &[("50.1", &row), ("50.2", &["4 i THREAD_CREATE"]), ("4.1 (interrupt 4)", &sender)]);
    }

    #[test]
    fn unknown_events_are_marks() {
        let who = Who::nobody();
        let mut story = Story::new(Writer::new(Vec::new(), 1).expect("memory"), &who);
        story.tell(&Record { event: 999, processor: 2, ..Record::default() }).expect("memory");
        let text = String::from_utf8(story.finish(&Args::new()).expect("memory")).expect("UTF-8");
        assert!(text.contains(r#""ph":"i","name":"event 999","cat":"unknown","pid":1,"tid":3"#), "{text}");
    }
}
