#![cfg_attr(not(test), no_std)]
//! The machine: what the kernel needs from an x86 processor and the devices next to it, and nothing about threads.
//!
//! Devices are values made by an `unsafe` constructor, whose caller promises that nobody else drives the same device;
//! their methods are safe. Processor state is changed by `unsafe` functions that say what must hold before and after.
//! Arithmetic and decoding are plain functions, tested on the host; what touches the machine is a few lines around them.
//!
//! What both widths share is in `common`; what depends on the width of a register is in one folder per width, picked
//! here and nowhere else.

mod common;

#[cfg(target_arch = "x86_64")]
#[path = "w64/mod.rs"]
mod width;

pub use common::{
    apic, cache, cpu, cr, cursor, debug, hpet, ioapic, irq, keyboard, lines, msr, pic, pit, pm_timer, port, probe,
    processors, tables, timer, tlb, uart, vulnerabilities,
};
pub use width::{desc, fpu, syscall};
