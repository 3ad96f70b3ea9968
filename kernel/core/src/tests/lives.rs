//! Threads, spaces and mappings come and go at random, with and without memory for them. Whenever all are gone, there is
//! as much free memory as before the first came.

use std::collections::VecDeque;

use l4_abi::{
    Acceptor, Fpage, MapItem, MsgTag, Rights, SysError, ThreadId, Time, Timeouts, UTCB_ALIGN_LOG2, UnmapControl, Word,
    protocol,
};

use super::memory::ledger;
use super::random::Random;
use super::script::play;
use super::space_control::areas;
use super::thread_control::snapshot;
use super::world::{
    A, B, C, D, M, N, P, R, ROOT, START_IP, START_SP, UNCHANGED, UTCB_AREA, Who, World, X, Y, Z, activation, deletion,
    no_change,
};
use crate::syscall::ThreadControlArgs;
use crate::thread::{Purpose, Status, Work};

/// Those who come and go.
const PEOPLE: [Who; 10] = [A, B, C, D, X, Y, Z, N, P, M];

/// What happens in a step.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// ThreadControl by root: creation of all kinds, activation, migration, a new version, deletion.
    ThreadControl(ThreadControlArgs),
    /// SpaceControl by root.
    Initialise(Who),
    /// The start message.
    Start(Who),
    /// A message with an item.
    Send { from: Who, to: Who, item: MapItem },
    /// Unmap of what is derived, or flush.
    Unmap { by: Who, fpage: Fpage, control: UnmapControl },
}

/// The world, and what happened last, which is printed when something is wrong.
struct Lives {
    w: World,
    random: Random,
    /// Calls that were refused for lack of memory.
    refused: usize,
    trace: VecDeque<(Op, usize)>,
}

impl Drop for Lives {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.trace.iter().for_each(|event| println!("{event:?}"));
        }
    }
}

impl Lives {
    /// Nobody but the servers, and r with memory that it has for ever: sigma0 need not get any in the middle.
    fn new(seed: u64) -> Self {
        let w = World::bare();
        w.start(R);
        play(w, "root send s; r accept; r wait; s send r map=0x1000000/22; s wait");
        Self { w, random: Random(seed), refused: 0, trace: VecDeque::new() }
    }

    fn is_ready(&self, who: Who) -> bool {
        let tcb = self.w.tcb(who);
        tcb.exists() && tcb.status() == Status::Running && tcb.work() == Work::None && !tcb.is_halted()
    }

    /// Somebody of whom this is true, or just anybody.
    fn who_is(&mut self, is_so: impl Fn(Who) -> bool) -> Who {
        let such: Vec<Who> = PEOPLE.into_iter().filter(|&who| is_so(who)).collect();
        self.random.one_of(if such.is_empty() { &PEOPLE } else { &such })
    }

    fn exists(&self, who: Who) -> bool {
        self.w.tcb(who).exists()
    }

    /// An id that somebody has now.
    fn id_of(&self, who: Who) -> ThreadId {
        if self.exists(who) { self.w.tcb(who).id.get() } else { who.id() }
    }

    fn fpage(&mut self) -> Fpage {
        let size_log2 = self.random.one_of(&[12, 12, 13, 16, 21, 22]);
        let base = (0x100_0000 + (self.random.below(1024) << 12)) >> size_log2 << size_log2;
        Fpage::new(base, size_log2, self.random.one_of(&[Rights::ALL, Rights::ALL, Rights::READ])).expect("aligned")
    }

    fn op(&mut self) -> Op {
        let world = self.w;
        let (new, old) = (self.who_is(|who| !world.tcb(who).exists()), self.who_is(|who| world.tcb(who).exists()));
        let location = UTCB_AREA.base() + (self.random.below(16) << UTCB_ALIGN_LOG2);
        let create = ThreadControlArgs { utcb_location: location, ..activation(new) };
        match self.random.below(20) {
            0..=2 => Op::ThreadControl(ThreadControlArgs { space: new.id(), utcb_location: UNCHANGED, ..create }),
            3 => Op::ThreadControl(ThreadControlArgs { space: self.id_of(old), ..create }),
            4 | 5 => Op::ThreadControl(ThreadControlArgs { space: self.id_of(old), pager: ROOT.id(), ..create }),
            6 | 7 => Op::Initialise(old),
            8 | 9 => {
                let who = self.who_is(|who| world.tcb(who).exists() && !world.tcb(who).is_active());
                let dest = self.id_of(who);
                Op::ThreadControl(ThreadControlArgs {
                    dest,
                    space: dest,
                    pager: ROOT.id(),
                    utcb_location: location,
                    ..create
                })
            }
            10 | 11 => Op::Start(self.who_is(|who| world.tcb(who).purpose() == Purpose::Start)),
            12 => {
                let (dest, space) = (self.id_of(old), self.who_is(|who| world.tcb(who).exists()));
                Op::ThreadControl(ThreadControlArgs { dest, space: self.id_of(space), ..no_change(old) })
            }
            13 => {
                let dest = old.version(1 + self.random.below(3));
                Op::ThreadControl(ThreadControlArgs { dest, space: dest, ..no_change(old) })
            }
            14 | 15 => Op::ThreadControl(deletion(old)),
            16..=18 => self.send(),
            _ => {
                let by = self.who_is(|who| world.tcb(who).is_active());
                let by = self.random.one_of(&[by, R]);
                let control =
                    if by == R || self.random.once_in(2) { UnmapControl::unmap(1) } else { UnmapControl::flush(1) };
                Op::Unmap { by, fpage: self.fpage(), control }
            }
        }
    }

