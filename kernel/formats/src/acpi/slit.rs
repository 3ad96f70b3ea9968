//! How far nodes are from each other (ACPI, System Locality Information Table).

use super::{Error, HEADER_BYTES, Root, Signature};
use crate::le::u64_at;
use crate::multiboot::Physical;

/// Its signature.
pub const SIGNATURE: Signature = Signature(*b"SLIT");

/// What stands before the distances: the number of proximity domains.
const FIXED_BYTES: usize = 8;

/// The table, its size checked.
#[derive(Clone, Copy, Debug)]
pub struct Slit<'m> {
    domains: usize,
    distances: &'m [u8],
}

impl<'m> Slit<'m> {
    /// The table of the machine with this list of tables.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::NoRoot`].
    pub fn find(root: &Root, memory: &'m impl Physical) -> Result<Self, Error> {
        let table = root.table(memory, SIGNATURE)?;
        Self::of_table(table).ok_or(Error::BadSize(SIGNATURE))
    }

    fn of_table(table: &'m [u8]) -> Option<Self> {
        let domains = usize::try_from(u64_at(table, HEADER_BYTES)?).ok()?;
        let distances = table.get(HEADER_BYTES + FIXED_BYTES..)?.get(..domains.checked_mul(domains)?)?;
        Some(Self { domains, distances })
    }

    /// How far domain `to` is from `from`, 10 being the distance from itself and 255 out of reach; `None` if the table
    /// does not say.
    pub fn distance(&self, from: u32, to: u32) -> Option<u8> {
        let (from, to) = (from as usize, to as usize);
        (from < self.domains && to < self.domains).then(|| self.distances[from * self.domains + to])
    }
}
