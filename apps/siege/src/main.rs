//! The siege: on each processor a space without rights takes all of the kernel's memory that it can get, beside a victim that
//! calls a server.
//!
//! | thread | number | space | does |
//! |---|---|---|---|
//! | root | root task | root | makes the others, watches, measures |
//! | pager | + 1 | root | serves the others |
//! | server | + 2 | one for both | answers |
//! | victim | + 3 | | calls the server, and takes the time |
//! | besiegers | from + 4 | one for both of a processor | one maps a page to the other, to one place after the other |
//!
//! In each round memory runs out, which root sees by an error of its own; the victim calls meanwhile, and its calls take as
//! long as before while nothing is left. Then the besiegers are deleted, and the kernel has as much memory as in the
//! beginning. In the last round each of their spaces has a quota, and memory does not run out.
//!
//! Which places, follows from a seed.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod besieger;
mod victim;

use dice::options::CommandLine;
use l4::thread::{self, stop, thread_control};
use l4::time::{sleep, system_clock_us};
use l4::{SysError, ThreadId, Time, Word, kip, space};
use l4_rt::{exit, println};
use measure::pager;
use measure::room::Room;
use measure::stage::{STATUS_FAILURE, must, root};

use besieger::Besiegers;
use victim::Victim;

/// `seed=N`, and `rounds=N`: how often memory runs out.
const COMMAND_LINE: CommandLine = CommandLine { program: "siege", count: "rounds", default_count: 10 };
/// Exit status for a bad command line.
const STATUS_USAGE: u8 = 2;
/// What the seed is if nobody says it.
const SEED: u64 = 1;
/// Between two looks.
const LOOK: Time = Time::period_us(1000);
/// How long it may take until memory has run out.
const PATIENCE_US: u64 = 60_000_000;
/// Looks in a row that find no memory before it counts as gone.
const EMPTY_LOOKS: u32 = 3;
/// One in so many ticks of a call may be something else: where an emulator counts instructions, the clock counts those of all
/// processors, and of their timers.
const NOISE: u64 = 20;
/// Looks in the round with quotas.
const QUOTA_LOOKS: u32 = 100;
/// KiB of kernel memory that a besieging space gets by its quota.
const QUOTA_KIB: Word = 128;

l4_rt::entry!(main);

/// Says what is wrong, and ends the program.
fn fail(what: impl core::fmt::Display) -> ! {
    println!("siege: WRONG: {what}");
    exit(STATUS_FAILURE)
}

fn main() {
    let options = COMMAND_LINE.parse(l4_rt::args("siege")).unwrap_or_else(|unknown| {
        println!("{unknown}");
        exit(STATUS_USAGE)
    });
    let seed = options.seed.unwrap_or(SEED);
    println!("siege: seed={seed} processors={}", kip::num_processors());
    l4_rt::touch_image();
    pager::start();
    let victim = Victim::begin();
    let alone = victim.measure();
    let start = Room::measure();
    for round in 0..options.count {
        let besiegers = Besiegers::begin(seed, round, None);
        wait_until_empty(&victim);
        for id in besiegers.ids() {
            must("stopping a besieger", stop(id));
        }
        if has_memory() {
            fail(format_args!("round {round}: memory comes back while nobody gives it back"));
        }
        let besieged = victim.measure();
        if besieged.abs_diff(alone) > alone / NOISE {
            fail(format_args!("round {round}: a call takes {besieged} ticks and not {alone}"));
        }
        end(&besiegers, start, round);
    }
    hold_with_quotas(seed, &victim);
    let rounds = options.count;
    println!("siege: memory ran out {rounds} times, and not with quotas; a call takes {alone} ticks; nothing is lost");
}

/// The id of a thread that root tries to make, in pages of the kernel's tables where there is no other.
fn trial() -> ThreadId {
    const FAR: Word = 4096;
    ThreadId::global(root().thread_no() + FAR, 1)
}

/// Whether the kernel has memory for a thread. For lack of it there is an error, and no other.
fn has_memory() -> bool {
    match thread_control(trial(), root(), root(), ThreadId::NIL, None) {
        Ok(()) => {
            must("deleting the thread", thread::delete(trial()));
            true
        }
        Err(SysError::OutOfMemory) => false,
        Err(error) => fail(format_args!("making a thread ends with {error:?}")),
    }
}

/// Waits until there is no memory, while the victim goes on.
fn wait_until_empty(victim: &Victim) {
    let end = system_clock_us() + PATIENCE_US;
    let mut looks = 0;
    while looks < EMPTY_LOOKS {
        if system_clock_us() > end {
            fail("kernel memory does not run out");
        }
        sleep(LOOK);
        victim.call();
        looks = if has_memory() { 0 } else { looks + 1 };
    }
}

/// Ends the besiegers: then there is as much memory as at the start.
fn end(besiegers: &Besiegers, start: Room, round: u64) {
    besiegers.ids().for_each(|id| must("deleting a besieger", thread::delete(id)));
    let now = Room::measure();
    if now != start {
        fail(format_args!("round {round}: memory is lost: there was room for {start:?}, now for {now:?}"));
    }
}

/// With quotas there is memory for others at each moment.
fn hold_with_quotas(seed: u64, victim: &Victim) {
    let start = Room::measure();
    let besiegers = Besiegers::begin(seed, u64::MAX, Some(QUOTA_KIB));
    for _ in 0..QUOTA_LOOKS {
        sleep(LOOK);
        victim.call();
        if !has_memory() {
            fail("memory runs out with quotas");
        }
    }
    for id in besiegers.ids().step_by(2) {
        let used = must("asking for the memory of a space", space::memory_used(id));
        if used.is_none_or(|kib| !(QUOTA_KIB / 2..=QUOTA_KIB).contains(&kib)) {
            fail(format_args!("a space with a quota of {QUOTA_KIB} KiB takes {used:?}"));
        }
    }
    end(&besiegers, start, u64::MAX);
}
