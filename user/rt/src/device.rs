//! Memory of devices, and what the boot loader says of them.

use core::ptr::with_exposed_provenance_mut;

use l4::{Fpage, Rights, Word};

use crate::args::{self, PAGE_LOG2};

/// Largest page that is asked for.
const PAGE_LOG2_MAX: u32 = 30;

/// Memory that a device reads or shows, and that nobody runs or keeps anything in.
#[derive(Debug)]
pub struct DeviceMemory {
    start: usize,
    bytes: usize,
}

impl DeviceMemory {
    /// The `bytes` at physical address `start`, asked of sigma0 and mapped at that address; `None` if sigma0 refuses, if
    /// any of it is memory by the kernel's description, or if the program is there. For a server's first thread.
    pub fn request(start: u64, bytes: usize) -> Option<Self> {
        let start = usize::try_from(start).ok().filter(|start| *start != 0)?;
        map(start, bytes).map(|()| Self { start, bytes })
    }

    fn pointer<T>(&self, offset: usize) -> *mut T {
        assert!(offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.bytes), "inside the device");
        let pointer = with_exposed_provenance_mut::<T>(self.start + offset);
        assert!(pointer.is_aligned(), "devices are accessed at multiples of the size");
        pointer
    }

    /// Writes a byte.
    ///
    /// # Panics
    /// Outside.
    pub fn put_byte(&mut self, offset: usize, byte: u8) {
        // SAFETY: inside what `request` had mapped, where no memory is.
        unsafe { self.pointer::<u8>(offset).write_volatile(byte) };
    }

    /// Reads a byte.
    ///
    /// # Panics
    /// Outside.
    pub fn byte(&self, offset: usize) -> u8 {
        // SAFETY: inside what `request` had mapped; memory that a device shows has all values.
        unsafe { self.pointer::<u8>(offset).read_volatile() }
    }

    /// Writes four bytes, the lowest first.
    ///
    /// # Panics
    /// Outside, or at an address that is no multiple of four.
    pub fn put_word(&mut self, offset: usize, word: u32) {
        // SAFETY: as above, and aligned.
        unsafe { self.pointer::<u32>(offset).write_volatile(word) };
    }
}

/// Asks sigma0 for these bytes at their physical address; `None` if it refuses, or if any of it is memory.
fn map(start: usize, bytes: usize) -> Option<()> {
    let end = start.checked_add(bytes)?;
    if bytes == 0 || is_memory(start as Word, end as Word - 1) {
        return None;
    }
    let end = end.checked_next_multiple_of(1 << PAGE_LOG2)?;
    let mut at = start >> PAGE_LOG2 << PAGE_LOG2;
    while at < end {
        let size_log2 = at.trailing_zeros().min((end - at).ilog2()).min(PAGE_LOG2_MAX);
        let fpage = Fpage::new(at as Word, size_log2, Rights::ALL)?;
        // SAFETY: no memory is there, so nothing that the program uses; what comes is a device or the firmware's.
        unsafe { l4::sigma0::get_page(fpage) }.ok()??;
        at += 1 << size_log2;
    }
    Some(())
}

/// The `len` bytes at physical address `start`, if they are the firmware's: no memory that programs or the kernel run in.
pub(crate) fn firmware_memory(start: u64, len: usize) -> Option<&'static [u8]> {
    let start = usize::try_from(start).ok().filter(|start| *start != 0)?;
    map(start, len)?;
    let first = core::ptr::with_exposed_provenance(start);
    // SAFETY: all of it has just been mapped for good; the firmware's tables do not change, and bytes have no invalid values.
    Some(unsafe { core::slice::from_raw_parts(first, len) })
}

/// Whether any of these physical addresses, both ends inside, is memory that programs or the kernel run in.
fn is_memory(first: Word, last: Word) -> bool {
    use l4::abi::MemoryType::{BootLoader, Conventional, Dedicated, Reserved};
    let physical = l4::kip::memory_descriptors().iter().filter(|descriptor| !descriptor.is_virtual());
    let meets = |descriptor: &&l4::abi::MemoryDescriptor| {
        matches!(descriptor.kind(), Conventional | Reserved | BootLoader | Dedicated)
            && descriptor.low() <= last
            && first <= descriptor.high()
    };
    physical.into_iter().any(|descriptor| meets(&descriptor))
}

/// The first `len` bytes of the Multiboot information, if the loader left a copy.
pub fn multiboot_info(len: usize) -> Option<&'static [u8]> {
    args::multiboot_info(len)
}
