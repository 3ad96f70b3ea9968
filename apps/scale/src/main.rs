//! Measures how the kernel scales: messages between processors, messages of many pairs at a time, moves, and what takes
//! memory away from several processors.
//!
//! | thread | number | space | does |
//! |---|---|---|---|
//! | root | root task | root | makes the others, tells them what to do, prints |
//! | pager | + 1 | root | maps the image to workers, and thereby serves their page faults |
//! | mover | + 2 | root | moves itself |
//! | workers | from + 3 | new ones | what they are told |
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod latency;
mod memory;
mod moves;
mod pairs;
mod worker;

use l4::kip;
use l4_rt::{exit, print, println};
use measure::pager;
use scale::options::{Options, Part};
use scale::report::{Figure, Head, Line, Setting};

/// Exit status for a bad command line, or for what this machine cannot do.
const STATUS_USAGE: u8 = 2;

l4_rt::entry!(main);

fn main() {
    let options = Options::parse(l4_rt::args("scale")).unwrap_or_else(|error| {
        println!("{error}");
        exit(STATUS_USAGE)
    });
    pager::start();
    let bench = Bench::new(&options);
    for part in options.parts() {
        print!("{}", Head(bench.setting, part));
        match part {
            Part::Latency => latency::run(&bench),
            Part::Pairs => pairs::run(&bench),
            Part::Migrate => moves::run(&bench),
            Part::Unmap => memory::unmap(&bench),
            Part::Fault => memory::fault(&bench),
        }
    }
}

/// What all parts need to know.
struct Bench {
    setting: Setting,
    rounds: u64,
    /// So many pairs alone; 0: all numbers of them.
    pairs: usize,
    places: worker::Places,
}

impl Bench {
    fn new(options: &Options) -> Self {
        let places = worker::places();
        let setting = Setting {
            is_json: options.is_json,
            arch: l4::arch::NAME,
            cpus: kip::num_processors(),
            tick: options.tick,
            knows_topology: places.are_known(),
        };
        Self { setting, rounds: options.rounds, pairs: options.pairs, places }
    }

    fn print(&self, figure: Figure) {
        print!("{}", Line(self.setting, figure));
    }
}
