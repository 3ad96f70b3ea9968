//! Multiboot 2 (Multiboot2 Specification 2.0, Boot information): one block of tags, each with its type and size.
//!
//! Tags that nobody here asks for, such as the EFI tables, are passed over.

use super::{BasicMemory, Error, Framebuffer, Module, Physical, Region, until_nul};
use crate::le::{u32_at, u64_at};

/// What the loader leaves in eax.
pub const LOADER_MAGIC: u32 = 0x36D7_6289;

const HEADER_BYTES: usize = 8;
const TAG_HEADER_BYTES: usize = 8;
const TAG_ALIGN: usize = 8;
const REGION_BYTES: usize = 24;

const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const MODULE: u32 = 3;
const BASIC_MEMORY: u32 = 4;
const MEMORY_MAP: u32 = 6;
const FRAMEBUFFER: u32 = 8;
/// The root pointer of ACPI 1, and of later ones, which is the longer one.
const OLD_ROOT_POINTER: u32 = 14;
const ROOT_POINTER: u32 = 15;

/// The boot information of a Multiboot 2 loader, its chain of tags checked.
#[derive(Clone, Copy, Debug)]
pub struct Info<'m> {
    tags: &'m [u8],
}

impl<'m> Info<'m> {
    /// The information at `address`, which the loader leaves in ebx.
    pub fn new<M: Physical>(memory: &'m M, address: u64) -> Result<Self, Error> {
        let unreachable = Error::Unreachable("information");
        let total = memory.bytes(address, HEADER_BYTES as u64).and_then(|header| u32_at(header, 0));
        let bytes = memory.bytes(address, total.ok_or(unreachable)?.into()).ok_or(unreachable)?;
        let info = Self { tags: bytes.get(HEADER_BYTES..).ok_or(Error::BadSize("information"))? };
        info.check()?;
        Ok(info)
    }

    fn check(&self) -> Result<(), Error> {
        let mut rest = self.tags;
        while let Some((tag, after)) = split_tag(rest) {
            if tag.kind == END {
                return Ok(());
            }
            rest = after;
        }
        Err(Error::BadSize("chain of tags"))
    }

    fn tags(&self, kind: u32) -> impl Iterator<Item = &'m [u8]> {
        let mut rest = self.tags;
        core::iter::from_fn(move || {
            let (tag, after) = split_tag(rest)?;
            rest = after;
            (tag.kind != END).then_some(tag)
        })
        .filter(move |tag| tag.kind == kind)
        .map(|tag| tag.body)
    }
}

impl super::Info for Info<'_> {
    fn command_line(&self) -> Result<&[u8], Error> {
        Ok(self.tags(COMMAND_LINE).next().map(until_nul).unwrap_or_default())
    }

    fn modules(&self) -> Result<impl Iterator<Item = Result<Module<'_>, Error>>, Error> {
        Ok(self.tags(MODULE).map(|body| module(body).ok_or(Error::BadSize("module tag"))))
    }

    fn memory_map(&self) -> Result<Option<impl Iterator<Item = Result<Region, Error>>>, Error> {
        let bad_size = Error::BadSize("memory map");
        let Some(body) = self.tags(MEMORY_MAP).next() else { return Ok(None) };
        let stride = u32_at(body, 0).and_then(|stride| usize::try_from(stride).ok()).ok_or(bad_size)?;
        let entries = body.get(8..).ok_or(bad_size)?;
        if stride < REGION_BYTES || entries.len() % stride != 0 {
            return Err(bad_size);
        }
        Ok(Some(entries.chunks_exact(stride).map(move |entry| region(entry).ok_or(bad_size))))
    }

    fn basic_memory(&self) -> Option<BasicMemory> {
        let body = self.tags(BASIC_MEMORY).next()?;
        Some(BasicMemory { lower_kib: u32_at(body, 0)?, upper_kib: u32_at(body, 4)? })
    }

    fn framebuffer(&self) -> Option<Framebuffer> {
        self.tags(FRAMEBUFFER).next().and_then(Framebuffer::read_v2)
    }

    fn root_pointer(&self) -> Option<&[u8]> {
        self.tags(ROOT_POINTER).chain(self.tags(OLD_ROOT_POINTER)).next()
    }
}

struct Tag<'m> {
    kind: u32,
    body: &'m [u8],
}

/// The first tag and the bytes from the next on; `None` if it does not fit.
fn split_tag(bytes: &[u8]) -> Option<(Tag<'_>, &[u8])> {
    let kind = u32_at(bytes, 0)?;
    let len = usize::try_from(u32_at(bytes, 4)?).ok()?;
    let body = bytes.get(TAG_HEADER_BYTES..len)?;
    let after = bytes.get(len.checked_next_multiple_of(TAG_ALIGN)?..).unwrap_or_default();
    Some((Tag { kind, body }, after))
}

fn module(body: &[u8]) -> Option<Module<'_>> {
    let command_line = until_nul(body.get(8..)?);
    Some(Module { start: u32_at(body, 0)?.into(), end: u32_at(body, 4)?.into(), command_line })
}

fn region(entry: &[u8]) -> Option<Region> {
    Some(Region { start: u64_at(entry, 0)?, len: u64_at(entry, 8)?, kind: u32_at(entry, 16)? })
}
