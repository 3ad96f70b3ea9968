//! Interrupts: who handles them, when their messages come, what is an answer.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::interrupt::acknowledge;
use l4::message::Msg;
use l4::protocol::INTERRUPT;
use l4::thread::{associate_interrupt, deassociate_interrupt};
use l4::time::{sleep, sleep_forever, system_clock_us};
use l4::{IpcErrorKind, MsgTag, ScheduleResult, SysError, ThreadId, Time, Timeouts, Word, ipc, kip, schedule, utcb};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::control::Control;
use crate::world::messages::{NOW, receive, receive_error, send_error, send_label};
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, Thread, plan, spawn, tester};
use crate::world::timer::{fire, take, with_timer};

chapter! { interrupts:
    "X.2, ThreadControl, interrupts" => [
        association_can_be_repeated,
        another_handler_takes_over,
        interrupt_can_be_given_back,
        giving_back_what_one_does_not_have_is_no_error,
        lines_that_no_device_has_are_refused,
        versions_but_the_first_are_refused,
        handler_must_exist,
        handler_may_be_inactive_or_local,
        other_parameters_are_ignored,
        schedule_knows_the_state_of_an_interrupt,
    ],
    "X.2, Interrupt protocol" => [
        interrupt_ends_a_closed_wait,
        interrupt_ends_an_open_wait,
        interrupt_ends_no_wait_for_local_threads,
        interrupt_waits_for_its_handler,
        next_interrupt_follows_the_answer,
        answer_needs_no_patience,
        answer_before_the_message_is_not_taken,
        answer_comes_from_the_handler_alone,
        answer_can_be_any_message,
        answer_and_wait_at_once,
        handler_in_another_space,
        handler_preempts_what_is_below_it,
        interrupt_of_a_deleted_handler_is_dead,
        interrupt_and_other_senders_queue_up,
    ],
}

/// Microseconds until the timer interrupts.
const SOON_US: u64 = 300;

/// Waits until the interrupt has come as far as `state`.
#[track_caller]
fn wait_for(line: ThreadId, state: ScheduleResult) -> Outcome {
    let start_us = system_clock_us();
    loop {
        let found = state_of(line)?;
        if found == state {
            return Ok(());
        }
        check(system_clock_us() - start_us < 5_000_000, format_args!("the interrupt is {found:?}, not {state:?}"))?;
        sleep(Time::period_us(500));
    }
}

/// What Schedule says of the interrupt.
#[track_caller]
fn state_of(line: ThreadId) -> Outcome<ScheduleResult> {
    use l4::{PreemptionControl as P, PrioControl, ProcessorControl, TimeControl};
    let keep = (TimeControl::NO_CHANGE, ProcessorControl::NO_CHANGE, PrioControl::NO_CHANGE, P::NO_CHANGE);
    Ok(schedule::schedule(line, keep.0, keep.1, keep.2, keep.3)?.0)
}

/// Long enough for an interrupt that is due to come.
fn let_it_come() {
    sleep(Time::period_us(10_000));
}

/// Fails if there is a message of the interrupt.
#[track_caller]
fn check_silent(line: ThreadId) -> Outcome {
    let received = ipc::ipc(ThreadId::NIL, line, NOW).result().map(drop);
    equal("a wait for the interrupt", received, Err(receive_error(IpcErrorKind::Timeout)))
}

// --- association ---

fn association_can_be_repeated() -> Outcome {
    with_timer(|line| {
        (0..3).try_for_each(|_| associate_interrupt(line, tester().id()))?;
        fire(SOON_US);
        wait_for(line, ScheduleResult::PendingSend)?;
        // Its message is still there.
        associate_interrupt(line, tester().id())?;
        take(line)?;
        associate_interrupt(line, tester().id())?;
        Ok(acknowledge(line)?)
    })
}

fn another_handler_takes_over() -> Outcome {
    with_timer(|line| {
        fire(SOON_US);
        wait_for(line, ScheduleResult::PendingSend)?;
        let other = spawn(move || {
            take(line)?;
            Ok(acknowledge(line)?)
        })?;
        // The message that was waiting for the tester is dropped.
        associate_interrupt(line, other.id())?;
        check_silent(line)?;
        fire(SOON_US);
        other.join()?;
        check_silent(line)
    })
}

fn interrupt_can_be_given_back() -> Outcome {
    with_timer(|line| {
        deassociate_interrupt(line)?;
        equal("its state", state_of(line)?, ScheduleResult::Dead)?;
        fire(SOON_US);
        let_it_come();
        check_silent(line)?;
        associate_interrupt(line, tester().id())?;
        fire(SOON_US);
        take(line)
    })
}

fn giving_back_what_one_does_not_have_is_no_error() -> Outcome {
    with_timer(|line| {
        deassociate_interrupt(line)?;
        deassociate_interrupt(line)?;
        // Nobody ever had this one.
        Ok(deassociate_interrupt(ThreadId::interrupt(3))?)
    })
}

/// Lines of the two 8259A.
const LINES_OF_8259A: Word = 16;

