//! Strings: bytes from space to space, with page faults, timeouts and other disasters in the middle.
//!
//! Each exchange takes place within one space and between two, with the sender first and with the receiver first. The
//! tester owns the pages, fills them before and looks into them after, and is the pager of both.

use l4::message::{Msg, accept_untyped};
use l4::protocol::page_fault_tag;
use l4::thread::abort;
use l4::time::{sleep, system_clock_us, timeouts};
use l4::{
    Acceptor, BR_COUNT, ExregsControl, IpcError, IpcErrorKind, MR_COUNT, MsgTag, Phase, Rights, ScheduleResult,
    StringItem, ThreadId, Time, Timeouts, Word, ipc, space, utcb,
};

use crate::arch;
use crate::failure::{Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory::{self, PAGE_SIZE, Page, at, page, playground, window};
use crate::world::messages::{
    NOW, Parts, accept_in, accept_strings_in, append_string, equal_tags, receive, receive_error, send_items,
};
use crate::world::placement;
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, Thread, give_back, plan, tester};

chapter! { strings:
    "X.2, StringItem" => [
        simple_string,
        string_of_many_pages,
        empty_string,
        sub_strings_are_gathered,
        compound_string_is_gathered,
        buffers_are_scattered,
        gathered_and_scattered,
        several_strings_have_a_buffer_each,
        rest_of_a_buffer_is_left_alone,
        strings_and_mappings_mix,
    ],
    "X.2, StringItem, overflow" => [
        no_buffer,
        missing_second_buffer,
        short_buffer,
        short_buffer_of_many_parts,
        string_outside_user_memory,
        buffer_outside_user_memory,
        cut_string_item,
    ],
    "X.2, Page fault protocol, in strings" => [
        source_faults,
        destination_faults,
        faults_on_both_sides,
        faults_of_mappings_and_strings,
        empty_reply_repeats_the_fault,
        page_that_cannot_be_written_faults,
        nil_pager_aborts_the_string,
    ],
    "X.2, XferTimeouts" => [
        patient_transfer_succeeds,
        no_time_for_faults,
        no_time_on_one_side,
        transfer_times_out_by_the_sender,
        transfer_times_out_by_the_receiver,
        transfer_times_out_unnoticed_by_the_pager,
        transfer_timeout_is_one_for_all_faults,
    ],
    "X.2, Cancel and unwinding, in strings" => [
        transfer_is_aborted: "the state that ExchangeRegisters tells across processors: docs/spec.md, Not here yet",
        other_phase_is_not_aborted,
        deleted_partner_aborts_the_string,
        deleted_pager_aborts_the_string,
    ],
}

/// Offset in the playground of what is sent.
const FROM: Word = 0x10_0000;
/// Offset in the playground of the buffers.
const TO: Word = 0x20_0000;
/// Offset in the playground of the two pages that the sender maps.
const GIVEN: Word = 0x30_0000;
/// Offset in the playground of the window in which the receiver takes them.
const WINDOW: Word = 0x40_0000;
/// log2 of the size of both.
const GIVEN_LOG2: u32 = 13;

/// Pages on either side.
const SIDE_PAGES: usize = 7;
/// The first of the pages that the sender maps.
const FIRST_GIVEN: usize = 2 * SIDE_PAGES;
const LABEL: Word = 0x57;

/// One of the two, and where its bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Sender,
    Receiver,
}

use Side::{Receiver, Sender};

impl Side {
    const BOTH: [Self; 2] = [Sender, Receiver];

    fn base(self) -> Word {
        match self {
            Sender => FROM,
            Receiver => TO,
        }
    }

    /// What a transfer does with its pages.
    fn access(self) -> Rights {
        match self {
            Sender => Rights::READ,
            Receiver => Rights::WRITE,
        }
    }

    /// What its pages are mapped with.
    fn rights(self) -> Rights {
        match self {
            Sender => Rights::READ,
            Receiver => Rights::READ_WRITE,
        }
    }

    fn page(self, index: usize) -> &'static Page {
        page(index + if self == Sender { 0 } else { SIDE_PAGES })
    }

    /// The byte at an offset in the playground.
    fn byte(self, offset: Word) -> u8 {
        let offset = (offset - self.base()) as usize;
        self.page(offset / PAGE_SIZE as usize).byte(offset % PAGE_SIZE as usize)
    }
}

/// A message with strings, and what comes of it.
#[derive(Clone, Copy)]
struct Exchange {
    strings: &'static [Parts],
    /// `None`: the receiver takes no strings.
    buffers: Option<&'static [Parts]>,
    /// Whether there is an untyped word, and a mapping before each of the first two strings.
    is_mixed: bool,
    /// Pages that are not there at the start, one bit each, by side.
    missing: [u8; 2],
    /// Transfer timeouts of both sides.
    xfer: [Time; 2],
    pager: [Option<ThreadId>; 2],
    /// Errors of both sides, and the bytes transferred until then.
    error: Option<([IpcErrorKind; 2], usize)>,
    /// Who does not live to see it.
    dies: Option<Side>,
}

