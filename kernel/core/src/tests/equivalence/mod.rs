//! The fast path has the effects of the general path on every state that it takes.
//!
//! Two worlds live through the same random events ([`drive`]). Calls of Ipc are carried out by the machine code of the
//! kernel's image ([`code`], [`processor`]), in one world from where SYSCALL enters, in the other from behind the fast
//! path, with the core between the entry and the way out ([`side`]). After each event everything that a program or a
//! later system call could see must be the same ([`compare`]), and a call must have been taken by the fast path exactly if
//! nothing bars it ([`conditions`]).

mod branches;
mod code;
mod compare;
mod conditions;
mod drive;
mod processor;
mod side;

use code::Code;
use conditions::{Bar, Counts, KINDS};
use drive::Twins;

/// Calls of Ipc in each test, unless `KCORE_CALLS` says otherwise.
const CALLS: u64 = 500_000;
/// The seed of the run that is the same each time.
const SEED: u64 = 1;
/// Numbers of processors of the worlds of a test.
const PROCESSORS: [usize; 4] = [1, 2, 1, 3];

/// Of a thousand calls, how many are of each kind that the fast path takes at least, and of each that one thing bars.
const SHARES: (u64, u64) = (1, 1);

/// A number from the environment.
fn own(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

fn run(seed: u64) {
    println!("note: seed {seed}");
    let calls = own("KCORE_CALLS").unwrap_or(CALLS);
    let code: &'static Code = Box::leak(Box::new(Code::of_image()));
    let mut counts = Counts::default();
    for (index, processors) in PROCESSORS.into_iter().enumerate() {
        let mut twins = Twins::new(code, seed.wrapping_mul(PROCESSORS.len() as u64) + index as u64, processors);
        twins.run(calls / PROCESSORS.len() as u64);
        counts.add(&twins.counts);
    }
    counts.lines().iter().for_each(|line| println!("note: {line}"));
    let (taken, barred) = SHARES;
    let is_enough = |count: u64, share: u64| count * 1000 >= counts.calls * share;
    for index in 0..KINDS {
        assert!(is_enough(counts.taken[index], taken), "few of: {}", conditions::Kind::at(index));
    }
    for bar in Bar::ALL {
        assert!(is_enough(counts.barred_by_one[bar as usize], barred), "few that {bar:?} alone bars");
    }
}

/// Half a million calls that are the same each time.
#[test]
fn fast_path_is_the_general_path_from_a_fixed_seed() {
    run(SEED);
}

/// Half a million calls of a seed that `cargo xtask test` draws; without it one from the clock.
#[test]
fn fast_path_is_the_general_path_from_a_fresh_seed() {
    let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(2, |time| time.as_secs());
    run(own("KCORE_FRESH_SEED").unwrap_or_else(clock));
}
