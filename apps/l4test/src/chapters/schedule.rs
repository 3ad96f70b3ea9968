//! Who runs: priorities, time slices, ThreadSwitch, Schedule.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::protocol::preemption_tag;
use l4::schedule::{
    begin_preemption_delay, enable_preemption_faults, end_preemption_delay, is_preemption_pending, schedule,
    set_preemption_delay, set_priority, set_processor_no, set_timeslice, thread_switch, timeslice, yield_now,
};
use l4::time::{sleep, system_clock_us};
use l4::{
    PreemptionControl, PrioControl, ProcessorControl, ScheduleResult, SysError, ThreadId, Time, TimeControl, Word, utcb,
};

use crate::failure::{Failure, Outcome, Within, check, equal, within_range};
use crate::registry::chapter;
use crate::world::messages::{call_label, equal_tags, load_words, receive, send_label, word};
use crate::world::spaces::Space;
use crate::world::threads::{
    self, PATIENCE, PRIORITY, Thread, plan, spawn, spawn_later, spin_forever, supervisor, tester,
};

chapter! { schedule:
    "X.2, Schedule" => [
        result_is_the_state,
        schedule_errors,
        schedule_is_for_schedulers,
        nilthread_is_no_error,
        no_change_changes_nothing: ORDER,
        hierarchical_extension_is_refused: ORDER,
        times_are_told,
    ],
    "X.2, Scheduling, priorities" => [
        highest_priority_runs_first: ORDER,
        equal_priorities_run_in_turn_of_getting_ready: ORDER,
        raised_thread_preempts: ORDER,
        lowered_thread_gives_way: ORDER,
        message_to_a_higher_thread_preempts: ORDER,
        message_to_a_lower_thread_does_not: ORDER,
        timeout_of_a_higher_thread_preempts: ORDER,
        call_runs_the_partner_at_any_priority: ORDER,
    ],
    "X.2, Scheduling, time slices" => [
        spinning_threads_share_the_processor: ORDER,
        time_slice_can_be_without_end: ORDER,
        lower_priority_starves: ORDER,
    ],
    "X.2, Scheduling, total quantum" => [
        answer_or_schedule_gives_another_quantum: ORDER,
        quantum_ends_on_donated_time: ORDER,
    ],
    "X.2, Scheduling, delayed preemption" => [
        preemption_can_be_delayed: ORDER,
        sensitive_priority_is_above_delays: ORDER,
        delay_ends_with_its_budget: ORDER,
        end_of_slice_is_pending: ORDER,
    ],
    "X.2, Preemption protocol" => [
        quantum_end_is_told_to_the_scheduler: ORDER,
        quantum_end_leaves_the_registers: ORDER,
        quantum_end_without_scheduler_halts: ORDER,
        own_scheduler_stops_nobody_else: ORDER,
        exhausted_budget_is_a_fault: ORDER,
        preemption_fault_without_handler_halts: ORDER,
    ],
    "X.2, ThreadSwitch" => [
        switch_runs_a_lower_thread: ORDER,
        yield_runs_equals: ORDER,
        yield_does_not_run_lower_threads: ORDER,
        switch_to_nobody_is_a_yield: ORDER,
        switch_to_oneself_returns: ORDER,
    ],
}

const ORDER: &str = "priorities and slices order the threads of one processor";

/// Digits of the threads that have run, in their order.
static LOG: AtomicU64 = AtomicU64::new(0);

fn note(digit: Word) {
    LOG.store(LOG.load(Relaxed) * 10 + digit, Relaxed);
}

/// Makes a thread that notes a digit as soon as it runs.
#[track_caller]
fn noting(priority: u8, digit: Word) -> Outcome<Thread> {
    plan().priority(priority).spawn(move || {
        note(digit);
        Ok(())
    })
}

#[track_caller]
fn check_log(expected: Word) -> Outcome {
    equal("the order", LOG.load(Relaxed), expected)
}

fn begin_log() {
    LOG.store(0, Relaxed);
}

