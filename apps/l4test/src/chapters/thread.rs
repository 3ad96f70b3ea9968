//! Threads: ids, ThreadControl, ExchangeRegisters, the start of a thread.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::message::Msg;
use l4::protocol::start_tag;
use l4::thread::{self as threads_of, Registers, inspect};
use l4::time::sleep_forever;
use l4::{
    ExregsControl, IpcErrorKind, ScheduleResult, SysError, THREAD_ID_BITS, ThreadId, Time, USER_FLAGS_MASK, Word, ipc,
    kip, utcb,
};

use crate::arch;
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory;
use crate::world::messages::{NOW, call_label, receive, receive_error, send_error, send_label};
use crate::world::placement;
use crate::world::spaces::Space;
use crate::world::threads::{Thread, plan, raw_inspect, spawn, spawn_later, spin_forever, supervisor, tester};

chapter! { thread:
    "X.2, Thread identifiers" => [
        own_ids,
        local_id_is_the_address_of_mr0,
        ids_translate_both_ways,
        initial_threads_exist,
    ],
    "X.2, Virtual Registers" => [fresh_utcb_is_clear],
    "X.2, Thread start protocol" => [
        start_message_sets_ip_and_sp,
        start_message_comes_from_the_pager_alone,
        odd_start_message_starts_all_the_same,
        start_state_shows_no_kernel_data,
    ],
    "X.2, ExchangeRegisters" => [
        exregs_starts_a_thread_without_message,
        exregs_shows_registers_and_state,
        exregs_sets_handle_and_pager,
        exregs_changes_user_flags_alone,
        exregs_restarts_a_sleeping_thread,
        exregs_of_no_thread_changes_nothing,
        exregs_refuses_inactive_threads,
        exregs_reaches_own_space_and_paged_threads,
        exregs_halts_a_running_thread,
        exregs_halts_after_the_ipc,
        exregs_on_oneself,
    ],
    "X.2, ThreadControl" => [
        control_is_for_privileged_spaces,
        creation_errors,
        modification_errors,
        failed_creation_leaves_nothing,
        deletion_of_what_is_not_there,
        inactive_thread_can_be_activated_later,
        version_can_be_changed,
        scheduler_and_pager_can_be_changed,
        thread_moves_to_another_space,
        interrupt_ids_are_checked,
    ],
    "X.2, ThreadControl, deletion" => [
        running_thread_can_be_deleted,
        thread_can_be_deleted_in_every_state,
        number_can_be_used_again,
        highest_numbers_are_like_others,
        many_threads_one_after_another,
        many_threads_at_once,
    ],
}

fn own_ids() -> Outcome {
    equal("MyGlobalId", threads_of::my_global_id(), tester().id())?;
    equal("MyLocalId", threads_of::my_local_id(), tester().local_id())?;
    let info = kip::kip().thread_info;
    equal("the supervisor's id", supervisor(), ThreadId::global(info.user_base() + 2, 1))?;
    equal("ProcessorNo", utcb().processor_no(), placement::expected_processor(tester()).into())
}

fn local_id_is_the_address_of_mr0() -> Outcome {
    equal("MyLocalId", threads_of::my_local_id().raw(), utcb().mrs().as_ptr().addr() as Word)?;
    let thread =
        spawn(|| equal("a thread's MyLocalId", threads_of::my_local_id().raw(), utcb().mrs().as_ptr().addr() as Word))?;
    thread.join()
}

fn ids_translate_both_ways() -> Outcome {
    let thread = spawn(|| Ok(()))?;
    equal("the local id", threads_of::local_id_of(thread.id())?, thread.local_id())?;
    equal("the global id", threads_of::global_id_of(thread.local_id())?, thread.id())?;
    equal("the supervisor's global id", threads_of::global_id_of(threads_of::local_id_of(supervisor())?)?, supervisor())
}

fn initial_threads_exist() -> Outcome {
    // A thread of another space is none of ours, but a message to it is deliverable some time.
    equal("sigma0 to ExchangeRegisters", inspect(kip::sigma0_id()), Err(SysError::InvalidThread))?;
    Msg::new(0).load();
    check(ipc::send_timeout(kip::sigma0_id(), Time::period_us(1_000_000)).is_ok(), "sigma0 takes no message")?;
    inspect(supervisor()).map(drop).map_err(Failure::from)
}

