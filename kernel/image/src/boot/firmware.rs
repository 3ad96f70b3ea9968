//! What the firmware's tables say, read while the rough tables are in use. Where they are missing or wrong, the machine is
//! taken to be a simple one, and the console says why.

use arrayvec::ArrayVec;
use kcore::boot::Range;
use kcore::localities::localities;
use kcore::machine::PhysAddr;
use kformats::acpi::fadt::Fadt;
use kformats::acpi::hpet::Hpet;
use kformats::acpi::madt::Madt;
use kformats::acpi::mcfg::Mcfg;
use kformats::acpi::slit::Slit;
use kformats::acpi::srat::Srat;
use kformats::acpi::{Error, Root};
use kformats::multiboot::Physical;
use khal::cpu::physical_address_bits;
use khal::processors::Processors;
use l4_abi::common::LocalityTable;

use crate::kip::Loaded;
use crate::{console, layout};

/// Windows of configuration that are reserved where they lie in memory.
pub const WINDOWS_MAX: usize = 4;

/// What the rough tables map at its physical address.
struct LowMemory;

impl Physical for LowMemory {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        let end = start.checked_add(len)?;
        if start == 0 || end > layout::ROUGH_BYTES {
            return None;
        }
        // SAFETY: the rough tables map the range; the firmware's tables, which are all that is looked for, do not
        // change, and bytes have no invalid values.
        Some(unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(start as usize), len as usize) })
    }
}

fn complain(error: Error) {
    console::line(format_args!("ACPI: {error}"));
}

/// The list of all tables; `told` is what the loader says of it.
///
/// # Safety
/// The rough tables are in use.
pub unsafe fn tables(told: Option<&[u8]>, loaded: &Loaded) -> Option<Root> {
    let root = Root::find(&LowMemory, told).inspect_err(|&error| complain(error)).ok()?;
    if loaded.is_memory(root.address(), root.address()) {
        // They are read before anybody gets the memory; programs that look for them later may find something else.
        console::line(format_args!("ACPI: its tables lie in memory that is said to be free, at {:#x}", root.address()));
    }
    Some(root)
}

/// The table of interrupt controllers and processors.
///
/// # Safety
/// The rough tables are in use, as long as the result is.
pub unsafe fn controllers(root: &Root) -> Option<Madt<'static>> {
    Madt::find(root, &LowMemory).inspect_err(|&error| complain(error)).ok()
}

/// Complains about a table that is wrong; that there is none is no mistake.
fn found<T>(table: Result<T, Error>) -> Option<T> {
    table
        .inspect_err(|&error| {
            if !matches!(error, Error::Absent(_)) {
                complain(error)
            }
        })
        .ok()
}

/// The port of the timer of ACPI.
///
/// # Safety
/// The rough tables are in use.
pub unsafe fn timer_port(root: &Root) -> Option<u16> {
    found(Fadt::find(root, &LowMemory))?.timer
}

/// The address of the registers of the high-precision event timer, unless they lie where memory is.
///
/// # Safety
/// The rough tables are in use.
pub unsafe fn hpet(root: &Root, loaded: &Loaded) -> Option<u64> {
    let Hpet { address } = found(Hpet::find(root, &LowMemory))?;
    if address >> physical_address_bits() != 0 {
        complain(Error::Unreachable(address));
        return None;
    }
    let is_memory = loaded.is_memory(address, address | 0xFFF);
    if is_memory {
        console::line(format_args!("ACPI: the HPET is said to lie in memory, at {address:#x}: it is not used"));
    }
    (!is_memory).then_some(address)
}

/// Says where the configuration of PCI Express is. Returns what of it lies in memory, which nobody may use as such.
///
/// # Safety
/// The rough tables are in use.
pub unsafe fn configuration(root: &Root, loaded: &Loaded) -> ArrayVec<Range, WINDOWS_MAX> {
    let mut in_memory = ArrayVec::new();
    let Some(table) = found(Mcfg::find(root, &LowMemory)) else { return in_memory };
    for window in table.windows() {
        let window = match window {
            Ok(window) => window,
            Err(error) => {
                complain(error);
                continue;
            }
        };
        let (first, last) = window.buses;
        let (start, segment, end) = (window.start, window.segment, window.start + window.bytes);
        let is_memory = loaded.is_memory(start, end - 1);
        let note = if is_memory { ", which is in memory" } else { "" };
        console::line(format_args!("PCI Express {segment}: buses {first} to {last} at {start:#x}{note}"));
        if is_memory && in_memory.try_push((PhysAddr(start), PhysAddr(end))).is_err() {
            console::line(format_args!("ACPI: more than {WINDOWS_MAX} windows in memory: the others are not reserved"));
        }
    }
    in_memory
}

/// The localities of memory and of these processors. A machine without a table of them has one.
///
/// # Safety
/// The rough tables are in use.
pub unsafe fn locality_table(root: &Root, processors: &Processors) -> LocalityTable {
    let srat = match Srat::find(root, &LowMemory) {
        Ok(srat) => srat,
        Err(Error::Absent(_)) => return LocalityTable::NONE,
        Err(error) => {
            complain(error);
            return LocalityTable::NONE;
        }
    };
    // Without it the distances are the usual ones.
    let slit = Slit::find(root, &LowMemory);
    if let Err(error) = slit
        && !matches!(error, Error::Absent(_))
    {
        complain(error);
    }
    let distance = |from, to| slit.ok()?.distance(from, to);
    localities(srat.entries(), processors.apic_ids(), distance).unwrap_or_else(|error| {
        complain(error);
        LocalityTable::NONE
    })
}
