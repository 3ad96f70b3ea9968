//! ExchangeRegisters: ids, permission, registers (X.2, ExchangeRegisters).

use l4_abi::{ExregsControl, SysError, ThreadId, ThreadState, USER_FLAGS_MASK, Word};

use super::machine::DEFAULT_FLAGS;
use super::script::{expect, play};
use super::stage::{Place, Stage};
use super::world::{A, B, M, N, ROOT, START_IP, START_SP, Who, World, X, no_registers};
use crate::cross::ask::Subject;
use crate::syscall::Exregs;

const ALL: ExregsControl = ExregsControl::from_raw(0xF8);
const EVERYTHING: Exregs = Exregs {
    dest: ThreadId::NIL,
    control: ALL,
    sp: 0x111,
    ip: 0x222,
    flags: usize::MAX,
    handle: 0x333,
    pager: ThreadId::from_raw(0x444),
};

/// X.2, ExchangeRegisters: the result is the other form of the id that was passed.
#[test]
fn result_is_the_other_form_of_the_id() {
    let w = World::new();
    let ask = |dest| w.exregs(A, dest, ExregsControl::NONE).map(|old| old.thread);
    assert_eq!(ask(B.id()), Ok(B.local()));
    assert_eq!(ask(B.local()), Ok(B.id()));
    assert_eq!(ask(A.id()), Ok(A.local()));
    assert_eq!(ask(A.local()), Ok(A.id()));
}

/// X.2, ExchangeRegisters: only active threads of the caller's space, or paged by a thread of it (pagerexregs).
#[test]
fn others_are_refused() {
    let w = World::new();
    w.create(N);
    let refused = [N.id(), X.id(), B.version(2), M.id(), M.local(), ThreadId::NIL, ThreadId::ANY, ThreadId::ANY_LOCAL];
    for dest in refused {
        let done = w.exchange(A, Exregs { dest, ..EVERYTHING });
        assert_eq!(done.map(|_| ()), Err(SysError::InvalidThread), "{dest:?}");
    }
    assert_eq!(w.tcb(X).ip.get(), START_IP);
    assert_eq!(w.exregs(ROOT, N.id(), ExregsControl::NONE).map(|_| ()), Err(SysError::InvalidThread), "inactive");
    assert!(w.exregs(ROOT, X.id(), ExregsControl::NONE).is_ok(), "root pages x");
    play(w, "x pager a");
    assert!(w.exregs(B, X.id(), ExregsControl::NONE).is_ok(), "a thread in the space of its pager");
    assert!(w.exregs(ROOT, X.id(), ExregsControl::NONE).is_err(), "not its pager any more");
}

/// The thread that is found may be deleted before its processor hears of the call, and another one be made with its id:
/// inactive, or in a space that the caller has nothing to do with.
#[test]
fn another_thread_of_the_same_id_is_refused() {
    for (caller, dest, is_done) in [(A, B, true), (ROOT, N, false), (A, X, false)] {
        let w = World::of_processors(2);
        w.create(N);
        w.place(dest, 1);
        let mut stage = Stage::new(2);
        stage.begin(0, 0, 0, move || {
            let question = Exregs { dest: dest.id(), ..EVERYTHING }.to_words(caller.tcb(), dest.tcb());
            let answer = w.here().at_home_of(dest.tcb(), Subject::Exregs, question);
            assert_eq!(answer.is_some(), is_done, "{} of {}", dest.name(), caller.name());
        });
        stage.begin(1, 0, 0, move || w.on(1).dispatch_steps(9));
        assert_eq!([stage.go_on(0), stage.place(1)], [Place::Done; 2]);
        assert_eq!(w.tcb(dest).ip.get() == EVERYTHING.ip, is_done);
    }
    // Here it can be nothing but inactive.
    let w = World::new();
    w.create(N);
    let question = Exregs { dest: N.id(), ..EVERYTHING }.to_words(ROOT.tcb(), N.tcb());
    assert!(w.here().at_home_of(N.tcb(), Subject::Exregs, question).is_none());
}

/// X.2, ExchangeRegisters: the registers named in control are written, and the result has the old ones.
#[test]
fn registers_named_are_exchanged() {
    let w = World::new();
    w.utcb(B).set_user_defined_handle(0x99);
    let old = w.exchange(A, Exregs { dest: B.id(), ..EVERYTHING }).expect("same space");
    assert_eq!((old.ip, old.sp, old.flags), (START_IP, START_SP, DEFAULT_FLAGS));
    assert_eq!((old.handle, old.pager, old.state), (0x99, ROOT.id(), ThreadState::NONE));
    let new = w.exregs(A, B.id(), ExregsControl::DELIVER).expect("same space");
    assert_eq!((new.ip, new.sp, new.handle, new.pager.raw()), (0x222, 0x111, 0x333, 0x444));
    assert_eq!(new.flags, DEFAULT_FLAGS | USER_FLAGS_MASK as usize, "flags that users may change");
}

/// X.2, ExchangeRegisters: each bit means its register alone.
#[test]
fn registers_not_named_stay() {
    let names =
        [ExregsControl::SP, ExregsControl::IP, ExregsControl::FLAGS, ExregsControl::HANDLE, ExregsControl::PAGER];
    for control in names {
        let w = World::new();
        w.exchange(A, Exregs { dest: B.id(), control, ..EVERYTHING }).expect("same space");
        let new = w.exregs(A, B.id(), ExregsControl::NONE).expect("same space");
        let changed = [
            new.sp != START_SP,
            new.ip != START_IP,
            new.flags != DEFAULT_FLAGS,
            new.handle != 0,
            new.pager != ROOT.id(),
        ];
        assert_eq!(changed, names.map(|name| name == control), "{control:?}");
    }
}

