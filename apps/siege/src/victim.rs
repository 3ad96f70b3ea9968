//! The victim and its server, on the first processor.

use l4::arch::timestamp;
use l4::message::Msg;
use l4::thread::Stack;
use l4::{ThreadId, Time, Timeouts, Word, ipc, schedule, utcb};
use measure::pager;
use measure::stage::{make_second, make_space, must, root, thread_after_root};

use crate::fail;

/// Calls of a measurement, after some that do not count.
const CALLS: u64 = 100;
const WARM_UP: u64 = 20;
/// Measurements of which the least counts.
const TIMES: u32 = 5;
/// How long the calls may take.
const PATIENCE: Time = Time::period_us(10_000_000);

static STACKS: [Stack<0x1000>; 2] = [const { Stack::new() }; 2];

/// Both threads.
pub struct Victim;

impl Victim {
    /// Makes both. The victim comes before its besiegers.
    pub fn begin() -> Self {
        make_space(server());
        make_second(victim(), server());
        for (id, entry, stack) in
            [(server(), serve as l4::thread::Entry, &STACKS[0]), (victim(), live as l4::thread::Entry, &STACKS[1])]
        {
            must("the victim's priority", schedule::set_priority(id, 150));
            pager::start_thread(id, entry, stack.start_sp());
        }
        Self.call();
        Self
    }

    /// How many ticks a call takes: the least of several times, as a timer may come in between.
    pub fn measure(&self) -> u64 {
        (0..TIMES).map(|_| self.call()).fold(u64::MAX, u64::min)
    }

    /// Has it call, which must succeed; how many ticks a call takes.
    pub fn call(&self) -> u64 {
        Msg::new(0).load();
        match ipc::call_timeouts(victim(), Timeouts::new(PATIENCE, PATIENCE)) {
            Ok(_) if utcb().mr(1) == 0 => utcb().mr(2),
            Ok(_) => fail(format_args!("{} calls of the victim fail", utcb().mr(1))),
            Err(error) => fail(format_args!("the victim does not answer: {error:?}")),
        }
    }
}

fn server() -> ThreadId {
    thread_after_root(2)
}

fn victim() -> ThreadId {
    thread_after_root(3)
}

extern "C" fn serve() -> ! {
    let mut client = ThreadId::NIL;
    loop {
        let outcome = if client.is_nil() { ipc::wait() } else { ipc::reply_wait(client) };
        Msg::new(0).load();
        client = outcome.map_or(ThreadId::NIL, |outcome| outcome.from);
    }
}

extern "C" fn live() -> ! {
    loop {
        if ipc::receive(root()).is_err() {
            continue;
        }
        let failed = calls(WARM_UP);
        let start = timestamp();
        let failed = failed + calls(CALLS);
        let ticks = (timestamp() - start) / CALLS;
        Msg::of_words(l4::MsgTag::NIL, &[failed as Word, ticks as Word]).load();
        // Root waits, or has given up.
        let _ = ipc::send_timeout(root(), PATIENCE);
    }
}

/// How many of so many calls fail.
fn calls(count: u64) -> u64 {
    let call = || {
        Msg::new(0).load();
        ipc::call(server()).is_err()
    };
    (0..count).map(|_| u64::from(call())).sum()
}
