//! The kernel interface page and the tables it points to.

use super::*;

/// The magic as it fills the first word: its four bytes, then zeros.
pub const KIP_MAGIC: [u8; WORD_SIZE] = {
    let mut magic = [0; WORD_SIZE];
    let mut i = 0;
    while i < KIP_MAGIC_BYTES.len() {
        magic[i] = KIP_MAGIC_BYTES[i];
        i += 1;
    }
    magic
};

/// The fixed part of the kernel interface page (X.2, Kernel Interface Page).
///
/// Offsets named `..._ptr` count bytes from the start of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Kip {
    /// [`KIP_MAGIC`].
    pub magic: [u8; WORD_SIZE],
    /// [`API_VERSION`].
    pub api_version: Word,
    /// [`API_FLAGS`].
    pub api_flags: Word,
    /// Offset of the [`KernelDescriptor`].
    pub kernel_desc_ptr: Word,
    /// The kernel debugger's start.
    pub kdebug_init: Word,
    /// The kernel debugger's entry.
    pub kdebug_entry: Word,
    /// First address of the kernel debugger's memory.
    pub kdebug_low: Word,
    /// End of the kernel debugger's memory; 0 if there is none.
    pub kdebug_high: Word,
    /// Start values of sigma0.
    pub sigma0: ServerWords,
    /// Start values of sigma1.
    pub sigma1: ServerWords,
    /// Start values of the root task.
    pub root_server: ServerWords,
    /// Reserved.
    pub reserved0: Word,
    /// Where the memory descriptors are.
    pub memory_info: MemoryInfo,
    /// The kernel debugger's configuration.
    pub kdebug_config: [Word; 2],
    /// Low and high of the main memory; obsolete.
    pub main_mem: [Word; 2],
    /// Low and high of two reserved ranges; obsolete.
    pub reserved_mem: [Word; 4],
    /// Low and high of five dedicated ranges; obsolete.
    pub dedicated_mem: [Word; 10],
    /// Reserved.
    pub reserved1: [Word; 2],
    /// Size and alignment of UTCBs and their area.
    pub utcb_info: UtcbInfo,
    /// Size of the KIP area.
    pub kip_area_info: KipAreaInfo,
    /// Reserved.
    pub reserved2: [Word; 2],
    /// Physical address of the boot information; 0 if there is none.
    pub boot_info: Word,
    /// Offset of the first [`ProcessorDescriptor`].
    pub processor_desc_ptr: Word,
    /// Precision of the clock.
    pub clock_info: ClockInfo,
    /// Sizes and bases of thread numbers.
    pub thread_info: ThreadInfo,
    /// Sizes and rights of pages.
    pub page_info: PageInfo,
    /// Number of processors.
    pub processor_info: ProcessorInfo,
    /// Entries of the system calls.
    pub system_calls: SystemCalls,
    /// Reserved.
    pub reserved3: [Word; 5],
    /// Entries of the architecture's own calls; 0 on x86.
    pub arch_system_calls: [Word; 4],
}

const _: () = assert!(size_of::<Kip>() == 72 * WORD_SIZE);

impl Kip {
    /// A page with the magic, and zero in all other fields.
    pub const ZERO: Self = Self {
        magic: KIP_MAGIC,
        api_version: 0,
        api_flags: 0,
        kernel_desc_ptr: 0,
        kdebug_init: 0,
        kdebug_entry: 0,
        kdebug_low: 0,
        kdebug_high: 0,
        sigma0: ServerWords::ZERO,
        sigma1: ServerWords::ZERO,
        root_server: ServerWords::ZERO,
        reserved0: 0,
        memory_info: MemoryInfo::from_raw(0),
        kdebug_config: [0; 2],
        main_mem: [0; 2],
        reserved_mem: [0; 4],
        dedicated_mem: [0; 10],
        reserved1: [0; 2],
        utcb_info: UtcbInfo::from_raw(0),
        kip_area_info: KipAreaInfo::from_raw(0),
        reserved2: [0; 2],
        boot_info: 0,
        processor_desc_ptr: 0,
        clock_info: ClockInfo::from_raw(0),
        thread_info: ThreadInfo::from_raw(0),
        page_info: PageInfo::from_raw(0),
        processor_info: ProcessorInfo::from_raw(0),
        system_calls: SystemCalls::ZERO,
        reserved3: [0; 5],
        arch_system_calls: [0; 4],
    };
}

