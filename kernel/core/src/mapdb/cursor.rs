//! How far a long operation has come.

use kformats::paging::Status;
use l4_abi::Rights;

use super::MapDb;
use crate::machine::NodeRef;
use crate::sync::AtomicU8;
use crate::var::{AsWord, Var};

/// What a step of a long operation ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The operation is complete.
    Done,
    /// The budget is spent: call again with the same operands and cursor. Anything may happen in between.
    Again,
    /// Kernel memory is exhausted. What was done so far stays, the rest is not done.
    NoMemory,
}

/// Which mappings Unmap revokes (X.2, Unmap, f).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnmapScope {
    /// Those derived from the caller's.
    Derived,
    /// The caller's own, too.
    Flush,
}

/// A place in a walk through a tree, parents before children.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Position {
    /// This node is next.
    Visit(NodeRef),
    /// All below this node is done.
    Leave(NodeRef),
}

/// How far a map, grant, unmap or release operation has come. Lives in a TCB; zero is the beginning.
#[derive(Default)]
pub struct MapCursor {
    /// Pages done, from the begin of the range.
    pub(crate) pages: Var<usize>,
    /// The mapping whose derived mappings are being visited, and its stamp.
    top: Var<Option<NodeRef>>,
    top_stamp: Var<u32>,
    /// Where in the tree below it the visit stands: the node with its stamp, and which end of it.
    node: Var<Option<NodeRef>>,
    node_stamp: Var<u32>,
    is_leaving: Var<bool>,
    /// How often the next one was gone when it was to be visited.
    pub(crate) restarts: Var<u8>,
    pub(crate) phase: Var<Phase>,
    status: Var<u8>,
}

/// Parts of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Before the first step.
    Begin,
    /// A release flushes the ports.
    Ports,
    /// A grant takes the send fpage away from the granter; a release frees the tables.
    End,
}

impl AsWord for Phase {
    type Cell = AtomicU8;
    #[inline(always)]
    fn to_word(self) -> usize {
        self as usize
    }
    #[inline(always)]
    fn from_word(word: usize) -> Self {
        const ALL: [Phase; 3] = [Phase::Begin, Phase::Ports, Phase::End];
        ALL[word]
    }
}

impl MapCursor {
    /// Whether nothing has been done yet, as far as whole pages tell.
    pub(crate) fn is_at_begin(&self) -> bool {
        self.pages.get() == 0 && self.phase.get() == Phase::Begin && self.top.get().is_none()
    }

    /// Back to the beginning, for a new operation.
    #[inline]
    pub fn reset(&self) {
        self.pages.set(0);
        self.top.set(None);
        self.restarts.set(0);
        self.phase.set(Phase::Begin);
        self.status.set(0);
    }

    /// Access status that Unmap collected so far, as rights: read and executed if accessed, written if dirty.
    pub fn status(&self) -> Rights {
        Rights::from_bits_truncate(self.status.get().into())
    }

    pub(crate) fn collect(&self, status: Status) {
        let accessed = if status.accessed { Rights::READ_EXECUTE } else { Rights::NONE };
        let dirty = if status.dirty { Rights::READ_WRITE } else { Rights::NONE };
        self.status.set(self.status.get() | (accessed | dirty).bits() as u8);
    }

    /// The place below `top` at which the last step stopped; `None` to begin there, also when the place is gone.
    pub(crate) fn resume(&self, mapdb: &MapDb<'_>, top: NodeRef) -> Option<Position> {
        if self.top.get() != Some(top) || self.top_stamp.get() != mapdb.node(top).stamp() {
            self.restarts.set(0);
            return None;
        }
        let node = self.node.get().filter(|node| self.node_stamp.get() == mapdb.node(*node).stamp());
        if node.is_none() {
            self.restarts.set(self.restarts.get().saturating_add(1));
        }
        node.map(|node| if self.is_leaving.get() { Position::Leave(node) } else { Position::Visit(node) })
    }

    /// Remembers where below `top` the step stops.
    pub(crate) fn park(&self, mapdb: &MapDb<'_>, top: NodeRef, at: Position) {
        let (Position::Visit(node) | Position::Leave(node)) = at;
        self.top.set(Some(top));
        self.top_stamp.set(mapdb.node(top).stamp());
        self.node.set(Some(node));
        self.node_stamp.set(mapdb.node(node).stamp());
        self.is_leaving.set(matches!(at, Position::Leave(_)));
    }

    /// Goes to another phase, which begins at the beginning of its range.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.pages.set(0);
        self.top.set(None);
    }
}
