//! Sending in another's name (X.2, Ipc: propagation).

use l4_abi::{Acceptor, MsgTag, StringItem};

use super::script::{check, expect, play};
use super::world::{A, B, C, Q, World};

/// X.2, Propagation: the receiver finds the virtual sender in `from`, the real one in ActualSender.
#[test]
fn message_comes_from_the_virtual_sender() {
    check("b wait; a send b 1 as=c", "b got 1 from 'c by a; a sent");
    check("a send b 1 as=c; b wait", "b got 1 from 'c by a; a sent");
    check("x wait; a send x 1 as=c", "x got 1 from c by a");
}

/// X.2, Propagation: a thread's own name is one of its space, too.
#[test]
fn own_name_is_a_virtual_sender() {
    check("b wait; a send b 1 as=a", "b got 1 from 'a by a; a sent");
    check("a send b 1 as=a; b wait a", "b got 1 from 'a by a");
    check("x wait; a send x 1 as='a", "x got 1 from a by a");
    check("b wait; a call b 1 as=a; b reply a 2", "a got 2 from 'b");
}

/// X.2, Propagation: valid if the virtual sender is in the sender's space or the sender in the receiver's. Otherwise the
/// message goes in the sender's own name.
#[test]
fn invalid_propagation_is_ordinary() {
    check("x wait; a send x 1 as=y", "x got 1 from a");
    check("z wait; a send z 1 as=y", "z got 1 from a");
    check("b wait; a send b 1 as=x", "b got 1 from x by a");
    check("b wait; a send b 1 as=n", "b got 1 from 'a");
    check("b wait; a send b 1 as=c/2", "b got 1 from 'a");
    check("b wait; a send b 1 as=nil", "b got 1 from 'a");
    check("b wait; a send b 1 as=any", "b got 1 from 'a");
    check("b wait; x send b 1 as=c", "b got 1 from x");
    check("x wait y; a send x 1 as=y", "x waits for y; a queued on x");
}

/// X.2, Propagation: a kept P flag is in the receiver's tag, a dropped one is not.
#[test]
fn flag_p_says_whether_it_was_valid() {
    for (virtual_sender, flag) in [("c", MsgTag::PROPAGATED), ("n", 0)] {
        let w = World::new();
        play(w, &format!("b wait; a send b 1 label=3 as={virtual_sender}"));
        assert_eq!(w.tag(B).raw(), 3 << 16 | 1 | flag, "as {virtual_sender}");
    }
}

/// X.2, Propagation: a wait for the virtual sender takes the message, and so does one for the actual sender.
#[test]
fn closed_wait_for_either_sender_takes_the_message() {
    check("b wait c; a send b 1 as=c", "b got 1 from 'c by a");
    check("b wait a; a send b 1 as=c", "b got 1 from 'c by a");
    check("b wait d; a send b 1 as=c", "b waits for d; a queued on b");
    check("a send b 1 as=c; b wait c", "b got 1 from 'c by a; a sent");
    check("a send b 1 as=c; b wait a", "b got 1 from 'c by a; a sent");
    check("a send b 1 as=c; b wait d", "b waits for d; a queued on b");
    check("d send b 5; a send b 1 as=c; b wait c", "b got 1 from 'c by a; d queued on b");
    check("a send b 1 as=c; c send b 2; b wait c", "b got 1 from 'c by a; c queued on b");
    check("c send b 2; a send b 1 as=c; b wait c", "b got 2 from 'c; a queued on b");
    check("a send b 1 as=c; b wait local", "b got 1 from 'c by a");
}

/// X.2, Propagation: whoever was called and passes the call on lets the caller wait for who answers.
#[test]
fn caller_gets_its_answer_from_whom_the_call_was_passed_on_to() {
    let passed = "b wait; c wait; a call b 1; b send c 2 as=a";
    check(passed, "c got 2 from 'a by b; a waits for c; b sent");
    check(&format!("{passed}; c reply a 3"), "a got 3 from 'c; c waits for any");
    check("b wait; a call b 1; b send c 2 as=a; c wait", "c got 2 from 'a by b; a waits for c");
    check("c wait; x call b; b wait; b send c 2 as=x", "c got 2 from x by b; x waits for c");
}

/// X.2, Propagation: the redirected wait finds who is queued already with a message in the new partner's name.
#[test]
fn redirected_wait_finds_a_queued_message() {
    for call in ["a call b 1", "a call b 1 rcv=100"] {
        let passed = format!("d wait; b wait; {call}; c send a 7 as=d; b send d 2 as=a");
        check(&passed, "d got 2 from 'a by b; a works on ReceivePhase");
        check(&format!("{passed}; a finish; clock 200"), "a got 7 from 'd by c; c sent");
        check(&format!("{passed}; b cancel c; a finish"), "a waits for d; c Send Canceled");
    }
    check(
        "d wait; b wait; a call b 1 rcv=100; c send a 7 as=d; b send d 2 as=a; b cancel c; a finish; clock 100",
        "a Receive Timeout",
    );
}

