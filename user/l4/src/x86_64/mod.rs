//! The amd64 ABI: KernelInterface, the system-call registers, the way to the UTCB.

pub mod kdb;
pub mod mark;
mod syscall;

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc, CpuidResult};
use core::ptr::with_exposed_provenance;

use l4_abi::{Kip, ThreadId, UTCB_MR0_OFFSET, Utcb, Word};

use crate::topology::Place;
pub use syscall::{
    RawExregs, exchange_registers, init, ipc, ipc_rounds, lipc, lipc_rounds, memory_control, processor_control,
    schedule, space_control, system_clock, thread_control, thread_switch, unmap,
};

/// The architecture's name.
pub const NAME: &str = "x86_64";

/// What KernelInterface returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelInterface {
    /// The kernel interface page of this space.
    pub kip: *const Kip,
    /// Version of the interface.
    pub api_version: u32,
    /// Byte order and word size.
    pub api_flags: u32,
    /// The kernel's id.
    pub kernel_id: u32,
}

/// Finds the kernel interface page (X.2, KernelInterface). Works before [`init`].
#[doc(alias = "L4_KernelInterface")]
#[doc(alias = "L4_GetKernelInterface")]
pub fn kernel_interface() -> KernelInterface {
    let (kip, api_version, api_flags, kernel_id): (usize, u64, u64, u64);
    // SAFETY: the trapping instruction changes these registers and nothing else (amd64 ABI, KernelInterface).
    unsafe {
        asm!(
            ".byte 0xF0, 0x90", // lock nop
            lateout("rax") kip,
            lateout("rcx") api_version,
            lateout("rdx") api_flags,
            lateout("rsi") kernel_id,
            options(nostack, preserves_flags),
        );
    }
    KernelInterface {
        kip: with_exposed_provenance(kip),
        api_version: api_version as u32,
        api_flags: api_flags as u32,
        kernel_id: kernel_id as u32,
    }
}

/// The address of the calling thread's MR0: its local id (amd64 ABI, UTCB).
fn mr0_address() -> Word {
    let address: Word;
    // SAFETY: on this kernel the word at gs:0 is always the running thread's local id, readable from every space.
    unsafe { asm!("mov {}, gs:[0]", out(reg) address, options(pure, nomem, nostack, preserves_flags)) };
    address
}

/// The virtual registers of the calling thread.
pub fn utcb() -> &'static Utcb {
    let utcb = with_exposed_provenance::<Utcb>(mr0_address() as usize - UTCB_MR0_OFFSET);
    // SAFETY: the kernel keeps the UTCB mapped as long as the thread exists, and its registers are atomics.
    unsafe { &*utcb }
}

/// The calling thread's local id.
#[doc(alias = "L4_MyLocalId")]
pub fn my_local_id() -> ThreadId {
    ThreadId::local(mr0_address())
}

/// Where the processor is that executes this, if it says so.
pub fn place() -> Option<Place> {
    const TOPOLOGY: u32 = 0xB;
    let leaf = |leaf, subleaf| {
        #[allow(unused_unsafe, reason = "newer compilers want none")]
        // SAFETY: every processor in 64-bit mode has the instruction, and the kernel leaves it to user programs.
        let CpuidResult { eax, ebx, ecx, edx } = unsafe { __cpuid_count(leaf, subleaf) };
        [eax, ebx, ecx, edx]
    };
    let [last_leaf, ..] = leaf(0, 0);
    if last_leaf < TOPOLOGY { None } else { Place::from_leaf(|subleaf| leaf(TOPOLOGY, subleaf)) }
}

/// The time-stamp counter.
pub fn timestamp() -> u64 {
    // SAFETY: the kernel leaves RDTSC to user programs (amd64 ABI, Thread Start State).
    unsafe { _rdtsc() }
}
