//! The parameters of Ipc: ids, tags, items and acceptors with every odd value.

use l4::ipc::{self, Outcome as IpcOutcome};
use l4::message::Msg;
use l4::time::{sleep_forever, timeouts};
use l4::{
    Acceptor, Fpage, IpcError, IpcErrorKind, MR_COUNT, MapItem, MsgTag, Rights, THREAD_ID_BITS, ThreadId, Time, Word,
    kip, utcb,
};

use crate::arch;
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::control::MARK;
use crate::world::memory::{PAGE_SIZE, PAGES, at, page, playground, window};
use crate::world::messages::{NOW, accept_in, equal_tags, receive, receive_error, send_error, send_label, without_x};
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, Thread, give_back, plan, spawn, spawn_later, supervisor, tester};

chapter! { ipc_words:
    "X.2, Ipc, identifiers" => [
        special_ids_are_no_receiver,
        wild_ids_are_no_partner,
        wild_local_ids_are_no_partner,
        interrupts_are_waited_for_by_version_1_alone,
        interrupts_never_associated_are_no_receiver,
        local_ids_are_of_the_own_space,
        forged_my_global_id_deceives_nobody,
        forged_processor_number_means_nothing,
        send_error_comes_before_the_receive_error,
    ],
    "X.2, Propagation" => [
        wild_virtual_senders_are_dropped,
        virtual_sender_without_p_means_nothing,
        virtual_sender_may_be_local,
        propagation_in_the_own_name_is_one,
    ],
    "X.2, Message tag" => [labels_of_every_width, successful_send_keeps_the_tag, r_x_and_e_never_arrive],
    "X.2, Typed items" => [
        every_kind_of_item,
        c_and_reserved_bits_of_map_items_are_ignored,
        most_items_of_a_message,
        one_item_more_overflows_after_the_others,
        words_and_items_fill_all_registers,
        words_and_items_beyond_all_registers_overflow,
        grant_items_are_like_map_items,
    ],
    "X.2, Acceptor" => [
        reserved_bits_are_ignored,
        window_too_small_for_a_page_takes_nothing,
        windows_outside_user_memory_take_nothing,
        misaligned_window_is_aligned_down,
        strings_alone_take_no_mapping,
        window_alone_takes_no_string,
        strings_without_buffers_overflow,
        acceptor_of_the_sender_means_nothing,
        acceptor_counts_at_the_transfer,
    ],
    "X.2, Ipc, timeouts" => [transfer_timeouts_do_not_matter_to_words, success_leaves_error_code],
}

const LABEL: Word = 0x515;

fn send_now(to: ThreadId) -> Result<(), IpcError> {
    Msg::new(LABEL).load();
    ipc::ipc(to, ThreadId::NIL, NOW).result().map(drop)
}

fn receive_now(from: ThreadId) -> Result<(), IpcError> {
    ipc::ipc(ThreadId::NIL, from, NOW).result().map(drop)
}

/// Fails unless nobody has this id, with and without patience.
#[track_caller]
fn check_nobody(id: ThreadId) -> Outcome {
    let (sent, received) = (send_error(IpcErrorKind::NonExisting), receive_error(IpcErrorKind::NonExisting));
    equal("sending at once", send_now(id), Err(sent))?;
    Msg::new(LABEL).load();
    equal("sending", ipc::send_timeout(id, PATIENCE).map(drop), Err(sent))?;
    equal("receiving at once", receive_now(id), Err(received))?;
    equal("receiving", receive(id).map(drop), Err(received))?;
    Msg::new(LABEL).load();
    equal("a call", ipc::call_timeouts(id, timeouts(PATIENCE, PATIENCE)).map(drop), Err(sent))
}

// --- identifiers ---

