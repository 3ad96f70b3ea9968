//! The pager of ping and pong.
//!
//! It understands two messages: from root, where ping and pong begin, which it passes on as their start messages; and
//! page faults, which it answers with the same page of the root's space.

use l4::message::Msg;
use l4::protocol::{PAGE_FAULT, start_tag};
use l4::thread::{Entry, Stack, global_id_of, spawn};
use l4::{Fpage, MapItem, MsgTag, Rights, ThreadId, Word, ipc, utcb};
use l4_rt::{exit, println};

use crate::{STATUS_FAILURE, must, players, stage};

const PAGE_LOG2: u32 = 12;

static STACK: Stack<0x4000> = Stack::new();

/// The id of the pager.
pub fn id() -> ThreadId {
    stage::thread_after_root(1)
}

/// Makes the pager, in the root's space.
pub fn start() {
    must("creating the pager", spawn(id(), stage::utcb_after_mine(1), &STACK, serve));
}

/// Has ping and pong start. Called by root.
pub fn start_players() {
    let entries: [Entry; 2] = [players::ping, players::pong];
    Msg::of_words(MsgTag::NIL, &entries.map(|entry| entry as usize as Word)).load();
    must("starting ping and pong", ipc::send(id()));
}

extern "C" fn serve() -> ! {
    let mut answer_to = ThreadId::NIL;
    loop {
        // Nothing to answer: only wait.
        let outcome = if answer_to.is_nil() { ipc::wait() } else { ipc::reply_wait(answer_to) };
        answer_to = match outcome {
            Ok(outcome) if outcome.tag.protocol() == PAGE_FAULT => {
                page_fault(outcome.from, utcb().mr(1), utcb().mr(2));
                outcome.from
            }
            Ok(outcome) if global_id_of(outcome.from) == Ok(stage::root()) => {
                send_starts(utcb().mr(1), utcb().mr(2));
                ThreadId::NIL
            }
            // A stranger's message, or an answer that nobody waits for any more: root has deleted ping and pong.
            _ => ThreadId::NIL,
        };
    }
}

/// Loads the answer to a page fault: the page of our own space at that address.
fn page_fault(from: ThreadId, address: Word, ip: Word) {
    let Some(page) = Fpage::new(address >> PAGE_LOG2 << PAGE_LOG2, PAGE_LOG2, Rights::ALL)
        .filter(|_| l4_rt::image_contains(address as usize))
    else {
        println!("pingpong: thread {} faults at {address:#x}, from {ip:#x}", from.thread_no());
        exit(STATUS_FAILURE)
    };
    Msg::new(0).append_map(MapItem::map(page, page.base())).load();
}

/// Sends the start messages.
fn send_starts(ping_ip: Word, pong_ip: Word) {
    for (thread, ip, sp) in [(stage::ping(), ping_ip, players::ping_sp()), (stage::pong(), pong_ip, players::pong_sp())]
    {
        Msg::of_words(start_tag(), &[ip, sp]).load();
        must("a start message", ipc::send(thread));
    }
}
