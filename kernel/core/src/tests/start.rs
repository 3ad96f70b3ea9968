//! How threads start (X.2, Thread start protocol).

use l4_abi::{Acceptor, ExregsControl, ScheduleResult, ThreadState};

use super::machine::DEFAULT_FLAGS;
use super::script::{expect, play};
use super::world::{A, M, N, ROOT, START_IP, START_SP, World, activation};
use crate::syscall::{Exregs, ThreadControlArgs};

fn waiting() -> World {
    let w = World::new();
    w.activate(M);
    w
}

fn registers(w: World) -> (usize, usize, usize) {
    let tcb = w.tcb(M);
    (tcb.ip.get(), tcb.sp.get(), tcb.flags.get())
}

/// X.2, ThreadControl: an activated thread waits for the start message of its pager alone.
#[test]
fn new_thread_waits_for_its_pager() {
    let w = waiting();
    expect(w, "activation", "m start: waits for root");
    assert_eq!(w.state(M), ScheduleResult::Waiting);
    play(w, "a send m 1 2 snd=0; r send m 1 2 snd=0");
    expect(w, "messages of others", "m start: waits for root; a Send Timeout; r Send Timeout");
}

/// X.2, Thread start: the message is instruction pointer and stack pointer; its label does not matter.
#[test]
fn start_message_is_ip_and_sp() {
    let w = waiting();
    play(w, "root send m 0x1234 0x5678 label=0x77 snd=0");
    expect(w, "the start message", "root sent; m ready");
    assert_eq!(registers(w), (0x1234, 0x5678, DEFAULT_FLAGS));
    assert_eq!(w.utcb(M).mrs().iter().map(|mr| mr.load(std::sync::atomic::Ordering::Relaxed)).sum::<u64>(), 0);
    assert_eq!(w.utcb(M).br(0), 0);
}

/// X.2, Thread start: a pager that sent before is queued, and received at once.
#[test]
fn start_message_can_come_first() {
    let w = World::new();
    w.create(N);
    play(w, "r send n 0x1234 0x5678");
    let args = ThreadControlArgs { pager: super::world::R.id(), ..activation(N) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    let tcb = w.tcb(N);
    play(w, "n finish");
    expect(w, "activation", "r sent; n ready");
    assert_eq!((tcb.ip.get(), tcb.sp.get()), (0x1234, 0x5678));
}

/// X.2, Thread start: a message of another form starts the thread too, with the registers it has.
#[test]
fn other_message_starts_with_the_registers_there_are() {
    for words in ["", "1", "1 2 3"] {
        let w = waiting();
        let control = ExregsControl::IP | ExregsControl::SP;
        w.exchange(A, Exregs { control, ip: 0x40, sp: 0x80, ..super::world::no_registers(M.id()) })
            .expect("same space");
        play(w, &format!("root send m {words}"));
        expect(w, words, "m ready; root sent");
        assert_eq!(registers(w), (0x40, 0x80, DEFAULT_FLAGS), "`{words}`");
    }
}

/// X.2, ExchangeRegisters: a thread can be started without its start message; it never sees an error.
#[test]
fn exchange_registers_starts_a_thread() {
    let w = waiting();
    let control = ExregsControl::from_raw(0x11E);
    let args = Exregs { control, ip: START_IP, sp: START_SP, ..super::world::no_registers(M.id()) };
    assert_eq!(w.exchange(A, args).expect("same space").state, ThreadState::RECEIVING);
    expect(w, "Start_SpIp", "m ready");
    assert_eq!(registers(w), (START_IP, START_SP, DEFAULT_FLAGS));
    assert_eq!((w.utcb(M).mr(0), w.utcb(M).error_code()), (0, 0));
    play(w, "m send a 1; a wait");
    expect(w, "a send", "a got 1 from 'm; m sent");
}

/// X.2, ExchangeRegisters: R alone starts it, with the registers it has; S alone does not.
#[test]
fn abort_of_the_wait_starts_a_thread() {
    let w = waiting();
    play(w, "a cancel-send m");
    expect(w, "S", "m start: waits for root");
    play(w, "a cancel-receive m");
    expect(w, "R", "m ready");
}

/// X.2, Thread start: whom the thread waits for was decided when it was activated.
#[test]
fn later_change_of_the_pager_does_not_matter() {
    let w = waiting();
    play(w, "m pager a; a send m 1 2 snd=0");
    expect(w, "another pager", "a Send Timeout; m start: waits for root");
    play(w, "root send m 1 2");
    expect(w, "the first pager", "m ready");
    assert_eq!(w.utcb(M).pager(), A.id());
}

/// X.2, Thread start: the thread takes untyped words only, whatever somebody writes into its acceptor.
#[test]
fn start_message_cannot_map() {
    let w = waiting();
    w.utcb(M).set_acceptor(Acceptor::COMPLETE);
    play(w, "root send m 0x1234 0x5678 map=0x1000/12");
    expect(w, "a start message with an item", "root Send Overflow");
}

/// X.2, Thread start: the pager may start it in another's name, and answer for another.
#[test]
fn start_message_may_be_propagated() {
    let w = waiting();
    play(w, "r send m 0x1234 0x5678 as=root");
    expect(w, "in the name of root", "m ready; r sent");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("new_thread_waits_for_its_pager", new_thread_waits_for_its_pager),
    ("start_message_is_ip_and_sp", start_message_is_ip_and_sp),
    ("start_message_can_come_first", start_message_can_come_first),
    ("other_message_starts_with_the_registers_there_are", other_message_starts_with_the_registers_there_are),
    ("exchange_registers_starts_a_thread", exchange_registers_starts_a_thread),
    ("abort_of_the_wait_starts_a_thread", abort_of_the_wait_starts_a_thread),
    ("later_change_of_the_pager_does_not_matter", later_change_of_the_pager_does_not_matter),
    ("start_message_cannot_map", start_message_cannot_map),
    ("start_message_may_be_propagated", start_message_may_be_propagated),
];