/// Lets all others run until nobody is ready. If somebody always is, the supervisor loses patience.
fn let_others_run() {
    let is_ready = |thread: Thread| thread.state().is_ok_and(|state| state == ScheduleResult::Running);
    loop {
        sleep(Time::period_us(3_000));
        if !threads::living().any(|thread| thread != tester() && is_ready(thread)) {
            return;
        }
    }
}

// --- Schedule ---

fn result_is_the_state() -> Outcome {
    let inactive = Thread::reserve()?;
    l4::thread::thread_control(inactive.id(), supervisor(), supervisor(), ThreadId::NIL, None)?;
    let sender = spawn(|| send_label(tester().id(), 1).map(drop).map_err(Failure::from))?;
    let receiver = spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))?;
    let ready = spawn_later(spin_forever)?;
    let halted = spawn_later(spin_forever)?;
    l4::thread::stop(halted.id())?;
    let rows = [
        ("inactive", inactive, ScheduleResult::Dead),
        ("sender", sender, ScheduleResult::PendingSend),
        ("receiver", receiver, ScheduleResult::Waiting),
        ("ready", ready, ScheduleResult::Running),
        ("halted", halted, ScheduleResult::Inactive),
        ("caller", tester(), ScheduleResult::Running),
    ];
    rows.into_iter().try_for_each(|(what, thread, state)| equal(what, thread.state()?, state))
}

const KEEP: (TimeControl, ProcessorControl, PrioControl, PreemptionControl) =
    (TimeControl::NO_CHANGE, ProcessorControl::NO_CHANGE, PrioControl::NO_CHANGE, PreemptionControl::NO_CHANGE);

fn schedule_errors() -> Outcome {
    let thread = spawn(|| Ok(()))?;
    let nobody = Thread::reserve()?.id();
    let stale = ThreadId::global(thread.id().thread_no(), thread.id().version() + 1);
    for id in [nobody, stale, ThreadId::interrupt(3)] {
        let result = set_priority(id, 10);
        equal("nobody", result, Err(SysError::InvalidThread)).within(format_args!("{id:?}"))?;
    }
    let point = Time::from_raw(0x8001);
    for time in [TimeControl::new(point, Time::NEVER), TimeControl::new(Time::NEVER, point)] {
        let error = schedule(thread.id(), time, KEEP.1, KEEP.2, KEEP.3).map(drop);
        check(
            matches!(error, Err(SysError::InvalidParameter | SysError::InvalidThread)),
            format_args!("a point as a time slice: {error:?}"),
        )?;
    }
    let processors = l4::kip::num_processors() as u16;
    for processor in [processors, 0xFFFE] {
        let result = set_processor_no(thread.id(), processor);
        equal("a processor that is not there", result, Err(SysError::InvalidParameter))?;
    }
    thread.join()
}

fn schedule_is_for_schedulers() -> Outcome {
    let space = Space::create()?;
    let member = plan().space(space).spawn(|| l4::time::sleep_forever())?;
    // The scheduler of the member is the supervisor; a thread of the member's own space has no say.
    let stranger = plan()
        .space(space)
        .spawn(move || equal("a stranger", set_priority(member.id(), 5), Err(SysError::NoPrivilege)))?;
    stranger.join()?;
    // Now it is a thread of that space, which may go up to its own priority.
    let scheduler = Thread::reserve()?;
    let id = scheduler.id();
    l4::thread::thread_control(member.id(), member.id(), id, ThreadId::NIL, None)?;
    l4::thread::thread_control(id, space.specifier(), supervisor(), ThreadId::NIL, None)?;
    let colleague = plan().space(space).priority(120).spawn(move || {
        set_priority(member.id(), 120)?;
        equal("a priority above the caller's", set_priority(member.id(), 121), Err(SysError::NoPrivilege))?;
        equal("a sensitive priority above it", set_preemption_delay(member.id(), 121, 0), Err(SysError::NoPrivilege))
    })?;
    colleague.join()
}

fn nilthread_is_no_error() -> Outcome {
    utcb().set_error_code(99);
    let (result, _) = l4::arch::schedule(ThreadId::NIL, KEEP.0, KEEP.1, KEEP.2, KEEP.3);
    equal("the result", result, 0)?;
    equal("ErrorCode", utcb().error_code(), 0)
}

