//! Redirection (X.2, SpaceControl: redirector; X.2, Ipc: redirection, IntendedReceiver; X.2, Propagation).
//!
//! a to d are of a space that is redirected, mostly to z, which is alone in its space; x and y are of a third one.

use l4_abi::{Acceptor, MsgTag, StringItem, SysError, ThreadId, Time, Timeouts, Word};

use super::fast_path::fast_ipc;
use super::script::{check, expect, play};
use super::space_control::areas;
use super::world::{A, B, C, D, N, R, ROOT, START_IP, UNCHANGED, Who, World, X, Y, Z, activation, no_change, tag};
use crate::syscall::{SpaceControlArgs, ThreadControlArgs};
use crate::thread::Work;

const TO_Z: &str = "root redirect a z";

/// As [`check`], in a world where the space of a is redirected to z.
#[track_caller]
fn redirected(script: &str, expected: &str) {
    check(&format!("{TO_Z}; {script}"), expected);
}

fn set_redirector(w: World, who: Who, of: Who, redirector: ThreadId) -> Result<(), SysError> {
    w.enter(who, |here, thread| here.space_control(thread, SpaceControlArgs { redirector, ..areas(of) }))
}

/// X.2, Redirection: what leaves the space goes to the redirector, which learns whom it is for; in either order.
#[test]
fn message_that_leaves_the_space_goes_to_the_redirector() {
    redirected("z wait; a send x 1 2", "z got 1 2 from a for x; a sent");
    redirected("a send x 1 2", "a queued on z");
    redirected("a send x 1 2; z wait", "z got 1 2 from a for x; a sent");
    redirected("a send x 1; z wait a", "z got 1 from a for x");
    redirected("z wait a; a send x 1", "z got 1 from a for x");
    redirected("x wait; z wait; b call x 1", "z got 1 from b for x; x waits for any; b waits for x");
    redirected("x wait a; a send x 1 snd=0", "a Send Timeout; x waits for a");
    redirected("z wait x; a send x 1", "z waits for x; a queued on z");
    redirected("z wait local; a send x 1", "z waits for local; a queued on z");
}

/// X.2, Redirection: IPC within the space, to the redirector itself and into the space is as ever.
#[test]
fn other_messages_are_not_redirected() {
    redirected("b wait; a send b 1", "b got 1 from 'a; a sent");
    redirected("z wait; a send z 1", "z got 1 from a");
    redirected("a wait; x send a 1", "a got 1 from x");
    redirected("a wait; z send a 1", "a got 1 from z");
    redirected("z wait; x send r 1", "x queued on r; z waits for any");
    redirected("a wait x; x send a 1", "a got 1 from x");
}

/// X.2, Ipc, IntendedReceiver: a message that is not redirected leaves the register; the tag has R or not.
#[test]
fn flag_r_says_whether_a_message_is_redirected() {
    let w = World::new();
    w.utcb(Z).set_intended_receiver(C.id());
    play(w, &format!("{TO_Z}; z wait; a send z 1 label=3"));
    assert_eq!((w.tag(Z).raw(), w.utcb(Z).intended_receiver()), (3 << 16 | 1, C.id()));
    play(w, "z wait; a send 'b 1 snd=0; a send x 1 label=3");
    assert_eq!((w.tag(Z).raw(), w.utcb(Z).intended_receiver()), (3 << 16 | 1 | MsgTag::REDIRECTED, X.id()));
    play(w, "z wait; x send z 2");
    assert_eq!(w.tag(Z).raw(), 1, "a message after a redirected one");
}

/// X.2, Ipc: whoever does not exist is nobody to send to, redirected or not.
#[test]
fn nobody_is_not_redirected() {
    redirected("z wait; a send n 1", "a Send NonExisting; z waits for any");
    redirected("z wait; a send x/2 1", "a Send NonExisting");
    redirected("z wait; a call x 1 from=n", "z got 1 from a for x; a Receive NonExisting");
}

