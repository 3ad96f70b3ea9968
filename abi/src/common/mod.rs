//! What looks the same at both widths.

mod error;
mod localities;
mod memory_type;
mod preempt_flags;
mod time;

pub use error::{IpcErrorKind, Phase, SysError};
pub use localities::{
    DISTANCE_HERE, LOCALITIES_MAX, LOCALITY_EXTENTS_MAX, LOCALITY_TABLE, LocalityExtent, LocalityTable,
};
pub use memory_type::MemoryType;
pub use preempt_flags::PreemptFlags;
pub use time::Time;

/// ApiVersion in the kernel interface page and from KernelInterface: X.2, subversion 5.
pub const API_VERSION: u32 = 0x8405_0000;

/// KernelId of this kernel: id 6, subid 1.
pub const KERNEL_ID: u32 = 0x0601_0000;

/// Size of the kernel interface page in bytes.
pub const KIP_SIZE: usize = 4096;

/// The first four bytes of the kernel interface page.
///
/// A loader finds the page by a search for them; so they stay bytes, and no code of a kernel holds them as one constant
/// below the page itself.
pub const KIP_MAGIC_BYTES: [u8; 4] = [b'L', b'4', 0xE6, b'K'];

/// Number of message registers.
pub const MR_COUNT: usize = 64;

/// Number of buffer registers.
pub const BR_COUNT: usize = 33;

/// The instruction of KernelInterface, a nop with a lock prefix (it raises #UD).
pub const KERNEL_INTERFACE_OPCODE: [u8; 2] = [0xF0, 0x90];

/// Processor flags that ExchangeRegisters and exception replies may change: CF, PF, AF, ZF, SF, OF.
pub const USER_FLAGS_MASK: u32 = 0x8D5;