fn no_change_changes_nothing() -> Outcome {
    begin_log();
    let thread = noting(90, 1)?;
    // All ones in the priority field, with other fields set: stride and log id of other schedulers.
    for raw in [Word::MAX, 0x1FF, 7 << 16 | 0xFFFF, 3 << 9 | 0x1FF, 300] {
        schedule(thread.id(), KEEP.0, KEEP.1, PrioControl::from_raw(raw), KEEP.3)?;
        check_log(0).within(format_args!("{raw:#x}"))?;
    }
    let_others_run();
    check_log(1)
}

fn hierarchical_extension_is_refused() -> Outcome {
    begin_log();
    let thread = noting(90, 1)?;
    let raw_time = TimeControl::from_raw(tester().id().raw());
    for control in [1, 2, 4, 8, 16] {
        let preemption = PreemptionControl::from_raw(control << 26 | 1 << 25);
        let prio = PrioControl::from_raw(1 << 16 | 200);
        let result = schedule(thread.id(), raw_time, KEEP.1, prio, preemption).map(drop);
        equal("the call", result, Err(SysError::InvalidParameter)).within(control)?;
    }
    // It did not get a priority of 200, nor a quantum that is none.
    check_log(0)?;
    thread.join()?;
    check_log(1)
}

fn times_are_told() -> Outcome {
    // One that has blocked, and uses up nothing of it.
    let thread = spawn(|| Ok(()))?;
    set_timeslice(thread.id(), Time::period_us(4_000), Time::NEVER)?;
    let left = timeslice(thread.id())?;
    equal("the rest of the slice", left.timeslice().length_us(), Some(4_000))?;
    equal("the rest of the quantum", left.total_quantum(), Time::NEVER)?;
    set_timeslice(thread.id(), Time::NEVER, Time::period_us(1_000_000))?;
    let left = timeslice(thread.id())?;
    equal("a slice without end", left.timeslice(), Time::NEVER)?;
    within_range("the rest of the quantum", left.total_quantum().length_us().unwrap_or(0), 900_000..=1_001_000)
}

// --- priorities ---

fn highest_priority_runs_first() -> Outcome {
    begin_log();
    for (priority, digit) in [(10, 4), (30, 2), (20, 3), (90, 1), (0, 5)] {
        noting(priority, digit)?;
    }
    check_log(0)?;
    let_others_run();
    check_log(12345)
}

fn equal_priorities_run_in_turn_of_getting_ready() -> Outcome {
    begin_log();
    (1..=6).try_for_each(|digit| noting(50, digit).map(drop))?;
    let_others_run();
    check_log(123_456)
}

fn raised_thread_preempts() -> Outcome {
    begin_log();
    let thread = noting(90, 1)?;
    check_log(0)?;
    set_priority(thread.id(), PRIORITY + 1)?;
    check_log(1)
}

fn lowered_thread_gives_way() -> Outcome {
    begin_log();
    noting(90, 1)?;
    set_priority(tester().id(), 80)?;
    check_log(1)?;
    noting(90, 2)?;
    check_log(12)?;
    set_priority(tester().id(), PRIORITY)?;
    noting(90, 3)?;
    check_log(12)
}

/// Makes a thread that notes a digit after a message.
#[track_caller]
fn noting_messages(priority: u8, digit: Word) -> Outcome<Thread> {
    let thread = plan().spawn(move || {
        receive(tester().id())?;
        note(digit);
        Ok(())
    })?;
    set_priority(thread.id(), priority)?;
    Ok(thread)
}

fn message_to_a_higher_thread_preempts() -> Outcome {
    begin_log();
    let thread = noting_messages(PRIORITY + 1, 1)?;
    send_label(thread.id(), 0)?;
    check_log(1)
}

fn message_to_a_lower_thread_does_not() -> Outcome {
    begin_log();
    let (lower, equal) = (noting_messages(PRIORITY - 1, 1)?, noting_messages(PRIORITY, 2)?);
    send_label(lower.id(), 0)?;
    send_label(equal.id(), 0)?;
    check_log(0)?;
    let_others_run();
    check_log(21)
}

