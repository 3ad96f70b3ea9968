//! Messages that are more than words for one who waits.

use l4::message::Msg;
use l4::schedule::thread_switch as switch_to;
use l4::{MsgTag, ThreadId, Time, Timeouts, ipc, utcb};
use measure::stage::must;

use crate::{Bench, HELPER, SmallStack, client, pages, with_thread};

/// Bytes of a KiB.
const KIB: usize = 1024;

/// A call with timeouts, and its reply.
pub fn ipc_general(bench: &Bench) {
    static STACK: SmallStack = SmallStack::new();
    extern "C" fn echo() -> ! {
        let mut outcome = must("waiting for a call", ipc::wait());
        loop {
            utcb().set_tag(MsgTag::NIL);
            outcome = must("answering a call", ipc::reply_wait(outcome.from));
        }
    }
    let second = Time::period_us(1_000_000);
    let timeouts = Timeouts::new(second, second);
    let call = |to| {
        utcb().set_tag(MsgTag::NIL);
        must("a call with timeouts", ipc::call_timeouts(to, timeouts));
    };
    with_thread(HELPER, &STACK, echo, |helper| bench.simple("intra", || call(helper)));
    bench.simple("inter", || call(client::id()));
}

/// A send, and nothing else, to a thread that waits. Root is above the receiver and goes on; that the receiver comes to wait
/// again does not count.
pub fn send(bench: &Bench) {
    static STACK: SmallStack = SmallStack::new();
    extern "C" fn receive() -> ! {
        loop {
            must("waiting for a message", ipc::wait());
        }
    }
    let figure = |mode, to: ThreadId, words| {
        bench.figure(mode, 1, |clock| {
            utcb().set_tag(MsgTag::new(client::NOTE, words, 0));
            clock.time(|| {
                must("sending", ipc::send(to));
            });
            switch_to(to);
        });
    };
    with_thread(HELPER, &STACK, receive, |helper| figure("intra", helper, 0));
    figure("inter", client::id(), 0);
    figure("inter 7 words", client::id(), 7);
    figure("inter 63 words", client::id(), 63);
}

/// Strings to the client: pages on both sides are mapped.
pub fn string_copy(bench: &Bench) {
    for (mode, bytes) in [("1 KiB", KIB), ("4 KiB", 4 * KIB), ("64 KiB", client::STRING_BYTES)] {
        let mut message = Msg::new(client::ECHO);
        message.append_string_at(bytes, &[pages::address()]);
        bench.figure(mode, (bytes / KIB) as u64, |clock| {
            message.load();
            clock.time(|| {
                must("sending a string", ipc::call(client::id()));
            });
        });
    }
}
