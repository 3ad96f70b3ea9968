//! Processors as coroutines, of which one runs at a time.
//!
//! A kernel entry that waits for another processor cannot come back to the test before it has its answer. So it runs on a
//! stack of its own, and hands back to the test where it waits ([`pause`]), and, if the test wants so, at any other
//! place where the core asks the machine for something ([`may_pause`]). The test says who goes on: what happens is a
//! function of what it says.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use generator::{Generator, Gn};

use super::random::Random;

/// What a processor is to do.
type Entry = Box<dyn FnOnce() + Send>;

enum Command {
    Begin(Entry),
    GoOn,
    /// The test is over.
    End,
}

/// Where a processor has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Its kernel entry is over.
    Done,
    /// It waits for another processor.
    Waits,
    /// It is anywhere in the middle.
    Paused,
}

/// How a processor pauses of its own accord.
#[derive(Clone, Copy, Default)]
struct Pauses {
    /// What the places follow from.
    random: u64,
    /// Once in so many times; 0: never.
    often: u64,
}

/// Words of a stack: room for the report of a failed invariant, too.
const STACK_WORDS: usize = 64 << 10;

thread_local! {
    /// Of the processor that runs on this thread of the host; `None`: the test itself.
    static RUNNING: Cell<Option<Pauses>> = const { Cell::new(None) };
}

/// Hands back to the test if this is a processor of a stage; returns when it shall go on. Else `false`.
pub fn pause() -> bool {
    let is_on_stage = RUNNING.get().is_some();
    if is_on_stage {
        hand_back(Place::Waits);
    }
    is_on_stage
}

fn hand_back(place: Place) {
    match told(place) {
        Some(Command::GoOn) => {}
        Some(Command::Begin(_)) => panic!("it is in the middle of an entry"),
        Some(Command::End) | None => resume_unwind(Box::new("the test is over")),
    }
}

/// Hands back to the test and returns what that says next.
#[allow(deprecated, reason = "who pauses is deep in the core, to which a scope cannot be passed")]
fn told(place: Place) -> Option<Command> {
    generator::yield_(place)
}

/// What the test said first.
#[allow(deprecated, reason = "as `told`")]
fn told_first() -> Option<Command> {
    generator::get_yield()
}

/// As [`pause`], now and then.
#[inline]
pub fn may_pause() {
    #[cfg(feature = "explore")]
    crate::explore::point();
    let Some(mut pauses) = RUNNING.get().filter(|pauses| pauses.often > 0) else { return };
    let mut random = Random(pauses.random);
    let is_now = random.once_in(pauses.often);
    pauses.random = random.0;
    RUNNING.set(Some(pauses));
    if is_now {
        hand_back(Place::Paused);
    }
}

/// A processor.
struct Actor {
    coroutine: Generator<'static, Command, Place>,
    place: Place,
    pauses: Pauses,
}

/// Says who runs for as long as it is there.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.set(None);
    }
}

impl Actor {
    fn new() -> Self {
        let coroutine = Gn::new_opt(STACK_WORDS, || {
            let mut command = told_first();
            while let Some(Command::Begin(entry)) = command {
                entry();
                command = told(Place::Done);
            }
            Place::Done
        });
        Self { coroutine, place: Place::Done, pauses: Pauses::default() }
    }

    fn command(&mut self, command: Command) -> Place {
        let turn = Turn;
        RUNNING.set(Some(self.pauses));
        self.place = self.coroutine.send(command);
        self.pauses = RUNNING.get().expect("it was set");
        drop(turn);
        self.place
    }
}

/// Processors that the test moves.
pub struct Stage(Vec<Actor>);

impl Stage {
    /// So many processors.
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| Actor::new()).collect())
    }

    /// Lets processor `cpu` do `entry`, up to where it waits or, once in `often` places, pauses.
    pub fn begin(&mut self, cpu: usize, seed: u64, often: u64, entry: impl FnOnce() + Send + 'static) -> Place {
        assert_eq!(self.0[cpu].place, Place::Done, "one entry at a time");
        self.0[cpu].pauses = Pauses { random: seed, often };
        self.0[cpu].command(Command::Begin(Box::new(entry)))
    }

    /// Lets processor `cpu` go on.
    pub fn go_on(&mut self, cpu: usize) -> Place {
        assert_ne!(self.0[cpu].place, Place::Done, "it is in an entry");
        self.0[cpu].command(Command::GoOn)
    }

    /// Where processor `cpu` has come to.
    pub fn place(&self, cpu: usize) -> Place {
        self.0[cpu].place
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Who fails leaves all stacks as they are.
        if std::thread::panicking() {
            return;
        }
        for actor in &mut self.0 {
            let ended = catch_unwind(AssertUnwindSafe(|| actor.command(Command::End)));
            assert_eq!(ended.is_ok(), actor.place == Place::Done, "a processor ends where it is");
        }
    }
}
