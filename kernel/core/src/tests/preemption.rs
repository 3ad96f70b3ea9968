//! Delayed preemption (X.2, Delayed Preemption; X.2, Preemption protocol; X.2, Schedule: preemption control).
//!
//! As in [`super::scheduling`], who acts in a script must be running.

use l4_abi::{PreemptFlags, PreemptionControl, PrioControl, ThreadId, Time, TimeControl, Timeouts};
use l4_abi::{Word, protocol};

use super::fast_path::fast_ipc;
use super::schedule::{nothing, schedule};
use super::scheduling::{ready, set_priority};
use super::script::{check_scheduled, expect, play};
use super::world::{A, B, C, R, ROOT, Who, World, X, Y};
use crate::syscall::ScheduleArgs;
use crate::thread::Work;

const NONE: u8 = 0;
const S: u8 = PreemptFlags::SIGNAL.raw();
const D: u8 = PreemptFlags::DELAY.raw();
const I: u8 = PreemptFlags::PENDING.raw();

/// a has priority 100, sensitive priority 150, these flags and this longest delay, and runs. x and y with priorities 120 and
/// 160 sleep until 1000 and 2000, b with 100 and c with 90 are ready. a's exception handler is c.
fn delaying(flags: u8, max_delay_us: u16) -> World {
    let w = ready(&[(X, 120), (Y, 160), (A, 100), (B, 100), (C, 90)]);
    play(w, "y wait y rcv=2000; x wait x rcv=1000");
    w.utcb(A).set_exception_handler(C.id());
    prepare(w, A, flags, max_delay_us);
    w
}

/// These flags, this longest delay and the sensitive priority 150 for somebody, as if set long ago.
fn prepare(w: World, who: Who, flags: u8, max_delay_us: u16) {
    w.tcb(who).sensitive_priority.set(150);
    w.here().set_max_delay(who.tcb(), max_delay_us);
    w.utcb(who).set_preempt_flags(flags);
}

fn flags(w: World, who: Who) -> u8 {
    w.utcb(who).preempt_flags()
}

#[track_caller]
fn check(given: u8, max_delay_us: u16, script: &str, expected: &str, left: u8) {
    let w = delaying(given, max_delay_us);
    check_scheduled(w, script, expected);
    assert_eq!(flags(w, A), left, "flags after `{script}`");
}

/// X.2, Delayed Preemption: without d, threads of a higher priority preempt at once, whatever else is set.
#[test]
fn preemption_is_at_once_without_d() {
    for given in [NONE, S, I, S | I] {
        check(given, 3_000, "clock 999", "a runs", given);
        check(given, 3_000, "clock 1000", "x runs; a ready; c ready", given);
    }
}

/// X.2, Delayed Preemption: with d, a thread that is not above the sensitive priority waits as long as the delay may last,
/// and I says so.
#[test]
fn preemption_is_delayed() {
    check(D, 3_000, "clock 999", "a runs", D);
    check(D, 900, "clock 1000", "a runs; x Receive Timeout", D | I);
    check(D, 900, "clock 1899", "a runs", D | I);
    check(D, 900, "clock 1900", "x runs; a ready", D | I);
    // The rest of the slice stays.
    let slept = "clock 1900; x wait; clock 2000; y wait; clock 9999";
    check(D, 900, slept, "a runs", D | I);
    check(D, 900, "clock 1900; x wait; clock 2000; y wait; clock 10000", "b runs", D | I);
}

/// X.2, Delayed Preemption: a thread above the sensitive priority preempts at once, also in the middle of a delay. The
/// other one is next.
#[test]
fn sensitive_priority_decides() {
    check(D, 3_000, "clock 2000", "y runs", D | I);
    check(D, 3_000, "clock 2000; y wait", "x runs", D | I);
    check(D, 3_000, "clock 2000; y wait; x wait", "a runs", D | I);
    for (sensitive, runs) in [(119, X), (120, A), (121, A)] {
        let w = delaying(D, 900);
        w.tcb(A).sensitive_priority.set(sensitive);
        w.clock(1_000);
        assert_eq!(w.running(), Some(runs), "sensitive priority {sensitive}");
        assert_eq!(flags(w, A) & I != 0, runs == A);
    }
}

/// X.2, Delayed Preemption: what is left of the budget after a delay is what the next one may last.
#[test]
fn delays_use_up_the_budget() {
    let w = delaying(D, 3_000);
    check_scheduled(w, "clock 2000; y wait y rcv=9000; x wait x rcv=1000", "a runs");
    assert_eq!(w.tcb(A).delay_left_us.get(), 2_000, "y came in the middle of it");
    check_scheduled(w, "clock 4999", "a runs");
    check_scheduled(w, "clock 5000", "x runs");
    assert_eq!(w.tcb(A).delay_left_us.get(), 0);
    check_scheduled(w, "x wait x rcv=1000; clock 5999", "a runs");
    check_scheduled(w, "clock 6000", "x runs; a ready");
}