fn timeout_of_a_higher_thread_preempts() -> Outcome {
    begin_log();
    let start = system_clock_us();
    spawn(|| {
        sleep(Time::period_us(5_000));
        note(1);
        Ok(())
    })?;
    while LOG.load(Relaxed) == 0 {
        check(system_clock_us() - start < 3_000_000, "a spinning thread is not preempted")?;
    }
    check(system_clock_us() - start >= 5_000, "the timeout came early")
}

fn call_runs_the_partner_at_any_priority() -> Outcome {
    begin_log();
    // A thread between the two is ready, but the partner runs on the caller's time.
    let partner = plan().spawn(|| {
        loop {
            receive(tester().id())?;
            note(1);
            l4::ipc::reply(tester().id())?;
        }
    })?;
    set_priority(partner.id(), 20)?;
    let between = noting(50, 2)?;
    call_label(partner.id(), 0)?;
    check_log(1)?;
    between.join()?;
    check_log(12)
}

// --- time slices ---

static COUNTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

fn spin(i: usize) -> ! {
    loop {
        COUNTS[i].fetch_add(1, Relaxed);
    }
}

fn counts() -> [Word; 3] {
    [0, 1, 2].map(|i: usize| COUNTS[i].load(Relaxed))
}

/// Sleeps until something has happened that takes little time, for a second at most.
#[track_caller]
fn wait_until(happened: impl Fn() -> bool) -> Outcome {
    let slept = (0..100).take_while(|_| !happened()).map(|_| sleep(Time::period_us(10_000))).count();
    check(slept < 100, "nothing happens")
}

fn spinning_threads_share_the_processor() -> Outcome {
    COUNTS.iter().for_each(|count| count.store(0, Relaxed));
    for i in 0..3 {
        let thread = plan().priority(50).spawn(move || spin(i))?;
        set_timeslice(thread.id(), Time::period_us(2_000), Time::NEVER)?;
    }
    // Ten turns of each, and more on a host that stops the emulator for some of them.
    for _ in 0..20 {
        sleep(Time::period_us(60_000));
        let counts = counts();
        if counts.iter().all(|&count| count > 0 && counts.iter().all(|&other| other / 4 <= count)) {
            return Ok(());
        }
    }
    Err(Failure::new(format_args!("they count {:?}", counts())))
}

fn time_slice_can_be_without_end() -> Outcome {
    COUNTS.iter().for_each(|count| count.store(0, Relaxed));
    for i in 0..2 {
        let thread = plan().priority(50).spawn(move || spin(i))?;
        set_timeslice(thread.id(), Time::NEVER, Time::NEVER)?;
    }
    // The first keeps the processor over the wake-ups of the tester, too.
    wait_until(|| COUNTS[0].load(Relaxed) > 0)?;
    sleep(Time::period_us(40_000));
    equal("what the second counts", COUNTS[1].load(Relaxed), 0)
}

fn lower_priority_starves() -> Outcome {
    COUNTS.iter().for_each(|count| count.store(0, Relaxed));
    plan().priority(40).spawn(|| spin(0))?;
    plan().priority(50).spawn(|| spin(1))?;
    wait_until(|| COUNTS[1].load(Relaxed) > 0)?;
    sleep(Time::period_us(40_000));
    equal("what the lower one counts", COUNTS[0].load(Relaxed), 0)
}

// --- total quanta ---

/// A thread of low priority that counts, with the tester as scheduler and this quantum.
#[track_caller]
fn counting(quantum: Time) -> Outcome<Thread> {
    COUNTS.iter().for_each(|count| count.store(0, Relaxed));
    let thread = plan().priority(50).spawn(|| spin(0))?;
    set_scheduler(thread, tester().id())?;
    set_timeslice(thread.id(), Time::period_us(1_000), quantum)?;
    Ok(thread)
}

#[track_caller]
fn set_scheduler(thread: Thread, scheduler: ThreadId) -> Outcome {
    Ok(l4::thread::thread_control(thread.id(), thread.id(), scheduler, ThreadId::NIL, None)?)
}

