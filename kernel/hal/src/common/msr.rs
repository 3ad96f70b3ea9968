//! Model-specific registers (Intel SDM 4, Architectural MSRs).

use core::arch::asm;

use bitflags::bitflags;

/// A model-specific register, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msr(pub u32);

impl Msr {
    /// The time-stamp counter.
    pub const TSC: Self = Self(0x10);
    /// Base and mode of the local APIC.
    pub const APIC_BASE: Self = Self(0x1B);
    /// Target of the TSC-deadline timer.
    pub const TSC_DEADLINE: Self = Self(0x6E0);
    /// Extended features: see [`Efer`].
    pub const EFER: Self = Self(0xC000_0080);
    /// Segments that SYSCALL and SYSRET load.
    pub const STAR: Self = Self(0xC000_0081);
    /// Where SYSCALL of 64-bit code goes.
    pub const LSTAR: Self = Self(0xC000_0082);
    /// Where SYSCALL of 32-bit code goes (AMD).
    pub const CSTAR: Self = Self(0xC000_0083);
    /// Flags that SYSCALL clears.
    pub const SFMASK: Self = Self(0xC000_0084);
    /// Base of `fs`.
    pub const FS_BASE: Self = Self(0xC000_0100);
    /// Base of `gs`.
    pub const GS_BASE: Self = Self(0xC000_0101);
    /// Base of `gs` after SWAPGS.
    pub const KERNEL_GS_BASE: Self = Self(0xC000_0102);

    /// Reads the register.
    ///
    /// # Safety
    /// The processor has the register; otherwise this is a general-protection fault.
    #[inline(always)]
    pub unsafe fn read(self) -> u64 {
        let (low, high): (u32, u32);
        // SAFETY: by contract the register exists; reading has no effect on memory.
        unsafe { asm!("rdmsr", in("ecx") self.0, out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
        u64::from(high) << 32 | u64::from(low)
    }

    /// Writes the register.
    ///
    /// # Safety
    /// 1. The processor has the register and takes the value.
    /// 2. Nothing the kernel relies on breaks by what the value changes.
    #[inline(always)]
    pub unsafe fn write(self, value: u64) {
        let (low, high) = (value as u32, (value >> 32) as u32);
        // SAFETY: by contract.
        unsafe { asm!("wrmsr", in("ecx") self.0, in("eax") low, in("edx") high, options(nostack, preserves_flags)) };
    }
}

bitflags! {
    /// Bits of [`Msr::EFER`].
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Efer: u64 {
        /// SYSCALL and SYSRET work.
        const SCE = 1 << 0;
        /// Long mode is switched on with paging.
        const LME = 1 << 8;
        /// Long mode is on; set by the processor.
        const LMA = 1 << 10;
        /// Page-table entries may forbid execution.
        const NXE = 1 << 11;
        const _ = !0;
    }
}

impl Efer {
    /// The present value.
    ///
    /// # Safety
    /// The processor has the register: it knows long mode, SYSCALL or NX.
    pub unsafe fn read() -> Self {
        // SAFETY: by contract.
        Self::from_bits_retain(unsafe { Msr::EFER.read() })
    }

    /// Makes this the value.
    ///
    /// # Safety
    /// As for [`Msr::write`]; in particular LME does not change while paging is on.
    pub unsafe fn write(self) {
        // SAFETY: by contract.
        unsafe { Msr::EFER.write(self.bits()) }
    }
}
