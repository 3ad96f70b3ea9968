//! Unmap and flush (X.2, Unmap), and the caching attributes of MemoryControl, which go the same way (X.2, MemoryControl).
//!
//! For each page of the fpage the mappings derived from it are visited, with flush the page itself, too. All rights
//! revoked: they are removed. Otherwise they lose rights and their access status is reset. Where rules leave a choice:
//! - Of a superpage of which the fpage covers a part, those derived mappings are meant whose frames meet the part, each
//!   with all that is derived from it; with flush the superpage is meant as a whole.
//! - The status of a page itself is only reported with flush. What derived mappings did stays known: an unmap by the
//!   space from which the page came reports it again.
//! - Without the right to write revoked, or to execute where the processor knows that, rights stay as they are.
//! - A caching attribute for a part of a superpage becomes that of the superpage, and of those derived mappings that meet
//!   the part. A superpage of sigma0 from which nothing is derived is divided instead.
//!
//! A tree is removed from the top: each child of the top gives its own children to the top, behind itself, and goes. So
//! nothing must be remembered between steps, however deep the tree is. Reducing rights goes through the tree parents first, so that no
//! new mapping can get a right that is being revoked; there the cursor remembers the place. Should others remove that
//! place again and again, the derived mappings are removed as a whole, which revokes their rights, too.

use kformats::paging::{Access, Entry, Leaf, PAGE_LOG2, PageFormat, PatIndex, Status};
use l4_abi::{Fpage, Rights};

use super::{PAGE_SIZE, Place, Space, Spaces, access_of, spend};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, NodeRef, SpaceRef};
use crate::mapdb::{Kept, MapCursor, Node, Position, Progress, TreeGuard, UnmapScope, merge};
use crate::trace::{Arg, Event, args};

/// Restarts after which a walk through a tree does not insist on it any more.
const RESTARTS_MAX: u8 = 8;

/// What happens to mappings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// They lose these rights; if these are all, they go.
    Revoke(Rights),
    /// They get this memory type.
    Cache(PatIndex),
}

/// A change of the pages in a range.
struct Range<'a> {
    space_ref: SpaceRef,
    space: &'a Space,
    begin: u64,
    end: u64,
    change: Change,
    scope: UnmapScope,
}

/// A change of one page and of the mappings derived from it.
struct Revocation {
    top: NodeRef,
    change: Change,
    scope: UnmapScope,
    /// The first and the last physical address that is meant; `None` if all of the page is.
    part: Option<(u64, u64)>,
}

