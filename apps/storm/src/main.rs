//! The storm: a root task that lets threads on all processors do to each other whatever the dice say, and checks what must
//! hold whatever they do:
//!
//! - messages arrive once, whole and in order, and in the end both sides have counted as many;
//! - whoever calls a server is answered;
//! - after Unmap has returned no processor writes to the page;
//! - who is deleted is gone, and who is not answers in the end;
//! - the kernel has as much memory as before.
//!
//! [`table`] lists who takes part. All choices follow from a seed, which is printed first; what comes of them depends on how
//! fast the processors are, unless the emulator counts instructions.
#![no_std]
#![no_main]

#[forbid(unsafe_code)]
mod controller;
#[forbid(unsafe_code)]
mod failure;
#[forbid(unsafe_code)]
mod life;
#[forbid(unsafe_code)]
mod memory;
mod messages;
#[forbid(unsafe_code)]
mod overseer;
#[forbid(unsafe_code)]
mod pager;
#[forbid(unsafe_code)]
mod progress;
#[forbid(unsafe_code)]
mod server;
#[forbid(unsafe_code)]
mod table;
#[forbid(unsafe_code)]
mod victim;

use dice::mix;
use dice::options::CommandLine;
use l4::message::Msg;
use l4::{IpcErrorKind, Time, Timeouts, ipc, kip, schedule, thread, time};
use l4_rt::{exit, println};

use failure::{check, fail, must};
use measure::room::Room;
use table::{Role, Slot, all, all_of, groups};

/// `seed=N`, and `ops=N`: operations in all.
const COMMAND_LINE: CommandLine = CommandLine { program: "storm", count: "ops", default_count: 20_000 };
/// Exit status for a bad command line.
const STATUS_USAGE: u8 = 2;
/// How long nothing may happen.
const STILL_US: u64 = 60_000_000;
const LOOK_US: u64 = 100_000;

l4_rt::entry!(main);

fn main() {
    let options = COMMAND_LINE.parse(l4_rt::args("storm")).unwrap_or_else(|unknown| {
        println!("{unknown}");
        exit(STATUS_USAGE)
    });
    failure::set_seed(options.seed.unwrap_or_else(|| mix(l4::arch::timestamp()) >> 32));
    println!("storm: seed={} ops={} processors={}", failure::seed(), options.count, kip::num_processors());
    l4_rt::touch_image();
    // The page tables of this space for UTCBs stay: they are made before memory is measured.
    let room = once_and_again(|| {
        begin_all();
        end_all();
        Room::measure()
    });
    begin_all();
    progress::begin();
    watch(options.count);
    progress::end();
    call_roll();
    messages::compare_books();
    let counts = [progress::ops(), table::lives(), overseer::rounds()];
    end_all();
    let after = Room::measure();
    check(room == after, format_args!("memory is lost: there was room for {room:?}, now for {after:?}"));
    let [messages, strings, propagated, across] = messages::counts();
    println!("storm: {messages} messages, {across} across, {strings} with strings, {propagated} in another's name");
    let [ops, lives, rounds] = counts;
    println!("storm: {ops} operations, {lives} lives, a page taken away {rounds} times; nothing is lost");
}

/// The result of the second time; the first one makes what stays.
fn once_and_again<T>(mut act: impl FnMut() -> T) -> T {
    act();
    act()
}

/// Makes and starts all threads, each on the processor of its group.
fn begin_all() {
    let roles = [Role::Pager, Role::Anchor, Role::Overseer, Role::Server, Role::Writer, Role::Native, Role::Citizen];
    for role in roles.into_iter().chain([Role::Hermit, Role::Controller]) {
        all_of(role).for_each(begin);
    }
}

