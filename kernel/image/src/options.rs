//! The options of this boot, from the kernel's command line.

use arrayvec::ArrayVec;
use kcore::options::{KnownMemory, Options, framebuffer};
use kformats::acpi::ROOT_POINTER_BYTES;
use kformats::multiboot::{Framebuffer, Physical};

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

fn loaders_memory(loaded: &kip::Loaded) -> LoadersMemory<'_> {
    let (start, end) = image_range();
    LoadersMemory(KnownMemory { descriptors: loaded.memory, image: (start.0, end.0 - 1) })
}

/// Reads the options; has the console as they say, and then says what is wrong with them.
///
/// # Safety
/// The rough tables are in use.
pub unsafe fn read(loaded: &kip::Loaded) -> Options {
    let memory = loaders_memory(loaded);
    let parse = |complain: &mut dyn FnMut(kcore::options::Complaint<'_>)| {
        config::BOOT_OPTIONS.of_boot::<{ config::TRACEPOINTS }>(&memory, loaded.kip.boot_info, complain)
    };
    let options = parse(&mut |_| ());
    console::choose(options, screen(loaded, &memory).as_ref());
    parse(&mut |complaint| console::line(format_args!("command line: {complaint}")))
}

/// The screen that the loader describes, unless it lies over memory.
fn screen(loaded: &kip::Loaded, memory: &LoadersMemory<'_>) -> Option<Framebuffer> {
    let screen = framebuffer(memory, loaded.kip.boot_info)?;
    let last = screen.address.saturating_add(u64::from(screen.pitch) * u64::from(screen.height));
    (!loaded.is_memory(screen.address, last)).then_some(screen)
}

/// A copy of the root pointer of ACPI, if the loader has one.
///
/// # Safety
/// The rough tables are in use, as long as the result is.
pub unsafe fn root_pointer(loaded: &kip::Loaded) -> Option<ArrayVec<u8, ROOT_POINTER_BYTES>> {
    let memory = loaders_memory(loaded);
    let copy = kcore::options::root_pointer(&memory, loaded.kip.boot_info)?;
    Some(copy.iter().copied().take(ROOT_POINTER_BYTES).collect())
}
