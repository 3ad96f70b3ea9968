//! The kernel interface page, and the way to it.

use l4::arch::{KernelInterface, kernel_interface};
use l4::protocol::PAGE_FAULT;
use l4::trace_buffer::abi::FEATURE;
use l4::{
    API_FLAGS, API_VERSION, KIP_MAGIC, KIP_SIZE, KernelDescriptor, MemoryDescriptor, MemoryType, Rights, UTCB_SIZE,
    Word, kip as page, utcb,
};

use crate::arch::{self, Registers, traps};
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::image;
use crate::world::memory;
use crate::world::messages::{receive, send_items};
use crate::world::threads::{plan, tester};

chapter! { kip:
    "X.2, Kernel Interface Page" => [
        magic_and_versions,
        kernel_descriptor_names_the_kernel,
        tables_are_inside_the_page,
        utcb_and_kip_areas,
        page_sizes_and_rights,
        thread_numbers,
        processors_have_a_frequency,
        boot_information_is_there,
        page_cannot_be_written,
    ],
    "X.2, Kernel Interface Page, Memory Descriptors" => [
        memory_descriptors_are_ranges,
        image_is_memory_of_ours,
        user_addresses_are_described,
    ],
    "X.2, Kernel Interface Page, system-call links" => [system_calls_are_there, stubs_come_back],
    "X.2, KernelInterface" => [
        kernel_interface_agrees_with_the_page,
        kernel_interface_at_any_stack_depth,
        kernel_interface_changes_only_its_results,
        kernel_interface_on_a_border_of_pages,
    ],
}

fn magic_and_versions() -> Outcome {
    let kip = page::kip();
    equal("the magic", kip.magic, KIP_MAGIC)?;
    equal("ApiVersion", kip.api_version, API_VERSION.into())?;
    equal("ApiFlags", kip.api_flags, API_FLAGS)
}

fn kernel_descriptor_names_the_kernel() -> Outcome {
    let kernel = page::kernel_descriptor().ok_or(Failure::new("there is no kernel descriptor in the page"))?;
    check(kernel.kernel_id != 0, "KernelId is 0")?;
    let date = kernel.generation_date;
    check((1..=12).contains(&date.month()) && (1..=31).contains(&date.day()), format_args!("the date is {date:?}"))?;
    let supplier = kernel.supplier.to_le_bytes();
    check(supplier[..4].iter().all(|&letter| letter.is_ascii_graphic() || letter == b' '), "the supplier is no text")?;
    check(!page::kernel_version_string().is_empty(), "the version text is empty")
}

fn tables_are_inside_the_page() -> Outcome {
    let kip = page::kip();
    let fixed = size_of::<l4::Kip>() as Word;
    let processors = kip.processor_info.count() << kip.processor_info.descriptor_log2();
    let memory = kip.memory_info.n() * size_of::<MemoryDescriptor>() as Word;
    let tables = [
        ("processor descriptors", kip.processor_desc_ptr, processors),
        ("kernel descriptor", kip.kernel_desc_ptr, size_of::<KernelDescriptor>() as Word),
        ("memory descriptors", kip.memory_info.ptr(), memory),
    ];
    for (name, offset, bytes) in tables {
        check(
            bytes > 0 && offset >= fixed && offset + bytes <= KIP_SIZE as Word,
            format_args!("{name} are at {offset:#x}"),
        )?;
    }
    check(page::memory_descriptors().len() as Word == kip.memory_info.n(), "memory descriptors are not aligned")
}

fn utcb_and_kip_areas() -> Outcome {
    let kip = page::kip();
    let utcb = kip.utcb_info;
    equal("the size of a UTCB", utcb.size_bytes(), UTCB_SIZE as Word)?;
    check(utcb.size_bytes().is_multiple_of(1 << utcb.align_log2()), "UTCBs in a row are not aligned")?;
    check(utcb.area_log2() >= 12, "the smallest UTCB area is less than a page")?;
    check(kip.kip_area_info.size_log2() >= 12, "the KIP area is less than a page")
}

