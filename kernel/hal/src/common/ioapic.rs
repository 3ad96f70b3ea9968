//! The I/O APIC (Intel 82093AA datasheet): turns interrupt lines into messages to local APICs.

use core::ptr::NonNull;

use crate::irq::IrqOff;
use crate::lines::{Polarity, Trigger, Wiring};

/// Bytes of the registers.
pub const REGISTER_BYTES: usize = 0x20;

/// Whether registers at `address` are words, and in one page as a whole: one page is what the kernel maps of each.
pub const fn can_be_at(address: u64) -> bool {
    const PAGE_BYTES: u64 = 4096;
    address.is_multiple_of(WINDOW as u64) && address % PAGE_BYTES <= PAGE_BYTES - REGISTER_BYTES as u64
}

/// Byte offset of the register that selects another.
const SELECT: usize = 0x00;
/// Byte offset of the window to the selected one.
const WINDOW: usize = 0x10;

const VERSION: u32 = 0x01;
/// The first of the pairs of registers that hold redirection entries.
const FIRST_ENTRY: u32 = 0x10;
/// What a register reads as where there is no device.
const NOBODY: u32 = u32::MAX;

/// What becomes of an input: which interrupt it is, and whose (82093AA, I/O Redirection Table).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redirection(u64);

impl Redirection {
    const LOW_ACTIVE: u64 = 1 << 13;
    const LEVEL: u64 = 1 << 15;
    const MASKED: u64 = 1 << 16;
    const DESTINATION_SHIFT: u32 = 56;

    /// Nothing becomes of it.
    pub const NONE: Self = Self(Self::MASKED);

    /// Interrupt `vector` of the processor whose local APIC has the number `destination`.
    pub const fn new(vector: u8, destination: u8, wiring: Wiring) -> Self {
        let polarity = if matches!(wiring.polarity, Polarity::Low) { Self::LOW_ACTIVE } else { 0 };
        let trigger = if matches!(wiring.trigger, Trigger::Level) { Self::LEVEL } else { 0 };
        Self(vector as u64 | polarity | trigger | (destination as u64) << Self::DESTINATION_SHIFT)
    }

    /// The same for later: no interrupt for now.
    pub const fn masked(self) -> Self {
        Self(self.0 | Self::MASKED)
    }

    const fn low(self) -> u32 {
        self.0 as u32
    }

    const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// An I/O APIC.
pub struct IoApic {
    registers: NonNull<u32>,
}

impl IoApic {
    /// The I/O APIC whose registers are at `registers`.
    ///
    /// # Safety
    /// 1. `registers` maps its [`REGISTER_BYTES`], uncached and writable, while the value lives.
    /// 2. Nobody else drives it meanwhile.
    pub const unsafe fn new(registers: NonNull<u32>) -> Self {
        Self { registers }
    }

    fn at(&self, offset: usize) -> *mut u32 {
        self.registers.as_ptr().wrapping_byte_add(offset)
    }

    fn select(&mut self, register: u32) {
        // SAFETY: mapped by `new` 1.; by 2. nobody selects another register before the window is used.
        unsafe { self.at(SELECT).write_volatile(register) }
    }

    fn read(&mut self, register: u32) -> u32 {
        self.select(register);
        // SAFETY: as above; reading changes nothing.
        unsafe { self.at(WINDOW).read_volatile() }
    }

    fn write(&mut self, register: u32, value: u32) {
        self.select(register);
        // SAFETY: as above. What is written makes interrupts arrive at most, and the kernel's handlers are sound for
        // every vector.
        unsafe { self.at(WINDOW).write_volatile(value) }
    }

    /// How many inputs it has; 0 if no device answers.
    pub fn inputs(&mut self) -> u32 {
        inputs_of(self.read(VERSION))
    }

    /// What becomes of input `pin`, which exists, as the registers have it.
    pub fn entry(&mut self, pin: u32) -> u64 {
        let register = FIRST_ENTRY + 2 * pin;
        u64::from(self.read(register + 1)) << 32 | u64::from(self.read(register))
    }

    /// Sets what becomes of input `pin`, which exists.
    pub fn set(&mut self, pin: u32, redirection: Redirection, _: &IrqOff) {
        let register = FIRST_ENTRY + 2 * pin;
        // The half with the mask is last, so that no interrupt goes to an old destination.
        self.write(register + 1, redirection.high());
        self.write(register, redirection.low());
    }

    /// As [`IoApic::set`] for an input whose destination stays: half the work.
    pub fn set_mask(&mut self, pin: u32, redirection: Redirection, _: &IrqOff) {
        self.write(FIRST_ENTRY + 2 * pin, redirection.low());
    }
}

/// The number of inputs in the version register.
const fn inputs_of(version: u32) -> u32 {
    const MAX_INPUTS: u32 = 240;
    let count = (version >> 16 & 0xFF) + 1;
    if version == NOBODY || count > MAX_INPUTS { 0 } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_in_one_page() {
        for (address, expected) in
            [(0xFEC0_0000, true), (0xFEC0_0FE0, true), (0xFEC0_0FF0, false), (0xFEC0_0FFC, false), (0xFEC0_0008, false)]
        {
            assert_eq!(can_be_at(address), expected, "{address:#x}");
        }
    }

    #[test]
    fn redirections_are_encoded_as_the_datasheet_says() {
        let check =
            |redirection: Redirection, high, low| assert_eq!((redirection.high(), redirection.low()), (high, low));
        let mixed = Wiring { trigger: Trigger::Level, polarity: Polarity::High };
        check(Redirection::NONE, 0, 0x1_0000);
        check(Redirection::new(0x34, 0, Wiring::ISA), 0, 0x34);
        check(Redirection::new(0x40, 3, Wiring::PCI), 0x0300_0000, 0xA040);
        check(Redirection::new(0xEF, 255, mixed), 0xFF00_0000, 0x80EF);
        check(Redirection::new(0x40, 3, Wiring::PCI).masked(), 0x0300_0000, 0x1_A040);
    }

    #[test]
    fn the_version_register_tells_the_number_of_inputs() {
        assert_eq!([0x0017_0011, 0x0077_0020, 0x00EF_8020, 0x00FF_0020, NOBODY].map(inputs_of), [24, 120, 240, 0, 0]);
    }

    /// Registers in memory: the device's select register picks nothing, so the last write of either register stays.
    #[test]
    fn an_input_is_set_half_by_half() {
        let mut registers = [0u32; REGISTER_BYTES / 4];
        let address = NonNull::from(&mut registers).cast();
        // SAFETY: the array has the bytes of the registers, and nobody else uses it.
        let mut io_apic = unsafe { IoApic::new(address) };
        // SAFETY: a test has no interrupts.
        let irq = unsafe { IrqOff::assume() };
        io_apic.set(5, Redirection::new(0x35, 1, Wiring::ISA), &irq);
        assert_eq!((registers[0], registers[4]), (0x1A, 0x35));
    }
}
