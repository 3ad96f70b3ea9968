//! The SYSCALL instruction (AMD APM 2, SYSCALL and SYSRET).

use bitflags::bitflags;

use crate::desc::Selector;
use crate::msr::{Efer, Msr};

bitflags! {
    /// Bits of RFLAGS that matter to kernel entry and exit.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u64 {
        /// Always set.
        const ONE = 1 << 1;
        /// Single step.
        const TF = 1 << 8;
        /// Interrupts are let in.
        const IF = 1 << 9;
        /// String instructions run downwards.
        const DF = 1 << 10;
        /// Ports are open to user code.
        const IOPL_3 = 0b11 << 12;
        /// Nested task.
        const NT = 1 << 14;
        /// Skip instruction breakpoints once.
        const RF = 1 << 16;
        /// Virtual-8086 mode.
        const VM = 1 << 17;
        /// Alignment check; in the kernel: user pages may be touched despite SMAP.
        const AC = 1 << 18;
        /// CPUID exists.
        const ID = 1 << 21;
        const _ = !0;
    }
}

/// The flags that SYSCALL clears: the kernel starts without interrupts, single steps or a right to user pages, and with
/// string instructions running upwards.
pub const CLEARED_FLAGS: Flags =
    Flags::IF.union(Flags::TF).union(Flags::DF).union(Flags::RF).union(Flags::VM).union(Flags::NT).union(Flags::AC);

/// The value of [`Msr::STAR`]: SYSCALL loads the kernel's segments, SYSRET the user's.
pub const STAR: u64 = {
    let kernel = Selector::KERNEL_CODE.0 as u64;
    // SYSRET adds 8 for the stack segment and 16 for 64-bit code.
    let user = Selector::USER_CODE32.0 as u64;
    assert!(kernel + 8 == Selector::KERNEL_DATA.0 as u64);
    assert!(user + 8 == Selector::USER_DATA.0 as u64);
    assert!(user + 16 == Selector::USER_CODE64.0 as u64);
    user << 48 | kernel << 32
};

/// Makes SYSCALL enter the kernel at address `entry`, on this processor. The entry finds the user's instruction pointer in
/// `rcx`, flags in `r11` and the user's stack pointer still in `rsp`. SYSCALL of 32-bit code, of which there is none, would
/// come there too, and SYSENTER leads nowhere.
///
/// # Safety
/// 1. The processor has SYSCALL, and the [`crate::desc::Gdt`] is loaded.
/// 2. `entry` is canonical, mapped in every space from now on, and code that may be entered so.
pub unsafe fn enable(entry: usize) {
    // SAFETY: by 1. the registers exist.
    unsafe { Msr::STAR.write(STAR) };
    // SAFETY: as above, and by 2.
    unsafe { Msr::LSTAR.write(entry as u64) };
    // SAFETY: as above; every processor with SYSCALL has the register, even where 32-bit code has no SYSCALL.
    unsafe { Msr::CSTAR.write(entry as u64) };
    // SAFETY: every processor with long mode has the register; 0 switches SYSENTER off.
    unsafe { Msr::SYSENTER_CS.write(0) };
    // SAFETY: as above.
    unsafe { Msr::SFMASK.write(CLEARED_FLAGS.bits()) };
    // SAFETY: as above.
    let efer = unsafe { Efer::read() };
    // SAFETY: as above; the entry is in place.
    unsafe { (efer | Efer::SCE).write() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syscall_and_sysret_load_the_selectors_of_the_abi() {
        assert_eq!(STAR >> 32, 0x001B_0008);
        assert_eq!(CLEARED_FLAGS.bits(), 0x7_4700);
    }
}
