//! The end of threads and of their spaces (X.2, ThreadControl: deletion).

use std::sync::atomic::Ordering::Relaxed;

use l4_abi::{Fpage, Rights, SysError, ThreadId, Timeouts};

use super::script::{check, expect, play};
use super::space_control::areas;
use super::world::{
    A, B, D, M, N, Q, R, ROOT, START_IP, START_SP, UNCHANGED, UTCB_AREA, Who, World, X, Y, Z, activation, deletion,
};
use crate::space::Rest;
use crate::syscall::{SpaceControlArgs, ThreadControlArgs};

/// Frames that the census of spaces and mappings finds, and the number of mappings.
fn census(w: World) -> (usize, usize) {
    let census = w.k.spaces.check_invariants(Rest::Settled).expect("all is well");
    (census.frames, census.mappings)
}

/// X.2, ThreadControl: whoever is deleted, wherever it was: it is gone, and nothing is left of it.
#[test]
fn deleted_thread_is_gone() {
    let rows = [
        "",
        "b wait",
        "b wait rcv=500",
        "b wait a",
        "b wait b rcv=500",
        "b send c 1",
        "b send c 1 snd=500",
        "b send b 1",
        "b send c 1 as=d",
        "b call c 1",
        "c wait; b call c 1",
        "d send b 5; b call c 1 from=any; c wait",
        "a halt b",
        "b wait; a halt b",
        "b pager c; b fault 0x5000",
        "b pager c; c wait; b fault 0x5000",
        "b handler c; c wait; b except",
        "b pager nil; b fault 0x5000",
    ];
    for script in rows {
        let w = World::new();
        let (spaces, frames) = (census(w), w.frames_used());
        play(w, script);
        assert_eq!(w.delete(ROOT, B), Ok(()), "after `{script}`");
        expect(w, script, "b gone");
        assert_eq!(w.here().cpu.timeouts.count(), 0, "after `{script}`");
        play(w, "a send b 1; a wait b; clock 1000");
        expect(w, script, "a Receive NonExisting");
        assert_eq!((census(w), w.frames_used()), (spaces, frames), "its UTCB is on a page with others");
        w.start(B);
        play(w, "b wait; a send 'b 3");
        expect(w, script, "b got 3 from 'a");
    }
}

/// X.2, ThreadControl: threads that do not run yet can be deleted too.
#[test]
fn thread_that_never_ran_can_be_deleted() {
    let w = World::new();
    w.activate(M);
    w.create(N);
    assert_eq!((w.delete(ROOT, M), w.delete(R, N)), (Ok(()), Ok(())));
    expect(w, "deletion", "m gone; n gone");
    play(w, "root send m 1 2 snd=0");
    expect(w, "a start message for the dead", "root Send NonExisting");
}

/// X.2, ThreadControl: threads queued on a deleted one have nobody to send to; a call ends with its send phase.
#[test]
fn queued_senders_find_no_partner() {
    check(
        "a send b 1; x call b 2; c send b 3 snd=500 as=d; root send b 4 snd=500; r delete b; clock 1000",
        "a Send NonExisting; x Send NonExisting; c Send NonExisting; root Send NonExisting",
    );
    check("a call b 1; r delete b; c send a 3; a wait", "a got 3 from 'c");
}

/// X.2, ThreadControl: who waits for a deleted thread goes on waiting, but not beyond its timeout.
#[test]
fn waits_for_the_dead_go_on() {
    check("a wait b; root delete b", "a waits for b");
    check("a wait b rcv=100; root delete b; clock 100", "a Receive Timeout");
    check("a wait b; root delete b; c cancel a", "a Receive Canceled");
    check("b wait; a call b 1; root delete b; c send a 1 snd=0", "a waits for b; c Send Timeout");
}

const PAGES: &str = "root send s; r accept; r wait; s send r map=0x1000000/20; b accept";

