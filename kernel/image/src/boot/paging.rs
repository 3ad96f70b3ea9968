//! The kernel's own page tables.
//!
//! They map what crate::layout says: the image, page by page, never writable and executable at once; kernel memory; the
//! tables of the core; devices; two pages for user code. Guard pages and the start code are left out, and nothing is
//! mapped in the lower half.
//!
//! Where user code must not even have the kernel in its tables ([`Isolation`]), these tables are the kernel's alone: entries
//! load them, and the ways out load the space's. Of the kernel a space then shows the *porch*:
//!
//! | pages | why |
//! |---|---|
//! | code of entries and ways out, of the image and of each area | executed before the kernel's tables are loaded, or behind |
//! | gates, task states | the processor reads them at each entry |
//! | [`AREA_PORCH`] of each area: segments, small stacks, the word that loads the kernel's tables | the same |
//! | stubs, UTCB pointers, the trace buffer, and with I/O fpages the port map | they are for user code |
//!
//! None of its pages is global, so that nothing of the kernel stays cached when a space is loaded.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kcore::machine::PhysAddr;
use kformats::paging::Amd64;
use khal::cpu::Features;
use khal::cr::Cr3;
use khal::tables::{KernelTables, NoFrame, PageKind, TableMemory};
use khal::tlb::{self, ContextFlush};

use super::stack::BOOT_STACK;
use crate::config::SPIN_WHEELS;
use crate::layout::*;
use crate::{port_map, trace_buffer, wheels};

const PAGE_BYTES: usize = 4096;

/// Bounds of the image, from the linker script; only the addresses mean something.
mod image {
    unsafe extern "C" {
        pub static __image_start: u8;
        pub static __stubs_start: u8;
        pub static __text_start: u8;
        pub static __entry_end: u8;
        pub static __text_end: u8;
        pub static __area_code: u8;
        pub static __area_calls_start: u64;
        pub static __area_calls_end: u64;
        pub static __rodata_start: u8;
        pub static __rodata_end: u8;
        pub static __data_start: u8;
        pub static __data_end: u8;
        pub static __image_end: u8;
    }
}

/// The pages of the image, as physical addresses: first and end.
pub fn image_range() -> (PhysAddr, PhysAddr) {
    let physical = |symbol: *const u8| PhysAddr((symbol.addr() - KERNEL_BASE) as u64);
    (physical(&raw const image::__image_start), physical(&raw const image::__image_end))
}

/// Where the code is that is copied to areas.
pub fn area_template() -> usize {
    (&raw const image::__area_code).addr()
}

/// A part of the image whose pages are of one kind.
struct Section {
    start: usize,
    end: usize,
    kind: PageKind,
}

/// The parts of the image that stay mapped.
fn sections() -> [Section; 6] {
    let section = |start: *const u8, end: *const u8, kind| Section { start: start.addr(), end: end.addr(), kind };
    let page = |start: *const u8, kind| section(start, start.wrapping_add(PAGE_BYTES), kind);
    [
        page(&raw const image::__image_start, PageKind::KernelData),
        // User code executes the stubs elsewhere; here the kernel completes them.
        page(&raw const image::__stubs_start, PageKind::KernelData),
        section(&raw const image::__text_start, &raw const image::__text_end, PageKind::KernelCode),
        // Processors run copies of it.
        page(&raw const image::__area_code, PageKind::KernelConst),
        section(&raw const image::__rodata_start, &raw const image::__rodata_end, PageKind::KernelConst),
        section(&raw const image::__data_start, &raw const image::__data_end, PageKind::KernelData),
    ]
}

/// Tables in kernel memory, reached at [`DIRECT_MAP`], with frames from a closure.
struct Direct<S>(S);

impl<S: FnMut() -> Option<PhysAddr>> Direct<S> {
    fn pointer(at: u64) -> *mut u64 {
        debug_assert!(at < DIRECT_MAP_BYTES as u64);
        core::ptr::with_exposed_provenance_mut(DIRECT_MAP + at as usize)
    }
}

impl<S: FnMut() -> Option<PhysAddr>> TableMemory for Direct<S> {
    fn read(&self, at: u64) -> u64 {
        // SAFETY: the frame came from `take_frame`, is mapped at DIRECT_MAP by the rough and by the final tables, and
        // holds nothing but a table. Volatile, as the processor may set status bits.
        unsafe { Self::pointer(at).read_volatile() }
    }

