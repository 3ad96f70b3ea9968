//! Who meets whom (X.2, Ipc: phases, send, receive).

use l4_abi::{MR_COUNT, MsgTag, ThreadId, Timeouts, Word};

use super::script::{check, expect, play};
use super::world::{A, B, C, N, World, X, tag};

/// X.2, Ipc: the message and the sender's id arrive; a send without receive phase has no `from`.
#[test]
fn message_reaches_a_waiting_thread() {
    check("b wait a; a send b 11 12", "b got 11 12 from 'a; a sent");
    check("b wait; a send b", "b got from 'a; a sent");
}

/// X.2, Ipc, receive: who is queued already is received at once.
#[test]
fn message_of_a_blocked_sender_is_received_at_once() {
    check("a send b 11 12", "a queued on b");
    check("a send b 11 12; b wait a", "b got 11 12 from 'a; a sent");
    check("a send b 11 12; b wait", "b got 11 12 from 'a; a sent");
}

/// X.2, Ipc, FromSpecifier: the sender is a local id for threads of its space, a global one for others.
#[test]
fn sender_is_local_to_its_own_space_and_global_to_others() {
    check("b wait; a send b 1", "b got 1 from 'a");
    check("b wait; x send b 1", "b got 1 from x");
    check("a send b 1; b wait", "b got 1 from 'a");
    check("x send b 1; b wait", "b got 1 from x");
    check("b wait x; x send b 1", "b got 1 from x");
    check("root wait; r send root 1", "root got 1 from 'r");
}

/// X.2, Ipc, receive: a closed wait leaves everybody else queued.
#[test]
fn closed_wait_takes_only_its_partner() {
    check("b wait a; c send b 1; x send b 2", "b waits for a; c queued on b; x queued on b");
    check("b wait a; c send b 1; a send b 2", "b got 2 from 'a; c queued on b");
    check("c send b 1; a send b 2; b wait a", "b got 2 from 'a; c queued on b");
    check("c send b 1; b wait a", "b waits for a; c queued on b");
}

/// X.2, Ipc, receive: anylocalthread is anybody of the own space.
#[test]
fn anylocal_wait_takes_only_its_own_space() {
    check("b wait local; x send b 1", "b waits for local; x queued on b");
    check("b wait local; x send b 1; c send b 2", "b got 2 from 'c; x queued on b");
    check("x send b 1; c send b 2; d send b 3; b wait local", "b got 2 from 'c; x queued on b; d queued on b");
    check("x send b 1; b wait local", "b waits for local; x queued on b");
}

/// X.2, ThreadId: in its own space a thread is known by either id.
#[test]
fn local_and_global_ids_name_the_same_thread() {
    check("b wait 'a; a send b 1", "b got 1 from 'a");
    check("b wait a; a send 'b 1", "b got 1 from 'a");
    check("b wait 'a; a send 'b 1", "b got 1 from 'a");
    check("a send 'b 1; b wait 'a", "b got 1 from 'a; a sent");
    check("b wait; a call 'b 1; b send 'a 2", "a got 2 from 'b");
}

/// X.2, ThreadId: a local id means nothing beyond its space. There y has the place that b has here; where c is here,
/// nobody is there.
#[test]
fn local_ids_are_of_the_callers_space() {
    check("b wait; y wait; x send 'b 1", "y got 1 from 'x; b waits for any");
    check("x send 'c 1", "x Send NonExisting");
    check("x wait 'c", "x Receive NonExisting");
}

/// X.2, ThreadId: words that look like local ids, but are no thread's MR0, name nobody.
#[test]
fn words_that_are_no_local_ids_name_nobody() {
    let w = World::new();
    let near = A.local().raw();
    for raw in
        [near + 64, near - 64, near - 512, near + 512, near + 1024 * 8, near + (1 << 20), 64, 512, 0x4000, !0xFFF]
    {
        w.ipc(B, ThreadId::from_raw(raw), ThreadId::NIL, Timeouts::NEVER);
        expect(w, &format!("a send to {raw:#x}"), "b Send NonExisting");
        w.ipc(B, ThreadId::NIL, ThreadId::from_raw(raw), Timeouts::NEVER);
        expect(w, &format!("a wait for {raw:#x}"), "b Receive NonExisting");
    }
}

/// X.2, ThreadId: a local id is a hint that user code can forge; it never leads to a thread with another local id.
#[test]
fn forged_my_global_id_redirects_nobody() {
    let w = World::new();
    w.utcb(A).set_my_global_id(X.id());
    play(w, "a wait; x wait; b send 'a 1 snd=0");
    expect(w, "with a forged id", "b Send NonExisting; a waits for any; x waits for any");
    w.utcb(A).set_my_global_id(B.id());
    play(w, "c send 'a 1 snd=0");
    expect(w, "with another forged id", "c Send NonExisting");
}

