//! From the kernel interface page to the kernel's command line, the screen and the root pointer of ACPI.
//!
//! The page's BootInfo is the address of generic boot information, which may have a record of the Multiboot information,
//! or of the latter itself, or 0 (X.2, Generic booting). Both are structures of the boot loader in ordinary memory: they
//! may lie anywhere, lead anywhere and end nowhere.

use kformats::le::{u32_at, u64_at};
use kformats::multiboot::{Error, Framebuffer, Info, Physical, v1};
use l4_abi::{MemoryDescriptor, MemoryType, w64::bootinfo};

/// Records of boot information that are looked at. A loader has a few dozen modules at most.
const RECORDS_MAX: u64 = 256;

/// Hands the command line of the first boot module to `read`; an empty one if nobody says what it is.
pub(super) fn with_command_line(memory: &impl Physical, boot_info: u64, read: impl FnOnce(&[u8])) -> Result<(), Error> {
    let Some(address) = multiboot_at(memory, boot_info)? else { return Ok(()) };
    let info = v1::Info::new(memory, address)?;
    if let Some(kernel) = info.modules()?.next() {
        read(kernel?.command_line);
    }
    Ok(())
}

/// The screen, if the loader says that there is one.
pub fn framebuffer(memory: &impl Physical, boot_info: u64) -> Option<Framebuffer> {
    let address = multiboot_at(memory, boot_info).ok()??;
    v1::Info::new(memory, address).ok()?.framebuffer()
}

/// A copy of the root pointer of ACPI, if the loader has one.
pub fn root_pointer(memory: &impl Physical, boot_info: u64) -> Option<&[u8]> {
    const COPY: u64 = 3;
    const SIZE: u64 = 4;
    let words = words_of(memory, boot_info).ok()??;
    let record = record_of_kind(&words, boot_info, bootinfo::RootPointer::KIND).ok()??;
    let copy = record.checked_add(words.get(record, COPY).ok()?)?;
    memory.bytes(copy, words.get(record, SIZE).ok()?)
}

/// Where the Multiboot information is; `None` if the loader left none.
fn multiboot_at(memory: &impl Physical, boot_info: u64) -> Result<Option<u64>, Error> {
    const ADDRESS: u64 = 3;
    if boot_info == 0 {
        return Ok(None);
    }
    let Some(words) = words_of(memory, boot_info)? else { return Ok(Some(boot_info)) };
    let record = record_of_kind(&words, boot_info, bootinfo::Multiboot::KIND)?;
    record.map(|record| words.get(record, ADDRESS)).transpose()
}

/// The words of generic boot information; `None` if that is something else.
fn words_of<M: Physical>(memory: &M, start: u64) -> Result<Option<Words<'_, M>>, Error> {
    let first = memory.bytes(start, 8).ok_or(Error::Unreachable("boot information"))?;
    if u32_at(first, 0).map(u64::from) != Some(bootinfo::MAGIC) {
        return Ok(None);
    }
    // The words are as wide as those of the root task: behind the magic there is its upper half, or the version.
    let width = if u32_at(first, 4) == Some(0) { 8 } else { 4 };
    Ok(Some(Words { memory, width }))
}

/// Where the first record of a kind is.
fn record_of_kind(words: &Words<'_, impl Physical>, start: u64, kind: u64) -> Result<Option<u64>, Error> {
    const FIRST_RECORD: u64 = 3;
    const RECORDS: u64 = 4;
    const KIND: u64 = 0;
    const NEXT: u64 = 2;
    let mut record = start.saturating_add(words.get(start, FIRST_RECORD)?);
    for _ in 0..words.get(start, RECORDS)?.min(RECORDS_MAX) {
        if words.get(record, KIND)? == kind {
            return Ok(Some(record));
        }
        record = record.saturating_add(words.get(record, NEXT)?);
    }
    Ok(None)
}

/// Memory as words of the root task.
struct Words<'m, M> {
    memory: &'m M,
    /// Bytes of a word: 4 or 8.
    width: u64,
}

impl<M: Physical> Words<'_, M> {
    /// Word `index` of the structure at `start`.
    fn get(&self, start: u64, index: u64) -> Result<u64, Error> {
        let at = start.saturating_add(index * self.width);
        let bytes = self.memory.bytes(at, self.width);
        let word =
            bytes.and_then(|bytes| if self.width == 8 { u64_at(bytes, 0) } else { u32_at(bytes, 0).map(u64::from) });
        word.ok_or(Error::Unreachable("boot information"))
    }
}

/// The physical memory that may be read: that which the loader describes as conventional, where a read has no effect, and
/// not what belongs to the kernel, which changes as it runs.
#[derive(Clone, Copy, Debug)]
pub struct KnownMemory<'d> {
    /// The loader's memory descriptors.
    pub descriptors: &'d [MemoryDescriptor],
    /// The kernel's image: first address and last.
    pub image: (u64, u64),
}

impl KnownMemory<'_> {
    /// Whether the `len` bytes from `start` may be read. Address 0 may not, as it means that there is nothing.
    pub fn may_read(&self, start: u64, len: u64) -> bool {
        let Some(last) = start.checked_add(len.max(1) - 1) else { return false };
        let physical = || self.descriptors.iter().filter(|descriptor| !descriptor.is_virtual());
        let ends = |descriptor: &MemoryDescriptor| (descriptor.low() as u64, descriptor.high() as u64);
        let is_memory = |descriptor: &MemoryDescriptor| {
            let (low, high) = ends(descriptor);
            descriptor.kind() == MemoryType::Conventional && low <= start && last <= high
        };
        let is_kernels = |descriptor: &MemoryDescriptor| {
            descriptor.kind() == MemoryType::Reserved && meets(ends(descriptor), (start, last))
        };
        start != 0 && physical().any(is_memory) && !physical().any(is_kernels) && !meets(self.image, (start, last))
    }
}

/// Whether two ranges, both ends inside, have an address in common.
fn meets(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}