fn special_ids_are_no_receiver() -> Outcome {
    for id in [ThreadId::ANY, ThreadId::ANY_LOCAL] {
        let expected = Err(send_error(IpcErrorKind::NonExisting));
        equal("sending", send_now(id), expected).within(format_args!("{id:?}"))?;
        Msg::new(LABEL).load();
        let called = ipc::ipc(id, ThreadId::ANY, NOW).result().map(drop);
        equal("sending and waiting", called, expected).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn wild_ids_are_no_partner() -> Outcome {
    let (info, me) = (kip::kip().thread_info, tester().id());
    let rows = [
        ThreadId::global(info.system_base(), 1),
        ThreadId::global(info.user_base() - 1, 1),
        ThreadId::global(info.user_base(), 2),
        ThreadId::global(me.thread_no(), me.version() + 1),
        ThreadId::global(me.thread_no(), me.version() | 1 << 31),
        ThreadId::global(me.thread_no() | 1 << THREAD_ID_BITS, me.version()),
        ThreadId::global((1 << THREAD_ID_BITS) - 1, 1),
        ThreadId::global(ThreadId::THREAD_NO_MAX, ThreadId::VERSION_MAX - 1),
        Thread::reserve()?.id(),
    ];
    rows.into_iter().try_for_each(|id| check_nobody(id).within(format_args!("{id:?}")))
}

fn wild_local_ids_are_no_partner() -> Outcome {
    let own = tester().local_id().raw();
    let mr0 = l4::UTCB_MR0_OFFSET as Word;
    let rows = [
        64,
        own + 64,
        own - mr0,
        Thread::reserve()?.local_id().raw(),
        l4::ROOT_UTCB_AREA_BASE - l4::UTCB_SIZE as Word + mr0,
        l4::ROOT_KIP_AREA_BASE + mr0,
        at(0) + mr0,
        own | 1 << 40,
        (1 << 47) - 64,
        arch::NON_CANONICAL,
        arch::KERNEL_ADDRESS + mr0,
        Word::MAX - 127,
    ];
    rows.into_iter().try_for_each(|address| check_nobody(ThreadId::local(address)).within(format_args!("{address:#x}")))
}

fn interrupts_are_waited_for_by_version_1_alone() -> Outcome {
    let last = kip::kip().thread_info.system_base() - 1;
    for number in [0, 3, last] {
        let expected = Err(receive_error(IpcErrorKind::Timeout));
        equal("version 1", receive_now(ThreadId::interrupt(number)), expected).within(number)?;
        for version in [2, 65, ThreadId::VERSION_MAX] {
            let expected = Err(receive_error(IpcErrorKind::NonExisting));
            equal("another version", receive_now(ThreadId::global(number, version)), expected).within(number)?;
        }
    }
    Ok(())
}

fn interrupts_never_associated_are_no_receiver() -> Outcome {
    let last = kip::kip().thread_info.system_base() - 1;
    for number in [1, 3, 9, last] {
        let expected = Err(send_error(IpcErrorKind::NonExisting));
        equal("sending", send_now(ThreadId::interrupt(number)), expected).within(number)?;
    }
    Ok(())
}

fn local_ids_are_of_the_own_space() -> Outcome {
    let space = Space::create()?;
    let theirs = plan().space(space).spawn(|| sleep_forever())?;
    check_nobody(theirs.local_id()).within("theirs, here")?;
    let ours = spawn(|| sleep_forever())?;
    let judge = plan().space(space).spawn(move || {
        check_nobody(ours.local_id()).within("ours, there")?;
        equal("theirs, there", send_now(theirs.local_id()), Err(send_error(IpcErrorKind::Timeout)))
    })?;
    judge.join()
}

fn forged_my_global_id_deceives_nobody() -> Outcome {
    for forged in [supervisor(), kip::sigma0_id(), tester().id(), ThreadId::NIL, ThreadId::ANY, ThreadId::interrupt(3)]
    {
        for (place, space) in Space::own_and_other()? {
            let forger = plan().space(space).spawn(move || {
                let own = utcb().my_global_id();
                utcb().set_my_global_id(forged);
                let sent = send_label(tester().id(), LABEL);
                utcb().set_my_global_id(own);
                sent?;
                Ok(())
            })?;
            let from = receive(ThreadId::ANY)?.from;
            let global = l4::thread::global_id_of(from).unwrap_or(from);
            // While it has forged the register its local id names nobody.
            let is_right = global == forger.id() || from == forger.local_id();
            check(is_right, format_args!("the message is from {from:?}")).within(place)?;
            forger.join()?;
            forger.delete()?;
            give_back(1);
        }
        give_back(1);
    }
    Ok(())
}

fn forged_processor_number_means_nothing() -> Outcome {
    for forged in [1, 3, 255, Word::MAX] {
        let forger = spawn(move || {
            utcb().set_processor_no(forged);
            send_label(tester().id(), LABEL)?;
            Ok(())
        })?;
        equal_tags("the tag", receive(forger.id())?.tag, MsgTag::new(LABEL, 0, 0)).within(forged)?;
        forger.join()?;
    }
    Ok(())
}

fn send_error_comes_before_the_receive_error() -> Outcome {
    let (nobody, deaf) = (Thread::reserve()?.id(), spawn(|| sleep_forever())?.id());
    let both = |to, from| {
        Msg::new(LABEL).load();
        ipc::ipc(to, from, NOW).result().map(drop)
    };
    equal("nobody to nobody", both(nobody, nobody), Err(send_error(IpcErrorKind::NonExisting)))?;
    equal("to nobody", both(nobody, deaf), Err(send_error(IpcErrorKind::NonExisting)))?;
    // A receive phase that cannot be is not noticed before the message is sent.
    equal("from nobody", both(deaf, nobody), Err(send_error(IpcErrorKind::Timeout)))?;
    let taker = spawn(|| equal("the label", receive(tester().id())?.tag.label(), LABEL))?;
    equal("from nobody, sent", both(taker.id(), nobody), Err(receive_error(IpcErrorKind::NonExisting)))?;
    taker.join()
}

// --- propagation ---

/// Sends to the tester with this virtual sender and these flags.
fn send_as(virtual_sender: ThreadId, flags: Word) -> impl Fn() -> Outcome + Copy + Send + 'static {
    move || {
        utcb().set_virtual_sender(virtual_sender);
        utcb().set_tag(MsgTag::new(LABEL, 0, 0).with_flags(flags));
        ipc::send_timeout(tester().id(), PATIENCE)?;
        Ok(())
    }
}

/// Fails unless a message is from `sender` itself.
#[track_caller]
fn check_own_name(received: IpcOutcome, sender: Thread) -> Outcome {
    equal("from", received.from, sender.local_id())?;
    equal_tags("the tag", received.tag, MsgTag::new(LABEL, 0, 0))
}

fn wild_virtual_senders_are_dropped() -> Outcome {
    let me = tester().id();
    let rows = [
        ThreadId::NIL,
        ThreadId::ANY,
        ThreadId::ANY_LOCAL,
        ThreadId::interrupt(3),
        ThreadId::global(kip::kip().thread_info.system_base(), 1),
        ThreadId::global(me.thread_no(), me.version() + 1),
        ThreadId::global(me.thread_no() | 1 << THREAD_ID_BITS, me.version()),
        ThreadId::local(tester().local_id().raw() + 64),
        ThreadId::local(at(0x200)),
        ThreadId::local(arch::NON_CANONICAL),
        ThreadId::local(arch::KERNEL_ADDRESS),
        Thread::reserve()?.id(),
    ];
    for id in rows {
        let sender = spawn(send_as(id, MsgTag::PROPAGATED))?;
        check_own_name(receive(ThreadId::ANY)?, sender).within(format_args!("{id:?}"))?;
        sender.join()?;
    }
    Ok(())
}

fn virtual_sender_without_p_means_nothing() -> Outcome {
    let client = spawn(|| sleep_forever())?;
    let sender = spawn(send_as(client.id(), 0))?;
    check_own_name(receive(ThreadId::ANY)?, sender)?;
    sender.join()
}

fn virtual_sender_may_be_local() -> Outcome {
    let client = spawn(|| sleep_forever())?;
    let sender = spawn(send_as(client.local_id(), MsgTag::PROPAGATED))?;
    let received = receive(ThreadId::ANY)?;
    equal("from", received.from, client.local_id())?;
    check(received.tag.is_propagated(), "P is not set")?;
    equal("ActualSender", utcb().actual_sender(), sender.id())?;
    sender.join()
}

fn propagation_in_the_own_name_is_one() -> Outcome {
    let sender = spawn(|| send_as(utcb().my_global_id(), MsgTag::PROPAGATED)())?;
    let received = receive(ThreadId::ANY)?;
    equal("from", received.from, sender.local_id())?;
    check(received.tag.is_propagated(), "P is not set")?;
    equal("ActualSender", utcb().actual_sender(), sender.id())?;
    sender.join()
}

// --- tags ---

fn labels_of_every_width() -> Outcome {
    let rows = (0..48).map(|bit| 1 << bit).chain([0, 0xFFFF, 0xFFFF_FFFF, (1 << 48) - 1, 1 << 47 | 1]);
    let receiver = spawn(|| {
        loop {
            let label = receive(ThreadId::ANY)?.tag.label();
            send_label(tester().id(), label)?;
        }
    })?;
    for label in rows {
        let back = crate::world::messages::call_label(receiver.id(), label)?.tag;
        equal_tags("the tag", back, MsgTag::new(label, 0, 0))?;
    }
    Ok(())
}

fn successful_send_keeps_the_tag() -> Outcome {
    let receiver = spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))?;
    utcb().set_tag(MsgTag::new(LABEL, 3, 0));
    let sent = ipc::ipc(receiver.id(), ThreadId::NIL, NOW);
    equal("the tag", sent.tag, MsgTag::new(LABEL, 3, 0))?;
    equal("from", sent.from, ThreadId::NIL)
}

