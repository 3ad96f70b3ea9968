//! The parameters of ThreadControl: their first and last values, what is refused, and in which order it is looked at.

use l4::arch::thread_control as raw_thread_control;
use l4::message::Msg;
use l4::schedule::timeslice;
use l4::thread::{self as threads_of, inspect};
use l4::time::sleep_forever;
use l4::{
    IpcErrorKind, ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2, ScheduleResult, SysError,
    THREAD_ID_BITS, ThreadId, Time, UTCB_SIZE, Word, ipc, kip, utcb,
};

use crate::arch;
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::control::{Control, MARK};
use crate::world::memory::{at, window};
use crate::world::messages::{NOW, receive, receive_error, send_error, send_label};
use crate::world::spaces::{Space, kip_area};
use crate::world::threads::{Thread, plan, spawn, supervisor, tester};

chapter! { thread_control:
    "X.2, ThreadControl, creation" => [
        numbers_of_the_kernel_are_refused,
        numbers_beyond_the_table_are_refused,
        versions_without_low_bits_make_no_id,
        every_other_version_makes_an_id,
        special_ids_are_no_dest,
        space_specifier_names_a_thread,
        space_specifier_may_be_local,
        scheduler_must_be_given,
        scheduler_need_not_exist,
        pager_need_not_exist,
        pager_and_scheduler_may_be_local,
        first_and_last_utcb_of_the_area,
        utcb_locations_outside_the_area_are_refused,
        utcb_locations_between_are_refused,
        location_of_an_inactive_thread_is_looked_at_later,
        two_threads_at_one_utcb_do_no_harm,
        new_thread_is_inactive_without_pager,
        new_thread_waits_for_its_pager,
        new_thread_has_the_default_times,
    ],
    "X.2, ThreadControl, modification" => [
        nothing_to_change_is_no_error,
        new_version_takes_the_place_of_the_old_one,
        new_version_aborts_the_ipc,
        old_version_is_no_partner_any_more,
        pager_of_an_active_thread_changes,
        activation_needs_a_location,
        activation_can_bring_its_location,
        location_of_an_active_thread_stays,
        move_needs_room_for_the_utcb,
        inactive_thread_moves,
    ],
    "X.2, ThreadControl, order of checks" => [
        privilege_comes_first,
        dest_comes_before_everything_else,
        scheduler_comes_before_the_space,
        space_comes_before_the_utcb,
        uninitialised_space_comes_before_the_utcb,
        location_of_an_active_thread_comes_before_the_space,
    ],
    "X.2, ThreadControl, deletion" => [
        deletion_looks_at_the_number_alone,
        deletion_ignores_other_parameters,
        nobody_deletes_itself,
    ],
    "X.2, System calls, errors" => [
        thread_control_returns_one_or_zero,
        refused_creation_leaves_no_thread,
        refused_modification_changes_nothing,
        refused_activation_can_be_repeated,
    ],
}

// --- creation ---

/// All that a call may want of a number that it must not have.
#[track_caller]
fn check_number(what: &str, id: ThreadId, error: SysError) -> Outcome {
    Control::create(id).refused(format_args!("creation of {what}"), error)?;
    Control::create(id).space(id).refused(format_args!("creation of {what} in a new space"), error)?;
    Control::modify(id).pager(tester().id()).refused(format_args!("a pager for {what}"), error)?;
    Control::delete(id).refused(format_args!("deletion of {what}"), error)
}

fn numbers_of_the_kernel_are_refused() -> Outcome {
    let info = kip::kip().thread_info;
    for number in [info.system_base(), info.system_base() + 1, info.user_base() - 1] {
        for version in [1, 2, ThreadId::VERSION_MAX] {
            let id = ThreadId::global(number, version);
            check_number("a number of the kernel's", id, SysError::InvalidThread).within(number)?;
        }
    }
    Ok(())
}

