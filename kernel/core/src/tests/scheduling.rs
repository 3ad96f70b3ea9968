//! Who runs when, and on whose time (X.2, Scheduling; X.2, Ipc: scheduling effects; X.2, ThreadSwitch).
//!
//! Here the scheduler decides: whoever acts in a script must be running.

use l4_abi::{PrioControl, ThreadId, Time, TimeControl, Timeouts};

use super::schedule::{nothing, schedule};
use super::script::{check_scheduled, expect, play};
use super::world::{A, B, C, D, R, ROOT, Who, World, X};
use crate::syscall::ScheduleArgs;

/// These threads are ready in this order, with these priorities; the initial servers wait.
pub fn ready(threads: &[(Who, u8)]) -> World {
    let w = World::bare();
    for &(who, priority) in threads {
        w.start(who);
        set_priority(w, who, priority);
    }
    w.wait(ROOT, ThreadId::ANY);
    w
}

/// Root gives somebody a priority.
pub fn set_priority(w: World, who: Who, priority: u8) {
    assert!(schedule(w, ROOT, ScheduleArgs { prio: PrioControl::new(priority), ..nothing(who.id()) }).is_ok());
}

#[track_caller]
fn check(threads: &[(Who, u8)], script: &str, expected: &str) {
    check_scheduled(ready(threads), script, expected);
}

const EQUAL: [(Who, u8); 3] = [(A, 100), (B, 100), (C, 100)];

/// X.2, Scheduling: the highest priority runs; among equals, who was ready first.
#[test]
fn highest_priority_runs_first() {
    check(&EQUAL, "", "a runs");
    check(&[(A, 100), (B, 120), (C, 110)], "", "b runs");
    check(&[(A, 100), (B, 120), (C, 110)], "b wait", "c runs");
    check(&[(A, 100), (B, 120), (C, 110)], "b wait; c wait; a wait", "a waits for any");
    check(&[(A, 0), (B, 0)], "a wait; b wait; clock 500", "b waits for any");
}

/// X.2, Scheduling: round robin among equals, a slice of 10 ms each; who is alone goes on.
#[test]
fn equals_take_turns() {
    for (us, who) in
        [(9_999, "a"), (10_000, "b"), (19_999, "b"), (20_000, "c"), (30_000, "a"), (60_000, "a"), (70_000, "b")]
    {
        check(&EQUAL, &format!("clock {us}"), &format!("{who} runs"));
    }
    check(&[(A, 100), (B, 99)], "clock 1000000", "a runs");
}

/// X.2, Scheduling: a thread that becomes ready preempts only if its priority is strictly higher.
#[test]
fn only_a_higher_priority_preempts() {
    for (priority, runs) in [(99, "a"), (100, "a"), (101, "b")] {
        let threads = [(B, 200), (A, 100)];
        let w = ready(&threads);
        play(w, "b wait");
        lower(w, B, priority);
        check_scheduled(w, "a send b 1", &format!("{runs} runs"));
    }
    check(&[(A, 100), (B, 120)], "b wait b rcv=500; clock 499", "a runs");
    check(&[(A, 100), (B, 120)], "b wait b rcv=500; clock 500", "b runs");
    check(&[(B, 120), (A, 120)], "b wait b rcv=500; clock 501", "a runs; b Receive Timeout");
}

/// Gives a thread another priority, from outside.
fn lower(w: World, who: Who, priority: u8) {
    w.tcb(who).priority.set(priority);
}

/// X.2, Scheduling: a preempted thread stays first of its equals and keeps the rest of its slice.
#[test]
fn preempted_thread_keeps_its_place_and_slice() {
    let threads = [(X, 120), (A, 100), (B, 100)];
    let preempted = "x wait x rcv=4000; clock 4000";
    check(&threads, preempted, "x runs");
    check(&threads, &format!("{preempted}; clock 9000; x wait"), "a runs");
    check(&threads, &format!("{preempted}; clock 9000; x wait; clock 14999"), "a runs");
    check(&threads, &format!("{preempted}; clock 9000; x wait; clock 15000"), "b runs");
}

