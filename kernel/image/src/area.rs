//! What each processor has of its own: the area at [`layout::area`].
//!
//! The stacks of a processor are in its area, whose address is a multiple of its size: from the stack pointer the kernel
//! knows which processor it runs on. The entry from SYSCALL has no stack yet; each processor has a copy of it that finds
//! the words of the area relative to itself.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use kcore::cross::shootdown::Batch;
use kcore::machine::{CpuId, TcbRef};
use kcore::sched::Cpu;
use kcore::sched::ready_queue::ReadyQueue;
use kcore::thread::plain_name;
use kcore::var::Var;
use khal::desc::{Gdt, Selector};
use l4_abi::ThreadId;

use crate::{config, layout, mitigations};

/// The words and tables of one processor.
#[repr(C, align(64))]
pub struct Area {
    /// Scheduling state; who runs comes first.
    pub cpu: Cpu,
    /// The space word that is loaded.
    pub space_word: Var<usize>,
    /// Where the entry keeps the user's stack pointer for a moment.
    pub user_stack: Var<usize>,
    /// What `gs` must be for the fast path: the selector that the kernel left there, or [`NO_SELECTOR`] while the running
    /// thread must not take it, so that one compare decides both.
    pub fast_gs: Var<u32>,
    /// Whether the floating-point registers can be used without a trap: they hold the running thread's.
    pub fpu_is_live: Var<bool>,
    /// Whose floating-point registers the processor holds.
    pub fpu_owner: Var<Option<TcbRef>>,
    /// What the timer is armed for, microseconds on the clock; [`NOT_ARMED`]: nothing.
    pub armed_for: kcore::var::Var64,
    /// Its own number.
    pub number: Var<u16>,
    /// The number of its local APIC.
    pub apic_id: Var<u32>,
    /// Its locality.
    pub locality: Var<u8>,
    /// What plain waits here are called: [`kcore::thread::plain_name`] applied to nilthread and to anythread.
    pub plain_mark: Var<usize>,
    pub plain_any: Var<usize>,
    /// What other processors have to forget.
    pub batch: Batch,
}

const _: () = assert!(size_of::<Area>() <= layout::AREA_DATA_BYTES);

/// What of an area is not the kernel's secret: the page that spaces show if they do not show the kernel
/// ([`crate::boot::paging`]). The entry stacks are in the same page.
#[repr(C, align(64))]
pub struct Porch {
    /// Its descriptor table.
    pub gdt: Gdt,
    /// What entries load to get to the kernel's tables, if spaces do not show the kernel.
    pub kernel_word: Var<usize>,
    /// Where the entry keeps the user's stack pointer until it has loaded them.
    pub user_stack: Var<usize>,
}

const _: () = assert!(layout::AREA_PORCH + size_of::<Porch>() + 0x100 <= layout::AREA_ENTRY_STACK_TOP);

/// No time comes so late.
pub const NOT_ARMED: u64 = u64::MAX;

// Where the words are that the entry from SYSCALL knows, for tests that execute its code: absolute symbols of the image.
global_asm!(
    ".macro area_word name, offset",
    ".global area_word_\\name",
    ".set area_word_\\name, \\offset",
    ".endm",
    "area_word current, {current}",
    "area_word space_word, {space_word}",
    "area_word user_stack, {user_stack}",
    "area_word fast_gs, {fast_gs}",
    "area_word plain_mark, {plain_mark}",
    "area_word plain_any, {plain_any}",
    "area_word number, {number}",
    "area_word ready_heads, {ready} + {heads}",
    "area_word ready_occupied, {ready} + {occupied}",
    current = const offset_of!(Area, cpu.current),
    space_word = const offset_of!(Area, space_word),
    user_stack = const offset_of!(Area, user_stack),
    fast_gs = const offset_of!(Area, fast_gs),
    plain_mark = const offset_of!(Area, plain_mark),
    plain_any = const offset_of!(Area, plain_any),
    number = const offset_of!(Area, number),
    ready = const offset_of!(Area, cpu.ready),
    heads = const ReadyQueue::HEADS_OFFSET,
    occupied = const ReadyQueue::OCCUPIED_OFFSET,
);

/// No selector is this.
const NO_SELECTOR: u32 = u32::MAX;

impl Area {
    /// The area of a processor that has not started.
    #[allow(clippy::new_without_default, reason = "an area is made in place")]
    pub const fn new() -> Self {
        Self {
            cpu: Cpu::new(),
            space_word: Var::zero(),
            user_stack: Var::zero(),
            fast_gs: Var::zero(),
            fpu_is_live: Var::zero(),
            fpu_owner: Var::zero(),
            armed_for: kcore::var::Var64::zero(),
            number: Var::zero(),
            apic_id: Var::zero(),
            locality: Var::zero(),
            plain_mark: Var::zero(),
            plain_any: Var::zero(),
            batch: Batch::new(),
        }
    }

    /// Lets the running thread take the fast path, or not.
    #[inline]
    pub fn allow_fast_path(&self, is_allowed: bool) {
        self.fast_gs.set(if is_allowed { u32::from(Selector::USER_GS.0) } else { NO_SELECTOR });
    }
}

