//! Interleavings of processors, explored on the real code.
//!
//! Model threads act as processors. Each access to a word of [`crate::sync`] is a place where another one may go on, and
//! what an access finds is what the schedule says. There are two ways to choose schedules:
//!
//! - [`exhaustive`]: all of them, up to a bound of preemptions, with all values that the memory model lets a load find
//!   (loom). For small cases: two or three processors, a few calls.
//! - [`random`]: as many as one likes, from seeds, with the store buffers of x86 (shuttle). For whole worlds.
//!
//! Both run on one thread of the host. An execution begins with the world as it was before the exploration, whatever
//! earlier ones did to it. [`mistakes`] plants faults, to see that explorations find them. docs/locks.md tells what is
//! explored, how exhaustively, and what is not.
#![allow(missing_docs, reason = "what tests need of it is told where it is not plain")]

pub mod alone;
pub mod exhaustive;
pub mod mistakes;
mod models;
mod overlay;
pub mod random;
pub mod words;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A change of a word in one step.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Set(u64),
    /// If it is the first, it becomes the second.
    Replace(u64, u64),
    Or(u64),
    And(u64),
    Add(u64),
    Subtract(u64),
}

impl Change {
    /// The new value; `None` if it is not to be changed.
    fn apply(self, old: u64) -> Option<u64> {
        match self {
            Self::Set(value) => Some(value),
            Self::Replace(expected, value) => (old == expected).then_some(value),
            Self::Or(value) => Some(old | value),
            Self::And(value) => Some(old & value),
            Self::Add(value) => Some(old.wrapping_add(value)),
            Self::Subtract(value) => Some(old.wrapping_sub(value)),
        }
    }
}

/// What runs on this thread of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// No exploration.
    Plain,
    Exhaustive,
    Random,
    /// An execution whose processors have all come to their ends: who looks at what they left is alone.
    Alone,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Plain) };
    static EXECUTION: Cell<u64> = const { Cell::new(0) };
    static EXECUTIONS: Cell<u64> = const { Cell::new(0) };
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

/// What a processor does about interrupts that cannot be masked.
type Handler = Rc<dyn Fn()>;

/// What runs on this thread of the host.
#[inline]
pub fn mode() -> Mode {
    MODE.get()
}

/// Whether others go on while the caller waits.
pub fn has_others() -> bool {
    matches!(mode(), Mode::Exhaustive | Mode::Random)
}

/// The number of the execution that runs on this thread of the host; 0: none.
pub fn execution() -> u64 {
    EXECUTION.get()
}

/// A processor of an execution.
pub enum Processor {
    Exhaustive(loom::thread::JoinHandle<()>),
    Random(shuttle::thread::JoinHandle<()>),
}

/// Another processor begins with `what`.
pub fn processor(what: impl FnOnce() + Send + 'static) -> Processor {
    match mode() {
        Mode::Exhaustive => Processor::Exhaustive(loom::thread::spawn(what)),
        Mode::Random => Processor::Random(shuttle::thread::spawn(move || {
            what();
            random::end_processor();
        })),
        mode => panic!("processors begin in executions, not in {mode:?}"),
    }
}

/// Waits for `processors` to end. From now on the caller is alone.
pub fn join(processors: impl IntoIterator<Item = Processor>) {
    for processor in processors {
        match processor {
            Processor::Exhaustive(thread) => thread.join().expect("the processor does not fail"),
            Processor::Random(thread) => thread.join().expect("the processor does not fail"),
        }
    }
    match mode() {
        Mode::Exhaustive => exhaustive::leave(),
        Mode::Random => random::leave(),
        mode => panic!("processors end in executions, not in {mode:?}"),
    }
    MODE.set(Mode::Alone);
}

/// Another processor may go on here, though no word of the core is touched.
#[inline]
pub fn point() {
    if mode() == Mode::Random {
        random::point();
    }
}

/// An exploration on this thread of the host, until this is dropped.
struct Running;

impl Running {
    fn begin(mode: Mode) -> Self {
        assert_eq!(MODE.replace(mode), Mode::Plain, "one exploration at a time");
        Self
    }

    /// Another execution begins.
    fn next_execution(mode: Mode) {
        MODE.set(mode);
        EXECUTIONS.set(EXECUTIONS.get() + 1);
        EXECUTION.set(EXECUTIONS.get());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        MODE.set(Mode::Plain);
        EXECUTION.set(0);
        HANDLER.set(None);
    }
}

/// Whoever waits calls this: the non-maskable interrupts of a processor that spins. The handler asks who it is.
pub fn on_wait(handler: impl Fn() + 'static) {
    HANDLER.set(Some(Rc::new(handler)));
}

fn take_interrupts() {
    if let Some(handler) = HANDLER.with_borrow(Clone::clone) {
        handler();
    }
}