/// X.2, Delayed Preemption: without budget, preemption is at once; s makes a preemption fault of it, which the exception
/// handler has to answer.
#[test]
fn exhausted_budget_faults_with_s() {
    check(D, 0, "clock 1000", "x runs; a ready", D);
    let fault = "x runs; a preemption fault: waits for c; c got 1000 0 from 'a";
    for (given, max_delay_us, at) in [(D | S, 0, 1_000), (D | S, 900, 1_900)] {
        let w = delaying(given, max_delay_us);
        play(w, "clock 500");
        w.make_run(C);
        play(w, "c wait");
        w.make_run(A);
        check_scheduled(w, &format!("clock {}", at - 1), "a runs; c waits for any");
        check_scheduled(w, &format!("clock {at}"), &fault.replace("1000", &at.to_string()));
        assert_eq!(w.utcb(C).tag(), protocol::preemption_tag());
        play(w, "x wait");
        w.make_run(C);
        check_scheduled(w, "c reply a 9 9 9", "a runs; c waits for any");
        assert_eq!(flags(w, A), given | if max_delay_us > 0 { I } else { NONE });
    }
    let w = delaying(D | S, 0);
    let before: Vec<Word> = (0..64).map(|i| i * 0x10001).collect();
    w.set_mrs(A, &before);
    check_scheduled(w, "clock 1000", "x runs; a preemption fault: queued on c");
    play(w, "x wait");
    w.make_run(C);
    check_scheduled(w, "c wait; c reply a 1 2 3", "a runs");
    assert_eq!(w.mrs(A), before);
}

/// X.2, Delayed Preemption: a preemption that may not be delayed is no fault.
#[test]
fn preemption_above_the_sensitive_priority_is_no_fault() {
    let w = delaying(D | S, 0);
    w.tcb(A).sensitive_priority.set(100);
    check_scheduled(w, "clock 1000", "x runs; a ready");
    check(D | S, 5_000, "clock 2000", "y runs; a ready", D | S | I);
}

/// X.2, Preemption protocol: without exception handler the thread halts; resumed, it goes on.
#[test]
fn fault_without_handler_halts() {
    let w = delaying(D | S, 0);
    w.utcb(A).set_exception_handler(ThreadId::NIL);
    check_scheduled(w, "clock 1000", "x runs; a halted");
    play(w, "x wait");
    check_scheduled(w, "b resume a; b wait", "a runs");
    // A handler that does not exist.
    let w = delaying(D | S, 0);
    w.utcb(A).set_exception_handler(A.version(7));
    check_scheduled(w, "clock 1000", "x runs; a halted");
    // The thread itself: it waits for itself, until somebody cancels that.
    let w = delaying(D | S, 0);
    w.utcb(A).set_exception_handler(A.id());
    check_scheduled(w, "clock 1000; x wait", "b runs; a preemption fault: queued on a");
    check_scheduled(w, "b cancel a; b wait", "a runs");
}

/// X.2, Delayed Preemption: the flags are read when they matter: a thread that has cleared d is preempted at the end of the
/// delay, without fault; one that sets it late delays from then on.
#[test]
fn flags_are_read_at_the_event() {
    let w = delaying(D | S, 3_000);
    play(w, "clock 1500");
    w.utcb(A).set_preempt_flags(I | S);
    check_scheduled(w, "clock 1999", "a runs");
    check_scheduled(w, "clock 2000; y wait; x wait; clock 5000", "a runs");
    let w = delaying(D | S, 900);
    play(w, "clock 1500");
    w.utcb(A).set_preempt_flags(I | S);
    check_scheduled(w, "clock 1900", "x runs; a ready");
    let w = delaying(NONE, 900);
    play(w, "clock 900");
    w.utcb(A).set_preempt_flags(D);
    check_scheduled(w, "clock 1899", "a runs");
}

