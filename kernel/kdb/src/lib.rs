//! The kernel debugger: commands that a person types, and what they print.
//!
//! A [`Session`] reads keys from a [`Terminal`] and shows what stands in the core's tables ([`kcore::inspect`]) and what
//! a [`Probe`] knows of the machine. Who calls it has stopped everybody else. The same commands look at a living machine,
//! where the kernel's image is the probe, and at the memory of a dead one, where a tool on the host is.
//!
//! Nothing that is looked at is relied on: the debugger is called when something is wrong. Lists are walked up to a bound,
//! references are followed where they lead into their tables, memory is read through the probe, which says what is not
//! there. There is no allocator; what lives longer than a command is in [`State`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// A machine word is as wide as `u64` at one of the two widths only.
#![allow(clippy::unnecessary_cast)]

mod ask;
mod commands;
mod instructions;
mod line;
mod menu;
pub mod names;
mod output;
mod probe;
mod session;
mod show;
#[cfg(test)]
mod tests;
mod words;

pub use instructions::disassemble;
pub use output::Terminal;
pub use probe::{Breakpoint, BreakpointKind, Control, Entry, Gate, NoProbe, Probe, Registers, Width};
pub use session::{Leave, Session, State};
