//! What happens when kernel memory is exhausted: the call says so, and nothing has changed.
//!
//! A row of a table is a call in some world. It is made in a fresh one for each allocation that it may need, and this
//! one fails: how many there are shows when a call ends and the failure is still to come.

use std::collections::BTreeSet;

use l4_abi::{Acceptor, ExregsControl, Fpage, IoFpage, MapItem, StringItem, SysError, ThreadId, UnmapControl, Word};

use super::fingerprint::Fingerprint;
use super::script::{expect, play};
use super::world::{
    A, B, M, N, P, R, ROOT, S, START_IP, START_SP, UNCHANGED, Who, World, X, Z, activation, deletion, no_change, tag,
};
use crate::kmem::failures;
use crate::lock::Held;
use crate::space::{Census, Rest};
use crate::syscall::ThreadControlArgs;

type Call = fn(World) -> Result<(), SysError>;

/// What memory is used for: spaces, mappings and tables, nodes, frames behind tables, frames that are free.
#[derive(PartialEq, Eq, Debug)]
pub struct Ledger {
    pub census: Census,
    pub nodes: usize,
    pub behind_tables: usize,
    pub free: usize,
}

/// The ledger, which must be without a mistake.
pub fn ledger(w: World) -> Ledger {
    let census = w.k.spaces.check_invariants(Rest::Settled).expect("all is well");
    let (nodes, node_pages) = w.k.spaces.mapdb().pool().check();
    let (behind_tables, free) = (w.k.machine.backing.count(), w.k.kmem.free_count());
    let threads = w.k.tcbs.iter().enumerate().filter(|(_, tcb)| tcb.is_claimed()).map(|(number, _)| number);
    let pages =
        |per_page: usize| threads.clone().map(|t| t / per_page).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(behind_tables, pages(8) + pages(4) + node_pages + 1, "the spaces have one page");
    assert_eq!(w.k.kmem.total(), free + behind_tables + census.frames, "no frame is lost");
    assert_eq!(nodes, census.mappings);
    Ledger { census, nodes, behind_tables, free }
}

fn create_space(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { utcb_location: UNCHANGED, ..activation(N) })
}

fn create_inactive(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, activation(M))
}

/// In a page of TCBs and frames of its own.
fn create_far(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { space: A.id(), utcb_location: UNCHANGED, ..activation(N) })
}

fn create_active(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { pager: ROOT.id(), ..activation(M) })
}

fn create_active_far(w: World) -> Result<(), SysError> {
    let args = ThreadControlArgs { space: A.id(), pager: ROOT.id(), ..activation(N) };
    w.thread_control(ROOT, ThreadControlArgs { utcb_location: A.utcb_location() + 0x1000, ..args })
}

fn initialise(w: World) -> Result<(), SysError> {
    w.enter(ROOT, |here, root| here.space_control(root, super::space_control::areas(N)))
}

fn activate(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { pager: ROOT.id(), utcb_location: N.utcb_location(), ..no_change(N) })
}

fn migrate(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { space: N.id(), ..no_change(M) })
}

fn migrate_and_rename(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { dest: M.version(2), space: N.id(), pager: B.id(), ..no_change(M) })
}

fn associate(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { dest: ThreadId::interrupt(5), pager: B.id(), ..deletion(A) })
}

/// Calls of which each allocation fails in turn, and those that must have been made before.
const CALLS: [(&str, &[Call], Call); 11] = [
    ("creation of a space", &[], create_space),
    ("creation of an inactive thread", &[], create_inactive),
    ("creation of an inactive thread in other pages", &[], create_far),
    ("creation of an active thread", &[], create_active),
    ("creation of an active thread in other pages", &[], create_active_far),
    ("SpaceControl", &[create_space], initialise),
    ("activation", &[create_space, initialise], activate),
    ("activation beside others", &[create_inactive], create_active),
    ("migration", &[create_active, create_space, initialise], migrate),
    ("migration with a new version", &[create_active, create_space, initialise], migrate_and_rename),
    ("association of an interrupt", &[], associate),
];