/// X.2, Propagation: only a closed wait for the actual sender is redirected.
#[test]
fn other_waits_are_not_redirected() {
    check("c wait; a wait; b send c 2 as=a", "a waits for any");
    check("c wait; a wait d; b send c 2 as=a", "a waits for d");
    check("c wait; a send d; b send c 2 as=a", "a queued on d");
}

/// X.2, Propagation: redirection does not touch the timeout of the wait.
#[test]
fn redirected_wait_keeps_its_timeout() {
    let passed = "b wait; c wait; a call b 1 rcv=100; clock 40; b send c 2 as=a";
    check(&format!("{passed}; clock 99"), "a waits for c");
    check(&format!("{passed}; clock 100"), "a Receive Timeout");
}

/// X.2, Propagation: the virtual sender may be gone when the message gets through; then the sender is who it is.
#[test]
fn virtual_sender_that_is_gone_is_replaced() {
    check("a send b 1 as=c; root delete c; b wait", "b got 1 from 'a; a sent");
}

/// X.2, Propagation: a pager may have somebody else answer a page fault, one in the middle of a string, too. Then a message
/// that is there already in the other one's name does not come in between.
#[test]
fn page_fault_in_a_string_can_be_passed_on() {
    let w = World::new();
    w.start(Q);
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/20; a pager r; b accept; b wait");
    play(w, "r send b map=0x1001000/12");
    w.utcb(B).set_acceptor(Acceptor::COMPLETE.with_strings());
    w.utcb(B).set_br(1, StringItem::new(16).raw());
    w.utcb(B).set_br(2, 0x100_1000);
    play(w, "b wait; r wait");
    w.send(A, B.id(), &[MsgTag::new(0, 0, 2).raw(), StringItem::new(16).raw(), 0x100_0000]);
    play(w, "q accept; q wait; root send a 7 as=q; r send q 2 as=a");
    expect(w, "a fault passed on", "q got 2 from a by r; a fault: waits for q; root queued on a");
    play(w, "r send q map=0x1000000/12 snd=0; q wait rcv=0; q accept");
    play(w, "q wait; r send q map=0x1000000/12; q send a map=0x1000000/12; a finish");
    expect(w, "the string", "a sent; b got from 'a; root queued on a");
}

/// X.2, Propagation: who leaves the queue again leaves no trace.
#[test]
fn propagated_sender_can_be_cancelled() {
    check("a send b 1 as=c; d cancel a; b wait c", "a Send Canceled; b waits for c");
    check("a send b 1 as=c snd=10; clock 10; b wait c", "a Send Timeout; b waits for c");
    check("a send b 1 as=c; root delete a; b wait c", "a gone; b waits for c");
}

/// X.2, Propagation: the kernel's own messages are never in another's name.
#[test]
fn fault_is_never_propagated() {
    let w = World::new();
    w.utcb(A).set_virtual_sender(C.id());
    w.utcb(A).set_tag(MsgTag::new(0, 0, 0).with_flags(MsgTag::PROPAGATED));
    play(w, "a pager b; b wait; a fault 0x5000");
    expect(w, "a fault", "b got 20480 4194304 from 'a");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("message_comes_from_the_virtual_sender", message_comes_from_the_virtual_sender),
    ("own_name_is_a_virtual_sender", own_name_is_a_virtual_sender),
    ("invalid_propagation_is_ordinary", invalid_propagation_is_ordinary),
    ("flag_p_says_whether_it_was_valid", flag_p_says_whether_it_was_valid),
    ("closed_wait_for_either_sender_takes_the_message", closed_wait_for_either_sender_takes_the_message),
    (
        "caller_gets_its_answer_from_whom_the_call_was_passed_on_to",
        caller_gets_its_answer_from_whom_the_call_was_passed_on_to,
    ),
    ("other_waits_are_not_redirected", other_waits_are_not_redirected),
    ("redirected_wait_keeps_its_timeout", redirected_wait_keeps_its_timeout),
    ("virtual_sender_that_is_gone_is_replaced", virtual_sender_that_is_gone_is_replaced),
    ("page_fault_in_a_string_can_be_passed_on", page_fault_in_a_string_can_be_passed_on),
    ("propagated_sender_can_be_cancelled", propagated_sender_can_be_cancelled),
    ("fault_is_never_propagated", fault_is_never_propagated),
];