/// X.2, Ipc: a send wakes its receiver, which runs only if its priority is higher.
#[test]
fn send_switches_to_a_higher_receiver_only() {
    check(&[(B, 120), (A, 100)], "b wait; a send b 1", "b runs; a sent");
    check(&[(B, 100), (A, 100)], "b wait; a send b 1", "a runs");
    check(&[(B, 100), (A, 100), (C, 100)], "b wait; a send b 1; a wait; c wait", "b runs");
}

/// X.2, Ipc: whoever blocks in a call gives its receiver the processor, whatever the priorities and the queues are.
#[test]
fn call_donates() {
    check(&[(B, 200), (A, 100), (C, 100)], "b wait; a call b 1", "b runs");
    let w = ready(&[(B, 200), (A, 100), (C, 100)]);
    play(w, "b wait");
    lower(w, B, 10);
    check_scheduled(w, "a call b 1", "b runs");
    check_scheduled(w, "b reply a 2", "a runs; a got 2 from 'b");
    check_scheduled(w, "a send b 3 snd=0; a wait", "c runs; b got 3 from 'a");
    // Also if the receiver's priority is above the caller's, and somebody's who is ready above both.
    let w = ready(&[(D, 220), (B, 200), (A, 100), (C, 80)]);
    play(w, "d wait; b wait");
    lower(w, D, 60);
    lower(w, B, 50);
    check_scheduled(w, "a call b 1", "b runs");
    check_scheduled(w, "b call d 1", "d runs");
}

/// X.2, Scheduling: donated time is the donor's: when its slice is over, the next of the donor's queue runs.
#[test]
fn donated_time_is_the_donors() {
    let threads = [(B, 100), (A, 100), (C, 100)];
    let called = "b wait; clock 6000; a call b 1";
    check(&threads, &format!("{called}; clock 9999"), "b runs");
    check(&threads, &format!("{called}; clock 10000"), "c runs");
    check(&threads, &format!("{called}; clock 20000"), "b runs");
    check(&threads, &format!("{called}; clock 9000; b reply a 2; clock 9999"), "a runs");
    check(&threads, &format!("{called}; clock 9000; b reply a 2; clock 10000"), "c runs");
}

/// X.2, Scheduling: a thread that runs on a donation is preempted like others, by its own priority.
#[test]
fn donee_is_preempted_by_its_own_priority() {
    let w = ready(&[(B, 200), (X, 200), (A, 100)]);
    play(w, "b wait; x wait x rcv=500");
    lower(w, B, 10);
    lower(w, X, 50);
    check_scheduled(w, "a call b 1; clock 499", "b runs");
    check_scheduled(w, "clock 500", "x runs; b got 1 from 'a");
    check_scheduled(w, "x wait", "b runs");
}

/// s, here b, has been called by x; a is queued on it. With these priorities b replies to x and waits.
fn serving(server: u8, client: u8, queued: u8, how: &str) -> World {
    let w = ready(&[(B, server), (X, client), (A, queued)]);
    w.make_run(B);
    play(w, "b wait");
    w.make_run(X);
    play(w, "x call b 1");
    w.make_run(A);
    play(w, how);
    w.make_run(B);
    play(w, "b reply x 3");
    w
}

/// X.2, Ipc: a reply-and-wait that finds a sender: the higher of the sender and of who was replied to runs, the sender if
/// they are equals: then the server works for it.
#[test]
fn reply_and_wait_weighs_client_and_sender() {
    let called = [
        ((100, 100, 100), "b"),
        ((120, 100, 100), "b"),
        ((10, 100, 100), "b"),
        ((10, 99, 100), "b"),
        ((100, 99, 100), "b"),
        ((10, 101, 100), "x"),
        ((100, 101, 100), "x"),
        ((110, 101, 100), "x"),
        ((200, 101, 100), "x"),
        ((200, 99, 100), "b"),
    ];
    for ((server, client, queued), runs) in called {
        let w = serving(server, client, queued, "a call b 2");
        let seen = format!("{runs} runs; b got 2 from 'a; x got 3 from b; a waits for b");
        expect(w, &format!("server {server}, client {client}, sender {queued}"), &seen);
    }
    // A sender that does not wait for an answer runs itself, unless the server is above it.
    let sent = [((100, 100, 100), "a"), ((10, 100, 100), "a"), ((120, 100, 100), "b"), ((10, 101, 100), "x")];
    for ((server, client, queued), runs) in sent {
        let w = serving(server, client, queued, "a send b 2");
        expect(w, &format!("server {server}, client {client}, sender {queued}"), &format!("{runs} runs; a sent"));
    }
}

