//! What tests of the whole core see of spaces, and what the processor's page walk does to them.

use kformats::paging::{Entry, Leaf, PageFormat, Status};
use l4_abi::Rights;

use crate::machine::{Mmu, PhysAddr, SpaceRef};
use crate::space::{Mapping, Space, Spaces};

impl<M: Mmu> Spaces<'_, M> {
    /// An access of user code to `address`: the entry says then that there was one. The translation that the processor used;
    /// `None`: a page fault.
    pub(crate) fn access(&self, space: SpaceRef, address: usize, writes: bool) -> Option<Mapping> {
        let page = self.lookup(space, address).filter(|page| !writes || page.rights.contains(Rights::WRITE))?;
        let place = self.walk(self.get(space), address as u64, 0);
        if let Entry::Leaf(leaf) = self.entry(&place) {
            let status = Status { accessed: true, dirty: writes || leaf.status.dirty };
            let format = self.machine.format();
            let bits = format.leaf(0, Leaf { status, ..leaf }) & format.reset_status().clear;
            self.machine.update(place.entry_at, 0, bits as usize);
        }
        Some(page)
    }

    /// What is mapped at `address` of a space, which need not be there any more.
    pub(crate) fn lookup_if_any(&self, space: SpaceRef, address: usize) -> Option<Mapping> {
        if self.get(space).is_used.get() { self.lookup(space, address) } else { None }
    }

    /// All words that say what is mapped in a space, and by what right: nothing of one that is not there.
    pub(crate) fn words(&self, index: SpaceRef) -> Vec<u64> {
        let space = self.get(index);
        let mut words = vec![u64::from(space.is_used.get())];
        if space.is_used.get() {
            words.push(space.threads().into());
            words.extend([space.kip_area().raw(), space.utcb_area().raw(), space.redirector().raw()]);
            self.add_words(&mut words, space, Self::top(), (space.root.get(), space.shadow.get()), 0);
        }
        words
    }

    fn add_words(
        &self,
        words: &mut Vec<u64>,
        space: &Space,
        level: u32,
        (table, shadow): (PhysAddr, PhysAddr),
        base: u64,
    ) {
        for entry in 0..1 << M::Format::INDEX_BITS {
            let address = base + (entry << Self::page_log2(level));
            if address >= self.end_of(space) {
                return;
            }
            let at = entry << M::Format::ENTRY_LOG2;
            let [word, beside] = [table, shadow].map(|frame| self.machine.read(PhysAddr(frame.0 + at)) as u64);
            if word == 0 && beside == 0 {
                continue;
            }
            words.extend([address, word, beside]);
            if let Some(below) = self.below(&self.place(level, table, shadow, address)) {
                self.add_words(words, space, level - 1, below, address);
            }
        }
    }
}