/// X.2, ThreadControl: deletion in the middle of a transfer lets the partner fail, whoever carries the transfer out.
#[test]
fn deletion_aborts_a_transfer() {
    for ipc in ["b wait; r send b 1 map=0x1000000/20 ~", "r send b 1 map=0x1000000/20; b wait ~"] {
        check(&format!("{PAGES}; {ipc}; root delete b"), "r Send Aborted; b gone");
        check(&format!("{PAGES}; {ipc}; root delete r"), "b Receive Aborted; r gone");
    }
}

/// X.2, ThreadControl: a thread in the middle of Unmap, or of a long transfer, can be deleted with its space.
#[test]
fn thread_with_work_can_be_deleted() {
    let w = World::new();
    play(w, &format!("{PAGES}; b wait; r send b map=0x1000000/20; z accept; z wait; b send z map=0x1000000/20"));
    let frames = census(w);
    w.set_mrs(B, &[Fpage::COMPLETE.with_rights(Rights::ALL).raw()]);
    w.begin(B, |here, b| here.unmap(b, l4_abi::UnmapControl::flush(1)));
    expect(w, "the first step", "b works on Unmap");
    assert_eq!(w.delete(ROOT, B), Ok(()));
    expect(w, "deletion", "b gone");
    let left = census(w);
    assert!(left.1 > 0 && left.1 < frames.1, "the rest of the work is not done");
    assert_eq!(w.frames_used(), left.0, "no frame is lost");
}

/// X.2, ThreadControl: only the number of dest counts, deleting nobody succeeds, and nobody deletes itself.
#[test]
fn deletion_goes_by_number() {
    let w = World::new();
    let by_version = |w: World, who: Who, version| {
        w.thread_control(ROOT, ThreadControlArgs { dest: who.version(version), ..deletion(who) })
    };
    assert_eq!(by_version(w, B, 99), Ok(()));
    assert_eq!(by_version(w, B, 1), Ok(()), "again");
    assert_eq!(w.delete(ROOT, N), Ok(()), "nobody");
    assert_eq!(w.delete(ROOT, ROOT), Err(SysError::InvalidThread));
    assert_eq!(w.delete(R, R), Err(SysError::InvalidThread));
    assert_eq!(w.delete(A, B), Err(SysError::NoPrivilege));
    assert_eq!(w.delete(R, ROOT), Ok(()), "others may delete the root task");
    expect(w, "deletions", "b gone; root gone; r ready; r runs");
}

/// X.2, ThreadControl: with its last thread a space goes, and all memory that was in it.
#[test]
fn space_goes_with_its_last_thread() {
    let w = World::new();
    let (before, frames) = (census(w), w.frames_used());
    for round in 0..20 {
        w.start(N);
        play(w, "n accept; n wait; root send s; s send n map=0x1000000/21 map=0x2000000/12; x accept; x wait");
        play(w, "n send x map=0x1000000/16; s wait");
        assert!(census(w).1 > before.1 && w.frames_used() > frames);
        play(w, ["n wait", "n send y", "x send n", "n halt n"][round % 4]);
        play(w, "root delete n");
        expect(w, "deletion", "n gone");
        assert_eq!(w.frames_used(), census(w).0, "no frame is lost");
        assert_eq!(w.k.spaces.lookup(w.k.space_of(X.tcb()), 0x100_0000), None, "what was derived is gone");
    }
    let roots_and_tables = w.frames_used();
    w.start(N);
    w.delete(ROOT, N).expect("root may");
    assert_eq!(w.frames_used(), roots_and_tables);
    assert_eq!(w.delete(ROOT, Z), Ok(()));
    assert!(w.frames_used() < roots_and_tables);
}

