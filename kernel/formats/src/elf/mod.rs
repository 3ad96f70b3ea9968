//! ELF executables of x86, both classes (System V ABI: ELF Header, Program Header).
//!
//! [`Elf::parse`] checks the whole file as far as a loader uses it: header, program headers, and for each PT_LOAD
//! segment that its bytes are in the file and its addresses do not wrap. So iteration afterwards cannot fail. Section
//! headers are not looked at: a stripped or cut-off section table loads as well as any.

use core::fmt;

use crate::le::{u16_at, u32_at, u64_at};

#[cfg(test)]
mod tests;

const MAGIC: &[u8] = b"\x7fELF";
const LITTLE_ENDIAN: u8 = 1;
const CURRENT_VERSION: u8 = 1;
const ET_EXEC: u16 = 2;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PF_W: u32 = 2;

/// Width of addresses in the file; the number is that of `e_ident[EI_CLASS]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// 32-bit.
    Elf32 = 1,
    /// 64-bit.
    Elf64 = 2,
}

impl Class {
    const fn machine(self) -> u16 {
        match self {
            Self::Elf32 => EM_386,
            Self::Elf64 => EM_X86_64,
        }
    }

    const fn header_bytes(self) -> usize {
        match self {
            Self::Elf32 => 52,
            Self::Elf64 => 64,
        }
    }

    const fn program_header_bytes(self) -> u16 {
        match self {
            Self::Elf32 => 32,
            Self::Elf64 => 56,
        }
    }
}

/// Why a file cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The file does not start with the ELF magic number.
    NotElf,
    /// The file ends inside the ELF header.
    TruncatedHeader,
    /// `e_ident[EI_CLASS]` is neither 1 nor 2.
    UnknownClass(u8),
    /// Not little-endian.
    NotLittleEndian(u8),
    /// Not version 1.
    UnknownVersion(u8),
    /// The machine is not the x86 of the file's class.
    WrongMachine(u16),
    /// The type is not EXEC: a relocatable or position-independent file, a library, a core dump.
    NotExecutable(u16),
    /// `e_phentsize` is not that of the class.
    ProgramHeaderSize(u16),
    /// The program header with this index is not inside the file.
    TruncatedProgramHeaders(u16),
    /// The bytes of the segment are not all inside the file.
    TruncatedSegment(u16),
    /// `p_filesz` is larger than `p_memsz`.
    FileSizeAboveMemorySize(u16),
    /// The addresses of the segment wrap around.
    AddressOverflow(u16),
    /// There is no PT_LOAD segment with a size.
    NothingToLoad,
    /// The entry point, taken as a physical address, is in no PT_LOAD segment.
    EntryOutside(u64),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotElf => write!(f, "is not an ELF file"),
            Self::TruncatedHeader => write!(f, "ends inside the ELF header"),
            Self::UnknownClass(class) => write!(f, "has the unknown ELF class {class}"),
            Self::NotLittleEndian(data) => write!(f, "is not little-endian (data encoding {data})"),
            Self::UnknownVersion(version) => write!(f, "has the unknown ELF version {version}"),
            Self::WrongMachine(machine) => write!(f, "is for another machine (number {machine})"),
            Self::NotExecutable(kind) => write!(f, "is not an EXEC file (ELF type {kind})"),
            Self::ProgramHeaderSize(size) => write!(f, "has program headers of {size} bytes"),
            Self::TruncatedProgramHeaders(index) => write!(f, "ends before program header {index}"),
            Self::TruncatedSegment(index) => write!(f, "ends inside segment {index}"),
            Self::FileSizeAboveMemorySize(index) => write!(f, "segment {index} is larger in the file than in memory"),
            Self::AddressOverflow(index) => write!(f, "the addresses of segment {index} wrap around"),
            Self::NothingToLoad => write!(f, "has no segment to load"),
            Self::EntryOutside(entry) => write!(f, "its entry point {entry:#x} is in no loaded segment"),
        }
    }
}

/// A PT_LOAD segment with a memory size above zero. No sum of a start and its size wraps, apart from an end of exactly
/// 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Start of its bytes in the file.
    pub offset: usize,
    /// Bytes that come from the file; not more than `memory_bytes`.
    pub file_bytes: usize,
    /// Bytes in memory; those beyond `file_bytes` are zero.
    pub memory_bytes: u64,
    /// Physical address.
    pub physical: u64,
    /// Virtual address.
    pub virt: u64,
    /// The program may write it.
    pub is_writable: bool,
}

/// A checked executable: all its segments are inside the file, and one holds the entry point.
#[derive(Clone, Copy, Debug)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    class: Class,
    entry: u64,
    table: usize,
    count: u16,
}

impl<'a> Elf<'a> {
    /// Checks `bytes`, a whole file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let class = check_ident(bytes)?;
        let header = bytes.get(..class.header_bytes()).ok_or(Error::TruncatedHeader)?;
        let half = |offset| u16_at(header, offset).ok_or(Error::TruncatedHeader);
        let word = |narrow, wide| address_at(header, class, narrow, wide).ok_or(Error::TruncatedHeader);
        // The fields after the addresses move by 12 bytes from class to class.
        let (size_at, count_at) = match class {
            Class::Elf32 => (42, 44),
            Class::Elf64 => (54, 56),
        };

