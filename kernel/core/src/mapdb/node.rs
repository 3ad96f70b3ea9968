//! The node of a mapping.

use kformats::paging::{PAGE_LOG2, Status};

use crate::machine::{NodeRef, SpaceRef};
use crate::pool::{Head, Pooled};
use crate::var::Var;

/// Highest level at which pages are mapped.
pub(crate) const LEVEL_MAX: u32 = 2;
/// The level of superpages: what sigma0 has unless it is asked for larger ones.
pub(crate) const SUPERPAGE: u32 = 1;

/// One mapping: a page of a space, derived from the mapping that is its parent. Zero when the table is fresh.
#[derive(Default)]
pub struct Node {
    /// Address of the page, and the fields of [`Node::LEVEL_MASK`] and beyond in its low bits.
    page: Var<usize>,
    pub(super) space: Var<Option<SpaceRef>>,
    pub(super) parent: Var<Option<NodeRef>>,
    pub(super) child: Var<Option<NodeRef>>,
    pub(super) next: Var<Option<NodeRef>>,
    pub(super) prev: Var<Option<NodeRef>>,
    /// Changes whenever the node gets another place in the trees or none, so that a cursor can tell whether it still
    /// points at the same.
    stamp: Var<u32>,
}

const _: () = assert!(size_of::<Node>() <= 32, "there is a node for every mapping of the system");

crate::load::load_fields!(Node: page, space, parent, child, next, prev, stamp);

/// Which status a node keeps besides the one in its page-table entry.
#[derive(Clone, Copy)]
pub(crate) enum Kept {
    /// What was collected already, from the entry or from derived mappings, and reported to the space itself.
    Reported,
    /// What derived mappings left that are gone or were reset by others.
    Derived,
}

impl Kept {
    fn shift(self) -> u32 {
        match self {
            Kept::Reported => 4,
            Kept::Derived => 6,
        }
    }
}

impl Node {
    const LEVEL_MASK: usize = 0x3;
    /// The mapping has no page-table entry: a root whose address belongs to the kernel in sigma0's space.
    const DETACHED: usize = 1 << 2;
    const PAGE_MASK: usize = !((1 << PAGE_LOG2) - 1);

    /// Makes a fresh node the mapping of `page` at `level` in `space`.
    pub(super) fn init(&self, space: SpaceRef, page: u64, level: u32) {
        self.space.set(Some(space));
        self.page.set(page as usize | level as usize);
    }

    /// Moves the mapping to another page of the same size. Cursors that point here stop doing so.
    pub(crate) fn move_to(&self, space: SpaceRef, page: u64) {
        self.space.set(Some(space));
        self.page.set(page as usize | self.page.get() & !Self::PAGE_MASK);
        self.renew_stamp();
    }

    /// The space that has the mapping.
    #[inline]
    pub(crate) fn space(&self) -> SpaceRef {
        self.space.get().expect("a node in use has a space")
    }

    /// The space as it stands in the slot, which may not be in use.
    pub(crate) fn space_word(&self) -> &Var<Option<SpaceRef>> {
        &self.space
    }

    /// Address of the page.
    #[inline]
    pub(crate) fn page(&self) -> u64 {
        (self.page.get() & Self::PAGE_MASK) as u64
    }

    /// Level of the page's entry.
    #[inline]
    pub(crate) fn level(&self) -> u32 {
        (self.page.get() & Self::LEVEL_MASK) as u32
    }

    #[inline]
    pub(crate) fn is_detached(&self) -> bool {
        self.page.get() & Self::DETACHED != 0
    }

    pub(crate) fn set_detached(&self) {
        self.page.set(self.page.get() | Self::DETACHED);
    }

    #[inline]
    pub(crate) fn parent(&self) -> Option<NodeRef> {
        self.parent.get()
    }

    #[inline]
    pub(crate) fn child(&self) -> Option<NodeRef> {
        self.child.get()
    }

    #[inline]
    pub(crate) fn next(&self) -> Option<NodeRef> {
        self.next.get()
    }