    fn write(&mut self, at: u64, entry: u64) {
        // SAFETY: as in `read`; what an entry does to translations is the business of `KernelSpace`.
        unsafe { Self::pointer(at).write_volatile(entry) }
    }

    fn replace(&mut self, at: u64, old: u64, new: u64) -> bool {
        // SAFETY: as in `read`; the address is that of an entry, and so aligned.
        let entry = unsafe { AtomicU64::from_ptr(Self::pointer(at)) };
        entry.compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }

    fn take_frame(&mut self) -> Option<u64> {
        let PhysAddr(frame) = (self.0)()?;
        // SAFETY: the source gives the frame away for good; it is mapped as in `read`.
        unsafe { Self::pointer(frame).write_bytes(0, PAGE_BYTES / size_of::<u64>()) };
        Some(frame)
    }
}

/// A page of the kernel's whose translation changed, until processors have forgotten the old one.
#[derive(Debug)]
#[must_use = "processors may still use the old translation"]
pub struct Stale {
    address: usize,
}

impl Stale {
    /// This processor forgets the old translation. Returns the page, which others may know yet.
    pub fn forget_here(self) -> usize {
        tlb::invalidate_page(self.address);
        self.address
    }
}

/// What the tables map besides the image.
pub struct Plan<'a> {
    /// Features of the processors, which all have the same.
    pub features: Features,
    /// Ranges of kernel memory, first address and end, in pages, below [`DIRECT_MAP_BYTES`].
    pub kernel_memory: &'a [(PhysAddr, PhysAddr)],
    /// Parts of the tables of the core, first address and bytes, in large pages: they read as zero where they are not
    /// backed.
    pub sparse: &'a [(usize, usize)],
    /// The task states, where they are to be near a port map; `None` without I/O fpages.
    pub task_states: Option<PhysAddr>,
    /// The registers of the local APIC.
    pub local_apic: PhysAddr,
    /// The registers of the I/O APICs, a page each.
    pub io_apics: &'a [PhysAddr],
    /// The page with the registers of the high-precision event timer.
    pub hpet: Option<PhysAddr>,
    /// The memory of the screen: where it begins, in a large page, and large pages.
    pub screen: Option<(PhysAddr, usize)>,
    /// What spaces show of the kernel; `None`: all.
    pub isolation: Option<Isolation>,
}

/// Statics of the image that the processor reads before the kernel's tables are loaded.
#[derive(Clone, Copy)]
pub struct Isolation {
    /// The page of the gates.
    pub gates: usize,
    /// The pages of the task states, unless they are near a port map.
    pub task_states: usize,
}

/// The kernel's tables, and its part of every space.
#[derive(Clone, Copy)]
pub struct KernelSpace {
    tables: KernelTables<Amd64>,
    /// Tables of what spaces show of the kernel, if not all of it.
    porch: Option<KernelTables<Amd64>>,
    /// The word that loads the tables, keeping what is cached of them.
    word: usize,
    /// A frame full of ones, if there are port maps.
    ones: Option<PhysAddr>,
}

