//! Who runs, on whose time (X.2, Scheduling; X.2, ThreadSwitch).
//!
//! The highest priority runs, equals in turns. A thread that becomes ready preempts one of lower priority, which keeps its
//! place at the head of its equals. Whoever calls and then waits gives its partner the processor and the rest of its slice,
//! whatever the priorities are; that lasts until somebody blocks or becomes ready above it.

use crate::ipc::Reason;
use crate::word::{Id, Timeout};
use crate::{Model, State, Thread};

/// The priority of a new thread.
pub const PRIORITY: u8 = 100;
/// Its time slice, microseconds.
pub const SLICE_US: u64 = 10_000;

/// The processor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Processor {
    /// Who runs.
    pub running: Option<u64>,
    /// Who pays for the time.
    pub payer: Option<u64>,
    /// Up to when it has paid.
    paid_until: u64,
    /// Who is ready and does not run; among equals the first comes first.
    pub ready: Vec<u64>,
    /// Somebody else may have to run.
    pub(crate) looks_again: bool,
    /// Who is given the processor.
    pub(crate) heir: Option<u64>,
    /// When it looked last whether something is due.
    looked_at: u64,
    /// How many timeouts have begun.
    timeouts: u64,
}

impl Model {
    fn priority(&self, number: u64) -> u8 {
        self.thread(number).priority
    }

    /// Whether a thread is ready and does not run.
    pub(crate) fn is_queued(&self, number: u64) -> bool {
        self.processor.ready.contains(&number)
    }

    pub(crate) fn unqueue(&mut self, number: u64) {
        self.processor.ready.retain(|ready| *ready != number);
        self.processor.heir = self.processor.heir.filter(|heir| *heir != number);
    }

    pub(crate) fn queue_first(&mut self, number: u64) {
        self.processor.ready.insert(0, number);
    }

    /// A thread goes on, unless it is halted.
    pub(crate) fn make_ready(&mut self, number: u64) {
        if self.thread(number).is_runnable() {
            self.enqueue(number);
        }
    }

    /// A thread that is ready waits for its turn.
    pub(crate) fn enqueue(&mut self, number: u64) {
        if self.processor.running == Some(number) {
            return;
        }
        self.processor.ready.push(number);
        let is_better = |running| self.priority(number) > self.priority(running);
        if self.processor.running.is_none_or(is_better) {
            self.processor.looks_again = true;
        }
    }

    /// A thread is given the processor, and the time of who pays.
    pub(crate) fn donate(&mut self, number: u64) {
        if !self.thread(number).is_runnable() {
            return;
        }
        self.unqueue(number);
        if let Some(other) = self.processor.heir.replace(number) {
            self.queue_first(other);
        }
    }

    /// Lets whoever comes next run, and look for its message if it has to do that first.
    pub(crate) fn dispatch(&mut self) {
        loop {
            self.choose();
            let Some(running) = self.processor.running else { return };
            match self.thread(running).state {
                State::Ready(true) => self.look_for_sender(running),
                _ => return,
            }
        }
    }

    fn choose(&mut self) {
        let mut running = self.processor.running.filter(|&running| self.thread(running).is_runnable());
        let looks_again = std::mem::take(&mut self.processor.looks_again);
        if let Some(heir) = self.processor.heir.take() {
            if let Some(running) = running {
                self.queue_first(running);
            }
            if self.processor.payer.is_none() {
                self.begin_slice(Some(heir));
            }
            running = Some(heir);
        }
        if running.is_some() && !looks_again {
            self.processor.running = running;
            return;
        }
        match self.best_above(running) {
            Some(next) => {
                self.unqueue(next);
                if let Some(running) = running {
                    self.pay();
                    match self.payer_without_time() {
                        Some(payer) => self.end_turn(payer, running),
                        None => self.queue_first(running),
                    }
                }
                self.begin_slice(Some(next));
                self.processor.running = Some(next);
            }
            None => {
                if running.is_some() != self.processor.payer.is_some() {
                    self.begin_slice(running);
                }
                self.processor.running = running;
            }
        }
    }

    /// The first of the best who are ready, if they are better than who runs.
    fn best_above(&self, running: Option<u64>) -> Option<u64> {
        let best = self.processor.ready.iter().map(|&ready| self.priority(ready)).max()?;
        let is_above = running.is_none_or(|running| best > self.priority(running));
        self.processor.ready.iter().copied().find(|&ready| is_above && self.priority(ready) == best)
    }

