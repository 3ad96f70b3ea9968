//! Records of several rings in the order of time, without memory to sort them in.

use core::ops::ControlFlow;

use super::{Memory, Record, Ring};

/// Where a record is among those of all rings: they are in the order of these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    tsc: u64,
    ring: usize,
    number: u64,
}

/// The rings of processors from 0 up to `count`, those that have one.
pub struct Merged<'m, M> {
    /// Where they are.
    pub memory: &'m M,
    /// The ring of a processor.
    pub ring_of: &'m dyn Fn(usize) -> Option<Ring>,
    /// How many processors there are.
    pub count: usize,
}

impl<M: Memory> Merged<'_, M> {
    /// The record that comes next behind a place; the oldest one without a place.
    pub fn after(&self, place: Option<Place>) -> Option<(Place, Record)> {
        let candidates = (0..self.count).filter_map(|ring| {
            let numbers = (self.ring_of)(ring)?.numbers(self.memory);
            let number = match place {
                Some(place) => self.first(ring, &numbers, |own| own > place),
                None => numbers.start,
            };
            if numbers.contains(&number) { self.at(ring, number) } else { None }
        });
        candidates.min_by_key(|(place, _)| *place)
    }

    /// The record that comes last before a place; the newest one without a place.
    pub fn before(&self, place: Option<Place>) -> Option<(Place, Record)> {
        let candidates = (0..self.count).filter_map(|ring| {
            let numbers = (self.ring_of)(ring)?.numbers(self.memory);
            let behind = match place {
                Some(place) => self.first(ring, &numbers, |own| own >= place),
                None => numbers.end,
            };
            if behind > numbers.start { self.at(ring, behind - 1) } else { None }
        });
        candidates.max_by_key(|(place, _)| *place)
    }

    /// Calls `show` for the last records that are `meant`, at most `count`, the oldest first, until it breaks off.
    pub fn last<B>(
        &self,
        count: usize,
        is_meant: impl Fn(&Record) -> bool,
        mut show: impl FnMut(&Record) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let (mut begin, mut found) = (None, 0);
        while found < count
            && let Some((place, record)) = self.before(begin)
        {
            begin = Some(place);
            found += usize::from(is_meant(&record));
        }
        // The records behind the place before it: that one is the first.
        let mut next = begin.and_then(|begin| self.at(begin.ring, begin.number));
        while let Some((place, record)) = next {
            if is_meant(&record) {
                show(&record)?;
            }
            next = self.after(Some(place));
        }
        ControlFlow::Continue(())
    }

    fn at(&self, ring: usize, number: u64) -> Option<(Place, Record)> {
        let record = (self.ring_of)(ring)?.read(self.memory, number)?;
        Some((Place { tsc: record.tsc, ring, number }, record))
    }

    /// The first of these numbers whose place is as asked, as are all behind it. What is gone is before everything.
    fn first(&self, ring: usize, numbers: &core::ops::Range<u64>, is_so: impl Fn(Place) -> bool) -> u64 {
        let (mut low, mut high) = (numbers.start, numbers.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(ring, middle).is_some_and(|(place, _)| is_so(place)) { high = middle } else { low = middle + 1 }
        }
        low
    }
}
