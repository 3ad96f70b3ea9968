//! Kernel memory: it runs out with an error, and what is deleted gives all of it back.
//!
//! How much there is shows in how many threads, spaces or mappings there can be at once. A test makes as many, removes
//! them, and does it again: were a frame lost, there would be fewer the next time.

use l4::{MapItem, MemoryType, Rights, SpaceControl, SysError, ThreadId, UTCB_SIZE, Word, kip, space, thread};

use crate::arch;
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::agent::{Access, Agent};
use crate::world::large::{self, LARGE_LOG2};
use crate::world::memory::{PAGE_SIZE, at, fpage, window};
use crate::world::spaces::{Space, kip_area, utcb_area};
use crate::world::threads::{self, Thread, supervisor, tester};

chapter! { kernel_memory:
    "X.2, System calls, kernel memory" => [
        inactive_threads_until_there_is_no_memory,
        threads_far_from_each_other_until_there_is_no_memory,
        active_threads_until_there_is_no_memory,
        spaces_until_there_is_no_memory,
        mappings_until_there_is_no_memory,
        lives_of_threads_cost_no_memory,
        lives_of_spaces_cost_no_memory,
        lives_cost_the_same_each_time,
    ],
}

/// Threads before and behind which there are no others in the same pages of the kernel's tables.
const FAR: Word = 64;
/// Kernel memory is below this.
const KERNEL_REACH: Word = 512 << 20;
/// Lives of which the time is taken together.
const BATCH: Word = 1000;
const THREAD_LIVES: Word = 100_000;
const SPACE_LIVES: Word = 10_000;

/// How many lives are enough. With several processors each is made known to all of them, for which an emulator on a busy
/// host takes its time, unless it counts instructions: then one runs at a time.
fn lives(count: Word) -> Word {
    if kip::num_processors() > 1 && !arch::counts_instructions() { count / 50 } else { count }
}

/// What it means that kernel memory does not run out: with little of it a mistake, with much that there are not ids and
/// places enough to use it up.
#[track_caller]
fn endless() -> Failure {
    const LITTLE: Word = 32 << 20;
    let reserved = kip::memory_descriptors().iter().filter(|d| d.kind() == MemoryType::Reserved && !d.is_virtual());
    let kernel: Word = reserved.filter(|d| d.high() < KERNEL_REACH).map(|d| d.high() - d.low() + 1).sum();
    if kernel > LITTLE {
        Failure::skip("this much kernel memory cannot run out (boot with --boot-args kmem=16M)")
    } else {
        Failure::new("kernel memory does not run out")
    }
}

/// How often memory is filled.
fn rounds() -> usize {
    if kip::num_processors() > 1 { 2 } else { 3 }
}

/// The id of a thread beyond those of the test.
fn id(i: Word) -> ThreadId {
    ThreadId::global(tester().id().thread_no() + 1024 + i, 1)
}

/// How many `make` can make, from 0 on, until there is no memory. All are deleted.
#[track_caller]
fn fill(stride: Word, make: impl Fn(ThreadId, Word) -> Result<(), SysError>) -> Outcome<Word> {
    const MANY: Word = 200_000;
    let end = (0..MANY / stride).find_map(|i| make(id(i * stride), i).err().map(|error| (i, error)));
    // The last may be there or not.
    (0..end.map_or(MANY / stride, |(i, _)| i + 1)).try_for_each(|i| thread::delete(id(i * stride)))?;
    let (count, error) = end.ok_or_else(endless)?;
    equal("the error", error, SysError::OutOfMemory)?;
    Ok(count)
}

/// Fills memory several times, always with the same number.
#[track_caller]
fn fill_again_and_again(stride: Word, make: impl Fn(ThreadId, Word) -> Result<(), SysError>) -> Outcome {
    let first = fill(stride, &make)?;
    check(first > 10, "there is memory for some")?;
    (1..rounds()).try_for_each(|round| equal(format_args!("the number in round {round}"), fill(stride, &make)?, first))
}

fn make_inactive(id: ThreadId, _: Word) -> Result<(), SysError> {
    thread::thread_control(id, supervisor(), supervisor(), ThreadId::NIL, None)
}

/// A thread in a space of its own, waiting for its start message.
fn make_space(id: ThreadId, _: Word) -> Result<(), SysError> {
    let me = tester().id();
    thread::thread_control(id, id, me, ThreadId::NIL, None)?;
    space::space_control(id, SpaceControl::NONE, kip_area(), utcb_area(), ThreadId::NIL)?;
    thread::thread_control(id, id, ThreadId::NIL, me, Some(utcb_area().base()))
}

fn inactive_threads_until_there_is_no_memory() -> Outcome {
    fill_again_and_again(1, make_inactive)
}

fn threads_far_from_each_other_until_there_is_no_memory() -> Outcome {
    fill_again_and_again(FAR, make_inactive)
}

fn active_threads_until_there_is_no_memory() -> Outcome {
    let area = window(0, 30);
    let space = Space::with_areas(kip_area(), area)?;
    fill_again_and_again(1, |id, i| {
        let me = tester().id();
        thread::thread_control(id, space.specifier(), me, me, Some(area.base() + i * UTCB_SIZE as Word))
    })
}

