//! The options of this boot, from the kernel's command line.

use kcore::options::{KnownMemory, Options};
use kformats::multiboot::Physical;

use crate::boot::paging::image_range;
use crate::{config, console, kip, layout};

/// What the rough tables map of the memory that may be read.
struct LoadersMemory<'d>(KnownMemory<'d>);

impl Physical for LoadersMemory<'_> {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        let is_mapped = start.checked_add(len).is_some_and(|end| end <= layout::ROUGH_BYTES);
        if !is_mapped || !self.0.may_read(start, len) {
            return None;
        }
        // SAFETY: the rough tables map the range; it is memory, where nobody but the kernel writes at boot, and not the
        // kernel's own; bytes have no invalid values.
        Some(unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(start as usize), len as usize) })
    }
}

/// Reads the options; says what is wrong with them.
///
/// # Safety
/// The rough tables are in use.
pub unsafe fn read(loaded: &kip::Loaded) -> Options {
    let (start, end) = image_range();
    let known = KnownMemory { descriptors: loaded.memory, image: (start.0, end.0 - 1) };
    config::BOOT_OPTIONS.of_boot(&LoadersMemory(known), loaded.kip.boot_info, |complaint| {
        console::line(format_args!("command line: {complaint}"));
    })
}
