//! Messages: words, partners, order, propagation, overflow.

use l4::ipc::{self, Outcome as IpcOutcome};
use l4::message::Msg;
use l4::time::timeouts;
use l4::{IpcError, IpcErrorKind, MR_COUNT, MapItem, MsgTag, Rights, ThreadId, Time, Timeouts, Word, kip, utcb};

use crate::arch::{self, Registers};
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory::{self, at, page};
use crate::world::messages::{
    NOW, call_label, check_words, equal_tags, load_words, receive, receive_error, receive_mapping, send_error,
    send_label, word,
};
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, PRIORITY_FIRST, PRIORITY_LATER, Thread, plan, spawn, spawn_later, tester};

chapter! { ipc:
    "X.2, Ipc, message transfer" => [
        words_by_send_and_receive,
        words_by_call_and_reply_wait,
        words_by_lipc,
        words_both_ways_of_different_length,
        registers_beyond_the_message_stay,
        registers_stay_after_an_error,
        tag_flags_are_the_kernels,
        untyped_words_alone_need_no_acceptor,
    ],
    "X.2, Ipc, phases" => [
        no_phase_returns_at_once,
        failed_send_skips_the_receive,
        reply_needs_no_patience,
        reply_wait_takes_queued_senders,
    ],
    "X.2, Ipc, partners" => [
        from_is_local_in_one_space,
        partners_by_local_id,
        closed_wait_takes_its_partner_alone,
        open_wait_takes_senders_in_order,
        order_does_not_depend_on_priority,
        anylocal_wait_takes_own_space_alone,
        wait_can_be_ended_by_whoever_comes_first: ORDER,
        partners_that_do_not_exist,
        stale_versions_do_not_exist,
        interrupts_and_oneself_can_be_waited_for,
        message_to_oneself_is_not_deliverable,
        lipc_is_ipc,
    ],
    "X.2, Propagation" => [
        propagation_in_one_space,
        propagation_in_ones_own_name,
        propagation_between_spaces_needs_a_common_one,
        propagation_of_nobody_is_dropped,
        propagation_redirects_a_waiting_virtual_sender,
        queued_propagation_is_found_by_both_ids,
    ],
    "X.2, Ipc, overflow" => [
        mapping_without_window_overflows,
        string_without_buffer_overflows,
        unknown_item_overflows,
        cut_item_overflows,
        typed_items_beyond_the_registers_overflow,
    ],
}

const ORDER: &str = "priorities order the threads of one processor";

const LABEL: Word = 0xF00F;
const ANSWER: Word = 0xF00D;

/// Runs `partner` before and after the tester, in both kinds of space; `meet` is the tester's side.
#[track_caller]
fn in_every_order<F>(partner: F, meet: impl Fn(Thread) -> Outcome) -> Outcome
where
    F: Fn() -> Outcome + Copy + Send + 'static,
{
    for (place, space) in Space::own_and_other()? {
        for (order, priority) in [("partner first", PRIORITY_FIRST), ("tester first", PRIORITY_LATER)] {
            let row = format_args!("{place}, {order}");
            let thread = plan().space(space).priority(priority).spawn(partner).within(row)?;
            meet(thread).within(row)?;
            thread.join().within(row)?;
        }
    }
    Ok(())
}

fn words_by_send_and_receive() -> Outcome {
    let sender = || {
        (0..MR_COUNT).try_for_each(|count| {
            load_words(LABEL, count);
            ipc::send_timeout(tester().id(), PATIENCE)?;
            Ok(())
        })
    };
    in_every_order(sender, |thread| {
        (0..MR_COUNT).try_for_each(|count| check_words(receive(thread.id())?.tag, LABEL, count))
    })?;
    let receiver = || (0..MR_COUNT).try_for_each(|count| check_words(receive(tester().id())?.tag, LABEL, count));
    in_every_order(receiver, |thread| {
        (0..MR_COUNT).try_for_each(|count| {
            load_words(LABEL, count);
            ipc::send_timeout(thread.id(), PATIENCE)?;
            Ok(())
        })
    })
}

type Call = fn(ThreadId) -> Result<IpcOutcome, IpcError>;

