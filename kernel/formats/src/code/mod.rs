//! The few instructions that a kernel looks at, from their bytes: what stands behind a breakpoint of user code, what
//! faults although the kernel can carry it out, and what wants an I/O port (Intel SDM 2A, Instruction Format);
//! and the calls of its own code.
//!
//! The bytes are those that can be read, and so may end anywhere; they are those of 64-bit code.

pub mod breakpoint;
pub mod callers;
pub mod faulting;
pub mod port_access;
