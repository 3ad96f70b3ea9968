//! The kernel interface page inside the loaded kernel (X.2, Kernel Interface Page).
//!
//! Both widths have the same words in the same order, so a field is named by the index of its word here.

use core::mem::offset_of;

use arrayvec::ArrayVec;
use kformats::elf::Class;
use kformats::le;
use kformats::multiboot::Physical;
use l4_abi::{w32, w64};

use crate::descriptors::MAX_DESCRIPTORS;
use crate::load::Image;
use crate::{Extent, Memory, Problem};

/// Width of a kernel's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 32 bits.
    W32,
    /// 64 bits.
    W64,
}

impl Width {
    /// The width of programs of `class`.
    pub const fn of(class: Class) -> Self {
        match class {
            Class::Elf32 => Self::W32,
            Class::Elf64 => Self::W64,
        }
    }

    /// Size of a word in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::W32 => 4,
            Self::W64 => 8,
        }
    }

    /// Writes `value`, cut to a word, at `offset`; `None` where it does not fit.
    pub fn put(self, bytes: &mut [u8], offset: usize, value: u64) -> Option<()> {
        le::put(bytes, offset, &value.to_le_bytes()[..self.bytes() as usize])
    }
}

/// Index of a field's first word, which must be the same at both widths.
macro_rules! word_of {
    ($field:ident) => {{
        const INDEX: u64 = offset_of!(w64::Kip, $field) as u64 / 8;
        const _: () = assert!(INDEX == offset_of!(w32::Kip, $field) as u64 / 4);
        INDEX
    }};
}

/// The words of sigma0: SP, IP, low, high.
pub const SIGMA0_WORDS: u64 = word_of!(sigma0);
/// The words of sigma1: SP, IP, low, high.
pub const SIGMA1_WORDS: u64 = word_of!(sigma1);
/// The words of the root task: SP, IP, low, high.
pub const ROOT_WORDS: u64 = word_of!(root_server);
/// Physical address of the boot information.
pub const BOOT_INFO: u64 = word_of!(boot_info);
const MEMORY_INFO: u64 = word_of!(memory_info);
const PAGE_INFO: u64 = word_of!(page_info);
const KIP_WORDS: u64 = size_of::<w64::Kip>() as u64 / 8;

const MAGIC_BYTES: usize = 4;
const DESCRIPTOR_WORDS: u64 = 2;

/// Initial SP of a 32-bit program under a 64-bit kernel, which takes it as the order to run it in compatibility mode.
const COMPATIBILITY_MODE_SP: u64 = 1 << 63;

/// A kernel interface page, with all its fixed part and its array of memory descriptors inside the kernel's image.
#[derive(Clone, Copy, Debug)]
pub struct Kip {
    address: u64,
    width: Width,
    descriptors: Extent,
}

impl Kip {
    /// Looks for the page in `image`, the loaded kernel: the first place at a multiple of 4 with the magic bytes.
    pub fn find(memory: &impl Physical, image: Extent) -> Result<Self, Problem> {
        let start = image.start.next_multiple_of(MAGIC_BYTES as u64);
        let bytes = memory.bytes(start, Extent::new(start, image.end).len()).ok_or(Problem::NoKip)?;
        let magic = &w64::KIP_MAGIC[..MAGIC_BYTES];
        let index = bytes.chunks_exact(MAGIC_BYTES).position(|word| word == magic).ok_or(Problem::NoKip)?;
        // A 64-bit page has the rest of its first word zero, a 32-bit one has the version there.
        let width = match le::u32_at(bytes, MAGIC_BYTES * (index + 1)) {
            Some(0) => Width::W64,
            Some(_) => Width::W32,
            None => return Err(Problem::NoKip),
        };
        let address = start + (MAGIC_BYTES * index) as u64;
        if Extent::sized(address, KIP_WORDS * width.bytes()).end > image.end {
            return Err(Problem::NoKip);
        }
        let descriptors = find_descriptors(memory, address, width, image).ok_or(Problem::NoDescriptors)?;
        Ok(Self { address, width, descriptors })
    }

