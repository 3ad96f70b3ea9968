//! The host's part of bench: its command line and its output.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod options;
pub mod report;
