//! A driver of the receiver of the first serial line (16550). The transmitter is polled.

use l4::{ThreadId, Word, interrupt, ipc, kip};
use l4_rt::serial::{read_byte, write_byte};

use crate::{must, port, report};

/// The line of the first serial port.
pub const LINE: ThreadId = ThreadId::interrupt(4);

const INTERRUPT_ENABLE: u16 = 0x3F9;
const RECEIVED: u8 = 1 << 0;

/// Echoes what is typed up to a `q`, and reports the number of interrupts and of characters.
pub extern "C" fn serve() -> ! {
    must("hearing from root", ipc::receive(kip::root_task_id()));
    let (mut interrupts, mut characters): (Word, Word) = (0, 0);
    // The interrupt of what is there already comes when it is let through.
    port::write(INTERRUPT_ENABLE, RECEIVED);
    must("the first interrupt", interrupt::receive(LINE));
    loop {
        interrupts += 1;
        while let Some(byte) = read_byte() {
            characters += 1;
            write_byte(byte);
            if byte == b'q' {
                port::write(INTERRUPT_ENABLE, 0);
                write_byte(b'\r');
                write_byte(b'\n');
                must("the last answer", interrupt::acknowledge(LINE));
                report([interrupts, characters]);
            }
        }
        must("an interrupt", interrupt::acknowledge_receive(LINE));
    }
}