/// X.2, Redirection and Propagation: the redirector passes the message on in the sender's name, and the answer reaches
/// the sender.
#[test]
fn redirector_passes_messages_on() {
    let called = format!("{TO_Z}; z wait; x wait; a call x 1; z send x 2 as=a");
    check(&called, "x got 2 from a by z; a waits for x; z sent");
    check(&format!("{called}; x reply a 3"), "a got 3 from x");
    redirected("z wait; a call x 1; z send x 2 as=a; x wait; x reply a 3", "a got 3 from x");
    redirected("z wait; a call x 1; z send x 2 as=a; x wait a; x reply a 3", "a got 3 from x");
    redirected("z wait; x wait; a call x 1; z send x 2", "x got 2 from z");
    check("z wait; x wait; a send z 1; z send x 2 as=a", "x got 2 from z");
}

/// X.2, Redirection: the sender waits for whom it called. Besides that thread itself the redirector can answer, in its
/// name; other names and others' names in it do not count.
#[test]
fn redirector_answers_in_the_name_of_the_intended_receiver() {
    let called = "z wait; a call x 1";
    redirected(&format!("{called}; z send a 3 as=x"), "a got 3 from x by z");
    redirected(&format!("{called}; z reply a 3 as=x"), "a got 3 from x by z; z waits for any");
    redirected(&format!("{called}; z send a 3"), "a waits for x; z queued on a");
    redirected(&format!("{called}; z send a 3 as=y"), "a waits for x; z queued on a");
    redirected(&format!("{called}; y send a 3 as=x"), "a got 3 from x by y");
    redirected(&format!("{called}; r send a 3 as=x"), "a waits for x; r queued on a");
    redirected("z wait; a send x 1; a wait; z send a 3 as=n", "a got 3 from z");
}

/// X.2, Propagation: a redirector may speak for the space that it redirects, towards anybody, and for anybody towards that
/// space; nothing else.
#[test]
fn redirector_speaks_for_its_space_alone() {
    redirected("r wait; z send r 1 as=a", "r got 1 from a by z");
    redirected("x wait; z send x 1 as=b", "x got 1 from b by z");
    redirected("b wait; z send b 1 as=a", "b got 1 from 'a by z");
    redirected("b wait; z send b 1 as=x", "b got 1 from x by z");
    redirected("r wait; z send r 1 as=x", "r got 1 from z");
    redirected("x wait; z send x 1 as=r", "x got 1 from z");
    redirected("x wait; r send x 1 as=a", "x got 1 from r");
    redirected("root redirect a any; x wait; z send x 1 as=a", "x got 1 from z");
}

/// X.2, Propagation: whoever waits for the redirector waits for whom it passes the message on to.
#[test]
fn wait_for_the_redirector_follows_the_message() {
    redirected("z wait; x wait; a call z 1; z send x 2 as=a", "x got 2 from a by z; a waits for x");
    redirected("z wait; x wait; a call y 1; z send x 2 as=a", "x got 2 from a by z; a waits for y");
}

/// X.2, Propagation: a message in another's name is redirected as one of its actual sender.
#[test]
fn propagated_message_is_redirected() {
    redirected("z wait; b send x 1 as=a", "z got 1 from a by b for x");
    redirected("b send x 1 as=a; z wait a", "z got 1 from a by b for x");
    redirected("b send x 1 as=a; z wait b", "z got 1 from a by b for x");
    redirected("z wait; b send x 1 as=y", "z got 1 from b for x");
    redirected("z wait; b wait; a call b 1; b send x 2 as=a", "z got 2 from a by b for x; a waits for z");
    let passed = "z wait; b wait; x wait; a call b 1; b send x 2 as=a; z send x 3 as=a";
    redirected(&format!("{passed}; x reply a 4"), "a got 4 from x");
}

/// X.2, Redirection: redirectors behind each other count up to one that shares the space with sender or receiver.
#[test]
fn chain_ends_at_a_redirector_beside_sender_or_receiver() {
    let chain = "root redirect a z; root redirect z x";
    check(&format!("{chain}; a send r 1"), "a queued on x");
    check(&format!("{chain}; x wait; a send r 1"), "x got 1 from a for r");
    check(&format!("{chain}; a send y 1"), "a queued on x");
    check(&format!("{chain}; a send x 1; x wait"), "x got 1 from a; a sent");
    check(&format!("{chain}; a send z 1; z wait"), "z got 1 from a; a sent");
    check(&format!("{chain}; z send r 1"), "z queued on x");
    check(&format!("{chain}; root redirect x r; a send y 1"), "a queued on x");
    check(&format!("{chain}; root redirect x r; a send s 1"), "a queued on r");
    check("root redirect a z; root redirect z b; a send x 1", "a queued on b");
    check("root redirect a z; root redirect z b; b wait; a send x 1; b send x 2 as=a", "b queued on x; a sent");
}