fn fresh_utcb_is_clear() -> Outcome {
    let space = Space::create()?;
    // In a new space the registers can be looked at by the thread alone, after its start code has set some.
    let thread = plan().space(space).spawn(|| {
        equal("MyGlobalId", utcb().my_global_id().is_global(), true)?;
        equal("ProcessorNo", utcb().processor_no(), placement::expected_processor(Thread::me()).into())?;
        equal("BR0", utcb().br(0), 0)?;
        equal("ErrorCode", utcb().error_code(), 0)?;
        equal("UserDefinedHandle", utcb().user_defined_handle(), 0)?;
        equal("PreemptFlags", utcb().preempt_flags(), 0)?;
        (0..l4::MR_COUNT).try_for_each(|i| equal(format_args!("MR{i}"), utcb().mr(i), 0))
    })?;
    thread.join()
}

// --- start ---

static STARTED: AtomicU64 = AtomicU64::new(0);

extern "C" fn note_start() -> ! {
    STARTED.fetch_add(1, Relaxed);
    sleep_forever()
}

/// A thread in our space that waits for its start message from `pager`.
#[track_caller]
fn waiting_for_start(pager: ThreadId) -> Outcome<Thread> {
    STARTED.store(0, Relaxed);
    let thread = Thread::reserve()?;
    threads_of::thread_control(thread.id(), supervisor(), supervisor(), pager, Some(thread.utcb_location()))?;
    l4::schedule::set_priority(thread.id(), 110)?;
    equal("the state before the start", thread.state()?, ScheduleResult::Waiting)?;
    Ok(thread)
}

fn start_message_sets_ip_and_sp() -> Outcome {
    let thread = waiting_for_start(tester().id())?;
    let ip = arch::address_of!(note_start);
    thread.send_start_to(thread.id(), ip)?;
    equal("starts", STARTED.load(Relaxed), 1)?;
    let sp = inspect(thread.id())?.old.sp;
    check(sp <= thread.stack_top() && sp > thread.stack_top() - 4096, format_args!("the stack pointer is {sp:#x}"))
}

fn start_message_comes_from_the_pager_alone() -> Outcome {
    let thread = waiting_for_start(supervisor())?;
    Msg::of_words(start_tag(), &[arch::address_of!(note_start), thread.stack_top()]).load();
    let outcome = ipc::send_timeout(thread.id(), Time::ZERO);
    equal("a stranger's message", outcome.map(drop), Err(send_error(IpcErrorKind::Timeout)))?;
    equal("starts", STARTED.load(Relaxed), 0)
}

fn odd_start_message_starts_all_the_same() -> Outcome {
    let thread = waiting_for_start(tester().id())?;
    let control = ExregsControl::SP | ExregsControl::IP;
    let new = Registers { sp: thread.stack_top(), ip: arch::address_of!(note_start), ..Registers::ZERO };
    thread.exchange(control, new)?;
    equal("starts by registers alone", STARTED.load(Relaxed), 0)?;
    send_label(thread.id(), 0)?;
    equal("starts", STARTED.load(Relaxed), 1)
}

fn start_state_shows_no_kernel_data() -> Outcome {
    let thread = waiting_for_start(tester().id())?;
    let top = thread.stack_top();
    thread.send_start_to(thread.id(), arch::address_of!(arch::start_probe))?;
    for (index, name) in arch::START_STATE.into_iter().enumerate() {
        let word = thread.stack_word(index);
        match name {
            "flags" => equal(name, word & !arch::flag::IO_PRIVILEGE, arch::flag::INTERRUPT | arch::flag::FIXED)?,
            "rsp" => equal(name, word, top)?,
            _ => equal(name, word, 0)?,
        }
    }
    Ok(())
}

// --- ExchangeRegisters ---

fn exregs_starts_a_thread_without_message() -> Outcome {
    let thread = waiting_for_start(supervisor())?;
    let control = ExregsControl::START | ExregsControl::SP | ExregsControl::IP;
    let new = Registers { sp: thread.stack_top(), ip: arch::address_of!(note_start), ..Registers::ZERO };
    let state = thread.exchange(control, new)?.state;
    check(state.was_receiving(), "the thread was not receiving")?;
    equal("starts", STARTED.load(Relaxed), 1)?;
    // Waiting for a start message that is cancelled is no IPC of the thread's own.
    equal("the state after the start", thread.state()?, ScheduleResult::Waiting)
}

