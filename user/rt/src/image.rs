//! The program's own image in memory.

use core::hint::black_box;
use core::ptr::addr_of;

const PAGE_SIZE: usize = 4096;

unsafe extern "C" {
    /// First byte of the image, by the linker script.
    static image_start: u8;
    /// The first byte behind the image, by the linker script.
    static image_end: u8;
}

/// Whether an address is in the image.
pub fn image_contains(address: usize) -> bool {
    (addr_of!(image_start).addr()..addr_of!(image_end).addr()).contains(&address)
}

/// Reads a byte of each page of the image, so that all of it is mapped afterwards. The pager of other threads than the
/// first need not serve them then: sigma0 gives the image to the first thread alone.
pub fn touch_image() {
    let (start, end) = (addr_of!(image_start), addr_of!(image_end).addr());
    for offset in (0..end - start.addr()).step_by(PAGE_SIZE) {
        // SAFETY: the address is inside the image; a byte is read whatever another thread writes there, and forgotten.
        black_box(unsafe { start.wrapping_add(offset).read_volatile() });
    }
}

/// The first address of the image, and how many pages it has.
pub fn image_pages() -> (usize, usize) {
    let (start, end) = (addr_of!(image_start).addr(), addr_of!(image_end).addr());
    (start, (end - start).div_ceil(PAGE_SIZE))
}
