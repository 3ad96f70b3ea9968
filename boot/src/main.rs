//! kickstart, the boot loader: starts as a Multiboot kernel, loads kernel, sigma0 and root task, jumps to the kernel.
//!
//! All decisions are in the library of this package. Here is what needs the machine: the way into 64-bit mode and back,
//! access to physical memory, a console, the way to stop.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bare;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("kickstart runs on bare metal: boot it with a Multiboot loader");
    std::process::exit(1);
}