/// X.2, Ipc: a receive from oneself sleeps; nothing matches it, not even what one sends to oneself or what somebody
/// sends in one's own name.
#[test]
fn wait_for_oneself_sleeps() {
    check("a wait a rcv=100; b send a 1", "a waits for a; b queued on a");
    check("a wait 'a rcv=100; b send a 1", "a waits for a; b queued on a");
    check("a wait a rcv=100; b send a 1; clock 100", "a Receive Timeout; b queued on a");
    check("a send a 1", "a queued on a");
    check("a send a 1 snd=0", "a Send Timeout");
    check("a wait a; b send a 1 as=a", "a waits for a; b queued on a");
    check("b send a 1 as=a; a wait a", "a waits for a; b queued on a");
}

/// X.2, Ipc, send: the queue is first come, first served, whatever the priorities are.
#[test]
fn queued_senders_come_in_their_order() {
    let first = "c send b 1; root send b 2; a send b 3; b wait";
    check(first, "b got 1 from 'c; c sent; root queued on b; a queued on b");
    check(&format!("{first}; b wait"), "b got 2 from root; root sent; a queued on b");
    check(&format!("{first}; b wait; b wait"), "b got 3 from 'a; a sent");
}

/// X.2, Ipc, receive: a closed wait takes its partner out of the middle of the queue, and the others keep their order.
#[test]
fn closed_wait_takes_its_partner_out_of_the_queue() {
    let taken = "c send b 1; a send b 2; d send b 3; b wait a";
    check(taken, "b got 2 from 'a; c queued on b; d queued on b");
    check(&format!("{taken}; b wait"), "b got 1 from 'c; d queued on b");
    check(&format!("{taken}; b wait; b wait"), "b got 3 from 'd");
}

/// X.2, Ipc, send: the queue is the thread's, not that of one receive.
#[test]
fn senders_stay_queued_over_several_receives() {
    check("b wait a; c send b 1; a send b 2; b wait c", "b got 1 from 'c; c sent; a sent");
    check("b wait a rcv=50; c send b 1; clock 50; b wait", "b got 1 from 'c");
    check("c send b 1; b wait a rcv=0; b wait", "b got 1 from 'c");
}

/// X.2, Ipc: between the phases nothing can happen: the partner of a call may reply at once with a zero send timeout.
#[test]
fn reply_without_delay_meets_the_caller_waiting() {
    check("b wait; a call b 1; b reply a 2", "a got 2 from 'b; b waits for any");
    check("a call b 1; b wait; b reply a 2", "a got 2 from 'b; b waits for any");
    check("b wait; x call b 1; b reply x 2", "x got 2 from b; b waits for any");
    check("a call b 1 from=any; b wait; c send a 3", "a got 3 from 'c; b got 1 from 'a");
}

/// X.2, Ipc: a reply-and-wait takes the next sender at once.
#[test]
fn reply_and_wait_takes_who_is_queued() {
    check("b wait; a call b 1; c call b 2; b reply a 3", "a got 3 from 'b; b got 2 from 'c; c waits for b");
    check("b wait; a call b 1; c send b 2; x send b 4; b reply a 3", "b got 2 from 'c; c sent; x queued on b");
    check("c send b 2; b call a 1 from=any; a wait", "a got 1 from 'b; c queued on b; b works on ReceivePhase");
    check("c send b 2; b call a 1 from=any; a wait; b finish", "a got 1 from 'b; b got 2 from 'c; c sent");
}

/// X.2, Ipc: a partner must be the exact id of a thread; anythread is nobody to send to.
#[test]
fn partner_that_does_not_exist_is_an_error() {
    check("a send n 1", "a Send NonExisting");
    check("a call n 1", "a Send NonExisting");
    check("a send b/2 1", "a Send NonExisting");
    check("a send any 1", "a Send NonExisting");
    check("a send local 1", "a Send NonExisting");
    check("a wait n", "a Receive NonExisting");
    check("a wait b/2", "a Receive NonExisting");
    check("b wait; a send b 1 from=n", "b got 1 from 'a; a Receive NonExisting");
}

/// X.2, Ipc, receive: interrupts are valid partners, silent as they may be.
#[test]
fn wait_for_an_interrupt_is_valid() {
    let w = World::new();
    w.ipc(A, ThreadId::NIL, ThreadId::interrupt(3), Timeouts::NEVER);
    assert!(w.tcb(A).waiting_for() == Some(ThreadId::interrupt(3)));
    w.ipc(B, ThreadId::NIL, ThreadId::global(3, 2), Timeouts::NEVER);
    w.ipc(C, ThreadId::NIL, ThreadId::global(Word::from(super::world::NUMBERS.system_base), 1), Timeouts::NEVER);
    expect(w, "a wait for no interrupt", "b Receive NonExisting; c Receive NonExisting");
}

