//! The kernel: the binary that joins the core and the machine.
//!
//! [`kernel_main`] is called once by the start code in [`boot`]; from then on the processor is in user mode, in the
//! [`dispatch`]er, or in a handler that [`trap`] called.
#![no_std]
#![no_main]
// A machine word is as wide as `u64` at one of the two widths only.
#![allow(clippy::unnecessary_cast)]

mod area;
mod boot;
mod config;
mod console;
mod dispatch;
mod facts;
mod frame;
mod interrupts;
mod kdb;
mod keyboard;
mod kip;
mod layout;
mod machine;
mod mitigations;
mod once;
mod options;
mod port_map;
mod post_mortem;
mod shootdown;
mod stubs;
mod symbols;
mod task_state;
mod trace;
mod trace_buffer;
mod trap;
mod wheels;

use kcore::kernel::Kernel;

use machine::Hardware;

/// The core's tables.
pub static KERNEL: once::BootCell<Kernel<'static, Hardware>> = once::BootCell::new();

/// Enters the kernel proper: long mode, rough tables, the kernel stack.
#[unsafe(no_mangle)]
extern "C" fn kernel_main() -> ! {
    boot::bring_up::bring_up()
}
