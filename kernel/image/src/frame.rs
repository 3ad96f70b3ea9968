//! The saved user registers of threads, a table beside the TCBs under the same index.
//!
//! Instruction pointer, stack pointer and flags are the core's, in the TCB. The stride is twice that of the TCBs, so
//! that the trap entry gets from one to the other by a scaled index.

use kcore::machine::TcbRef;
use kcore::var::Var;
use khal::fpu::FpuState;

use crate::layout;

/// Size of a frame slot, log2.
pub const FRAME_SIZE_LOG2: u32 = kcore::thread::TCB_SIZE_LOG2 + 1;

/// The registers of one thread.
#[repr(C, align(1024))]
#[derive(Default)]
#[allow(missing_docs, reason = "the processor's names")]
pub struct Frame {
    pub rax: Var<usize>,
    pub rbx: Var<usize>,
    pub rcx: Var<usize>,
    pub rdx: Var<usize>,
    pub rsi: Var<usize>,
    pub rdi: Var<usize>,
    pub rbp: Var<usize>,
    pub r8: Var<usize>,
    pub r9: Var<usize>,
    pub r10: Var<usize>,
    pub r11: Var<usize>,
    pub r12: Var<usize>,
    pub r13: Var<usize>,
    pub r14: Var<usize>,
    pub r15: Var<usize>,
    /// The exception that brought the thread here last.
    pub vector: Var<usize>,
    /// Its error code, 0 where it has none.
    pub error_code: Var<usize>,
    /// Floating-point registers, valid while the processor does not hold them.
    pub fpu: FpuState,
}

const _: () = assert!(size_of::<Frame>() == 1 << FRAME_SIZE_LOG2);

impl Frame {
    /// The general registers, in the order of the fields.
    pub fn general(&self) -> [&Var<usize>; 15] {
        [
            &self.rax, &self.rbx, &self.rcx, &self.rdx, &self.rsi, &self.rdi, &self.rbp, &self.r8, &self.r9, &self.r10,
            &self.r11, &self.r12, &self.r13, &self.r14, &self.r15,
        ]
    }

    /// The registers that pass MR0 to MR7 (amd64 ABI, Ipc).
    pub fn message_registers(&self) -> [&Var<usize>; 8] {
        [&self.r9, &self.rax, &self.rbx, &self.r10, &self.r12, &self.r13, &self.r14, &self.r15]
    }
}

/// The frame of `thread`, whose slot is backed.
#[inline(always)]
pub fn frame(thread: TcbRef) -> &'static Frame {
    let address = layout::FRAME_TABLE + (thread.index() << FRAME_SIZE_LOG2);
    // SAFETY: the frame table is mapped, at least as zeroes, for all thread numbers, for ever, and to memory as long as
    // the slot is claimed; frames are made of atomics, and an FPU state that only its own functions touch.
    unsafe { &*core::ptr::with_exposed_provenance(address) }
}