fn r_x_and_e_never_arrive() -> Outcome {
    // Nor are they left to the sender, whose tag says E if there is an error.
    let receiver = spawn(|| {
        for _ in 0..8 {
            equal_tags("the tag", receive(tester().id())?.tag, MsgTag::new(LABEL, 0, 0))?;
        }
        Ok(())
    })?;
    let flags = [MsgTag::REDIRECTED, MsgTag::XCPU, MsgTag::ERROR];
    for set in 0..8_usize {
        let all = (0..3).filter(|i| set >> i & 1 == 1).fold(0, |all, i| all | flags[i]);
        utcb().set_tag(MsgTag::new(LABEL, 0, 0).with_flags(all));
        let sent = ipc::ipc(receiver.id(), ThreadId::NIL, timeouts(PATIENCE, PATIENCE));
        equal("the sender's tag", sent.tag, MsgTag::new(LABEL, 0, 0)).within(set)?;
    }
    receiver.join()
}

// --- items ---

/// A thread in another space that takes one message into a window and tells how that ended: error, tag, whether its
/// memory at the beginning of the playground can be read is another matter.
#[track_caller]
fn taker(acceptor: Word) -> Outcome<Thread> {
    plan().space(Space::create()?).spawn(move || {
        utcb().set_br(0, acceptor);
        utcb().set_br(1, 0);
        let received = ipc::receive_timeout(tester().id(), PATIENCE).map(|outcome| outcome.tag);
        utcb().set_br(0, 0);
        let (error, tag) = match received {
            Ok(tag) => (0, tag),
            Err(error) => (error.raw(), MsgTag::NIL),
        };
        Msg::of_words(MsgTag::new(0, 0, 0), &[error, tag.raw()]).load();
        ipc::send_timeout(tester().id(), PATIENCE)?;
        Ok(())
    })
}

