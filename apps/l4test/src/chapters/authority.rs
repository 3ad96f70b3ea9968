//! Who may do what to whom: each caller and call of the table below, for every kind of target.
//!
//! The usual scene has two spaces besides those of sigma0 and of the program itself, which are privileged: one for the
//! caller and a colleague, one for the target. What ties the caller to the target is its [`Tie`].

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::ipc;
use l4::message::Msg;
use l4::schedule::{schedule, set_preemption_delay, set_priority, set_processor_no, set_timeslice, thread_switch};
use l4::thread::{self as threads_of, inspect};
use l4::time::sleep_forever;
use l4::{
    ExregsControl, Fpage, IpcErrorKind, MsgTag, PageAttribute, PreemptionControl, PrioControl, ProcessorControl,
    Rights, ScheduleResult, SpaceControl, SysError, ThreadId, Time, TimeControl, Word, kip, space, utcb,
};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::agent::Agent;
use crate::world::control::Control;
use crate::world::memory::{PAGE_SIZE, at, page};
use crate::world::messages::{call_label, receive, send_error, send_label};
use crate::world::spaces::{Space, kip_area, utcb_area};
use crate::world::threads::{Thread, plan, spawn, spawn_later, supervisor, tester};

chapter! { authority:
    "X.2, System calls, privileges" => [
        root_task_makes_threads_everywhere,
        root_task_changes_threads_everywhere,
        root_task_deletes_threads_everywhere,
        root_task_controls_spaces_memory_and_processors,
        threads_of_sigma0s_space_are_privileged,
        threads_moved_to_the_root_tasks_space_are_privileged,
        threads_moved_out_of_it_are_not,
        stranger_makes_no_thread,
        stranger_changes_no_thread,
        stranger_deletes_no_thread,
        stranger_activates_no_thread,
        stranger_moves_no_thread,
        stranger_associates_no_interrupt,
        stranger_controls_no_space,
        stranger_controls_no_memory,
        stranger_controls_no_processor,
        pager_makes_changes_and_deletes_nothing,
        scheduler_makes_changes_and_deletes_nothing,
        creator_is_nobody_special,
    ],
    "X.2, ExchangeRegisters" => [
        own_space_exchanges_registers,
        pager_exchanges_registers,
        colleague_of_the_pager_exchanges_registers,
        former_pager_exchanges_nothing,
        stranger_exchanges_nothing,
        scheduler_exchanges_nothing,
        root_task_exchanges_nothing_of_others,
        initial_threads_and_interrupts_are_nobodys,
        refused_exchange_changes_nothing,
    ],
    "X.2, Schedule" => [
        root_task_schedules_everybody,
        scheduler_schedules_up_to_its_priority,
        colleague_of_the_scheduler_schedules,
        former_scheduler_schedules_nothing,
        stranger_schedules_nothing,
        pager_schedules_nothing,
        sibling_schedules_nothing,
        thread_schedules_not_even_itself,
        stranger_schedules_no_interrupt_and_no_initial_thread,
        absent_scheduler_leaves_it_to_the_privileged,
        refused_schedule_changes_nothing: ORDER,
    ],
    "X.2, Unmap" => [
        anybody_unmaps_what_it_gave_away,
        nobody_unmaps_what_it_was_given_by,
        nobody_unmaps_what_others_gave,
    ],
    "X.2, ThreadSwitch" => [anybody_switches_to_anybody: ORDER],
    "X.2, Ipc, partners" => [anybody_sends_to_anybody, nobody_receives_for_others],
    "X.2, Propagation" => [
        member_propagates_for_its_space,
        anybody_propagates_into_its_own_space,
        stranger_propagates_for_nobody,
        root_task_propagates_for_no_stranger,
        pager_and_scheduler_propagate_for_no_stranger,
    ],
}

const ORDER: &str = "a thread of lower priority does not run yet";

/// What the caller is to the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tie {
    /// Nothing.
    Stranger,
    /// Its pager.
    Pager,
    /// In the space of its pager, which is another thread.
    PagersColleague,
    /// Its scheduler.
    Scheduler,
    /// In the space of its scheduler, which is another thread.
    SchedulersColleague,
}

/// The priority of callers.
const PRIORITY: u8 = 110;

