//! The console server without its machine: what is asked for, and which text is on which page.
//!
//! - [`pages`]: what was printed, cut into pages of the screen's size.
//! - [`view`]: the page that is shown, with a line below that says which.
//! - [`options`]: the command line.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod options;
pub mod pages;
pub mod view;
