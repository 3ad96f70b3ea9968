//! Text on a screen: characters in a text mode, or pixels of a linear framebuffer with a font of our own.
//!
//! - [`Mode`]: which memory the screen has, how much of it, and how a pixel is made; checked once, so that nothing is
//!   written outside.
//! - [`Surface`]: a mode with somebody who can write to that memory ([`Canvas`]): cells are drawn on it.
//! - [`Terminal`]: text that goes on at the end of the last line, and scrolls.
//! - [`font`]: what characters look like; [`read`] finds them again in a picture.
//!
//! Screens are slow to write and much slower to read, so nothing is ever read back, and a cell that would look as before
//! is not drawn.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod font;
mod mode;
pub mod read;
mod surface;
mod terminal;

#[cfg(test)]
mod tests;

pub use mode::{COLUMNS_MAX, Mode, ROWS_MAX};
pub use surface::{Canvas, Glass, Style, Surface};
pub use terminal::Terminal;
