//! Model-specific registers (Intel SDM 4, Architectural MSRs).
//!
//! Registers that somebody else names may not exist, or not take a value: [`Msr::try_read`] and [`Msr::try_write`] survive
//! the general-protection fault, if the handler goes on where [`mended`] says.

use core::arch::{asm, global_asm};

use bitflags::bitflags;

/// A model-specific register, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msr(pub u32);

impl Msr {
    /// The time-stamp counter.
    pub const TSC: Self = Self(0x10);
    /// What is done against speculation.
    pub const SPEC_CTRL: Self = Self(0x48);
    /// Commands about what is predicted.
    pub const PRED_CMD: Self = Self(0x49);
    /// What the processor is not affected by, among other things.
    pub const ARCH_CAPABILITIES: Self = Self(0x10A);
    /// Code segment that SYSENTER loads; 0: SYSENTER is a general-protection fault.
    pub const SYSENTER_CS: Self = Self(0x174);
    /// Base and mode of the local APIC.
    pub const APIC_BASE: Self = Self(0x1B);
    /// The page attribute table.
    pub const PAT: Self = Self(0x277);
    /// Debug control: steps by branches, among other things.
    pub const DEBUG_CONTROL: Self = Self(0x1D9);
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

    /// Reads the register; `None` if there is none. The handler of general-protection faults knows [`mended`].
    pub fn try_read(self) -> Option<u64> {
        // SAFETY: reading has no effect on memory, and a fault is survived.
        let result = unsafe { msr_try_read(self.0) };
        (result.is_ok != 0).then_some(result.value)
    }

    /// Writes the register; `false`, and nothing happened, if there is none or it does not take the value. The handler
    /// of general-protection faults knows [`mended`].
    ///
    /// # Safety
    /// Nothing the kernel relies on breaks by what the value changes.
    pub unsafe fn try_write(self, value: u64) -> bool {
        // SAFETY: by contract; a fault is survived.
        unsafe { msr_try_write(self.0, value as u32, (value >> 32) as u32) != 0 }
    }
}

#[repr(C)]
struct ReadResult {
    value: u64,
    is_ok: u64,
}

unsafe extern "C" {
    fn msr_try_read(number: u32) -> ReadResult;
    static msr_try_read_access: u8;
    /// Returns 1, or 0 if the register did not take it.
    fn msr_try_write(number: u32, low: u32, high: u32) -> u64;
    static msr_try_write_access: u8;
    static msr_try_failed: u8;
}

// in:  edi number, esi and edx low and high half of a value to be written
// out: rax value read, rdx 1; or rax 1 if the register was written; after a fault both 0
global_asm!(
    ".pushsection .text.msr, \"ax\"",
    ".global msr_try_read",
    "msr_try_read:",
    "mov ecx, edi",
    ".global msr_try_read_access",
    "msr_try_read_access:",
    "rdmsr",
    "shl rdx, 32",
    "or rax, rdx",
    "mov edx, 1",
    "ret",
    ".global msr_try_write",
    "msr_try_write:",
    "mov ecx, edi",
    "mov eax, esi",
    ".global msr_try_write_access",
    "msr_try_write_access:",
    "wrmsr",
    "mov eax, 1",
    "ret",
    ".global msr_try_failed",
    "msr_try_failed:",
    "xor eax, eax",
    "xor edx, edx",
    "ret",
    ".popsection",
);

/// Where to go on after a general-protection fault at `ip`, if that was a try at a register.
pub fn mended(ip: usize) -> Option<usize> {
    let tries = [(&raw const msr_try_read_access).addr(), (&raw const msr_try_write_access).addr()];
    tries.contains(&ip).then(|| (&raw const msr_try_failed).addr())
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
        /// Automatic IBRS (AMD).
        const AIBRSE = 1 << 21;
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
