//! The debugger's services for programs, in a kernel without debugger. What is printed is seen on the console; each line
//! begins with the chapter's name.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use l4::protocol::PAGE_FAULT;
use l4::thread::{self, Registers as ThreadRegisters};
use l4::{ExregsControl, MR_COUNT, Rights, ScheduleResult, ThreadId, Time, Word, kdb, utcb};

use super::exceptions::{answer, mr, raising, receive_exception};
use crate::arch::traps::{self, DebuggerCall};
use crate::arch::{self, Registers};
use crate::failure::{Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory::{self, PAGE_SIZE, at, page, put_code};
use crate::world::messages::{receive, send_items};
use crate::world::spaces::Space;
use crate::world::threads::{Thread, plan, spawn, supervisor, tester};

chapter! { debugger:
    "Kernel debugger, output" => [
        characters_and_texts_are_printed,
        output_changes_no_register,
        texts_that_are_not_mapped_are_reported,
        long_texts_do_not_keep_others: "who wakes up outranks the printer on the same processor",
        output_works_in_every_space,
    ],
    "Kernel debugger, input" => [
        read_finds_no_character,
        blocked_reader_lets_others_run,
        blocked_reader_can_be_cut_off,
        blocked_reader_can_be_halted_and_deleted,
    ],
    "Kernel debugger, stops" => [
        stop_is_an_exception,
        stop_without_a_handler_goes_on,
        stop_with_a_text_says_it,
        stops_that_go_on,
        toggle_goes_on,
        stop_with_an_absent_handler_halts,
        calls_on_a_border_of_pages,
        breakpoint_before_a_missing_page,
    ],
}

const LINE: &CStr = c"debugger: a line\n";

fn characters_and_texts_are_printed() -> Outcome {
    b"debugger: by characters\n".iter().for_each(|&byte| kdb::print_char(byte));
    kdb::print_string(c"debugger: by a text\n");
    kdb::print_string(c"");
    kdb::print_string(c"debugger: two\ndebugger: lines\n");
    Ok(())
}

/// Makes the call with a pattern in all registers but rax; what they hold afterwards, without the flags, which the
/// instruction behind the breakpoint may change.
fn around(call: DebuggerCall, rax: Word) -> (Registers, Registers) {
    let before = Registers { rax, ..Registers::PATTERN };
    let mut after = before;
    call.execute(&mut after);
    (before, Registers { flags: before.flags, ..after })
}

fn output_changes_no_register() -> Outcome {
    spawn(|| {
        let text = LINE.as_ptr().addr() as Word;
        for (call, rax) in [(traps::PRINT_STRING, text), (traps::PRINT_CHAR, 0x5500 + Word::from(b'\n'))] {
            let (before, after) = around(call, rax);
            equal(call.name, after, before)?;
        }
        let u = utcb();
        (0..MR_COUNT).for_each(|i| u.set_mr(i, 0x77 + i as Word));
        u.set_error_code(0xEC);
        kdb::print_string(LINE);
        equal("ErrorCode", u.error_code(), 0xEC)?;
        (0..MR_COUNT).try_for_each(|i| equal(format_args!("MR{i}"), u.mr(i), 0x77 + i as Word))
    })?
    .join()
}

fn texts_that_are_not_mapped_are_reported() -> Outcome {
    // A fault would come to the supervisor, and fail the test.
    let reader = |address: Word| {
        spawn(move || {
            kdb::print_string(c"debugger: at an address: ");
            around(traps::PRINT_STRING, address);
            kdb::print_char(b'\n');
            Ok(())
        })
    };
    for address in [0, at(0), arch::NON_CANONICAL, arch::KERNEL_ADDRESS, Word::MAX] {
        reader(address)?.join().within(format_args!("{address:#x}"))?;
    }
    // The end of a page, and nothing behind.
    page(0).fill(|_| b'z');
    let mapper = plan().pager(tester().id()).spawn(|| {
        memory::read(at(0));
        Ok(())
    })?;
    receive(mapper.id())?;
    send_items(mapper.id(), &[page(0).map_to(at(0), Rights::READ)])?;
    mapper.join()?;
    reader(at(PAGE_SIZE - 3))?.join()
}

fn long_texts_do_not_keep_others() -> Outcome {
    const LETTERS: usize = 400;
    // More than one at the end of a print, and one between two.
    const TURNS_MIN: u64 = 3;
    static TURNS: AtomicU64 = AtomicU64::new(0);
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    IS_OVER.store(false, Relaxed);
    page(0).fill(|offset| match offset {
        0..LETTERS if offset % 100 == 99 => b'\n',
        0..LETTERS => b'd',
        _ => 0,
    });
    // It outranks the printer, and wakes up while that prints.
    let other = spawn(|| {
        while !IS_OVER.load(Relaxed) {
            l4::time::sleep(Time::period_us(10));
            TURNS.fetch_add(1, Relaxed);
        }
        Ok(())
    })?;
    let address = page(0).address();
    let is_interrupted = || {
        let before = TURNS.load(Relaxed);
        around(traps::PRINT_STRING, address);
        TURNS.load(Relaxed) - before >= TURNS_MIN
    };
    // Until it prints for longer than the other sleeps.
    let is_seen = (0..100).any(|_| is_interrupted());
    IS_OVER.store(true, Relaxed);
    other.join()?;
    check(is_seen, "nobody else runs while a text is printed")
}

fn output_works_in_every_space() -> Outcome {
    for (name, space) in Space::own_and_other()? {
        let thread = plan().space(space).spawn(|| {
            kdb::print_string(c"debugger: from a space\n");
            Ok(())
        })?;
        thread.join().within(name)?;
    }
    Ok(())
}

// --- input ---

fn read_finds_no_character() -> Outcome {
    spawn(|| {
        let (before, after) = around(traps::READ_CHAR, 0x1234_5678_9ABC_DEF0);
        // Whoever types meanwhile is heard.
        check(after.rax == Word::MAX || after.rax <= 0xFF, format_args!("rax is {:#x}", after.rax))?;
        equal("the others", Registers { rax: before.rax, ..after }, before)
    })?
    .join()
}

/// A thread that waits for a character, and then finds its registers as they were.
fn reader() -> Outcome<Thread> {
    raising(|| {
        let u = utcb();
        (0..MR_COUNT).for_each(|i| u.set_mr(i, 0x3300 + i as Word));
        u.set_error_code(0xEC);
        u.set_br(0, 0);
        let (before, after) = around(traps::READ_CHAR_BLOCKED, 0x1234_5678_9ABC_DEF0);
        equal("the registers", after, before)?;
        equal("BR0 and ErrorCode", (u.br(0), u.error_code()), (0, 0xEC))?;
        (0..MR_COUNT).try_for_each(|i| equal(format_args!("MR{i}"), u.mr(i), 0x3300 + i as Word))
    })
}

/// Has the reader go on behind its breakpoint, as if there had been a character.
fn release(reader: Thread) -> Outcome {
    let ip = traps::READ_CHAR_BLOCKED.ip() + traps::BREAKPOINT_LEN;
    reader.exchange(ExregsControl::START | ExregsControl::IP, ThreadRegisters { ip, ..ThreadRegisters::ZERO })?;
    reader.join()
}

fn blocked_reader_lets_others_run() -> Outcome {
    // It has a higher priority than the tester.
    let reader = reader()?;
    for _ in 0..5 {
        let state = reader.state()?;
        check(
            matches!(state, ScheduleResult::Waiting | ScheduleResult::Running),
            format_args!("the state is {state:?}"),
        )?;
        equal("the instruction", thread::inspect(reader.id())?.old.ip, traps::READ_CHAR_BLOCKED.ip())?;
        l4::time::sleep(Time::period_us(1700));
    }
    release(reader)
}

fn blocked_reader_can_be_cut_off() -> Outcome {
    let reader = reader()?;
    // A cancelled wait begins anew.
    for control in [ExregsControl::ABORT_SEND, ExregsControl::ABORT_RECEIVE, ExregsControl::ABORT_IPC] {
        thread::abort(reader.id(), control)?;
        equal("the instruction", thread::inspect(reader.id())?.old.ip, traps::READ_CHAR_BLOCKED.ip())?;
    }
    release(reader)
}

fn blocked_reader_can_be_halted_and_deleted() -> Outcome {
    let halted = reader()?;
    let halt = ExregsControl::APPLY_HALT | ExregsControl::HALT;
    halted.exchange(halt, ThreadRegisters::ZERO)?;
    l4::time::sleep(Time::period_us(3000));
    check(thread::inspect(halted.id())?.state.was_halted(), "it is not halted any more")?;
    halted.exchange(ExregsControl::APPLY_HALT, ThreadRegisters::ZERO)?;
    release(halted)?;
    let deleted = reader()?;
    deleted.delete()?;
    l4::time::sleep(Time::period_us(3000));
    equal("the state", deleted.state().ok(), None)
}

// --- stops ---

/// A thread that makes the call and then finds its registers as they were.
fn stopping(handler: ThreadId, call: DebuggerCall) -> Outcome<Thread> {
    plan().exception_handler(handler).spawn(move || {
        let (before, after) = around(call, 0xAAAA);
        equal("the registers", after, before)
    })
}

fn stop_is_an_exception() -> Outcome {
    for call in [traps::ENTER, traps::BREAKPOINT, traps::CLEAR_PAGE] {
        let thread = stopping(tester().id(), call)?;
        let ip = call.ip() + traps::BREAKPOINT_LEN;
        receive_exception(thread, traps::BREAKPOINT_NUMBER, ip).within(call.name)?;
        equal("the error code", mr(l4::ExceptionWord::ErrorCode), 0)?;
        equal("rax", mr(l4::ExceptionWord::Rax), 0xAAAA)?;
        answer(thread, 0)?;
        thread.join().within(call.name)?;
    }
    // The long form of the instruction is no call, and two bytes long.
    let thread = raising(|| {
        traps::int(3);
        Ok(())
    })?;
    receive_exception(thread, traps::BREAKPOINT_NUMBER, traps::int_ip(3) + traps::INT_LEN)?;
    answer(thread, 0)?;
    thread.join()
}

fn stop_without_a_handler_goes_on() -> Outcome {
    for call in [traps::ENTER, traps::BREAKPOINT, traps::CLEAR_PAGE] {
        stopping(ThreadId::NIL, call)?.join().within(call.name)?;
    }
    plan()
        .exception_handler(ThreadId::NIL)
        .spawn(|| {
            traps::int(3);
            Ok(())
        })?
        .join()
}

fn stop_with_a_text_says_it() -> Outcome {
    let body = || {
        traps::enter_with_text();
        Ok(())
    };
    plan().exception_handler(ThreadId::NIL).spawn(body)?.join()?;
    let thread = raising(body)?;
    receive(thread.id())?;
    equal("the exception", mr(l4::ExceptionWord::Exception), traps::BREAKPOINT_NUMBER)?;
    // The next instruction leads over the text's address.
    answer(thread, 0)?;
    thread.join()
}

fn stops_that_go_on() -> Outcome {
    for call in [traps::ENTER_BUT_GO_ON, traps::BREAKPOINT_BUT_GO_ON] {
        // An exception would come to the supervisor, and fail the test.
        stopping(supervisor(), call)?.join().within(call.name)?;
    }
    Ok(())
}

fn toggle_goes_on() -> Outcome {
    stopping(supervisor(), traps::TOGGLE_BREAKIN)?.join()
}

fn stop_with_an_absent_handler_halts() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let thread = stopping(nobody, traps::ENTER)?;
    equal("the state", thread.state()?, ScheduleResult::Inactive)?;
    // Behind the breakpoint.
    let found = thread.exchange(ExregsControl::APPLY_HALT, ThreadRegisters::ZERO)?;
    equal("the instruction", found.old.ip, traps::ENTER.ip() + traps::BREAKPOINT_LEN)?;
    thread.join()
}

