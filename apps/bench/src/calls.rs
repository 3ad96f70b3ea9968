//! Single system calls.

use l4::schedule::{self, thread_switch as switch_to};
use l4::thread::{inspect, my_global_id, set_user_defined_handle_of};
use l4::time::{sleep_forever, system_clock_us};
use measure::clock::WARM_UP;
use measure::stage::{must, root};

use crate::{Bench, HELPER, SmallStack, client, with_thread};

/// ThreadSwitch to oneself: what it costs to enter and leave the kernel by the general path.
pub fn null_call(bench: &Bench) {
    let me = my_global_id();
    bench.simple("", || switch_to(me));
}

/// ThreadSwitch to another thread, which switches back.
pub fn thread_switch(bench: &Bench) {
    static STACK: SmallStack = SmallStack::new();
    extern "C" fn switch_back() -> ! {
        loop {
            switch_to(root());
        }
    }
    with_thread(HELPER, &STACK, switch_back, |helper| bench.simple("intra", || switch_to(helper)));
    client::tell(client::SWITCH, (WARM_UP + bench.rounds) as l4::Word);
    bench.simple("inter", || switch_to(client::id()));
}

/// SystemClock, which does not enter the kernel.
pub fn system_clock(bench: &Bench) {
    bench.simple("", || {
        core::hint::black_box(system_clock_us());
    });
}

/// ExchangeRegisters: reading all registers, writing one.
pub fn exchange_registers(bench: &Bench) {
    static STACK: SmallStack = SmallStack::new();
    with_thread(HELPER, &STACK, wait, |helper| {
        bench.simple("read", || {
            must("reading registers", inspect(helper));
        });
        bench.simple("write", || must("writing a register", set_user_defined_handle_of(helper, 1)));
    });
}

/// Schedule: reading the time that is left, setting the priority.
pub fn schedule(bench: &Bench) {
    static STACK: SmallStack = SmallStack::new();
    with_thread(HELPER, &STACK, wait, |helper| {
        bench.simple("read", || {
            must("reading the time slice", schedule::timeslice(helper));
        });
        bench.simple("priority", || {
            must("setting the priority", schedule::set_priority(helper, 100));
        });
    });
}

extern "C" fn wait() -> ! {
    sleep_forever()
}
