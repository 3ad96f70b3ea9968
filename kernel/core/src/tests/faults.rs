//! Faults of user code (X.2, Page fault protocol, Exception protocol).

use l4_abi::{Acceptor, MR_COUNT, MsgTag, Rights, ScheduleResult, ThreadId, Word, protocol};

use super::machine::DEFAULT_FLAGS;
use super::script::{check, expect, play};
use super::world::{A, B, S, START_IP, START_SP, World};
use crate::machine::EXCEPTION_IMAGE_WORDS;

/// X.2, Page fault: the pager gets fault address and instruction pointer, and the access in the label.
#[test]
fn page_fault_is_a_message_to_the_pager() {
    for (access, label) in [(Rights::READ, 0xFFE4), (Rights::WRITE, 0xFFE2), (Rights::EXECUTE, 0xFFE1)] {
        let w = World::new();
        play(w, "a pager x; x wait");
        w.enter(A, |here, a| here.page_fault(a, 0x5123, access, 0x777));
        expect(w, "a fault", "x got 20771 1911 from a; a fault: waits for x");
        assert_eq!(w.tag(X_WHO).raw(), !0xFFF_FFFF | (label & 0xFFF) << 16 | 2, "{access:?}");
        assert_eq!(w.tag(X_WHO), protocol::page_fault_tag(access));
    }
}

const X_WHO: super::world::Who = super::world::X;

/// X.2, Page fault: the reply ends the fault, and the thread tries again. Any reply will do.
#[test]
fn reply_of_the_pager_ends_the_fault() {
    check("a pager b; b wait; a fault 0x5000; b send a", "a ready; b sent");
    check("a pager b; b wait; a fault 0x5000; b send a 1 2 3 label=9 snd=0", "a ready; b sent");
    check("a pager b; a fault 0x5000; b wait; b reply a", "a ready; b waits for any");
    check("a pager 'b; b wait; a fault 0x5000; b send 'a", "a ready; b sent");
}

/// X.2, Page fault: the thread waits for its pager alone; others can answer in the pager's name.
#[test]
fn only_the_pager_can_reply() {
    let fault = "a pager b; b wait; a fault 0x5000";
    check(&format!("{fault}; c send a snd=0; x send a snd=0"), "a fault: waits for b; c Send Timeout; x Send Timeout");
    check(&format!("{fault}; c send a as=b"), "a ready; c sent");
    check(&format!("{fault}; c wait; b send c 1 as=a; b send a snd=0"), "a fault: waits for c; b Send Timeout");
    check(&format!("{fault}; c wait; b send c 1 as=a; c send a"), "a ready");
}

/// X.2, Page fault: senders who came meanwhile find the thread as it was.
#[test]
fn senders_stay_queued_over_a_fault() {
    check("a pager b; b wait; c send a 7; a fault 0x5000; b send a; a wait", "a got 7 from 'c");
    check("a pager b; b wait; a fault 0x5000; c send a 7; b send a; a wait", "a got 7 from 'c");
}

/// X.2, Page fault: all virtual registers are as before, however long the reply is and whether it came at all.
#[test]
fn fault_leaves_the_virtual_registers() {
    let long: String = (1..=63).map(|i| format!(" {i}")).collect();
    let scripts = [
        "b wait; a fault 0x5000; b send a".to_string(),
        format!("b wait; a fault 0x5000; b send a{long}"),
        format!("a fault 0x5000; b wait; b send a{long}"),
        "a fault 0x5000; c cancel a".into(),
        "b wait; a fault 0x5000; c cancel a".into(),
        format!("b wait; a except; b send a{long}"),
        "b wait; a except; c cancel a".into(),
        "a except; root delete b; c resume a".into(),
    ];
    for script in scripts {
        let w = World::new();
        let before: Vec<Word> = (0..MR_COUNT as Word).map(|i| 0xABC0 + i * 0x10001).collect();
        w.set_mrs(A, &before);
        let utcb = w.utcb(A);
        utcb.set_br(0, 0x55);
        utcb.set_error_code(0x66);
        utcb.set_virtual_sender(ThreadId::from_raw(0x77));
        utcb.set_pager(B.id());
        utcb.set_exception_handler(B.id());
        play(w, &script);
        expect(w, &script, "a ready");
        assert_eq!(w.mrs(A), before, "message registers after `{script}`");
        let others = (utcb.br(0), utcb.error_code(), utcb.virtual_sender().raw());
        assert_eq!(others, (0x55, 0x66, 0x77), "other registers after `{script}`");
        assert_eq!((utcb.pager(), utcb.exception_handler()), (B.id(), B.id()));
    }
}

