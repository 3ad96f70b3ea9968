//! What a program may try at the border to the kernel. Each attempt is an exception of the program's, which its handler
//! survives; the kernel goes on, and so do others.

use l4::protocol::{EXCEPTION, PAGE_FAULT};
use l4::{EXCEPTION_WORDS, ExceptionWord, Rights, Word, utcb};

use super::exceptions::{answer, mr, raising, receive_exception, set_mr};
use crate::arch::traps::{self, Trap};
use crate::arch::{self, Registers, flag};
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory::{self, PAGE_SIZE, page, put_code};
use crate::world::messages::{receive, send_items, send_label};
use crate::world::spaces::Space;
use crate::world::threads::{Thread, plan, spawn, tester};

chapter! { hostile:
    "X.2, Exception protocol, instructions" => [
        instructions_of_the_kernel,
        software_interrupts,
        far_transfers,
        push_to_nowhere,
        exceptions_that_a_program_asks_for,
        counters_are_open_if_the_kernel_was_built_so,
    ],
    "X.2, Exception protocol, flags" => [
        shadow_of_a_stack_load,
        flags_that_the_kernel_must_not_keep,
        single_steps_through_the_kernel,
        flags_survive_the_debugger,
    ],
    "X.2, Exception protocol, instruction pointers" => [syscall_at_the_end_of_user_memory],
    "amd64 ABI, Exceptions, model-specific registers" => [
        privileged_spaces_read_registers,
        privileged_spaces_write_registers,
        registers_that_refuse_are_exceptions,
        other_spaces_have_no_registers,
    ],
    "amd64 ABI, Exceptions, segment registers" => [
        bad_selectors_are_left_out,
        memory_of_a_selector_is_still_checked,
    ],
}

/// Label of a thread that has come through.
const THROUGH: Word = 0x771;

/// A thread that executes the instruction and says so when it has come through.
fn executing(trap: &'static Trap) -> Outcome<Thread> {
    plan().pager(tester().id()).exception_handler(tester().id()).spawn(move || {
        trap.execute();
        send_label(tester().id(), THROUGH)?;
        Ok(())
    })
}

/// Receives the next message of the thread that is no single step, and lets it go on from steps.
fn behind_steps(thread: Thread) -> Outcome<l4::ipc::Outcome> {
    for _ in 0..1000 {
        let received = receive(thread.id())?;
        let is_step = received.tag.protocol() == EXCEPTION && mr(ExceptionWord::Exception) == arch::DEBUG;
        if !is_step {
            return Ok(received);
        }
        answer(thread, 0)?;
    }
    Err(Failure::new("there is no end of single steps"))
}

/// The instruction raises one of its exceptions, and the thread goes on behind it.
fn check_trap(trap: &'static Trap) -> Outcome {
    let thread = executing(trap)?;
    let received = behind_steps(thread)?;
    if received.tag.label() == THROUGH {
        check(trap.is_optional, "there was no exception")?;
        thread.join()?;
        return thread.delete();
    }
    if trap.may_miss_its_stack && received.tag.protocol() == PAGE_FAULT {
        return thread.delete();
    }
    equal("the protocol", received.tag.protocol(), EXCEPTION)?;
    let number = mr(ExceptionWord::Exception);
    check(trap.numbers.contains(&number), format_args!("the exception is {number}"))?;
    equal("the instruction", mr(ExceptionWord::Rip), trap.ip())?;
    if let Some(error_code) = trap.error_code {
        equal("the error code", mr(ExceptionWord::ErrorCode), error_code)?;
    }
    set_mr(ExceptionWord::Rip, trap.ip() + trap.skip);
    answer(thread, EXCEPTION_WORDS)?;
    equal("the label", behind_steps(thread)?.tag.label(), THROUGH)?;
    thread.join()?;
    thread.delete()
}

fn check_all(traps: &'static [Trap]) -> Outcome {
    for trap in traps {
        check_trap(trap).within(trap.name)?;
        crate::world::threads::give_back(1);
    }
    Ok(())
}

fn instructions_of_the_kernel() -> Outcome {
    check_all(traps::KERNEL_INSTRUCTIONS)
}

fn counters_are_open_if_the_kernel_was_built_so() -> Outcome {
    let is_open = l4::kip::kernel_version_string().split(' ').any(|word| word == "PERFMON");
    check_trap(if is_open { &traps::OPEN_COUNTER } else { &traps::CLOSED_COUNTER })
}

fn software_interrupts() -> Outcome {
    for number in 0..=u8::MAX {
        check_int(number).within(format_args!("int {number:#x}"))?;
        crate::world::threads::give_back(1);
    }
    Ok(())
}

