//! The console: a serial port, for the kernel's own lines and for the debugger's services, or nothing.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use khal::uart::Uart;

use crate::config;

/// The console for the length of one message.
struct Console(Option<Uart>);

fn console() -> Console {
    // SAFETY: user code may drive the port too, after boot; each access of the kernel is for one byte, whatever state the
    // port is in.
    Console(config::KDB_CONS_COM.then(|| unsafe { Uart::new(config::CONSOLE_PORT) }))
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.as_mut().map_or(Ok(()), |uart| uart.write_str(text))
    }
}

/// Prepares the console.
pub fn start() {
    if let Some(mut uart) = console().0 {
        uart.start(config::CONSOLE_DIVISOR);
    }
}

/// Prints one line.
pub fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(console(), "marcona: {text}");
}

/// Says which step of the boot begins, in a kernel that was built to tell.
#[inline]
pub fn step(name: &str) {
    if config::VERBOSE_INIT {
        line(format_args!("boot: {name}"));
    }
}

/// Prints a character; `false` if there is no room for it now. Without a console it is gone.
pub fn put(character: u8) -> bool {
    console().0.is_none_or(|mut uart| uart.try_send(character))
}

/// The next character that was typed, if there is one.
pub fn read() -> Option<u8> {
    console().0?.receive()
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
