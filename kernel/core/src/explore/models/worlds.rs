//! Whole worlds on two to four processors, in which anything happens.

use std::time::Instant;

use l4_abi::ThreadId;

use super::crew::{Crew, Plan};
use super::tell;
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

/// Schedules of worlds of all sizes in a usual run.
const SCHEDULES: u64 = 6000;

/// Runs schedules in a world with so many processors.
fn check(processors: usize) {
    for schedules in Schedules::of_environment(SCHEDULES, 3) {
        let crew = Crew::new(world(processors), Plan::Anything);
        let model = move || {
            crew.run();
            let w = crew.world;
            let census = w.k.spaces.check_invariants(Rest::Revoking).expect("all is well");
            assert_eq!(census.frames, w.frames_used(), "no frame is lost");
        };
        let started = Instant::now();
        explore(schedules, model, || crew.tell());
        tell(&format!("{processors} processors, {schedules}, {} s", started.elapsed().as_secs()));
    }
}

#[test]
fn anything_happens_on_two_processors() {
    check(2);
}

#[test]
fn anything_happens_on_three_processors() {
    check(3);
}

#[test]
fn anything_happens_on_four_processors() {
    check(4);
}
