//! Reading memory that may not be there: for a debugger, which looks at whatever it is asked to.

use core::arch::global_asm;

unsafe extern "C" {
    fn probe_read(address: usize) -> ProbeResult;
    static probe_read_access: u8;
    static probe_failed: u8;
}

/// The word, and whether it is there.
#[repr(C)]
struct ProbeResult {
    word: u64,
    is_there: u64,
}

// in:  rdi address
// out: rax the word, rdx 1; after a fault both 0
global_asm!(
    ".pushsection .text.probe, \"ax\"",
    ".global probe_read",
    "probe_read:",
    ".global probe_read_access",
    "probe_read_access:",
    "mov rax, [rdi]",
    "mov edx, 1",
    "ret",
    ".global probe_failed",
    "probe_failed:",
    "xor eax, eax",
    "xor edx, edx",
    "ret",
    ".popsection",
);

/// The word at `address`, if there is memory that the kernel may read. The handler of the fault, if there is one, asks
/// [`mended`].
///
/// # Safety
/// Whoever owns what is there puts up with a read of it at any moment: it is memory, or a device without side effects.
pub unsafe fn read(address: usize) -> Option<u64> {
    // SAFETY: by contract; a fault is mended.
    let result = unsafe { probe_read(address) };
    (result.is_there != 0).then_some(result.word)
}

/// Where to go on after a fault at `ip`, if that was a probe.
pub fn mended(ip: usize) -> Option<usize> {
    ((&raw const probe_read_access).addr() == ip).then(|| (&raw const probe_failed).addr())
}
