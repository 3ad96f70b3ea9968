//! The errors of Ipc: each code, the tag and the sender that go with it, and what the registers hold.

use l4::ipc;
use l4::message::Msg;
use l4::thread::abort;
use l4::time::{sleep_forever, timeouts};
use l4::{ExregsControl, IpcErrorKind, MsgTag, Phase, Rights, ThreadId, Time, Timeouts, Word, utcb};

use crate::failure::{Outcome, Within, equal};
use crate::registry::chapter;
use crate::world::control::{Control, MARK};
use crate::world::memory::page;
use crate::world::messages::{NOW, equal_tags};
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, Thread, plan, spawn, spawn_later, tester};

chapter! { ipc_errors:
    "X.2, Ipc, error codes" => [
        send_timeout_is_2,
        receive_timeout_is_3,
        nobody_to_send_to_is_4,
        nobody_to_receive_from_is_5,
        cancelled_send_is_6,
        cancelled_receive_is_7,
        overflow_of_a_sender_is_8,
        overflow_of_a_receiver_is_9,
        call_fails_by_the_phase_it_is_in,
        deleted_receiver_is_nobody_to_send_to,
        new_version_of_the_receiver_cancels_nobody_else,
        moved_thread_is_cancelled,
    ],
    "X.2, Ipc, errors" => [
        errors_come_from_nobody,
        message_is_left_after_an_error,
        error_code_stays_until_the_next_error,
        error_of_one_is_no_error_of_the_other,
        failed_ipc_can_be_repeated,
    ],
}

const LABEL: Word = 0x0E44;

/// What an IPC came to, as words: tag, ErrorCode, sender.
type Ended = (Word, Word, Word);

/// An IPC with two untyped words and no label of the kernel's.
fn run(to: ThreadId, from: ThreadId, limits: Timeouts) -> Ended {
    Msg::of_words(MsgTag::new(LABEL, 0, 0), &[71, 72]).load();
    utcb().set_error_code(MARK);
    let outcome = ipc::ipc(to, from, limits);
    (outcome.tag.raw(), utcb().error_code(), outcome.from.raw())
}

/// An error at once or of a receive phase: only E in the tag, from nilthread.
const fn only_error(code: Word) -> Ended {
    (0x8000, code, 0)
}

/// An error of a send phase that was blocked: the own tag with E, from nilthread.
const fn own_tag_error(code: Word) -> Ended {
    (MsgTag::new(LABEL, 2, 0).with_flags(MsgTag::ERROR).raw(), code, 0)
}

#[track_caller]
fn deaf() -> Outcome<ThreadId> {
    Ok(spawn(|| sleep_forever())?.id())
}

fn send_timeout_is_2() -> Outcome {
    let deaf = deaf()?;
    let short = Time::period_us(500);
    equal("at once", run(deaf, ThreadId::NIL, NOW), only_error(2))?;
    equal("after a while", run(deaf, ThreadId::NIL, timeouts(short, Time::NEVER)), own_tag_error(2))?;
    equal("of a call", run(deaf, deaf, timeouts(short, Time::NEVER)), own_tag_error(2))
}

fn receive_timeout_is_3() -> Outcome {
    let deaf = deaf()?;
    let short = Time::period_us(500);
    for from in [deaf, ThreadId::ANY, ThreadId::ANY_LOCAL, tester().id(), ThreadId::interrupt(3)] {
        equal("at once", run(ThreadId::NIL, from, NOW), only_error(3)).within(format_args!("{from:?}"))?;
        equal("after a while", run(ThreadId::NIL, from, timeouts(Time::NEVER, short)), only_error(3))?;
    }
    Ok(())
}

fn nobody_to_send_to_is_4() -> Outcome {
    let nobody = Thread::reserve()?.id();
    equal("at once", run(nobody, ThreadId::NIL, NOW), only_error(4))?;
    equal("with patience", run(nobody, nobody, timeouts(PATIENCE, PATIENCE)), only_error(4))
}

fn nobody_to_receive_from_is_5() -> Outcome {
    let nobody = Thread::reserve()?.id();
    equal("at once", run(ThreadId::NIL, nobody, NOW), only_error(5))?;
    equal("with patience", run(ThreadId::NIL, nobody, timeouts(PATIENCE, PATIENCE)), only_error(5))
}

