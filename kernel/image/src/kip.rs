//! The kernel interface page (X.2, Kernel interface page).
//!
//! It is a page of the image, so that the loader finds it there and fills in what it knows: the initial servers, memory
//! descriptors, boot information. The kernel completes it at boot; after that nobody writes.

use core::cell::UnsafeCell;
use core::mem::offset_of;

use kcore::boot::Range;
use kcore::kernel::ThreadNumbers;
use kcore::machine::PhysAddr;
use l4_abi::common::LOCALITY_TABLE;
use l4_abi::{
    API_FLAGS, API_VERSION, ClockInfo, GenerationDate, KERNEL_ID, KIP_MAGIC, KIP_SIZE, KernelDescriptor, Kip,
    KipAreaInfo, MemoryDescriptor, MemoryInfo, MemoryType, PAGE_INFO, PageInfo, ProcessorDescriptor, ProcessorInfo,
    THREAD_ID_BITS, ThreadInfo, Time, UtcbInfo, Word,
};

use crate::{config, stubs};

/// Processors that the page has descriptors for, at least. For more there is what the memory descriptors leave.
const PROCESSORS: usize = 24;
/// Memory descriptors it has room for.
const MEMORY_DESCRIPTORS: usize = 128;
const PAGE_MASK: u64 = 4095;
/// Version of the kernel.
const VERSION: (u8, u8, u16) = (0, 1, 0);
/// Version text, behind which comes what was chosen when the kernel was built.
const VERSION_TEXT: &[u8] = b"Marcona 0.1.0 x86_64 ";
/// Behind it the names of features. `pagerexregs`: ExchangeRegisters also works on threads that the caller's space pages.
const FEATURES: &[u8] = b"\0pagerexregs\0";
/// The feature of I/O fpages.
const IO_FPAGES: &[u8] = b"ioflexpages\0";
/// The feature of the trace buffer, if the kernel is built with one.
const TRACE_BUFFER: &[u8] = if config::TRACEBUFFER { b"tracebuffer\0" } else { b"" };
/// Room for all of them, and the empty string behind the last.
const STRINGS_BYTES: usize = 320;

#[repr(C, align(4096))]
struct Page {
    kip: Kip,
    kernel: KernelDescriptor,
    strings: [u8; STRINGS_BYTES],
    memory: [MemoryDescriptor; MEMORY_DESCRIPTORS],
    processors: [ProcessorDescriptor; PROCESSORS],
}

const _: () = {
    let strings = VERSION_TEXT.len() + config::WORDS.len() + FEATURES.len() + IO_FPAGES.len() + TRACE_BUFFER.len();
    assert!(size_of::<Page>() == KIP_SIZE && strings < STRINGS_BYTES);
};

#[repr(transparent)]
struct KipPage(UnsafeCell<Page>);

// SAFETY: the page is written only by `complete` and the loader, before there is anybody else.
unsafe impl Sync for KipPage {}

#[unsafe(link_section = ".kip")]
#[used]
static KIP: KipPage = KipPage(UnsafeCell::new(Page {
    kip: Kip {
        magic: KIP_MAGIC,
        api_version: API_VERSION as Word,
        api_flags: API_FLAGS,
        kernel_desc_ptr: offset_of!(Page, kernel) as Word,
        memory_info: MemoryInfo::new(MEMORY_DESCRIPTORS as Word, offset_of!(Page, memory) as Word),
        utcb_info: UtcbInfo::X86,
        kip_area_info: KipAreaInfo::X86,
        processor_desc_ptr: offset_of!(Page, processors) as Word,
        page_info: PAGE_INFO,
        processor_info: ProcessorInfo::new(1),
        ..Kip::ZERO
    },
    kernel: KernelDescriptor {
        kernel_id: KERNEL_ID as Word,
        generation_date: GenerationDate::new(2026, 11, 23),
        version: KernelDescriptor::version_word(VERSION.0, VERSION.1, VERSION.2),
        supplier: KernelDescriptor::supplier_word(*b"Mrcn"),
    },
    strings: [0; STRINGS_BYTES],
    memory: [MemoryDescriptor::ZERO; MEMORY_DESCRIPTORS],
    processors: [ProcessorDescriptor { external_khz: 0, internal_khz: 0, reserved: [0; 2] }; PROCESSORS],
}));

