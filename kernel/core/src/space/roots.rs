//! sigma0's own pages: the roots of all mapping trees (X.2, sigma0).
//!
//! sigma0 owns all physical memory, each address at itself. Its space fills itself: a page is entered when sigma0
//! touches it or sends it, as a superpage where that is possible; one that gets a caching attribute of its own, or that
//! shares a superpage with the kernel's pages, is a small one. The frames at the addresses of sigma0's own KIP and
//! UTCBs, and those at addresses that are the kernel's, are sigma0's too: their roots are *detached*, they have a node and
//! a shadow but no entry.

use kformats::paging::{Access, Entry, PAGE_LOG2, PageFormat, PatIndex};

use super::account::TABLE;
use super::clear::{Cleared, Clearing};
use super::{Place, Slot, Space, Spaces};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, NoMemory, SpaceRef};
use crate::mapdb::{LEVEL_MAX, NewMapping, Origin, SUPERPAGE};

/// What is asked for in sigma0's space, as levels.
#[derive(Clone, Copy, Debug)]
pub(super) struct RootSizes {
    /// Smaller pages give way to one of this level, if nothing is derived from them and they have no caching attribute.
    /// What is known of accesses to them is forgotten.
    pub least: u32,
    /// A fresh page has this level at most.
    pub most: u32,
}

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
        let sizes = RootSizes { least: 0, most: SUPERPAGE };
        self.provide_root(held, space, address, sizes, &mut 0)
    }

    /// Makes sure that sigma0's `space` has the page at `address`, no larger than the range from there to `end` if that
    /// can be helped. The kernel's pages are left out.
    pub(super) fn provide_part(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        address: u64,
        end: u64,
        budget: &mut u32,
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
        self.provide_root(held, space, address, RootSizes { least: 0, most: level }, budget).map(|_| ())
    }

    /// Puts a table in the place of the superpage that sigma0 has at `address`, if nothing is derived from it.
    fn divide_root(&self, held: &mut Held<{ rank::NONE }>, slot: &Space, address: u64) -> Result<(), NoMemory> {
        let mut guard = slot.lock.lock(held);
        self.charge(slot, TABLE)?;
        let pair = self.alloc_pair(guard.held()).inspect_err(|_| self.discharge(slot, TABLE));
        let (table, shadow) = pair?;
        let mut tree = self.mapdb.lock_tree(address, guard.held());
        let place = self.walk(slot, address, 0);
        let page = self.mapped(slot, &place, address).filter(|page| page.level > 0);
        match page.filter(|page| self.mapdb.node(page.node).child().is_none()) {
            Some(page) => {
                self.remove_node(&mut tree, page.node);
                self.link_table(&place, table, shadow);
            }
            None => {
                self.free_pair(tree.held(), table, shadow);
                self.discharge(slot, TABLE);
            }
        }
        Ok(())
    }

    /// Makes sure that sigma0's `space` has the page at `address`, which is below [`Self::root_end`], with all rights.
    /// `false` if something that is in the way was made less: then again.
    pub(super) fn provide_root(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        address: u64,
        sizes: RootSizes,
        budget: &mut u32,
    ) -> Result<bool, NoMemory> {
        let slot = self.get(space);
        if self.has_all_rights(slot, &self.walk(slot, address, 0), address, sizes.least) {
            return Ok(true);
        }
        let mut guard = slot.lock.lock(held);
        let found = self.walk(slot, address, 0);
        if found.level < sizes.least && self.root_fits(slot, address, sizes.least) {
            let above = self.walk(slot, address, sizes.least);
            let cleared = self.clear_table(guard.held(), slot, &above, address, Clearing::Unused, budget);
            drop(guard);
            match cleared {
                Cleared::Kept => guard = slot.lock.lock(held),
                Cleared::Partly => return Ok(false),
                Cleared::TakenOut(table) => {
                    self.free_table(held, space, &table);
                    return Ok(false);
                }
            }
        }
        self.enter_root(guard.held(), space, address, sizes.most)
    }

    /// Whether sigma0 has a page of `level` at least at `address`, with all rights. That of a detached one is not told.
    fn has_all_rights(&self, slot: &Space, place: &Place, address: u64, level: u32) -> bool {
        let is_users = address < self.config.user_end && !slot.is_protected(address, PAGE_LOG2);
        let is_large_enough = place.level >= level || !self.root_fits(slot, address, level);
        is_users && is_large_enough && matches!(self.entry(place), Entry::Leaf(leaf) if leaf.access == Access::FULL)
    }

    /// Gives the page that sigma0 has at `address` all rights, or enters one, of `level_max` or the highest level below that
    /// is possible. Needs the lock of its space.
    fn enter_root(
        &self,
        held: &mut Held<{ rank::SPACE }>,
        space: SpaceRef,
        address: u64,
        level_max: u32,
    ) -> Result<bool, NoMemory> {
        let slot = self.get(space);
        let mut tree = self.mapdb.lock_tree(address, held);
        let place = self.walk(slot, address, 0);
        if let Some(page) = self.mapped(slot, &place, address) {
            self.allow(&place, page.access, Access::FULL);
            return Ok(true);
        }
        let level =
            (0..=level_max.min(place.level)).rev().find(|level| self.root_fits(slot, address, *level)).unwrap_or(0);
        drop(tree);
        let node = self.alloc_node(held, slot)?;
        let place = self.make_tables(held, slot, address, level);
        let place = place.inspect_err(|_| self.free_node(held, slot, node))?;
        self.mapdb.prepare_root(address, level, held);
        tree = self.mapdb.lock_tree(address, held);
        let frame = address >> Self::page_log2(level) << Self::page_log2(level);
        self.mapdb.enter(&mut tree, node, Origin::Nothing, NewMapping { space, page: frame, level });
        self.set_slot(&place, Slot { node: Some(node), ..self.slot(&place) });
        if frame >= self.config.user_end || slot.is_protected(frame, Self::page_log2(level)) {
            self.mapdb.node(node).set_detached();
        } else {
            self.machine.write(place.entry_at, self.leaf(level, frame, Access::FULL, PatIndex::default()));
        }
        Ok(true)
    }

    /// Whether sigma0 can have a page of `level` around `address`.
    fn root_fits(&self, space: &Space, address: u64, level: u32) -> bool {
        let size_log2 = Self::page_log2(level);
        let page = address >> size_log2 << size_log2;
        if page >= self.config.user_end {
            return level == SUPERPAGE;
        }
        let is_whole = page + (1 << size_log2) <= self.config.user_end && !space.is_protected(page, size_log2);
        is_whole && self.machine.format().leaf_allowed(level)
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
