//! sigma0's own pages: the roots of all mapping trees (X.2, sigma0).
//!
//! sigma0 owns all physical memory, each address at itself. Its space fills itself: a page is entered when sigma0
//! touches it or sends it, as a superpage where that is possible; one that gets a caching attribute of its own, or that
//! shares a superpage with the kernel's pages, is a small one. The frames at the addresses of sigma0's own KIP and
//! UTCBs, and those at addresses that are the kernel's, are sigma0's too: their roots are *detached*, they have a node and
//! a shadow but no entry.

use kformats::paging::{Access, PAGE_LOG2, PageFormat, PatIndex};

use super::{Place, Slot, Space, Spaces};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, NoMemory, SpaceRef};
use crate::mapdb::{LEVEL_MAX, NewMapping, Origin};

impl<M: Mmu> Spaces<'_, M> {
    /// Resolves a page fault of sigma0; `false` if `address` is not one of its own pages.
    ///
    /// # Errors
    /// [`NoMemory`]: no memory for tables or the node.
    pub fn sigma0_fault(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        address: usize,
    ) -> Result<bool, NoMemory> {
        let (slot, address) = (self.get(space), address as u64);
        if address >= self.config.user_end.min(self.config.physical_end) || slot.is_protected(address, 0) {
            return Ok(false);
        }
        self.provide_root(held, space, address, LEVEL_MAX).map(|()| true)
    }

    /// Makes sure that sigma0's `space` has the page at `address`, no larger than the range from there to `end` if that
    /// can be helped. The kernel's pages are left out.
    pub(super) fn provide_part(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        address: u64,
        end: u64,
    ) -> Result<(), NoMemory> {
        let slot = self.get(space);
        if address >= self.config.user_end || slot.is_protected(address, PAGE_LOG2) {
            return Ok(());
        }
        let fits = |level: &u32| {
            let size = 1 << Self::page_log2(*level);
            address.is_multiple_of(size) && end - address >= size
        };
        let level = (0..=LEVEL_MAX).rev().find(fits).unwrap_or(0);
        let found = self.walk(slot, address, 0);
        if found.level > level && found.word != 0 {
            self.divide_root(held, slot, address)?;
        }
        self.provide_root(held, space, address, level)
    }

    /// Puts a table in the place of the superpage that sigma0 has at `address`, if nothing is derived from it.
    fn divide_root(&self, held: &mut Held<{ rank::NONE }>, slot: &Space, address: u64) -> Result<(), NoMemory> {
        let mut guard = slot.lock.lock(held);
        let (table, shadow) = self.alloc_pair(guard.held())?;
        let mut tree = self.mapdb.tree(address).lock(guard.held());
        let place = self.walk(slot, address, 0);
        let page = self.mapped(slot, &place, address).filter(|page| page.level > 0);
        match page.filter(|page| self.mapdb.node(page.node).child().is_none()) {
            Some(page) => {
                self.remove_node(&mut tree, page.node);
                self.link_table(&place, table, shadow);
            }
            None => self.free_pair(tree.held(), table, shadow),
        }
        Ok(())
    }

    /// Makes sure that sigma0's `space` has the page at `address`, which is below [`Self::root_end`], with all rights. A
    /// fresh one has `level_max` or the highest level below it that is possible.
    pub(super) fn provide_root(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        address: u64,
        level_max: u32,
    ) -> Result<(), NoMemory> {
        let slot = self.get(space);
        let place = self.walk(slot, address, 0);
        if self.mapped(slot, &place, address).is_some_and(|page| page.access == Access::FULL) {
            return Ok(());
        }
        let mut guard = slot.lock.lock(held);
        let level = self.root_level(slot, address).min(level_max).min(self.walk(slot, address, 0).level);
        let node = self.mapdb.alloc(self.machine, self.kmem, guard.held())?;
        let place = self.make_tables(guard.held(), slot, address, level);
        let place = place.inspect_err(|_| self.mapdb.free(self.machine, self.kmem, guard.held(), node))?;
        let mut tree = self.mapdb.tree(address).lock(guard.held());
        let place = self.reload(&place, address);
        match self.mapped(slot, &place, address) {
            Some(page) => {
                self.allow(&place, page.access, Access::FULL);
                self.mapdb.free(self.machine, self.kmem, tree.held(), node);
            }
            None => {
                let frame = address >> Self::page_log2(level) << Self::page_log2(level);
                self.mapdb.enter(&mut tree, node, Origin::Nothing, NewMapping { space, page: frame, level });
                self.set_slot(&place, Slot { node: Some(node), ..self.slot(&place) });
                if frame >= self.config.user_end || slot.is_protected(frame, Self::page_log2(level)) {
                    self.mapdb.node(node).set_detached();
                } else {
                    let leaf = self.leaf(level, frame, Access::FULL, PatIndex::default());
                    self.machine.write(place.entry_at, leaf);
                }
            }
        }
        Ok(())
    }

    /// The level at which sigma0 has the page at `address`.
    fn root_level(&self, space: &Space, address: u64) -> u32 {
        let size_log2 = Self::page_log2(LEVEL_MAX);
        let page = address >> size_log2 << size_log2;
        if page >= self.config.user_end {
            return LEVEL_MAX;
        }
        let is_whole = page + (1 << size_log2) <= self.config.user_end && !space.is_protected(page, size_log2);
        if is_whole && self.machine.format().leaf_allowed(LEVEL_MAX) { LEVEL_MAX } else { 0 }
    }

    /// Adds rights to an entry that has `old`. A processor that still knows the old ones faults once and looks again.
    /// Needs the lock of the tree.
    #[inline]
    pub(super) fn allow(&self, place: &Place, old: Access, more: Access) {
        if !old.covers(more) && place.word != 0 {
            let edit = self.machine.format().set_access(old.or(more));
            self.machine.update(place.entry_at, edit.clear as usize, edit.set as usize);
        }
    }
}
