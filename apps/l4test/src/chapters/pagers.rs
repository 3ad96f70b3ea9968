//! Hostile pagers: what they do to a string in which they are asked for a page.
//!
//! A cell is a manner of the pager, the side that it serves, the transfer timeout of that side, the processor of the pager,
//! and a blow that hits the side meanwhile. There are 192 cells. Each ends as the specification says: by the timeout, by the
//! death of somebody, or, where there is no timeout and nobody dies, not before the other side's IPC is aborted.

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use l4::message::{Msg, accept_untyped};
use l4::thread::{self, abort, resume, stop};
use l4::time::{in_us, sleep, sleep_forever, system_clock_us, timeouts};
use l4::{
    AtomicWord, ExregsControl, IpcError, IpcErrorKind, Phase, Rights, ScheduleResult, ThreadId, Time, Timeouts, Word,
    ipc, kip, schedule, space, utcb,
};

use crate::failure::{Failure, Outcome, Within, check};
use crate::registry::chapter;
use crate::world::memory::{PAGE_SIZE, Page, at, page, playground};
use crate::world::messages::{Parts, accept_in, accept_strings_in, append_string, receive, send_items};
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, PRIORITY_LATER, Thread, give_back, plan, tester};

chapter! { pagers:
    "X.2, Page fault protocol, in strings" => [
        pager_that_never_answers: PLACED,
        pager_that_maps_another_page: PLACED,
        pager_that_revokes_what_it_maps: PLACED,
        pager_that_dies: PLACED,
    ],
}

/// Why the tests are not spread.
const PLACED: &str = "it says itself which processor is whose";

const FROM: Word = 0x10_0000;
const TO: Word = 0x20_0000;
/// Where a wrong page comes to.
const ELSEWHERE: Word = 0x30_0000;
/// Pages of each side; from the second on they are missing on the side of the hostile pager.
const PAGES: usize = 4;
const BYTES: usize = PAGES * PAGE_SIZE as usize;
const STRINGS: &[Parts] = &[&[(BYTES, &[FROM])]];
const BUFFERS: &[Parts] = &[&[(BYTES, &[TO])]];
/// A timeout that is waited for.
const SHORT_US: u64 = 20_000;
/// One that no cell lives to see, and no further than points in time go.
const LONG_US: u64 = 20_000_000;
/// How long anything may take that needs no time: a stop is a failure.
const BOUND_US: u64 = 10_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    NeverAnswers,
    WrongPage,
    Revokes,
    Dies,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Sender,
    Receiver,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Sender, Self::Receiver];

    fn other(self) -> Self {
        if self == Self::Sender { Self::Receiver } else { Self::Sender }
    }

    fn base(self) -> Word {
        if self == Self::Sender { FROM } else { TO }
    }

    fn page(self, index: usize) -> &'static Page {
        page(index + if self == Self::Sender { 0 } else { PAGES })
    }

    fn rights(self) -> Rights {
        if self == Self::Sender { Rights::READ } else { Rights::READ_WRITE }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Limit {
    Zero,
    Finite,
    Never,
    Absolute,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    SameProcessor,
    OtherProcessor,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    Halted,
    Deleted,
    Migrated,
}

/// One of the matrix.
#[derive(Clone, Copy)]
struct Cell {
    manner: Manner,
    side: Side,
    limit: Limit,
    place: Place,
    blow: Blow,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { manner, side, limit, place, blow } = self;
        write!(f, "{manner:?}, {side:?}, {limit:?}, {place:?}, {blow:?}")
    }
}

/// How the IPC of each side ended: 0 while it has not, 1 if it succeeded, else the error above [`FAILED`].
static ENDS: [AtomicWord; 2] = [const { AtomicWord::new(0) }; 2];
const SUCCEEDED: Word = 1;
const FAILED: u32 = 2;

/// The end of a side's IPC, if that is over.
fn end_of(side: Side) -> Option<Result<(), IpcError>> {
    match ENDS[side as usize].load(Relaxed) {
        0 => None,
        SUCCEEDED => Some(Ok(())),
        error => IpcError::from_raw(error >> FAILED).map(Err),
    }
}

