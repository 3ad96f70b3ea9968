//! Starting the processors other than the one that boots (Intel SDM 3A, Multiple-Processor Initialization).
//!
//! A processor that is started begins in real mode in a page below 1 MiB. The page is borrowed from user memory: what was
//! there comes back. Processors are started one after the other, so the page says which one it is for, and an area that a
//! processor did not come for is the next one's.

use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use kcore::kmem::Kmem;
use kcore::lock::Held;
use kcore::machine::{CpuId, PhysAddr};
use khal::cpu::Features;
use khal::cr::{Cr0, Cr4};
use khal::irq::IrqOff;
use khal::msr::{Efer, Msr};
use khal::processors::Processors;
use khal::timer::{Clocks, Lead, set_tsc_back, tsc, tsc_in_order};
use l4_abi::common::LocalityTable;
use l4_abi::{MemoryDescriptor, MemoryType, Word};

use super::bring_up;
use super::entry::rough_root;
use super::paging::KernelSpace;
use crate::area;
use crate::machine::{DirectMap, direct_map, local_apic};
use crate::{console, dispatch, layout, machine};

const PAGE_BYTES: usize = 4096;

/// For memory that is soon given back.
const ANYWHERE: DirectMap = DirectMap { locality: 0 };

/// How long a processor must be left alone after a reset, and how long it gets to answer a start.
const RESET_US: u64 = 10_000;
const FIRST_ANSWER_US: u64 = 200;
const ANSWER_US: u64 = 5_000_000;

/// The number, plus one, of the processor that came last.
static ARRIVED: AtomicU32 = AtomicU32::new(0);

/// What the boot processor asks the one that arrived last, which answers by going back to "none".
#[derive(Clone, Copy)]
#[repr(u32)]
enum Question {
    None,
    /// What its time-stamp counter is: [`THERE`].
    Look,
    /// To set it back by [`CORRECTION`].
    Correct,
    /// Nothing more.
    Done,
}

static ASKED: AtomicU32 = AtomicU32::new(Question::None as u32);
static THERE: AtomicU64 = AtomicU64::new(0);
static CORRECTION: AtomicI64 = AtomicI64::new(0);

unsafe extern "C" {
    /// What is copied to the page, up to `start_page_end`.
    static start_page: [u8; 0];
    static start_page_protected: [u8; 0];
    static start_page_long: [u8; 0];
    static start_page_end: [u8; 0];
    fn processor_start() -> !;
}

/// Where in the page the words are.
const WORDS: usize = 0x800;

/// What the code in the page reads.
#[repr(C)]
struct Words {
    segments: [u64; 4],
    padding: u16,
    /// What LGDT reads.
    segments_limit: u16,
    segments_base: u32,
    protected: FarPointer,
    long: FarPointer,
    rough_root: u64,
    root: u64,
    stack: u64,
    entry: u64,
    number: u32,
    efer: u32,
}

/// What a far jump reads.
#[repr(C)]
struct FarPointer {
    address: u32,
    selector: u16,
    padding: u16,
}

/// Flat segments, behind the null one: 32-bit code, data, 64-bit code.
const SEGMENTS: [u64; 4] = [0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00AF_9B00_0000_FFFF];
const CODE32: u16 = 0x08;
const DATA: u16 = 0x10;
const CODE64: u16 = 0x18;

