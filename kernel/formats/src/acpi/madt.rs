//! The table of interrupt controllers (ACPI, Multiple APIC Description Table): interrupt lines and processors.
//!
//! A line is known by its *global system interrupt*, a number that counts through the inputs of all I/O APICs. Interrupts
//! of the ISA bus are the lines of the same numbers, unless an override says otherwise.

use super::{Error, HEADER_BYTES, Root, Signature, entries};
use crate::le::{u16_at, u32_at};
use crate::multiboot::Physical;

/// Its signature.
pub const SIGNATURE: Signature = Signature(*b"APIC");

/// Address of the local APICs and flags, before the entries.
const FIXED_BYTES: usize = 8;

/// How a line says that there is an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// By going to its active level.
    Edge,
    /// By staying at it.
    Level,
}

/// Which level of a line is the active one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Polarity {
    High,
    Low,
}

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A processor, by its local APIC.
    Processor {
        /// The number of its local APIC: 8 bits in old tables, 32 with x2APIC.
        apic_id: u32,
        /// The firmware brought it up. One that is not may be plugged in later, or be broken.
        is_enabled: bool,
    },
    /// An I/O APIC.
    IoApic {
        /// Physical address of its registers.
        address: u32,
        /// The line of its first input.
        first_line: u32,
    },
    /// An interrupt of the ISA bus is at another line or wired in another way than such interrupts are.
    Override {
        /// Its number on the bus.
        source: u8,
        /// The line.
        line: u32,
        /// `None`: as the bus has it.
        trigger: Option<Trigger>,
        /// `None`: as the bus has it.
        polarity: Option<Polarity>,
    },
    /// A line is a non-maskable interrupt, and no device's.
    NonMaskable {
        /// The line.
        line: u32,
    },
}

/// The table, header and size checked.
#[derive(Clone, Copy, Debug)]
pub struct Madt<'m> {
    entries: &'m [u8],
}

impl<'m> Madt<'m> {
    /// The table of the machine with this list of tables.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::NoRoot`].
    pub fn find(root: &Root, memory: &'m impl Physical) -> Result<Self, Error> {
        let table = root.table(memory, SIGNATURE)?;
        let entries = table.get(HEADER_BYTES + FIXED_BYTES..).ok_or(Error::BadSize(SIGNATURE))?;
        Ok(Self { entries })
    }

    /// The entries of the kinds in [`Entry`], in their order. Behind an entry that does not fit nothing can be read: its
    /// error is the last item.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, Error>> + use<'m> {
        entries(self.entries, SIGNATURE, decode)
    }
}

/// What the entry says, `Some(None)` for other kinds; `None` if it is too short for its kind.
fn decode(bytes: &[u8]) -> Option<Option<Entry>> {
    const LOCAL_APIC: u8 = 0;
    const IO_APIC: u8 = 1;
    const OVERRIDE: u8 = 2;
    const NON_MASKABLE: u8 = 3;
    const LOCAL_X2APIC: u8 = 9;
    const ISA: u8 = 0;
    let is_enabled = |flags: u32| flags & 1 != 0;
    Some(match bytes[0] {
        LOCAL_APIC => {
            let is_enabled = is_enabled(u32_at(bytes, 4)?);
            Some(Entry::Processor { apic_id: bytes[3].into(), is_enabled })
        }
        LOCAL_X2APIC => {
            let is_enabled = is_enabled(u32_at(bytes, 8)?);
            Some(Entry::Processor { apic_id: u32_at(bytes, 4)?, is_enabled })
        }
        IO_APIC => Some(Entry::IoApic { address: u32_at(bytes, 4)?, first_line: u32_at(bytes, 8)? }),
        OVERRIDE => {
            let (line, flags) = (u32_at(bytes, 4)?, u16_at(bytes, 8)?);
            let entry = Entry::Override { source: bytes[3], line, trigger: trigger(flags), polarity: polarity(flags) };
            (bytes[2] == ISA).then_some(entry)
        }
        NON_MASKABLE => Some(Entry::NonMaskable { line: u32_at(bytes, 4)? }),
        _ => None,
    })
}

/// The polarity in the flags of an entry (ACPI, MPS INTI Flags).
fn polarity(flags: u16) -> Option<Polarity> {
    match flags & 0b11 {
        0b01 => Some(Polarity::High),
        0b11 => Some(Polarity::Low),
        _ => None,
    }
}

/// The trigger mode in the flags of an entry.
fn trigger(flags: u16) -> Option<Trigger> {
    match flags >> 2 & 0b11 {
        0b01 => Some(Trigger::Edge),
        0b11 => Some(Trigger::Level),
        _ => None,
    }
}
