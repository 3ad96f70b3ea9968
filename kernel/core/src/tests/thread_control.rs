//! ThreadControl: create, activate, modify, migrate (X.2, ThreadControl).

use l4_abi::{Fpage, Rights, SysError, ThreadId, UTCB_SIZE, UnmapControl, Word};

use super::script::{expect, play};
use super::world::{
    A, B, C, D, M, N, NUMBERS, P, R, ROOT, START_IP, UNCHANGED, UTCB_AREA, Who, World, X, Y, Z, activation, no_change,
};
use crate::syscall::ThreadControlArgs;
use crate::thread::Work;
use SysError::{InvalidSpace, InvalidThread, NoPrivilege, UtcbArea};

const NIL: ThreadId = ThreadId::NIL;

/// What the tables say of all threads, spaces and memory.
pub fn snapshot(w: World) -> String {
    let threads = w.k.tcbs.iter().enumerate().filter(|(_, tcb)| tcb.exists());
    let threads = threads.map(|(number, tcb)| {
        let utcb = (tcb.utcb.get() != 0).then(|| tcb.utcb_in(w.k.machine));
        let registers = utcb.map(|utcb| (utcb.pager(), utcb.my_global_id(), utcb.mr(0), utcb.error_code()));
        let ids = (tcb.id.get(), tcb.local_id.get(), tcb.scheduler.get(), tcb.space.get());
        let state = (tcb.status(), tcb.waiting_for(), tcb.purpose(), tcb.is_halted(), tcb.work());
        let numbers = (tcb.priority(), tcb.sensitive_priority.get(), tcb.max_delay_us.get(), tcb.ip.get());
        let times = (tcb.time_slice.get(), tcb.total_quantum.get(), tcb.slice_left_us.get());
        format!("{number}: {ids:?} {state:?} {numbers:?} {times:?} {registers:?}\n")
    });
    let spaces = (0..32).map(|i| w.k.spaces.get(crate::machine::SpaceRef::new(i)));
    let spaces = spaces.map(|space| (space.threads(), space.is_initialised(), space.kip_area(), space.utcb_area()));
    threads.collect::<String>() + &format!("{:?}", spaces.collect::<Vec<_>>())
}

/// A refused call has this error and no effect.
#[track_caller]
fn refused(w: World, who: Who, args: ThreadControlArgs, error: SysError) {
    let before = snapshot(w);
    assert_eq!(w.thread_control(who, args), Err(error), "{args:?}");
    assert_eq!(snapshot(w), before, "after {args:?}");
}

