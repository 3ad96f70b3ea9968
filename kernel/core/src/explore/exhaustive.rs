//! All interleavings of a small case.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::atomic::{AtomicU64, Ordering};

use super::{Change, Mode, Running};

/// How far an exploration goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Preemptions in one execution, at most: switches to another processor where this one need not wait. `None`: any.
    pub preemptions: Option<usize>,
    /// Words that one execution can reach.
    pub words: usize,
    /// Executions, at most, or about so many. `None`: all that there are.
    pub executions: Option<usize>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { preemptions: None, words: 64, executions: None }
    }
}

/// What was explored.
#[derive(Clone, Copy, Debug)]
pub struct Explored {
    pub executions: usize,
    /// There are no others within the bounds.
    pub is_all: bool,
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{} executions", if self.is_all { "all " } else { "the first " }, self.executions)
    }
}

/// Executions after which the tool looks whether there were enough.
const INTERVAL: usize = 50;
/// Places in one execution where something is chosen.
const BRANCHES: usize = 100_000;

/// The words of one execution. The tool makes them all before the processors start, as it takes the making of a word for
/// an access to it.
struct Words {
    pool: Rc<[AtomicU64]>,
    by_address: HashMap<usize, Place>,
}

/// Where in the pool a word is.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    /// Its value at the beginning.
    base: u64,
    /// It was changed in one step. The tool does not know that stores come before or after such changes, and would let a
    /// processor that spins change the word for ever without finding a store: so from now on stores are such changes.
    is_swapped: bool,
}

thread_local! {
    static WORDS: RefCell<Option<Words>> = const { RefCell::new(None) };
}

/// Runs `model` in all interleavings within `bounds`. It begins processors by
/// [`super::processor`] and ends them by [`super::join`].
///
/// # Panics
/// Where the model does in some interleaving.
pub fn explore(bounds: Bounds, model: impl Fn() + Send + Sync + 'static) -> Explored {
    let _running = Running::begin(Mode::Exhaustive);
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bounds.preemptions;
    builder.max_branches = BRANCHES;
    builder.max_permutations = bounds.executions;
    builder.checkpoint_interval = INTERVAL;
    builder.max_duration = None;
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        Running::next_execution(Mode::Exhaustive);
        let pool = (0..bounds.words).map(|_| AtomicU64::new(0)).collect();
        WORDS.set(Some(Words { pool, by_address: HashMap::new() }));
        model();
    });
    let executions = executions.load(Relaxed);
    Explored { executions, is_all: bounds.executions.is_none_or(|most| executions + 1 < most) }
}

/// The pool and where in it the word at `address` is, which is about to be changed in one step or not.
fn find(address: usize, base: u64, is_swapped: bool) -> (Rc<[AtomicU64]>, Place) {
    WORDS.with_borrow_mut(|words| {
        let words = words.as_mut().expect("an execution runs");
        let index = words.by_address.len();
        let place = words.by_address.entry(address).or_insert(Place { index, base, is_swapped });
        assert!(place.index < words.pool.len(), "the case reaches more than {index} words");
        place.is_swapped |= is_swapped;
        (words.pool.clone(), *place)
    })
}

/// A word of the pool holds by what a value differs from the one at the beginning.
pub fn load(address: usize, base: u64, order: Ordering) -> u64 {
    let (pool, place) = find(address, base, false);
    pool[place.index].load(order) ^ base
}

pub fn store(address: usize, base: u64, value: u64, order: Ordering) {
    let (pool, place) = find(address, base, false);
    let word = &pool[place.index];
    if place.is_swapped {
        word.swap(value ^ base, order);
    } else {
        word.store(value ^ base, order);
    }
}

pub fn change(address: usize, base: u64, change: Change, (success, failure): (Ordering, Ordering)) -> Result<u64, u64> {
    let (pool, place) = find(address, base, true);
    let word = &pool[place.index];
    let changed = match change {
        Change::Set(value) => Ok(word.swap(value ^ base, success)),
        Change::Replace(old, new) => word.compare_exchange(old ^ base, new ^ base, success, failure),
        Change::Or(value) if base == 0 => Ok(word.fetch_or(value, success)),
        Change::And(value) if base == 0 => Ok(word.fetch_and(value, success)),
        Change::Add(value) if base == 0 => Ok(word.fetch_add(value, success)),
        Change::Subtract(value) if base == 0 => Ok(word.fetch_sub(value, success)),
        change => word.fetch_update(success, failure, |word| change.apply(word ^ base).map(|new| new ^ base)),
    };
    changed.map(|old| old ^ base).map_err(|now| now ^ base)
}

/// What the words hold now that all processors have come to their ends.
pub fn leave() {
    let words = WORDS.take().expect("an execution runs");
    super::alone::begin(|left| {
        left.clear();
        // In the same order in each execution, as the tool wants.
        let mut places: Vec<(usize, Place)> = words.by_address.into_iter().collect();
        places.sort_by_key(|(_, place)| place.index);
        for (address, Place { index, base, .. }) in places {
            *left.value(address, base) = words.pool[index].load(Ordering::Relaxed) ^ base;
        }
    });
}

/// Waits for another processor to do something.
pub fn wait() {
    super::take_interrupts();
    loom::thread::yield_now();
}