impl Exchange {
    const fn of(strings: &'static [Parts], buffers: &'static [Parts]) -> Self {
        Self {
            strings,
            buffers: Some(buffers),
            is_mixed: false,
            missing: [0; 2],
            xfer: [Time::NEVER; 2],
            pager: [None; 2],
            error: None,
            dies: None,
        }
    }

    /// Two pages to two pages, of which some are missing.
    const fn of_two_pages(missing: [u8; 2]) -> Self {
        Self { missing, ..Self::of(&[&[(0x2000, &[FROM])]], &[&[(0x2000, &[TO])]]) }
    }

    /// Two pages, of which the second is missing on one side.
    fn without_second_page_of(side: Side) -> Self {
        Self::of_two_pages(if side == Sender { [2, 0] } else { [0, 2] })
    }

    const fn overflow(self, bytes: usize) -> Self {
        self.fails([IpcErrorKind::Overflow; 2], bytes)
    }

    const fn fails(self, kinds: [IpcErrorKind; 2], bytes: usize) -> Self {
        Self { error: Some((kinds, bytes)), ..self }
    }

    fn message(self) -> Msg {
        let mut msg = Msg::new(LABEL);
        if self.is_mixed {
            msg.append_word(0xF00D);
        }
        for (i, string) in self.strings.iter().enumerate() {
            if self.is_mixed && i < 2 {
                let offset = i as Word * PAGE_SIZE;
                let source = memory::fpage(at(GIVEN + offset), memory::PAGE_LOG2, Rights::READ);
                msg.append_map(l4::MapItem::map(source, offset));
            }
            append_string(&mut msg, string);
        }
        msg
    }

    /// What a side does.
    fn run(self, side: Side) -> Outcome {
        let partner = begin()?;
        let own = self.xfer[side as usize];
        // The other half of the timeouts is about other messages.
        let (snd, rcv) = if side == Sender { (own, Time::ZERO) } else { (Time::ZERO, own) };
        utcb().set_xfer_timeouts(Timeouts::new(snd, rcv));
        self.mark_registers(side);
        let message = self.message();
        if side == Sender {
            message.load();
        }
        let before = virtual_registers();
        let (to, from) = if side == Sender { (partner, ThreadId::NIL) } else { (ThreadId::NIL, partner) };
        let outcome = ipc::ipc(to, from, timeouts(PATIENCE, PATIENCE));
        let after = virtual_registers();
        let expected = match self.error {
            None => Ok(()),
            Some((kinds, bytes)) => {
                let phase = if side == Sender { Phase::Send } else { Phase::Receive };
                Err(IpcError { phase, kind: kinds[side as usize], offset: bytes as Word })
            }
        };
        equal("the result", outcome.result().map(drop), expected)?;
        let flags = if expected.is_err() { MsgTag::ERROR } else { 0 };
        equal_tags("the tag", outcome.tag, message.tag().with_flags(flags))?;
        let end = 1 + message.tag().untyped() + message.tag().typed();
        let is_changed = |i: usize| i == 0 || side == Receiver && i < end;
        (0..before.len()).filter(|&i| !is_changed(i)).try_for_each(|i| {
            // Registers are counted from MR0 over BR0, which is number 64.
            equal(format_args!("register {i}"), after[i], before[i])
        })?;
        if side == Receiver && expected.is_ok() {
            equal("what was received", Msg::store(outcome.tag).typed_words(), message.typed_words())?;
            equal("the words received", Msg::store(outcome.tag).words(), message.words())?;
            if self.is_mixed {
                equal("the pages mapped", [0, 0x1000].map(|i| memory::read(at(WINDOW + i))), [0x61, 0x62])?;
            }
        }
        Ok(())
    }

    fn mark_registers(self, side: Side) {
        (0..MR_COUNT).for_each(|i| utcb().set_mr(i, 0xABC0_0000 + i as Word));
        (1..BR_COUNT).for_each(|i| utcb().set_br(i, 0xB0_0000 + i as Word));
        let window = if self.is_mixed { window(WINDOW, GIVEN_LOG2) } else { l4::Fpage::NIL };
        match self.buffers.filter(|_| side == Receiver) {
            Some(buffers) => accept_strings_in(window, buffers),
            None => accept_in(window),
        }
    }

