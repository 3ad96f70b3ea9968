//! The usual map item: one page of the smallest size, to where nothing is and a table is there for it.
//!
//! It is what a pager answers a page fault with. [`Spaces::map`] could do it as well, and does when anything is unusual;
//! here everything is looked up once, and nothing is changed unless all of it is as it should be.

use kformats::paging::{Entry, PAGE_LOG2, PageFormat};
use l4_abi::{Fpage, MapItem, MapKind};

use super::{PAGE_SIZE, Space, Spaces, access_of};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, SpaceRef};
use crate::mapdb::{NewMapping, Node};
use crate::sync::{Ordering, fence};

/// A page that is to be mapped: the operands of [`Spaces::map_page_at_once`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageTransfer {
    /// The page in the sender's space, with the rights to pass.
    pub page: Fpage,
    /// Its address in the receiver's space, which takes mappings anywhere.
    pub to: u64,
}

impl PageTransfer {
    /// What `item` comes to with a receive window that is complete; `None` if that is not a page of the smallest size.
    #[inline(always)]
    pub(crate) fn of(item: MapItem) -> Option<Self> {
        let page = item.fpage;
        let is_usual = page.size_field() == PAGE_LOG2 && item.kind == MapKind::Map && !page.rights().is_empty();
        is_usual.then_some(Self { page, to: item.snd_base as u64 & !(PAGE_SIZE - 1) })
    }
}

impl<M: Mmu> Spaces<'_, M> {
    /// Maps a page of `source`, which has it as one of the smallest size, to `dest`, which has threads, if that is the usual
    /// case. `None`: it is not, or there is no memory for that, and nothing has changed.
    #[inline(always)]
    pub(crate) fn map_page_at_once(
        &self,
        held: &mut Held<{ rank::NONE }>,
        source: &Space,
        (dest_ref, dest): (SpaceRef, &Space),
        PageTransfer { page, to }: PageTransfer,
    ) -> Option<()> {
        let from = page.raw() as u64 & !(PAGE_SIZE - 1);
        debug_assert!(dest.is_initialised() && dest.threads() > 0, "it has threads, and will have them");
        if !self.may_map_page(source, from) || !self.may_map_page(dest, to) || dest.is_protected(to, PAGE_LOG2) {
            return None;
        }
        let tables_taken_out = source.tables_taken_out.get();
        fence(Ordering::Acquire);
        let is_certain = || source.tables_taken_out.get() == tables_taken_out;
        let found = self.walk_to_page(source, from, is_certain)?;
        let Entry::Leaf(leaf) = self.machine.format().decode(0, found.word) else { return None };
        let mut guard = dest.lock.lock(held);
        // Tables of a space whose lock is held stay.
        let place = self.walk_to_page(dest, to, || true).filter(|place| place.word == 0)?;
        let mut tree = self.mapdb.lock_tree(leaf.frame, guard.held());
        let again = self.reread(&found);
        fence(Ordering::Acquire);
        if again.word != found.word || !is_certain() {
            return None;
        }
        let parent = self.slot(&found).node?;
        let mapping = NewMapping { space: dest_ref, page: to, level: 0 };
        self.charge(dest, size_of::<Node>()).ok()?;
        let node = self.mapdb.add_child(self.machine, self.kmem, &mut tree, parent, mapping);
        let node = node.inspect_err(|_| self.discharge(dest, size_of::<Node>())).ok()?;
        let format = self.machine.format();
        let access = format.effective(access_of(page.rights()));
        self.fill(&place, node, format.derived(found.word, access) as usize);
        Some(())
    }

    /// Whether pages at `address` in `space` are mapped without further ado.
    #[inline(always)]
    fn may_map_page(&self, space: &Space, address: u64) -> bool {
        address < self.config.user_end && !space.is_sigma0()
    }
}