/// Has a thread in an unprivileged space do `act` to a target in a third one, to which it is `tie`.
#[track_caller]
fn by(tie: Tie, act: fn(Target) -> Outcome) -> Outcome {
    let space = Space::create()?;
    let caller = plan().space(space).priority(PRIORITY).spawn(move || {
        let target = Target(ThreadId::from_raw(receive_word()?));
        act(target)
    })?;
    let colleague = plan().space(space).spawn(|| sleep_forever())?;
    let (pager, scheduler) = match tie {
        Tie::Stranger => (supervisor(), supervisor()),
        Tie::Pager => (caller.id(), supervisor()),
        Tie::PagersColleague => (colleague.id(), supervisor()),
        Tie::Scheduler => (supervisor(), caller.id()),
        Tie::SchedulersColleague => (supervisor(), colleague.id()),
    };
    let target = plan().space(Space::create()?).pager(pager).spawn(|| sleep_forever())?;
    Control::modify(target.id()).scheduler(scheduler).call()?;
    tell_word(caller, target.id().raw())?;
    caller.join()?;
    // It is still there, whatever was tried.
    check(target.state().is_ok(), "the target is gone")
}

/// Waits for the tester's word.
fn receive_word() -> Outcome<Word> {
    receive(tester().id())?;
    Ok(utcb().mr(1))
}

/// Sends the tester's word.
#[track_caller]
fn tell_word(to: Thread, word: Word) -> Outcome {
    Msg::of_words(MsgTag::new(0, 0, 0), &[word]).load();
    ipc::send_timeout(to.id(), crate::world::threads::PATIENCE)?;
    Ok(())
}

/// The thread that something is done to.
#[derive(Clone, Copy, Debug)]
struct Target(ThreadId);

impl Target {
    /// With all others that a caller may try: itself, the tester, the initial threads, an interrupt, nobody.
    fn and_others(self) -> [(&'static str, ThreadId); 8] {
        let stale = ThreadId::global(self.0.thread_no(), self.0.version() + 1);
        [
            ("a thread elsewhere", self.0),
            ("itself", utcb().my_global_id()),
            ("a thread of the root task's", tester().id()),
            ("the root task", supervisor()),
            ("sigma0", kip::sigma0_id()),
            ("an interrupt", ThreadId::interrupt(3)),
            ("a stale version", stale),
            ("nobody", ThreadId::global(tester().id().thread_no() + 3000, 1)),
        ]
    }

    /// Fails unless a call is refused for want of privilege, whoever it is about.
    fn all_need_privilege(self, call: impl Fn(ThreadId) -> Result<(), SysError>) -> Outcome {
        self.and_others().into_iter().try_for_each(|(who, id)| equal(who, call(id), Err(SysError::NoPrivilege)))
    }
}

// --- privileges: those who have them ---

fn root_task_makes_threads_everywhere() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let thread = Thread::reserve()?;
        let create = Control::create(thread.id()).space(space.specifier()).pager(tester().id());
        create.utcb(thread.utcb_location()).call().map_err(Failure::from).within(place)?;
    }
    let own = Thread::reserve()?.id();
    Ok(Control::create(own).space(own).call()?)
}

fn root_task_changes_threads_everywhere() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let thread = plan().space(space).spawn(|| sleep_forever())?;
        let change = Control::modify(thread.id()).pager(tester().id()).scheduler(tester().id());
        change.call().map_err(Failure::from).within(place)?;
        equal("the pager", threads_of::pager_of(thread.id())?, tester().id()).within(place)?;
    }
    Ok(())
}

fn root_task_deletes_threads_everywhere() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let thread = plan().space(space).spawn(|| sleep_forever())?;
        thread.delete().within(place)?;
        equal("its state", thread.state().is_err(), true).within(place)?;
    }
    Ok(())
}

fn new_space_id() -> Outcome<ThreadId> {
    let id = Thread::reserve()?.id();
    Control::create(id).space(id).call()?;
    Ok(id)
}

fn initialise(id: ThreadId) -> Result<(), SysError> {
    space::space_control(id, SpaceControl::NONE, kip_area(), utcb_area(), ThreadId::NIL).map(drop)
}

fn set_default_attribute() -> Result<(), SysError> {
    space::set_page_attribute(page(0).fpage(Rights::NONE), PageAttribute::DEFAULT)
}

