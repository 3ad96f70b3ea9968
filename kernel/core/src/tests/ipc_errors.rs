//! What a failed IPC leaves in the registers (X.2, Ipc: errors, ErrorCode; message tag).

use l4_abi::{IpcError, IpcErrorKind, MsgTag, Phase, ThreadId, Word};

use super::script::play;
use super::world::{Who, World, tag};
use IpcErrorKind::{Aborted, Canceled, NonExisting, Overflow, Timeout};
use Phase::{Receive, Send};

const E: Word = MsgTag::ERROR;

/// The tag of a message of one word with label 7 and a map item.
const WITH_ITEM: Word = 7 << 16 | 2 << 6 | 1;

/// The thread that fails finds this tag and this error code, and no `from`.
#[track_caller]
fn check(script: &str, who: &str, tag: Word, phase: Phase, kind: IpcErrorKind) {
    let (w, who) = (World::new(), Who::named(who).expect("somebody fails"));
    play(w, script);
    let utcb = w.utcb(who);
    assert_eq!(utcb.mr(0), tag, "tag after `{script}`");
    assert_eq!(utcb.error_code(), IpcError::new(phase, kind).raw(), "error code after `{script}`");
    assert_eq!(w.k.machine.saved(who.tcb()).from.get(), Some(ThreadId::NIL), "from after `{script}`");
}

/// X.2, Ipc: what fails at once has a tag of nothing but E.
#[test]
fn send_that_fails_at_once_has_tag_e() {
    check("a send n 1 2 label=7", "a", E, Send, NonExisting);
    check("a send b 1 2 label=7 snd=0", "a", E, Send, Timeout);
    check("a call b/9 1 2 label=7", "a", E, Send, NonExisting);
}

/// X.2, Ipc: a sender that was blocked finds its own tag with E.
#[test]
fn blocked_send_that_fails_has_its_own_tag_and_e() {
    check("a send b 1 2 label=7 snd=100; clock 100", "a", tag(7, 2) | E, Send, Timeout);
    check("a call b 1 2 label=7 snd=100; clock 100", "a", tag(7, 2) | E, Send, Timeout);
    check("a send b 1 2 label=7; c cancel a", "a", tag(7, 2) | E, Send, Canceled);
    check("a send b 1 2 label=7; root delete b", "a", tag(7, 2) | E, Send, NonExisting);
}

/// X.2, Ipc: a receive phase that fails before a message has a tag of nothing but E, also that of a call.
#[test]
fn receive_that_fails_has_tag_e() {
    check("a wait rcv=0", "a", E, Receive, Timeout);
    check("a wait rcv=100; clock 100", "a", E, Receive, Timeout);
    check("a wait b rcv=100; clock 100", "a", E, Receive, Timeout);
    check("a wait n", "a", E, Receive, NonExisting);
    check("a wait; b cancel a", "a", E, Receive, Canceled);
    check("b wait; a call b 1 label=7; c cancel a", "a", E, Receive, Canceled);
    check("b wait; a call b 1 label=7 rcv=0", "a", E, Receive, Timeout);
    check("b wait; a call b 1 label=7 rcv=10; clock 10", "a", E, Receive, Timeout);
    check("a call b 1 label=7 rcv=10; b wait; clock 10", "a", E, Receive, Timeout);
    check("c send a 5; a call b 1 from=any; b wait; b cancel a", "a", E, Receive, Canceled);
}

/// X.2, Ipc: an error during the transfer hits both partners, each in its phase, with the tag of the message.
#[test]
fn overflow_hits_both() {
    let waiting = "b wait; a send b 1 label=7 map=0x1000/12";
    check(waiting, "a", WITH_ITEM | E, Send, Overflow);
    check(waiting, "b", WITH_ITEM | E, Receive, Overflow);
    let queued = "a call b 1 label=7 map=0x1000/12; b wait";
    check(queued, "a", WITH_ITEM | E, Send, Overflow);
    check(queued, "b", WITH_ITEM | E, Receive, Overflow);
}

/// X.2, Ipc: the receiver of a message that failed has its counts and label; P is the sender's alone, as nothing says in
/// whose name it would have come. No register but tag and ErrorCode changes.
#[test]
fn failed_message_comes_in_nobodys_name() {
    for virtual_sender in ["c", "n"] {
        let script = format!("b wait; a send b 1 label=7 map=0x1000/12 as={virtual_sender}");
        check(&script, "a", WITH_ITEM | E | MsgTag::PROPAGATED, Send, Overflow);
        check(&script, "b", WITH_ITEM | E, Receive, Overflow);
    }
    let w = World::new();
    w.utcb(B_WHO).set_actual_sender(ThreadId::ANY);
    w.utcb(B_WHO).set_intended_receiver(ThreadId::ANY);
    play(w, "root redirect x b; b wait; x send z 1 map=0x1000/12 as=y");
    assert_eq!((w.utcb(B_WHO).actual_sender(), w.utcb(B_WHO).intended_receiver()), (ThreadId::ANY, ThreadId::ANY));
}

/// X.2, Ipc: who ends a transfer in the middle lets both fail.
#[test]
fn abort_hits_both() {
    let begun = "root send s; b accept; b wait; s send b 1 label=7 map=0x1000000/20 ~";
    for end in ["a cancel-receive b", "r delete b"] {
        check(&format!("{begun}; {end}"), "s", WITH_ITEM | E, Send, Aborted);
    }
    check(&format!("{begun}; a cancel b"), "b", WITH_ITEM | E, Receive, Aborted);
    check(&format!("{begun}; r delete s"), "b", WITH_ITEM | E, Receive, Aborted);
}

/// X.2, Ipc: the words that came before the error stay where they are.
#[test]
fn words_before_an_overflow_have_arrived() {
    let w = World::new();
    play(w, "b wait; a send b 41 42 map=0x1000/12");
    assert_eq!(w.mrs(B_WHO)[1..3], [41, 42]);
}

const B_WHO: Who = super::world::B;

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("send_that_fails_at_once_has_tag_e", send_that_fails_at_once_has_tag_e),
    ("blocked_send_that_fails_has_its_own_tag_and_e", blocked_send_that_fails_has_its_own_tag_and_e),
    ("overflow_hits_both", overflow_hits_both),
    ("failed_message_comes_in_nobodys_name", failed_message_comes_in_nobodys_name),
    ("abort_hits_both", abort_hits_both),
    ("words_before_an_overflow_have_arrived", words_before_an_overflow_have_arrived),
];
