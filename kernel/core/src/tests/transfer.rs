//! Typed items of messages (X.2, Ipc: message transfer; Map and Grant).

use l4_abi::{Acceptor, Fpage, MR_COUNT, MapItem, MsgTag, Rights, StringItem, Word};

use super::script::{check, expect, play};
use super::world::{A, B, C, R, USER_END, Who, World};
use crate::space::Mapping;

/// r has a megabyte to send.
const PAGES: &str = "root send s; r accept; r wait; s send r map=0x1000000/20; b accept";

fn with_pages() -> World {
    let w = World::new();
    play(w, PAGES);
    w
}

fn lookup(w: World, who: Who, address: usize) -> Option<Mapping> {
    w.k.spaces.lookup(w.k.space_of(who.tcb()), address)
}

fn page(base: Word) -> Fpage {
    Fpage::new(base, 12, Rights::ALL).expect("aligned")
}

/// X.2, Ipc, message transfer: the pages are there when the message is, in either order of the two.
#[test]
fn map_items_map() {
    for ipc in ["b wait; r send b 5 map=0x1003000/12", "r send b 5 map=0x1003000/12; b wait"] {
        let w = with_pages();
        play(w, ipc);
        expect(w, ipc, "b got 5 from r; r sent");
        assert_eq!(lookup(w, B, 0x100_3000).map(|page| page.phys.0), Some(0x100_3000), "{ipc}");
        assert!(lookup(w, R, 0x100_3000).is_some(), "the sender keeps it");
        assert_eq!(lookup(w, B, 0x100_4000), None);
    }
}

/// X.2, GrantItem: the sender loses what it grants.
#[test]
fn grant_items_grant() {
    let w = with_pages();
    play(w, "b wait; r send b grant=0x1003000/12 map=0x1004000/12");
    assert!(lookup(w, B, 0x100_3000).is_some() && lookup(w, R, 0x100_3000).is_none());
    assert!(lookup(w, B, 0x100_4000).is_some() && lookup(w, R, 0x100_4000).is_some());
}

/// X.2, Ipc, message transfer: the receiver finds the items as they were sent, behind the untyped words.
#[test]
fn items_arrive_unchanged() {
    let w = with_pages();
    play(w, "b wait; r send b 5 label=3 map=0x1003000/12 grant=0x1004000/12");
    let [map, grant] =
        [MapItem::map(page(0x100_3000), 0x100_3000), MapItem::grant(page(0x100_4000), 0x100_4000)].map(MapItem::words);
    assert_eq!(w.tag(B), MsgTag::new(3, 1, 4));
    assert_eq!(w.mrs(B)[1..7], [5, map[0], map[1], grant[0], grant[1], 0]);
}

/// X.2, Acceptor: the window decides where the pages go; a window without room for them takes none.
#[test]
fn window_places_the_page() {
    let w = with_pages();
    w.utcb(B).set_acceptor(Acceptor::map_grant(Fpage::new(0x200_0000, 16, Rights::NONE).expect("aligned")));
    play(w, "b wait");
    let item = MapItem::map(page(0x100_3000), 0xABC_D000).words();
    w.send(R, B.id(), &[MsgTag::new(0, 0, 2).raw(), item[0], item[1]]);
    expect(w, "send base", "b got from r");
    assert_eq!(lookup(w, B, 0x200_D000).map(|page| page.phys.0), Some(0x100_3000));
}

