//! What sigma0 gives, and to whom.

use l4::ipc;
use l4::message::{Msg, accept_untyped};
use l4::protocol::{SIGMA0, Sigma0Request, page_fault_tag};
use l4::time::timeouts;
use l4::{Fpage, IpcErrorKind, MapItem, MemoryType, MsgTag, PageAttribute, Rights, Time, Word, kip};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory::{self, PAGE_LOG2, at, fpage, page, window};
use crate::world::messages::{accept_in, equal_tags, receive_error};
use crate::world::threads::{PATIENCE, spawn};

chapter! { sigma0:
    "Sigma0 protocol, memory request" => [
        any_page_is_memory_of_ours_alone,
        any_page_of_every_size,
        specific_page_comes_again_to_its_owner,
        page_of_another_is_refused,
        kernel_memory_is_refused,
        odd_sizes_are_refused,
        nil_window_overflows,
        memory_comes_with_attributes,
    ],
    "Sigma0 protocol, page fault" => [page_fault_gives_a_page],
    "Sigma0 protocol, malformed requests" => [malformed_requests_get_no_answer],
}

/// Sends a message to sigma0 and takes the answer into a window; the answer's item.
#[track_caller]
fn call(msg: &Msg, window: Fpage) -> Outcome<Fpage> {
    msg.load();
    accept_in(window);
    let outcome = ipc::call_timeouts(kip::sigma0_id(), timeouts(PATIENCE, PATIENCE));
    accept_untyped();
    let outcome = outcome?;
    equal("from", outcome.from, kip::sigma0_id())?;
    equal_tags("the tag of the answer", outcome.tag, Sigma0Request::reply_tag())?;
    let item = Msg::store(outcome.tag).map_item(0).ok_or(Failure::new("the answer has no map item"))?;
    equal("the kind of the answer", item, MapItem::map(item.fpage, item.snd_base))?;
    Ok(item.fpage)
}

fn request(request: Sigma0Request) -> Msg {
    let tag = request.tag();
    Msg::of_words(tag, &request.words()[..tag.untyped()])
}

#[track_caller]
fn get(fpage: Fpage, window: Fpage) -> Outcome<Fpage> {
    call(&request(Sigma0Request::page(fpage)), window)
}

#[track_caller]
fn get_any(size_log2: u32, window: Fpage) -> Outcome<Fpage> {
    call(&request(Sigma0Request::any(size_log2)), window)
}

/// Writes a word to the playground and reads it back.
#[track_caller]
fn check_memory(address: Word) -> Outcome {
    memory::write(address, !address);
    equal(format_args!("the word at {address:#x}"), memory::read(address), !address)
}

fn any_page_is_memory_of_ours_alone() -> Outcome {
    let first = get_any(PAGE_LOG2, window(0, PAGE_LOG2))?;
    let second = get_any(PAGE_LOG2, window(0x1000, PAGE_LOG2))?;
    for (given, place) in [(first, at(0)), (second, at(0x1000))] {
        equal("its size", given.size_log2(), PAGE_LOG2)?;
        check(given.base() != 0, "page 0 is nobody's")?;
        check_memory(place)?;
    }
    check(first.base() != second.base(), "it is given twice")?;
    // The first word of the one is not that of the other.
    check_memory(at(0))?;
    equal("the other page's word", memory::read(at(0x1000)), !at(0x1000))
}

fn any_page_of_every_size() -> Outcome {
    for size_log2 in [12, 13, 14, 16, 18] {
        let given = get_any(size_log2, window(1 << 30, size_log2))?;
        equal("its size", given.size_log2(), size_log2)?;
        check(given.base().is_multiple_of(1 << size_log2), "it is not aligned")?;
        check_memory(at(1 << 30)).within(size_log2)?;
        check_memory(at((1 << 30) + (1 << size_log2) - 8)).within(size_log2)?;
    }
    Ok(())
}

fn specific_page_comes_again_to_its_owner() -> Outcome {
    let given = get_any(PAGE_LOG2, window(0, PAGE_LOG2))?;
    check_memory(at(0))?;
    equal("the page asked for", get(given, window(0x1000, PAGE_LOG2))?.base(), given.base())?;
    equal("its word", memory::read(at(0x1000)), !at(0))
}