/// X.2, ThreadControl: all memory returns: after the same life the same number of frames is free.
#[test]
fn all_memory_returns() {
    let w = World::new();
    let free = w.k.kmem.free_count();
    for _ in 0..10 {
        w.start(N);
        play(w, "n wait; root send n 1; n wait");
        assert!(w.k.kmem.free_count() < free);
        assert_eq!(w.delete(ROOT, N), Ok(()));
        assert_eq!(w.k.kmem.free_count(), free);
    }
    for who in [X, Y, Z, A] {
        w.delete(ROOT, who).expect("root may");
    }
    assert!(w.k.kmem.free_count() > free);
    assert_eq!(w.frames_used(), census(w).0);
}

/// X.2, ThreadControl: thread numbers can be used again, with any version.
#[test]
fn numbers_can_be_used_again() {
    let w = World::new();
    for version in 1..20 {
        let args = ThreadControlArgs { dest: M.version(version), pager: ROOT.id(), ..activation(M) };
        assert_eq!(w.thread_control(ROOT, args), Ok(()));
        play(w, &format!("root send m/{version} 1 2; m wait; a send m/{version} 7"));
        if version > 1 {
            play(w, &format!("b send m/{} 7", version - 1));
            expect(w, "the last id", "b Send NonExisting");
        }
        expect(w, "the new id", "m got 7 from 'a");
        w.delete(ROOT, M).expect("root may");
    }
}

/// Deletion takes turns with others; until it is over the number is not free, but nobody finds the thread.
#[test]
fn long_queue_is_dissolved_in_steps() {
    let w = World::with_slots(200);
    w.start(R);
    w.create(N);
    let senders = crowd(w, 80);
    for &sender in &senders {
        w.ipc(sender, N.id(), ThreadId::NIL, Timeouts::NEVER);
    }
    w.begin(R, |here, r| here.thread_control(r, deletion(N))).expect("r may");
    expect(w, "the first step", "r works on Delete; n gone");
    let args = ThreadControlArgs { utcb_location: UNCHANGED, ..activation(N) };
    assert_eq!(w.thread_control(ROOT, args), Err(SysError::InvalidThread), "the number is still in use");
    assert_eq!(w.delete(ROOT, N), Ok(()), "deleting it again is no error");
    play(w, "root send n 1");
    expect(w, "a send to the dying", "root Send NonExisting");
    play(w, "r finish");
    assert!(senders.iter().all(|&sender| w.outcome(sender) == "Send NonExisting"));
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
}

