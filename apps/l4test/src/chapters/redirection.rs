//! Redirection: what leaves a space goes to its redirector.

use l4::ipc::{self, Outcome as IpcOutcome};
use l4::message::Msg;
use l4::time::timeouts;
use l4::{Fpage, IpcErrorKind, MsgTag, SpaceControl, SysError, ThreadId, Time, Timeouts, Word, space, thread, utcb};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::messages::{NOW, call_label, equal_tags, receive, send_error, send_label};
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, PRIORITY_FIRST, Thread, plan, spawn, tester};

chapter! { redirection:
    "X.2, SpaceControl" => [
        redirector_must_exist,
        control_bits_have_no_effect,
    ],
    "X.2, Redirection" => [
        redirector_learns_whom_a_message_is_for,
        programs_run_behind_a_redirector,
        redirector_answers_for_others,
        thread_that_waits_is_redirected_afterwards,
        space_without_its_redirector_is_closed,
    ],
}

const LABEL: Word = 0x10;
/// What a redirector adds to the labels of the messages that it passes on.
const PASSED: Word = 0x100;

fn redirect(space: Space, redirector: ThreadId) -> Result<(), SysError> {
    space::space_control(space.specifier(), SpaceControl::NONE, Fpage::NIL, Fpage::NIL, redirector).map(drop)
}

fn redirector_must_exist() -> Outcome {
    let space = Space::create()?;
    let nobody = Thread::reserve()?;
    let stale = ThreadId::global(tester().id().thread_no(), tester().id().version() + 1);
    for (what, id) in [
        ("nobody", nobody.id()),
        ("stale", stale),
        ("anylocalthread", ThreadId::ANY_LOCAL),
        ("an interrupt", ThreadId::interrupt(1)),
        ("nobody's local id", nobody.local_id()),
    ] {
        equal(what, redirect(space, id), Err(SysError::InvalidSpace))?;
    }
    for id in [tester().id(), tester().local_id(), ThreadId::NIL, ThreadId::ANY, ThreadId::ANY] {
        redirect(space, id).map_err(Into::into).within(format_args!("{id:?}"))?;
    }
    let member = plan().space(space).spawn(move || {
        equal("a redirector of one's own", redirect(space, ThreadId::ANY), Err(SysError::NoPrivilege))
    })?;
    member.join()
}

/// amd64 ABI, SpaceControl: without compatibility mode every control bit but those of quotas is ignored, and the old control
/// word is 0.
fn control_bits_have_no_effect() -> Outcome {
    let own = Space::create()?.specifier();
    let quotas = (SpaceControl::QUOTA | SpaceControl::USAGE).raw();
    for control in [SpaceControl::MODE, SpaceControl::from_raw(!quotas), SpaceControl::NONE] {
        let old = space::space_control(own, control, Fpage::NIL, Fpage::NIL, ThreadId::NIL)?;
        equal("the old control word", old, SpaceControl::NONE)?;
    }
    Ok(())
}

/// Sends the message in the registers on, in the name of whom it came from, with another label.
fn pass_on(received: IpcOutcome, label: Word) -> Outcome {
    let sender = thread::global_id_of(received.from)?;
    let tag = received.tag.with_label(label).without_flags(MsgTag::FLAGS);
    utcb().set_tag(tag.with_flags(MsgTag::PROPAGATED));
    utcb().set_virtual_sender(sender);
    ipc::send_timeout(utcb().intended_receiver(), PATIENCE)?;
    Ok(())
}

/// Passes on whatever leaves a space, and marks what is no message of the kernel's.
fn pass_all_on() -> Outcome {
    loop {
        let received = ipc::wait()?;
        check(received.tag.is_redirected(), "the redirector is sent to")?;
        let mark = if received.tag.protocol() < 0 { 0 } else { PASSED };
        // A reply may come too late for somebody who has waited with patience.
        let _ = pass_on(received, received.tag.label() + mark);
    }
}

/// A redirector that lets everything through, with more priority than anybody whose messages it passes on.
#[track_caller]
fn spawn_transparent(space: Space) -> Outcome<Thread> {
    plan().space(space).priority(PRIORITY_FIRST + 10).spawn(pass_all_on)
}

fn redirector_learns_whom_a_message_is_for() -> Outcome {
    let there = Space::create()?;
    let other = spawn(|| l4::time::sleep_forever())?;
    let client = plan().space(there).spawn(move || {
        receive(tester().id())?;
        send_label(other.id(), LABEL)?;
        send_label(tester().id(), LABEL + 1)?;
        Ok(())
    })?;
    redirect(there, tester().id())?;
    send_label(client.id(), 0)?;
    let first = receive(ThreadId::ANY)?;
    equal_tags("the tag", first.tag, MsgTag::new(LABEL, 0, 0).with_flags(MsgTag::REDIRECTED))?;
    equal("from", first.from, client.id())?;
    equal("IntendedReceiver", utcb().intended_receiver(), other.id())?;
    let second = receive(ThreadId::ANY)?;
    equal_tags("the tag of a message to the redirector", second.tag, MsgTag::new(LABEL + 1, 0, 0))?;
    client.join()
}