fn root_task_controls_spaces_memory_and_processors() -> Outcome {
    initialise(new_space_id()?)?;
    set_default_attribute()?;
    let result = space::processor_control(0, 0, 0, 0);
    check(result != Err(SysError::NoPrivilege), "ProcessorControl is refused for want of privilege")
}

/// What only the privileged can do, all of it.
fn do_privileged_things(id: ThreadId) -> Outcome {
    Control::create(id).space(id).call()?;
    initialise(id)?;
    Control::modify(id).scheduler(supervisor()).call()?;
    Control::delete(id).call()?;
    set_default_attribute()?;
    let result = space::processor_control(0, 0, 0, 0);
    check(result != Err(SysError::NoPrivilege), "ProcessorControl is refused for want of privilege")
}

fn threads_of_sigma0s_space_are_privileged() -> Outcome {
    let id = Thread::reserve()?.id();
    let thread = plan().space(Space::of(kip::sigma0_id())).spawn(move || do_privileged_things(id))?;
    thread.join()
}

fn threads_moved_to_the_root_tasks_space_are_privileged() -> Outcome {
    let id = Thread::reserve()?.id();
    let thread = plan().space(Space::create()?).spawn(move || {
        equal("at first", Control::create(id).space(id).call(), Err(SysError::NoPrivilege))?;
        // Cut off by the move.
        let waited = receive(tester().id());
        check(waited.is_err(), "the wait was not cut off")?;
        do_privileged_things(id)
    })?;
    Control::modify(thread.id()).space(supervisor()).call()?;
    thread.join()
}

fn threads_moved_out_of_it_are_not() -> Outcome {
    let id = Thread::reserve()?.id();
    let thread = plan().spawn(move || {
        do_privileged_things(id)?;
        let waited = receive(tester().id());
        check(waited.is_err(), "the wait was not cut off")?;
        equal("afterwards", Control::create(id).space(id).call(), Err(SysError::NoPrivilege))
    })?;
    Control::modify(thread.id()).space(Space::create()?.specifier()).call()?;
    thread.join()
}

// --- privileges: those who have none ---

fn make_no_thread(target: Target) -> Outcome {
    target.all_need_privilege(|id| Control::create(id).space(id).call())?;
    target.all_need_privilege(|id| Control::create(id).space(utcb().my_global_id()).call())?;
    let new = ThreadId::global(tester().id().thread_no() + 3000, 1);
    target.all_need_privilege(|id| Control::create(new).space(id).call())
}

fn change_no_thread(target: Target) -> Outcome {
    target.all_need_privilege(|id| Control::modify(id).call())?;
    target.all_need_privilege(|id| Control::modify(id).pager(utcb().my_global_id()).call())?;
    target.all_need_privilege(|id| Control::modify(id).scheduler(utcb().my_global_id()).call())?;
    target.all_need_privilege(|id| Control::modify(ThreadId::global(id.thread_no(), 77)).call())
}

fn delete_no_thread(target: Target) -> Outcome {
    target.all_need_privilege(|id| Control::delete(id).call())
}

fn stranger_makes_no_thread() -> Outcome {
    by(Tie::Stranger, make_no_thread)
}

fn stranger_changes_no_thread() -> Outcome {
    by(Tie::Stranger, change_no_thread)
}

fn stranger_deletes_no_thread() -> Outcome {
    by(Tie::Stranger, delete_no_thread)
}

fn stranger_activates_no_thread() -> Outcome {
    let space = Space::create()?;
    let inactive = Thread::reserve()?;
    Control::create(inactive.id()).space(space.specifier()).utcb(inactive.utcb_location()).call()?;
    let thread = plan().space(space).spawn(move || {
        let activate = Control::modify(inactive.id()).pager(utcb().my_global_id());
        activate.refused("activation", SysError::NoPrivilege)?;
        activate.utcb(inactive.utcb_location()).refused("activation at a location", SysError::NoPrivilege)
    })?;
    thread.join()?;
    equal("its state", inactive.state()?, ScheduleResult::Dead)
}

fn stranger_moves_no_thread() -> Outcome {
    by(Tie::Stranger, |target| {
        target.all_need_privilege(|id| Control::modify(id).space(utcb().my_global_id()).call())?;
        target.all_need_privilege(|id| Control::modify(utcb().my_global_id()).space(id).call())
    })
}

