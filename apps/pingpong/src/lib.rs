//! The host's part of pingpong: its command line and its output.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod options;
pub mod report;