/// X.2, Page fault: the reply is taken with an open window: what it maps is there, whatever BR0 says.
#[test]
fn reply_to_a_page_fault_maps() {
    let w = World::new();
    w.utcb(A).set_acceptor(Acceptor::UNTYPED);
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/12; a pager r; r wait; a fault 0x1000000");
    assert_eq!(w.k.spaces.lookup(w.k.space_of(A.tcb()), 0x100_0123), None);
    play(w, "r send a map=0x1000000/12");
    expect(w, "the reply", "a ready; r sent");
    let page = w.k.spaces.lookup(w.k.space_of(A.tcb()), 0x100_0123).expect("the page is mapped");
    assert_eq!((page.phys.0, page.rights), (0x100_0123, Rights::ALL));
    assert_eq!(w.utcb(A).mrs().iter().map(|mr| mr.load(std::sync::atomic::Ordering::Relaxed)).sum::<u64>(), 0);
}

/// X.2, Page fault: a fault that is cut off, queued or waiting, brings the thread back to its instruction.
#[test]
fn fault_can_be_cancelled() {
    check("a pager b; a fault 0x5000", "a fault: queued on b");
    check("a pager b; a fault 0x5000; c cancel-receive a", "a fault: queued on b");
    check("a pager b; a fault 0x5000; c cancel-send a", "a ready");
    check("a pager b; a fault 0x5000; c cancel-send a; b wait rcv=0", "b Receive Timeout");
    check("a pager b; b wait; a fault 0x5000; c cancel-send a", "a fault: waits for b");
    check("a pager b; b wait; a fault 0x5000; c cancel-receive a", "a ready");
    check("a pager b; b wait; a fault 0x5000; b cancel a; b send a snd=0", "a ready; b Send Timeout");
    check("a pager b; b wait; a fault 0x5000; b start a; a wait rcv=0", "a Receive Timeout");
}

/// X.2, Page fault: without a pager the thread is halted; it can be resumed, with another pager say.
#[test]
fn thread_without_pager_is_halted() {
    check("a pager nil; a fault 0x5000", "a halted");
    check("a pager n; a fault 0x5000", "a halted");
    check("a pager any; a fault 0x5000", "a halted");
    check("a pager b/2; a fault 0x5000", "a halted");
    check("a pager nil; a fault 0x5000; b resume a", "a ready");
    check("a pager n; a fault 0x5000; b start a; a pager b; a fault 0x5000; b wait", "b got 20480 4194304 from 'a");
    let w = World::new();
    play(w, "a pager n; a fault 0x5000");
    assert_eq!(w.state(A), ScheduleResult::Inactive);
    assert_eq!(w.utcb(A).pager(), super::world::N.id());
}

/// X.2, Page fault: a pager that is deleted before it took the fault leaves the thread halted.
#[test]
fn thread_whose_pager_vanishes_is_halted() {
    check("a pager b; a fault 0x5000; root delete b", "a halted; b gone");
    check("a pager b; b wait; a fault 0x5000; root delete b", "a fault: waits for b; b gone");
    check("a pager b; b wait; a fault 0x5000; root delete b; c cancel a", "a ready");
}

/// X.2, Page fault: who is its own pager waits for ever, but not beyond cancellation.
#[test]
fn own_pager_is_a_dead_end() {
    check("a pager a; a fault 0x5000", "a fault: queued on a");
    check("a pager a; a fault 0x5000; b cancel a", "a ready");
}

/// X.2, sigma0: its faults in user memory are resolved by the kernel, one to one with all rights.
#[test]
fn sigma0_needs_no_pager() {
    let w = World::new();
    play(w, "root send s; s fault 0x1234000");
    expect(w, "a fault of sigma0", "s got from root");
    let page = w.k.spaces.lookup(w.k.space_of(S.tcb()), 0x123_4567).expect("the page is mapped");
    assert_eq!((page.phys.0, page.rights), (0x123_4567, Rights::ALL));
    play(w, "s fault 0xffff800000000000");
    expect(w, "a fault beyond user memory", "s halted");
}

// --- exceptions ---

/// The registers in an exception message of this world.
fn image(ip: usize, sp: usize, flags: usize) -> Vec<Word> {
    let general = (0..EXCEPTION_IMAGE_WORDS - 3).map(|i| 0x100 + i as Word);
    [ip, sp, flags].into_iter().map(|word| word as Word).chain(general).collect()
}

fn raise() -> World {
    let w = World::new();
    for (i, register) in w.k.machine.saved(A.tcb()).general.iter().enumerate() {
        register.set(0x100 + i as Word);
    }
    play(w, "a handler b; b wait; a except");
    w
}

