//! Mappings: map, grant, unmap, flush, access status.
//!
//! Spaces of agents: `root` is the tester's own, which has the pages; others get them from there.

use l4::arch::timestamp;
use l4::ipc;
use l4::message::Msg;
use l4::time::sleep;
use l4::{Fpage, IpcErrorKind, MapItem, PageAttribute, Rights, ThreadId, Time, Word, kip, utcb};

use crate::arch;
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::agent::{Access, Agent, Fault};
use crate::world::large::{GIB_LOG2, LARGE, LARGE_LOG2, OF_1_GIB};
use crate::world::memory::{self, PAGE_LOG2, PAGE_SIZE, PAGES, at, fpage, page, playground, window};
use crate::world::messages::{accept_everywhere, accept_in, receive_mapping, send_error, send_items};
use crate::world::spaces::{Space, kip_area, utcb_area};
use crate::world::threads::{self, PATIENCE, PRIORITY_LATER, plan, spawn, tester};

chapter! { memory:
    "X.2, Mappings, map" => [
        map_shares_a_page,
        rights_are_those_of_both,
        map_without_rights_to_pass,
        map_again_extends_rights,
        map_again_never_reduces_rights,
        overmap_replaces_a_page,
        overmap_revokes_what_was_derived,
        holes_leave_the_destination,
        several_items_in_one_message,
        words_before_items_arrive,
        item_of_a_page_too_small_maps_nothing,
        mapping_within_one_space,
        code_runs_in_another_space,
        execute_is_a_right_of_its_own,
    ],
    "X.2, Mappings, send base and receive window" => [
        window_of_the_same_size,
        larger_window_takes_the_send_base,
        smaller_window_takes_a_part,
        complete_space_as_a_window,
        regions_of_many_pages,
        nil_window_takes_nothing,
        odd_items_and_windows_do_no_harm,
        complete_space_to_complete_space,
    ],
    "X.2, Mappings, grant" => [grant_moves_a_page, grant_keeps_what_is_derived, grant_of_more_than_the_window],
    "X.2, Unmap" => [
        unmap_revokes_derived_mappings_alone,
        unmap_reaches_every_descendant,
        unmap_of_write_leaves_read,
        unmap_leaves_siblings,
        flush_revokes_own_mapping_too,
        flush_of_write_leaves_read,
        unmap_takes_many_fpages,
        nil_fpage_is_harmless,
        unmap_of_the_complete_space,
        flush_of_the_complete_space,
        unmap_of_nothing,
    ],
    "X.2, Unmap, access status" => [
        status_tells_reads_and_writes,
        status_is_reset,
        status_of_all_descendants,
        flush_tells_own_accesses,
    ],
    "X.2, Mappings, large pages" => [
        large_page_is_mapped,
        part_of_a_large_page,
        unmap_a_large_page,
        small_pages_give_way_to_a_large_page,
        page_of_1_gib_is_mapped,
        page_of_1_gib_is_mapped_at_once,
        page_of_1_gib_in_parts,
        page_of_1_gib_is_unmapped,
        smaller_pages_give_way_to_a_page_of_1_gib,
        page_of_1_gib_tells_of_accesses,
    ],
    "X.2, Mappings, protected areas" => [
        kip_and_utcb_areas_stay,
        kip_and_utcbs_cannot_be_sent,
        kernel_addresses_cannot_be_sent,
    ],
    "X.2, Mappings, cut off" => [transfer_is_cut_off_by_deletion, unmap_is_cut_off_by_deletion],
    "X.2, Destruction of a space" => [destruction_revokes_what_was_derived, pages_come_and_go_many_times],
}

const NONE: Rights = Rights::NONE;
const READ: Rights = Rights::READ;
const READ_WRITE: Rights = Rights::READ_WRITE;
const ALL: Rights = Rights::ALL;

/// The page at an offset of the playground.
fn place(offset: Word, rights: Rights) -> Fpage {
    window(offset, PAGE_LOG2).with_rights(rights)
}

/// Agents in new spaces.
#[track_caller]
fn agents<const N: usize>() -> Outcome<[Agent; N]> {
    let mut agents = [None; N];
    for agent in &mut agents {
        *agent = Some(Agent::in_new_space()?);
    }
    Ok(agents.map(|agent| agent.expect("each was made")))
}

/// An agent with page 0, which holds `value`, at the beginning of the playground.
#[track_caller]
fn agent_with_page(value: Word, rights: Rights) -> Outcome<Agent> {
    page(0).set(value);
    let agent = Agent::in_new_space()?;
    agent.take(page(0).map_to(0, rights))?;
    Ok(agent)
}

// --- map ---

fn map_shares_a_page() -> Outcome {
    let agent = agent_with_page(0x11, READ_WRITE)?;
    agent.check_reads(at(0), 0x11)?;
    equal("the write", agent.write(at(0), 0x22)?, Access::Done(0))?;
    equal("the word here", page(0).get(), 0x22)?;
    page(0).set(0x33);
    agent.check_reads(at(0), 0x33)?;
    agent.check_nothing(at(PAGE_SIZE))
}

fn rights_are_those_of_both() -> Outcome {
    for (first, second, result) in
        [(READ, ALL, READ), (ALL, READ, READ), (ALL, ALL, READ_WRITE), (READ_WRITE, READ, READ)]
    {
        let agent = agent_with_page(1, first)?;
        let other = Agent::in_new_space()?;
        agent.pass(other, MapItem::map(place(0, second), 0))?;
        other.check_rights(at(0), result).within(format_args!("{first:?} and {second:?}"))?;
        agent.thread().delete()?;
        other.thread().delete()?;
    }
    Ok(())
}