fn lines_that_no_device_has_are_refused() -> Outcome {
    let me = tester().id();
    let base = kip::kip().thread_info.system_base();
    // With I/O APICs line 9 is where the firmware's own interrupt is; of the two 8259A one is at line 2 of the other.
    let taken = ThreadId::interrupt(if base > LINES_OF_8259A { 9 } else { 2 });
    let refused = Err(SysError::InvalidThread);
    equal("a line that is taken", associate_interrupt(taken, me), refused)?;
    equal("its end", deassociate_interrupt(taken), refused)?;
    equal("a line beyond the last", associate_interrupt(ThreadId::interrupt(base), me), refused)
}

fn versions_but_the_first_are_refused() -> Outcome {
    for number in [0, 2, 3, kip::kip().thread_info.system_base() - 1] {
        for version in [2, 63, 65, ThreadId::VERSION_MAX] {
            let id = ThreadId::global(number, version);
            Control::modify(id).pager(tester().id()).refused("association", SysError::InvalidThread)?;
            Control::modify(id).pager(id).refused("its end", SysError::InvalidThread)?;
            Control::delete(id).refused("deletion", SysError::InvalidThread)?;
        }
    }
    Ok(())
}

fn handler_must_exist() -> Outcome {
    let me = tester().id();
    let rows = [
        ThreadId::NIL,
        ThreadId::ANY,
        ThreadId::ANY_LOCAL,
        ThreadId::interrupt(4),
        ThreadId::global(me.thread_no(), me.version() + 1),
        ThreadId::global(me.thread_no() | 1 << l4::THREAD_ID_BITS, me.version()),
        ThreadId::local(tester().local_id().raw() + 64),
        Thread::reserve()?.id(),
    ];
    with_timer(|line| {
        for handler in rows {
            let result = associate_interrupt(line, handler);
            equal("association", result, Err(SysError::InvalidThread)).within(format_args!("{handler:?}"))?;
        }
        // The handler is who it was.
        fire(SOON_US);
        take(line)
    })
}

fn handler_may_be_inactive_or_local() -> Outcome {
    let inactive = Thread::reserve()?;
    Control::create(inactive.id()).call()?;
    with_timer(|line| {
        associate_interrupt(line, inactive.id())?;
        fire(SOON_US);
        wait_for(line, ScheduleResult::PendingSend)?;
        associate_interrupt(line, tester().local_id())?;
        fire(SOON_US);
        take(line)
    })
}

fn other_parameters_are_ignored() -> Outcome {
    with_timer(|line| {
        deassociate_interrupt(line)?;
        let odd = Control::modify(line).space(ThreadId::ANY).scheduler(ThreadId::ANY_LOCAL).utcb(1);
        odd.pager(tester().id()).call()?;
        fire(SOON_US);
        take(line)?;
        odd.pager(line).call()?;
        equal("its state", state_of(line)?, ScheduleResult::Dead)?;
        // Even a nil space deletes nothing.
        Control::delete(line).refused("deletion", SysError::InvalidThread)
    })
}

fn schedule_knows_the_state_of_an_interrupt() -> Outcome {
    with_timer(|line| {
        equal("idle", state_of(line)?, ScheduleResult::Inactive)?;
        fire(SOON_US);
        wait_for(line, ScheduleResult::PendingSend)?;
        take(line)?;
        equal("taken", state_of(line)?, ScheduleResult::Waiting)?;
        acknowledge(line)?;
        equal("answered", state_of(line)?, ScheduleResult::Inactive)?;
        deassociate_interrupt(line)?;
        equal("given back", state_of(line)?, ScheduleResult::Dead)
    })
}

// --- messages ---

/// Fails unless a message is the interrupt's.
#[track_caller]
fn check_message(received: ipc::Outcome, line: ThreadId) -> Outcome {
    equal("from", received.from, line)?;
    equal("the protocol", received.tag.protocol(), INTERRUPT)?;
    equal("words", (received.tag.untyped(), received.tag.typed(), received.tag.parameter()), (0, 0, 0))
}

fn interrupt_ends_a_closed_wait() -> Outcome {
    with_timer(|line| {
        fire(5_000);
        check_message(receive(line)?, line)?;
        Ok(acknowledge(line)?)
    })
}

fn interrupt_ends_an_open_wait() -> Outcome {
    with_timer(|line| {
        fire(5_000);
        check_message(receive(ThreadId::ANY)?, line)?;
        Ok(acknowledge(line)?)
    })
}

fn interrupt_ends_no_wait_for_local_threads() -> Outcome {
    with_timer(|line| {
        fire(SOON_US);
        let waited = ipc::receive_timeout(ThreadId::ANY_LOCAL, Time::period_us(10_000)).map(drop);
        equal("a wait for local threads", waited, Err(receive_error(IpcErrorKind::Timeout)))?;
        wait_for(line, ScheduleResult::PendingSend)?;
        let waited = ipc::receive_timeout(ThreadId::ANY_LOCAL, Time::ZERO).map(drop);
        equal("the same with the message there", waited, Err(receive_error(IpcErrorKind::Timeout)))?;
        take(line)
    })
}