/// What the boot code needs of the page.
pub struct Loaded {
    /// What the loader said, as far as the kernel reads it.
    pub kip: &'static Kip,
    /// Memory descriptors in use.
    pub memory: &'static [MemoryDescriptor],
}

/// The kernel's address of the page.
pub fn address() -> usize {
    KIP.0.get().addr()
}

/// The page as the loader left it.
///
/// # Safety
/// Nobody writes to it while the result is in use: it is gone before [`complete`] is called.
pub unsafe fn loaded() -> Loaded {
    // SAFETY: nobody writes meanwhile, by contract; the loader's values are plain words.
    let page = unsafe { &*KIP.0.get() };
    let count = page.kip.memory_info.n() as usize;
    // The capacity means that no loader was there.
    let used = if count >= MEMORY_DESCRIPTORS { 0 } else { count };
    Loaded { kip: &page.kip, memory: &page.memory[..used] }
}

/// Descriptors that the kernel adds besides those of interrupt controllers and of more kernel memory: the image, the user
/// area, the table of localities, the trace buffer.
const OTHER_DESCRIPTORS: usize = 3 + config::TRACEBUFFER as usize;

impl Loaded {
    /// For how many ranges of kernel memory that the loader did not reserve there is room, besides `more` descriptors of
    /// controllers and the like.
    pub fn room(&self, more: usize) -> usize {
        MEMORY_DESCRIPTORS.saturating_sub(self.memory.len() + more + OTHER_DESCRIPTORS)
    }

    /// Whether any of these physical addresses, both ends inside, is memory by the loader's descriptors.
    pub fn is_memory(&self, first: u64, last: u64) -> bool {
        let meets = |descriptor: &MemoryDescriptor| {
            let is_memory = matches!(descriptor.kind(), MemoryType::Conventional | MemoryType::Reserved);
            is_memory && descriptor.low() <= last && first <= descriptor.high()
        };
        self.memory.iter().filter(|descriptor| !descriptor.is_virtual()).any(meets)
    }
}

/// What the kernel adds.
pub struct Findings<'a> {
    /// Processors that run.
    pub processors: usize,
    /// Internal and external frequency of the processors, kHz.
    pub processor_khz: (u64, u64),
    /// Physical memory of the image: first address and last.
    pub image: (Word, Word),
    /// Pages of the interrupt controllers.
    pub controllers: &'a [PhysAddr],
    /// What is said to be memory and is devices.
    pub no_memory: &'a [Range],
    /// Kernel memory that the loader did not reserve.
    pub more_kernel_memory: &'a [Range],
    /// The page with the table of localities, if there are several.
    pub localities: Option<PhysAddr>,
    /// Last user address.
    pub user_last: Word,
    /// Borders of the thread numbers.
    pub numbers: ThreadNumbers,
    /// Whether there are I/O fpages.
    pub has_io_fpages: bool,
    /// Where the trace buffer is, if there is one: first address and last.
    pub trace_buffer: Option<(Word, Word)>,
    /// Sizes of pages that not every processor has: bit k for 2^k bytes.
    pub more_page_sizes: Word,
}

