//! Sigma0 without its machine: which memory and which ports belong to whom, and what a request comes to.
//!
//! - [`regions`]: who has which part of an address range.
//! - [`pools`]: the rules by which memory and ports are handed out, and the beginning from the kernel interface page.
//! - [`server`]: messages to actions.
#![no_std]
#![forbid(unsafe_code)]
// A word is narrower than a physical address on 32-bit machines.
#![allow(clippy::unnecessary_cast)]

#[cfg(test)]
extern crate std;

pub mod pools;
pub mod regions;
pub mod server;
