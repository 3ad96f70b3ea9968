//! Calls of random choice: mostly such that others wait for, with ids, times and pages on all sides of all borders.

use l4_abi::{ExregsControl, Fpage, MsgTag, Rights, ThreadId, Time, Timeouts, UnmapControl, Word};
use model::State;

use super::compare::MEMORY;
use super::{Call, Pair};
use crate::syscall::{Exregs, ThreadControlArgs};
use crate::tests::random::Random;
use crate::tests::world::{
    EVERYBODY, KIP_AREA, ROOT, START_IP, START_SP, UNCHANGED, UTCB_AREA, Who, activation, deletion, no_change,
    no_registers,
};

/// What whoever runs does next; the time passes if nobody does.
pub fn call(random: &mut Random, pair: &Pair) -> Call {
    let Some(who) = pair.running() else {
        let next = pair.m.next_event().map(|at| at.saturating_sub(pair.m.now));
        return Call::Clock(next.unwrap_or(1000).clamp(1, 5000));
    };
    let mut choice = Choice { random, pair, who };
    if who == ROOT {
        return match choice.random.below(32) {
            0..=9 => Call::Exregs(choice.help()),
            10..=14 => choice.thread_control(),
            15 => choice.space_control(),
            16..=18 => choice.schedule(),
            19 => Call::Exregs(choice.exregs()),
            20 => Call::Switch(choice.id()),
            21 => Call::Clock(choice.random.below(4000)),
            _ => choice.ipc(),
        };
    }
    match choice.random.below(64) {
        0..=3 => Call::Exregs(choice.exregs()),
        4 | 5 => choice.schedule(),
        6 | 7 => Call::Switch(choice.id()),
        8..=11 => choice.unmap(),
        12..=15 => Call::Clock(choice.random.below(4000)),
        16 | 17 => Call::Exception { handler: choice.server() },
        18..=21 => choice.fault(),
        22..=25 => Call::Access { address: choice.address() as usize, writes: choice.random.once_in(2) },
        26 => choice.thread_control(),
        _ => choice.ipc(),
    }
}

struct Choice<'a> {
    random: &'a mut Random,
    pair: &'a Pair,
    who: Who,
}