/// X.2, ExchangeRegisters: old values come with and without the bit that asks for them, and bits that mean control
/// transfer or nothing change nothing, also when the message registers hold no control-transfer items.
#[test]
fn other_bits_change_nothing() {
    for bit in 9..Word::BITS {
        for mr1 in [0, 6 << 1, 6 << 1 | 1 | 0xFFF << 12, Word::MAX] {
            let w = World::new();
            play(w, "b wait");
            w.set_mrs(A, &[Word::MAX, mr1, mr1, mr1]);
            let (own, others) = (w.mrs(A), w.mrs(B));
            let control = ExregsControl::from_raw(1 << bit);
            let old = w.exchange(A, Exregs { dest: B.id(), control, ..EVERYTHING }).expect("same space");
            assert_eq!((old.pager, old.state), (ROOT.id(), ThreadState::RECEIVING), "bit {bit}");
            assert_eq!((w.mrs(A), w.mrs(B)), (own, others), "bit {bit}");
            play(w, "c send b 1");
            expect(w, "afterwards", "b got 1 from 'c");
            assert_eq!((w.tcb(B).sp.get(), w.utcb(B).pager()), (START_SP, ROOT.id()), "bit {bit}");
        }
    }
}

/// X.2, ExchangeRegisters: nilthread is a value for the pager like others.
#[test]
fn pager_can_be_nilthread() {
    let w = World::new();
    let args = Exregs { control: ExregsControl::PAGER, ..no_registers(B.id()) };
    assert_eq!(w.exchange(A, args).expect("same space").pager, ROOT.id());
    assert_eq!(w.utcb(B).pager(), ThreadId::NIL);
}

/// X.2, ExchangeRegisters: a thread may exchange its own registers.
#[test]
fn own_registers_can_be_exchanged() {
    let w = World::new();
    let control = ExregsControl::IP | ExregsControl::SP | ExregsControl::ABORT_IPC;
    w.exchange(A, Exregs { dest: A.local(), control, ..EVERYTHING }).expect("oneself");
    assert_eq!((w.tcb(A).ip.get(), w.tcb(A).sp.get()), (0x222, 0x111));
    expect(w, "self", "a ready");
}

/// X.2, ExchangeRegisters: registers can be written during an IPC, which goes on.
#[test]
fn registers_of_a_blocked_thread_can_be_written() {
    for (script, meanwhile, then, after) in [
        ("b wait", "waits for any", "c send b 1", "got 1 from 'c"),
        ("b wait rcv=100", "waits for any", "c send b 1", "got 1 from 'c"),
        ("b send c 1", "queued on c", "c wait", "sent"),
    ] {
        let w = World::new();
        play(w, script);
        let control = ExregsControl::IP | ExregsControl::SP;
        w.exchange(A, Exregs { dest: B.id(), control, ip: usize::MAX, ..EVERYTHING }).expect("same space");
        expect(w, script, &format!("b {meanwhile}"));
        play(w, then);
        expect(w, script, &format!("b {after}"));
        assert_eq!((w.tcb(B).ip.get(), w.tcb(B).sp.get()), (usize::MAX, 0x111), "after `{script}`");
    }
}

/// l4test, ExchangeRegisters: a thread asked for too early does not exist, and is none the worse for it later.
#[test]
fn thread_that_was_asked_for_too_early_can_be_created() {
    let w = World::new();
    assert!(w.exregs(A, M.id(), ExregsControl::START).is_err());
    w.start(M);
    play(w, "m wait; a send m 1");
    expect(w, "creation", "m got 1 from 'a");
}

/// l4test, ExchangeRegisters: a sleeping thread can be started anew any number of times.
#[test]
fn sleeping_thread_is_restarted() {
    let w = World::new();
    for round in 0..100 {
        let ip = START_IP + round;
        play(w, if round % 2 == 0 { "b wait b" } else { "b wait b rcv=1000000" });
        let control = ExregsControl::START | ExregsControl::IP | ExregsControl::SP;
        let old = w.exchange(A, Exregs { dest: B.local(), control, ip, sp: 8 * round, ..EVERYTHING });
        assert_eq!(old.expect("same space").state, ThreadState::RECEIVING);
        assert_eq!((w.tcb(B).ip.get(), w.tcb(B).sp.get()), (ip, 8 * round));
        expect(w, "restart", "b Receive Canceled");
    }
    assert_eq!(w.here().cpu.timeouts.count(), 0);
}

/// ExchangeRegisters finds no caller's own space by accident: local ids are the caller's.
#[test]
fn local_ids_are_of_the_callers_space() {
    let w = World::new();
    let y: Who = super::world::Y;
    assert_eq!(w.exregs(X, B.local(), ExregsControl::NONE).map(|old| old.thread), Ok(y.id()));
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("result_is_the_other_form_of_the_id", result_is_the_other_form_of_the_id),
    ("others_are_refused", others_are_refused),
    ("registers_named_are_exchanged", registers_named_are_exchanged),
    ("registers_not_named_stay", registers_not_named_stay),
    ("other_bits_change_nothing", other_bits_change_nothing),
    ("pager_can_be_nilthread", pager_can_be_nilthread),
    ("own_registers_can_be_exchanged", own_registers_can_be_exchanged),
    ("registers_of_a_blocked_thread_can_be_written", registers_of_a_blocked_thread_can_be_written),
    ("thread_that_was_asked_for_too_early_can_be_created", thread_that_was_asked_for_too_early_can_be_created),
    ("sleeping_thread_is_restarted", sleeping_thread_is_restarted),
    ("local_ids_are_of_the_callers_space", local_ids_are_of_the_callers_space),
];
