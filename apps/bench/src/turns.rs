//! What time does by itself: the end of a slice, timeouts, and nothing at all.
//!
//! A thread cannot see when the kernel takes the processor from it. So those that take turns look at the clock all the
//! time; who finds that another one looked last adds up the time between the two looks. That is exact to two turns of the
//! loop, some thirty instructions. From one change to the next is an operation.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::arch::{mark, timestamp};
use l4::time::{sleep, sleep_forever};
use l4::{MsgTag, Time, ipc, schedule, utcb};
use measure::clock::WARM_UP;
use measure::stage::{must, root};

use crate::{Bench, HELPER, SPINNER, SmallStack, with_thread};

/// The bits of a look for who looked; the others are the time.
const NAME_BITS: u32 = 2;

/// All threads that take turns are on one processor.
struct Turns {
    /// The last look: when and who.
    last: AtomicU64,
    /// How often another thread looked than before.
    changes: AtomicU64,
    /// The first change of the measurement, and the first behind it.
    first: AtomicU64,
    end: AtomicU64,
    /// Ticks between two looks that were a change.
    ticks: AtomicU64,
}

static TURNS: Turns = Turns {
    last: AtomicU64::new(0),
    changes: AtomicU64::new(0),
    first: AtomicU64::new(0),
    end: AtomicU64::new(0),
    ticks: AtomicU64::new(0),
};

/// What a thread does with a change that it makes.
type OnChange = fn();

impl Turns {
    /// Makes `last` the one who looked last, so that the first change is the other's.
    fn start(&self, last: u64, changes_before: u64, changes: u64) {
        self.last.store(last, Relaxed);
        self.changes.store(0, Relaxed);
        self.ticks.store(0, Relaxed);
        self.first.store(changes_before, Relaxed);
        self.end.store(changes_before + changes, Relaxed);
    }

    /// Thread `me`, at least 1, looks at the clock. If another one looks in between, this look does not count: its time
    /// may be an old one.
    #[inline(always)]
    fn look(&self, me: u64, on_change: OnChange) {
        let before = self.last.load(Relaxed);
        let now = timestamp();
        let counts = self.last.compare_exchange(before, now << NAME_BITS | me, Relaxed, Relaxed).is_ok();
        if counts && before % (1 << NAME_BITS) != me {
            self.change(now - (before >> NAME_BITS), on_change);
        }
    }

    fn change(&self, ticks: u64, on_change: OnChange) {
        let number = self.changes.fetch_add(1, Relaxed);
        let (first, end) = (self.first.load(Relaxed), self.end.load(Relaxed));
        if number == first {
            mark::begin::<0>();
        }
        if (first + 1..=end).contains(&number) {
            self.ticks.fetch_add(ticks, Relaxed);
        }
        if number == end {
            mark::end();
            utcb().set_tag(MsgTag::NIL);
            must("telling root", ipc::send(root()));
            sleep_forever();
        }
        on_change();
    }
}

static FIRST_STACK: SmallStack = SmallStack::new();
static SECOND_STACK: SmallStack = SmallStack::new();

/// Two threads compute, each for its time slice.
pub fn preemption(bench: &Bench) {
    extern "C" fn first() -> ! {
        loop {
            TURNS.look(1, mark::operation);
        }
    }
    extern "C" fn second() -> ! {
        loop {
            TURNS.look(2, mark::operation);
        }
    }
    TURNS.start(2, WARM_UP, bench.rounds);
    with_thread(HELPER, &FIRST_STACK, first, |one| {
        with_thread(SPINNER, &SECOND_STACK, second, |other| {
            for thread in [one, other] {
                must("the time slice", schedule::set_timeslice(thread, Time::period_us(100), Time::NEVER));
            }
            must("hearing from those who take turns", ipc::wait());
            bench.print("", Some(TURNS.ticks.load(Relaxed)), bench.rounds);
        });
    });
}

/// A thread wakes again and again while another one computes. Each time there are two changes, the sleeper's first.
pub fn timeout(bench: &Bench) {
    static SLEEPER_STACK: SmallStack = SmallStack::new();
    static SPINNER_STACK: SmallStack = SmallStack::new();
    extern "C" fn sleeper() -> ! {
        loop {
            TURNS.look(1, mark::operation);
            sleep(Time::period_us(50));
        }
    }
    extern "C" fn spinner() -> ! {
        loop {
            TURNS.look(2, || {});
        }
    }
    TURNS.start(2, 2 * WARM_UP, 2 * bench.rounds);
    with_thread(SPINNER, &SPINNER_STACK, spinner, |_| {
        with_thread(HELPER, &SLEEPER_STACK, sleeper, |thread| {
            must("the sleeper's priority", schedule::set_priority(thread, 200));
            must("hearing from those who take turns", ipc::wait());
            bench.print("", Some(TURNS.ticks.load(Relaxed)), bench.rounds);
        });
    });
}

/// A second in which nobody is ready. The clock goes on while the processor stands still, so it cannot tell how much was
/// executed.
pub fn idle(bench: &Bench) {
    mark::begin::<0>();
    mark::operation();
    sleep(Time::period_us(1_000_000));
    mark::rest();
    mark::end();
    bench.print("", None, 1);
}
