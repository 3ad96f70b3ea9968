//! The table of localities.

use l4::common::LocalityTable;

use crate::failure::Outcome;

/// The table.
///
/// # Errors
/// Those of the call to sigma0.
#[track_caller]
pub fn table() -> Outcome<LocalityTable> {
    // SAFETY: the program's own memory is at its physical address, and its playgrounds lie beyond all memory there is.
    Ok(unsafe { l4::locality::table() }?)
}