    /// Time up to now is paid.
    pub(crate) fn pay(&mut self) {
        let used = self.now - self.processor.paid_until;
        self.processor.paid_until = self.now;
        if let Some(payer) = self.processor.payer {
            let slice = &mut self.thread_mut(payer).slice;
            slice.1 = slice.1.map(|left| left.saturating_sub(used));
        }
    }

    pub(crate) fn refill(&mut self, number: u64) {
        let slice = &mut self.thread_mut(number).slice;
        slice.1 = slice.0;
    }

    fn begin_slice(&mut self, payer: Option<u64>) {
        self.pay();
        self.processor.payer = payer;
        if let Some(payer) = self.payer_without_time() {
            self.refill(payer);
        }
    }

    pub(crate) fn payer_without_time(&self) -> Option<u64> {
        self.processor.payer.filter(|&payer| self.thread(payer).slice.1 == Some(0))
    }

    /// Who runs goes behind its equals, and behind it who paid, if that is ready; that has a full slice again.
    fn end_turn(&mut self, payer: u64, running: u64) {
        self.refill(payer);
        self.processor.ready.push(running);
        if running != payer && self.is_queued(payer) {
            self.unqueue(payer);
            self.processor.ready.push(payer);
        }
    }

    fn leave_processor(&mut self) {
        self.processor.running = None;
        self.processor.looks_again = true;
    }

    /// ThreadSwitch of who runs.
    pub fn thread_switch(&mut self, caller: u64, dest: Id) {
        let dest = self.named(dest, self.thread(caller).space);
        if dest != Some(caller) {
            self.pay();
            let without_time = self.payer_without_time();
            match dest.filter(|&dest| without_time.is_none() && self.is_queued(dest)) {
                Some(dest) => self.donate(dest),
                None => {
                    self.refill(caller);
                    match self.payer_without_time() {
                        Some(payer) => self.end_turn(payer, caller),
                        None => self.processor.ready.push(caller),
                    }
                    self.leave_processor();
                }
            }
        }
        self.dispatch();
    }

    /// A thread gets a priority, and comes behind its new equals.
    pub(crate) fn set_priority(&mut self, number: u64, priority: u8) {
        let is_queued = self.is_queued(number);
        if is_queued {
            self.unqueue(number);
        }
        self.thread_mut(number).priority = priority;
        if is_queued {
            self.enqueue(number);
        }
        self.processor.looks_again = true;
    }

    // --- time ---

    /// The time passes, with everything that comes due on the way.
    pub fn clock(&mut self, until: u64) {
        while let Some(at) = self.next_event().filter(|&at| at <= until) {
            self.now = at.max(self.now);
            self.timer();
            self.dispatch();
        }
        self.now = until;
    }

    /// When something comes due next.
    pub fn next_event(&self) -> Option<u64> {
        let timeouts = self.threads.values().filter_map(|thread| thread.deadline);
        let slice = self.processor.payer.and_then(|payer| self.thread(payer).slice.1);
        timeouts.chain(slice.map(|left| self.processor.paid_until + left)).min()
    }

    /// A phase has this timeout. Those that are due at the same time end in the order in which they began.
    pub(crate) fn start_timeout(&mut self, number: u64, timeout: Timeout) {
        self.processor.timeouts += 1;
        let (looked_at, count) = (self.processor.looked_at, self.processor.timeouts);
        let thread = self.thread_mut(number);
        thread.deadline = None;
        if let Timeout::At(time) = timeout {
            thread.deadline = Some(time);
            thread.due = (time.max(looked_at), count);
        }
    }

    fn timer(&mut self) {
        self.processor.looked_at = self.now;
        let is_due = |thread: &&Thread| thread.deadline.is_some_and(|deadline| deadline <= self.now);
        let mut due: Vec<(u64, u64, Id)> =
            self.threads.values().filter(is_due).map(|thread| (thread.due.0, thread.due.1, thread.id)).collect();
        due.sort_unstable();
        for (.., id) in due {
            self.abort(crate::word::number(id), Reason::Timeout);
        }
        self.pay();
        let Some(payer) = self.payer_without_time() else { return };
        match self.processor.running.filter(|&running| self.thread(running).is_runnable()) {
            None => self.refill(payer),
            Some(running) => {
                self.end_turn(payer, running);
                self.leave_processor();
            }
        }
    }
}
