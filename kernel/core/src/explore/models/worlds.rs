//! Whole worlds on two to four processors, in which anything happens.

use l4_abi::ThreadId;

use super::crew::{Crew, Plan};
use super::number_from_environment;
use crate::explore::random::{Schedules, explore};
use crate::space::Rest;
use crate::tests::world::{A, B, C, D, Q, R, World, X, Y, Z};

/// Everybody on so many processors, some in the middle of something.
fn world(processors: usize) -> World {
    let w = World::of_processors(processors);
    w.start(Q);
    for (index, who) in [R, Q, A, B, C, D, X, Y, Z].into_iter().enumerate() {
        w.place(who, (index + index / processors) % processors);
    }
    w.wait(X, ThreadId::ANY);
    w.wait(B, A.id());
    w.send(C, Y.id(), &[0]);
    w
}

/// Runs `schedules` in a world with so many processors.
fn check(processors: usize, schedules: Schedules) {
    let crew = Crew::new(world(processors), Plan::Anything);
    println!("{processors} processors, {schedules:?}");
    let model = move || {
        crew.run();
        let w = crew.world;
        let census = w.k.spaces.check_invariants(Rest::Revoking).expect("all is well");
        assert_eq!(census.frames, w.frames_used(), "no frame is lost");
    };
    explore(schedules, model, || crew.tell());
}

/// A fixed seed and a fresh one, which is printed. `KCORE_SEED` and `KCORE_SCHEDULES` ask for others; a failure says how to
/// run one schedule alone.
#[test]
fn anything_happens_on_several_processors() {
    let count = number_from_environment("KCORE_SCHEDULES").unwrap_or(1000);
    let fresh = number_from_environment("KCORE_SEED").unwrap_or_else(fresh_seed);
    for seed in [1, fresh] {
        let own = number_from_environment("KCORE_PROCESSORS");
        for processors in (2..=4).filter(|&count| own.is_none_or(|own| own == count as u64)) {
            check(processors, Schedules::or_named(seed, count));
        }
    }
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(2, |time| time.as_nanos() as u64)
}
