//! The machine around the library: from the loader's jump to the kernel's first instruction.

mod console;
mod entry;
mod memory;
mod port;

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use console::Console;
use kickstart::{Handoff, Launch, boot};
use memory::PhysicalMemory;

/// QEMU's `isa-debug-exit` device.
const DEBUG_EXIT_PORT: u16 = 0xF4;
/// What a failed boot writes there: QEMU ends with 2 * 0x7F + 1 = 255.
const FAILED: u8 = 0x7F;

/// Loads everything and says where the kernel starts. Runs once, called by the entry code.
extern "C" fn start(magic: u32, info: u32) -> u32 {
    // SAFETY: the entry code has mapped the first 4 GiB one to one, and calls this once.
    let mut memory = unsafe { PhysicalMemory::new() };
    // SAFETY: nobody else uses the console's devices before the panic handler, which does not return here.
    let mut console = unsafe { Console::new() };
    let _ = writeln!(console, "kickstart {} (Marcona)", env!("CARGO_PKG_VERSION"));
    let own = memory.own();
    match boot(&mut memory, Handoff { magic, info }, own, &mut console) {
        Ok(Launch { entry }) => entry,
        Err(failure) => {
            let _ = writeln!(console, "kickstart: {failure}");
            stop()
        }
    }
}

/// Ends QEMU with a failure; a machine without that device stands still.
fn stop() -> ! {
    // SAFETY: no device of a PC that matters here listens to this port.
    unsafe { port::write(DEBUG_EXIT_PORT, FAILED) };
    loop {
        port::halt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    static IS_PANICKING: AtomicBool = AtomicBool::new(false);
    if !IS_PANICKING.swap(true, Ordering::Relaxed) {
        // SAFETY: the interrupted user of the console never runs again.
        let mut console = unsafe { Console::new() };
        let _ = writeln!(console, "kickstart: kickstart itself: {info}");
    }
    stop()
}