fn stranger_associates_no_interrupt() -> Outcome {
    by(Tie::Stranger, |_| {
        let me = utcb().my_global_id();
        for number in [0, 1, 3, 5, 9, kip::kip().thread_info.system_base() - 1] {
            let id = ThreadId::interrupt(number);
            equal("association", threads_of::associate_interrupt(id, me), Err(SysError::NoPrivilege))?;
            equal("its end", threads_of::deassociate_interrupt(id), Err(SysError::NoPrivilege))?;
        }
        Ok(())
    })
}

fn control_no_space(target: Target) -> Outcome {
    target.all_need_privilege(initialise)?;
    target.all_need_privilege(|id| {
        space::space_control(id, SpaceControl::NONE, Fpage::NIL, Fpage::NIL, utcb().my_global_id()).map(drop)
    })
}

fn stranger_controls_no_space() -> Outcome {
    by(Tie::Stranger, control_no_space)
}

fn stranger_controls_no_memory() -> Outcome {
    by(Tie::Stranger, |_| {
        for fpage in [Fpage::NIL, page(0).fpage(Rights::NONE), Fpage::COMPLETE] {
            equal(
                "an attribute",
                space::memory_control(&[fpage], [PageAttribute::DEFAULT; 4]),
                Err(SysError::NoPrivilege),
            )?;
        }
        equal("65 fpages", l4::arch::memory_control(64, [0; 4]), 0)?;
        equal("ErrorCode", utcb().error_code(), SysError::NoPrivilege.raw().into())
    })
}

fn stranger_controls_no_processor() -> Outcome {
    by(Tie::Stranger, |_| {
        for number in [0, 1, 0xFFFF, Word::MAX] {
            let result = space::processor_control(number, 1_000_000, 100_000, 1_000);
            equal("the call", result, Err(SysError::NoPrivilege))?;
        }
        Ok(())
    })
}

/// All that needs privilege.
fn control_nothing(target: Target) -> Outcome {
    make_no_thread(target)?;
    change_no_thread(target)?;
    delete_no_thread(target)?;
    control_no_space(target)
}

fn pager_makes_changes_and_deletes_nothing() -> Outcome {
    by(Tie::Pager, control_nothing)
}

fn scheduler_makes_changes_and_deletes_nothing() -> Outcome {
    by(Tie::Scheduler, control_nothing)
}

fn creator_is_nobody_special() -> Outcome {
    // Made in the root task's space by a thread that then moves out of it.
    let made = Thread::reserve()?;
    let creator = plan().spawn(move || {
        Control::create(made.id()).space(made.id()).call()?;
        let waited = receive(tester().id());
        check(waited.is_err(), "the wait was not cut off")?;
        Control::delete(made.id()).refused("its deletion", SysError::NoPrivilege)?;
        equal("its space", initialise(made.id()), Err(SysError::NoPrivilege))
    })?;
    Control::modify(creator.id()).space(Space::create()?.specifier()).call()?;
    creator.join()
}

// --- ExchangeRegisters ---

/// Reads all registers of a thread and writes its handle.
fn exchange_all(id: ThreadId) -> Result<(), SysError> {
    let handle = inspect(id)?.old.handle;
    threads_of::set_user_defined_handle_of(id, handle + 1)?;
    threads_of::stop(id)?;
    threads_of::resume(id)?;
    threads_of::abort(id, ExregsControl::NONE)?;
    match threads_of::user_defined_handle_of(id)? == handle + 1 {
        true => Ok(()),
        false => Err(SysError::InvalidParameter),
    }
}

/// All forms of the call are refused.
fn exchange_nothing(id: ThreadId) -> Outcome {
    let refused = Err(SysError::InvalidThread);
    equal("reading", inspect(id).map(drop), refused)?;
    equal("a handle", threads_of::set_user_defined_handle_of(id, 1), refused)?;
    equal("a pager", threads_of::set_pager_of(id, utcb().my_global_id()), refused)?;
    equal("a halt", threads_of::stop(id).map(drop), refused)?;
    equal("the end of a halt", threads_of::resume(id).map(drop), refused)?;
    equal("an abort", threads_of::abort(id, ExregsControl::ABORT_IPC).map(drop), refused)
}

