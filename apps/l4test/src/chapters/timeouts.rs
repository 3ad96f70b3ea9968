//! Timeouts of IPC, and the clock they run by.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::arch::timestamp;
use l4::ipc;
use l4::message::Msg;
use l4::time::{in_us, sleep, system_clock_us, timeouts};
use l4::{IpcError, IpcErrorKind, MsgTag, ThreadId, Time, Timeouts, Word, kip, utcb};

use crate::failure::{Failure, Outcome, Within, check, equal, within_range};
use crate::registry::chapter;
use crate::world::messages::{receive, receive_error, send_error, send_label};
use crate::world::threads::{Thread, spawn, spawn_later, tester};

chapter! { timeouts:
    "X.2, SystemClock" => [
        clock_does_not_go_back,
        clock_agrees_with_the_time_stamp_counter,
    ],
    "X.2, Ipc, timeouts" => [
        zero_send_timeout_ends_at_once,
        zero_receive_timeout_ends_at_once,
        every_zero_is_zero,
        send_timeout_expires,
        receive_timeout_expires,
        short_timeouts_expire,
        send_timeout_does_not_limit_the_receive,
        receive_timeout_begins_after_the_send,
        message_in_time_ends_the_timeout,
        nobody_is_left_in_the_queue_after_a_timeout,
        sleepers_wake_in_order: "processors that wake at different times may do so in any order on a busy host",
        long_timeouts_do_not_expire_early,
        upper_half_of_the_timeouts_is_ignored,
    ],
    "X.2, Time, points" => [
        receive_expires_at_a_point,
        send_expires_at_a_point,
        point_in_the_next_window,
    ],
}

/// A timeout is late by this much at most, on a machine that has other things to do: microseconds.
const LATE_US: u64 = 2_000_000;

fn period(us: u64) -> Time {
    Time::period_us(us)
}

/// The result of `action` and how long it took in microseconds.
fn timed<R>(action: impl FnOnce() -> R) -> (R, u64) {
    let start = system_clock_us();
    let result = action();
    (result, system_clock_us() - start)
}

/// An IPC of the tester; its tag, and its error or nothing.
fn ipc_of(to: ThreadId, from: ThreadId, timeouts: Timeouts) -> (MsgTag, Result<(), IpcError>) {
    utcb().set_tag(MsgTag::new(0x5E, 2, 0));
    let outcome = ipc::ipc(to, from, timeouts);
    (outcome.tag, outcome.result().map(drop))
}

/// A thread that takes no message of ours.
#[track_caller]
fn deaf() -> Outcome<Thread> {
    spawn(|| l4::time::sleep_forever())
}

fn clock_does_not_go_back() -> Outcome {
    let mut last = system_clock_us();
    for _ in 0..20_000 {
        let now = system_clock_us();
        check(now >= last, format_args!("{now} comes after {last}"))?;
        last = now;
    }
    let before = last;
    sleep(period(1000));
    check(system_clock_us() >= before + 1000, "a millisecond is shorter than that")
}

fn clock_agrees_with_the_time_stamp_counter() -> Outcome {
    let khz = kip::processor_descriptor(0).map_or(0, |processor| processor.internal_khz);
    let (ticks_before, us_before) = (timestamp(), system_clock_us());
    sleep(period(50_000));
    let (ticks, us) = (timestamp() - ticks_before, system_clock_us() - us_before);
    let ticks_in_us = ticks / (khz / 1000).max(1);
    within_range("ticks by the clock, per cent", ticks_in_us * 100 / us.max(1), 90..=110)
}

fn zero_send_timeout_ends_at_once() -> Outcome {
    let deaf = deaf()?.id();
    let (result, us) = timed(|| ipc_of(deaf, deaf, timeouts(Time::ZERO, Time::NEVER)));
    equal("the result", result, (MsgTag::ERROR_ONLY, Err(send_error(IpcErrorKind::Timeout))))?;
    within_range("its time", us, 0..=LATE_US)
}

