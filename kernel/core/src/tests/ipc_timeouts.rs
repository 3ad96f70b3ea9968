//! How long threads wait in IPC (X.2, Ipc: timeouts; Time).

use l4_abi::{ThreadId, Time, Timeouts};

use super::script::{check, expect, play};
use super::world::{A, B, World};

/// X.2, Ipc: a zero timeout needs a partner who is there already.
#[test]
fn zero_timeouts_do_not_block() {
    check("a send b 1 snd=0", "a Send Timeout");
    check("b wait; a send b 1 snd=0", "a sent; b got 1 from 'a");
    check("a wait rcv=0", "a Receive Timeout");
    check("b send a 1; a wait rcv=0", "a got 1 from 'b");
    check("b wait; a call b 1 rcv=0", "a Receive Timeout; b got 1 from 'a");
}

/// X.2, Time: any period with m = 0 and e != 0 is zero.
#[test]
fn zero_has_many_encodings() {
    for exponent in 1..32 {
        let w = World::new();
        let zero = Time::from_raw(exponent << 10);
        w.ipc(A, B.id(), ThreadId::NIL, Timeouts::new(zero, Time::NEVER));
        expect(w, "a send with zero timeout", "a Send Timeout");
        w.ipc(A, ThreadId::NIL, ThreadId::ANY, Timeouts::new(Time::NEVER, zero));
        expect(w, "a wait with zero timeout", "a Receive Timeout");
    }
}

/// X.2, Time: a period ends not before its length is over.
#[test]
fn period_ends_when_it_is_over() {
    check("a send b 1 snd=1000; clock 999", "a queued on b");
    check("a send b 1 snd=1000; clock 1000", "a Send Timeout");
    check("a wait rcv=1000; clock 999", "a waits for any");
    check("a wait rcv=1000; clock 1000", "a Receive Timeout");
    check("clock 777; a wait b rcv=5; clock 781", "a waits for b");
    check("clock 777; a wait b rcv=5; clock 782", "a Receive Timeout");
}

/// X.2, Time: a point is a moment on the clock; one that has passed ends the wait at once.
#[test]
fn point_ends_at_its_moment() {
    check("clock 300; a send b 1 snd=@1000; clock 999", "a queued on b");
    check("clock 300; a send b 1 snd=@1000; clock 1000", "a Send Timeout");
    check("clock 300; a wait rcv=@1000; clock 999", "a waits for any");
    check("clock 300; a wait rcv=@1000; clock 1000", "a Receive Timeout");
    check("clock 300; a wait rcv=@200; clock 300", "a Receive Timeout");
    check("clock 300; b wait; a send b 1 snd=@200", "a sent");
}

/// X.2, Time: "never" has no end, and periods of weeks are not cut to fewer bits.
#[test]
fn long_waits_are_long() {
    let week = 7 * 24 * 3600 * 1_000_000u64;
    let w = World::new();
    play(w, "a send b 1; c wait");
    w.jump(52 * week);
    expect(w, "a year", "a queued on b; c waits for any");
    let w = World::new();
    let longest = Time::from_raw(0x7FFF);
    assert_eq!(longest.length_us(), Some(1023 << 31));
    w.ipc(A, ThreadId::NIL, ThreadId::ANY, Timeouts::new(Time::NEVER, longest));
    w.jump((1023 << 31) - 1);
    expect(w, "just less than 25 days", "a waits for any");
    w.jump(1023 << 31);
    expect(w, "25 days", "a Receive Timeout");
}

/// X.2, Ipc: each phase has its own timeout; that of the receive phase starts with it.
#[test]
fn receive_timeout_starts_with_the_receive_phase() {
    check("a call b 1 rcv=100; clock 5000", "a queued on b");
    check("a call b 1 rcv=100; clock 5000; b wait; clock 5099", "a waits for b");
    check("a call b 1 rcv=100; clock 5000; b wait; clock 5100", "a Receive Timeout");
    check("a call b 1 snd=100 rcv=never; clock 50; b wait; clock 9000", "a waits for b");
    check("b wait; a call b 1 snd=100; clock 9000", "a waits for b");
}

/// X.2, Ipc: a partner who comes in time ends the waiting, and nothing is left of the timeout.
#[test]
fn message_in_time_stops_the_timeout() {
    let in_time = "a wait rcv=100; clock 99; b send a 1; clock 500";
    check(in_time, "a got 1 from 'b; b sent");
    check("a send b 1 snd=100; clock 99; b wait; clock 500", "b got 1 from 'a; a sent");
    check("a wait rcv=100; b send a 1; a wait; clock 500", "a waits for any");
    check("a wait rcv=100; b cancel a; a wait; clock 500", "a waits for any");
    let w = World::new();
    play(w, in_time);
    assert_eq!(w.here().cpu.timeouts.count(), 0);
}

/// X.2, Ipc: those whose time is over at one moment all come back; the others go on waiting.
#[test]
fn many_sleep_at_once() {
    let sleep = "a wait a rcv=300; b wait b rcv=100; c wait c rcv=300; x wait x rcv=102400; d send x snd=200";
    let at = |us| format!("{sleep}; clock {us}");
    check(&at(99), "a waits for a; b waits for b; c waits for c; x waits for x; d queued on x");
    check(&at(100), "a waits for a; b Receive Timeout; c waits for c; x waits for x; d queued on x");
    check(&at(250), "a waits for a; c waits for c; x waits for x; d Send Timeout");
    check(&at(300), "a Receive Timeout; c Receive Timeout; x waits for x");
    check(&at(102_400), "x Receive Timeout");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("zero_timeouts_do_not_block", zero_timeouts_do_not_block),
    ("zero_has_many_encodings", zero_has_many_encodings),
    ("period_ends_when_it_is_over", period_ends_when_it_is_over),
    ("point_ends_at_its_moment", point_ends_at_its_moment),
    ("long_waits_are_long", long_waits_are_long),
    ("receive_timeout_starts_with_the_receive_phase", receive_timeout_starts_with_the_receive_phase),
    ("message_in_time_stops_the_timeout", message_in_time_stops_the_timeout),
    ("many_sleep_at_once", many_sleep_at_once),
];
