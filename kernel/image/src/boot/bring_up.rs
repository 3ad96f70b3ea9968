//! From rough tables to the initial servers.

use core::ptr::{NonNull, with_exposed_provenance_mut};

use arrayvec::ArrayVec;
use kcore::boot::{InitialServers, Range};
use kcore::cross::claims::Claims;
use kcore::kernel::{Kernel, ThreadNumbers};
use kcore::kmem::Kmem;
use kcore::lock::Held;
use kcore::machine::{CpuId, PhysAddr};
use kcore::options::{Clock, Options};
use kcore::sched::Cpu;
use kcore::space::{Space, SpaceConfig, Spaces};
use kcore::thread::Tcb;
use kformats::acpi::madt::Madt;
use khal::apic::{self, LocalApic};
use khal::cache;
use khal::cpu::{Features, Name, physical_address_bits};
use khal::cr::Counters;
use khal::desc::{Caller, Idt, InterruptStack, Selector};
use khal::hpet::Hpet;
use khal::irq::IrqOff;
use khal::lines::{Lines, MAX_IO_APICS};
use khal::pit::Pit;
use khal::pm_timer::PmTimer;
use khal::processors::Processors;
use khal::timer::{By, Clocks, References};
use khal::{cr, pic, syscall, timer};
use l4_abi::Word;
use l4_abi::common::{LOCALITIES_MAX, LocalityTable};

use super::firmware;
use super::memory::KernelMemory;
use super::others::{self, Starter};
use super::paging::{Isolation, KernelSpace, Plan, image_range};
use crate::config::{self, KERNEL_THREADS, MAX_CPUS};
use crate::facts::Facts;
use crate::interrupts::{self, Interrupts};
use crate::machine::{DirectMap, HARDWARE, Hardware, local_apic, node_table, space_table};
use crate::once::BootCell;
use crate::trap::{entry, vector};
use crate::{
    KERNEL, area, console, dispatch, kdb, kip, layout, machine, mitigations, options, stubs, task_state, trace,
    trace_buffer,
};

static KMEM: Kmem = Kmem::new();
/// The gates, the same for all processors.
static IDT: Idt = Idt::new();
/// What the second part of the boot gets from the first.
static FOUND: BootCell<Found> = BootCell::new();
/// Where the core finds the scheduling states of the processors.
static CPUS: BootCell<ArrayVec<&'static Cpu, MAX_CPUS>> = BootCell::new();

/// Pages of the interrupt controllers, the local APICs' first.
type Controllers = ArrayVec<PhysAddr, { 1 + MAX_IO_APICS }>;

/// What is found out before there are tables and a stack of the kernel's own.
struct Found {
    options: Options,
    features: Features,
    servers: InitialServers,
    kernel_space: KernelSpace,
    lines: Lines,
    controllers: Controllers,
    processors: Processors,
    localities: LocalityTable,
    memory: KernelMemory,
    /// Where the timer of ACPI is.
    timer_port: Option<u16>,
    /// Where the registers of the high-precision event timer are.
    hpet: Option<u64>,
    /// What is said to be memory and is the configuration of devices.
    no_memory: ArrayVec<Range, { firmware::WINDOWS_MAX }>,
}

/// A time-stamp counter slower than this cannot count microseconds.
const SLOWEST_TSC_KHZ: u64 = 1_000;