    /// The bytes that are transferred: where they come from and where they go, as offsets in the playground.
    fn bytes(self) -> impl Iterator<Item = (Word, Word)> {
        let of = |parts: Parts| {
            parts.iter().flat_map(|&(len, offsets)| offsets.iter().flat_map(move |&o| o..o + len as Word))
        };
        let pairs = self.strings.iter().zip(self.buffers.unwrap_or_default());
        let count = self.error.map_or(usize::MAX, |(_, bytes)| bytes);
        pairs.flat_map(move |(string, buffer)| of(string).zip(of(buffer))).take(count)
    }

    /// Fails unless the bytes that should be are in the buffers, and nothing else.
    fn check_bytes(self) -> Outcome {
        let mut count = 0;
        for (from, to) in self.bytes() {
            count += 1;
            if Receiver.byte(to) != Sender.byte(from) {
                return equal(format_args!("byte {from:#x} at {to:#x}"), Receiver.byte(to), Sender.byte(from));
            }
        }
        let end = TO + SIDE_PAGES as Word * PAGE_SIZE;
        let written = (TO..end).filter(|&offset| Receiver.byte(offset) != 0).count();
        equal("how many bytes were written", written, count)
    }
}

/// The first step of each side: to get its pages, and to learn who is the other one.
fn begin() -> Outcome<ThreadId> {
    accept_in(playground());
    receive(tester().id())?;
    let partner = ThreadId::from_raw(utcb().mr(1));
    accept_untyped();
    Ok(partner)
}

/// Message and buffer registers, and what else a nested fault must leave alone.
fn virtual_registers() -> [Word; MR_COUNT + BR_COUNT + 2] {
    let u = utcb();
    core::array::from_fn(|i| match i {
        _ if i < MR_COUNT => u.mr(i),
        _ if i < MR_COUNT + BR_COUNT => u.br(i - MR_COUNT),
        _ if i == MR_COUNT + BR_COUNT => u.virtual_sender().raw(),
        _ => u.intended_receiver().raw(),
    })
}

/// Both sides.
#[derive(Clone, Copy)]
struct Cast([Thread; 2]);

impl Cast {
    fn id(&self, side: Side) -> ThreadId {
        self.0[side as usize].id()
    }

    /// Takes a fault of one side, at an offset in its memory.
    #[track_caller]
    fn fault(&self, side: Side, offset: Word) -> Outcome {
        let fault = receive(ThreadId::ANY)?;
        let (address, ip) = (utcb().mr(1), utcb().mr(2));
        equal("who faults", fault.from, self.id(side))?;
        equal_tags("the tag", fault.tag, page_fault_tag(side.access()))?;
        equal("the address", address, at(side.base() + offset))?;
        equal("whether MR2 is no instruction", ip == Word::MAX, side == Receiver)
    }

    /// Maps the page with this offset in a side's memory to it, which waits for that.
    #[track_caller]
    fn answer(&self, side: Side, offset: Word) -> Outcome {
        let index = offset / PAGE_SIZE;
        let item = side.page(index as usize).map_to(at(side.base() + index * PAGE_SIZE), side.rights());
        send_items(self.id(side), &[item])?;
        Ok(())
    }

    /// Whether a side is in the string.
    fn is_going_on(&self) -> bool {
        let is_in_string = |thread: &Thread| {
            thread.state().is_ok_and(|state| matches!(state, ScheduleResult::Sending | ScheduleResult::Receiving))
        };
        self.0.iter().any(is_in_string)
    }

    /// Waits until neither side is in the string any more. What the tester would send before, a faulting side would take for
    /// its pager's answer.
    #[track_caller]
    fn wait_for_end(&self) -> Outcome {
        let deadline = system_clock_us() + 10_000_000;
        while self.is_going_on() {
            check(system_clock_us() < deadline, "the string does not end")?;
            sleep(Time::period_us(1_000));
        }
        Ok(())
    }

    /// Takes and answers these faults.
    #[track_caller]
    fn serve(&self, faults: &[(Side, Word)]) -> Outcome {
        faults.iter().try_for_each(|&(side, offset)| {
            self.fault(side, offset).within(format_args!("{side:?} at {offset:#x}"))?;
            self.answer(side, offset)
        })
    }
}

/// Where exchanges take place.
struct Stage {
    spaces: [Space; 2],
}

impl Stage {
    #[track_caller]
    fn new() -> Outcome<Self> {
        Ok(Self { spaces: [Space::create()?, Space::create()?] })
    }

    /// An exchange, in each place and order; `meanwhile` is what the tester does after both have begun.
    #[track_caller]
    fn play(&self, exchange: Exchange, meanwhile: impl Fn(&Cast) -> Outcome) -> Outcome {
        let [one, other] = self.spaces;
        for (place, spaces) in [("one space", [one, one]), ("two spaces", [one, other])] {
            for first in Side::BOTH {
                let row = format_args!("{place}, {first:?} first");
                self.play_once(exchange, spaces, first, &meanwhile).within(row)?;
            }
        }
        Ok(())
    }

