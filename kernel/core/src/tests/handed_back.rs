//! The short way of words between processors ([`crate::cross`]): what it does is what the phases of IPC do, and a thread
//! that is handed back is missed by nobody.

use l4_abi::{MsgTag, ProcessorControl, ThreadId, Timeouts, Word};

use super::invariants;
use super::processors::{Call, apart, at_once};
use super::schedule::nothing;
use super::script::{expect, play};
use super::world::{A, B, C, R, ROOT, Who, World, X, Y, tag};
use crate::machine::CpuId;
use crate::syscall::ScheduleArgs;

/// Plays a script in the world of [`apart`]; if `by_the_short_way`, nobody is posted back to processor 0.
#[track_caller]
fn check(by_the_short_way: bool, script: &str, expected: &str) {
    let w = apart();
    let (before, last) = script.rsplit_once("; ").expect("a last step, which sends");
    play(w, before);
    play(w, &format!("{last} ~"));
    while w.k.machine.take_kick(CpuId::new(1)) {
        w.on(1).dispatch_steps(100);
    }
    let is_posted_back = w.k.cpus[0].mailbox.members(w.k.tcbs).contains(&A.tcb());
    assert_eq!(!is_posted_back, by_the_short_way, "{script}");
    w.finish_all();
    expect(w, script, expected);
    invariants::check(w.k);
    invariants::check_rest(w.k);
}

/// X.2, Ipc: calls and open waits after a send take the short way, whatever the receiver waits for.
#[test]
fn words_take_the_short_way() {
    for wait in ["x wait", "x wait a", "x wait rcv=1000", "x wait; root place x 0; root place x 1"] {
        check(true, &format!("{wait}; a call x 1"), "x got 1 from a; a waits for x");
        check(true, &format!("{wait}; a reply x 1"), "x got 1 from a; a waits for any");
        check(true, &format!("{wait}; a call x 1 snd=0"), "x got 1 from a; a waits for x");
    }
    check(true, "a wait; x call a 3; a reply x 1", "x got 1 from a; a waits for any");
    check(true, "x wait; y halt x; a call x 1", "x halted; a waits for x");
}

/// X.2, Thread identifiers: the machine finds the receiver by its number alone; nobody sets out to another version of it.
#[test]
fn nobody_sets_out_to_a_stale_id() {
    let w = apart();
    w.set_mrs(A, &[tag(0, 0)]);
    for (to, sets_out) in [(X.version(2), false), (ThreadId::NIL, false), (X.id(), true)] {
        let is_away = w.trap(A, |here, a| here.send_away(a, (X.tcb(), to), ThreadId::NIL, Timeouts::NEVER));
        assert_eq!(is_away, sets_out, "{to:?}");
    }
    w.finish_all();
    expect(w, "a message", "a queued on x");
}

/// What is not so simple goes from phase to phase.
#[test]
fn other_messages_do_not() {
    check(false, "x wait; a send x 1", "x got 1 from a; a sent");
    check(false, "x wait; a call x 1 rcv=50", "x got 1 from a; a waits for x");
    check(false, "x wait; b send a 2; a reply x 1", "x got 1 from a; a got 2 from 'b; b sent");
    check(false, "x wait; b send a 2; a call x 1", "x got 1 from a; a waits for x; b queued on a");
}

/// X.2, Ipc: the message is the same as by any other way, and the receiver's other registers stay.
#[test]
fn all_words_arrive_and_nothing_else() {
    for untyped in [0, 1, 7, 8, 63] {
        let w = apart();
        w.set_mrs(X, &(100..164).collect::<Vec<Word>>());
        w.wait(X, ThreadId::ANY);
        let mut words: Vec<Word> = (0..64).collect();
        words[0] = MsgTag::new(0x77, untyped, 0).with_flags(MsgTag::ERROR | MsgTag::REDIRECTED).raw();
        w.set_mrs(A, &words);
        w.ipc(A, X.id(), X.id(), Timeouts::NEVER);
        let found = w.mrs(X);
        assert_eq!(found[0], MsgTag::new(0x77, untyped, 0).with_flags(MsgTag::XCPU).raw());
        assert_eq!(found[1..=untyped], words[1..=untyped]);
        assert_eq!(found[untyped + 1..], (100..164).collect::<Vec<Word>>()[untyped + 1..]);
        assert_eq!(w.k.machine.saved(X.tcb()).from.get(), Some(A.id()));
    }
    // In one space the sender is known by its local id, and can name the receiver by its.
    let w = apart();
    w.place(B, 1);
    w.wait(B, ThreadId::ANY);
    w.set_mrs(A, &[tag(0, 0)]);
    w.ipc(A, B.local(), B.local(), Timeouts::NEVER);
    assert_eq!(w.k.machine.saved(B.tcb()).from.get(), Some(A.local()));
    expect(w, "a call by local ids", "a waits for b");
}