    /// A mapping to somebody who can take one. r keeps what it has.
    fn send(&mut self) -> Op {
        let ready: Vec<Who> = PEOPLE.into_iter().filter(|&who| self.is_ready(who)).collect();
        let (from, to) = match ready.len() {
            0 => (R, A),
            _ => {
                let from = self.random.one_of(&ready);
                (self.random.one_of(&[R, R, from]), self.random.one_of(&ready))
            }
        };
        let fpage = self.fpage();
        let is_grant = from != R && self.random.once_in(3);
        let item = if is_grant { MapItem::grant(fpage, fpage.base()) } else { MapItem::map(fpage, fpage.base()) };
        Op::Send { from, to, item }
    }

    fn step(&mut self) {
        let op = self.op();
        let fail_nth = if self.random.once_in(8) { 1 + self.random.below(3) as usize } else { 0 };
        if self.trace.len() == 30 {
            self.trace.pop_front();
        }
        self.trace.push_back((op, fail_nth));
        let before = (fail_nth > 0).then(|| (snapshot(self.w), ledger(self.w)));
        self.w.k.kmem.fail_nth(fail_nth);
        let result = self.carry_out(op);
        self.w.k.kmem.fail_nth(0);
        if result == Err(SysError::OutOfMemory) {
            self.refused += 1;
            let before = before.expect("there is memory unless it is made to fail");
            assert_eq!((snapshot(self.w), ledger(self.w)), before, "a call without memory changes nothing");
        }
    }

    fn carry_out(&self, op: Op) -> Result<(), SysError> {
        let w = self.w;
        match op {
            Op::ThreadControl(args) => w.thread_control(ROOT, args),
            Op::Initialise(who) => w.enter(ROOT, |here, root| here.space_control(root, areas(who))),
            Op::Start(who) => {
                w.set_mrs(ROOT, &[protocol::start_tag().raw(), START_IP as Word, START_SP as Word]);
                w.ipc(ROOT, self.id_of(who), ThreadId::NIL, Timeouts::new(Time::ZERO, Time::NEVER));
                Ok(())
            }
            Op::Send { from, to, item } => {
                if from != to && self.is_ready(from) && self.is_ready(to) {
                    w.utcb(to).set_acceptor(Acceptor::COMPLETE);
                    w.wait(to, self.id_of(from));
                    w.set_mrs(from, &[MsgTag::new(0, 0, 2).raw(), item.words()[0], item.words()[1]]);
                    w.ipc(from, self.id_of(to), ThreadId::NIL, Timeouts::new(Time::ZERO, Time::NEVER));
                }
                Ok(())
            }
            Op::Unmap { by, fpage, control } => {
                if self.is_ready(by) {
                    w.set_mrs(by, &[fpage.with_rights(Rights::ALL).raw()]);
                    w.enter(by, |here, by| here.unmap(by, control));
                }
                Ok(())
            }
        }
    }

    fn delete_all(&self) {
        for who in PEOPLE {
            self.w.delete(ROOT, who).expect("root may");
        }
    }
}

/// X.2, ThreadControl: 100,000 calls, in lives of some hundreds; after each the ledger is that of the beginning.
#[test]
fn all_memory_returns_after_any_life() {
    let own = std::env::var("KCORE_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in [11, 12].into_iter().chain(own) {
        println!("seed {seed}");
        let mut lives = Lives::new(seed);
        let before = ledger(lives.w);
        let (mut most, mut mappings) = (0, 0);
        for step in 1..=50_000 {
            lives.step();
            if step % 64 == 0 {
                let now = ledger(lives.w);
                most = most.max(before.free - now.free);
                mappings = mappings.max(now.nodes);
            }
            if step % 500 == 0 {
                lives.delete_all();
                assert_eq!(ledger(lives.w), before, "seed {seed}, step {step}");
            }
        }
        assert!(lives.refused > 100, "{} calls had no memory", lives.refused);
        assert!(most > 40 && mappings > 60, "much was there in between: {most} frames, {mappings} mappings");
    }
}