/// Fills in what only the kernel knows. The loader's memory descriptors stay and are overridden by the kernel's.
///
/// # Safety
/// Nobody else uses the page.
pub unsafe fn complete(findings: &Findings<'_>) {
    // SAFETY: nobody else uses it, by contract.
    let page = unsafe { &mut *KIP.0.get() };
    let io_fpages = if findings.has_io_fpages { IO_FPAGES } else { &[] };
    let trace_buffer = if findings.trace_buffer.is_some() { TRACE_BUFFER } else { &[] };
    let strings = [VERSION_TEXT, config::WORDS.as_bytes(), FEATURES, io_fpages, trace_buffer];
    page.strings.iter_mut().zip(strings.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    page.kip.system_calls = stubs::system_calls();
    let ThreadNumbers { system_base, user_base } = findings.numbers;
    page.kip.thread_info = ThreadInfo::new(THREAD_ID_BITS, system_base.into(), user_base.into());
    let info = page.kip.page_info;
    page.kip.page_info = PageInfo::new(info.rights(), info.size_mask() | findings.more_page_sizes);
    page.kip.clock_info = ClockInfo::new(Time::period_us(1), Time::period_us(1));
    let reserved = |low, high| MemoryDescriptor::new(MemoryType::Reserved, low, high);
    let controllers = findings.controllers.iter().map(|page| reserved(page.0 as Word, (page.0 | PAGE_MASK) as Word));
    let user = MemoryDescriptor::new(MemoryType::Conventional, 0, findings.user_last).as_virtual();
    let more = findings
        .no_memory
        .iter()
        .chain(findings.more_kernel_memory)
        .map(|(start, end)| reserved(start.0 as Word, end.0 as Word - 1));
    let localities = findings.localities.map(|page| {
        let shared = MemoryDescriptor::new(MemoryType::Shared, page.0 as Word, (page.0 | PAGE_MASK) as Word);
        shared.with_subtype(LOCALITY_TABLE)
    });
    let own = [reserved(findings.image.0, findings.image.1)].into_iter().chain(controllers).chain([user]);
    let buffer = findings.trace_buffer.map(|(low, high)| reserved(low, high).as_virtual());
    let own = own.chain(more).chain(localities).chain(buffer);
    let count = page.kip.memory_info.n() as usize;
    let mut count = if count >= MEMORY_DESCRIPTORS { 0 } else { count };
    for descriptor in own {
        // Without them sigma0 would give the kernel away, and what interrupts it.
        let slot = page.memory.get_mut(count).expect("the loader left room for the kernel's own memory descriptors");
        *slot = descriptor;
        count += 1;
    }
    page.kip.memory_info = page.kip.memory_info.with_n(count as Word);
    let room = offset_of!(Page, memory) + count * size_of::<MemoryDescriptor>();
    let place = place_processors(findings.processors, room);
    page.kip.processor_desc_ptr = place.offset as Word;
    page.kip.processor_info = ProcessorInfo::with_distance(findings.processors as Word, place.distance_log2);
    let start = (&raw mut *page).cast::<u8>().wrapping_add(place.offset);
    let (internal_khz, external_khz) = findings.processor_khz;
    let descriptor = ProcessorDescriptor {
        external_khz: if place.distance_log2 == WIDE { external_khz } else { internal_khz } as Word,
        internal_khz: internal_khz as Word,
        reserved: if place.distance_log2 == WIDE { [0; 2] } else { [internal_khz as Word; 2] },
    };
    for index in 0..findings.processors {
        let at = start.wrapping_add(index << place.distance_log2).cast::<ProcessorDescriptor>();
        // SAFETY: the place is inside the page, behind all that is used, and aligned to words.
        unsafe { at.write(descriptor) };
    }
}

/// Distances of processor descriptors, log2: as they are, and overlapping.
const WIDE: u32 = size_of::<ProcessorDescriptor>().ilog2();
const NARROW: u32 = size_of::<Word>().ilog2();

/// Where the processor descriptors are.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    distance_log2: u32,
}

/// The end of the page behind `room`, the first byte that is free. More descriptors than fit there overlap: each begins a
/// word behind the one before, and all words are the frequency of the processors, which is then that of the bus, too.
fn place_processors(count: usize, room: usize) -> Place {
    let place = |distance_log2| {
        let bytes = size_of::<ProcessorDescriptor>() + ((count - 1) << distance_log2);
        KIP_SIZE.checked_sub(bytes).filter(|&offset| offset >= room).map(|offset| Place { offset, distance_log2 })
    };
    place(WIDE).or_else(|| place(NARROW)).expect("as many processors are started as the page has room for")
}
