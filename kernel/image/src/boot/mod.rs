//! From the loader to `kernel_main`, and from the tables it starts with to the kernel's own.
//!
//! The loader leaves the processor in 32-bit protected mode without paging. [`entry`] switches to long mode with rough
//! tables: the first 4 GiB of physical memory at 0 and at [`crate::layout::DIRECT_MAP`], and the first GiB at
//! [`crate::layout::KERNEL_BASE`], all of it writable and
//! executable, and calls `kernel_main` there on the kernel stack of processor 0. With those tables kernel memory is
//! already where it stays, so `kernel_main` can take frames from it for [`paging::KernelSpace`], which replaces them.

pub mod bring_up;
mod entry;
mod firmware;
mod memory;
pub mod others;
pub mod paging;
pub mod stack;

/// Ends everything: under QEMU with a failing exit status, else by stopping the processor.
pub fn stop_machine() -> ! {
    const DEBUG_EXIT: u16 = 0xF4;
    const PANICKED: u32 = 0x7E;
    // SAFETY: the port is QEMU's exit device or nobody's.
    unsafe { khal::port::Port::<u32>::new(DEBUG_EXIT) }.write(PANICKED);
    khal::irq::stop()
}
