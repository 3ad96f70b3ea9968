//! The parameters of ExchangeRegisters: ids that name nobody, every bit of the control word, odd values.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::thread::{self as threads_of, Exchanged, Registers, inspect};
use l4::time::sleep_forever;
use l4::{
    ExregsControl, ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2, ScheduleResult, SysError, THREAD_ID_BITS, ThreadId, Word,
    kip, utcb,
};

use crate::arch;
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::control::{Control, MARK};
use crate::world::memory::at;
use crate::world::messages::{receive, send_label};
use crate::world::placement;
use crate::world::spaces::Space;
use crate::world::threads::{Thread, plan, raw_inspect, spawn, spawn_later, supervisor, tester};

chapter! { exchange_registers:
    "X.2, ExchangeRegisters, identifiers" => [
        special_ids_name_nobody,
        numbers_of_nobody,
        local_ids_of_nobody,
        local_ids_of_another_space,
        forged_my_global_id_is_believed_by_nobody,
        other_form_of_the_id_comes_back,
    ],
    "X.2, ExchangeRegisters, control word" => [
        nothing_set_changes_nothing,
        old_values_come_with_and_without_d,
        undefined_bits_are_ignored,
        control_transfer_bits_are_ignored,
        sp_alone,
        ip_alone,
        flags_alone,
        handle_alone,
        pager_alone,
        all_at_once,
        halt_without_h_is_ignored: ORDER,
        resuming_what_runs_changes_nothing,
        halting_twice_is_halting_once: ORDER,
        halt_and_registers_at_once,
    ],
    "X.2, ExchangeRegisters, values" => [
        handle_takes_any_word,
        pager_takes_any_word,
        ip_and_sp_take_any_word,
        registers_of_a_halted_thread_count_when_it_goes_on: ORDER,
        thread_can_halt_itself,
        thread_can_set_its_own_handle_and_pager,
        success_leaves_error_code,
    ],
}

const ORDER: &str = "a thread of lower priority does not run yet";

/// Fails unless all forms of the call find nobody, with all results zero.
#[track_caller]
fn check_nobody(id: ThreadId) -> Outcome {
    utcb().set_error_code(MARK);
    let out = raw_inspect(id);
    let words = [out.thread.raw(), out.control, out.sp, out.ip, out.flags, out.handle, out.pager.raw()];
    equal("the results", words, [0; 7])?;
    equal("ErrorCode", utcb().error_code(), SysError::InvalidThread.raw().into())?;
    equal("a halt", threads_of::stop(id).map(drop), Err(SysError::InvalidThread))?;
    equal("a handle", threads_of::set_user_defined_handle_of(id, 1), Err(SysError::InvalidThread))
}