/// Where an initial server starts and where it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ServerWords {
    /// Stack pointer.
    pub sp: Word,
    /// Instruction pointer.
    pub ip: Word,
    /// First address.
    pub low: Word,
    /// End: the first address behind.
    pub high: Word,
}

impl ServerWords {
    /// No server.
    pub const ZERO: Self = Self { sp: 0, ip: 0, low: 0, high: 0 };

    /// Whether there is such a server.
    pub const fn is_present(&self) -> bool {
        self.low < self.high
    }
}

/// Entries of the system calls: absolute addresses on amd64, offsets from the start of the page on ia32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
#[allow(missing_docs, reason = "the manual's names")]
pub struct SystemCalls {
    pub space_control: Word,
    pub thread_control: Word,
    pub processor_control: Word,
    pub memory_control: Word,
    pub ipc: Word,
    pub lipc: Word,
    pub unmap: Word,
    pub exchange_registers: Word,
    pub system_clock: Word,
    pub thread_switch: Word,
    pub schedule: Word,
}

impl SystemCalls {
    /// No call.
    pub const ZERO: Self = Self {
        space_control: 0,
        thread_control: 0,
        processor_control: 0,
        memory_control: 0,
        ipc: 0,
        lipc: 0,
        unmap: 0,
        exchange_registers: 0,
        system_clock: 0,
        thread_switch: 0,
        schedule: 0,
    };
}

word_type! {
    /// Number and place of the memory descriptors: number in the low half, offset in the high half.
    ///
    /// In an image that is not booted yet the number is the room there is.
    MemoryInfo
}

impl MemoryInfo {
    const HALF: u32 = Word::BITS / 2;

    /// `n` descriptors, the first at offset `ptr`.
    pub const fn new(n: Word, ptr: Word) -> Self {
        Self(ptr << Self::HALF | n & (Word::MAX >> Self::HALF))
    }

    /// Number of descriptors.
    pub const fn n(self) -> Word {
        self.0 & (Word::MAX >> Self::HALF)
    }

    /// Offset of the first.
    pub const fn ptr(self) -> Word {
        self.0 >> Self::HALF
    }

    /// The same place with another number.
    pub const fn with_n(self, n: Word) -> Self {
        Self::new(n, self.ptr())
    }
}

word_type! {
    /// Size of UTCBs. Bits, lowest first: multiplier 10, log2 of the alignment 6, log2 of the smallest area 6.
    UtcbInfo
}

impl UtcbInfo {
    /// What these two kernels publish.
    pub const X86: Self = Self::new(1, UTCB_ALIGN_LOG2, UTCB_AREA_MIN_LOG2);

    /// UTCBs of `multiplier` * 2^`align_log2` bytes in areas of at least 2^`area_log2`.
    pub const fn new(multiplier: Word, align_log2: u32, area_log2: u32) -> Self {
        Self((area_log2 as Word) << 16 | (align_log2 as Word) << 10 | multiplier)
    }

    /// log2 of the alignment.
    pub const fn align_log2(self) -> u32 {
        (self.0 >> 10 & 0x3F) as u32
    }

    /// log2 of the smallest UTCB area.
    pub const fn area_log2(self) -> u32 {
        (self.0 >> 16 & 0x3F) as u32
    }

    /// Size of a UTCB in bytes.
    pub const fn size_bytes(self) -> Word {
        (self.0 & 0x3FF) << self.align_log2()
    }
}

word_type! {
    /// Size of the KIP area: its log2 in the low six bits.
    KipAreaInfo
}

impl KipAreaInfo {
    /// What these two kernels publish.
    pub const X86: Self = Self::new(KIP_AREA_LOG2);

    /// An area of 2^`size_log2` bytes.
    pub const fn new(size_log2: u32) -> Self {
        Self(size_log2 as Word)
    }

    /// log2 of the size.
    pub const fn size_log2(self) -> u32 {
        (self.0 & 0x3F) as u32
    }
}

word_type! {
    /// Precision of the clock. Bits, lowest first: reading 16, scheduling 16; both are periods.
    ClockInfo
}

