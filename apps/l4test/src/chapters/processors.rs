//! More than one processor: where threads run, messages across, migration. With one processor most of it is skipped.

use l4::schedule::set_processor_no;
use l4::time::sleep;
use l4::{MsgTag, SysError, Time, kip, utcb};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::messages::{call_label, receive, send_label};
use crate::world::placement;
use crate::world::spaces::Space;
use crate::world::threads::{Thread, plan, spawn, spawn_later, tester};

chapter! { processors:
    "X.2, Processors" => [
        processors_that_are_not_there_are_refused: PLACED,
        the_present_processor_can_be_asked_for: PLACED,
        thread_runs_on_the_processor_it_is_given,
        thread_moves_while_it_waits,
        thread_moves_while_it_runs,
        thread_moves_itself,
    ],
    "X.2, Processors, IPC" => [
        message_between_processors_has_flag_x: PLACED,
        answer_between_processors_has_flag_x: PLACED,
        message_on_one_processor_has_no_flag_x: PLACED,
        flag_x_tells_where_the_sender_is,
        zero_timeout_holds_between_processors,
    ],
}

const PLACED: &str = "it places its threads itself";

/// Skips the test unless there are two processors.
fn require_two() -> Outcome {
    match kip::num_processors() {
        0 | 1 => Err(Failure::skip("there is one processor")),
        _ => Ok(()),
    }
}

const OTHER: u16 = 1;

fn processors_that_are_not_there_are_refused() -> Outcome {
    let thread = spawn(|| Ok(()))?;
    let count = kip::num_processors() as u16;
    for number in [count, count + 1, 255, 0x8000, 0xFFFE] {
        let result = set_processor_no(thread.id(), number);
        equal("the call", result, Err(SysError::InvalidParameter)).within(number)?;
    }
    equal("the own processor", utcb().processor_no(), 0)?;
    thread.join()
}

fn the_present_processor_can_be_asked_for() -> Outcome {
    let thread = spawn_later(|| equal("ProcessorNo", utcb().processor_no(), 0))?;
    set_processor_no(thread.id(), 0)?;
    set_processor_no(tester().id(), 0)?;
    thread.join()
}

/// A thread that waits for a message, and then answers with the number of its processor as a label.
#[track_caller]
fn telling(space: Space) -> Outcome<Thread> {
    plan().space(space).spawn(|| {
        loop {
            receive(tester().id())?;
            send_label(tester().id(), utcb().processor_no())?;
        }
    })
}

fn thread_runs_on_the_processor_it_is_given() -> Outcome {
    require_two()?;
    for (place, space) in Space::own_and_other()? {
        let thread = telling(space)?;
        for number in [OTHER, 0, OTHER] {
            set_processor_no(thread.id(), number)?;
            equal("the processor", call_label(thread.id(), 0)?.tag.label(), number.into()).within(place)?;
        }
    }
    Ok(())
}

fn thread_moves_while_it_waits() -> Outcome {
    require_two()?;
    let thread = spawn(|| {
        // The timeout goes with the thread.
        let slept = receive(tester().id());
        equal("ProcessorNo", utcb().processor_no(), OTHER.into())?;
        check(slept.is_ok(), "the message is lost")
    })?;
    set_processor_no(thread.id(), OTHER)?;
    send_label(thread.id(), 1)?;
    thread.join()
}

fn thread_moves_while_it_runs() -> Outcome {
    require_two()?;
    let thread = spawn_later(|| {
        while utcb().processor_no() != OTHER.into() {
            core::hint::spin_loop();
        }
        Ok(())
    })?;
    sleep(Time::period_us(1_000));
    set_processor_no(thread.id(), OTHER)?;
    thread.join()
}

fn thread_moves_itself() -> Outcome {
    require_two()?;
    let thread = spawn(|| {
        for number in [OTHER, 0, OTHER] {
            set_processor_no(utcb().my_global_id(), number)?;
            equal("ProcessorNo", utcb().processor_no(), number.into())?;
        }
        Ok(())
    })?;
    thread.join()
}

fn message_between_processors_has_flag_x() -> Outcome {
    require_two()?;
    let thread =
        spawn(|| equal("the tag", receive(tester().id())?.tag, MsgTag::new(7, 0, 0).with_flags(MsgTag::XCPU)))?;
    set_processor_no(thread.id(), OTHER)?;
    send_label(thread.id(), 7)?;
    thread.join()
}

fn answer_between_processors_has_flag_x() -> Outcome {
    require_two()?;
    let thread = telling(Space::own())?;
    set_processor_no(thread.id(), OTHER)?;
    let answer = call_label(thread.id(), 0)?.tag;
    equal("the tag", answer, MsgTag::new(OTHER.into(), 0, 0).with_flags(MsgTag::XCPU))
}

fn message_on_one_processor_has_no_flag_x() -> Outcome {
    let thread = telling(Space::own())?;
    equal("the tag", call_label(thread.id(), 0)?.tag, MsgTag::new(0, 0, 0))
}

fn flag_x_tells_where_the_sender_is() -> Outcome {
    for _ in 0..8 {
        let thread = telling(Space::own())?;
        let there = placement::expected_processor(thread);
        let answer = call_label(thread.id(), 0)?.tag;
        equal("the processor", answer.label(), there.into())?;
        let is_elsewhere = there != placement::expected_processor(tester());
        equal("X", answer.is_xcpu(), is_elsewhere)?;
        thread.delete()?;
    }
    Ok(())
}

fn zero_timeout_holds_between_processors() -> Outcome {
    require_two()?;
    let thread = spawn(|| {
        for _ in 0..100 {
            receive(tester().id())?;
            l4::message::Msg::new(0).load();
            // The caller is in its receive phase as soon as its message is here.
            l4::ipc::reply(tester().id())?;
        }
        Ok(())
    })?;
    set_processor_no(thread.id(), OTHER)?;
    (0..100).try_for_each(|_| call_label(thread.id(), 0).map(drop))?;
    thread.join()
}
