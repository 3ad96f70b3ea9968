//! Measures what the kernel does besides messages of plain words, which `pingpong` measures.
//!
//! | thread | number | space | does |
//! |---|---|---|---|
//! | root | root task | root | measures, prints |
//! | pager | + 1 | root | maps the image to the client, and thereby serves its page faults |
//! | client | + 2 | new | the other side, in another space |
//! | helper | + 3 | root | the other side in this space: a thread of its own for each measurement |
//! | spinner | + 4 | root | somebody who computes |
//! | newborn | + 5 | root or new | is created and deleted |
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod calls;
mod client;
mod interrupts;
mod memory;
mod messages;
mod pages;
mod threads;
mod turns;

use bench::options::{BENCHES, Options};
use bench::report::{Figure, Head, Line, Row, Setting};
use l4::thread::{Entry, Stack, delete, spawn};
use l4::{ThreadId, Word, kip};
use l4_rt::{exit, print, println};
use measure::clock::{Clock, measure};
use measure::pager;
use measure::stage::{must, thread_after_root, utcb_after_mine};

/// Exit status for a bad command line.
const STATUS_USAGE: u8 = 2;

const HELPER: Word = 3;
const SPINNER: Word = 4;

/// A stack of a thread in root's space.
type SmallStack = Stack<0x2000>;

l4_rt::entry!(main);

/// What is measured, in the order of [`BENCHES`].
const RUNS: [fn(&Bench); BENCHES.len()] = [
    calls::null_call,
    calls::thread_switch,
    calls::system_clock,
    calls::exchange_registers,
    calls::schedule,
    messages::ipc_general,
    messages::send,
    messages::string_copy,
    memory::page_fault,
    memory::unmap,
    threads::create,
    threads::delete,
    interrupts::interrupt,
    turns::preemption,
    turns::timeout,
    turns::idle,
];

fn main() {
    let options = Options::parse(l4_rt::args("bench")).unwrap_or_else(|error| {
        println!("{error}");
        exit(STATUS_USAGE)
    });
    pager::start();
    client::start();
    let setting = Setting { arch: l4::arch::NAME, cpus: kip::num_processors(), tick: options.tick };
    if !options.is_json {
        print!("{}", Head(setting));
    }
    for index in options.chosen() {
        RUNS[index](&Bench { name: BENCHES[index].0, setting, rounds: options.rounds, is_json: options.is_json });
    }
}

/// A bench as it is run: measures and prints its figures.
struct Bench {
    name: &'static str,
    setting: Setting,
    /// Operations per figure.
    rounds: u64,
    is_json: bool,
}

impl Bench {
    /// Measures operations and prints the figure for `parts` of each: see [`measure`].
    fn figure(&self, mode: &'static str, parts: u64, round: impl FnMut(&mut Clock)) {
        self.print(mode, Some(measure(self.rounds, round)), self.rounds * parts);
    }

    /// Measures an operation that can be repeated at once.
    fn simple(&self, mode: &'static str, mut operation: impl FnMut()) {
        self.figure(mode, 1, |clock| clock.time(&mut operation));
    }

    /// Prints a figure that was measured in another way.
    fn print(&self, mode: &'static str, ticks: Option<u64>, parts: u64) {
        let figure = Figure { bench: self.name, mode, ticks, parts };
        if self.is_json {
            print!("{}", Line(self.setting, figure));
        } else {
            print!("{}", Row(figure));
        }
    }
}

/// Runs `scene` while another thread of this space, the `n`th after root, runs `entry`.
fn with_thread(n: Word, stack: &'static SmallStack, entry: Entry, scene: impl FnOnce(ThreadId)) {
    let thread = thread_after_root(n);
    must("making a thread", spawn(thread, utcb_after_mine(n), stack, entry));
    scene(thread);
    must("deleting a thread", delete(thread));
}