/// What a [`taker`] tells: its error, or the tag.
#[track_caller]
fn told(taker: Thread) -> Outcome<Result<MsgTag, IpcError>> {
    receive(taker.id())?;
    let (error, tag) = (utcb().mr(1), MsgTag::from_raw(utcb().mr(2)));
    taker.delete()?;
    match IpcError::from_raw(error) {
        _ if error == 0 => Ok(Ok(tag)),
        Some(error) => Ok(Err(error)),
        None => Err(Failure::new(format_args!("ErrorCode is {error:#x}"))),
    }
}

/// Sends the message in the registers to a new [`taker`]; what both sides came to.
#[track_caller]
fn meet(acceptor: Word, tag: MsgTag, words: &[Word]) -> Outcome<(Result<(), IpcError>, Result<MsgTag, IpcError>)> {
    let taker = taker(acceptor)?;
    for (i, &word) in words.iter().enumerate() {
        utcb().set_mr(i + 1, word);
    }
    utcb().set_tag(tag);
    let sent = ipc::send_timeout(taker.id(), PATIENCE).map(drop);
    let received = told(taker)?;
    give_back(2);
    Ok((sent, received))
}

#[track_caller]
fn check_taken(acceptor: Word, tag: MsgTag, words: &[Word]) -> Outcome {
    let (sent, received) = meet(acceptor, tag, words)?;
    equal("the sender's result", sent, Ok(()))?;
    equal("the receiver's result", received.map(without_x), Ok(tag))
}