/// The first part of the boot, on the boot stack: up to the kernel's own tables and the area of this processor, in which
/// the second part runs. Panics with the name of what is missing.
pub fn bring_up() -> ! {
    console::start();
    console::step("processor");
    let features = check_features();
    // SAFETY: interrupts are off since the first instruction, and there is no other token.
    let mut irq = unsafe { IrqOff::assume() };
    console::step("what the loader says");
    // SAFETY: nobody writes to the page while `loaded` is used; `complete` comes after.
    let loaded = unsafe { kip::loaded() };
    // SAFETY: no other tables have been loaded yet.
    let options = unsafe { options::read(&loaded) };
    // SAFETY: as above; no thread runs, and areas are made later.
    unsafe { mitigations::prepare(options) };
    let servers = InitialServers::of(loaded.kip).unwrap_or_else(|error| panic!("{error}"));
    console::step("tables of the firmware");
    // SAFETY: no other tables have been loaded yet.
    let told = unsafe { options::root_pointer(&loaded) };
    // SAFETY: as above.
    let root = unsafe { firmware::tables(told.as_deref(), &loaded) };
    // SAFETY: as above.
    let madt = root.and_then(|root| unsafe { firmware::controllers(&root) });
    let (lines, processors) = (interrupts::lines(madt, loaded.memory), find_processors(features, madt));
    let apic_base = choose_apic_mode(features, &processors, &mut irq);
    let controllers: Controllers = [apic_base].into_iter().chain(interrupts::pages(&lines)).collect();
    let none = LocalityTable::NONE;
    // SAFETY: no other tables have been loaded yet.
    let localities = root.map_or(none, |root| unsafe { firmware::locality_table(&root, &processors) });
    // SAFETY: as above.
    let timer_port = root.and_then(|root| unsafe { firmware::timer_port(&root) });
    // SAFETY: as above.
    let hpet = root.and_then(|root| unsafe { firmware::hpet(&root, &loaded) });
    // SAFETY: as above.
    let mut no_memory = root.map_or_else(ArrayVec::new, |root| unsafe { firmware::configuration(&root, &loaded) });
    no_memory.truncate(loaded.room(controllers.len()));
    console::step("kernel memory and page tables");
    let memory = KernelMemory::find(&loaded, &localities, loaded.room(controllers.len() + no_memory.len()));
    memory.give_reserved(&KMEM, &localities);
    let kernel_space = build_tables(options, features, &memory, &controllers, hpet);
    memory.give_more(&KMEM);
    make_area(&kernel_space, processors.apic_ids()[0], localities.of_processor(0));
    FOUND.set(Found {
        options,
        features,
        servers,
        kernel_space,
        lines,
        controllers,
        processors,
        localities,
        memory,
        timer_port,
        hpet,
        no_memory,
    });
    area::enter_first(complete_bring_up)
}

/// The second part: the clocks, the other processors, the core, the initial servers.
extern "C" fn complete_bring_up() -> ! {
    let Found { options, features, servers, kernel_space, lines, processors, .. } = FOUND.get();
    // SAFETY: interrupts are still off, and the token of the first part is gone.
    let mut irq = unsafe { IrqOff::assume() };
    console::step("gates and control registers");
    fill_gates();
    start_processor();
    console::step("clocks");
    let (clocks, by) = start_clocks(&mut irq);
    console::step("interrupt controllers");
    let interrupts = Interrupts::start(lines.clone(), &mut local_apic(), &mut irq);
    stubs::set_clock_scale(clocks.tsc_to_us());
    console::step("other processors");
    let cpus = start_others(kernel_space, clocks, &mut irq);
    let numbers = thread_numbers(&interrupts);
    console::step("kernel interface page, threads and spaces");
    complete_kip(clocks, numbers, cpus.len());
    start_core(Hardware::new(*options, *features, *kernel_space, clocks, interrupts), cpus, numbers);
    trace::start(clocks, &KMEM, options.trace, options.trace_pages);
    console::step("initial servers");
    start_servers(servers, numbers);
    greet(clocks, by, processors);
    if servers.has_sigma1() {
        console::leave_screen();
    }
    others::let_them_go(cpus.len());
    area::enter_first(first_dispatch)
}

/// The end of the boot, with all of the stack: what came before takes most of it, and the debugger needs it.
extern "C" fn first_dispatch() -> ! {
    kdb::at_startup();
    dispatch::dispatch()
}

/// Says what kernel this is and what it found.
fn greet(clocks: Clocks, by: By, processors: &Processors) {
    let kernel = KERNEL.get();
    console::line(format_args!("Marcona {}, {}", env!("CARGO_PKG_VERSION"), Name::detect()));
    console::line(format_args!("built with {}", config::WORDS));
    console::line(format_args!(
        "{} MHz, {} KiB of kernel memory, absent: {}",
        (clocks.tsc_khz.get() + 500) / 1000,
        kernel.kmem.total() * 4,
        HARDWARE.get().features().missing()
    ));
    console::line(format_args!("clocks {by}"));
    HARDWARE.get().features().consequences().for_each(|text| console::line(format_args!("{text}")));
    console::line(format_args!(
        "{} interrupt lines, {} I/O APICs, {} processors",
        kernel.numbers.system_base,
        HARDWARE.get().interrupts().io_apic_count(),
        kernel.cpus.len()
    ));
    let localities = FOUND.get().localities.localities as usize;
    for locality in (0..localities).filter(|_| localities > 1) {
        let kib = kernel.kmem.total_of(locality) * 4;
        let distances = &FOUND.get().localities.distances[locality][..localities];
        console::line(format_args!("locality {locality}: {kib} KiB of kernel memory, distances {distances:?}"));
    }
    mitigations::tell();
    if processors.left_off() > 0 {
        console::line(format_args!("{} processors more than the kernel can run are left off", processors.left_off()));
    }
}