fn zero_receive_timeout_ends_at_once() -> Outcome {
    let deaf = deaf()?.id();
    for from in [deaf, ThreadId::ANY, ThreadId::ANY_LOCAL] {
        let (result, us) = timed(|| ipc_of(ThreadId::NIL, from, timeouts(Time::NEVER, Time::ZERO)));
        equal("the result", result, (MsgTag::ERROR_ONLY, Err(receive_error(IpcErrorKind::Timeout))))?;
        within_range("its time", us, 0..=LATE_US)?;
    }
    Ok(())
}

fn every_zero_is_zero() -> Outcome {
    let deaf = deaf()?.id();
    for exponent in 1..=31 {
        let zero = Time::from_raw(exponent << 10);
        let sent = ipc_of(deaf, ThreadId::NIL, timeouts(zero, Time::NEVER)).1;
        equal("sending", sent, Err(send_error(IpcErrorKind::Timeout))).within(format_args!("{zero:?}"))?;
        let received = ipc_of(ThreadId::NIL, deaf, timeouts(Time::NEVER, zero)).1;
        equal("receiving", received, Err(receive_error(IpcErrorKind::Timeout))).within(format_args!("{zero:?}"))?;
    }
    Ok(())
}

fn send_timeout_expires() -> Outcome {
    let deaf = deaf()?.id();
    for us in [2_000, 20_000, 50_000] {
        let (result, took_us) = timed(|| ipc_of(deaf, deaf, timeouts(period(us), Time::NEVER)));
        let own_tag = MsgTag::new(0x5E, 2, 0).with_flags(MsgTag::ERROR);
        equal("the result", result, (own_tag, Err(send_error(IpcErrorKind::Timeout))))?;
        within_range("its time", took_us, us..=us + LATE_US)?;
    }
    Ok(())
}

fn receive_timeout_expires() -> Outcome {
    let deaf = deaf()?.id();
    for us in [2_000, 20_000, 50_000] {
        for from in [deaf, ThreadId::ANY, ThreadId::ANY_LOCAL] {
            let (result, took_us) = timed(|| ipc_of(ThreadId::NIL, from, timeouts(Time::NEVER, period(us))));
            equal("the result", result, (MsgTag::ERROR_ONLY, Err(receive_error(IpcErrorKind::Timeout))))?;
            within_range("its time", took_us, us..=us + LATE_US)?;
        }
    }
    Ok(())
}

fn short_timeouts_expire() -> Outcome {
    for us in [1, 2, 3, 10, 63, 64, 65, 100, 500, 999] {
        for _ in 0..10 {
            let (result, took_us) = timed(|| ipc_of(ThreadId::NIL, ThreadId::ANY, timeouts(Time::NEVER, period(us))));
            equal("the result", result.1, Err(receive_error(IpcErrorKind::Timeout)))?;
            within_range("its time", took_us, us..=us + LATE_US).within(format_args!("{us} us"))?;
        }
    }
    Ok(())
}

fn send_timeout_does_not_limit_the_receive() -> Outcome {
    let server = spawn(|| {
        receive(tester().id())?;
        sleep(period(20_000));
        ipc::reply(tester().id())?;
        Ok(())
    })?;
    let (result, us) = timed(|| ipc_of(server.id(), server.id(), timeouts(period(1_000), Time::NEVER)));
    equal("the call", result.1, Ok(()))?;
    within_range("its time", us, 20_000..=20_000 + LATE_US)?;
    server.join()
}

fn receive_timeout_begins_after_the_send() -> Outcome {
    let (outcome, us) = timed(|| -> Outcome<Thread> {
        let server = spawn(|| {
            sleep(period(30_000));
            receive(tester().id())?;
            Ok(())
        })?;
        let result = ipc_of(server.id(), server.id(), timeouts(Time::NEVER, period(20_000)));
        equal("the result", result, (MsgTag::ERROR_ONLY, Err(receive_error(IpcErrorKind::Timeout))))?;
        Ok(server)
    });
    let server = outcome?;
    within_range("its time", us, 50_000..=50_000 + LATE_US)?;
    server.join()
}

fn message_in_time_ends_the_timeout() -> Outcome {
    let sender = spawn_later(|| send_label(tester().id(), 1).map(drop).map_err(Failure::from))?;
    ipc::receive_timeout(sender.id(), period(10_000))?;
    // The old timeout must not end the next wait.
    let (result, us) = timed(|| ipc_of(ThreadId::NIL, ThreadId::ANY, timeouts(Time::NEVER, period(40_000))));
    equal("the result", result.1, Err(receive_error(IpcErrorKind::Timeout)))?;
    within_range("its time", us, 40_000..=40_000 + LATE_US)?;
    sender.join()
}