        let (kind, machine) = (half(16)?, half(18)?);
        if machine != class.machine() {
            return Err(Error::WrongMachine(machine));
        }
        if kind != ET_EXEC {
            return Err(Error::NotExecutable(kind));
        }
        let (entry, table) = (word(24, 24)?, word(28, 32)?);
        let (size, count) = (half(size_at)?, half(count_at)?);
        if count > 0 && size != class.program_header_bytes() {
            return Err(Error::ProgramHeaderSize(size));
        }
        let table = usize::try_from(table).map_err(|_| Error::TruncatedProgramHeaders(0))?;
        let elf = Self { bytes, class, entry, table, count };
        elf.check_segments()?;
        Ok(elf)
    }

    /// Width of the program.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Address of the first instruction.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// What is to be loaded, in the order of the program headers.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        (0..self.count).filter_map(|index| self.segment(index).ok().flatten())
    }

    /// Lowest physical address and the one after the highest; at most 2^64 - 1.
    pub fn physical_range(&self) -> (u64, u64) {
        self.segments().fold((u64::MAX, 0), |(low, high), segment| {
            (low.min(segment.physical), high.max(segment.physical.saturating_add(segment.memory_bytes)))
        })
    }

    /// The bytes that the file holds for `segment`, one of [`Self::segments`].
    pub fn file_bytes(&self, segment: &Segment) -> &'a [u8] {
        &self.bytes[segment.offset..][..segment.file_bytes]
    }

    fn check_segments(&self) -> Result<(), Error> {
        let (mut is_empty, mut holds_entry) = (true, false);
        for index in 0..self.count {
            if let Some(segment) = self.segment(index)? {
                is_empty = false;
                holds_entry |= self.entry.checked_sub(segment.physical).is_some_and(|at| at < segment.memory_bytes);
            }
        }
        if is_empty {
            return Err(Error::NothingToLoad);
        }
        if !holds_entry {
            return Err(Error::EntryOutside(self.entry));
        }
        Ok(())
    }

    /// Program header `index`; `None` when there is nothing to load for it.
    fn segment(&self, index: u16) -> Result<Option<Segment>, Error> {
        let size = usize::from(self.class.program_header_bytes());
        let header = usize::from(index)
            .checked_mul(size)
            .and_then(|offset| self.table.checked_add(offset))
            .and_then(|start| self.bytes.get(start..)?.get(..size))
            .ok_or(Error::TruncatedProgramHeaders(index))?;
        let word =
            |narrow, wide| address_at(header, self.class, narrow, wide).ok_or(Error::TruncatedProgramHeaders(index));
        let flags_at = match self.class {
            Class::Elf32 => 24,
            Class::Elf64 => 4,
        };

        if u32_at(header, 0) != Some(PT_LOAD) {
            return Ok(None);
        }
        let memory_bytes = word(20, 40)?;
        let (offset, virt, physical, file_bytes) = (word(4, 8)?, word(8, 16)?, word(12, 24)?, word(16, 32)?);
        if file_bytes > memory_bytes {
            return Err(Error::FileSizeAboveMemorySize(index));
        }
        if memory_bytes == 0 {
            return Ok(None);
        }
        if self.wraps(physical, memory_bytes) || self.wraps(virt, memory_bytes) {
            return Err(Error::AddressOverflow(index));
        }
        let (offset, file_bytes) = self.file_range(offset, file_bytes).ok_or(Error::TruncatedSegment(index))?;
        let is_writable = u32_at(header, flags_at).is_some_and(|flags| flags & PF_W != 0);
        Ok(Some(Segment { offset, file_bytes, memory_bytes, physical, virt, is_writable }))
    }

    /// Whether the last of `size` (not 0) bytes from `start` has no address in the file's class.
    fn wraps(&self, start: u64, size: u64) -> bool {
        let highest = match self.class {
            Class::Elf32 => u64::from(u32::MAX),
            Class::Elf64 => u64::MAX,
        };
        start.checked_add(size - 1).is_none_or(|last| last > highest)
    }

    /// `offset` and `size` as indices, if the file has those bytes.
    fn file_range(&self, offset: u64, size: u64) -> Option<(usize, usize)> {
        let (offset, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
        self.bytes.get(offset..)?.get(..size)?;
        Some((offset, size))
    }
}

/// Whether `bytes` claim to be an ELF file, sound or not.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

fn check_ident(bytes: &[u8]) -> Result<Class, Error> {
    if !is_elf(bytes) {
        return Err(Error::NotElf);
    }
    let [class, data, version] = bytes.get(4..).and_then(<[u8]>::first_chunk).ok_or(Error::TruncatedHeader)?;
    if *data != LITTLE_ENDIAN {
        return Err(Error::NotLittleEndian(*data));
    }
    if *version != CURRENT_VERSION {
        return Err(Error::UnknownVersion(*version));
    }
    match *class {
        1 => Ok(Class::Elf32),
        2 => Ok(Class::Elf64),
        class => Err(Error::UnknownClass(class)),
    }
}

/// The address-sized field that stands at `narrow` in class 1 and at `wide` in class 2.
fn address_at(bytes: &[u8], class: Class, narrow: usize, wide: usize) -> Option<u64> {
    match class {
        Class::Elf32 => u32_at(bytes, narrow).map(u64::from),
        Class::Elf64 => u64_at(bytes, wide),
    }
}