fn exregs_shows_registers_and_state() -> Outcome {
    let receiver = spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))?;
    let found = inspect(receiver.id())?;
    check(
        found.state.was_receiving() && !found.state.was_sending() && !found.state.was_halted(),
        "it does not receive",
    )?;
    equal("the other id", found.other_id, receiver.local_id())?;
    equal("the pager", found.old.pager, supervisor())?;
    check(found.old.sp < receiver.stack_top(), "the stack pointer is elsewhere")?;
    check(
        crate::world::image::contains(found.old.ip),
        format_args!("the ip is {:#x}, not behind the call", found.old.ip),
    )?;
    let sender = spawn(|| send_label(tester().id(), 1).map(drop).map_err(Failure::from))?;
    let found = inspect(sender.local_id())?;
    check(found.state.was_sending() && !found.state.was_receiving(), "it does not send")?;
    equal("the other id", found.other_id, sender.id())?;
    let ready = spawn_later(spin_forever)?;
    check(!inspect(ready.id())?.state.was_ipcing(), "a ready thread is in an IPC")
}

fn exregs_sets_handle_and_pager() -> Outcome {
    let thread = spawn(|| Ok(()))?;
    threads_of::set_user_defined_handle_of(thread.id(), 0xBEEF)?;
    equal("the handle", threads_of::user_defined_handle_of(thread.id())?, 0xBEEF)?;
    threads_of::set_pager_of(thread.id(), tester().id())?;
    equal("the pager", threads_of::pager_of(thread.id())?, tester().id())?;
    threads_of::set_pager_of(thread.id(), ThreadId::NIL)?;
    equal("the pager", threads_of::pager_of(thread.id())?, ThreadId::NIL)?;
    equal("the handle", threads_of::user_defined_handle_of(thread.id())?, 0xBEEF)
}

fn exregs_changes_user_flags_alone() -> Outcome {
    let thread = spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))?;
    let before = inspect(thread.id())?.old.flags;
    for (wanted, changed) in [(Word::MAX, Word::from(USER_FLAGS_MASK)), (0, 0)] {
        let new = Registers { flags: wanted, ..Registers::ZERO };
        thread.exchange(ExregsControl::FLAGS, new)?;
        let expected = before & !Word::from(USER_FLAGS_MASK) | changed;
        equal("the flags", inspect(thread.id())?.old.flags, expected)?;
    }
    Ok(())
}

fn exregs_restarts_a_sleeping_thread() -> Outcome {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    RUNS.store(0, Relaxed);
    let thread = spawn(|| {
        RUNS.fetch_add(1, Relaxed);
        sleep_forever()
    })?;
    for run in 1..=100 {
        equal("runs", RUNS.load(Relaxed), run)?;
        thread.restart()?;
        placement::settle();
    }
    Ok(())
}