fn programs_run_behind_a_redirector() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let there = Space::create()?;
        let redirector = spawn_transparent(space).within(place)?;
        redirect(there, redirector.id()).map_err(Into::into).within(place)?;
        // Its very first instruction is a page fault that leaves the space.
        let inside = plan().space(there).spawn(|| l4::time::sleep_forever()).within(place)?;
        let client = plan().space(there).spawn(move || {
            let received = receive(tester().id())?;
            equal("a message into the space", received.tag.label(), LABEL)?;
            Msg::new(LABEL + 1).load();
            let answer = ipc::call_timeouts(tester().id(), timeouts(PATIENCE, PATIENCE))?;
            equal("the answer", (answer.from, answer.tag.label()), (tester().id(), LABEL + 2))?;
            let inner = ipc::ipc(inside.id(), ThreadId::NIL, NOW).result();
            equal("a message within the space", inner.map(drop), Err(send_error(IpcErrorKind::Timeout)))
        });
        let client = client.within(place)?;
        send_label(client.id(), LABEL).map_err(Into::into).within(place)?;
        let call = receive(client.id()).map_err(Into::into).within(place)?;
        equal("the label", call.tag.label(), LABEL + 1 + PASSED).within(place)?;
        equal("P", call.tag.is_propagated(), true).within(place)?;
        equal("ActualSender", utcb().actual_sender(), redirector.id()).within(place)?;
        send_label(client.id(), LABEL + 2).map_err(Into::into).within(place)?;
        client.join().within(place)?;
    }
    Ok(())
}

fn redirector_answers_for_others() -> Outcome {
    let there = Space::create()?;
    let other = spawn(|| l4::time::sleep_forever())?;
    let client = plan().space(there).spawn(move || {
        receive(tester().id())?;
        let answer = call_label(other.id(), LABEL)?;
        equal("the answer", (answer.from, answer.tag.label()), (other.id(), LABEL + 1))?;
        check(answer.tag.is_propagated(), "the answer is not propagated")?;
        equal("ActualSender", utcb().actual_sender(), tester().id())
    })?;
    redirect(there, tester().id())?;
    send_label(client.id(), 0)?;
    receive(client.id())?;
    let own_name = ipc::ipc(client.id(), ThreadId::NIL, NOW).result();
    equal("an answer in the redirector's own name", own_name.map(drop), Err(send_error(IpcErrorKind::Timeout)))?;
    utcb().set_virtual_sender(utcb().intended_receiver());
    utcb().set_tag(MsgTag::new(LABEL + 1, 0, 0).with_flags(MsgTag::PROPAGATED));
    ipc::send_timeout(client.id(), PATIENCE)?;
    client.join()
}

/// Who waits in a way that the fast path can end when its space gets a redirector is redirected when it calls next, as is
/// one that wakes and waits again and again.
fn thread_that_waits_is_redirected_afterwards() -> Outcome {
    let there = Space::create()?;
    let redirector = spawn_transparent(Space::create()?)?;
    let server = plan().space(Space::create()?).spawn(|| {
        let mut received = ipc::wait()?;
        loop {
            Msg::new(received.tag.label() + 1).load();
            received = ipc::reply_wait(received.from)?;
        }
    })?;
    let client = plan().space(there).spawn(move || {
        let mut received = ipc::wait()?;
        loop {
            Msg::new(received.tag.label()).load();
            let answer = ipc::call(server.id())?;
            Msg::new(answer.tag.label() + 1).load();
            // The redirector may still be on its way back from the server.
            received = ipc::ipc(received.from, ThreadId::ANY, Timeouts::new(PATIENCE, Time::NEVER)).result()?;
        }
    })?;
    for round in 0..3 {
        for (redirector, passed) in [(ThreadId::ANY, 0), (redirector.id(), 2 * PASSED)] {
            redirect(there, redirector)?;
            for _ in 0..3 {
                Msg::new(LABEL).load();
                let answer = ipc::call(client.id())?;
                equal("the label", answer.tag.label(), LABEL + 2 + passed).within(format_args!("round {round}"))?;
            }
        }
    }
    Ok(())
}

fn space_without_its_redirector_is_closed() -> Outcome {
    let there = Space::create()?;
    let redirector = spawn(|| l4::time::sleep_forever())?;
    let client = plan().space(there).spawn(move || {
        receive(tester().id())?;
        let queued = send_label(tester().id(), LABEL).map(drop);
        equal("a message that waited for the redirector", queued, Err(send_error(IpcErrorKind::NonExisting)))?;
        let later = send_label(tester().id(), LABEL).map(drop);
        equal("a message without a redirector", later, Err(send_error(IpcErrorKind::NonExisting)))?;
        receive(tester().id())?;
        receive(tester().id())?;
        send_label(tester().id(), LABEL + 1)?;
        Ok(())
    })?;
    redirect(there, redirector.id())?;
    send_label(client.id(), 0)?;
    redirector.delete()?;
    send_label(client.id(), 0)
        .map_err(|error| Failure::new(format_args!("a closed space gets no message: {error:?}")))?;
    redirect(there, ThreadId::ANY)?;
    send_label(client.id(), 0)?;
    equal("a message of the open space", receive(client.id())?.tag.label(), LABEL + 1)?;
    client.join()
}
