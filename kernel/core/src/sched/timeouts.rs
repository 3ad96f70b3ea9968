//! Pending timeouts of one processor: a hierarchical wheel.
//!
//! Level l has 64 slots of 64^l microseconds. A timeout stands on the lowest level whose reach from now covers its
//! deadline, so insertion and removal take constant time however many threads sleep, and each timeout moves down at
//! most [`LEVELS`] times before it fires. A timeout never fires before its deadline.

use crate::list::{Head, Kind, Link, List, occupied, set_bits};
use crate::machine::TcbRef;
use crate::thread::Tcb;
use crate::var::{Var, Var64};

/// Slots of a level, log2.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 10;
/// How many members of a slot are looked at for the earliest of them. The timer fires once for a lonely sleeper, instead of
/// at each of its moves down.
const LOOK_AT: usize = 8;
/// The latest deadline, about 36,000 years after boot: what the levels reach together.
const LAST: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;

/// The timeout wheel of one processor.
pub struct Timeouts {
    /// Everything due before this time has fired, microseconds.
    now: Var64,
    heads: [[Head; SLOTS]; LEVELS],
    /// Bit s of word l is set while slot s of level l has members.
    occupied: [Var64; LEVELS],
    count: Var<usize>,
}

crate::load::load_fields!(Timeouts: now, heads, occupied, count);

/// Threads whose timeouts share a slot.
struct TimedOut;

impl Kind for TimedOut {
    #[inline]
    fn link(tcb: &Tcb) -> &Link {
        &tcb.timeout_link
    }
}

#[allow(clippy::new_without_default, reason = "for statics")]
impl Timeouts {
    /// No timeout is pending.
    pub const fn new() -> Self {
        Self {
            now: Var64::zero(),
            heads: [const { [const { Head::zero() }; SLOTS] }; LEVELS],
            occupied: [const { Var64::zero() }; LEVELS],
            count: Var::zero(),
        }
    }

    fn list<'a>(&'a self, tcbs: &'a [Tcb], level: usize, slot: usize) -> List<'a, TimedOut> {
        List::new(tcbs, &self.heads[level][slot])
    }

    /// Level and slot for a deadline, seen from `self.now`.
    fn place(&self, deadline: u64) -> (usize, usize) {
        let now = self.now.get();
        let deadline = deadline.clamp(now, LAST);
        let differing = u64::BITS - (deadline ^ now).leading_zeros();
        let level = (differing.saturating_sub(1) / SLOT_BITS) as usize;
        (level, (deadline >> (SLOT_BITS * level as u32)) as usize % SLOTS)
    }

    fn insert(&self, tcbs: &[Tcb], thread: TcbRef) {
        let tcb = &tcbs[thread.index()];
        let (level, slot) = self.place(tcb.deadline.get());
        tcb.timeout_slot.set((level * SLOTS + slot) as u16);
        self.list(tcbs, level, slot).push_back(thread);
        self.occupied[level].set(self.occupied[level].get() | 1 << slot);
    }

    /// Starts the timeout of `thread`, which has none, for `deadline` (microseconds on the clock).
    pub fn start(&self, tcbs: &[Tcb], thread: TcbRef, deadline: u64) {
        tcbs[thread.index()].deadline.set(deadline);
        self.insert(tcbs, thread);
        self.count.set(self.count.get() + 1);
    }

    /// Takes the timeout of `thread` back, if it has one.
    pub fn cancel(&self, tcbs: &[Tcb], thread: TcbRef) {
        if tcbs[thread.index()].timeout_link.is_linked() {
            self.take(tcbs, thread);
            self.count.set(self.count.get() - 1);
        }
    }

    fn take(&self, tcbs: &[Tcb], thread: TcbRef) {
        let place = usize::from(tcbs[thread.index()].timeout_slot.get());
        let (level, slot) = (place / SLOTS, place % SLOTS);
        let list = self.list(tcbs, level, slot);
        list.remove(thread);
        if list.first().is_none() {
            self.occupied[level].set(self.occupied[level].get() & !(1 << slot));
        }
    }

