//! The first 4 GiB of physical memory as bytes.

use core::ptr;
use core::slice;

use kformats::multiboot::Physical;
use kickstart::{Extent, Memory};

use super::console::VGA_WINDOW;

const LIMIT: u64 = 1 << 32;

/// Access to all physical memory but the loader's own image, the screen, and the byte at address 0, which Rust has no
/// pointer to.
pub struct PhysicalMemory {
    own: Extent,
}

impl PhysicalMemory {
    /// The memory.
    ///
    /// # Safety
    /// 1. The first 4 GiB are mapped one to one and writable from now on.
    /// 2. There is one value of this type.
    pub unsafe fn new() -> Self {
        unsafe extern "C" {
            static image_start: u8;
            static image_end: u8;
        }
        let own = Extent::new((&raw const image_start).addr() as u64, (&raw const image_end).addr() as u64);
        Self { own }
    }

    /// The loader's own image.
    pub fn own(&self) -> Extent {
        self.own
    }

    /// A pointer to `extent` and its size; `None` unless all of it can be accessed.
    fn pointer(&self, extent: Extent) -> Option<(*mut u8, usize)> {
        let is_ours = extent.overlaps(self.own) || extent.overlaps(VGA_WINDOW);
        let pointer = ptr::with_exposed_provenance_mut(extent.start as usize);
        (extent.start != 0 && extent.end <= LIMIT && !is_ours).then_some((pointer, extent.len() as usize))
    }
}

impl Physical for PhysicalMemory {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        let (pointer, len) = self.pointer(Extent::new(start, start.checked_add(len)?))?;
        // SAFETY: `new` 1. maps it, and no static, stack or device is there; `new` 2. and `&self` leave only readers.
        Some(unsafe { slice::from_raw_parts(pointer, len) })
    }
}

impl Memory for PhysicalMemory {
    fn bytes_mut(&mut self, extent: Extent) -> Option<&mut [u8]> {
        let (pointer, len) = self.pointer(extent)?;
        // SAFETY: `new` 1. maps it, and no static, stack or device is there; by `new` 2. and `&mut self` nobody else
        // uses it.
        Some(unsafe { slice::from_raw_parts_mut(pointer, len) })
    }

    fn copy(&mut self, from: Extent, to: u64) -> Option<()> {
        let (target, len) = self.pointer(Extent::new(to, to.checked_add(from.len())?))?;
        let (source, _) = self.pointer(from)?;
        // SAFETY: as in `bytes_mut` for both; they may overlap.
        unsafe { ptr::copy(source, target, len) };
        Some(())
    }
}
