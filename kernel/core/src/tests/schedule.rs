//! Schedule: permission, encodings, states (X.2, Schedule).

use l4_abi::{
    PreemptionControl, PrioControl, ProcessorControl, ScheduleResult, SysError, ThreadId, Time, TimeControl, Word,
};

use super::script::play;
use super::thread_control::snapshot;
use super::world::{A, B, C, N, R, ROOT, World, X, no_change};
use crate::machine::Machine;
use crate::syscall::{ScheduleArgs, ScheduleReply, ThreadControlArgs};

/// A call that changes nothing.
pub fn nothing(dest: ThreadId) -> ScheduleArgs {
    ScheduleArgs {
        dest,
        time: TimeControl::NO_CHANGE,
        processor: ProcessorControl::NO_CHANGE,
        prio: PrioControl::NO_CHANGE,
        preemption: PreemptionControl::NO_CHANGE,
    }
}

/// A call of Schedule.
pub fn schedule(w: World, who: super::world::Who, args: ScheduleArgs) -> Result<Option<ScheduleReply>, SysError> {
    w.enter(who, |here, thread| here.schedule(thread, args))
}

fn with_priority(dest: ThreadId, priority: u8) -> ScheduleArgs {
    ScheduleArgs { prio: PrioControl::new(priority), ..nothing(dest) }
}