impl<M: Mmu> Spaces<'_, M> {
    /// Revokes the rights of `fpage` in what is derived from the pages of `space` there, with flush in these themselves.
    /// [`MapCursor::status`] tells in the end how they were accessed; `cursor` is reset before the first step.
    pub fn unmap(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        fpage: Fpage,
        scope: UnmapScope,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        if self.machine.traces(Event::FpageMapctrl.bit()) && cursor.is_at_begin() {
            let is_flush = (scope == UnmapScope::Flush).into();
            self.machine.trace(Event::FpageMapctrl, || args([space.arg(), fpage.raw() as u64, is_flush]));
        }
        self.change_range(held, &self.range_of(space, fpage, Change::Revoke(fpage.rights()), scope), cursor, budget)
    }

    /// Gives the pages of `space` in `fpage`, and what is derived from them, the memory type `cache`; `cursor` is reset
    /// before the first step. sigma0 is given those that it owns but never used, unless the fpage is the complete space.
    pub fn set_cache(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        fpage: Fpage,
        cache: PatIndex,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        let range = self.range_of(space, fpage, Change::Cache(cache), UnmapScope::Flush);
        self.change_range(held, &range, cursor, budget)
    }

    fn range_of(&self, space_ref: SpaceRef, fpage: Fpage, change: Change, scope: UnmapScope) -> Range<'_> {
        let space = self.get(space_ref);
        let begin = fpage.base() as u64 & !(PAGE_SIZE - 1);
        let end = (fpage.last() as u64 | (PAGE_SIZE - 1)).saturating_add(1).min(self.end_of(space));
        Range { space_ref, space, begin, end: if fpage.is_nil() { begin } else { end }, change, scope }
    }

    fn change_range(
        &self,
        held: &mut Held<{ rank::NONE }>,
        range: &Range<'_>,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        let provides = range.space.is_sigma0()
            && matches!(range.change, Change::Cache(_))
            && (range.begin, range.end) != (0, self.end_of(range.space));
        loop {
            // User code may have changed the fpage since the last step.
            let address = range.begin.saturating_add((cursor.pages.get() as u64) << PAGE_LOG2);
            if address >= range.end {
                return Progress::Done;
            }
            if !spend(budget) {
                return Progress::Again;
            }
            if provides && self.provide_part(held, range.space_ref, address, range.end, budget).is_err() {
                return Progress::NoMemory;
            }
            let next = self.change_page(held, range, address, cursor, budget);
            cursor.pages.set(((next - range.begin) >> PAGE_LOG2) as usize);
        }
    }

    /// Changes the page at `address`. Returns the address to go on with: the same one if there is more to do.
    fn change_page(
        &self,
        held: &mut Held<{ rank::NONE }>,
        range: &Range<'_>,
        address: u64,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> u64 {
        let Range { space, end, change, scope, .. } = *range;
        let place = self.walk(space, address, 0);
        let size_log2 = Self::page_log2(place.level);
        let next = ((address >> size_log2) + 1) << size_log2;
        let Some(frame) = self.frame_at(space, &place, address) else {
            return if place.word == 0 { self.skip_hole(space, &place, address, end, budget) } else { next };
        };
        let mut tree = self.mapdb.lock_tree(frame, held);
        let page = self.reload(space, &place, address).and_then(|place| self.mapped(space, &place, address));
        let Some(page) = page.filter(|page| page.frame == frame) else { return address };
        let (first, last) = (low(address, size_log2), low(next.min(end) - 1, size_log2));
        let is_flush = scope == UnmapScope::Flush && matches!(change, Change::Revoke(_));
        let is_whole = is_flush || last - first == low(u64::MAX, size_log2);
        let part = (!is_whole).then_some((frame + first, frame + last));
        let what = Revocation { top: page.node, change, scope, part };
        if self.change(&mut tree, &what, cursor, budget) { next } else { address }
    }

    /// Changes one page and what is derived from it; `false` if there is more to do. Needs the lock of the tree, as all
    /// below.
    fn change(&self, tree: &mut TreeGuard<'_>, what: &Revocation, cursor: &MapCursor, budget: &mut u32) -> bool {
        match what.change {
            Change::Revoke(rights) => self.revoke(tree, what, rights, cursor, budget),
            Change::Cache(cache) => {
                self.recache(self.mapdb.node(what.top), cache);
                self.change_derived(tree, what, cursor, budget)
            }
        }
    }

    fn revoke(
        &self,
        tree: &mut TreeGuard<'_>,
        what: &Revocation,
        rights: Rights,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> bool {
        let top = self.mapdb.node(what.top);
        if what.scope == UnmapScope::Derived {
            if !self.change_derived(tree, what, cursor, budget) {
                return false;
            }
            let status = top.take(Kept::Derived);
            top.keep(Kept::Reported, status);
            cursor.collect(status);
        } else if rights == Rights::ALL {
            if !self.remove_derived(tree, what.top, budget) {
                return false;
            }
            cursor.collect(self.remove_node(tree, what.top));
        } else {
            top.keep(Kept::Reported, self.restrict(top, rights));
            if !self.change_derived(tree, what, cursor, budget) {
                return false;
            }
            let status = merge(top.take(Kept::Reported), top.take(Kept::Derived));
            if let Some(parent) = top.parent() {
                self.mapdb.node(parent).keep(Kept::Derived, status);
            }
            cursor.collect(status);
        }
        true
    }

    /// Changes what is derived from the top; its status goes to the top. `false` if there is more to do.
    fn change_derived(
        &self,
        tree: &mut TreeGuard<'_>,
        what: &Revocation,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> bool {
        let first = self.mapdb.node(what.top).child();
        let Some(mut at) = cursor.resume(&self.mapdb, what.top).or(first.map(Position::Visit)) else { return true };
        if cursor.restarts.get() > RESTARTS_MAX {
            let is_harmless = |rights| access_of(rights) == Access::READ_ONLY;
            return matches!(what.change, Change::Revoke(rights) if is_harmless(rights))
                || self.remove_derived(tree, what.top, budget);
        }
        loop {
            let next = match at {
                Position::Leave(node) => self.leave(what.top, node),
                Position::Visit(node) if !self.is_meant(what, node) => self.leave(what.top, node),
                Position::Visit(node) if what.change == Change::Revoke(Rights::ALL) => {
                    let next = self.leave(what.top, node);
                    if !self.remove_tree(tree, node, budget) {
                        cursor.park(&self.mapdb, what.top, at);
                        return false;
                    }
                    next
                }
                Position::Visit(node) => {
                    let slot = self.mapdb.node(node);
                    match what.change {
                        Change::Revoke(rights) => {
                            let kept = merge(slot.take(Kept::Reported), slot.take(Kept::Derived));
                            let status = merge(self.restrict(slot, rights), kept);
                            self.mapdb.node(what.top).keep(Kept::Derived, status);
                        }
                        Change::Cache(cache) => self.recache(slot, cache),
                    }
                    Some(slot.child().map_or(Position::Leave(node), Position::Visit))
                }
            };
            let Some(next) = next else { return true };
            if !spend(budget) {
                cursor.park(&self.mapdb, what.top, next);
                return false;
            }
            at = next;
        }
    }

    /// The place after all that is below `node`; `None` at the end of what is below `top`.
    fn leave(&self, top: NodeRef, node: NodeRef) -> Option<Position> {
        let node = self.mapdb.node(node);
        match (node.next(), node.parent()) {
            (Some(next), _) => Some(Position::Visit(next)),
            (None, Some(parent)) if parent != top => Some(Position::Leave(parent)),
            _ => None,
        }
    }

    /// Whether `node` is meant: children of the top by their frames, others with their parents.
    fn is_meant(&self, what: &Revocation, node: NodeRef) -> bool {
        let node = self.mapdb.node(node);
        let Some((first, last)) = what.part.filter(|_| node.parent() == Some(what.top)) else { return true };
        let (_, leaf) = self.leaf_of(node).expect("a derived mapping has an entry");
        leaf.frame <= last && first <= leaf.frame + low(u64::MAX, Self::page_log2(node.level()))
    }

    /// The entry of a node, which has none if it is detached. Certain under the lock of the tree.
    pub(super) fn leaf_of(&self, node: &Node) -> Option<(Place, Leaf)> {
        if node.is_detached() {
            return None;
        }
        let place = self.walk(self.get(node.space()), node.page(), node.level());
        let Entry::Leaf(leaf) = self.entry(&place) else { unreachable!("a node in use has an entry") };
        Some((place, leaf))
    }

    /// Takes rights from the entry of a node and resets its status, which is returned.
    fn restrict(&self, node: &Node, rights: Rights) -> Status {
        let Some((place, leaf)) = self.leaf_of(node) else { return Status::default() };
        let format = self.machine.format();
        let edit = format.set_access(leaf.access.without(access_of(rights)));
        let clear = (edit.clear | format.reset_status().clear) as usize;
        let entry = self.machine.read(place.entry_at);
        if entry & clear == 0 && entry & edit.set as usize == edit.set as usize {
            return Status::default();
        }
        let old = self.machine.update(place.entry_at, clear, edit.set as usize);
        self.machine.invalidate(node.space(), node.page() as usize, Self::page_log2(place.level));
        match format.decode(place.level, old as u64) {
            Entry::Leaf(leaf) => leaf.status,
            _ => unreachable!("entries are cleared under the lock of the tree"),
        }
    }

    /// Gives the entry of a node another memory type. Its status stays.
    fn recache(&self, node: &Node, cache: PatIndex) {
        let Some((place, leaf)) = self.leaf_of(node) else { return };
        if leaf.cache != cache {
            let edit = self.machine.format().set_cache(place.level, cache);
            self.machine.update(place.entry_at, edit.clear as usize, edit.set as usize);
            self.machine.invalidate(node.space(), node.page() as usize, Self::page_log2(place.level));
        }
    }

    /// Removes a mapping and all that is derived from it; `false` if there is more to do.
    pub(super) fn remove_tree(&self, tree: &mut TreeGuard<'_>, top: NodeRef, budget: &mut u32) -> bool {
        let is_bare = self.remove_derived(tree, top, budget);
        if is_bare {
            self.remove_node(tree, top);
        }
        is_bare
    }

    /// Removes all that is derived from a mapping; `false` if there is more to do. Does something in any case.
    pub(super) fn remove_derived(&self, tree: &mut TreeGuard<'_>, top: NodeRef, budget: &mut u32) -> bool {
        while let Some(child) = self.mapdb.node(top).child() {
            match self.mapdb.node(child).child() {
                Some(grandchild) => self.mapdb.lift(tree, grandchild, child),
                None => {
                    self.remove_node(tree, child);
                }
            }
            if !spend(budget) {
                return self.mapdb.node(top).child().is_none();
            }
        }
        true
    }

    /// Removes a mapping from which none is derived; returns how it was accessed.
    pub(super) fn remove_node(&self, tree: &mut TreeGuard<'_>, node: NodeRef) -> Status {
        let slot = self.mapdb.node(node);
        // Once the entry is gone, so may be the space.
        self.discharge(self.get(slot.space()), size_of::<Node>());
        let status = self.clear_entry(slot);
        let status = self.mapdb.remove(tree, node, status);
        self.mapdb.free(self.machine, self.kmem, tree.held(), node);
        status
    }
}

/// The lowest `count` bits of `address`.
fn low(address: u64, count: u32) -> u64 {
    address & ((1 << count) - 1)
}
