//! The client: the other side of what goes on between two spaces. It does what root's messages say, and answers each but notes.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use l4::message::{Msg, accept_string};
use l4::thread::Stack;
use l4::{MsgTag, ThreadId, Word, ipc, schedule, utcb};
use measure::clock::measure;
use measure::pager;
use measure::stage::{make_space, must, root, thread_after_root};

use crate::pages;

/// The label of a message that the client only answers.
pub const ECHO: Word = 0;
/// Reads a byte of each of the first MR1 pages.
pub const TOUCH: Word = 1;
/// Measures MR1 page faults; the answer has the ticks.
pub const FAULT: Word = 2;
/// Answers at once, then calls ThreadSwitch to root MR1 times, and once more at the end of all turns.
pub const SWITCH: Word = 3;

/// Nothing is done about it, and nothing answered.
pub const NOTE: Word = 4;

/// The longest string that the client takes.
pub const STRING_BYTES: usize = 64 << 10;

static STACK: Stack<0x4000> = Stack::new();
static STRING: [AtomicU8; STRING_BYTES] = [const { AtomicU8::new(0) }; STRING_BYTES];

/// The client's id.
pub fn id() -> ThreadId {
    thread_after_root(2)
}

/// Makes the client, and waits until it answers. Called by root.
pub fn start() {
    make_space(id());
    pager::start_thread(id(), serve, STACK.start_sp());
    tell(ECHO, 0);
}

/// Has the client do something; returns the first word of its answer.
pub fn tell(label: Word, word: Word) -> Word {
    Msg::of_words(MsgTag::NIL.with_label(label), &[word]).load();
    must("calling the client", ipc::call(id()));
    utcb().mr(1)
}

extern "C" fn serve() -> ! {
    // Strings shall find their buffer.
    STRING.iter().step_by(4096).for_each(|byte| byte.store(0, Relaxed));
    accept_string(&STRING);
    let mut outcome = must("waiting for root", ipc::wait());
    loop {
        outcome = match carry_out(outcome.tag, utcb().mr(1)) {
            Some(answer) => {
                Msg::of_words(MsgTag::NIL, &[answer]).load();
                must("answering root", ipc::reply_wait(outcome.from))
            }
            None => must("waiting for root", ipc::wait()),
        };
    }
}

/// What is to be answered, unless that was done.
fn carry_out(tag: MsgTag, word: Word) -> Option<Word> {
    match tag.label() {
        TOUCH => (0..word as usize).for_each(pages::touch),
        FAULT => return Some(measure_faults(word)),
        SWITCH => {
            must("answering root", ipc::reply(root()));
            (0..=word).for_each(|_| schedule::thread_switch(root()));
            return None;
        }
        NOTE => return None,
        _ => {}
    }
    Some(0)
}

fn measure_faults(rounds: u64) -> u64 {
    let mut untouched = 0..pages::COUNT;
    measure(rounds, |clock| {
        let page = untouched.next().expect("there are more pages than rounds");
        clock.time(|| pages::touch(page));
    })
}