/// The tester calls with `call` and 0 to 63 words; its partner answers with `answer` and as many.
#[track_caller]
fn calls(call: Call, answer: Call) -> Outcome {
    let server = move || {
        let mut received = receive(tester().id())?;
        for count in 0..MR_COUNT {
            check_words(received.tag, LABEL, count)?;
            load_words(ANSWER, count);
            if count + 1 < MR_COUNT {
                received = answer(tester().id())?;
            }
        }
        ipc::reply(tester().id())?;
        Ok(())
    };
    in_every_order(server, |thread| {
        (0..MR_COUNT).try_for_each(|count| {
            load_words(LABEL, count);
            check_words(call(thread.id())?.tag, ANSWER, count)
        })
    })
}

fn words_by_call_and_reply_wait() -> Outcome {
    calls(ipc::call, ipc::reply_wait)
}

fn words_by_lipc() -> Outcome {
    let lcall: Call = |to| ipc::lipc(to, to, timeouts(PATIENCE, PATIENCE)).result();
    let lreply_wait: Call = |to| ipc::lipc(to, ThreadId::ANY, Timeouts::new(Time::ZERO, PATIENCE)).result();
    calls(lcall, lreply_wait)
}

fn words_both_ways_of_different_length() -> Outcome {
    let rows = [(0, 63), (63, 0), (1, 8), (7, 2), (8, 7), (5, 40)];
    let server = move || {
        rows.into_iter().try_for_each(|(there, back)| {
            check_words(receive(tester().id())?.tag, LABEL, there)?;
            load_words(ANSWER, back);
            ipc::reply(tester().id())?;
            Ok(())
        })
    };
    in_every_order(server, |thread| {
        rows.into_iter().try_for_each(|(there, back)| {
            load_words(LABEL, there);
            check_words(ipc::call_timeouts(thread.id(), timeouts(PATIENCE, PATIENCE))?.tag, ANSWER, back)
        })
    })
}

/// What this thread has in message register `index` before it receives.
fn mark(index: usize) -> Word {
    0xDEAD_0000 + index as Word
}

/// Calls Ipc with marks in all message registers behind MR0: those in processor registers only there.
fn raw_receive(from: ThreadId, to: ThreadId, tag: MsgTag, timeouts: Timeouts) -> Registers {
    let utcb = utcb();
    for index in 1..MR_COUNT {
        // The copies in the UTCB of what is in registers are stale.
        utcb.set_mr(index, if index < 8 { 0xBAD } else { mark(index) });
    }
    let mut registers = Registers { flags: Registers::PATTERN.flags, ..Registers::default() };
    for (index, register) in registers.message_mut().into_iter().enumerate() {
        *register = if index == 0 { tag.raw() } else { mark(index) };
    }
    arch::ipc(to, from, timeouts, registers)
}

/// Fails unless registers and UTCB hold `count` words and marks behind them.
fn check_marks(registers: &Registers, count: usize) -> Outcome {
    let expected = |index| if index <= count { word(count, index) } else { mark(index) };
    equal("rdi", registers.rdi, l4::thread::my_local_id().raw())?;
    for (index, register) in registers.message().into_iter().enumerate().skip(1) {
        equal(format_args!("the register of MR{index}"), register, expected(index))?;
    }
    (1..MR_COUNT).try_for_each(|index| equal(format_args!("MR{index}"), utcb().mr(index), expected(index)))
}

fn registers_beyond_the_message_stay() -> Outcome {
    let sender = || {
        (0..MR_COUNT).try_for_each(|count| {
            load_words(LABEL, count);
            ipc::send_timeout(tester().id(), PATIENCE)?;
            Ok(())
        })
    };
    in_every_order(sender, |thread| {
        (0..MR_COUNT).try_for_each(|count| {
            let registers = raw_receive(thread.id(), ThreadId::NIL, MsgTag::NIL, Timeouts::new(Time::NEVER, PATIENCE));
            equal_tags("the tag", MsgTag::from_raw(registers.r9), MsgTag::new(LABEL, count, 0))?;
            check_marks(&registers, count).within(format_args!("{count} words"))
        })
    })
}

fn registers_stay_after_an_error() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let asleep = spawn(|| l4::time::sleep_forever())?.id();
    let none = ThreadId::NIL;
    let rows = [
        ("receive timeout", asleep, none),
        ("nobody to receive from", nobody, none),
        ("send timeout", none, asleep),
        ("nobody to send to", none, nobody),
        ("no phase", none, none),
    ];
    for (what, from, to) in rows {
        let registers = raw_receive(from, to, MsgTag::NIL, NOW);
        check_marks(&registers, 0).within(what)?;
    }
    Ok(())
}