    #[track_caller]
    fn play_once(
        &self,
        exchange: Exchange,
        spaces: [Space; 2],
        first: Side,
        meanwhile: impl Fn(&Cast) -> Outcome,
    ) -> Outcome {
        prepare_pages();
        let spawn = |side: Side| {
            let pager = exchange.pager[side as usize].unwrap_or(tester().id());
            plan().space(spaces[side as usize]).pager(pager).spawn(move || exchange.run(side))
        };
        let cast = Cast([spawn(Sender)?, spawn(Receiver)?]);
        let second = if first == Sender { Receiver } else { Sender };
        for (side, partner) in [(first, second), (second, first)] {
            send_begin(&cast, side, partner, exchange.missing[side as usize])?;
        }
        meanwhile(&cast)?;
        let rest = ipc::ipc(ThreadId::NIL, ThreadId::ANY, NOW).result().map(drop);
        equal("another fault", rest, Err(receive_error(IpcErrorKind::Timeout)))?;
        for side in Side::BOTH.into_iter().filter(|&side| exchange.dies != Some(side)) {
            cast.0[side as usize].join().within(format_args!("{side:?}"))?;
            cast.0[side as usize].delete()?;
        }
        give_back(2);
        exchange.check_bytes()
    }
}

/// Each byte that is sent differs from its neighbours and is not zero, as all bytes of the buffers are.
fn prepare_pages() {
    for index in 0..SIDE_PAGES {
        Sender.page(index).fill(|offset| ((index * PAGE_SIZE as usize + offset) % 251 + 1) as u8);
        Receiver.page(index).fill(|_| 0);
        for side in Side::BOTH {
            space::unmap_fpage(side.page(index).fpage(Rights::ALL));
        }
    }
    for index in 0..2 {
        page(FIRST_GIVEN + index).set(0x61 + index as Word);
        space::unmap_fpage(page(FIRST_GIVEN + index).fpage(Rights::ALL));
    }
}

/// Lets a side begin, with its pages but for those that are missing.
#[track_caller]
fn send_begin(cast: &Cast, side: Side, partner: Side, missing: u8) -> Outcome {
    let mut msg = Msg::new(0);
    msg.append_word(cast.id(partner).raw());
    for index in (0..SIDE_PAGES).filter(|index| missing & 1 << index == 0) {
        msg.append_map(side.page(index).map_to(at(side.base() + index as Word * PAGE_SIZE), side.rights()));
    }
    if side == Sender {
        for index in 0..2 {
            let place = at(GIVEN + index as Word * PAGE_SIZE);
            msg.append_map(page(FIRST_GIVEN + index).map_to(place, Rights::READ));
        }
    }
    msg.load();
    ipc::send_timeout(cast.id(side), PATIENCE)?;
    // It has come as far as it can.
    placement::settle();
    Ok(())
}

/// Exchanges without any fault.
#[track_caller]
fn exchanges(rows: &[Exchange]) -> Outcome {
    let stage = Stage::new()?;
    rows.iter().enumerate().try_for_each(|(i, &row)| stage.play(row, |_| Ok(())).within(format_args!("row {i}")))
}

// --- strings ---

fn simple_string() -> Outcome {
    exchanges(&[
        Exchange::of(&[&[(256, &[FROM])]], &[&[(256, &[TO])]]),
        Exchange::of(&[&[(1, &[FROM + 5])]], &[&[(1, &[TO + 8])]]),
        Exchange::of(&[&[(1001, &[FROM + 3])]], &[&[(1001, &[TO + 6])]]),
        // Over the ends of pages.
        Exchange::of(&[&[(0x20, &[FROM + 0xFF0])]], &[&[(0x20, &[TO + 0x40])]]),
        Exchange::of(&[&[(0x20, &[FROM + 0x40])]], &[&[(0x20, &[TO + 0xFF7])]]),
    ])
}

fn string_of_many_pages() -> Outcome {
    exchanges(&[
        Exchange::of(&[&[(0x7000, &[FROM])]], &[&[(0x7000, &[TO])]]),
        Exchange::of(&[&[(0x6F00, &[FROM + 0x9D])]], &[&[(0x6F00, &[TO + 3])]]),
    ])
}

fn empty_string() -> Outcome {
    exchanges(&[
        Exchange::of(&[&[(0, &[FROM])]], &[&[(16, &[TO])]]),
        Exchange::of(&[&[(0, &[FROM])], &[(9, &[FROM])]], &[&[(16, &[TO])], &[(16, &[TO + 16])]]),
    ])
}

fn sub_strings_are_gathered() -> Outcome {
    exchanges(&[
        Exchange::of(&[&[(64, &[FROM, FROM + 0x300, FROM + 0x100, FROM + 0x1FF0])]], &[&[(256, &[TO])]]),
        // One part twice.
        Exchange::of(&[&[(10, &[FROM, FROM])]], &[&[(20, &[TO])]]),
    ])
}

