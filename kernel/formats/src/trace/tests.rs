use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    ARGS, Event, Group, Kind, Memory, Merged, POINTS, Point, RECORDS_PER_PAGE, Record, Ring, Shown, Store, head,
    layout, numbers,
};

const HEAD: u64 = 0x7000;
const PAGES: [u64; 3] = [0x20_0000, 0x9000, 0x5_0000];
const LINES: u64 = PAGES.len() as u64 * RECORDS_PER_PAGE;

/// Words of which others see the changes one by one.
#[derive(Default)]
struct Words(RefCell<BTreeMap<u64, u64>>);

impl Memory for Words {
    fn load(&self, at: u64) -> Option<u64> {
        Some(self.0.borrow().get(&at).copied().unwrap_or(0))
    }
}

impl Store for Words {
    fn get(&self, at: u64) -> u64 {
        self.load(at).unwrap_or(0)
    }
    fn set(&self, at: u64, word: u64) {
        assert!(at.is_multiple_of(8));
        self.0.borrow_mut().insert(at, word);
    }
}

fn ring() -> (Words, Ring) {
    let words = Words::default();
    Ring(HEAD).make(&words, 5, PAGES);
    (words, Ring(HEAD))
}

/// The record that stands for `n`: each word tells it.
fn nth(n: u64) -> Record {
    let event = (n % POINTS.len() as u64) as u16;
    Record { tsc: n << 8, event, processor: 5, thread: n << 9, args: [n, n << 16, n << 32, !n] }
}

#[test]
fn a_fresh_ring_is_empty_and_what_is_no_ring_too() {
    let (words, ring) = ring();
    assert_eq!(ring.numbers(&words), 1..1);
    assert_eq!(ring.read(&words, 1), None);
    assert_eq!(ring.head(&words, head::PROCESSOR), Some(5));
    let other = Ring(0x1_0000);
    assert_eq!((other.numbers(&words), other.read(&words, 1), other.head(&words, head::NEXT)), (1..1, None, None));
}

#[test]
fn the_oldest_records_are_overwritten() {
    let (words, ring) = ring();
    for n in 1..=3 * LINES + 7 {
        ring.add(&words, &nth(n));
        let there = ring.numbers(&words);
        assert_eq!(there, n.saturating_sub(LINES) + 1..n + 1);
        assert_eq!(ring.read(&words, n), Some(nth(n)));
        assert_eq!(ring.read(&words, there.start), Some(nth(there.start)));
        assert_eq!(ring.read(&words, there.start - 1), None, "overwritten by {n}");
        assert_eq!(ring.read(&words, n + 1), None);
    }
    let there = ring.numbers(&words);
    assert!(there.clone().all(|n| ring.read(&words, n) == Some(nth(n))));
    ring.clear(&words);
    assert_eq!(ring.numbers(&words), 1..1);
    assert!((1..=4 * LINES).all(|n| ring.read(&words, n).is_none()));
}

/// A reader that lets the writer go on by one step before some of its loads.
struct Interleaved<'w> {
    words: &'w Words,
    steps: RefCell<VecDeque<(u64, u64)>>,
    before: RefCell<Vec<usize>>,
    loads: RefCell<usize>,
}

impl Memory for Interleaved<'_> {
    fn load(&self, at: u64) -> Option<u64> {
        let load = self.loads.replace_with(|loads| *loads + 1);
        for _ in self.before.borrow().iter().filter(|&&step| step == load) {
            if let Some((at, word)) = self.steps.borrow_mut().pop_front() {
                self.words.set(at, word);
            }
        }
        self.words.load(at)
    }
}

/// What the writer does, step by step.
struct Steps<'w>(&'w Words, RefCell<Vec<(u64, u64)>>);

impl Store for Steps<'_> {
    fn get(&self, at: u64) -> u64 {
        let own = self.1.borrow().iter().rev().find(|(own, _)| *own == at).map(|(_, word)| *word);
        own.unwrap_or_else(|| self.0.get(at))
    }
    fn set(&self, at: u64, word: u64) {
        self.1.borrow_mut().push((at, word));
    }
}

/// Loads that `Ring::read` makes at most, and steps of `Ring::add`.
const LOADS: usize = 14;

