//! Messages to actions, in the protocol's words.

use std::boxed::Box;
use std::vec;

use l4_abi::{Kip, MemoryDescriptor, MemoryType};

use super::*;
use crate::pools::{FIRST_REGIONS, PORT_REGIONS};
use crate::regions::Region;

const THREADS: ThreadInfo = ThreadInfo::new(18, 16, 48);
const CLIENT: ThreadId = ThreadId::global(100, 1);
const REFUSED: Action = Action::Map { item: REFUSAL, attribute: 0 };

fn pools() -> Pools<'static> {
    let storage = |regions| Box::leak(vec![Region::UNUSED; regions].into_boxed_slice());
    let kip = Kip { thread_info: THREADS, ..Kip::ZERO };
    let descriptors = [
        MemoryDescriptor::new(MemoryType::Conventional, 0x10_0000, 0x3FF_FFFF),
        MemoryDescriptor::new(MemoryType::Reserved, 0x200_0000, 0x20F_FFFF),
    ];
    Pools::new(&kip, &descriptors, storage(FIRST_REGIONS), storage(PORT_REGIONS))
}

fn message(tag: MsgTag, words: [Word; 3]) -> Message {
    Message { from: CLIENT, tag, words, word_size_mask: Word::MAX }
}

fn check(tag: MsgTag, words: [Word; 3], expected: Action) {
    assert_eq!(handle(&mut pools(), THREADS, &message(tag, words)), expected, "{tag:?} {words:x?}");
}

fn mapped(base: Word, size_log2: u32) -> Action {
    let fpage = Fpage::new(base, size_log2, Rights::ALL).expect("aligned");
    Action::Map { item: MapItem::map(fpage, base), attribute: 0 }
}

#[test]
fn page_is_mapped_with_all_rights_at_its_own_address() {
    let request = MsgTag::kernel(SIGMA0, 0, 2);
    check(request, [0x20_0000 | 12 << 4, 0, 0], mapped(0x20_0000, 12));
    check(request, [0x40_0000 | 22 << 4 | 7, 0, 0], mapped(0x40_0000, 22));
    check(request, [0xFEE0_0000 | 12 << 4, 0, 0], mapped(0xFEE0_0000, 12));
}

#[test]
fn refusal_is_a_map_item_with_nilpage() {
    let request = MsgTag::kernel(SIGMA0, 0, 2);
    assert_eq!(REFUSAL.words(), [8, 0]);
    for fpage in [0x200_0000 | 12 << 4, 0x20_0000 | 11 << 4, 0x10, 0] {
        check(request, [fpage, 0, 0], REFUSED);
    }
}

#[test]
fn any_page_comes_with_its_address() {
    let request = MsgTag::kernel(SIGMA0, 0, 2);
    check(request, [!0x3FF | 12 << 4, 0, 0], mapped(0x10_0000, 12));
    check(request, [!0x3FF | 40 << 4, 0, 0], REFUSED);
    check(request, [!0x3FF | 63 << 4, 0, 0], REFUSED);
    check(request, [!0x3FF | 11 << 4, 0, 0], REFUSED);
}

#[test]
fn any_page_of_the_c_library_has_bit_three_and_a_third_word() {
    check(MsgTag::kernel(SIGMA0, 0, 3), [!0x3FF | 12 << 4 | 8, 0, 0], mapped(0x10_0000, 12));
}

#[test]
fn any_page_of_a_narrower_client_has_fewer_ones() {
    let mut request = message(MsgTag::kernel(SIGMA0, 0, 2), [0xFFFF_FC00 | 12 << 4, 0, 0]);
    request.word_size_mask = 0xFFFF_FFFF;
    assert_eq!(handle(&mut pools(), THREADS, &request), mapped(0x10_0000, 12));
    request.word_size_mask = Word::MAX;
    assert_eq!(handle(&mut pools(), THREADS, &request), mapped(0xFFFF_F000, 12), "the page of that address");
}

#[test]
fn third_word_holds_high_address_bits_with_bit_three() {
    let extended = MsgTag::kernel(SIGMA0, 0, 3);
    check(extended, [0x1000 | 12 << 4 | 8, 0, 2], mapped(0x2_0000_1000, 12));
    check(extended, [0x20_0000 | 12 << 4, 0, 2], mapped(0x20_0000, 12));
    check(MsgTag::kernel(SIGMA0, 0, 2), [0x20_0000 | 12 << 4 | 8, 0, 2], mapped(0x20_0000, 12));
    check(extended, [33 << 4 | 8, 0, 1], REFUSED);
    check(extended, [0x1000 | 12 << 4 | 8, 0, 1 << 32], REFUSED);
}

