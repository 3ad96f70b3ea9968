//! String items and page faults in the middle of them (X.2, StringItem; X.2, Ipc: message transfer, transfer timeouts).

use l4_abi::{
    Acceptor, BR_COUNT, ExregsControl, IpcError, IpcErrorKind, MapItem, MsgTag, Phase, ScheduleResult, StringItem,
    ThreadId, ThreadState, Time, Timeouts, Word, protocol,
};

use super::script::{expect, play};
use super::world::{A, B, N, R, ROOT, USER_END, Who, World, X, no_change};
use crate::machine::PhysAddr;
use crate::space::Rest;
use crate::syscall::ThreadControlArgs;
use crate::thread::Work;
use IpcErrorKind::{Overflow, XferTimeoutInvoker, XferTimeoutPartner};

/// Where a has its strings.
pub const FROM: Word = 0x100_0000;
/// Where x has its buffers.
pub const TO: Word = 0x200_0000;
const PAGE: Word = 0x1000;

/// The cast; r has memory, a and x have four pages of it, and r is the pager of both. Each byte of a's has another value
/// than its neighbours, x's are zero.
pub fn with_memory() -> World {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/20 map=0x2000000/20; a pager r; x pager r");
    play(w, "a accept; a wait; r send a map=0x1000000/14; x accept; x wait; r send x map=0x2000000/14");
    for page in 0..16 {
        let bytes: Vec<u8> = (0..PAGE).map(|i| byte(page * PAGE + i)).collect();
        w.k.machine.poke(PhysAddr(FROM + page * PAGE), &bytes);
    }
    w
}

pub fn byte(offset: Word) -> u8 {
    (offset % 251 + 1) as u8
}

/// A message of these items.
pub fn words(items: &[Word]) -> Vec<Word> {
    [&[MsgTag::new(5, 0, items.len()).raw()], items].concat()
}

/// A string of one piece.
pub fn string(from: Word, len: Word) -> Vec<Word> {
    vec![StringItem::new(len).raw(), from]
}

/// Lets x have these buffers.
pub fn buffers(w: World, items: &[Word]) {
    w.utcb(X).set_acceptor(Acceptor::COMPLETE.with_strings());
    items.iter().enumerate().for_each(|(i, &word)| w.utcb(X).set_br(i + 1, word));
}

/// x has these bytes of a's string at these places, and nothing else.
#[track_caller]
fn received(w: World, pieces: &[(Word, Word, Word)]) {
    let mut expected = vec![0; 4 * PAGE as usize];
    for &(to, from, len) in pieces {
        (0..len).for_each(|i| expected[(to - TO + i) as usize] = byte(from - FROM + i));
    }
    let found: Vec<u8> = (0..4).flat_map(|page| w.k.machine.peek(PhysAddr(TO + page * PAGE), PAGE as usize)).collect();
    let first = found.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "the first byte that is not as it should be");
}

/// A message of these items to these buffers; x then has the pieces. In either order of the two.
#[track_caller]
fn check(items: &[Word], bufs: &[Word], pieces: &[(Word, Word, Word)]) {
    for is_queued in [false, true] {
        let w = sent(items, bufs, is_queued);
        assert_eq!((w.outcome(A).as_str(), w.outcome(X).as_str()), ("sent", "got from a"), "queued: {is_queued}");
        assert_eq!(w.tag(X), MsgTag::new(5, 0, items.len()));
        assert_eq!(w.mrs(X)[1..=items.len()], *items, "the sender's items, as they were sent");
        received(w, pieces);
    }
}

/// A message of these items to these buffers overflows after so many bytes, for both.
#[track_caller]
fn overflows(items: &[Word], bufs: &[Word], offset: Word) {
    for is_queued in [false, true] {
        let w = sent(items, bufs, is_queued);
        let tag = MsgTag::new(5, 0, items.len()).with_flags(MsgTag::ERROR);
        for (who, phase) in [(A, Phase::Send), (X, Phase::Receive)] {
            assert_eq!(w.tag(who), tag, "{who:?}");
            assert_eq!(w.utcb(who).error_code(), IpcError { phase, kind: Overflow, offset }.raw(), "{who:?}");
        }
    }
}

fn sent(items: &[Word], bufs: &[Word], is_queued: bool) -> World {
    let w = with_memory();
    buffers(w, bufs);
    if !is_queued {
        play(w, "x wait");
    }
    w.send(A, X.id(), &words(items));
    if is_queued {
        play(w, "x wait");
    }
    w
}

