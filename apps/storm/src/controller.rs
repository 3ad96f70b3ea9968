//! Controllers: they move, delete, halt and disturb others, and take pages away from them, each on its own. They are never
//! deleted or halted themselves.

use l4::thread::{self, thread_control};
use l4::{ExregsControl, Rights, SysError, ThreadId, Time, Word, kip, schedule, space};

use crate::failure::{check, fail, must};
use crate::life;
use crate::memory::{PAGE_LOG2, page_at};
use crate::messages::Me;
use crate::overseer;
use crate::progress;
use crate::table::{Role, Slot, WILD, all, participants, root};

/// The life of a controller.
pub extern "C" fn run() -> ! {
    let mut me = Me::new();
    progress::wait_for_beginning();
    while !progress::is_over() {
        step(&mut me);
        progress::count();
    }
    me.wait_for_roll()
}

fn step(me: &mut Me) {
    match me.dice.within(0..20) {
        0..=4 => move_somebody(me),
        5..=6 => end_or_begin(me),
        7 => halt_or_resume(me),
        8..=9 => disturb(me),
        10..=11 => take_page(me),
        12 => set_parameters(me),
        13 => look_at(me),
        14 => be_wild(me),
        _ => me.take_part(),
    }
}

/// Any thread in the table.
fn anybody(me: &mut Me) -> Slot {
    let slots = all().count();
    let n = me.dice.within(0..slots);
    all().nth(n).expect("one of all")
}

fn mortal(me: &mut Me) -> Slot {
    loop {
        let n = me.dice.within(0..participants());
        if let Some(slot) = crate::table::participant(n).filter(|slot| slot.role().is_mortal()) {
            return slot;
        }
    }
}

/// Does something to a thread that exists meanwhile: nobody deletes it.
fn with(slot: Slot, act: impl FnOnce(ThreadId)) {
    if slot.role().is_lasting() {
        return act(must("the id of who lasts", slot.id().ok_or(slot.index())));
    }
    let Some(_lock) = slot.try_lock() else { return };
    if let Some(id) = slot.id().filter(|_| slot.is_started()) {
        act(id);
    }
}

/// X.2, Schedule, processor control.
fn move_somebody(me: &mut Me) {
    let slot = if me.dice.is(10) { me.slot } else { anybody(me) };
    let cpu = me.dice.within(0..kip::num_processors()) as u16;
    with(slot, |id| {
        must(format_args!("moving {slot}"), schedule::set_processor_no(id, cpu));
    });
}

fn end_or_begin(me: &mut Me) {
    let slot = mortal(me);
    let pager = Slot::pager(me.dice.within(0..64));
    let is_reborn = me.dice.is(60);
    let Some(_lock) = slot.try_lock() else { return };
    let is_alive = slot.version() != 0;
    if is_alive {
        life::end(slot);
    }
    if !is_alive || is_reborn {
        life::begin(slot, pager);
    }
}

fn halt_or_resume(me: &mut Me) {
    let slot = mortal(me);
    with(slot, |id| {
        let was_halted = slot.is_halted();
        let state = if was_halted { thread::resume(id) } else { thread::stop(id) };
        let state = must(format_args!("halting or resuming {slot}"), state);
        check(state.was_halted() == was_halted, format_args!("{slot} was halted: {was_halted}, but {state:?}"));
        slot.set_halted(!was_halted);
    });
}

/// X.2, ExchangeRegisters, abort.
fn disturb(me: &mut Me) {
    let slot = anybody(me);
    let phases = [ExregsControl::ABORT_SEND, ExregsControl::ABORT_RECEIVE, ExregsControl::ABORT_IPC];
    let phases = me.dice.one_of(&phases);
    // A pager answers whom it does not know any more; an anchor has not begun.
    if slot.role() != Role::Anchor && slot != me.slot {
        with(slot, |id| {
            must(format_args!("disturbing {slot}"), thread::abort(id, phases));
        });
    }
}

/// Takes a page of the image away from all other spaces: code, data, stacks, buffers. It comes back by page faults.
fn take_page(me: &mut Me) {
    let (start, pages) = l4_rt::image_pages();
    let page = start as Word + ((me.dice.within(0..pages) as Word) << PAGE_LOG2);
    let rights = me.dice.one_of(&[Rights::ALL, Rights::ALL, Rights::WRITE, Rights::NONE]);
    if !overseer::is_page(page) {
        space::unmap_fpage(page_at(page, rights));
    }
}

fn set_parameters(me: &mut Me) {
    let slot = mortal(me);
    let slice = Time::period_us(me.dice.within(100..5000) as u64);
    let (priority, delay) = (me.dice.within(98..103) as u8, me.dice.within(0..100) as u16);
    let what = me.dice.within(0..4);
    with(slot, |id| {
        let result = match what {
            0 => schedule::set_timeslice(id, slice, Time::NEVER),
            1 => schedule::set_preemption_delay(id, 103, delay),
            _ => schedule::set_priority(id, priority),
        };
        must(format_args!("parameters of {slot}"), result);
    });
}

fn look_at(me: &mut Me) {
    let slot = anybody(me);
    if slot.role() == Role::Anchor {
        return;
    }
    with(slot, |id| {
        let found = must(format_args!("looking at {slot}"), thread::inspect(id));
        check(found.other_id == slot.local_id(), format_args!("{slot} has the local id {:?}", found.other_id));
        must(format_args!("times of {slot}"), schedule::timeslice(id));
    });
}

/// Makes, changes, moves and deletes threads that others do the same to at the same time.
fn be_wild(me: &mut Me) {
    let slot = Slot::wild(me.dice.within(0..WILD));
    let id = slot.id_of((me.dice.within(1..3) as Word) << 6 | 1);
    let pager = must("the pager's id", Slot::pager(0).id().ok_or(0));
    let utcb = Some(slot.utcb_location());
    let result = match me.dice.within(0..7) {
        0 => thread_control(id, root(), root(), ThreadId::NIL, None),
        1 => thread_control(id, must("the city", Slot::CITY.id().ok_or(0)), root(), pager, utcb),
        2 => thread_control(id, id, root(), ThreadId::NIL, None),
        3 => life::make_own_space(id, pager),
        4 => schedule::set_processor_no(id, me.dice.within(0..kip::num_processors()) as u16).map(|_| ()),
        5 => thread::abort_and_stop(id, ExregsControl::ABORT_IPC).map(|_| ()),
        _ => thread::delete(id),
    };
    if let Err(error @ (SysError::OutOfMemory | SysError::NoPrivilege | SysError::KipArea)) = result {
        fail(format_args!("a wild thread: {error:?}"));
    }
}