fn map_without_rights_to_pass() -> Outcome {
    // Nothing can be done with such a page; whether it is there does not show.
    let agent = agent_with_page(1, NONE)?;
    check(!agent.rights_at(at(0))?.contains(Rights::WRITE), "the page can be written")
}

fn map_again_extends_rights() -> Outcome {
    let agent = agent_with_page(1, READ)?;
    agent.check_rights(at(0), READ)?;
    agent.take(page(0).map_to(0, READ_WRITE))?;
    agent.check_rights(at(0), READ_WRITE)
}

fn map_again_never_reduces_rights() -> Outcome {
    let agent = agent_with_page(1, READ_WRITE)?;
    agent.take(page(0).map_to(0, READ))?;
    agent.check_rights(at(0), READ_WRITE)
}

fn overmap_replaces_a_page() -> Outcome {
    let agent = agent_with_page(1, READ_WRITE)?;
    agent.check_reads(at(0), 1)?;
    page(1).set(2);
    agent.take(page(1).map_to(0, READ))?;
    agent.check_reads(at(0), 2)?;
    agent.check_rights(at(0), READ)
}

fn overmap_revokes_what_was_derived() -> Outcome {
    let agent = agent_with_page(1, ALL)?;
    let other = Agent::in_new_space()?;
    agent.pass(other, MapItem::map(place(0, READ), 0x5000))?;
    other.check_reads(at(0x5000), 1)?;
    agent.take(page(1).map_to(0, READ))?;
    other.check_nothing(at(0x5000))
}

fn holes_leave_the_destination() -> Outcome {
    // The agent has pages at 0 and 2 of four; another has four pages there already.
    (0..8).for_each(|i| page(i).set(i as Word));
    let [agent, other] = agents()?;
    agent.take_all(&[page(0).map_to(0, READ), page(2).map_to(0x2000, READ)])?;
    (4..8).try_for_each(|i| other.take(page(i).map_to((i as Word - 4) * PAGE_SIZE, READ)))?;
    agent.pass(other, MapItem::map(window(0, 14).with_rights(READ), 0))?;
    [0, 5, 2, 7].into_iter().enumerate().try_for_each(|(i, value)| other.check_reads(at(i as Word * PAGE_SIZE), value))
}

fn several_items_in_one_message() -> Outcome {
    (0..PAGES).for_each(|i| page(i).set(100 + i as Word));
    let agent = Agent::in_new_space()?;
    let place = |i: usize| (PAGES - i) as Word * 0x7000;
    let mut items = [MapItem::map(Fpage::NIL, 0); PAGES];
    items.iter_mut().enumerate().for_each(|(i, item)| *item = page(i).map_to(place(i), READ));
    agent.take_all(&items)?;
    (0..PAGES).try_for_each(|i| agent.check_reads(at(place(i)), 100 + i as Word))
}

fn words_before_items_arrive() -> Outcome {
    let thread = spawn(|| {
        let received = receive_mapping(tester().id(), window(0, 12))?;
        let msg = Msg::store(received.tag);
        equal("the words", msg.words(), &[7, 8, 9][..])?;
        equal("the item", msg.map_item(0), Some(page(0).map_to(0x3000, READ)))?;
        equal("the word in the page", memory::read(at(0)), 55)
    })?;
    page(0).set(55);
    let mut msg = Msg::new(1);
    msg.append_map(page(0).map_to(0x3000, READ)).append_word(7).append_word(8).append_word(9);
    msg.load();
    ipc::send_timeout(thread.id(), PATIENCE)?;
    thread.join()
}

fn item_of_a_page_too_small_maps_nothing() -> Outcome {
    page(0).set(1);
    let agent = Agent::in_new_space()?;
    for size_log2 in [10, 11] {
        agent.take(MapItem::map(fpage(page(0).address(), size_log2, ALL), 0))?;
        agent.check_nothing(at(0))?;
    }
    agent.take(MapItem::map(Fpage::NIL, 0))?;
    agent.check_nothing(at(0))
}

fn mapping_within_one_space() -> Outcome {
    page(0).set(0x1D);
    let agent = Agent::new(Space::own())?;
    agent.take(page(0).map_to(0x9000, READ_WRITE))?;
    agent.check_reads(at(0x9000), 0x1D)?;
    equal("the write", agent.write(at(0x9000), 0x2D)?, Access::Done(0))?;
    equal("the word at its first place", page(0).get(), 0x2D)?;
    equal("the rest", agent.flush([place(0x9000, ALL)])?.len(), 1)?;
    agent.check_nothing(at(0x9000))?;
    equal("the word afterwards", page(0).get(), 0x2D)
}

fn code_runs_in_another_space() -> Outcome {
    let agent = agent_with_page(arch::RETURN, Rights::READ_EXECUTE)?;
    equal("the call", agent.execute(at(0))?, Access::Done(0))
}

fn execute_is_a_right_of_its_own() -> Outcome {
    // The kernel says in the KIP which rights it tells apart, and processors without NX cannot; a page that can be
    // executed can be read on all of them.
    let agent = agent_with_page(arch::RETURN, READ)?;
    match agent.execute(at(0))? {
        Access::Done(_) => Ok(()),
        Access::Fault(Fault::Page { access, address, ip }) => {
            equal("the fault", (access, address, ip), (Rights::EXECUTE, at(0), at(0)))?;
            agent.take(page(0).map_to(0, Rights::READ_EXECUTE))?;
            equal("the call", agent.execute(at(0))?, Access::Done(0))
        }
        other => Err(Failure::new(format_args!("{other:?}"))),
    }
}

// --- windows ---