fn own_space_exchanges_registers() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let sibling = plan().space(space).spawn(|| sleep_forever())?;
        let thread = plan().space(space).spawn(move || {
            exchange_all(sibling.id())?;
            exchange_all(sibling.local_id())?;
            Ok(())
        })?;
        thread.join().within(place)?;
    }
    Ok(())
}

fn pager_exchanges_registers() -> Outcome {
    by(Tie::Pager, |target| Ok(exchange_all(target.0)?))
}

fn colleague_of_the_pager_exchanges_registers() -> Outcome {
    by(Tie::PagersColleague, |target| Ok(exchange_all(target.0)?))
}

fn former_pager_exchanges_nothing() -> Outcome {
    by(Tie::Pager, |target| {
        threads_of::set_pager_of(target.0, supervisor())?;
        exchange_nothing(target.0)
    })
}

fn stranger_exchanges_nothing() -> Outcome {
    by(Tie::Stranger, |target| exchange_nothing(target.0))
}

fn scheduler_exchanges_nothing() -> Outcome {
    by(Tie::Scheduler, |target| exchange_nothing(target.0))
}

fn root_task_exchanges_nothing_of_others() -> Outcome {
    let space = Space::create()?;
    let pager = plan().space(space).spawn(|| sleep_forever())?;
    let thread = plan().space(space).pager(pager.id()).spawn(|| sleep_forever())?;
    exchange_nothing(thread.id())
}

fn initial_threads_and_interrupts_are_nobodys() -> Outcome {
    let rows = [kip::sigma0_id(), ThreadId::interrupt(3), ThreadId::NIL, ThreadId::ANY, ThreadId::ANY_LOCAL];
    for id in rows {
        exchange_nothing(id).within(format_args!("{id:?}"))?;
    }
    by(Tie::Stranger, |target| {
        let mut others = target.and_others().into_iter().filter(|(who, _)| *who != "itself");
        others.try_for_each(|(who, id)| exchange_nothing(id).within(who))
    })
}

fn refused_exchange_changes_nothing() -> Outcome {
    let victim = plan().space(Space::create()?).spawn(|| {
        check(receive(tester().id()).is_ok(), "the wait was cut off")?;
        equal("the handle", utcb().user_defined_handle(), 0)
    })?;
    let stranger = plan().space(Space::create()?).spawn(move || exchange_nothing(victim.id()))?;
    stranger.join()?;
    check(!inspect(victim.id())?.state.was_halted(), "it is halted")?;
    equal("its pager", threads_of::pager_of(victim.id())?, supervisor())?;
    send_label(victim.id(), 1)?;
    victim.join()
}

// --- Schedule ---

const KEEP: (TimeControl, ProcessorControl, PrioControl, PreemptionControl) =
    (TimeControl::NO_CHANGE, ProcessorControl::NO_CHANGE, PrioControl::NO_CHANGE, PreemptionControl::NO_CHANGE);

/// Every parameter, within what the caller's priority allows; nothing is left other than it was.
fn schedule_all(id: ThreadId) -> Outcome {
    schedule(id, KEEP.0, KEEP.1, KEEP.2, KEEP.3)?;
    set_timeslice(id, Time::period_us(10_000), Time::NEVER)?;
    set_processor_no(id, utcb().processor_no() as u16)?;
    set_priority(id, PRIORITY)?;
    set_preemption_delay(id, PRIORITY, 0)?;
    Ok(())
}

/// Every parameter is refused.
fn schedule_nothing(id: ThreadId, error: SysError) -> Outcome {
    let refused = Err(error);
    equal("a look", schedule(id, KEEP.0, KEEP.1, KEEP.2, KEEP.3).map(drop), refused)?;
    equal("a priority", set_priority(id, 1).map(drop), refused)?;
    equal("times", set_timeslice(id, Time::NEVER, Time::NEVER).map(drop), refused)?;
    equal("a processor", set_processor_no(id, 0).map(drop), refused)?;
    equal("a delay", set_preemption_delay(id, 1, 1).map(drop), refused)
}

fn root_task_schedules_everybody() -> Outcome {
    let space = Space::create()?;
    let other = plan().space(space).spawn(|| sleep_forever())?;
    // Its scheduler is one of its own space.
    Control::modify(other.id()).scheduler(other.id()).call()?;
    schedule_all(other.id())?;
    // The tester's own priority is no limit.
    set_priority(other.id(), 255)?;
    set_preemption_delay(other.id(), 255, 100)?;
    for id in [kip::sigma0_id(), supervisor(), tester().id(), tester().local_id()] {
        schedule(id, KEEP.0, KEEP.1, KEEP.2, KEEP.3)?;
    }
    Ok(())
}