fn compound_string_is_gathered() -> Outcome {
    let parts: &[Parts] = &[&[(32, &[FROM + 0x800, FROM]), (100, &[FROM + 0x1234]), (7, &[FROM + 0x77, FROM + 0x44])]];
    exchanges(&[Exchange::of(parts, &[&[(178, &[TO])]]), Exchange::of(parts, &[&[(500, &[TO + 0xFFF])]])])
}

fn buffers_are_scattered() -> Outcome {
    exchanges(&[
        Exchange::of(&[&[(256, &[FROM])]], &[&[(64, &[TO + 0x400, TO, TO + 0x1FF0, TO + 0x800])]]),
        Exchange::of(&[&[(256, &[FROM])]], &[&[(56, &[TO + 0x400, TO]), (144, &[TO + 0x800])]]),
    ])
}

fn gathered_and_scattered() -> Outcome {
    let strings: &[Parts] = &[&[(24, &[FROM, FROM + 0x40, FROM + 0x80]), (300, &[FROM + 0xF80])]];
    exchanges(&[
        Exchange::of(strings, &[&[(62, &[TO, TO + 0x100, TO + 0x200]), (186, &[TO + 0x1F80])]]),
        Exchange::of(strings, &[&[(5, &[TO]), (1, &[TO + 0x11, TO + 0x22]), (1000, &[TO + 0x1300])]]),
    ])
}

fn several_strings_have_a_buffer_each() -> Outcome {
    exchanges(&[
        Exchange::of(
            &[&[(128, &[FROM])], &[(32, &[FROM + 0x300])], &[(300, &[FROM + 0xF80])], &[(1, &[FROM])]],
            &[&[(128, &[TO])], &[(32, &[TO + 0x100])], &[(300, &[TO + 0x1F80])], &[(1, &[TO + 0x3000])]],
        ),
        Exchange::of(
            &[&[(16, &[FROM, FROM + 64]), (3, &[FROM + 0x200])], &[(40, &[FROM + 0x300])]],
            &[&[(35, &[TO])], &[(20, &[TO + 0x100, TO + 0x200])]],
        ),
    ])
}

fn rest_of_a_buffer_is_left_alone() -> Outcome {
    exchanges(&[
        Exchange::of(&[&[(10, &[FROM])]], &[&[(0x3000, &[TO])]]),
        // All parts of it are skipped for the next string.
        Exchange::of(
            &[&[(10, &[FROM])], &[(20, &[FROM + 0x100])]],
            &[&[(8, &[TO, TO + 0x20, TO + 0x40]), (50, &[TO + 0x80, TO + 0xF00])], &[(20, &[TO + 0x1000])]],
        ),
        // So are buffers that no string needs.
        Exchange::of(&[&[(10, &[FROM])]], &[&[(10, &[TO])], &[(10, &[TO + 10])]]),
    ])
}

const MIXED: Exchange = Exchange {
    is_mixed: true,
    ..Exchange::of(
        &[&[(0x1200, &[FROM])], &[(0x1800, &[FROM + 0x2000])], &[(5, &[FROM + 0x5000, FROM + 0x100])]],
        &[&[(0x1200, &[TO])], &[(0x1800, &[TO + 0x2000])], &[(10, &[TO + 0x6000])]],
    )
};

fn strings_and_mappings_mix() -> Outcome {
    exchanges(&[MIXED])
}

// --- overflow ---

fn no_buffer() -> Outcome {
    let none = Exchange { buffers: None, ..Exchange::of(&[&[(128, &[FROM])]], &[]) };
    exchanges(&[none.overflow(0)])
}

fn missing_second_buffer() -> Outcome {
    exchanges(&[
        Exchange::of(&[&[(128, &[FROM])], &[(128, &[FROM + 0x100])]], &[&[(128, &[TO])]]).overflow(128),
        Exchange::of(&[&[(128, &[FROM])], &[(128, &[FROM + 0x100])]], &[&[(512, &[TO])]]).overflow(128),
    ])
}

fn short_buffer() -> Outcome {
    exchanges(&[
        Exchange::of(&[&[(256, &[FROM])]], &[&[(252, &[TO])]]).overflow(252),
        Exchange::of(&[&[(256, &[FROM + 0xFF8])]], &[&[(252, &[TO + 0xFF0])]]).overflow(252),
        Exchange::of(&[&[(0x7000, &[FROM])]], &[&[(0x6FFF, &[TO])]]).overflow(0x6FFF),
    ])
}

