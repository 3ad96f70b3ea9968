//! The benchmark of IPC: two threads, ping and pong, call each other.
//!
//! | thread | number | space | does |
//! |---|---|---|---|
//! | root | root task | root | makes the others, prints |
//! | pager | + 1 | root | maps the image to ping and pong, sends their start messages |
//! | ping | + 2 | new | measures, sends each row to root |
//! | pong | + 3 | new, or ping's | calls back |
//!
//! Ping and pong run the image of the root task: the pager maps each page where it is. So they share the settings, the
//! library's addresses of the system calls (the kernel interface page is where root has it), and their own stacks.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod menu;
mod players;
mod stage;

use l4_rt::{exit, println};
use measure::pager;
use pingpong::options::Options;

/// Exit status for a bad command line, or for what this machine cannot do.
const STATUS_USAGE: u8 = 2;

l4_rt::entry!(main);

fn main() {
    let options = Options::parse(l4_rt::args("pingpong")).unwrap_or_else(|error| {
        println!("{error}");
        exit(STATUS_USAGE)
    });
    pager::start();
    if options.is_menu {
        menu::run(options);
    } else {
        run_all(&options);
    }
}

fn run_all(options: &Options) {
    for mode in options.modes() {
        if stage::is_possible(mode) {
            stage::run(options, mode);
        } else if options.is_explicit {
            println!("pingpong: {} needs two processors; there is one", mode.name());
            exit(STATUS_USAGE);
        }
    }
}
