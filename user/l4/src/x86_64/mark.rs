//! Marks for an emulator that measures: instructions that do nothing on any machine.
//!
//! A mark is `nop dword ptr [rax + displacement]` with a displacement of 32 bits: `4D4B` (hexadecimal), a byte for the
//! kind, a byte for a number. The plugin in `tools/plugin` obeys them.

use core::arch::asm;

const MAGIC: i32 = 0x4D4B << 16;

#[inline(always)]
fn mark<const KIND: i32, const NUMBER: i32>() {
    // SAFETY: the instruction changes nothing, and reads no memory. What the compiler believes that it does to memory
    // keeps the measured accesses on their side of it.
    unsafe {
        asm!(
            "nop dword ptr [rax + {}]",
            const MAGIC | KIND << 8 | NUMBER,
            options(nostack, preserves_flags),
        )
    };
}

/// A region begins, in which every `ENTRIES` entries of the kernel are an operation; 0: operations are marked.
#[inline(always)]
pub fn begin<const ENTRIES: i32>() {
    const { assert!(ENTRIES >= 0 && ENTRIES < 256, "a mark has a byte for the number") };
    mark::<1, ENTRIES>();
}

/// An operation begins.
#[inline(always)]
pub fn operation() {
    mark::<2, 0>();
}

/// The operation is over: what comes now does not count.
#[inline(always)]
pub fn rest() {
    mark::<3, 0>();
}

/// What this processor does counts from here on, whatever the others do: with those that do so it is one operation.
#[inline(always)]
pub fn begin_alone() {
    mark::<5, 0>();
}

/// What this processor does counts no more.
#[inline(always)]
pub fn end_alone() {
    mark::<6, 0>();
}

/// The region ends.
#[inline(always)]
pub fn end() {
    mark::<4, 0>();
}
