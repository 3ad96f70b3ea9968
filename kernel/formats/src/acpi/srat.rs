//! Which node of the machine processors and memory belong to (ACPI, System Resource Affinity Table).
//!
//! A node is what lies near to each other. Firmware numbers nodes as it likes; its number of one is a *proximity domain*.

use super::{Error, HEADER_BYTES, Root, Signature, entries};
use crate::le::{u32_at, u64_at};
use crate::multiboot::Physical;

/// Its signature.
pub const SIGNATURE: Signature = Signature(*b"SRAT");

/// What stands before the entries.
const FIXED_BYTES: usize = 12;

/// What an entry says. Entries that the firmware disabled say nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A processor and its proximity domain.
    Processor {
        /// The number of its local APIC.
        apic_id: u32,
        /// The proximity domain.
        domain: u32,
    },
    /// Physical memory and its proximity domain. There need not be memory in all of it.
    Memory {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
        /// The proximity domain.
        domain: u32,
    },
}

/// The table, header and size checked.
#[derive(Clone, Copy, Debug)]
pub struct Srat<'m> {
    entries: &'m [u8],
    /// Domains have 32 bits; in the first revision they had 8.
    is_wide: bool,
}

impl<'m> Srat<'m> {
    /// The table of the machine with this list of tables.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::NoRoot`].
    pub fn find(root: &Root, memory: &'m impl Physical) -> Result<Self, Error> {
        const REVISION: usize = 8;
        let table = root.table(memory, SIGNATURE)?;
        let entries = table.get(HEADER_BYTES + FIXED_BYTES..).ok_or(Error::BadSize(SIGNATURE))?;
        Ok(Self { entries, is_wide: table[REVISION] > 1 })
    }

    /// The entries of the kinds in [`Entry`], in their order. Behind an entry that does not fit nothing can be read: its
    /// error is the last item.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, Error>> + Clone + use<'m> {
        entries(self.entries, SIGNATURE, if self.is_wide { decode_wide } else { decode_narrow })
    }
}

fn decode_narrow(bytes: &[u8]) -> Option<Option<Entry>> {
    let narrow = |domain: u32| domain & 0xFF;
    Some(decode_wide(bytes)?.map(|entry| match entry {
        Entry::Processor { apic_id, domain } => Entry::Processor { apic_id, domain: narrow(domain) },
        Entry::Memory { start, len, domain } => Entry::Memory { start, len, domain: narrow(domain) },
    }))
}

/// What the entry says, `Some(None)` for other kinds and disabled ones; `None` if it is too short for its kind.
fn decode_wide(bytes: &[u8]) -> Option<Option<Entry>> {
    const LOCAL_APIC: u8 = 0;
    const MEMORY: u8 = 1;
    const LOCAL_X2APIC: u8 = 2;
    let enabled = |flags: u32, entry| (flags & 1 != 0).then_some(entry);
    Some(match bytes[0] {
        LOCAL_APIC => {
            let domain = u32::from(bytes.get(2).copied()?) | u32_at(bytes, 8)? & !0xFF;
            enabled(u32_at(bytes, 4)?, Entry::Processor { apic_id: bytes[3].into(), domain })
        }
        LOCAL_X2APIC => {
            let entry = Entry::Processor { apic_id: u32_at(bytes, 8)?, domain: u32_at(bytes, 4)? };
            enabled(u32_at(bytes, 12)?, entry)
        }
        MEMORY => {
            let (start, len) = (u64_at(bytes, 8)?, u64_at(bytes, 16)?);
            enabled(u32_at(bytes, 28)?, Entry::Memory { start, len, domain: u32_at(bytes, 2)? })
        }
        _ => None,
    })
}