fn check_int(number: u8) -> Outcome {
    let thread = raising(move || {
        traps::int(number);
        Ok(())
    })?;
    let (at, behind) = (traps::int_ip(number), traps::int_ip(number) + traps::INT_LEN);
    match number {
        // The two that programs may use.
        3 | 4 => receive_exception(thread, number.into(), behind)?,
        _ => {
            receive_exception(thread, arch::GENERAL_PROTECTION, at)?;
            // Some emulators count an entry of the table as two.
            let number = Word::from(number);
            let error_code = mr(ExceptionWord::ErrorCode);
            check(
                [number * 8 + 2, number * 16 + 2].contains(&error_code),
                format_args!("the error code is {error_code:#x}"),
            )?;
        }
    }
    set_mr(ExceptionWord::Rip, behind);
    answer(thread, 1)?;
    thread.join()?;
    thread.delete()
}

fn far_transfers() -> Outcome {
    check_all(traps::FAR_TRANSFERS)
}

fn push_to_nowhere() -> Outcome {
    check_trap(&traps::PUSH_TO_NOWHERE)
}

fn exceptions_that_a_program_asks_for() -> Outcome {
    check_all(&traps::ASKED_FOR)
}

fn shadow_of_a_stack_load() -> Outcome {
    check_all(&traps::SHADOWED)
}

fn flags_that_the_kernel_must_not_keep() -> Outcome {
    check_all(&traps::FLAGGED)?;
    // The kernel has neither of them: a long way through it, with a message to another space.
    let thread = plan().space(Space::create()?).spawn(|| {
        send_label(tester().id(), THROUGH)?;
        Ok(())
    })?;
    equal("the label", receive(thread.id())?.tag.label(), THROUGH)?;
    thread.join()
}

/// The thread makes single steps over a call of the debugger and over system calls: the steps are its own alone.
fn single_steps_through_the_kernel() -> Outcome {
    let calls = &l4::kip().system_calls;
    let links = [calls.thread_switch, calls.ipc, calls.unmap, calls.exchange_registers];
    let flags = flag::TRAP | flag::INTERRUPT | flag::FIXED;
    let thread = raising(move || {
        for link in links {
            arch::idle_call(link, flags);
        }
        let mut registers = Registers { flags, ..Registers::default() };
        traps::TOGGLE_BREAKIN.execute(&mut registers);
        let mut registers = Registers { flags, rax: b'\n'.into(), ..Registers::default() };
        traps::PRINT_CHAR.execute(&mut registers);
        send_label(tester().id(), THROUGH)?;
        Ok(())
    })?;
    let mut steps = 0;
    loop {
        let received = receive(thread.id())?;
        if received.tag.label() == THROUGH {
            break;
        }
        equal("the protocol", received.tag.protocol(), EXCEPTION)?;
        equal("the exception", mr(ExceptionWord::Exception), arch::DEBUG)?;
        steps += 1;
        answer(thread, 0)?;
    }
    thread.join()?;
    check(steps > 6 * 20, format_args!("there are only {steps} steps"))
}

fn flags_survive_the_debugger() -> Outcome {
    spawn(|| {
        let own = flag::ALIGNMENT | flag::NESTED | flag::IDENTIFICATION | flag::DIRECTION;
        let before = Registers { flags: Registers::PATTERN.flags | own, ..Registers::PATTERN };
        let mut after = before;
        traps::ENTER_BUT_GO_ON.execute(&mut after);
        after.flags &= !flag::IO_PRIVILEGE;
        equal("the registers", after, before)
    })?
    .join()
}

fn syscall_at_the_end_of_user_memory() -> Outcome {
    let last_page = memory::last_user_page()?;
    let last = last_page + PAGE_SIZE - 1;
    // SYSCALL is the last instruction that there can be.
    put_code(&traps::SYSCALL_CODE, 2);
    let plan = plan().space(Space::create()?).pager(tester().id()).exception_handler(tester().id());
    let thread = plan.spawn(move || {
        memory::execute(last - 1);
        Ok(())
    })?;
    // In another space the pager is asked for the code of the test as well, if the processor looks ahead.
    equal("the protocol", receive(thread.id())?.tag.protocol(), PAGE_FAULT)?;
    equal("the address", utcb().mr(1), last - 1)?;
    send_items(thread.id(), &[page(0).map_to(last_page, Rights::READ_EXECUTE)])?;
    let received = receive(thread.id())?;
    equal("the protocol", received.tag.protocol(), EXCEPTION)?;
    let number = mr(ExceptionWord::Exception);
    check(arch::BARE_SYSCALL_EXCEPTIONS.contains(&number), format_args!("the exception is {number}"))?;
    equal("the instruction", mr(ExceptionWord::Rip), last - 1)?;
    // What lies behind it is nobody's.
    set_mr(ExceptionWord::Rip, last + 1);
    answer(thread, 1)?;
    let received = receive(thread.id())?;
    check(matches!(received.tag.protocol(), PAGE_FAULT | EXCEPTION), format_args!("behind the end: {:?}", received.tag))
}

