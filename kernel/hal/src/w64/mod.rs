//! What is particular to 64-bit mode.

pub mod desc;
pub mod fpu;
pub mod syscall;
