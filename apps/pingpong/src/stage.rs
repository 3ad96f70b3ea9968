//! Making ping and pong, and printing what they find.

use l4::thread::delete;
use l4::time::sleep;
use l4::{MsgTag, ThreadId, Time, ipc, kip, schedule, utcb};
use l4_rt::print;
use measure::pager;
use measure::stage::{make_second, make_space, must, thread_after_root};
use pingpong::options::{Mode, Options};
use pingpong::report::{Head, Line, Row, Run};

use crate::players;

/// How long processors with nothing to do may take until they sleep, microseconds.
const SETTLE_US: u64 = 1_000;

/// The id of ping.
pub fn ping() -> ThreadId {
    thread_after_root(2)
}

/// The id of pong.
pub fn pong() -> ThreadId {
    thread_after_root(3)
}

/// Whether the machine has what a mode needs.
pub fn is_possible(mode: Mode) -> bool {
    mode != Mode::Xcpu || kip::num_processors() > 1
}

/// Measures and prints one mode.
pub fn run(options: &Options, mode: Mode) {
    let run = Run {
        format: options.format,
        mode,
        tick: options.tick,
        rounds: options.rounds,
        arch: l4::arch::NAME,
        cpus: kip::num_processors(),
    };
    players::SETTINGS.set(options, mode);
    make_players(mode);
    if mode == Mode::Xcpu {
        let other = (utcb().processor_no() as usize + 1) % kip::num_processors();
        must("moving pong", schedule::set_processor_no(pong(), other as u16));
        // Processors that have just started look out for a while before they sleep. Where the instructions of all count, these
        // would, too.
        sleep(Time::period_us(SETTLE_US));
    }
    print!("{}", Head(&run));
    pager::start_thread(ping(), players::ping, players::ping_sp());
    pager::start_thread(pong(), players::pong, players::pong_sp());
    while let Some(row) = next_row() {
        print!("{}", Line(&run, row));
    }
    must("deleting ping", delete(ping()));
    must("deleting pong", delete(pong()));
}

/// The next row from ping; `None` at the end.
fn next_row() -> Option<Row> {
    let tag: MsgTag = must("waiting for a row", ipc::receive(ping())).tag;
    (tag.untyped() == 3).then(|| Row { mrs: utcb().mr(1), ticks: utcb().mr(2), us: utcb().mr(3) })
}

/// Makes ping and pong, in one space or two, waiting for their start messages.
fn make_players(mode: Mode) {
    make_space(ping());
    if mode.is_in_one_space() {
        make_second(pong(), ping());
    } else {
        make_space(pong());
    }
}
