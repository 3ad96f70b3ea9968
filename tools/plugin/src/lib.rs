//! A plugin for QEMU's translator that counts what the kernel does.
//!
//! A program of the guest marks a *region* to be measured, and in it *operations*, by instructions that do nothing (see
//! [`instruction::Mark`]; `l4::arch::mark` emits them). While a region is open the plugin counts instructions of the kernel
//! and of user code, and what kernel code does: loads, stores, lines of 64 bytes of data and of code that it touches in
//! an operation, privileged instructions, locked ones, and lines that one processor writes and another one touches. At the end of a region it appends one JSON object, a line, to the
//! file named by its argument `out`. Nothing in it depends on time, so with `-icount` two runs write the same bytes.
//!
//! What the processor touches by itself is not seen: page tables, descriptor tables, the frame that an interrupt pushes.
//! An instruction that faults is counted when it is tried and when it is tried again.
//!
//! Arguments: `out=FILE`; `stubs=ADDRESS`, the page of the kernel's half that user code executes.

pub mod counter;
pub mod instruction;

// The tests are a program of their own, where no emulator defines the functions that this module calls.
#[cfg(not(test))]
mod qemu;
