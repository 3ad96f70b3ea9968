//! Quotas of kernel memory, which SpaceControl sets: an extension that other kernels need not have.

use l4::arch::space_control as raw_space_control;
use l4::{Fpage, MapItem, Rights, SpaceControl, SysError, ThreadId, Word, space, thread};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::agent::{Access, Agent};
use crate::world::large;
use crate::world::memory::{PAGE_LOG2, at, fpage, playground};
use crate::world::spaces::Space;
use crate::world::threads::{Thread, supervisor, tester};

chapter! { quota:
    "X.2, SpaceControl, control word" => [
        quota_is_set_and_told,
        quota_is_not_for_everybody,
    ],
    "X.2, System calls, kernel memory" => [
        mappings_beyond_the_quota_are_left_out,
        threads_beyond_the_quota_are_refused,
        quota_holds_for_what_others_send,
    ],
}

/// Between places for which a table of their own is needed.
const TABLE_LOG2: u32 = 21;
/// Places that are tried.
const PLACES: Word = 40;
/// KiB that a quota leaves.
const ROOM_KIB: Word = 64;

#[track_caller]
fn used(space: Space) -> Outcome<Word> {
    let used = space::memory_used(space.specifier())?;
    used.ok_or_else(|| Failure::skip("this kernel does not know quotas"))
}

/// A quota that leaves so much room.
#[track_caller]
fn leave(space: Space, room_kib: Word) -> Outcome<Word> {
    let quota = used(space)? + room_kib;
    space::set_quota(space.specifier(), Some(quota))?;
    Ok(quota)
}

fn quota_is_set_and_told() -> Outcome {
    let space = Space::create()?;
    used(space)?;
    let set = |quota| space::set_quota(space.specifier(), quota);
    equal("the quota of a new space", set(Some(1000))?, None)?;
    equal("the one after that", set(Some(0))?, Some(1000))?;
    equal("the one after none at all", set(None)?, Some(0))?;
    equal("the last one", set(None)?, None)?;
    let raw =
        |control: SpaceControl| raw_space_control(space.specifier(), control, Fpage::NIL, Fpage::NIL, ThreadId::NIL);
    equal("no quota", raw(SpaceControl::quota(Some(7))), (1, SpaceControl::quota(None)))?;
    equal("a call about something else", raw(SpaceControl::NONE), (1, SpaceControl::NONE))?;
    equal("the quota after it", raw(SpaceControl::quota(None)), (1, SpaceControl::quota(Some(7))))?;
    // A call that fails changes nothing.
    let nobody = Thread::reserve()?.id();
    equal("a call for nobody", space::set_quota(nobody, Some(0)), Err(SysError::InvalidSpace))
}

fn quota_is_not_for_everybody() -> Outcome {
    let space = Space::create()?;
    used(space)?;
    let (id, root) = (space.specifier(), supervisor());
    let thread = crate::world::threads::plan().space(space).spawn(move || {
        for target in [id, root] {
            equal("setting a quota", space::set_quota(target, None), Err(SysError::NoPrivilege))?;
            equal("asking", space::memory_used(target), Err(SysError::NoPrivilege))?;
        }
        Ok(())
    })?;
    thread.join()
}

/// Maps a page to one place after the other, each of which needs a table; how many came.
#[track_caller]
fn fill(agent: Agent, send: impl Fn(MapItem) -> Outcome) -> Outcome<Word> {
    let page = fpage(large::LARGE.page()?.base(), PAGE_LOG2, Rights::READ);
    let offset = |place| (place + 1) << TABLE_LOG2;
    for place in 0..PLACES {
        send(MapItem::map(page, offset(place)))?;
    }
    let mut came = 0;
    for place in 0..PLACES {
        came += Word::from(matches!(agent.read(at(offset(place)))?, Access::Done(_)));
    }
    Ok(came)
}

fn mappings_beyond_the_quota_are_left_out() -> Outcome {
    let space = Space::create()?;
    let agent = Agent::new(space)?;
    let quota = leave(space, ROOM_KIB)?;
    let came = fill(agent, |item| agent.take(item))?;
    check((1..=ROOM_KIB / 8).contains(&came), format_args!("{came} tables in {ROOM_KIB} KiB"))?;
    check(used(space)? <= quota, format_args!("{} KiB are used of {quota}", used(space)?))?;
    // Mappings come back when they go, tables stay.
    let full = used(space)?;
    agent.flush([playground()])?;
    check(used(space)? <= full, "what is flushed costs nothing")?;
    equal("how many come again", fill(agent, |item| agent.take(item))?, came)?;
    space::set_quota(space.specifier(), None)?;
    equal("how many come without a quota", fill(agent, |item| agent.take(item))?, PLACES)
}

fn threads_beyond_the_quota_are_refused() -> Outcome {
    let space = Space::create()?;
    leave(space, 8)?;
    let before = used(space)?;
    let id = |i: Word| ThreadId::global(tester().id().thread_no() + 1024 + i, 1);
    let make = |i| thread::thread_control(id(i), space.specifier(), supervisor(), ThreadId::NIL, None);
    let end = (0..64).find_map(|i| make(i).err().map(|error| (i, error)));
    let elsewhere = thread::thread_control(id(100), supervisor(), supervisor(), ThreadId::NIL, None);
    (0..=100).try_for_each(|i| thread::delete(id(i)))?;
    let (count, error) = end.ok_or_else(|| Failure::new("64 threads are made in 8 KiB"))?;
    equal("the error", error, SysError::OutOfMemory)?;
    check(count > 0, "there is room for one")?;
    equal("a thread in another space", elsewhere, Ok(()))?;
    equal("what is used when they are gone", used(space)?, before)
}

/// Who maps to others spends what is theirs, and nothing of its own.
fn quota_holds_for_what_others_send() -> Outcome {
    let [from, to] = [Space::create()?, Space::create()?];
    let (sender, receiver) = (Agent::new(from)?, Agent::new(to)?);
    let page = fpage(large::LARGE.page()?.base(), PAGE_LOG2, Rights::READ);
    sender.take(MapItem::map(page, 0))?;
    let (quota, senders) = (leave(to, ROOM_KIB)?, leave(from, 0)?);
    let own = fpage(at(0), PAGE_LOG2, Rights::READ);
    let came = fill(receiver, |item| sender.pass(receiver, MapItem { fpage: own, ..item }))?;
    check((1..=ROOM_KIB / 8).contains(&came), format_args!("{came} tables in {ROOM_KIB} KiB"))?;
    check(used(to)? <= quota && used(from)? <= senders, "neither quota is exceeded").within(came)
}