fn nobody_is_left_in_the_queue_after_a_timeout() -> Outcome {
    let sender = spawn(|| {
        Msg::new(1).load();
        let sent = ipc::send_timeout(tester().id(), period(5_000)).map(drop);
        equal("sending", sent, Err(send_error(IpcErrorKind::Timeout)))
    })?;
    sleep(period(20_000));
    let queued = ipc_of(ThreadId::NIL, ThreadId::ANY, timeouts(Time::NEVER, Time::ZERO)).1;
    equal("receiving", queued, Err(receive_error(IpcErrorKind::Timeout)))?;
    sender.join()
}

fn sleepers_wake_in_order() -> Outcome {
    static ORDER: AtomicU64 = AtomicU64::new(0);
    ORDER.store(0, Relaxed);
    // All begin within the first of these periods, unless the machine is very slow: then the order says nothing.
    let ms: [u64; 6] = [60, 20, 100, 40, 120, 80];
    let (made, us) = timed(|| {
        ms.into_iter().try_for_each(|ms| {
            spawn(move || {
                sleep(period(ms * 1000));
                ORDER.store(ORDER.load(Relaxed) * 1000 + ms, Relaxed);
                Ok(())
            })
            .map(drop)
        })
    });
    made?;
    sleep(period(200_000));
    check(ORDER.load(Relaxed) == 20_040_060_080_100_120 || us > 15_000, format_args!("the order is {ORDER:?}"))
}

fn long_timeouts_do_not_expire_early() -> Outcome {
    // Up to 25 days; also one that comes to zero if it is computed with 32 bits.
    for raw in [0x7FFF, 0x7C01, 31 << 10 | 2, 22 << 10 | 1023, 16 << 10 | 1] {
        let sender = spawn_later(|| {
            sleep(period(2_000));
            send_label(tester().id(), 7).map(drop).map_err(Failure::from)
        })?;
        let received = ipc::receive_timeout(sender.id(), Time::from_raw(raw));
        equal("the label", received?.tag.label(), 7).within(format_args!("{raw:#x}"))?;
    }
    Ok(())
}

fn upper_half_of_the_timeouts_is_ignored() -> Outcome {
    let raw = timeouts(Time::ZERO, Time::ZERO).raw() | !Word::from(u32::MAX);
    let result = ipc_of(ThreadId::NIL, ThreadId::ANY, Timeouts::from_raw(raw)).1;
    equal("the result", result, Err(receive_error(IpcErrorKind::Timeout)))
}

/// Runs `action` with points at these distances in microseconds: it must end there.
#[track_caller]
fn check_points(distances: &[u64], action: impl Fn(Time)) -> Outcome {
    for &distance in distances {
        let start = system_clock_us();
        let point = in_us(distance).ok_or(Failure::new(format_args!("no point {distance} us from now")))?;
        check(point.is_point(), "a period")?;
        action(point);
        within_range("its time", system_clock_us() - start, distance..=distance + LATE_US)?;
    }
    Ok(())
}

fn receive_expires_at_a_point() -> Outcome {
    check_points(&[500, 3_000, 20_000, 50_000], |point| {
        // Only the time is of interest: the other tests say what the result is.
        let _ = ipc_of(ThreadId::NIL, ThreadId::ANY, timeouts(Time::NEVER, point));
    })
}

fn send_expires_at_a_point() -> Outcome {
    let deaf = deaf()?.id();
    check_points(&[3_000, 20_000, 50_000], |point| {
        let _ = ipc_of(deaf, ThreadId::NIL, timeouts(point, Time::NEVER));
    })
}

fn point_in_the_next_window() -> Outcome {
    // The smallest window has 1024 us: from its last part, most points are in the next one.
    while system_clock_us() % 1024 < 900 {}
    check_points(&[700], |point| {
        let _ = ipc_of(ThreadId::NIL, ThreadId::ANY, timeouts(Time::NEVER, point));
    })
}