#[track_caller]
fn check_overflow(acceptor: Word, tag: MsgTag, words: &[Word]) -> Outcome {
    let (sent, received) = meet(acceptor, tag, words)?;
    equal("the sender's result", sent, Err(send_error(IpcErrorKind::Overflow)))?;
    equal("the receiver's result", received, Err(receive_error(IpcErrorKind::Overflow)))
}

/// The whole playground as a window.
fn anywhere() -> Word {
    Acceptor::map_grant(playground()).raw()
}

const TWO: MsgTag = MsgTag::new(LABEL, 0, 2);

/// Page 0, to be mapped.
fn page_item() -> [Word; 2] {
    page(0).map_to(0, Rights::READ).words()
}

fn every_kind_of_item() -> Outcome {
    let fpage = page(0).fpage(Rights::READ).raw();
    // Bits 1 to 3 are the kind.
    for kind in 0..8 {
        let words = [kind << 1, fpage];
        let taken = match kind {
            // A string without a byte and without a buffer.
            0..4 => check_overflow(anywhere(), TWO, &words),
            4 => check_taken(anywhere(), TWO, &words),
            // There is nothing to be granted here.
            5 => check_taken(anywhere(), TWO, &[kind << 1, 0]),
            _ => check_overflow(anywhere(), TWO, &words),
        };
        taken.within(format_args!("kind {kind}"))?;
    }
    Ok(())
}

fn c_and_reserved_bits_of_map_items_are_ignored() -> Outcome {
    let [first, second] = page_item();
    for bits in [0, 1, 1 << 4, 1 << 9, 0x3F0, 0x3F1] {
        check_taken(anywhere(), TWO, &[first | bits, second]).within(format_args!("{bits:#x}"))?;
    }
    Ok(())
}

/// As many words as this of items that map pages one after another.
fn items(words: usize) -> [Word; MR_COUNT - 1] {
    let mut all = [0; MR_COUNT - 1];
    for (i, item) in all.chunks_mut(2).take(words.div_ceil(2)).enumerate() {
        let words = page(i % PAGES).map_to(i as Word * PAGE_SIZE, Rights::READ).words();
        item.copy_from_slice(&words[..item.len()]);
    }
    all
}

fn most_items_of_a_message() -> Outcome {
    for count in [2, 4, 30, 60, 62] {
        check_taken(anywhere(), MsgTag::new(LABEL, 0, count), &items(count)).within(format_args!("{count} words"))?;
    }
    Ok(())
}

fn one_item_more_overflows_after_the_others() -> Outcome {
    for count in [3, 31, 63] {
        let words = items(count);
        check_overflow(anywhere(), MsgTag::new(LABEL, 0, count), &words).within(format_args!("{count} words"))?;
    }
    // What came before the error has come to stay.
    page(0).set(0x17E5);
    let reader = plan().space(Space::create()?).spawn(|| {
        accept_in(playground());
        let received = receive(tester().id()).map(drop);
        equal("the message", received, Err(receive_error(IpcErrorKind::Overflow)))?;
        equal("the word", crate::world::memory::read(at(0)), 0x17E5)
    })?;
    for (i, word) in items(3).into_iter().enumerate() {
        utcb().set_mr(i + 1, word);
    }
    utcb().set_tag(MsgTag::new(LABEL, 0, 3));
    let sent = ipc::send_timeout(reader.id(), PATIENCE).map(drop);
    equal("the sender's result", sent, Err(send_error(IpcErrorKind::Overflow)))?;
    reader.join()
}

