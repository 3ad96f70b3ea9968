//! From rough tables to the initial servers.

use kcore::boot::Server;
use kcore::kernel::{Kernel, ThreadNumbers};
use kcore::kmem::Kmem;
use kcore::lock::Held;
use kcore::machine::PhysAddr;
use kcore::space::{Space, SpaceConfig, Spaces};
use kcore::thread::Tcb;
use khal::apic::{self, LocalApic};
use khal::cpu::{Features, Name};
use khal::desc::{Caller, Gdt, Idt, InterruptStack, Selector, Tss};
use khal::irq::IrqOff;
use khal::lines::{Lines, MAX_IO_APICS};
use khal::pit::Pit;
use khal::timer::Clocks;
use khal::{cr, pic, syscall, timer};
use l4_abi::{MemoryDescriptor, MemoryType, ServerWords, ThreadId, Word};

use super::paging::{KernelSpace, Plan, image_range};
use super::stack::{INTERRUPT_STACKS, KERNEL_STACK};
use crate::config::KERNEL_THREADS;
use crate::interrupts::{self, Interrupts};
use crate::machine::{DirectMap, HARDWARE, Hardware, local_apic, node_table, space_table};
use crate::percpu::{CPUS, UTCB_SLOTS};
use crate::trap::{entry, vector};
use crate::{KERNEL, console, dispatch, kip, layout, machine, stubs};

static KMEM: Kmem = Kmem::new();
/// The descriptor table of processor 0.
pub static GDT: Gdt = Gdt::new();
static TSS: Tss = Tss::new();
static IDT: Idt = Idt::new();

/// Ranges of kernel memory that the boot code looks at.
const KERNEL_RANGES_MAX: usize = kcore::kmem::REGIONS_MAX;
/// A time-stamp counter slower than this cannot count microseconds.
const SLOWEST_TSC_KHZ: u64 = 1_000;

/// Brings processor and kernel up and makes the initial servers ready. Panics with the name of what is missing.
pub fn bring_up() {
    console::start();
    let features = check_features();
    // SAFETY: interrupts are off since the first instruction, and there is no other token.
    let mut irq = unsafe { IrqOff::assume() };
    // SAFETY: nobody writes to the page while `loaded` is used; `complete` comes after.
    let loaded = unsafe { kip::loaded() };
    let servers = check_servers(loaded.kip.sigma0, loaded.kip.root_server);
    let ranges = kernel_ranges(loaded.memory);
    take_kernel_memory(&ranges);
    // SAFETY: the processor has a local APIC, and nobody uses it yet.
    let apic_base = unsafe { apic::physical_base(&mut irq) };
    // SAFETY: no other tables have been loaded yet.
    let lines = unsafe { interrupts::discover() };
    let kernel_space = build_tables(features, &ranges, PhysAddr(apic_base), &lines);
    load_descriptor_tables();
    let clocks = start_clocks(&mut irq);
    let interrupts = Interrupts::start(lines, &mut local_apic(), &mut irq);
    stubs::set_clock_scale(clocks.tsc_to_us());
    let numbers = thread_numbers(&interrupts);
    complete_kip(clocks, numbers);
    start_core(Hardware::new(features, kernel_space, clocks, interrupts), numbers);
    start_servers(servers, numbers);
    let kernel = KERNEL.get();
    console::line(format_args!("Marcona {}, {}", env!("CARGO_PKG_VERSION"), Name::detect()));
    console::line(format_args!(
        "{} MHz, {} KiB of kernel memory, absent: {}",
        (clocks.tsc_khz + 500) / 1000,
        kernel.kmem.total() * 4,
        features.missing()
    ));
    console::line(format_args!(
        "{} interrupt lines, {} I/O APICs",
        numbers.system_base,
        HARDWARE.get().interrupts().io_apic_count()
    ));
}

fn check_features() -> Features {
    let features = Features::detect();
    let lacking = Features::REQUIRED.difference(features);
    assert!(lacking.is_empty(), "the processor lacks {lacking}");
    features
}

/// Start values of sigma0 and the root task.
fn check_servers(sigma0: ServerWords, root: ServerWords) -> [ServerWords; 2] {
    assert!(sigma0.is_present(), "the loader gave no sigma0");
    assert!(root.is_present(), "the loader gave no root task");
    [sigma0, root]
}

type Range = (PhysAddr, PhysAddr);