fn exregs_of_no_thread_changes_nothing() -> Outcome {
    let nobody = Thread::reserve()?;
    let stale = ThreadId::global(tester().id().thread_no(), tester().id().version() + 1);
    for id in [nobody.id(), nobody.local_id(), stale, ThreadId::ANY, ThreadId::interrupt(3)] {
        let out = raw_inspect(id);
        equal("the result", out.thread, ThreadId::NIL).within(format_args!("{id:?}"))?;
        equal("ErrorCode", utcb().error_code(), SysError::InvalidThread.raw().into())?;
        let words = [out.control, out.sp, out.ip, out.flags, out.handle, out.pager.raw()];
        equal("other results", words, [0; 6]).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn exregs_refuses_inactive_threads() -> Outcome {
    let thread = Thread::reserve()?;
    threads_of::thread_control(thread.id(), supervisor(), supervisor(), ThreadId::NIL, Some(thread.utcb_location()))?;
    equal("an inactive thread", inspect(thread.id()).map(drop), Err(SysError::InvalidThread))
}

fn exregs_reaches_own_space_and_paged_threads() -> Outcome {
    let space = Space::create()?;
    let paged = plan().space(space).pager(tester().id()).spawn(|| Ok(()))?;
    inspect(paged.id())?;
    let insider = plan().space(space).spawn(|| Ok(()))?;
    let alien = plan().space(space).pager(insider.id()).spawn(|| Ok(()))?;
    equal("a thread with its pager elsewhere", inspect(alien.id()).map(drop), Err(SysError::InvalidThread))?;
    let tester = tester().id();
    let judge = plan().space(space).spawn(move || {
        inspect(alien.id())?;
        equal("a thread of the tester's space", inspect(tester).map(drop), Err(SysError::InvalidThread))
    })?;
    judge.join()
}

static COUNT: AtomicU64 = AtomicU64::new(0);

#[track_caller]
fn spinner(priority: u8) -> Outcome<Thread> {
    COUNT.store(0, Relaxed);
    plan().priority(priority).spawn(|| {
        loop {
            COUNT.fetch_add(1, Relaxed);
        }
    })
}

/// Lets threads of lower priority run for a while; how far [`COUNT`] came.
fn count_for_a_while() -> Word {
    let before = COUNT.load(Relaxed);
    l4::time::sleep(Time::period_us(5_000));
    COUNT.load(Relaxed) - before
}

/// Whether [`COUNT`] goes on, within half a second: a host may stop the emulator for a while.
fn is_counting() -> bool {
    (0..100).any(|_| count_for_a_while() > 0)
}

fn exregs_halts_a_running_thread() -> Outcome {
    let thread = spinner(90)?;
    check(is_counting(), "the thread does not run")?;
    let state = threads_of::stop(thread.id())?;
    check(!state.was_halted(), "it was halted before")?;
    equal("what a halted thread does", count_for_a_while(), 0)?;
    equal("its state", thread.state()?, ScheduleResult::Inactive)?;
    check(inspect(thread.id())?.state.was_halted(), "it does not say so")?;
    threads_of::resume(thread.id())?;
    check(is_counting(), "the thread does not go on")
}

fn exregs_halts_after_the_ipc() -> Outcome {
    static GOT: AtomicU64 = AtomicU64::new(0);
    GOT.store(0, Relaxed);
    let thread = spawn(|| {
        receive(tester().id())?;
        GOT.store(1, Relaxed);
        Ok(())
    })?;
    let state = threads_of::stop(thread.id())?;
    check(state.was_receiving(), "it did not receive")?;
    send_label(thread.id(), 1)?;
    equal("what it did while halted", GOT.load(Relaxed), 0)?;
    let state = threads_of::resume(thread.id())?;
    check(state.was_halted() && !state.was_receiving(), "it was not halted behind its IPC")?;
    placement::settle();
    equal("what it did afterwards", GOT.load(Relaxed), 1)?;
    thread.join()
}

fn exregs_on_oneself() -> Outcome {
    let found = inspect(threads_of::my_local_id())?;
    equal("the other id", found.other_id, tester().id())?;
    check(!found.state.was_ipcing() && !found.state.was_halted(), "a running thread is in another state")?;
    threads_of::set_user_defined_handle_of(tester().id(), 77)?;
    equal("the handle", utcb().user_defined_handle(), 77)
}

// --- ThreadControl ---

type Control = (&'static str, ThreadId, ThreadId, ThreadId, ThreadId, Option<Word>, &'static [SysError]);

/// Rows: what is wrong; dest, space, scheduler, pager, UTCB; the errors that may come of it.
#[track_caller]
fn check_refused(rows: &[Control]) -> Outcome {
    for &(what, dest, space, scheduler, pager, utcb_location, errors) in rows {
        match threads_of::thread_control(dest, space, scheduler, pager, utcb_location) {
            Err(error) if errors.contains(&error) => {}
            other => return Err(Failure::new(format_args!("{what}: {other:?} instead of {errors:?}"))),
        }
    }
    Ok(())
}

fn control_is_for_privileged_spaces() -> Outcome {
    let space = Space::create()?;
    let victim = Thread::reserve()?;
    let thread = plan().space(space).spawn(move || {
        let nil = ThreadId::NIL;
        let me = threads_of::my_global_id();
        check_refused(&[
            ("creates", victim.id(), victim.id(), me, nil, None, &[SysError::NoPrivilege]),
            ("deletes", tester().id(), nil, nil, nil, None, &[SysError::NoPrivilege]),
            ("modifies", me, me, nil, me, None, &[SysError::NoPrivilege]),
        ])
    })?;
    thread.join()
}

fn creation_errors() -> Outcome {
    use SysError::{InvalidScheduler, InvalidSpace, InvalidThread, UtcbArea};
    let info = kip::kip().thread_info;
    let thread = Thread::reserve()?;
    let (id, me, nil) = (thread.id(), tester().id(), ThreadId::NIL);
    let utcb = Some(thread.utcb_location());
    let fresh = Thread::reserve()?.id();
    let uninitialised = Thread::reserve()?.id();
    threads_of::thread_control(uninitialised, uninitialised, me, nil, None)?;
    let beyond = ThreadId::global(1 << THREAD_ID_BITS | id.thread_no(), 1);
    check_refused(&[
        ("local dest", thread.local_id(), me, me, nil, None, &[InvalidThread, InvalidSpace]),
        ("nil dest", nil, me, me, nil, None, &[InvalidThread, InvalidSpace]),
        ("dest of the kernel's", ThreadId::global(info.system_base(), 1), me, me, nil, None, &[InvalidThread]),
        ("number beyond the table", beyond, beyond, me, nil, None, &[InvalidThread]),
        ("no scheduler", id, me, nil, nil, utcb, &[InvalidThread, InvalidScheduler]),
        ("space of nobody", id, fresh, me, nil, utcb, &[InvalidSpace]),
        ("space of a stale id", id, ThreadId::global(me.thread_no(), 1), me, nil, utcb, &[InvalidSpace]),
        ("active in a new space", id, id, me, me, utcb, &[InvalidSpace]),
        ("active in a space without areas", id, uninitialised, me, me, utcb, &[InvalidSpace]),
        ("active without UTCB", id, me, me, me, None, &[UtcbArea]),
        ("UTCB not aligned", id, me, me, me, utcb.map(|location| location + 64), &[UtcbArea]),
        ("UTCB below the area", id, me, me, me, Some(l4::ROOT_UTCB_AREA_BASE - 1024), &[UtcbArea]),
        ("UTCB behind the area", id, me, me, me, Some(l4::ROOT_UTCB_AREA_BASE + (1 << 18)), &[UtcbArea]),
        ("UTCB at the end of all", id, me, me, me, Some(Word::MAX - 1023), &[UtcbArea]),
        ("deletes itself", me, nil, nil, nil, None, &[InvalidThread]),
    ])
}

fn modification_errors() -> Outcome {
    use SysError::{InvalidSpace, UtcbArea};
    let thread = spawn(|| Ok(()))?;
    let (id, nil) = (thread.id(), ThreadId::NIL);
    let nobody = Thread::reserve()?;
    let uninitialised = Thread::reserve()?.id();
    threads_of::thread_control(uninitialised, uninitialised, tester().id(), nil, None)?;
    check_refused(&[
        ("UTCB of an active thread", id, id, nil, nil, Some(nobody.utcb_location()), &[UtcbArea]),
        ("space of nobody", id, nobody.id(), nil, nil, None, &[InvalidSpace]),
        ("move to a space without areas", id, uninitialised, nil, nil, None, &[UtcbArea, InvalidSpace]),
    ])?;
    // Nothing has changed.
    equal("the pager", threads_of::pager_of(id)?, supervisor())?;
    thread.join()
}

fn failed_creation_leaves_nothing() -> Outcome {
    let thread = Thread::reserve()?;
    let me = tester().id();
    for _ in 0..100 {
        let created = threads_of::thread_control(thread.id(), me, me, me, None);
        equal("creation without UTCB", created, Err(SysError::UtcbArea))?;
        let outcome = ipc::send_timeout(thread.id(), Time::ZERO);
        equal("a message to it", outcome.map(drop), Err(send_error(IpcErrorKind::NonExisting)))?;
    }
    Ok(())
}

fn deletion_of_what_is_not_there() -> Outcome {
    let thread = Thread::reserve()?;
    thread.delete()?;
    thread.delete()
}

fn inactive_thread_can_be_activated_later() -> Outcome {
    let thread = Thread::reserve()?;
    let (id, me, nil) = (thread.id(), tester().id(), ThreadId::NIL);
    STARTED.store(0, Relaxed);
    threads_of::thread_control(id, me, me, nil, Some(thread.utcb_location()))?;
    equal("the state of an inactive thread", thread.state()?, ScheduleResult::Dead)?;
    // It may be sent to, but takes nothing.
    Msg::new(0).load();
    let outcome = ipc::send_timeout(id, Time::ZERO);
    equal("a message to it", outcome.map(drop), Err(send_error(IpcErrorKind::Timeout)))?;
    threads_of::thread_control(id, me, nil, me, None)?;
    equal("the state of an active thread", thread.state()?, ScheduleResult::Waiting)?;
    l4::schedule::set_priority(id, 110)?;
    thread.send_start_to(id, arch::address_of!(note_start))?;
    equal("starts", STARTED.load(Relaxed), 1)
}

fn version_can_be_changed() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    let old = thread.id();
    let new = ThreadId::global(old.thread_no(), old.version() + 1);
    threads_of::thread_control(new, supervisor(), ThreadId::NIL, ThreadId::NIL, None)?;
    equal("the old id", inspect(old).map(drop), Err(SysError::InvalidThread))?;
    equal("the new id", threads_of::global_id_of(thread.local_id())?, new)?;
    Ok(threads_of::delete(new)?)
}

fn scheduler_and_pager_can_be_changed() -> Outcome {
    let thread = spawn(|| Ok(()))?;
    threads_of::thread_control(thread.id(), thread.id(), tester().id(), tester().id(), None)?;
    equal("the pager", threads_of::pager_of(thread.id())?, tester().id())?;
    thread.join()
}

fn thread_moves_to_another_space() -> Outcome {
    let space = Space::create()?;
    // Someone who has the image mapped there.
    plan().space(space).spawn(|| Ok(()))?.join()?;
    let thread = plan().spawn(|| {
        utcb().set_thread_word(0, 12);
        // Cancelled by the move.
        let outcome = receive(tester().id());
        check(outcome.is_err(), "the IPC was not aborted")?;
        equal("ThreadWord0", utcb().thread_word(0), 12)?;
        receive(tester().id())?;
        Ok(())
    })?;
    threads_of::thread_control(thread.id(), space.specifier(), ThreadId::NIL, ThreadId::NIL, None)?;
    equal("reach by its local id", inspect(thread.local_id()).map(drop), Err(SysError::InvalidThread))?;
    send_label(thread.id(), 1)?;
    thread.join()
}

fn interrupt_ids_are_checked() -> Outcome {
    let me = tester().id();
    let wrong_version = ThreadId::global(3, 2);
    equal("a wrong version", threads_of::associate_interrupt(wrong_version, me), Err(SysError::InvalidThread))?;
    let nobody = Thread::reserve()?.id();
    let interrupt = ThreadId::interrupt(3);
    equal(
        "a handler that is not there",
        threads_of::associate_interrupt(interrupt, nobody),
        Err(SysError::InvalidThread),
    )
}

// --- deletion ---

fn running_thread_can_be_deleted() -> Outcome {
    let thread = spinner(90)?;
    check(is_counting(), "the thread does not run")?;
    thread.delete()?;
    equal("what a deleted thread does", count_for_a_while(), 0)?;
    equal("its id", inspect(thread.id()).map(drop), Err(SysError::InvalidThread))
}

fn thread_can_be_deleted_in_every_state() -> Outcome {
    type Make = fn() -> Outcome<Thread>;
    let rows: [(&str, Make); 10] = [
        ("inactive", || {
            let thread = Thread::reserve()?;
            threads_of::thread_control(thread.id(), supervisor(), supervisor(), ThreadId::NIL, None)?;
            Ok(thread)
        }),
        ("waiting for its start", || waiting_for_start(tester().id())),
        ("ready", || spawn_later(|| Ok(()))),
        ("sending", || spawn(|| send_label(tester().id(), 1).map(drop).map_err(Failure::from))),
        ("sending for ever", || spawn(|| ipc::send(tester().id()).map(drop).map_err(Failure::from))),
        ("receiving", || spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))),
        ("receiving for ever", || spawn(|| ipc::wait().map(drop).map_err(Failure::from))),
        ("halted", || {
            let thread = spawn(|| Ok(()))?;
            threads_of::stop(thread.id())?;
            Ok(thread)
        }),
        ("faulting", || plan().pager(tester().id()).spawn(touch_nothing)),
        ("waiting for its pager", || {
            let thread = plan().pager(tester().id()).spawn(touch_nothing)?;
            receive(thread.id())?;
            Ok(thread)
        }),
    ];
    for (what, make) in rows {
        let thread = make().within(what)?;
        thread.delete().within(what)?;
        let sent = call_label(thread.id(), 0).map(drop);
        equal("a message to it", sent, Err(send_error(IpcErrorKind::NonExisting))).within(what)?;
        let queued = ipc::ipc(ThreadId::NIL, ThreadId::ANY, NOW).result().map(drop);
        equal("who is left in the queue", queued, Err(receive_error(IpcErrorKind::Timeout))).within(what)?;
    }
    Ok(())
}

