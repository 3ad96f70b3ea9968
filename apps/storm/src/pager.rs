//! Pagers: each serves the page faults of threads in other spaces with the same page of root's space, and sends start
//! messages.

use l4::ipc::{self, Outcome};
use l4::message::Msg;
use l4::protocol::{PAGE_FAULT, start_tag};
use l4::{IpcErrorKind, MapItem, Rights, ThreadId, Word, utcb};

use crate::failure::{check, fail};
use crate::life::{self, PATIENCE};
use crate::memory::page_at;
use crate::messages::{ROLL, is_from_root};
use crate::table::Slot;

/// Label of the request to start the thread of a slot.
pub const START: Word = 0xE00;

/// The life of a pager.
pub extern "C" fn run() -> ! {
    serve(|_, _, _| false)
}

/// Answers messages. `is_kept` sees page faults: thread, address, rights; those that it keeps it will answer itself.
pub fn serve(mut is_kept: impl FnMut(ThreadId, Word, Rights) -> bool) -> ! {
    let mut answer_to = ThreadId::NIL;
    loop {
        let outcome = if answer_to.is_nil() { ipc::wait() } else { ipc::reply_wait(answer_to) };
        answer_to = match outcome {
            Ok(outcome) => answer(outcome, &mut is_kept).unwrap_or(ThreadId::NIL),
            // Somebody was disturbed: this thread, or the one that was to be answered.
            Err(_) => ThreadId::NIL,
        };
    }
}

/// Loads the answer to a message, and says who gets it.
pub fn answer(outcome: Outcome, is_kept: &mut impl FnMut(ThreadId, Word, Rights) -> bool) -> Option<ThreadId> {
    let (first, second) = (utcb().mr(1), utcb().mr(2));
    match outcome.tag.protocol() {
        PAGE_FAULT => {
            let access = Rights::from_bits_truncate(outcome.tag.parameter());
            let is_image = l4_rt::image_contains(first as usize);
            let from = outcome.from;
            check(is_image, format_args!("{from:?} faults at {first:#x} ({access:?}), from {second:#x}"));
            if is_kept(from, first, access) {
                return None;
            }
            let page = page_at(first, Rights::ALL);
            Msg::new(0).append_map(MapItem::map(page, page.base())).load();
        }
        _ if outcome.tag.label() == START => {
            match Slot::at(first as usize) {
                Some(slot) => start(slot, second),
                None => fail(format_args!("{:?} asks for the start of slot {first}", outcome.from)),
            }
            Msg::new(START).load();
        }
        _ if outcome.tag.label() == ROLL && is_from_root(outcome.from) => Msg::new(ROLL).load(),
        _ => fail(format_args!("a pager gets {:?} from {:?}", outcome.tag, outcome.from)),
    }
    Some(outcome.from)
}

/// Sends a start message, unless the thread has one. Whoever asked may have been disturbed, asked again and gone on: then this
/// life may be over.
fn start(slot: Slot, version: Word) {
    while slot.version() == version && !slot.is_started() {
        Msg::of_words(start_tag(), &[life::entry(slot) as usize as Word, slot.start_sp()]).load();
        match ipc::send_timeout(slot.id_of(version), PATIENCE) {
            Ok(_) => slot.set_started(),
            Err(error) if error.kind == IpcErrorKind::Canceled || slot.version() != version => {}
            Err(error) => fail(format_args!("the start message of {slot}: {error:?}")),
        }
    }
}
