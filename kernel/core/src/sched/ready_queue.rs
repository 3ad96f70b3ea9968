//! The ready threads of one processor: 256 FIFO queues, highest non-empty one first (X.2, Scheduling).

use crate::list::{self, Head, Kind, Link, List};
use crate::machine::TcbRef;
use crate::thread::Tcb;
use crate::var::Var;

/// Number of priorities; 255 is the highest.
pub const PRIORITIES: usize = 256;

const WORD_BITS: usize = usize::BITS as usize;

/// Threads that are ready to run and not running, by priority. The running thread is in no queue.
#[repr(C)]
pub struct ReadyQueue {
    heads: [Head; PRIORITIES],
    /// Bit p is set while queue p has members.
    occupied: [Var<usize>; PRIORITIES / WORD_BITS],
}

crate::load::load_fields!(ReadyQueue: heads, occupied);

/// Threads that are ready, of one priority.
pub(crate) struct Ready;

impl Kind for Ready {
    #[inline]
    fn link(tcb: &Tcb) -> &Link {
        &tcb.ready_link
    }
}

#[allow(clippy::new_without_default, reason = "for statics")]
impl ReadyQueue {
    /// Where the beginnings of the queues stand, four bytes each by priority, for the fast path of the image.
    pub const HEADS_OFFSET: usize = core::mem::offset_of!(Self, heads);
    /// Where the words with the bits of occupied queues stand.
    pub const OCCUPIED_OFFSET: usize = core::mem::offset_of!(Self, occupied);

    /// No thread is ready.
    pub const fn new() -> Self {
        Self { heads: [const { Head::zero() }; PRIORITIES], occupied: [const { Var::zero() }; PRIORITIES / WORD_BITS] }
    }

    fn list<'a>(&'a self, tcbs: &'a [Tcb], priority: u8) -> List<'a, Ready> {
        List::new(tcbs, &self.heads[usize::from(priority)])
    }

    fn mark(&self, priority: u8, occupied: bool) {
        let (word, bit) = (usize::from(priority) / WORD_BITS, usize::from(priority) % WORD_BITS);
        let old = self.occupied[word].get();
        self.occupied[word].set(if occupied { old | 1 << bit } else { old & !(1 << bit) });
    }

    /// The first of those of `priority`.
    pub(crate) fn first_of(&self, priority: u8) -> Option<TcbRef> {
        self.heads[usize::from(priority)].get()
    }

    /// Whether queues with members are marked, and no others.
    pub(crate) fn is_marked_well(&self) -> bool {
        self.words().all(|(_, present, marked)| present == marked)
    }

    /// The priorities that have members or a mark that they have, highest first.
    pub(crate) fn priorities(&self) -> impl Iterator<Item = u8> {
        from_words(self.words().map(|(first, present, marked)| (first, present | marked)))
    }

    /// The priorities that are marked, highest first.
    pub(crate) fn marked(&self) -> impl Iterator<Item = u8> {
        from_words(self.occupied.iter().enumerate().map(|(index, marks)| (index * WORD_BITS, marks.get() as u64)))
    }

    /// For each word of marks: the first priority in it, the bits of those that have members, and the marks.
    fn words(&self) -> impl DoubleEndedIterator<Item = (usize, u64, u64)> {
        let words = self.heads.chunks_exact(WORD_BITS).zip(&self.occupied).enumerate();
        words.map(|(index, (heads, marks))| (index * WORD_BITS, list::occupied(heads), marks.get() as u64))
    }

    /// Adds `thread` behind the others of its priority.
    pub fn push_back(&self, tcbs: &[Tcb], thread: TcbRef) {
        let priority = tcbs[thread.index()].priority.get();
        self.list(tcbs, priority).push_back(thread);
        self.mark(priority, true);
    }

    /// Adds `thread` before the others of its priority.
    pub fn push_front(&self, tcbs: &[Tcb], thread: TcbRef) {
        let priority = tcbs[thread.index()].priority.get();
        self.list(tcbs, priority).push_front(thread);
        self.mark(priority, true);
    }

    /// Takes `thread`, which is queued, off its queue.
    pub fn remove(&self, tcbs: &[Tcb], thread: TcbRef) {
        let priority = tcbs[thread.index()].priority.get();
        let list = self.list(tcbs, priority);
        list.remove(thread);
        if list.first().is_none() {
            self.mark(priority, false);
        }
    }