fn numbers_beyond_the_table_are_refused() -> Outcome {
    let (bits, own) = (kip::kip().thread_info.bits(), tester().id().thread_no());
    equal("t", u64::from(bits), u64::from(THREAD_ID_BITS))?;
    for number in [1 << bits, (1 << bits) + 1, 1 << bits | own, 1 << (bits + 1), 1 << 31, ThreadId::THREAD_NO_MAX] {
        let id = ThreadId::global(number, tester().id().version());
        check_number("a number beyond the table", id, SysError::InvalidThread).within(number)?;
    }
    // The thread whose slot the number would have is as it was.
    equal("the tester", threads_of::global_id_of(tester().local_id())?, tester().id())
}

fn versions_without_low_bits_make_no_id() -> Outcome {
    let number = Thread::reserve()?.id().thread_no();
    for version in [0, 64, 128, 1 << 31, ThreadId::VERSION_MAX & !63] {
        let id = ThreadId::global(number, version);
        check_number("what is no global id", id, SysError::InvalidSpace).within(version)?;
    }
    Ok(())
}

fn every_other_version_makes_an_id() -> Outcome {
    let number = Thread::reserve()?.id().thread_no();
    for version in [1, 2, 32, 63, 65, 1 << 31 | 1, ThreadId::VERSION_MAX] {
        let id = ThreadId::global(number, version);
        let found = || {
            Control::create(id).call()?;
            let sent = ipc::ipc(id, ThreadId::NIL, NOW).result().map(drop);
            Control::delete(id).call()?;
            equal("a message to it", sent, Err(send_error(IpcErrorKind::Timeout)))
        };
        found().within(version)?;
    }
    Ok(())
}

fn special_ids_are_no_dest() -> Outcome {
    check_number("nilthread", ThreadId::NIL, SysError::InvalidSpace)?;
    check_number("anylocalthread", ThreadId::ANY_LOCAL, SysError::InvalidSpace)?;
    check_number("anythread", ThreadId::ANY, SysError::InvalidThread)?;
    check_number("a local id", tester().local_id(), SysError::InvalidSpace)
}

/// Ids that name no thread.
#[track_caller]
fn names_of_nobody() -> Outcome<[(&'static str, ThreadId); 10]> {
    let me = tester().id();
    Ok([
        ("nobody", Thread::reserve()?.id()),
        ("a stale version", ThreadId::global(me.thread_no(), me.version() + 1)),
        ("a stale version of sigma0", ThreadId::global(kip::sigma0_id().thread_no(), 2)),
        ("anythread", ThreadId::ANY),
        ("anylocalthread", ThreadId::ANY_LOCAL),
        ("an interrupt", ThreadId::interrupt(3)),
        ("a number of the kernel's", ThreadId::global(kip::kip().thread_info.system_base(), 1)),
        ("a number beyond the table", ThreadId::global(1 << THREAD_ID_BITS | me.thread_no(), me.version())),
        ("a local id between UTCBs", ThreadId::local(tester().local_id().raw() + 64)),
        ("a local id of nobody", ThreadId::local(at(0x200))),
    ])
}

fn space_specifier_names_a_thread() -> Outcome {
    let (new, member) = (Thread::reserve()?.id(), spawn(|| Ok(()))?.id());
    for (what, id) in names_of_nobody()? {
        Control::create(new)
            .space(id)
            .refused(format_args!("creation in the space of {what}"), SysError::InvalidSpace)?;
        Control::modify(member).space(id).refused(format_args!("a move to that of {what}"), SysError::InvalidSpace)?;
    }
    // Another version of the new thread's own id does not ask for a new space.
    let other = ThreadId::global(new.thread_no(), new.version() + 1);
    Control::create(new).space(other).refused("creation in a space by another version", SysError::InvalidSpace)
}

fn space_specifier_may_be_local() -> Outcome {
    let thread = Thread::reserve()?;
    Control::create(thread.id()).space(tester().local_id()).call()?;
    Control::modify(thread.id()).pager(tester().id()).utcb(thread.utcb_location()).call()?;
    equal("a thread of our space", threads_of::global_id_of(thread.local_id())?, thread.id())
}

fn scheduler_must_be_given() -> Outcome {
    let thread = Thread::reserve()?;
    let without = Control::create(thread.id()).scheduler(ThreadId::NIL);
    let calls = [without, without.space(thread.id()), without.pager(tester().id()).utcb(thread.utcb_location())];
    calls.into_iter().try_for_each(|call| call.refused("no scheduler", SysError::InvalidThread))
}

fn scheduler_need_not_exist() -> Outcome {
    for (what, id) in names_of_nobody()? {
        let thread = Thread::reserve()?;
        Control::create(thread.id()).scheduler(id).call().map_err(Failure::from).within(what)?;
        // Who is privileged may schedule it all the same.
        l4::schedule::set_priority(thread.id(), 10).map_err(Failure::from).within(what)?;
        thread.delete()?;
    }
    Ok(())
}

fn pager_need_not_exist() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let thread = Thread::reserve()?;
    Control::create(thread.id()).pager(nobody).utcb(thread.utcb_location()).call()?;
    equal("its pager", threads_of::pager_of(thread.id())?, nobody)?;
    equal("its state", thread.state()?, ScheduleResult::Waiting)?;
    // Others cannot start it by a message.
    Msg::of_words(l4::protocol::start_tag(), &[0, 0]).load();
    let sent = ipc::send_timeout(thread.id(), Time::ZERO).map(drop);
    equal("a message of the tester", sent, Err(send_error(IpcErrorKind::Timeout)))
}

