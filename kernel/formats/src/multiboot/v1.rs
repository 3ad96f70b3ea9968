//! Multiboot 1 (Multiboot Specification 0.6.96, Boot information format).

use super::{BasicMemory, Error, Framebuffer, Module, Physical, Region};
use crate::le::{u32_at, u64_at};

/// What the loader leaves in eax.
pub const LOADER_MAGIC: u32 = 0x2BAD_B002;

/// Size of the info structure in bytes.
pub const INFO_BYTES: u64 = 4 * WORDS as u64;
/// Size of an entry of the module table in bytes: start, end, command line, reserved.
pub const MODULE_BYTES: u64 = 16;

const WORDS: usize = 29;

/// `flags`: `mem_lower` and `mem_upper` are valid.
pub const HAS_MEMORY: u32 = 1 << 0;
/// `flags`: the boot device is valid.
pub const HAS_BOOT_DEVICE: u32 = 1 << 1;
/// `flags`: `command_line` is valid.
pub const HAS_COMMAND_LINE: u32 = 1 << 2;
/// `flags`: `modules_count` and `modules` are valid.
pub const HAS_MODULES: u32 = 1 << 3;
/// `flags`: `map_len` and `map` are valid.
pub const HAS_MAP: u32 = 1 << 6;
/// `flags`: the structure ends with a description of the screen.
pub const HAS_FRAMEBUFFER: u32 = 1 << 12;

/// Where that is.
const FRAMEBUFFER: usize = INFO_BYTES as usize - Framebuffer::V1_BYTES;

/// The fixed part of the info structure: the fields that no other structure hangs on. Addresses are physical.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Which of the others are valid: `HAS_*`. That of the screen follows from [`Header::framebuffer`].
    pub flags: u32,
    /// Memory from address 0, in KiB.
    pub lower_kib: u32,
    /// Memory from 1 MiB to the first hole, in KiB.
    pub upper_kib: u32,
    /// BIOS drive and partitions.
    pub boot_device: u32,
    /// Address of the NUL-terminated command line.
    pub command_line: u32,
    /// Entries in the module table.
    pub modules_count: u32,
    /// Address of the module table.
    pub modules: u32,
    /// Bytes of the memory map.
    pub map_len: u32,
    /// Address of the memory map.
    pub map: u32,
    /// The screen.
    pub framebuffer: Option<Framebuffer>,
}

impl Header {
    /// Reads the structure; `None` if `bytes` are fewer than [`INFO_BYTES`].
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let words: &[u8; 4 * WORDS] = bytes.first_chunk()?;
        let word = |index: usize| u32_at(words, 4 * index);
        Some(Self {
            flags: word(0)?,
            lower_kib: word(1)?,
            upper_kib: word(2)?,
            boot_device: word(3)?,
            command_line: word(4)?,
            modules_count: word(5)?,
            modules: word(6)?,
            map_len: word(11)?,
            map: word(12)?,
            framebuffer: if word(0)? & HAS_FRAMEBUFFER != 0 {
                Framebuffer::read_v1(&words[FRAMEBUFFER..])
            } else {
                None
            },
        })
    }

    /// The structure as bytes; fields not named in [`Header`] are zero.
    pub fn to_bytes(self) -> [u8; INFO_BYTES as usize] {
        let mut words = [0; WORDS];
        let flags = if self.framebuffer.is_some() { HAS_FRAMEBUFFER } else { 0 };
        words[..7].copy_from_slice(&[
            self.flags & !HAS_FRAMEBUFFER | flags,
            self.lower_kib,
            self.upper_kib,
            self.boot_device,
            self.command_line,
            self.modules_count,
            self.modules,
        ]);
        words[11..13].copy_from_slice(&[self.map_len, self.map]);
        let mut bytes = [0; INFO_BYTES as usize];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        if let Some(framebuffer) = self.framebuffer {
            bytes[FRAMEBUFFER..].copy_from_slice(&framebuffer.to_v1_bytes());
        }
        bytes
    }
}