/// a on 0 calls x on 1, or replies to it, and is on its way there.
fn on_its_way(from: ThreadId) -> World {
    let w = apart();
    play(w, "x wait");
    w.set_mrs(A, &[tag(0, 0)]);
    w.trap_ipc(A, X.id(), from, Timeouts::NEVER);
    w.dispatch_steps(0);
    w
}

fn sends(who: Who, to: Who) -> Call<()> {
    let send = move |w: World, who: Who| {
        w.set_mrs(who, &[tag(0, 0)]);
        w.trap_ipc(who, to.id(), ThreadId::NIL, Timeouts::NEVER);
    };
    (who, Box::new(send))
}

fn moves(who: Who, dest: Who, cpu: u16) -> Call<()> {
    let args = ScheduleArgs { processor: ProcessorControl::new(cpu), ..nothing(dest.id()) };
    (who, Box::new(move |w, who| _ = w.trap(who, |here, thread| here.schedule(thread, args)).expect("root may")))
}

/// X.2, Ipc, send: who begins to wait for a thread at the moment at which it is handed back meets it.
#[test]
fn who_queues_on_a_thread_that_is_handed_back_meets_it() {
    for seed in 0..500 {
        let w = on_its_way(ThreadId::ANY);
        at_once(w, seed, vec![sends(B, A)]);
        expect(w, &format!("seed {seed}"), "x got from a; a got from 'b; b sent");
        let w = on_its_way(X.id());
        at_once(w, seed, vec![sends(B, A)]);
        expect(w, &format!("seed {seed}"), "x got from a; a waits for x; b queued on a");
    }
}

/// Sends to x, which waits, and then waits for anybody.
fn replies(who: Who) -> Call<()> {
    let reply = |w: World, who: Who| {
        w.set_mrs(who, &[tag(0, 0)]);
        w.trap_ipc(who, X.id(), ThreadId::ANY, Timeouts::NEVER);
    };
    (who, Box::new(reply))
}

/// X.2, Schedule: a thread that is moved while it is away, or at the moment at which it is handed back, waits where it runs.
#[test]
fn thread_that_is_moved_while_it_is_handed_back_goes() {
    for seed in 0..500 {
        for cpu in [1, 2] {
            let w = apart();
            play(w, "x wait");
            w.make_run(A);
            at_once(w, seed, vec![moves(R, A, cpu), replies(A)]);
            expect(w, &format!("seed {seed}"), "x got from a; a waits for any");
            let there = CpuId::new(cpu.into());
            assert_eq!((w.tcb(A).affinity(), w.tcb(A).home()), (there, there), "seed {seed}");
            play(w, "y send a 5");
            expect(w, &format!("seed {seed}"), "a got 5 from y");
        }
    }
}

/// Both at once, and back again; then everybody can be met where it is.
#[test]
fn moves_and_senders_at_once_lose_nobody() {
    for seed in 0..500 {
        let w = on_its_way(ThreadId::ANY);
        w.place(C, 2);
        at_once(w, seed, vec![moves(R, A, 2), sends(B, A)]);
        at_once(w, seed, vec![moves(ROOT, A, 0), sends(C, A)]);
        expect(w, &format!("seed {seed}"), "x got from a; a got from 'b; b sent; c queued on a");
        play(w, "a wait; y wait");
        expect(w, &format!("seed {seed}"), "a got from 'c; c sent; y waits for any");
        assert_eq!(w.tcb(A).home(), CpuId::new(0), "seed {seed}");
        assert!(w.tcb(Y).exists());
    }
}