/// Untyped words, then items.
fn words_and_items(untyped: usize, typed: usize) -> [Word; MR_COUNT - 1] {
    let mut all = items(MR_COUNT - 1);
    let items = items(typed);
    all[..untyped].fill(7);
    for (word, item) in all[untyped..].iter_mut().zip(items) {
        *word = item;
    }
    all
}

fn words_and_items_fill_all_registers() -> Outcome {
    for (untyped, typed) in [(63, 0), (61, 2), (59, 4), (1, 62), (31, 32), (0, 62)] {
        let tag = MsgTag::new(LABEL, untyped, typed);
        check_taken(anywhere(), tag, &words_and_items(untyped, typed)).within(format_args!("{untyped} + {typed}"))?;
    }
    Ok(())
}

fn words_and_items_beyond_all_registers_overflow() -> Outcome {
    for (untyped, typed) in [(63, 1), (62, 2), (63, 63), (2, 62), (32, 32), (1, 63)] {
        let tag = MsgTag::new(LABEL, untyped, typed);
        check_overflow(anywhere(), tag, &words_and_items(untyped, typed))
            .within(format_args!("{untyped} + {typed}"))?;
    }
    Ok(())
}

fn grant_items_are_like_map_items() -> Outcome {
    // Nil fpages: nothing is given away.
    let nil = MapItem::grant(Fpage::NIL, 0).words();
    check_taken(anywhere(), TWO, &nil)?;
    check_overflow(0, TWO, &nil)?;
    check_overflow(anywhere(), MsgTag::new(LABEL, 0, 1), &nil)?;
    check_taken(anywhere(), MsgTag::new(LABEL, 0, 4), &[nil[0], nil[1], nil[0] | 1, nil[1]])
}

// --- acceptors ---

fn reserved_bits_are_ignored() -> Outcome {
    // Bit 1 accepts control-transfer items, of which there are none.
    for bits in 0..16 {
        check_taken(anywhere() | bits, TWO, &page_item()).within(bits)?;
    }
    for bits in [2, 4, 8, 14] {
        check_overflow(bits, TWO, &page_item()).within(format_args!("without a window, {bits:#x}"))?;
    }
    Ok(())
}

/// A thread in another space that takes a message with this acceptor, and then finds nothing at the places where page 0
/// might be.
#[track_caller]
fn takes_nothing(acceptor: Word) -> Outcome {
    let thread = plan().space(Space::create()?).pager(tester().id()).spawn(move || {
        utcb().set_br(0, acceptor);
        let received = ipc::receive_timeout(tester().id(), PATIENCE).map(drop);
        utcb().set_br(0, 0);
        equal("the message", received, Ok(()))?;
        crate::world::memory::read(at(0));
        Ok(())
    })?;
    let [first, second] = page_item();
    utcb().set_mr(1, first);
    utcb().set_mr(2, second);
    utcb().set_tag(TWO);
    ipc::send_timeout(thread.id(), PATIENCE)?;
    let fault = receive(thread.id())?;
    equal("what follows", fault.tag.protocol(), l4::protocol::PAGE_FAULT)?;
    equal("its address", utcb().mr(1), at(0))?;
    thread.delete()?;
    give_back(2);
    Ok(())
}

fn window_too_small_for_a_page_takes_nothing() -> Outcome {
    // Size 2 is that of I/O ports, 1 that of the complete space if the base is 0.
    for size_log2 in [0, 1, 3, 5, 9, 10, 11] {
        takes_nothing(at(0) | size_log2 << 4).within(format_args!("size {size_log2}"))?;
    }
    Ok(())
}

fn windows_outside_user_memory_take_nothing() -> Outcome {
    let rows = [
        1 << 47 | 12 << 4,
        1 << 47 | 47 << 4,
        arch::NON_CANONICAL | 12 << 4,
        arch::KERNEL_ADDRESS | 21 << 4,
        Word::MAX & !0xFFF | 12 << 4,
    ];
    rows.into_iter().try_for_each(|window| takes_nothing(window).within(format_args!("{window:#x}")))
}

