//! Stacks that fault when they overflow: below each lies a page that [`super::paging`] leaves out.

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

    /// Where the stack pointer starts.
    pub fn top(&'static self) -> usize {
        self.stack.get().addr() + BYTES
    }
}

/// Bytes of the kernel stack of a processor.
pub const KERNEL_STACK_BYTES: usize = 16 << 10;
/// Bytes of a stack for exceptions that cannot trust the one in use; enough to print a panic.
pub const INTERRUPT_STACK_BYTES: usize = 8 << 10;

/// The kernel stack of processor 0, from the first Rust function on. Assembly knows its top as `kernel_stack_top`.
pub static KERNEL_STACK: GuardedStack<KERNEL_STACK_BYTES> = GuardedStack::new();
/// The interrupt stacks 1 to 3 of processor 0.
pub static INTERRUPT_STACKS: [GuardedStack<INTERRUPT_STACK_BYTES>; 3] = [const { GuardedStack::new() }; 3];