/// Maps `count` pages from page `first` on, with a send base, to an agent with this window.
#[track_caller]
fn map_region(first: usize, size_log2: u32, snd_base: Word, window: Fpage) -> Outcome<Agent> {
    (0..PAGES).for_each(|i| page(i).set(0x1000 + i as Word));
    let agent = Agent::with_window(Space::create()?, window)?;
    agent.take(MapItem::map(fpage(page(first).address(), size_log2, READ), snd_base))?;
    Ok(agent)
}

/// Fails unless the agent sees page `first + i` at the `i`th page from the offset on, and nothing around them.
#[track_caller]
fn check_region(agent: Agent, offset: Word, first: usize, count: usize) -> Outcome {
    for i in 0..count {
        agent.check_reads(at(offset + i as Word * PAGE_SIZE), 0x1000 + (first + i) as Word)?;
    }
    agent.check_nothing(at(offset + count as Word * PAGE_SIZE))?;
    match offset {
        0 => Ok(()),
        _ => agent.check_nothing(at(offset - PAGE_SIZE)),
    }
}

/// The first of four pages in a row whose address is a multiple of their size together.
fn aligned_four() -> usize {
    (0..4).find(|&i| page(i).address().is_multiple_of(4 * PAGE_SIZE)).expect("one of four pages in a row")
}

fn window_of_the_same_size() -> Outcome {
    // The send base does not matter.
    for snd_base in [0, 0x3000, 0x7_F000] {
        let agent = map_region(aligned_four(), 14, snd_base, window(0x8000, 14))?;
        check_region(agent, 0x8000, aligned_four(), 4)?;
    }
    Ok(())
}

fn larger_window_takes_the_send_base() -> Outcome {
    // Send base, offset in a window of 64 KiB: modulo its size, aligned down to the sent fpage.
    for (snd_base, offset) in
        [(0, 0), (0x4000, 0x4000), (0x7000, 0x4000), (0x1_8000, 0x8000), (Word::MAX & !0x3FF, 0xC000)]
    {
        let agent = map_region(aligned_four(), 14, snd_base, window(0x2_0000, 16))?;
        check_region(agent, 0x2_0000 + offset, aligned_four(), 4).within(format_args!("base {snd_base:#x}"))?;
        agent.thread().delete()?;
    }
    Ok(())
}

fn smaller_window_takes_a_part() -> Outcome {
    // Send base, pages of the four that arrive in a window of two: modulo their size, aligned down to the window.
    for (snd_base, part) in [(0, 0), (0x1000, 0), (0x2000, 2), (0x3000, 2), (0x6000, 2), (0x10_0000, 0)] {
        let agent = map_region(aligned_four(), 14, snd_base, window(0x4000, 13))?;
        check_region(agent, 0x4000, aligned_four() + part, 2).within(format_args!("base {snd_base:#x}"))?;
        agent.thread().delete()?;
    }
    Ok(())
}

fn complete_space_as_a_window() -> Outcome {
    page(0).set(0x77);
    let thread = plan().space(Space::create()?).spawn(|| {
        accept_everywhere();
        ipc::receive_timeout(tester().id(), PATIENCE)?;
        l4::message::accept_untyped();
        equal("the word", memory::read(at(0x1234_5000)), 0x77)
    })?;
    send_items(thread.id(), &[page(0).map_to(at(0x1234_5000), READ)])?;
    thread.join()
}

fn regions_of_many_pages() -> Outcome {
    for (size_log2, count) in [(12, 1), (13, 2), (14, 4)] {
        let agent = map_region(aligned_four(), size_log2, 0x4_0000, playground())?;
        check_region(agent, 0x4_0000, aligned_four(), count)?;
        agent.thread().delete()?;
    }
    Ok(())
}

fn nil_window_takes_nothing() -> Outcome {
    let agent = Agent::with_window(Space::create()?, Fpage::NIL)?;
    let sent = send_items(agent.id(), &[page(0).map_to(0, READ)]).map(drop);
    equal("sending", sent, Err(send_error(IpcErrorKind::Overflow)))?;
    agent.check_nothing(at(0))
}

fn odd_items_and_windows_do_no_harm() -> Outcome {
    let space = Space::create()?;
    let words = [
        0x10,
        0x17,
        0x3F0,
        0x3E7,
        0x2FF,
        0x1F7,
        1 << 46 | 46 << 4 | 7,
        1 << 47 | 12 << 4 | 7,
        arch::NON_CANONICAL | 13 << 4 | 7,
        Word::MAX,
        Word::MAX & !0xFFF | 12 << 4 | 7,
        at(0) | 20 << 4 | 7,
        page(0).address() | 12 << 4 | 7,
    ];
    // From one agent to another, neither of which has anything but the image and page 0.
    page(0).set(0x0DD);
    for window in words {
        let taker = plan().space(space).spawn(move || {
            loop {
                utcb().set_br(0, window);
                // Overflows are as good as messages.
                let _ = ipc::receive_timeout(tester().id(), PATIENCE);
            }
        })?;
        for fpage in words {
            for kind in [4 << 1, 5 << 1] {
                let snd_base = [0, Word::MAX & !0x3FF, 1 << 46][(fpage % 3) as usize];
                // What we may lose by a grant is what we have at odd places: nothing, but for the image.
                let kind = if fpage & 0x3F0 == 12 << 4 || fpage == at(0) | 20 << 4 | 7 { kind } else { 4 << 1 };
                let kind = if fpage & !0xFFF == page(0).address() { 4 << 1 } else { kind };
                utcb().set_mr(1, snd_base | kind);
                utcb().set_mr(2, fpage);
                utcb().set_tag(l4::MsgTag::new(0, 0, 2));
                let sent = ipc::send_timeout(taker.id(), PATIENCE).map(drop);
                let is_fine = sent.is_ok_and(|()| true) || sent == Err(send_error(IpcErrorKind::Overflow));
                check(is_fine, format_args!("{fpage:#x} to {window:#x}: {sent:?}"))?;
            }
        }
        taker.delete()?;
    }
    equal("page 0", page(0).get(), 0x0DD)
}