fn touch_nothing() -> Outcome {
    memory::read(memory::at(0x1_0000));
    Ok(())
}

fn number_can_be_used_again() -> Outcome {
    let thread = spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))?;
    thread.delete()?;
    let (me, id) = (supervisor(), thread.id());
    let next = ThreadId::global(id.thread_no(), id.version() + 2);
    STARTED.store(0, Relaxed);
    threads_of::thread_control(next, me, me, tester().id(), Some(thread.utcb_location()))?;
    l4::schedule::set_priority(next, 110)?;
    thread.send_start_to(next, arch::address_of!(note_start))?;
    equal("starts", STARTED.load(Relaxed), 1)?;
    equal("the old id", inspect(id).map(drop), Err(SysError::InvalidThread))?;
    inspect(next)?;
    Ok(())
}

fn highest_numbers_are_like_others() -> Outcome {
    let (me, top) = (tester().id(), 1 << kip::kip().thread_info.bits());
    for number in [top - 1, top - 2, top / 2, top / 2 - 1] {
        let id = ThreadId::global(number, 1);
        // A message before there is such a thread must not leave a trace of it.
        let sent = call_label(id, 0).map(drop);
        equal("a message to nobody", sent, Err(send_error(IpcErrorKind::NonExisting))).within(number)?;
        threads_of::thread_control(id, me, me, ThreadId::NIL, None).map_err(Failure::from).within(number)?;
        let sent = ipc::ipc(id, ThreadId::NIL, NOW).result().map(drop);
        threads_of::delete(id)?;
        equal("a message to it", sent, Err(send_error(IpcErrorKind::Timeout))).within(number)?;
    }
    Ok(())
}