fn page_sizes_and_rights() -> Outcome {
    let info = page::kip().page_info;
    equal("the smallest page", info.min_log2(), 12)?;
    equal("the rights", info.rights(), l4::PAGE_INFO.rights())?;
    // Larger pages are told where the processor has them.
    let larger = if arch::has_pages_of_1_gib() { 1 << 30 } else { 0 };
    equal("the sizes", info.size_mask(), l4::PAGE_INFO.size_mask() | larger)
}

fn thread_numbers() -> Outcome {
    let info = page::kip().thread_info;
    check(
        info.system_base() > 0 && info.system_base() <= info.user_base(),
        "SystemBase and UserBase are out of order",
    )?;
    check(info.bits() >= 10 && Word::from(info.bits()) <= Word::from(Word::BITS - l4::THREAD_NO_SHIFT), "t is odd")?;
    equal("the first thread's id", crate::world::threads::supervisor(), info.root_task())
}

fn processors_have_a_frequency() -> Outcome {
    for number in 0..page::num_processors() {
        let processor = page::processor_descriptor(number).ok_or(Failure::new("a descriptor is missing"))?;
        // SystemClock is computed from it: less than 10 MHz is no frequency of any such processor.
        check(processor.internal_khz > 10_000, format_args!("processor {number}: {processor:?}"))?;
    }
    Ok(())
}

fn boot_information_is_there() -> Outcome {
    check(page::kip().boot_info != 0, "BootInfo is 0")
}

fn page_cannot_be_written() -> Outcome {
    let address = &raw const *page::kip() as Word;
    let thread = plan().pager(tester().id()).spawn(move || {
        memory::write(address, 0);
        Ok(())
    })?;
    let fault = receive(thread.id())?;
    equal("the protocol", fault.tag.protocol(), PAGE_FAULT)?;
    equal("the access", Rights::from_bits_truncate(fault.tag.parameter()), Rights::WRITE)?;
    equal("the address", utcb().mr(1), address)
}

fn memory_descriptors_are_ranges() -> Outcome {
    for (i, descriptor) in page::memory_descriptors().iter().enumerate() {
        check(descriptor.low() <= descriptor.high(), format_args!("descriptor {i} ends before it begins"))?;
    }
    let has = |kind| page::memory_descriptors().iter().any(|d| d.kind() == kind && !d.is_virtual());
    check(has(MemoryType::Conventional), "there is no conventional memory")?;
    check(has(MemoryType::Reserved), "the kernel has no memory")
}

/// What the descriptors say of a physical address: the last one counts.
fn kind_of(address: Word, is_virtual: bool) -> Option<MemoryType> {
    let holds = |d: &&MemoryDescriptor| d.is_virtual() == is_virtual && (d.low()..=d.high()).contains(&address);
    page::memory_descriptors().iter().rfind(holds).map(|d| d.kind())
}

fn image_is_memory_of_ours() -> Outcome {
    let server = page::kip().root_server;
    check(server.is_present(), "the root task is nowhere")?;
    check((server.low..server.high).contains(&server.ip), "the root task starts outside itself")?;
    let here = arch::address_of!(image_is_memory_of_ours);
    check((server.low..server.high).contains(&here) && image::contains(here), "this code is outside the root task")?;
    let kind = kind_of(here, false);
    check(!matches!(kind, None | Some(MemoryType::Undefined | MemoryType::Reserved)), format_args!("it is {kind:?}"))
}

fn user_addresses_are_described() -> Outcome {
    let places = [
        ("code", arch::address_of!(user_addresses_are_described)),
        ("UTCB", utcb().mrs().as_ptr().addr() as Word),
        ("kernel interface page", &raw const *page::kip() as Word),
        ("playground", crate::world::memory::at(0)),
    ];
    for (name, address) in places {
        equal(name, kind_of(address, true), Some(MemoryType::Conventional))?;
    }
    // Programs take a virtual reserved range for the trace buffer, of which there is one at most; see `trace_buffer`.
    let is_buffer = |d: &&MemoryDescriptor| d.is_virtual() && d.kind() == MemoryType::Reserved;
    let buffers = page::memory_descriptors().iter().filter(is_buffer).count();
    equal("virtual reserved ranges", buffers, usize::from(page::has_feature(FEATURE)))
}

