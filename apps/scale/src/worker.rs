//! Workers: threads in spaces of their own that do what root tells them.

use l4::arch::{mark, timestamp};
use l4::message::Msg;
use l4::thread::{Stack, delete};
use l4::time::{sleep, system_clock_us};
use l4::topology::{Place, Relation};
use l4::{MsgTag, ThreadId, Time, Word, arch, ipc, kip, schedule, utcb};
use measure::pager;
use measure::stage::{self, must, root, thread_after_root};

use crate::memory;

/// Workers at most: two for each processor.
pub const WORKERS_MAX: usize = 2 * PROCESSORS_MAX;
const PROCESSORS_MAX: usize = 255;
const FIRST: Word = 3;

/// Round trips in front of a measurement, after which code, stacks and caches are warm.
const WARM_UP_ROUNDS: u64 = 2;

static STACKS: [Stack<0x1000>; WORKERS_MAX] = [const { Stack::new() }; WORKERS_MAX];

/// What a worker can be told; the words that go with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// To say where its processor is.
    Tell,
    /// To call another so often, and take the time.
    Ping(Worker, u64),
    /// To call another that calls it so often.
    Pong(Worker, u64),
    /// As [`Self::Ping`], from this time of the clock on, in microseconds, which is the same for all.
    PingAt(Worker, u64, u64),
    /// To read pages, so many from the first on, and take the time.
    Touch(u64),
}

impl Task {
    fn to_words(self) -> [Word; 4] {
        match self {
            Self::Tell => [0, 0, 0, 0],
            Self::Ping(partner, rounds) => [1, partner.0 as Word, rounds, 0],
            Self::Pong(partner, rounds) => [2, partner.0 as Word, rounds, 0],
            Self::PingAt(partner, rounds, start_us) => [3, partner.0 as Word, rounds, start_us],
            Self::Touch(pages) => [4, 0, pages, 0],
        }
    }

    fn from_words([kind, partner, rounds, start_us]: [Word; 4]) -> Self {
        let partner = Worker(partner as usize);
        match kind {
            0 => Self::Tell,
            1 => Self::Ping(partner, rounds),
            2 => Self::Pong(partner, rounds),
            3 => Self::PingAt(partner, rounds, start_us),
            _ => Self::Touch(rounds),
        }
    }
}

/// When something began and ended.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Ticks at the beginning.
    pub start: u64,
    /// Ticks at the end.
    pub end: u64,
    /// Microseconds at the beginning.
    pub start_us: u64,
    /// Microseconds at the end.
    pub end_us: u64,
}

impl Span {
    /// The time that `act` takes.
    pub fn of(act: impl FnOnce()) -> Self {
        let start_us = system_clock_us();
        let start = timestamp();
        act();
        let end = timestamp();
        Self { start, end, start_us, end_us: system_clock_us() }
    }

    /// From the earlier beginning to the later end.
    pub fn join(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
            start_us: self.start_us.min(other.start_us),
            end_us: self.end_us.max(other.end_us),
        }
    }

    /// Its length in ticks.
    pub fn ticks(&self) -> u64 {
        self.end - self.start
    }

    /// Its length in microseconds.
    pub fn us(&self) -> u64 {
        self.end_us - self.start_us
    }
}

/// A worker by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Worker(usize);

impl Worker {
    /// Worker `number`, which was made.
    pub const fn of(number: usize) -> Self {
        Self(number)
    }

    /// Makes worker `number` in a space of its own, and has it start on a processor.
    pub fn make(number: usize, cpu: usize) -> Self {
        let worker = Self(number);
        stage::make_space(worker.id());
        worker.start(cpu);
        worker
    }

    /// Makes worker `number` in the space of the first one, and has it start on a processor.
    pub fn make_beside(number: usize, first: Self, cpu: usize) -> Self {
        let worker = Self(number);
        stage::make_beside(worker.id(), first.id(), number as Word);
        worker.start(cpu);
        worker
    }

    /// Has it start on a processor. It has started when this returns: a worker that is deleted while its pager still owes it
    /// an answer leaves that to the next one with its id, which takes it for its start message.
    fn start(self, cpu: usize) {
        self.move_to(cpu);
        pager::start_thread(self.id(), run, STACKS[self.0].start_sp());
        self.tell(Task::Tell);
        self.wait();
    }

