//! The console: the first serial port, for the kernel's own lines and for the debugger's services.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use khal::uart::Uart;

/// The console for the length of one message.
fn console() -> Uart {
    // SAFETY: user code may drive the port too, after boot; each access of the kernel is for one byte, whatever state the
    // port is in.
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

/// Prints a character; `false` if there is no room for it now.
pub fn put(character: u8) -> bool {
    console().try_send(character)
}

/// The next character that was typed, if there is one.
pub fn read() -> Option<u8> {
    console().receive()
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