fn links() -> [(&'static str, Word); 11] {
    let calls = &page::kip().system_calls;
    [
        ("SpaceControl", calls.space_control),
        ("ThreadControl", calls.thread_control),
        ("ProcessorControl", calls.processor_control),
        ("MemoryControl", calls.memory_control),
        ("Ipc", calls.ipc),
        ("Lipc", calls.lipc),
        ("Unmap", calls.unmap),
        ("ExchangeRegisters", calls.exchange_registers),
        ("SystemClock", calls.system_clock),
        ("ThreadSwitch", calls.thread_switch),
        ("Schedule", calls.schedule),
    ]
}

fn system_calls_are_there() -> Outcome {
    for (name, link) in links() {
        check(link != 0, format_args!("{name} is 0"))?;
    }
    equal("the calls of other architectures", page::kip().arch_system_calls, [0; 4])
}

/// Each stub returns with the stack as it was, with the direction flag clear, for arguments that ask for nothing.
fn stubs_come_back() -> Outcome {
    for (name, link) in links() {
        let local_id = l4::thread::my_local_id().raw();
        let registers = arch::idle_call(link, Registers::PATTERN.flags);
        check(registers.flags & arch::flag::DIRECTION == 0, format_args!("{name} sets DF"))?;
        if matches!(name, "Ipc" | "Lipc" | "Unmap" | "MemoryControl") {
            equal(format_args!("rdi after {name}"), registers.rdi, local_id)?;
        }
    }
    Ok(())
}

fn check_interface(found: KernelInterface) -> Outcome {
    equal("the address of the page", found.kip.addr(), (&raw const *page::kip()).addr())?;
    equal("ApiVersion", Word::from(found.api_version), page::kip().api_version)?;
    equal("ApiFlags", Word::from(found.api_flags), page::kip().api_flags)?;
    let kernel_id = page::kernel_descriptor().map(|kernel| kernel.kernel_id);
    equal("KernelId", Some(Word::from(found.kernel_id)), kernel_id)
}

fn kernel_interface_agrees_with_the_page() -> Outcome {
    check_interface(kernel_interface())
}

fn kernel_interface_at_any_stack_depth() -> Outcome {
    fn descend(depth: usize) -> Outcome {
        check_interface(kernel_interface())?;
        let pad = core::hint::black_box([depth; 3]);
        if pad[1] == 0 { Ok(()) } else { descend(pad[1] - 1) }
    }
    for round in 0..400 {
        descend(round % 40).within(format_args!("round {round}"))?;
    }
    Ok(())
}

fn kernel_interface_changes_only_its_results() -> Outcome {
    let mut registers = Registers::PATTERN;
    arch::around_kernel_interface(&mut registers);
    let kernel_id = page::kernel_descriptor().map_or(0, |kernel| kernel.kernel_id);
    let expected = Registers {
        rax: (&raw const *page::kip()).addr() as Word,
        rcx: API_VERSION.into(),
        rdx: API_FLAGS,
        rsi: kernel_id,
        ..Registers::PATTERN
    };
    let after = Registers { flags: registers.flags & !arch::flag::IO_PRIVILEGE, ..registers };
    equal("what the registers hold", after, expected)
}

fn kernel_interface_on_a_border_of_pages() -> Outcome {
    // All of it before the border, half of it, none.
    for before in [2, 1, 0] {
        let place = memory::at(before as Word * 0x10000);
        let start = place + memory::put_code(&traps::KERNEL_INTERFACE_CODE, before);
        let thread = plan().pager(tester().id()).spawn(move || {
            memory::execute(start);
            Ok(())
        })?;
        let first_page = if before == 0 { 1 } else { 0 };
        for index in first_page..2 {
            let at = place + index as Word * memory::PAGE_SIZE;
            let fault = receive(thread.id()).map_err(Failure::from).within(format_args!("{before} bytes before"))?;
            equal("the protocol", fault.tag.protocol(), PAGE_FAULT)?;
            equal("the page", utcb().mr(1) & !(memory::PAGE_SIZE - 1), at)?;
            send_items(thread.id(), &[memory::page(index).map_to(at, Rights::READ_EXECUTE)])?;
        }
        thread.join().within(format_args!("{before} bytes before"))?;
    }
    Ok(())
}