fn tag_flags_are_the_kernels() -> Outcome {
    let sender = || {
        for flags in [MsgTag::REDIRECTED, MsgTag::XCPU, MsgTag::ERROR, MsgTag::FLAGS & !MsgTag::PROPAGATED] {
            utcb().set_tag(MsgTag::new(LABEL, 0, 0).with_flags(flags));
            let sent = ipc::ipc(tester().id(), ThreadId::NIL, timeouts(PATIENCE, PATIENCE));
            check(!sent.tag.is_error(), "the sender's own tag makes an error")?;
        }
        Ok(())
    };
    in_every_order(sender, |thread| {
        (0..4).try_for_each(|_| equal_tags("the tag", receive(thread.id())?.tag, MsgTag::new(LABEL, 0, 0)))
    })
}

fn untyped_words_alone_need_no_acceptor() -> Outcome {
    // All that BR0 can say is about typed items.
    for acceptor in [0, 1, 0x10, Word::MAX] {
        let thread = spawn(move || {
            utcb().set_br(0, acceptor);
            check_words(receive(tester().id())?.tag, LABEL, 5)
        })?;
        load_words(LABEL, 5);
        ipc::send_timeout(thread.id(), PATIENCE)?;
        thread.join()?;
    }
    Ok(())
}

// --- phases ---

fn no_phase_returns_at_once() -> Outcome {
    utcb().set_tag(MsgTag::new(LABEL, 3, 0));
    let outcome = ipc::ipc(ThreadId::NIL, ThreadId::NIL, Timeouts::NEVER);
    equal_tags("the tag", outcome.tag, MsgTag::new(LABEL, 3, 0))
}

fn failed_send_skips_the_receive() -> Outcome {
    let nobody = Thread::reserve()?.id();
    // Somebody is queued on us: a receive phase would take the message.
    let sender = spawn(|| send_label(tester().id(), LABEL).map(drop).map_err(Failure::from))?;
    Msg::new(0).load();
    let outcome = ipc::ipc(nobody, ThreadId::ANY, timeouts(PATIENCE, PATIENCE));
    equal("the tag", outcome.tag, MsgTag::ERROR_ONLY)?;
    equal("the error", outcome.result().map(drop), Err(send_error(IpcErrorKind::NonExisting)))?;
    equal("the label of what is still there", receive(sender.id())?.tag.label(), LABEL)?;
    sender.join()
}

fn reply_needs_no_patience() -> Outcome {
    let server = || {
        (0..20).try_for_each(|_| {
            receive(tester().id())?;
            Msg::new(ANSWER).load();
            // The caller is in its receive phase as soon as its message is here.
            ipc::reply(tester().id())?;
            Ok(())
        })
    };
    in_every_order(server, |thread| {
        (0..20).try_for_each(|_| equal("the answer", call_label(thread.id(), LABEL)?.tag.label(), ANSWER))
    })
}

fn reply_wait_takes_queued_senders() -> Outcome {
    let client = || equal("the answer", call_label(tester().id(), LABEL)?.tag.label(), ANSWER);
    let clients = [spawn(client)?, spawn(client)?, spawn(client)?];
    let mut received = receive(ThreadId::ANY)?;
    for (i, client) in clients.iter().enumerate() {
        equal("who is served", received.from, client.local_id())?;
        Msg::new(ANSWER).load();
        if i + 1 < clients.len() {
            received = ipc::ipc(received.from, ThreadId::ANY, Timeouts::new(Time::ZERO, PATIENCE)).result()?;
        } else {
            ipc::reply(received.from)?;
        }
    }
    clients.iter().try_for_each(|client| client.join())
}

// --- partners ---

fn from_is_local_in_one_space() -> Outcome {
    let sender = || {
        send_label(tester().id(), LABEL)?;
        send_label(tester().id(), LABEL)?;
        Ok(())
    };
    in_every_order(sender, |thread| {
        let is_here =
            l4::thread::local_id_of(thread.id()).is_ok_and(|_| l4::thread::pager_of(thread.local_id()).is_ok());
        let expected = if is_here { thread.local_id() } else { thread.id() };
        equal("from of an open wait", receive(ThreadId::ANY)?.from, expected)?;
        equal("from of a closed wait", receive(thread.id())?.from, expected)
    })
}

