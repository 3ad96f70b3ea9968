//! The two 8259A interrupt controllers: moved out of the way of exceptions and silenced.

use crate::port::Port;

/// First vector of the controllers after [`disable`]; they own 16 from here. Only spurious interrupts can arrive there.
pub const VECTOR_BASE: u8 = 0x20;

const INIT_EDGE_CASCADE_ICW4: u8 = 0x11;
const MODE_8086: u8 = 0x01;
const ALL_MASKED: u8 = 0xFF;

/// Moves the controllers' vectors to [`VECTOR_BASE`] and masks all their inputs.
///
/// # Safety
/// Nobody drives the interrupt controllers at the same time.
pub unsafe fn disable() {
    // Each controller: command port, first vector, and how it is wired to the other one (a set of inputs on the first,
    // an input number on the second).
    for (command, vector, wiring) in [(0x20, VECTOR_BASE, 1 << 2), (0xA0, VECTOR_BASE + 8, 2)] {
        // SAFETY: an interrupt controller changes no memory; the caller keeps others away.
        let (mut command, mut data) = unsafe { ports(command) };
        command.write(INIT_EDGE_CASCADE_ICW4);
        for word in [vector, wiring, MODE_8086, ALL_MASKED] {
            data.write(word);
        }
    }
}

/// # Safety
/// As for [`Port::new`], for `command` and the port after it.
unsafe fn ports(command: u16) -> (Port<u8>, Port<u8>) {
    // SAFETY: by contract.
    let first = unsafe { Port::new(command) };
    // SAFETY: by contract.
    let second = unsafe { Port::new(command + 1) };
    (first, second)
}
