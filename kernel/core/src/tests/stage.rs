//! Processors as threads of the host, of which one runs at a time.
//!
//! A kernel entry that waits for another processor cannot come back to the test before it has its answer. So it runs on a
//! thread of the host, which hands back to the test where it waits ([`pause`]), and, if the test wants so, at any other
//! place where the core asks the machine for something ([`may_pause`]). The test says who goes on: what happens is a
//! function of what it says.

use std::cell::{Cell, RefCell};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::random::Random;

/// What a processor is to do.
type Entry = Box<dyn FnOnce() + Send>;

enum Command {
    Begin { entry: Entry, seed: u64, often: u64 },
    GoOn,
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

/// The side of a processor.
struct Own {
    commands: Receiver<Command>,
    places: Sender<Place>,
}

impl Own {
    fn hand_back(&self, place: Place) {
        self.places.send(place).expect("the test goes on");
        match self.commands.recv() {
            Ok(Command::GoOn) => {}
            Ok(Command::Begin { .. }) => panic!("it is in the middle of an entry"),
            // The test is over, as something else failed.
            Err(_) => std::panic::resume_unwind(Box::new("the test is over")),
        }
    }
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
    /// How often it pauses of its own accord: once in so many times; 0: never.
    static OFTEN: Cell<u64> = const { Cell::new(0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// Hands back to the test if this is a processor of a stage; returns when it shall go on. Else `false`.
pub fn pause() -> bool {
    hand_back(Place::Waits)
}

fn hand_back(place: Place) -> bool {
    OWN.with_borrow(|own| own.as_ref().map(|own| own.hand_back(place)).is_some())
}

/// As [`pause`], now and then.
#[inline]
pub fn may_pause() {
    #[cfg(feature = "explore")]
    crate::explore::point();
    let often = OFTEN.get();
    if often > 0 {
        let mut random = Random(RANDOM.get());
        let is_now = random.once_in(often);
        RANDOM.set(random.0);
        if is_now {
            hand_back(Place::Paused);
        }
    }
}

/// A processor.
struct Actor {
    commands: Option<Sender<Command>>,
    places: Receiver<Place>,
    place: Place,
    thread: Option<JoinHandle<()>>,
}

impl Actor {
    fn new() -> Self {
        let ((commands, own_commands), (own_places, places)) = (channel(), channel());
        let thread = thread::spawn(move || {
            OWN.set(Some(Own { commands: own_commands, places: own_places }));
            loop {
                let command = OWN.with_borrow(|own| own.as_ref().and_then(|own| own.commands.recv().ok()));
                let Some(Command::Begin { entry, seed, often }) = command else { return };
                RANDOM.set(seed);
                OFTEN.set(often);
                entry();
                OFTEN.set(0);
                let report = |own: &Option<Own>| own.as_ref().is_some_and(|own| own.places.send(Place::Done).is_ok());
                if !OWN.with_borrow(report) {
                    return;
                }
            }
        });
        Self { commands: Some(commands), places, place: Place::Done, thread: Some(thread) }
    }

    fn command(&mut self, command: Command) -> Place {
        let commands = self.commands.as_ref().expect("the stage is open");
        commands.send(command).expect("the processor runs");
        self.place = self.places.recv().expect("the processor does not fail");
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
        self.0[cpu].command(Command::Begin { entry: Box::new(entry), seed, often })
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
        for actor in &mut self.0 {
            actor.commands = None;
            let ended = actor.thread.take().map(JoinHandle::join);
            assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "a processor failed");
        }
    }
}