fn begin(slot: Slot) {
    let pager = match slot.role() {
        // Root's own space has all of the image.
        Role::Pager => return begin_pager(slot),
        Role::Writer => Slot::OVERSEER,
        _ => Slot::pager(slot.group()),
    };
    let _lock = slot.lock();
    life::begin(slot, pager);
    let Some(id) = slot.id() else { return };
    let priority = match slot.role() {
        Role::Overseer => 125,
        Role::Server => 120,
        // Above all that controllers and those they disturb can have: on a slow machine these never rest.
        Role::Writer => 104,
        Role::Controller => 102,
        _ => 100,
    };
    must("a priority", schedule::set_priority(id, priority));
    must("a processor", schedule::set_processor_no(id, slot.group() as u16));
}

/// A pager has nobody to send its start message but root.
fn begin_pager(slot: Slot) {
    let id = slot.next_id();
    let made = thread::thread_control(id, table::root(), table::root(), table::root(), Some(slot.utcb_location()));
    must("making a pager", made);
    slot.set_alive(id, slot);
    must("a priority", schedule::set_priority(id, 130));
    must("a processor", schedule::set_processor_no(id, slot.group() as u16));
    Msg::of_words(l4::protocol::start_tag(), &[life::entry(slot) as usize as l4::Word, slot.start_sp()]).load();
    must("starting a pager", ipc::send(id));
    slot.set_started();
}

/// Waits until enough has been done.
fn watch(ops: u64) {
    let mut last = (progress::ops(), time::system_clock_us());
    while progress::ops() < ops {
        time::sleep(Time::period_us(LOOK_US));
        let now = (progress::ops(), time::system_clock_us());
        if now.0 != last.0 {
            last = now;
        } else if now.1 - last.1 > STILL_US {
            describe_all();
            fail(format_args!("nothing happens any more, after {} operations", now.0));
        }
    }
}

/// Everybody who lives answers.
fn call_roll() {
    for slot in all_of(Role::Native).chain(all_of(Role::Citizen)).chain(all_of(Role::Hermit)) {
        let _lock = slot.lock();
        if let Some(id) = slot.id().filter(|_| slot.is_halted()) {
            must(format_args!("resuming {slot}"), thread::resume(id));
            slot.set_halted(false);
        }
    }
    // Controllers first: after that nobody is made, moved or disturbed.
    let roles =
        [Role::Controller, Role::Native, Role::Citizen, Role::Hermit, Role::Server, Role::Pager, Role::Overseer];
    roles.into_iter().flat_map(all_of).for_each(ask);
}

fn ask(slot: Slot) {
    let Some(id) = slot.id() else { return };
    loop {
        Msg::new(messages::ROLL).load();
        match ipc::call_timeouts(id, Timeouts::new(life::PATIENCE, life::PATIENCE)) {
            Ok(outcome) => {
                return check(outcome.tag.label() == messages::ROLL, format_args!("{slot} answers {outcome:?}"));
            }
            // Somebody was disturbed in the middle; a controller may have halted or deleted the thread before it stopped.
            Err(error) if error.kind == IpcErrorKind::Canceled => {}
            Err(error) => {
                describe_all();
                fail(format_args!("{slot} does not answer: {error:?}"))
            }
        }
    }
}

/// Deletes everybody.
fn end_all() {
    for slot in all().filter(|slot| slot.role() == Role::Wild) {
        must("deleting a wild thread", thread::delete(slot.id_of(1)));
    }
    // Spaces go with their last threads, pagers after those that they serve.
    let is_last = |slot: &Slot| matches!(slot.role(), Role::Pager | Role::Overseer);
    let rest = all().filter(|slot| !is_last(slot)).chain(all().filter(is_last));
    rest.filter(|slot| slot.version() != 0).for_each(life::end);
}

/// What everybody does, for a person.
pub fn describe_all() {
    println!("storm: {} groups, {} operations", groups(), progress::ops());
    for slot in all() {
        let Some(id) = slot.id() else { continue };
        let state = schedule::schedule(
            id,
            l4::TimeControl::NO_CHANGE,
            l4::ProcessorControl::NO_CHANGE,
            l4::PrioControl::NO_CHANGE,
            l4::PreemptionControl::NO_CHANGE,
        );
        let found = thread::inspect(id).map(|found| (found.old.ip, found.state));
        println!("storm: {slot}: {:?}, {found:x?}", state.map(|(state, _)| state));
    }
}
