//! What a loader tells a kernel: its command line, the modules, the memory map, the screen (Multiboot Specification, Boot
//! information format; Multiboot2 Specification, Boot information; Xen, x86/HVM direct boot ABI).
//!
//! [`v1::Info`], [`v2::Info`] and [`pvh::Info`] read the three formats out of [`Physical`] memory; [`Info`] is what they have in
//! common.

use core::fmt;

mod framebuffer;
pub mod pvh;
pub mod v1;
pub mod v2;

#[cfg(test)]
mod tests;

pub use framebuffer::{Field, Framebuffer, FramebufferKind};

/// Longest string that is read, in bytes without its NUL.
pub const MAX_STRING_BYTES: usize = 4096;

/// Memory that is read by physical address.
pub trait Physical {
    /// The `len` bytes from `start`; `None` unless all of them can be read.
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]>;
}

/// A file that the loader put into memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module<'m> {
    /// Physical address of its first byte.
    pub start: u64,
    /// Physical address after its last byte. A hostile loader may put it below `start`.
    pub end: u64,
    /// Its command line, without NUL.
    pub command_line: &'m [u8],
}

/// An entry of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// Physical address of its first byte.
    pub start: u64,
    /// Size in bytes. A hostile loader may make it wrap.
    pub len: u64,
    /// BIOS type; [`Region::AVAILABLE`] is RAM.
    pub kind: u32,
}

impl Region {
    /// The type of RAM that is free to use.
    pub const AVAILABLE: u32 = 1;
}

/// Sizes of the two parts of memory of the first PC, in KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BasicMemory {
    /// From address 0.
    pub lower_kib: u32,
    /// From 1 MiB to the first hole.
    pub upper_kib: u32,
}

/// What all formats have.
pub trait Info {
    /// Command line of the kernel, without NUL; empty if there is none.
    fn command_line(&self) -> Result<&[u8], Error>;

    /// The modules, in the order in which the user named them.
    fn modules(&self) -> Result<impl Iterator<Item = Result<Module<'_>, Error>>, Error>;

    /// The memory map, in the loader's order; `None` if the loader has none.
    fn memory_map(&self) -> Result<Option<impl Iterator<Item = Result<Region, Error>>>, Error>;

    /// Sizes for a loader without memory map.
    fn basic_memory(&self) -> Option<BasicMemory>;

    /// The screen, as the loader left it; `None` if it does not say, or nothing that can be understood.
    fn framebuffer(&self) -> Option<Framebuffer>;

    /// A copy of the root pointer of ACPI ([`crate::acpi::Root::of_pointer`]), if the loader has one.
    fn root_pointer(&self) -> Option<&[u8]>;
}

/// Why boot information cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The named part lies where no memory can be read.
    Unreachable(&'static str),
    /// A string has no end within [`MAX_STRING_BYTES`].
    EndlessString,
    /// The named part is smaller than its format, or does not fit into what holds it.
    BadSize(&'static str),
    /// Something else is where the information should be.
    NoMagic,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(part) => write!(f, "its {part} is not in memory"),
            Self::EndlessString => write!(f, "a command line has no end"),
            Self::BadSize(part) => write!(f, "its {part} has an impossible size"),
            Self::NoMagic => write!(f, "its information does not begin as such"),
        }
    }
}

/// `bytes` up to the first NUL; all of them if there is none.
fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The string that begins at `start`, without its NUL; an empty one for address 0, which stands for none.
fn string<M: Physical>(memory: &M, start: u64) -> Result<&[u8], Error> {
    const UNREACHABLE: Error = Error::Unreachable("command line");
    if start == 0 {
        return Ok(&[]);
    }
    for len in 0..=MAX_STRING_BYTES as u64 {
        let at = start.checked_add(len).ok_or(UNREACHABLE)?;
        if *memory.bytes(at, 1).ok_or(UNREACHABLE)? == [0] {
            return memory.bytes(start, len).ok_or(UNREACHABLE);
        }
    }
    Err(Error::EndlessString)
}
