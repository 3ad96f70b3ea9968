//! The way of an interrupt to its handler and back. The serial line interrupts as soon as it is told to do so when it has
//! nothing to send.

use l4::thread::{associate_interrupt, deassociate_interrupt};
use l4::{MsgTag, ThreadId, Word, interrupt as line, ipc, schedule, utcb};
use l4_rt::port::HarmlessPort;
use measure::clock::measure;
use measure::stage::{must, root};

use crate::{Bench, HELPER, SPINNER, SmallStack, with_thread};

/// The line of the first serial port.
const LINE: ThreadId = ThreadId::interrupt(4);
const INTERRUPT_ENABLE: u16 = 0x3F9;
const NOTHING_TO_SEND: u8 = 1 << 1;

fn enable(interrupts: u8) {
    HarmlessPort::new(INTERRUPT_ENABLE).expect("the serial line's ports are harmless").write(interrupts);
}

/// A thread is interrupted by what it does, a handler of higher priority serves the device, the thread goes on.
pub fn interrupt(bench: &Bench) {
    static HANDLER_STACK: SmallStack = SmallStack::new();
    static WORKER_STACK: SmallStack = SmallStack::new();
    with_thread(HELPER, &HANDLER_STACK, handle, |handler| {
        must("the handler's priority", schedule::set_priority(handler, 200));
        must("associating the line", associate_interrupt(LINE, handler));
        with_thread(SPINNER, &WORKER_STACK, work, |worker| {
            l4::message::Msg::of_words(MsgTag::NIL, &[bench.rounds as Word]).load();
            must("calling the worker", ipc::call(worker));
            bench.print("", Some(utcb().mr(1)), bench.rounds);
        });
        must("giving the line back", deassociate_interrupt(LINE));
    });
}

extern "C" fn handle() -> ! {
    must("the first interrupt", line::receive(LINE));
    loop {
        enable(0);
        must("an interrupt", line::acknowledge_receive(LINE));
    }
}

extern "C" fn work() -> ! {
    must("hearing from root", ipc::receive(root()));
    let rounds = utcb().mr(1);
    let ticks = measure(rounds, |clock| clock.time(|| enable(NOTHING_TO_SEND)));
    l4::message::Msg::of_words(MsgTag::NIL, &[ticks as Word]).load();
    must("answering root", ipc::send(root()));
    l4::time::sleep_forever()
}
