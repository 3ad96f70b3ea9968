//! The invariants of ports, checked from outside.

use super::super::check::{Broken, require};
use super::*;

impl<M: Mmu> Spaces<'_, M> {
    /// Checks the ports of `space`, which is in use; counts its frames.
    pub(in super::super) fn check_ports(&self, index: SpaceRef, frames: &mut usize) -> Result<(), Broken> {
        let space = self.get(index);
        if !space.ports.has_bits() {
            return require(space.ports.count.get() == 0, "a space without bits has no ranges", index, 0);
        }
        *frames += if space.is_sigma0() { 2 } else { 3 };
        let fail = |holds: bool, what: &'static str, port: u64| require(holds, what, index, port);
        if space.is_sigma0() {
            let last = u16::MAX;
            return fail(
                bits::first_where(0, last, |word| !self.shown_word(space, word)).is_none(),
                "sigma0 has all",
                0,
            );
        }
        let mut end = 0;
        let mut open = 0;
        for at in 0..space.ports.count.get() {
            let range = self.range(space, at);
            let port = u64::from(range.first);
            fail(end <= port && range.first <= range.last, "ranges are sorted and disjoint", port)?;
            end = u64::from(range.last) + 1;
            let ends = [range.first, range.last].map(|end| self.first_open(space, end, end));
            fail(ends.iter().all(Option::is_some), "a range begins and ends with an open port", port)?;
            open += self.count_open(space, range.first, range.last);
            let parent = self.get(range.parent);
            fail(parent.may_have_ports() && range.parent != index, "a parent has ports", port)?;
            let is_orphan = |word| self.open_word(space, word) & !self.open_word(parent, word);
            let orphan = bits::first_where(range.first, range.last, is_orphan);
            fail(orphan.is_none() || !self.is_settled(), "a derived port is one of its parent's", port)?;
        }
        fail(open == self.count_open(space, 0, u16::MAX), "each open port is in a range", 0)?;
        fail(self.is_listed(index), "a space with ports is on the list", 0)
    }

    /// The ranges of `space`: first port, last port, parent. Between the ends there may be closed ports.
    pub fn port_ranges(&self, space: SpaceRef) -> impl Iterator<Item = (u16, u16, SpaceRef)> {
        let slot = self.get(space);
        let ranges = (0..slot.ports.count.get()).map(move |at| self.range(slot, at));
        ranges.map(|range| (range.first, range.last, range.parent))
    }

    /// Whether nothing is pending.
    pub(in super::super) fn is_settled(&self) -> bool {
        self.ports.pending.is_settled()
    }

    fn count_open(&self, space: &Space, first: u16, last: u16) -> u32 {
        bits::words(first, last).map(|(word, mask)| (self.open_word(space, word) & mask).count_ones()).sum()
    }

    fn is_listed(&self, space: SpaceRef) -> bool {
        let next = |at: &SpaceRef| self.get(*at).ports.next.get();
        core::iter::successors(self.ports.first.get(), next).any(|at| at == space)
    }
}
