//! What can be chosen when the kernel is built: options in the Kconfig language, what they come to, files of choices.
//!
//! [`Options`] is what a Kconfig file says. A [`Settings`] has what a person wishes; wishes that an option cannot have at the
//! moment are kept, and count again when it can. [`Options::evaluate`] tells what each option comes to, and if it cannot be
//! chosen, why. A [`Document`] is a file of wishes of which no line gets lost, however damaged or old it is. [`cover`] finds
//! few configurations in which each pair of choices is together once.
//!
//! All of it is plain data without files, terminals or processes.
#![forbid(unsafe_code)]

pub mod cover;
mod document;
mod evaluate;
mod expression;
pub mod menu;
mod options;

pub use document::{Document, text_of};
pub use evaluate::{Configuration, Refusal, Settings};
pub use options::{Choice, ChoiceId, Item, KernelOption, Kind, OptionId, Options, Value};

#[cfg(test)]
mod tests;