/// X.2, ThreadControl and SpaceControl: whichever allocation fails, the call says "out of memory" and changes nothing;
/// later it succeeds.
#[test]
fn calls_without_memory_change_nothing() {
    let mut all = 0;
    for (what, before, call) in CALLS {
        for nth in 1.. {
            let w = World::new();
            before.iter().for_each(|call| call(w).expect("there is memory"));
            w.make_run(ROOT);
            let old = (Fingerprint::of(w), ledger(w));
            w.k.kmem.fail_nth(nth);
            let result = call(w);
            if w.k.kmem.is_failure_pending() {
                w.k.kmem.fail_nth(0);
                assert_eq!(result, Ok(()), "{what}");
                break;
            }
            all += 1;
            assert_eq!(result, Err(SysError::OutOfMemory), "{what}, allocation {nth}");
            assert_eq!(old.0.difference(&Fingerprint::of(w)), None, "{what}, allocation {nth}");
            assert_eq!(ledger(w), old.1, "{what}, allocation {nth}");
            assert_eq!(call(w), Ok(()), "{what}, again");
            ledger(w);
        }
    }
    assert!(all > 15, "the calls need memory {all} times");
}

/// The lines of a source that ask kernel memory for frames.
fn places(file: &'static str, source: &str) -> impl Iterator<Item = (&'static str, u32)> {
    let asks = |line: &str| ["kmem.alloc(", "kmem.reserve(", "backing.back("].iter().any(|call| line.contains(call));
    let lines: Vec<u32> = (1..).zip(source.lines()).filter(|(_, line)| asks(line)).map(|(number, _)| number).collect();
    lines.into_iter().map(move |line| (file, line))
}

/// Each place that asks for memory fails in one of the tests below and above: calls, mappings, ports.
#[test]
fn every_place_that_asks_for_memory_fails_once() {
    let all: BTreeSet<(&str, u32)> = places("space/mod.rs", include_str!("../space/mod.rs"))
        .chain(places("space/tables.rs", include_str!("../space/tables.rs")))
        .chain(places("ports/mod.rs", include_str!("../space/ports/mod.rs")))
        .chain(places("tests/machine.rs", include_str!("machine.rs")))
        .collect();
    assert!(all.len() >= 7, "{all:?}");
    failures::forget();
    calls_without_memory_change_nothing();
    mappings_without_memory_leave_nothing();
    ports_without_memory_are_not_given();
    map_without_memory_maps_less();
    spaces_without_memory_are_not_made();
    let failed = failures::places();
    let is_seen = |(file, line): &(&str, u32)| failed.iter().any(|(name, at)| name.ends_with(file) && at == line);
    let missing: Vec<_> = all.iter().filter(|place| !is_seen(place)).collect();
    assert!(missing.is_empty(), "memory never ran out at {missing:?}, but at {failed:?}");
}

/// X.2, ThreadControl: also where the table of spaces needs another page, a space without memory is none.
#[test]
fn spaces_without_memory_are_not_made() {
    for nth in 1..=6 {
        let w = World::new();
        for number in 64..88 {
            let who = Who::one_of_a_crowd(number, number);
            let args = ThreadControlArgs { utcb_location: UNCHANGED, ..activation(who) };
            w.make_run(ROOT);
            let before = Fingerprint::of(w);
            w.k.kmem.fail_nth(nth);
            let result = w.thread_control(ROOT, args);
            let has_failed = !w.k.kmem.is_failure_pending();
            w.k.kmem.fail_nth(0);
            if has_failed {
                assert_eq!(result, Err(SysError::OutOfMemory), "allocation {nth} for {number}");
                assert_eq!(before.difference(&Fingerprint::of(w)), None, "allocation {nth} for {number}");
                assert_eq!(w.thread_control(ROOT, args), Ok(()), "again");
            }
        }
    }
}