// in:   real mode, cs the page, interrupts off
// out:  `processor_main` in long mode on the kernel's tables and the processor's own stack
// work: ebx physical address of the page
//
// The jump behind the page leads to where the kernel's code is by the rough tables as well as by the kernel's own.
global_asm!(
    ".pushsection .rodata.start_page, \"a\"",
    ".balign 16",
    ".global start_page, start_page_protected, start_page_long, start_page_end",
    ".code16",
    "start_page:",
    "cli",
    "cld",
    "xor ebx, ebx",
    "mov bx, cs",
    "mov ds, bx",
    "shl ebx, 4",
    "lgdt [{segments_limit}]",
    "mov eax, cr0",
    "or eax, {protected_mode}",
    "mov cr0, eax",
    "jmp fword ptr [{protected}]",
    ".code32",
    "start_page_protected:",
    "mov eax, {data}",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov eax, cr4",
    "or eax, {pae}",
    "mov cr4, eax",
    "mov eax, [ebx + {rough_root}]",
    "mov cr3, eax",
    "mov ecx, {efer_msr}",
    "rdmsr",
    "or eax, [ebx + {efer}]",
    "wrmsr",
    "mov eax, cr0",
    "or eax, {paging_and_write_protection}",
    "and eax, {caches_on}",
    "mov cr0, eax",
    "jmp fword ptr [ebx + {long}]",
    ".code64",
    "start_page_long:",
    "mov rdx, [rbx + {root}]",
    "mov rsi, [rbx + {stack}]",
    "mov edi, [rbx + {number}]",
    "mov rax, [rbx + {entry}]",
    "jmp rax",
    "start_page_end:",
    ".popsection",
    ".pushsection .text.entry, \"ax\"",
    ".global processor_start",
    "processor_start:",
    "mov cr3, rdx",
    "mov rsp, rsi",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    ".popsection",
    segments_limit = const WORDS + offset_of!(Words, segments_limit),
    protected = const WORDS + offset_of!(Words, protected),
    long = const WORDS + offset_of!(Words, long),
    rough_root = const WORDS + offset_of!(Words, rough_root),
    root = const WORDS + offset_of!(Words, root),
    stack = const WORDS + offset_of!(Words, stack),
    entry = const WORDS + offset_of!(Words, entry),
    number = const WORDS + offset_of!(Words, number),
    efer = const WORDS + offset_of!(Words, efer),
    data = const DATA,
    protected_mode = const Cr0::PE.bits(),
    pae = const Cr4::PAE.bits(),
    efer_msr = const Msr::EFER.0,
    paging_and_write_protection = const Cr0::PG.union(Cr0::WP).bits(),
    caches_on = const !(Cr0::CD.union(Cr0::NW).bits()) as u32,
    main = sym processor_main,
);

/// What starting the others takes.
pub struct Starter<'a> {
    /// Features of the boot processor, which the others must have.
    pub features: Features,
    /// The kernel's tables.
    pub kernel_space: &'a KernelSpace,
    /// Where areas come from.
    pub kmem: &'static Kmem,
    /// How fast time passes.
    pub clocks: Clocks,
    /// Which memory is near to whom.
    pub localities: &'a LocalityTable,
    /// Descriptors of memory, as the loader left them.
    pub memory: &'a [MemoryDescriptor],
}

