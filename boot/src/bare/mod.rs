//! The machine around the library: from the loader's jump to the kernel's first instruction.

mod console;
mod entry;
mod memory;
mod port;

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use console::Console;
use kickstart::{Consoles, Handoff, Launch, boot};
use memory::PhysicalMemory;

/// QEMU's `isa-debug-exit` device.
const DEBUG_EXIT_PORT: u16 = 0xF4;
/// What boards show on a display of their own.
const DIAGNOSTICS_PORT: u16 = 0x80;
/// What a failed boot writes to both: QEMU ends with 2 * 0x7F + 1 = 255.
const FAILED: u8 = 0x7F;

/// Loads everything and says where the kernel starts. Runs once, called by the entry code.
extern "C" fn start(magic: u32, info: u32) -> u32 {
    // SAFETY: the entry code has mapped the first 4 GiB one to one, and calls this once.
    let mut memory = unsafe { PhysicalMemory::new() };
    let own = memory.own();
    let handoff = handoff(magic, info);
    // SAFETY: all below 4 GiB is mapped; nobody else uses the console's devices before the panic handler, which does not
    // return here; the screen lies where the memory map has no memory.
    let mut console = unsafe { Console::new(Consoles::of(&memory, handoff, own)) };
    let _ = writeln!(console, "kickstart {} (Marcona)", env!("CARGO_PKG_VERSION"));
    match boot(&mut memory, handoff, own, &mut console) {
        Ok(Launch { entry }) => entry,
        Err(failure) => {
            let _ = writeln!(console, "kickstart: {failure}");
            stop()
        }
    }
}

/// What the loader left in registers, and for a panic too.
static MAGIC: AtomicU32 = AtomicU32::new(0);
static INFO: AtomicU32 = AtomicU32::new(0);

/// Keeps what the loader left, and looks for a text screen.
fn handoff(magic: u32, info: u32) -> Handoff {
    MAGIC.store(magic, Ordering::Relaxed);
    INFO.store(info, Ordering::Relaxed);
    // SAFETY: the entry code has mapped the first 4 GiB; nobody else is there.
    Handoff { magic, info, text_screen: unsafe { console::has_text_screen() } }
}

/// Ends QEMU with a failure; a machine without that device stands still.
fn stop() -> ! {
    // SAFETY: the display of a board is all that is behind this port.
    unsafe { port::write(DIAGNOSTICS_PORT, FAILED) };
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
        // SAFETY: who was interrupted never runs again, so there is one value.
        let memory = unsafe { PhysicalMemory::new() };
        let handoff = handoff(MAGIC.load(Ordering::Relaxed), INFO.load(Ordering::Relaxed));
        // SAFETY: the interrupted user of the console never runs again; otherwise as in `start`.
        let mut console = unsafe { Console::new(Consoles::of(&memory, handoff, memory.own())) };
        let _ = writeln!(console, "kickstart: kickstart itself: {info}");
    }
    stop()
}