fn complete_space_to_complete_space() -> Outcome {
    // Two spaces with the same image: each page of it is there already.
    let agent = agent_with_page(0xC5, ALL)?;
    let taker = plan().space(Space::create()?).pager(tester().id()).spawn(|| {
        accept_everywhere();
        ipc::receive_timeout(ThreadId::ANY, PATIENCE)?;
        l4::message::accept_untyped();
        equal("the word", memory::read(at(0)), 0xC5)?;
        equal("the magic", kip::kip().magic, l4::KIP_MAGIC)
    })?;
    let item = MapItem::map(Fpage::COMPLETE.with_rights(ALL), 0);
    let [first, second] = item.words();
    equal("ErrorCode", agent.send_raw(taker.id(), [first, second])?, 0)?;
    taker.join()?;
    agent.check_reads(at(0), 0xC5)
}

// --- grant ---

fn grant_moves_a_page() -> Outcome {
    let agent = agent_with_page(9, ALL)?;
    let other = Agent::in_new_space()?;
    agent.pass(other, MapItem::grant(place(0, ALL), 0x1000))?;
    agent.check_nothing(at(0))?;
    other.check_rights(at(0x1000), READ_WRITE)?;
    other.check_reads(at(0x1000), 9)?;
    // It still hangs on our page, not on the agent that passed it on.
    agent.thread().delete()?;
    other.check_reads(at(0x1000), 9)?;
    l4::space::unmap_fpage(page(0).fpage(ALL));
    other.check_nothing(at(0x1000))
}

fn grant_keeps_what_is_derived() -> Outcome {
    let agent = agent_with_page(9, ALL)?;
    let [child, other] = agents()?;
    agent.pass(child, MapItem::map(place(0, ALL), 0x2000))?;
    agent.pass(other, MapItem::grant(place(0, ALL), 0x3000))?;
    other.check_reads(at(0x3000), 9)?;
    // Whether derived mappings survive a grant is the kernel's choice; if they do, they hang on the new owner.
    if child.read(at(0x2000))? == Access::Done(9) {
        other.unmap([place(0x3000, ALL)])?;
    }
    child.check_nothing(at(0x2000))
}

fn grant_of_more_than_the_window() -> Outcome {
    (0..8).for_each(|i| page(i).set(0x50 + i as Word));
    let agent = Agent::in_new_space()?;
    let first = aligned_four();
    agent.take(MapItem::map(fpage(page(first).address(), 14, ALL), 0))?;
    let other = Agent::with_window(Space::create()?, window(0x6000, 13))?;
    agent.pass(other, MapItem::grant(window(0, 14).with_rights(ALL), 0x2000))?;
    other.check_reads(at(0x6000), 0x52 + first as Word)?;
    other.check_reads(at(0x7000), 0x53 + first as Word)?;
    // All of it has left the granter.
    (0..4).try_for_each(|i| agent.check_nothing(at(i * PAGE_SIZE)))
}

// --- unmap ---

/// Agents in a chain, each with page 0 from the one before it, the first from us, each at its own place.
#[track_caller]
fn chain<const N: usize>(rights: Rights) -> Outcome<[Agent; N]> {
    page(0).set(0xC0);
    let agents = agents::<N>()?;
    agents[0].take(page(0).map_to(0, rights))?;
    for i in 1..N {
        let item = MapItem::map(place(link(i - 1), rights), link(i));
        agents[i - 1].pass(agents[i], item)?;
    }
    for (i, agent) in agents.iter().enumerate() {
        agent.check_reads(at(link(i)), 0xC0)?;
    }
    Ok(agents)
}

/// Where agent `i` of a chain has the page.
fn link(i: usize) -> Word {
    i as Word * 0x3000
}

fn unmap_revokes_derived_mappings_alone() -> Outcome {
    let [first, second] = chain(ALL)?;
    first.unmap([place(link(0), ALL)])?;
    first.check_rights(at(link(0)), READ_WRITE)?;
    second.check_nothing(at(link(1)))?;
    equal("our own word", page(0).get(), 0xC0)
}

fn unmap_reaches_every_descendant() -> Outcome {
    let agents: [Agent; 5] = chain(ALL)?;
    l4::space::unmap_fpage(page(0).fpage(ALL));
    for (i, agent) in agents.iter().enumerate() {
        agent.check_nothing(at(link(i))).within(format_args!("agent {i}"))?;
    }
    equal("our own word", page(0).get(), 0xC0)
}

fn unmap_of_write_leaves_read() -> Outcome {
    let agents: [Agent; 3] = chain(ALL)?;
    agents[0].unmap([place(link(0), Rights::WRITE)])?;
    agents[0].check_rights(at(link(0)), READ_WRITE)?;
    agents[1].check_rights(at(link(1)), READ)?;
    agents[2].check_rights(at(link(2)), READ)
}

fn unmap_leaves_siblings() -> Outcome {
    page(0).set(3);
    let [first, second, child] = agents()?;
    first.take(page(0).map_to(0, ALL))?;
    second.take(page(0).map_to(0, ALL))?;
    first.pass(child, MapItem::map(place(0, ALL), 0))?;
    first.unmap([place(0, ALL)])?;
    child.check_nothing(at(0))?;
    second.check_rights(at(0), READ_WRITE)
}