fn short_buffer_of_many_parts() -> Outcome {
    exchanges(&[
        Exchange::of(
            &[&[(64, &[FROM, FROM + 0x100, FROM + 0x200, FROM + 0x300])]],
            &[&[(63, &[TO, TO + 0x200]), (126, &[TO + 0x400])]],
        )
        .overflow(252),
        // The second of two strings; the offset counts both.
        Exchange::of(&[&[(100, &[FROM])], &[(200, &[FROM + 0x100])]], &[&[(300, &[TO])], &[(152, &[TO + 0x200])]])
            .overflow(252),
    ])
}

/// A message of these items to a buffer item overflows at this byte, for both sides in own space.
#[track_caller]
fn check_raw_overflow(items: [Word; 2], typed: usize, buffer: [Word; 2], bytes: Word) -> Outcome {
    prepare_pages();
    let error = move |phase| IpcError { phase, kind: IpcErrorKind::Overflow, offset: bytes };
    let body = move |side: Side| {
        let partner = begin()?;
        utcb().set_xfer_timeouts(Timeouts::NEVER);
        if side == Sender {
            utcb().set_tag(MsgTag::new(LABEL, 0, typed));
            (0..2).for_each(|i| utcb().set_mr(i + 1, items[i]));
            let sent = ipc::send_timeout(partner, PATIENCE).map(drop);
            return equal("the result of sending", sent, Err(error(Phase::Send)));
        }
        (0..2).for_each(|i| utcb().set_br(i + 1, buffer[i]));
        utcb().set_br(0, Acceptor::UNTYPED.with_strings().raw());
        equal("the result of receiving", receive(partner).map(drop), Err(error(Phase::Receive)))
    };
    let space = Space::create()?;
    let spawn = |side| plan().space(space).pager(tester().id()).spawn(move || body(side));
    let cast = Cast([spawn(Sender)?, spawn(Receiver)?]);
    send_begin(&cast, Sender, Receiver, 0)?;
    send_begin(&cast, Receiver, Sender, 0)?;
    cast.0.iter().try_for_each(|thread| thread.join())
}

fn string_outside_user_memory() -> Outcome {
    let buffer = [StringItem::new(256).raw(), at(TO)];
    for address in [arch::KERNEL_ADDRESS, arch::NON_CANONICAL, Word::MAX - 10, Word::MAX & !0xFFF] {
        let items = [StringItem::new(64).raw(), address];
        check_raw_overflow(items, 2, buffer, 0).within(format_args!("{address:#x}"))?;
    }
    Ok(())
}

fn buffer_outside_user_memory() -> Outcome {
    let items = [StringItem::new(64).raw(), at(FROM)];
    for address in [arch::KERNEL_ADDRESS, arch::NON_CANONICAL, Word::MAX - 10, Word::MAX & !0xFFF] {
        let buffer = [StringItem::new(256).raw(), address];
        check_raw_overflow(items, 2, buffer, 0).within(format_args!("{address:#x}"))?;
    }
    Ok(())
}

fn cut_string_item() -> Outcome {
    let buffer = [StringItem::new(256).raw(), at(TO)];
    let string = StringItem::new(64);
    check_raw_overflow([string.raw(), at(FROM)], 1, buffer, 0).within("without its address")?;
    check_raw_overflow([string.with_substrings(2).raw(), at(FROM)], 2, buffer, 64).within("without an address")?;
    check_raw_overflow([string.with_compound().raw(), at(FROM)], 2, buffer, 64).within("without the second part")
}

// --- page faults ---

/// Pages missing on either side, as bits, and the faults that come of it.
type FaultRow<'a> = ([u8; 2], &'a [(Side, Word)]);