/// Makes a thread that finds this as the end of its IPC with the tester, which the tester brings about.
#[track_caller]
fn ends_with(to: ThreadId, from: ThreadId, expected: Ended, end: impl Fn(Thread) -> Outcome) -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let thread = plan().space(space).spawn(move || {
            let ended = run(to, from, timeouts(PATIENCE, PATIENCE));
            equal("the end of the IPC", ended, expected)
        })?;
        end(thread).within(place)?;
        thread.join().within(place)?;
    }
    Ok(())
}

fn cancelled_send_is_6() -> Outcome {
    let me = tester().id();
    let cancel = |thread: Thread| Ok(abort(thread.id(), ExregsControl::ABORT_SEND).map(drop)?);
    ends_with(me, ThreadId::NIL, own_tag_error(6), cancel)?;
    ends_with(me, me, own_tag_error(6), cancel)
}

fn cancelled_receive_is_7() -> Outcome {
    let me = tester().id();
    let cancel = |thread: Thread| Ok(abort(thread.id(), ExregsControl::ABORT_RECEIVE).map(drop)?);
    for from in [me, ThreadId::ANY, ThreadId::ANY_LOCAL] {
        ends_with(ThreadId::NIL, from, only_error(7), cancel)?;
    }
    Ok(())
}

fn load_item() -> MsgTag {
    let [first, second] = page(0).map_to(0, Rights::READ).words();
    let tag = MsgTag::new(LABEL, 1, 2);
    utcb().set_mr(1, 73);
    utcb().set_mr(2, first);
    utcb().set_mr(3, second);
    utcb().set_tag(tag);
    tag
}

fn overflow_of_a_sender_is_8() -> Outcome {
    let receiver = spawn(|| {
        // Whatever comes of it.
        let _ = ipc::receive_timeout(tester().id(), PATIENCE);
        Ok(())
    })?;
    let tag = load_item();
    let sent = ipc::ipc(receiver.id(), ThreadId::NIL, timeouts(PATIENCE, PATIENCE));
    equal("the tag", sent.tag, tag.with_flags(MsgTag::ERROR))?;
    equal("ErrorCode", utcb().error_code(), 8)?;
    receiver.join()
}

fn overflow_of_a_receiver_is_9() -> Outcome {
    let sender = spawn_later(|| {
        load_item();
        // Whatever comes of it.
        let _ = ipc::send_timeout(tester().id(), PATIENCE);
        Ok(())
    })?;
    let received = ipc::ipc(ThreadId::NIL, sender.id(), timeouts(PATIENCE, PATIENCE));
    equal_tags("the tag", received.tag, MsgTag::new(LABEL, 1, 2).with_flags(MsgTag::ERROR))?;
    equal("ErrorCode", utcb().error_code(), 9)?;
    equal("MR1, which came before the item", utcb().mr(1), 73)?;
    sender.join()
}

fn call_fails_by_the_phase_it_is_in() -> Outcome {
    let me = tester().id();
    let cancel = |thread: Thread| Ok(abort(thread.id(), ExregsControl::ABORT_IPC).map(drop)?);
    ends_with(me, me, own_tag_error(6), cancel)?;
    ends_with(me, me, only_error(7), |thread| {
        let received = ipc::receive_timeout(thread.id(), PATIENCE)?;
        equal("the label", received.tag.label(), LABEL)?;
        cancel(thread)
    })
}

fn deleted_receiver_is_nobody_to_send_to() -> Outcome {
    let victim = spawn(|| sleep_forever())?;
    let sender = spawn(move || equal("the end", run(victim.id(), victim.id(), Timeouts::NEVER), own_tag_error(4)))?;
    victim.delete()?;
    sender.join()
}

fn new_version_of_the_receiver_cancels_nobody_else() -> Outcome {
    // Who is queued on the thread stays so, under whichever version it is.
    let receiver = spawn(|| {
        let waited = ipc::receive_timeout(tester().id(), PATIENCE);
        equal("the wait that is aborted", waited.is_err(), true)?;
        let received = ipc::ipc(ThreadId::NIL, ThreadId::ANY, timeouts(PATIENCE, PATIENCE)).result()?;
        equal("the label", received.tag.label(), LABEL)?;
        Msg::new(1).load();
        ipc::send_timeout(tester().id(), PATIENCE)?;
        Ok(())
    })?;
    let sender = spawn(move || {
        let ended = run(receiver.id(), ThreadId::NIL, timeouts(PATIENCE, PATIENCE));
        equal("the end", ended, (MsgTag::new(LABEL, 2, 0).raw(), MARK, 0))
    })?;
    let new = ThreadId::global(receiver.id().thread_no(), receiver.id().version() + 1);
    Control::modify(new).call()?;
    ipc::receive_timeout(new, PATIENCE)?;
    sender.join()?;
    Ok(l4::thread::delete(new)?)
}

