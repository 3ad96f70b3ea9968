//! The life of a thread that never runs, alone or with many others.

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

/// Threads of a crowd: so many that their slots fill pages of the kernel's tables.
const CROWD: Word = 64;

fn create_crowd() {
    let me = my_global_id();
    for n in 0..CROWD {
        let created = thread_control(thread_after_root(NEWBORN + n), me, me, ThreadId::NIL, None);
        must("creating a thread", created);
    }
}

fn delete_crowd() {
    (0..CROWD).for_each(|n| must("deleting a thread", thread::delete(thread_after_root(NEWBORN + n))));
}

/// Creation.
pub fn create(bench: &Bench) {
    for (mode, create) in MODES {
        bench.figure(mode, 1, |clock: &mut Clock| {
            clock.time(create);
            delete_newborn();
        });
    }
    bench.figure("crowd", CROWD, |clock: &mut Clock| {
        clock.time(create_crowd);
        delete_crowd();
    });
}

/// Deletion.
pub fn delete(bench: &Bench) {
    for (mode, create) in MODES {
        bench.figure(mode, 1, |clock: &mut Clock| {
            create();
            clock.time(delete_newborn);
        });
    }
    bench.figure("crowd", CROWD, |clock: &mut Clock| {
        create_crowd();
        clock.time(delete_crowd);
    });
}
