//! What is the same on both widths.

pub mod apic;
pub mod cache;
pub mod cpu;
pub mod cr;
pub mod cursor;
pub mod debug;
pub mod hpet;
pub mod ioapic;
pub mod irq;
pub mod keyboard;
pub mod lines;
pub mod msr;
pub mod pic;
pub mod pit;
pub mod pm_timer;
pub mod port;
pub mod probe;
pub mod processors;
pub mod tables;
pub mod timer;
pub mod tlb;
pub mod uart;
pub mod vulnerabilities;
