//! What the firmware's tables say, read while the rough tables are in use. Where they are missing or wrong, the machine is
//! taken to be a simple one, and the console says why.

use kcore::localities::localities;
use kformats::acpi::fadt::Fadt;
use kformats::acpi::madt::Madt;
use kformats::acpi::slit::Slit;
use kformats::acpi::srat::Srat;
use kformats::acpi::{Error, Root};
use kformats::multiboot::Physical;
use khal::processors::Processors;
use l4_abi::common::LocalityTable;

use crate::{console, layout};

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
pub unsafe fn tables(told: Option<&[u8]>) -> Option<Root> {
    Root::find(&LowMemory, told).inspect_err(|&error| complain(error)).ok()
}

/// The table of interrupt controllers and processors.
///
/// # Safety
/// The rough tables are in use, as long as the result is.
pub unsafe fn controllers(root: &Root) -> Option<Madt<'static>> {
    Madt::find(root, &LowMemory).inspect_err(|&error| complain(error)).ok()
}

/// The port of the timer of ACPI. What is wrong with its table is of interest to nobody: few machines need it.
///
/// # Safety
/// The rough tables are in use.
pub unsafe fn timer_port(root: &Root) -> Option<u16> {
    Fadt::find(root, &LowMemory).ok()?.timer
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