fn partners_by_local_id() -> Outcome {
    for (order, priority) in [("partner first", PRIORITY_FIRST), ("tester first", PRIORITY_LATER)] {
        let thread = plan().priority(priority).spawn(|| {
            send_label(tester().local_id(), LABEL)?;
            equal("from", receive(tester().id())?.from, tester().local_id())?;
            equal("from", receive(tester().local_id())?.from, tester().local_id())
        })?;
        receive(thread.local_id()).map_err(Failure::from).within(order)?;
        send_label(thread.local_id(), LABEL).map_err(Failure::from).within(order)?;
        send_label(thread.id(), LABEL).map_err(Failure::from).within(order)?;
        thread.join().within(order)?;
    }
    Ok(())
}

fn send_to_tester(label: Word) -> impl Fn() -> Outcome + Copy + Send + 'static {
    move || {
        send_label(tester().id(), label)?;
        Ok(())
    }
}

fn closed_wait_takes_its_partner_alone() -> Outcome {
    let (first, second) = (spawn(send_to_tester(1))?, spawn(send_to_tester(2))?);
    equal("the label", receive(second.id())?.tag.label(), 2)?;
    let late = spawn_later(send_to_tester(3))?;
    equal("the label", receive(late.id())?.tag.label(), 3)?;
    equal("the label", receive(first.id())?.tag.label(), 1)
}

/// Makes senders with these priorities, in this order; in which order they get through.
#[track_caller]
fn senders_in_order<const N: usize>(priorities: [u8; N]) -> Outcome {
    let space = Space::create()?;
    for (i, priority) in priorities.into_iter().enumerate() {
        let space = if i % 2 == 0 { Space::own() } else { space };
        plan().space(space).priority(priority).spawn(send_to_tester(i as Word))?;
    }
    for i in 0..N {
        equal("the label", receive(ThreadId::ANY)?.tag.label(), i as Word)?;
    }
    Ok(())
}

fn open_wait_takes_senders_in_order() -> Outcome {
    senders_in_order([PRIORITY_FIRST; 8])
}

fn order_does_not_depend_on_priority() -> Outcome {
    senders_in_order([101, 200, 150, 110, 254, 102])
}

fn anylocal_wait_takes_own_space_alone() -> Outcome {
    let space = Space::create()?;
    let far = plan().space(space).spawn(send_to_tester(1))?;
    let outcome = ipc::ipc(ThreadId::NIL, ThreadId::ANY_LOCAL, NOW).result();
    equal("the error", outcome.map(drop), Err(receive_error(IpcErrorKind::Timeout)))?;
    let near = spawn(send_to_tester(2))?;
    equal("from, queued", receive(ThreadId::ANY_LOCAL)?.from, near.local_id())?;
    let late = spawn_later(send_to_tester(3))?;
    plan().space(space).priority(95).spawn(send_to_tester(4))?;
    equal("from, later", receive(ThreadId::ANY_LOCAL)?.from, late.local_id())?;
    equal("from, after all", receive(ThreadId::ANY)?.from, far.id())
}

fn wait_can_be_ended_by_whoever_comes_first() -> Outcome {
    let space = Space::create()?;
    let slow = plan().space(space).priority(80).spawn(send_to_tester(2))?;
    let fast = plan().space(space).priority(90).spawn(send_to_tester(1))?;
    equal("from", receive(ThreadId::ANY)?.from, fast.id())?;
    equal("from", receive(ThreadId::ANY)?.from, slow.id())
}

/// Fails unless neither sending to `id` nor receiving from it finds a partner.
#[track_caller]
fn check_no_partner(id: ThreadId) -> Outcome {
    Msg::new(0).load();
    let sent = ipc::ipc(id, ThreadId::NIL, timeouts(PATIENCE, PATIENCE));
    equal("the tag after send", sent.tag, MsgTag::ERROR_ONLY)?;
    equal("sending", sent.result().map(drop), Err(send_error(IpcErrorKind::NonExisting)))?;
    let received = ipc::ipc(ThreadId::NIL, id, timeouts(PATIENCE, PATIENCE));
    equal("the tag after receive", received.tag, MsgTag::ERROR_ONLY)?;
    equal("receiving", received.result().map(drop), Err(receive_error(IpcErrorKind::NonExisting)))
}

fn partners_that_do_not_exist() -> Outcome {
    let nobody = Thread::reserve()?;
    check_no_partner(nobody.id())?;
    check_no_partner(nobody.local_id())?;
    let beyond = ThreadId::global(tester().id().thread_no() | 1 << l4::THREAD_ID_BITS, tester().id().version());
    check_no_partner(beyond).within("number beyond the table")?;
    // Local ids that are no UTCB: not aligned to one, and outside the area.
    check_no_partner(ThreadId::local(tester().local_id().raw() + 64)).within("odd local id")?;
    check_no_partner(ThreadId::local(0x1000)).within("local id outside")
}