/// Calls `next` on the empty stack of processor 0, which runs this and whose area was made. Whatever stack it is on is left,
/// be it this one.
pub fn enter_first(next: extern "C" fn() -> !) -> ! {
    // SAFETY: the stack is there; nothing on it or on the present one is needed any more.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            stack = in(reg) layout::area(0) + layout::AREA_STACK_TOP,
            next = in(reg) next,
            options(noreturn),
        )
    }
}

/// Where SYSCALL enters the kernel on this processor.
pub fn syscall_entry() -> usize {
    mitigations::syscall_entry() - layout::AREAS + start()
}

/// Where the area of this processor begins.
#[inline(always)]
pub fn start() -> usize {
    if !config::SMP {
        return layout::area(0);
    }
    let stack: usize;
    // SAFETY: reading the stack pointer changes nothing. Where the stack pointer is in the area may change, but not in which;
    // so whatever reading was done before does as well.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(pure, nomem, nostack, preserves_flags)) };
    stack & !(layout::AREA_BYTES - 1)
}

/// The area of this processor, which runs on a stack in it.
#[inline(always)]
pub fn here() -> &'static Area {
    // SAFETY: the stack in use is in the area, so the area exists.
    unsafe { at(start()) }
}

/// The porch of this processor, which runs on a stack in its area.
#[inline(always)]
pub fn porch() -> &'static Porch {
    let porch: *const Porch = core::ptr::with_exposed_provenance(start() + layout::AREA_PORCH);
    // SAFETY: the stack in use is in the area, so the area exists, and its porch was made with it; it is made of atomics.
    unsafe { &*porch }
}

/// The porch of processor `cpu`, which the core knows.
pub fn porch_of(cpu: CpuId) -> &'static Porch {
    let porch: *const Porch = core::ptr::with_exposed_provenance(layout::area(cpu.index()) + layout::AREA_PORCH);
    // SAFETY: the processors that the core knows have areas; the porch is made of atomics.
    unsafe { &*porch }
}

/// The number of this processor, which runs on a stack in its area.
#[inline(always)]
pub fn cpu() -> CpuId {
    CpuId::new(((start() - layout::AREAS) / layout::AREA_BYTES) as u32)
}

/// The pages through which this processor sees what it copies.
#[inline(always)]
pub fn copy_windows() -> usize {
    start() + layout::AREA_COPY_WINDOWS
}

/// Makes `local_id` what user code of this processor finds as its UTCB.
#[inline(always)]
pub fn set_utcb_slot(local_id: usize) {
    let slot: *const Var<usize> = core::ptr::with_exposed_provenance(start() + layout::AREA_UTCB_SLOT);
    // SAFETY: the page is part of the area; user code only reads it.
    unsafe { &*slot }.set(local_id);
}

/// Makes the words and tables of processor `cpu`, whose local APIC has number `apic_id` and which is in `locality`, those of
/// one that is to start. Its entries load `kernel_word` where spaces do not show the kernel.
///
/// # Safety
/// The pages of the area are mapped, and nobody uses them.
pub unsafe fn init(cpu: CpuId, apic_id: u32, locality: usize, kernel_word: usize) {
    let porch: *mut Porch = core::ptr::with_exposed_provenance_mut(layout::area(cpu.index()) + layout::AREA_PORCH);
    let made = Porch { gdt: Gdt::new(), kernel_word: Var::zero(), user_stack: Var::zero() };
    made.kernel_word.set(kernel_word);
    // SAFETY: the memory is there, large enough and aligned, and nobody uses it.
    unsafe { porch.write(made) };
    let data: *mut Area = core::ptr::with_exposed_provenance_mut(layout::area(cpu.index()) + layout::AREA_DATA);
    // SAFETY: the memory is there, large enough and aligned, and nobody uses it.
    unsafe { data.write(Area::new()) };
    // SAFETY: made just now.
    let area = unsafe { of(cpu) };
    area.armed_for.set(NOT_ARMED);
    area.number.set(cpu.index() as u16);
    area.apic_id.set(apic_id);
    area.locality.set(locality as u8);
    area.plain_mark.set(plain_name(ThreadId::NIL, cpu).raw() as usize);
    area.plain_any.set(plain_name(ThreadId::ANY, cpu).raw() as usize);
    area.cpu.start();
}

/// The area of processor `cpu`.
///
/// # Safety
/// The area was made.
pub unsafe fn of(cpu: CpuId) -> &'static Area {
    // SAFETY: by contract.
    unsafe { at(layout::area(cpu.index())) }
}

/// The words and tables of the area that begins at `start`.
///
/// # Safety
/// The area was made.
#[inline(always)]
unsafe fn at(start: usize) -> &'static Area {
    let data: *const Area = core::ptr::with_exposed_provenance(start + layout::AREA_DATA);
    // SAFETY: made by contract, it stays; it is made of atomics.
    unsafe { &*data }
}