fn flush_revokes_own_mapping_too() -> Outcome {
    let agents: [Agent; 3] = chain(ALL)?;
    agents[1].flush([place(link(1), ALL)])?;
    agents[0].check_rights(at(link(0)), READ_WRITE)?;
    agents[1].check_nothing(at(link(1)))?;
    agents[2].check_nothing(at(link(2)))?;
    // It can be had again.
    agents[0].pass(agents[1], MapItem::map(place(link(0), ALL), link(1)))?;
    agents[1].check_reads(at(link(1)), 0xC0)
}

fn flush_of_write_leaves_read() -> Outcome {
    let agents: [Agent; 3] = chain(ALL)?;
    agents[1].flush([place(link(1), Rights::WRITE)])?;
    agents[0].check_rights(at(link(0)), READ_WRITE)?;
    agents[1].check_rights(at(link(1)), READ)?;
    agents[2].check_rights(at(link(2)), READ)
}

fn unmap_takes_many_fpages() -> Outcome {
    let [agent, other] = agents()?;
    let offset = |i: usize| i as Word * PAGE_SIZE;
    for i in 0..PAGES {
        page(i).set(1);
        agent.take(page(i).map_to(offset(i), ALL))?;
        agent.pass(other, MapItem::map(place(offset(i), ALL), offset(i)))?;
    }
    let mut fpages = [Fpage::NIL; 64];
    (0..PAGES).for_each(|i| fpages[4 * i + 3] = page(i).fpage(ALL));
    l4::space::unmap(&mut fpages);
    for (i, fpage) in fpages.iter().enumerate() {
        let expected = if i % 4 == 3 { page(i / 4).fpage(NONE) } else { Fpage::NIL };
        equal(format_args!("fpage {i}"), fpage.with_rights(NONE), expected)?;
    }
    (0..PAGES).try_for_each(|i| agent.check_nothing(at(offset(i))).and_then(|()| other.check_nothing(at(offset(i)))))
}

fn nil_fpage_is_harmless() -> Outcome {
    let agent = agent_with_page(6, ALL)?;
    let mut fpages = [Fpage::NIL, Fpage::NIL];
    l4::space::unmap(&mut fpages);
    equal("the fpages", fpages, [Fpage::NIL; 2])?;
    agent.check_reads(at(0), 6)
}

fn unmap_of_the_complete_space() -> Outcome {
    let agents: [Agent; 2] = chain(ALL)?;
    agents[0].unmap([Fpage::COMPLETE.with_rights(ALL)])?;
    agents[0].check_reads(at(link(0)), 0xC0)?;
    agents[1].check_nothing(at(link(1)))
}

fn flush_of_the_complete_space() -> Outcome {
    // The supervisor gives the image again, and the areas of KIP and UTCBs stay.
    let thread = plan().space(Space::create()?).spawn(|| {
        utcb().set_thread_word(0, 0x600D);
        for _ in 0..3 {
            crate::world::calls::flush_complete_space();
            equal("ThreadWord0", utcb().thread_word(0), 0x600D)?;
            equal("the magic", kip::kip().magic, l4::KIP_MAGIC)?;
        }
        Ok(())
    })?;
    thread.join()
}

fn unmap_of_nothing() -> Outcome {
    let agents: [Agent; 2] = chain(ALL)?;
    let empty = [place(0x8_0000, ALL), window(0x4000_0000, 30).with_rights(ALL), playground()];
    let status = agents[0].unmap(empty)?;
    equal("the status of empty fpages", [status[0], status[1]], [NONE; 2])?;
    // Without rights to revoke nothing goes.
    agents[1].check_rights(at(link(1)), READ_WRITE)?;
    let kernel = Fpage::new(arch::KERNEL_ADDRESS, 21, ALL).ok_or(Failure::new("no fpage"))?;
    equal("the status of the kernel's memory", l4::space::unmap_fpage(kernel).rights(), NONE)
}

// --- status ---

const REFERENCED: Rights = Rights::READ_EXECUTE;

fn status_tells_reads_and_writes() -> Outcome {
    let agent = agent_with_page(1, ALL)?;
    let status = || l4::space::status(page(0).fpage(NONE));
    status();
    equal("untouched", status(), NONE)?;
    agent.read(at(0))?;
    equal("read", status(), REFERENCED)?;
    agent.write(at(0), 2)?;
    equal("written", status(), ALL)?;
    agent.check_rights(at(0), READ_WRITE)
}

fn status_is_reset() -> Outcome {
    let agent = agent_with_page(1, ALL)?;
    let status = || l4::space::status(page(0).fpage(NONE));
    agent.write(at(0), 2)?;
    equal("written", status(), ALL)?;
    equal("not again", status(), NONE)?;
    // A page in the translation cache must set its bits anew.
    agent.write(at(0), 3)?;
    equal("written again", status(), ALL)
}

fn status_of_all_descendants() -> Outcome {
    let agents: [Agent; 3] = chain(ALL)?;
    let status = || l4::space::status(page(0).fpage(NONE));
    status();
    agents[2].write(at(link(2)), 1)?;
    equal("written by the last", status(), ALL)?;
    equal("asked again", status(), NONE)?;
    agents[1].read(at(link(1)))?;
    // Who asks below takes nothing away from who asks above.
    equal("in the middle", agents[0].unmap([place(link(0), NONE)])?, [REFERENCED])?;
    equal("at the top", status(), REFERENCED)
}