/// X.2, StringItem: one string to one buffer, of any length and alignment.
#[test]
fn string_arrives() {
    for (from, to, len) in [(0, 0, 1), (3, 5, 1000), (0, 0, 0x4000), (0xFFF, 1, 2), (1, 0xFFF, 0x3001), (7, 7, 0)] {
        let pieces: &[(Word, Word, Word)] = &[(TO + to, FROM + from, len)];
        check(&string(FROM + from, len), &string(TO + to, len), pieces);
        check(&string(FROM + from, len), &string(TO + to, 0x4000 - to), pieces);
    }
}

/// X.2, StringItem: sub-strings and compound strings are gathered and scattered; the rest of a buffer is left alone.
#[test]
fn pieces_are_gathered_and_scattered() {
    let three = |item: StringItem, at: Word| vec![item.with_substrings(3).raw(), at, at + 0x400, at + 0x800];
    let whole = [(TO, FROM, 8), (TO + 8, FROM + 0x400, 8), (TO + 16, FROM + 0x800, 8)];
    check(&three(StringItem::new(8), FROM), &string(TO, 24), &whole);
    let parts = [(TO, FROM, 8), (TO + 0x400, FROM + 8, 8), (TO + 0x800, FROM + 16, 8)];
    check(&string(FROM, 24), &three(StringItem::new(8), TO), &parts);
    let compound = [three(StringItem::new(8).with_compound(), FROM), string(FROM + 0x100, 5)].concat();
    check(&compound, &string(TO, 29), &[&whole[..], &[(TO + 24, FROM + 0x100, 5)]].concat());
    let bufs = [three(StringItem::new(2).with_compound(), TO), string(TO + 0x100, 50)].concat();
    let ends = [(TO, FROM, 2), (TO + 0x400, FROM + 2, 2), (TO + 0x800, FROM + 4, 2), (TO + 0x100, FROM + 6, 18)];
    check(&string(FROM, 24), &bufs, &ends);
    let both = [(TO, FROM, 2), (TO + 0x400, FROM + 2, 2), (TO + 0x800, FROM + 4, 2), (TO + 0x100, FROM + 6, 2)];
    let rest = [(TO + 0x102, FROM + 0x400, 8), (TO + 0x10A, FROM + 0x800, 8)];
    check(&three(StringItem::new(8), FROM), &bufs, &[&both[..], &rest].concat());
}

/// X.2, StringItem: each string has a buffer of its own; the rest of a buffer, with all its parts, is skipped.
#[test]
fn strings_have_a_buffer_each() {
    let items = [string(FROM, 10), string(FROM + 100, 20), string(FROM + 200, 30)].concat();
    let more = |to, len| vec![StringItem::new(len).with_more().raw(), to];
    let bufs = [more(TO, 10), more(TO + 0x100, 99), string(TO + 0x200, 30)].concat();
    check(&items, &bufs, &[(TO, FROM, 10), (TO + 0x100, FROM + 100, 20), (TO + 0x200, FROM + 200, 30)]);
    let compound = [StringItem::new(12).with_compound().raw(), TO, StringItem::new(9).with_more().raw(), TO + 0x80];
    let bufs = [compound.to_vec(), more(TO + 0x100, 99), string(TO + 0x200, 30)].concat();
    check(&items, &bufs, &[(TO, FROM, 10), (TO + 0x100, FROM + 100, 20), (TO + 0x200, FROM + 200, 30)]);
}

/// X.2, StringItem: C in any item of a compound buffer announces the next buffer, whether the string fills the buffer or
/// ends in its first part; without C there is none.
#[test]
fn any_part_of_a_buffer_announces_the_next_one() {
    let two = |len| [string(FROM, len), string(FROM + 0x100, 20)].concat();
    let buffers_of = |first: StringItem, second: StringItem| {
        let compound = [first.with_compound().raw(), TO, second.raw(), TO + 0x80];
        [&compound[..], &string(TO + 0x200, 30)].concat()
    };
    let part = StringItem::new(8);
    for bufs in [buffers_of(part.with_more(), part), buffers_of(part, part.with_more())] {
        check(&two(5), &bufs, &[(TO, FROM, 5), (TO + 0x200, FROM + 0x100, 20)]);
        check(&two(16), &bufs, &[(TO, FROM, 8), (TO + 0x80, FROM + 8, 8), (TO + 0x200, FROM + 0x100, 20)]);
    }
    overflows(&two(5), &buffers_of(part, part), 5);
    overflows(&two(16), &buffers_of(part, part), 16);
}

/// X.2, StringItem: what stands in a buffer register and is no string item takes no string.
#[test]
fn only_string_items_are_buffers() {
    let map = MapItem::map(l4_abi::Fpage::COMPLETE, 0).words()[0];
    overflows(&string(FROM, 5), &[map, TO], 0);
    overflows(&string(FROM, 12), &[StringItem::new(8).with_compound().raw(), TO, map, TO + 0x80], 8);
}