#[test]
fn a_reader_never_finds_half_a_record() {
    // The writer makes `done` steps before the reading and `burst` before each of two loads: all places there are.
    for (first, second) in (0..LOADS).flat_map(|a| (a..LOADS).map(move |b| (a, b))) {
        for (done, burst) in (0..10).flat_map(|done| (1..10).map(move |burst| (done, burst))) {
            let (words, ring) = (Words::default(), Ring(HEAD));
            ring.make(&words, 5, [PAGES[0]]);
            (1..=RECORDS_PER_PAGE).for_each(|n| ring.add(&words, &nth(n)));
            let steps = Steps(&words, RefCell::default());
            ring.add(&steps, &nth(RECORDS_PER_PAGE + 1));
            let mut steps: VecDeque<_> = steps.1.into_inner().into();
            assert_eq!(steps.len(), 10);
            steps.drain(..done).for_each(|(at, word)| words.set(at, word));
            let before = [vec![first; burst], vec![second; burst]].concat();
            let reader =
                Interleaved { words: &words, steps: steps.into(), before: before.into(), loads: RefCell::new(0) };
            // The line holds the first record, or the one that takes its place, or neither.
            for n in [1, RECORDS_PER_PAGE + 1] {
                let found = ring.read(&reader, n);
                assert!(found.is_none_or(|found| found == nth(n)), "{n}: {found:?} after {done}, {first}, {second}");
            }
        }
    }
}

#[test]
fn nonsense_in_a_head_is_no_ring() {
    for (word, value) in [
        (head::PAGES_COUNT, 0),
        (head::PAGES_COUNT, u64::MAX),
        (head::NEXT, 0),
        (head::NEXT, u64::MAX),
        (head::PAGES, u64::MAX - 7),
        (head::MAGIC, 0),
    ] {
        let (words, ring) = ring();
        ring.add(&words, &nth(1));
        words.set(HEAD + word as u64 * 8, value);
        let numbers = ring.numbers(&words);
        assert!(numbers.end - numbers.start <= head::PAGES_MAX as u64 * RECORDS_PER_PAGE, "{word}: {numbers:?}");
        for n in numbers.take(3) {
            assert!(ring.read(&words, n).is_none_or(|found| found == nth(n)));
        }
    }
}

#[test]
fn counters_count_and_are_reset() {
    let (words, ring) = ring();
    for _ in 0..3 {
        ring.count(&words, Event::SmpIpi);
    }
    let counter = |event: Event| ring.head(&words, head::COUNTERS + event.number());
    assert_eq!((counter(Event::SmpIpi), counter(Event::X86Hlt)), (Some(3), Some(0)));
    ring.reset_counters(&words);
    assert_eq!(counter(Event::SmpIpi), Some(0));
}

#[test]
fn points_are_what_their_numbers_say() {
    let names: BTreeSet<_> = POINTS.iter().map(|point| point.name).collect();
    assert_eq!(names.len(), POINTS.len(), "each name is there once");
    for (number, point) in POINTS.iter().enumerate() {
        assert_eq!((point.event.number(), point.event.point().name), (number, point.name));
        assert_eq!(Event::new(number), Some(point.event));
        assert_eq!(Event::named(point.name.as_bytes()), Some(1 << number));
        let count = point.args.iter().take_while(|(_, kind)| *kind != Kind::None).count();
        assert!(point.args[count..].iter().all(|arg| *arg == ("", Kind::None)), "{}", point.name);
        assert!(!point.about.is_empty() && point.args.len() == ARGS);
    }
    assert_eq!(Event::new(POINTS.len()), None);
    assert_eq!(Group::ALL.into_iter().fold(0, |all, group| all | group.mask()), Event::ALL);
    assert_ne!(layout(), 0);
}

#[test]
fn lists_of_names() {
    let ipc = Group::Ipc.mask();
    for (list, mask) in [
        ("all", Some(Event::ALL)),
        ("none", Some(0)),
        ("ipc", Some(ipc)),
        ("ipc,smp_ipi", Some(ipc | Event::SmpIpi.bit())),
        ("ipc,-IPC_DETAILS", Some(ipc & !Event::IpcDetails.bit())),
        ("all,-ipc", Some(Event::ALL & !ipc)),
        ("", None),
        ("ipc,", None),
        ("-", None),
        ("nothing", None),
    ] {
        assert_eq!(Event::list(list.as_bytes()), mask, "{list}");
    }
}

