//! Halted threads (X.2, ExchangeRegisters: H): they do not run in user mode, but their IPC goes on.

use l4_abi::{ExregsControl, ThreadState};

use super::script::{check, expect, play};
use super::world::{A, M, Who, World};

/// X.2, ExchangeRegisters: a halted thread gets no processor until it is resumed.
#[test]
fn halted_thread_does_not_run() {
    check("b halt a", "a halted");
    check("b halt a; b halt a; b resume a", "a ready");
    check("b resume a", "a ready");
    check("a halt a", "a halted");
    check("a halt a; b resume a; a send b 1 snd=0", "a Send Timeout");
}

/// X.2, ExchangeRegisters: an IPC is not affected: who waits gets the message, but stops before user mode.
#[test]
fn halted_receiver_gets_its_message() {
    let received = "a wait; b halt a; c send a 1";
    check("a wait; b halt a", "a waits for any, halted");
    check(received, "a halted; c sent");
    check(&format!("{received}; b resume a"), "a got 1 from 'c");
    check("a wait rcv=0; b halt a; b resume a", "a Receive Timeout");
    check("a wait; b halt a; b resume a; c send a 1", "a got 1 from 'c");
}

/// X.2, ExchangeRegisters: a halted sender stays in the queue, and its receive phase begins when it is received.
#[test]
fn halted_sender_is_received() {
    check("a send b 1; c halt a; b wait", "b got 1 from 'a; a halted");
    check("a send b 1; c halt a; b wait; c resume a", "a sent");
    check("a call b 1; c halt a; b wait", "b got 1 from 'a; a waits for b, halted");
    check("a call b 1; c halt a; b wait; b send a 2; c resume a", "a got 2 from 'b");
    check("d send a 5; a call b 1 from=any; c halt a; b wait; a finish", "a halted; d sent; b got 1 from 'a");
    check("d send a 5; a call b 1 from=any; c halt a; b wait; a finish; c resume a", "a got 5 from 'd");
}

/// X.2, Ipc: the time of a halted thread runs out as that of others does.
#[test]
fn halted_thread_times_out() {
    check("a wait rcv=100; b halt a; clock 100", "a halted");
    check("a wait rcv=100; b halt a; clock 100; b resume a", "a Receive Timeout");
    check("a send b 1 snd=100; c halt a; clock 100; c resume a", "a Send Timeout");
}

/// X.2, ExchangeRegisters: abort and halt at once.
#[test]
fn cancelled_and_halted_thread_stays_halted() {
    check("a wait; b halt a; b cancel a", "a halted");
    check("a wait; b halt a; b cancel a; b resume a", "a Receive Canceled");
    let w = World::new();
    play(w, "a wait");
    let old = w.exregs(super::world::B, A.id(), ExregsControl::ABORT_IPC | ExregsControl::STOP).expect("same space");
    assert_eq!(old.state, ThreadState::RECEIVING);
    expect(w, "AbortIpc_and_stop", "a halted");
    play(w, "b start a");
    expect(w, "Start", "a Receive Canceled");
}

const PAGES: &str = "root send s; r accept; r wait; s send r map=0x1000000/20; b accept";

/// X.2, ExchangeRegisters: the transfer that a thread carries out goes on when it is halted, and also if it is resumed
/// before it is over.
#[test]
fn halted_thread_finishes_its_transfer() {
    let begun = format!("{PAGES}; b wait; r send b 1 map=0x1000000/20 ~");
    check(&format!("{begun}; root halt r"), "r works on Transfer, halted; b receives from r");
    check(&format!("{begun}; root halt r; r finish"), "r halted; b got 1 from r");
    check(&format!("{begun}; root halt r; root resume r; r finish"), "r sent; b got 1 from r");
    check(&format!("{begun}; a halt b; r finish"), "r sent; b halted");
    check(&format!("{begun}; a halt b; r finish; a resume b"), "b got 1 from r");
    check(&format!("{begun}; root halt r; root cancel r; root resume r"), "r Send Aborted; b Receive Aborted");
}

/// X.2, ExchangeRegisters: a thread halted while it waits for its start message is started, and runs when it is resumed.
#[test]
fn halted_thread_can_be_started() {
    let w = World::new();
    w.activate(M);
    play(w, "a halt m; root send m 4096 8192");
    expect(w, "the start message", "m halted; root sent");
    play(w, "a resume m");
    expect(w, "resume", "m ready");
    assert_eq!((w.tcb(M).ip.get(), w.tcb(M).sp.get()), (4096, 8192));
}

/// X.2, ExchangeRegisters: the fault of a halted thread is handled; it runs on when it is resumed.
#[test]
fn fault_of_a_halted_thread_is_handled() {
    let fault = "a pager b; b wait; a fault 0x5000; c halt a; b send a";
    check(fault, "a halted; b sent");
    check(&format!("{fault}; c resume a"), "a ready");
}

/// X.2, ExchangeRegisters: control tells what the thread was doing.
#[test]
fn old_state_tells_halt_and_phase() {
    let (halted, sending, receiving) = (ThreadState::HALTED, ThreadState::SENDING, ThreadState::RECEIVING);
    let found_sender = format!("{PAGES}; r send b 1 map=0x1000000/20; b wait ~");
    let found_receiver = format!("{PAGES}; b wait; r send b 1 map=0x1000000/20 ~");
    let rows = [
        ("", "b", ThreadState::NONE),
        ("a halt b", "b", halted),
        ("b wait", "b", receiving),
        ("b wait rcv=50", "b", receiving),
        ("b wait; a halt b", "b", halted | receiving),
        ("b send c 1", "b", sending),
        ("b call c 1", "b", sending),
        ("b send c 1; a halt b", "b", halted | sending),
        ("c wait; b call c 1", "b", receiving),
        ("d send b 5; b call c 1 from=any; c wait", "b", receiving),
        ("b pager c; b fault 0x5000", "b", sending),
        ("b pager c; c wait; b fault 0x5000", "b", receiving),
        ("b pager nil; b fault 0x5000", "b", halted),
        (&found_sender, "b", receiving),
        (&found_sender, "r", sending),
        (&found_receiver, "b", receiving),
        (&found_receiver, "r", sending),
    ];
    for (script, whose, expected) in rows {
        let (w, whose) = (World::new(), Who::named(whose).expect("of the cast"));
        play(w, script);
        let by = if whose.name() == "r" { super::world::ROOT } else { A };
        let old = w.begin(by, |here, t| here.exchange_registers(t, super::world::no_registers(whose.id())));
        assert_eq!(old.expect("same space").state, expected, "state of {} after `{script}`", whose.name());
    }
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("halted_thread_does_not_run", halted_thread_does_not_run),
    ("halted_receiver_gets_its_message", halted_receiver_gets_its_message),
    ("halted_thread_times_out", halted_thread_times_out),
    ("cancelled_and_halted_thread_stays_halted", cancelled_and_halted_thread_stays_halted),
    ("halted_thread_can_be_started", halted_thread_can_be_started),
    ("fault_of_a_halted_thread_is_handled", fault_of_a_halted_thread_is_handled),
];