/// X.2, Ipc: who was passed over waits in its queue, and runs when it is the best.
#[test]
fn passed_over_thread_is_ready() {
    let w = serving(10, 100, 100, "a call b 2");
    check_scheduled(w, "b wait", "x runs; b waits for any");
    let w = serving(200, 101, 100, "a call b 2");
    check_scheduled(w, "x wait", "b runs");
}

/// X.2, Ipc: a receive that finds a sender is a switch to it; who sent only goes on unless the receiver is above it.
#[test]
fn receive_switches_to_a_queued_sender() {
    for (sender, receiver, runs) in [(100, 100, "a"), (101, 100, "a"), (99, 100, "b")] {
        for (how, sees) in [("a send b 1", "a sent"), ("a call b 1", "a waits for b")] {
            let w = ready(&[(B, receiver), (C, 100), (A, sender)]);
            w.make_run(A);
            play(w, how);
            w.make_run(B);
            play(w, "b wait");
            let runs = if how == "a send b 1" { runs } else { "b" };
            expect(w, how, &format!("{runs} runs; b got 1 from 'a; {sees}"));
        }
    }
    // The receiver is next, before its equals, and the slice is still its own.
    let w = ready(&[(B, 100), (C, 100), (A, 100)]);
    w.make_run(A);
    play(w, "a send b 1");
    w.make_run(B);
    play(w, "clock 4000; b wait; clock 9999");
    check_scheduled(w, "", "a runs");
    check_scheduled(w, "a wait", "b runs");
}

/// X.2, Ipc: a call whose receive phase fails at once has given the processor away nevertheless.
#[test]
fn failed_receive_after_a_send_donates() {
    check(&[(B, 100), (A, 100)], "b wait; a call b 1 rcv=0", "b runs; a Receive Timeout");
    let w = ready(&[(B, 200), (A, 100)]);
    play(w, "b wait");
    lower(w, B, 10);
    check_scheduled(w, "a call b 1 rcv=0", "b runs");
    check_scheduled(w, "b wait", "a runs; a Receive Timeout");
}

/// X.2, Ipc: who is woken by an error is queued; the caller goes on unless the other's priority is higher.
#[test]
fn error_wakes_without_a_switch() {
    check(&[(B, 100), (A, 100)], "b wait; a cancel b", "a runs; b Receive Canceled");
    check(&[(B, 120), (A, 100)], "b wait; a cancel b", "b runs; a ready");
    check(&[(B, 120), (R, 100), (A, 100)], "b send a 1; r delete a", "b runs; b Send NonExisting");
}

/// X.2, ExchangeRegisters: a resumed thread is ready, and preempts if its priority is higher; a halted one gives way.
#[test]
fn halt_and_resume_schedule() {
    check(&[(B, 120), (A, 100)], "b halt b", "a runs");
    check(&[(B, 120), (A, 100)], "b halt b; a resume b", "b runs");
    check(&[(B, 100), (A, 100)], "b halt b; a resume b", "a runs");
    check(&EQUAL, "a halt b; a wait", "c runs");
    check(&EQUAL, "a halt b; a resume b; a wait; c wait", "b runs");
}

// --- ThreadSwitch ---

fn switch(w: World, who: Who, dest: ThreadId) {
    assert_eq!(w.running(), Some(who));
    w.enter(who, |here, thread| here.thread_switch(thread, dest));
}

/// X.2, ThreadSwitch: nilthread gives up the rest of the slice: behind the others, with a fresh slice.
#[test]
fn yield_goes_to_the_end_of_the_queue() {
    let w = ready(&EQUAL);
    w.clock(6_000);
    for (who, next) in [(A, B), (B, C), (C, A)] {
        switch(w, who, ThreadId::NIL);
        assert_eq!(w.running(), Some(next));
    }
    check_scheduled(w, "clock 15999", "a runs");
    check_scheduled(w, "clock 16000", "b runs");
    let w = ready(&[(A, 100), (B, 99)]);
    switch(w, A, ThreadId::NIL);
    assert_eq!(w.running(), Some(A), "nobody else is as high");
}

