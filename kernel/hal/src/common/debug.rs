//! Debug registers (Intel SDM 3B, Debug Registers).

use core::arch::asm;

use crate::msr::Msr;

/// Hardware breakpoints that a processor has.
pub const BREAKPOINTS: usize = 4;

/// Bits of DR6: which breakpoint was met.
pub const MET: u64 = 0b1111;
/// Bit of DR6: a single step.
pub const STEP: u64 = 1 << 14;

/// What a breakpoint waits for, as the processor numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Condition {
    /// The execution of an instruction.
    Execute = 0,
    /// A write.
    Write = 1,
    /// An access to a port.
    Port = 2,
    /// A read or a write.
    Access = 3,
}

/// The four breakpoints as the registers have them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Breakpoints {
    addresses: [u64; BREAKPOINTS],
    control: u64,
}

/// Always set in DR7.
const DR7_FIXED: u64 = 1 << 10;

impl Breakpoints {
    /// None.
    pub const NONE: Self = Self { addresses: [0; BREAKPOINTS], control: DR7_FIXED };

    /// With breakpoint `number` at `address`, about 2^`len_log2` bytes; `None`: with it switched off.
    #[must_use]
    pub const fn with(mut self, number: usize, breakpoint: Option<(u64, u32, Condition)>) -> Self {
        let (enable, field) = (0b11 << (2 * number), 16 + 4 * number);
        self.control &= !(enable | 0b1111 << field);
        if let Some((address, len_log2, condition)) = breakpoint {
            // One, two, eight, four bytes, in this order.
            let len = match len_log2 {
                0 => 0b00,
                1 => 0b01,
                2 => 0b11,
                _ => 0b10,
            };
            self.addresses[number] = address;
            self.control |= 0b10 << (2 * number) | (len << 2 | condition as u64) << field;
        }
        self.control |= DR7_FIXED;
        self
    }

    /// Makes these the processor's.
    ///
    /// # Safety
    /// The handler of debug exceptions is prepared for them, in user code; none is met in the kernel that matters there.
    pub unsafe fn load(&self) {
        let [a, b, c, d] = self.addresses;
        // SAFETY: by contract.
        unsafe {
            asm!(
                "mov dr7, {off}", "mov dr0, {a}", "mov dr1, {b}", "mov dr2, {c}", "mov dr3, {d}", "mov dr7, {control}",
                off = in(reg) DR7_FIXED, a = in(reg) a, b = in(reg) b, c = in(reg) c, d = in(reg) d,
                control = in(reg) self.control, options(nomem, nostack, preserves_flags),
            );
        }
    }
}

/// Why the last debug exceptions came; forgets it.
pub fn take_reasons() -> u64 {
    let reasons: u64;
    // SAFETY: reading and clearing DR6 changes nothing else.
    unsafe {
        asm!("mov {r}, dr6", "mov dr6, {zero}", r = out(reg) reasons, zero = in(reg) 0u64, options(nomem, nostack, preserves_flags))
    };
    reasons
}

/// Makes single steps end at branches that are taken, or at each instruction; `false`: the processor cannot.
///
/// # Safety
/// Single steps are the debugger's alone.
pub unsafe fn step_by_branches(is_wanted: bool) -> bool {
    const BRANCH_TRAP: u64 = 1 << 1;
    let Some(value) = Msr::DEBUG_CONTROL.try_read() else { return !is_wanted };
    let value = if is_wanted { value | BRANCH_TRAP } else { value & !BRANCH_TRAP };
    // SAFETY: by contract; the register is there.
    unsafe { Msr::DEBUG_CONTROL.try_write(value) }
}

#[cfg(test)]
mod tests {
    use super::{Breakpoints, Condition};

    #[test]
    fn breakpoints_are_encoded_as_the_manual_says() {
        let check =
            |breakpoints: Breakpoints, expected: u64| assert_eq!(breakpoints.control, expected, "{expected:#x}");
        let none = Breakpoints::NONE;
        check(none, 0x400);
        check(none.with(0, Some((0x1000, 0, Condition::Execute))), 0x402);
        check(none.with(1, Some((0x1000, 2, Condition::Write))), 0xD0_0408);
        check(none.with(3, Some((0x1000, 3, Condition::Access))), 0xB000_0480);
        check(none.with(3, Some((0x1000, 1, Condition::Port))).with(3, None), 0x400);
        let two = none.with(0, Some((1, 0, Condition::Execute))).with(2, Some((2, 1, Condition::Access)));
        check(two.with(0, None), 0x700_0420);
    }
}
