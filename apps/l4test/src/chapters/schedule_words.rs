//! The parameters of Schedule and ThreadSwitch: every field's first and last values, bits without a meaning, the order of
//! checks.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::arch::schedule as raw_schedule;
use l4::schedule::{schedule, set_priority, set_timeslice, thread_switch, timeslice};
use l4::time::{sleep, sleep_forever};
use l4::{
    PreemptionControl, PrioControl, ProcessorControl, ScheduleResult, SysError, THREAD_ID_BITS, ThreadId, Time,
    TimeControl, Word, kip, thread, utcb,
};

use crate::arch;
use crate::failure::{Failure, Outcome, Within, equal};
use crate::registry::chapter;
use crate::world::control::{Control, MARK};
use crate::world::memory::at;
use crate::world::messages::{receive, send_label};
use crate::world::spaces::Space;
use crate::world::threads::{PRIORITY, Thread, plan, spawn, spawn_later, tester};

chapter! { schedule_words:
    "X.2, Schedule, identifiers" => [
        special_ids_name_nobody,
        numbers_of_nobody,
        local_ids_of_nobody,
        local_id_names_its_thread,
        interrupts_never_associated_are_nobody,
    ],
    "X.2, Schedule, priorities" => [
        lowest_and_highest_priority: ORDER,
        priorities_beyond_the_field_are_none: ORDER,
        stride_and_log_id_are_ignored: ORDER,
    ],
    "X.2, Schedule, times" => [
        every_form_of_time_as_a_slice,
        points_are_no_slice_and_no_quantum,
        all_ones_keep_the_times,
    ],
    "X.2, Schedule, processors" => [bits_above_the_processor_are_ignored],
    "X.2, Schedule, preemption" => [log_bit_is_ignored, hierarchical_bits_without_extension_are_ignored: ORDER],
    "X.2, Schedule, order of checks" => [
        dest_comes_first,
        permission_comes_before_the_values,
        refused_values_change_nothing: ORDER,
    ],
    "X.2, Schedule" => [result_is_that_before_the_change: ORDER, success_clears_error_code],
    "X.2, ThreadSwitch" => [
        special_ids_are_a_yield: ORDER,
        wild_ids_are_a_yield: ORDER,
        switch_leaves_error_code,
        switch_to_a_halted_thread_is_a_yield: ORDER,
        switch_to_an_inactive_thread_is_a_yield: ORDER,
    ],
}

const ORDER: &str = "priorities and slices order the threads of one processor";

const KEEP: (TimeControl, ProcessorControl, PrioControl, PreemptionControl) =
    (TimeControl::NO_CHANGE, ProcessorControl::NO_CHANGE, PrioControl::NO_CHANGE, PreemptionControl::NO_CHANGE);

/// A call with one word that counts.
enum One {
    Time(Word),
    Processor(Word),
    Prio(Word),
    Preemption(Word),
}

fn schedule_one(id: ThreadId, one: One) -> Result<(ScheduleResult, TimeControl), SysError> {
    let mut words = KEEP;
    match one {
        One::Time(raw) => words.0 = TimeControl::from_raw(raw),
        One::Processor(raw) => words.1 = ProcessorControl::from_raw(raw),
        One::Prio(raw) => words.2 = PrioControl::from_raw(raw),
        One::Preemption(raw) => words.3 = PreemptionControl::from_raw(raw),
    }
    schedule(id, words.0, words.1, words.2, words.3)
}

static RUNS: AtomicU64 = AtomicU64::new(0);

/// A thread that counts a run when it runs: not before its priority is above the tester's, or the tester sleeps.
#[track_caller]
fn ready(priority: u8) -> Outcome<Thread> {
    RUNS.store(0, Relaxed);
    plan().priority(priority).spawn(|| {
        RUNS.fetch_add(1, Relaxed);
        Ok(())
    })
}

#[track_caller]
fn check_runs(count: Word) -> Outcome {
    equal("runs", RUNS.load(Relaxed), count)
}

// --- identifiers ---

/// Fails unless Schedule knows nobody of this id.
#[track_caller]
fn check_nobody(id: ThreadId) -> Outcome {
    utcb().set_error_code(MARK);
    let (result, times) = raw_schedule(id, KEEP.0, KEEP.1, PrioControl::new(5), KEEP.3);
    equal("the results", (result, times.raw()), (0, 0))?;
    equal("ErrorCode", utcb().error_code(), SysError::InvalidThread.raw().into())
}

