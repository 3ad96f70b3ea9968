//! The ranges of a space: a sorted table in one frame.

use super::super::{Space, Spaces};
use super::{Full, bits};
use crate::kmem::FRAME_SIZE;
use crate::machine::{Mmu, PhysAddr, SpaceRef};

/// Ports that came from one space, or the part of an operation's ports that is in one range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    /// First port; open.
    pub first: u16,
    /// Last port; open.
    pub last: u16,
    /// Where the open ones came from.
    pub parent: SpaceRef,
}

/// Words of a range: ports, then parent.
const RANGE_WORDS: usize = 2;
/// Ranges that can be moved at the cost of a look at one.
const RANGES_PER_LOOK: u32 = 16;
/// Ranges that a space can have.
pub(super) const RANGES_MAX: u32 = (FRAME_SIZE as usize / (RANGE_WORDS * size_of::<usize>())) as u32;

impl Range {
    /// The part of it from `first` to `last`, as first and last port.
    pub fn part(&self, first: u16, last: u16) -> Option<(u16, u16)> {
        let (from, to) = (self.first.max(first), self.last.min(last));
        (from <= to).then_some((from, to))
    }
}

impl<M: Mmu> Spaces<'_, M> {
    fn range_at(space: &Space, index: u32) -> [PhysAddr; RANGE_WORDS] {
        let word = |n| space.ports.ranges.get().0 + ((index as usize * RANGE_WORDS + n) * size_of::<usize>()) as u64;
        [PhysAddr(word(0)), PhysAddr(word(1))]
    }

    /// The range in place `index`, which is in use.
    pub(super) fn range(&self, space: &Space, index: u32) -> Range {
        debug_assert!(index < space.ports.count.get());
        let [ports, parent] = Self::range_at(space, index).map(|at| self.machine.read(at));
        Range { first: ports as u16, last: (ports >> 16) as u16, parent: SpaceRef::new(parent as u32) }
    }

    /// The range in place `index`, if that is in use.
    pub(super) fn range_if_any(&self, space: &Space, index: u32) -> Option<Range> {
        (index < space.ports.count.get()).then(|| self.range(space, index))
    }

    fn set_range(&self, space: &Space, index: u32, range: Range) {
        let [ports, parent] = Self::range_at(space, index);
        self.machine.write(ports, usize::from(range.first) | usize::from(range.last) << 16);
        self.machine.write(parent, range.parent.index());
    }

    /// The first range that ends at `port` or behind; one too far if there is none.
    pub(super) fn range_from(&self, space: &Space, port: u16) -> u32 {
        let (mut low, mut high) = (0, space.ports.count.get());
        while low < high {
            let middle = low.midpoint(high);
            if self.range(space, middle).last < port { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Replaces `old` ranges from `index` on by `new`, and charges for those behind them that have to be moved.
    fn replace_ranges(&self, space: &Space, index: u32, old: u32, new: &[Range], budget: &mut u32) -> Result<(), Full> {
        let (count, added) = (space.ports.count.get(), new.len() as u32);
        if count - old + added > RANGES_MAX {
            return Err(Full);
        }
        space.ports.count.set(count.max(count - old + added));
        let copy = |from, to| self.set_range(space, to, self.range(space, from));
        if added != old {
            *budget = budget.saturating_sub((count - old - index) / RANGES_PER_LOOK);
        }
        match added.checked_sub(old) {
            Some(more) => (index + old..count).rev().for_each(|at| copy(at, at + more)),
            None => (index + old..count).for_each(|at| copy(at, at - (old - added))),
        }
        (index..).zip(new).for_each(|(at, range)| self.set_range(space, at, *range));
        space.ports.count.set(count - old + added);
        Ok(())
    }

    /// Lets a range, of which ports were closed, begin and end with an open one; `false` if none is left and it is gone.
    pub(super) fn tighten(&self, space: &Space, index: u32, budget: &mut u32) -> bool {
        let range = self.range(space, index);
        let first = self.first_open(space, range.first, range.last);
        let Some((first, last)) = first.zip(self.last_open(space, range.first, range.last)) else {
            let shorter = self.replace_ranges(space, index, 1, &[], budget);
            debug_assert!(shorter.is_ok(), "less needs no room");
            return false;
        };
        self.set_range(space, index, Range { first, last, ..range });
        true
    }

    /// Lets `dest` have the first ports from `first` to `last` that `source` has and it has not, as ports from `parent`.
    /// Returns the last port that is settled; `None` if there are no more.
    pub(super) fn open_run(
        &self,
        dest: &Space,
        source: &Space,
        parent: SpaceRef,
        (first, last): (u16, u16),
        budget: &mut u32,
    ) -> Result<Option<u16>, Full> {
        let is_new = |word| self.open_word(source, word) & !self.open_word(dest, word);
        let Some(begin) = bits::first_where(first, last, is_new) else { return Ok(None) };
        let at = self.range_from(dest, begin);
        let end = self.end_of_run(dest, parent, at, begin, last);
        let new_last = bits::last_where(begin, end, is_new).expect("the first one is new");
        let new = Range { first: begin, last: new_last, parent };
        let around = self.range_if_any(dest, at).filter(|range| range.first < begin);
        match around.filter(|range| range.parent != parent) {
            Some(around) => self.cut(dest, at, around, new, budget)?,
            None => self.join(dest, at, new, budget)?,
        }
        for (index, mask) in bits::words(begin, end) {
            self.open_in_word(dest, index, mask & self.open_word(source, index));
        }
        Ok(Some(end))
    }

    /// The last port from `begin` to `last` before one that `dest` has from somebody else than `parent`; `begin` is closed,
    /// and range `at` is the first that does not end before.
    fn end_of_run(&self, dest: &Space, parent: SpaceRef, at: u32, begin: u16, last: u16) -> u16 {
        let ranges = (at..dest.ports.count.get()).map(|index| self.range(dest, index));
        let next = ranges.take_while(|range| range.first <= last).find(|range| range.parent != parent);
        let stranger = next.and_then(|range| self.first_open(dest, range.first.max(begin), range.last));
        stranger.map_or(last, |stranger| last.min(stranger - 1))
    }

    /// Puts `new` into a hole of range `at`, which has another parent.
    fn cut(&self, dest: &Space, at: u32, around: Range, new: Range, budget: &mut u32) -> Result<(), Full> {
        const ENDS: &str = "a range begins and ends with an open port";
        let left = Range { last: self.last_open(dest, around.first, new.first).expect(ENDS), ..around };
        let right = Range { first: self.first_open(dest, new.last, around.last).expect(ENDS), ..around };
        self.replace_ranges(dest, at, 1, &[left, new, right], budget)
    }

    /// Puts `new` before range `at`, or makes it one with neighbours of the same parent, which it may overlap.
    fn join(&self, dest: &Space, at: u32, new: Range, budget: &mut u32) -> Result<(), Full> {
        let (mut from, mut to) = (at, at);
        let mut all = new;
        let same = |index: u32| Some(self.range(dest, index)).filter(|range| range.parent == new.parent);
        if let Some(left) = at.checked_sub(1).and_then(same) {
            from -= 1;
            all.first = left.first;
        }
        while let Some(right) = (to < dest.ports.count.get()).then_some(to).and_then(same) {
            to += 1;
            all.first = all.first.min(right.first);
            all.last = all.last.max(right.last);
        }
        self.replace_ranges(dest, from, to - from, &[all], budget)
    }

    /// Gives the ports from `first` to `last` of range `index` another parent. Without room for that they are closed. Returns
    /// how many ranges came of it, and whether ports were closed.
    pub(super) fn adopt(
        &self,
        space: &Space,
        index: u32,
        (first, last): (u16, u16),
        parent: SpaceRef,
        budget: &mut u32,
    ) -> (u32, bool) {
        let range = self.range(space, index);
        let open = |part: Option<(u16, u16)>, parent| {
            let (from, to) = part?;
            let first = self.first_open(space, from, to)?;
            Some(Range { first, last: self.last_open(space, from, to)?, parent })
        };
        let Some(inside) = open(range.part(first, last), parent) else { return (1, false) };
        let before = first.checked_sub(1).and_then(|end| range.part(0, end));
        let behind = last.checked_add(1).and_then(|begin| range.part(begin, u16::MAX));
        let parts = [open(before, range.parent), Some(inside), open(behind, range.parent)];
        let mut new = [inside; 3];
        let mut count = 0;
        for part in parts.into_iter().flatten() {
            new[count] = part;
            count += 1;
        }
        if self.replace_ranges(space, index, 1, &new[..count], budget).is_ok() {
            return (count as u32, false);
        }
        for (word, mask) in bits::words(inside.first, inside.last) {
            self.close_in_word(space, word, mask);
        }
        (u32::from(self.tighten(space, index, budget)), true)
    }
}
