//! The start of a virtual machine without firmware in between (Xen, x86/HVM direct boot ABI, start info): command line,
//! modules, memory map and root pointer of ACPI, as emulators hand them to a kernel with a note for it.
//!
//! Most such loaders bring one module alone. So a module that is an archive (cpio, `newc`) stands for the files in it, in
//! their order, and the name of each is its command line.

use super::{Error, Module, Physical, Region, string, until_nul};
use crate::acpi::ROOT_POINTER_BYTES;
use crate::le::{u32_at, u64_at};

/// What the information begins with; the entry code leaves it in eax in place of a loader's magic.
pub const MAGIC: u32 = 0x336E_C578;

/// Size of the information of version 0 in bytes.
const BASIC_BYTES: u64 = 40;
/// The same with a memory map, from version 1 on.
const WITH_MAP_BYTES: u64 = 56;
/// Size of an entry of the module list, and of the memory map.
const MODULE_BYTES: u64 = 32;
const REGION_BYTES: u64 = 24;

/// The information, of which only the fixed part was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Info<'m, M> {
    memory: &'m M,
    command_line: u64,
    modules: u64,
    modules_count: u32,
    root_pointer: u64,
    /// Where the memory map is, and its entries.
    map: Option<(u64, u32)>,
}

impl<'m, M: Physical> Info<'m, M> {
    /// The information at `address`, which the loader leaves in ebx.
    ///
    /// # Errors
    /// [`Error::Unreachable`], and [`Error::NoMagic`] if something else is there.
    pub fn new(memory: &'m M, address: u64) -> Result<Self, Error> {
        const UNREACHABLE: Error = Error::Unreachable("information");
        let basic = memory.bytes(address, BASIC_BYTES).ok_or(UNREACHABLE)?;
        let half = |bytes: &[u8], at| u32_at(bytes, at).ok_or(UNREACHABLE);
        let word = |bytes: &[u8], at| u64_at(bytes, at).ok_or(UNREACHABLE);
        if half(basic, 0)? != MAGIC {
            return Err(Error::NoMagic);
        }
        let map = if half(basic, 4)? == 0 {
            None
        } else {
            let whole = memory.bytes(address, WITH_MAP_BYTES).ok_or(UNREACHABLE)?;
            Some((word(whole, 40)?, half(whole, 48)?))
        };
        Ok(Self {
            memory,
            command_line: word(basic, 24)?,
            modules: word(basic, 16)?,
            modules_count: half(basic, 12)?,
            root_pointer: word(basic, 32)?,
            map: map.filter(|(start, count)| *start != 0 && *count != 0),
        })
    }

    fn list(&self, start: u64, count: u32, bytes: u64, part: &'static str) -> Result<&'m [u8], Error> {
        if count == 0 {
            return Ok(&[]);
        }
        self.memory.bytes(start, bytes * u64::from(count)).ok_or(Error::Unreachable(part))
    }

    /// The modules that an entry of the list stands for.
    fn of_entry(&self, entry: &'m [u8]) -> Result<Files<'m>, Error> {
        let field = |at| u64_at(entry, at).ok_or(Error::BadSize("module list"));
        let (start, len, line) = (field(0)?, field(8)?, field(16)?);
        let end = start.checked_add(len).ok_or(Error::BadSize("module list"))?;
        match self.memory.bytes(start, len) {
            Some(archive) if archive.starts_with(ARCHIVE_MAGIC) => Ok(Files::Archive { start, archive, at: 0 }),
            // One that is not in memory is the business of who wants to read it.
            _ => Ok(Files::One(Some(Module { start, end, command_line: string(self.memory, line)? }))),
        }
    }
}

impl<M: Physical> super::Info for Info<'_, M> {
    fn command_line(&self) -> Result<&[u8], Error> {
        string(self.memory, self.command_line)
    }

    fn modules(&self) -> Result<impl Iterator<Item = Result<Module<'_>, Error>>, Error> {
        let list = self.list(self.modules, self.modules_count, MODULE_BYTES, "module list")?;
        Ok(list.chunks_exact(MODULE_BYTES as usize).flat_map(|entry| match self.of_entry(entry) {
            Ok(files) => files,
            Err(error) => Files::Wrong(Some(error)),
        }))
    }