/// X.2, Ipc, message transfer: what is wrong with an item is message overflow for both.
#[test]
fn bad_items_overflow() {
    let map = MapItem::map(page(0x100_3000), 0x100_3000).words();
    let string = StringItem::new(16).raw();
    let rows: [(&str, usize, usize, Vec<Word>); 7] = [
        ("half an item", 0, 1, vec![map[0], map[1]]),
        ("an item and a half", 0, 3, vec![map[0], map[1], map[0], map[1]]),
        ("a string without buffer", 0, 2, vec![string, 0x4000]),
        ("a control transfer item", 0, 2, vec![6 << 1, 0]),
        ("an unknown item", 0, 2, vec![7 << 1, 0]),
        ("more words than registers", 62, 2, vec![0; 62]),
        ("far more words than registers", 63, 63, vec![0; 63]),
    ];
    for (what, untyped, typed, words) in rows {
        for is_queued in [false, true] {
            let w = with_pages();
            let tag = MsgTag::new(9, untyped, typed);
            play(w, if is_queued { "" } else { "b wait" });
            w.send(R, B.id(), &[&[tag.raw()], &words[..]].concat());
            play(w, if is_queued { "b wait" } else { "" });
            expect(w, what, "r Send Overflow; b Receive Overflow");
            assert_eq!(
                (w.utcb(R).tag(), w.utcb(B).tag()),
                (tag.with_flags(MsgTag::ERROR), tag.with_flags(MsgTag::ERROR))
            );
            assert_eq!(w.utcb(R).error_code() >> 4, 0, "no byte of a string was transferred");
        }
    }
}

/// X.2, Ipc, message transfer: the last registers can hold an item.
#[test]
fn message_can_fill_all_registers() {
    let w = with_pages();
    play(w, "b wait");
    let map = MapItem::map(page(0x100_3000), 0x100_3000).words();
    w.send(R, B.id(), &[&[MsgTag::new(0, MR_COUNT - 3, 2).raw()], &[0; MR_COUNT - 3][..], &map].concat());
    assert!(w.outcome(B).starts_with("got 0 0"), "{}", w.outcome(B));
    assert!(lookup(w, B, 0x100_3000).is_some());
    assert_eq!(w.mrs(B)[MR_COUNT - 2..], map);
}

/// X.2, Ipc, message transfer: nothing is undone: items before the bad one are transferred, those after it are not.
#[test]
fn items_before_an_error_stay() {
    let w = with_pages();
    play(w, "b wait");
    let items = [page(0x100_3000), page(0x100_4000)].map(|fpage| MapItem::map(fpage, fpage.base()).words());
    w.set_mrs(B, &[0, 0, 0, 77, 77, 77]);
    play(w, "");
    w.send(R, B.id(), &[&[MsgTag::new(0, 0, 6).raw()], &items[0][..], &[7 << 1, 0], &items[1]].concat());
    expect(w, "a bad second item", "r Send Overflow; b Receive Overflow");
    assert!(lookup(w, B, 0x100_3000).is_some() && lookup(w, B, 0x100_4000).is_none());
    assert_eq!(w.mrs(B)[1..6], [items[0][0], items[0][1], 77, 77, 77]);
}

/// X.2, Acceptor: without a window a map item overflows, even one that maps nothing.
#[test]
fn receiver_without_window_takes_no_item() {
    let w = World::new();
    play(w, "b wait");
    let item = MapItem::map(Fpage::NIL, 0).words();
    w.send(A, B.id(), &[MsgTag::new(0, 0, 2).raw(), item[0], item[1]]);
    expect(w, "nilpage to a nil window", "a Send Overflow; b Receive Overflow");
    play(w, "b accept; b wait");
    w.send(A, B.id(), &[MsgTag::new(0, 0, 2).raw(), item[0], item[1]]);
    expect(w, "nilpage to a window", "a sent; b got from 'a");
}

/// X.2, Map and Grant: there are no errors: what the sender does not have is not mapped.
#[test]
fn mapping_what_is_not_there_is_silent() {
    check("b accept; b wait; a send b 1 map=0x5000/12 grant=0x100000/20", "a sent; b got 1 from 'a");
}

/// A long transfer takes turns with others, and with both phases of a call.
#[test]
fn long_transfer_is_done_in_steps() {
    let begun = format!("{PAGES}; b wait; r call b 1 map=0x1000000/20 ~");
    check(&begun, "r works on Transfer; b receives from r");
    check(&format!("{begun}; c wait; d send c 2"), "c got 2 from 'd; r works on Transfer");
    check(&format!("{begun}; c wait; d send c 2; r finish"), "r waits for b; b got 1 from r");
    let w = with_pages();
    play(w, "b wait; r send b map=0x1000000/20");
    assert!((0..256).all(|i| lookup(w, B, 0x100_0000 + i * 0x1000).is_some()));
}