/// X.2, Propagation: a redirector of a redirector may speak for the space, too.
#[test]
fn chain_of_redirectors_may_propagate() {
    let chain = "root redirect a z; root redirect z x";
    check(&format!("{chain}; x wait; r wait; a send r 1; x send r 2 as=a"), "r got 2 from a by x");
    check(&format!("{chain}; x wait; a call r 1; x send a 2 as=r"), "a got 2 from r by x");
    check(&format!("{chain}; r wait; y send r 2 as=a"), "r got 2 from y");
    check("root redirect a z; r wait; x send r 2 as=a", "r got 2 from x");
}

/// X.2, Redirection: rings of redirectors end somewhere, and each of the ring can send.
#[test]
fn rings_of_redirectors_end() {
    let ring = "root redirect z x; root redirect x z; root redirect a z";
    check(&format!("{ring}; a send r 1"), "a queued on x");
    check(&format!("{ring}; z send r 1; x send r 1"), "z queued on r; x queued on r");
    check(&format!("{ring}; y send r 1"), "y queued on x");
    check(&format!("{ring}; x wait; a call r 1; x send r 2 as=a; r wait; r reply a 3"), "a got 3 from r");
    check(&format!("{ring}; r wait; b send r 1 as=x snd=0"), "b Send Timeout; r waits for any");
}

/// X.2, Redirection: a redirector in the space it redirects gets what leaves it, and sends freely itself.
#[test]
fn redirector_may_be_of_the_space_itself() {
    let own = "root redirect a d";
    check(&format!("{own}; d wait; a send x 1"), "d got 1 from 'a for x");
    check(&format!("{own}; d wait; x wait; a call x 1; d send x 2 as=a; x reply a 3"), "a got 3 from x");
    check(&format!("{own}; x wait; d send x 1"), "x got 1 from d");
    check(&format!("{own}; d wait; a call x 1; d send a 2 as=x"), "a got 2 from x by d");
}

/// Redirection, ours: without the thread that is the redirector nothing leaves the space, until there is one with its id.
#[test]
fn nothing_leaves_a_space_whose_redirector_is_gone() {
    let gone = "root redirect a z; root delete z";
    check(&format!("{gone}; x wait; a send x 1"), "a Send NonExisting; x waits for any");
    check(&format!("{gone}; a call x 1"), "a Send NonExisting");
    check(&format!("{gone}; b wait; a send b 1"), "b got 1 from 'a");
    check(&format!("{gone}; a wait; x send a 1"), "a got 1 from x");
    check(&format!("{gone}; a pager x; a fault 0x5000"), "a halted");
    check(&format!("{gone}; root redirect a any; x wait; a send x 1"), "x got 1 from a");
    check(&format!("{gone}; root redirect a y; x wait; a send x 1"), "a queued on y");
    check("root redirect a z; root redirect z x; root delete x; a send r 1", "a Send NonExisting");
    let w = World::new();
    play(w, gone);
    w.start(Z);
    play(w, "z wait; a send x 1");
    expect(w, "a new z", "z got 1 from a for x");
    assert_eq!(set_redirector(w, ROOT, A, Z.id()), Ok(()));
    let renamed = ThreadControlArgs { dest: Z.version(2), space: Z.id(), ..no_change(Z) };
    assert_eq!(w.thread_control(ROOT, renamed), Ok(()));
    play(w, "a send x 1");
    expect(w, "another version of the redirector", "a Send NonExisting");
}

