//! Exceptions, and what else a program may do to itself.

use l4::message::Msg;
use l4::protocol::{EXCEPTION, PAGE_FAULT, exception_tag};
use l4::thread::{self, Registers as ThreadRegisters};
use l4::{EXCEPTION_WORDS, ExceptionWord, ExregsControl, MR_COUNT, MsgTag, ScheduleResult, ThreadId, Word, ipc, utcb};

use crate::arch::{self, Raise, Registers, flag};
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory;
use crate::world::messages::{equal_tags, receive, send_label};
use crate::world::threads::{PATIENCE, Thread, plan, spawn, supervisor, tester};

chapter! { exceptions:
    "X.2, Exception protocol" => [
        exceptions_reach_the_handler,
        message_shows_all_registers,
        reply_sets_all_registers,
        short_reply_changes_some_registers,
        reply_changes_user_flags_alone,
        virtual_registers_survive,
        nil_handler_halts_the_thread,
        absent_handler_halts_the_thread,
        cancelled_exception_is_raised_again,
        debug_exception_of_a_single_step,
    ],
    "X.2, Exception protocol, instruction pointers" => [
        syscall_outside_the_stubs,
        non_canonical_ip_by_exchange_registers,
        non_canonical_ip_by_a_start_message,
        non_canonical_ip_by_an_exception_reply,
        non_canonical_ip_of_a_blocked_thread,
        kernel_address_as_ip,
        non_canonical_sp_does_no_harm,
    ],
    "X.2, Exception protocol, addresses" => [non_canonical_access],
}

/// A thread whose exceptions the tester handles.
#[track_caller]
pub(super) fn raising<F: Fn() -> Outcome + Copy + Send + 'static>(body: F) -> Outcome<Thread> {
    plan().exception_handler(tester().id()).spawn(body)
}

pub(super) fn mr(word: ExceptionWord) -> Word {
    utcb().mr(word as usize)
}

pub(super) fn set_mr(word: ExceptionWord, value: Word) {
    utcb().set_mr(word as usize, value);
}

/// Receives the thread's exception message.
#[track_caller]
pub(super) fn receive_exception(thread: Thread, number: Word, ip: Word) -> Outcome {
    let received = receive(thread.id())?;
    equal_tags("the tag", received.tag, exception_tag())?;
    equal("the exception", mr(ExceptionWord::Exception), number)?;
    equal("the instruction", mr(ExceptionWord::Rip), ip)
}

/// Answers with what is in the message registers.
#[track_caller]
pub(super) fn answer(thread: Thread, untyped: usize) -> Outcome {
    utcb().set_tag(MsgTag::new(0, untyped, 0));
    ipc::send_timeout(thread.id(), PATIENCE)?;
    Ok(())
}

fn exceptions_reach_the_handler() -> Outcome {
    for raise in arch::EXCEPTIONS {
        check_raise(raise).within(raise.name)?;
    }
    Ok(())
}

fn check_raise(raise: Raise) -> Outcome {
    let Raise { number, error_codes, skip, .. } = raise;
    let thread = raising(move || {
        raise.execute();
        Ok(())
    })?;
    let ip = raise.ip();
    receive_exception(thread, number, ip)?;
    let error_code = mr(ExceptionWord::ErrorCode);
    check(error_codes.contains(&error_code), format_args!("the error code is {error_code:#x}"))?;
    check(mr(ExceptionWord::Rsp) < thread.stack_top(), "the stack pointer is elsewhere")?;
    set_mr(ExceptionWord::Rip, ip + skip);
    answer(thread, EXCEPTION_WORDS)?;
    thread.join()
}

/// A thread that raises an invalid opcode with [`Registers::PATTERN`] and expects to find `expected` behind it.
#[track_caller]
fn with_pattern(expected: Registers) -> Outcome<Thread> {
    raising(move || {
        let mut registers = Registers::PATTERN;
        arch::around_invalid_opcode(&mut registers);
        registers.flags &= !flag::IO_PRIVILEGE;
        equal("the registers afterwards", registers, expected)
    })
}

fn skip_invalid_opcode() {
    set_mr(ExceptionWord::Rip, arch::invalid_opcode_ip() + arch::INVALID_OPCODE_LEN);
}

