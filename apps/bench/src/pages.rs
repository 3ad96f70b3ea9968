//! Memory that is mapped from root to the client, faulted in and taken away: a part of the image, so that the pager knows
//! it.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use l4::{Fpage, Rights, Word};

/// Pages there are.
pub const COUNT: usize = 64;
/// Bytes of all pages.
pub const BYTES: usize = COUNT * PAGE_BYTES;
const PAGE_BYTES: usize = 4096;

#[repr(align(0x40000))]
struct Pages([AtomicU8; BYTES]);

static PAGES: Pages = Pages([const { AtomicU8::new(0) }; BYTES]);

const _: () = assert!(BYTES == 0x40000, "one fpage covers all pages");

/// Reads a byte of a page.
///
/// # Panics
/// If there is no such page.
pub fn touch(page: usize) {
    PAGES.0[page * PAGE_BYTES].load(Relaxed);
}

/// Where the pages are.
pub fn address() -> usize {
    PAGES.0.as_ptr().expose_provenance()
}

/// The fpage of the first `count` pages, a power of two.
pub fn first(count: usize) -> Fpage {
    Fpage::new(address() as Word, (count * PAGE_BYTES).ilog2(), Rights::ALL).expect("the pages are aligned")
}