impl Cell {
    /// The transfer timeout of the side. One that the blow comes before is long.
    fn timeout(self) -> Time {
        let us = if self.blow == Blow::Deleted || self.manner == Manner::Dies { LONG_US } else { SHORT_US };
        match self.limit {
            Limit::Zero => Time::ZERO,
            Limit::Finite => Time::period_us(us),
            Limit::Never => Time::NEVER,
            Limit::Absolute => in_us(us).expect("points go that far"),
        }
    }

    /// What a side does: one IPC.
    fn run(self, side: Side) -> Outcome {
        accept_in(playground());
        receive(tester().id())?;
        let partner = ThreadId::from_raw(utcb().mr(1));
        accept_untyped();
        let own = if side == self.side { self.timeout() } else { Time::NEVER };
        utcb().set_xfer_timeouts(Timeouts::new(own, own));
        let (to, from) = match side {
            Side::Sender => {
                let mut msg = Msg::new(1);
                append_string(&mut msg, STRINGS[0]);
                msg.load();
                (partner, ThreadId::NIL)
            }
            Side::Receiver => {
                accept_strings_in(l4::Fpage::NIL, BUFFERS);
                (ThreadId::NIL, partner)
            }
        };
        let outcome = ipc::ipc(to, from, timeouts(PATIENCE, PATIENCE)).result();
        let end = outcome.map_or_else(|error| error.raw() << FAILED | 1 << (FAILED - 1), |_| SUCCEEDED);
        ENDS[side as usize].store(end, Relaxed);
        Ok(())
    }

    /// What the pager does, to its end.
    fn serve(self) -> Outcome {
        loop {
            if self.manner == Manner::NeverAnswers || self.manner == Manner::Dies {
                sleep_forever();
            }
            let fault = receive(ThreadId::ANY)?;
            let index = (utcb().mr(1) - at(self.side.base())) / PAGE_SIZE;
            let page = self.side.page(index as usize);
            let to = if self.manner == Manner::WrongPage { ELSEWHERE } else { self.side.base() };
            // Whoever faulted may be gone by now.
            let _ = send_items(fault.from, &[page.map_to(at(to + index * PAGE_SIZE), self.side.rights())]);
            if self.manner == Manner::Revokes {
                space::unmap_fpage(page.fpage(Rights::ALL));
            }
        }
    }

    /// How the side's IPC may end. A revocation from another processor can come too late, page after page.
    fn may_end(self, side: Side, end: Result<(), IpcError>) -> bool {
        let Err(IpcError { phase, kind, offset }) = end else { return self.manner == Manner::Revokes };
        let own_phase = if side == Side::Sender { Phase::Send } else { Phase::Receive };
        let is_possible_offset = (PAGE_SIZE..BYTES as Word).contains(&offset);
        let timed_out =
            if side == self.side { IpcErrorKind::XferTimeoutInvoker } else { IpcErrorKind::XferTimeoutPartner };
        let expected = match self.limit {
            Limit::Zero => timed_out,
            _ if self.blow == Blow::Deleted || self.manner == Manner::Dies => IpcErrorKind::Aborted,
            Limit::Never => IpcErrorKind::Aborted,
            Limit::Finite | Limit::Absolute => timed_out,
        };
        phase == own_phase && is_possible_offset && kind == expected
    }
}

/// Waits for something that comes by itself.
#[track_caller]
fn until(what: &'static str, is_so: impl Fn() -> bool) -> Outcome {
    let bound = system_clock_us() + BOUND_US;
    while !is_so() {
        check(system_clock_us() < bound, what)?;
        sleep(Time::period_us(500));
    }
    Ok(())
}

fn is_in_string(thread: Thread) -> bool {
    thread.state().is_ok_and(|state| matches!(state, ScheduleResult::Sending | ScheduleResult::Receiving))
}

/// Lets a side begin: with all its pages, or with the first.
#[track_caller]
fn send_begin(thread: Thread, side: Side, partner: Thread, pages: usize) -> Outcome {
    let mut msg = Msg::new(0);
    msg.append_word(partner.id().raw());
    for index in 0..pages {
        msg.append_map(side.page(index).map_to(at(side.base() + index as Word * PAGE_SIZE), side.rights()));
    }
    msg.load();
    ipc::send_timeout(thread.id(), PATIENCE)?;
    Ok(())
}