// --- where code lies ---

/// A thread that calls the code at an address of the playground, and has no pages there.
fn calling(address: Word) -> Outcome<Thread> {
    plan().pager(tester().id()).exception_handler(tester().id()).spawn(move || {
        memory::execute(address);
        Ok(())
    })
}

/// Maps a page of code after a fault there.
#[track_caller]
fn map_code(thread: Thread, index: usize, place: Word) -> Outcome {
    let fault = receive(thread.id())?;
    equal("the protocol", fault.tag.protocol(), PAGE_FAULT)?;
    equal("the page", utcb().mr(1) & !(PAGE_SIZE - 1), place)?;
    send_items(thread.id(), &[page(index).map_to(place, Rights::READ_EXECUTE)])?;
    Ok(())
}

fn calls_on_a_border_of_pages() -> Outcome {
    let code = &traps::PRINT_LINE_CODE;
    for before in 1..code.len() {
        let start = put_code(code, before);
        // Each time elsewhere, where nothing is mapped yet.
        let place = at(before as Word * 0x10000);
        let thread = calling(place + start)?;
        map_code(thread, 0, place)?;
        // The kernel does not ask for the page, but takes what is there: the bytes on it count if they are.
        let is_split = |breakpoint: usize| before == breakpoint + 1 || before == breakpoint + 2;
        if is_split(2) || is_split(7) {
            let received = receive(thread.id())?;
            equal("the protocol", received.tag.protocol(), l4::protocol::EXCEPTION)?;
            equal("the exception", mr(l4::ExceptionWord::Exception), traps::BREAKPOINT_NUMBER)?;
            answer(thread, 0)?;
        }
        map_code(thread, 1, place + PAGE_SIZE)?;
        thread.join().within(format_args!("{before} bytes before the border"))?;
        // With both pages there.
        let thread = calling(place + start)?;
        thread.join().within(format_args!("{before} bytes before the border, again"))?;
    }
    Ok(())
}

fn breakpoint_before_a_missing_page() -> Outcome {
    let start = put_code(&traps::BREAKPOINT_CODE, 1);
    let thread = calling(at(start))?;
    map_code(thread, 0, at(0))?;
    receive_exception(thread, traps::BREAKPOINT_NUMBER, at(PAGE_SIZE))?;
    answer(thread, 0)?;
    map_code(thread, 1, at(PAGE_SIZE))?;
    thread.join()
}