fn pager_and_scheduler_may_be_local() -> Outcome {
    let thread = Thread::reserve()?;
    let local = tester().local_id();
    Control::create(thread.id()).scheduler(local).pager(local).utcb(thread.utcb_location()).call()?;
    equal("its pager", threads_of::pager_of(thread.id())?, tester().id())?;
    thread.send_start_to(thread.id(), arch::address_of!(arch::start_probe))
}

const AREA_END: Word = ROOT_UTCB_AREA_BASE + (1 << ROOT_UTCB_AREA_LOG2);
const UTCB: Word = UTCB_SIZE as Word;

/// An inactive thread of a new space, in which other locations are free than in the program's.
#[track_caller]
fn fresh_space() -> Outcome<ThreadId> {
    Ok(Space::create()?.specifier())
}

fn first_and_last_utcb_of_the_area() -> Outcome {
    let space = fresh_space()?;
    for location in [ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_BASE + UTCB, AREA_END - 2 * UTCB, AREA_END - UTCB] {
        let thread = Thread::reserve()?.id();
        let create = Control::create(thread).space(space).pager(tester().id()).utcb(location);
        create.call().map_err(Failure::from).within(format_args!("{location:#x}"))?;
        let local = inspect(thread)?.other_id;
        equal("the local id", local, ThreadId::local(location + l4::UTCB_MR0_OFFSET as Word))?;
    }
    Ok(())
}

/// Whether creation, activation and a location for an inactive thread are refused.
#[track_caller]
fn check_location(space: ThreadId, location: Word) -> Outcome {
    let thread = Thread::reserve()?.id();
    let create = Control::create(thread).space(space);
    create.pager(tester().id()).utcb(location).refused("creation", SysError::UtcbArea)?;
    create.call()?;
    let modify = Control::modify(thread);
    modify.utcb(location).refused("a location", SysError::UtcbArea)?;
    modify.pager(tester().id()).utcb(location).refused("activation", SysError::UtcbArea)?;
    threads_of::delete(thread)?;
    crate::world::threads::give_back(1);
    Ok(())
}