// --- model-specific registers ---

fn on_msr(number: Word) -> Registers {
    Registers { rcx: 0xFFFF_FFFF_0000_0000 | number, ..Registers::PATTERN }
}

fn without_ports(registers: Registers) -> Registers {
    Registers { flags: registers.flags & !flag::IO_PRIVILEGE, ..registers }
}

/// A thread of the program's space, which is privileged, does not notice that the kernel reads for it.
fn privileged_spaces_read_registers() -> Outcome {
    spawn(|| {
        let before = on_msr(traps::EFER);
        let mut after = before;
        traps::rdmsr(&mut after);
        equal("the bits of long mode", after.rax & traps::EFER_SET, traps::EFER_SET)?;
        equal("the high halves", (after.rax >> 32, after.rdx), (0, 0))?;
        equal("the others", without_ports(after), Registers { rax: after.rax, rdx: after.rdx, ..before })
    })?
    .join()
}

fn privileged_spaces_write_registers() -> Outcome {
    spawn(|| {
        for value in [0x0000_1234_9ABC_DEF0, 0xFFFF_FFFF_8765_4321, 0] {
            let before = Registers {
                rax: 0xAAAA_AAAA_0000_0000 | (value & 0xFFFF_FFFF),
                rdx: 0xBBBB_BBBB_0000_0000 | (value >> 32),
                ..on_msr(traps::KERNEL_GS_BASE)
            };
            let mut after = before;
            traps::wrmsr(&mut after);
            equal("the registers", without_ports(after), before)?;
            let mut read = on_msr(traps::KERNEL_GS_BASE);
            traps::rdmsr(&mut read);
            equal("both halves", (read.rdx, read.rax), (value >> 32, value & 0xFFFF_FFFF))?;
        }
        Ok(())
    })?
    .join()
}

/// The exception of an instruction that the kernel did not carry out, which the thread skips.
fn skip_msr_exception(thread: Thread, ip: Word) -> Outcome {
    receive_exception(thread, arch::GENERAL_PROTECTION, ip)?;
    equal("the error code", mr(ExceptionWord::ErrorCode), 0)?;
    set_mr(ExceptionWord::Rip, ip + traps::MSR_LEN);
    answer(thread, 1)?;
    thread.join()
}

fn registers_that_refuse_are_exceptions() -> Outcome {
    for round in 0..3 {
        let thread = raising(|| {
            let before = Registers { rax: 1, rdx: 0, ..on_msr(traps::VM_HSAVE_PA) };
            let mut after = before;
            traps::wrmsr(&mut after);
            equal("the registers", without_ports(after), before)
        })?;
        skip_msr_exception(thread, traps::wrmsr_ip()).within(format_args!("round {round}"))?;
    }
    Ok(())
}

fn other_spaces_have_no_registers() -> Outcome {
    let space = Space::create()?;
    type Access = fn(&mut Registers);
    let accesses: [(Access, Word); 2] = [(traps::rdmsr, traps::rdmsr_ip()), (traps::wrmsr, traps::wrmsr_ip())];
    for (access, ip) in accesses {
        let thread = plan().space(space).exception_handler(tester().id()).spawn(move || {
            let before = on_msr(traps::KERNEL_GS_BASE);
            let mut after = before;
            access(&mut after);
            equal("the registers", without_ports(after), before)
        })?;
        skip_msr_exception(thread, ip)?;
    }
    Ok(())
}

// --- segment registers ---

fn bad_selectors_are_left_out() -> Outcome {
    spawn(|| {
        let id = utcb().my_global_id();
        for &(name, load) in traps::SEGMENT_LOADS {
            for selector in traps::BAD_SELECTORS {
                page(0).fill(|_| 0);
                page(0).set(selector);
                arch::load_data_segments(0);
                load(selector, page(0).address());
                let what = format_args!("{name}, selector {selector:#x}");
                equal("the segment registers", traps::segments(), traps::FRESH_SEGMENTS).within(what)?;
                equal("MyGlobalId", utcb().my_global_id(), id).within(what)?;
            }
        }
        Ok(())
    })?
    .join()
}

fn memory_of_a_selector_is_still_checked() -> Outcome {
    let thread = raising(|| {
        traps::load_segment_from(arch::NON_CANONICAL);
        Ok(())
    })?;
    let ip = arch::address_of!(traps::load_segment_from);
    receive_exception(thread, arch::GENERAL_PROTECTION, ip)?;
    equal("the error code", mr(ExceptionWord::ErrorCode), 0)?;
    // mov ds, [rdi]
    set_mr(ExceptionWord::Rip, ip + 2);
    answer(thread, 1)?;
    thread.join()
}
