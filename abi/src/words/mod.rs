//! The files that are compiled once per width.

use super::*;

pub mod bootinfo;
pub mod protocol;
pub mod trace_buffer;

mod acceptor;
mod control;
mod fpage;
mod ipc_error;
mod item;
mod kip;
mod msg_tag;
mod rights;
mod thread_id;
mod timeouts;
mod utcb;

pub use acceptor::Acceptor;
pub use control::{
    ExregsControl, PageAttribute, PreemptionControl, PrioControl, ProcessorControl, ScheduleResult, SpaceControl,
    ThreadState, TimeControl, UnmapControl,
};
pub use fpage::{Fpage, IoFpage};
pub use ipc_error::IpcError;
pub use item::{CtrlXferItem, ItemKind, MapItem, MapKind, StringItem};
pub use kip::{
    ClockInfo, GenerationDate, KIP_MAGIC, KernelDescriptor, Kip, KipAreaInfo, MemoryDescriptor, MemoryInfo, PageInfo,
    ProcessorDescriptor, ProcessorInfo, ServerWords, SystemCalls, ThreadInfo, UtcbInfo,
};
pub use msg_tag::MsgTag;
pub use rights::Rights;
pub use thread_id::ThreadId;
pub use timeouts::Timeouts;
pub use utcb::{UTCB_AREA_MIN_LOG2, UTCB_MR0_OFFSET, UTCB_MY_GLOBAL_ID_OFFSET, UTCB_SIZE, Utcb};

/// Size of a word in bytes.
pub const WORD_SIZE: usize = size_of::<Word>();

/// First address of the UTCB area of sigma0, sigma1 and the root task; their first thread has the first UTCB.
pub const ROOT_UTCB_AREA_BASE: Word = 0xBF00_0000;
/// UTCBs in that area.
pub const ROOT_UTCB_COUNT: usize = 256;
/// log2 of the size of that area.
pub const ROOT_UTCB_AREA_LOG2: u32 = UTCB_ALIGN_LOG2 + ROOT_UTCB_COUNT.ilog2();
/// Address of the kernel interface page in the spaces of sigma0, sigma1 and the root task.
pub const ROOT_KIP_AREA_BASE: Word = 0xBFF0_0000;
/// log2 of the size of a KIP area.
pub const KIP_AREA_LOG2: u32 = 12;
