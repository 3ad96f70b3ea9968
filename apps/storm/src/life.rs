//! Beginning and end of threads.

use l4::message::Msg;
use l4::thread::{self, Entry, thread_control};
use l4::{
    Fpage, IpcErrorKind, MsgTag, Rights, SpaceControl, SysError, ThreadId, Time, UTCB_SIZE, Word, ipc, kip, space,
};

use crate::failure::{check, fail, must};
use crate::messages;
use crate::pager::START;
use crate::table::{Role, Slot, UTCB_AREA_BASE, UTCBS_LOG2, root};
use crate::{controller, overseer, pager, server, victim};

/// How long anything may take that needs no time, on a crowded processor.
pub const PATIENCE: Time = Time::period_us(60_000_000);

/// Makes a thread with the only UTCB that is used in a space of its own, waiting for its start message.
pub fn make_own_space(id: ThreadId, pager: ThreadId) -> Result<(), SysError> {
    make_space(id)?;
    thread_control(id, id, ThreadId::NIL, pager, Some(UTCB_AREA_BASE))
}

/// Makes an inactive thread in a space of its own, in which threads can be active.
fn make_space(id: ThreadId) -> Result<(), SysError> {
    let area =
        |base, size_log2| Fpage::new(base, size_log2, Rights::ALL).expect("areas are at multiples of their size");
    thread_control(id, id, root(), ThreadId::NIL, None)?;
    let kip_area = area(core::ptr::from_ref(kip()).addr() as Word, kip().kip_area_info.size_log2());
    let utcb_area = area(UTCB_AREA_BASE, UTCB_SIZE.ilog2() + UTCBS_LOG2);
    space::space_control(id, SpaceControl::NONE, kip_area, utcb_area, ThreadId::NIL).map(|_| ())
}

/// Makes the thread of a slot and has it start, on the processor of the caller. For root, and whoever has it locked.
pub fn begin(slot: Slot, pager: Slot) {
    let (id, pager_id) = (slot.next_id(), must("the pager's id", pager.id().ok_or(slot.index())));
    let utcb = Some(slot.utcb_location());
    let in_space_of = |space| thread_control(id, space, root(), pager_id, utcb);
    let anchor = |anchor: Slot| must("the anchor's id", anchor.id().ok_or(slot.index()));
    let made = match slot.role() {
        Role::Controller | Role::Native | Role::Pager | Role::Overseer => in_space_of(root()),
        Role::Server | Role::Citizen => in_space_of(anchor(Slot::CITY)),
        Role::Writer => in_space_of(anchor(Slot::WRITERS)),
        Role::Hermit => make_space(id).and_then(|()| thread_control(id, id, ThreadId::NIL, pager_id, utcb)),
        Role::Anchor | Role::Wild => make_space(id),
    };
    must(format_args!("making {slot}"), made);
    messages::forget(slot);
    slot.set_alive(id, pager);
    if slot.role() != Role::Anchor {
        start(slot);
    }
}

/// Has its pager send the start message. Whoever asks may be disturbed, and the pager, too.
fn start(slot: Slot) {
    while !slot.is_started() {
        let pager = must("the pager's id", slot.its_pager().id().ok_or(slot.index()));
        Msg::of_words(MsgTag::new(START, 0, 0), &[slot.index() as Word, slot.version()]).load();
        match ipc::call_timeouts(pager, l4::Timeouts::new(PATIENCE, PATIENCE)) {
            Ok(_) => {}
            Err(error) if error.kind == IpcErrorKind::Canceled => {}
            Err(error) => fail(format_args!("asking for the start of {slot}: {error:?}")),
        }
    }
}

/// Where the thread of a slot begins.
pub fn entry(slot: Slot) -> Entry {
    match slot.role() {
        Role::Controller => controller::run,
        Role::Server => server::run,
        Role::Native | Role::Citizen | Role::Hermit => victim::run,
        Role::Writer => overseer::write,
        Role::Pager => pager::run,
        Role::Overseer => overseer::run,
        Role::Anchor | Role::Wild => fail(format_args!("{slot} never starts")),
    }
}

/// Deletes the thread of a slot. For root, and whoever has it locked.
pub fn end(slot: Slot) {
    let id = must("the id of who is deleted", slot.id().ok_or(slot.index()));
    slot.set_dead();
    must(format_args!("deleting {slot}"), thread::delete(id));
    let again = l4::schedule::timeslice(id);
    check(again == Err(SysError::InvalidThread), format_args!("{slot} is found after its deletion: {again:?}"));
}