/// Kernel memory: the physical memory that the loader reserved, as far as the kernel can reach it.
fn kernel_ranges(descriptors: &[MemoryDescriptor]) -> [Range; KERNEL_RANGES_MAX] {
    let mut ranges = [(PhysAddr(0), PhysAddr(0)); KERNEL_RANGES_MAX];
    let reserved = descriptors.iter().filter(|d| d.kind() == MemoryType::Reserved && !d.is_virtual());
    let reachable = reserved.filter(|d| (d.high() as usize) < layout::DIRECT_MAP_BYTES);
    for (range, descriptor) in ranges.iter_mut().zip(reachable) {
        *range = (PhysAddr(descriptor.low()), PhysAddr(descriptor.high() + 1));
    }
    ranges
}

fn take_kernel_memory(ranges: &[Range]) {
    for &(start, end) in ranges {
        KMEM.add_region(&mut Held::nothing(), start, end);
    }
    assert!(KMEM.total() > 0, "the loader reserved no kernel memory below {} MiB", layout::DIRECT_MAP_BYTES >> 20);
}

/// Builds and enters the kernel's own tables and switches the protections on.
fn build_tables(features: Features, ranges: &[Range], local_apic: PhysAddr, lines: &Lines) -> KernelSpace {
    let used = ranges.iter().position(|&(start, end)| start == end).unwrap_or(ranges.len());
    let utcb_slots = PhysAddr(((&raw const UTCB_SLOTS).addr() - layout::KERNEL_BASE) as u64);
    let mut io_apics = [PhysAddr(0); MAX_IO_APICS];
    io_apics.iter_mut().zip(interrupts::pages(lines)).for_each(|(slot, page)| *slot = page);
    let io_apics = &io_apics[..lines.io_apics().len()];
    let sparse = &sparse_tables();
    let plan = Plan { features, kernel_memory: &ranges[..used], sparse, guards: &[], utcb_slots, local_apic, io_apics };
    let frames = || KMEM.alloc(&DirectMap, &mut Held::nothing());
    // SAFETY: frames of kernel memory belong to whom they were given to; they are mapped by the rough tables, and by the
    // plan, which has all of kernel memory.
    let built = unsafe { KernelSpace::build(&plan, frames) };
    let Ok(space) = built else { panic!("kernel memory does not suffice for the kernel's page tables") };
    // SAFETY: code, stack, statics and kernel memory are in the plan; the descriptor table of the start code is part of
    // the image.
    unsafe { space.activate() };
    // SAFETY: these are the processor's features; the tables in use mark nothing of the kernel as a user's and set only
    // bits that the features allow; the identifier in CR3 is 0.
    unsafe { cr::enable_protections(features) };
    space
}

/// Bytes of the node table that kernel memory can back: a page for each frame. In large pages.
fn node_bytes() -> usize {
    let bytes = KMEM.total() * kcore::kmem::FRAME_SIZE as usize;
    bytes.next_multiple_of(layout::LARGE_PAGE_BYTES).min(layout::NODE_TABLE_BYTES)
}

/// Bytes of the table of spaces that kernel memory can fill: each space has at least two frames, and each page of the
/// table has a slot less than fit. In large pages.
fn space_bytes() -> usize {
    let bytes = KMEM.total() * size_of::<Space>();
    bytes.next_multiple_of(layout::LARGE_PAGE_BYTES).min(layout::SPACE_TABLE_BYTES)
}

/// The tables of the core that are backed as they are filled. Thread numbers are the users' to choose, so they can be
/// anywhere.
fn sparse_tables() -> [(usize, usize); 4] {
    [
        (layout::TCB_TABLE, layout::TCB_TABLE_BYTES),
        (layout::FRAME_TABLE, layout::FRAME_TABLE_BYTES),
        (layout::SPACE_TABLE, space_bytes()),
        (layout::NODE_TABLE, node_bytes()),
    ]
}

