//! Room for larger pages: a table in whose place one shall be is emptied, taken out and freed.
//!
//! Walks take no lock, so somebody may still be looking at a table that is taken out. Three things make that harmless:
//! - A table is taken out under the lock of its space, when it is empty; so nothing is filled in any more. What is mapped
//!   through a table, and cannot be cleared because the lock of its tree is held, keeps the table where it is.
//! - Before the way to the table is cut for good, the space's count of tables taken out rises. A walk reads that count
//!   before and after it reads an entry, and begins again if the two differ; what was read in between is not used, not
//!   even as an address.
//! - Processors forget the way to the table before its frames are freed.

use kformats::paging::{Entry, PageFormat, PatIndex};

use super::account::TABLE;
use super::tables::SCANNED_FOR_ONE;
use super::{Place, Slot, Space, Spaces, spend};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, PhysAddr, SpaceRef};
use crate::sync::{Ordering, fence};

/// Which mappings may be removed to empty a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clearing {
    /// All.
    All,
    /// Those from which nothing is derived, and which have the default memory type.
    Unused,
}

/// What became of a table that was to be emptied.
#[derive(Debug)]
#[must_use = "frames that were taken out are freed"]
pub(super) enum Cleared {
    /// There is more to do.
    Partly,
    /// Something in it may not be removed.
    Kept,
    /// A table was taken out, if not the one that was meant, then one below it. [`Spaces::free_table`] takes it.
    TakenOut(TakenOut),
}

/// A table that nothing leads to any more.
#[derive(Debug)]
pub(super) struct TakenOut {
    table: PhysAddr,
    shadow: PhysAddr,
    /// Where it was.
    address: u64,
    size_log2: u32,
}

impl<M: Mmu> Spaces<'_, M> {
    /// Does a part of emptying the table to which `above`, an entry for `address`, leads. Needs the lock of the space.
    pub(super) fn clear_table(
        &self,
        held: &mut Held<{ rank::SPACE }>,
        space: &Space,
        above: &Place,
        address: u64,
        which: Clearing,
        budget: &mut u32,
    ) -> Cleared {
        let Some((table, shadow)) = self.below(above) else { return Cleared::Partly };
        let level = above.level - 1;
        let first = address >> Self::page_log2(above.level) << Self::page_log2(above.level);
        for index in 0..1 << M::Format::INDEX_BITS {
            let address = first + (index << Self::page_log2(level));
            let place = self.place(level, table, shadow, address);
            match self.entry(&place) {
                Entry::Empty => {}
                Entry::Table(_) => return self.clear_table(held, space, &place, address, which, budget),
                Entry::Leaf(leaf) => match self.clear_leaf(held, space, &place, address, (leaf.frame, which), budget) {
                    Some(true) if spend(budget) => {}
                    Some(_) => return Cleared::Partly,
                    None => return Cleared::Kept,
                },
            }
        }
        *budget = budget.saturating_sub((1 << M::Format::INDEX_BITS) / SCANNED_FOR_ONE as u32);
        self.machine.write(above.entry_at, 0);
        space.tables_taken_out.set(space.tables_taken_out.get().wrapping_add(1));
        fence(Ordering::Release);
        self.set_slot(above, Slot::default());
        Cleared::TakenOut(TakenOut { table, shadow, address: first, size_log2: Self::page_log2(above.level) })
    }

    /// Removes a page, with what is derived from it; whether it is gone. `None` if it may not be.
    fn clear_leaf(
        &self,
        held: &mut Held<{ rank::SPACE }>,
        space: &Space,
        place: &Place,
        address: u64,
        (frame, which): (u64, Clearing),
        budget: &mut u32,
    ) -> Option<bool> {
        let mut tree = self.mapdb.lock_tree(frame, held);
        // It can have been removed, but nothing was filled in.
        let place = self.reread(place);
        let Some(page) = self.mapped(space, &place, address) else { return Some(true) };
        let is_used = self.mapdb.node(page.node).child().is_some() || page.cache != PatIndex::default();
        if which == Clearing::Unused && is_used {
            return None;
        }
        Some(self.remove_tree(&mut tree, page.node, budget))
    }

    /// Frees a table that was taken out of `space`.
    pub(super) fn free_table(&self, held: &mut Held<{ rank::NONE }>, space: SpaceRef, gone: &TakenOut) {
        self.machine.invalidate(space, gone.address as usize, gone.size_log2);
        self.machine.complete();
        self.free_pair(held, gone.table, gone.shadow);
        self.discharge(self.get(space), TABLE);
    }
}