    /// Whether nobody is ready.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.occupied.iter().fold(0, |all, word| all | word.get()) == 0
    }

    /// The highest priority that has a ready thread.
    pub fn highest(&self) -> Option<u8> {
        let word = self.occupied.iter().rposition(|word| word.get() != 0)?;
        let bit = WORD_BITS - 1 - self.occupied[word].get().leading_zeros() as usize;
        Some((word * WORD_BITS + bit) as u8)
    }

    /// The first thread of the highest priority; it stays queued.
    pub fn first(&self) -> Option<TcbRef> {
        self.heads[usize::from(self.highest()?)].get()
    }

    /// The beginning of a queue, as the fast path of the image finds it.
    #[cfg(test)]
    pub fn head(&self, priority: usize) -> &Head {
        &self.heads[priority]
    }

    /// The bits of 64 queues, likewise.
    #[cfg(test)]
    pub fn occupied(&self, word: usize) -> &Var<usize> {
        &self.occupied[word]
    }

    /// Everybody who is queued.
    #[cfg(test)]
    pub fn members(&self, tcbs: &[Tcb]) -> std::vec::Vec<TcbRef> {
        let lists = self.priorities().map(|priority| self.list(tcbs, priority));
        lists.flat_map(|list| core::iter::successors(list.first(), move |&thread| list.after(thread))).collect()
    }

    /// Whether the same threads are queued in the same order in `other`, whose threads are `other_tcbs`.
    #[cfg(test)]
    pub fn is_same(&self, tcbs: &[Tcb], other: &Self, other_tcbs: &[Tcb]) -> bool {
        let is_occupied =
            |priority: usize| self.occupied[priority / WORD_BITS].get() >> (priority % WORD_BITS) & 1 != 0;
        let members = |queue: &Self, tcbs, priority| {
            let list = queue.list(tcbs, priority as u8);
            core::iter::successors(list.first(), |&thread| list.after(thread)).collect::<std::vec::Vec<_>>()
        };
        let words = self.occupied.iter().zip(&other.occupied);
        words.into_iter().all(|(own, other)| own.get() == other.get())
            && (0..PRIORITIES)
                .filter(|&priority| is_occupied(priority))
                .all(|priority| members(self, tcbs, priority) == members(other, other_tcbs, priority))
    }

    /// Checks that occupancy bits and queues agree and that members are queued under their own priority.
    ///
    /// # Panics
    /// Where they do not.
    pub fn check_invariants(&self, tcbs: &[Tcb]) {
        assert!(self.is_marked_well(), "queues with members are marked, and no others");
        for priority in self.marked() {
            let list = self.list(tcbs, priority);
            for thread in core::iter::successors(list.first(), |&thread| list.after(thread)) {
                assert_eq!(tcbs[thread.index()].priority.get(), priority, "priority of a queued thread");
            }
        }
    }
}

/// The priorities of which a bit is set, highest first, from words with the first priority of each.
fn from_words(words: impl DoubleEndedIterator<Item = (usize, u64)>) -> impl Iterator<Item = u8> {
    words.rev().flat_map(|(first, word)| {
        let mut rest = word;
        core::iter::from_fn(move || {
            let highest = rest.checked_ilog2()?;
            rest &= !(1 << highest);
            Some((first + highest as usize) as u8)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads with these priorities, and no queue yet.
    fn threads(priorities: &[u8]) -> std::vec::Vec<Tcb> {
        let tcb = |&priority| Tcb { priority: Var::new(priority), ..Tcb::default() };
        priorities.iter().map(tcb).collect()
    }

    /// Takes out all threads in the order in which they would run.
    fn order(queue: &ReadyQueue, tcbs: &[Tcb]) -> std::vec::Vec<usize> {
        let next = || {
            queue.check_invariants(tcbs);
            queue.first().inspect(|&thread| queue.remove(tcbs, thread))
        };
        core::iter::from_fn(next).map(TcbRef::index).collect()
    }

    /// X.2, Scheduling: highest priority first, first come first served in each.
    #[test]
    fn threads_come_by_priority_and_in_their_order() {
        let tcbs = threads(&[7, 255, 7, 0, 64, 63, 255, 7]);
        let queue = ReadyQueue::new();
        assert_eq!((queue.highest(), queue.first()), (None, None));
        (0..8).for_each(|i| queue.push_back(&tcbs, TcbRef::new(i)));
        assert_eq!(queue.highest(), Some(255));
        assert_eq!(order(&queue, &tcbs), [1, 6, 4, 5, 0, 2, 7, 3]);
        assert_eq!(queue.highest(), None);
    }

    /// A thread put in front comes before its equals, and before nobody else.
    #[test]
    fn thread_in_front_comes_before_its_equals() {
        let tcbs = threads(&[7, 7, 7, 8, 6]);
        let queue = ReadyQueue::new();
        [0, 1, 3, 4].into_iter().for_each(|i| queue.push_back(&tcbs, TcbRef::new(i)));
        queue.push_front(&tcbs, TcbRef::new(2));
        assert_eq!(order(&queue, &tcbs), [3, 2, 0, 1, 4]);
    }

    /// Every priority has its queue, whatever word its bit is in.
    #[test]
    fn all_priorities_are_different() {
        let priorities: std::vec::Vec<u8> = (0..=255).collect();
        let tcbs = threads(&priorities);
        let queue = ReadyQueue::new();
        (0..256).for_each(|i| queue.push_back(&tcbs, TcbRef::new(i * 37 % 256)));
        (0..256).step_by(2).for_each(|i| queue.remove(&tcbs, TcbRef::new(i)));
        let odd: std::vec::Vec<usize> = (0..256).rev().filter(|i| i % 2 == 1).collect();
        assert_eq!(order(&queue, &tcbs), odd);
    }
}
