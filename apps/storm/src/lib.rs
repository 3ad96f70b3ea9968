//! The host's part of the storm: its command line and its dice.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod dice;
pub mod options;