fn utcb_locations_outside_the_area_are_refused() -> Outcome {
    let space = fresh_space()?;
    let rows = [
        0,
        UTCB,
        ROOT_UTCB_AREA_BASE - UTCB,
        AREA_END,
        AREA_END + UTCB,
        ROOT_KIP_AREA_BASE,
        at(0),
        (1 << 47) - UTCB,
        1 << 47,
        arch::NON_CANONICAL,
        arch::KERNEL_ADDRESS,
        Word::MAX - UTCB + 1,
        ROOT_UTCB_AREA_BASE | 1 << 32,
        ROOT_UTCB_AREA_BASE | arch::NON_CANONICAL,
    ];
    rows.into_iter().try_for_each(|location| check_location(space, location).within(format_args!("{location:#x}")))
}

fn utcb_locations_between_are_refused() -> Outcome {
    let space = fresh_space()?;
    for offset in [1, 8, 64, UTCB / 2, UTCB - 64, UTCB - 1] {
        for slot in [ROOT_UTCB_AREA_BASE, AREA_END - 2 * UTCB, AREA_END - UTCB] {
            check_location(space, slot + offset).within(format_args!("{slot:#x} + {offset:#x}"))?;
        }
    }
    // All ones but for the last bit are no address, and not "no change".
    check_location(space, Word::MAX - 1)
}

fn location_of_an_inactive_thread_is_looked_at_later() -> Outcome {
    for location in [1, arch::KERNEL_ADDRESS, ROOT_UTCB_AREA_BASE + 64, Word::MAX - 1] {
        let thread = Thread::reserve()?;
        Control::create(thread.id())
            .utcb(location)
            .call()
            .map_err(Failure::from)
            .within(format_args!("{location:#x}"))?;
        let activate = Control::modify(thread.id()).pager(tester().id());
        activate.refused("activation there", SysError::UtcbArea).within(format_args!("{location:#x}"))?;
        activate.utcb(thread.utcb_location()).call()?;
    }
    Ok(())
}

fn two_threads_at_one_utcb_do_no_harm() -> Outcome {
    let first = Thread::reserve()?;
    let second = Thread::reserve()?;
    for round in 0..3 {
        let create = |thread: Thread| Control::create(thread.id()).pager(tester().id()).utcb(first.utcb_location());
        create(first).call()?;
        // It may be refused or not.
        match create(second).call() {
            Ok(()) => second.delete()?,
            Err(error) => equal("the error", error, SysError::UtcbArea).within(round)?,
        }
        first.delete()?;
    }
    Control::create(second.id()).pager(tester().id()).utcb(first.utcb_location()).call()?;
    equal("who is there", threads_of::global_id_of(first.local_id())?, second.id())
}

fn new_thread_is_inactive_without_pager() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let thread = Thread::reserve()?;
        Control::create(thread.id()).space(space.specifier()).utcb(thread.utcb_location()).call()?;
        equal("its state", thread.state()?, ScheduleResult::Dead).within(place)?;
        equal("ExchangeRegisters", inspect(thread.id()).map(drop), Err(SysError::InvalidThread)).within(place)?;
        Msg::new(0).load();
        let sent = ipc::send_timeout(thread.id(), Time::ZERO).map(drop);
        equal("a message to it", sent, Err(send_error(IpcErrorKind::Timeout))).within(place)?;
    }
    Ok(())
}

fn new_thread_waits_for_its_pager() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let thread = Thread::reserve()?;
        let create = Control::create(thread.id()).space(space.specifier()).pager(tester().id());
        create.utcb(thread.utcb_location()).call()?;
        equal("its state", thread.state()?, ScheduleResult::Waiting).within(place)?;
        check(inspect(thread.id())?.state.was_receiving(), "it does not receive").within(place)?;
        equal("its local id", inspect(thread.id())?.other_id, thread.local_id()).within(place)?;
        equal("its pager", threads_of::pager_of(thread.id())?, tester().id()).within(place)?;
    }
    Ok(())
}

