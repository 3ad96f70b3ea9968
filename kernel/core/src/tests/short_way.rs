//! The short way of page faults does what the long way does, in the states that it accepts, and nothing in others.

use l4_abi::{Fpage, MapItem, MsgTag, Rights, ThreadId, Time, Timeouts, UnmapControl, Word};

use super::invariants;
use super::machine::Fake;
use super::memory::ledger;
use super::script::play;
use super::world::{A, B, C, D, EVERYBODY, R, ROOT, S, START_IP, Who, World};
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};

/// The page that the answers of these tests map, and where.
const PAGE: usize = 0x100_1000;

/// All that can be told of the threads and the processor, but for what nobody reads before it is written.
fn view(w: World) -> Vec<String> {
    let thread = |who: Who| {
        let tcb = w.tcb(who);
        let (waits_for, partner) = (tcb.waits_for.get(), tcb.waiting_for().map(|_| tcb.partner.get()));
        let rest = (tcb.status(), tcb.purpose(), tcb.work(), tcb.peer.get(), tcb.ip.get(), tcb.is_halted());
        let time = (tcb.slice_left_us.get(), tcb.quantum_left_us.get(), tcb.delay_left_us.get());
        let from = w.k.machine.saved(who.tcb()).from.get();
        let (name, mrs) = (who.name(), w.mrs(who));
        format!("{name}: {} {waits_for:?} {partner:?} {rest:?} {time:?} {from:?} {mrs:?}", w.outcome(who))
    };
    let cpu = w.here().cpu;
    let (ready, timeouts) = (cpu.ready.members(w.k.tcbs), cpu.timeouts.members(w.k.tcbs));
    let (owner, owes) = (cpu.slice_owner.get(), cpu.must_choose.get());
    let processor = format!("{:?} runs, {owner:?} pays, {owes}, ready {ready:?}, {timeouts:?}", w.running());
    let page = w.k.spaces.lookup(w.k.space_of(A.tcb()), PAGE);
    EVERYBODY
        .into_iter()
        .filter(|&who| w.tcb(who).is_active())
        .map(thread)
        .chain([processor, format!("{page:?}")])
        .collect()
}