/// Receives a preemption message; the clock in it.
#[track_caller]
fn receive_preemption(from: Thread) -> Outcome<Word> {
    let message = receive(from.id())?;
    equal_tags("the tag", message.tag, preemption_tag())?;
    let clock_us = utcb().mr(1);
    equal("the clock's high word", utcb().mr(2), 0)?;
    check(clock_us <= system_clock_us(), format_args!("{clock_us} is in the future"))?;
    Ok(clock_us)
}

/// Whether nothing is counted any more.
#[track_caller]
fn check_silence() -> Outcome {
    let before = counts();
    sleep(Time::period_us(5_000));
    equal("what it counts", counts(), before)
}

fn quantum_end_is_told_to_the_scheduler() -> Outcome {
    let begun = system_clock_us();
    let thread = counting(Time::period_us(4_000))?;
    let told = receive_preemption(thread)?;
    check(told >= begun + 4_000, format_args!("{} us are not the quantum", told - begun))?;
    check(COUNTS[0].load(Relaxed) > 0, "it has not run")?;
    equal("its state", thread.state()?, ScheduleResult::Waiting)?;
    equal("what is left", timeslice(thread.id())?.total_quantum(), Time::ZERO)?;
    check_silence()
}

fn answer_or_schedule_gives_another_quantum() -> Outcome {
    let thread = counting(Time::period_us(2_000))?;
    let mut last = receive_preemption(thread)?;
    for _ in 0..3 {
        send_label(thread.id(), 0)?;
        let told = receive_preemption(thread)?;
        check(told >= last + 2_000, format_args!("the next quantum lasts {} us", told - last))?;
        last = told;
    }
    set_timeslice(thread.id(), Time::period_us(1_000), Time::period_us(8_000))?;
    check_silence()?;
    send_label(thread.id(), 0)?;
    let told = receive_preemption(thread)?;
    check(told >= last + 8_000, format_args!("the longer quantum lasts {} us", told - last))?;
    set_timeslice(thread.id(), Time::period_us(1_000), Time::NEVER)?;
    let before = COUNTS[0].load(Relaxed);
    send_label(thread.id(), 0)?;
    wait_until(|| COUNTS[0].load(Relaxed) > before)?;
    equal("its state", thread.state()?, ScheduleResult::Running)
}

fn quantum_end_leaves_the_registers() -> Outcome {
    static IS_OVER: AtomicU64 = AtomicU64::new(0);
    IS_OVER.store(0, Relaxed);
    let thread = plan().priority(50).spawn(|| {
        (0..64).for_each(|i| utcb().set_mr(i, word(0, i)));
        utcb().set_error_code(0x66);
        utcb().set_br(0, 0x70);
        while IS_OVER.load(Relaxed) == 0 {
            core::hint::spin_loop();
        }
        let found = [0, 1, 2, 3, 31, 63].map(|i| utcb().mr(i));
        equal("message registers", found, [0, 1, 2, 3, 31, 63].map(|i| word(0, i)))?;
        let all = (0..64).all(|i| utcb().mr(i) == word(0, i));
        check(all, "some message register changed")?;
        equal("other registers", (utcb().error_code(), utcb().br(0)), (0x66, 0x70))
    })?;
    set_scheduler(thread, tester().id())?;
    set_timeslice(thread.id(), Time::period_us(1_000), Time::period_us(2_000))?;
    for count in [0, 3, 63] {
        receive_preemption(thread)?;
        load_words(count as Word, count);
        l4::ipc::send_timeout(thread.id(), PATIENCE)?;
    }
    receive_preemption(thread)?;
    IS_OVER.store(1, Relaxed);
    set_timeslice(thread.id(), Time::period_us(1_000), Time::NEVER)?;
    send_label(thread.id(), 0)?;
    thread.join()
}

