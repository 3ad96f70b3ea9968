//! Physical memory as sigma0 has it: all of it, each address at itself.

use core::ptr::with_exposed_provenance_mut;
use core::slice;

/// The right to use physical memory. Only sigma0 has it, by [`sigma0_entry!`](crate::sigma0_entry).
pub struct PhysicalMemory(());

impl PhysicalMemory {
    /// The right to use physical memory.
    ///
    /// # Safety
    /// 1. The program is sigma0: the kernel maps memory to it at its physical address.
    /// 2. It makes storage only of memory that it has given to nobody and that is in no other storage in use.
    #[doc(hidden)]
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// Makes the memory at `base` storage for `count` times `value`, until the program gives that memory away.
    ///
    /// # Panics
    /// If `base` is 0 or not aligned.
    pub fn storage<T: Copy>(&mut self, base: u64, count: usize, value: T) -> &'static mut [T] {
        let first = with_exposed_provenance_mut::<T>(base as usize);
        assert!(!first.is_null() && first.is_aligned(), "storage is aligned");
        for i in 0..count {
            // SAFETY: the memory is there by `new` 1., and nobody else's by 2.
            unsafe { first.wrapping_add(i).write(value) };
        }
        // SAFETY: written above; by `new` 2. nobody else uses it while the slice is in use.
        unsafe { slice::from_raw_parts_mut(first, count) }
    }
}