fn moved_thread_is_cancelled() -> Outcome {
    let me = tester().id();
    let space = Space::create()?;
    // Someone who has the image mapped there.
    plan().space(space).spawn(|| Ok(()))?.join()?;
    let rows = [
        (me, ThreadId::NIL, own_tag_error(6)),
        (ThreadId::NIL, me, only_error(7)),
        (ThreadId::NIL, ThreadId::ANY, only_error(7)),
    ];
    for (to, from, expected) in rows {
        let thread = spawn(move || equal("the end", run(to, from, timeouts(PATIENCE, PATIENCE)), expected))?;
        Control::modify(thread.id()).space(space.specifier()).call()?;
        thread.join()?;
    }
    Ok(())
}

// --- around errors ---

fn errors_come_from_nobody() -> Outcome {
    let (nobody, deaf) = (Thread::reserve()?.id(), deaf()?);
    // Somebody is queued, and is not the one who was asked for.
    let sender = spawn(|| {
        Msg::new(LABEL).load();
        ipc::send_timeout(tester().id(), PATIENCE)?;
        Ok(())
    })?;
    for (to, from) in [(nobody, ThreadId::ANY), (deaf, ThreadId::ANY), (ThreadId::NIL, deaf), (ThreadId::NIL, nobody)] {
        let (tag, _, from) = run(to, from, NOW);
        equal("tag and sender", (tag, from), (0x8000, 0))?;
    }
    ipc::receive_timeout(sender.id(), PATIENCE)?;
    sender.join()
}

fn message_is_left_after_an_error() -> Outcome {
    let (nobody, deaf) = (Thread::reserve()?.id(), deaf()?);
    for (to, from) in [(nobody, ThreadId::NIL), (deaf, ThreadId::NIL), (ThreadId::NIL, deaf), (ThreadId::NIL, nobody)] {
        (1..64).for_each(|i| utcb().set_mr(i, 0x700 + i as Word));
        utcb().set_tag(MsgTag::new(LABEL, 63, 0));
        let failed = ipc::ipc(to, from, NOW);
        equal("the tag", failed.tag, MsgTag::ERROR_ONLY)?;
        for i in 1..64 {
            equal(format_args!("MR{i}"), utcb().mr(i), 0x700 + i as Word)?;
        }
    }
    Ok(())
}

fn error_code_stays_until_the_next_error() -> Outcome {
    let (nobody, partner) = (
        Thread::reserve()?.id(),
        spawn(|| {
            ipc::receive_timeout(tester().id(), PATIENCE)?;
            Ok(())
        })?,
    );
    equal("an error", run(nobody, ThreadId::NIL, NOW).1, 4)?;
    Msg::new(LABEL).load();
    ipc::send_timeout(partner.id(), PATIENCE)?;
    equal("ErrorCode after a success", utcb().error_code(), 4)?;
    equal("another error", run(ThreadId::NIL, nobody, NOW).1, 5)
}

fn error_of_one_is_no_error_of_the_other() -> Outcome {
    // The tester gives up; its partner never hears of it, and still waits.
    let partner = spawn(|| {
        let received = ipc::receive_timeout(tester().id(), PATIENCE)?;
        equal("the label", received.tag.label(), LABEL)
    })?;
    equal("a wait", run(ThreadId::NIL, partner.id(), timeouts(PATIENCE, Time::period_us(500))), only_error(3))?;
    Msg::new(LABEL).load();
    ipc::send_timeout(partner.id(), Time::ZERO)?;
    partner.join()
}

fn failed_ipc_can_be_repeated() -> Outcome {
    let deaf = deaf()?;
    for round in 0..200 {
        equal("sending", run(deaf, deaf, NOW), only_error(2)).within(round)?;
        equal("receiving", run(ThreadId::NIL, deaf, NOW), only_error(3)).within(round)?;
    }
    let error = l4::IpcError::from_raw(utcb().error_code()).map(|error| (error.phase, error.kind));
    equal("the error", error, Some((Phase::Receive, IpcErrorKind::Timeout)))
}