impl KernelSpace {
    /// Builds the tables; they are not in use yet. `frames` gives frames below [`DIRECT_MAP_BYTES`], which the plan's
    /// kernel memory contains.
    ///
    /// # Errors
    /// [`NoFrame`] when `frames` ends.
    ///
    /// # Safety
    /// 1. Nobody else uses the frames that `frames` gives, from now on.
    /// 2. They are mapped at [`DIRECT_MAP`], now by the rough tables and later by the plan.
    pub unsafe fn build(plan: &Plan, frames: impl FnMut() -> Option<PhysAddr>) -> Result<Self, NoFrame> {
        let memory = &mut Direct(frames);
        let format = Amd64 {
            no_execute: plan.features.contains(Features::NX),
            // A global page would go on being known in user mode.
            global: plan.features.contains(Features::PGE) && plan.isolation.is_none(),
            pat: false,
            huge: false,
        };
        let tables = KernelTables::new(format, memory)?;
        map_image(&tables, memory)?;
        for &(start, end) in plan.kernel_memory {
            map_kernel_memory(&tables, memory, start, end)?;
        }
        for &(start, bytes) in plan.sparse {
            tables.reserve(memory, start as u64, bytes as u64)?;
        }
        let stubs = (&raw const image::__stubs_start).addr() - KERNEL_BASE;
        tables.map(memory, STUB_PAGE as u64, stubs as u64, PageKind::UserCode)?;
        tables.map(memory, LOCAL_APIC_PAGE as u64, plan.local_apic.0, PageKind::KernelDevice)?;
        for (page, io_apic) in (IO_APIC_PAGES..).step_by(PAGE_BYTES).zip(plan.io_apics) {
            tables.map(memory, page as u64, io_apic.0, PageKind::KernelDevice)?;
        }
        if let Some(hpet) = plan.hpet {
            tables.map(memory, HPET_PAGE as u64, hpet.0, PageKind::KernelDevice)?;
        }
        if let Some((start, pages)) = plan.screen {
            for offset in (0..pages * LARGE_PAGE_BYTES).step_by(LARGE_PAGE_BYTES) {
                let (address, frame) = ((SCREEN + offset) as u64, start.0 + offset as u64);
                tables.map_large(memory, address, frame, PageKind::KernelDevice)?;
            }
        }
        for (page, frame) in trace_buffer::pages() {
            tables.map(memory, page as u64, frame.0, PageKind::UserData)?;
        }
        if SPIN_WHEELS {
            tables.map(memory, SCREEN_PAGE as u64, wheels::SCREEN.0, PageKind::KernelDevice)?;
        }
        let ones = plan.task_states.map(|states| map_port_map(&tables, memory, states)).transpose()?;
        let porch = plan.isolation.map(|isolation| map_porch(format, memory, plan, isolation)).transpose()?;
        let keeps = ContextFlush::with(plan.features, plan.isolation.is_none()).is_some();
        let word = tables.root() as usize | if keeps { Cr3::KEEP } else { 0 };
        Ok(Self { tables, porch, word, ones })
    }

    /// Maps the area of processor `cpu`, all of it new frames, and fills its page of code.
    ///
    /// # Errors
    /// [`NoFrame`]; the area may be half there, and is of no use.
    ///
    /// # Panics
    /// If it is there.
    ///
    /// # Safety
    /// 1. As for [`KernelSpace::build`].
    /// 2. No other call on these tables is in progress.
    pub unsafe fn map_area(&self, cpu: usize, mut frames: impl FnMut() -> Option<PhysAddr>) -> Result<(), NoFrame> {
        let memory = &mut Direct(&mut frames);
        let map = |memory: &mut Direct<_>, address: usize, kind| {
            let frame = memory.take_frame().ok_or(NoFrame)?;
            self.tables.map(memory, address as u64, frame, kind).map(|()| frame)
        };
        let start = area(cpu);
        let code = map(memory, start + AREA_CODE, PageKind::KernelCode)?;
        let template = (&raw const image::__area_code).cast::<u64>();
        // SAFETY: the template is a page of the image; the frame is new, and reached as in `Direct`.
        unsafe { Direct::<fn() -> _>::pointer(code).copy_from_nonoverlapping(template, PAGE_BYTES / size_of::<u64>()) };
        // SAFETY: the frame has a copy of the template now, which nobody executes yet.
        unsafe { aim_calls(Direct::<fn() -> _>::pointer(code).cast(), cpu) };
        let slot = map(memory, start + AREA_UTCB_SLOT, PageKind::KernelData)?;
        let porch = map(memory, start + AREA_PORCH, PageKind::KernelData)?;
        let parts = [
            (AREA_DATA, AREA_DATA + AREA_DATA_BYTES),
            (AREA_STACK, AREA_STACK_TOP),
            (AREA_INTERRUPT_STACK, AREA_INTERRUPT_STACK_TOP),
        ];
        for (from, to) in parts {
            for page in (start + from..start + to).step_by(PAGE_BYTES) {
                map(memory, page, PageKind::KernelData)?;
            }
        }
        self.tables.map(memory, utcb_slot(cpu) as u64, slot, PageKind::UserConst)?;
        if let Some(shown) = &self.porch {
            shown.map(memory, (start + AREA_CODE) as u64, code, PageKind::KernelCode)?;
            shown.map(memory, (start + AREA_PORCH) as u64, porch, PageKind::KernelData)?;
            shown.map(memory, utcb_slot(cpu) as u64, slot, PageKind::UserConst)?;
        }
        // The windows show something from the start, so that their page table is there.
        for window in [start + AREA_COPY_WINDOWS, start + AREA_COPY_WINDOWS + PAGE_BYTES] {
            self.tables.map(memory, window as u64, slot, PageKind::KernelData)?;
        }
        Ok(())
    }

