//! The kernel's pages in user spaces: the kernel interface page and the UTCBs.

use kformats::paging::{Access, Entry, PAGE_LOG2, PatIndex};
use l4_abi::Fpage;

use super::account::FRAME;
use super::tables::KernelPage;
use super::{PAGE_SIZE, Place, Slot, Spaces};
use crate::lock::{Held, rank};
use crate::machine::{Mmu, NoMemory, PhysAddr, SpaceRef};

impl<M: Mmu> Spaces<'_, M> {
    /// Gives a space its areas and maps the kernel interface page (X.2, SpaceControl). The areas are inside user memory,
    /// of at least the sizes that the KIP demands, and do not overlap. After an error the space is as before.
    ///
    /// # Errors
    /// [`NoMemory`]: no frames for tables.
    pub fn initialise(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        kip_area: Fpage,
        utcb_area: Fpage,
    ) -> Result<(), NoMemory> {
        let slot = self.get(space);
        let mut guard = slot.lock.lock(held);
        if slot.is_initialised.get() {
            return Ok(());
        }
        let place = self.make_tables(guard.held(), slot, kip_area.base() as u64, 0)?;
        let access = Access { write: false, execute: true };
        self.enter_kernel_page(&place, self.config.kip, access, KernelPage::Shared);
        slot.kip_area.set(kip_area);
        slot.utcb_area.set(utcb_area);
        slot.is_initialised.set(true);
        Ok(())
    }

    /// Gives one more thread a UTCB at `address`, in the UTCB area, whose page is mapped if it was not; returns the
    /// physical address. After an error nothing has changed.
    ///
    /// # Errors
    /// [`NoMemory`]: no frames for the page or for tables.
    pub fn add_utcb(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        address: usize,
    ) -> Result<PhysAddr, NoMemory> {
        let slot = self.get(space);
        let address = address as u64;
        debug_assert!(slot.utcb_area().contains(address as _), "UTCBs are in the UTCB area");
        let mut guard = slot.lock.lock(held);
        let place = self.walk(slot, address, 0);
        let frame = match (self.entry(&place), self.slot(&place)) {
            (Entry::Leaf(leaf), Slot { node, kernel: Some(KernelPage::Utcbs(count)) }) => {
                self.set_slot(&place, Slot { node, kernel: Some(KernelPage::with_one_more(count)) });
                PhysAddr(leaf.frame)
            }
            _ => {
                let mut claim = self.reserve_tables(guard.held(), slot, address, 0, 1)?;
                let place = self.walk_and_fill(guard.held(), slot, address, 0, &mut claim);
                let frame = self.kmem.alloc_reserved(self.machine, guard.held(), &mut claim);
                self.kmem.give_back(guard.held(), claim);
                let access = Access { write: true, execute: false };
                self.enter_kernel_page(&place, frame, access, KernelPage::with_one_more(0));
                frame
            }
        };
        Ok(PhysAddr(frame.0 + address % PAGE_SIZE))
    }

    /// Takes a thread's UTCB at `address` away, which [`Spaces::add_utcb`] gave it; with the last one its page goes.
    pub fn remove_utcb(&self, held: &mut Held<{ rank::NONE }>, space: SpaceRef, address: usize) {
        let slot = self.get(space);
        let guard = slot.lock.lock(held);
        let place = self.walk(slot, address as u64, 0);
        let (Entry::Leaf(leaf), Slot { node, kernel: Some(KernelPage::Utcbs(count)) }) =
            (self.entry(&place), self.slot(&place))
        else {
            unreachable!("a UTCB is on a page of UTCBs")
        };
        let kernel = KernelPage::with_one_less(count);
        if kernel.is_none() {
            self.machine.write(place.entry_at, 0);
        }
        self.set_slot(&place, Slot { node, kernel });
        drop(guard);
        if kernel.is_none() {
            self.machine.invalidate(space, address & !(PAGE_SIZE as usize - 1), PAGE_LOG2);
            self.machine.complete();
            self.kmem.free(self.machine, held, PhysAddr(leaf.frame));
            self.discharge(slot, FRAME);
        }
    }

    /// The physical address of `address` if it is on a page of UTCBs.
    pub fn utcb_page(&self, space: SpaceRef, address: usize) -> Option<PhysAddr> {
        let slot = self.get(space);
        slot.utcb_area().contains(address as _).then(|| self.lookup(space, address).map(|page| page.phys)).flatten()
    }

    fn enter_kernel_page(&self, place: &Place, frame: PhysAddr, access: Access, kind: KernelPage) {
        debug_assert!(place.level == 0 && place.word == 0, "areas are empty but for the kernel's pages");
        let slot = Slot { kernel: Some(kind), ..self.slot(place) };
        self.set_slot(place, slot);
        self.machine.write(place.entry_at, self.leaf(0, frame.0, access, PatIndex::default()));
    }
}
