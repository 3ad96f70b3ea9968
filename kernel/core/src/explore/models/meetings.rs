//! Two processors and a call of each: all interleavings up to a bound of preemptions, and random ones beyond.
//!
//! What is checked in the end: the invariants of the core, that nobody was forgotten, and that what the threads see is one
//! of the things that the specification lets them see.

use core::sync::atomic::Ordering;
use std::time::Instant;

use l4_abi::{ExregsControl, ProcessorControl, ThreadId, Timeouts};

use super::crew::{Call, Crew, Plan};
use super::{finds, number_from_environment, tell};
use crate::explore::exhaustive::{self, Bounds};
use crate::explore::mistakes::Mistake;
use crate::explore::random::{self, Schedules};
use crate::sync::Look;
use crate::syscall::{Exregs, ScheduleArgs};
use crate::tests::machine::THREADS;
use crate::tests::schedule::nothing;
use crate::tests::world::{A, B, Q, R, Who, World, X, Y, activation, deletion, no_registers, tag};

/// Executions of each case in a usual run.
const EXECUTIONS: usize = 1500;
/// Random schedules of all cases in a usual run.
const SCHEDULES: u64 = 10_000;

/// A case: who is where, what they do at the same time, and what may come of it.
struct Case {
    name: &'static str,
    world: fn() -> World,
    /// Who does what. Each is where the world has it.
    calls: fn() -> Vec<(usize, Call)>,
    /// Words that it reaches, at most.
    words: usize,
    /// What [`World::outcome`] says of these may be any of those.
    outcomes: &'static [(&'static [Who], &'static [&'static str])],
}

/// The servers and these on two processors.
fn world(on_first: &[Who], on_second: &[Who]) -> World {
    let w = World::with_processors(THREADS, 2);
    on_first.iter().chain(on_second).for_each(|&who| w.start(who));
    on_second.iter().for_each(|&who| w.place(who, 1));
    w
}

fn send(from: Who, to: Who) -> Call {
    send_and_wait(from, to, ThreadId::NIL)
}

fn send_and_wait(from: Who, to: Who, then_from: ThreadId) -> Call {
    Box::new(move |w| {
        w.set_mrs(from, &[tag(0, 1), 7]);
        w.trap_ipc(from, to.id(), then_from, Timeouts::NEVER);
    })
}

fn exregs(who: Who, dest: Who, control: ExregsControl) -> Call {
    let args = Exregs { control, ..no_registers(dest.id()) };
    Box::new(move |w| _ = w.trap(who, |here, thread| here.exchange_registers(thread, args)))
}

fn delete(who: Who, victim: Who) -> Call {
    Box::new(move |w| _ = w.trap(who, |here, thread| here.thread_control(thread, deletion(victim))))
}

fn create(who: Who, newcomer: Who) -> Call {
    Box::new(move |w| _ = w.trap(who, |here, thread| here.thread_control(thread, activation(newcomer))))
}

fn move_to(who: Who, dest: Who, cpu: u16) -> Call {
    let args = ScheduleArgs { processor: ProcessorControl::new(cpu), ..nothing(dest.id()) };
    Box::new(move |w| _ = w.trap(who, |here, thread| here.schedule(thread, args)))
}

/// A on the first processor, X, which waits, and R, which may do everything, on the second.
fn with_receiver() -> World {
    let w = world(&[A], &[X, R]);
    w.wait(X, ThreadId::ANY);
    w
}

const LEAVES: Case = Case {
    name: "a thread leaves while it is asked for",
    world: with_receiver,
    calls: || vec![(0, send(A, X)), (1, exregs(R, A, ExregsControl::NONE))],
    words: 500,
    outcomes: &[(&[A, X], &["sent; got 7 from a"])],
};

const MOVED: Case = Case {
    name: "a sender meets a receiver that is moved",
    world: with_receiver,
    calls: || vec![(0, send(A, X)), (1, move_to(R, X, 0))],
    words: 600,
    outcomes: &[(&[A, X], &["sent; got 7 from a"])],
};

const CANCELLED: Case = Case {
    name: "a sender meets a receiver that is cancelled",
    world: with_receiver,
    calls: || vec![(0, send(A, X)), (1, exregs(R, X, ExregsControl::ABORT_IPC))],
    words: 600,
    outcomes: &[(&[A, X], &["sent; got 7 from a", "queued on x; Receive Canceled"])],
};

const DELETED: Case = Case {
    name: "a sender meets a receiver that is deleted",
    // Y keeps the space.
    world: || {
        let w = world(&[A], &[X, Y, R]);
        w.wait(X, ThreadId::ANY);
        w
    },
    calls: || vec![(0, send(A, X)), (1, delete(R, X))],
    words: 900,
    outcomes: &[(&[A, X], &["sent; gone", "Send NonExisting; gone"])],
};

const DELETERS: Case = Case {
    name: "two threads delete each other",
    world: || world(&[Q], &[R]),
    calls: || vec![(0, delete(Q, R)), (1, delete(R, Q))],
    words: 900,
    outcomes: &[(&[Q, R], &["ready; gone", "gone; ready"])],
};

const CROSSING: Case = Case {
    name: "two threads send to each other",
    world: || world(&[A], &[X]),
    calls: || vec![(0, send(A, X)), (1, send(X, A))],
    words: 500,
    outcomes: &[(&[A, X], &["queued on x; queued on a"])],
};

