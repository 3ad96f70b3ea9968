//! Which memory there is, and free places in it.

use arrayvec::ArrayVec;
use kformats::elf::Class;
use kformats::multiboot::{BasicMemory, Region};

use crate::failure::{Failure, Problem, Subject};
use crate::kip::Width;
use crate::request::Busy;
use crate::{Extent, FOUR_GIB, KERNEL, MAX_REGIONS, Request};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Kernel memory ends below this: each supported kernel maps at least that much of memory directly.
const KERNEL_MEMORY_LIMIT: u64 = 240 * MIB;
/// Kernel memory of a 64-bit kernel consists of whole superpages.
const SUPERPAGE: u64 = 2 * MIB;
/// Without the option `kmem`, the kernel gets one part in so many of all memory,
const KERNEL_MEMORY_SHARE: u64 = 16;
/// but not less than this
const KERNEL_MEMORY_MIN: u64 = 16 * MIB;
/// and not more than this.
const KERNEL_MEMORY_MAX: u64 = 128 * MIB;

/// The memory map.
#[derive(Clone, Debug)]
pub struct Ram {
    regions: ArrayVec<(Extent, u32), MAX_REGIONS>,
    limit: u64,
}

impl Ram {
    /// The loader's map, of which memory from `limit` on is not used. A 32-bit kernel can do with a loader that knows
    /// two sizes only.
    pub fn new(request: &Request, limit: u64) -> Result<Self, Failure> {
        let extent = |region: &Region| (Extent::sized(region.start, region.len), region.kind);
        let is_narrow = request.image(KERNEL)?.class == Class::Elf32;
        let regions = match (request.regions(), request.basic_memory()) {
            (Some(regions), _) => regions.iter().map(extent).filter(|(extent, _)| !extent.is_empty()).collect(),
            (None, Some(BasicMemory { lower_kib, upper_kib })) if is_narrow => {
                let lower = Extent::sized(0, u64::from(lower_kib) * KIB);
                let upper = Extent::sized(MIB, u64::from(upper_kib) * KIB);
                [(lower, Region::AVAILABLE), (upper, Region::AVAILABLE)].into_iter().collect()
            }
            _ => return Err(Problem::NoMemoryMap.of(Subject::Loader)),
        };
        Ok(Self { regions, limit })
    }

    /// The map in the loader's order, with the BIOS type of each extent.
    pub fn regions(&self) -> &[(Extent, u32)] {
        &self.regions
    }

    /// First address that is not used.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// RAM in the loader's order.
    fn available(&self) -> impl Iterator<Item = Extent> {
        let available = self.regions.iter().filter(|(_, kind)| *kind == Region::AVAILABLE);
        available.map(|(extent, _)| extent.below(self.limit))
    }

    /// What is not RAM; it overrides RAM where a BIOS names a place twice.
    fn others(&self) -> impl Iterator<Item = Extent> {
        self.regions.iter().filter(|(_, kind)| *kind != Region::AVAILABLE).map(|(extent, _)| *extent)
    }

    /// RAM in bytes.
    fn total(&self) -> u64 {
        self.available().map(Extent::len).fold(0, u64::saturating_add)
    }

    /// Whether each byte of `extent` is RAM.
    pub fn covers(&self, extent: Extent) -> bool {
        let mut covered = extent.start;
        while covered < extent.end {
            match self.available().find(|ram| ram.start <= covered && covered < ram.end) {
                Some(ram) => covered = ram.end,
                None => return false,
            }
        }
        !self.others().any(|other| other.overlaps(extent))
    }

    /// The lowest free `size` bytes at a multiple of `align`, from 1 MiB to 4 GiB. Firmware and the start of further
    /// processors want the memory below.
    pub fn lowest_free(&self, size: u64, align: u64, busy: &Busy) -> Option<Extent> {
        self.available()
            .filter_map(|ram| self.lowest_in(ram.from(MIB).below(FOUR_GIB), size, align, busy))
            .min_by_key(|place| place.start)
    }

    fn lowest_in(&self, ram: Extent, size: u64, align: u64, busy: &Busy) -> Option<Extent> {
        let mut start = ram.start.checked_next_multiple_of(align)?;
        loop {
            let place = Extent::sized(start, size);
            if place.end > ram.end {
                return None;
            }
            match self.in_the_way(place, busy) {
                Some(other) => start = other.end.checked_next_multiple_of(align)?,
                None => return Some(place),
            }
        }
    }