/// X.2, Ipc: a message may have words, mappings and strings.
#[test]
fn strings_and_mappings_mix() {
    let w = with_memory();
    buffers(w, &string(TO, 100));
    play(w, "x wait; r accept");
    let map = MapItem::map(l4_abi::Fpage::from_raw(0x100_0000 | 12 << 4 | 7), 0x300_0000).words();
    let message = [&[MsgTag::new(0, 1, 6).raw(), 77], &map[..], &string(FROM, 50), &map].concat();
    w.send(A, X.id(), &message);
    expect(w, "a mixed message", "x got 77 from a");
    received(w, &[(TO, FROM, 50)]);
    assert!(w.k.spaces.lookup(w.k.space_of(X.tcb()), 0x300_0000).is_some());
}

/// X.2, Ipc: a string without room overflows where the room ends, counted over all strings.
#[test]
fn string_without_room_overflows() {
    let more = |to, len| vec![StringItem::new(len).with_more().raw(), to];
    overflows(&string(FROM, 0x1001), &string(TO, 0x1000), 0x1000);
    overflows(&string(FROM, 5), &string(TO, 0), 0);
    let two = [string(FROM, 128), string(FROM + 0x200, 128)].concat();
    overflows(&two, &string(TO, 200), 128);
    overflows(&two, &[more(TO, 128), string(TO + 0x100, 124)].concat(), 252);
    overflows(&[StringItem::new(128).with_substrings(2).raw(), FROM, FROM + 0x200], &string(TO, 252), 252);
    let scattered = [StringItem::new(126).with_substrings(2).raw(), TO, TO + 0x200];
    overflows(&string(FROM, 256), &scattered, 252);
}

/// X.2, Ipc: a receiver without string acceptor takes no string; the item itself has arrived.
#[test]
fn receiver_without_buffers_takes_no_string() {
    let w = with_memory();
    play(w, "x accept; x wait");
    w.send(A, X.id(), &words(&string(FROM, 16)));
    expect(w, "a string", "a Send Overflow; x Receive Overflow");
    assert_eq!(w.utcb(X).mr(1), StringItem::new(16).raw());
    assert_eq!(w.utcb(X).error_code() >> 4, 0);
}

/// X.2, StringItem: an item beyond the end of the message, a buffer beyond the registers and memory beyond the users' are
/// overflows.
#[test]
fn strings_beyond_their_limits_overflow() {
    let half = [StringItem::new(8).with_substrings(2).raw(), FROM];
    overflows(&half, &string(TO, 100), 8);
    overflows(&[StringItem::new(8).raw()], &string(TO, 100), 0);
    overflows(&[StringItem::new(0).raw()], &string(TO, 100), 0);
    let chain = [StringItem::new(8).with_compound().raw(), FROM];
    overflows(&chain, &string(TO, 100), 8);
    let beyond: Vec<Word> =
        [StringItem::new(8).with_substrings(32).raw()].into_iter().chain((0..31).map(spread)).collect();
    overflows(&string(FROM, 31 * 8 + 1), &beyond, 31 * 8);
    let chain: Vec<Word> = [StringItem::new(0).with_compound().raw(), TO].repeat((BR_COUNT - 1) / 2);
    overflows(&string(FROM, 4), &chain, 0);
    for address in [USER_END, USER_END * 2, Word::MAX, Word::MAX - 8] {
        overflows(&string(address, 4), &string(TO, 100), 0);
        overflows(&string(FROM, 4), &string(address, 100), 0);
    }
    overflows(&string(FROM, Word::MAX >> 10), &string(TO, 100), 100);
}

fn spread(i: Word) -> Word {
    TO + 0x100 * i
}

/// X.2, StringItem: as many sub-strings as an item can have, and as many parts of a buffer as there are registers for; the
/// parts that the string does not reach need not be there.
#[test]
fn string_can_have_very_many_pieces() {
    let item = StringItem::new(3).with_substrings(StringItem::SUBSTRINGS_MAX).raw();
    let gathered: Vec<Word> = [item].into_iter().chain((0..32).map(|i| FROM + 0x100 * i)).collect();
    let pieces: Vec<_> = (0..32).map(|i| (TO + 3 * i, FROM + 0x100 * i, 3)).collect();
    check(&gathered, &string(TO, 96), &pieces);
    let scattered: Vec<Word> = [item].into_iter().chain((0..31).map(spread)).collect();
    let pieces: Vec<_> = (0..31).map(|i| (spread(i), FROM + 3 * i, 3)).collect();
    check(&string(FROM, 93), &scattered, &pieces);
    let chain: Vec<Word> = [StringItem::new(4).with_compound().raw(), TO].repeat((BR_COUNT - 1) / 2);
    check(&string(FROM, 4), &chain, &[(TO, FROM, 4)]);
}

