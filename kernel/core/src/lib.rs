//! X.2 as plain data and functions.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod lock;
pub mod machine;
pub mod var;
