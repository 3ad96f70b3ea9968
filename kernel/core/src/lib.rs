//! X.2 as plain data and functions: threads, IPC, scheduling, address spaces, the mapping database.
//!
//! The image hands in the tables and a [`machine::Machine`]; each kernel entry makes a [`kernel::Here`] and calls one
//! handler, then lets the dispatcher [`choose`](kernel::Here::choose) who runs. Nothing here knows a processor.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// A machine word is as wide as `u64` at one of the two widths only.
#![allow(clippy::unnecessary_cast)]

pub mod boot;
pub mod check;
pub mod cross;
pub mod debugger;
#[cfg(all(test, feature = "explore"))]
mod explore;
mod fault;
pub mod inspect;
pub mod ipc;
pub mod kernel;
pub mod kmem;
pub mod list;
pub mod load;
pub mod localities;
pub mod lock;
pub mod machine;
pub mod mapdb;
pub mod options;
pub mod pool;
pub mod sched;
pub mod space;
pub mod sync;
pub mod syscall;
pub mod thread;
pub mod trace;
mod user_memory;
pub mod var;

#[cfg(test)]
mod tests;