/// X.2, StringItem: a buffer that has no registers left behind it is the last one, whatever it says.
#[test]
fn last_register_has_the_last_buffer() {
    let mut bufs: Vec<Word> = [StringItem::new(0).with_substrings(29).with_compound().raw()].into();
    bufs.extend([0; 29].into_iter().chain(string(TO, 8)));
    assert_eq!(bufs.len(), BR_COUNT - 1);
    bufs[30] = StringItem::new(8).with_more().raw();
    check(&string(FROM, 5), &bufs, &[(TO, FROM, 5)]);
    overflows(&[string(FROM, 5), string(FROM, 5)].concat(), &bufs, 5);
    overflows(&[string(FROM, 5), string(FROM, 0)].concat(), &bufs, 5);
}

/// X.2, Ipc, message transfer: the receiver gets the sender's descriptors as far as they were reached.
#[test]
fn descriptors_arrive_as_they_are_reached() {
    let first = [StringItem::new(8).with_substrings(2).with_compound().raw(), FROM, FROM + 8];
    let message = [&first[..], &string(FROM + 16, 8)].concat();
    for (room, reached) in [(0, 2), (1, 2), (8, 3), (9, 3), (16, 5), (17, 5), (24, 5)] {
        for is_queued in [false, true] {
            let w = with_memory();
            w.set_mrs(X, &[0xEE; 8]);
            buffers(w, &string(TO, room));
            let (wait, late) = if is_queued { ("", "x wait") } else { ("x wait", "") };
            play(w, wait);
            w.send(A, X.id(), &words(&message));
            play(w, late);
            let arrived = w.mrs(X)[1..].iter().take_while(|&&word| word != 0xEE).count();
            assert_eq!(arrived, reached, "room for {room} bytes");
            assert_eq!(w.mrs(X)[1..=reached], message[..reached]);
        }
    }
}

/// X.2, Ipc, message transfer: a string or buffer that runs beyond the users' memory overflows where that ends.
#[test]
fn strings_end_with_the_users_memory() {
    let last_page = USER_END - PAGE;
    for is_dest in [false, true] {
        let w = with_memory();
        let who = if is_dest { X } else { A };
        let window = l4_abi::Fpage::new(last_page, 12, l4_abi::Rights::NONE).expect("aligned");
        w.utcb(who).set_acceptor(Acceptor::map_grant(window));
        play(w, &format!("{0} wait; r send {0} map=0x1000000/12", who.name()));
        let (from, to) = if is_dest { (FROM, USER_END - 24) } else { (USER_END - 24, TO) };
        buffers(w, &string(to, 100));
        play(w, "x wait");
        w.send(A, X.id(), &words(&string(from, 100)));
        for (who, phase) in [(A, Phase::Send), (X, Phase::Receive)] {
            let error = IpcError { phase, kind: Overflow, offset: 24 };
            assert_eq!(w.utcb(who).error_code(), error.raw(), "{who:?}, into {to:#x}");
        }
    }
}

/// A long string takes turns with others.
#[test]
fn long_string_is_copied_in_steps() {
    let w = with_memory();
    let pages = "a accept; a wait; r send a map=0x1000000/16; x accept; x wait; r send x map=0x2000000/16";
    play(w, pages);
    buffers(w, &string(TO, 0x10000));
    play(w, "x wait");
    w.set_mrs(A, &words(&string(FROM, 0x10000)));
    w.trap_ipc(A, X.id(), ThreadId::NIL, Timeouts::NEVER);
    w.dispatch_steps(0);
    expect(w, "the first step", "a works on Transfer; x receives from a");
    play(w, "c wait; d send c 2; a finish");
    expect(w, "the last step", "c got 2 from 'd; a sent; x got from a");
    assert_eq!(w.k.machine.peek(PhysAddr(TO + 0xFFFF), 1), [byte(0xFFFF)]);
}

// --- page faults ---

/// Which pages of a string of two pages are missing at first: the second of a, of x.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    Source,
    Dest,
    Both,
}

/// a sends two pages to x, which receives them; some of the pages are missing.
fn exchange(w: World, missing: Missing, is_queued: bool) -> World {
    let whole = StringItem::new(2 * PAGE).raw();
    let from = if missing == Missing::Dest { FROM } else { FROM + 3 * PAGE };
    let to = if missing == Missing::Source { TO } else { TO + 3 * PAGE };
    buffers(w, &[whole, to]);
    if !is_queued {
        play(w, "x wait");
    }
    w.send(A, X.id(), &words(&[whole, from]));
    if is_queued {
        play(w, "x wait");
    }
    w
}

