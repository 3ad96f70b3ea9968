//! The mapping database: which mapping is derived from which (X.2, Mappings).
//!
//! Every page that a user space maps has a [`Node`]. The node of a page that sigma0 owns is the root of a tree; mapping
//! a page makes a child of the source's node, granting moves the node. A node knows its space, its page and its
//! relatives; frame and rights stand in the page-table entry, which one walk finds.
//!
//! Invariants, at every moment at which no lock is held:
//! 1. The frame of a child lies in its parent's; both lie in that of the root.
//! 2. A node in use has a page-table entry that maps its page, unless it is detached, and the shadow of that entry
//!    leads to the node.
//! 3. A child's rights are among its parent's, unless a revocation of rights is on its way down the tree.
//!
//! A tree is guarded by a lock of rank TREE ([`trees`]), the free nodes by one of rank NODES.

use kformats::paging::Status;

use crate::kmem::Kmem;
use crate::lock::{Guard, Held, Lock, rank};
use crate::machine::{Mmu, NoMemory, NodeRef, SpaceRef};
use crate::pool::{Pool, Table};
use crate::trace::{Event, args};
use crate::var::Var;

mod cursor;
mod node;
pub(crate) mod trees;

pub use cursor::{MapCursor, Progress, UnmapScope};
pub(crate) use cursor::{Phase, Position};
pub use node::Node;
pub(crate) use node::{Kept, LEVEL_MAX, SUPERPAGE};
use trees::TreeLocks;

/// The lock of a tree, taken.
pub(crate) type TreeGuard<'a> = Guard<'a, { rank::TREE }>;

/// The mapping database.
pub struct MapDb<'k> {
    trees: TreeLocks,
    /// Guards all below.
    lock: Lock<{ rank::NODES }>,
    nodes: Pool<'k, Node>,
    /// Where stamps begin in fresh memory.
    generation: Var<u32>,
    used: Var<usize>,
}

impl<'k> MapDb<'k> {
    /// A database whose nodes will be in `nodes`, for superpages of 2^`superpage_log2` bytes and larger pages of
    /// 2^`larger_log2`.
    pub(crate) fn new(nodes: Table<'k, Node>, superpage_log2: u32, larger_log2: u32) -> Self {
        Self {
            trees: TreeLocks::new(superpage_log2, larger_log2),
            lock: Lock::new(),
            nodes: Pool::new(nodes),
            generation: Var::new(1),
            used: Var::zero(),
        }
    }