fn page_of_another_is_refused() -> Outcome {
    let given = get_any(PAGE_LOG2, window(0, PAGE_LOG2))?;
    let thread = spawn(move || equal("the answer", get(given, window(0x1000, PAGE_LOG2))?, Fpage::NIL))?;
    thread.join()?;
    equal("a page of the supervisor", get(page(0).fpage(Rights::ALL), window(0x1000, PAGE_LOG2))?, Fpage::NIL)
}

fn kernel_memory_is_refused() -> Outcome {
    let reserved = kip::memory_descriptors().iter().filter(|d| d.kind() == MemoryType::Reserved && !d.is_virtual());
    for descriptor in reserved {
        let first = fpage(descriptor.low() & !0xFFF, PAGE_LOG2, Rights::ALL);
        let last = fpage(descriptor.high() & !0xFFF, PAGE_LOG2, Rights::ALL);
        for wanted in [first, last] {
            equal("the answer", get(wanted, window(0, PAGE_LOG2))?, Fpage::NIL).within(format_args!("{wanted:?}"))?;
        }
    }
    Ok(())
}

fn odd_sizes_are_refused() -> Outcome {
    for size_log2 in [0, 1, 10, 11, 40, 52, 62, 63] {
        let given = get_any(size_log2, window(0, PAGE_LOG2))?;
        equal("the answer", given, Fpage::NIL).within(format_args!("2^{size_log2}"))?;
    }
    Ok(())
}

fn nil_window_overflows() -> Outcome {
    request(Sigma0Request::any(PAGE_LOG2)).load();
    accept_untyped();
    let outcome = ipc::call_timeouts(kip::sigma0_id(), timeouts(PATIENCE, PATIENCE));
    equal("the call", outcome.map(drop), Err(receive_error(IpcErrorKind::Overflow)))?;
    // sigma0 does not mind.
    get_any(PAGE_LOG2, window(0, PAGE_LOG2)).map(drop)
}

fn memory_comes_with_attributes() -> Outcome {
    let give = |attribute: PageAttribute| {
        call(
            &request(Sigma0Request { attributes: attribute.raw(), ..Sigma0Request::any(PAGE_LOG2) }),
            window(0, PAGE_LOG2),
        )
    };
    let page = give(PageAttribute::WRITE_COMBINING)?;
    check(!page.is_nil(), "refused")?;
    check_memory(at(0))?;
    equal("with an attribute that is none", give(PageAttribute::from_raw(9))?, Fpage::NIL)?;
    // The page keeps its attribute and its contents when it comes again.
    equal("the page again", get(page, window(0x1000, PAGE_LOG2))?.base(), page.base())?;
    equal("the word in it", memory::read(at(0x1000)), !at(0))
}

fn page_fault_gives_a_page() -> Outcome {
    let given = get_any(PAGE_LOG2, window(0, PAGE_LOG2))?;
    check_memory(at(0))?;
    let fault = |address| Msg::of_words(page_fault_tag(Rights::READ), &[address, 0x1000]);
    let answer = call(&fault(given.base() + 0x123), window(0x1000, PAGE_LOG2))?;
    equal("the page", answer.base(), given.base())?;
    equal("its word", memory::read(at(0x1000)), !at(0))?;
    equal("a page of the supervisor", call(&fault(page(0).address()), window(0x1000, PAGE_LOG2))?, Fpage::NIL)
}

fn malformed_requests_get_no_answer() -> Outcome {
    let words = [page(0).address() | 12 << 4, 0, 0];
    let label = MsgTag::kernel_label(SIGMA0, 0);
    let rows = [
        ("no label", MsgTag::new(0, 2, 0)),
        ("unknown label", MsgTag::kernel(-7, 0, 2)),
        ("no words", MsgTag::new(label, 0, 0)),
        ("one word", MsgTag::new(label, 1, 0)),
        ("four words", MsgTag::new(label, 4, 0)),
        ("extended, of no one", MsgTag::kernel(l4::protocol::SIGMA0_EXTENDED, 0, 2)),
    ];
    for (what, tag) in rows {
        let mut msg = Msg::of_words(tag, &words[..tag.untyped().min(3)]);
        (3..tag.untyped()).for_each(|_| {
            msg.append_word(0);
        });
        msg.load();
        let outcome =
            ipc::ipc(kip::sigma0_id(), kip::sigma0_id(), timeouts(PATIENCE, Time::period_us(10_000))).result();
        equal("the answer", outcome.map(drop), Err(receive_error(IpcErrorKind::Timeout))).within(what)?;
    }
    get_any(PAGE_LOG2, window(0, PAGE_LOG2)).map(drop)
}