fn special_ids_name_nobody() -> Outcome {
    for id in [ThreadId::ANY, ThreadId::ANY_LOCAL] {
        check_nobody(id).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn numbers_of_nobody() -> Outcome {
    let (info, me) = (kip::kip().thread_info, tester().id());
    let rows = [
        ThreadId::global(info.system_base(), 1),
        ThreadId::global(info.user_base() - 1, 1),
        ThreadId::global(info.user_base(), 2),
        ThreadId::global(me.thread_no(), me.version() + 1),
        ThreadId::global(me.thread_no() | 1 << THREAD_ID_BITS, me.version()),
        ThreadId::global(ThreadId::THREAD_NO_MAX, 1),
        Thread::reserve()?.id(),
    ];
    rows.into_iter().try_for_each(|id| check_nobody(id).within(format_args!("{id:?}")))
}

/// Local ids that belong to no thread.
#[track_caller]
fn wild_local_ids() -> Outcome<[ThreadId; 8]> {
    let own = tester().local_id().raw();
    let nobody = Thread::reserve()?.local_id().raw();
    let rows = [64, own + 64, own - 64, nobody, at(0x200), (1 << 47) - 64, arch::NON_CANONICAL, arch::KERNEL_ADDRESS];
    Ok(rows.map(ThreadId::local))
}

fn local_ids_of_nobody() -> Outcome {
    wild_local_ids()?.into_iter().try_for_each(|id| check_nobody(id).within(format_args!("{id:?}")))
}

fn local_id_names_its_thread() -> Outcome {
    let thread = ready(90)?;
    set_priority(thread.local_id(), PRIORITY + 1)?;
    check_runs(1)?;
    // In another space it names another thread, or nobody.
    let space = Space::create()?;
    let theirs = plan().space(space).spawn(|| sleep_forever())?;
    check_nobody(theirs.local_id())
}

fn interrupts_never_associated_are_nobody() -> Outcome {
    let last = kip::kip().thread_info.system_base() - 1;
    for id in [ThreadId::interrupt(1), ThreadId::interrupt(3), ThreadId::interrupt(9), ThreadId::interrupt(last)] {
        check_nobody(id).within(format_args!("{id:?}"))?;
    }
    check_nobody(ThreadId::global(3, 2))
}

// --- priorities ---

fn lowest_and_highest_priority() -> Outcome {
    let lowest = ready(90)?;
    schedule_one(lowest.id(), One::Prio(0))?;
    check_runs(0)?;
    schedule_one(lowest.id(), One::Prio(255))?;
    check_runs(1)?;
    // The lowest runs if nobody else wants to.
    let other = ready(0)?;
    sleep(Time::period_us(2_000));
    check_runs(1)?;
    other.join()
}

fn priorities_beyond_the_field_are_none() -> Outcome {
    let thread = ready(90)?;
    for raw in [256, 257, 0x180, 300, 510, 511] {
        schedule_one(thread.id(), One::Prio(raw)).map_err(Failure::from).within(raw)?;
        check_runs(0).within(raw)?;
    }
    sleep(Time::period_us(2_000));
    check_runs(1)
}

fn stride_and_log_id_are_ignored() -> Outcome {
    for upper in [1 << 9, 0x7F << 9, 1 << 16, 0xFFFF << 16, 1 << 32, Word::MAX << 9] {
        // All ones keep everything.
        let raw = upper | Word::from(PRIORITY + 5);
        let thread = ready(90)?;
        schedule_one(thread.id(), One::Prio(raw)).map_err(Failure::from).within(format_args!("{raw:#x}"))?;
        check_runs(1).within(format_args!("{raw:#x}"))?;
    }
    Ok(())
}

// --- times ---

/// The words of both times.
fn times(slice: Time, quantum: Time) -> Word {
    TimeControl::new(slice, quantum).raw()
}

fn every_form_of_time_as_a_slice() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    let rows = [
        (Time::NEVER, None),
        (Time::period_us(1), Some(1)),
        (Time::period_us(1_000), Some(1_000)),
        (Time::period_us(1 << 20), Some(1 << 20)),
        (Time::from_raw(0x7FFF), Time::from_raw(0x7FFF).length_us()),
    ];
    for (slice, expected) in rows {
        schedule_one(thread.id(), One::Time(times(slice, Time::NEVER)))?;
        let left = timeslice(thread.id())?;
        equal("the rest of the slice", left.timeslice().length_us(), expected).within(format_args!("{slice:?}"))?;
        equal("the rest of the quantum", left.total_quantum(), Time::NEVER)?;
    }
    Ok(())
}

fn points_are_no_slice_and_no_quantum() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    set_timeslice(thread.id(), Time::period_us(4_000), Time::NEVER)?;
    for point in [0x8000, 0x8001, 0xBC00, 0xFFFE, 0xFFFF].map(Time::from_raw) {
        for raw in [times(point, Time::NEVER), times(Time::NEVER, point), times(point, point)] {
            let result = schedule_one(thread.id(), One::Time(raw)).map(drop);
            equal("the call", result, Err(SysError::InvalidParameter)).within(format_args!("{raw:#x}"))?;
        }
    }
    equal("the slice", timeslice(thread.id())?.timeslice().length_us(), Some(4_000))
}