fn special_ids_name_nobody() -> Outcome {
    for id in [ThreadId::NIL, ThreadId::ANY, ThreadId::ANY_LOCAL] {
        check_nobody(id).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn numbers_of_nobody() -> Outcome {
    let (info, me) = (kip::kip().thread_info, tester().id());
    let rows = [
        ThreadId::interrupt(0),
        ThreadId::interrupt(3),
        ThreadId::interrupt(info.system_base() - 1),
        ThreadId::global(info.system_base(), 1),
        ThreadId::global(info.user_base() - 1, 1),
        ThreadId::global(info.user_base(), 2),
        ThreadId::global(me.thread_no(), me.version() + 1),
        ThreadId::global(me.thread_no(), 1 << 31 | me.version()),
        ThreadId::global(me.thread_no() | 1 << THREAD_ID_BITS, me.version()),
        ThreadId::global((1 << THREAD_ID_BITS) - 1, 1),
        ThreadId::global(ThreadId::THREAD_NO_MAX, ThreadId::VERSION_MAX - 1),
        Thread::reserve()?.id(),
    ];
    rows.into_iter().try_for_each(|id| check_nobody(id).within(format_args!("{id:?}")))
}

fn local_ids_of_nobody() -> Outcome {
    let (own, mr0) = (tester().local_id().raw(), l4::UTCB_MR0_OFFSET as Word);
    let area_end = ROOT_UTCB_AREA_BASE + (1 << ROOT_UTCB_AREA_LOG2);
    let rows = [
        64,
        0x1000,
        own + 64,
        own - 64,
        own - mr0,
        Thread::reserve()?.local_id().raw(),
        area_end - l4::UTCB_SIZE as Word + mr0,
        area_end + mr0,
        ROOT_UTCB_AREA_BASE - l4::UTCB_SIZE as Word + mr0,
        at(0) + mr0,
        own | 1 << 32,
        own | 1 << 47,
        own | arch::NON_CANONICAL,
        (1 << 47) - 64,
        arch::NON_CANONICAL,
        arch::KERNEL_ADDRESS,
        Word::MAX - 127,
    ];
    rows.into_iter().try_for_each(|address| check_nobody(ThreadId::local(address)).within(format_args!("{address:#x}")))
}

fn local_ids_of_another_space() -> Outcome {
    // The same local id in two spaces: each finds its own, or nobody.
    let space = Space::create()?;
    let theirs = plan().space(space).spawn(|| sleep_forever())?;
    check_nobody(theirs.local_id()).within("theirs, here")?;
    let ours = spawn(|| sleep_forever())?;
    let judge = plan().space(space).spawn(move || {
        equal("theirs, there", threads_of::global_id_of(theirs.local_id())?, theirs.id())?;
        check_nobody(ours.local_id()).within("ours, there")
    })?;
    judge.join()
}

fn forged_my_global_id_is_believed_by_nobody() -> Outcome {
    // The register is the thread's own memory, and the kernel looks there for whom a local id names.
    for forged in [supervisor(), kip::sigma0_id(), tester().id(), ThreadId::NIL, ThreadId::ANY, ThreadId::ANY_LOCAL] {
        let forger = spawn(move || {
            utcb().set_my_global_id(forged);
            // Sleeping needs to know the own id.
            l4::ipc::receive(tester().id())?;
            Ok(())
        })?;
        check_nobody(forger.local_id()).within(format_args!("{forged:?}"))?;
        equal("its other id", inspect(forger.id())?.other_id, forger.local_id())?;
        equal("the one named", threads_of::global_id_of(tester().local_id())?, tester().id())?;
        forger.delete()?;
    }
    Ok(())
}

fn other_form_of_the_id_comes_back() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let thread = plan().space(space).spawn(|| sleep_forever())?;
        equal("for its global id", inspect(thread.id())?.other_id, thread.local_id()).within(place)?;
    }
    let thread = spawn(|| sleep_forever())?;
    equal("for its local id", inspect(thread.local_id())?.other_id, thread.id())
}

// --- control word ---

/// A thread that waits for a message of the tester.
#[track_caller]
fn waiting() -> Outcome<Thread> {
    spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))
}

/// Values to write, different from those of any thread.
const NEW: Registers = Registers { sp: 0x1234_5678, ip: 0x2345_6789, flags: 0x41, handle: 0x77, pager: ThreadId::ANY };

/// The registers after a call with this control word, which must deliver those before, and what they should be.
#[track_caller]
fn check_written(control: ExregsControl, expected: impl Fn(Registers) -> Registers) -> Outcome {
    let thread = waiting()?;
    let before = inspect(thread.id())?;
    equal("what is delivered", thread.exchange(control, NEW)?, before)?;
    let after = inspect(thread.id())?;
    equal("the registers", after.old, expected(before.old))?;
    equal("the state", after.state, before.state)?;
    equal("the schedule", thread.state()?, ScheduleResult::Waiting)?;
    thread.delete()
}

fn nothing_set_changes_nothing() -> Outcome {
    check_written(ExregsControl::NONE, |old| old)
}

fn old_values_come_with_and_without_d() -> Outcome {
    check_written(ExregsControl::DELIVER, |old| old)?;
    let thread = waiting()?;
    let deliver = |control| -> Outcome<Exchanged> { thread.exchange(control, NEW) };
    equal("without and with d", deliver(ExregsControl::NONE)?, deliver(ExregsControl::DELIVER)?)
}

fn undefined_bits_are_ignored() -> Outcome {
    for bit in 12..Word::BITS {
        check_written(ExregsControl::from_raw(1 << bit), |old| old).within(format_args!("bit {bit}"))?;
        crate::world::threads::give_back(1);
    }
    check_written(ExregsControl::from_raw(Word::MAX << 12), |old| old)
}