/// As [`exchange`], with transfer timeouts; those that do not count are zero. r waits for the page faults.
fn timed(missing: Missing, snd: Time, rcv: Time, is_queued: bool) -> World {
    let w = with_memory();
    w.utcb(A).set_xfer_timeouts(Timeouts::new(snd, Time::ZERO));
    w.utcb(X).set_xfer_timeouts(Timeouts::new(Time::ZERO, rcv));
    play(w, "r wait");
    exchange(w, missing, is_queued)
}

/// As [`timed`], without limit.
pub fn faulting(missing: Missing, is_queued: bool) -> World {
    timed(missing, Time::NEVER, Time::NEVER, is_queued)
}

/// All of them, with the receiver there first or last.
pub const ALL: [(Missing, bool); 6] = [
    (Missing::Source, false),
    (Missing::Source, true),
    (Missing::Dest, false),
    (Missing::Dest, true),
    (Missing::Both, false),
    (Missing::Both, true),
];

/// The rest of the pages, from r.
const SOURCE_PAGE: &str = "r reply a map=0x1004000/12";
const DEST_PAGE: &str = "r reply x map=0x2004000/12";

/// What r does then.
pub fn mend(missing: Missing) -> String {
    match missing {
        Missing::Source => SOURCE_PAGE.into(),
        Missing::Dest => DEST_PAGE.into(),
        Missing::Both => format!("{SOURCE_PAGE}; {DEST_PAGE}"),
    }
}

/// X.2, Page fault protocol: a fault on the sender's side is a read at its instruction, one on the receiver's side a write
/// at none.
#[test]
fn missing_page_is_asked_for() {
    for (missing, is_queued) in ALL {
        let w = faulting(missing, is_queued);
        let (who, access, address) = match missing {
            Missing::Dest => (X, l4_abi::Rights::WRITE, TO + 4 * PAGE),
            _ => (A, l4_abi::Rights::READ, FROM + 4 * PAGE),
        };
        assert_eq!(w.tag(R), protocol::page_fault_tag(access), "{missing:?}");
        let ip = if who == X { protocol::PAGE_FAULT_IN_STRING } else { w.tcb(A).ip.get() as Word };
        assert_eq!(w.mrs(R)[1..3], [address, ip], "{missing:?}");
        assert_eq!(w.k.machine.saved(R.tcb()).from.get(), Some(who.id()));
        let states = (w.state(A), w.state(X));
        assert_eq!(states, (ScheduleResult::Sending, ScheduleResult::Receiving), "{missing:?}");
    }
}

/// X.2, Ipc: when the pager has answered, the copy goes on; nothing of the faults is seen in the virtual registers.
#[test]
fn string_goes_on_after_faults() {
    for (missing, is_queued) in ALL {
        let w = faulting(missing, is_queued);
        [A, X].into_iter().for_each(|who| (10..64).for_each(|i| w.utcb(who).set_mr(i, i as Word)));
        let long: String = (1..=40).map(|i| format!(" {i}")).collect();
        play(
            w,
            &mend(missing).replace("reply a", &format!("reply a{long}")).replace("reply x", &format!("reply x{long}")),
        );
        finish(w);
        expect(w, "the string", "a sent; x got from a");
        for who in [A, X] {
            assert!((10..64).all(|i| w.utcb(who).mr(i) == i as Word), "{who:?}");
        }
        let (from, to) = (w.utcb(A).mr(2), w.utcb(X).br(2));
        let page = |at| w.k.machine.peek(PhysAddr(at), PAGE as usize);
        assert_eq!((page(to), page(to + PAGE)), (page(from), page(from + PAGE)), "{missing:?}");
    }
}

/// Lets a and x do what is left of their work.
pub fn finish(w: World) {
    let can_work = |who: &Who| w.tcb(*who).ready_link.is_linked() && w.tcb(*who).work() != Work::None;
    while let Some(who) = [A, X].into_iter().find(can_work) {
        w.make_run(who);
        w.dispatch();
    }
}

/// Both sides see this error after one page.
#[track_caller]
fn both_see(w: World, kinds: (IpcErrorKind, IpcErrorKind), what: &str) {
    let tag = MsgTag::new(5, 0, 2).with_flags(MsgTag::ERROR);
    for (who, phase, kind) in [(A, Phase::Send, kinds.0), (X, Phase::Receive, kinds.1)] {
        assert_eq!(w.tag(who), tag, "{what}: {who:?}");
        let error = IpcError::from_raw(w.utcb(who).error_code());
        assert_eq!(error, Some(IpcError { phase, kind, offset: PAGE }), "{what}: {who:?}");
    }
}