    /// Makes the page at `window`, a copy window of this processor, show the frame at `frame`, on this processor.
    ///
    /// # Safety
    /// Nothing but the copy in progress uses the window, and memory at `frame` is not the kernel's own data.
    pub unsafe fn show(&self, window: usize, frame: PhysAddr) {
        self.tables.remap(&mut Direct(|| None), window as u64, frame.0, PageKind::KernelData);
        tlb::invalidate_page(window);
    }

    /// The root table, which maps the kernel alone: the space of no thread.
    pub const fn root(&self) -> PhysAddr {
        PhysAddr(self.tables.root())
    }

    /// What loads the tables where spaces do not show the kernel.
    pub const fn word(&self) -> usize {
        self.word
    }

    /// The entries that each root table has, with their indices: of what covers the kernel or its porch, and of the task states
    /// and a port map by which all ports are closed.
    pub fn root_entries(&self) -> impl Iterator<Item = (usize, u64)> {
        let ports: &[usize] = if self.ones.is_some() { &[TASK_STATES, PORT_MAP] } else { &[] };
        let ports = ports.iter().map(|&address| (self.tables, address));
        let addresses = [(self.porch.unwrap_or(self.tables), KERNEL_BASE)].into_iter().chain(ports);
        addresses.map(|(tables, address)| tables.root_entry(&Direct(|| None), address as u64))
    }

    /// The frame full of ones that ends port maps; `None` without I/O fpages.
    pub const fn ones(&self) -> Option<PhysAddr> {
        self.ones
    }

    /// Goes to these tables, under identifier 0.
    ///
    /// # Safety
    /// 1. Nothing outside the plan is used any more: neither low addresses, nor tables of descriptors there, nor memory
    ///    at [`KERNEL_BASE`] or [`DIRECT_MAP`] that is not in the plan.
    /// 2. The frames of the tables are as [`KernelSpace::build`] left them.
    pub unsafe fn activate(&self) {
        // SAFETY: the tables map the image with the right to do what the kernel does there, the stack among it; the
        // rest is the caller's by 1.
        unsafe { Cr3::new(self.tables.root() as usize, 0).load() };
    }

    /// Maps the page at `address` in one of the plan's sparse tables to `frame`, for the kernel to read and write. If processors
    /// may know the page as zeroes, they may go on reading these until they forget it.
    ///
    /// # Panics
    /// If the page is backed already.
    ///
    /// # Safety
    /// 1. As for [`KernelSpace::build`], for `frame`.
    /// 2. No other call on these tables is in progress, but of [`KernelSpace::fill_gap`].
    /// 3. References into the page are used as if its content had been zero and `frame`'s is.
    pub unsafe fn back_page(&self, address: usize, frame: PhysAddr) -> Option<Stale> {
        let is_known = self.tables.back(&mut Direct(|| None), address as u64, frame.0, PageKind::KernelData);
        is_known.then_some(Stale { address })
    }

    /// Takes back the frame that [`KernelSpace::back_page`] put at `address`: the page reads as zeroes again. The frame may
    /// be used for something else when processors have forgotten the page.
    ///
    /// # Panics
    /// If the page is not backed.
    ///
    /// # Safety
    /// 1. No other call on these tables is in progress, but of [`KernelSpace::fill_gap`].
    /// 2. References into the page are used as if its content were zero from now on, and it is not written to.
    pub unsafe fn release_page(&self, address: usize) -> (PhysAddr, Stale) {
        let frame = self.tables.release(&mut Direct(|| None), address as u64);
        (PhysAddr(frame), Stale { address })
    }

    /// Makes the page at `address`, in a sparse table, read as zero if there is nothing. Whether there is something now.
    pub fn fill_gap(&self, address: usize) -> bool {
        self.tables.fill_gap(&mut Direct(|| None), address as u64)
    }

    /// Whether memory of its own is mapped at `address`.
    pub fn is_backed(&self, address: usize) -> bool {
        self.tables.is_backed(&Direct(|| None), address as u64)
    }
}

