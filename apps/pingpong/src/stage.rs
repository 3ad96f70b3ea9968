//! Making ping and pong, and printing what they find.

use l4::thread::{delete, my_global_id, thread_control};
use l4::{
    Fpage, MsgTag, Rights, SpaceControl, ThreadId, UTCB_MR0_OFFSET, Word, ipc, kip, schedule, space, thread, utcb,
};
use l4_rt::print;
use pingpong::options::{Mode, Options};
use pingpong::report::{Head, Line, Row, Run};

use crate::{must, pager, players};

/// Version of all threads made here.
const VERSION: Word = 2;
/// First address of the UTCB area of ping's and pong's spaces.
const UTCB_AREA_BASE: Word = 0x8000_0000;

/// The first thread of the root task.
pub fn root() -> ThreadId {
    kip::root_task_id()
}

/// The id of the `n`th thread after root.
pub fn thread_after_root(n: Word) -> ThreadId {
    ThreadId::global(root().thread_no() + n, VERSION)
}

/// The id of ping.
pub fn ping() -> ThreadId {
    thread_after_root(2)
}

/// The id of pong.
pub fn pong() -> ThreadId {
    thread_after_root(3)
}

/// The UTCB location of the `n`th thread after the calling one, in its own space.
pub fn utcb_after_mine(n: Word) -> Word {
    thread::my_local_id().raw() - UTCB_MR0_OFFSET as Word + n * kip().utcb_info.size_bytes()
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
    }
    print!("{}", Head(&run));
    pager::start_players();
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
    let second_utcb = UTCB_AREA_BASE + kip().utcb_info.size_bytes();
    make_space("ping", ping());
    if mode.is_in_one_space() {
        let created = thread_control(pong(), ping(), my_global_id(), pager::id(), Some(second_utcb));
        must("creating pong", created);
    } else {
        make_space("pong", pong());
    }
}

/// Makes a thread in a new space of its own: inactive first, as the space is not set up; then with its pager.
fn make_space(name: &str, id: ThreadId) {
    must(name, thread_control(id, id, my_global_id(), ThreadId::NIL, Some(UTCB_AREA_BASE)));
    let areas = (area(kip_base(), kip().kip_area_info.size_log2()), area(UTCB_AREA_BASE, utcb_area_log2()));
    must(name, space::space_control(id, SpaceControl::NONE, areas.0, areas.1, ThreadId::NIL));
    must(name, thread_control(id, id, ThreadId::NIL, pager::id(), None));
}

fn kip_base() -> Word {
    core::ptr::from_ref(kip()).addr() as Word
}

/// Twice the smallest area.
fn utcb_area_log2() -> u32 {
    kip().utcb_info.area_log2() + 1
}

fn area(base: Word, size_log2: u32) -> Fpage {
    Fpage::new(base, size_log2, Rights::ALL).expect("areas are at multiples of their size")
}