fn message_shows_all_registers() -> Outcome {
    let thread = with_pattern(Registers::PATTERN)?;
    receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
    for (word, value) in Registers::PATTERN.exception_words() {
        equal(format_args!("{word:?}"), mr(word), value)?;
    }
    // RF is the processor's own.
    let resume = 1 << 16;
    let flags = mr(ExceptionWord::Rflags) & !(flag::IO_PRIVILEGE | resume);
    equal("the flags", flags, Registers::PATTERN.flags)?;
    skip_invalid_opcode();
    answer(thread, EXCEPTION_WORDS)?;
    thread.join()
}

fn reply_sets_all_registers() -> Outcome {
    let p = Registers::PATTERN;
    let expected = Registers {
        rax: !p.rax,
        rbx: !p.rbx,
        rcx: !p.rcx,
        rdx: !p.rdx,
        rsi: !p.rsi,
        rdi: !p.rdi,
        rbp: !p.rbp,
        r8: !p.r8,
        r9: !p.r9,
        r10: !p.r10,
        r11: !p.r11,
        r12: !p.r12,
        r13: !p.r13,
        r14: !p.r14,
        r15: !p.r15,
        flags: flag::INTERRUPT | flag::FIXED | flag::CARRY,
    };
    let thread = with_pattern(expected)?;
    receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
    for (word, value) in expected.exception_words() {
        set_mr(word, value);
    }
    set_mr(ExceptionWord::Rflags, expected.flags);
    // Ignored.
    set_mr(ExceptionWord::Exception, Word::MAX);
    set_mr(ExceptionWord::ErrorCode, Word::MAX);
    skip_invalid_opcode();
    answer(thread, EXCEPTION_WORDS)?;
    thread.join()
}

fn short_reply_changes_some_registers() -> Outcome {
    let expected = Registers { rbx: 0xB0B, ..Registers::PATTERN };
    let thread = with_pattern(expected)?;
    receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
    (1..MR_COUNT).for_each(|i| utcb().set_mr(i, 0x0BAD));
    set_mr(ExceptionWord::Rbx, 0xB0B);
    skip_invalid_opcode();
    answer(thread, 2)?;
    thread.join()
}

fn reply_changes_user_flags_alone() -> Outcome {
    let all = Word::from(l4::USER_FLAGS_MASK) | flag::INTERRUPT | flag::FIXED;
    let thread = with_pattern(Registers { flags: all, ..Registers::PATTERN })?;
    receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
    set_mr(ExceptionWord::Rflags, Word::MAX);
    skip_invalid_opcode();
    answer(thread, EXCEPTION_WORDS)?;
    thread.join()?;
    let none = flag::INTERRUPT | flag::FIXED;
    let thread = with_pattern(Registers { flags: none, ..Registers::PATTERN })?;
    receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
    set_mr(ExceptionWord::Rflags, 0);
    skip_invalid_opcode();
    answer(thread, EXCEPTION_WORDS)?;
    thread.join()
}

fn virtual_registers_survive() -> Outcome {
    let thread = raising(|| {
        let u = utcb();
        (0..MR_COUNT).for_each(|i| u.set_mr(i, 0x5500 + i as Word));
        u.set_br(0, 0);
        u.set_error_code(0xEC);
        let mut registers = Registers::PATTERN;
        arch::around_invalid_opcode(&mut registers);
        equal("BR0 and ErrorCode", (u.br(0), u.error_code()), (0, 0xEC))?;
        (0..MR_COUNT).try_for_each(|i| equal(format_args!("MR{i}"), u.mr(i), 0x5500 + i as Word))
    })?;
    receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
    skip_invalid_opcode();
    answer(thread, 63)?;
    thread.join()
}

fn raise_invalid_opcode() -> Outcome {
    let mut registers = Registers::PATTERN;
    arch::around_invalid_opcode(&mut registers);
    Ok(())
}

fn nil_handler_halts_the_thread() -> Outcome {
    let thread = plan().exception_handler(ThreadId::NIL).spawn(raise_invalid_opcode)?;
    equal("the state", thread.state()?, ScheduleResult::Inactive)?;
    // It can go on behind the instruction.
    let ip = arch::invalid_opcode_ip() + arch::INVALID_OPCODE_LEN;
    let control = ExregsControl::IP | ExregsControl::APPLY_HALT;
    let found = thread.exchange(control, ThreadRegisters { ip, ..ThreadRegisters::ZERO })?;
    equal("the instruction", found.old.ip, arch::invalid_opcode_ip())?;
    thread.join()
}

