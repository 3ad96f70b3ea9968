//! Switching the machine off, and starting it again.
//!
//! The registers for it stand in the tables of the firmware, whose memory is asked of sigma0: so this is for a server that
//! sigma0 gives such memory, sigma1 or the root task, and for one alone. Ports must be open to it.

use kformats::acpi::Root;
use kformats::acpi::fadt::{Fadt, Register, SleepTypes};
use kformats::multiboot::Physical;

use crate::arch::{in_word, out_byte, out_word};
use crate::device::{DeviceMemory, firmware_memory};
use crate::{args, keyboard};

/// Looks at a register before it is given up.
const PATIENCE: u32 = 1_000_000;

/// Where the firmware and its tables are.
struct Firmware;

impl Physical for Firmware {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        firmware_memory(start, usize::try_from(len).ok()?)
    }
}

/// What switches this machine off and on.
#[derive(Clone, Copy, Debug)]
pub struct Power {
    fadt: Option<Fadt>,
    off: Option<SleepTypes>,
}

impl Power {
    /// Looks it up. Without tables there is nothing by which the machine could be switched off.
    pub fn find() -> Self {
        let root = Root::find(&Firmware, args::root_pointer());
        let fadt = root.and_then(|root| Fadt::find(&root, &Firmware)).ok();
        Self { fadt, off: fadt.and_then(|fadt| fadt.off(&Firmware).ok()?) }
    }

    /// Switches the machine off; returns if it cannot be.
    pub fn off(&self) {
        let (Some(fadt), Some(types)) = (self.fadt, self.off) else { return };
        enable(&fadt);
        // Both registers are read before either is written: the first may be enough.
        let before = fadt.control.map(|port| port.map(|port| (port, in_word(port))));
        for (index, (port, value)) in before.into_iter().enumerate().filter_map(|(index, found)| Some((index, found?)))
        {
            out_word(port, types.control(index, value));
        }
        if let Some(register) = fadt.sleep_control {
            write(register, types.sleep_control());
        }
        wait();
    }

    /// Starts the machine again: by the register of the tables, by that of the chip set, by the keyboard's controller.
    pub fn restart(&self) {
        const CHIP_SET: u16 = 0xCF9;
        const SYSTEM: u8 = 0x02;
        const RESET: u8 = 0x04;
        if let Some((register, value)) = self.fadt.and_then(|fadt| fadt.reset) {
            write(register, value);
            wait();
        }
        out_byte(CHIP_SET, SYSTEM);
        out_byte(CHIP_SET, SYSTEM | RESET);
        wait();
        keyboard::reset_machine();
        wait();
    }
}

/// Has the firmware leave the power management registers to us, if it has not.
fn enable(fadt: &Fadt) {
    const IS_ENABLED: u16 = 1 << 0;
    let (Some((port, value)), Some(control)) = (fadt.enable, fadt.control[0]) else { return };
    if in_word(control) & IS_ENABLED == 0 {
        out_byte(port, value);
        let _ = (0..PATIENCE).any(|_| in_word(control) & IS_ENABLED != 0);
    }
}

fn write(register: Register, value: u8) {
    match register {
        Register::Port(port) => out_byte(port, value),
        Register::Memory(address) => {
            if let Some(mut device) = DeviceMemory::request(address, 1) {
                device.put_byte(0, value);
            }
        }
    }
}

/// Gives the machine time to do it.
fn wait() {
    (0..PATIENCE).for_each(|_| core::hint::spin_loop());
}