/// X.2, Ipc, send: an inactive thread is a legal partner, which is not there yet.
#[test]
fn inactive_partner_lets_the_sender_wait() {
    let w = World::new();
    w.create(N);
    play(w, "a send n 1 snd=0; b send n 2 snd=50; c send n 3; d wait n");
    expect(w, "sends to an inactive thread", "a Send Timeout; b queued on n; c queued on n; d waits for n");
    play(w, "clock 50");
    expect(w, "50 us", "b Send Timeout; c queued on n");
    w.start(N);
    play(w, "n wait");
    expect(w, "a wait of the new thread", "n got 3 from c; c sent");
}

/// X.2, Ipc: a failed send phase ends the operation.
#[test]
fn failed_send_phase_has_no_receive_phase() {
    check("a call b 1 snd=0; b send a 2 snd=0", "a Send Timeout; b Send Timeout");
    check("b call a 2; a call n 1", "a Send NonExisting; b queued on a");
}

/// X.2, Ipc, send: only a waiting thread can be sent to without delay.
#[test]
fn who_does_not_wait_cannot_be_sent_to() {
    check("a send b 1 snd=0", "a Send Timeout");
    check("b send c 1; a send b 1 snd=0", "a Send Timeout");
    check("b wait c; a send b 1 snd=0", "a Send Timeout");
    check("b pager c; b fault 0x5000; a send b 1 snd=0", "a Send Timeout");
}

/// X.2, Ipc: with neither phase the call returns at once and leaves MR0 alone.
#[test]
fn ipc_without_phases_changes_nothing() {
    let w = World::new();
    let before: Vec<Word> = (0..MR_COUNT as Word).map(|i| !i).collect();
    w.set_mrs(A, &before);
    w.ipc(A, ThreadId::NIL, ThreadId::NIL, Timeouts::NEVER);
    assert_eq!(w.mrs(A), before);
    assert_eq!(w.k.machine.saved(A.tcb()).from.get(), Some(ThreadId::NIL));
}

/// X.2, Ipc, message transfer: from 0 to 63 words and the label arrive; the registers beyond stay as they are.
#[test]
fn words_arrive_and_other_registers_stay() {
    for is_queued in [false, true] {
        for untyped in 0..MR_COUNT {
            let w = World::new();
            let old: Vec<Word> = (0..MR_COUNT as Word).map(|i| 0xB000 + i).collect();
            w.set_mrs(B, &old);
            let mut message: Vec<Word> = (0..MR_COUNT as Word).map(|i| 0xA000 + i).collect();
            message[0] = tag(0xFFFF_1234_F00D, untyped);
            play(w, if is_queued { "" } else { "b wait" });
            w.send(A, B.id(), &message);
            play(w, if is_queued { "b wait" } else { "" });
            let expected = [&message[..=untyped], &old[untyped + 1..]].concat();
            assert_eq!(w.mrs(B), expected, "{untyped} words, queued: {is_queued}");
            assert_eq!(w.mrs(A), message, "the sender's registers");
        }
    }
}

/// X.2, Ipc, message transfer: R, X and E are results, whatever the sender put there; P counts with a valid virtual
/// sender only. The sender's own tag does not claim a failure.
#[test]
fn flags_of_the_senders_tag_do_not_arrive() {
    for flags in [MsgTag::REDIRECTED, MsgTag::XCPU, MsgTag::ERROR, MsgTag::PROPAGATED, MsgTag::FLAGS] {
        let w = World::new();
        play(w, "b wait");
        w.utcb(A).set_virtual_sender(N.id());
        w.send(A, B.id(), &[tag(7, 1) | flags, 5]);
        assert_eq!(w.utcb(B).mr(0), tag(7, 1), "flags {flags:#x}");
        assert!(!w.utcb(A).tag().is_error());
        expect(w, "a send with flags", "b got 5 from 'a; a sent");
    }
}

/// X.2, Ipc: ErrorCode belongs to failures; a success leaves it.
#[test]
fn success_leaves_error_code() {
    let w = World::new();
    w.utcb(A).set_error_code(77);
    w.utcb(B).set_error_code(78);
    play(w, "b wait; a call b 1; b reply a 2");
    assert_eq!((w.utcb(A).error_code(), w.utcb(B).error_code()), (77, 78));
}
