//! Three mistakes to be found by whoever looks into the kernel: docs/debugging.md goes from each symptom to its cause.
//!
//! | thread | number | space | does |
//! |---|---|---|---|
//! | root | root task | root | makes the others, says that all is planted, and stops in the debugger |
//! | pager | + 1 | root | maps the image to the others, sends their start messages |
//! | ring.a, ring.b, ring.c | + 2 to + 4 | one each | each calls the next one: nobody ever answers |
//! | server | + 5 | server | lends a page to its client, and forgets to take it back when the client says that it is done |
//! | client | + 6 | client | asks for the page, says that it is done, sleeps |
//! | runaway | + 7 | runaway | never stops, with a low priority |
//!
//! The runaway runs last: when it says so to root, all others are blocked.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU8, Ordering};

use l4::message::Msg;
use l4::thread::{Entry, Stack};
use l4::time::sleep_forever;
use l4::{Acceptor, Fpage, MapItem, MsgTag, Rights, ThreadId, Word, ipc, kdb, schedule, utcb};
use l4_rt::{exit, println};
use measure::pager;
use measure::stage::{make_space, must, root, thread_after_root};

/// Exit status for a bad command line.
const STATUS_USAGE: u8 = 2;

const STACK_BYTES: usize = 0x4000;
static STACKS: [Stack<STACK_BYTES>; 6] = [const { Stack::new() }; 6];

const PAGE_BYTES: usize = 4096;
const PAGE_LOG2: u32 = 12;
/// Where the client has the page that it borrows.
const BORROWED_AT: Word = 0x5000_0000;
/// Lower than that of all others.
const LOW_PRIORITY: u8 = 50;

/// What the client says to the server.
const LEND: Word = 1;
const DONE: Word = 2;

/// The page that the server lends.
#[repr(align(4096))]
struct Page([AtomicU8; PAGE_BYTES]);

static LENT: Page = Page([const { AtomicU8::new(0x5A) }; PAGE_BYTES]);

l4_rt::entry!(main);

fn main() {
    let waits = match l4_rt::args("deadlock").next() {
        None => false,
        Some("wait") => true,
        Some(other) => {
            println!("deadlock does not know {other}: it takes wait, to stay, or nothing, to end behind the debugger");
            exit(STATUS_USAGE)
        }
    };
    kdb::name_thread(c"root");
    kdb::name_space(c"root");
    pager::start();
    let parts: [(Entry, bool); 6] =
        [(ring_a, false), (ring_b, false), (ring_c, false), (server, false), (client, false), (runaway, true)];
    for ((n, (entry, is_low)), stack) in (2..).zip(parts).zip(&STACKS) {
        let id = thread_after_root(n);
        make_space(id);
        if is_low {
            must("setting a priority", schedule::set_priority(id, LOW_PRIORITY));
        }
        pager::start_thread(id, entry, stack.start_sp());
    }
    must("hearing from the runaway", ipc::receive(thread_after_root(7)));
    println!("deadlock: all is planted");
    if waits {
        sleep_forever();
    }
    kdb::enter_with!("deadlock");
}

/// Calls the next one of the ring, for ever.
fn ring(name: &core::ffi::CStr, next: Word) -> ! {
    kdb::name_thread(name);
    kdb::name_space(name);
    Msg::of_words(MsgTag::NIL, &[]).load();
    // The call never ends, and if it did there would be nothing to do.
    let _ = ipc::call(thread_after_root(next));
    sleep_forever()
}

extern "C" fn ring_a() -> ! {
    ring(c"ring.a", 3)
}

extern "C" fn ring_b() -> ! {
    ring(c"ring.b", 4)
}

extern "C" fn ring_c() -> ! {
    ring(c"ring.c", 2)
}

extern "C" fn server() -> ! {
    kdb::name_thread(c"server");
    kdb::name_space(c"server");
    let lent = (&raw const LENT).addr() as Word;
    let page = Fpage::new(lent, PAGE_LOG2, Rights::READ).expect("a page is at a multiple of its size");
    // What is not mapped cannot be lent: an access has the pager map it.
    LENT.0[0].store(0xA5, Ordering::Relaxed);
    let mut client = must("waiting for a client", ipc::wait()).from;
    loop {
        match utcb().mr(1) {
            LEND => {
                Msg::new(0).append_map(MapItem::map(page, 0)).load();
            }
            // Here the page should be taken back.
            _ => Msg::of_words(MsgTag::NIL, &[]).load(),
        }
        client = must("answering a client", ipc::reply_wait(client)).from;
    }
}

extern "C" fn client() -> ! {
    kdb::name_thread(c"client");
    kdb::name_space(c"client");
    let server = thread_after_root(5);
    let window = Fpage::new(BORROWED_AT, PAGE_LOG2, Rights::NONE).expect("a page is at a multiple of its size");
    utcb().set_acceptor(Acceptor::map_grant(window));
    ask(server, LEND);
    utcb().set_acceptor(Acceptor::UNTYPED);
    ask(server, DONE);
    sleep_forever()
}

fn ask(server: ThreadId, what: Word) {
    Msg::of_words(MsgTag::NIL, &[what]).load();
    must("asking the server", ipc::call(server));
}

extern "C" fn runaway() -> ! {
    kdb::name_thread(c"runaway");
    kdb::name_space(c"runaway");
    Msg::of_words(MsgTag::NIL, &[]).load();
    must("telling root", ipc::send(root()));
    run_away()
}

/// Where the runaway is found.
#[inline(never)]
fn run_away() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