/// X.2, Exception: the handler gets the registers, with label -5.
#[test]
fn exception_is_a_message_to_the_handler() {
    let w = raise();
    assert_eq!(w.outcome(A), "exception: waits for b");
    assert_eq!(w.tag(B), protocol::exception_tag());
    assert_eq!(w.tag(B).raw(), MsgTag::kernel(-5, 0, EXCEPTION_IMAGE_WORDS).raw());
    assert_eq!(w.mrs(B)[1..=EXCEPTION_IMAGE_WORDS], image(START_IP, START_SP, DEFAULT_FLAGS)[..]);
}

/// X.2, Exception: the reply has the new registers; of the flags it changes those that users may.
#[test]
fn reply_to_an_exception_loads_the_registers() {
    let w = raise();
    let words: Vec<Word> = (0..EXCEPTION_IMAGE_WORDS as Word).map(|i| 0x2000 + i).collect();
    w.send(B, A.id(), &[&[MsgTag::new(0, words.len(), 0).raw()], &words[..]].concat());
    assert_eq!(w.outcome(A), "ready");
    let tcb = w.tcb(A);
    assert_eq!((tcb.ip.get(), tcb.sp.get()), (0x2000, 0x2001));
    assert_eq!(tcb.flags.get(), DEFAULT_FLAGS, "0x2002 changes no user flag");
    let general: Vec<Word> = w.k.machine.saved(A.tcb()).general.iter().map(|register| register.get()).collect();
    assert_eq!(general, words[3..]);
}

/// X.2, Exception: words that the reply does not have leave their registers.
#[test]
fn short_reply_to_an_exception_loads_what_it_has() {
    for count in 0..=3 {
        let w = raise();
        let words = [0x2000, 0x3000, 0x2D7];
        w.send(B, A.id(), &[&[MsgTag::new(0, count, 0).raw()], &words[..count]].concat());
        let tcb = w.tcb(A);
        let expected = [START_IP, START_SP, DEFAULT_FLAGS];
        let changed = [0x2000, 0x3000, 0x2D7 & 0x8D5 | 0x202];
        let registers = [tcb.ip.get(), tcb.sp.get(), tcb.flags.get()];
        for (i, register) in registers.into_iter().enumerate() {
            assert_eq!(register, if i < count { changed[i] } else { expected[i] }, "register {i} of {count}");
        }
        let general = &w.k.machine.saved(A.tcb()).general;
        assert_eq!((general[0].get(), general[1].get()), (0x100, 0x101));
    }
}

/// X.2, Exception: without a handler the thread is halted.
#[test]
fn thread_without_handler_is_halted() {
    check("a except", "a halted");
    check("a handler n; a except", "a halted");
    check("a handler b; a except; root delete b", "a halted");
    check("a except; b start a", "a ready");
}

/// X.2, Exception: it can be cut off as a page fault can, and takes no mappings in the reply.
#[test]
fn exception_can_be_cancelled() {
    check("a handler b; a except; c cancel-send a", "a ready");
    check("a handler b; b wait; a except; c cancel-receive a", "a ready");
    check("a handler b; b wait; a except; b send a 1", "a ready");
    check("a accept; a handler b; b wait; a except; b send a map=0x1000/12", "b Send Overflow; a ready");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("page_fault_is_a_message_to_the_pager", page_fault_is_a_message_to_the_pager),
    ("reply_of_the_pager_ends_the_fault", reply_of_the_pager_ends_the_fault),
    ("only_the_pager_can_reply", only_the_pager_can_reply),
    ("senders_stay_queued_over_a_fault", senders_stay_queued_over_a_fault),
    ("fault_leaves_the_virtual_registers", fault_leaves_the_virtual_registers),
    ("reply_to_a_page_fault_maps", reply_to_a_page_fault_maps),
    ("fault_can_be_cancelled", fault_can_be_cancelled),
    ("thread_without_pager_is_halted", thread_without_pager_is_halted),
    ("thread_whose_pager_vanishes_is_halted", thread_whose_pager_vanishes_is_halted),
    ("own_pager_is_a_dead_end", own_pager_is_a_dead_end),
    ("sigma0_needs_no_pager", sigma0_needs_no_pager),
    ("exception_is_a_message_to_the_handler", exception_is_a_message_to_the_handler),
    ("reply_to_an_exception_loads_the_registers", reply_to_an_exception_loads_the_registers),
    ("short_reply_to_an_exception_loads_what_it_has", short_reply_to_an_exception_loads_what_it_has),
    ("thread_without_handler_is_halted", thread_without_handler_is_halted),
    ("exception_can_be_cancelled", exception_can_be_cancelled),
];
