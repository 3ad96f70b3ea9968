//! The console server without its machine: what keys mean, and which text is on which page.
//!
//! - [`keys`]: from the codes of a keyboard to characters and wishes.
//! - [`pages`]: what was printed, cut into pages of the screen's size.
//! - [`view`]: the page that is shown, with a line below that says which.
//! - [`options`]: the command line.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod keys;
pub mod options;
pub mod pages;
pub mod view;
