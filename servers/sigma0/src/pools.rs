//! Who gets which memory and which ports (sigma0 protocol, Allocation).
//!
//! Memory is conventional ([`Owner::Free`]), special, shared or somebody's. Nothing ever comes back. A thread owns what
//! it got: another thread of the same space cannot ask for it again.

use l4_abi::{Kip, MemoryDescriptor, MemoryType, ThreadId};

use crate::regions::{Owner, Part, Region, Regions};

/// log2 of the smallest page that is given away.
pub const PAGE_LOG2: u32 = 12;
const PAGE_MASK: u64 = (1 << PAGE_LOG2) - 1;

/// Regions that the memory needs at the beginning: descriptors and servers, each of which adds two at most. A kernel
/// interface page has no room for more than 256 descriptors.
pub const FIRST_REGIONS: usize = 1024;
/// Regions of ports: beyond them requests are refused.
pub const PORT_REGIONS: usize = 256;

/// Regions to spare that make one request and a move of the storage safe.
const SPARE_REGIONS: usize = 8;
const SPARE_FOR_REQUEST: usize = 2;

/// What a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Whatever has no other owner.
    Every,
    /// Conventional memory, besides what is shared or the requester's own.
    Conventional,
}

/// Memory and ports.
#[derive(Debug)]
pub struct Pools<'a> {
    memory: Regions<'a>,
    ports: Regions<'a>,
    /// The memory that holds the regions of memory, once it is out of the free pool.
    storage: Option<(u64, u64)>,
    /// The owner of such memory.
    sigma0: ThreadId,
}

impl<'a> Pools<'a> {
    /// The pools at the beginning, from the kernel interface page and its memory descriptors.
    ///
    /// # Panics
    /// With storage for fewer than [`FIRST_REGIONS`] regions of memory, or none for ports.
    pub fn new(kip: &Kip, descriptors: &[MemoryDescriptor], memory: &'a mut [Region], ports: &'a mut [Region]) -> Self {
        assert!(memory.len() >= FIRST_REGIONS && descriptors.len() <= FIRST_REGIONS / 4, "room for the descriptors");
        let threads = kip.thread_info;
        let mut pools = Self {
            memory: Regions::new(memory, Owner::Special),
            ports: Regions::new(ports, Owner::Free),
            storage: None,
            sigma0: threads.sigma0(),
        };
        for descriptor in descriptors.iter().filter(|descriptor| !descriptor.is_virtual()) {
            pools.describe(*descriptor, threads.kernel());
        }
        let owned = [
            (kip.kdebug_low, kip.kdebug_high, threads.kernel()),
            (kip.sigma0.low, kip.sigma0.high, threads.sigma0()),
            (kip.sigma1.low, kip.sigma1.high, threads.sigma1()),
            (kip.root_server.low, kip.root_server.high, threads.root_task()),
        ];
        for (low, high, owner) in owned {
            if low < high {
                pools.set_outward(low as u64, high as u64 - 1, Owner::Thread(owner));
            }
        }
        pools
    }

    /// Takes a descriptor in. Conventional memory counts as far as it fills pages, all other as far as it touches them.
    fn describe(&mut self, descriptor: MemoryDescriptor, kernel: ThreadId) {
        let (low, high) = (descriptor.low() as u64, descriptor.high() as u64);
        match descriptor.kind() {
            MemoryType::Conventional => self.set_inward(low, high, Owner::Free),
            MemoryType::Reserved => self.set_outward(low, high, Owner::Thread(kernel)),
            MemoryType::Shared => self.set_outward(low, high, Owner::Shared),
            MemoryType::Undefined => self.set_outward(low, high, Owner::Nobody),
            MemoryType::Dedicated | MemoryType::BootLoader | MemoryType::Architecture => {
                self.set_outward(low, high, Owner::Special);
            }
        }
    }

    fn set_inward(&mut self, low: u64, high: u64, owner: Owner) {
        let first = low.checked_add(PAGE_MASK).map(|low| low & !PAGE_MASK);
        let end = high.checked_add(1).map_or(0, |end| end & !PAGE_MASK).wrapping_sub(1);
        if let Some(first) = first.filter(|first| *first < end) {
            self.set_at_boot(first, end, owner);
        }
    }

    fn set_outward(&mut self, low: u64, high: u64, owner: Owner) {
        if low <= high {
            self.set_at_boot(low & !PAGE_MASK, high | PAGE_MASK, owner);
        }
    }

