//! Probes of the hardware's protection by going where a program must not: to the kernel's memory, to what has no right of
//! that kind, and to addresses that are none. Instructions that programs must not execute are in `hostile`, ports in
//! `ioports`, strings and messages from and to such places in `wild` and `strings`.

use l4::protocol::{EXCEPTION, PAGE_FAULT, page_fault_tag};
use l4::{ExceptionWord, Rights, UTCB_MR0_OFFSET, Word, utcb};

use super::exceptions::mr;
use crate::arch;
use crate::failure::{Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory;
use crate::world::messages::{equal_tags, receive};
use crate::world::spaces::Space;
use crate::world::threads::{Thread, give_back, plan, tester};

chapter! { probes:
    "X.2, Page fault protocol, addresses" => [
        memory_of_the_kernel_cannot_be_read,
        memory_of_the_kernel_cannot_be_written,
        memory_of_the_kernel_cannot_be_executed,
    ],
    "X.2, Mappings, protected areas" => [
        entries_of_system_calls_cannot_be_written,
        utcb_cannot_be_executed,
    ],
}

/// Where this kernel has something, by name. On others something else is there, or nothing: nobody may be there either.
const PLACES: [(&str, Word); 20] = [
    ("the first address of the upper half", 0xFFFF_8000_0000_0000),
    ("the task states", 0xFFFF_FEFF_FFFF_8000),
    ("the port map", 0xFFFF_FF00_0000_0000),
    ("the direct map", 0xFFFF_FF80_0000_1000),
    ("the direct map's last page", 0xFFFF_FFFF_7FFF_F000),
    ("the image", 0xFFFF_FFFF_8060_0000),
    ("its constants", 0xFFFF_FFFF_8064_0000),
    ("its data", 0xFFFF_FFFF_8065_1000),
    ("the table of threads", 0xFFFF_FFFF_A000_0000),
    ("the own entry there", 0xFFFF_FFFF_A000_7600),
    ("the table of registers", 0xFFFF_FFFF_B000_0000),
    ("the table of spaces", 0xFFFF_FFFF_C000_0000),
    ("the table of mappings", 0xFFFF_FFFF_C800_0000),
    ("what a processor has of its own", 0xFFFF_FFFF_F000_2000),
    ("the kernel's stack", 0xFFFF_FFFF_F000_6FF8),
    ("the windows for copies", 0xFFFF_FFFF_F000_A000),
    ("the porch", 0xFFFF_FFFF_F000_C000),
    ("the local APIC", 0xFFFF_FFFF_FFC0_0000),
    ("an I/O APIC", 0xFFFF_FFFF_FFD0_0000),
    ("the last word", 0xFFFF_FFFF_FFFF_FFF8),
];

/// Addresses that are not canonical: the first, the last, and one in between.
const NONE: [(&str, Word); 3] = [
    ("the end of user memory", 0x0000_8000_0000_0000),
    ("the middle of nowhere", arch::NON_CANONICAL),
    ("what lies before the upper half", 0xFFFF_7FFF_FFFF_FFF8),
];

/// What a probe does at an address.
type Probe = fn(Word);

fn read(address: Word) {
    core::hint::black_box(memory::read(address));
}

fn write(address: Word) {
    memory::write(address, 0);
}

/// A thread that goes to the address and never comes back, in the space of the program, which is privileged, or another.
#[track_caller]
fn probing(space: Space, probe: Probe, address: Word) -> Outcome<Thread> {
    plan().space(space).pager(tester().id()).exception_handler(tester().id()).spawn(move || {
        probe(address);
        crate::failure::check(false, "the access is done")
    })
}

/// The probe ends in a fault at that address, from user mode.
#[track_caller]
fn check_fault(space: Space, probe: Probe, access: Rights, address: Word) -> Outcome {
    let thread = probing(space, probe, address)?;
    let received = receive(thread.id())?;
    equal_tags("the message", received.tag, page_fault_tag(access))?;
    equal("the address", utcb().mr(1), address)?;
    thread.delete()?;
    give_back(1);
    Ok(())
}

/// The probe ends in an exception: there is no page at no address.
#[track_caller]
fn check_exception(space: Space, probe: Probe, address: Word) -> Outcome {
    let thread = probing(space, probe, address)?;
    let received = receive(thread.id())?;
    check([EXCEPTION, PAGE_FAULT].contains(&received.tag.protocol()), format_args!("{:?}", received.tag))?;
    if received.tag.protocol() == EXCEPTION {
        equal("the exception", mr(ExceptionWord::Exception), arch::GENERAL_PROTECTION)?;
    }
    thread.delete()?;
    give_back(1);
    Ok(())
}

fn check_everywhere(probe: Probe, access: Rights) -> Outcome {
    for (whose, space) in Space::own_and_other()? {
        for (name, address) in PLACES {
            check_fault(space, probe, access, address).within(format_args!("{name}, {whose}"))?;
        }
        for (name, address) in NONE {
            check_exception(space, probe, address).within(format_args!("{name}, {whose}"))?;
        }
    }
    Ok(())
}

fn memory_of_the_kernel_cannot_be_read() -> Outcome {
    check_everywhere(read, Rights::READ)
}

fn memory_of_the_kernel_cannot_be_written() -> Outcome {
    check_everywhere(write, Rights::WRITE)
}

fn memory_of_the_kernel_cannot_be_executed() -> Outcome {
    check_everywhere(memory::execute, Rights::EXECUTE)
}

fn entries_of_system_calls_cannot_be_written() -> Outcome {
    let calls = &l4::kip().system_calls;
    for link in [calls.ipc, calls.lipc, calls.unmap, calls.thread_control, calls.system_clock] {
        for space in [Space::own(), Space::create()?] {
            check_fault(space, write, Rights::WRITE, link).within(format_args!("{link:#x}"))?;
        }
    }
    Ok(())
}

/// A message register holds an instruction; the thread itself, and others of its space, go there.
fn utcb_cannot_be_executed() -> Outcome {
    const RET: Word = 0xC3;
    let space = Space::create()?;
    let target = plan().space(space).spawn(|| {
        utcb().set_mr(40, RET);
        l4::time::sleep_forever()
    })?;
    let at = target.utcb_location() + UTCB_MR0_OFFSET as Word + 40 * size_of::<Word>() as Word;
    check_fault(space, memory::execute, Rights::EXECUTE, at).within("by another thread")?;
    let own = plan().space(space).pager(tester().id()).spawn(|| {
        utcb().set_mr(40, RET);
        let me = Thread::me();
        memory::execute(me.utcb_location() + UTCB_MR0_OFFSET as Word + 40 * size_of::<Word>() as Word);
        check(false, "the UTCB is executed")
    })?;
    let received = receive(own.id())?;
    equal_tags("the message", received.tag, page_fault_tag(Rights::EXECUTE))
}
