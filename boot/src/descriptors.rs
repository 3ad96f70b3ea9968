//! The list of memory descriptors, in which a later one overrides earlier ones (X.2, Memory Descriptor).

use arrayvec::ArrayVec;
use kformats::multiboot::Region;
use l4_abi::common::MemoryType;
use l4_abi::w64::MemoryDescriptor;

use crate::kip::Width;
use crate::ram::Ram;
use crate::{Extent, FOUR_GIB, MAX_MODULES, MAX_REGIONS, ROOT, Request, SIGMA0};

/// Most descriptors that a boot can need: all memory, two per entry of the map, two windows below 1 MiB, kernel memory,
/// one per module, two tables.
pub const MAX_DESCRIPTORS: usize = 2 * MAX_REGIONS + MAX_MODULES + 6;

/// Descriptors count in units of this many bytes.
const GRAIN: u64 = 1024;
/// Video memory, and the ROMs behind it.
const SHARED_WINDOWS: [Extent; 2] = [Extent::new(0xA_0000, 0xC_0000), Extent::new(0xC_0000, 0xF_0000)];
/// Subtype of conventional memory from the map: its BIOS type.
const FROM_MAP: u8 = Region::AVAILABLE as u8;
/// BIOS type that stands in for those that four bits do not hold.
const BIOS_RESERVED: u8 = 2;

/// What the list is made of. A 32-bit kernel's list ends at 4 GiB.
pub struct Descriptors<'a> {
    /// All modules.
    pub request: &'a Request,
    /// The memory map.
    pub ram: &'a Ram,
    /// Width of the kernel.
    pub width: Width,
    /// Memory for the kernel.
    pub kernel_memory: Option<Extent>,
    /// Boot information and copy of the Multiboot information, as far as there are any.
    pub tables: &'a [Extent],
}

pub(crate) type List = ArrayVec<MemoryDescriptor, MAX_DESCRIPTORS>;

impl Descriptors<'_> {
    /// The list.
    pub fn list(&self) -> List {
        let mut list = of_regions(self.ram, self.width);
        let kernel_memory = self.kernel_memory.as_slice();
        let windows = &SHARED_WINDOWS[..];
        match self.width {
            Width::W64 => {
                self.add_all(&mut list, windows, MemoryType::Shared, 0);
                self.add_all(&mut list, kernel_memory, MemoryType::Reserved, 0);
            }
            Width::W32 => {
                self.add_all(&mut list, kernel_memory, MemoryType::Reserved, 0);
                self.add_all(&mut list, windows, MemoryType::Shared, 0);
            }
        }
        for (index, module) in self.request.modules().iter().enumerate() {
            match index {
                SIGMA0 | ROOT => self.add(&mut list, module.place, MemoryType::BootLoader, MemoryType::BOOT_SERVER),
                _ if self.request.sigma1 == Some(index) => {
                    self.add(&mut list, module.place, MemoryType::BootLoader, MemoryType::BOOT_SERVER);
                }
                _ if index > ROOT => self.add(&mut list, module.place, MemoryType::BootLoader, MemoryType::BOOT_MODULE),
                // The kernel describes itself.
                _ => {}
            }
        }
        // sigma0 gives what is the boot loader's to the first who asks, and both sigma1 and the root task want to know.
        match self.request.sigma1 {
            Some(_) => self.add_all(&mut list, self.tables, MemoryType::Shared, 0),
            None => self.add_all(&mut list, self.tables, MemoryType::BootLoader, MemoryType::BOOT_INIT_TABLE),
        }
        list
    }

    fn add_all(&self, list: &mut List, extents: &[Extent], kind: MemoryType, subtype: u8) {
        for extent in extents {
            self.add(list, *extent, kind, subtype);
        }
    }

    fn add(&self, list: &mut List, extent: Extent, kind: MemoryType, subtype: u8) {
        add(list, self.width, extent, kind, subtype);
    }
}

/// The beginning of the list: everything, and the memory map on top of it.
pub fn of_regions(ram: &Ram, width: Width) -> List {
    let mut list = List::new();
    list.push(MemoryDescriptor::new(MemoryType::Shared, 0, u64::MAX));
    for (extent, kind) in ram.regions() {
        add_region(&mut list, ram, width, *extent, *kind);
    }
    list
}

/// An entry of the memory map. What is conventional shrinks to whole units, anything else grows.
fn add_region(list: &mut List, ram: &Ram, width: Width, extent: Extent, kind: u32) {
    if kind != Region::AVAILABLE {
        let subtype = u8::try_from(kind).ok().filter(|kind| *kind <= 0xF).unwrap_or(BIOS_RESERVED);
        return add(list, width, extent, MemoryType::Architecture, subtype);
    }
    // Behind the last unit there are no addresses.
    let Some(start) = extent.start.checked_next_multiple_of(GRAIN) else { return };
    let inner = Extent::new(start, extent.end & !(GRAIN - 1));
    add(list, width, inner.below(ram.limit()), MemoryType::Conventional, FROM_MAP);
    if width == Width::W64 {
        add(list, width, inner.from(ram.limit()), MemoryType::Reserved, 0);
    }
}

fn add(list: &mut List, width: Width, extent: Extent, kind: MemoryType, subtype: u8) {
    let extent = match width {
        Width::W32 => extent.below(FOUR_GIB),
        Width::W64 => extent,
    };
    if !extent.is_empty() {
        list.push(MemoryDescriptor::new(kind, extent.start, extent.end - 1).with_subtype(subtype));
    }
}