    /// The node.
    #[inline(always)]
    pub(crate) fn node(&self, node: NodeRef) -> &'k Node {
        self.nodes.get(node)
    }

    /// The node in a slot that may lead nowhere, and may have no memory behind it: then it reads as zero.
    pub(crate) fn node_at(&self, node: NodeRef) -> Option<&'k Node> {
        self.nodes.at(node)
    }

    /// The slots of pages with memory behind them, whether a node is in use there or not.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = NodeRef> {
        self.nodes.backed()
    }

    /// Pages of slots with memory behind them.
    pub(crate) fn pages_in_use(&self) -> usize {
        self.nodes.backed_pages()
    }

    /// Counts the nodes in use anew.
    pub(crate) fn take_stock(&self) {
        self.used.set(self.in_use().filter(|node| self.node(*node).space_word().get().is_some()).count());
    }

    /// Slots for nodes.
    pub(crate) fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// The pool of nodes.
    #[cfg(test)]
    pub(crate) fn pool(&self) -> &Pool<'k, Node> {
        &self.nodes
    }

    /// Mappings there are.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// Takes the lock of the trees that map `frame`.
    #[inline]
    pub(crate) fn lock_tree<'a, const P: u8>(&'a self, frame: u64, held: &'a mut Held<P>) -> TreeGuard<'a> {
        self.trees.lock(frame, held)
    }

    /// Whether somebody has the lock of the trees that map `frame`.
    #[cfg(test)]
    pub(crate) fn is_tree_taken(&self, frame: u64) -> bool {
        self.trees.is_taken(frame)
    }

    /// Makes the locks of the trees around `frame` fit for a root of `level` there. Needs the lock of sigma0's space.
    pub(crate) fn prepare_root(&self, frame: u64, level: u32, held: &mut Held<{ rank::SPACE }>) {
        self.trees.prepare(frame, level > SUPERPAGE, held);
    }

    /// A node without relatives for a mapping to come.
    ///
    /// # Errors
    /// [`NoMemory`]: there is none for more.
    pub(crate) fn alloc<const P: u8>(
        &self,
        mmu: &impl Mmu,
        kmem: &Kmem,
        held: &mut Held<P>,
    ) -> Result<NodeRef, NoMemory> {
        let mut guard = self.lock.lock(held);
        let node = self.take(mmu, kmem, guard.held())?;
        self.begin(self.node(node));
        Ok(node)
    }

    #[inline(never)]
    fn take(&self, mmu: &impl Mmu, kmem: &Kmem, held: &mut Held<{ rank::NODES }>) -> Result<NodeRef, NoMemory> {
        self.nodes.alloc(|first| {
            mmu.trace(Event::MdbAllocBuffer, || args([first.index() as u64]));
            mmu.back_nodes(kmem, held, first)
        })
    }

    /// `slot` is now in use.
    #[inline(always)]
    fn begin(&self, slot: &Node) {
        slot.begin_stamps(&self.generation);
        self.used.set(self.used.get() + 1);
    }

    /// Makes a fresh node that of a mapping derived from `parent`. Needs the lock of the tree. In a hot path: where nodes are
    /// at hand, it is short.
    ///
    /// # Errors
    /// [`NoMemory`]: there is none for more.
    #[inline(always)]
    pub(crate) fn add_child(
        &self,
        mmu: &impl Mmu,
        kmem: &Kmem,
        tree: &mut TreeGuard<'_>,
        parent: NodeRef,
        mapping: NewMapping,
    ) -> Result<NodeRef, NoMemory> {
        let mut guard = self.lock.lock(tree.held());
        let node = match self.nodes.alloc_backed() {
            Some(node) => node,
            None => self.take(mmu, kmem, guard.held())?,
        };
        let slot = self.node(node);
        self.begin(slot);
        drop(guard);
        slot.init(mapping.space, mapping.page, mapping.level);
        self.link((node, slot), parent);
        Ok(node)
    }

    /// Takes back a node without relatives. Nothing may be read of it any more but its stamp, which is another now.
    pub(crate) fn free<const P: u8>(&self, mmu: &impl Mmu, kmem: &Kmem, held: &mut Held<P>, node: NodeRef) {
        let slot = self.node(node);
        slot.space.set(None);
        slot.renew_stamp();
        let mut guard = self.lock.lock(held);
        self.used.set(self.used.get() - 1);
        self.nodes.free(node, |first| {
            self.generation.set(Node::generation_after(self.generation.get(), self.nodes.slots_of(first)));
            mmu.trace(Event::MdbFreeBuffer, || args([first.index() as u64]));
            mmu.release_nodes(kmem, guard.held(), first);
        });
    }

    /// Makes a fresh node the mapping of `page` at `level` in `space`. Needs the lock of the tree.
    #[inline]
    pub(crate) fn enter(&self, tree: &mut TreeGuard<'_>, node: NodeRef, origin: Origin, mapping: NewMapping) {
        let slot = self.node(node);
        slot.init(mapping.space, mapping.page, mapping.level);
        match origin {
            // Roots are mapped at their frames.
            Origin::Nothing if mapping.level > SUPERPAGE => self.trees.larger_root_came(tree, mapping.page),
            Origin::Nothing => {}
            Origin::Parent(parent) => self.link((node, slot), parent),
            Origin::Sibling(sibling) => self.link_behind(node, sibling),
        }
    }

    /// Makes a node the first child of `parent`.
    #[inline(always)]
    fn link(&self, (node, slot): (NodeRef, &Node), parent: NodeRef) {
        let above = self.node(parent);
        let second = above.child.replace(Some(node));
        slot.parent.set(Some(parent));
        slot.prev.set(None);
        slot.next.set(second);
        if let Some(second) = second {
            self.node(second).prev.set(Some(node));
        }
    }

    /// Makes `node` the next sibling of `sibling`. A walk that has not come to the one has not come to the other.
    fn link_behind(&self, node: NodeRef, sibling: NodeRef) {
        let (slot, before) = (self.node(node), self.node(sibling));
        let behind = before.next.replace(Some(node));
        slot.parent.set(before.parent());
        slot.prev.set(Some(sibling));
        slot.next.set(behind);
        if let Some(behind) = behind {
            self.node(behind).prev.set(Some(node));
        }
    }

    /// Takes a node away from its parent.
    fn unlink(&self, node: NodeRef) {
        let slot = self.node(node);
        let (prev, next) = (slot.prev.replace(None), slot.next.replace(None));
        if let Some(next) = next {
            self.node(next).prev.set(prev);
        }
        match (prev, slot.parent.replace(None)) {
            (Some(prev), _) => self.node(prev).next.set(next),
            (None, Some(parent)) => self.node(parent).child.set(next),
            (None, None) => {}
        }
    }

    /// Takes a node without children, whose entry is gone, out of its tree, so that it can be freed; what it knew of
    /// accesses goes to its parent, with `status`. Returns all of that. Needs the lock of the tree.
    pub(crate) fn remove(&self, tree: &mut TreeGuard<'_>, node: NodeRef, status: Status) -> Status {
        let slot = self.node(node);
        debug_assert!(slot.child().is_none(), "what is derived goes first");
        let status = merge(status, merge(slot.take(Kept::Reported), slot.take(Kept::Derived)));
        match slot.parent() {
            Some(parent) => self.node(parent).keep(Kept::Derived, status),
            None if slot.level() > SUPERPAGE => self.trees.larger_root_went(tree, slot.page()),
            None => {}
        }
        self.unlink(node);
        status
    }

    /// Makes `node`, a child of `parent`, its next sibling. Needs the lock of the tree.
    pub(crate) fn lift(&self, _tree: &mut TreeGuard<'_>, node: NodeRef, parent: NodeRef) {
        self.unlink(node);
        self.link_behind(node, parent);
        self.node(node).renew_stamp();
    }
}

/// What a fresh mapping comes from.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    /// Nothing: it is a root.
    Nothing,
    /// It is derived from this one.
    Parent(NodeRef),
    /// It is derived from what this one is derived from.
    Sibling(NodeRef),
}

/// The values of a fresh node.
#[derive(Clone, Copy)]
pub(crate) struct NewMapping {
    pub space: SpaceRef,
    pub page: u64,
    pub level: u32,
}

/// Both together.
#[inline]
pub(crate) fn merge(a: Status, b: Status) -> Status {
    Status { accessed: a.accessed | b.accessed, dirty: a.dirty | b.dirty }
}