fn check_features() -> Features {
    let features = Features::detect();
    let lacking = Features::REQUIRED.difference(features);
    assert!(lacking.is_empty(), "the processor lacks {lacking}");
    features
}

/// Kernel memory for this processor, which is not yet known to the core.
fn early_frame() -> Option<PhysAddr> {
    KMEM.alloc(&DirectMap { locality: 0 }, &mut Held::nothing())
}

/// Builds and enters the kernel's own tables.
fn build_tables(
    options: Options,
    features: Features,
    memory: &KernelMemory,
    controllers: &Controllers,
    hpet: Option<u64>,
) -> KernelSpace {
    let (local_apic, io_apics) = (controllers[0], &controllers[1..]);
    let sparse = &sparse_tables(memory.frames());
    let task_states = options.io_fpages.then(task_state::frames);
    let shown = Isolation { gates: (&raw const IDT).addr(), task_states: task_state::address() };
    let isolation = mitigations::isolate_tables().then_some(shown);
    let screen = console::screen_memory();
    trace_buffer::take(KMEM.free_count(), early_frame);
    let kernel_memory = &memory.ranges();
    let hpet = hpet.map(|address| PhysAddr(address & !0xFFF));
    let plan = Plan { features, kernel_memory, sparse, task_states, local_apic, io_apics, hpet, screen, isolation };
    // SAFETY: frames of kernel memory belong to whom they were given to; they are mapped by the rough tables, and by the
    // plan, which has all of kernel memory.
    let built = unsafe { KernelSpace::build(&plan, early_frame) };
    let Ok(space) = built else { panic!("kernel memory does not suffice for the kernel's page tables") };
    console::hide_screen();
    // SAFETY: code, stack, statics and kernel memory are in the plan; the descriptor table of the start code is part of
    // the image.
    unsafe { space.activate() };
    console::show_screen();
    space
}

/// Bytes of the node table that so many frames of kernel memory can back: a page for each frame. In large pages.
fn node_bytes(frames: usize) -> usize {
    let bytes = frames * kcore::kmem::FRAME_SIZE as usize;
    bytes.next_multiple_of(layout::LARGE_PAGE_BYTES).min(layout::NODE_TABLE_BYTES)
}

/// Bytes of the table of spaces that so many frames of kernel memory can fill: each space has at least two frames, and each
/// page of the table has a slot less than fit. In large pages.
fn space_bytes(frames: usize) -> usize {
    let bytes = frames * size_of::<Space>();
    bytes.next_multiple_of(layout::LARGE_PAGE_BYTES).min(layout::SPACE_TABLE_BYTES)
}

/// The tables of the core that are backed as they are filled. Thread numbers are the users' to choose, so they can be
/// anywhere.
fn sparse_tables(frames: usize) -> [(usize, usize); 4] {
    [
        (layout::TCB_TABLE, layout::TCB_TABLE_BYTES),
        (layout::FRAME_TABLE, layout::FRAME_TABLE_BYTES),
        (layout::SPACE_TABLE, space_bytes(frames)),
        (layout::NODE_TABLE, node_bytes(frames)),
    ]
}

/// The processors according to the firmware; this one alone if it says nothing.
fn find_processors(features: Features, madt: Option<Madt<'_>>) -> Processors {
    let own = khal::cpu::apic_id();
    let has_x2apic = features.contains(Features::X2APIC);
    let found = madt.map(|madt| Processors::of_entries(madt.entries(), own, MAX_CPUS, has_x2apic));
    found.and_then(Result::ok).unwrap_or_else(|| Processors::alone(own))
}

/// Chooses how local APICs are reached: x2APIC mode if the firmware left the processor in it, or if there are processors
/// that cannot be addressed otherwise. Returns the physical address of the registers.
fn choose_apic_mode(features: Features, processors: &Processors, irq: &mut IrqOff) -> PhysAddr {
    // SAFETY: the processor has a local APIC.
    let was_left_in_x2apic = unsafe { apic::is_in_x2apic_mode(irq) };
    if features.contains(Features::X2APIC) && (was_left_in_x2apic || processors.need_x2apic()) {
        machine::use_x2apic();
    }
    // SAFETY: the processor has a local APIC, and nobody uses it yet.
    PhysAddr(unsafe { apic::physical_base(irq) })
}

