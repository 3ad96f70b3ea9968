//! The interval timer (8254): an interrupt of a device whenever a test wants one.

use l4::{ThreadId, Word, thread};
use l4_rt::port::HarmlessPort;

use super::messages::receive;
use super::threads::{PATIENCE, tester};
use crate::failure::{Failure, Outcome};

const CHANNEL_0: u16 = 0x40;
const COMMAND: u16 = 0x43;
/// Channel 0, low then high byte, mode 0: one interrupt at the end of the count.
const ONCE: u8 = 0b0011_0000;
/// Counts in a second.
const FREQUENCY_HZ: u64 = 1_193_182;

/// Where the timer may be: with I/O APICs most machines have it at 2, with the 8259A it is at 0.
const LINES: [Word; 2] = [0, 2];

fn write(port: u16, value: u8) {
    HarmlessPort::new(port).expect("the ports are those of the timer").write(value);
}

/// Touches the timer's ports, so that whoever gives ports away has given them to the program's space. For the supervisor.
pub fn request() {
    write(COMMAND, ONCE);
    write(CHANNEL_0, 0);
    write(CHANNEL_0, 0);
}

/// Has the timer interrupt once, `us` microseconds from now, which is less than 50,000.
pub fn fire(us: u64) {
    let count = u16::try_from(us * FREQUENCY_HZ / 1_000_000).expect("the count has 16 bits").max(1);
    write(COMMAND, ONCE);
    count.to_le_bytes().into_iter().for_each(|byte| write(CHANNEL_0, byte));
}

/// Does something with the timer's interrupt, of which the tester is the handler. Nothing is left of that afterwards.
#[track_caller]
pub fn with_timer(act: impl FnOnce(ThreadId) -> Outcome) -> Outcome {
    let outcome = find().and_then(act);
    for line in LINES.map(ThreadId::interrupt) {
        // Some machines have only one of them.
        let _ = thread::deassociate_interrupt(line);
    }
    outcome
}

/// Finds the timer's line; it is idle.
fn find() -> Outcome<ThreadId> {
    for line in LINES.map(ThreadId::interrupt) {
        // Some machines have only one of them.
        let _ = thread::associate_interrupt(line, tester().id());
    }
    fire(100);
    let found = l4::ipc::receive_timeout(ThreadId::ANY, PATIENCE)
        .map_err(|error| Failure::new(format_args!("the timer does not interrupt: {error:?}")))?;
    l4::interrupt::acknowledge(found.from)?;
    match LINES.map(ThreadId::interrupt).contains(&found.from) {
        true => Ok(found.from),
        false => Err(Failure::new(format_args!("a message of {:?} comes instead of an interrupt", found.from))),
    }
}

/// Receives the interrupt of `line` within the usual patience.
#[track_caller]
pub fn take(line: ThreadId) -> Outcome {
    receive(line).map(drop).map_err(Failure::from)
}
