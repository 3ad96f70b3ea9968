//! What tests are made of.

pub mod agent;
pub mod calls;
pub mod control;
pub mod device;
pub mod image;
pub mod large;
pub mod localities;
pub mod memory;
pub mod messages;
pub mod placement;
pub mod ports;
pub mod spaces;
pub mod threads;
pub mod timer;