fn flush_tells_own_accesses() -> Outcome {
    let agent = agent_with_page(1, ALL)?;
    agent.flush([place(0, NONE)])?;
    equal("untouched", agent.flush([place(0, NONE)])?, [NONE])?;
    agent.write(at(0), 2)?;
    equal("written", agent.flush([place(0, NONE)])?, [ALL])?;
    equal("asked again", agent.flush([place(0, NONE)])?, [NONE])?;
    agent.write(at(0), 2)?;
    equal("flushed", agent.flush([place(0, ALL)])?, [ALL])?;
    agent.check_nothing(at(0))
}

// --- large pages ---

const LARGE_SIZE: Word = 1 << LARGE_LOG2;

/// A large page of this program's, in the playground; from sigma0 once and for all.
#[track_caller]
fn large_page() -> Outcome<Fpage> {
    LARGE.page()
}

fn large_page_is_mapped() -> Outcome {
    let large = large_page()?;
    check(kip::kip().page_info.size_mask() & LARGE_SIZE != 0, "PageInfo does not know it")?;
    LARGE.write(0, 1);
    LARGE.write(LARGE_SIZE - 8, 2);
    let agent = Agent::in_new_space()?;
    agent.take(MapItem::map(large.with_rights(READ_WRITE), LARGE_SIZE))?;
    agent.check_reads(at(LARGE_SIZE), 1)?;
    agent.check_reads(at(2 * LARGE_SIZE - 8), 2)?;
    agent.check_rights(at(LARGE_SIZE + 0x12_3000), READ_WRITE)?;
    agent.check_nothing(at(2 * LARGE_SIZE))?;
    agent.check_nothing(at(LARGE_SIZE - 8))
}

fn part_of_a_large_page() -> Outcome {
    let large = large_page()?;
    (0..4).for_each(|i| LARGE.write(0x10_0000 + i * PAGE_SIZE, 0x300 + i));
    let [agent, other] = agents()?;
    // A small piece of a large page, and the pieces of a large page passed on one by one.
    agent.take(MapItem::map(fpage(large.base() + 0x10_1000, 12, READ), 0x5000))?;
    agent.check_reads(at(0x5000), 0x301)?;
    agent.check_nothing(at(0x6000))?;
    agent.take(MapItem::map(large.with_rights(ALL), LARGE_SIZE))?;
    agent.pass(other, MapItem::map(window(LARGE_SIZE + 0x10_2000, 13).with_rights(ALL), 0x2000))?;
    other.check_reads(at(0x2000), 0x302)?;
    other.check_reads(at(0x3000), 0x303)?;
    other.check_nothing(at(0x4000))?;
    agent.unmap([window(LARGE_SIZE, LARGE_LOG2).with_rights(ALL)])?;
    other.check_nothing(at(0x2000))?;
    agent.check_reads(at(LARGE_SIZE + 0x10_2000), 0x302)
}

fn unmap_a_large_page() -> Outcome {
    let large = large_page()?;
    let agent = Agent::in_new_space()?;
    agent.take(MapItem::map(large.with_rights(ALL), 0))?;
    agent.check_rights(at(0x5000), READ_WRITE)?;
    l4::space::unmap_fpage(large.with_rights(Rights::WRITE));
    agent.check_rights(at(0x5000), READ)?;
    l4::space::unmap_fpage(large.with_rights(ALL));
    agent.check_nothing(at(0x5000))?;
    agent.check_nothing(at(0))
}

fn small_pages_give_way_to_a_large_page() -> Outcome {
    let large = large_page()?;
    let [agent, other] = agents()?;
    (0..3).for_each(|i| LARGE.write(i * 0x8_0000, 0x500 + i));
    for round in 0..3 {
        page(0).set(round);
        agent.take(page(0).map_to(LARGE_SIZE + 0x8_0000, ALL))?;
        agent.pass(other, MapItem::map(place(LARGE_SIZE + 0x8_0000, ALL), 0))?;
        agent.check_reads(at(LARGE_SIZE + 0x8_0000), round)?;
        // What was derived from the page that goes, goes with it.
        agent.take(MapItem::map(large.with_rights(ALL), LARGE_SIZE))?;
        (0..3).try_for_each(|i| agent.check_reads(at(LARGE_SIZE + i * 0x8_0000), 0x500 + i))?;
        other.check_nothing(at(0))?;
        l4::space::unmap_fpage(large.with_rights(ALL));
        agent.check_nothing(at(LARGE_SIZE))?;
    }
    Ok(())
}

const GIB: Word = 1 << GIB_LOG2;

/// A page of 1 GiB, which the processor must have and sigma0 must have had.
#[track_caller]
fn page_of_1_gib() -> Outcome<Fpage> {
    if !arch::has_pages_of_1_gib() {
        return Err(Failure::skip("the processor has no pages of 1 GiB"));
    }
    if !OF_1_GIB.is_there() {
        return Err(Failure::skip("sigma0 has no 1 GiB of memory in one piece"));
    }
    OF_1_GIB.page()
}

fn page_of_1_gib_is_mapped() -> Outcome {
    let page = page_of_1_gib()?;
    check(kip::kip().page_info.size_mask() & GIB != 0, "PageInfo does not know it")?;
    OF_1_GIB.write(0, 1);
    OF_1_GIB.write(GIB - 8, 2);
    let [agent, other] = agents()?;
    agent.take(MapItem::map(page.with_rights(READ_WRITE), GIB))?;
    agent.check_reads(at(GIB), 1)?;
    agent.check_reads(at(2 * GIB - 8), 2)?;
    agent.check_rights(at(GIB + 0x1234_5000), READ_WRITE)?;
    agent.check_nothing(at(2 * GIB))?;
    agent.check_nothing(at(GIB - 8))?;
    // It can be granted as a whole, and passed on with fewer rights.
    agent.pass(other, MapItem::grant(window(GIB, 30).with_rights(READ), 3 * GIB))?;
    agent.check_nothing(at(GIB))?;
    other.check_reads(at(4 * GIB - 8), 2)?;
    other.check_rights(at(3 * GIB), READ)
}