/// X.2, Redirection: what is queued on the redirector ends as other sends do: by timeout, cancellation, deletion.
#[test]
fn redirected_send_ends_as_others_do() {
    redirected("a send x 1 snd=100; clock 100; z wait", "a Send Timeout; z waits for any");
    redirected("a send x 1; b cancel a; z wait", "a Send Canceled; z waits for any");
    redirected("a call x 1; b cancel-receive a; z wait", "a waits for x; z got 1 from a for x");
    redirected("z wait; a call x 1; b cancel a", "a Receive Canceled");
    redirected("z wait; a call x 1 rcv=50; clock 50", "a Receive Timeout; z got 1 from a for x");
    redirected("a send x 1; root delete a; z wait", "a gone; z waits for any");
    redirected("a send x 1; root delete z", "a Send NonExisting");
    redirected("a send x 1; root delete x; z wait", "a sent");
    redirected("a call x 1; root delete x; z wait", "a Receive NonExisting");
}

/// X.2, SpaceControl: a new redirector is that of later messages; those on their way stay where they are.
#[test]
fn change_of_the_redirector_is_for_later_messages() {
    redirected("a send x 1; root redirect a r; b send x 2", "a queued on z; b queued on r");
    redirected("a send x 1; root redirect a any; b send x 2; z wait", "z got 1 from a for x; b queued on x");
    redirected("root redirect a nil; a send x 1", "a queued on z");
    check("a send x 1; root redirect a z; x wait", "x got 1 from a");
    check("a call x 1; root redirect a z; x wait; x reply a 2", "a got 2 from x");
    check("root redirect a 'r; a send x 1", "a queued on r");
}

/// X.2, Redirection: typed items go to the redirector as words do.
#[test]
fn items_go_to_the_redirector() {
    let w = World::new();
    play(w, "root send s; a accept; a wait; s send a map=0x1000000/12; z accept; z wait; x accept; x wait");
    play(w, &format!("{TO_Z}; a send x 1 map=0x1000000/12"));
    expect(w, "a mapping", "z got 1 from a for x; x waits for any; a sent");
    let has = |w: World, who: Who| w.k.spaces.lookup(w.k.space_of(who.tcb()), 0x100_0000).is_some();
    assert!(has(w, Z) && !has(w, X));
    play(w, "z send x 1 map=0x1000000/12 as=a");
    expect(w, "the mapping passed on", "x got 1 from a by z");
    assert!(has(w, X));
    redirected("z wait; a send x 1 map=0x1000/12", "a Send Overflow; z Receive Overflow");
}

/// Redirection, ours: page faults and exceptions are IPC of the thread, and leave its space as such; the answer of the
/// pager ends them, or that of the redirector in the pager's name.
#[test]
fn faults_are_redirected() {
    let fault = "a pager x; z wait; a fault 0x5000";
    redirected(fault, "z got 20480 4194304 from a for x; a fault: waits for x");
    redirected(&format!("{fault}; x wait; z send x 1 2 as=a; x reply a"), "x waits for any; a ready");
    redirected(&format!("{fault}; z reply a as=x"), "a ready");
    redirected(&format!("{fault}; z send a"), "a fault: waits for x; z queued on a");
    redirected("a pager x; a fault 0x5000", "a fault: queued on z");
    redirected("a pager x; a fault 0x5000; z wait", "z got 20480 4194304 from a for x; a fault: waits for x");
    redirected("a pager x; a fault 0x5000; b cancel a", "a ready");
    redirected("a pager x; a fault 0x5000; root delete z", "a halted");
    redirected("a pager b; b wait; a fault 0x5000", "b got 20480 4194304 from 'a");
    redirected("a pager 'b; b wait; a fault 0x5000; b reply a", "a ready");
    redirected("a pager z; z wait; a fault 0x5000", "z got 20480 4194304 from a");
    redirected("a handler x; a except; b cancel a", "a ready");
    redirected("a handler x; a except", "a exception: queued on z");
    let w = World::new();
    w.utcb(A).set_intended_receiver(C.id());
    play(w, &format!("{TO_Z}; {fault}; root redirect z x; z reply a as=x"));
    assert_eq!(w.utcb(A).intended_receiver(), C.id(), "the faulting thread's own registers stay");
}