/// X.2, I/O fpages: whichever allocation for the ports of a space fails, the message arrives, none of the ports is there and
/// nothing else has changed; later they come.
#[test]
fn ports_without_memory_are_not_given() {
    let ports = IoFpage::new(0x80, 4).expect("aligned").fpage();
    let words = |fpage: Fpage| {
        let [first, second] = MapItem::map(fpage, 0).words();
        [l4_abi::MsgTag::new(0, 0, 2).raw(), first, second]
    };
    let has = |w: World, who: Who| w.k.spaces.closed_port(w.k.space_of(who.tcb()), 0x80, 0x80).is_none();
    let mut failures = 0;
    for nth in 1.. {
        let w = World::new();
        w.k.machine.io_fpages.set(true);
        play(w, "root send s; r wait s");
        w.send(S, R.id(), &words(IoFpage::COMPLETE.fpage()));
        play(w, "b wait r");
        assert!(has(w, R));
        let old = ledger(w);
        w.k.kmem.fail_nth(nth);
        w.send(R, B.id(), &words(ports));
        let is_over = w.k.kmem.is_failure_pending();
        w.k.kmem.fail_nth(0);
        expect(w, "ports", "r sent; b got from r");
        assert_eq!(has(w, B), is_over, "allocation {nth}");
        if is_over {
            break;
        }
        failures += 1;
        assert_eq!(ledger(w), old, "allocation {nth}");
        play(w, "b wait r");
        w.send(R, B.id(), &words(ports));
        assert!(has(w, B), "again");
    }
    assert!(failures >= 3, "ports need memory {failures} times");
}

/// Thread and space of each call that made some can be deleted, and all memory is back.
#[test]
fn deletion_undoes_what_calls_made() {
    for (what, before, call) in CALLS {
        let w = World::new();
        let old = ledger(w);
        before.iter().for_each(|call| call(w).expect("there is memory"));
        call(w).expect("there is memory");
        for who in [M, N] {
            w.delete(ROOT, who).expect("root may");
        }
        let is_interrupt = what.contains("interrupt");
        assert_eq!(ledger(w) == old, !is_interrupt, "{what}");
    }
}

// --- mappings, of which X.2 knows no errors ---

/// The cast; sigma0 waits, r has memory from it, and b waits for mappings.
fn with_memory() -> World {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/20 map=0x2000000/21; s wait; b accept; b wait");
    w
}

/// Whether somebody has a page at an address.
fn has(w: World, who: Who, address: usize) -> bool {
    w.k.spaces.lookup(w.k.space_of(who.tcb()), address).is_some()
}

/// A message, the address that b then has, and a script that brings everybody back to where they were.
const MAPPINGS: [(&str, &str, usize, &str); 5] = [
    ("r send b map=0x1000000/12", "a small page into an empty space", 0x100_0000, "b wait"),
    ("r send b grant=0x1000000/12", "a grant into an empty space", 0x100_0000, "b wait"),
    ("r send b map=0x2000000/21", "a superpage", 0x200_0000, "b wait"),
    ("r send b grant=0x2000000/21", "a grant of a superpage", 0x200_0000, "b wait"),
    ("root send s; s send b map=0x5000000/12", "a page that sigma0 has to get first", 0x500_0000, "s wait; b wait"),
];

/// X.2, Map and Grant: whichever allocation fails, the message arrives and nothing of the page is there: no mapping, no
/// table, no node; later it comes.
#[test]
fn mappings_without_memory_leave_nothing() {
    for (message, what, address, again) in MAPPINGS {
        let mut failures = 0;
        for nth in 1.. {
            let w = with_memory();
            let old = ledger(w);
            w.k.kmem.fail_nth(nth);
            play(w, message);
            let is_over = w.k.kmem.is_failure_pending();
            w.k.kmem.fail_nth(0);
            assert_eq!(has(w, B, address), is_over, "{what}, allocation {nth}");
            if is_over {
                break;
            }
            failures += 1;
            let new = ledger(w);
            // What sigma0 has got is its own.
            let sigma0s = new.census.mappings - old.census.mappings;
            assert!(
                sigma0s == 0 && new == old || message.contains("s send"),
                "{what}, allocation {nth}: {new:?} {old:?}"
            );
            assert!(
                has(w, R, address) || sigma0s > 0 || message.contains("s send"),
                "a page that did not go is still there"
            );
            play(w, again);
            play(w, message);
            assert!(has(w, B, address), "{what}, again");
        }
        assert!(failures > 0, "{what} needs memory");
    }
}

