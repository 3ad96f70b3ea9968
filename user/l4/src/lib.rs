//! The user library of L4 X.2: system calls, messages and the small helpers that programs need.
//!
//! Functions have the manual's names in Rust's case; `L4_...` names of the C interface are search aliases. The words they
//! take and return are those of [`l4_abi`], re-exported here. A failing call returns the manual's error as a value.
//!
//! A program calls [`init`] once before anything else (the start code of `l4-rt` does). System calls overwrite message
//! registers where the manual says that they carry parameters: [`space::unmap`] and [`space::memory_control`].
//!
//! `unsafe` marks what can change the memory or the registers under the feet of this program's own threads: accepting
//! mappings or strings, flushing, moving a thread's instruction pointer. Sending is safe: it reveals, but changes nothing
//! here.
#![no_std]

#[cfg(test)]
extern crate std;

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
pub mod arch;

pub mod bootinfo;
pub mod interrupt;
pub mod ipc;
pub mod kip;
pub mod locality;
pub mod message;
pub mod schedule;
pub mod sigma0;
pub mod space;
pub mod thread;
pub mod time;
pub mod topology;
pub mod trace_buffer;

pub use arch::{init, kdb, utcb};
pub use kip::kip;
pub use l4_abi as abi;
pub use l4_abi::*;
