//! Random interleavings, each from a seed.
//!
//! Loads and stores of a processor take place in their order, but a store becomes visible to others later, when the
//! processor's store buffer lets it go, as on x86. Half of the schedules have such buffers. What the compiler may do
//! beyond that is left to [`super::exhaustive`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use core::sync::atomic::Ordering;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use super::overlay::Overlay;
use super::{Change, Mode, Running};
use crate::tests::random::Random;

/// Steps of the scheduler after which a schedule hangs. Who grants all of a space takes a few hundred thousand.
const STEPS_MAX: usize = 3_000_000;
const STACK_BYTES: usize = 256 << 10;

struct State {
    overlay: Overlay,
    /// For each processor the stores that others do not see yet, oldest first.
    buffers: Vec<VecDeque<(usize, u64)>>,
    /// Stores that a buffer holds, at most; 0: there are none.
    capacity: usize,
    random: Random,
    /// A processor is preempted once in so many accesses.
    often: u64,
    /// Accesses until then.
    left: u64,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State {
        overlay: Overlay::new(),
        buffers: Vec::new(),
        capacity: 0,
        random: Random(0),
        often: 1,
        left: 0,
    });
    static SEED: Cell<u64> = const { Cell::new(0) };
}

impl State {
    fn begin(&mut self, seed: u64) {
        self.overlay.clear();
        self.buffers.iter_mut().for_each(VecDeque::clear);
        self.random = Random(seed ^ 0x5AFE);
        self.capacity = self.random.one_of(&[0, 0, 2, 8]);
        self.often = self.random.one_of(&[2, 5, 15, 50, 200]);
        self.left = self.random.below(2 * self.often);
    }

    fn buffer(&mut self, processor: usize) -> &mut VecDeque<(usize, u64)> {
        if self.buffers.len() <= processor {
            self.buffers.resize_with(processor + 1, VecDeque::new);
        }
        &mut self.buffers[processor]
    }

    /// Lets stores of `processor` go until so many are left.
    fn drain(&mut self, processor: usize, left: usize) {
        while self.buffer(processor).len() > left {
            let (address, value) = self.buffer(processor).pop_front().expect("it is not empty");
            *self.overlay.value(address, 0) = value;
        }
    }
}

fn processor() -> usize {
    shuttle::current::me().into()
}

fn with_state<T>(what: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(what)
}

/// Another processor may go on here.
pub fn point() {
    let is_due = with_state(|state| {
        if state.left > 0 {
            state.left -= 1;
            return false;
        }
        state.left = state.random.below(2 * state.often);
        if state.capacity > 0 {
            let left = state.random.below(state.capacity as u64 + 1) as usize;
            state.drain(processor(), left);
        }
        true
    });
    if is_due {
        shuttle::thread::sleep(Duration::ZERO);
    }
}

pub fn load(address: usize, base: u64) -> u64 {
    point();
    with_state(|state| {
        if state.capacity > 0 {
            let own = state.buffer(processor()).iter().rev().find(|store| store.0 == address);
            if let Some(&(_, value)) = own {
                return value;
            }
        }
        *state.overlay.value(address, base)
    })
}

pub fn store(address: usize, base: u64, value: u64, order: Ordering) {
    point();
    with_state(|state| {
        let word = state.overlay.value(address, base);
        if state.capacity == 0 || order == Ordering::SeqCst {
            *word = value;
        } else {
            let (capacity, processor) = (state.capacity, processor());
            state.buffer(processor).push_back((address, value));
            state.drain(processor, capacity);
        }
    });
}

pub fn change(address: usize, base: u64, change: Change) -> Result<u64, u64> {
    point();
    with_state(|state| {
        state.drain(processor(), 0);
        let word = state.overlay.value(address, base);
        let old = *word;
        let new = change.apply(old).ok_or(old)?;
        *word = new;
        Ok(old)
    })
}

/// A fence. Only the strongest lets stores go; the others are nothing on x86.
pub fn fence(order: Ordering) {
    point();
    if order == Ordering::SeqCst {
        with_state(|state| state.drain(processor(), 0));
    }
}

/// Waits for another processor to do something.
pub fn wait() {
    with_state(|state| state.drain(processor(), 0));
    super::take_interrupts();
    shuttle::thread::yield_now();
}

/// The stores of a processor that ends are seen some time.
pub fn end_processor() {
    with_state(|state| state.drain(processor(), 0));
}

/// What the words hold now that all processors have come to their ends.
pub fn leave() {
    with_state(|state| {
        state.drain(processor(), 0);
        super::alone::begin(|left| std::mem::swap(left, &mut state.overlay));
    });
}

/// The seed of the schedule that runs, for what else is drawn.
pub fn seed() -> u64 {
    SEED.get()
}

/// Which schedules are run: `count` of them, from `seed`; or one alone, by its own seed.
#[derive(Clone, Copy, Debug)]
pub enum Schedules {
    Many { seed: u64, count: u64 },
    One(u64),
}