    /// Its id.
    pub fn id(self) -> ThreadId {
        thread_after_root(FIRST + self.0 as Word)
    }

    /// Moves it to a processor.
    pub fn move_to(self, cpu: usize) {
        must("moving a worker", schedule::set_processor_no(self.id(), cpu as u16));
    }

    /// Tells it what to do. Called by root.
    pub fn tell(self, task: Task) {
        Msg::of_words(MsgTag::NIL, &task.to_words()).load();
        must("telling a worker", ipc::send(self.id()));
    }

    /// Waits until it has done what it was told.
    pub fn wait(self) -> Span {
        must("waiting for a worker", ipc::receive(self.id()));
        Span { start: utcb().mr(1), end: utcb().mr(2), start_us: utcb().mr(3), end_us: utcb().mr(4) }
    }

    /// Deletes it.
    pub fn delete(self) {
        must("deleting a worker", delete(self.id()));
    }
}

extern "C" fn run() -> ! {
    loop {
        must("waiting for root", ipc::receive(root()));
        let words = match Task::from_words(core::array::from_fn(|i| utcb().mr(i + 1))) {
            Task::Tell => arch::place()
                .map_or([0; 4], |place| [1, place.id.into(), place.core_shift.into(), place.socket_shift.into()]),
            Task::Ping(partner, rounds) => span_words(ping(partner.id(), rounds, || {})),
            Task::PingAt(partner, rounds, start_us) => span_words(ping(partner.id(), rounds, || sleep_until(start_us))),
            Task::Pong(partner, rounds) => {
                pong(partner.id(), rounds);
                [0; 4]
            }
            Task::Touch(pages) => span_words(Span::of(|| memory::touch(pages as usize))),
        };
        Msg::of_words(MsgTag::NIL, &words).load();
        must("telling root", ipc::send(root()));
    }
}

fn span_words(span: Span) -> [Word; 4] {
    [span.start, span.end, span.start_us, span.end_us]
}

/// Ping first receives pong's first call, and from then on each call answers the one before. In the end pong is in a call
/// that nobody answers with another.
fn ping(pong: ThreadId, rounds: u64, wait: impl FnOnce()) -> Span {
    must("hearing from pong", ipc::receive(pong));
    ipc::call_rounds(pong, 0, WARM_UP_ROUNDS);
    wait();
    let span = Span::of(|| {
        mark::begin_alone();
        ipc::call_rounds(pong, 0, rounds);
        mark::end_alone();
    });
    Msg::new(0).load();
    must("letting pong go", ipc::send(pong));
    span
}

fn pong(ping: ThreadId, rounds: u64) {
    ipc::call_rounds(ping, 0, WARM_UP_ROUNDS + rounds + 1);
}

/// Sleeps until then, unless it is over.
fn sleep_until(us: u64) {
    if let Some(point) = Time::point_us(system_clock_us(), us) {
        sleep(point);
    }
}

/// Where each processor is.
pub struct Places([Option<Place>; PROCESSORS_MAX]);

impl Places {
    /// Whether all processors say so.
    pub fn are_known(&self) -> bool {
        self.0[..kip::num_processors().min(PROCESSORS_MAX)].iter().all(Option::is_some)
    }

    /// How two processors lie to each other.
    pub fn relation(&self, a: usize, b: usize) -> Relation {
        match (self.0[a], self.0[b]) {
            _ if a == b => Relation::Same,
            (Some(a), Some(b)) => a.relation(b),
            _ => Relation::Unknown,
        }
    }
}

/// Asks each processor where it is.
pub fn places() -> Places {
    let worker = Worker::make(0, 0);
    let mut places = Places([None; PROCESSORS_MAX]);
    for (cpu, place) in places.0.iter_mut().enumerate().take(kip::num_processors()) {
        worker.move_to(cpu);
        worker.tell(Task::Tell);
        let Span { start: is_known, end: id, start_us: core_shift, end_us: socket_shift } = worker.wait();
        let known = Place { id: id as u32, core_shift: core_shift as u32, socket_shift: socket_shift as u32 };
        *place = (is_known != 0).then_some(known);
    }
    worker.delete();
    places
}