fn misaligned_window_is_aligned_down() -> Outcome {
    page(0).set(0xA11);
    let reader = plan().space(Space::create()?).spawn(|| {
        // Two pages, of which the base is the second.
        utcb().set_br(0, at(PAGE_SIZE) | 13 << 4);
        receive(tester().id())?;
        utcb().set_br(0, 0);
        equal("the word", crate::world::memory::read(at(0)), 0xA11)
    })?;
    let [first, second] = page_item();
    utcb().set_mr(1, first);
    utcb().set_mr(2, second);
    utcb().set_tag(TWO);
    ipc::send_timeout(reader.id(), PATIENCE)?;
    reader.join()
}

fn strings_alone_take_no_mapping() -> Outcome {
    check_overflow(Acceptor::STRINGS.raw(), TWO, &page_item())
}

fn window_alone_takes_no_string() -> Outcome {
    check_overflow(anywhere(), TWO, &[8 << 10, page(0).address()])
}

fn strings_without_buffers_overflow() -> Outcome {
    // BR1 is a buffer without a byte.
    check_overflow(Acceptor::STRINGS.raw(), TWO, &[8 << 10, page(0).address()])
}

fn acceptor_of_the_sender_means_nothing() -> Outcome {
    for acceptor in [0, Acceptor::COMPLETE.raw(), Word::MAX] {
        let sender = spawn(move || {
            utcb().set_br(0, acceptor);
            let mut msg = Msg::new(LABEL);
            msg.append_map(MapItem::map(page(1).fpage(Rights::READ), 0)).load();
            let sent = ipc::send_timeout(tester().id(), PATIENCE).map(drop);
            utcb().set_br(0, 0);
            equal("the message", sent, Ok(()))
        })?;
        accept_in(window(0, 12));
        let received = receive(sender.id()).map(drop);
        accept_in(Fpage::NIL);
        equal("the message", received, Ok(()))?;
        sender.join()?;
    }
    Ok(())
}

fn acceptor_counts_at_the_transfer() -> Outcome {
    // The sender is blocked before the receiver opens its window.
    let sender = spawn_later(|| {
        let mut msg = Msg::new(LABEL);
        msg.append_map(MapItem::map(page(1).fpage(Rights::READ), 0)).load();
        ipc::send_timeout(tester().id(), PATIENCE)?;
        Ok(())
    })?;
    l4::time::sleep(Time::period_us(1_000));
    accept_in(window(0, 12));
    let received = receive(sender.id()).map(drop);
    accept_in(Fpage::NIL);
    equal("the message", received, Ok(()))?;
    sender.join()
}

// --- timeouts ---

fn transfer_timeouts_do_not_matter_to_words() -> Outcome {
    for word in [0, 0x0400_0400, 0x8001_8001, Word::MAX] {
        let receiver = spawn(move || {
            utcb().set_xfer_timeouts(l4::Timeouts::from_raw(word));
            for _ in 0..2 {
                receive(tester().id())?;
            }
            Ok(())
        })?;
        utcb().set_xfer_timeouts(l4::Timeouts::from_raw(word));
        let sent = send_label(receiver.id(), LABEL).map(drop);
        let mut msg = Msg::new(LABEL);
        msg.append_word(1).append_word(2).load();
        let words = ipc::send_timeout(receiver.id(), PATIENCE).map(drop);
        utcb().set_xfer_timeouts(l4::Timeouts::NEVER);
        equal("both messages", (sent, words), (Ok(()), Ok(()))).within(format_args!("{word:#x}"))?;
        receiver.join()?;
    }
    Ok(())
}

fn success_leaves_error_code() -> Outcome {
    let partner = spawn(|| {
        utcb().set_error_code(MARK);
        for _ in 0..3 {
            receive(tester().id())?;
            send_label(tester().id(), LABEL)?;
        }
        equal("the partner's ErrorCode", utcb().error_code(), MARK)
    })?;
    utcb().set_error_code(MARK);
    for _ in 0..3 {
        crate::world::messages::call_label(partner.id(), LABEL)?;
    }
    equal("ErrorCode", utcb().error_code(), MARK)?;
    partner.join()
}