/// X.2, Map: of an item of many pages, those before the failure come, and those after it do not.
#[test]
fn map_without_memory_maps_less() {
    let mut counts = std::collections::BTreeSet::new();
    for nth in 1.. {
        let w = with_memory();
        w.k.kmem.fail_nth(nth);
        play(w, "r send b 5 map=0x1000000/20");
        let is_over = w.k.kmem.is_failure_pending();
        w.k.kmem.fail_nth(0);
        expect(w, "a map without memory", "r sent; b got 5 from r");
        let pages: Vec<bool> = (0..256).map(|page| has(w, B, 0x100_0000 + page * 0x1000)).collect();
        let count = pages.iter().take_while(|&&is_there| is_there).count();
        assert!(pages[count..].iter().all(|is_there| !is_there), "the pages that came are the first");
        counts.insert(count);
        if is_over {
            assert_eq!(count, 256);
            break;
        }
        ledger(w);
        play(w, "b wait; r send b 5 map=0x1000000/20");
        assert!((0..256).all(|page| has(w, B, 0x100_0000 + page * 0x1000)), "again");
    }
    assert!(counts.len() > 3, "memory for nodes runs out in between: {counts:?}");
}

/// X.2, Page fault protocol: a reply whose mapping lacks memory brings nothing, and the thread faults again.
#[test]
fn fault_reply_without_memory_is_followed_by_another_fault() {
    for nth in 1.. {
        let w = with_memory();
        play(w, "a pager r; r wait a; a fault 0x1000000");
        let old = ledger(w);
        w.k.kmem.fail_nth(nth);
        play(w, "r send a map=0x1000000/12");
        let is_over = w.k.kmem.is_failure_pending();
        w.k.kmem.fail_nth(0);
        expect(w, "the reply", "r sent; a ready");
        assert_eq!(has(w, A, 0x100_0000), is_over);
        if is_over {
            assert!(nth > 1, "a mapping needs memory");
            break;
        }
        assert_eq!(ledger(w), old, "allocation {nth}");
        play(w, "r wait a; a fault 0x1000000; r send a map=0x1000000/12");
        assert!(has(w, A, 0x100_0000), "again");
    }
}

/// X.2, sigma0: a page of its own that cannot be entered for lack of memory makes sigma0 wait, as nobody can help it; when
/// there is memory, it goes on.
#[test]
fn sigma0_without_memory_waits() {
    for nth in 1.. {
        let w = World::new();
        play(w, "root send s");
        let old = ledger(w);
        w.k.kmem.fail_nth(nth);
        play(w, "s fault 0x12345000");
        if w.k.kmem.is_failure_pending() {
            w.k.kmem.fail_nth(0);
            assert!(nth > 2 && has(w, S, 0x1234_5000), "a page needs tables and a node");
            break;
        }
        expect(w, "a fault without memory", "s fault: waits for s");
        assert_eq!(ledger(w), old, "allocation {nth}");
        play(w, "root send s 1 snd=0; clock 999");
        expect(w, "sigma0, soon after", "s fault: waits for s; root Send Timeout");
        play(w, "clock 1100; s fault 0x12345000; s wait");
        assert!(has(w, S, 0x1234_5000), "again");
        assert_eq!(w.here().cpu.timeouts.count(), 0);
    }
}

/// X.2, StringItem: a string out of a page that sigma0 would have to get first is cut off without memory for it.
#[test]
fn string_from_a_missing_page_of_sigma0_is_cut_off() {
    let send = |w: World| {
        w.utcb(B).set_acceptor(Acceptor::COMPLETE.with_strings());
        [StringItem::new(8).raw(), 0x100_0000]
            .into_iter()
            .enumerate()
            .for_each(|(i, word)| w.utcb(B).set_br(i + 1, word));
        let tag = l4_abi::MsgTag::new(0, 0, 2).raw();
        // In a part of memory of which sigma0 has no table yet.
        w.send(S, B.id(), &[tag, StringItem::new(8).raw(), 0x80_1234_5000]);
    };
    for nth in 1.. {
        let w = with_memory();
        play(w, "r send b map=0x1000000/12; b wait; root send s");
        let old = ledger(w);
        w.k.kmem.fail_nth(nth);
        send(w);
        if w.k.kmem.is_failure_pending() {
            w.k.kmem.fail_nth(0);
            expect(w, "a string", "s sent; b got from s");
            assert!(nth > 1, "a page needs tables");
            break;
        }
        expect(w, "a string without memory", "s Send Aborted; b Receive Aborted");
        assert_eq!(ledger(w), old, "allocation {nth}");
        play(w, "b wait");
        send(w);
        expect(w, "the string, again", "s sent; b got from s");
    }
}