fn page_of_1_gib_is_mapped_at_once() -> Outcome {
    let page = page_of_1_gib()?;
    if !arch::counts_instructions() {
        return Err(Failure::skip("time is not counted in instructions here"));
    }
    let agent = Agent::in_new_space()?;
    let time = |item: MapItem| {
        let before = timestamp();
        agent.take(item).map(|()| timestamp() - before)
    };
    let whole = time(MapItem::map(page.with_rights(ALL), 0))?;
    // An eighth of it takes 64 large pages.
    let parts = time(MapItem::map(fpage(page.base(), 27, ALL), 4 * GIB))?;
    check(parts > 2 * whole, format_args!("{whole} instructions for all of it, {parts} for an eighth in large pages"))
}

fn page_of_1_gib_in_parts() -> Outcome {
    let page = page_of_1_gib()?;
    let part = page.base() + 0x2000_0000;
    (0..4).for_each(|i| OF_1_GIB.write(0x2010_0000 + i * PAGE_SIZE, 0x600 + i));
    let [agent, other] = agents()?;
    agent.take(MapItem::map(fpage(part + 0x10_1000, PAGE_LOG2, READ), 0x5000))?;
    agent.check_reads(at(0x5000), 0x601)?;
    agent.take(MapItem::map(fpage(part, LARGE_LOG2, ALL), LARGE_SIZE))?;
    agent.check_reads(at(LARGE_SIZE + 0x10_0000), 0x600)?;
    agent.check_nothing(at(2 * LARGE_SIZE))?;
    agent.take(MapItem::map(page.with_rights(ALL), GIB))?;
    agent.pass(other, MapItem::map(window(GIB + 0x2010_2000, 13).with_rights(ALL), 0x2000))?;
    agent.pass(other, MapItem::map(window(GIB + 0x2000_0000, LARGE_LOG2).with_rights(ALL), LARGE_SIZE))?;
    [0x2000, LARGE_SIZE + 0x10_2000].into_iter().try_for_each(|offset| other.check_reads(at(offset), 0x602))?;
    // An unmap of a part takes what meets it, and nothing else.
    agent.unmap([place(GIB + 0x2000_1000, ALL)])?;
    other.check_nothing(at(LARGE_SIZE + 0x10_2000))?;
    other.check_reads(at(0x3000), 0x603)?;
    agent.unmap([window(GIB + 0x2000_0000, LARGE_LOG2).with_rights(ALL)])?;
    other.check_nothing(at(0x3000))?;
    agent.check_reads(at(GIB + 0x2010_2000), 0x602)
}

fn page_of_1_gib_is_unmapped() -> Outcome {
    let page = page_of_1_gib()?;
    let agent = Agent::in_new_space()?;
    agent.take(MapItem::map(page.with_rights(ALL), 0))?;
    agent.check_rights(at(0x3FFF_F000), READ_WRITE)?;
    l4::space::unmap_fpage(page.with_rights(Rights::WRITE));
    agent.check_rights(at(0x3FFF_F000), READ)?;
    agent.take(MapItem::map(page.with_rights(ALL), 0))?;
    agent.check_rights(at(0), READ_WRITE)?;
    // A flush of a part takes the whole page.
    agent.flush([place(0x1234_5000, ALL)])?;
    agent.check_nothing(at(0))?;
    agent.check_nothing(at(0x3FFF_F000))
}

fn smaller_pages_give_way_to_a_page_of_1_gib() -> Outcome {
    let larger = page_of_1_gib()?;
    let large = large_page()?;
    let agent = Agent::in_new_space()?;
    OF_1_GIB.write(0x3000_0000, 0x77);
    for round in 0..2 {
        page(0).set(round);
        agent.take_all(&[
            page(0).map_to(0x1000, ALL),
            page(0).map_to(0x3000_0000, ALL),
            MapItem::map(large.with_rights(ALL), 0x3FE0_0000),
        ])?;
        agent.check_reads(at(0x3000_0000), round)?;
        agent.take(MapItem::map(larger.with_rights(ALL), 0))?;
        agent.check_reads(at(0x3000_0000), 0x77)?;
        agent.check_rights(at(0x3FE0_0000), READ_WRITE)?;
        agent.flush([window(0, 30).with_rights(ALL)])?;
        agent.check_nothing(at(0x1000))?;
    }
    equal("the small page", page(0).get(), 1)
}

fn page_of_1_gib_tells_of_accesses() -> Outcome {
    let page = page_of_1_gib()?;
    let agent = Agent::in_new_space()?;
    agent.take(MapItem::map(page.with_rights(ALL), 0))?;
    let status = |fpage: Fpage| l4::space::status(fpage.with_rights(NONE));
    status(page);
    agent.read(at(0x1000_0000))?;
    equal("read", status(page), REFERENCED)?;
    agent.write(at(0x2000_0000), 1)?;
    equal("written, asked of a part", status(fpage(page.base(), PAGE_LOG2, NONE)), ALL)?;
    equal("not again", status(page), NONE)?;
    l4::space::set_page_attribute(page, PageAttribute::WRITE_THROUGH)?;
    agent.check_reads(at(0x2000_0000), 1)?;
    Ok(l4::space::set_page_attribute(page, PageAttribute::DEFAULT)?)
}

// --- protected areas ---