/// X.2, ThreadSwitch: dest runs on the caller's slice, and the caller stays ready, first of its equals. When the slice is
/// over, the turn is at whose it would have been without the switch.
#[test]
fn switch_donates() {
    for dest in [C.id(), C.local()] {
        let w = ready(&EQUAL);
        w.clock(6_000);
        switch(w, A, dest);
        check_scheduled(w, "clock 9999", "c runs; a ready");
        check_scheduled(w, "clock 10000", "b runs");
        check_scheduled(w, "clock 20000", "c runs");
        check_scheduled(w, "clock 30000", "a runs");
    }
    let w = ready(&[(A, 100), (B, 100), (C, 10)]);
    switch(w, A, C.id());
    check_scheduled(w, "clock 9999", "c runs");
    check_scheduled(w, "c wait", "a runs");
}

/// X.2, ThreadSwitch: to oneself it returns at once; to somebody who cannot run it is as to nilthread.
#[test]
fn switch_to_nobody_yields() {
    let w = ready(&EQUAL);
    w.clock(6_000);
    switch(w, A, A.id());
    switch(w, A, A.local());
    check_scheduled(w, "clock 9999", "a runs");
    for dest in [D.id(), B.version(2), ThreadId::ANY, ThreadId::ANY_LOCAL, D.local(), ROOT.id()] {
        let w = ready(&EQUAL);
        switch(w, A, dest);
        assert_eq!(w.running(), Some(B), "{dest:?}");
    }
    let w = ready(&EQUAL);
    play(w, "a halt c");
    switch(w, A, C.id());
    assert_eq!(w.running(), Some(B), "c is halted");
}

// --- Schedule ---

fn set(w: World, who: Who, dest: Who, priority: u8) {
    assert_eq!(w.running(), Some(who));
    assert!(schedule(w, who, ScheduleArgs { prio: PrioControl::new(priority), ..nothing(dest.id()) }).is_ok());
}

/// X.2, Schedule: a new priority counts at once: ready threads change their queue, and the best one runs.
#[test]
fn new_priority_counts_at_once() {
    let threads = [(R, 100), (A, 100), (B, 100)];
    let w = ready(&threads);
    set(w, R, B, 101);
    assert_eq!(w.running(), Some(B), "raised above the caller");
    let w = ready(&threads);
    set(w, R, R, 99);
    assert_eq!(w.running(), Some(A), "lowered below others");
    let w = ready(&threads);
    set(w, R, A, 100);
    check_scheduled(w, "r wait", "b runs; a ready");
    let w = ready(&[(B, 120), (R, 100), (A, 100)]);
    play(w, "b wait");
    set(w, R, B, 90);
    check_scheduled(w, "r send b 1; r wait", "a runs");
}

/// X.2, Schedule: a new slice counts at once; never is a slice without end.
#[test]
fn new_slice_counts_at_once() {
    let set = |us| if us == 0 { Time::NEVER } else { Time::period_us(us) };
    for (us, at, runs) in [(500, 6_499, R), (500, 6_500, A), (0, 1_000_000, R)] {
        let w = ready(&[(R, 100), (A, 100)]);
        w.clock(6_000);
        let args = ScheduleArgs { time: TimeControl::new(set(us), Time::NEVER), ..nothing(R.id()) };
        assert!(schedule(w, R, args).is_ok());
        w.clock(at);
        assert_eq!(w.running(), Some(runs), "{us} us, {at}");
    }
}

/// X.2, Scheduling: who lives on the slice of a thread that is deleted goes on with its own.
#[test]
fn donee_of_a_deleted_donor_has_its_own_slice() {
    let threads = [(R, 100), (A, 100), (B, 100)];
    let deleted = "r wait; clock 3000; a call r 1; r delete a";
    check(&threads, deleted, "r runs; a gone");
    check(&threads, &format!("{deleted}; clock 12999"), "r runs");
    check(&threads, &format!("{deleted}; clock 13000"), "b runs");
}

/// X.2, Scheduling: a thread whose slice has no end lends it to others, but not for ever while better ones are ready: neither
/// to one that keeps it nor to one that always gives it back.
#[test]
fn time_without_end_is_lent_for_a_slice() {
    for slice in [Time::NEVER, Time::period_us(920_649_728)] {
        check_lent(slice);
    }
}

