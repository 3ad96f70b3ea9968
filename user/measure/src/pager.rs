//! The pager of threads in other spaces than root's.
//!
//! It understands two messages: from root, where a thread begins, which it passes on as the thread's start message; and
//! page faults, which it answers with the same page of the root's space. So those threads run the image of the root task,
//! and share its data.

use l4::message::Msg;
use l4::protocol::{PAGE_FAULT, start_tag};
use l4::thread::{Entry, Stack, global_id_of, spawn};
use l4::{Fpage, MapItem, MsgTag, Rights, ThreadId, Word, ipc, utcb};
use l4_rt::{exit, println};

use crate::stage::{self, STATUS_FAILURE, must};

const PAGE_LOG2: u32 = 12;

static STACK: Stack<0x4000> = Stack::new();

/// The id of the pager.
pub fn id() -> ThreadId {
    stage::thread_after_root(1)
}

/// Makes the pager, in the root's space. Called by root, once.
pub fn start() {
    // Other threads than root cannot ask sigma0 for pages of the image: the pager finds all of them mapped.
    l4_rt::touch_image();
    must("creating the pager", spawn(id(), stage::utcb_after_mine(1), &STACK, serve));
}

/// Has a thread of another space start that waits for its start message. Called by root.
pub fn start_thread(thread: ThreadId, entry: Entry, sp: Word) {
    Msg::of_words(MsgTag::NIL, &[thread.raw(), entry as usize as Word, sp]).load();
    must("starting a thread", ipc::send(id()));
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
                send_start(ThreadId::from_raw(utcb().mr(1)), utcb().mr(2), utcb().mr(3));
                ThreadId::NIL
            }
            // A stranger's message, or an answer that nobody waits for any more: root has deleted the thread.
            _ => ThreadId::NIL,
        };
    }
}

/// Loads the answer to a page fault: the page of our own space at that address.
fn page_fault(from: ThreadId, address: Word, ip: Word) {
    let Some(page) = Fpage::new(address >> PAGE_LOG2 << PAGE_LOG2, PAGE_LOG2, Rights::ALL)
        .filter(|_| l4_rt::image_contains(address as usize))
    else {
        println!("thread {} faults at {address:#x}, from {ip:#x}", from.thread_no());
        exit(STATUS_FAILURE)
    };
    Msg::new(0).append_map(MapItem::map(page, page.base())).load();
}

fn send_start(thread: ThreadId, ip: Word, sp: Word) {
    Msg::of_words(start_tag(), &[ip, sp]).load();
    must("a start message", ipc::send(thread));
}