fn all_ones_keep_the_times() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    set_timeslice(thread.id(), Time::period_us(4_000), Time::period_us(1 << 20))?;
    for _ in 0..3 {
        let (_, old) = schedule_one(thread.id(), One::Time(Word::MAX))?;
        equal("the slice", old.timeslice().length_us(), Some(4_000))?;
        equal("the quantum", old.total_quantum().length_us(), Some(1 << 20))?;
    }
    Ok(())
}

// --- processors, preemption ---

fn bits_above_the_processor_are_ignored() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    let own = utcb().processor_no();
    for upper in [1 << 16, 1 << 31, 1 << 63, Word::MAX << 16] {
        let result = schedule_one(thread.id(), One::Processor(upper | own)).map(drop);
        equal("the own processor", result, Ok(())).within(format_args!("{upper:#x}"))?;
        let result = schedule_one(thread.id(), One::Processor(upper | 0xFFFE)).map(drop);
        equal("another", result, Err(SysError::InvalidParameter)).within(format_args!("{upper:#x}"))?;
    }
    Ok(())
}

fn log_bit_is_ignored() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    schedule_one(thread.id(), One::Preemption(1 << 24 | 120 << 16 | 100))?;
    schedule_one(thread.id(), One::Preemption(120 << 16))?;
    equal("its state", thread.state()?, ScheduleResult::Waiting)
}

fn hierarchical_bits_without_extension_are_ignored() -> Outcome {
    let thread = ready(90)?;
    for control in [1, 2, 4, 8, 16, 63] {
        schedule_one(thread.id(), One::Preemption(control << 26 | 100 << 16)).map_err(Failure::from).within(control)?;
    }
    check_runs(0)?;
    thread.join()?;
    check_runs(1)
}

// --- order of checks ---

/// Everything wrong that can be: priority, times, processor, delay.
fn everything(id: ThreadId) -> Result<(), SysError> {
    let point = Time::from_raw(0x8001);
    let preemption = PreemptionControl::from_raw(1 << 26 | 1 << 25 | 255 << 16);
    schedule(id, TimeControl::new(point, point), ProcessorControl::new(0xFFFE), PrioControl::new(255), preemption)
        .map(drop)
}

fn dest_comes_first() -> Outcome {
    let nobody = Thread::reserve()?.id();
    equal("the root task", everything(nobody), Err(SysError::InvalidThread))?;
    let stranger = plan()
        .space(Space::create()?)
        .spawn(move || equal("a stranger", everything(nobody), Err(SysError::InvalidThread)))?;
    stranger.join()
}

fn permission_comes_before_the_values() -> Outcome {
    let target = spawn(|| sleep_forever())?.id();
    equal("the root task", everything(target), Err(SysError::InvalidParameter))?;
    let stranger = plan()
        .space(Space::create()?)
        .spawn(move || equal("a stranger", everything(target), Err(SysError::NoPrivilege)))?;
    stranger.join()?;
    // So does the limit of a scheduler that is not privileged.
    let scheduler = plan().space(Space::create()?).spawn(move || {
        receive(tester().id())?;
        let time = TimeControl::new(Time::from_raw(0x8001), Time::NEVER);
        let prio = PrioControl::new(255);
        let result = schedule(target, time, ProcessorControl::new(0xFFFE), prio, KEEP.3).map(drop);
        equal("too high a priority", result, Err(SysError::NoPrivilege))?;
        let result = schedule(target, time, KEEP.1, PrioControl::new(1), KEEP.3).map(drop);
        equal("a point", result, Err(SysError::InvalidParameter))
    })?;
    Control::modify(target).scheduler(scheduler.id()).call()?;
    send_label(scheduler.id(), 0)?;
    scheduler.join()
}