impl ClockInfo {
    /// The two precisions in one word.
    pub const fn new(read: Time, schedule: Time) -> Self {
        Self((schedule.raw() as Word) << 16 | read.raw() as Word)
    }

    /// Shortest difference that SystemClock can show.
    pub const fn read_precision(self) -> Time {
        Time::from_raw(self.0 as u16)
    }

    /// Largest jitter of timeouts.
    pub const fn schedule_precision(self) -> Time {
        Time::from_raw((self.0 >> 16) as u16)
    }
}

word_type! {
    /// Thread numbers. Bits, lowest first: bits of a number 8, SystemBase 12, UserBase 12.
    ThreadInfo
}

impl ThreadInfo {
    /// Numbers of `bits` bits: interrupts below `system_base`, the kernel's below `user_base`, users' from there on.
    pub const fn new(bits: u32, system_base: Word, user_base: Word) -> Self {
        Self((user_base & 0xFFF) << 20 | (system_base & 0xFFF) << 8 | bits as Word)
    }

    /// Bits of a thread number that select a thread.
    pub const fn bits(self) -> u32 {
        (self.0 & 0xFF) as u32
    }

    /// First thread number that is no interrupt.
    pub const fn system_base(self) -> Word {
        self.0 >> 8 & 0xFFF
    }

    /// First thread number of users.
    pub const fn user_base(self) -> Word {
        self.0 >> 20 & 0xFFF
    }

    /// The id of sigma0.
    pub const fn sigma0(self) -> ThreadId {
        ThreadId::global(self.user_base(), 1)
    }

    /// The id of sigma1.
    pub const fn sigma1(self) -> ThreadId {
        ThreadId::global(self.user_base() + 1, 1)
    }

    /// The id of the root task.
    pub const fn root_task(self) -> ThreadId {
        ThreadId::global(self.user_base() + 2, 1)
    }

    /// The id that stands for the kernel.
    pub const fn kernel(self) -> ThreadId {
        ThreadId::global(self.system_base(), 1)
    }
}

word_type! {
    /// Pages of the hardware. Bits, lowest first: rights that exist independently 3, zero 7; above, bit k says that pages
    /// of 2^k bytes exist.
    PageInfo
}

impl PageInfo {
    /// These rights and sizes; `size_mask` has bit k set for pages of 2^k bytes.
    pub const fn new(rights: Rights, size_mask: Word) -> Self {
        Self(size_mask & !0x3FF | rights.bits())
    }

    /// Rights that can be given and revoked one by one.
    pub const fn rights(self) -> Rights {
        Rights::from_bits_truncate(self.0)
    }

    /// Sizes of pages: bit k for 2^k bytes.
    pub const fn size_mask(self) -> Word {
        self.0 & !0x3FF
    }

    /// log2 of the smallest page.
    pub const fn min_log2(self) -> u32 {
        self.size_mask().trailing_zeros()
    }
}

word_type! {
    /// Number of processors. Bits, lowest first: number - 1 16; the top four: log2 of the size of a descriptor.
    ProcessorInfo
}

impl ProcessorInfo {
    const SIZE_SHIFT: u32 = Word::BITS - 4;

    /// `count` processors with descriptors of the usual size.
    pub const fn new(count: Word) -> Self {
        Self((PROCESSOR_DESCRIPTOR_LOG2 as Word) << Self::SIZE_SHIFT | count.wrapping_sub(1) & 0xFFFF)
    }

    /// `count` processors with descriptors at a distance of 2^`log2` bytes, below 2^16.
    pub const fn with_distance(count: Word, log2: u32) -> Self {
        Self((log2 as Word) << Self::SIZE_SHIFT | count.wrapping_sub(1) & 0xFFFF)
    }

    /// Number of processors.
    pub const fn count(self) -> Word {
        (self.0 & 0xFFFF) + 1
    }

    /// log2 of the distance between two descriptors.
    pub const fn descriptor_log2(self) -> u32 {
        (self.0 >> Self::SIZE_SHIFT) as u32
    }
}

/// What is known of a processor (X.2, Kernel Interface Page, Processor Descriptor).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ProcessorDescriptor {
    /// Frequency of the bus in kHz.
    pub external_khz: Word,
    /// Frequency of the processor and its time-stamp counter in kHz.
    pub internal_khz: Word,
    /// Reserved.
    pub reserved: [Word; 2],
}