fn interrupt_waits_for_its_handler() -> Outcome {
    with_timer(|line| {
        for from in [line, ThreadId::ANY] {
            fire(SOON_US);
            wait_for(line, ScheduleResult::PendingSend)?;
            check_message(ipc::receive_timeout(from, Time::ZERO)?, line)?;
            acknowledge(line)?;
        }
        Ok(())
    })
}

fn next_interrupt_follows_the_answer() -> Outcome {
    with_timer(|line| {
        fire(SOON_US);
        take(line)?;
        fire(SOON_US);
        let_it_come();
        check_silent(line)?;
        acknowledge(line)?;
        // It was not lost, and there is one message for it.
        take(line)?;
        acknowledge(line)?;
        let_it_come();
        check_silent(line)
    })
}

fn answer_needs_no_patience() -> Outcome {
    with_timer(|line| {
        for _ in 0..10 {
            fire(SOON_US);
            take(line)?;
            Msg::new(0).load();
            ipc::send_timeout(line, Time::ZERO)?;
        }
        Ok(())
    })
}

fn answer_before_the_message_is_not_taken() -> Outcome {
    with_timer(|line| {
        let refused = Err(send_error(IpcErrorKind::Timeout));
        equal("an answer to an idle interrupt", acknowledge(line), refused)?;
        fire(SOON_US);
        wait_for(line, ScheduleResult::PendingSend)?;
        equal("an answer to a waiting one", acknowledge(line), refused)?;
        take(line)?;
        acknowledge(line)?;
        equal("a second answer", acknowledge(line), refused)
    })
}

fn answer_comes_from_the_handler_alone() -> Outcome {
    with_timer(|line| {
        fire(SOON_US);
        take(line)?;
        for (place, space) in Space::own_and_other()? {
            let stranger = plan().space(space).spawn(move || {
                equal("a stranger's answer", acknowledge(line), Err(send_error(IpcErrorKind::Timeout)))
            })?;
            stranger.join().within(place)?;
        }
        equal("its state", state_of(line)?, ScheduleResult::Waiting)?;
        Ok(acknowledge(line)?)
    })
}

fn answer_can_be_any_message() -> Outcome {
    with_timer(|line| {
        for (label, untyped) in [(0, 0), (1, 3), ((1 << 48) - 1, 63), (7, 1)] {
            fire(SOON_US);
            take(line)?;
            utcb().set_tag(MsgTag::new(label, untyped, 0));
            ipc::send_timeout(line, Time::ZERO).map_err(Failure::from).within(untyped)?;
        }
        Ok(())
    })
}

fn answer_and_wait_at_once() -> Outcome {
    with_timer(|line| {
        fire(SOON_US);
        take(line)?;
        for from in [line, ThreadId::ANY, line] {
            fire(SOON_US);
            utcb().set_tag(MsgTag::NIL);
            let limits = Timeouts::new(Time::ZERO, PATIENCE);
            check_message(ipc::ipc(line, from, limits).result()?, line)?;
        }
        Ok(acknowledge(line)?)
    })
}

fn handler_in_another_space() -> Outcome {
    with_timer(|line| {
        let handler = plan().space(Space::create()?).spawn(move || {
            for _ in 0..3 {
                check_message(receive(line)?, line)?;
                acknowledge(line)?;
                send_label(tester().id(), 1)?;
            }
            Ok(())
        })?;
        associate_interrupt(line, handler.id())?;
        for _ in 0..3 {
            fire(SOON_US);
            receive(handler.id())?;
        }
        handler.join()
    })
}

fn handler_preempts_what_is_below_it() -> Outcome {
    static CAME: AtomicU64 = AtomicU64::new(0);
    CAME.store(0, Relaxed);
    with_timer(|line| {
        let handler = spawn(move || {
            take(line)?;
            CAME.store(1, Relaxed);
            Ok(acknowledge(line)?)
        })?;
        associate_interrupt(line, handler.id())?;
        fire(2_000);
        let start_us = system_clock_us();
        while CAME.load(Relaxed) == 0 {
            check(system_clock_us() - start_us < 3_000_000, "a spinning thread is not preempted")?;
        }
        handler.join()
    })
}

fn interrupt_of_a_deleted_handler_is_dead() -> Outcome {
    with_timer(|line| {
        let handler = spawn(|| sleep_forever())?;
        associate_interrupt(line, handler.id())?;
        handler.delete()?;
        fire(SOON_US);
        wait_for(line, ScheduleResult::Dead)?;
        associate_interrupt(line, tester().id())?;
        fire(SOON_US);
        take(line)
    })
}

fn interrupt_and_other_senders_queue_up() -> Outcome {
    with_timer(|line| {
        let first = spawn(|| Ok(send_label(tester().id(), 1).map(drop)?))?;
        fire(SOON_US);
        wait_for(line, ScheduleResult::PendingSend)?;
        let last = spawn(|| Ok(send_label(tester().id(), 2).map(drop)?))?;
        for expected in [first.local_id(), line, last.local_id()] {
            equal("from", ipc::receive_timeout(ThreadId::ANY, Time::ZERO)?.from, expected)?;
        }
        acknowledge(line)?;
        first.join()?;
        last.join()
    })
}