#[test]
fn several_rings_are_one_in_the_order_of_time() {
    const RINGS: usize = 3;
    let words = Words::default();
    let ring = |cpu: usize| Ring(0x10_0000 * (cpu as u64 + 1));
    (0..RINGS).for_each(|cpu| ring(cpu).make(&words, cpu, [0x10_0000 * (cpu as u64 + 1) + 0x1000]));
    // Processor 1 writes more than its ring holds; some times are the same on two processors.
    let mut all = Vec::new();
    for n in 0..500u64 {
        let cpu = if n % 7 == 3 {
            0
        } else if n % 11 == 5 {
            2
        } else {
            1
        };
        let record = Record { tsc: n / 2, processor: cpu as u16, args: [n; ARGS], ..nth(n) };
        ring(cpu).add(&words, &record);
        all.push((record.tsc, cpu, n, record));
    }
    all.sort_by_key(|&(tsc, cpu, n, _)| (tsc, cpu, n));
    let kept = |cpu: usize, n: u64| all.iter().filter(|(_, own, later, _)| *own == cpu && *later > n).count() < 64;
    let expected: Vec<Record> =
        all.iter().filter(|(_, cpu, n, _)| kept(*cpu, *n)).map(|(.., record)| *record).collect();
    let ring_of = |cpu: usize| (cpu < RINGS).then(|| ring(cpu));
    let merged = Merged { memory: &words, ring_of: &ring_of, count: RINGS + 1 };
    let forwards = std::iter::successors(merged.after(None), |(place, _)| merged.after(Some(*place)));
    assert_eq!(forwards.map(|(_, record)| record).collect::<Vec<_>>(), expected);
    let backwards = std::iter::successors(merged.before(None), |(place, _)| merged.before(Some(*place)));
    assert!(backwards.map(|(_, record)| record).eq(expected.iter().rev().copied()));
    for count in [0, 1, 10, 64, 1000] {
        let mut last = Vec::new();
        let is_even = |record: &Record| record.args[0] % 2 == 0;
        let whole = merged.last::<()>(count, is_even, |record| {
            last.push(*record);
            std::ops::ControlFlow::Continue(())
        });
        assert!(whole.is_continue());
        let even: Vec<Record> = expected.iter().filter(|record| is_even(record)).copied().collect();
        assert_eq!(last, even[even.len().saturating_sub(count)..], "{count}");
    }
}

/// Viewers show the arguments of both as those of one call, and keep one of two with the same name.
#[test]
fn what_a_call_ends_with_is_called_otherwise_than_what_it_begins_with() {
    let names = |point: &'static Point| point.args.iter().filter(|(_, kind)| *kind != Kind::None).map(|(name, _)| name);
    let ends: Vec<_> = names(Event::SyscallReturn.point()).collect();
    let calls = POINTS.iter().filter(|point| point.group == Group::Calls && point.event != Event::SyscallReturn);
    for call in calls {
        assert!(names(call).all(|name| !ends.contains(&name)), "{}", call.name);
    }
}

#[test]
fn records_as_text() {
    let event = Event::PagefaultUser.number() as u16;
    let record = Record { tsc: 2_500_000_000, event, processor: 3, thread: 0xC001, args: [0x1000, 0x40, 6, 0x8001] };
    let text = |record: &Record| Shown { record, tsc_khz: 1_000_000, names: &numbers }.to_string();
    assert_eq!(
        text(&record),
        "   2.500000 cpu 3  0xc001 PAGEFAULT_USER address 0x1000 ip 0x40 access rw- pager 0x8001"
    );
    let call = Record { event: Event::SyscallReturn.number() as u16, args: [0, 1, 2, 3], ..record };
    assert!(
        text(&call).ends_with("SYSCALL_RETURN call SYSCALL_IPC result 0x1 error 0x2 received 0x3"),
        "{}",
        text(&call)
    );
    let unknown = Record { event: 999, args: [1, 2, 3, 4], ..record };
    assert!(text(&unknown).contains("event 999 [0x1, 0x2, 0x3, 0x4]"), "{}", text(&unknown));
    assert_eq!(Shown { record: &record, tsc_khz: 0, names: &numbers }.time_us(), 0);
}

#[test]
fn the_document_lists_all_points() {
    let document = include_str!("../../../../docs/tracing.md");
    let rows: Vec<&str> =
        document.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 3).collect();
    let row = |point: &Point| {
        let args: Vec<&str> = point.args.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        format!("| `{}` | `{}` | {} | {} |", point.name, point.group.name(), args.join(", "), point.about)
    };
    assert_eq!(rows, POINTS.iter().map(row).collect::<Vec<_>>());
}
