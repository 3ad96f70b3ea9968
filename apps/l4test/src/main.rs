//! The conformance and boot tests: a root task that runs one test after another and says how each ended.
//!
//! | part | what it is |
//! |---|---|
//! | [`chapters`] | the tests, a module for each chapter of the specification |
//! | [`supervisor`] | the first thread: starts each test in a thread of its own, pages, watches, cleans up |
//! | [`world`] | what tests are made of: threads, spaces, pages, agents that touch memory on request |
//! | [`arch`] | instructions that no compiler makes |
//!
//! Priorities: the supervisor 255, a test 100. A thread that a test makes has 110 and so runs at once until it blocks,
//! or 90 and runs when the test blocks: the order of events is the test's choice, and no test waits for a time to pass
//! unless time is what it tests. If threads are spread over the processors ([`world::placement`]), one of the first kind
//! has blocked when it is made, and one of the second kind runs when it likes.
#![no_std]
#![no_main]
#![allow(clippy::result_large_err, reason = "a failure carries its text, as there is no heap")]

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
mod arch;

#[forbid(unsafe_code)]
mod chapters;
#[forbid(unsafe_code)]
mod failure;
#[forbid(unsafe_code)]
mod keys;
#[forbid(unsafe_code)]
mod registry;
#[forbid(unsafe_code)]
mod screen;
#[forbid(unsafe_code)]
mod supervisor;
mod world;

use l4::kip;
use l4_rt::{exit, print, println};
use l4test::clauses::{self, Entry};
use l4test::options::{HELP, Options};
use l4test::placement::Placement;
use l4test::report::{Head, Line, Printed, Totals, Verdict};

use failure::Failure;
use registry::Test;

/// Exit status if a test failed.
const STATUS_FAILED: u8 = 1;
/// Exit status for a bad command line.
const STATUS_USAGE: u8 = 2;

l4_rt::entry!(main);

fn main() {
    let options = Options::parse(l4_rt::args("l4test")).unwrap_or_else(|unknown| {
        println!("{unknown}");
        exit(STATUS_USAGE)
    });
    if options.is_help {
        println!("{HELP}");
    } else if options.is_list {
        list(options);
    } else if options.reads_keys {
        keys::read();
    } else if options.tells_kernel {
        println!("kernel: {}", l4::kip::kernel_version_string());
    } else if options.shows_screen {
        screen::show();
    } else if run_all(options).failed > 0 {
        exit(STATUS_FAILED);
    }
}

fn asked_for(options: Options<'_>) -> impl Iterator<Item = &'static Test> {
    registry::all().filter(move |test| options.includes(test.name))
}

/// Names the tests, grouped as the specification is.
fn list(options: Options<'_>) {
    let tests = |clause| asked_for(options).filter(move |test| test.clause == clause);
    for entry in clauses::entries() {
        match entry {
            Entry::Part(title) => println!("{title}"),
            Entry::Clause(clause) if tests(clause).next().is_none() => {}
            Entry::Clause(clause) => {
                println!("    {clause}");
                tests(clause).for_each(|test| println!("        {}", test.name));
            }
        }
    }
}

fn run_all(options: Options<'_>) -> Totals {
    // sigma0 gives the image to this thread alone: nobody else could ask for a page that was not touched.
    l4_rt::touch_image();
    world::large::LARGE.request();
    world::large::OF_1_GIB.request();
    world::ports::request();
    world::timer::request();
    let placement = options.spread.map(|seed| Placement { seed, processors: kip::num_processors() as u16 });
    let head = Head { tests: asked_for(options).count(), placement };
    print!("{}", Printed(head, options.format));
    let mut totals = Totals::default();
    for (i, test) in asked_for(options).enumerate() {
        let (outcome, ms) = supervisor::run(test, placement);
        let verdict = outcome.as_ref().err().map_or(Verdict::Ok, Failure::verdict);
        let line = Line { number: i + 1, name: test.name, clause: test.clause, verdict, ms };
        println!("{}", Printed(line, options.format));
        totals.count(verdict);
    }
    println!("{}", Printed(totals, options.format));
    totals
}