/// The cast; a is the scheduler of b.
fn with_scheduler() -> World {
    let w = World::new();
    let args = ThreadControlArgs { scheduler: A.id(), ..no_change(B) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    w
}

/// X.2, Schedule: privileged threads, and those in the space of dest's scheduler.
#[test]
fn schedulers_space_and_privileged_threads_may_schedule() {
    let w = with_scheduler();
    for who in [ROOT, R, A, C] {
        let dest = if who == C { B.local() } else { B.id() };
        assert!(schedule(w, who, with_priority(dest, 90)).is_ok(), "{who:?}");
    }
    assert_eq!(schedule(w, X, nothing(B.id())), Err(SysError::NoPrivilege));
    assert_eq!(schedule(w, A, nothing(C.id())), Err(SysError::NoPrivilege), "root schedules c");
    assert_eq!(schedule(w, A, nothing(A.id())), Err(SysError::NoPrivilege), "and a");
    w.delete(ROOT, A).expect("root may");
    assert_eq!(schedule(w, C, nothing(B.id())), Err(SysError::NoPrivilege), "its scheduler is gone");
}

/// X.2, Schedule: who is not privileged gives no priority above its own, and no sensitive priority either.
#[test]
fn priorities_above_the_own_need_privilege() {
    let w = with_scheduler();
    let before = snapshot(w);
    let sensitive = |dest, priority| ScheduleArgs { preemption: PreemptionControl::new(priority, 9), ..nothing(dest) };
    assert_eq!(schedule(w, A, with_priority(B.id(), 101)), Err(SysError::NoPrivilege));
    assert_eq!(schedule(w, A, sensitive(B.id(), 101)), Err(SysError::NoPrivilege));
    assert_eq!(snapshot(w), before);
    assert!(schedule(w, A, with_priority(B.id(), 100)).is_ok());
    assert!(schedule(w, A, sensitive(B.id(), 100)).is_ok());
    assert!(schedule(w, R, sensitive(B.id(), 255)).is_ok(), "r has priority 100, but privilege");
    assert!(schedule(w, R, with_priority(B.id(), 200)).is_ok(), "r has priority 100, but privilege");
    assert_eq!(w.tcb(B).priority(), 200);
}

/// X.2, Schedule: what cannot be is refused, in this order, without effect.
#[test]
fn bad_calls_have_no_effect() {
    let w = with_scheduler();
    let point = Time::from_raw(0x8001);
    let change = ScheduleArgs {
        dest: B.id(),
        time: TimeControl::new(Time::period_us(5), Time::period_us(7)),
        processor: ProcessorControl::new(0),
        prio: PrioControl::new(50),
        preemption: PreemptionControl::new(100, 20),
    };
    let bad_time = [TimeControl::new(point, Time::NEVER), TimeControl::new(Time::NEVER, point)];
    let (too_sensitive, extension) = (PreemptionControl::new(101, 0), PreemptionControl::from_raw(1 << 25));
    let bad_processor = ScheduleArgs { processor: ProcessorControl::new(1), ..change };
    let rows = [
        (X, ScheduleArgs { dest: N.id(), ..bad_processor }, SysError::InvalidThread),
        (X, ScheduleArgs { dest: B.version(2), ..bad_processor }, SysError::InvalidThread),
        (A, ScheduleArgs { dest: ThreadId::interrupt(3), ..change }, SysError::InvalidThread),
        (ROOT, ScheduleArgs { dest: ThreadId::ANY, ..change }, SysError::InvalidThread),
        (X, bad_processor, SysError::NoPrivilege),
        (A, ScheduleArgs { prio: PrioControl::new(101), ..bad_processor }, SysError::NoPrivilege),
        (A, ScheduleArgs { time: bad_time[0], ..change }, SysError::InvalidParameter),
        (A, ScheduleArgs { time: bad_time[1], ..change }, SysError::InvalidParameter),
        (A, bad_processor, SysError::InvalidParameter),
        (A, ScheduleArgs { time: bad_time[0], prio: PrioControl::new(101), ..change }, SysError::NoPrivilege),
        (A, ScheduleArgs { time: bad_time[0], preemption: too_sensitive, ..change }, SysError::InvalidParameter),
        (A, ScheduleArgs { preemption: too_sensitive, ..bad_processor }, SysError::NoPrivilege),
        (A, ScheduleArgs { preemption: extension, prio: PrioControl::new(255), ..change }, SysError::InvalidParameter),
        (X, ScheduleArgs { preemption: extension, ..change }, SysError::NoPrivilege),
        (ROOT, ScheduleArgs { processor: ProcessorControl::new(0xFFFF), ..change }, SysError::InvalidParameter),
    ];
    for (who, args, error) in rows {
        let before = snapshot(w);
        assert_eq!(schedule(w, who, args), Err(error), "{args:?}");
        assert_eq!(snapshot(w), before, "{args:?}");
    }
    assert!(schedule(w, A, change).is_ok());
    let tcb = w.tcb(B);
    assert_eq!((tcb.priority(), tcb.sensitive_priority.get(), tcb.max_delay_us.get()), (50, 100, 20));
    assert_eq!((tcb.time_slice.get().length_us(), tcb.total_quantum.get().length_us()), (Some(5), Some(7)));
    assert_eq!((tcb.slice_left_us.get(), tcb.quantum_left_us.get()), (5, 7), "a full slice at once");
}

/// X.2, Schedule: calls of the hierarchical scheduler's extension are refused, or a thread id would be taken as a time.
#[test]
fn extension_for_hierarchical_scheduling_is_refused() {
    let w = World::new();
    for control in [1, 2, 4, 8, 16] {
        let args = ScheduleArgs {
            dest: B.id(),
            time: TimeControl::from_raw(C.id().raw()),
            processor: ProcessorControl::NO_CHANGE,
            prio: PrioControl::from_raw(500 << 16 | 50),
            preemption: PreemptionControl::from_raw(control << 26 | 1 << 25),
        };
        let before = snapshot(w);
        assert_eq!(schedule(w, ROOT, args), Err(SysError::InvalidParameter), "control {control}");
        assert_eq!(snapshot(w), before, "control {control}");
        assert_eq!(schedule(w, A, args), Err(SysError::NoPrivilege), "control {control}");
    }
}

/// X.2, Schedule: a line's thread can be scheduled once it was associated; it is halted, or waits for its handler.
#[test]
fn interrupt_threads_have_states() {
    let w = World::new();
    play(w, "a handle irq5");
    let line = ThreadId::interrupt(5);
    let change = ScheduleArgs {
        time: TimeControl::new(Time::period_us(5), Time::period_us(7)),
        prio: PrioControl::new(3),
        preemption: PreemptionControl::new(9, 20),
        ..nothing(line)
    };
    let state = |args| schedule(w, ROOT, args).map(|reply| reply.expect("a thread was named").state);
    assert_eq!(state(change), Ok(ScheduleResult::Inactive));
    assert_eq!(schedule(w, A, nothing(line)), Err(SysError::NoPrivilege), "nobody is its scheduler");
    play(w, "raise 5");
    assert_eq!(state(change), Ok(ScheduleResult::PendingSend));
    play(w, "a wait irq5");
    assert_eq!(state(change), Ok(ScheduleResult::Waiting));
    play(w, "a send irq5; a ignore irq5");
    assert_eq!(state(change), Ok(ScheduleResult::Dead));
    let versions = [ThreadId::global(5, 2), ThreadId::interrupt(6)];
    versions.into_iter().for_each(|id| assert_eq!(state(nothing(id)), Err(SysError::InvalidThread), "{id:?}"));
}

/// X.2, Schedule: nilthread asks for nothing, of anybody.
#[test]
fn nilthread_asks_for_nothing() {
    let w = World::new();
    for who in [ROOT, A] {
        assert_eq!(schedule(w, who, with_priority(ThreadId::NIL, 255)), Ok(None));
    }
}

/// X.2, Schedule: a priority field above 255 changes nothing, whatever stands in the fields beside it.
#[test]
fn priority_field_has_nine_bits() {
    let rows: [(Word, u8); 9] = [
        (0, 0),
        (255, 255),
        (0x1FF, 100),
        (256, 100),
        (510, 100),
        (Word::MAX, 100),
        (7 << 16 | 0xFFFF, 100),
        (3 << 9 | 0x1FF, 100),
        (7 << 16 | 3 << 9 | 42, 42),
    ];
    for (raw, priority) in rows {
        let w = World::new();
        assert!(schedule(w, ROOT, ScheduleArgs { prio: PrioControl::from_raw(raw), ..nothing(B.id()) }).is_ok());
        assert_eq!(w.tcb(B).priority(), priority, "{raw:#x}");
    }
}

/// X.2, Schedule: a sensitive priority below the priority is not taken; a priority above it takes it along.
#[test]
fn sensitive_priority_is_not_below_the_priority() {
    let w = World::new();
    let set = |priority, sensitive| {
        let preemption = PreemptionControl::new(sensitive, 30);
        let prio = PrioControl::from_raw(priority);
        assert!(schedule(w, ROOT, ScheduleArgs { prio, preemption, ..nothing(B.id()) }).is_ok());
        (w.tcb(B).priority(), w.tcb(B).sensitive_priority.get())
    };
    assert_eq!(set(0x1FF, 150), (100, 150));
    assert_eq!(set(0x1FF, 99), (100, 150));
    assert_eq!(set(0x1FF, 100), (100, 100));
    assert_eq!(set(120, 110), (120, 120));
    assert!(schedule(w, ROOT, with_priority(B.id(), 50)).is_ok());
    assert_eq!(w.tcb(B).sensitive_priority.get(), 120);
    assert!(schedule(w, ROOT, with_priority(B.id(), 130)).is_ok());
    assert_eq!(w.tcb(B).sensitive_priority.get(), 130);
}

/// X.2, Schedule: never and zero are slices without end; the result has what is left, before the change.
#[test]
fn result_has_the_times_that_are_left() {
    let w = World::new();
    let set = |slice, quantum| {
        let args = ScheduleArgs { time: TimeControl::new(slice, quantum), ..nothing(B.id()) };
        let reply = schedule(w, ROOT, args).expect("root may").expect("a thread was named");
        (reply.time.timeslice().length_us(), reply.time.total_quantum().length_us())
    };
    assert_eq!(set(Time::NEVER, Time::NEVER), (Some(10_000), None));
    assert_eq!(set(Time::ZERO, Time::ZERO), (None, None));
    assert_eq!(set(Time::period_us(800), Time::period_us(900)), (None, None));
    assert_eq!(set(Time::from_raw(625 | 4 << 10), Time::NEVER), (Some(800), Some(900)));
    w.make_run(B);
    w.jump(w.k.machine.now_us() + 4000);
    assert_eq!(set(Time::NEVER, Time::NEVER), (Some(6000), None));
}

/// X.2, Schedule: the result is the thread's state.
#[test]
fn result_is_the_state_of_the_thread() {
    let pages = "root send s; r accept; r wait; s send r map=0x1000000/20; b accept; b wait";
    let rows = [
        ("", B, ScheduleResult::Running),
        ("", ROOT, ScheduleResult::Running),
        ("a halt b", B, ScheduleResult::Inactive),
        ("b handler nil; b except", B, ScheduleResult::Inactive),
        ("b wait", B, ScheduleResult::Waiting),
        ("b wait; a halt b", B, ScheduleResult::Waiting),
        ("b send c 1", B, ScheduleResult::PendingSend),
        ("b pager c; b fault 0x5000", B, ScheduleResult::PendingSend),
        ("b pager c; c wait; b fault 0x5000", B, ScheduleResult::Waiting),
    ];
    for (script, who, expected) in rows {
        let w = World::new();
        play(w, script);
        assert_eq!(w.state(who), expected, "{} after `{script}`", who.name());
    }
    let w = World::new();
    w.create(N);
    assert_eq!(w.state(N), ScheduleResult::Dead);
    play(w, &format!("{pages}; r send b 1 map=0x1000000/20 ~"));
    assert_eq!((w.state(R), w.state(B)), (ScheduleResult::Sending, ScheduleResult::Receiving));
    let w = World::new();
    play(w, &format!("{pages} rcv=0; r send b 1 map=0x1000000/20; b wait ~"));
    assert_eq!((w.state(R), w.state(B)), (ScheduleResult::Sending, ScheduleResult::Receiving));
}
