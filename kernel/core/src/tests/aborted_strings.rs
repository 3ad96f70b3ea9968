//! ExchangeRegisters that aborts a string of which one side has a page fault at another processor.
//!
//! The other side can leave the string only when that one comes back, and others do anything meanwhile. What the call
//! tells and what it aborts is one IPC all the same: that of the moment in which it was decided.

use std::cell::Cell;
use std::sync::mpsc::channel;

use l4_abi::{ExregsControl, Fpage, MapItem, Rights, ThreadId, ThreadState, Timeouts};

use super::invariants;
use super::processors::{Call, at_once, with_faults};
use super::random::Random;
use super::script::expect;
use super::stage::{Place, Stage};
use super::strings::words;
use super::world::{A, B, R, ROOT, Who, World, X, Y, no_registers};
use crate::machine::CpuId;
use crate::syscall::Exregs;
use crate::thread::{Status, Work};

/// How many orders of events each case is tried in.
const SEEDS: u64 = 30;

/// One side of a string, whose other side has a page fault, and what is to come of it.
struct Side {
    dest: Who,
    /// Of its space.
    asker: Who,
    /// Its phase.
    state: ThreadState,
    /// What it sees of the abort.
    aborted: &'static str,
    /// What it sees if the string is complete.
    complete: &'static str,
    /// What it does next, in the other phase: to and from whom, and what it is in then.
    next: (ThreadId, ThreadId, &'static str),
}

/// The side that has no fault if `faulting` has one.
fn other_side(faulting: Who) -> Side {
    if faulting == A {
        Side {
            dest: X,
            asker: Y,
            state: ThreadState::RECEIVING,
            aborted: "Receive Aborted",
            complete: "got from a",
            next: (R.id(), ThreadId::NIL, "queued on r"),
        }
    } else {
        Side {
            dest: A,
            asker: B,
            state: ThreadState::SENDING,
            aborted: "Send Aborted",
            complete: "sent",
            next: (ThreadId::NIL, ThreadId::ANY, "waits for any"),
        }
    }
}

/// Aborts whatever IPC `dest` is in; what is told of it.
fn abort(w: World, asker: Who, dest: Who) -> ThreadState {
    let args = Exregs { control: ExregsControl::ABORT_IPC, ..no_registers(dest.id()) };
    let told = w.trap(asker, |here, thread| here.exchange_registers(thread, args));
    told.expect("it may, and both are there").state
}

/// Brings somebody to another processor if it is where `other` is.
fn keep_apart(w: World, who: Who, other: Who) {
    let taken = w.tcb(other).home().index();
    if w.tcb(who).home().index() == taken {
        w.place(who, (taken + 1) % w.cpus().len());
    }
}

/// Lets each of these go a step further in the kernel, if it can.
fn work_a_bit(w: World, whose: [Who; 3]) {
    w.cpus().for_each(|cpu| w.on(cpu).dispatch_steps(0));
    for who in whose {
        let tcb = w.tcb(who);
        if tcb.is_at(tcb.home()) && tcb.status() == Status::Running && tcb.work() != Work::None {
            w.make_run(who);
            w.at_home_of(who).dispatch_steps(1);
        }
    }
}

/// Lets a side be aborted and go on with its next IPC as soon as it is out of the string, be the call over or not. What
/// was told of it.
fn abort_and_go_on(w: World, seed: u64, side: &Side) -> ThreadState {
    let mut random = Random(seed);
    let mut stage = Stage::new(w.cpus().len());
    let (results, found) = channel();
    let (dest, asker, (to, from, _)) = (side.dest, side.asker, side.next);
    let asking = w.tcb(asker).home().index();
    stage.begin(asking, random.next(), 3, move || {
        results.send(abort(w, asker, dest)).expect("the test waits for it");
        w.on(asking).dispatch_steps(100);
    });
    let mut goes_on = false;
    for _ in 0..100_000 {
        let cpu = random.below(w.cpus().len() as u64) as usize;
        let tcb = w.tcb(dest);
        if stage.place(cpu) != Place::Done {
            stage.go_on(cpu);
        } else if !goes_on && tcb.is_at(CpuId::new(cpu as u32)) && tcb.status() == Status::Running {
            goes_on = true;
            stage.begin(cpu, random.next(), 3, move || {
                w.set_mrs(dest, &words(&[]));
                w.trap_ipc(dest, to, from, Timeouts::NEVER);
                w.on(cpu).dispatch_steps(100);
            });
        } else if w.k.machine.take_kick(CpuId::new(cpu as u32)) {
            stage.begin(cpu, random.next(), 3, move || w.on(cpu).dispatch_steps(100));
        } else if goes_on && w.cpus().all(|cpu| stage.place(cpu) == Place::Done) {
            break;
        }
    }
    w.finish_all();
    invariants::check(w.k);
    found.try_recv().expect("the call is over")
}

/// X.2, ExchangeRegisters: the thread may get into its next IPC before the call is over; that is neither told of nor
/// aborted.
#[test]
fn next_ipc_is_left_alone() {
    for seed in 0..SEEDS {
        with_faults(|w, faulting, _| {
            let side = other_side(faulting);
            assert_eq!(abort_and_go_on(w, seed, &side), side.state, "seed {seed}");
            let next = format!("{} {}", side.dest.name(), side.next.2);
            expect(w, &format!("seed {seed}"), &next);
        });
    }
}

/// The side with the fault gets its page at the same moment: the string is aborted if that is told, and else complete.
#[test]
fn string_is_aborted_if_that_is_told() {
    let aborted = Cell::new(0);
    for seed in 0..SEEDS {
        with_faults(|w, faulting, _| {
            let side = other_side(faulting);
            keep_apart(w, side.asker, R);
            let (dest, page) = (side.dest, if faulting == A { 0x100_4000 } else { 0x200_4000 });
            let map = MapItem::map(Fpage::new(page, 12, Rights::ALL).expect("a page"), page);
            // The page is on its way already, for a while, or not.
            let answer = move |w: World, who| {
                w.set_mrs(who, &words(&map.words()));
                w.trap_ipc(who, faulting.id(), ThreadId::NIL, Timeouts::NEVER);
                ThreadState::NONE
            };
            let mut calls: Vec<Call<ThreadState>> = vec![(side.asker, Box::new(move |w, who| abort(w, who, dest)))];
            if seed % 2 == 0 {
                answer(w, R);
                (0..seed / 2).for_each(|_| work_a_bit(w, [R, faulting, dest]));
            } else {
                calls.push((R, Box::new(answer)));
            }
            let told = at_once(w, seed, calls)[0];
            let is_aborted = told == side.state;
            assert!(is_aborted || told == ThreadState::NONE, "seed {seed}: {told:?}");
            let outcome = if is_aborted { side.aborted } else { side.complete };
            expect(w, &format!("seed {seed}"), &format!("{} {outcome}", dest.name()));
            aborted.set(aborted.get() + u64::from(is_aborted));
        });
    }
    assert!((1..SEEDS * 12).contains(&aborted.get()), "both happen: {aborted:?} are aborted");
}

/// Two who abort the same string at the same time: one of them is told that it was in an IPC.
#[test]
fn ipc_is_aborted_once() {
    for seed in 0..SEEDS {
        with_faults(|w, faulting, _| {
            let side = other_side(faulting);
            keep_apart(w, side.asker, ROOT);
            let dest = side.dest;
            let ask = |asker| -> Call<ThreadState> { (asker, Box::new(move |w, who| abort(w, who, dest))) };
            let mut told = at_once(w, seed, vec![ask(side.asker), ask(ROOT)]);
            told.sort_by_key(|state| state.raw());
            assert_eq!(told, [ThreadState::NONE, side.state], "seed {seed}");
            expect(w, &format!("seed {seed}"), &format!("{} {}", dest.name(), side.aborted));
        });
    }
}