/// X.2, Unmap: it takes back what was mapped to others; with flush, the caller's own pages too.
#[test]
fn unmap_takes_back_what_was_sent() {
    for (is_flush, keeps) in [(false, true), (true, false)] {
        let w = with_pages();
        play(w, "b wait; r send b map=0x1000000/20");
        w.set_mrs(R, &[page(0x100_3000).raw(), Fpage::NIL.raw(), page(0x100_5000).raw()]);
        let control = if is_flush { l4_abi::UnmapControl::flush(3) } else { l4_abi::UnmapControl::unmap(3) };
        w.enter(R, |here, r| here.unmap(r, control));
        for address in [0x100_3000, 0x100_5000] {
            assert_eq!(lookup(w, B, address), None, "flush: {is_flush}");
            assert_eq!(lookup(w, R, address).is_some(), keeps, "flush: {is_flush}");
        }
        assert!(lookup(w, B, 0x100_4000).is_some() && lookup(w, R, 0x100_4000).is_some());
        let status =
            [page(0x100_3000), Fpage::NIL, page(0x100_5000)].map(|fpage| fpage.with_rights(Rights::NONE).raw());
        assert_eq!(w.mrs(R)[..3], status, "nobody has accessed them");
        assert_eq!(w.k.machine.saved(R.tcb()).unmaps.get(), 1);
    }
}

/// X.2, Unmap: as many fpages as there are message registers, and a long one takes turns with others.
#[test]
fn unmap_of_much_is_done_in_steps() {
    let w = with_pages();
    play(w, "b wait; r send b map=0x1000000/20");
    let all = Fpage::COMPLETE.with_rights(Rights::ALL).raw();
    w.set_mrs(R, &[all; MR_COUNT]);
    w.begin(R, |here, r| here.unmap(r, l4_abi::UnmapControl::unmap(MR_COUNT)));
    expect(w, "the first step", "r works on Unmap");
    play(w, "c wait; d send c 2; root halt r; root resume r; r finish");
    expect(w, "all steps", "c got 2 from 'd");
    assert_eq!(w.k.machine.saved(R.tcb()).unmaps.get(), 1);
    assert!((0..256).all(|i| lookup(w, B, 0x100_0000 + i * 0x1000).is_none()));
    assert_eq!(w.mrs(R), vec![Fpage::COMPLETE.raw(); MR_COUNT]);
}

/// X.2, Unmap: nobody is harmed by nonsense.
#[test]
fn unmap_of_nonsense_does_nothing() {
    let w = World::new();
    let kernel = Fpage::new(USER_END, 20, Rights::ALL).expect("aligned").raw();
    w.set_mrs(C, &[0, 1, 0x2F7, kernel, Word::MAX]);
    w.enter(C, |here, c| here.unmap(c, l4_abi::UnmapControl::flush(5)));
    expect(w, "nonsense", "c ready");
    assert!(lookup(w, C, C.utcb_location() as usize).is_some(), "UTCBs stay");
    assert!(lookup(w, C, super::world::KIP_AREA.base() as usize).is_some(), "the KIP stays");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("map_items_map", map_items_map),
    ("grant_items_grant", grant_items_grant),
    ("items_arrive_unchanged", items_arrive_unchanged),
    ("window_places_the_page", window_places_the_page),
    ("bad_items_overflow", bad_items_overflow),
    ("message_can_fill_all_registers", message_can_fill_all_registers),
    ("items_before_an_error_stay", items_before_an_error_stay),
    ("receiver_without_window_takes_no_item", receiver_without_window_takes_no_item),
    ("mapping_what_is_not_there_is_silent", mapping_what_is_not_there_is_silent),
    ("unmap_takes_back_what_was_sent", unmap_takes_back_what_was_sent),
    ("unmap_of_much_is_done_in_steps", unmap_of_much_is_done_in_steps),
    ("unmap_of_nonsense_does_nothing", unmap_of_nonsense_does_nothing),
];