/// Many threads of one space.
pub fn crowd(w: World, count: u32) -> Vec<Who> {
    let senders: Vec<Who> = (0..count).map(|i| Who::one_of_a_crowd(90 + i, 90)).collect();
    let leader = senders[0];
    let args = ThreadControlArgs { utcb_location: UNCHANGED, ..activation(leader) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    let utcb_area = Fpage::new(UTCB_AREA.base(), 17, Rights::NONE).expect("aligned");
    let args = SpaceControlArgs { utcb_area, ..areas(leader) };
    assert_eq!(w.enter(ROOT, |here, root| here.space_control(root, args)), Ok(()));
    for &who in &senders {
        let done = w.thread_control(ROOT, ThreadControlArgs { pager: ROOT.id(), ..activation(who) });
        assert_eq!(done, Ok(()));
        w.send(ROOT, who.id(), &[2, START_IP as u64, START_SP as u64]);
    }
    senders
}

/// A space goes in steps, however much is in it, and none of them does much.
#[test]
fn full_space_goes_in_small_steps() {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/22; s wait; b accept");
    let before = super::memory::ledger(w);
    w.start(N);
    play(w, "n accept");
    for quarter in 0..4u64 {
        play(w, &format!("n wait; r send n map={:#x}/20", 0x100_0000 + (quarter << 20)));
    }
    play(w, "b wait; n send b map=0x1000000/21");
    assert!(super::memory::ledger(w).nodes >= before.nodes + 1500);
    w.begin(R, |here, r| here.thread_control(r, deletion(N))).expect("r may");
    let (mut steps, mut most) = (0, 0);
    while w.outcome(R) == "works on Delete" {
        let accesses = w.k.machine.accesses.load(Relaxed);
        w.here().step(R.tcb());
        steps += 1;
        most = most.max(w.k.machine.accesses.load(Relaxed) - accesses);
    }
    assert!(steps > 20, "{steps} steps");
    assert!(most < 64 * 64, "a step of 64 pages or holes reads and writes {most} words");
    let after = super::memory::ledger(w);
    assert_eq!((after.nodes, after.behind_tables), (before.nodes, before.behind_tables));
}

/// A deleter that is deleted in the middle of its work leaves it to its own deleter, and so on.
#[test]
fn deleter_can_be_deleted() {
    let after = |scripts: &[&str]| {
        let w = World::new();
        w.start(Q);
        scripts.iter().for_each(|script| play(w, script));
        expect(w, &scripts.join("; "), "z gone; r gone; q gone");
        assert_eq!(w.frames_used(), census(w).0);
        w.start(Z);
        w.start(R);
        w.frames_used()
    };
    let plain = after(&["root delete z", "root delete q", "root delete r"]);
    assert_eq!(after(&["r delete z ~", "root delete r", "root delete q"]), plain);
    assert_eq!(after(&["r delete z ~", "q delete r ~", "root delete q"]), plain);
    assert_eq!(after(&["q delete r ~", "q finish", "q delete z ~", "root delete q"]), plain);
    assert_eq!(after(&["r delete z ~", "root halt r", "root delete q", "root delete r"]), plain);
}

/// The numbers of those whose deleter was deleted in the middle are free again.
#[test]
fn deleter_with_a_long_queue_can_be_deleted() {
    let w = World::with_slots(200);
    w.start(R);
    w.create(N);
    let senders = crowd(w, 80);
    for &sender in &senders {
        w.ipc(sender, N.id(), ThreadId::NIL, Timeouts::NEVER);
    }
    w.begin(R, |here, r| here.thread_control(r, deletion(N))).expect("r may");
    assert_eq!(w.delete(ROOT, R), Ok(()));
    assert!(senders.iter().all(|&sender| w.outcome(sender) == "Send NonExisting"));
    expect(w, "both deletions", "r gone; n gone");
    w.start(R);
    w.create(N);
    assert_eq!(w.frames_used(), census(w).0);
}

/// X.2, ExchangeRegisters: a thread that is being deleted cannot be found, nor be told from one that never was.
#[test]
fn dead_thread_is_not_found() {
    let w = World::new();
    play(w, "root delete d");
    assert_eq!(w.exregs(A, D.id(), l4_abi::ExregsControl::START).map(|_| ()), Err(SysError::InvalidThread));
    assert_eq!(w.exregs(A, D.local(), l4_abi::ExregsControl::START).map(|_| ()), Err(SysError::InvalidThread));
    play(w, "a send 'd 1; b wait 'd");
    expect(w, "the dead's local id", "a Send NonExisting; b Receive NonExisting");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("deleted_thread_is_gone", deleted_thread_is_gone),
    ("thread_that_never_ran_can_be_deleted", thread_that_never_ran_can_be_deleted),
    ("queued_senders_find_no_partner", queued_senders_find_no_partner),
    ("waits_for_the_dead_go_on", waits_for_the_dead_go_on),
    ("deletion_aborts_a_transfer", deletion_aborts_a_transfer),
    ("thread_with_work_can_be_deleted", thread_with_work_can_be_deleted),
    ("space_goes_with_its_last_thread", space_goes_with_its_last_thread),
    ("all_memory_returns", all_memory_returns),
    ("numbers_can_be_used_again", numbers_can_be_used_again),
    ("long_queue_is_dissolved_in_steps", long_queue_is_dissolved_in_steps),
    ("full_space_goes_in_small_steps", full_space_goes_in_small_steps),
    ("deleter_can_be_deleted", deleter_can_be_deleted),
    ("deleter_with_a_long_queue_can_be_deleted", deleter_with_a_long_queue_can_be_deleted),
    ("dead_thread_is_not_found", dead_thread_is_not_found),
];