fn schedule_up_to_own_priority(target: Target) -> Outcome {
    schedule_all(target.0)?;
    let refused = Err(SysError::NoPrivilege);
    for priority in [PRIORITY + 1, 255] {
        equal("a priority above the own", set_priority(target.0, priority).map(drop), refused)?;
        equal("a sensitive one", set_preemption_delay(target.0, priority, 0).map(drop), refused)?;
    }
    for priority in [0, 1, PRIORITY - 1, PRIORITY] {
        set_priority(target.0, priority)?;
    }
    Ok(())
}

fn scheduler_schedules_up_to_its_priority() -> Outcome {
    by(Tie::Scheduler, schedule_up_to_own_priority)
}

fn colleague_of_the_scheduler_schedules() -> Outcome {
    by(Tie::SchedulersColleague, schedule_up_to_own_priority)
}

fn former_scheduler_schedules_nothing() -> Outcome {
    let target = plan().space(Space::create()?).spawn(|| sleep_forever())?;
    let scheduler = plan().space(Space::create()?).priority(PRIORITY).spawn(move || {
        receive(tester().id())?;
        schedule_all(target.id()).within("at first")?;
        send_label(tester().id(), 0)?;
        receive(tester().id())?;
        schedule_nothing(target.id(), SysError::NoPrivilege).within("afterwards")
    })?;
    Control::modify(target.id()).scheduler(scheduler.id()).call()?;
    call_label(scheduler.id(), 0)?;
    Control::modify(target.id()).scheduler(supervisor()).call()?;
    send_label(scheduler.id(), 0)?;
    scheduler.join()
}

fn stranger_schedules_nothing() -> Outcome {
    by(Tie::Stranger, |target| schedule_nothing(target.0, SysError::NoPrivilege))
}

fn pager_schedules_nothing() -> Outcome {
    by(Tie::Pager, |target| schedule_nothing(target.0, SysError::NoPrivilege))
}

fn sibling_schedules_nothing() -> Outcome {
    let space = Space::create()?;
    let sibling = plan().space(space).spawn(|| sleep_forever())?;
    let thread = plan().space(space).spawn(move || {
        schedule_nothing(sibling.id(), SysError::NoPrivilege)?;
        schedule_nothing(sibling.local_id(), SysError::NoPrivilege)
    })?;
    thread.join()
}

fn thread_schedules_not_even_itself() -> Outcome {
    let thread = plan().space(Space::create()?).spawn(|| {
        schedule_nothing(utcb().my_global_id(), SysError::NoPrivilege)?;
        schedule_nothing(threads_of::my_local_id(), SysError::NoPrivilege)
    })?;
    thread.join()
}

fn stranger_schedules_no_interrupt_and_no_initial_thread() -> Outcome {
    by(Tie::Stranger, |target| {
        for (who, id) in target.and_others() {
            let exists = !matches!(who, "an interrupt" | "a stale version" | "nobody");
            let error = if exists { SysError::NoPrivilege } else { SysError::InvalidThread };
            schedule_nothing(id, error).within(who)?;
        }
        Ok(())
    })
}

fn absent_scheduler_leaves_it_to_the_privileged() -> Outcome {
    let scheduler = plan().space(Space::create()?).spawn(|| sleep_forever())?;
    let target = plan().space(Space::create()?).spawn(|| sleep_forever())?;
    Control::modify(target.id()).scheduler(scheduler.id()).call()?;
    scheduler.delete()?;
    let stranger =
        plan().space(Space::create()?).spawn(move || schedule_nothing(target.id(), SysError::NoPrivilege))?;
    stranger.join()?;
    schedule_all(target.id())
}

