//! The host's part of scale: its command line, its output, how processors lie to each other.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod options;
pub mod report;
pub mod steps;
