//! The kernel's own messages: boot lines and panics, on the first serial port.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use khal::uart::Uart;

/// The console for the length of one message.
fn console() -> Uart {
    // SAFETY: user code may drive the port too, after boot; the kernel then writes only to die, and each byte waits for
    // the transmitter alone.
    unsafe { Uart::new(Uart::COM1) }
}

/// Prepares the console.
pub fn start() {
    console().start();
}

/// Prints one line.
pub fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(console(), "marcona: {text}");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut console = console();
    let _ = writeln!(console, "\nmarcona: kernel panic: {}", info.message());
    if let Some(location) = info.location() {
        let _ = writeln!(console, "marcona: at {location}");
    }
    crate::boot::stop_machine()
}