// --- calls that need no memory ---

/// IPC without items, faults, unmap, ExchangeRegisters, Schedule, deletion: none of them allocates.
#[test]
fn everything_else_needs_no_memory() {
    let w = with_memory();
    play(w, "r send b map=0x1000000/16; b wait; a handler c; a pager c");
    w.create(N);
    w.activate(M);
    let before = ledger(w);
    w.k.kmem.fail_nth(1);
    play(w, "a call b 1; b reply 'a 2; c wait rcv=0; c cancel b; a send b 1 snd=0; a send nil");
    play(w, "c wait; a fault 0x5000; c send a; c wait; a except; c send a");
    w.set_mrs(B, &[Fpage::new(0x100_0000, 14, l4_abi::Rights::ALL).expect("aligned").raw()]);
    w.enter(B, |here, b| here.unmap(b, UnmapControl::flush(1)));
    let args = super::schedule::nothing(X.id());
    assert!(w.enter(ROOT, |here, root| here.schedule(root, args)).is_ok());
    w.enter(ROOT, |here, root| here.thread_switch(root, A.id()));
    assert!(w.exregs(B, A.id(), ExregsControl::NONE).is_ok());
    for who in [M, N, Z, B] {
        assert_eq!(w.delete(ROOT, who), Ok(()));
    }
    assert!(w.k.kmem.is_failure_pending(), "nothing was allocated");
    w.k.kmem.fail_nth(0);
    assert!(ledger(w).free > before.free);
}

/// With no frame left, what needs none goes on, and what needs some is refused until one is given back.
#[test]
fn exhausted_memory_refuses_and_recovers() {
    let w = World::new();
    let mut held = Held::nothing();
    let frames: Vec<_> = std::iter::from_fn(|| w.k.kmem.alloc(w.k.machine, &mut held)).collect();
    for call in [create_space, create_active_far] {
        assert_eq!(call(w), Err(SysError::OutOfMemory));
    }
    play(w, "b wait; a call b 1; b reply a 2; a pager c; a fault 0x5000; c wait; c send a; z send b 9");
    expect(w, "IPC", "b got 9 from z; a got 2 from 'b; c sent");
    play(w, "root delete x; root delete y; root delete z");
    let census = w.k.spaces.check_invariants(Rest::Settled).expect("all is well");
    assert_eq!(w.frames_used(), frames.len() + census.frames);
    assert_eq!((create_space(w), create_active(w)), (Ok(()), Ok(())), "the spaces that went had enough");
}

// --- memory for ever ---

/// X.2, ThreadControl: threads and spaces come and go in any number, and not a frame is missing, nor does it take more
/// allocations the last time than the first.
#[test]
fn lives_cost_nothing() {
    let w = World::new();
    play(w, "b accept");
    let life = |round: Word| {
        w.activate(N);
        w.send(ROOT, N.id(), &[tag(0, 2), START_IP as Word, START_SP as Word]);
        w.create(P);
        create_active(w).expect("there is memory");
        if round.is_multiple_of(2) {
            migrate(w).expect("there is memory");
        }
        for who in [N, M, P] {
            w.delete(ROOT, who).expect("root may");
        }
    };
    let before = ledger(w);
    for round in 0..300 {
        life(round);
        assert_eq!(ledger(w), before, "round {round}");
    }
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("calls_without_memory_change_nothing", calls_without_memory_change_nothing),
    ("deletion_undoes_what_calls_made", deletion_undoes_what_calls_made),
    ("mappings_without_memory_leave_nothing", mappings_without_memory_leave_nothing),
    ("map_without_memory_maps_less", map_without_memory_maps_less),
    (
        "fault_reply_without_memory_is_followed_by_another_fault",
        fault_reply_without_memory_is_followed_by_another_fault,
    ),
    ("sigma0_without_memory_waits", sigma0_without_memory_waits),
    ("string_from_a_missing_page_of_sigma0_is_cut_off", string_from_a_missing_page_of_sigma0_is_cut_off),
    ("everything_else_needs_no_memory", everything_else_needs_no_memory),
    ("exhausted_memory_refuses_and_recovers", exhausted_memory_refuses_and_recovers),
    ("lives_cost_nothing", lives_cost_nothing),
];
