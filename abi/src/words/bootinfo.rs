//! The generic boot information: a header, then records, each with the offset of the next.
//!
//! Its words have the width of the root task. All addresses are physical; all offsets count bytes, those in a record from
//! the start of that record.

use super::*;

/// First word of the boot information.
pub const MAGIC: Word = 0x14B0_021D;
/// Version of the header and of the records.
pub const VERSION: Word = 1;

/// Start of the boot information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: Word,
    /// [`VERSION`].
    pub version: Word,
    /// Size of all of it in bytes.
    pub size_bytes: Word,
    /// Offset of the first record.
    pub first_record: Word,
    /// Number of records.
    pub records: Word,
    /// Reserved.
    pub reserved: [Word; 3],
}

/// Start of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RecordHeader {
    /// Which record this is: one of the `KIND` constants.
    pub kind: Word,
    /// [`VERSION`].
    pub version: Word,
    /// Offset of the next record.
    pub next: Word,
}

/// A boot module as it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Module {
    /// The start of the record.
    pub header: RecordHeader,
    /// Its first address.
    pub start: Word,
    /// Its size in bytes.
    pub size_bytes: Word,
    /// Offset of its command line, ended by a zero byte; 0 if it has none.
    pub cmdline: Word,
}

/// A part of an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Segment {
    /// First physical address.
    pub pstart: Word,
    /// First virtual address.
    pub vstart: Word,
    /// Size in bytes.
    pub size_bytes: Word,
}

/// An executable that was put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SimpleExec {
    /// The start of the record.
    pub header: RecordHeader,
    /// Its code.
    pub text: Segment,
    /// Its data.
    pub data: Segment,
    /// Its zeroed data.
    pub bss: Segment,
    /// Its entry.
    pub initial_ip: Word,
    /// The class of the ELF file: 1 for 32 bits, 2 for 64 bits.
    pub flags: Word,
    /// A word of the user's.
    pub label: Word,
    /// Offset of its command line, ended by a zero byte; 0 if it has none.
    pub cmdline: Word,
}

/// The firmware's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Efi {
    /// The start of the record.
    pub header: RecordHeader,
    /// The EFI system table.
    pub systab: Word,
    /// The EFI memory map.
    pub memmap: Word,
    /// Size of the map in bytes.
    pub memmap_size_bytes: Word,
    /// Size of one descriptor of the map in bytes.
    pub descriptor_size_bytes: Word,
    /// Version of the descriptors.
    pub descriptor_version: Word,
}

/// Where the copy of the Multiboot information is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Multiboot {
    /// The start of the record.
    pub header: RecordHeader,
    /// Its address.
    pub address: Word,
}

/// The root pointer of ACPI, as the boot loader has it: a record of this project's loader, which others pass over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RootPointer {
    /// The start of the record.
    pub header: RecordHeader,
    /// Offset of a copy of it.
    pub copy: Word,
    /// Size of the copy in bytes.
    pub size_bytes: Word,
}

impl Module {
    /// [`RecordHeader::kind`] of this record.
    pub const KIND: Word = 0x001;
}

impl SimpleExec {
    /// [`RecordHeader::kind`] of this record.
    pub const KIND: Word = 0x002;
}

impl Efi {
    /// [`RecordHeader::kind`] of this record.
    pub const KIND: Word = 0x101;
}

impl Multiboot {
    /// [`RecordHeader::kind`] of this record.
    pub const KIND: Word = 0x102;
}

impl RootPointer {
    /// [`RecordHeader::kind`] of this record: beyond those that the boot protocol gives out.
    pub const KIND: Word = 0x4D00_0001;
}

const _: () = assert!(size_of::<Header>() == 8 * WORD_SIZE);
const _: () = assert!(size_of::<Module>() == 6 * WORD_SIZE);
const _: () = assert!(size_of::<SimpleExec>() == 16 * WORD_SIZE);
const _: () = assert!(size_of::<Efi>() == 8 * WORD_SIZE);
const _: () = assert!(size_of::<Multiboot>() == 4 * WORD_SIZE);
const _: () = assert!(size_of::<RootPointer>() == 5 * WORD_SIZE);
