//! Kernel memory: what the loader reserved, and on a machine with several localities a part of each that has none of it.

use arrayvec::ArrayVec;
use kcore::boot::{Range, kernel_memory};
use kcore::kmem::{FRAME_SIZE, Kmem, REGIONS_MAX};
use kcore::localities::{kernel_memory_in, split};
use kcore::lock::Held;
use kcore::machine::PhysAddr;
use l4_abi::common::{LOCALITIES_MAX, LocalityTable};
use l4_abi::{Kip, Word};

use super::paging::image_range;
use crate::kip::Loaded;
use crate::{console, layout};

/// All ranges of kernel memory, in pages.
pub type Ranges = ArrayVec<Range, { REGIONS_MAX + LOCALITIES_MAX }>;

/// The ranges of kernel memory.
pub struct KernelMemory {
    reserved: ArrayVec<Range, REGIONS_MAX>,
    /// With their localities.
    more: ArrayVec<(Range, usize), LOCALITIES_MAX>,
}

impl KernelMemory {
    /// What the loader reserved, and of localities without any of it, for as many ranges as there are descriptors for.
    pub fn find(loaded: &Loaded, table: &LocalityTable, descriptors: usize) -> Self {
        let ranges = kernel_memory(loaded.memory, image_range(), PhysAddr(layout::LOADER_LIMIT as u64));
        let reserved: ArrayVec<_, REGIONS_MAX> = ranges.into_iter().filter(|(start, end)| start < end).collect();
        assert!(!reserved.is_empty(), "the loader reserved no kernel memory below {} MiB", layout::LOADER_LIMIT >> 20);
        let mut memory = Self { reserved, more: ArrayVec::new() };
        if table.localities > 1 {
            memory.find_more(loaded, table, descriptors);
        }
        memory
    }

    fn find_more(&mut self, loaded: &Loaded, table: &LocalityTable, descriptors: usize) {
        let busy = busy(loaded.kip);
        let limit = PhysAddr(layout::DIRECT_MAP_BYTES as u64);
        for locality in 0..table.localities as usize {
            if self.reserved.iter().flat_map(|&range| split(table, range)).any(|(_, at)| at == locality) {
                continue;
            }
            let found = kernel_memory_in(table, locality, loaded.memory, &busy, limit);
            match found.filter(|_| self.more.len() < descriptors) {
                Some(range) => self.more.push((range, locality)),
                None => console::line(format_args!("locality {locality} has no room for kernel memory")),
            }
        }
    }

    /// All of it.
    pub fn ranges(&self) -> Ranges {
        self.reserved.iter().copied().chain(self.more()).collect()
    }

    /// What the loader did not reserve.
    pub fn more(&self) -> impl Iterator<Item = Range> {
        self.more.iter().map(|&(range, _)| range)
    }

    /// Frames of all of it.
    pub fn frames(&self) -> usize {
        self.ranges().iter().map(|(start, end)| ((end.0 - start.0) / FRAME_SIZE) as usize).sum()
    }

    /// Gives `kmem` what the loader reserved, which the rough tables map, too.
    pub fn give_reserved(&self, kmem: &Kmem, table: &LocalityTable) {
        let distance = |from, to| table.distance(from, to).expect("localities of the table");
        kmem.set_localities(&mut Held::nothing(), table.localities as usize - 1, distance);
        give(kmem, self.reserved.iter().flat_map(|&range| split(table, range)));
    }

    /// Gives `kmem` the rest, which the kernel's own tables alone map.
    pub fn give_more(&self, kmem: &Kmem) {
        give(kmem, self.more.iter().copied());
    }
}

fn give(kmem: &Kmem, mut parts: impl Iterator<Item = (Range, usize)>) {
    if !parts.all(|((start, end), locality)| kmem.add_region(&mut Held::nothing(), start, end, locality)) {
        console::line(format_args!("kernel memory is in more than {REGIONS_MAX} pieces, not all of which are used"));
    }
}

/// What a loader put into memory, whatever its descriptors say, and the image.
fn busy(kip: &Kip) -> [Range; 5] {
    let range = |low: Word, high: Word| (PhysAddr(low), PhysAddr(high));
    let server = |words: l4_abi::ServerWords| range(words.low, words.high);
    [
        image_range(),
        range(kip.kdebug_low, kip.kdebug_high),
        server(kip.sigma0),
        server(kip.sigma1),
        server(kip.root_server),
    ]
}