/// The cast, n inactive in a space that is not initialised.
fn with_raw_space() -> World {
    let w = World::new();
    let args = ThreadControlArgs { pager: NIL, utcb_location: UNCHANGED, ..activation(N) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    w
}

/// A call that is wrong in every way, to be mended in the order of the checks.
const WRONG: ThreadControlArgs = ThreadControlArgs {
    dest: M_LOCAL,
    space: ThreadId::global(99, 1),
    scheduler: NIL,
    pager: ThreadId::global(34, 1),
    utcb_location: 1,
};
const M_LOCAL: ThreadId = ThreadId::local(0x7100_0200);

/// X.2, ThreadControl: only privileged spaces; then dest must be a global id of a user's thread.
#[test]
fn dest_is_checked_first() {
    let w = World::new();
    refused(w, A, WRONG, NoPrivilege);
    refused(w, ROOT, WRONG, InvalidSpace);
    let kernel = ThreadId::global(NUMBERS.system_base.into(), 1);
    let last = ThreadId::global(Word::from(NUMBERS.user_base) - 1, 1);
    let beyond = ThreadId::global(super::machine::THREADS as Word, 1);
    for dest in [kernel, last, beyond, ThreadId::global(1 << 20, 1), ThreadId::ANY, ThreadId::interrupt(3)] {
        refused(w, ROOT, ThreadControlArgs { dest, ..WRONG }, InvalidThread);
        refused(w, ROOT, ThreadControlArgs { dest, space: NIL, ..WRONG }, InvalidThread);
    }
    for dest in [NIL, ThreadId::ANY_LOCAL, A.local()] {
        refused(w, ROOT, ThreadControlArgs { dest, space: NIL, ..WRONG }, InvalidSpace);
    }
}

/// X.2, ThreadControl, creation: scheduler, space specifier, pager with space, UTCB location are checked in this order.
#[test]
fn creation_is_checked_in_order() {
    let w = with_raw_space();
    let args = ThreadControlArgs { dest: M.id(), ..WRONG };
    refused(w, ROOT, args, InvalidThread);
    let args = ThreadControlArgs { scheduler: ROOT.id(), ..args };
    refused(w, ROOT, args, InvalidSpace);
    for space in [A.version(2), ThreadId::ANY, M.version(2), ThreadId::interrupt(1)] {
        refused(w, ROOT, ThreadControlArgs { space, pager: NIL, ..args }, InvalidSpace);
    }
    refused(w, ROOT, ThreadControlArgs { space: M.id(), ..args }, InvalidSpace);
    refused(w, ROOT, ThreadControlArgs { space: N.id(), ..args }, InvalidSpace);
    let args = ThreadControlArgs { space: A.id(), ..args };
    refused(w, ROOT, args, UtcbArea);
    let (begin, end) = (UTCB_AREA.base(), UTCB_AREA.last() + 1);
    let size = UTCB_SIZE as Word;
    for location in [UNCHANGED, begin - size, end, end - size / 2, begin + 64, begin + size / 2, 0, UNCHANGED - 1023] {
        refused(w, ROOT, ThreadControlArgs { utcb_location: location, ..args }, UtcbArea);
    }
    let args = ThreadControlArgs { utcb_location: M.utcb_location(), ..args };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    expect(w, "creation", "m start: waits for root");
}

/// X.2, ThreadControl: the last UTCB of the area is as good as the first.
#[test]
fn utcbs_fill_their_area() {
    let w = World::new();
    let last = UTCB_AREA.last() + 1 - UTCB_SIZE as Word;
    let args = ThreadControlArgs { pager: ROOT.id(), utcb_location: last, ..activation(M) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    play(w, "a start m; m send a 1; a wait");
    assert_eq!(w.tcb(M).local_id.get(), ThreadId::local(last + 512));
}

/// X.2, ThreadControl: a new thread has the defaults and nothing of its creator; the existence of its scheduler does not
/// matter yet. Its UTCB is clear, in a place where another one was before, too.
#[test]
fn new_thread_has_the_defaults() {
    let w = World::new();
    w.set_mrs(C, &[7; 64]);
    w.utcb(C).set_exception_handler(A.id());
    w.utcb(C).set_br(0, 0x10);
    assert_eq!(w.delete(ROOT, C), Ok(()));
    let location = C.utcb_location();
    let args = ThreadControlArgs { scheduler: N.id(), pager: R.id(), utcb_location: location, ..activation(M) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    let (tcb, utcb) = (w.tcb(M), w.utcb(M));
    assert_eq!((tcb.priority(), tcb.sensitive_priority.get(), tcb.max_delay_us.get()), (100, 100, 0));
    assert_eq!((tcb.time_slice.get().length_us(), tcb.total_quantum.get().is_never()), (Some(10_000), true));
    assert_eq!((tcb.scheduler.get(), tcb.local_id.get()), (N.id(), C.local()));
    assert_eq!((utcb.my_global_id(), utcb.pager(), utcb.exception_handler()), (M.id(), R.id(), NIL));
    assert_eq!((utcb.processor_no(), utcb.br(0), w.mrs(M)), (0, 0, vec![0; 64]));
}

/// X.2, ThreadControl: inactive with a UTCB location, SpaceControl, then activation without one.
#[test]
fn location_can_be_given_before_the_space_is_initialised() {
    let w = World::new();
    assert_eq!(w.thread_control(ROOT, activation(N)), Ok(()));
    let args = super::space_control::areas(N);
    assert_eq!(w.enter(ROOT, |here, root| here.space_control(root, args)), Ok(()));
    assert_eq!(w.thread_control(ROOT, ThreadControlArgs { pager: ROOT.id(), ..no_change(N) }), Ok(()));
    play(w, "root send n 0x400000 0");
    expect(w, "activation", "n ready");
    assert_eq!(w.tcb(N).ip.get(), START_IP);
}

/// X.2, ThreadControl: the location of an inactive thread is stored unchecked, and refused when it is to be used.
#[test]
fn bad_location_is_refused_at_activation() {
    for location in [0, 1, 0x1000, UTCB_AREA.base() + 64, UTCB_AREA.last() + 1, Word::MAX - 63, Word::MAX - 511] {
        let w = World::new();
        let args = ThreadControlArgs { utcb_location: location, ..activation(M) };
        assert_eq!(w.thread_control(ROOT, args), Ok(()), "{location:#x}");
        refused(w, ROOT, ThreadControlArgs { pager: ROOT.id(), ..no_change(M) }, UtcbArea);
        let args = ThreadControlArgs { pager: ROOT.id(), utcb_location: M.utcb_location(), ..no_change(M) };
        assert_eq!(w.thread_control(ROOT, args), Ok(()), "another location mends it");
    }
}

/// X.2, ThreadControl, modification: UTCB location, space specifier, move and activation are checked in this order.
#[test]
fn modification_is_checked_in_order() {
    let w = with_raw_space();
    w.create(P);
    // b is active.
    let args = ThreadControlArgs { dest: B.id(), ..WRONG };
    refused(w, ROOT, ThreadControlArgs { scheduler: R.id(), ..args }, UtcbArea);
    refused(w, ROOT, ThreadControlArgs { utcb_location: B.utcb_location(), space: B.id(), ..args }, UtcbArea);
    let args = ThreadControlArgs { utcb_location: UNCHANGED, ..args };
    refused(w, ROOT, args, InvalidSpace);
    refused(w, ROOT, ThreadControlArgs { space: A.version(7), ..args }, InvalidSpace);
    refused(w, ROOT, ThreadControlArgs { space: N.id(), ..args }, UtcbArea);
    // n is inactive, in a space without areas.
    refused(w, ROOT, ThreadControlArgs { pager: ROOT.id(), ..no_change(N) }, UtcbArea);
    let location = N.utcb_location();
    refused(w, ROOT, ThreadControlArgs { pager: ROOT.id(), utcb_location: location, ..no_change(N) }, UtcbArea);
    // So is this one, in a space with areas. The location comes first.
    refused(w, ROOT, ThreadControlArgs { utcb_location: 64, space: A.version(7), ..no_change(P) }, UtcbArea);
    let args = ThreadControlArgs { utcb_location: P.utcb_location(), space: A.version(7), ..no_change(P) };
    refused(w, ROOT, args, InvalidSpace);
    refused(w, ROOT, ThreadControlArgs { pager: ROOT.id(), ..no_change(P) }, UtcbArea);
    refused(w, ROOT, ThreadControlArgs { utcb_location: 64, ..no_change(P) }, UtcbArea);
    refused(w, ROOT, ThreadControlArgs { pager: ROOT.id(), utcb_location: 64, ..no_change(P) }, UtcbArea);
}

/// X.2, ThreadControl: nilthread and -1 change nothing.
#[test]
fn modification_of_nothing_succeeds() {
    let w = with_raw_space();
    for who in [A, N, X, ROOT] {
        let before = snapshot(w);
        assert_eq!(w.thread_control(ROOT, no_change(who)), Ok(()));
        assert_eq!(snapshot(w), before);
    }
}

/// X.2, ThreadControl: pager and scheduler of an active thread can be changed, whatever it is doing.
#[test]
fn pager_and_scheduler_can_be_changed() {
    for (script, sees) in [("", "b ready"), ("b wait", "b waits for any"), ("b send c 1", "b queued on c")] {
        let w = World::new();
        play(w, script);
        let args = ThreadControlArgs { pager: X.id(), scheduler: A.id(), ..no_change(B) };
        assert_eq!(w.thread_control(ROOT, args), Ok(()));
        assert_eq!((w.utcb(B).pager(), w.tcb(B).scheduler.get()), (X.id(), A.id()));
        expect(w, script, sees);
    }
}

/// X.2, ThreadControl: a caller may name space, scheduler and pager by local ids of its own space, but not dest.
#[test]
fn parameters_may_be_local_ids() {
    let w = World::new();
    let base = super::world::Q.utcb_location();
    let dest = super::world::Q.id();
    let args =
        ThreadControlArgs { dest, space: ROOT.local(), scheduler: R.local(), pager: R.local(), utcb_location: base };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    let thread = w.k.thread(dest).expect("it was created");
    assert_eq!(w.k.space_of(thread), w.k.space_of(ROOT.tcb()));
    assert_eq!((w.k.tcb(thread).scheduler.get(), w.k.utcb(thread).pager()), (R.id(), R.id()));
    assert_eq!(w.k.tcb(thread).waiting_for(), Some(R.id()));
}

/// X.2, ThreadControl: another version is another id; the IPC of the thread is over, and the old id names nobody.
#[test]
fn version_can_be_changed() {
    let rows = [("", "ready"), ("b wait", "Receive Canceled"), ("b send c 1", "Send Canceled"), ("b halt b", "halted")];
    for (script, sees) in rows {
        let w = World::new();
        play(w, script);
        let args = ThreadControlArgs { dest: B.version(3), space: A.id(), ..no_change(B) };
        assert_eq!(w.thread_control(ROOT, args), Ok(()));
        assert_eq!((w.tcb(B).id.get(), w.utcb(B).my_global_id()), (B.version(3), B.version(3)));
        assert_eq!(w.outcome(B), sees, "after `{script}`");
        play(w, "a send b 1 snd=0; a wait b");
        expect(w, "use of the old id", "a Receive NonExisting");
        play(w, "c send b/3 2 snd=0; x wait b/3");
        expect(w, "use of the new id", "c Send Timeout; x waits for ThreadId(0x2900000003)");
        assert_eq!(w.k.local_thread(B.local(), w.k.space_of(A.tcb())), Some(B.tcb()));
    }
}

/// X.2, ThreadControl: a thread that waits for its start message goes on doing so under its new id.
#[test]
fn version_can_be_changed_before_the_start() {
    let w = World::new();
    w.activate(M);
    let args = ThreadControlArgs { dest: M.version(2), space: A.id(), ..no_change(M) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    play(w, "root send m/2 0x400000 0");
    expect(w, "start under the new id", "m ready");
}

// --- migration ---

/// X.2, ThreadControl: a thread moves to another space with all its virtual registers; its IPC is over.
#[test]
fn thread_moves_to_another_space() {
    for (script, sees) in [("", "d ready"), ("d wait", "d Receive Canceled"), ("d send c 1", "d Send Canceled")] {
        let w = World::new();
        w.utcb(D).set_user_defined_handle(0x77);
        w.utcb(D).set_mr(9, 0x99);
        play(w, script);
        assert_eq!(w.thread_control(ROOT, ThreadControlArgs { space: X.id(), ..no_change(D) }), Ok(()));
        assert_eq!(w.k.space_of(D.tcb()), w.k.space_of(X.tcb()));
        assert_eq!(w.tcb(D).space_word.get(), w.tcb(X).space_word.get());
        assert_eq!((w.utcb(D).user_defined_handle(), w.utcb(D).mr(9), w.utcb(D).my_global_id()), (0x77, 0x99, D.id()));
        expect(w, script, sees);
        play(w, "x wait; d send x 5; a wait d; d send a 6");
        assert_eq!(w.outcome(A), "got 6 from d");
        assert_eq!(w.utcb(X).tag().untyped(), 1);
        assert_eq!(w.k.machine.saved(X.tcb()).from.get(), Some(D.local()), "local in its new space");
        assert_eq!(w.k.local_thread(D.local(), w.k.space_of(A.tcb())), None, "not in its old one");
    }
}

/// X.2, ThreadControl: a thread that moves in the middle of an Unmap does not go on with it in its new space.
#[test]
fn unmap_does_not_go_on_in_another_space() {
    for is_halted in [false, true] {
        let w = World::new();
        play(
            w,
            "root send s; x accept; x wait; s send x map=0x1000000/20; d accept; d wait; x send d map=0x1000000/20",
        );
        w.set_mrs(D, &[Fpage::COMPLETE.with_rights(Rights::ALL).raw(); 3]);
        w.begin(D, |here, d| here.unmap(d, UnmapControl::flush(3)));
        expect(w, "the first step", "d works on Unmap");
        if is_halted {
            play(w, "a halt d");
        }
        assert_eq!(w.thread_control(ROOT, ThreadControlArgs { space: X.id(), ..no_change(D) }), Ok(()));
        assert_eq!(w.k.machine.saved(D.tcb()).unmaps.get(), 1, "the call has returned");
        assert_eq!((w.tcb(D).work(), w.tcb(D).ready_link.is_linked()), (Work::None, !is_halted));
        let page = w.k.spaces.lookup(w.k.space_of(X.tcb()), 0x100_0000 + (1 << 20) - 0x1000);
        assert!(page.is_some(), "the new space keeps its pages");
    }
}

/// X.2, ThreadControl: an inactive thread can move, and be activated in its new space.
#[test]
fn inactive_thread_moves() {
    let w = with_raw_space();
    let args = ThreadControlArgs { space: A.id(), pager: ROOT.id(), utcb_location: M.utcb_location(), ..no_change(N) };
    let frames = w.frames_used();
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    assert_eq!(w.k.space_of(N.tcb()), w.k.space_of(A.tcb()));
    assert!(w.frames_used() < frames, "the space it left is gone");
    play(w, "root send n 0x400000 0");
    expect(w, "start", "n ready");
}

/// X.2, ThreadControl: the space that the last thread left is destroyed.
#[test]
fn space_that_is_left_vanishes() {
    let w = World::new();
    let count = |w: World| w.k.spaces.check_invariants(crate::space::Rest::Settled).expect("all is well").spaces;
    let (spaces, frames) = (count(w), w.frames_used());
    assert_eq!(w.delete(ROOT, Y), Ok(()));
    assert_eq!(w.thread_control(ROOT, ThreadControlArgs { space: X.id(), ..no_change(Z) }), Ok(()));
    assert_eq!(count(w), spaces - 1);
    assert!(w.frames_used() < frames);
    play(w, "z send x 1; x wait");
    assert!(w.outcome(X).starts_with("got 1"), "{}", w.outcome(X));
}

/// X.2, ThreadControl: a privileged thread can leave its space, and with it its privilege.
#[test]
fn caller_can_move_itself() {
    let w = World::new();
    let args = ThreadControlArgs { space: X.id(), ..no_change(R) };
    let r_location = w.thread_control(R, args);
    assert_eq!(r_location, Err(UtcbArea), "its UTCB is not in the other space's area");
    expect(w, "a refused move", "r ready");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("dest_is_checked_first", dest_is_checked_first),
    ("creation_is_checked_in_order", creation_is_checked_in_order),
    ("utcbs_fill_their_area", utcbs_fill_their_area),
    ("new_thread_has_the_defaults", new_thread_has_the_defaults),
    ("location_can_be_given_before_the_space_is_initialised", location_can_be_given_before_the_space_is_initialised),
    ("bad_location_is_refused_at_activation", bad_location_is_refused_at_activation),
    ("modification_is_checked_in_order", modification_is_checked_in_order),
    ("modification_of_nothing_succeeds", modification_of_nothing_succeeds),
    ("pager_and_scheduler_can_be_changed", pager_and_scheduler_can_be_changed),
    ("parameters_may_be_local_ids", parameters_may_be_local_ids),
    ("version_can_be_changed", version_can_be_changed),
    ("version_can_be_changed_before_the_start", version_can_be_changed_before_the_start),
    ("thread_moves_to_another_space", thread_moves_to_another_space),
    ("inactive_thread_moves", inactive_thread_moves),
    ("space_that_is_left_vanishes", space_that_is_left_vanishes),
    ("caller_can_move_itself", caller_can_move_itself),
];