impl Starter<'_> {
    /// Starts the processors behind the first, which runs this. Returns how many run now, this one included; they wait
    /// for [`let_them_go`]. Names those that do not answer.
    pub fn start(&self, processors: &Processors, irq: &mut IrqOff) -> usize {
        let others = &processors.apic_ids()[1..];
        if others.is_empty() {
            return 1;
        }
        let Some(page) = free_low_page(self.memory) else {
            console::line(format_args!("no free page below 640 KiB: the other processors stay off"));
            return 1;
        };
        let Some(backup) = self.kmem.alloc(&ANYWHERE, &mut Held::nothing()) else {
            console::line(format_args!("no kernel memory is left: the other processors stay off"));
            return 1;
        };
        let saved = direct_map(backup);
        // SAFETY: the page is user memory, which nobody uses yet; the backup is this function's.
        unsafe { saved.copy_from_nonoverlapping(self.show(page), PAGE_BYTES) };
        let running = self.start_from(page, others, irq);
        // SAFETY: as above; no processor is in the page any more.
        unsafe { self.show(page).copy_from_nonoverlapping(saved, PAGE_BYTES) };
        self.kmem.free(&ANYWHERE, &mut Held::nothing(), backup);
        running
    }

    fn start_from(&self, page: PhysAddr, others: &[u32], irq: &mut IrqOff) -> usize {
        for &apic_id in others {
            // SAFETY: no processor but this one has work.
            unsafe { local_apic().reset_processor(apic_id, irq) };
        }
        self.wait(RESET_US, || false);
        let mut running = 1;
        for &apic_id in others {
            match self.start_one(page, running, apic_id, irq) {
                Ok(true) => running += 1,
                Ok(false) => console::line(format_args!("the processor with APIC number {apic_id} does not answer")),
                Err(NoArea) => {
                    console::line(format_args!("kernel memory suffices for {running} processors"));
                    break;
                }
            }
        }
        running
    }

    /// Starts the processor with local APIC `apic_id` as number `number`; false if it does not answer.
    fn start_one(&self, page: PhysAddr, number: usize, apic_id: u32, irq: &mut IrqOff) -> Result<bool, NoArea> {
        self.make_area(number, apic_id)?;
        self.fill(page, number);
        let has_arrived = || ARRIVED.load(Ordering::Acquire) == number as u32;
        for patience_us in [FIRST_ANSWER_US, ANSWER_US] {
            // SAFETY: the page has the code, and the processor was reset.
            unsafe { local_apic().start_processor(apic_id, (page.0 / PAGE_BYTES as u64) as u8, irq) };
            if self.wait(patience_us, has_arrived) {
                self.agree_on_time(apic_id);
                return Ok(true);
            }
        }
        // It must not come later, when the area is another's.
        // SAFETY: it has no work.
        unsafe { local_apic().reset_processor(apic_id, irq) };
        self.wait(RESET_US, || false);
        Ok(has_arrived())
    }

    /// Makes the area of processor `number`, unless an earlier attempt left it.
    fn make_area(&self, number: usize, apic_id: u32) -> Result<(), NoArea> {
        if !self.kernel_space.is_backed(layout::area(number) + layout::AREA_COPY_WINDOWS + PAGE_BYTES) {
            let near = DirectMap { locality: self.localities.of_processor(number) };
            let frames = || self.kmem.alloc(&near, &mut Held::nothing());
            // SAFETY: frames belong to whom they were given to; the boot processor alone changes the tables.
            unsafe { self.kernel_space.map_area(number, frames) }.map_err(|_| NoArea)?;
        }
        let (cpu, locality) = (CpuId::new(number as u32), self.localities.of_processor(number));
        // SAFETY: the area is there, and nobody uses it yet.
        unsafe { area::init(cpu, apic_id, locality, self.kernel_space.word()) };
        Ok(())
    }

    /// Makes the page that from which processor `number` starts.
    fn fill(&self, page: PhysAddr, number: usize) {
        let code = &raw const start_page;
        let far = |part: *const [u8; 0], selector| {
            let offset = (part.addr() - code.addr()) as u32;
            FarPointer { address: page.0 as u32 + offset, selector, padding: 0 }
        };
        let nx = if self.features.contains(Features::NX) { Efer::NXE } else { Efer::empty() };
        let words = Words {
            segments: SEGMENTS,
            padding: 0,
            segments_limit: size_of_val(&SEGMENTS) as u16 - 1,
            segments_base: page.0 as u32 + (WORDS + offset_of!(Words, segments)) as u32,
            protected: far(&raw const start_page_protected, CODE32),
            long: far(&raw const start_page_long, CODE64),
            rough_root: rough_root().0,
            root: self.kernel_space.root().0,
            stack: (layout::area(number) + layout::AREA_STACK_TOP) as u64,
            entry: processor_start as *const () as usize as u64,
            number: number as u32,
            efer: (Efer::LME | nx).bits() as u32,
        };
        let bytes = (&raw const start_page_end).addr() - code.addr();
        assert!(bytes <= WORDS, "the code of the page lies before its words");
        let start = self.show(page);
        // SAFETY: it fits into the page, which is borrowed from user memory.
        unsafe { start.copy_from_nonoverlapping(code.cast(), bytes) };
        // SAFETY: as above; the words are aligned in the page.
        unsafe { start.wrapping_add(WORDS).cast::<Words>().write(words) };
    }

    /// The page, as this processor sees it until it is shown another.
    fn show(&self, page: PhysAddr) -> *mut u8 {
        // SAFETY: nothing is being copied at boot; the page is user memory.
        unsafe { self.kernel_space.show(area::copy_windows(), page) };
        core::ptr::with_exposed_provenance_mut(area::copy_windows())
    }

    /// Compares the time-stamp counter of the processor that has just arrived with this one's and sets it back if they
    /// differ. Says so if they go on differing.
    fn agree_on_time(&self, apic_id: u32) {
        let mut lead = self.compare_clocks();
        if let Some(ticks) = lead.correction() {
            CORRECTION.store(ticks, Ordering::Relaxed);
            self.ask(Question::Correct);
            lead = self.compare_clocks();
        }
        if let Some(ticks) = lead.correction() {
            console::line(format_args!("the clock of the processor with APIC number {apic_id} is {ticks} ticks ahead"));
        }
        self.ask(Question::Done);
    }

    /// A few looks: the first finds cold caches, and on an emulator each takes as long as the host's scheduler does.
    fn compare_clocks(&self) -> Lead {
        const LOOKS: usize = 3;
        const SHARP_TICKS: i64 = 1000;
        let mut lead = Lead::UNKNOWN;
        for _ in 0..LOOKS {
            let before = tsc_in_order();
            let is_answered = self.ask(Question::Look);
            let after = tsc_in_order();
            if is_answered {
                lead = lead.narrowed(before, THERE.load(Ordering::Relaxed), after);
            }
            if lead.is_within(SHARP_TICKS) {
                break;
            }
        }
        lead
    }

    /// Asks the processor that has just arrived, and waits for the answer; whether there was one.
    fn ask(&self, question: Question) -> bool {
        ASKED.store(question as u32, Ordering::Release);
        self.wait(ANSWER_US, || ASKED.load(Ordering::Acquire) == Question::None as u32)
    }

    /// Waits until `is_over`, at most `us` microseconds; says whether it was.
    fn wait(&self, us: u64, is_over: impl Fn() -> bool) -> bool {
        let end = tsc().saturating_add(self.clocks.us_to_tsc().ceil(us));
        while !is_over() {
            if tsc() > end {
                return false;
            }
            core::hint::spin_loop();
        }
        true
    }
}

