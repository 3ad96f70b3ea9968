//! Tables of ACPI firmware (ACPI Specification, ACPI Software Programming Model): from the root pointer, which the boot
//! loader has or is in the BIOS areas, to a table by its signature. [`madt`] reads the one that lists interrupt controllers, [`srat`] and [`slit`] those that say
//! which node of the machine what belongs to, and how far nodes are from each other. [`hpet`] and [`mcfg`] say where a timer and
//! the configuration of PCI Express are.
//!
//! Only static tables are read, in place, out of [`Physical`] memory; a table counts if its size and checksum are right.

use core::fmt;

use crate::le::{u16_at, u32_at, u64_at};
use crate::multiboot::Physical;

pub mod fadt;
pub mod hpet;
pub mod madt;
pub mod mcfg;
pub mod slit;
pub mod srat;

#[cfg(test)]
mod tests;

/// Largest table that is read, in bytes: far more than any that is of use here.
pub const MAX_TABLE_BYTES: u32 = 1 << 20;
/// Bytes of the root pointer that mean something.
pub const ROOT_POINTER_BYTES: usize = 36;
/// Size of what all tables begin with.
pub const HEADER_BYTES: usize = 36;

const LENGTH: usize = 4;

/// The four letters by which a table is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 4]);

impl Signature {
    const RSDT: Self = Self(*b"RSDT");
    const XSDT: Self = Self(*b"XSDT");
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| write!(f, "{}", byte.escape_ascii()))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a table cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No root pointer from the boot loader or in the BIOS areas.
    NoRoot,
    /// No table has the signature.
    Absent(Signature),
    /// No table in reach has the signature; the one at this physical address is out of reach.
    Unreachable(u64),
    /// What the root pointer or a list leads to is another table.
    Misplaced(Signature),
    /// The table is smaller than its format or larger than [`MAX_TABLE_BYTES`], or an entry does not fit.
    BadSize(Signature),
    /// The bytes of the table do not add up to zero.
    BadChecksum(Signature),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoot => write!(f, "there are no tables"),
            Self::Absent(table) => write!(f, "there is no {table}"),
            Self::Unreachable(address) => write!(f, "the table at {address:#x} is out of reach"),
            Self::Misplaced(table) => write!(f, "the {table} is not where it should be"),
            Self::BadSize(table) => write!(f, "the {table} has an impossible size"),
            Self::BadChecksum(table) => write!(f, "the {table} has a wrong checksum"),
        }
    }
}

/// The list of all tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    address: u64,
    signature: Signature,
}

impl Root {
    /// The list of the machine. `told` is a copy of the root pointer from the boot loader, which on machines with UEFI
    /// alone knows where it is. On one with a BIOS it is in the first KiB of the extended BIOS data area or in the BIOS
    /// itself, at a multiple of 16 (ACPI, Finding the RSDP on IA-PC Systems).
    ///
    /// # Errors
    /// [`Error::NoRoot`].
    pub fn find(memory: &impl Physical, told: Option<&[u8]>) -> Result<Self, Error> {
        told.and_then(Self::of_pointer).or_else(|| Self::find_in_bios(memory)).ok_or(Error::NoRoot)
    }

    /// Physical address of the list.
    pub const fn address(&self) -> u64 {
        self.address
    }

    fn find_in_bios(memory: &impl Physical) -> Option<Self> {
        const BIOS: (u64, u64) = (0xE_0000, 0x2_0000);
        const EXTENDED_DATA_BYTES: u64 = 1 << 10;
        let extended_data = extended_data_area(memory).map(|start| (start, EXTENDED_DATA_BYTES));
        let areas = extended_data.into_iter().chain([BIOS]);
        areas.filter_map(|(start, len)| memory.bytes(start, len)).find_map(Self::find_in)
    }

    fn find_in(area: &[u8]) -> Option<Self> {
        (0..area.len()).step_by(16).find_map(|at| Self::of_pointer(&area[at..]))
    }

    /// The list that the root pointer at the beginning of `bytes` names, the one with 64-bit addresses if there is one;
    /// `None` if that is no root pointer, or a damaged one.
    pub fn of_pointer(bytes: &[u8]) -> Option<Self> {
        const BASIC_BYTES: usize = 20;
        const REVISION: usize = 15;
        const RSDT: usize = 16;
        if !bytes.starts_with(b"RSD PTR ") || !is_sum_zero(bytes.get(..BASIC_BYTES)?) {
            return None;
        }
        let narrow = Self { address: u32_at(bytes, RSDT)?.into(), signature: Signature::RSDT };
        let wide = if bytes[REVISION] >= 2 { Self::from_extended_pointer(bytes) } else { None };
        wide.or(Some(narrow)).filter(|root| root.address != 0)
    }