/// Makes the area of this processor, which is the first.
fn make_area(kernel_space: &KernelSpace, apic_id: u32, locality: usize) {
    let frames = || KMEM.alloc(&DirectMap { locality }, &mut Held::nothing());
    // SAFETY: frames belong to whom they were given to; nobody else changes the tables.
    let mapped = unsafe { kernel_space.map_area(0, frames) };
    assert!(mapped.is_ok(), "kernel memory does not suffice for the first processor");
    // SAFETY: the pages are there, and nobody uses them yet.
    unsafe { area::init(CpuId::new(0), apic_id, locality, kernel_space.word()) };
}

/// Makes a gate for each vector.
fn fill_gates() {
    for number in 0..=255u8 {
        let gate = match usize::from(number) {
            vector::NON_MASKABLE => entry::non_maskable_entry as *const () as usize,
            vector::DEBUG => entry::debug_entry as *const () as usize,
            vector => (&raw const entry::gate_entries).addr() + vector * entry::GATE_BYTES,
        };
        let stack = match usize::from(number) {
            vector::NON_MASKABLE | vector::DOUBLE_FAULT | vector::MACHINE_CHECK => Some(InterruptStack::Ist1),
            vector::DEBUG => Some(InterruptStack::Ist2),
            vector::PAGE_FAULT => Some(InterruptStack::Ist3),
            _ => None,
        };
        let caller = match usize::from(number) {
            vector::BREAKPOINT | vector::OVERFLOW => Caller::User,
            _ => Caller::Kernel,
        };
        // SAFETY: each entry is code for its vector and part of the image.
        unsafe { IDT.set(number, gate, stack, caller) };
    }
}

/// The two words of a gate, for the debugger.
pub fn gate(vector: u8) -> [u64; 2] {
    IDT.gate(vector)
}

/// Makes this processor, which runs in its area on the kernel's tables, ready for user code. The gates are filled.
pub fn start_processor() {
    let &Found { options, features, .. } = FOUND.get();
    let counters = if config::PERFMON { Counters::OfAll } else { Counters::OfKernel };
    // SAFETY: these are the processor's features, or the boot processor's, which all have; the tables in use mark
    // nothing of the kernel as a user's and set only bits that the features allow; the identifier in CR3 is 0.
    unsafe { cr::enable_protections(features, counters) };
    // SAFETY: these are the processor's features; the kernel's tables know two types, both among the first four.
    unsafe { cache::load_page_attributes(features) };
    let task_state = task_state::of(options, area::cpu());
    // SAFETY: this processor alone uses its area and its task state, which stay.
    unsafe { area::porch().gdt.load(task_state, layout::utcb_slot(area::cpu().index())) };
    // SAFETY: there is a gate for each vector; the table is part of the image.
    unsafe { IDT.load() };
    // SAFETY: the required features contain SYSCALL; the entry in the area is code for it, and stays.
    unsafe { syscall::enable(area::syscall_entry()) };
    // SAFETY: interrupts are off in the kernel, and no other token is in use here.
    let mut irq = unsafe { IrqOff::assume() };
    machine::start_local_apic(&mut irq);
    machine::start_fpu();
    mitigations::start();
}

/// Starts the processors behind the first. Returns the scheduling states of all that run.
fn start_others(kernel_space: &KernelSpace, clocks: Clocks, irq: &mut IrqOff) -> &'static [&'static Cpu] {
    let &Found { features, ref processors, ref localities, .. } = FOUND.get();
    // SAFETY: nobody writes to the page while `loaded` is used; `complete` comes after.
    let memory = unsafe { kip::loaded() }.memory;
    let starter = Starter { features, kernel_space, kmem: &KMEM, clocks, localities, memory };
    let count = if config::SMP { starter.start(processors, irq) } else { 1 };
    // SAFETY: the areas of these processors were made.
    CPUS.set((0..count).map(|cpu| unsafe { &area::of(CpuId::new(cpu as u32)).cpu }).collect());
    CPUS.get()
}