    fn set_at_boot(&mut self, low: u64, high: u64, owner: Owner) {
        self.memory.set(low, high, owner).expect("the first storage has room for all descriptors");
    }

    /// Gives 2^`size_log2` bytes at `base`, a multiple of that size, to a thread. Parts that are shared stay shared;
    /// everything or nothing.
    pub fn take_memory(&mut self, thread: ThreadId, base: u64, size_log2: u32, class: Class) -> Option<()> {
        if !(PAGE_LOG2..u64::BITS).contains(&size_log2) {
            return None;
        }
        take(&mut self.memory, thread, base, base | !(u64::MAX << size_log2), class)
    }

    /// Gives any free 2^`size_log2` bytes to a thread; returns their address.
    pub fn take_any(&mut self, thread: ThreadId, size_log2: u32) -> Option<u64> {
        if !(PAGE_LOG2..u64::BITS).contains(&size_log2) {
            return None;
        }
        let base = self.find_free(size_log2)?;
        take(&mut self.memory, thread, base, base | !(u64::MAX << size_log2), Class::Conventional)?;
        Some(base)
    }

    /// Gives the ports from `first` to `last` to a thread, everything or nothing.
    pub fn take_ports(&mut self, thread: ThreadId, first: u16, last: u16) -> Option<()> {
        take(&mut self.ports, thread, first.into(), last.into(), Class::Every)
    }

    /// The place for 2^`size_log2` bytes in the smallest free region that has one, so that large regions stay large.
    ///
    /// Page zero goes to whom asks for it by its address, as the C library did at the start of old programs, but not to
    /// whom asks for any page: an item with its fpage is easily taken for a refusal.
    fn find_free(&self, size_log2: u32) -> Option<u64> {
        let mask = !(u64::MAX << size_log2);
        let place = |part: Part| {
            let base = part.low.max(PAGE_MASK + 1).checked_add(mask)? & !mask;
            (base | mask <= part.high).then_some((part.high - part.low, base))
        };
        let free = self.memory.iter().filter(|part| part.owner == Owner::Free);
        free.filter_map(place).min_by_key(|(size, _)| *size).map(|(_, base)| base)
    }

    /// Moves the regions of memory to twice the storage if few are left to spare. `claim` makes the memory at an address
    /// storage of that many regions; the storage before goes back to the free pool. Without free memory nothing changes,
    /// and requests that need regions will be refused.
    pub fn keep_room(&mut self, claim: impl FnOnce(u64, usize) -> &'a mut [Region]) {
        if self.memory.spare() >= SPARE_REGIONS {
            return;
        }
        let capacity = 2 * self.memory.capacity();
        let size_log2 = (capacity * size_of::<Region>()).next_power_of_two().ilog2().max(PAGE_LOG2);
        let Some(base) = self.take_any(self.sigma0, size_log2) else { return };
        self.memory.move_to(claim(base, (1 << size_log2) / size_of::<Region>()));
        if let Some((low, high)) = self.storage.replace((base, base | !(u64::MAX << size_log2))) {
            // The larger storage has room for it.
            let _ = self.memory.set(low, high, Owner::Free);
        }
    }

    /// All memory.
    pub fn memory(&self) -> impl Iterator<Item = Part> {
        self.memory.iter()
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = Part> {
        self.ports.within(0, u16::MAX.into())
    }
}

/// Gives all from `low` to `high` to a thread if it may have every part of it.
fn take(regions: &mut Regions<'_>, thread: ThreadId, low: u64, high: u64, class: Class) -> Option<()> {
    let may_have = |part: Part| match part.owner {
        Owner::Free | Owner::Shared => true,
        Owner::Special => class == Class::Every,
        Owner::Thread(owner) => owner == thread,
        Owner::Nobody => false,
    };
    if regions.spare() < SPARE_FOR_REQUEST || !regions.within(low, high).all(may_have) {
        return None;
    }
    let mut at = low;
    while let Some(part) = first_unowned(regions, at, high) {
        regions.set(part.low, part.high, Owner::Thread(thread)).expect("two regions were left to spare");
        at = part.high;
    }
    Some(())
}

/// The first part that is nobody's yet.
fn first_unowned(regions: &Regions<'_>, low: u64, high: u64) -> Option<Part> {
    regions.within(low, high).find(|part| matches!(part.owner, Owner::Free | Owner::Special))
}

#[cfg(test)]
mod tests;