#[test]
fn attribute_goes_with_the_page() {
    let action = handle(&mut pools(), THREADS, &message(MsgTag::kernel(SIGMA0, 0, 2), [0x20_0000 | 12 << 4, 4, 0]));
    assert!(matches!(action, Action::Map { attribute: 4, .. }), "{action:?}");
    check(MsgTag::kernel(SIGMA0, 0, 2), [0x200_0000 | 12 << 4, 4, 0], REFUSED);
}

#[test]
fn page_fault_gets_the_page_around_the_address() {
    let fault = |access: Rights| MsgTag::kernel(PAGE_FAULT, access.bits(), 2);
    check(fault(Rights::READ), [0x20_0ABC, 0x1234, 0], mapped(0x20_0000, 12));
    check(fault(Rights::WRITE), [0x3FF_FFFF, 0x1234, 0], mapped(0x3FF_F000, 12));
    check(fault(Rights::READ), [0xFEE0_0000, 0x1234, 0], REFUSED);
    check(fault(Rights::READ), [Word::MAX, 0x1234, 0], REFUSED);
}

#[test]
fn ports_come_by_request_and_by_fault() {
    let io = IoFpage::new(0x3F8, 3).expect("aligned");
    let granted = Action::Map { item: MapItem::map(io.fpage(), 0x3F8), attribute: 0 };
    check(MsgTag::kernel(SIGMA0, 0, 2), [io.fpage().raw(), 0, 0], granted);
    check(MsgTag::kernel(IO_PAGE_FAULT, 6, 2), [io.fpage().raw(), 0x1234, 0], granted);
    check(MsgTag::kernel(IO_PAGE_FAULT, 6, 2), [0x1000 | 12 << 4, 0x1234, 0], REFUSED);
}

#[test]
fn ports_of_another_are_refused() {
    let mut pools = pools();
    let request = message(MsgTag::kernel(SIGMA0, 0, 2), [IoFpage::COMPLETE.fpage().raw(), 0, 0]);
    assert_ne!(handle(&mut pools, THREADS, &request), REFUSED);
    let other = Message { from: ThreadId::global(101, 1), ..request };
    assert_eq!(handle(&mut pools, THREADS, &other), REFUSED);
}

#[test]
fn malformed_messages_are_ignored() {
    let page = [0x20_0000 | 12 << 4, 0, 0];
    let tags = [
        MsgTag::NIL,
        MsgTag::new(0, 2, 0),
        MsgTag::kernel(SIGMA0, 0, 1),
        MsgTag::kernel(SIGMA0, 0, 4),
        MsgTag::kernel(SIGMA0, 0, 2).with_counts(2, 2),
        MsgTag::kernel(PAGE_FAULT, 4, 0),
        MsgTag::kernel(-7, 0, 2),
        MsgTag::kernel(SIGMA0_EXTENDED, 0, 2),
    ];
    for tag in tags {
        check(tag, page, Action::Ignore);
    }
}

#[test]
fn extended_requests_are_for_kernel_and_root_task() {
    let tag = MsgTag::kernel(SIGMA0_EXTENDED, 0, 2);
    let rows = [
        (ThreadId::global(16, 1), true),
        (ThreadId::global(47, 1), true),
        (THREADS.root_task(), true),
        (ThreadId::global(15, 1), false),
        (THREADS.sigma0(), false),
        (THREADS.sigma1(), false),
        (CLIENT, false),
    ];
    for (from, may) in rows {
        let request = Message { from, ..message(tag, [SIGMA0_SET_VERBOSITY, 3, 0]) };
        let expected = if may { Action::SetVerbosity(3) } else { Action::Ignore };
        assert_eq!(handle(&mut pools(), THREADS, &request), expected, "{from:?}");
    }
}

#[test]
fn dump_is_answered_if_asked() {
    let dump = |argument| {
        let words = [SIGMA0_DUMP_POOLS, argument, 0];
        let request = message(MsgTag::kernel(SIGMA0_EXTENDED, 0, 2), words);
        handle(&mut pools(), THREADS, &Message { from: THREADS.root_task(), ..request })
    };
    assert_eq!((dump(0), dump(1)), (Action::Dump, Action::DumpAndReply));
}