/// Switches the interrupt controllers on or off and finds out how fast the clocks run.
fn start_clocks(irq: &mut IrqOff) -> (Clocks, By) {
    let &Found { options, timer_port, hpet, .. } = FOUND.get();
    // SAFETY: nobody else drives them; there is one processor.
    unsafe { pic::disable() };
    let mut apic: LocalApic = local_apic();
    let references = References {
        // SAFETY: nobody else drives the timer.
        pit: unsafe { Pit::new() },
        // SAFETY: the firmware's table says that the timer is there, which is only read.
        acpi: timer_port.map(|port| unsafe { PmTimer::new(port) }),
        hpet: hpet.and_then(|address| {
            let registers = with_exposed_provenance_mut(layout::HPET_PAGE | address as usize & 0xFFF);
            // SAFETY: the kernel's tables map the page, which the firmware's table names and no memory is; nobody drives it.
            NonNull::new(registers).and_then(|registers| unsafe { Hpet::new(registers) })
        }),
    };
    let first = match options.clock {
        Clock::Auto => None,
        Clock::Pit => Some(By::Pit),
        Clock::Acpi => Some(By::Acpi),
        Clock::Hpet => Some(By::Hpet),
    };
    let Some((clocks, by)) = timer::calibrate(references, first, &mut apic, irq) else {
        panic!("no clock to calibrate by: neither a PIT nor a timer of ACPI nor an HPET nor a known frequency")
    };
    assert!(clocks.tsc_khz.get() > SLOWEST_TSC_KHZ, "the time-stamp counter is too slow: {} kHz", clocks.tsc_khz);
    (clocks, by)
}

/// Interrupts first, then the kernel's own, then users.
fn thread_numbers(interrupts: &Interrupts) -> ThreadNumbers {
    let system_base = interrupts.count();
    ThreadNumbers { system_base, user_base: system_base + KERNEL_THREADS }
}

fn complete_kip(clocks: Clocks, numbers: ThreadNumbers, processors: usize) {
    let Found { options, controllers, localities, memory, no_memory, .. } = FOUND.get();
    let more: ArrayVec<Range, LOCALITIES_MAX> = memory.more().collect();
    let (start, end) = image_range();
    let findings = kip::Findings {
        processors,
        processor_khz: (clocks.tsc_khz.get(), clocks.apic_khz.get()),
        image: (start.0 as Word, end.0 as Word - 1),
        controllers,
        no_memory,
        more_kernel_memory: &more,
        localities: (localities.localities > 1).then(|| publish(localities)),
        user_last: layout::USER_END as Word - 1,
        numbers,
        has_io_fpages: options.io_fpages,
        trace_buffer: trace_buffer::range(),
        more_page_sizes: if FOUND.get().features.contains(Features::PAGES_1G) { 1 << 30 } else { 0 },
    };
    // SAFETY: there is nobody else yet, and what `loaded` gave is not used any more.
    unsafe { kip::complete(&findings) };
}

/// A page with the table, for users to read.
fn publish(localities: &LocalityTable) -> PhysAddr {
    let Some(frame) = early_frame() else { panic!("kernel memory does not suffice for the table of localities") };
    // SAFETY: the frame is kernel memory of this function's, and mapped for ever; the table fits into it.
    unsafe { machine::direct_map(frame).cast::<LocalityTable>().write(localities.clone()) };
    frame
}

fn start_core(hardware: Hardware, cpus: &'static [&'static Cpu], numbers: ThreadNumbers) {
    HARDWARE.set(hardware);
    let hardware = HARDWARE.get();
    let config = SpaceConfig {
        user_end: layout::USER_END as u64,
        physical_end: 1 << physical_address_bits(),
        kip: PhysAddr((kip::address() - layout::KERNEL_BASE) as u64),
    };
    let (space_table, node_table) = (space_table(space_bytes(KMEM.total())), node_table(node_bytes(KMEM.total())));
    let facts = Facts {
        root: FOUND.get().kernel_space.root(),
        cpus: cpus.len(),
        numbers,
        spaces: space_table.slots.len(),
        nodes: node_table.slots.len(),
        physical_bits: physical_address_bits(),
        kip: config.kip,
        has_io_fpages: FOUND.get().options.io_fpages,
    };
    facts.publish();
    let spaces = Spaces::new(hardware, &KMEM, space_table, node_table, config);
    KERNEL.set(Kernel {
        machine: hardware,
        tcbs: tcb_table(),
        cpus,
        spaces,
        kmem: &KMEM,
        numbers,
        creation: Claims::new(),
    });
}

fn start_servers(servers: &InitialServers, numbers: ThreadNumbers) {
    let mut here = dispatch::here();
    for server in servers.list(numbers) {
        assert!(here.start_server(server).is_ok(), "kernel memory does not suffice for the initial servers");
    }
    if !servers.has_root_task() {
        console::line(format_args!("the loader gave no root task"));
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
