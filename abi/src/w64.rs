//! The words of 64-bit x86.

use core::sync::atomic::AtomicU64;

/// An unsigned machine word.
pub type Word = u64;
/// A signed machine word.
pub type SWord = i64;
/// A word in memory that both sides may touch.
pub type AtomicWord = AtomicU64;

/// Position of the thread number in a global thread id; the version is below.
pub const THREAD_NO_SHIFT: u32 = 32;
/// ApiFlags: little endian, 64-bit words.
pub const API_FLAGS: Word = 4;
/// Bits of a thread number that select a thread (KIP ThreadInfo).
pub const THREAD_ID_BITS: u32 = 18;
/// log2 of size and alignment of a UTCB.
pub const UTCB_ALIGN_LOG2: u32 = 10;
/// log2 of the size of a processor descriptor.
pub const PROCESSOR_DESCRIPTOR_LOG2: u32 = 5;
/// PageInfo: pages of 4 KiB and 2 MiB, all rights.
pub const PAGE_INFO: PageInfo = PageInfo::from_raw(0x20_1007);

/// Position of a register in an exception message: the number of its message register (amd64 ABI, Exception Message).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "the processor's names")]
pub enum ExceptionWord {
    Rip = 1,
    Rbx,
    R10,
    R12,
    R13,
    R14,
    R15,
    Rax,
    Rcx,
    Rdx,
    Rsi,
    Rdi,
    Rbp,
    R8,
    R9,
    R11,
    Rsp,
    Rflags,
    /// Number of the exception; ignored in a reply.
    Exception,
    /// Error code of the exception; ignored in a reply.
    ErrorCode,
}

/// Untyped words of an exception message.
pub const EXCEPTION_WORDS: usize = ExceptionWord::ErrorCode as usize;

#[path = "words/mod.rs"]
mod words;
pub use words::*;

pub use crate::common::*;