fn stale_versions_do_not_exist() -> Outcome {
    let thread = spawn(|| l4::time::sleep_forever())?;
    check_no_partner(ThreadId::global(thread.id().thread_no(), thread.id().version() + 1))?;
    check_no_partner(ThreadId::global(kip::sigma0_id().thread_no(), 2))
}

fn interrupts_and_oneself_can_be_waited_for() -> Outcome {
    for id in [ThreadId::interrupt(3), tester().id(), tester().local_id()] {
        let outcome = ipc::ipc(ThreadId::NIL, id, NOW).result();
        let expected = Err(receive_error(IpcErrorKind::Timeout));
        equal("the error", outcome.map(drop), expected).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn message_to_oneself_is_not_deliverable() -> Outcome {
    let to_self = |timeouts| {
        Msg::new(0).load();
        ipc::ipc(tester().id(), tester().id(), timeouts).result().map(drop)
    };
    equal("at once", to_self(NOW), Err(send_error(IpcErrorKind::Timeout)))?;
    let short = Time::period_us(1000);
    equal("after a while", to_self(timeouts(short, short)), Err(send_error(IpcErrorKind::Timeout)))
}

fn lipc_is_ipc() -> Outcome {
    // Even where Lipc promises nothing: between spaces, with timeouts and mappings.
    let space = Space::create()?;
    let thread = plan().space(space).spawn(|| {
        receive_mapping(tester().id(), crate::world::memory::playground())?;
        equal("the word", memory::read(at(0)), 815)
    })?;
    page(0).set(815);
    let mut msg = Msg::new(0);
    msg.append_map(page(0).map_to(0, Rights::READ)).load();
    ipc::lipc(thread.id(), ThreadId::NIL, timeouts(PATIENCE, PATIENCE)).result()?;
    thread.join()?;
    let outcome = ipc::lipc(ThreadId::NIL, ThreadId::ANY, NOW).result();
    equal("the error", outcome.map(drop), Err(receive_error(IpcErrorKind::Timeout)))
}

// --- propagation ---

/// Sends to the tester in the name of another thread.
fn send_as(virtual_sender: ThreadId) -> impl Fn() -> Outcome + Copy + Send + 'static {
    move || {
        utcb().set_virtual_sender(virtual_sender);
        utcb().set_tag(MsgTag::new(LABEL, 0, 0).with_flags(MsgTag::PROPAGATED));
        ipc::send_timeout(tester().id(), PATIENCE)?;
        Ok(())
    }
}

/// Fails unless a message is from `from`, sent in its name by `actual`; nobody: it is not propagated.
#[track_caller]
fn check_propagated(received: IpcOutcome, from: ThreadId, actual: Option<ThreadId>) -> Outcome {
    equal("from", received.from, from)?;
    equal("P", received.tag.is_propagated(), actual.is_some())?;
    equal("the label", received.tag.label(), LABEL)?;
    match actual {
        Some(actual) => equal("ActualSender", utcb().actual_sender(), actual),
        None => Ok(()),
    }
}

fn propagation_in_one_space() -> Outcome {
    let client = spawn(|| l4::time::sleep_forever())?;
    for priority in [PRIORITY_FIRST, PRIORITY_LATER] {
        let deputy = plan().priority(priority).spawn(send_as(client.id()))?;
        check_propagated(receive(ThreadId::ANY)?, client.local_id(), Some(deputy.id()))?;
        deputy.join()?;
    }
    Ok(())
}

fn propagation_in_ones_own_name() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let itself = || send_as(utcb().my_global_id())();
        let sender = plan().space(space).spawn(itself).within(place)?;
        let from = if space == Space::own() { sender.local_id() } else { sender.id() };
        check_propagated(receive(ThreadId::ANY)?, from, Some(sender.id())).within(place)?;
        sender.join().within(place)?;
    }
    Ok(())
}