/// There is no memory for another area.
struct NoArea;

/// A page below 640 KiB that is free memory: the highest one whose last descriptor says so. From there to 1 MiB are video memory
/// and firmware, whatever a map of memory says.
fn free_low_page(memory: &[MemoryDescriptor]) -> Option<PhysAddr> {
    const END: Word = 0xA_0000;
    let is_free = |page: Word| {
        let meets = |d: &&MemoryDescriptor| !d.is_virtual() && d.low() < page + PAGE_BYTES as Word && page <= d.high();
        // A later descriptor overrides those before; every one that has a part of the page counts.
        let covers = |d: &MemoryDescriptor| d.low() <= page && page + PAGE_BYTES as Word - 1 <= d.high();
        let last = memory.iter().rposition(|d| d.kind() == MemoryType::Conventional && !d.is_virtual() && covers(d));
        last.is_some_and(|last| !memory[last + 1..].iter().any(|d| meets(&d)))
    };
    (1..END / PAGE_BYTES as Word).rev().map(|page| page * PAGE_BYTES as Word).find(|&page| is_free(page)).map(PhysAddr)
}

/// The first function of a processor that was started, on its own stack. It sleeps until it is kicked, which is not done
/// before the core is ready.
extern "C" fn processor_main(number: usize) -> ! {
    bring_up::start_processor();
    ARRIVED.store(number as u32, Ordering::Release);
    answer_questions();
    dispatch::wait_for_interrupt()
}

/// Answers what the boot processor asks about the clock, until it is done.
fn answer_questions() {
    loop {
        let asked = ASKED.load(Ordering::Acquire);
        if asked == Question::Look as u32 {
            THERE.store(tsc_in_order(), Ordering::Relaxed);
        } else if asked == Question::Correct as u32 {
            // SAFETY: this processor has not done anything yet.
            unsafe { set_tsc_back(CORRECTION.load(Ordering::Relaxed)) };
        } else if asked == Question::Done as u32 {
            ASKED.store(Question::None as u32, Ordering::Release);
            return;
        } else {
            core::hint::spin_loop();
            continue;
        }
        ASKED.store(Question::None as u32, Ordering::Release);
    }
}

/// Lets the processors that were started dispatch: the core is ready.
pub fn let_them_go(count: usize) {
    for cpu in 1..count {
        machine::kick(CpuId::new(cpu as u32));
    }
}