impl Schedules {
    /// An equal `share` of schedules for each of some explorations, `usual` ones of them unless `KCORE_SCHEDULES` in the
    /// environment says how many for all. Then they are from the seed in `KCORE_SEED`, and usually half of them from that and
    /// half from 1. `KCORE_SCHEDULE` names one alone.
    pub fn of_environment(usual: u64, share: u64) -> Vec<Self> {
        let number = super::models::number_from_environment;
        if let Some(one) = number("KCORE_SCHEDULE") {
            return vec![Self::One(one)];
        }
        let seed = number("KCORE_SEED").unwrap_or_else(fresh_seed);
        let many = |seed, count: u64| Self::Many { seed, count: count.div_ceil(share) };
        match number("KCORE_SCHEDULES") {
            Some(count) => vec![many(seed, count)],
            None => [1, seed].map(|seed| many(seed, usual.div_ceil(2))).to_vec(),
        }
    }

    fn seed_of(self, index: u64) -> Option<u64> {
        match self {
            Self::Many { seed, count } => {
                (index < count).then(|| Random(seed.wrapping_add(index.wrapping_mul(0xD1B5_4A32_D192_ED03))).next())
            }
            Self::One(seed) => (index == 0).then_some(seed),
        }
    }
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(2, |time| time.as_nanos() as u64)
}

impl fmt::Display for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Many { seed, count } => write!(f, "{count} schedules from seed {seed}"),
            Self::One(seed) => write!(f, "schedule {seed}"),
        }
    }
}

/// Runs `model` under `schedules`; how many there were. The model is the first processor, and begins others by
/// [`super::processor`].
///
/// # Panics
/// Where the model does in some schedule, or if one does not come to an end. The seed of the schedule is printed, behind
/// what `tell` says of the state it left.
pub fn explore(schedules: Schedules, model: impl Fn() + Send + Sync + 'static, tell: impl FnOnce()) -> usize {
    let _running = Running::begin(Mode::Random);
    let mut config = shuttle::Config::new();
    config.stack_size = STACK_BYTES;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.max_steps = shuttle::MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    let runner = shuttle::Runner::new(Chance::new(schedules), config);
    let explored = catch_unwind(AssertUnwindSafe(|| runner.run(model)));
    explored.unwrap_or_else(|failure| {
        if super::mode() == Mode::Random {
            with_state(|state| super::alone::begin(|left| std::mem::swap(left, &mut state.overlay)));
            super::MODE.set(Mode::Alone);
        }
        tell();
        println!("{schedules} failed; this schedule alone: KCORE_SCHEDULE={}", seed());
        resume_unwind(failure)
    })
}

/// Chooses who goes on, by chance.
struct Chance {
    schedules: Schedules,
    next: u64,
    random: Random,
    /// Of each processor; the highest goes on. Empty: all have the same chance.
    priorities: Vec<u64>,
    has_priorities: bool,
    /// Steps after which the one that goes on becomes the last, latest first.
    turns: Vec<u64>,
    step: u64,
    lowest: u64,
}

impl Chance {
    fn new(schedules: Schedules) -> Self {
        Self {
            schedules,
            next: 0,
            random: Random(0),
            priorities: Vec::new(),
            has_priorities: false,
            turns: Vec::new(),
            step: 0,
            lowest: 0,
        }
    }

    fn priority(&mut self, task: TaskId) -> u64 {
        let index = usize::from(task);
        while self.priorities.len() <= index {
            let priority = self.random.next() | 1 << 63;
            self.priorities.push(priority);
        }
        self.priorities[index]
    }

    fn put_last(&mut self, task: TaskId) {
        self.priority(task);
        self.lowest -= 1;
        self.priorities[usize::from(task)] = self.lowest;
    }
}

impl Scheduler for Chance {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.schedules.seed_of(self.next)?;
        self.next += 1;
        SEED.set(seed);
        Running::next_execution(Mode::Random);
        with_state(|state| state.begin(seed));
        self.random = Random(seed);
        self.has_priorities = self.random.once_in(2);
        self.priorities.clear();
        (self.step, self.lowest) = (0, 1 << 62);
        let horizon = self.random.one_of(&[20, 100, 400, 2000]);
        let turns = self.random.below(4);
        self.turns = (0..turns).map(|_| self.random.below(horizon)).collect();
        self.turns.sort_by(|a, b| b.cmp(a));
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        self.step += 1;
        let others: Vec<TaskId> = runnable.iter().map(|task| task.id()).collect();
        let current = current.filter(|task| others.contains(task));
        if !self.has_priorities {
            let may_stay = |task: &TaskId| !is_yielding || others.len() == 1 || Some(*task) != current;
            let choice: Vec<TaskId> = others.iter().copied().filter(may_stay).collect();
            return Some(self.random.one_of(&choice));
        }
        let is_turn = self.turns.last().is_some_and(|&turn| turn <= self.step);
        if is_turn {
            self.turns.pop();
        }
        if let Some(task) = current.filter(|_| is_turn || is_yielding) {
            self.put_last(task);
        }
        others.into_iter().max_by_key(|&task| self.priority(task))
    }

    fn next_u64(&mut self) -> u64 {
        self.random.next()
    }
}
