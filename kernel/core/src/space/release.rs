//! The end of a space: its mappings and ports are flushed, then its tables and the kernel's pages are freed (X.2, ThreadControl,
//! deletion of the last thread of a space).

use kformats::paging::{Entry, PAGE_LOG2};
use l4_abi::{Fpage, IoFpage, Rights};

use super::account::{FRAME, TABLE};
use super::tables::KernelPage;
use super::{Slot, Space, Spaces, spend};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, PhysAddr, SpaceRef};
use crate::mapdb::{MapCursor, Phase, Progress, UnmapScope};

impl<M: Mmu> Spaces<'_, M> {
    /// Releases a space in which no thread is and which no other operation names; `cursor` is reset before the first
    /// step. Between two steps the invalidations that were asked for are completed.
    pub fn release(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        let slot = self.get(space);
        if cursor.phase.get() == Phase::Begin {
            // Whoever is about to fill an entry has the lock; later ones see that there is no space for them.
            let guard = slot.lock.lock(held);
            slot.is_initialised.set(false);
            drop(guard);
            let everything = Fpage::COMPLETE.with_rights(Rights::ALL);
            if self.unmap(held, space, everything, UnmapScope::Flush, cursor, budget) == Progress::Done {
                cursor.enter(Phase::Ports);
            }
            return Progress::Again;
        }
        if cursor.phase.get() == Phase::Ports {
            if self.unmap_ports(held, space, IoFpage::COMPLETE, UnmapScope::Flush, cursor, budget) == Progress::Done {
                self.machine.invalidate_all(space);
                cursor.enter(Phase::End);
            }
            return Progress::Again;
        }
        loop {
            let address = (cursor.pages.get() as u64) << PAGE_LOG2;
            if address >= self.config.user_end {
                break;
            }
            if !spend(budget) {
                return Progress::Again;
            }
            let next = self.free_table_at(held, slot, address, budget);
            cursor.pages.set((next >> PAGE_LOG2) as usize);
        }
        self.free_ports(held, space);
        debug_assert!(slot.account.used() == TABLE + size_of::<Space>(), "what was taken is given back");
        self.free_pair(held, slot.root.get(), slot.shadow.get());
        self.free_slot(held, space);
        Progress::Done
    }

    /// Frees the kernel's page at `address`, and the table there if its last entry has been looked at. Returns the address
    /// to go on with.
    fn free_table_at(&self, held: &mut Held<{ rank::NONE }>, space: &Space, address: u64, budget: &mut u32) -> u64 {
        let end = self.config.user_end;
        let (above, place) = self.walk_path(space, address);
        if let Entry::Leaf(leaf) = self.entry(&place) {
            let kernel = self.slot(&place).kernel.expect("all pages of users are flushed");
            self.machine.write(place.entry_at, 0);
            self.set_slot(&place, Slot::default());
            if matches!(kernel, KernelPage::Utcbs(_)) {
                self.kmem.free(self.machine, held, PhysAddr(leaf.frame));
                self.discharge(space, FRAME);
            }
            return address;
        }
        let next = self.skip_hole(space, &place, address, end, budget);
        let is_last = next == end || next.is_multiple_of(1 << Self::page_log2(place.level + 1));
        match above.filter(|_| is_last) {
            Some(above) => {
                let (table, shadow) = self.below(&above).expect("a table is below");
                self.machine.write(above.entry_at, 0);
                self.set_slot(&above, Slot::default());
                self.free_pair(held, table, shadow);
                self.discharge(space, TABLE);
                address
            }
            None => next,
        }
    }
}
