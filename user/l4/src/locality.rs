//! Which memory is near to which processor, on machines where that differs (NUMA).

use l4_abi::common::{LOCALITY_TABLE, LocalityTable};
use l4_abi::{Fpage, IpcError, MemoryType, Rights};

use crate::{kip, sigma0};

const PAGE_LOG2: u32 = 12;

/// The page with the table; `None` if the kernel knows of one locality only.
pub fn page() -> Option<Fpage> {
    let is_table = |d: &&l4_abi::MemoryDescriptor| {
        d.kind() == MemoryType::Shared && d.subtype() == LOCALITY_TABLE && !d.is_virtual()
    };
    let descriptor = kip::memory_descriptors().iter().rfind(is_table)?;
    Fpage::new(descriptor.low(), PAGE_LOG2, Rights::READ)
}

/// The table, from sigma0, which maps its page at its physical address; [`LocalityTable::NONE`] if there is none.
///
/// # Errors
/// Those of the call to sigma0.
///
/// # Safety
/// Where this program has memory that is not at its physical address, [`page`] is not there.
pub unsafe fn table() -> Result<LocalityTable, IpcError> {
    let Some(page) = page() else { return Ok(LocalityTable::NONE) };
    // SAFETY: by contract; the page is kernel memory, which no program has otherwise.
    let Some(given) = (unsafe { sigma0::get_page(page) })? else { return Ok(LocalityTable::NONE) };
    let table: *const LocalityTable = core::ptr::with_exposed_provenance(given.base() as usize);
    // SAFETY: the page is there and begins with the table, which consists of numbers. Volatile, as others who have the page
    // could write.
    Ok(unsafe { table.read_volatile() })
}
