//! The life of a thread that never runs.

use l4::thread::{self, my_global_id, thread_control};
use l4::{ThreadId, Word};
use measure::clock::Clock;
use measure::stage::{make_space, must, thread_after_root, utcb_after_mine};

use crate::Bench;

const NEWBORN: Word = 5;

/// Ways to have a thread.
const MODES: [(&str, fn()); 3] =
    [("inactive", create_inactive), ("active", create_active), ("own space", create_with_space)];

fn newborn() -> ThreadId {
    thread_after_root(NEWBORN)
}

/// In this space, without a pager.
fn create_inactive() {
    create_here(ThreadId::NIL);
}

/// In this space, waiting for its start message.
fn create_active() {
    create_here(my_global_id());
}

fn create_here(pager: ThreadId) {
    let me = my_global_id();
    let created = thread_control(newborn(), me, me, pager, Some(utcb_after_mine(NEWBORN)));
    must("creating a thread", created);
}

/// In a new space that is set up, waiting for its start message: three calls.
fn create_with_space() {
    make_space(newborn());
}

fn delete_newborn() {
    must("deleting a thread", thread::delete(newborn()));
}

/// Creation.
pub fn create(bench: &Bench) {
    for (mode, create) in MODES {
        bench.figure(mode, 1, |clock: &mut Clock| {
            clock.time(create);
            delete_newborn();
        });
    }
}

/// Deletion.
pub fn delete(bench: &Bench) {
    for (mode, create) in MODES {
        bench.figure(mode, 1, |clock: &mut Clock| {
            create();
            clock.time(delete_newborn);
        });
    }
}