fn new_thread_has_the_default_times() -> Outcome {
    let thread = Thread::reserve()?;
    Control::create(thread.id()).call()?;
    let times = timeslice(thread.id())?;
    equal("the time slice", times.timeslice().length_us(), Some(10_000))?;
    equal("the total quantum", times.total_quantum(), Time::NEVER)
}

// --- modification ---

fn nothing_to_change_is_no_error() -> Outcome {
    let thread = spawn(|| receive(tester().id()).map(drop).map_err(Failure::from))?;
    let before = inspect(thread.id())?;
    for space in [thread.id(), thread.local_id(), tester().id(), tester().local_id(), supervisor()] {
        Control::modify(thread.id()).space(space).call()?;
    }
    equal("what there is of it", inspect(thread.id())?, before)?;
    send_label(thread.id(), 1)?;
    thread.join()
}

/// The same number with another version.
fn next_version(id: ThreadId) -> ThreadId {
    ThreadId::global(id.thread_no(), id.version() + 1)
}

fn new_version_takes_the_place_of_the_old_one() -> Outcome {
    let thread = Thread::reserve()?;
    let (old, new) = (thread.id(), next_version(thread.id()));
    Control::create(old).pager(tester().id()).utcb(thread.utcb_location()).call()?;
    Control::modify(new).call()?;
    equal("the old id", inspect(old).map(drop), Err(SysError::InvalidThread))?;
    equal("the new id", threads_of::global_id_of(thread.local_id())?, new)?;
    // Its MyGlobalId is the new one, and it still waits for its start.
    equal("its state", inspect(new)?.state.was_receiving(), true)?;
    thread.send_start_to(new, arch::address_of!(tell_own_id))?;
    equal("MyGlobalId", receive(new)?.tag.label(), new.version())?;
    Ok(threads_of::delete(new)?)
}

/// Sends the version of MyGlobalId to the tester, as a label.
extern "C" fn tell_own_id() -> ! {
    Msg::new(utcb().my_global_id().version()).load();
    // If this does not get through, the tester notices.
    let _ = ipc::send(tester().id());
    sleep_forever()
}

fn new_version_aborts_the_ipc() -> Outcome {
    let thread = spawn(|| {
        let received = receive(tester().id()).map(drop);
        equal("the wait", received, Err(receive_error(IpcErrorKind::Canceled)))?;
        equal("MyGlobalId", utcb().my_global_id().version() & 63, 2)?;
        Msg::new(0x77).load();
        ipc::send(tester().id())?;
        Ok(())
    })?;
    let new = next_version(thread.id());
    Control::modify(new).call()?;
    equal("its message", receive(new)?.tag.label(), 0x77)?;
    Ok(threads_of::delete(new)?)
}

fn old_version_is_no_partner_any_more() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    let (old, new) = (thread.id(), next_version(thread.id()));
    Control::modify(new).call()?;
    Msg::new(0).load();
    let sent = ipc::send_timeout(old, Time::ZERO).map(drop);
    equal("a message to the old id", sent, Err(send_error(IpcErrorKind::NonExisting)))?;
    let waited = ipc::receive_timeout(old, Time::ZERO).map(drop);
    equal("a wait for the old id", waited, Err(receive_error(IpcErrorKind::NonExisting)))?;
    Control::create(Thread::reserve()?.id()).space(old).refused("the old id's space", SysError::InvalidSpace)?;
    Ok(threads_of::delete(new)?)
}

fn pager_of_an_active_thread_changes() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    for pager in [tester().id(), kip::sigma0_id(), ThreadId::ANY, supervisor()] {
        Control::modify(thread.id()).pager(pager).call()?;
        equal("the pager", threads_of::pager_of(thread.id())?, pager)?;
    }
    check(inspect(thread.id())?.state.was_receiving(), "its sleep is over")
}

