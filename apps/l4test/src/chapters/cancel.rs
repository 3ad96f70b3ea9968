//! The end of an IPC from outside: ExchangeRegisters, deletion.

use l4::message::Msg;
use l4::protocol::PAGE_FAULT;
use l4::thread::{abort, abort_and_stop, inspect};
use l4::time::timeouts;
use l4::{
    ExregsControl, IpcError, IpcErrorKind, MR_COUNT, MsgTag, Rights, ScheduleResult, ThreadId, Time, Word, ipc, utcb,
};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory::{self, at, page};
use crate::world::messages::{NOW, call_label, equal_tags, receive, receive_error, send_error, send_items, send_label};
use crate::world::placement;
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, Thread, plan, spawn, spawn_later, tester};

chapter! { cancel:
    "X.2, ExchangeRegisters, abort" => [
        blocked_send_is_cancelled,
        blocked_receive_is_cancelled,
        receive_of_a_call_is_cancelled,
        other_phase_is_not_cancelled,
        cancelled_sender_leaves_the_queue,
        cancelled_and_stopped_thread_waits_for_its_start,
        cancelled_page_fault_is_retried,
        start_elsewhere_out_of_an_ipc,
    ],
    "X.2, ThreadControl, deletion" => [
        deleted_sender_leaves_the_queue,
        deleted_receiver_fails_its_senders,
        deleted_partner_is_waited_for_in_vain,
        deleted_partner_of_a_call,
        deleted_pager_is_no_disaster,
        deletion_in_the_middle_of_a_queue,
        deletion_between_spaces,
    ],
}

/// Fails unless an IPC of the calling thread came to this.
#[track_caller]
fn check_result(outcome: ipc::Outcome, tag: MsgTag, error: IpcError) -> Outcome {
    equal("the tag", outcome.tag, tag)?;
    equal("the error", outcome.result().map(drop), Err(error))
}

const OWN: MsgTag = MsgTag::new(0x77, 1, 0);

fn blocked_send_is_cancelled() -> Outcome {
    let thread = spawn(|| {
        utcb().set_tag(OWN);
        let sent = ipc::ipc(tester().id(), tester().id(), timeouts(PATIENCE, PATIENCE));
        check_result(sent, OWN.with_flags(MsgTag::ERROR), send_error(IpcErrorKind::Canceled))
    })?;
    check(abort(thread.id(), ExregsControl::ABORT_SEND)?.was_sending(), "it was not sending")?;
    thread.join()
}

fn blocked_receive_is_cancelled() -> Outcome {
    for timeout in [Time::NEVER, PATIENCE] {
        for from in [tester().id(), ThreadId::ANY, ThreadId::ANY_LOCAL] {
            let thread = spawn(move || {
                let received = ipc::ipc(ThreadId::NIL, from, timeouts(Time::NEVER, timeout));
                check_result(received, MsgTag::ERROR_ONLY, receive_error(IpcErrorKind::Canceled))
            })?;
            check(abort(thread.id(), ExregsControl::ABORT_RECEIVE)?.was_receiving(), "it was not receiving")?;
            thread.join()?;
        }
    }
    Ok(())
}

fn receive_of_a_call_is_cancelled() -> Outcome {
    for timeout in [Time::NEVER, PATIENCE] {
        let thread = spawn(move || {
            utcb().set_tag(OWN);
            let called = ipc::ipc(tester().id(), tester().id(), timeouts(timeout, timeout));
            check_result(called, MsgTag::ERROR_ONLY, receive_error(IpcErrorKind::Canceled))
        })?;
        equal_tags("the tag of the call", receive(thread.id())?.tag, OWN)?;
        check(abort(thread.id(), ExregsControl::ABORT_IPC)?.was_receiving(), "it was not receiving")?;
        thread.join()?;
    }
    Ok(())
}

fn other_phase_is_not_cancelled() -> Outcome {
    let sender = spawn(|| send_label(tester().id(), 5).map(drop).map_err(Failure::from))?;
    check(abort(sender.id(), ExregsControl::ABORT_RECEIVE)?.was_sending(), "it was not sending")?;
    equal("the label", receive(sender.id())?.tag.label(), 5)?;
    sender.join()?;
    let receiver = spawn(|| equal("the label", receive(tester().id())?.tag.label(), 6))?;
    check(abort(receiver.id(), ExregsControl::ABORT_SEND)?.was_receiving(), "it was not receiving")?;
    send_label(receiver.id(), 6)?;
    receiver.join()
}