fn absent_handler_halts_the_thread() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let thread = plan().exception_handler(nobody).spawn(raise_invalid_opcode)?;
    equal("the state", thread.state()?, ScheduleResult::Inactive)
}

fn cancelled_exception_is_raised_again() -> Outcome {
    let thread = raising(raise_invalid_opcode)?;
    for _ in 0..3 {
        receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
        thread::abort(thread.id(), ExregsControl::ABORT_IPC)?;
    }
    receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
    skip_invalid_opcode();
    answer(thread, EXCEPTION_WORDS)?;
    thread.join()
}

fn debug_exception_of_a_single_step() -> Outcome {
    let thread = raising(|| {
        let mut registers = Registers { flags: Registers::PATTERN.flags | flag::TRAP, ..Registers::PATTERN };
        arch::around_kernel_interface(&mut registers);
        Ok(())
    })?;
    let mut last = 0;
    for _ in 0..5 {
        let received = receive(thread.id())?;
        equal_tags("the tag", received.tag, exception_tag())?;
        equal("the exception", mr(ExceptionWord::Exception), arch::DEBUG)?;
        check(mr(ExceptionWord::Rip) != last, "no step was made")?;
        last = mr(ExceptionWord::Rip);
        answer(thread, EXCEPTION_WORDS)?;
    }
    Ok(())
}

// --- instruction pointers ---

fn syscall_outside_the_stubs() -> Outcome {
    let thread = raising(|| {
        arch::bare_syscall();
        Ok(())
    })?;
    let received = receive(thread.id())?;
    equal_tags("the tag", received.tag, exception_tag())?;
    let number = mr(ExceptionWord::Exception);
    check(arch::BARE_SYSCALL_EXCEPTIONS.contains(&number), format_args!("the exception is {number}"))?;
    equal("the instruction", mr(ExceptionWord::Rip), arch::address_of!(arch::bare_syscall))?;
    set_mr(ExceptionWord::Rip, arch::address_of!(arch::bare_syscall) + arch::SYSCALL_LEN);
    answer(thread, EXCEPTION_WORDS)?;
    thread.join()
}

/// Instruction pointers that do not exist: not canonical, each in its way.
const NO_IPS: [Word; 4] = [arch::NON_CANONICAL, 1 << 47, 0x7FFF_8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF];

/// Fails unless the thread, sent to an address that does not exist, has raised an exception or is halted.
#[track_caller]
fn check_gone_astray(thread: Thread, ip: Word) -> Outcome {
    if thread.state()? == ScheduleResult::Inactive {
        return Ok(());
    }
    let received = receive(thread.id())?;
    equal_tags("the tag", received.tag, exception_tag())?;
    equal("the exception", mr(ExceptionWord::Exception), arch::GENERAL_PROTECTION)?;
    equal("the instruction", mr(ExceptionWord::Rip), ip)?;
    // The way back.
    set_mr(ExceptionWord::Rip, arch::address_of!(come_back));
    set_mr(ExceptionWord::Rsp, thread.stack_top());
    answer(thread, EXCEPTION_WORDS)?;
    equal("the label of who came back", receive(thread.id())?.tag.label(), BACK)
}

const BACK: Word = 0xBAC;

extern "C" fn come_back() -> ! {
    // If it does not get through, the tester says so.
    let _ = send_label(tester().id(), BACK);
    l4::time::sleep_forever()
}

fn non_canonical_ip_by_exchange_registers() -> Outcome {
    for ip in NO_IPS {
        let thread = raising(|| l4::time::sleep_forever())?;
        thread.send_to(ip)?;
        check_gone_astray(thread, ip).within(format_args!("{ip:#x}"))?;
        thread.delete()?;
    }
    Ok(())
}