fn activation_needs_a_location() -> Outcome {
    let thread = Thread::reserve()?;
    Control::create(thread.id()).call()?;
    let activate = Control::modify(thread.id()).pager(tester().id());
    activate.refused("no location at all", SysError::UtcbArea)?;
    Control::modify(thread.id()).utcb(thread.utcb_location()).call()?;
    activate.call()?;
    equal("its local id", inspect(thread.id())?.other_id, thread.local_id())
}

fn activation_can_bring_its_location() -> Outcome {
    let (thread, other) = (Thread::reserve()?, Thread::reserve()?);
    Control::create(thread.id()).utcb(other.utcb_location()).call()?;
    Control::modify(thread.id()).pager(tester().id()).utcb(thread.utcb_location()).call()?;
    equal("its local id", inspect(thread.id())?.other_id, thread.local_id())
}

fn location_of_an_active_thread_stays() -> Outcome {
    let (thread, other) = (spawn(|| sleep_forever())?, Thread::reserve()?);
    for location in [other.utcb_location(), thread.utcb_location(), 0, Word::MAX - 1] {
        let call = Control::modify(thread.id()).utcb(location);
        call.refused("a location", SysError::UtcbArea).within(format_args!("{location:#x}"))?;
        call.pager(tester().id()).refused("a location and a pager", SysError::UtcbArea)?;
    }
    equal("its pager", threads_of::pager_of(thread.id())?, supervisor())?;
    equal("its local id", inspect(thread.id())?.other_id, thread.local_id())
}

fn move_needs_room_for_the_utcb() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    // The UTCB area is elsewhere, or a page that ends before.
    let page = crate::world::memory::fpage(ROOT_UTCB_AREA_BASE + 0x4000, 12, l4::Rights::NONE);
    for area in [window(0, 16), page] {
        let space = Space::with_areas(kip_area(), area)?;
        let to = Control::modify(thread.id()).space(space.specifier());
        to.refused("a move to other areas", SysError::UtcbArea)?;
        to.pager(tester().id()).refused("a move with a pager", SysError::UtcbArea)?;
    }
    equal("its place", threads_of::global_id_of(thread.local_id())?, thread.id())?;
    equal("its pager", threads_of::pager_of(thread.id())?, supervisor())
}

fn inactive_thread_moves() -> Outcome {
    let thread = Thread::reserve()?;
    let space = fresh_space()?;
    Control::create(thread.id()).utcb(thread.utcb_location()).call()?;
    Control::modify(thread.id()).space(space).call()?;
    equal("its state", thread.state()?, ScheduleResult::Dead)?;
    Control::modify(thread.id()).space(space).pager(tester().id()).call()?;
    equal("its id in our space", threads_of::global_id_of(thread.local_id()), Err(SysError::InvalidThread))?;
    equal("its local id", inspect(thread.id())?.other_id, thread.local_id())?;
    // Move and activation at once, too.
    let other = Thread::reserve()?;
    Control::create(other.id()).space(space).call()?;
    Control::modify(other.id()).space(supervisor()).pager(tester().id()).utcb(other.utcb_location()).call()?;
    equal("its id in our space", threads_of::global_id_of(other.local_id())?, other.id())
}

// --- order of checks ---

fn privilege_comes_first() -> Outcome {
    let space = Space::create()?;
    let nobody = Thread::reserve()?;
    let thread = plan().space(space).spawn(move || {
        let wrong = [
            Control::create(ThreadId::NIL),
            Control::create(tester().local_id()),
            Control::create(ThreadId::global(kip::kip().thread_info.system_base(), 1)),
            Control::create(ThreadId::interrupt(3)).pager(nobody.id()),
            Control::create(nobody.id()).scheduler(ThreadId::NIL),
            Control::create(nobody.id()).space(ThreadId::ANY),
            Control::create(nobody.id()).pager(tester().id()).utcb(1),
            Control::delete(nobody.id()),
            Control::delete(utcb().my_global_id()),
            Control::modify(utcb().my_global_id()).utcb(1),
        ];
        wrong.into_iter().enumerate().try_for_each(|(i, call)| call.refused(i, SysError::NoPrivilege))
    })?;
    thread.join()
}