/// a has this slice, which lasts for longer than anybody here.
fn check_lent(slice: Time) {
    let endless = |threads: &[(Who, u8)]| {
        let w = ready(threads);
        w.tcb(A).time_slice.set(slice);
        w.here().refill_slice(A.tcb());
        w
    };
    // The donee keeps it: somebody below goes on waiting, somebody above does not.
    for (other, at, runs) in
        [(60, 16_383, "b"), (60, 16_384, "c"), (40, 1_000_000, "b"), (50, 26_383, "b"), (50, 26_384, "c")]
    {
        let w = endless(&[(B, 200), (A, 100), (C, other)]);
        play(w, "b wait");
        lower(w, B, 50);
        check_scheduled(w, &format!("a call b 1; clock {at}"), &format!("{runs} runs; b got 1 from 'a"));
    }
    // A server, as high as who waits, is there whenever the timer fires.
    let w = endless(&[(B, 200), (A, 100), (C, 100)]);
    play(w, "b wait");
    lower(w, B, 50);
    check_scheduled(w, "a call b 1; b reply a 2", "a runs; a got 2 from 'b");
    check_scheduled(w, "clock 1000000; a call b 3", "c runs; b got 3 from 'a");
    // It is asked once: with nobody better the next hand-over is as any other.
    let w = endless(&[(B, 200), (A, 100), (C, 40)]);
    play(w, "b wait");
    lower(w, B, 50);
    check_scheduled(w, "clock 16384; a call b 1; b reply a 2", "a runs; a got 2 from 'b");
    assert!(w.here().may_pass_on());
}

/// A slice that is over within a second is all lent.
#[test]
fn time_with_an_end_is_lent_to_its_end() {
    let w = ready(&[(B, 200), (A, 100), (C, 60)]);
    w.tcb(A).time_slice.set(Time::period_us(1_000_000));
    w.here().refill_slice(A.tcb());
    play(w, "b wait");
    lower(w, B, 50);
    check_scheduled(w, "a call b 1; clock 999424", "b runs; b got 1 from 'a");
    check_scheduled(w, "clock 1000448", "c runs; b got 1 from 'a");
}

/// Without anybody ready the processor idles until a timeout; without timeouts no timer is needed.
#[test]
fn idle_processor_wakes_for_timeouts() {
    let w = ready(&[(A, 100)]);
    check_scheduled(w, "a wait a rcv=5000", "a waits for a");
    assert_eq!(w.running(), None);
    assert!(w.here().next_event().is_some_and(|at| at <= 5_000));
    check_scheduled(w, "clock 5000", "a runs");
    play(w, "a wait");
    assert_eq!((w.running(), w.here().next_event()), (None, None));
}

/// X.2, Scheduling: the timer is for what is due: none while nothing is, one interrupt for a sleep of any length.
#[test]
fn timer_fires_once_for_a_sleeper() {
    for time in [1, 2, 63, 64, 65, 1_000, 4_097, 1_000_000, 3_600_000_000, 1023 << 31] {
        let w = ready(&[(A, 100)]);
        w.clock(12_345);
        let period = Time::period_us(time);
        let due = 12_345 + period.length_us().expect("a period");
        w.ipc(A, ThreadId::NIL, A.id(), Timeouts::new(Time::NEVER, period));
        assert_eq!((w.running(), w.here().next_event()), (None, Some(due)), "{time} us");
        w.jump(due);
        assert_eq!(w.running(), Some(A));
        play(w, "a wait");
        assert_eq!(w.here().next_event(), None, "nothing is due");
    }
    // A slice without end is looked at now and then: its owner may lend it.
    let w = ready(&[(A, 100), (B, 100)]);
    w.tcb(A).time_slice.set(Time::NEVER);
    w.here().refill_slice(A.tcb());
    assert_eq!((w.running(), w.here().next_event()), (Some(A), Some(16_384)));
    w.wait(B, ThreadId::ANY);
    w.clock(5_000);
    assert_eq!((w.running(), w.here().next_event()), (Some(A), Some(16_384)));
}

/// X.2, Scheduling: threads whose time comes at one moment run by priority.
#[test]
fn simultaneous_wakers_run_by_priority() {
    let w = ready(&[(A, 110), (B, 120), (C, 100)]);
    check_scheduled(w, "b wait b rcv=500; a wait a rcv=500; clock 500", "b runs; a Receive Timeout");
}
