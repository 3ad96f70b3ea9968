//! Map and grant (X.2, Map and Grant).
//!
//! A transfer goes through its range page by page, each as large as source, destination and their alignment allow.
//! Where rules leave a choice:
//! - A send fpage without any right maps nothing. A page that is mapped can be read.
//! - If the destination has the page already, derived from the same parent, its rights are extended. If it has the page
//!   from elsewhere with no less rights, or is where the source itself came from, it stays as it is. Everything else
//!   there is flushed first. If that takes away the source, nothing is mapped.
//! - A destination inside a larger page is left as it is. Smaller pages where a larger one fits are flushed.
//! - What sigma0 grants, it maps: it remains the owner of all memory. Nothing is mapped to sigma0.
//! - Granting moves the mapping with all that is derived from it, unless there is less to move: a grant of fewer rights
//!   first flushes the derived mappings, and of a superpage that is granted in parts, the parts become children of the
//!   granter's parent. At the end the granter loses the complete send fpage.

use kformats::paging::{Access, Entry, Leaf, PAGE_LOG2, PageFormat, Status};
use l4_abi::{Fpage, MapItem, MapKind, Rights};

use super::clear::{Cleared, Clearing};
use super::roots::RootSizes;
use super::tables::Mapped;
use super::{PAGE_SIZE, Place, Slot, Space, Spaces, access_of, low_bits, spend};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, NoMemory, NodeRef, SpaceRef};
use crate::mapdb::{
    Kept, LEVEL_MAX, MapCursor, NewMapping, Node, Origin, Phase, Progress, SUPERPAGE, TreeGuard, UnmapScope,
};
use crate::trace::{Arg, Event, args};

/// A map or grant item on its way: the operands of [`Spaces::map`].
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// The sender's space.
    pub source: SpaceRef,
    /// The receiver's space.
    pub dest: SpaceRef,
    /// What is sent.
    pub item: MapItem,
    /// Where the receiver takes it.
    pub window: Fpage,
}

/// A transfer with the window applied: `len` bytes from `from` in the source go to `to` in the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Route {
    pub from: u64,
    pub to: u64,
    pub len: u64,
}

impl Route {
    /// Which part of the send fpage goes where in the window (X.2, Map and Grant). `None` if nothing is sent: one of them
    /// is smaller than a page, or lies beyond the end of its space.
    pub(super) fn new(item: &MapItem, window: Fpage, source_end: u64, dest_end: u64) -> Option<Self> {
        let (s, r) = (item.fpage.size_log2(), window.size_log2());
        if s.min(r) < PAGE_LOG2 {
            return None;
        }
        let (smaller, larger) = (low_bits(s.min(r)), low_bits(s.max(r)));
        let offset = item.snd_base as u64 & larger & !smaller;
        // An fpage of a page at least has its size and rights below its base.
        let (from, to) = (item.fpage.raw() as u64 & !low_bits(s), window.raw() as u64 & !low_bits(r));
        let (from, to) = if s > r { (from + offset, to) } else { (from, to + offset) };
        let rest = source_end.saturating_sub(from).min(dest_end.saturating_sub(to));
        let len = smaller.saturating_add(1).min(rest);
        (len > 0).then_some(Self { from, to, len })
    }

    fn overlaps_itself(&self) -> bool {
        self.from < self.to + self.len && self.to < self.from + self.len
    }
}

/// What one look at a page comes to.
enum Step {
    /// These bytes are done.
    Advance(u64),
    /// Something was in the way and less of it is left: look again.
    Retry,
}

/// One page on its way.
struct Piece<'a> {
    kind: MapKind,
    source: &'a Space,
    /// Where the source was found.
    found: Place,
    from: u64,
    dest_ref: SpaceRef,
    dest: &'a Space,
    to: u64,
    /// Rights to pass.
    access: Access,
    /// Level of the destination's entry.
    level: u32,
    /// The frame to map, if the source is still what it was.
    frame: u64,
}