fn refused_schedule_changes_nothing() -> Outcome {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    RUNS.store(0, Relaxed);
    // It would run as soon as its priority were above the tester's.
    let target = spawn_later(|| {
        RUNS.fetch_add(1, Relaxed);
        Ok(())
    })?;
    set_timeslice(target.id(), Time::period_us(4_000), Time::NEVER)?;
    let stranger = plan().space(Space::create()?).priority(200).spawn(move || {
        let prio = PrioControl::new(150);
        let time = TimeControl::new(Time::period_us(2_000), Time::period_us(2_000));
        let result = schedule(target.id(), time, KEEP.1, prio, PreemptionControl::new(150, 7)).map(drop);
        equal("the call", result, Err(SysError::NoPrivilege))
    })?;
    // Asked for its result, it runs before the target if that has kept its priority.
    equal("runs", RUNS.load(Relaxed), 0)?;
    let times = l4::schedule::timeslice(target.id())?;
    equal("the time slice", times.timeslice().length_us(), Some(4_000))?;
    equal("the total quantum", times.total_quantum(), Time::NEVER)?;
    stranger.join()?;
    target.join()
}

// --- Unmap ---

fn anybody_unmaps_what_it_gave_away() -> Outcome {
    page(0).set(0xA0);
    let (first, second) = (Agent::in_new_space()?, Agent::in_new_space()?);
    first.take(page(0).map_to(0, Rights::READ_WRITE))?;
    first.pass(second, l4::MapItem::map(own_place(0), 0))?;
    second.check_reads(at(0), 0xA0)?;
    first.unmap([own_place(0)])?;
    second.check_nothing(at(0))?;
    first.check_reads(at(0), 0xA0)
}

/// The page at an offset of the playground.
fn own_place(offset: Word) -> Fpage {
    crate::world::memory::window(offset, 12).with_rights(Rights::ALL)
}

fn nobody_unmaps_what_it_was_given_by() -> Outcome {
    page(0).set(0xA1);
    let (first, second) = (Agent::in_new_space()?, Agent::in_new_space()?);
    first.take(page(0).map_to(0, Rights::READ_WRITE))?;
    first.pass(second, l4::MapItem::map(own_place(0), 0))?;
    second.unmap([own_place(0)])?;
    second.flush([own_place(0)])?;
    second.check_nothing(at(0))?;
    first.check_rights(at(0), Rights::READ_WRITE)?;
    equal("the page of the first owner", page(0).get(), 0xA1)
}

fn nobody_unmaps_what_others_gave() -> Outcome {
    page(0).set(0xA2);
    let [giver, taker, stranger] = [Agent::in_new_space()?, Agent::in_new_space()?, Agent::in_new_space()?];
    giver.take(page(0).map_to(0, Rights::READ_WRITE))?;
    giver.pass(taker, l4::MapItem::map(own_place(0), PAGE_SIZE))?;
    // The same addresses, in another space; and a sibling's mapping of the same page.
    stranger.take(page(0).map_to(0, Rights::READ_WRITE))?;
    stranger.unmap([own_place(0), own_place(PAGE_SIZE)])?;
    stranger.flush([own_place(0), own_place(PAGE_SIZE)])?;
    giver.check_rights(at(0), Rights::READ_WRITE)?;
    taker.check_rights(at(PAGE_SIZE), Rights::READ_WRITE)
}

// --- ThreadSwitch, Ipc ---

fn anybody_switches_to_anybody() -> Outcome {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    RUNS.store(0, Relaxed);
    let target = spawn_later(|| {
        RUNS.fetch_add(1, Relaxed);
        Ok(())
    })?;
    let stranger = plan().space(Space::create()?).spawn(move || {
        thread_switch(target.id());
        equal("runs", RUNS.load(Relaxed), 1)
    })?;
    stranger.join()?;
    target.join()
}

fn anybody_sends_to_anybody() -> Outcome {
    let target = plan().space(Space::create()?).spawn(|| {
        let message = ipc::ipc(ThreadId::NIL, ThreadId::ANY, l4::Timeouts::NEVER).result()?;
        equal("the label", message.tag.label(), 0x515)
    })?;
    let stranger = plan().space(Space::create()?).spawn(move || {
        send_label(target.id(), 0x515)?;
        Ok(())
    })?;
    stranger.join()?;
    target.join()
}

