//! Bytes to structs and back: the formats that firmware, loaders and compilers hand to a kernel.
//!
//! Nothing here trusts a size, an offset or a count that stands in the bytes: whatever they are, a parser ends with a
//! value or with an error that names what is wrong. No `unsafe`, no allocation, no knowledge of any other crate.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acpi;
pub mod code;
pub mod console;
pub mod elf;
pub mod le;
pub mod multiboot;
pub mod paging;
pub mod symbols;
pub mod trace;