fn control_transfer_bits_are_ignored() -> Outcome {
    // There are no control-transfer items, whatever the message registers say.
    utcb().set_mr(0, 0);
    utcb().set_mr(1, 0xC | 2 << 4 | 0xFFF << 12);
    for raw in [1 << 9, 1 << 10, 1 << 11, 7 << 9] {
        check_written(ExregsControl::from_raw(raw), |old| old).within(format_args!("{raw:#x}"))?;
    }
    Ok(())
}

fn sp_alone() -> Outcome {
    check_written(ExregsControl::SP, |old| Registers { sp: NEW.sp, ..old })
}

fn ip_alone() -> Outcome {
    check_written(ExregsControl::IP, |old| Registers { ip: NEW.ip, ..old })
}

fn flags_alone() -> Outcome {
    let mask = Word::from(l4::USER_FLAGS_MASK);
    check_written(ExregsControl::FLAGS, |old| Registers { flags: old.flags & !mask | NEW.flags & mask, ..old })
}

fn handle_alone() -> Outcome {
    check_written(ExregsControl::HANDLE, |old| Registers { handle: NEW.handle, ..old })
}

fn pager_alone() -> Outcome {
    check_written(ExregsControl::PAGER, |old| Registers { pager: NEW.pager, ..old })
}

fn all_at_once() -> Outcome {
    use ExregsControl as C;
    let mask = Word::from(l4::USER_FLAGS_MASK);
    check_written(C::SP | C::IP | C::FLAGS | C::HANDLE | C::PAGER | C::DELIVER, |old| Registers {
        flags: old.flags & !mask | NEW.flags & mask,
        ..NEW
    })
}

fn halt_without_h_is_ignored() -> Outcome {
    check_written(ExregsControl::HALT, |old| old)?;
    let ready = spawn_later(|| Ok(()))?;
    ready.exchange(ExregsControl::HALT, NEW)?;
    equal("its state", ready.state()?, ScheduleResult::Running)?;
    ready.join()
}

fn resuming_what_runs_changes_nothing() -> Outcome {
    check_written(ExregsControl::APPLY_HALT, |old| old)?;
    let ready = spawn_later(|| Ok(()))?;
    check(!threads_of::resume(ready.id())?.was_halted(), "it was halted")?;
    ready.join()
}

fn halting_twice_is_halting_once() -> Outcome {
    let thread = spawn_later(|| Ok(()))?;
    check(!threads_of::stop(thread.id())?.was_halted(), "it was halted at first")?;
    check(threads_of::stop(thread.id())?.was_halted(), "it was not halted")?;
    equal("its state", thread.state()?, ScheduleResult::Inactive)?;
    check(threads_of::resume(thread.id())?.was_halted(), "it is not halted any more")?;
    check(!threads_of::resume(thread.id())?.was_halted(), "it is still halted")?;
    thread.join()
}

static REACHED: AtomicU64 = AtomicU64::new(0);

extern "C" fn note_and_sleep() -> ! {
    REACHED.fetch_add(1, Relaxed);
    sleep_forever()
}

fn halt_and_registers_at_once() -> Outcome {
    REACHED.store(0, Relaxed);
    let thread = waiting()?;
    let new = Registers { ip: arch::address_of!(note_and_sleep), ..Registers::ZERO };
    let state = thread.exchange(ExregsControl::STOP | ExregsControl::ABORT_IPC | ExregsControl::IP, new)?.state;
    check(state.was_receiving() && !state.was_halted(), "it did not wait")?;
    equal("its state", thread.state()?, ScheduleResult::Inactive)?;
    equal("how far it came while halted", REACHED.load(Relaxed), 0)?;
    threads_of::resume(thread.id())?;
    placement::settle();
    equal("how far it came", REACHED.load(Relaxed), 1)
}

// --- values ---

/// Words at the edges of addresses and of ids.
const WORDS: [Word; 9] =
    [0, 1, 63, (1 << 47) - 1, 1 << 47, arch::NON_CANONICAL, arch::KERNEL_ADDRESS, Word::MAX - 1, Word::MAX];

