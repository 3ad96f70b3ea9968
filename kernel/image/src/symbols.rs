//! The kernel's own symbols: a place in the image that the build tool fills after linking.
//!
//! A table made by the compiler would have to know addresses that only the linker gives, and a second link would double
//! the time of each build. So the image keeps a place free, of zeroes, and whoever makes the file that is booted writes the
//! table there: the code around it does not move. An image that nobody filled has no symbols, and all else works.

use core::arch::global_asm;
use core::fmt;

use kformats::symbols::Symbols;

use crate::{config, layout};

/// Bytes of the place.
const BYTES: usize = match (config::DEBUG_SYMBOLS, config::DEBUG) {
    (false, _) => 0,
    (true, false) => 128 << 10,
    (true, true) => 192 << 10,
};

global_asm!(
    ".pushsection .rodata.kernel_symbols, \"a\"",
    ".balign 16",
    ".global kernel_symbols, kernel_symbols_end",
    "kernel_symbols:",
    ".skip {bytes}",
    "kernel_symbols_end:",
    ".popsection",
    bytes = const BYTES,
);

unsafe extern "C" {
    static kernel_symbols: u8;
}

/// The symbols.
pub fn symbols() -> Symbols<'static> {
    // SAFETY: the place is as large, part of the image, and never written after the image was linked.
    let bytes = unsafe { core::slice::from_raw_parts(&raw const kernel_symbols, BYTES) };
    Symbols::new(bytes, layout::KERNEL_BASE as u64)
}

/// Whether `address` is in the code of the kernel.
pub fn is_code(address: u64) -> bool {
    unsafe extern "C" {
        static __text_start: u8;
        static __text_end: u8;
    }
    ((&raw const __text_start).addr() as u64..(&raw const __text_end).addr() as u64).contains(&address)
}

/// Prints an address with its symbol.
pub fn print_address(out: &mut dyn fmt::Write, address: u64) -> fmt::Result {
    match symbols().find(address) {
        Some((name, offset)) => writeln!(out, "marcona:   {address:016x} {}+{offset:#x}", name.as_str()),
        None => writeln!(out, "marcona:   {address:016x}"),
    }
}