/// X.2, ExchangeRegisters: an abort of either side ends the nested fault and the string, for both.
#[test]
fn faulting_string_can_be_aborted() {
    let aborted = (IpcErrorKind::Aborted, IpcErrorKind::Aborted);
    for (missing, is_queued) in ALL {
        for (abort, is_effective) in [
            ("b cancel-send a", true),
            ("b cancel-receive a", false),
            ("y cancel-receive x", true),
            ("y cancel-send x", false),
        ] {
            let w = faulting(missing, is_queued);
            play(w, abort);
            if is_effective {
                both_see(w, aborted, abort);
                play(w, "r send a snd=0; r send x snd=0");
                expect(w, "a late reply", "r Send Timeout");
            } else {
                play(w, &mend(missing));
                finish(w);
                expect(w, abort, "a sent; x got from a");
            }
            assert_eq!(w.here().cpu.timeouts.count(), 0);
        }
    }
}

/// X.2, ExchangeRegisters: so does an abort of a fault that waits for its pager, or of one that is being answered; then
/// the pager's answer is aborted, too.
#[test]
fn fault_on_its_way_can_be_aborted() {
    let aborted = (IpcErrorKind::Aborted, IpcErrorKind::Aborted);
    for (missing, is_queued) in ALL {
        for abort in ["b cancel-send a", "y cancel-receive x"] {
            let w = exchange(with_memory_and_time(), missing, is_queued);
            play(w, abort);
            both_see(w, aborted, abort);
            play(w, "r wait rcv=0");
            expect(w, abort, "r Receive Timeout");

            let w = faulting(missing, is_queued);
            let who = if missing == Missing::Dest { "x" } else { "a" };
            play(w, &format!("r send {who} map=0x1000000/20 ~"));
            expect(w, "a long answer", "r works on Transfer");
            play(w, abort);
            both_see(w, aborted, abort);
            expect(w, abort, "r Send Aborted");
        }
        let w = exchange(with_memory_and_time(), missing, is_queued);
        play(w, "root delete r");
        both_see(w, aborted, "deletion of a busy pager");
    }
}

fn with_memory_and_time() -> World {
    let w = with_memory();
    [A, X].into_iter().for_each(|who| w.utcb(who).set_xfer_timeouts(Timeouts::NEVER));
    w
}

/// X.2, ExchangeRegisters: the state of both sides is that of the string.
#[test]
fn faulting_string_is_sending_and_receiving() {
    for (missing, is_queued) in ALL {
        let w = faulting(missing, is_queued);
        let state = |by, who: Who| w.exregs(by, who.id(), ExregsControl::NONE).expect("same space").state;
        assert_eq!((state(B, A), state(ROOT, R)), (ThreadState::SENDING, ThreadState::NONE));
        assert_eq!(state(super::world::Y, X), ThreadState::RECEIVING);
    }
}

/// X.2, ThreadControl: deletion of either side, or of the pager before it took the fault, ends the string.
#[test]
fn faulting_string_ends_with_its_threads() {
    for (missing, is_queued) in ALL {
        let w = faulting(missing, is_queued);
        play(w, "root delete a");
        expect(w, "deletion of the sender", "a gone; x Receive Aborted");
        let w = faulting(missing, is_queued);
        play(w, "root delete x");
        expect(w, "deletion of the receiver", "x gone; a Send Aborted");
        let w = faulting(missing, is_queued);
        play(w, "root delete r; b cancel a");
        expect(w, "deletion of the pager", "a Send Aborted; x Receive Aborted");
        let w = faulting(missing, is_queued);
        for who in [A, X, R, B] {
            w.delete(ROOT, who).expect("root may");
        }
        let census = w.k.spaces.check_invariants(Rest::Settled).expect("all is well");
        assert_eq!(w.frames_used(), census.frames);
        assert_eq!(w.here().cpu.timeouts.count(), 0);
    }
}

/// X.2, ThreadControl: so does a new space or a new version for either side.
#[test]
fn faulting_string_ends_when_a_thread_moves_or_is_renamed() {
    let aborted = (IpcErrorKind::Aborted, IpcErrorKind::Aborted);
    for (missing, is_queued) in ALL {
        for who in [A, X] {
            let w = faulting(missing, is_queued);
            w.create(N);
            assert_eq!(w.thread_control(ROOT, ThreadControlArgs { space: N.id(), ..no_change(who) }), Ok(()));
            assert_eq!(w.k.space_of(who.tcb()), w.k.space_of(N.tcb()));
            both_see(w, aborted, "a move");
            let w = faulting(missing, is_queued);
            let args = ThreadControlArgs { dest: who.version(2), space: who.version(2), ..no_change(who) };
            assert_eq!(w.thread_control(ROOT, args), Ok(()));
            both_see(w, aborted, "a new version");
        }
    }
}