const MEETING: Case = Case {
    name: "a sender meets a receiver that begins to wait",
    world: || world(&[A], &[X]),
    calls: || {
        let wait = |w: World| w.trap_ipc(X, ThreadId::NIL, ThreadId::ANY, Timeouts::NEVER);
        vec![(0, send(A, X)), (1, Box::new(wait))]
    },
    words: 500,
    outcomes: &[(&[A, X], &["sent; got 7 from a"])],
};

const TWICE: Case = Case {
    name: "two threads delete a third one",
    // B keeps the space.
    world: || world(&[Q, A, B], &[R]),
    calls: || vec![(0, delete(Q, A)), (1, delete(R, A))],
    words: 900,
    outcomes: &[(&[A, Q, R], &["gone; ready; ready"])],
};

const RETURNS: Case = Case {
    name: "a thread comes back while a sender is queued on it",
    world: || {
        let w = world(&[A, B], &[X]);
        w.wait(X, ThreadId::ANY);
        w
    },
    calls: || vec![(0, send_and_wait(A, X, ThreadId::ANY)), (0, send(B, A))],
    words: 600,
    outcomes: &[(&[A, B, X], &["got 7 from b; sent; got 7 from a", "got 7 from 'b; sent; got 7 from a"])],
};

const MOVED_AWAY: Case = Case {
    name: "a thread is moved while it is handed back",
    world: with_receiver,
    calls: || vec![(0, send_and_wait(A, X, X.id())), (1, move_to(R, A, 1))],
    words: 700,
    outcomes: &[(&[A, X], &["waits for x; got 7 from a"])],
};

const RECREATED: Case = Case {
    name: "a thread is created where one is deleted",
    // A keeps the space.
    world: || world(&[Q, A, B], &[R]),
    calls: || vec![(0, delete(Q, B)), (1, create(R, B))],
    words: 900,
    outcomes: &[(&[Q, R], &["ready; ready"])],
};

const CASES: [Case; 11] =
    [LEAVES, MOVED, CANCELLED, DELETED, DELETERS, TWICE, CROSSING, MEETING, RETURNS, MOVED_AWAY, RECREATED];

impl Case {
    fn crew(&self) -> &'static Crew {
        Crew::new((self.world)(), Plan::Calls((self.calls)()))
    }

    fn check(crew: &'static Crew, outcomes: &[(&[Who], &[&str])]) {
        crew.run();
        for (who, allowed) in outcomes {
            let seen: Vec<String> = who.iter().map(|&who| crew.world.outcome(who)).collect();
            assert!(allowed.contains(&seen.join("; ").as_str()), "they see {seen:?}");
        }
    }

    /// All interleavings with so many preemptions at most, or as many of them as `KCORE_EXECUTIONS` says.
    fn explore_all(&self, preemptions: usize) {
        let (crew, outcomes) = (self.crew(), self.outcomes);
        let executions = Some(number_from_environment("KCORE_EXECUTIONS").map_or(EXECUTIONS, |count| count as usize));
        let bounds = Bounds { preemptions: Some(preemptions), words: self.words, executions };
        let explored = exhaustive::explore(bounds, move || Self::check(crew, outcomes));
        println!("{}: {explored} with {preemptions} preemptions at most", self.name);
    }

    fn explore_some(&self, schedules: Schedules) {
        println!("{}: {schedules}", self.name);
        let (crew, outcomes) = (self.crew(), self.outcomes);
        random::explore(schedules, move || Self::check(crew, outcomes), || crew.tell());
    }
}

/// `KCORE_PREEMPTIONS` asks for more preemptions, `KCORE_CASE` for one case by its number.
#[test]
fn meetings_of_two_processors() {
    let preemptions = number_from_environment("KCORE_PREEMPTIONS").unwrap_or(1);
    for case in wanted() {
        case.explore_all(preemptions as usize);
    }
}

#[test]
fn random_meetings_of_two_processors() {
    let started = Instant::now();
    let schedules = Schedules::of_environment(SCHEDULES, CASES.len() as u64);
    for &schedules in &schedules {
        wanted().for_each(|case| case.explore_some(schedules));
        tell(&format!("of each meeting {schedules}, {} s so far", started.elapsed().as_secs()));
    }
}

fn wanted() -> impl Iterator<Item = Case> {
    let own = number_from_environment("KCORE_CASE");
    let is_wanted = move |number: usize| own.is_none_or(|own| own == number as u64);
    CASES.into_iter().enumerate().filter(move |(number, _)| is_wanted(*number)).map(|(_, case)| case)
}

#[test]
fn questions_without_release_or_acquire_are_caught() {
    for order in [Ordering::Release, Ordering::Acquire] {
        assert!(finds(Mistake::Weak("cross/ask.rs", order), || TWICE.explore_all(1)), "{order:?}");
    }
}

#[test]
fn answer_that_does_not_look_at_the_id_is_caught() {
    assert!(finds(Mistake::NoSecondLook(Look::Id), || TWICE.explore_all(1)));
}

/// Who hands a thread back without looking whether somebody is queued on it leaves them waiting.
#[test]
fn handing_back_without_a_fence_is_caught() {
    assert!(finds(Mistake::Weak("cross/words.rs", Ordering::SeqCst), || RETURNS.explore_all(2)));
}

/// Who comes back without a word is missed by whoever is queued on it meanwhile.
#[test]
fn silent_arrival_without_a_fence_is_caught() {
    assert!(finds(Mistake::Weak("cross/travel.rs", Ordering::SeqCst), || RETURNS.explore_all(2)));
}