#[track_caller]
fn play(spaces: [Space; 2], cell: Cell) -> Outcome {
    for side in Side::BOTH {
        ENDS[side as usize].store(0, Relaxed);
        for index in 0..PAGES {
            space::unmap_fpage(side.page(index).fpage(Rights::ALL));
        }
    }
    let pager = plan().priority(PRIORITY_LATER).spawn(move || cell.serve())?;
    if cell.place == Place::OtherProcessor {
        schedule::set_processor_no(pager.id(), 1)?;
    }
    let spawn = |side: Side| {
        let pager = if side == cell.side { pager.id() } else { tester().id() };
        plan().space(spaces[side as usize]).pager(pager).priority(PRIORITY_LATER).spawn(move || cell.run(side))
    };
    let cast = [spawn(Side::Sender)?, spawn(Side::Receiver)?];
    for side in Side::BOTH {
        let pages = if side == cell.side { 1 } else { PAGES };
        send_begin(cast[side as usize], side, cast[side.other() as usize], pages)?;
    }
    let (hit, other) = (cast[cell.side as usize], cast[cell.side.other() as usize]);
    let is_over = || Side::BOTH.iter().any(|&side| end_of(side).is_some());
    until("the string does not begin", || is_in_string(hit) || is_over())?;
    match cell.blow {
        Blow::Halted => {
            stop(hit.id())?;
        }
        Blow::Deleted => hit.delete()?,
        Blow::Migrated if kip::num_processors() > 1 => drop(schedule::set_processor_no(hit.id(), 1)?),
        Blow::Migrated => {}
    }
    if cell.manner == Manner::Dies {
        pager.delete()?;
    }
    let ends_by_itself = cell.limit != Limit::Never || cell.blow == Blow::Deleted || cell.manner == Manner::Dies;
    if !ends_by_itself && end_of(cell.side.other()).is_none() {
        abort(other.id(), ExregsControl::ABORT_IPC)?;
    }
    until("the other side's IPC does not end", || end_of(cell.side.other()).is_some())?;
    if cell.blow == Blow::Halted {
        // Only the space of its pager may, and that one can be dead.
        thread::thread_control(hit.id(), hit.id(), ThreadId::NIL, tester().id(), None)?;
        resume(hit.id())?;
    }
    if cell.blow != Blow::Deleted {
        until("the IPC of the side does not end", || end_of(cell.side).is_some())?;
    }
    for side in Side::BOTH {
        if let Some(end) = end_of(side).filter(|&end| !cell.may_end(side, end)) {
            return Err(Failure::new(format_args!("the IPC of the {side:?} ends with {end:?}")));
        }
    }
    [hit, other, pager].iter().try_for_each(|thread| thread.delete())?;
    give_back(3);
    Ok(())
}

/// All cells of a manner.
#[track_caller]
fn play_all(manner: Manner) -> Outcome {
    let spaces = [Space::create()?, Space::create()?];
    let places: &[Place] = match kip::num_processors() {
        1 => &[Place::SameProcessor],
        _ => &[Place::SameProcessor, Place::OtherProcessor],
    };
    for side in Side::BOTH {
        for limit in [Limit::Zero, Limit::Finite, Limit::Never, Limit::Absolute] {
            for &place in places {
                for blow in [Blow::Halted, Blow::Deleted, Blow::Migrated] {
                    let cell = Cell { manner, side, limit, place, blow };
                    play(spaces, cell).within(cell)?;
                }
            }
        }
    }
    Ok(())
}

fn pager_that_never_answers() -> Outcome {
    play_all(Manner::NeverAnswers)
}

fn pager_that_maps_another_page() -> Outcome {
    play_all(Manner::WrongPage)
}

fn pager_that_revokes_what_it_maps() -> Outcome {
    play_all(Manner::Revokes)
}

fn pager_that_dies() -> Outcome {
    play_all(Manner::Dies)
}
