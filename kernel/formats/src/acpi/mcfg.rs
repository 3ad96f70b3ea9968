//! Where the configuration of PCI Express is in memory (PCI Firmware Specification, MCFG Table).

use super::{Error, HEADER_BYTES, Root, Signature};
use crate::le::{u16_at, u64_at};
use crate::multiboot::Physical;

/// Its signature.
pub const SIGNATURE: Signature = Signature(*b"MCFG");

/// What stands before the entries, and the size of an entry.
const FIXED_BYTES: usize = 8;
const ENTRY_BYTES: usize = 16;
/// Bytes of the configuration of a bus.
const BUS_BYTES: u64 = 1 << 20;

/// The configuration of some buses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Which of the machine's sets of buses.
    pub segment: u16,
    /// The first bus of it, and the last.
    pub buses: (u8, u8),
    /// Physical address of the configuration of the first bus.
    pub start: u64,
    /// Bytes, at least one: 1 MiB for each bus.
    pub bytes: u64,
}

/// The table, its size checked.
#[derive(Clone, Copy, Debug)]
pub struct Mcfg<'m> {
    entries: &'m [u8],
}

impl<'m> Mcfg<'m> {
    /// The table of the machine with this list of tables.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::NoRoot`].
    pub fn find(root: &Root, memory: &'m impl Physical) -> Result<Self, Error> {
        let table = root.table(memory, SIGNATURE)?;
        let entries = table.get(HEADER_BYTES + FIXED_BYTES..).ok_or(Error::BadSize(SIGNATURE))?;
        Ok(Self { entries })
    }

    /// Its entries in their order; an error in place of one that makes no sense, or is cut off.
    pub fn windows(&self) -> impl Iterator<Item = Result<Window, Error>> + use<'m> {
        self.entries.chunks(ENTRY_BYTES).map(|entry| window(entry).ok_or(Error::BadSize(SIGNATURE)))
    }
}

fn window(entry: &[u8]) -> Option<Window> {
    let base = u64_at(entry, 0).filter(|base| *base != 0 && base % BUS_BYTES == 0)?;
    let (segment, first, last) = (u16_at(entry, 8)?, *entry.get(10)?, *entry.get(11)?);
    let count = u64::from(last.checked_sub(first)?) + 1;
    // The address is that of bus 0, be it among them or not.
    let start = base.checked_add(u64::from(first) * BUS_BYTES)?;
    let bytes = count * BUS_BYTES;
    start.checked_add(bytes)?;
    Some(Window { segment, buses: (first, last), start, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_as_large_as_their_buses() {
        let check = |base: u64, first: u8, last: u8, expected: Option<(u64, u64)>| {
            let entry = [&base.to_le_bytes()[..], &[3, 0, first, last, 0, 0, 0, 0]].concat();
            let found = window(&entry);
            assert_eq!(found.map(|window| (window.start, window.bytes)), expected, "{base:#x} {first} {last}");
            assert!(found.is_none_or(|window| window.segment == 3 && window.buses == (first, last)));
            assert_eq!(window(&entry[..11]), None);
        };
        check(0xB000_0000, 0, 255, Some((0xB000_0000, 0x1000_0000)));
        check(0xB000_0000, 16, 16, Some((0xB100_0000, 0x10_0000)));
        check(0xB000_0000, 1, 0, None);
        check(0xB000_0001, 0, 1, None);
        check(0, 0, 255, None);
        check(u64::MAX << 20, 0, 0, None);
        check(u64::MAX << 20, 1, 1, None);
    }
}