    /// The earliest occupied slot: its level, its number and the time at which it begins.
    #[inline]
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        if self.count.get() == 0 {
            return None;
        }
        self.find_next_slot()
    }

    fn find_next_slot(&self) -> Option<(usize, usize, u64)> {
        let now = self.now.get();
        // Lower levels lie wholly before the next slot of a higher one, so the first hit is the earliest.
        (0..LEVELS).find_map(|level| {
            let shift = SLOT_BITS * level as u32;
            let here = (now >> shift) as usize % SLOTS;
            let ahead = self.occupied[level].get() >> here;
            (ahead != 0).then(|| {
                let slot = here + ahead.trailing_zeros() as usize;
                let turn = now >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
                (level, slot, (turn + ((slot as u64) << shift)).max(now))
            })
        })
    }

    /// When to look again, microseconds on the clock: never later than the earliest deadline, and exactly then unless many
    /// threads share its slot.
    #[inline(always)]
    pub fn next_event(&self, tcbs: &[Tcb]) -> Option<u64> {
        if self.count.get() == 0 { None } else { self.find_next_event(tcbs) }
    }

    #[inline(never)]
    fn find_next_event(&self, tcbs: &[Tcb]) -> Option<u64> {
        let (level, slot, begin) = self.find_next_slot()?;
        let (list, mut member) = (self.list(tcbs, level, slot), self.heads[level][slot].get());
        let mut earliest = u64::MAX;
        for _ in 0..LOOK_AT {
            let Some(thread) = member else { return Some(earliest.max(begin)) };
            earliest = earliest.min(tcbs[thread.index()].deadline.get());
            member = list.after(thread);
        }
        Some(begin)
    }

    /// Takes off and returns the thread with the earliest deadline, if that is `now` or earlier. Call until `None`: each
    /// call does a bounded amount of work per member it moves.
    pub fn expire(&self, tcbs: &[Tcb], now: u64) -> Option<TcbRef> {
        loop {
            let Some((level, slot, begin)) = self.next_slot().filter(|&(_, _, begin)| begin <= now) else {
                self.now.set(self.now.get().max(now));
                return None;
            };
            self.now.set(begin);
            let first = self.heads[level][slot].get().expect("an occupied slot has a member");
            if level == 0 {
                // All in a slot of one microsecond are due.
                self.cancel(tcbs, first);
                return Some(first);
            }
            self.spread(tcbs, level, slot);
        }
    }

    /// Moves all members of a slot that has begun to lower levels: one left behind would not be seen before they are.
    fn spread(&self, tcbs: &[Tcb], level: usize, slot: usize) {
        while let Some(thread) = self.heads[level][slot].get() {
            self.take(tcbs, thread);
            self.insert(tcbs, thread);
        }
    }

    /// The number of pending timeouts.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Everybody whose timeout is pending.
    #[cfg(test)]
    pub fn members(&self, tcbs: &[Tcb]) -> std::vec::Vec<TcbRef> {
        let levels = self.heads.iter().enumerate();
        let slots = levels.flat_map(|(level, heads)| set_bits(occupied(heads)).map(move |slot| (level, slot)));
        let lists = slots.map(|(level, slot)| self.list(tcbs, level, slot));
        lists.flat_map(|list| core::iter::successors(list.first(), move |&thread| list.after(thread))).collect()
    }

    /// Checks that each member stands where its deadline belongs.
    ///
    /// # Panics
    /// Where one does not.
    pub fn check_invariants(&self, tcbs: &[Tcb]) {
        let mut members = 0;
        for (level, heads) in self.heads.iter().enumerate() {
            let present = occupied(heads);
            assert_eq!(self.occupied[level].get(), present, "occupancy bits of level {level}");
            for slot in set_bits(present) {
                let list = self.list(tcbs, level, slot);
                for thread in core::iter::successors(list.first(), |&thread| list.after(thread)) {
                    let place = usize::from(tcbs[thread.index()].timeout_slot.get());
                    assert_eq!(place, level * SLOTS + slot, "slot of a pending timeout");
                    members += 1;
                }
            }
        }
        assert_eq!(members, self.count(), "number of pending timeouts");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts timeouts, looks at the times `looks`, and expects to find these deadlines in this order at each.
    fn check(deadlines: &[u64], looks: &[(u64, &[u64])]) {
        let tcbs: std::vec::Vec<Tcb> = deadlines.iter().map(|_| Tcb::default()).collect();
        let timeouts = Timeouts::new();
        for (i, &deadline) in deadlines.iter().enumerate() {
            timeouts.start(&tcbs, TcbRef::new(i as u32), deadline);
        }
        for &(now, expected) in looks {
            let expired = core::iter::from_fn(|| timeouts.expire(&tcbs, now)).map(|thread| deadlines[thread.index()]);
            assert_eq!(expired.collect::<std::vec::Vec<_>>(), expected, "at {now}");
            timeouts.check_invariants(&tcbs);
        }
    }

    /// X.2, Timeouts: who looks late finds all that is due in the order of the deadlines.
    #[test]
    fn late_timeouts_expire_in_order() {
        let deadlines = [60_032, 20_000, 100_096, 40_000, 120_064, 80_000];
        check(&deadlines, &[(19_999, &[]), (110_000, &[20_000, 40_000, 60_032, 80_000, 100_096])]);
    }

    /// The members of one coarse slot move down together: the first of them may not be the earliest.
    #[test]
    fn earlier_timeout_is_not_hidden_by_a_later_one() {
        check(&[8_100, 7_000, 5_000], &[(4_096, &[]), (5_000, &[5_000]), (7_000, &[7_000]), (8_100, &[8_100])]);
        check(&[100_096, 120_064, 80_000], &[(70_000, &[]), (80_000, &[80_000]), (110_000, &[100_096])]);
    }

    /// A deadline that has passed is due at once, one beyond the reach of the wheel at the very end.
    #[test]
    fn deadlines_may_lie_in_the_past_or_very_far() {
        check(&[5, 0, 70], &[(100, &[0, 5, 70])]);
        check(&[u64::MAX, 10], &[(10, &[10]), (1 << 59, &[])]);
        let (tcbs, timeouts) = ([Tcb::default()], Timeouts::new());
        assert_eq!(timeouts.expire(&tcbs, 1_000_000), None);
        timeouts.start(&tcbs, TcbRef::new(0), 3);
        assert_eq!(timeouts.next_event(&tcbs), Some(1_000_000));
        assert_eq!(timeouts.expire(&tcbs, 1_000_000), Some(TcbRef::new(0)));
        assert_eq!((timeouts.next_event(&tcbs), timeouts.count()), (None, 0));
    }

    /// Random starts, cancellations and looks do what a sorted list does, and the timer is never set too late.
    #[test]
    fn wheel_does_what_a_sorted_list_does() {
        let tcbs: std::vec::Vec<Tcb> = (0..50).map(|_| Tcb::default()).collect();
        let timeouts = Timeouts::new();
        let mut model = std::collections::BTreeMap::new();
        let (mut state, mut now) = (1u64, 0);
        let mut random = |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        for _ in 0..20_000 {
            let thread = TcbRef::new(random(50) as u32);
            let exponent = random(30) + 1;
            let span = random(1 << exponent);
            match (random(4), model.contains_key(&thread)) {
                (0, _) => now += span,
                (1, _) => {
                    timeouts.cancel(&tcbs, thread);
                    model.remove(&thread);
                }
                (_, true) => {}
                (_, false) => {
                    timeouts.start(&tcbs, thread, now + span);
                    model.insert(thread, now + span);
                }
            }
            let mut last = 0;
            while let Some(thread) = timeouts.expire(&tcbs, now) {
                let deadline = model.remove(&thread).expect("a timeout fires once");
                assert!(last <= deadline && deadline <= now, "{deadline} at {now}, after {last}");
                last = deadline;
            }
            let earliest = model.values().min().copied();
            assert!(earliest.is_none_or(|deadline| deadline > now), "nothing is due any more");
            assert!(timeouts.next_event(&tcbs).is_some() == earliest.is_some());
            assert!(timeouts.next_event(&tcbs) <= earliest && timeouts.next_event(&tcbs).is_none_or(|at| at > now));
            timeouts.check_invariants(&tcbs);
            assert_eq!(timeouts.count(), model.len());
        }
    }
}