    /// Width of the kernel.
    pub fn width(&self) -> Width {
        self.width
    }

    /// Size of the smallest page.
    pub fn min_page_bytes(&self, memory: &impl Physical) -> Result<u64, Problem> {
        let page_info = read(memory, self.address, self.width, PAGE_INFO).ok_or(Problem::NoPageSize)?;
        match w64::PageInfo::from_raw(page_info).size_mask() {
            0 => Err(Problem::NoPageSize),
            sizes => Ok(sizes & sizes.wrapping_neg()),
        }
    }

    /// Writes `value` to the field at word `index` of the fixed part.
    pub fn put(&self, memory: &mut impl Memory, index: u64, value: u64) {
        let extent = Extent::sized(self.address, KIP_WORDS * self.width.bytes());
        memory
            .bytes_mut(extent)
            .and_then(|bytes| self.width.put(bytes, (index * self.width.bytes()) as usize, value))
            .expect("the fixed part is inside the kernel's image");
    }

    /// Writes where a server starts and where it is.
    pub fn write_server(&self, memory: &mut impl Memory, first_word: u64, image: &Image) {
        if self.width == Width::W64 && image.class == Class::Elf32 {
            self.put(memory, first_word, COMPATIBILITY_MODE_SP);
        }
        self.put(memory, first_word + 1, image.entry);
        self.put(memory, first_word + 2, image.extent.start);
        self.put(memory, first_word + 3, image.extent.end);
    }

    /// Fills the array from its start and puts the number of descriptors in place of its capacity.
    pub fn write_descriptors(
        &self,
        memory: &mut impl Memory,
        list: &ArrayVec<w64::MemoryDescriptor, MAX_DESCRIPTORS>,
    ) -> Result<(), Problem> {
        let size = self.width.bytes();
        let room = self.descriptors.len() / (DESCRIPTOR_WORDS * size);
        if list.len() as u64 > room {
            return Err(Problem::TooManyDescriptors { room, needed: list.len() });
        }
        let array = memory.bytes_mut(self.descriptors).ok_or(Problem::NoDescriptors)?;
        for (index, word) in list.iter().flat_map(|descriptor| descriptor.words()).enumerate() {
            self.width.put(array, index * size as usize, word).ok_or(Problem::NoDescriptors)?;
        }
        let offset = self.descriptors.start - self.address;
        self.put(memory, MEMORY_INFO, memory_info(self.width, list.len() as u64, offset));
        Ok(())
    }
}

/// The word at `index` of the page at `address`.
fn read(memory: &impl Physical, address: u64, width: Width, index: u64) -> Option<u64> {
    let bytes = memory.bytes(address + index * width.bytes(), width.bytes())?;
    match width {
        Width::W32 => le::u32_at(bytes, 0).map(u64::from),
        Width::W64 => le::u64_at(bytes, 0),
    }
}

/// The array of memory descriptors that the page at `address` announces; `None` unless it has room for one and lies
/// whole in `image`, at a multiple of the word size.
fn find_descriptors(memory: &impl Physical, address: u64, width: Width, image: Extent) -> Option<Extent> {
    let info = read(memory, address, width, MEMORY_INFO)?;
    let (n, offset) = match width {
        Width::W32 => {
            let info = w32::MemoryInfo::from_raw(info as u32);
            (info.n().into(), info.ptr().into())
        }
        Width::W64 => {
            let info = w64::MemoryInfo::from_raw(info);
            (info.n(), info.ptr())
        }
    };
    let array = Extent::sized(address + offset, n * DESCRIPTOR_WORDS * width.bytes());
    let is_usable = offset != 0 && offset % width.bytes() == 0 && !array.is_empty() && array.end <= image.end;
    is_usable.then_some(array)
}

fn memory_info(width: Width, n: u64, offset: u64) -> u64 {
    match width {
        Width::W32 => w32::MemoryInfo::new(n as u32, offset as u32).raw().into(),
        Width::W64 => w64::MemoryInfo::new(n, offset).raw(),
    }
}