/// X.2, ThreadControl: a pager under a new id is not the one that was asked; the fault waits until somebody ends it.
#[test]
fn renamed_pager_cannot_answer() {
    for (missing, is_queued) in [(Missing::Source, false), (Missing::Dest, true)] {
        let w = faulting(missing, is_queued);
        let args = ThreadControlArgs { dest: R.version(2), space: R.version(2), ..no_change(R) };
        assert_eq!(w.thread_control(ROOT, args), Ok(()));
        let faulting = if missing == Missing::Dest { X } else { A };
        play(w, &format!("r send {} snd=0", faulting.name()));
        expect(w, "an answer under another id", "r Send Timeout");
        let other = if faulting == A { "x receives from a" } else { "a sends to x" };
        expect(w, "an answer under another id", other);
        play(w, if faulting == A { "b cancel a" } else { "y cancel x" });
        both_see(w, (IpcErrorKind::Aborted, IpcErrorKind::Aborted), "abort");
    }
}

/// X.2, Unmap: a page that is revoked in the middle of a copy is missing: it is asked for.
#[test]
fn page_that_is_revoked_during_the_copy_is_asked_for() {
    for (revoked, who, mend) in
        [(FROM + 8 * PAGE, "a", "r send a map=0x1000000/16"), (TO + 8 * PAGE, "x", "r send x map=0x2000000/16")]
    {
        let w = with_memory();
        play(w, "a accept; a wait; r send a map=0x1000000/16; x accept; x wait; r send x map=0x2000000/16");
        buffers(w, &string(TO, 0x10000));
        play(w, "x wait; r wait");
        w.set_mrs(A, &words(&string(FROM, 0x10000)));
        w.trap_ipc(A, X.id(), ThreadId::NIL, Timeouts::NEVER);
        w.dispatch_steps(0);
        expect(w, "the first step", "a works on Transfer");
        play(w, "root send r");
        let page = l4_abi::Fpage::new(revoked, 12, l4_abi::Rights::ALL).expect("aligned");
        w.set_mrs(R, &[page.raw()]);
        w.enter(R, |here, r| here.unmap(r, l4_abi::UnmapControl::unmap(1)));
        play(w, "r wait; a finish");
        expect(
            w,
            "the page is gone",
            if who == "a" { "r got 16809984 18446744073704308738 from a" } else { "x fault: waits for r" },
        );
        play(w, mend);
        finish(w);
        expect(w, "the rest", "a sent; x got from a");
        assert!((0..16).all(|i| w.k.machine.peek(PhysAddr(TO + i * PAGE), 1) == [byte(i * PAGE)]));
    }
}

/// X.2, Page fault protocol: without a pager there is no page; the string ends.
#[test]
fn string_without_pager_is_aborted() {
    for (missing, is_queued) in ALL {
        for pager in ["nil", "n"] {
            let w = with_memory();
            play(w, &format!("a pager {pager}; x pager {pager}"));
            exchange(w, missing, is_queued);
            both_see(w, (IpcErrorKind::Aborted, IpcErrorKind::Aborted), pager);
            expect(w, "no halt", "a Send Aborted; x Receive Aborted");
        }
    }
}

/// X.2, Ipc: the smaller transfer timeout counts from the first fault; its owner sees 5, the other side 6. Zero leaves no
/// time for any fault; a long one does not matter.
#[test]
fn transfer_timeout_ends_a_faulting_string() {
    let (own, other) = (XferTimeoutInvoker, XferTimeoutPartner);
    let us = |us| if us == 0 { Time::ZERO } else { Time::period_us(us) };
    for (missing, is_queued) in ALL {
        for (snd, rcv, kinds) in
            [(1000, 30_000, (own, other)), (30_000, 1000, (other, own)), (1000, 1000, (own, other))]
        {
            let w = timed(missing, us(snd), us(rcv), is_queued);
            w.clock(w.tcb(A).transfer.deadline.get().min(999));
            assert!(!w.outcome(A).contains("Timeout") && !w.outcome(X).contains("Timeout"), "too early");
            w.clock(1001);
            both_see(w, kinds, &format!("{missing:?} {snd} {rcv}"));
        }
        for (snd, rcv, kinds) in [(0, 0, (own, other)), (0, 1000, (own, other)), (1000, 0, (other, own))] {
            let w = timed(missing, us(snd), us(rcv), is_queued);
            both_see(w, kinds, &format!("{missing:?} {snd} {rcv}"));
            assert_eq!(w.outcome(R), "waits for any", "no fault was sent");
        }
        let w = timed(missing, us(5000), us(9000), is_queued);
        w.clock(3000);
        play(w, &mend(missing));
        finish(w);
        w.clock(20_000);
        expect(w, "faults in time", "a sent; x got from a");
    }
}

/// X.2, Ipc: the timeout counts over all faults of a transfer.
#[test]
fn transfer_timeout_is_not_started_anew() {
    let w = timed(Missing::Both, Time::period_us(1000), Time::NEVER, false);
    w.clock(900);
    play(w, SOURCE_PAGE);
    finish(w);
    w.clock(1000);
    both_see(w, (XferTimeoutInvoker, XferTimeoutPartner), "the second fault");
}