/// Makes the calls out of the code of an area, of which there is a copy for processor `cpu` at `code`, lead where those of
/// processor 0 do.
///
/// # Safety
/// The page at `code` is a copy of the template as it is for processor 0; nobody else uses it.
unsafe fn aim_calls(code: *mut u8, cpu: usize) {
    let (first, end) = (&raw const image::__area_calls_start, &raw const image::__area_calls_end);
    let count = (end.addr() - first.addr()) / size_of::<u64>();
    for index in 0..count {
        // SAFETY: the linker has put so many addresses there.
        let behind = unsafe { first.wrapping_add(index).read_unaligned() } as usize;
        let distance: *mut i32 = code.wrapping_add(behind - AREAS - size_of::<i32>()).cast();
        // SAFETY: the distance ends where the instruction does, in the page by contract.
        let of_first = unsafe { distance.read_unaligned() };
        // SAFETY: as above.
        unsafe { distance.write_unaligned(of_first - (cpu * AREA_BYTES) as i32) };
    }
}

/// Maps the task states at `states` to where they are near the port map, and a map of nothing but ones. Returns the frame of
/// the ones.
fn map_port_map(
    tables: &KernelTables<Amd64>,
    memory: &mut impl TableMemory,
    states: PhysAddr,
) -> Result<PhysAddr, NoFrame> {
    for offset in (0..TASK_STATES_BYTES).step_by(PAGE_BYTES) {
        tables.map(memory, (TASK_STATES + offset) as u64, states.0 + offset as u64, PageKind::KernelData)?;
    }
    let ones = memory.take_frame().ok_or(NoFrame)?;
    for offset in (0..PAGE_BYTES as u64).step_by(size_of::<u64>()) {
        memory.write(ones + offset, u64::MAX);
    }
    for page in 0..port_map::PAGES {
        tables.map(memory, port_map::page(page) as u64, ones, PageKind::SpaceConst)?;
    }
    Ok(PhysAddr(ones))
}

/// Tables of what spaces show of the kernel where they do not show all of it, but for the areas.
fn map_porch(
    format: Amd64,
    memory: &mut impl TableMemory,
    plan: &Plan,
    Isolation { gates, task_states }: Isolation,
) -> Result<KernelTables<Amd64>, NoFrame> {
    let tables = KernelTables::new(format, memory)?;
    let (entries, entries_end) = ((&raw const image::__text_start).addr(), (&raw const image::__entry_end).addr());
    let states_bytes = if plan.task_states.is_some() { 0 } else { TASK_STATES_BYTES };
    let parts = [
        (entries, entries_end, PageKind::KernelCode),
        (gates, gates + PAGE_BYTES, PageKind::KernelConst),
        (task_states, task_states + states_bytes, PageKind::KernelConst),
    ];
    for (start, end, kind) in parts {
        for page in (start..end).step_by(PAGE_BYTES) {
            tables.map(memory, page as u64, (page - KERNEL_BASE) as u64, kind)?;
        }
    }
    let stubs = (&raw const image::__stubs_start).addr() - KERNEL_BASE;
    tables.map(memory, STUB_PAGE as u64, stubs as u64, PageKind::UserCode)?;
    for (page, frame) in trace_buffer::pages() {
        tables.map(memory, page as u64, frame.0, PageKind::UserData)?;
    }
    Ok(tables)
}

/// Maps the image but for the guard page and the start code.
fn map_image(tables: &KernelTables<Amd64>, memory: &mut impl TableMemory) -> Result<(), NoFrame> {
    for section in sections() {
        for page in (section.start..section.end).step_by(PAGE_BYTES).filter(|&page| page != BOOT_STACK.guard()) {
            tables.map(memory, page as u64, (page - KERNEL_BASE) as u64, section.kind)?;
        }
    }
    Ok(())
}

/// Maps a range of kernel memory, which is none of the image, in large pages where they fit.
fn map_kernel_memory(
    tables: &KernelTables<Amd64>,
    memory: &mut impl TableMemory,
    start: PhysAddr,
    end: PhysAddr,
) -> Result<(), NoFrame> {
    let (mut at, end) = (start.0, end.0);
    while at < end {
        let large_end = at + LARGE_PAGE_BYTES as u64;
        let address = DIRECT_MAP as u64 + at;
        if at.is_multiple_of(LARGE_PAGE_BYTES as u64) && large_end <= end {
            tables.map_large(memory, address, at, PageKind::KernelData)?;
            at = large_end;
        } else {
            tables.map(memory, address, at, PageKind::KernelData)?;
            at += PAGE_BYTES as u64;
        }
    }
    Ok(())
}
