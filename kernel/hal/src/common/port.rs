//! Input and output ports.

use core::arch::asm;
use core::marker::PhantomData;

mod sealed {
    pub trait Width: Copy {
        fn read(number: u16) -> Self;
        fn write(number: u16, value: Self);
    }
}
use sealed::Width;

macro_rules! width {
    ($ty:ty, $register:tt, $read:literal, $write:literal) => {
        impl Width for $ty {
            #[inline(always)]
            fn read(number: u16) -> Self {
                let value;
                // SAFETY: `Port::new` promised that accesses to this port harm nobody; the module lets nobody else here.
                unsafe { asm!($read, in("dx") number, out($register) value, options(nostack, preserves_flags)) };
                value
            }

            #[inline(always)]
            fn write(number: u16, value: Self) {
                // SAFETY: as in `read`.
                unsafe { asm!($write, in("dx") number, in($register) value, options(nostack, preserves_flags)) };
            }
        }
    };
}

width!(u8, "al", "in al, dx", "out dx, al");
width!(u16, "ax", "in ax, dx", "out dx, ax");
width!(u32, "eax", "in eax, dx", "out dx, eax");

/// A port that is accessed in units of `T`: `u8`, `u16` or `u32`.
pub struct Port<T> {
    number: u16,
    value: PhantomData<T>,
}

impl<T: Width> Port<T> {
    /// Port `number`.
    ///
    /// # Safety
    /// 1. No access through this value makes a device change memory that belongs to somebody else.
    /// 2. Nobody else drives the device behind the port.
    pub const unsafe fn new(number: u16) -> Self {
        Self { number, value: PhantomData }
    }

    /// Reads the port.
    #[inline(always)]
    pub fn read(&mut self) -> T {
        T::read(self.number)
    }

    /// Writes the port.
    #[inline(always)]
    pub fn write(&mut self, value: T) {
        T::write(self.number, value);
    }
}

/// Asks the chipset, and then the keyboard controller, to reset the machine; returns if neither does.
pub fn reset_machine() {
    const RESET_CONTROL: u16 = 0xCF9;
    const HARD: u8 = 0b010;
    const NOW: u8 = 0b110;
    const KEYBOARD_COMMAND: u16 = 0x64;
    const PULSE_RESET: u8 = 0xFE;
    // SAFETY: the register resets the machine or is nobody's.
    let mut chipset = unsafe { Port::<u8>::new(RESET_CONTROL) };
    chipset.write(HARD);
    chipset.write(NOW);
    // SAFETY: as above.
    unsafe { Port::<u8>::new(KEYBOARD_COMMAND) }.write(PULSE_RESET);
}

/// Whether the chipset says that memory or a device has failed (system control port B), which it also reports by a
/// non-maskable interrupt.
pub fn hardware_reports_an_error() -> bool {
    const SYSTEM_CONTROL_B: u16 = 0x61;
    const ERRORS: u8 = 0b1100_0000;
    // SAFETY: reading the port changes nothing, on every PC.
    unsafe { Port::<u8>::new(SYSTEM_CONTROL_B) }.read() & ERRORS != 0
}