/// X.2, Ipc: during the fault both are busy: others wait, and only the pager can answer.
#[test]
fn others_do_not_disturb_a_faulting_string() {
    for (missing, is_queued) in ALL {
        let w = faulting(missing, is_queued);
        play(w, "b send a 1 snd=0; b send x 1 snd=0; c send a 7; y send x 8");
        expect(w, "messages of others", "b Send Timeout; c queued on a; y queued on x");
        play(w, &mend(missing));
        finish(w);
        play(w, "a wait c; x wait");
        expect(w, "afterwards", "a got 7 from 'c; x got 8 from 'y");
    }
}

/// X.2, ExchangeRegisters: who is halted in the middle of a faulting string finishes it.
#[test]
fn halted_thread_finishes_its_string() {
    for (missing, is_queued) in ALL {
        let w = faulting(missing, is_queued);
        play(w, "b halt a; y halt x");
        play(w, &mend(missing));
        finish(w);
        expect(w, "the string", "a halted; x halted");
        play(w, "b resume a; y resume x");
        expect(w, "resume", "a sent; x got from a");
    }
}

/// X.2, Ipc: an empty answer lets the thread fault again.
#[test]
fn pager_without_a_page_is_asked_again() {
    for (missing, is_queued) in ALL {
        let w = faulting(missing, is_queued);
        let who = if missing == Missing::Dest { "x" } else { "a" };
        for _ in 0..3 {
            play(w, &format!("r reply {who}"));
            finish(w);
            assert!(w.outcome(R).starts_with("got "), "{}", w.outcome(R));
        }
        play(w, &mend(missing));
        finish(w);
        expect(w, "the page", "a sent; x got from a");
    }
}

/// X.2, sigma0: a string out of its own memory needs no pager, and no time for one.
#[test]
fn strings_of_sigma0_do_not_fault() {
    let w = with_memory();
    buffers(w, &string(TO, 100));
    [super::world::S, X]
        .into_iter()
        .for_each(|who| w.utcb(who).set_xfer_timeouts(Timeouts::new(Time::ZERO, Time::ZERO)));
    play(w, "x wait; root send s");
    let untouched = 0x300_0000;
    w.k.machine.poke(PhysAddr(untouched), &[7; 100]);
    w.send(super::world::S, X.id(), &words(&string(untouched, 100)));
    expect(w, "a string of sigma0", "s sent; x got from s");
    assert_eq!(w.k.machine.peek(PhysAddr(TO), 101), [[7; 100].as_slice(), &[0]].concat());
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("string_arrives", string_arrives),
    ("pieces_are_gathered_and_scattered", pieces_are_gathered_and_scattered),
    ("strings_have_a_buffer_each", strings_have_a_buffer_each),
    ("strings_and_mappings_mix", strings_and_mappings_mix),
    ("string_without_room_overflows", string_without_room_overflows),
    ("receiver_without_buffers_takes_no_string", receiver_without_buffers_takes_no_string),
    ("strings_beyond_their_limits_overflow", strings_beyond_their_limits_overflow),
    ("string_can_have_very_many_pieces", string_can_have_very_many_pieces),
    ("last_register_has_the_last_buffer", last_register_has_the_last_buffer),
    ("descriptors_arrive_as_they_are_reached", descriptors_arrive_as_they_are_reached),
    ("strings_end_with_the_users_memory", strings_end_with_the_users_memory),
    ("missing_page_is_asked_for", missing_page_is_asked_for),
    ("string_goes_on_after_faults", string_goes_on_after_faults),
    ("faulting_string_can_be_aborted", faulting_string_can_be_aborted),
    ("faulting_string_is_sending_and_receiving", faulting_string_is_sending_and_receiving),
    ("faulting_string_ends_with_its_threads", faulting_string_ends_with_its_threads),
    ("faulting_string_ends_when_a_thread_moves_or_is_renamed", faulting_string_ends_when_a_thread_moves_or_is_renamed),
    ("renamed_pager_cannot_answer", renamed_pager_cannot_answer),
    ("string_without_pager_is_aborted", string_without_pager_is_aborted),
    ("transfer_timeout_ends_a_faulting_string", transfer_timeout_ends_a_faulting_string),
    ("transfer_timeout_is_not_started_anew", transfer_timeout_is_not_started_anew),
    ("others_do_not_disturb_a_faulting_string", others_do_not_disturb_a_faulting_string),
    ("halted_thread_finishes_its_string", halted_thread_finishes_its_string),
    ("pager_without_a_page_is_asked_again", pager_without_a_page_is_asked_again),
    ("strings_of_sigma0_do_not_fault", strings_of_sigma0_do_not_fault),
];