/// X.2, Delayed Preemption: the end of a slice is delayed as well, by whom ever; then the thread goes behind its equals.
#[test]
fn end_of_slice_is_delayed() {
    let equals = |given, max_delay_us| {
        let w = ready(&[(A, 100), (B, 100)]);
        prepare(w, A, given, max_delay_us);
        w.utcb(A).set_exception_handler(B.id());
        w
    };
    let w = equals(D, 3_000);
    check_scheduled(w, "clock 9999", "a runs");
    assert_eq!(flags(w, A), D);
    check_scheduled(w, "clock 10000", "a runs");
    assert_eq!((flags(w, A), w.here().next_event()), (D | I, Some(13_000)));
    check_scheduled(w, "clock 12999", "a runs");
    check_scheduled(w, "clock 13000", "b runs; a ready");
    check_scheduled(w, "clock 22999", "b runs");
    // A full slice, and no budget any more.
    check_scheduled(w, "clock 23000", "a runs");
    check_scheduled(w, "clock 32999", "a runs");
    check_scheduled(w, "clock 33000", "b runs");
    check_scheduled(equals(D | S, 3_000), "clock 13000", "b runs; a preemption fault: queued on b");
    check_scheduled(equals(D | S, 0), "clock 10000; b wait; clock 15000", "b got 10000 0 from 'a; b runs");
    check_scheduled(equals(S, 3_000), "clock 10000", "b runs; a ready");
    // Also if nobody waits: the thread has asked to be told.
    let w = ready(&[(A, 100), (B, 90)]);
    prepare(w, A, D, 3_000);
    check_scheduled(w, "clock 10000", "a runs");
    assert_eq!(flags(w, A), D | I);
    check_scheduled(w, "clock 100000", "a runs; b ready");
}

/// X.2, Delayed Preemption: a slice that ends in the middle of a delay ends with it.
#[test]
fn slice_may_end_in_a_delay() {
    let w = ready(&[(X, 120), (A, 100), (B, 100)]);
    play(w, "x wait x rcv=8000");
    prepare(w, A, D, 3_000);
    check_scheduled(w, "clock 10999", "a runs");
    check_scheduled(w, "clock 11000", "x runs");
    check_scheduled(w, "x wait", "b runs");
}

fn switch(w: World, dest: ThreadId) {
    w.enter(A, |here, a| here.thread_switch(a, dest));
}

/// X.2, ThreadSwitch: who has been made to wait gets the processor, I is cleared, and the budget is full again.
#[test]
fn switch_ends_a_delay() {
    for dest in [ThreadId::NIL, B.id(), C.id(), ThreadId::ANY] {
        let w = delaying(D, 900);
        play(w, "clock 1500");
        w.utcb(A).lower_preempt_flags(PreemptFlags::DELAY);
        assert_eq!(flags(w, A), I);
        switch(w, dest);
        expect(w, "ThreadSwitch", "x runs; a ready");
        assert_eq!((flags(w, A), w.tcb(A).delay_left_us.get()), (NONE, 900), "{dest:?}");
    }
    // The budget comes back only by that.
    let w = delaying(D, 900);
    play(w, "clock 1900; x wait; clock 2000; y wait");
    assert_eq!(w.tcb(A).delay_left_us.get(), 0);
    switch(w, ThreadId::NIL);
    assert_eq!((flags(w, A), w.tcb(A).delay_left_us.get()), (D, 900));
}

/// X.2, ThreadSwitch: to oneself it gives nothing up, and ends nothing.
#[test]
fn switch_to_oneself_is_no_end_of_a_delay() {
    let w = delaying(D, 900);
    play(w, "clock 1500");
    switch(w, A.id());
    switch(w, A.local());
    check_scheduled(w, "clock 1899", "a runs");
    check_scheduled(w, "clock 1900", "x runs");
    assert_eq!(flags(w, A), D | I);
}

/// X.2, ThreadSwitch: a slice that is over cannot be given away: the next of the equals runs.
#[test]
fn drawn_out_slice_cannot_be_given() {
    let w = ready(&[(A, 100), (B, 100), (C, 100)]);
    prepare(w, A, D, 3_000);
    play(w, "clock 11000");
    switch(w, C.id());
    check_scheduled(w, "clock 20999", "b runs; a ready");
    check_scheduled(w, "clock 21000", "c runs");
    check_scheduled(w, "clock 31000", "a runs");
}

/// X.2, Delayed Preemption: a thread that blocks delays nothing any more: who waits for the processor gets it, although the
/// thread would have given it to its receiver. The fast path is not taken past that.
#[test]
fn blocking_ends_a_delay() {
    let w = ready(&[(X, 120), (B, 110), (A, 100)]);
    play(w, "x wait x rcv=1000; b wait");
    prepare(w, A, D, 3_000);
    play(w, "clock 1500");
    assert!(!fast_ipc(w, A, B.id(), B.id(), Timeouts::NEVER));
    check_scheduled(w, "a call b 1", "x runs; b got 1 from 'a; a waits for b");
    assert_eq!((w.tcb(A).delay_left_us.get(), flags(w, A)), (2_500, D | I));
    check_scheduled(w, "x wait", "b runs");
    for script in ["a wait", "a halt a", "a pager nil; a fault 0x5000"] {
        check(D, 3_000, &format!("clock 1500; {script}"), "x runs", D | I);
    }
}