/// Fails unless nobody is queued on the tester.
#[track_caller]
fn check_nobody_queued() -> Outcome {
    let received = ipc::ipc(ThreadId::NIL, ThreadId::ANY, NOW);
    check_result(received, MsgTag::ERROR_ONLY, receive_error(IpcErrorKind::Timeout))
}

fn cancelled_sender_leaves_the_queue() -> Outcome {
    let thread = spawn(|| {
        let sent = send_label(tester().id(), 5).map(drop);
        equal("sending", sent, Err(send_error(IpcErrorKind::Canceled)))
    })?;
    abort(thread.id(), ExregsControl::ABORT_SEND)?;
    check_nobody_queued()?;
    thread.join()
}

fn cancelled_and_stopped_thread_waits_for_its_start() -> Outcome {
    let thread = spawn(|| {
        let received = receive(tester().id()).map(drop);
        equal("receiving", received, Err(receive_error(IpcErrorKind::Canceled)))
    })?;
    abort_and_stop(thread.id(), ExregsControl::ABORT_IPC)?;
    equal("the state", thread.state()?, ScheduleResult::Inactive)?;
    l4::thread::resume(thread.id())?;
    thread.join()
}

/// What the faulting thread has in a message register.
fn mark(index: usize) -> Word {
    0x1234_0000 + index as Word * 3
}

fn cancelled_page_fault_is_retried() -> Outcome {
    let place = at(0x5000);
    page(0).set(99);
    let thread = plan().pager(tester().id()).spawn(move || {
        (0..MR_COUNT).for_each(|index| utcb().set_mr(index, mark(index)));
        equal("the word", memory::read(place), 99)?;
        (0..MR_COUNT).try_for_each(|index| equal(format_args!("MR{index}"), utcb().mr(index), mark(index)))
    })?;
    let was_in = |sending: bool| {
        let state = abort(thread.id(), ExregsControl::ABORT_IPC)?;
        // It faults again.
        placement::settle();
        check(state.was_sending() == sending && state.was_receiving() != sending, format_args!("it was in {state:?}"))
    };
    // While the fault is queued on its pager, then while it waits for the answer, then answered.
    was_in(true)?;
    was_in(true)?;
    for _ in 0..3 {
        check_fault(thread, place)?;
        was_in(false)?;
    }
    check_fault(thread, place)?;
    send_items(thread.id(), &[page(0).map_to(place, Rights::READ)])?;
    thread.join()
}

#[track_caller]
fn check_fault(thread: Thread, address: Word) -> Outcome {
    let fault = receive(thread.id())?;
    equal("the protocol", fault.tag.protocol(), PAGE_FAULT)?;
    equal("the address", utcb().mr(1), address)
}

fn start_elsewhere_out_of_an_ipc() -> Outcome {
    // A blocked thread begins again: what it was in is over, without a word to it.
    let thread = spawn(|| {
        match utcb().user_defined_handle() {
            0 => send_label(tester().id(), 1).map(drop)?,
            _ => return Ok(()),
        }
        Err(Failure::new("the IPC came back"))
    })?;
    l4::thread::set_user_defined_handle_of(thread.id(), 1)?;
    thread.restart()?;
    check_nobody_queued()?;
    thread.join()
}

// --- deletion ---

fn deleted_sender_leaves_the_queue() -> Outcome {
    let thread = spawn(|| send_label(tester().id(), 5).map(drop).map_err(Failure::from))?;
    thread.delete()?;
    check_nobody_queued()?;
    let received = ipc::ipc(ThreadId::NIL, thread.id(), NOW);
    check_result(received, MsgTag::ERROR_ONLY, receive_error(IpcErrorKind::NonExisting))
}

