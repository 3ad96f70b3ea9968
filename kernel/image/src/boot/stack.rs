//! A stack that faults when it overflows: below it lies a page that [`super::paging`] leaves out.

use core::cell::UnsafeCell;

const PAGE_BYTES: usize = 4096;

/// A stack of `BYTES`, a multiple of 4096, with a guard page below it.
#[repr(C, align(4096))]
pub struct GuardedStack<const BYTES: usize> {
    guard: UnsafeCell<[u8; PAGE_BYTES]>,
    stack: UnsafeCell<[u8; BYTES]>,
}

// SAFETY: the bytes are never reached by reference; only a processor that runs on the stack touches them.
unsafe impl<const BYTES: usize> Sync for GuardedStack<BYTES> {}

impl<const BYTES: usize> GuardedStack<BYTES> {
    /// An empty stack.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        const { assert!(BYTES.is_multiple_of(PAGE_BYTES)) };
        Self { guard: UnsafeCell::new([0; PAGE_BYTES]), stack: UnsafeCell::new([0; BYTES]) }
    }

    /// The address of the guard page.
    pub fn guard(&'static self) -> usize {
        self.guard.get().addr()
    }
}

/// Bytes of the boot stack.
pub const BOOT_STACK_BYTES: usize = 32 << 10;

/// The stack of processor 0 until its area is there. Assembly knows its top as `boot_stack_top`.
pub static BOOT_STACK: GuardedStack<BOOT_STACK_BYTES> = GuardedStack::new();