fn dest_comes_before_everything_else() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let rows = [
        (ThreadId::NIL, SysError::InvalidSpace),
        (tester().local_id(), SysError::InvalidSpace),
        (ThreadId::global(kip::kip().thread_info.system_base(), 1), SysError::InvalidThread),
        (ThreadId::global(1 << THREAD_ID_BITS, 1), SysError::InvalidThread),
        (ThreadId::ANY, SysError::InvalidThread),
    ];
    for (dest, error) in rows {
        let wrong = Control::create(dest).space(nobody).scheduler(ThreadId::NIL).pager(nobody).utcb(1);
        wrong.refused("everything", error).within(format_args!("{dest:?}"))?;
        Control::modify(dest).utcb(1).refused("dest and location", error).within(format_args!("{dest:?}"))?;
    }
    Ok(())
}

fn scheduler_comes_before_the_space() -> Outcome {
    let thread = Thread::reserve()?.id();
    let wrong = Control::create(thread).scheduler(ThreadId::NIL).space(ThreadId::ANY);
    wrong.refused("scheduler and space", SysError::InvalidThread)?;
    wrong.pager(tester().id()).utcb(1).refused("scheduler, space and location", SysError::InvalidThread)
}

fn space_comes_before_the_utcb() -> Outcome {
    let thread = Thread::reserve()?.id();
    let wrong = Control::create(thread).space(ThreadId::ANY).pager(tester().id());
    wrong.utcb(1).refused("space and location", SysError::InvalidSpace)?;
    wrong.refused("space, without a location", SysError::InvalidSpace)?;
    let create = Control::create(thread).space(thread).pager(tester().id());
    create.utcb(1).refused("a new space and location", SysError::InvalidSpace)
}

fn uninitialised_space_comes_before_the_utcb() -> Outcome {
    let first = Thread::reserve()?.id();
    Control::create(first).space(first).call()?;
    let second = Thread::reserve()?;
    let wrong = Control::create(second.id()).space(first).pager(tester().id());
    wrong.refused("no areas, no location", SysError::InvalidSpace)?;
    wrong.utcb(1).refused("no areas, odd location", SysError::InvalidSpace)?;
    wrong.utcb(second.utcb_location()).refused("no areas", SysError::InvalidSpace)
}

fn location_of_an_active_thread_comes_before_the_space() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    let wrong = Control::modify(thread.id()).space(ThreadId::ANY).utcb(thread.utcb_location());
    wrong.refused("location and space", SysError::UtcbArea)?;
    Control::modify(thread.id()).space(ThreadId::ANY).refused("the space alone", SysError::InvalidSpace)
}

// --- deletion ---

fn deletion_looks_at_the_number_alone() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    Control::delete(next_version(thread.id())).call()?;
    equal("its id", inspect(thread.id()).map(drop), Err(SysError::InvalidThread))?;
    Control::delete(ThreadId::global(thread.id().thread_no(), ThreadId::VERSION_MAX)).call()?;
    Ok(())
}

fn deletion_ignores_other_parameters() -> Outcome {
    let thread = spawn(|| sleep_forever())?;
    Control::delete(thread.id()).scheduler(ThreadId::ANY).pager(ThreadId::ANY_LOCAL).utcb(1).call()?;
    equal("its id", inspect(thread.id()).map(drop), Err(SysError::InvalidThread))?;
    Control::delete(thread.id()).scheduler(ThreadId::ANY).pager(tester().id()).utcb(thread.utcb_location()).call()?;
    equal("its id", inspect(thread.id()).map(drop), Err(SysError::InvalidThread))
}