fn refused_values_change_nothing() -> Outcome {
    let thread = ready(90)?;
    set_timeslice(thread.id(), Time::period_us(4_000), Time::NEVER)?;
    let (prio, point) = (PrioControl::new(PRIORITY + 1), Time::from_raw(0x8001));
    let good = TimeControl::new(Time::period_us(2_000), Time::NEVER);
    let refused = Err(SysError::InvalidParameter);
    let bad_time = schedule(thread.id(), TimeControl::new(point, Time::NEVER), KEEP.1, prio, KEEP.3).map(drop);
    equal("a point", bad_time, refused)?;
    let bad_quantum = schedule(thread.id(), TimeControl::new(Time::NEVER, point), KEEP.1, prio, KEEP.3).map(drop);
    equal("a point as a quantum", bad_quantum, refused)?;
    let bad_processor = schedule(thread.id(), good, ProcessorControl::new(0xFFFE), prio, KEEP.3).map(drop);
    equal("an absent processor", bad_processor, refused)?;
    check_runs(0)?;
    equal("the slice", timeslice(thread.id())?.timeslice().length_us(), Some(4_000))?;
    thread.join()
}

// --- results ---

fn result_is_that_before_the_change() -> Outcome {
    let thread = spawn_later(|| Ok(()))?;
    // It runs to its end before the call returns.
    let (state, times) = schedule(
        thread.id(),
        TimeControl::new(Time::period_us(2_000), Time::NEVER),
        KEEP.1,
        PrioControl::new(200),
        KEEP.3,
    )?;
    equal("the state", state, ScheduleResult::Running)?;
    equal("the slice", times.timeslice().length_us(), Some(10_000))?;
    equal("the state now", thread.state()?, ScheduleResult::Waiting)
}

fn success_clears_error_code() -> Outcome {
    utcb().set_error_code(MARK);
    set_priority(tester().id(), PRIORITY)?;
    equal("ErrorCode", utcb().error_code(), 0)
}

// --- ThreadSwitch ---

/// Fails unless a switch to `id` lets the next thread of the same priority run.
#[track_caller]
fn check_yield(id: ThreadId) -> Outcome {
    ready(PRIORITY)?;
    check_runs(0)?;
    thread_switch(id);
    check_runs(1)?;
    give_one_back();
    Ok(())
}

/// The last thread made has ended its body, and is forgotten.
fn give_one_back() {
    let last = crate::world::threads::living().last();
    if let Some(last) = last {
        // There is no error that matters.
        let _ = thread::delete(last.id());
        crate::world::threads::give_back(1);
    }
}

fn special_ids_are_a_yield() -> Outcome {
    for id in [ThreadId::NIL, ThreadId::ANY, ThreadId::ANY_LOCAL] {
        check_yield(id).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn wild_ids_are_a_yield() -> Outcome {
    let (info, me) = (kip::kip().thread_info, tester().id());
    let numbers = [
        ThreadId::interrupt(3),
        ThreadId::global(info.system_base(), 1),
        ThreadId::global(info.user_base() - 1, 1),
        ThreadId::global(me.thread_no(), me.version() + 1),
        ThreadId::global(me.thread_no() | 1 << THREAD_ID_BITS, me.version()),
        ThreadId::global(ThreadId::THREAD_NO_MAX, 1),
    ];
    let all = numbers.into_iter().chain(wild_local_ids()?);
    all.into_iter().try_for_each(|id| check_yield(id).within(format_args!("{id:?}")))
}

fn switch_leaves_error_code() -> Outcome {
    utcb().set_error_code(MARK);
    for id in [ThreadId::NIL, ThreadId::ANY, Thread::reserve()?.id(), tester().id(), tester().local_id()] {
        thread_switch(id);
        equal("ErrorCode", utcb().error_code(), MARK).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn switch_to_a_halted_thread_is_a_yield() -> Outcome {
    let halted = spawn_later(|| Ok(()))?;
    thread::stop(halted.id())?;
    check_yield(halted.id())?;
    equal("its state", halted.state()?, ScheduleResult::Inactive)?;
    thread::resume(halted.id())?;
    halted.join()
}

fn switch_to_an_inactive_thread_is_a_yield() -> Outcome {
    let inactive = Thread::reserve()?;
    Control::create(inactive.id()).call()?;
    check_yield(inactive.id())?;
    equal("its state", inactive.state()?, ScheduleResult::Dead)
}
