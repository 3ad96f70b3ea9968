//! The menus of tracepoints and of the trace.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kformats::trace::{Event, Memory, Record, Ring, Store, head, layout, root};

use super::{A, B, C, Known, Leave, State, World, numbers, ring};

/// Where the rings of both processors begin, each with its page behind.
const RINGS: [u64; 2] = [0x10_0000, 0x20_0000];
const PAGE: u64 = 0x1000;

/// Root and rings of a trace.
pub struct Words {
    root: RefCell<[u64; root::RINGS + RINGS.len()]>,
    rings: RefCell<BTreeMap<u64, u64>>,
}

impl Words {
    /// Two empty rings of one page each; a tick of the clock is a microsecond.
    fn new() -> Self {
        let mut words = [0; root::RINGS + RINGS.len()];
        words[root::MAGIC] = root::MAGIC_WORD;
        words[root::LAYOUT] = layout();
        words[root::TSC_KHZ] = 1000;
        words[root::RINGS_COUNT] = RINGS.len() as u64;
        words[root::RINGS..].copy_from_slice(&RINGS);
        let pages = RINGS.into_iter().flat_map(|at| (at..at + 2 * PAGE).step_by(8));
        let trace = Self { root: RefCell::new(words), rings: RefCell::new(pages.map(|at| (at, 0)).collect()) };
        for (cpu, at) in RINGS.into_iter().enumerate() {
            Ring(at).make(&trace, cpu, [at + PAGE]);
        }
        trace
    }

    pub fn root_word(&self, index: usize) -> Option<u64> {
        self.root.borrow().get(index).copied()
    }

    pub fn set_root_word(&self, index: usize, word: u64) -> bool {
        self.root.borrow_mut().get_mut(index).map(|old| *old = word).is_some()
    }

    /// Whether there is a word.
    pub fn replace(&self, at: u64, word: u64) -> bool {
        self.rings.borrow_mut().get_mut(&at).map(|old| *old = word).is_some()
    }

    /// What a processor records and where it stops.
    fn masks(&self, cpu: usize) -> [u64; 2] {
        [head::RECORDED, head::STOPS].map(|mask| Ring(RINGS[cpu]).head(self, mask).expect("a ring has masks"))
    }

    /// An event comes on a processor.
    fn record(&self, tsc: u64, cpu: usize, event: Event, thread: super::Who) {
        let ring = Ring(RINGS[cpu]);
        let record = Record {
            tsc,
            event: event.number() as u16,
            processor: cpu as u16,
            thread: thread.id().raw() as u64,
            ..Record::default()
        };
        ring.add(self, &record);
        ring.count(self, event);
    }
}

impl Memory for Words {
    fn load(&self, at: u64) -> Option<u64> {
        self.rings.borrow().get(&at).copied()
    }
}

impl Store for Words {
    fn get(&self, at: u64) -> u64 {
        self.load(at).expect("the words of a ring are there")
    }
    fn set(&self, at: u64, word: u64) {
        assert!(self.replace(at, word), "the words of a ring are there");
    }
}

fn traced(k: World) -> (Known, State) {
    let trace = Words::new();
    trace.record(10, 0, Event::IpcTransfer, A);
    trace.record(20, 1, Event::X86Breakpoint, B);
    trace.record(30, 0, Event::SyscallReturn, C);
    let mut state = State::new();
    state.page = 0;
    (Known { trace: Some(trace), ..Known::new(k) }, state)
}

fn words(known: &Known) -> &Words {
    known.trace.as_ref().expect("the kernel has tracepoints")
}

/// The lines of a dump that these keys end with: processor, thread, and event of each.
#[track_caller]
fn check_dump(known: &mut Known, state: &mut State, keys: &str, expected: &[&str]) {
    let (text, leave) = known.type_keys(keys.as_bytes(), state);
    assert_eq!(leave, Leave::Ended);
    let events: Vec<&str> = text.lines().filter(|line| line.contains(" cpu ")).collect();
    assert_eq!(events.len(), expected.len(), "{keys:?}: {text}");
    for (event, expected) in events.iter().zip(expected) {
        assert!(event.contains(expected), "{keys:?}: no `{expected}` in {event}");
    }
    assert!(text.contains(&format!("{} events\n", expected.len())), "{text}");
}

#[test]
fn a_kernel_without_tracepoints_says_so() {
    let (text, _) = super::type_keys(ring(), b"rl\x1byd", &mut State::new());
    assert_eq!(text.matches("this kernel was built without tracepoints").count(), 2, "{text}");
    let (mut known, mut state) = traced(ring());
    words(&known).set_root_word(root::LAYOUT, layout() + 1);
    let (text, _) = known.type_keys(b"rl", &mut state);
    assert!(text.contains("the trace is of another kernel"), "{text}");
}