type Entry<T> = dyn Fn(&mut Here<'static, Fake>, TcbRef) -> T;

/// Lets `who` enter the kernel, by the short way in one of two equal worlds and by the long way in the other. The short way
/// must be taken or not, and both must come to the same.
#[track_caller]
fn compare(worlds: [World; 2], who: Who, is_short: bool, short: &Entry<Option<TcbRef>>, long: &Entry<()>) {
    let [one, other] = worlds;
    let before = view(one);
    let next = one.trap(who, short);
    assert_eq!(next.is_some(), is_short);
    if !is_short {
        return assert_eq!(view(one), before, "nothing has happened");
    }
    assert_eq!(next, one.here().cpu.current.get().thread(), "who runs is told");
    other.trap(who, long);
    for w in worlds {
        w.dispatch();
        invariants::check(w.k);
    }
    assert_eq!(next, one.here().cpu.current.get().thread(), "the dispatcher agrees");
    assert_eq!(view(one), view(other));
    assert_eq!(ledger(one), ledger(other));
}

/// A world in which a is about to fault. A word `prio` in a script sets priorities of b and a, which run or wait.
fn before_fault(script: &str) -> World {
    let w = World::new();
    let (steps, priorities) = script.split_once(" prio ").unwrap_or((script, "100 100"));
    play(w, steps);
    w.make_run(A);
    let (b, a) = priorities.split_once(' ').expect("two priorities");
    w.tcb(B).priority.set(b.parse().expect("a number"));
    w.tcb(A).priority.set(a.parse().expect("a number"));
    w
}

#[track_caller]
fn check_fault(script: &str, is_short: bool) {
    println!("{script}");
    compare(
        [(); 2].map(|()| before_fault(script)),
        A,
        is_short,
        &|here, a| here.fault_to_waiting_pager(a, 0x5123, Rights::WRITE, START_IP),
        &|here, a| here.ask_pager(a, 0x5123, Rights::WRITE, START_IP),
    );
}

/// X.2, Page fault: a pager that waits for anybody or for the thread has the fault at once.
#[test]
fn fault_goes_straight_to_a_pager_that_waits() {
    check_fault("a pager b; b wait", true);
    check_fault("a pager b; b wait a", true);
    check_fault("a pager b; b wait 'a", true);
    check_fault("a pager x; x wait", true);
    check_fault("a pager x; x wait a", true);
    check_fault("a pager x; x wait; c halt a; c resume a", true);
    check_fault("a pager b; b wait; c send b 1; b wait", true);
}

/// X.2, Page fault: whatever else there is to think of is left to the phases of the IPC.
#[test]
fn unusual_faults_go_the_long_way() {
    for script in [
        "",
        "a pager nil",
        "a pager any",
        "a pager n; b wait",
        "a pager b/2; b wait",
        "a pager 'b; b wait",
        "a pager a",
        "a pager b",
        "a pager b; b wait c",
        "a pager b; b wait local",
        "a pager b; b wait b",
        "a pager b; b wait rcv=500",
        "a pager b; b wait; c halt b",
        "a pager b; b wait; c send a 1",
        "a pager b; b wait; c send a 1 as=b",
        "a pager b; c send b 1 as=a; b wait d",
        "a pager x; x wait; root redirect a z",
        "a pager x; z wait; root redirect a z",
    ] {
        check_fault(script, false);
    }
}

/// X.2, Scheduling: the pager gets the processor, as the receiver of every call does, whatever the priorities are.
#[test]
fn pager_gets_the_processor_whatever_the_priorities_are() {
    // c and d are ready with priority 100, and root with a higher one unless it waits.
    for priorities in ["100 100", "90 100", "110 100", "100 90", "95 90", "90 95"] {
        check_fault(&format!("a pager b; b wait prio {priorities}"), true);
        check_fault(&format!("a pager b; b wait; root wait prio {priorities}"), true);
    }
}

/// sigma0's own faults are not its pager's.
#[test]
fn faults_of_sigma0_are_its_own() {
    let w = World::new();
    play(w, "root send s; root wait");
    let next = w.trap(S, |here, s| {
        here.k.utcb(s).set_pager(ROOT.id());
        here.fault_to_waiting_pager(s, 0x5123, Rights::READ, START_IP)
    });
    assert_eq!(next, None);
}

// --- answers ---

/// How pager r answers.
#[derive(Clone, Copy, Debug)]
struct Answer {
    tag: MsgTag,
    item: MapItem,
    to: ThreadId,
    from: ThreadId,
    timeouts: Timeouts,
}

fn page(base: usize, size_log2: u32, rights: Rights) -> Fpage {
    Fpage::new(base as Word, size_log2, rights).expect("aligned")
}

/// The usual answer.
fn usual() -> Answer {
    Answer {
        tag: MsgTag::new(5, 0, MapItem::WORDS),
        item: MapItem::map(page(PAGE, 12, Rights::ALL), PAGE as Word),
        to: A.id(),
        from: ThreadId::ANY,
        timeouts: Timeouts::NEVER,
    }
}

fn mapping(page: Fpage, snd_base: usize) -> Answer {
    Answer { item: MapItem::map(page, snd_base as Word), ..usual() }
}

/// A world in which r, the pager of a, has two pages of which a has the first, and a has faulted.
fn before_answer(script: &str) -> World {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/12; r wait; s send r map=0x1001000/12");
    play(w, "a pager r; r wait; a fault 0x1000000; r reply a map=0x1000000/12; a fault 0x1001000");
    play(w, script);
    w.make_run(R);
    w
}

/// Lets r answer after `script`.
#[track_caller]
fn check_answer(script: &str, answer: Answer, is_short: bool) {
    println!("{script}: {answer:?}");
    let Answer { to, from, timeouts, .. } = answer;
    let worlds = [(); 2].map(|()| before_answer(script));
    for w in worlds {
        let [first, second] = answer.item.words();
        w.set_mrs(R, &[answer.tag.raw(), first, second]);
        w.k.machine.saved(R.tcb()).from.set(None);
        w.tcb(R).ip.set(w.k.machine.ipc_return_ip());
    }
    let short = move |here: &mut Here<'static, Fake>, r| here.answer_fault(r, to, from, timeouts);
    compare(worlds, R, is_short, &short, &move |here, r| here.begin_ipc(r, to, from, timeouts));
    if !is_short {
        return;
    }
    // The threads go on, and what is derived goes with what it is derived from.
    for w in worlds {
        play(w, "a send r 1");
        w.set_mrs(R, &[page(PAGE, 12, Rights::ALL).raw()]);
        w.enter(R, |here, r| here.unmap(r, UnmapControl::from_raw(0)));
        assert_eq!(w.k.spaces.lookup(w.k.space_of(A.tcb()), PAGE), None);
    }
    assert_eq!(view(worlds[0]), view(worlds[1]));
    assert_eq!(ledger(worlds[0]), ledger(worlds[1]));
}

/// X.2, Page fault: the answer with a page maps it, and the thread goes on, whatever rights are passed and whomever the pager
/// waits for next.
#[test]
fn usual_answers_go_straight_back() {
    check_answer("", usual(), true);
    check_answer("", Answer { from: A.id(), ..usual() }, true);
    check_answer("", Answer { timeouts: Timeouts::new(Time::ZERO, Time::NEVER), ..usual() }, true);
    check_answer("", Answer { timeouts: Timeouts::new(Time::period_us(9), Time::NEVER), ..usual() }, true);
    for rights in [Rights::READ, Rights::WRITE, Rights::EXECUTE, Rights::READ_WRITE, Rights::READ_EXECUTE] {
        check_answer("", mapping(page(PAGE, 12, rights), PAGE), true);
    }
    // To elsewhere, below the same table; the low bits of the send base do not matter.
    check_answer("", mapping(page(PAGE, 12, Rights::ALL), 0x100_5000), true);
    check_answer("", mapping(page(PAGE, 12, Rights::ALL), PAGE + 0xC00), true);
    check_answer("c send b 1; d wait", usual(), true);
}

/// X.2, Map items: nobody passes rights that he has not himself.
#[test]
fn short_answers_pass_no_more_than_the_pager_has() {
    let w = before_answer("");
    w.set_mrs(S, &[page(PAGE, 12, Rights::WRITE).raw()]);
    w.enter(S, |here, s| here.unmap(s, UnmapControl::from_raw(0)));
    let Answer { tag, item, to, from, timeouts } = usual();
    let [first, second] = item.words();
    w.make_run(R);
    w.set_mrs(R, &[tag.raw(), first, second]);
    w.tcb(R).ip.set(w.k.machine.ipc_return_ip());
    assert!(w.at_home_of(R).here().answer_fault(R.tcb(), to, from, timeouts).is_some(), "it is the usual answer");
    let rights = |who: Who| w.k.spaces.lookup(w.k.space_of(who.tcb()), PAGE).map(|page| page.rights);
    assert_eq!((rights(R), rights(A)), (Some(Rights::READ_EXECUTE), Some(Rights::READ_EXECUTE)));
}

/// X.2, Page fault: all other answers are carried out phase by phase.
#[test]
fn unusual_answers_go_the_long_way() {
    for tag in [MsgTag::new(0, 0, 0), MsgTag::new(0, 1, 2), MsgTag::new(0, 0, 4), MsgTag::new(0, 0, 1)] {
        check_answer("", Answer { tag, ..usual() }, false);
    }
    check_answer("", Answer { tag: usual().tag.with_flags(MsgTag::PROPAGATED), ..usual() }, false);
    check_answer("", Answer { item: MapItem::grant(page(PAGE, 12, Rights::ALL), PAGE as Word), ..usual() }, false);
    check_answer("", Answer { to: A.version(2), ..usual() }, false);
    check_answer("", Answer { to: D.id(), ..usual() }, false);
    check_answer("", Answer { to: ThreadId::NIL, ..usual() }, false);
    check_answer("", Answer { from: ThreadId::NIL, ..usual() }, false);
    check_answer("", Answer { from: ThreadId::ANY_LOCAL, ..usual() }, false);
    check_answer("", Answer { from: C.id(), ..usual() }, false);
    check_answer("", Answer { timeouts: Timeouts::new(Time::NEVER, Time::ZERO), ..usual() }, false);
    for item in [
        mapping(page(PAGE, 12, Rights::NONE), PAGE),
        mapping(page(PAGE, 12, Rights::ALL), 0x100_0000),
        mapping(page(0x100_0000, 13, Rights::ALL), 0x100_0000),
        mapping(page(PAGE, 10, Rights::ALL), PAGE),
        mapping(Fpage::NIL, PAGE),
        mapping(Fpage::COMPLETE, PAGE),
        mapping(page(PAGE, 12, Rights::ALL), 0x4000_0000),
        mapping(page(PAGE, 12, Rights::ALL), 0x7000_0000),
        mapping(page(PAGE, 12, Rights::ALL), 0x7100_1000),
        mapping(page(PAGE, 12, Rights::ALL), 1 << 47),
        mapping(page(0x100_2000, 12, Rights::ALL), PAGE),
        mapping(page(0x7000_0000, 12, Rights::ALL), PAGE),
        mapping(page(1 << 47, 12, Rights::ALL), PAGE),
    ] {
        check_answer("", item, false);
    }
    for script in [
        "c cancel a",
        "c halt a",
        "c send r 1",
        "c send r 1 as=d",
        "root redirect r z",
        "c cancel a; a pager x; a fault 0x5000",
        "c cancel a; a wait r",
        "c cancel a; a except",
    ] {
        check_answer(script, usual(), false);
    }
}
