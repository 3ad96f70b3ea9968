//! The words of 32-bit x86.

use core::sync::atomic::AtomicU32;

/// An unsigned machine word.
pub type Word = u32;
/// A signed machine word.
pub type SWord = i32;
/// A word in memory that both sides may touch.
pub type AtomicWord = AtomicU32;

/// Position of the thread number in a global thread id; the version is below.
pub const THREAD_NO_SHIFT: u32 = 14;
/// ApiFlags: little endian, 32-bit words.
pub const API_FLAGS: Word = 0;
/// Bits of a thread number that select a thread (KIP ThreadInfo).
pub const THREAD_ID_BITS: u32 = 17;
/// log2 of size and alignment of a UTCB.
pub const UTCB_ALIGN_LOG2: u32 = 9;
/// log2 of the size of a processor descriptor.
pub const PROCESSOR_DESCRIPTOR_LOG2: u32 = 4;
/// PageInfo: pages of 4 KiB and 4 MiB, rights to read and write.
pub const PAGE_INFO: PageInfo = PageInfo::from_raw(0x40_1006);

/// Position of a register in an exception message: the number of its message register (ia32 ABI, Exception Message).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "the processor's names")]
pub enum ExceptionWord {
    Eip = 1,
    Eflags,
    /// Number of the exception; ignored in a reply.
    Exception,
    /// Error code of the exception; ignored in a reply.
    ErrorCode,
    Edi,
    Esi,
    Ebp,
    Esp,
    Ebx,
    Edx,
    Ecx,
    Eax,
}

/// Untyped words of an exception message.
pub const EXCEPTION_WORDS: usize = ExceptionWord::Eax as usize;

#[path = "words/mod.rs"]
mod words;
pub use words::*;

pub use crate::common::*;