fn non_canonical_ip_by_a_start_message() -> Outcome {
    for ip in NO_IPS {
        let thread = Thread::reserve()?;
        let (id, me) = (thread.id(), tester().id());
        thread::thread_control(id, supervisor(), supervisor(), me, Some(thread.utcb_location()))?;
        thread.send_start_to(id, ip)?;
        l4::schedule::set_priority(id, 110)?;
        // It has no handler.
        equal("the state", thread.state()?, ScheduleResult::Inactive).within(format_args!("{ip:#x}"))?;
    }
    Ok(())
}

fn non_canonical_ip_by_an_exception_reply() -> Outcome {
    for ip in NO_IPS {
        let thread = raising(raise_invalid_opcode)?;
        receive_exception(thread, arch::INVALID_OPCODE, arch::invalid_opcode_ip())?;
        set_mr(ExceptionWord::Rip, ip);
        answer(thread, EXCEPTION_WORDS)?;
        check_gone_astray(thread, ip).within(format_args!("{ip:#x}"))?;
        thread.delete()?;
    }
    Ok(())
}

fn non_canonical_ip_of_a_blocked_thread() -> Outcome {
    // The end of an IPC leads there, by whatever way the kernel returns from it.
    for ip in NO_IPS {
        let thread = raising(|| receive(tester().id()).map(drop).map_err(Failure::from))?;
        thread.exchange(ExregsControl::IP, ThreadRegisters { ip, ..ThreadRegisters::ZERO })?;
        Msg::new(0).load();
        ipc::send_timeout(thread.id(), PATIENCE)?;
        check_gone_astray(thread, ip).within(format_args!("{ip:#x}"))?;
        thread.delete()?;
        let thread = raising(|| {
            ipc::receive(tester().id())?;
            Ok(())
        })?;
        thread.exchange(ExregsControl::IP, ThreadRegisters { ip, ..ThreadRegisters::ZERO })?;
        Msg::new(0).load();
        // A call: the thread runs at once, and its exception is the answer.
        let received = ipc::call(thread.id())?;
        equal("the protocol", received.tag.protocol(), EXCEPTION)?;
        thread.delete()?;
    }
    Ok(())
}

fn kernel_address_as_ip() -> Outcome {
    // In user mode nothing is there: a page fault, which no mapping mends.
    for ip in [arch::KERNEL_ADDRESS, Word::MAX & !0xFFF, Word::MAX] {
        let thread =
            plan().pager(tester().id()).exception_handler(tester().id()).spawn(|| l4::time::sleep_forever())?;
        thread.send_to(ip)?;
        let received = receive(thread.id())?;
        equal("the protocol", received.tag.protocol(), PAGE_FAULT).within(format_args!("{ip:#x}"))?;
        equal("address and ip", (utcb().mr(1), utcb().mr(2)), (ip, ip))?;
        thread.delete()?;
    }
    Ok(())
}

fn non_canonical_sp_does_no_harm() -> Outcome {
    for sp in [arch::NON_CANONICAL, arch::KERNEL_ADDRESS, 0, 1, Word::MAX] {
        let thread = spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))?;
        thread.exchange(ExregsControl::SP, ThreadRegisters { sp, ..ThreadRegisters::ZERO })?;
        equal("the stack pointer", thread::inspect(thread.id())?.old.sp, sp)?;
        thread.delete()?;
    }
    // A thread that never looks at its stack does not notice.
    let thread = plan().pager(tester().id()).exception_handler(tester().id()).spawn(|| l4::time::sleep_forever())?;
    for sp in [arch::NON_CANONICAL, arch::KERNEL_ADDRESS, 8] {
        let control = ExregsControl::START | ExregsControl::IP | ExregsControl::SP;
        let ip = arch::address_of!(arch::start_probe);
        thread.exchange(control, ThreadRegisters { ip, sp, ..ThreadRegisters::ZERO })?;
        let received = receive(thread.id())?;
        let is_fault = matches!(received.tag.protocol(), PAGE_FAULT | EXCEPTION);
        check(is_fault, format_args!("{sp:#x}: {:?}", received.tag))?;
    }
    Ok(())
}

fn non_canonical_access() -> Outcome {
    let thread = raising(|| {
        memory::read(arch::NON_CANONICAL);
        Ok(())
    })?;
    receive_exception(thread, arch::GENERAL_PROTECTION, arch::address_of!(arch::read_at))?;
    equal("the error code", mr(ExceptionWord::ErrorCode), 0)
}