/// Lets somebody take strings at this address.
fn takes_strings(w: World, who: Who, address: Word) {
    w.utcb(who).set_acceptor(Acceptor::COMPLETE.with_strings());
    w.utcb(who).set_br(1, StringItem::new(16).raw());
    w.utcb(who).set_br(2, address);
}

/// A string of a that begins at this address.
fn send_string(w: World, to: Who, address: Word) {
    w.send(A, to.id(), &[MsgTag::new(7, 0, 2).raw(), StringItem::new(16).raw(), address]);
}

/// X.2, Redirection: whom a string is for, if anybody, does not depend on page faults in the middle of it, be they
/// redirected or not.
#[test]
fn string_with_faults_is_redirected() {
    let memory = "root send s; r accept; r wait; s send r map=0x1000000/20";
    let w = World::new();
    play(w, &format!("{memory}; z accept; z wait; r send z map=0x1001000/12; {TO_Z}; a pager b; b accept; b wait"));
    takes_strings(w, Z, 0x100_1000);
    play(w, "z wait");
    send_string(w, X, 0x100_0000);
    expect(w, "a fault", "b got 16777216 18446744073704308738 from 'a; a fault: waits for b; z receives from a");
    play(w, "b wait; r send b map=0x1000000/12; b send a; a finish");
    expect(w, "the string", "z got from a for x; a sent");
    let w = World::new();
    play(w, &format!("{memory}; {TO_Z}; a pager r; z accept; z wait; r send z map=0x1000000/20; z wait"));
    play(w, "b accept; b wait; r send b map=0x1001000/12");
    takes_strings(w, B, 0x100_1000);
    play(w, "b wait");
    send_string(w, B, 0x100_0000);
    expect(
        w,
        "a redirected fault",
        "z got 16777216 18446744073704308738 from a for r; a fault: waits for r; b receives from a",
    );
    play(w, "z send a as=r map=0x1000000/12; a finish");
    expect(w, "the string", "b got from 'a; a sent");
}

/// Redirection, ours: a redirector that takes a string whose sender faults cannot take the fault: only time helps.
#[test]
fn redirector_in_a_string_is_not_there_for_the_fault() {
    let w = World::new();
    play(w, &format!("{TO_Z}; a pager r"));
    takes_strings(w, Z, 0x100_1000);
    w.utcb(Z).set_xfer_timeouts(Timeouts::new(Time::NEVER, Time::period_us(100)));
    play(w, "z wait");
    send_string(w, X, 0x100_0000);
    expect(w, "a fault", "a fault: queued on z; z receives from a");
    play(w, "clock 100");
    expect(w, "the timeout of the transfer", "a Send XferTimeoutPartner; z Receive XferTimeoutInvoker");
}

/// X.2, Interrupt protocol: interrupts are in no space; a handler answers them itself.
#[test]
fn interrupts_are_not_redirected() {
    check("root redirect a z; a handle irq5; a wait; raise 5; a reply irq5", "irq5 idle, open; a waits for any");
}

