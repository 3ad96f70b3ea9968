//! Ping and pong.
//!
//! They take the same number of turns in the same order. Ping first receives pong's first message, and from then on each
//! call answers the one before.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use l4::message::Msg;
use l4::thread::Stack;
use l4::time::{sleep_forever, system_clock_us};
use l4::{MsgTag, ThreadId, Word, arch, ipc, schedule};
use measure::stage::{must, root};
use pingpong::options::{Mode, Options};

use crate::stage;

/// Round trips in front of each measurement, after which code, stacks and caches are warm.
const WARM_UP_ROUNDS: u64 = 2;

/// Round trips behind it, in the last of which pong prepares for what comes next.
const LAST_ROUNDS: u64 = 1;

/// A call and its answer enter the kernel twice.
const ENTRIES_PER_ROUND: i32 = 2;

/// What ping and pong have to know; set by root before they start.
pub struct Settings {
    first_mrs: AtomicU64,
    last_mrs: AtomicU64,
    rounds: AtomicU64,
    is_lipc: AtomicBool,
}

/// The settings of the present run.
pub static SETTINGS: Settings = Settings {
    first_mrs: AtomicU64::new(0),
    last_mrs: AtomicU64::new(0),
    rounds: AtomicU64::new(0),
    is_lipc: AtomicBool::new(false),
};

impl Settings {
    /// Sets what the next run is to do.
    pub fn set(&self, options: &Options, mode: Mode) {
        self.first_mrs.store(options.first_mrs, Relaxed);
        self.last_mrs.store(options.last_mrs, Relaxed);
        self.rounds.store(options.rounds, Relaxed);
        self.is_lipc.store(mode == Mode::Lipc, Relaxed);
    }

    fn rows(&self) -> impl Iterator<Item = usize> {
        (self.first_mrs.load(Relaxed)..=self.last_mrs.load(Relaxed)).map(|mrs| mrs as usize)
    }

    /// Calls the partner, as often as one row takes or once.
    fn call(&self, partner: ThreadId, mrs: usize, rounds: u64) {
        if self.is_lipc.load(Relaxed) {
            ipc::lcall_rounds(partner, mrs, rounds);
        } else {
            ipc::call_rounds(partner, mrs, rounds);
        }
    }
}

static PING_STACK: Stack<0x4000> = Stack::new();
static PONG_STACK: Stack<0x4000> = Stack::new();

/// Ping's stack pointer at the start. Its thread is made anew for each run, on the same stack.
pub fn ping_sp() -> Word {
    PING_STACK.start_sp()
}

/// Pong's stack pointer at the start.
pub fn pong_sp() -> Word {
    PONG_STACK.start_sp()
}

/// Measures, and sends each row to root: words, ticks, microseconds.
pub extern "C" fn ping() -> ! {
    let (pong, rounds) = (stage::pong(), SETTINGS.rounds.load(Relaxed));
    must("hearing from pong", ipc::receive(pong));
    for mrs in SETTINGS.rows() {
        begin_slice();
        SETTINGS.call(pong, mrs, WARM_UP_ROUNDS);
        let around = time(pong, mrs, 0);
        let start_us = system_clock_us();
        arch::mark::begin::<ENTRIES_PER_ROUND>();
        let ticks = time(pong, mrs, rounds).saturating_sub(around);
        arch::mark::end();
        let us = system_clock_us() - start_us;
        SETTINGS.call(pong, mrs, LAST_ROUNDS);
        tell_root(&[mrs as Word, ticks as Word, us as Word]);
    }
    tell_root(&[]);
    sleep_forever()
}

/// Calls ping as often as ping calls it, and once more: the last call is the answer to ping's last one, and nobody
/// answers it. So the last row is measured like the others.
pub extern "C" fn pong() -> ! {
    let (ping, rounds) = (stage::ping(), SETTINGS.rounds.load(Relaxed));
    let last = SETTINGS.last_mrs.load(Relaxed) as usize;
    for mrs in SETTINGS.rows() {
        SETTINGS.call(ping, mrs, WARM_UP_ROUNDS + rounds + LAST_ROUNDS + u64::from(mrs == last));
    }
    sleep_forever()
}

/// The ticks of so many round trips, with those that it takes to get there and to look at the clock, which without round
/// trips are all. Not inlined, so that these are always the same.
#[inline(never)]
fn time(partner: ThreadId, mrs: usize, rounds: u64) -> u64 {
    let start = arch::timestamp();
    SETTINGS.call(partner, mrs, rounds);
    arch::timestamp() - start
}

/// Gives up the rest of the time slice for a new one, so that its end does not come in some row or other, which would
/// then be dearer by an interrupt: which one, hangs on what was before.
fn begin_slice() {
    schedule::yield_now();
}

fn tell_root(words: &[Word]) {
    Msg::of_words(MsgTag::NIL, words).load();
    must("telling root", ipc::send(root()));
}