fn propagation_between_spaces_needs_a_common_one() -> Outcome {
    let (here, there) = (Space::own(), Space::create()?);
    let elsewhere = Space::create()?;
    let sleeper = || l4::time::sleep_forever();
    // Space of the virtual sender, space of the deputy, whether it may: the virtual sender is in the deputy's space, or
    // the deputy is in the receiver's.
    let rows = [(there, there, true), (there, here, true), (here, there, false), (elsewhere, there, false)];
    for (i, (client_space, deputy_space, may)) in rows.into_iter().enumerate() {
        let client = plan().space(client_space).spawn(sleeper)?;
        let deputy = plan().space(deputy_space).spawn(send_as(client.id()))?;
        let seen = |thread: Thread, space| if space == here { thread.local_id() } else { thread.id() };
        let from = if may { seen(client, client_space) } else { seen(deputy, deputy_space) };
        check_propagated(receive(ThreadId::ANY)?, from, may.then_some(deputy.id())).within(format_args!("row {i}"))?;
    }
    Ok(())
}

fn propagation_of_nobody_is_dropped() -> Outcome {
    let nobody = Thread::reserve()?.id();
    for id in [nobody, ThreadId::NIL, ThreadId::ANY] {
        let deputy = spawn(send_as(id))?;
        check_propagated(receive(ThreadId::ANY)?, deputy.local_id(), None).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn propagation_redirects_a_waiting_virtual_sender() -> Outcome {
    // A client calls a deputy, which passes the call on; the answer goes to the client without the deputy.
    let deputy = plan().priority(PRIORITY_LATER).spawn(|| {
        let call = receive(ThreadId::ANY)?;
        let client = l4::thread::global_id_of(call.from)?;
        send_as(client)()
    })?;
    let client = spawn(move || equal("the answer", call_label(deputy.id(), LABEL)?.tag.label(), ANSWER))?;
    check_propagated(receive(ThreadId::ANY)?, client.local_id(), Some(deputy.id()))?;
    Msg::new(ANSWER).load();
    ipc::reply(client.id())?;
    client.join()?;
    deputy.join()
}

fn queued_propagation_is_found_by_both_ids() -> Outcome {
    let client = spawn(|| l4::time::sleep_forever())?;
    let first = spawn(send_as(client.id()))?;
    check_propagated(receive(client.id())?, client.local_id(), Some(first.id()))
        .within("by the virtual sender's id")?;
    let second = spawn(send_as(client.id()))?;
    check_propagated(receive(second.id())?, client.local_id(), Some(second.id())).within("by the actual sender's id")
}

// --- overflow ---

/// Sends to the tester what `load` puts in the message registers: both sides must see an overflow at once.
#[track_caller]
fn check_overflow(load: fn() -> MsgTag) -> Outcome {
    let sender = move || {
        let tag = load();
        utcb().set_tag(tag);
        let sent = ipc::ipc(tester().id(), ThreadId::NIL, timeouts(PATIENCE, PATIENCE));
        equal("the sender's tag", sent.tag, tag.with_flags(MsgTag::ERROR))?;
        equal("the sender's error", sent.result().map(drop), Err(send_error(IpcErrorKind::Overflow)))
    };
    in_every_order(sender, |thread| {
        let received = ipc::ipc(ThreadId::NIL, thread.id(), timeouts(PATIENCE, PATIENCE));
        equal_tags("the receiver's tag", received.tag, load().with_flags(MsgTag::ERROR))?;
        equal("the receiver's error", received.result().map(drop), Err(receive_error(IpcErrorKind::Overflow)))
    })
}

fn load_item(untyped: usize, typed: usize, words: [Word; 2]) -> MsgTag {
    words.into_iter().enumerate().for_each(|(i, word)| utcb().set_mr((untyped + 1 + i).min(MR_COUNT - 1), word));
    MsgTag::new(LABEL, untyped, typed)
}

fn mapping_without_window_overflows() -> Outcome {
    check_overflow(|| load_item(0, 2, page(0).map_to(0, Rights::READ).words()))?;
    check_overflow(|| load_item(3, 2, page(0).map_to(0, Rights::READ).words()))?;
    check_overflow(|| load_item(0, 2, MapItem::grant(page(0).fpage(Rights::READ), 0).words()))
}

fn string_without_buffer_overflows() -> Outcome {
    check_overflow(|| load_item(0, 2, [64 << 10, page(0).address()]))
}

fn unknown_item_overflows() -> Outcome {
    check_overflow(|| load_item(1, 2, [0xE, 0]))
}

fn cut_item_overflows() -> Outcome {
    check_overflow(|| load_item(0, 1, page(0).map_to(0, Rights::READ).words()))
}

fn typed_items_beyond_the_registers_overflow() -> Outcome {
    check_overflow(|| load_item(62, 2, page(0).map_to(0, Rights::READ).words()))?;
    check_overflow(|| load_item(63, 63, page(0).map_to(0, Rights::READ).words()))
}