/// The exchange of two pages with these missing, and the faults that come of it.
#[track_caller]
fn check_faults(rows: &[FaultRow<'_>]) -> Outcome {
    let stage = Stage::new()?;
    rows.iter().try_for_each(|&(missing, faults)| {
        let exchange = Exchange::of_two_pages(missing);
        stage.play(exchange, |cast| cast.serve(faults)).within(format_args!("{missing:?}"))
    })
}

fn source_faults() -> Outcome {
    check_faults(&[([1, 0], &[(Sender, 0)]), ([2, 0], &[(Sender, 0x1000)]), ([3, 0], &[(Sender, 0), (Sender, 0x1000)])])
}

fn destination_faults() -> Outcome {
    check_faults(&[
        ([0, 1], &[(Receiver, 0)]),
        ([0, 2], &[(Receiver, 0x1000)]),
        ([0, 3], &[(Receiver, 0), (Receiver, 0x1000)]),
    ])
}

fn faults_on_both_sides() -> Outcome {
    check_faults(&[
        ([1, 1], &[(Sender, 0), (Receiver, 0)]),
        ([2, 2], &[(Sender, 0x1000), (Receiver, 0x1000)]),
        ([1, 2], &[(Sender, 0), (Receiver, 0x1000)]),
        ([2, 1], &[(Receiver, 0), (Sender, 0x1000)]),
        ([3, 3], &[(Sender, 0), (Receiver, 0), (Sender, 0x1000), (Receiver, 0x1000)]),
    ])
}

fn faults_of_mappings_and_strings() -> Outcome {
    let exchange = Exchange { missing: [0x7F, 0x7F], ..MIXED };
    let faults = [
        (Sender, 0),
        (Receiver, 0),
        (Sender, 0x1000),
        (Receiver, 0x1000),
        (Sender, 0x2000),
        (Receiver, 0x2000),
        (Sender, 0x3000),
        (Receiver, 0x3000),
        (Sender, 0x5000),
        (Receiver, 0x6000),
    ];
    Stage::new()?.play(exchange, |cast| cast.serve(&faults))
}

fn empty_reply_repeats_the_fault() -> Outcome {
    let stage = Stage::new()?;
    for side in Side::BOTH {
        stage.play(Exchange::without_second_page_of(side), |cast| {
            for _ in 0..3 {
                cast.fault(side, 0x1000)?;
                send_items(cast.id(side), &[])?;
            }
            // A reply's words are for nobody.
            cast.fault(side, 0x1000)?;
            utcb().set_tag(MsgTag::new(0xFFFF, MR_COUNT - 1, 0));
            (1..MR_COUNT).for_each(|i| utcb().set_mr(i, 0x4711));
            ipc::send_timeout(cast.id(side), PATIENCE)?;
            cast.serve(&[(side, 0x1000)])
        })?;
    }
    Ok(())
}

fn page_that_cannot_be_written_faults() -> Outcome {
    Stage::new()?.play(Exchange::of_two_pages([0, 2]), |cast| {
        cast.fault(Receiver, 0x1000)?;
        let read_only = Receiver.page(1).map_to(at(TO + 0x1000), Rights::READ);
        send_items(cast.id(Receiver), &[read_only])?;
        cast.serve(&[(Receiver, 0x1000)])
    })
}

const ABORTED: [IpcErrorKind; 2] = [IpcErrorKind::Aborted; 2];

fn nil_pager_aborts_the_string() -> Outcome {
    let stage = Stage::new()?;
    for side in Side::BOTH {
        let mut exchange = Exchange::without_second_page_of(side).fails(ABORTED, 0x1000);
        exchange.pager[side as usize] = Some(ThreadId::NIL);
        stage.play(exchange, |_| Ok(()))?;
    }
    Ok(())
}

// --- transfer timeouts ---

/// Both sides, if the timeout is the sender's.
const SENDERS: [IpcErrorKind; 2] = [IpcErrorKind::XferTimeoutInvoker, IpcErrorKind::XferTimeoutPartner];
/// Both sides, if the timeout is the receiver's.
const RECEIVERS: [IpcErrorKind; 2] = [IpcErrorKind::XferTimeoutPartner, IpcErrorKind::XferTimeoutInvoker];
const SHORT: Time = Time::period_us(20_000);
const LONG: Time = Time::period_us(30_000_000);

/// A fault on either side, and `meanwhile`, in which the timeouts end the transfer with these errors.
#[track_caller]
fn times_out(xfer: [Time; 2], kinds: [IpcErrorKind; 2], meanwhile: impl Fn(&Cast, Side) -> Outcome) -> Outcome {
    let stage = Stage::new()?;
    for side in Side::BOTH {
        let exchange = Exchange { xfer, ..Exchange::without_second_page_of(side) }.fails(kinds, 0x1000);
        stage.play(exchange, |cast| meanwhile(cast, side)).within(format_args!("fault of {side:?}"))?;
    }
    Ok(())
}

fn patient_transfer_succeeds() -> Outcome {
    let stage = Stage::new()?;
    for xfer in [[LONG, LONG], [LONG, Time::NEVER], [Time::NEVER, LONG]] {
        let exchange = Exchange { xfer, ..Exchange::of_two_pages([2, 2]) };
        stage.play(exchange, |cast| cast.serve(&[(Sender, 0x1000), (Receiver, 0x1000)]))?;
    }
    // Without a fault no time is too short.
    stage.play(Exchange { xfer: [Time::ZERO; 2], ..Exchange::of_two_pages([0, 0]) }, |_| Ok(()))
}

fn no_time_for_faults() -> Outcome {
    times_out([Time::ZERO; 2], SENDERS, |_, _| Ok(()))
}

fn no_time_on_one_side() -> Outcome {
    for long in [LONG, Time::NEVER] {
        times_out([Time::ZERO, long], SENDERS, |_, _| Ok(()))?;
        times_out([long, Time::ZERO], RECEIVERS, |_, _| Ok(()))?;
    }
    Ok(())
}

/// The pager takes the fault and answers too late. On a slow machine it may come too late to take it.
fn takes_its_time(cast: &Cast, side: Side) -> Outcome {
    let taken = cast.fault(side, 0x1000);
    if cast.is_going_on() {
        taken?;
    }
    cast.wait_for_end()
}

fn transfer_times_out_by_the_sender() -> Outcome {
    times_out([SHORT, LONG], SENDERS, takes_its_time)
}

fn transfer_times_out_by_the_receiver() -> Outcome {
    times_out([LONG, SHORT], RECEIVERS, takes_its_time)
}

fn transfer_times_out_unnoticed_by_the_pager() -> Outcome {
    times_out([SHORT, LONG], SENDERS, |cast, _| cast.wait_for_end())?;
    times_out([LONG, SHORT], RECEIVERS, |cast, _| cast.wait_for_end())
}

fn transfer_timeout_is_one_for_all_faults() -> Outcome {
    // The second fault would find time enough if the first had not taken some of it, which is little: a slow machine has to
    // come through it in time.
    let exchange = Exchange { xfer: [Time::period_us(1_200_000), LONG], ..Exchange::of_two_pages([0, 3]) };
    Stage::new()?.play(exchange.fails(SENDERS, 0x1000), |cast| {
        cast.fault(Receiver, 0)?;
        sleep(Time::period_us(100_000));
        cast.answer(Receiver, 0)?;
        cast.fault(Receiver, 0x1000)?;
        sleep(Time::period_us(1_150_000));
        // From another processor a side may be on its way yet.
        if placement::is_spread() { cast.wait_for_end() } else { Ok(()) }
    })
}

// --- disasters ---

/// A side faults, and in each of two moments of that something happens to `side` or to the other one.
#[track_caller]
fn in_the_middle(
    happens: impl Fn(&Cast, Side, bool) -> Outcome,
    set_up: impl Fn(Exchange, Side) -> Exchange,
) -> Outcome {
    let stage = Stage::new()?;
    for faulting in Side::BOTH {
        for victim in Side::BOTH {
            for is_asked in [false, true] {
                let row = format_args!("{faulting:?} faults, {victim:?} is hit, the pager knows: {is_asked}");
                let exchange = set_up(Exchange::without_second_page_of(faulting), victim);
                let meanwhile = |cast: &Cast| {
                    if is_asked {
                        cast.fault(faulting, 0x1000)?;
                    }
                    happens(cast, victim, is_asked)?;
                    match (exchange.error, is_asked) {
                        (Some(_), _) => Ok(()),
                        (None, true) => cast.answer(faulting, 0x1000),
                        (None, false) => cast.serve(&[(faulting, 0x1000)]),
                    }
                };
                stage.play(exchange, meanwhile).within(row)?;
            }
        }
    }
    Ok(())
}

fn transfer_is_aborted() -> Outcome {
    for is_exact in [true, false] {
        let hit = |cast: &Cast, victim: Side, _: bool| {
            let exact = if victim == Sender { ExregsControl::ABORT_SEND } else { ExregsControl::ABORT_RECEIVE };
            let state = abort(cast.id(victim), if is_exact { exact } else { ExregsControl::ABORT_IPC })?;
            let expected = (victim == Sender, victim == Receiver);
            equal("whether it was sending, receiving", (state.was_sending(), state.was_receiving()), expected)
        };
        in_the_middle(hit, |exchange, _| exchange.fails(ABORTED, 0x1000))?;
    }
    Ok(())
}

fn other_phase_is_not_aborted() -> Outcome {
    let miss = |cast: &Cast, victim: Side, _: bool| {
        let other = if victim == Sender { ExregsControl::ABORT_RECEIVE } else { ExregsControl::ABORT_SEND };
        abort(cast.id(victim), other)?;
        Ok(())
    };
    in_the_middle(miss, |exchange, _| exchange)
}

fn deleted_partner_aborts_the_string() -> Outcome {
    let kill = |cast: &Cast, victim: Side, _: bool| cast.0[victim as usize].delete();
    in_the_middle(kill, |exchange, victim| Exchange { dies: Some(victim), ..exchange.fails(ABORTED, 0x1000) })
}

fn deleted_pager_aborts_the_string() -> Outcome {
    let stage = Stage::new()?;
    for side in Side::BOTH {
        let pager = plan().spawn(|| l4::time::sleep_forever())?;
        let mut exchange = Exchange::without_second_page_of(side).fails(ABORTED, 0x1000);
        exchange.pager[side as usize] = Some(pager.id());
        // A pager is gone for good: one place and order.
        let [one, other] = stage.spaces;
        stage.play_once(exchange, [one, other], side, |_| pager.delete()).within(format_args!("{side:?}"))?;
    }
    Ok(())
}
