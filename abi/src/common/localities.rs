//! Localities: which memory is near to which processor.
//!
//! X.2 does not know them. A kernel on a machine that has several describes, in a memory descriptor of the type
//! [`MemoryType::Shared`](super::MemoryType::Shared) with the subtype [`LOCALITY_TABLE`], a page of physical memory that
//! begins with a [`LocalityTable`]. Whoever wants it asks sigma0 for the page.

/// Subtype of the descriptor.
pub const LOCALITY_TABLE: u8 = 0xA;

/// Localities there can be.
pub const LOCALITIES_MAX: usize = 16;
/// Extents of memory there can be.
pub const LOCALITY_EXTENTS_MAX: usize = 64;

/// The distance of a locality from itself (ACPI, SLIT).
pub const DISTANCE_HERE: u8 = 10;

/// The localities of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LocalityTable {
    /// How many there are, numbered from 0.
    pub localities: u32,
    /// Processors that have one.
    pub processors: u32,
    /// Extents in use.
    pub extents: u32,
    /// Zero.
    pub reserved: u32,
    /// The locality of each processor.
    pub of_processor: [u8; 256],
    /// How far memory of the second locality is from processors of the first, [`DISTANCE_HERE`] being their own.
    pub distances: [[u8; LOCALITIES_MAX]; LOCALITIES_MAX],
    /// Where memory of localities is. What is in none of them is said to be nowhere.
    pub memory: [LocalityExtent; LOCALITY_EXTENTS_MAX],
}

/// Physical addresses of one locality. There need not be memory at all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LocalityExtent {
    /// The first address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// The locality.
    pub locality: u64,
}

const _: () = assert!(size_of::<LocalityTable>() <= super::KIP_SIZE, "it fits into a page");

impl LocalityTable {
    /// One locality, of which nothing is known.
    pub const NONE: Self = Self {
        localities: 1,
        processors: 0,
        extents: 0,
        reserved: 0,
        of_processor: [0; 256],
        distances: [[DISTANCE_HERE; LOCALITIES_MAX]; LOCALITIES_MAX],
        memory: [LocalityExtent { start: 0, end: 0, locality: 0 }; LOCALITY_EXTENTS_MAX],
    };

    /// The locality of a processor; 0 if it is not known.
    pub fn of_processor(&self, processor: usize) -> usize {
        self.of_processor.get(processor).copied().unwrap_or(0).into()
    }

    /// The extents.
    pub fn extents(&self) -> &[LocalityExtent] {
        &self.memory[..(self.extents as usize).min(LOCALITY_EXTENTS_MAX)]
    }

    /// The locality of physical memory at `address`; `None` if it is not known.
    pub fn of_address(&self, address: u64) -> Option<usize> {
        let extent = self.extents().iter().find(|extent| (extent.start..extent.end).contains(&address));
        extent.map(|extent| extent.locality as usize)
    }

    /// How far memory of locality `to` is from processors of `from`; `None` if there are not so many.
    pub fn distance(&self, from: usize, to: usize) -> Option<u8> {
        self.distances.get(from)?.get(to).copied()
    }
}