    fn memory_map(&self) -> Result<Option<impl Iterator<Item = Result<Region, Error>>>, Error> {
        let Some((start, count)) = self.map else { return Ok(None) };
        let map = self.list(start, count, REGION_BYTES, "memory map")?;
        let region =
            |entry: &[u8]| Some(Region { start: u64_at(entry, 0)?, len: u64_at(entry, 8)?, kind: u32_at(entry, 16)? });
        Ok(Some(
            map.chunks_exact(REGION_BYTES as usize).map(move |entry| region(entry).ok_or(Error::BadSize("memory map"))),
        ))
    }

    fn basic_memory(&self) -> Option<super::BasicMemory> {
        None
    }

    fn framebuffer(&self) -> Option<super::Framebuffer> {
        None
    }

    fn root_pointer(&self) -> Option<&[u8]> {
        self.memory.bytes(self.root_pointer, ROOT_POINTER_BYTES as u64).filter(|_| self.root_pointer != 0)
    }
}

/// What an archive begins with, and each file in it.
const ARCHIVE_MAGIC: &[u8] = b"070701";
/// Bytes before the name: the magic, and thirteen numbers of eight hexadecimal digits.
const ARCHIVE_HEADER_BYTES: usize = 6 + 13 * 8;
/// Names and files begin at multiples of this.
const ARCHIVE_ALIGN: usize = 4;
/// The name behind the last file.
const ARCHIVE_END: &[u8] = b"TRAILER!!!";

/// The modules that an entry of the list stands for.
enum Files<'m> {
    One(Option<Module<'m>>),
    Archive { start: u64, archive: &'m [u8], at: usize },
    Wrong(Option<Error>),
}

/// What is said of a file in an archive.
struct Entry<'m> {
    is_file: bool,
    name: &'m [u8],
    /// Where it is in the archive.
    start: usize,
    end: usize,
    next: usize,
}

/// The entry at `at`; `None` if it does not fit.
fn archived(archive: &[u8], at: usize) -> Option<Entry<'_>> {
    const MODE: usize = 1;
    const FILE_BYTES: usize = 6;
    const NAME_BYTES: usize = 11;
    const KIND: usize = 0o170_000;
    const FILE: usize = 0o100_000;
    let rest = archive.get(at..)?;
    let header = rest.get(..ARCHIVE_HEADER_BYTES)?.strip_prefix(ARCHIVE_MAGIC)?;
    let number = |index: usize| {
        let digits = header.get(8 * index..8 * index + 8).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        usize::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
    };
    let name_end = ARCHIVE_HEADER_BYTES.checked_add(number(NAME_BYTES)?)?;
    let name = until_nul(rest.get(ARCHIVE_HEADER_BYTES..name_end)?);
    let start = name_end.checked_next_multiple_of(ARCHIVE_ALIGN)?;
    let end = start.checked_add(number(FILE_BYTES)?)?;
    let next = end.checked_next_multiple_of(ARCHIVE_ALIGN)?;
    let place = |offset: usize| at.checked_add(offset).filter(|place| *place <= archive.len());
    // Behind the last byte nothing need stand.
    let next = at.checked_add(next)?.min(archive.len());
    Some(Entry { is_file: number(MODE)? & KIND == FILE, name, start: place(start)?, end: place(end)?, next })
}

impl<'m> Iterator for Files<'m> {
    type Item = Result<Module<'m>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::One(module) => module.take().map(Ok),
            Self::Wrong(error) => error.take().map(Err),
            Self::Archive { start, archive, at } => {
                while let Some(entry) = archived(archive, *at) {
                    if entry.name == ARCHIVE_END {
                        return None;
                    }
                    *at = entry.next;
                    if entry.is_file {
                        let place = |offset: usize| *start + offset as u64;
                        let (start, end) = (place(entry.start), place(entry.end));
                        return Some(Ok(Module { start, end, command_line: entry.name }));
                    }
                }
                *self = Self::Wrong(None);
                Some(Err(Error::BadSize("archive of modules")))
            }
        }
    }
}
