//! Interrupts off, as a value.

use core::arch::asm;
use core::marker::PhantomData;

/// Proof that interrupts are off on this processor. There is one per processor, made at kernel entry and never in the
/// handler of a non-maskable interrupt; it does not leave its processor.
pub struct IrqOff(PhantomData<*mut ()>);

impl IrqOff {
    /// The token of this processor.
    ///
    /// # Safety
    /// 1. Interrupts are off and stay off while the token lives, except inside its own methods.
    /// 2. No other token of this processor is in use.
    #[inline(always)]
    pub const unsafe fn assume() -> Self {
        Self(PhantomData)
    }

    /// Lets the interrupts in that are pending now. The handlers run on the current stack and must return.
    #[inline(always)]
    pub fn let_pending_in(&mut self) {
        // `sti` takes effect after the next instruction, so the `nop` is what an interrupt returns to.
        // SAFETY: the token is borrowed for the duration, so nobody relies on interrupts being off; they are off again
        // afterwards.
        unsafe { asm!("sti", "nop", "cli") };
    }

    /// Sleeps until an interrupt has been handled. An interrupt that arrives just before is not missed: `sti` holds
    /// interrupts back until `hlt` has begun (Intel SDM 2B, STI).
    #[inline(always)]
    pub fn wait_for_interrupt(&mut self) {
        // SAFETY: as in `let_pending_in`.
        unsafe { asm!("sti", "hlt", "cli") };
    }

    /// Sleeps until somebody writes to the line of memory of `watched`, or an interrupt has been handled, or for no reason for
    /// a shorter time; not at all if `is_written` says so once the line is watched. A write or an interrupt that comes just
    /// before is not missed, as MWAIT does not sleep then (Intel SDM 3A, MONITOR/MWAIT Instruction).
    ///
    /// # Safety
    /// The processor has MONITOR ([`crate::cpu::Features::MONITOR`]).
    #[inline(always)]
    pub unsafe fn wait_for_write<T>(&mut self, watched: &T, is_written: impl FnOnce() -> bool) {
        let watched = core::ptr::from_ref(watched);
        // SAFETY: the processor has the instruction, which changes no memory and reads a byte of a reference's.
        unsafe { asm!("monitor", in("rax") watched, in("ecx") 0, in("edx") 0, options(nostack, preserves_flags)) };
        if !is_written() {
            // The lightest sleep, which ends with an interrupt as `hlt` does.
            // SAFETY: as in `let_pending_in`; the processor has the instruction.
            unsafe { asm!("sti", "mwait", "cli", in("eax") 0, in("ecx") 0) };
        }
    }
}

/// Stops this processor for good.
pub fn stop() -> ! {
    loop {
        // SAFETY: with interrupts off only a non-maskable interrupt wakes it, and then it halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