    #[inline]
    pub(crate) fn prev(&self) -> Option<NodeRef> {
        self.prev.get()
    }

    /// The place of the node in the trees; changes when it gets another one.
    #[inline]
    pub(crate) fn stamp(&self) -> u32 {
        self.stamp.get()
    }

    /// Changes the stamp to one that the node has not had for a long time. No stamp is zero, which is what a cursor reads
    /// where there is no node any more.
    pub(super) fn renew_stamp(&self) {
        self.stamp.set(self.stamp.get().wrapping_add(1).max(1));
    }

    /// Gives a node in fresh memory the first stamp of `generation`.
    #[inline(always)]
    pub(super) fn begin_stamps(&self, generation: &Var<u32>) {
        if self.stamp.get() == 0 {
            self.stamp.set(generation.get());
        }
    }

    /// A generation that comes after `epoch` and after those of all `nodes`: their memory is released, but cursors may
    /// still hold their stamps, which none of the nodes that follow in their places may have.
    pub(super) fn generation_after(epoch: u32, nodes: &[Self]) -> u32 {
        const AHEAD: u32 = u32::MAX >> 1;
        let ahead = |node: &Self| node.stamp.get().wrapping_sub(epoch);
        let most = nodes.iter().map(ahead).filter(|&ahead| ahead <= AHEAD).max().unwrap_or(0);
        epoch.wrapping_add(most + 1).max(1)
    }

    /// Adds to the status that the node keeps.
    pub(crate) fn keep(&self, kind: Kept, status: Status) {
        let bits = usize::from(status.accessed) | usize::from(status.dirty) << 1;
        self.page.set(self.page.get() | bits << kind.shift());
    }

    /// Returns and resets a status that the node keeps.
    pub(crate) fn take(&self, kind: Kept) -> Status {
        let bits = self.page.get() >> kind.shift();
        self.page.set(self.page.get() & !(3 << kind.shift()));
        Status { accessed: bits & 1 != 0, dirty: bits & 2 != 0 }
    }
}

impl Pooled for Node {
    type Ref = NodeRef;

    #[inline]
    fn next_free(&self) -> &Var<Option<NodeRef>> {
        &self.next
    }

    #[inline]
    fn head(&self) -> Head<'_, NodeRef> {
        Head { next: &self.next, prev: &self.prev, free: &self.child, counts: &self.page }
    }
}

#[cfg(test)]
impl Node {
    /// Makes the slot read as zero: there is no memory behind it any more.
    pub(crate) fn wipe(&self) {
        self.page.set(0);
        self.space.set(None);
        [&self.parent, &self.child, &self.next, &self.prev].into_iter().for_each(|link| link.set(None));
        self.stamp.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stamps are never zero and differ from the one before, all the way round.
    #[test]
    fn stamps_change_and_are_never_zero() {
        let node = Node::default();
        node.begin_stamps(&Var::new(u32::MAX));
        let mut last = node.stamp();
        for _ in 0..5 {
            node.renew_stamp();
            assert!(node.stamp() != 0 && node.stamp() != last);
            last = node.stamp();
        }
    }

    /// The generation that follows a page of nodes is new to all of them, also where the count begins anew.
    #[test]
    fn generations_go_on_where_memory_was_released() {
        let check = |epoch: u32, generations: &[u32], expected: u32| {
            let nodes: std::vec::Vec<Node> = generations
                .iter()
                .map(|&generation| {
                    let node = Node::default();
                    node.stamp.set(generation);
                    node
                })
                .collect();
            assert_eq!(Node::generation_after(epoch, &nodes), expected, "{epoch} {generations:?}");
        };
        const LAST: u32 = u32::MAX;
        check(1, &[1, 1, 1], 2);
        check(1, &[1, 7, 3], 8);
        check(9, &[1, 7, 3], 10);
        check(LAST - 1, &[LAST - 1, LAST], 1);
        check(LAST - 1, &[LAST, 4], 5);
        check(3, &[LAST], 4);
    }
}