fn handle_takes_any_word() -> Outcome {
    let thread = waiting()?;
    for word in WORDS {
        threads_of::set_user_defined_handle_of(thread.id(), word)?;
        equal("the handle", threads_of::user_defined_handle_of(thread.id())?, word)?;
    }
    check(inspect(thread.id())?.state.was_receiving(), "its wait is over")
}

fn pager_takes_any_word() -> Outcome {
    let thread = waiting()?;
    for word in WORDS {
        let pager = ThreadId::from_raw(word);
        threads_of::set_pager_of(thread.id(), pager)?;
        equal("the pager", threads_of::pager_of(thread.id())?, pager)?;
    }
    threads_of::set_pager_of(thread.id(), supervisor())?;
    send_label(thread.id(), 1)?;
    thread.join()
}

fn ip_and_sp_take_any_word() -> Outcome {
    let thread = waiting()?;
    let before = inspect(thread.id())?.old;
    for word in WORDS {
        let new = Registers { ip: word, sp: word ^ 0xFF00, ..Registers::ZERO };
        thread.exchange(ExregsControl::IP | ExregsControl::SP, new)?;
        let found = inspect(thread.id())?.old;
        equal("ip and sp", (found.ip, found.sp), (word, word ^ 0xFF00))?;
    }
    // It goes on as if nothing had happened.
    thread.exchange(ExregsControl::IP | ExregsControl::SP, before)?;
    send_label(thread.id(), 1)?;
    thread.join()
}

fn registers_of_a_halted_thread_count_when_it_goes_on() -> Outcome {
    REACHED.store(0, Relaxed);
    let thread = spawn_later(|| Ok(()))?;
    threads_of::stop(thread.id())?;
    let new = Registers { ip: arch::address_of!(note_and_sleep), sp: thread.stack_top(), ..Registers::ZERO };
    thread.exchange(ExregsControl::IP | ExregsControl::SP, new)?;
    l4::schedule::set_priority(thread.id(), 110)?;
    equal("how far it came while halted", REACHED.load(Relaxed), 0)?;
    threads_of::resume(thread.id())?;
    placement::settle();
    equal("how far it came", REACHED.load(Relaxed), 1)
}

fn thread_can_halt_itself() -> Outcome {
    REACHED.store(0, Relaxed);
    let thread = spawn(|| {
        let state = threads_of::stop(utcb().my_global_id())?;
        REACHED.store(1, Relaxed);
        check(!state.was_halted() && !state.was_ipcing(), "it was in another state")
    })?;
    equal("how far it came", REACHED.load(Relaxed), 0)?;
    equal("its state", thread.state()?, ScheduleResult::Inactive)?;
    threads_of::resume(thread.id())?;
    placement::settle();
    equal("how far it came", REACHED.load(Relaxed), 1)?;
    thread.join()
}

fn thread_can_set_its_own_handle_and_pager() -> Outcome {
    let thread = spawn(|| {
        for id in [utcb().my_global_id(), threads_of::my_local_id()] {
            threads_of::set_user_defined_handle_of(id, 0x4242)?;
            equal("UserDefinedHandle", utcb().user_defined_handle(), 0x4242)?;
            threads_of::set_pager_of(id, tester().id())?;
            equal("Pager", utcb().pager(), tester().id())?;
            utcb().set_user_defined_handle(1);
            equal("the handle", threads_of::user_defined_handle_of(id)?, 1)?;
            utcb().set_pager(supervisor());
            equal("the pager", threads_of::pager_of(id)?, supervisor())?;
        }
        Ok(())
    })?;
    thread.join()
}

fn success_leaves_error_code() -> Outcome {
    let thread = waiting()?;
    utcb().set_error_code(MARK);
    inspect(thread.id())?;
    inspect(thread.local_id())?;
    threads_of::stop(thread.id())?;
    threads_of::resume(thread.id())?;
    equal("ErrorCode", utcb().error_code(), MARK)?;
    // That of the thread itself, too.
    Control::modify(thread.id()).call()?;
    equal("ErrorCode", utcb().error_code(), MARK)
}