/// X.2, Schedule: a new longest delay counts from now on, also for a delay in progress.
#[test]
fn schedule_sets_the_budget() {
    for (max_delay_us, end) in [(0, 11_000), (200, 11_200), (4_000, 15_000)] {
        let w = ready(&[(R, 100), (B, 100)]);
        prepare(w, R, D, 3_000);
        play(w, "clock 11000");
        let preemption = PreemptionControl::new(100, max_delay_us);
        assert!(schedule(w, R, ScheduleArgs { preemption, ..nothing(R.id()) }).is_ok());
        if max_delay_us > 0 {
            w.clock(end - 1);
            assert_eq!(w.running(), Some(R), "{max_delay_us}");
        }
        w.clock(end);
        assert_eq!(w.running(), Some(B), "{max_delay_us}");
    }
}

/// X.2, Schedule: a thread that is raised or lowered is where it belongs, but for what it delays.
#[test]
fn new_priorities_can_be_delayed() {
    let w = ready(&[(R, 100), (B, 90)]);
    prepare(w, R, D, 900);
    let raise = ScheduleArgs { prio: PrioControl::new(140), ..nothing(B.id()) };
    assert!(schedule(w, R, raise).is_ok());
    check_scheduled(w, "clock 899", "r runs; b ready");
    check_scheduled(w, "clock 900", "b runs");
    let w = ready(&[(R, 100), (B, 90)]);
    prepare(w, R, D, 900);
    let raise = ScheduleArgs { prio: PrioControl::new(151), ..nothing(B.id()) };
    assert!(schedule(w, R, raise).is_ok());
    assert_eq!(w.running(), Some(B), "above the sensitive priority");
}

/// X.2, Schedule: the end of the total quantum is not delayed.
#[test]
fn end_of_quantum_is_not_delayed() {
    let w = delaying(D | S, 3_000);
    w.tcb(A).total_quantum.set(Time::period_us(1_500));
    w.tcb(A).quantum_left_us.set(1_500);
    check_scheduled(w, "clock 1499", "a runs");
    check_scheduled(w, "clock 1500", "root runs; root got 1500 0 from a; a preemption: waits for root");
    check_scheduled(w, "root send a; root wait", "x runs; a ready");
    assert_eq!(w.tcb(A).delay_left_us.get(), 2_500);
}

/// X.2, Delayed Preemption: a donee delays like others; its delay is charged to who pays.
#[test]
fn donee_delays() {
    let w = ready(&[(B, 100), (A, 100), (C, 100)]);
    prepare(w, B, D, 3_000);
    check_scheduled(w, "b wait; clock 6000; a call b 1; clock 10000", "b runs");
    assert_eq!(flags(w, B), D | I);
    check_scheduled(w, "clock 12999", "b runs");
    check_scheduled(w, "clock 13000", "c runs");
    assert_eq!(w.tcb(A).slice_left_us.get(), 10_000, "its next one");
}

/// X.2, Delayed Preemption: a thread at work in the kernel that cannot delay any longer gives way, and tells of it when it
/// is done.
#[test]
fn fault_waits_for_the_work_in_the_kernel() {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/20; b accept; b wait; x wait x rcv=500; s wait");
    set_priority(w, X, 120);
    prepare(w, R, D | S, 0);
    w.utcb(R).set_exception_handler(C.id());
    set_priority(w, ROOT, 50);
    w.make_run(R);
    play(w, "r send b 1 map=0x1000000/20 ~");
    w.k.machine.set_clock(500);
    w.here().timer_interrupt();
    w.dispatch_steps(0);
    assert_eq!((w.running(), w.tcb(R).work()), (Some(X), Work::Transfer));
    play(w, "x wait");
    expect(w, "the transfer", "b got 1 from r; r preemption fault: queued on c");
    play(w, "c wait; c reply r");
    expect(w, "the answer", "r sent");
}

/// X.2, Schedule: a slice that is set in the middle of a delay is a full one.
#[test]
fn new_slice_in_a_delay_is_full() {
    let w = ready(&[(R, 100), (B, 100)]);
    prepare(w, R, D, 3_000);
    play(w, "clock 11000");
    let time = TimeControl::new(Time::period_us(5_000), Time::NEVER);
    assert!(schedule(w, R, ScheduleArgs { time, ..nothing(R.id()) }).is_ok());
    check_scheduled(w, "clock 15999", "r runs");
    check_scheduled(w, "clock 16000", "b runs");
}