const _: () = assert!(size_of::<ProcessorDescriptor>() == 1 << PROCESSOR_DESCRIPTOR_LOG2);

/// What the kernel is (X.2, Kernel Interface Page, Kernel Descriptor). Behind it: the version string, the feature strings
/// and an empty one, each ended by a zero byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct KernelDescriptor {
    /// [`KERNEL_ID`].
    pub kernel_id: Word,
    /// When it was built.
    pub generation_date: GenerationDate,
    /// Version 8 bits from the top of the low 32, subversion 8, patch level 16.
    pub version: Word,
    /// Four letters, the first in the lowest byte.
    pub supplier: Word,
}

impl KernelDescriptor {
    /// The version word.
    pub const fn version_word(version: u8, subversion: u8, patch: u16) -> Word {
        (version as Word) << 24 | (subversion as Word) << 16 | patch as Word
    }

    /// The supplier word.
    pub const fn supplier_word(letters: [u8; 4]) -> Word {
        u32::from_le_bytes(letters) as Word
    }
}

word_type! {
    /// A date. Bits, lowest first: day 5, month 4, year - 2000 7.
    GenerationDate
}

impl GenerationDate {
    /// A day of this century; each part is cut to its field.
    pub const fn new(year: u16, month: u8, day: u8) -> Self {
        Self((year.wrapping_sub(2000) as Word & 0x7F) << 9 | (month as Word & 0xF) << 5 | day as Word & 0x1F)
    }

    /// Day of the month, from 1.
    pub const fn day(self) -> u8 {
        (self.0 & 0x1F) as u8
    }

    /// Month, from 1.
    pub const fn month(self) -> u8 {
        (self.0 >> 5 & 0xF) as u8
    }

    /// Year.
    pub const fn year(self) -> u16 {
        (self.0 >> 9 & 0x7F) as u16 + 2000
    }
}

/// What a range of addresses is (X.2, Kernel Interface Page, Memory Descriptor). Later descriptors override earlier ones.
///
/// First word, lowest bits first: type 4, subtype 4, zero 1, virtual 1, low / 1024 in the rest. Second word: zero 10,
/// high / 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct MemoryDescriptor {
    words: [Word; 2],
}

impl MemoryDescriptor {
    const VIRTUAL: Word = 1 << 9;
    const GRAIN_MASK: Word = 0x3FF;

    /// A descriptor of nothing.
    pub const ZERO: Self = Self { words: [0; 2] };

    /// Physical addresses from `low` to `high`, inclusive, each cut to the 1024 bytes it is in.
    pub const fn new(kind: MemoryType, low: Word, high: Word) -> Self {
        Self { words: [low & !Self::GRAIN_MASK | kind.raw() as Word, high & !Self::GRAIN_MASK] }
    }

    /// The same with a subtype of four bits.
    pub const fn with_subtype(self, subtype: u8) -> Self {
        Self { words: [self.words[0] & !0xF0 | (subtype as Word & 0xF) << 4, self.words[1]] }
    }

    /// The same for virtual addresses.
    pub const fn as_virtual(self) -> Self {
        Self { words: [self.words[0] | Self::VIRTUAL, self.words[1]] }
    }

    /// The descriptor in these words.
    pub const fn from_words(words: [Word; 2]) -> Self {
        Self { words }
    }

    /// The two words.
    pub const fn words(self) -> [Word; 2] {
        self.words
    }

    /// The type.
    pub const fn kind(self) -> MemoryType {
        MemoryType::from_raw(self.words[0] as u8 & 0xF)
    }

    /// The subtype, four bits.
    pub const fn subtype(self) -> u8 {
        self.words[0] as u8 >> 4
    }

    /// Whether the addresses are virtual.
    pub const fn is_virtual(self) -> bool {
        self.words[0] & Self::VIRTUAL != 0
    }

    /// First address.
    pub const fn low(self) -> Word {
        self.words[0] & !Self::GRAIN_MASK
    }

    /// Last address.
    pub const fn high(self) -> Word {
        self.words[1] | Self::GRAIN_MASK
    }
}