#[test]
fn tracepoints_are_enabled_and_disabled() {
    let (mut known, mut state) = traced(ring());
    let (transfer, breakpoint) = (Event::IpcTransfer.bit(), Event::X86Breakpoint.bit());
    let mut check = |keys: &str, expected: [[u64; 2]; 2], said: &str| {
        let (text, _) = known.type_keys(keys.as_bytes(), &mut state);
        assert_eq!([0, 1].map(|cpu| words(&known).masks(cpu)), expected, "{keys:?}: {text}");
        assert!(text.contains(said), "{keys:?}: no `{said}` in {text}");
    };
    check("reipc_transfer\rr1\rl", [[0, 0], [transfer, 0]], "recorded by 1 processors");
    check("reX86_BREAKPOINT\re\rl", [[0, breakpoint], [transfer, breakpoint]], "stops\n");
    check("renosuch\r", [[0, breakpoint], [transfer, breakpoint]], "nosuch is no tracepoint: l lists them");
    check("reipc\rr7\r", [[0, breakpoint], [transfer, breakpoint]], "there are 2 processors, from 0 on");
    check("rdx86_breakpoint\r1\r", [[0, breakpoint], [transfer, 0]], "disable");
    check("rEl", [[Event::ALL, breakpoint], [Event::ALL, 0]], "recorded");
    check("rD", [[0, 0]; 2], "disableall");
    check("yfipc_transfer\r", [[transfer, 0]; 2], "record");
}

#[test]
fn events_are_counted_until_the_counters_are_reset() {
    let (mut known, mut state) = traced(ring());
    let (text, _) = known.type_keys(b"yc", &mut state);
    assert!(text.contains("X86_BREAKPOINT                        1  cpu 1: 1\n"), "{text}");
    let (text, _) = known.type_keys(b"rR\x1byc", &mut state);
    assert!(!text.contains("cpu 1:"), "{text}");
}

#[test]
fn the_trace_is_shown_as_the_filters_say() {
    let (mut known, mut state) = traced(ring());
    let all = ["IPC_TRANSFER", "(beta) X86_BREAKPOINT", "(gamma) SYSCALL_RETURN"];
    check_dump(&mut known, &mut state, "Y", &all);
    check_dump(&mut known, &mut state, "yd#2\r0\r", &all[1..]);
    check_dump(&mut known, &mut state, "yC1\rd\r\r", &all[1..2]);
    check_dump(&mut known, &mut state, "yzFipc\rd\r\r", &all[..1]);
    check_dump(&mut known, &mut state, "yztx86_breakpoint,syscall_return\rd\r\r", &all[1..]);
    check_dump(&mut known, &mut state, "yTgamma\rd\r\r", &all[2..]);
    let (text, _) = known.type_keys(b"ys", &mut state);
    assert!(text.contains("about thread 32.1(gamma)\n"), "{text}");
    check_dump(&mut known, &mut state, "yzd\r\r", &all);
    check_dump(&mut known, &mut state, "yr\x1bY", &[]);
}

/// Whatever stands in root and rings, and whatever is typed, the debugger comes to an end.
#[test]
fn nonsense_in_a_trace_does_no_harm() {
    const LIKELY: &[u8] = b"rlRleiedDEtyYdcrRfFCTtsz \r\r\r\x1b0123456789#ipc,-a";
    let (mut known, mut state) = traced(ring());
    let mut next = numbers();
    let typical = [0, 1, 2, 63, 64, RINGS[0], RINGS[1], RINGS[0] + PAGE, u64::MAX, 1 << 63];
    for _ in 0..300 {
        let word = if next().is_multiple_of(4) { next() } else { typical[next() as usize % typical.len()] };
        match next() % 3 {
            // The layout stays, or nothing more would be looked at.
            0 => _ = words(&known).set_root_word(root::TSC_KHZ + next() as usize % (root::RINGS), word),
            _ => {
                let at = RINGS[next() as usize % RINGS.len()] + next() % (2 * PAGE / 8) * 8;
                assert!(words(&known).replace(at, word));
            }
        }
        let keys: Vec<u8> = (0..60).map(|_| LIKELY[next() as usize % LIKELY.len()]).collect();
        let (text, _) = known.type_keys(&keys, &mut state);
        assert!(text.len() < 4 << 20, "{keys:?}");
    }
}
