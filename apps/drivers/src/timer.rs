//! A driver of the interval timer (8254): channel 0, a hundred interrupts a second.

use l4::time::system_clock_us;
use l4::{Word, interrupt, ipc, kip, utcb};

use crate::{must, port, report};

/// Where the timer may be: with I/O APICs most machines have it at 2, with the 8259A it is at 0.
pub const LINES: [Word; 2] = [0, 2];

const CHANNEL_0: u16 = 0x40;
const COMMAND: u16 = 0x43;
/// Channel 0, low then high byte, mode 2: again and again.
const RATE: u8 = 0b0011_0100;
/// 1,193,182 Hz by this are a hundred.
const DIVISOR: u16 = 11_932;

/// Counts as many interrupts as root says, and reports their number and how long they took, in microseconds.
pub extern "C" fn serve() -> ! {
    must("hearing from root", ipc::receive(kip::root_task_id()));
    let wanted = utcb().mr(1);
    port::write(COMMAND, RATE);
    for byte in DIVISOR.to_le_bytes() {
        port::write(CHANNEL_0, byte);
    }
    // The first period can be any fraction of one.
    let mut line = must("the first interrupt", ipc::wait()).from;
    let start_us = system_clock_us();
    for _ in 0..wanted {
        line = must("an interrupt", interrupt::acknowledge_wait(line)).from;
        assert!(interrupt::is_interrupt(line), "nobody but the timer sends anything");
    }
    report([wanted, (system_clock_us() - start_us) as Word])
}