fn quantum_ends_on_donated_time() -> Outcome {
    static REPLIED_AT: AtomicU64 = AtomicU64::new(0);
    let server = plan().spawn(|| {
        let call = l4::ipc::wait()?;
        let begun = system_clock_us();
        while system_clock_us() < begun + 10_000 {}
        REPLIED_AT.store(system_clock_us(), Relaxed);
        utcb().set_tag(l4::MsgTag::new(7, 0, 0));
        l4::ipc::reply(call.from)?;
        Ok(())
    })?;
    let client = plan().priority(50).spawn(move || {
        let answer = call_label(server.id(), 1)?;
        equal("the answer", answer.tag.label(), 7)
    })?;
    set_scheduler(client, tester().id())?;
    // A slice that ends would end the donation.
    set_timeslice(client.id(), Time::NEVER, Time::period_us(2_000))?;
    let told = receive_preemption(client)?;
    check(told >= REPLIED_AT.load(Relaxed), "it tells while it is in its call")?;
    set_timeslice(client.id(), Time::NEVER, Time::NEVER)?;
    send_label(client.id(), 0)?;
    client.join()?;
    server.join()
}

fn quantum_end_without_scheduler_halts() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let thread = counting(Time::NEVER)?;
    set_scheduler(thread, nobody)?;
    set_timeslice(thread.id(), Time::period_us(1_000), Time::period_us(2_000))?;
    wait_until(|| thread.state().is_ok_and(|state| state == ScheduleResult::Inactive))?;
    check_silence()?;
    set_timeslice(thread.id(), Time::period_us(1_000), Time::NEVER)?;
    let before = COUNTS[0].load(Relaxed);
    l4::thread::resume(thread.id())?;
    wait_until(|| COUNTS[0].load(Relaxed) > before)
}

fn own_scheduler_stops_nobody_else() -> Outcome {
    let thread = counting(Time::NEVER)?;
    set_scheduler(thread, thread.id())?;
    set_timeslice(thread.id(), Time::period_us(1_000), Time::period_us(2_000))?;
    wait_until(|| thread.state().is_ok_and(|state| state == ScheduleResult::PendingSend))?;
    check_silence()?;
    thread.delete()
}

// --- delayed preemption ---

/// A machine that stops the emulator for longer than this says nothing about a delay.
const LONGEST_DELAY_US: u16 = 60_000;

/// Makes a thread of priority 50 with this sensitive priority that runs `body` with its preemption delayed, and one of
/// priority `other` that notes 1 after a while.
#[track_caller]
fn delaying<F: Fn() -> Outcome + Copy + Send + 'static>(
    sensitive_priority: u8,
    max_delay_us: u16,
    other: u8,
    body: F,
) -> Outcome<Thread> {
    begin_log();
    let thread = plan().priority(50).spawn(move || {
        begin_preemption_delay();
        body()
    })?;
    set_preemption_delay(thread.id(), sensitive_priority, max_delay_us)?;
    set_timeslice(thread.id(), Time::NEVER, Time::NEVER)?;
    let waker = plan().spawn(|| {
        sleep(Time::period_us(5_000));
        note(1);
        Ok(())
    })?;
    set_priority(waker.id(), other)?;
    Ok(thread)
}

/// Spins until something has happened, for three seconds at most.
#[track_caller]
fn spin_until(happened: impl Fn() -> bool) -> Outcome {
    let begun = system_clock_us();
    while !happened() {
        check(system_clock_us() - begun < 3_000_000, "nothing happens")?;
    }
    Ok(())
}

fn preemption_can_be_delayed() -> Outcome {
    let thread = delaying(70, LONGEST_DELAY_US, 60, || {
        let mut last = system_clock_us();
        let begun = last;
        let (is_pending, log, us) = loop {
            let is_pending = is_preemption_pending();
            let log = LOG.load(Relaxed);
            let now = system_clock_us();
            if is_pending || log != 0 {
                break (is_pending, log, now - last);
            }
            check(now - begun < 3_000_000, "nobody wakes up")?;
            last = now;
        };
        // A busy host may have used up the delay by itself.
        if us < u64::from(LONGEST_DELAY_US) / 2 {
            equal("who has run", log, 0)?;
            check(is_pending, "no preemption is pending")?;
        }
        end_preemption_delay();
        check_log(1)?;
        check(!is_preemption_pending(), "it is pending still")
    })?;
    thread.join()
}

fn sensitive_priority_is_above_delays() -> Outcome {
    let thread = delaying(70, LONGEST_DELAY_US, 71, || {
        spin_until(|| LOG.load(Relaxed) == 1)?;
        check(!is_preemption_pending(), "a preemption is pending")
    })?;
    thread.join()
}