/// X.2, SpaceControl: a redirector can be given to a space that is not initialised, and stays when it is.
#[test]
fn space_can_have_a_redirector_from_the_beginning() {
    let w = World::new();
    let args = ThreadControlArgs { utcb_location: UNCHANGED, ..activation(N) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    assert_eq!(set_redirector(w, ROOT, N, Z.id()), Ok(()));
    let args = ThreadControlArgs { pager: ROOT.id(), utcb_location: N.utcb_location(), ..no_change(N) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    play(w, "root send n 0x400000 0; z wait; n send x 1");
    expect(w, "a send of the new thread", "z got 1 from n for x");
    play(w, "root delete n");
    w.start(N);
    play(w, "n send x 1");
    expect(w, "another space in its slot", "n queued on x");
}

/// X.2, SpaceControl: a refused call leaves the redirector.
#[test]
fn refused_call_leaves_the_redirector() {
    let w = World::new();
    play(w, TO_Z);
    for redirector in [N.id(), X.version(2), ThreadId::interrupt(5), ThreadId::ANY_LOCAL, X.local()] {
        assert_eq!(set_redirector(w, ROOT, A, redirector), Err(SysError::InvalidSpace), "{redirector:?}");
    }
    assert_eq!(set_redirector(w, X, A, ThreadId::ANY), Err(SysError::NoPrivilege));
    play(w, "a send x 1");
    expect(w, "refused calls", "a queued on z");
}

/// X.2, ThreadControl: a thread that moves to another space has the redirector of that one.
#[test]
fn moved_thread_has_the_redirector_of_its_space() {
    let w = World::new();
    play(w, TO_Z);
    let done = w.thread_control(ROOT, ThreadControlArgs { space: X.id(), ..no_change(D) });
    assert_eq!(done, Ok(()));
    play(w, "d send r 1; a send r 2");
    expect(w, "sends from here and there", "d queued on r; a queued on z");
}

// --- the fast path ---

/// A call of a to b, or to x, by the fast path; false if that leaves it to the general one.
fn calls_fast(w: World, to: Who) -> bool {
    w.set_mrs(A, &[tag(5, 1), 1]);
    w.make_run(A);
    fast_ipc(w, A, to.id(), to.id(), Timeouts::NEVER)
}

/// The fast path takes nobody of a redirected space, also not within it, until redirection ends.
#[test]
fn fast_path_is_barred_to_redirected_spaces() {
    for to in [B, X] {
        let w = World::new();
        play(w, "x wait; root redirect a z; b wait");
        assert!(!calls_fast(w, to), "{to:?}");
        play(w, "root redirect a any; y send b 1; b wait");
        assert!(calls_fast(w, to), "{to:?}, after the end of redirection");
    }
}

/// A thread that was in a plain wait when the space got its redirector does not take the fast path when it wakes, however
/// it is woken.
#[test]
fn thread_in_a_plain_wait_is_redirected_when_it_wakes() {
    let w = World::new();
    play(w, "x wait; y wait; a wait x; root redirect a z");
    assert!(w.tcb(A).waits_for.get().is_nil() && !w.tcb(X).waits_for.get().is_nil());
    // x would wake a by the fast path and leave it the right to it.
    play(w, "r send x 1");
    w.make_run(X);
    w.set_mrs(X, &[tag(0, 0)]);
    assert!(!fast_ipc(w, X, A.id(), A.id(), Timeouts::NEVER));
    play(w, "x call a 5");
    expect(w, "the message", "a got 5 from x; x waits for a");
    assert!(!calls_fast(w, Y));
    play(w, "a send y 1");
    expect(w, "its own send", "a queued on z; y waits for any");
}

/// Somebody far behind the others in the table of threads, in the space of a, in a plain wait.
fn with_somebody_far_away(cast: &[Who]) -> World {
    let w = World::with_slots(2000);
    cast.iter().for_each(|&who| w.start(who));
    let location = D.utcb_location();
    let args = ThreadControlArgs { pager: ROOT.id(), utcb_location: location, ..activation(FAR) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    w.send(ROOT, FAR.id(), &[2, START_IP as Word, 0]);
    w.wait(FAR, ThreadId::ANY);
    assert!(!w.tcb(FAR).waits_for.get().is_nil(), "a plain wait");
    w
}

const FAR: Who = Who::one_of_a_crowd(1900, 40);

fn redirector_of(w: World, who: Who) -> ThreadId {
    w.k.spaces.get(w.k.space_of(who.tcb())).redirector()
}

/// The redirector is set in steps, and counts when all plain waits are found.
#[test]
fn redirector_is_set_in_steps() {
    let w = with_somebody_far_away(&[R, A, B, Z]);
    w.begin(R, |here, r| here.space_control(r, SpaceControlArgs { redirector: Z.id(), ..areas(A) })).expect("r may");
    assert_eq!(w.tcb(R).work(), Work::Redirect);
    play(w, "a wait");
    assert!(w.tcb(A).waits_for.get().is_nil(), "a wait that begins meanwhile is not plain");
    assert_eq!(redirector_of(w, A), ThreadId::NIL);
    play(w, "r finish");
    assert_eq!(redirector_of(w, A), Z.id());
    assert!(w.tcb(FAR).waits_for.get().is_nil());
    play(w, "b send a 1; a send r 1");
    expect(w, "a send", "a queued on z");
}

/// Who ends redirection or sets another redirector while one is being set has the last word; and a caller that is deleted
/// has none.
#[test]
fn redirector_can_be_set_by_several() {
    let rows = [
        ("r redirect a z ~; root redirect a any; r finish", ThreadId::NIL),
        ("r redirect a z ~; root redirect a any; root redirect a b ~; root finish; r finish", B.id()),
        ("r redirect a z ~; root redirect a b; r finish", Z.id()),
        ("r redirect a z ~; root delete r", ThreadId::NIL),
        ("r redirect a z; root redirect a b ~", B.id()),
    ];
    for (script, redirector) in rows {
        let w = with_somebody_far_away(&[R, A, B, Z]);
        play(w, script);
        assert_eq!(redirector_of(w, A), redirector, "after `{script}`");
    }
}

/// A redirector that is set in steps does not reach a new space in the slot of one that is gone.
#[test]
fn redirector_is_not_set_in_a_space_that_is_gone() {
    let w = with_somebody_far_away(&[R, A, Z]);
    let space = w.k.space_of(A.tcb());
    play(w, "r redirect a z ~; root delete a");
    assert_eq!(w.delete(ROOT, FAR), Ok(()));
    w.start(X);
    assert_eq!(w.k.space_of(X.tcb()), space, "the slot is used again");
    w.start(Y);
    play(w, "root redirect x y; r finish");
    assert_eq!(redirector_of(w, X), Y.id(), "the new space has its own redirector");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("message_that_leaves_the_space_goes_to_the_redirector", message_that_leaves_the_space_goes_to_the_redirector),
    ("other_messages_are_not_redirected", other_messages_are_not_redirected),
    ("flag_r_says_whether_a_message_is_redirected", flag_r_says_whether_a_message_is_redirected),
    ("nobody_is_not_redirected", nobody_is_not_redirected),
    ("redirector_passes_messages_on", redirector_passes_messages_on),
    (
        "redirector_answers_in_the_name_of_the_intended_receiver",
        redirector_answers_in_the_name_of_the_intended_receiver,
    ),
    ("redirector_speaks_for_its_space_alone", redirector_speaks_for_its_space_alone),
    ("wait_for_the_redirector_follows_the_message", wait_for_the_redirector_follows_the_message),
    ("propagated_message_is_redirected", propagated_message_is_redirected),
    ("chain_ends_at_a_redirector_beside_sender_or_receiver", chain_ends_at_a_redirector_beside_sender_or_receiver),
    ("chain_of_redirectors_may_propagate", chain_of_redirectors_may_propagate),
    ("rings_of_redirectors_end", rings_of_redirectors_end),
    ("redirector_may_be_of_the_space_itself", redirector_may_be_of_the_space_itself),
    ("nothing_leaves_a_space_whose_redirector_is_gone", nothing_leaves_a_space_whose_redirector_is_gone),
    ("redirected_send_ends_as_others_do", redirected_send_ends_as_others_do),
    ("change_of_the_redirector_is_for_later_messages", change_of_the_redirector_is_for_later_messages),
    ("items_go_to_the_redirector", items_go_to_the_redirector),
    ("faults_are_redirected", faults_are_redirected),
    ("string_with_faults_is_redirected", string_with_faults_is_redirected),
    ("redirector_in_a_string_is_not_there_for_the_fault", redirector_in_a_string_is_not_there_for_the_fault),
    ("interrupts_are_not_redirected", interrupts_are_not_redirected),
    ("space_can_have_a_redirector_from_the_beginning", space_can_have_a_redirector_from_the_beginning),
    ("refused_call_leaves_the_redirector", refused_call_leaves_the_redirector),
    ("moved_thread_has_the_redirector_of_its_space", moved_thread_has_the_redirector_of_its_space),
    ("thread_in_a_plain_wait_is_redirected_when_it_wakes", thread_in_a_plain_wait_is_redirected_when_it_wakes),
    ("redirector_is_set_in_steps", redirector_is_set_in_steps),
    ("redirector_can_be_set_by_several", redirector_can_be_set_by_several),
    ("redirector_is_not_set_in_a_space_that_is_gone", redirector_is_not_set_in_a_space_that_is_gone),
];