fn load_descriptor_tables() {
    TSS.set_kernel_stack(KERNEL_STACK.top());
    let stacks = [InterruptStack::Ist1, InterruptStack::Ist2, InterruptStack::Ist3];
    for (stack, memory) in stacks.into_iter().zip(&INTERRUPT_STACKS) {
        TSS.set_interrupt_stack(stack, memory.top());
    }
    // SAFETY: this processor alone uses the statics, which are part of the image.
    unsafe { GDT.load(&TSS, layout::UTCB_SLOT_PAGE) };
    for number in 0..=255u8 {
        let gate = (&raw const entry::gate_entries).addr() + usize::from(number) * entry::GATE_BYTES;
        let stack = match usize::from(number) {
            vector::NON_MASKABLE => Some(InterruptStack::Ist1),
            vector::DOUBLE_FAULT => Some(InterruptStack::Ist2),
            vector::MACHINE_CHECK => Some(InterruptStack::Ist3),
            _ => None,
        };
        let caller = if matches!(number, 3 | 4) { Caller::User } else { Caller::Kernel };
        // SAFETY: each entry is code for its vector and part of the image.
        unsafe { IDT.set(number, gate, stack, caller) };
    }
    // SAFETY: there is a gate for each vector; the table is part of the image.
    unsafe { IDT.load() };
    // SAFETY: the required features contain SYSCALL; the entry is code for it and part of the image.
    unsafe { syscall::enable(entry::syscall_entry as *const () as usize) };
}

/// Switches the interrupt controllers on or off and finds out how fast the clocks run.
fn start_clocks(irq: &mut IrqOff) -> Clocks {
    // SAFETY: nobody else drives them; there is one processor.
    unsafe { pic::disable() };
    let mut apic: LocalApic = local_apic();
    apic.enable(vector::SPURIOUS, irq);
    // SAFETY: nobody else drives the timer.
    let mut pit = unsafe { Pit::new() };
    let Some(clocks) = timer::calibrate(&mut pit, &mut apic, irq) else {
        panic!("no clock to calibrate by: neither a PIT nor a frequency from the processor")
    };
    assert!(clocks.tsc_khz > SLOWEST_TSC_KHZ, "the time-stamp counter is too slow: {} kHz", clocks.tsc_khz);
    clocks
}

/// Interrupts first, then the kernel's own, then users.
fn thread_numbers(interrupts: &Interrupts) -> ThreadNumbers {
    let system_base = interrupts.count();
    ThreadNumbers { system_base, user_base: system_base + KERNEL_THREADS }
}

fn complete_kip(clocks: Clocks, numbers: ThreadNumbers) {
    let (start, end) = image_range();
    let findings = kip::Findings {
        processor_khz: (clocks.tsc_khz, clocks.apic_khz),
        image: (start.0 as Word, end.0 as Word - 1),
        user_last: layout::USER_END as Word - 1,
        numbers,
    };
    // SAFETY: there is nobody else yet, and what `loaded` gave is not used any more.
    unsafe { kip::complete(&findings) };
}

fn start_core(hardware: Hardware, numbers: ThreadNumbers) {
    HARDWARE.set(hardware);
    let hardware = HARDWARE.get();
    let config =
        SpaceConfig { user_end: layout::USER_END as u64, kip: PhysAddr((kip::address() - layout::KERNEL_BASE) as u64) };
    let spaces = Spaces::new(hardware, &KMEM, space_table(space_bytes()), node_table(node_bytes()), config);
    CPUS[0].start();
    machine::start_fpu();
    KERNEL.set(Kernel { machine: hardware, tcbs: tcb_table(), cpus: &CPUS[..1], spaces, kmem: &KMEM, numbers });
}

fn start_servers([sigma0, root]: [ServerWords; 2], numbers: ThreadNumbers) {
    let mut here = dispatch::here();
    let server = |id, words: ServerWords, pager, is_sigma0| Server {
        id,
        ip: words.ip as usize,
        sp: words.sp as usize,
        pager,
        scheduler: numbers.root_task(),
        is_sigma0,
    };
    let servers = [
        server(numbers.sigma0(), sigma0, ThreadId::NIL, true),
        server(numbers.root_task(), root, numbers.sigma0(), false),
    ];
    for server in servers {
        assert!(here.start_server(server).is_ok(), "kernel memory does not suffice for the initial servers");
    }
}

fn tcb_table() -> &'static [Tcb] {
    let start = core::ptr::with_exposed_provenance(layout::TCB_TABLE);
    // SAFETY: the table reads as zeroes where it is not backed, which are empty slots; the core writes to a slot only
    // between `back_thread` and `release_thread` for it; TCBs are made of atomics.
    unsafe { core::slice::from_raw_parts(start, 1 << layout::MAX_THREADS_LOG2) }
}

const _: () = assert!(size_of::<Tcb>() << layout::MAX_THREADS_LOG2 == layout::TCB_TABLE_BYTES);
const _: () = assert!(Selector::USER_GS.0 == 0x33, "the ABI says so");