fn delay_ends_with_its_budget() -> Outcome {
    let thread = delaying(70, 2_000, 70, || {
        spin_until(|| LOG.load(Relaxed) == 1)?;
        check(is_preemption_pending(), "nothing was pending")
    })?;
    thread.join()
}

fn end_of_slice_is_pending() -> Outcome {
    let thread = plan().priority(50).spawn(|| {
        begin_preemption_delay();
        spin_until(is_preemption_pending)?;
        end_preemption_delay();
        check(!is_preemption_pending(), "it is pending still")
    })?;
    set_preemption_delay(thread.id(), 50, 10_000)?;
    set_timeslice(thread.id(), Time::period_us(1_000), Time::NEVER)?;
    thread.join()
}

fn exhausted_budget_is_a_fault() -> Outcome {
    for max_delay_us in [0, 1_000] {
        COUNTS.iter().for_each(|count| count.store(0, Relaxed));
        let begun = system_clock_us();
        let thread = plan().priority(50).exception_handler(tester().id()).spawn(|| {
            begin_preemption_delay();
            enable_preemption_faults();
            spin(0)
        })?;
        set_preemption_delay(thread.id(), 50, max_delay_us)?;
        set_timeslice(thread.id(), Time::period_us(3_000), Time::NEVER)?;
        let told = receive_preemption(thread)?;
        let expected = begun + 3_000 + u64::from(max_delay_us);
        check(told >= expected, format_args!("after {} us it is too early", told - begun))?;
        check_silence()?;
        let before = COUNTS[0].load(Relaxed);
        // No switch has filled the budget: the next slice is not drawn out. A host that is busy may take some of them for
        // itself.
        wait_until(|| {
            let next = send_label(thread.id(), 0).map_err(Failure::from).and_then(|_| receive_preemption(thread));
            next.is_ok_and(|next| next > told) && COUNTS[0].load(Relaxed) > before
        })?;
        thread.delete()?;
    }
    Ok(())
}

fn preemption_fault_without_handler_halts() -> Outcome {
    COUNTS.iter().for_each(|count| count.store(0, Relaxed));
    let thread = plan().priority(50).exception_handler(ThreadId::NIL).spawn(|| {
        begin_preemption_delay();
        enable_preemption_faults();
        spin(0)
    })?;
    set_timeslice(thread.id(), Time::period_us(1_000), Time::NEVER)?;
    wait_until(|| thread.state().is_ok_and(|state| state == ScheduleResult::Inactive))?;
    check_silence()?;
    let before = COUNTS[0].load(Relaxed);
    // A host that is busy may take a whole slice for itself: then the thread halts again where it was.
    wait_until(|| l4::thread::resume(thread.id()).is_ok() && COUNTS[0].load(Relaxed) > before)
}

// --- ThreadSwitch ---

fn switch_runs_a_lower_thread() -> Outcome {
    begin_log();
    let between = noting(50, 2)?;
    let lowest = noting(10, 1)?;
    for id in [lowest.id(), between.local_id()] {
        thread_switch(id);
    }
    check_log(12)
}

fn yield_runs_equals() -> Outcome {
    begin_log();
    noting(PRIORITY, 1)?;
    noting(PRIORITY, 2)?;
    check_log(0)?;
    yield_now();
    check_log(12)
}

fn yield_does_not_run_lower_threads() -> Outcome {
    begin_log();
    noting(PRIORITY - 1, 1)?;
    (0..5).for_each(|_| yield_now());
    check_log(0)
}

fn switch_to_nobody_is_a_yield() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let blocked = spawn(|| l4::time::sleep_forever())?.id();
    for (i, id) in [nobody, blocked, ThreadId::ANY].into_iter().enumerate() {
        begin_log();
        noting(PRIORITY, 1)?;
        thread_switch(id);
        check_log(1).within(format_args!("row {i}"))?;
    }
    Ok(())
}

fn switch_to_oneself_returns() -> Outcome {
    begin_log();
    noting(PRIORITY, 1)?;
    thread_switch(tester().id());
    thread_switch(tester().local_id());
    check_log(0)
}
