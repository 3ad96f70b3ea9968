//! The fuzzer: a root task whose threads, on all processors and in several spaces, make random system calls.
//!
//! They call with live ids, stale ones and none, with values at the edges of their ranges, with fpages that overlap, in the
//! middle of each other's calls. Natives, in root's space, have the right to do anything, and spare root alone; strangers
//! have no rights, and try anything. Whoever cannot go on is deleted and begun anew. In the end all are deleted, and the
//! kernel must have as much memory as before. [`table`] lists who takes part.
//!
//! All choices follow from a seed, which is printed first; what comes of them depends on how fast the processors are, unless
//! the emulator counts instructions.
#![no_std]
#![no_main]

mod call;
#[forbid(unsafe_code)]
mod pager;
#[forbid(unsafe_code)]
mod player;
#[forbid(unsafe_code)]
mod table;
mod watch;

use dice::mix;
use dice::options::CommandLine;
use l4::kip;
use l4_rt::{exit, println};
use measure::room::Room;

/// `seed=N`, and `calls=N`: system calls in all.
const COMMAND_LINE: CommandLine = CommandLine { program: "fuzz", count: "calls", default_count: 100_000 };
/// Exit status for a bad command line.
const STATUS_USAGE: u8 = 2;
/// System calls before memory is measured.
const WARM_UP_CALLS: u64 = 2000;

l4_rt::entry!(main);

fn main() {
    let options = COMMAND_LINE.parse(l4_rt::args("fuzz")).unwrap_or_else(|unknown| {
        println!("{unknown}");
        exit(STATUS_USAGE)
    });
    player::set_seed(options.seed.unwrap_or_else(|| mix(l4::arch::timestamp()) >> 32));
    // Nothing about how many calls: until then it is the same for all.
    println!("fuzz: seed={} processors={}", player::seed(), kip::num_processors());
    l4_rt::touch_image();
    watch::begin_pager();
    // What this space needs of page tables for itself stays, and what the kernel keeps of interrupts: it is there before
    // memory is measured.
    watch::touch_interrupts();
    watch::play(WARM_UP_CALLS);
    watch::bound_sigma0();
    let before = Room::measure();
    let done = watch::play(options.count);
    let after = Room::measure();
    if before != after {
        watch::fail(format_args!("memory is lost: there was room for {before:?}, now for {after:?}"));
    }
    println!("fuzz: {} system calls, {} lives; nothing is lost", done.calls, done.lives);
}
