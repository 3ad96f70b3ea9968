//! The high-precision event timer (IA-PC HPET Specification, ACPI table): where its registers are.

use super::{Error, Root, Signature};
use crate::le::u64_at;
use crate::multiboot::Physical;

/// Its signature.
pub const SIGNATURE: Signature = Signature(*b"HPET");

/// Bytes of the registers.
pub const REGISTER_BYTES: u64 = 1 << 10;
const PAGE_BYTES: u64 = 4096;

/// What the table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hpet {
    /// Physical address of the registers, which lie in one page.
    pub address: u64,
}

impl Hpet {
    /// The table of the machine with this list of tables.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::NoRoot`]; [`Error::BadSize`] also for registers that are not in memory, or not in a
    /// page.
    pub fn find(root: &Root, memory: &impl Physical) -> Result<Self, Error> {
        Self::of_table(root.table(memory, SIGNATURE)?).ok_or(Error::BadSize(SIGNATURE))
    }

    fn of_table(table: &[u8]) -> Option<Self> {
        const SPACE: usize = 40;
        const ADDRESS: usize = 44;
        const MEMORY: u8 = 0;
        let address = u64_at(table, ADDRESS).filter(|_| table[SPACE] == MEMORY)?;
        let is_in_a_page = address % PAGE_BYTES <= PAGE_BYTES - REGISTER_BYTES && address % 8 == 0;
        (address != 0 && is_in_a_page).then_some(Self { address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_are_in_a_page_of_memory() {
        let check = |space: u8, address: u64, expected: Option<u64>| {
            let mut table = vec![0; 56];
            table[40] = space;
            table[44..52].copy_from_slice(&address.to_le_bytes());
            assert_eq!(Hpet::of_table(&table).map(|hpet| hpet.address), expected, "{space} {address:#x}");
            assert_eq!(Hpet::of_table(&table[..51]), None);
        };
        check(0, 0xFED0_0000, Some(0xFED0_0000));
        check(0, 0xFED0_0C00, Some(0xFED0_0C00));
        check(0, 0xFED0_0C08, None);
        check(0, 0xFED0_0004, None);
        check(0, 0, None);
        check(1, 0xFED0_0000, None);
        check(0, u64::MAX, None);
    }
}