fn deleted_receiver_fails_its_senders() -> Outcome {
    let victim = spawn(|| l4::time::sleep_forever())?;
    let space = Space::create()?;
    let send = move || {
        utcb().set_tag(OWN);
        let sent = ipc::ipc(victim.id(), victim.id(), timeouts(PATIENCE, PATIENCE));
        equal("the error", sent.result().map(drop), Err(send_error(IpcErrorKind::NonExisting)))
    };
    let senders = [spawn(send)?, plan().space(space).spawn(send)?, spawn(send)?];
    victim.delete()?;
    senders.iter().try_for_each(|sender| sender.join())
}

fn deleted_partner_is_waited_for_in_vain() -> Outcome {
    let victim = spawn(|| l4::time::sleep_forever())?;
    let waiter = spawn(move || {
        let received = ipc::receive_timeout(victim.id(), Time::period_us(30_000)).map(drop);
        check(received.is_err(), "a deleted thread sends")
    })?;
    victim.delete()?;
    waiter.join()?;
    let sent = ipc::ipc(victim.id(), ThreadId::NIL, timeouts(PATIENCE, PATIENCE));
    check_result(sent, MsgTag::ERROR_ONLY, send_error(IpcErrorKind::NonExisting))
}

fn deleted_partner_of_a_call() -> Outcome {
    let victim = spawn(|| {
        receive(ThreadId::ANY)?;
        l4::time::sleep_forever()
    })?;
    let caller = spawn(move || {
        Msg::new(1).load();
        let called = ipc::call_timeouts(victim.id(), timeouts(PATIENCE, Time::period_us(30_000)));
        check(called.is_err_and(|error| error.phase == l4::Phase::Receive), format_args!("the call: {called:?}"))
    })?;
    victim.delete()?;
    caller.join()
}

fn deleted_pager_is_no_disaster() -> Outcome {
    let pager = spawn(|| l4::time::sleep_forever())?;
    let place = at(0x7000);
    let fault = move || {
        memory::read(place);
        Ok(())
    };
    // One whose fault is queued on the pager when that goes, one that faults later.
    let early = plan().pager(pager.id()).spawn(fault)?;
    equal("the state of the one", early.state()?, ScheduleResult::PendingSend)?;
    pager.delete()?;
    placement::settle();
    equal("the state of the one", early.state()?, ScheduleResult::Inactive)?;
    let late = plan().pager(pager.id()).spawn(fault)?;
    equal("the state of the other", late.state()?, ScheduleResult::Inactive)?;
    // With another pager, both can go on.
    page(1).set(5);
    for thread in [early, late] {
        l4::thread::set_pager_of(thread.id(), tester().id())?;
        l4::thread::resume(thread.id())?;
        check_fault(thread, place).within("after the resume")?;
        send_items(thread.id(), &[page(1).map_to(place, Rights::READ)])?;
        thread.join()?;
        flush_place(place)?;
    }
    Ok(())
}

/// Takes back what was mapped to a place of our own playground.
fn flush_place(place: Word) -> Outcome {
    let agent = crate::world::agent::Agent::new(Space::own())?;
    agent.flush([crate::world::memory::fpage(place, 12, Rights::ALL)])?;
    Ok(())
}

fn deletion_in_the_middle_of_a_queue() -> Outcome {
    let send = |label| move || send_label(tester().id(), label).map(drop).map_err(Failure::from);
    let threads = [spawn(send(0))?, spawn(send(1))?, spawn(send(2))?, spawn(send(3))?, spawn(send(4))?];
    threads[2].delete()?;
    threads[0].delete()?;
    threads[4].delete()?;
    equal("the label", receive(ThreadId::ANY)?.tag.label(), 1)?;
    equal("the label", receive(ThreadId::ANY)?.tag.label(), 3)?;
    check_nobody_queued()
}

fn deletion_between_spaces() -> Outcome {
    let space = Space::create()?;
    let server = plan().space(space).spawn(|| {
        let mut next = ipc::wait();
        loop {
            next = next.and_then(|call| ipc::reply_wait(call.from)).or_else(|_| ipc::wait());
        }
    })?;
    for _ in 0..20 {
        call_label(server.id(), 1)?;
        let client = spawn_later(move || call_label(server.id(), 2).map(drop).map_err(Failure::from))?;
        client.delete()?;
    }
    server.delete()?;
    equal("its id", inspect(server.id()).is_err(), true)?;
    equal("a call", call_label(server.id(), 1).map(drop), Err(send_error(IpcErrorKind::NonExisting)))
}