fn many_threads_one_after_another() -> Outcome {
    let thread = Thread::reserve()?;
    let me = tester().id();
    for round in 0..2000 {
        let step = || {
            threads_of::thread_control(thread.id(), thread.id(), me, ThreadId::NIL, None)?;
            let areas = (crate::world::spaces::kip_area(), crate::world::spaces::utcb_area());
            l4::space::space_control(thread.id(), l4::SpaceControl::NONE, areas.0, areas.1, ThreadId::NIL)?;
            threads_of::thread_control(thread.id(), thread.id(), ThreadId::NIL, me, Some(thread.utcb_location()))?;
            thread.delete()
        };
        step().within(format_args!("round {round}"))?;
    }
    Ok(())
}

fn many_threads_at_once() -> Outcome {
    const COUNT: Word = 1000;
    let me = tester().id();
    let first = tester().id().thread_no() + 1000;
    let id = |i| ThreadId::global(first + i, 1);
    let outcome = (0..COUNT).try_for_each(|i| {
        threads_of::thread_control(id(i), me, me, ThreadId::NIL, None)
            .map_err(|error| Failure::new(format_args!("thread {i}: {error:?}")))
    });
    let probe = ipc::ipc(id(COUNT - 1), ThreadId::NIL, NOW).result();
    for i in 0..COUNT {
        threads_of::delete(id(i))?;
    }
    outcome?;
    equal("a message to the last one", probe.map(drop), Err(send_error(IpcErrorKind::Timeout)))?;
    equal("a message to a deleted one", call_label(id(0), 0).map(drop), Err(send_error(IpcErrorKind::NonExisting)))
}
