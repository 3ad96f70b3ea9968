//! Types of memory descriptors.

/// What a range of addresses is (X.2, Kernel Interface Page, Memory Descriptors).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MemoryType {
    /// Not usable.
    Undefined = 0,
    /// Free memory.
    Conventional = 1,
    /// The kernel's.
    Reserved = 2,
    /// Device or special memory: to one owner, on explicit request.
    Dedicated = 3,
    /// May be mapped to anybody.
    Shared = 4,
    /// Defined by the boot loader; the subtype says more.
    BootLoader = 0xE,
    /// Defined by the architecture; the subtype is the firmware's type.
    Architecture = 0xF,
}

impl MemoryType {
    /// Subtype of [`Self::BootLoader`]: boot information.
    pub const BOOT_INIT_TABLE: u8 = 1;
    /// Subtype of [`Self::BootLoader`]: sigma0, sigma1 or the root task.
    pub const BOOT_SERVER: u8 = 2;
    /// Subtype of [`Self::BootLoader`]: a further module.
    pub const BOOT_MODULE: u8 = 3;

    /// The four bits of a descriptor.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// The type in the low four bits of `raw`; numbers without a meaning are [`Self::Undefined`], not usable.
    pub const fn from_raw(raw: u8) -> Self {
        match raw & 0xF {
            1 => Self::Conventional,
            2 => Self::Reserved,
            3 => Self::Dedicated,
            4 => Self::Shared,
            0xE => Self::BootLoader,
            0xF => Self::Architecture,
            _ => Self::Undefined,
        }
    }
}