impl Choice<'_> {
    fn who(&mut self) -> Who {
        self.random.one_of(&EVERYBODY)
    }

    /// Somebody of whom this is true, or anybody.
    fn who_is(&mut self, is_so: impl Fn(Option<&model::Thread>) -> bool) -> Who {
        let thread = |who: &Who| self.pair.m.threads.get(&(who.tcb().index() as u64));
        let such: Vec<Who> = EVERYBODY.into_iter().filter(|who| is_so(thread(who))).collect();
        if such.is_empty() { self.who() } else { self.random.one_of(&such) }
    }

    fn id_of(&self, who: Who) -> ThreadId {
        let thread = self.pair.m.threads.get(&(who.tcb().index() as u64));
        thread.map_or(who.id(), |thread| ThreadId::from_raw(thread.id))
    }

    fn id(&mut self) -> ThreadId {
        let who = self.who_is(|thread| thread.is_some());
        match self.random.below(40) {
            0 => ThreadId::ANY,
            1 => ThreadId::ANY_LOCAL,
            2 => ThreadId::NIL,
            3 => who.version(self.random.below(4)),
            4 => ThreadId::from_raw(self.random.next() | 1),
            5..=12 => who.local(),
            _ => self.id_of(who),
        }
    }

    fn time(&mut self) -> Time {
        match self.random.below(12) {
            0..=2 => Time::NEVER,
            3..=5 => Time::ZERO,
            6 => Time::from_raw(self.random.next() as u16 | 1 << 15),
            _ => Time::period_us(self.random.below(3000)),
        }
    }

    fn address(&mut self) -> Word {
        MEMORY.start as Word + (self.random.below((MEMORY.len() >> 12) as u64) << 12)
    }

    fn fpage(&mut self) -> Fpage {
        let size_log2 = self.random.one_of(&[10, 12, 12, 12, 13, 14, 15]);
        let base = self.address() >> size_log2 << size_log2;
        let rights = Rights::from_bits_truncate(self.random.one_of(&[7, 7, 6, 5, 4, 3, 2, 1, 0]));
        match self.random.below(16) {
            0 => Fpage::NIL,
            _ => Fpage::new(base, size_log2, rights).expect("aligned"),
        }
    }

    fn message(&mut self) -> [Word; 6] {
        let (untyped, typed) = match self.random.below(16) {
            0..=6 => (self.random.below(6), 0),
            7..=14 => (self.random.below(2), 2 + 2 * self.random.below(2)),
            _ => (self.random.below(64), self.random.below(64)),
        };
        let tag = MsgTag::new(self.random.below(8), untyped as usize, typed as usize);
        let propagated = if self.random.once_in(4) { MsgTag::PROPAGATED } else { 0 };
        let other = if self.random.once_in(8) { MsgTag::FLAGS & !MsgTag::PROPAGATED } else { 0 };
        let mut message = [tag.with_flags(propagated | other).raw(), 1, 2, 3, 4, 5];
        for item in 0..2 {
            let kind = self.random.one_of(&[8, 8, 8, 10, 10, 14, 0]);
            let position = 1 + untyped as usize + 2 * item;
            if position + 1 < message.len() {
                message[position] = self.address() | kind;
                message[position + 1] = self.fpage().raw();
            }
        }
        message
    }

    fn ipc(&mut self) -> Call {
        let own = self.id_of(self.who).raw();
        let expects = move |thread: Option<&model::Thread>| {
            thread.is_some_and(|thread| [State::Waits(own), State::Waits(!0)].contains(&thread.state))
        };
        let waits =
            move |thread: Option<&model::Thread>| thread.is_some_and(|thread| thread.state == State::Waits(own));
        let to = match self.random.below(8) {
            0 | 1 => ThreadId::NIL,
            2 => self.id(),
            3..=5 => {
                let who = self.who_is(waits);
                self.id_of(who)
            }
            _ => {
                let who = self.who_is(expects);
                self.id_of(who)
            }
        };
        let number = self.who.tcb().index() as u64;
        let from = match self.random.below(8) {
            0 => ThreadId::NIL,
            1..=3 => to,
            4 | 5 => ThreadId::ANY,
            6 => {
                let who = self.who_is(|thread| thread.is_some_and(|thread| thread.state == State::Sends(number)));
                self.id_of(who)
            }
            _ => self.id(),
        };
        let window = match self.random.below(5) {
            0 => Fpage::NIL.raw(),
            1 => self.fpage().raw() & !0xF,
            _ => Fpage::COMPLETE.raw(),
        };
        let timeouts = Timeouts::new(self.time(), self.time());
        let virtual_sender = match self.random.below(3) {
            0 => {
                let who = self.who_is(waits);
                self.id_of(who)
            }
            _ => self.id(),
        };
        Call::Ipc { to, from, timeouts, message: self.message(), window, virtual_sender }
    }

    fn fault(&mut self) -> Call {
        let access = self.random.one_of(&[Rights::READ, Rights::WRITE, Rights::EXECUTE]);
        Call::Fault { address: self.address() as usize, access, pager: self.server() }
    }

    /// Somebody to whom a fault or an exception may go: mostly one that waits for anybody.
    fn server(&mut self) -> ThreadId {
        let who = self.who_is(|thread| thread.is_some_and(|thread| thread.state == State::Waits(!0)));
        if self.random.once_in(4) { self.id() } else { self.id_of(who) }
    }

    /// Lets somebody who is stuck go on.
    fn help(&mut self) -> Exregs {
        let who = self.who_is(|thread| {
            thread.is_some_and(|thread| thread.is_halted || thread.is_active() && thread.state != State::Ready(false))
        });
        let control = ExregsControl::START | ExregsControl::IP | ExregsControl::SP;
        Exregs { control, ip: START_IP, sp: START_SP, ..no_registers(self.id_of(who)) }
    }

    fn unmap(&mut self) -> Call {
        let count = 1 + self.random.below(2) as usize;
        let control = if self.random.once_in(2) { UnmapControl::flush(count) } else { UnmapControl::unmap(count) };
        Call::Unmap { control, fpages: [self.fpage(), self.fpage()] }
    }

    fn exregs(&mut self) -> Exregs {
        let who = self.who_is(|thread| {
            thread.is_some_and(|thread| thread.is_halted || thread.is_active() && thread.state != State::Ready(false))
        });
        let dest = if self.random.once_in(3) { self.id() } else { self.id_of(who) };
        let control = match self.random.below(6) {
            0 => ExregsControl::from_raw(self.random.below(0x400)),
            1 => ExregsControl::APPLY_HALT | ExregsControl::HALT,
            2 => ExregsControl::ABORT_IPC,
            _ => ExregsControl::START | ExregsControl::IP | ExregsControl::SP,
        };
        let (ip, flags, handle) = (START_IP, self.random.next() as usize, self.random.below(99));
        Exregs { control, ip, sp: START_SP, flags, handle, pager: self.id(), ..no_registers(dest) }
    }

    fn schedule(&mut self) -> Call {
        let priority = self.random.one_of(&[None, Some(99), Some(100), Some(101), Some(7), Some(200)]);
        let period = Time::period_us(1 + self.random.below(8000));
        let slice = self.random.one_of(&[None, None, Some(period)]);
        let who = self.who_is(|thread| thread.is_some_and(model::Thread::is_active));
        let dest = if self.random.once_in(3) { self.id() } else { self.id_of(who) };
        Call::Schedule { dest, priority, slice }
    }

    fn space_control(&mut self) -> Call {
        let who = self.who_is(|thread| thread.is_some_and(|thread| !thread.is_active()));
        let space = if self.random.once_in(3) { self.id() } else { self.id_of(who) };
        let kip = self.random.one_of(&[KIP_AREA, KIP_AREA, KIP_AREA, Fpage::NIL, UTCB_AREA]);
        let utcb = self.random.one_of(&[UTCB_AREA, UTCB_AREA, UTCB_AREA, Fpage::NIL, Fpage::COMPLETE]);
        Call::SpaceControl { space, kip, utcb }
    }

    /// Creation and deletion in balance.
    fn thread_control(&mut self) -> Call {
        let who = self.who();
        let location = self.random.one_of(&[UNCHANGED, UNCHANGED, who.utcb_location(), 1, UNCHANGED - 1]);
        let pager = self.random.one_of(&[ROOT.id(), ROOT.id(), ThreadId::NIL]);
        let args = match self.random.below(16) {
            0 | 1 => deletion(who),
            2..=8 => {
                let who = self.who_is(|thread| thread.is_none_or(|thread| !thread.is_active()));
                let pager = if self.random.once_in(3) { self.id() } else { ROOT.id() };
                ThreadControlArgs { pager, ..activation(who) }
            }
            9..=11 => {
                let who = self.who_is(|thread| thread.is_none());
                ThreadControlArgs { utcb_location: UNCHANGED, ..activation(who) }
            }
            12 => ThreadControlArgs { dest: who.version(1 + self.random.below(3)), pager, ..no_change(who) },
            13 | 14 => ThreadControlArgs { space: self.id(), pager, utcb_location: location, ..no_change(who) },
            _ => {
                let (dest, space, scheduler, pager) = (self.id(), self.id(), self.id(), self.id());
                ThreadControlArgs { dest, space, scheduler, pager, utcb_location: location }
            }
        };
        Call::ThreadControl(args)
    }
}
