//! What the programs that measure the kernel have in common: figures and how they are printed, the clock by which
//! operations are timed, threads in other spaces that run the program's own image.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod figure;

// These need the bare machine: programs of the host have another start code.
#[cfg(target_os = "none")]
pub mod clock;
#[cfg(target_os = "none")]
pub mod pager;
#[cfg(target_os = "none")]
pub mod room;
#[cfg(target_os = "none")]
pub mod stage;
