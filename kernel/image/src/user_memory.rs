//! Reading memory of the running thread's space from the kernel. The access may fault; then there is no value.

use core::arch::global_asm;

use crate::machine;
use crate::trap::vector;

unsafe extern "C" {
    /// Reads the 16-bit word at the address in `rdi` into `ax`; `rdx` is 1, or 0 if it cannot be read.
    fn read_user_u16(address: usize, smap: usize) -> ReadResult;
    static read_user_u16_access: u8;
    static read_user_u16_failed: u8;
}

#[repr(C)]
struct ReadResult {
    value: usize,
    is_ok: usize,
}

// in: rdi address, rsi whether SMAP is on; out: rax value, rdx 1 or 0
global_asm!(
    ".pushsection .text.user_memory, \"ax\"",
    ".global read_user_u16",
    "read_user_u16:",
    "test esi, esi",
    "jz 2f",
    "stac",
    "2:",
    ".global read_user_u16_access",
    "read_user_u16_access:",
    "movzx eax, word ptr [rdi]",
    "mov edx, 1",
    "jmp 3f",
    ".global read_user_u16_failed",
    "read_user_u16_failed:",
    "xor eax, eax",
    "xor edx, edx",
    "3:",
    "test esi, esi",
    "jz 4f",
    "clac",
    "4:",
    "ret",
    ".popsection",
);

/// The 16-bit word at `address`, if that is user memory that can be read now.
pub fn read_u16(address: usize) -> Option<u16> {
    if !crate::layout::is_user_range(address, 2) {
        return None;
    }
    // SAFETY: the address is in user memory, so nothing of the kernel is read; a fault is mended.
    let result = unsafe { read_user_u16(address, usize::from(machine::has_smap())) };
    (result.is_ok != 0).then_some(result.value as u16)
}

/// Where to go on after exception `vector` at `ip`, if that was an access to user memory.
pub fn mended(vector: usize, ip: usize) -> Option<usize> {
    let is_access = ip == (&raw const read_user_u16_access).addr();
    (is_access && matches!(vector, vector::PAGE_FAULT | vector::GENERAL_PROTECTION))
        .then(|| (&raw const read_user_u16_failed).addr())
}