fn nobody_receives_for_others() -> Outcome {
    // A message to one thread does not go to another of its space, whoever asks.
    let target = spawn(|| sleep_forever())?;
    let sender = spawn(move || {
        Msg::new(0x99).load();
        let sent = ipc::send_timeout(target.id(), Time::period_us(2_000)).map(drop);
        equal("the message", sent, Err(send_error(IpcErrorKind::Timeout)))
    })?;
    for from in [sender.id(), sender.local_id(), ThreadId::ANY, ThreadId::ANY_LOCAL] {
        let waited = ipc::receive_timeout(from, Time::ZERO).map(drop);
        let expected = Err(crate::world::messages::receive_error(IpcErrorKind::Timeout));
        equal("a wait", waited, expected).within(format_args!("{from:?}"))?;
    }
    sender.join()
}

// --- propagation ---

/// Sends to the thread `to` in the name of `client`; whether that says so is what the receiver finds.
fn send_in_name(client: ThreadId, to: ThreadId) -> Outcome {
    utcb().set_virtual_sender(client);
    utcb().set_tag(MsgTag::new(0x77, 0, 0).with_flags(MsgTag::PROPAGATED));
    ipc::send_timeout(to, crate::world::threads::PATIENCE)?;
    Ok(())
}

/// A thread in `deputy_space` sends to one in a third space in the name of one in `client_space`. Whether it passes.
#[track_caller]
fn propagates(client_space: Space, deputy_space: Space, receiver_space: Space) -> Outcome<bool> {
    let receiver = plan().space(receiver_space).spawn(|| {
        let message = ipc::ipc(ThreadId::NIL, ThreadId::ANY, l4::Timeouts::NEVER).result()?;
        let from = if message.from.is_local() { threads_of::global_id_of(message.from)? } else { message.from };
        let actual = utcb().actual_sender();
        Msg::of_words(MsgTag::new(message.tag.is_propagated().into(), 0, 0), &[from.raw(), actual.raw()]).load();
        ipc::send_timeout(tester().id(), crate::world::threads::PATIENCE)?;
        Ok(())
    })?;
    let client = plan().space(client_space).spawn(|| sleep_forever())?;
    let deputy = plan().space(deputy_space).spawn(move || send_in_name(client.id(), receiver.id()))?;
    let told = receive(receiver.id())?.tag.label() == 1;
    let (from, actual) = (ThreadId::from_raw(utcb().mr(1)), ThreadId::from_raw(utcb().mr(2)));
    deputy.join()?;
    equal("the sender", from, if told { client.id() } else { deputy.id() })?;
    check(!told || actual == deputy.id(), format_args!("the actual sender is {actual:?}"))?;
    Ok(told)
}

fn member_propagates_for_its_space() -> Outcome {
    let (space, other) = (Space::create()?, Space::create()?);
    equal("for its own space", propagates(space, space, other)?, true)?;
    equal("within one space", propagates(space, space, space)?, true)?;
    equal("for the root task's, by a thread of it", propagates(Space::own(), Space::own(), other)?, true)
}

fn anybody_propagates_into_its_own_space() -> Outcome {
    let (space, other) = (Space::create()?, Space::create()?);
    equal("for a stranger, into its own space", propagates(other, space, space)?, true)?;
    equal("for the root task, into its own space", propagates(Space::own(), space, space)?, true)
}

fn stranger_propagates_for_nobody() -> Outcome {
    let [client, deputy, receiver] = [Space::create()?, Space::create()?, Space::create()?];
    equal("between two others", propagates(client, deputy, receiver)?, false)?;
    equal("between threads of one space", propagates(client, deputy, client)?, false)?;
    equal("for the root task", propagates(Space::own(), deputy, receiver)?, false)?;
    equal("to the root task", propagates(client, deputy, Space::own())?, false)
}

fn root_task_propagates_for_no_stranger() -> Outcome {
    let (client, receiver) = (Space::create()?, Space::create()?);
    equal("between two others", propagates(client, Space::own(), receiver)?, false)
}

fn pager_and_scheduler_propagate_for_no_stranger() -> Outcome {
    let deputy = plan().space(Space::create()?).spawn(|| {
        let client = ThreadId::from_raw(receive_word()?);
        send_in_name(client, tester().id())
    })?;
    let client = plan().space(Space::create()?).pager(deputy.id()).spawn(|| sleep_forever())?;
    Control::modify(client.id()).scheduler(deputy.id()).call()?;
    tell_word(deputy, client.id().raw())?;
    let message = receive(ThreadId::ANY)?;
    equal("the sender", message.from, deputy.id())?;
    check(!message.tag.is_propagated(), "the message says that it was propagated")?;
    deputy.join()
}