impl<M: Mmu> Spaces<'_, M> {
    /// Maps or grants pages. Silent about what cannot be mapped, as X.2 wants it; `cursor` is reset before the first step.
    ///
    /// Should the operands change between two steps, the rest of the range goes by the new ones.
    pub fn map(
        &self,
        held: &mut Held<{ rank::NONE }>,
        transfer: &Transfer,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        let Transfer { source, dest, item, window } = *transfer;
        let (from, to) = (self.get(source), self.get(dest));
        let Some(route) = Route::new(&item, window, self.end_of(from), self.config.user_end) else {
            return Progress::Done;
        };
        let kind = if from.is_sigma0() { MapKind::Map } else { item.kind };
        let is_grant = kind == MapKind::Grant;
        if item.fpage.rights().is_empty() || to.is_sigma0() || is_grant && source == dest && route.overlaps_itself() {
            return Progress::Done;
        }
        if self.machine.traces(Event::FpageMap.bit()) && cursor.is_at_begin() {
            let fpage = item.fpage.raw() as u64;
            self.machine.trace(Event::FpageMap, || args([source.arg(), dest.arg(), fpage, route.to]));
        }
        if cursor.phase.get() == Phase::Begin {
            match self.map_range(held, transfer, kind, route, cursor, budget) {
                Progress::Done if is_grant => cursor.enter(Phase::End),
                progress => return progress,
            }
        }
        self.unmap(held, source, item.fpage.with_rights(Rights::ALL), UnmapScope::Flush, cursor, budget)
    }

    fn map_range(
        &self,
        held: &mut Held<{ rank::NONE }>,
        transfer: &Transfer,
        kind: MapKind,
        route: Route,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        loop {
            let done = (cursor.pages.get() as u64) << PAGE_LOG2;
            if done >= route.len {
                return Progress::Done;
            }
            if !spend(budget) {
                return Progress::Again;
            }
            let rest = Route { from: route.from + done, to: route.to + done, len: route.len - done };
            match self.map_page(held, transfer, kind, rest, budget) {
                Ok(Step::Advance(bytes)) => cursor.pages.set(((done + bytes) >> PAGE_LOG2) as usize),
                Ok(Step::Retry) => {}
                Err(NoMemory) => return Progress::NoMemory,
            }
        }
    }

    /// Maps the first page of what is left.
    fn map_page(
        &self,
        held: &mut Held<{ rank::NONE }>,
        transfer: &Transfer,
        kind: MapKind,
        rest: Route,
        budget: &mut u32,
    ) -> Result<Step, NoMemory> {
        let (source, dest) = (self.get(transfer.source), self.get(transfer.dest));
        let Route { from, to, len } = rest;
        if dest.is_protected(to, PAGE_LOG2) {
            return Ok(Step::Advance(PAGE_SIZE));
        }
        if source.is_sigma0() {
            let fits = |level: &u32| self.fits(dest, rest, *level);
            let level = (SUPERPAGE..=LEVEL_MAX).rev().find(fits).unwrap_or(0);
            let sizes = RootSizes { least: level, most: level.max(SUPERPAGE) };
            if !self.provide_root(held, transfer.source, from, sizes, budget)? {
                return Ok(Step::Retry);
            }
        }
        let found = self.walk(source, from, 0);
        let Some(frame) = self.frame_at(source, &found, from) else {
            let is_hole = found.word == 0;
            let next =
                if is_hole { self.skip_hole(source, &found, from, from + len, budget) } else { from + PAGE_SIZE };
            return Ok(Step::Advance(next - from));
        };
        let mut guard = dest.lock.lock(held);
        if !dest.is_initialised() {
            return Ok(Step::Advance(len));
        }
        let mut level = found.level;
        while level > 0 && !self.fits(dest, rest, level) {
            level -= 1;
        }
        let mut place = self.walk(dest, to, 0);
        if place.level > level && place.word != 0 {
            let size_log2 = Self::page_log2(place.level);
            return Ok(Step::Advance((((to >> size_log2) + 1) << size_log2) - to));
        }
        if place.level < level {
            // Smaller pages are in the way of a larger one, or a table where there were some.
            let above = self.walk(dest, to, level);
            let cleared = self.clear_table(guard.held(), dest, &above, to, Clearing::All, budget);
            drop(guard);
            if let Cleared::TakenOut(table) = cleared {
                self.free_table(held, transfer.dest, &table);
            }
            return Ok(Step::Retry);
        }
        // The node first: then tables are all that can be missing, and they come together.
        let mut node = None;
        if place.level > level {
            let moves_node = kind == MapKind::Grant && level == found.level;
            if !moves_node {
                node = Some(self.alloc_node(guard.held(), dest)?);
            }
            let filled = self.make_tables(guard.held(), dest, to, level);
            place = filled.inspect_err(|_| {
                if let Some(node) = node {
                    self.free_node(guard.held(), dest, node);
                }
            })?;
        }
        level = place.level;
        let frame = frame | from & low_bits(Self::page_log2(found.level)) & !low_bits(Self::page_log2(level));
        let access = self.machine.format().effective(access_of(transfer.item.fpage.rights()));
        let piece = Piece { kind, source, found, from, dest_ref: transfer.dest, dest, to, access, level, frame };
        match self.entry(&place) {
            Entry::Leaf(old) => {
                debug_assert!(node.is_none(), "new tables are empty");
                Ok(self.meet(guard.held(), &piece, &place, old, budget))
            }
            _ => self.enter(guard.held(), &piece, &place, node, budget),
        }
    }

    /// Whether the destination can take a page of `level`.
    #[inline]
    fn fits(&self, dest: &Space, rest: Route, level: u32) -> bool {
        let size_log2 = Self::page_log2(level);
        (rest.from | rest.to) & low_bits(size_log2) == 0
            && rest.len >> size_log2 > 0
            && self.machine.format().leaf_allowed(level)
            && !dest.is_protected(rest.to, size_log2)
    }

    /// The source of a piece, if it still is what was found. Needs the lock of the tree.
    #[inline]
    fn source_of(&self, piece: &Piece<'_>) -> Option<Mapped> {
        let place = self.reload(piece.source, &piece.found, piece.from)?;
        let page = self.mapped(piece.source, &place, piece.from)?;
        let size_log2 = Self::page_log2(page.level);
        (page.frame >> size_log2 == piece.frame >> size_log2).then_some(page)
    }

    /// The destination has `old` where a piece is to go. Needs the lock of the destination.
    fn meet(
        &self,
        held: &mut Held<{ rank::SPACE }>,
        piece: &Piece<'_>,
        place: &Place,
        old: Leaf,
        budget: &mut u32,
    ) -> Step {
        let size = 1 << Self::page_log2(piece.level);
        let mut tree = self.mapdb.lock_tree(old.frame, held);
        let place = self.reread(place);
        let Some(there) = self.mapped(piece.dest, &place, piece.to) else { return Step::Retry };
        if there.frame == piece.frame {
            let Some(page) = self.source_of(piece) else { return Step::Retry };
            let access = piece.access.and(page.access);
            let parent = self.mapdb.node(there.node).parent();
            let origin = self.mapdb.node(page.node).parent();
            let heir = if piece.kind == MapKind::Map { Some(page.node) } else { origin };
            let is_source = there.node == page.node;
            if parent == heir && !is_source {
                self.allow(&place, there.access, access);
                return Step::Advance(size);
            }
            let is_enough = piece.kind == MapKind::Map && there.access.covers(access);
            if is_source || Some(there.node) == origin || is_enough {
                return Step::Advance(size);
            }
        }
        let log2 = Self::page_log2(piece.level).into();
        self.machine.trace(Event::FpageOvermap, || args([piece.dest_ref.arg(), piece.to, log2]));
        self.remove_tree(&mut tree, there.node, budget);
        Step::Retry
    }

    /// Enters a piece into the empty entry at `place`, with `node` if one was taken in advance. Needs the lock of the
    /// destination.
    fn enter(
        &self,
        held: &mut Held<{ rank::SPACE }>,
        piece: &Piece<'_>,
        place: &Place,
        node: Option<NodeRef>,
        budget: &mut u32,
    ) -> Result<Step, NoMemory> {
        if piece.kind == MapKind::Grant && piece.level == piece.found.level {
            debug_assert!(node.is_none(), "the node of the granter's page moves");
            let mut tree = self.mapdb.lock_tree(piece.frame, held);
            return Ok(match self.source_of(piece) {
                Some(page) => self.move_page(&mut tree, piece, place, page, budget)?,
                None => Step::Retry,
            });
        }
        let node = match node {
            Some(node) => node,
            None => self.alloc_node(held, piece.dest)?,
        };
        let mut tree = self.mapdb.lock_tree(piece.frame, held);
        let Some(page) = self.source_of(piece) else {
            self.free_node(tree.held(), piece.dest, node);
            return Ok(Step::Retry);
        };
        let origin = if piece.kind == MapKind::Map { Origin::Parent(page.node) } else { Origin::Sibling(page.node) };
        let mapping = NewMapping { space: piece.dest_ref, page: piece.to, level: piece.level };
        self.mapdb.enter(&mut tree, node, origin, mapping);
        self.fill(place, node, self.leaf(piece.level, piece.frame, piece.access.and(page.access), page.cache));
        Ok(Step::Advance(1 << Self::page_log2(piece.level)))
    }

    /// Moves the whole page `page` of the granter. Needs the lock of the tree.
    ///
    /// # Errors
    /// [`NoMemory`]: the node is beyond the quota of the destination.
    fn move_page(
        &self,
        tree: &mut TreeGuard<'_>,
        piece: &Piece<'_>,
        place: &Place,
        page: Mapped,
        budget: &mut u32,
    ) -> Result<Step, NoMemory> {
        let access = piece.access.and(page.access);
        if access != page.access && !self.remove_derived(tree, page.node, budget) {
            return Ok(Step::Retry);
        }
        self.charge(piece.dest, size_of::<Node>())?;
        self.discharge(piece.source, size_of::<Node>());
        let node = self.mapdb.node(page.node);
        let status = self.clear_entry(node);
        node.keep(Kept::Reported, status);
        node.move_to(piece.dest_ref, piece.to);
        self.fill(place, page.node, self.leaf(piece.level, piece.frame, access, page.cache));
        Ok(Step::Advance(1 << Self::page_log2(piece.level)))
    }

    /// Writes an entry and its shadow. Needs the locks of space and tree.
    #[inline]
    pub(super) fn fill(&self, place: &Place, node: NodeRef, leaf: usize) {
        self.set_slot(place, Slot::of(node));
        self.machine.write(place.entry_at, leaf);
        self.trace_mapping(Event::MdbMap, self.mapdb.node(node), leaf);
    }

    /// Traces that the mapping of `node` by the entry `word` comes or goes.
    #[inline(always)]
    fn trace_mapping(&self, event: Event, node: &Node, word: usize) {
        self.machine.trace(event, || {
            let frame = match self.machine.format().decode(node.level(), word as u64) {
                Entry::Leaf(leaf) => leaf.frame,
                _ => 0,
            };
            [node.space().arg(), node.page(), frame, Self::page_log2(node.level()).into()]
        });
    }

    /// Takes away the entry of a node, and its shadow; returns the status that stood there. Needs the lock of the tree.
    pub(super) fn clear_entry(&self, node: &Node) -> Status {
        let (space, page, level) = (node.space(), node.page(), node.level());
        let place = self.walk(self.get(space), page, level);
        if node.is_detached() {
            self.set_slot(&place, Slot { node: None, ..self.slot(&place) });
            return Status::default();
        }
        let old = self.machine.update(place.entry_at, usize::MAX, 0);
        self.set_slot(&place, Slot::default());
        self.trace_mapping(Event::MdbUnmap, node, old);
        self.machine.invalidate(space, page as usize, Self::page_log2(level));
        match self.machine.format().decode(level, old as u64) {
            Entry::Leaf(leaf) => leaf.status,
            _ => unreachable!("a node in use has an entry"),
        }
    }
}
