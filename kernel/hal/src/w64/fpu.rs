//! The floating-point and SSE registers, switched lazily in FXSAVE format (Intel SDM 1, FXSAVE Area).

use core::arch::asm;
use core::cell::UnsafeCell;

use crate::cr::Cr0;

/// The saved registers of a thread.
#[repr(C, align(16))]
pub struct FpuState(UnsafeCell<[u8; 512]>);

// SAFETY: the bytes are touched only by `save` and `restore`, whose callers promise to be alone.
unsafe impl Sync for FpuState {}

impl Default for FpuState {
    fn default() -> Self {
        Self::initial()
    }
}

impl FpuState {
    /// The state of a fresh thread: control words as after FNINIT and reset, all registers zero.
    pub const fn initial() -> Self {
        const CONTROL_WORD: u16 = 0x037F;
        const MXCSR: u32 = 0x1F80;
        let mut image = [0; 512];
        [image[0], image[1]] = CONTROL_WORD.to_le_bytes();
        [image[24], image[25], image[26], image[27]] = MXCSR.to_le_bytes();
        Self(UnsafeCell::new(image))
    }

    /// Saves the registers here.
    ///
    /// # Safety
    /// 1. Nobody else uses this state at the same time.
    /// 2. CR4.OSFXSR is set and CR0.TS is clear.
    #[inline(always)]
    pub unsafe fn save(&self) {
        // SAFETY: by 2. it does not trap; it writes 512 aligned bytes that by 1. are ours alone.
        unsafe { asm!("fxsave64 [{}]", in(reg) self.0.get(), options(nostack, preserves_flags)) };
    }

    /// Loads the registers from here.
    ///
    /// # Safety
    /// As for [`FpuState::save`]; and the registers' present content is saved or not needed.
    #[inline(always)]
    pub unsafe fn restore(&self) {
        // SAFETY: as in `save`; the image comes from `initial` or `save`, so no reserved bit of MXCSR is set.
        unsafe { asm!("fxrstor64 [{}]", in(reg) self.0.get(), options(nostack, preserves_flags, readonly)) };
    }

    /// Makes this the state of a fresh thread.
    ///
    /// # Safety
    /// Nobody else uses this state at the same time.
    pub unsafe fn reset(&self) {
        let Self(initial) = Self::initial();
        // SAFETY: the bytes are ours alone by contract.
        unsafe { self.0.get().write(initial.into_inner()) };
    }
}

/// Lets the registers be used: sets CR0.TS to 0.
#[inline(always)]
pub fn unlock() {
    // SAFETY: only what a later use of the registers does is changed; the kernel itself does not use them.
    unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
}

/// Makes the next use of the registers trap (#NM): sets CR0.TS.
#[inline(always)]
pub fn lock() {
    // SAFETY: as in `unlock`.
    unsafe { (Cr0::read() | Cr0::TS).write() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_state_has_exceptions_masked_and_registers_zero() {
        let FpuState(cell) = FpuState::initial();
        let image = cell.into_inner();
        assert_eq!(image[..2], [0x7F, 0x03]);
        assert_eq!(image[24..28], [0x80, 0x1F, 0, 0]);
        assert_eq!(image.iter().filter(|&&byte| byte != 0).count(), 4);
    }
}
