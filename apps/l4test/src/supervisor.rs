//! The first thread of the program: runs the tests one by one.
//!
//! It outranks all others and waits while a test runs, for one of four things: the word that the test is over, a page
//! fault of a thread in another space that has not seen the program's image yet, a fault that no test asked for, or the
//! end of its patience. So a test that hangs, spins or crashes is a failure like any other.

use core::fmt::Write;

use l4::ipc::{self, Outcome as IpcOutcome};
use l4::message::Msg;
use l4::protocol::{EXCEPTION, IO_PAGE_FAULT, PAGE_FAULT};
use l4::{ExceptionWord, Fpage, Rights, ThreadId, Time, Timeouts, thread, time, utcb};
use l4test::placement::Placement;
use l4test::text::Text;

use crate::failure::{Failure, Outcome};
use crate::registry::Test;
use crate::world::{image, memory, placement, threads};

/// A test that takes longer hangs. Nothing in a test takes a second on any machine.
const PATIENCE_US: u64 = 20_000_000;
const US_PER_MS: u64 = 1000;

/// Runs a test, its threads spread as `placement` says; what it came to, and how long it took in milliseconds.
pub fn run(test: &Test, placement: Option<Placement>) -> (Outcome, u64) {
    threads::begin_test();
    placement::begin_test(test, placement);
    let start_us = time::system_clock_us();
    let outcome = run_watched(test, start_us + PATIENCE_US);
    let ms = (time::system_clock_us() - start_us) / US_PER_MS;
    threads::delete_all();
    memory::clear_playground();
    (outcome, ms)
}

fn run_watched(test: &Test, deadline_us: u64) -> Outcome {
    threads::spawn_tester(test.run)?;
    let mut answered = ThreadId::NIL;
    loop {
        let rcv = Time::period_us(deadline_us.saturating_sub(time::system_clock_us()));
        let event = ipc::ipc(answered, ThreadId::ANY, Timeouts::new(Time::ZERO, rcv)).result();
        answered = ThreadId::NIL;
        match event {
            Ok(event) if event.tag.label() == threads::OVER => return threads::tester_outcome(),
            Ok(event) => answered = answer(event)?,
            Err(_) if time::system_clock_us() < deadline_us => {}
            Err(_) => return Err(hang()),
        }
    }
}

/// Loads the answer to a first fault in another space; all else that a thread says to its supervisor is a failure.
fn answer(event: IpcOutcome) -> Outcome<ThreadId> {
    let words = [utcb().mr(1), utcb().mr(2)];
    let name = threads::name(event.from);
    match event.tag.protocol() {
        PAGE_FAULT if event.from.is_global() && image::contains(words[0]) => {
            let mut reply = Msg::new(0);
            reply.append_map(image::map_item()).load();
            Ok(event.from)
        }
        PAGE_FAULT => {
            let access = Rights::from_bits_truncate(event.tag.parameter());
            let fault = format_args!("{name} accesses {:#x} ({access:?}) at {:#x}", words[0], words[1]);
            Err(Failure::new(fault))
        }
        IO_PAGE_FAULT => {
            let ports = Fpage::from_raw(words[0]).as_io();
            Err(Failure::new(format_args!("{name} uses {ports:x?} at {:#x}", words[1])))
        }
        EXCEPTION => {
            let number = utcb().mr(ExceptionWord::Exception as usize);
            Err(Failure::new(format_args!("{name} raises exception {number} at {:#x}", words[0])))
        }
        _ => Err(Failure::new(format_args!("{name} sends {:?} to the supervisor", event.tag))),
    }
}

/// The failure of a test that does not end, with what its threads do.
fn hang() -> Failure {
    let mut text = Text::<200>::new();
    for thread in threads::living() {
        let Ok(found) = thread::inspect(thread.id()) else { continue };
        let does = match found.state {
            state if state.was_sending() => "sends",
            state if state.was_receiving() => "receives",
            state if state.was_halted() => "is halted",
            _ => "runs",
        };
        // What does not fit is left out.
        let _ = write!(text, "; {} {does} at {:#x}", threads::name(thread.id()), found.old.ip);
    }
    Failure::new(format_args!("no end after {} s{text}", PATIENCE_US / 1_000_000))
}