/// An entry of the memory map as bytes.
pub fn region_bytes(region: &Region) -> [u8; 24] {
    let mut bytes = [0; 24];
    // The size field does not count itself.
    bytes[..4].copy_from_slice(&20u32.to_le_bytes());
    bytes[4..12].copy_from_slice(&region.start.to_le_bytes());
    bytes[12..20].copy_from_slice(&region.len.to_le_bytes());
    bytes[20..].copy_from_slice(&region.kind.to_le_bytes());
    bytes
}

/// The boot information of a Multiboot 1 loader.
#[derive(Clone, Copy, Debug)]
pub struct Info<'m, M> {
    memory: &'m M,
    header: Header,
}

impl<'m, M: Physical> Info<'m, M> {
    /// The info structure at `address`, which the loader leaves in ebx.
    pub fn new(memory: &'m M, address: u64) -> Result<Self, Error> {
        let header = memory.bytes(address, INFO_BYTES).and_then(Header::read);
        Ok(Self { memory, header: header.ok_or(Error::Unreachable("information"))? })
    }

    /// The fixed part.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn has(&self, flag: u32) -> bool {
        self.header.flags & flag != 0
    }

    fn string(&self, address: u32) -> Result<&'m [u8], Error> {
        super::string(self.memory, address.into())
    }

    fn bytes(&self, start: u64, len: u64, part: &'static str) -> Result<&'m [u8], Error> {
        self.memory.bytes(start, len).ok_or(Error::Unreachable(part))
    }

    fn module(&self, entry: &'m [u8]) -> Result<Module<'m>, Error> {
        let field = |offset| u32_at(entry, offset).ok_or(Error::BadSize("module table"));
        Ok(Module { start: field(0)?.into(), end: field(4)?.into(), command_line: self.string(field(8)?)? })
    }
}

impl<M: Physical> super::Info for Info<'_, M> {
    fn command_line(&self) -> Result<&[u8], Error> {
        if self.has(HAS_COMMAND_LINE) { self.string(self.header.command_line) } else { Ok(&[]) }
    }

    fn modules(&self) -> Result<impl Iterator<Item = Result<Module<'_>, Error>>, Error> {
        let count = if self.has(HAS_MODULES) { u64::from(self.header.modules_count) } else { 0 };
        let table = match count {
            0 => &[],
            _ => self.bytes(self.header.modules.into(), MODULE_BYTES * count, "module table")?,
        };
        Ok(table.chunks_exact(MODULE_BYTES as usize).map(|entry| self.module(entry)))
    }

    fn memory_map(&self) -> Result<Option<impl Iterator<Item = Result<Region, Error>>>, Error> {
        if !self.has(HAS_MAP) {
            return Ok(None);
        }
        let bytes = self.bytes(self.header.map.into(), self.header.map_len.into(), "memory map")?;
        Ok(Some(Regions { bytes }))
    }

    fn basic_memory(&self) -> Option<BasicMemory> {
        let Header { lower_kib, upper_kib, .. } = self.header;
        self.has(HAS_MEMORY).then_some(BasicMemory { lower_kib, upper_kib })
    }

    fn framebuffer(&self) -> Option<Framebuffer> {
        self.header.framebuffer
    }

    fn root_pointer(&self) -> Option<&[u8]> {
        None
    }
}

/// The rest of a memory map; entries have their size, which may be more than the fields, in front.
struct Regions<'m> {
    bytes: &'m [u8],
}

impl Regions<'_> {
    /// The first entry and the bytes after it.
    fn split(&self) -> Option<(Region, usize)> {
        let len = usize::try_from(u32_at(self.bytes, 0)?).ok()?.checked_add(4)?;
        let entry = self.bytes.get(..len)?;
        let region = Region { start: u64_at(entry, 4)?, len: u64_at(entry, 12)?, kind: u32_at(entry, 20)? };
        Some((region, len))
    }
}

impl Iterator for Regions<'_> {
    type Item = Result<Region, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        match self.split() {
            Some((region, len)) => {
                self.bytes = &self.bytes[len..];
                Some(Ok(region))
            }
            None => {
                self.bytes = &[];
                Some(Err(Error::BadSize("memory map")))
            }
        }
    }
}
