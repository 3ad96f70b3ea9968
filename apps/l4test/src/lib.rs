//! The part of l4test that needs no machine: the command line, the list of clauses, texts without a heap, the lines that
//! are printed, where threads run.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod clauses;
pub mod options;
pub mod placement;
pub mod report;
pub mod text;