    fn from_extended_pointer(bytes: &[u8]) -> Option<Self> {
        const LENGTH: usize = 20;
        const XSDT: usize = 24;
        const MIN_BYTES: usize = 36;
        let len = usize::try_from(u32_at(bytes, LENGTH)?).ok().filter(|&len| len >= MIN_BYTES)?;
        let address = u64_at(bytes, XSDT).filter(|&address| address != 0)?;
        is_sum_zero(bytes.get(..len)?).then_some(Self { address, signature: Signature::XSDT })
    }

    /// The first table with this signature, header included.
    ///
    /// # Errors
    /// All but [`Error::NoRoot`].
    pub fn table<'m>(&self, memory: &'m impl Physical, signature: Signature) -> Result<&'m [u8], Error> {
        let list = read_table(memory, self.address, self.signature)?;
        let mut unreachable = None;
        for address in self.addresses(&list[HEADER_BYTES..]) {
            match memory.bytes(address, HEADER_BYTES as u64) {
                None => unreachable = unreachable.or(Some(address)),
                Some(header) if header.starts_with(&signature.0) => return read_table(memory, address, signature),
                Some(_) => {}
            }
        }
        Err(unreachable.map_or(Error::Absent(signature), Error::Unreachable))
    }

    fn addresses(&self, list: &[u8]) -> impl Iterator<Item = u64> {
        let is_wide = self.signature == Signature::XSDT;
        let entry_bytes = if is_wide { size_of::<u64>() } else { size_of::<u32>() };
        let read = move |entry| if is_wide { u64_at(entry, 0) } else { u32_at(entry, 0).map(u64::from) };
        list.chunks_exact(entry_bytes).filter_map(read)
    }
}

/// Where the extended BIOS data area begins, if the BIOS says so.
fn extended_data_area(memory: &impl Physical) -> Option<u64> {
    const SEGMENT: u64 = 0x40E;
    let segment = u16_at(memory.bytes(SEGMENT, 2)?, 0)?;
    (segment != 0).then_some(u64::from(segment) << 4)
}

/// The table at `address`, its signature, size and checksum checked.
fn read_table(memory: &impl Physical, address: u64, signature: Signature) -> Result<&[u8], Error> {
    let unreachable = Error::Unreachable(address);
    let header = memory.bytes(address, HEADER_BYTES as u64).ok_or(unreachable)?;
    if !header.starts_with(&signature.0) {
        return Err(Error::Misplaced(signature));
    }
    let len = u32_at(header, LENGTH).filter(|len| (HEADER_BYTES as u32..=MAX_TABLE_BYTES).contains(len));
    let table = memory.bytes(address, len.ok_or(Error::BadSize(signature))?.into()).ok_or(unreachable)?;
    if is_sum_zero(table) { Ok(table) } else { Err(Error::BadChecksum(signature)) }
}

/// The entries of a table, which begin with kind and size, each a byte, as `decode` understands them: `Some(None)` for
/// other kinds, `None` if an entry is too short for its kind. Behind an entry that does not fit nothing can be read: its
/// error is the last item.
fn entries<'m, T>(
    mut rest: &'m [u8],
    signature: Signature,
    decode: fn(&[u8]) -> Option<Option<T>>,
) -> impl Iterator<Item = Result<T, Error>> + Clone + use<'m, T> {
    let next = move || {
        if rest.is_empty() {
            return None;
        }
        let Some((entry, after)) = split_entry(rest).and_then(|(bytes, after)| Some((decode(bytes)?, after))) else {
            rest = &[];
            return Some(Err(Error::BadSize(signature)));
        };
        rest = after;
        Some(Ok(entry))
    };
    core::iter::from_fn(next).filter_map(Result::transpose)
}

/// The first entry and the bytes behind it; `None` if it does not fit.
fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    const MIN_BYTES: usize = 2;
    let len = usize::from(*bytes.get(1)?);
    bytes.split_at_checked(len).filter(|_| len >= MIN_BYTES)
}

fn is_sum_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}