    /// The highest free `size` bytes of `ram` at a multiple of `align`.
    fn highest_in(&self, ram: Extent, size: u64, align: u64, busy: &Busy) -> Option<Extent> {
        let mut end = ram.end;
        loop {
            let start = end.checked_sub(size)? & !(align - 1);
            let place = Extent::sized(start, size);
            if start < ram.start {
                return None;
            }
            match self.in_the_way(place, busy) {
                Some(other) => end = other.start,
                None => return Some(place),
            }
        }
    }

    fn in_the_way(&self, place: Extent, busy: &Busy) -> Option<Extent> {
        busy.iter().copied().chain(self.others()).find(|other| other.overlaps(place))
    }
}

/// The place of kernel memory: at the end of the first conventional memory with room below the limit of 240 MiB.
///
/// `size` is the user's choice, cut to whole pages of `page` bytes; 0 means none. Without a choice it is a share of all
/// memory, halved down to the minimum as long as there is no free place in one piece.
pub(crate) fn kernel_memory(
    ram: &Ram,
    size: Option<u64>,
    width: Width,
    page: u64,
    busy: &Busy,
) -> Result<Option<Extent>, Failure> {
    let align = match width {
        Width::W32 => page,
        Width::W64 => page.max(SUPERPAGE),
    };
    let find = |size: u64| {
        let size = size.checked_next_multiple_of(align)?;
        let mut candidates = ram.available().map(|extent| extent.below(KERNEL_MEMORY_LIMIT));
        candidates.find_map(|extent| ram.highest_in(extent, size, align, busy))
    };
    let size = size.map(|size| size & !(page - 1));
    if size == Some(0) {
        return Ok(None);
    }
    let mut wanted = size.unwrap_or((ram.total() / KERNEL_MEMORY_SHARE).clamp(KERNEL_MEMORY_MIN, KERNEL_MEMORY_MAX));
    loop {
        match find(wanted) {
            Some(place) => return Ok(Some(place)),
            None if size.is_none() && wanted > KERNEL_MEMORY_MIN => wanted = (wanted / 2).max(KERNEL_MEMORY_MIN),
            None => return Err(Problem::NoKernelMemory(wanted).of(Subject::Memory)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrayvec::ArrayVec;
    use dice::Dice;
    use kformats::multiboot::Region;

    use super::{Busy, Extent, FOUR_GIB, MAX_REGIONS, MIB, Ram, Width, kernel_memory};
    use crate::descriptors;

    const SEED: u64 = 0x3A9_5EED;
    const INPUTS: u64 = 1_000_000;

    /// Whatever a memory map says, what is found is memory that it says is free and nothing else, and all that is
    /// described has an end.
    #[test]
    fn any_memory_map_is_survived() {
        let mut found = 0;
        for input in 0..INPUTS {
            let mut dice = Dice::new(SEED, input);
            let mut draw = |limit: u64| dice.below(limit);
            let mut number = || match draw(8) {
                0 => u64::MAX - draw(1 << 12),
                1 => FOUR_GIB - 2 + draw(4),
                2 => draw(1 << 48) << draw(17),
                3 => draw(1 << 12),
                _ => draw(1 << 16) << 16,
            };
            let regions: ArrayVec<(Extent, u32), MAX_REGIONS> = (0..6)
                .map(|_| Region { start: number(), len: number(), kind: (number() % 3) as u32 })
                .map(|region| (Extent::sized(region.start, region.len), region.kind))
                .filter(|(extent, _)| !extent.is_empty())
                .collect();
            let ram = Ram { regions, limit: if input % 3 == 0 { number() } else { u64::MAX } };
            let busy: Busy = [Extent::new(MIB, 2 * MIB), Extent::sized(number(), number())].into_iter().collect();
            let is_free = |place: Extent| ram.covers(place) && !busy.iter().any(|other| other.overlaps(place));
            if let Some(place) = ram.lowest_free(4096, 4096, &busy) {
                assert!(is_free(place) && place.end <= FOUR_GIB, "input {input} of seed {SEED:#x}: {place}");
                found += 1;
            }
            for size in [None, Some(number())] {
                if let Ok(Some(place)) = kernel_memory(&ram, size, Width::W64, 4096, &busy) {
                    assert!(is_free(place), "input {input} of seed {SEED:#x}: {place}");
                }
            }
            for width in [Width::W32, Width::W64] {
                let list = descriptors::of_regions(&ram, width);
                let is_sound = |ends: (u64, u64)| ends.0 <= ends.1;
                assert!(list.iter().all(|descriptor| is_sound((descriptor.low(), descriptor.high()))), "input {input}");
            }
        }
        assert!(found > INPUTS / 8, "{found} maps have free memory");
    }
}
