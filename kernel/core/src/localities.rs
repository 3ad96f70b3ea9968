//! Which memory is near to which processor, and where kernel memory comes from on machines that have several localities.
//!
//! The firmware tells it in proximity domains, whose numbers may be any; localities are those domains in the order of
//! their numbers.

use arrayvec::ArrayVec;
use kformats::acpi::Error;
use kformats::acpi::srat::Entry;
use l4_abi::common::{DISTANCE_HERE, LOCALITIES_MAX, LocalityExtent, LocalityTable};
use l4_abi::{MemoryDescriptor, MemoryType};

use crate::boot::{Range, extent, is_physical};
use crate::machine::PhysAddr;

/// The distance of other localities where the firmware does not say (ACPI, SLIT).
const DISTANCE_ELSEWHERE: u8 = 20;

/// Proximity domains, in the order of their numbers.
type Domains = ArrayVec<u32, LOCALITIES_MAX>;

/// The localities of a machine, as far as there is room for them: what is in no other is in locality 0.
///
/// `apic_ids` are the processors, by their numbers. `distance` says how far a domain is from another, if it is known.
///
/// # Errors
/// That of the first entry that cannot be read.
pub fn localities(
    entries: impl Iterator<Item = Result<Entry, Error>> + Clone,
    apic_ids: &[u32],
    distance: impl Fn(u32, u32) -> Option<u8>,
) -> Result<LocalityTable, Error> {
    let domains = domains(entries.clone())?;
    let mut table = LocalityTable::NONE;
    if domains.len() < 2 {
        return Ok(table);
    }
    table.localities = domains.len() as u32;
    table.processors = apic_ids.len() as u32;
    let number = |domain: u32| domains.iter().position(|&d| d == domain).unwrap_or(0);
    for entry in entries {
        match entry? {
            Entry::Processor { apic_id, domain } => {
                let processor = apic_ids.iter().position(|&id| id == apic_id);
                if let Some(place) = processor.and_then(|processor| table.of_processor.get_mut(processor)) {
                    *place = number(domain) as u8;
                }
            }
            Entry::Memory { start, len, domain } => add_extent(&mut table, start, len, number(domain)),
        }
    }
    for (from, to) in (0..domains.len()).flat_map(|from| (0..domains.len()).map(move |to| (from, to))) {
        let default = if from == to { DISTANCE_HERE } else { DISTANCE_ELSEWHERE };
        table.distances[from][to] = distance(domains[from], domains[to]).unwrap_or(default);
    }
    Ok(table)
}

/// The domains that have a processor or memory, as many as there is room for.
fn domains(entries: impl Iterator<Item = Result<Entry, Error>>) -> Result<Domains, Error> {
    let mut domains = Domains::new();
    for entry in entries {
        let (Entry::Processor { domain, .. } | Entry::Memory { domain, .. }) = entry?;
        if let Err(place) = domains.binary_search(&domain)
            && domains.try_insert(place, domain).is_err()
            && place < LOCALITIES_MAX
        {
            // The lowest numbers stay.
            domains.pop();
            domains.insert(place, domain);
        }
    }
    Ok(domains)
}

fn add_extent(table: &mut LocalityTable, start: u64, len: u64, locality: usize) {
    if let Some(place) = table.memory.get_mut(table.extents as usize).filter(|_| len > 0) {
        *place = LocalityExtent { start, end: start.saturating_add(len), locality: locality as u64 };
        table.extents += 1;
    }
}

/// The parts of `range` that are each in one locality; memory that is said to be nowhere is in locality 0.
pub fn split(table: &LocalityTable, range: Range) -> impl Iterator<Item = (Range, usize)> {
    let (PhysAddr(mut at), PhysAddr(end)) = range;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let borders = table.extents().iter().flat_map(|extent| [extent.start, extent.end]);
        let stop = borders.filter(|&border| border > at).fold(end, u64::min);
        let part = ((PhysAddr(at), PhysAddr(stop)), table.of_address(at).unwrap_or(0));
        at = stop;
        Some(part)
    })
}

/// A locality's share of its own memory for the kernel: one part in so many, in large pages, but not less than the minimum
/// and not more than the maximum.
const SHARE: u64 = 16;
const SHARE_MIN: u64 = LARGE_PAGE;
const SHARE_MAX: u64 = 128 << 20;
const LARGE_PAGE: u64 = 2 << 20;

/// First address and end.
type Room = (u64, u64);

/// Where kernel memory of a locality can be.
struct Search<'a> {
    descriptors: &'a [MemoryDescriptor],
    busy: &'a [Range],
}

/// Kernel memory for `locality`, in large pages below `limit`: the highest conventional memory of the locality that no
/// later descriptor says to be something else, and that is none of `busy`. If there is no room for its share, half of it
/// will do, and so on; `None` if there is not even a large page.
pub fn kernel_memory_in(
    table: &LocalityTable,
    locality: usize,
    descriptors: &[MemoryDescriptor],
    busy: &[Range],
    limit: PhysAddr,
) -> Option<Range> {
    let search = Search { descriptors, busy };
    let extents = table.extents().iter().filter(|extent| extent.locality == locality as u64);
    let within = extents.map(|extent| (extent.start, extent.end.min(limit.0)));
    let rooms = within.flat_map(|within| search.rooms(within));
    let bytes: u64 = rooms.clone().map(|(_, (low, high))| high - low).sum();
    let mut wanted = (bytes / SHARE).clamp(SHARE_MIN, SHARE_MAX) / LARGE_PAGE * LARGE_PAGE;
    while wanted > 0 {
        if let Some(start) = rooms.clone().filter_map(|(index, room)| search.highest(index, room, wanted)).max() {
            return Some((PhysAddr(start), PhysAddr(start + wanted)));
        }
        wanted = wanted / 2 / LARGE_PAGE * LARGE_PAGE;
    }
    None
}

impl Search<'_> {
    /// The conventional memory between two addresses, with the index of the descriptor that says so.
    fn rooms(&self, (start, end): Room) -> impl Iterator<Item = (usize, Room)> + Clone {
        let indexed = self.descriptors.iter().enumerate();
        let conventional = indexed.filter(|(_, descriptor)| is_physical(descriptor, MemoryType::Conventional));
        let rooms = conventional.map(move |(index, descriptor)| {
            let (low, high) = extent(descriptor);
            (index, (low.max(start), high.min(end)))
        });
        rooms.filter(|(_, (low, high))| low < high)
    }

    /// The highest place for `len` bytes in `room`, which descriptor `index` says to be free, in large pages.
    fn highest(&self, index: usize, room: Room, len: u64) -> Option<u64> {
        let (low, mut end) = room;
        loop {
            let start = end.checked_sub(len)? / LARGE_PAGE * LARGE_PAGE;
            if start < low {
                return None;
            }
            let mut taken = self.taken(index);
            match taken.find(|&(first, behind)| first < start + len && start < behind) {
                Some((first, _)) => end = first,
                None => return Some(start),
            }
        }
    }

    /// What is not free, whatever descriptor `index` says.
    fn taken(&self, index: usize) -> impl Iterator<Item = Room> {
        let later = self.descriptors[index + 1..].iter().filter(|later| !later.is_virtual()).map(extent);
        later.chain(self.busy.iter().map(|&(start, end)| (start.0, end.0)))
    }
}