fn spaces_until_there_is_no_memory() -> Outcome {
    fill_again_and_again(1, make_space)
}

/// Maps the large page in small ones to one place after the other, until one does not come; how many came.
#[track_caller]
fn map_until_there_is_no_memory(agent: Agent) -> Outcome<Word> {
    const LARGE: Word = 1 << LARGE_LOG2;
    const HALF_LOG2: u32 = LARGE_LOG2 - 1;
    const HALF: Word = 1 << HALF_LOG2;
    const MANY: Word = 4096;
    let large = large::LARGE.page()?;
    let is_there = |address| -> Outcome<bool> { Ok(matches!(agent.read(at(address))?, Access::Done(_))) };
    for place in (0..MANY).map(|i| i * LARGE) {
        let half = |offset| MapItem::map(fpage(large.base() + offset, HALF_LOG2, Rights::READ), place + offset);
        agent.take_all(&[half(0), half(HALF)])?;
        if is_there(place + LARGE - PAGE_SIZE)? {
            continue;
        }
        let mut pages = place / PAGE_SIZE;
        while is_there(pages * PAGE_SIZE)? {
            pages += 1;
        }
        return Ok(pages);
    }
    Err(endless())
}

/// An agent in a new space, and an end of both.
#[track_caller]
fn with_agent<T>(body: impl Fn(Agent) -> Outcome<T>) -> Outcome<T> {
    let space = Space::create()?;
    let agent = Agent::new(space)?;
    let result = body(agent)?;
    agent.thread().delete()?;
    thread::delete(space.specifier())?;
    threads::give_back(2);
    Ok(result)
}

fn mappings_until_there_is_no_memory() -> Outcome {
    // Threads take most of the memory: it would last for some hundred thousand mappings.
    const LEFT: Word = 100;
    let end = (0..).find(|&i| make_inactive(id(i * FAR), i).is_err()).unwrap_or(0);
    let large = large::LARGE.page()?.with_rights(Rights::ALL);
    let fill = |agent| {
        let [first, second] = [(); 2].map(|()| {
            let count = map_until_there_is_no_memory(agent);
            space::unmap_fpage(large);
            count
        });
        equal("the number after all were unmapped", second?, first?)?;
        first
    };
    let filled = (end.saturating_sub(LEFT)..end).try_for_each(|i| thread::delete(id(i * FAR)));
    let first = with_agent(fill);
    let again = (1..rounds()).try_for_each(|_| equal("the number in another space", with_agent(fill)?, first?));
    (0..end).try_for_each(|i| thread::delete(id(i * FAR)))?;
    filled?;
    again?;
    let first = first?;
    check(first > 1000, format_args!("there is memory for {first} mappings"))
}

/// An active thread among others, or an inactive one far from others: both come and go.
fn live_as_thread(i: Word, slot: Thread) -> Outcome {
    let (me, id) = (tester().id(), if i.is_multiple_of(2) { slot.id() } else { id(FAR) });
    let utcb = i.is_multiple_of(2).then_some(slot.utcb_location());
    let pager = utcb.map_or(ThreadId::NIL, |_| me);
    thread::thread_control(id, me, me, pager, utcb)?;
    Ok(thread::delete(id)?)
}

fn live_as_space(i: Word) -> Outcome {
    make_space(id(i % 2 * FAR), i)?;
    Ok(thread::delete(id(i % 2 * FAR))?)
}

fn lives_of_threads_cost_no_memory() -> Outcome {
    let slot = Thread::reserve()?;
    let before = fill(FAR, make_inactive)?;
    (0..lives(THREAD_LIVES)).try_for_each(|i| live_as_thread(i, slot).within(i))?;
    equal("the number of threads there can be", fill(FAR, make_inactive)?, before)
}

fn lives_of_spaces_cost_no_memory() -> Outcome {
    let before = fill(1, make_space)?;
    (0..lives(SPACE_LIVES)).try_for_each(|i| live_as_space(i).within(i))?;
    equal("the number of spaces there can be", fill(1, make_space)?, before)
}

/// The instructions of the first lives and of the last.
#[track_caller]
fn costs(lives: Word, live: impl Fn(Word) -> Outcome) -> Outcome<[u64; 2]> {
    let mut costs = [0; 2];
    for first in (0..lives).step_by(BATCH as usize) {
        let start = l4::arch::timestamp();
        (first..first + BATCH).try_for_each(&live)?;
        costs[usize::from(first > 0)] = l4::arch::timestamp() - start;
    }
    Ok(costs)
}

fn lives_cost_the_same_each_time() -> Outcome {
    if !arch::counts_instructions() {
        return Err(Failure::skip("the time-stamp counter does not count instructions"));
    }
    let slot = Thread::reserve()?;
    let threads = costs(THREAD_LIVES, |i| live_as_thread(i, slot))?;
    let spaces = costs(SPACE_LIVES, live_as_space)?;
    for (what, [first, last]) in [("threads", threads), ("spaces", spaces)] {
        let is_same = first.abs_diff(last) * 100 <= first;
        check(is_same, format_args!("{BATCH} {what} take {first} instructions first and {last} in the end"))?;
    }
    Ok(())
}