fn kip_and_utcb_areas_stay() -> Outcome {
    page(0).set(0xBAD);
    let thread = plan().space(Space::create()?).spawn(|| {
        let magic = kip::kip().magic;
        accept_everywhere();
        utcb().set_thread_word(0, 0x600D);
        for _ in 0..2 {
            ipc::receive_timeout(tester().id(), PATIENCE)?;
        }
        l4::message::accept_untyped();
        equal("the magic", kip::kip().magic, magic)?;
        equal("ThreadWord0", utcb().thread_word(0), 0x600D)
    })?;
    for area in [kip_area(), utcb_area()] {
        send_items(thread.id(), &[page(0).map_to(area.base(), ALL)])?;
    }
    thread.join()
}

fn kip_and_utcbs_cannot_be_sent() -> Outcome {
    let agent = Agent::in_new_space()?;
    for area in [kip_area(), fpage(utcb_area().base(), PAGE_LOG2, NONE)] {
        for item in [MapItem::map(area.with_rights(ALL), 0), MapItem::grant(area.with_rights(ALL), 0)] {
            agent.take(item)?;
            agent.check_nothing(at(0)).within(format_args!("{item:?}"))?;
        }
    }
    check(kip::kip().magic == l4::KIP_MAGIC, "the KIP is gone")
}

fn kernel_addresses_cannot_be_sent() -> Outcome {
    let agent = Agent::in_new_space()?;
    let stubs = kip::kip().system_calls.ipc & !0xFFF;
    for base in [arch::KERNEL_ADDRESS, stubs, arch::KERNEL_ADDRESS + 0x1000] {
        agent.take(MapItem::map(fpage(base, PAGE_LOG2, ALL), 0))?;
        agent.check_nothing(at(0)).within(format_args!("{base:#x}"))?;
    }
    // The end of the address space, and the hole in it.
    agent.take(MapItem::map(fpage(1 << 47, 12, ALL), 0))?;
    agent.take(MapItem::map(fpage(Word::MAX & !0xFFF, 12, ALL), 0))?;
    agent.check_nothing(at(0))
}

// --- cut off ---

/// The large page in small pieces: an operation on them takes many steps.
#[track_caller]
fn agent_with_many_pages() -> Outcome<Agent> {
    let large = large_page()?;
    let agent = Agent::in_new_space()?;
    for i in 0..LARGE_SIZE / PAGE_SIZE / 8 {
        let mut items = [MapItem::map(Fpage::NIL, 0); 8];
        for (k, item) in items.iter_mut().enumerate() {
            let offset = (i * 8 + k as Word) * PAGE_SIZE;
            *item = MapItem::map(fpage(large.base() + offset, PAGE_LOG2, ALL), offset);
        }
        agent.take_all(&items)?;
    }
    Ok(agent)
}

/// Has a thread of low priority do something long again and again; deletes a party of it at different moments.
fn transfer_is_cut_off_by_deletion() -> Outcome {
    let source = agent_with_many_pages()?;
    let space = Space::create()?;
    for round in 0..40 {
        let taker = plan().space(space).priority(PRIORITY_LATER).spawn(|| {
            accept_in(playground());
            loop {
                // Who sends may be deleted in the middle.
                let _ = ipc::receive_timeout(ThreadId::ANY, PATIENCE);
            }
        })?;
        let many = window(0, LARGE_LOG2).with_rights(ALL);
        let sender = source.spawn_sender(taker, MapItem::map(many, 0))?;
        sleep(Time::period_us(200 + round * 37));
        let (first, second) = if round % 2 == 0 { (taker, sender) } else { (sender, taker) };
        first.delete().within(round)?;
        sleep(Time::period_us(100));
        second.delete().within(round)?;
        threads::give_back(2);
    }
    source.check_rights(at(LARGE_SIZE - PAGE_SIZE), READ_WRITE)
}

fn unmap_is_cut_off_by_deletion() -> Outcome {
    let source = agent_with_many_pages()?;
    let other = Agent::in_new_space()?;
    let many = window(0, LARGE_LOG2).with_rights(ALL);
    for round in 0..40 {
        source.pass(other, MapItem::map(many, 0))?;
        let unmapper = source.spawn_unmapper(many)?;
        sleep(Time::period_us(20 + round * 13));
        unmapper.delete().within(round)?;
        threads::give_back(1);
        source.check_rights(at(LARGE_SIZE - PAGE_SIZE), READ_WRITE).within(round)?;
    }
    source.unmap([many])?;
    other.check_nothing(at(0))?;
    other.check_nothing(at(LARGE_SIZE - PAGE_SIZE))
}

// --- destruction ---

fn destruction_revokes_what_was_derived() -> Outcome {
    let agents: [Agent; 3] = chain(ALL)?;
    // The space of an agent has an anchor besides: both have to go.
    destroy(agents[0])?;
    agents[1].check_nothing(at(link(1)))?;
    agents[2].check_nothing(at(link(2)))?;
    equal("our own word", page(0).get(), 0xC0)
}

/// Deletes an agent and the thread that keeps its space.
fn destroy(agent: Agent) -> Outcome {
    let anchor = l4::ThreadId::global(agent.id().thread_no() - 1, agent.id().version());
    agent.thread().delete()?;
    Ok(l4::thread::delete(anchor)?)
}

fn pages_come_and_go_many_times() -> Outcome {
    let agents: [Agent; 2] = chain(ALL)?;
    for round in 0..300 {
        page(0).set(round);
        agents[0].take(page(0).map_to(link(0), ALL))?;
        agents[0].pass(agents[1], MapItem::map(place(link(0), ALL), link(1)))?;
        agents[1].check_reads(at(link(1)), round)?;
        l4::space::unmap_fpage(page(0).fpage(ALL));
    }
    agents[1].check_nothing(at(link(1)))
}