fn nobody_deletes_itself() -> Outcome {
    for id in [tester().id(), next_version(tester().id())] {
        Control::delete(id).refused("the caller", SysError::InvalidThread)?;
    }
    equal("MyGlobalId", utcb().my_global_id(), tester().id())
}

// --- errors ---

fn thread_control_returns_one_or_zero() -> Outcome {
    let id = Thread::reserve()?.id();
    let (me, nil) = (supervisor(), ThreadId::NIL);
    utcb().set_error_code(MARK);
    equal("creation", raw_thread_control(id, me, me, nil, Word::MAX), 1)?;
    equal("modification", raw_thread_control(id, id, nil, nil, Word::MAX), 1)?;
    equal("deletion", raw_thread_control(id, nil, nil, nil, Word::MAX), 1)?;
    equal("deletion of nobody", raw_thread_control(id, nil, nil, nil, Word::MAX), 1)?;
    equal("ErrorCode after successes", utcb().error_code(), MARK)?;
    equal("an error", raw_thread_control(nil, me, me, nil, Word::MAX), 0)?;
    equal("ErrorCode after an error", utcb().error_code(), SysError::InvalidSpace.raw().into())
}

fn refused_creation_leaves_no_thread() -> Outcome {
    let thread = Thread::reserve()?;
    let create = Control::create(thread.id());
    let rows = [
        (create.scheduler(ThreadId::NIL), SysError::InvalidThread),
        (create.space(ThreadId::ANY), SysError::InvalidSpace),
        (create.space(thread.id()).pager(tester().id()).utcb(thread.utcb_location()), SysError::InvalidSpace),
        (create.pager(tester().id()), SysError::UtcbArea),
        (create.pager(tester().id()).utcb(AREA_END), SysError::UtcbArea),
    ];
    for (i, (call, error)) in rows.into_iter().enumerate() {
        call.refused("creation", error).within(i)?;
        Msg::new(0).load();
        let sent = ipc::send_timeout(thread.id(), Time::ZERO).map(drop);
        equal("a message to it", sent, Err(send_error(IpcErrorKind::NonExisting))).within(i)?;
        let local = ipc::receive_timeout(thread.local_id(), Time::ZERO).map(drop);
        equal("a wait for it", local, Err(receive_error(IpcErrorKind::NonExisting))).within(i)?;
    }
    Ok(())
}

fn refused_modification_changes_nothing() -> Outcome {
    let space = fresh_space()?;
    let thread = spawn(|| {
        check(receive(tester().id()).is_ok(), "the wait was cut off")?;
        equal("MyGlobalId", utcb().my_global_id().version() & 63, 1)
    })?;
    let before = inspect(thread.id())?;
    let me = tester().id();
    // The version, the scheduler and the pager would change if the rest were right.
    let all = Control::modify(next_version(thread.id())).scheduler(me).pager(me);
    let rows = [
        (all.space(ThreadId::ANY), SysError::InvalidSpace),
        (all.space(space).utcb(thread.utcb_location()), SysError::UtcbArea),
        (all.space(me).utcb(1), SysError::UtcbArea),
    ];
    for (i, (call, error)) in rows.into_iter().enumerate() {
        call.refused("the call", error).within(i)?;
        equal("what there is of it", inspect(thread.id())?, before).within(i)?;
    }
    send_label(thread.id(), 1)?;
    thread.join()
}

fn refused_activation_can_be_repeated() -> Outcome {
    let thread = Thread::reserve()?;
    Control::create(thread.id()).call()?;
    for round in 0..50 {
        let activate = Control::modify(thread.id()).pager(tester().id());
        activate.utcb(AREA_END).refused("activation", SysError::UtcbArea).within(round)?;
        equal("its state", thread.state()?, ScheduleResult::Dead).within(round)?;
        activate.utcb(thread.utcb_location()).call()?;
        equal("its state", thread.state()?, ScheduleResult::Waiting).within(round)?;
        thread.delete()?;
        Control::create(thread.id()).call()?;
    }
    Ok(())
}
