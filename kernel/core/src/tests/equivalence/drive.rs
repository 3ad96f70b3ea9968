//! Two worlds that begin alike and in which the same things happen, one with the fast path and one without.
//!
//! Who acts is who the scheduler lets run. Most of what threads do are calls of Ipc that the fast path would take, with one
//! thing in three changed that may bar it. The root task, which comes before all others, sleeps for a while and then
//! changes something: it frees who is stuck, moves, halts, deletes and makes threads, sets priorities, times and
//! redirectors. So all states have a history of system calls, and one that is the same for the rest of the run shows what
//! it is good for in later calls.

use std::collections::VecDeque;

use l4_abi::{
    ExregsControl, MsgTag, PreemptFlags, PreemptionControl, PrioControl, ProcessorControl, ThreadId, Time, TimeControl,
    Timeouts, Word, protocol,
};

use super::code::Code;
use super::compare::compare;
use super::conditions::{Counts, Kind, bars};
use super::processor::{Registers, reg};
use super::side::{Call, Side};
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::syscall::{Exregs, ScheduleArgs, SpaceControlArgs, ThreadControlArgs};
use crate::tests::invariants;
use crate::tests::machine::{Fake, IPC_RETURN_IP};
use crate::tests::random::Random;
use crate::tests::schedule::nothing;
use crate::tests::space_control::areas;
use crate::tests::world::{
    A, EVERYBODY, N, P, ROOT, S, START_IP, START_SP, Who, World, X, Z, activation, deletion, no_change, no_registers,
};
use crate::thread::{Purpose, Status, Tcb};

/// A call of the root task, or of another thread, besides Ipc.
#[derive(Clone, Copy, Debug)]
enum Act {
    Exregs(Exregs),
    Schedule(ScheduleArgs),
    SpaceControl(SpaceControlArgs),
    ThreadControl(ThreadControlArgs),
    Switch(ThreadId),
    Flags(PreemptFlags),
    LoadGs,
    UseFpu,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "printed when the sides differ")]
enum Event {
    Clock(u64),
    Act(usize, Act),
    Ipc(usize, Call),
    /// Words that the next message may carry.
    Words(TcbRef, usize, [Word; 4]),
    Name(TcbRef, ThreadId),
}

/// The two worlds.
pub struct Twins {
    fast: Side,
    general: Side,
    random: Random,
    pub counts: Counts,
    trace: VecDeque<Event>,
    /// Who called last.
    ran: TcbRef,
    /// Whose UTCB is compared next.
    turn: usize,
}

/// Events that are told of when the sides differ.
const TRACE: usize = 12;
/// The priority of the root task, above that of all others.
const ROOT_PRIORITY: u8 = 255;
/// How long it sleeps at most, microseconds.
const SLEEP_US: u64 = 600;
/// Flags that user code can set, and the one that it always has.
const USER_FLAGS: u64 = 0x24_0CD5;
const INTERRUPT_FLAG: u64 = 1 << 9 | 1 << 1;
/// The direction flag; the ABI wants it clear at calls.
const DIRECTION_FLAG: u64 = 1 << 10;

impl Twins {
    /// Two worlds of so many processors.
    pub fn new(code: &'static Code, seed: u64, processors: usize) -> Self {
        let [fast, general] = [true, false].map(|may_be_fast| {
            let w = World::of_processors(processors);
            let prio = PrioControl::new(ROOT_PRIORITY);
            let done = w.enter(ROOT, |here, root| here.schedule(root, ScheduleArgs { prio, ..nothing(ROOT.id()) }));
            assert!(done.is_ok(), "root is above all");
            Side::new(w, code, may_be_fast)
        });
        let (random, counts, trace) = (Random(seed), Counts::default(), VecDeque::new());
        let mut twins = Self { fast, general, random, counts, trace, ran: ROOT.tcb(), turn: 0 };
        twins.check();
        twins
    }

    /// Lets things happen until there were so many calls of Ipc.
    pub fn run(&mut self, calls: u64) {
        let mut events = 0;
        while self.counts.calls < calls {
            self.step();
            events += 1;
            if events % 4096 == 0 {
                [&self.fast, &self.general].into_iter().for_each(|side| invariants::check_threads(side.w.k));
            }
        }
    }

    /// Compares the sides, with the UTCBs of who ran or runs and of everybody else in turn.
    fn check(&mut self) {
        self.turn = (self.turn + 1) % EVERYBODY.len();
        let (turn, ran) = (EVERYBODY[self.turn].tcb(), self.ran);
        let runs = |thread| self.fast.w.cpus().any(|cpu| self.fast.current(cpu) == Some(thread));
        let compared = compare(&self.fast, &self.general, |thread| thread == turn || thread == ran || runs(thread));
        if let Err(difference) = compared {
            println!("the last events:");
            self.trace.iter().for_each(|event| println!("    {event:x?}"));
            panic!("{difference}");
        }
    }

    fn note(&mut self, event: Event) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(event);
    }

    /// The world as everybody sees it.
    fn w(&self) -> World {
        self.fast.w
    }

    fn sides(&mut self) -> [&mut Side; 2] {
        [&mut self.fast, &mut self.general]
    }

    // --- what happens ---

    fn step(&mut self) {
        let cpus = self.w().cpus().len() as u64;
        let first = self.random.below(cpus) as usize;
        let busy =
            (0..cpus as usize).map(|i| (first + i) % cpus as usize).find(|&cpu| self.fast.current(cpu).is_some());
        match busy {
            Some(cpu) if !self.random.once_in(24) => self.act(cpu),
            _ => self.pass(),
        }
        self.check();
    }

    /// Time passes; if nobody runs, until somebody does.
    fn pass(&mut self) {
        let now = self.w().k.machine.now_us();
        let is_idle = self.w().cpus().all(|cpu| self.fast.current(cpu).is_none());
        let next = self.w().cpus().filter_map(|cpu| self.fast.here(cpu).next_event()).min();
        assert!(next.is_some() || !is_idle, "somebody runs some day");
        let us = match next {
            Some(next) if is_idle => next.max(now),
            _ => now + self.random.below(100),
        };
        self.note(Event::Clock(us));
        self.sides().into_iter().for_each(|side| side.clock(us));
    }

    fn act(&mut self, cpu: usize) {
        let thread = self.fast.current(cpu).expect("it is busy");
        if thread == ROOT.tcb() {
            return self.act_as_root(cpu);
        }
        match self.random.below(64) {
            0 => {
                let dest = if self.random.once_in(2) { ThreadId::NIL } else { self.id() };
                self.do_act(cpu, Act::Switch(dest));
            }
            1 => {
                let flags = self.random.one_of(&[PreemptFlags::from_raw(0), PreemptFlags::DELAY]);
                self.do_act(cpu, Act::Flags(flags));
            }
            2 | 3 => self.do_act(cpu, Act::LoadGs),
            4 => self.do_act(cpu, Act::UseFpu),
            _ => {}
        }
        // A thread may have lost the processor by that.
        if self.fast.current(cpu) == Some(thread) {
            let call = self.call(thread);
            self.do_ipc(cpu, call);
        }
    }

    fn act_as_root(&mut self, cpu: usize) {
        if !self.random.once_in(8) {
            if let Some(act) = self.control() {
                return self.do_act(cpu, act);
            }
            if let Some(who) = EVERYBODY.into_iter().find(|&who| is_to_start(self.w().tcb(who))) {
                let to = self.w().tcb(who).id.get();
                let mut call = self.registers(ROOT.tcb(), to, ThreadId::NIL, Timeouts::NEVER);
                call.registers.general[reg::R9] = protocol::start_tag().raw();
                call.registers.general[reg::RAX] = START_IP as u64;
                call.registers.general[reg::RBX] = START_SP as u64;
                return self.do_ipc(cpu, call);
            }
        }
        let rest = Time::period_us(1 + self.random.below(SLEEP_US));
        let own = self.w().tcb(ROOT).id.get();
        let call = self.registers(ROOT.tcb(), ThreadId::NIL, own, Timeouts::new(Time::NEVER, rest));
        self.do_ipc(cpu, call);
    }

    fn do_act(&mut self, cpu: usize, act: Act) {
        self.note(Event::Act(cpu, act));
        self.sides().into_iter().for_each(|side| carry_out(side, cpu, act));
        self.check();
    }

    fn do_ipc(&mut self, cpu: usize, call: Call) {
        self.note(Event::Ipc(cpu, call));
        let caller = self.fast.current(cpu).expect("it is in user mode");
        self.ran = caller;
        let bars = bars(&self.fast, cpu, &call);
        let may_be_fast = self.fast.processors[cpu].fast_gs == self.fast.processors[cpu].gs;
        let kind = (bars == 0 && may_be_fast).then(|| Kind::of(&self.fast, cpu, &call));
        let is_taken = self.fast.call(cpu, &call);
        assert_eq!(is_taken, kind.is_some(), "the fast path takes what nothing bars, {bars:#x}, {:x?}", self.trace);
        if is_taken {
            self.check_undefined(cpu, caller, &call);
        }
        if caller != ROOT.tcb() {
            self.counts.note(kind, bars);
        }
        assert!(!self.general.call(cpu, &call), "one side has no fast path");
    }

    /// What is left in the registers whose values the ABI does not define: nothing that the receiver may not know.
    fn check_undefined(&self, cpu: usize, caller: TcbRef, call: &Call) {
        let after = self.fast.processors[cpu].user.as_ref().expect("the receiver runs").general;
        let before = call.registers.general;
        assert_eq!(after[reg::RCX], IPC_RETURN_IP as u64, "rcx");
        assert_eq!(after[reg::RDX], call.tag().untyped() as u64, "rdx");
        assert!([before[reg::R8], after[reg::RSI]].contains(&after[reg::R8]), "r8 is {:x}", after[reg::R8]);
        let number_of_sender = (caller.index() as u64) << crate::thread::TCB_SIZE_LOG2;
        assert!([number_of_sender, after[reg::RDI]].contains(&after[reg::RBP]), "rbp is {:x}", after[reg::RBP]);
    }

    // --- choice ---

    fn is(&self, who: Who, what: impl Fn(&Tcb) -> bool) -> bool {
        let tcb = self.w().tcb(who);
        tcb.exists() && what(tcb)
    }

    /// Somebody of whom this is true.
    fn who_is(&mut self, what: impl Fn(&Tcb) -> bool) -> Option<Who> {
        let first = self.random.below(EVERYBODY.len() as u64) as usize;
        let all = EVERYBODY.into_iter().cycle().skip(first).take(EVERYBODY.len());
        all.into_iter().find(|&who| self.is(who, &what))
    }

    /// The id of somebody who is there, in one of its forms, or something like an id.
    fn id(&mut self) -> ThreadId {
        let who = self.random.one_of(&EVERYBODY);
        let own = self.w().tcb(who).id.get();
        match self.random.below(16) {
            0 => ThreadId::ANY,
            1 => ThreadId::ANY_LOCAL,
            2 => ThreadId::NIL,
            3 => ThreadId::interrupt(self.random.below(32)),
            4 => ThreadId::from_raw(self.random.next()),
            5 => ThreadId::global(own.thread_no(), own.version() ^ 1),
            6 => ThreadId::global(own.thread_no() + (1 << 18), own.version()),
            7 => ThreadId::global(100 + self.random.below(1 << 17), 1),
            8 | 9 => who.local(),
            _ => own,
        }
    }

    /// The registers of `thread` for a call: those that do not matter hold anything.
    fn registers(&mut self, thread: TcbRef, to: ThreadId, from: ThreadId, timeouts: Timeouts) -> Call {
        let local_id = self.w().k.tcb(thread).local_id.get();
        let mut registers = Registers { ip: IPC_RETURN_IP as u64, ..Registers::default() };
        registers.general = [(); 16].map(|()| self.random.next());
        registers.general[reg::RSP] = START_SP as u64 - self.random.below(64) * 8;
        registers.general[reg::RDI] = local_id.raw() as u64;
        registers.general[reg::RSI] = to.raw() as u64;
        registers.general[reg::RDX] = from.raw() as u64;
        registers.general[reg::R8] = timeouts.raw() as u64;
        registers.general[reg::R9] = MsgTag::new(self.random.next() >> 16, 0, 0).raw() as u64;
        registers.flags = self.random.next() & USER_FLAGS & !DIRECTION_FLAG | INTERRUPT_FLAG;
        Call { registers }
    }

    /// Somebody who waits for what `thread` sends: mostly so that the fast path might serve, and most of the time in the same
    /// space, if there is somebody. Nilthread if there is nobody.
    fn partner(&mut self, thread: TcbRef) -> ThreadId {
        let tcb = self.w().k.tcb(thread);
        let (own, cpu) = (tcb.id.get(), tcb.home());
        let awaits = |tcb: &Tcb| [Some(own), Some(ThreadId::ANY)].contains(&tcb.waiting_for());
        let is_plain = |tcb: &Tcb| !tcb.waits_for.get().is_nil() && tcb.home() == cpu;
        let is_near = |other: &Tcb| other.space.get() == tcb.space.get();
        let found = match self.random.below(8) {
            0 => None,
            1..6 => self.who_is(|tcb| awaits(tcb) && is_plain(tcb) && is_near(tcb)),
            _ => self.who_is(|tcb| awaits(tcb) && is_plain(tcb)),
        };
        found.or_else(|| self.who_is(awaits)).map_or(ThreadId::NIL, |who| self.w().tcb(who).id.get())
    }

    /// What `thread` calls.
    fn call(&mut self, thread: TcbRef) -> Call {
        let own = self.w().k.tcb(thread).id.get();
        let to = match self.random.below(16) {
            0..=12 => self.partner(thread),
            13 | 14 => ThreadId::NIL,
            _ => self.id(),
        };
        let from = match self.random.below(22) {
            0..=7 if !to.is_nil() => to,
            0..=13 => ThreadId::ANY,
            16..=21 if !to.is_nil() => ThreadId::NIL,
            14 => self.who_is(|tcb| tcb.send_link.is_linked()).map_or(ThreadId::ANY, |who| self.w().tcb(who).id.get()),
            _ => self.id(),
        };
        let timeouts = Timeouts::new(self.time(), Time::NEVER);
        let mut call = self.registers(thread, to, from, timeouts);
        let untyped = self.random.one_of(&[0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 62, 63, 64]);
        let untyped = if untyped == 64 { self.random.below(64) } else { untyped } as usize;
        let mut tag = MsgTag::new(self.random.next() >> 16, untyped, 0);
        match self.random.below(36) {
            0 => tag = tag.with_flags(1 << (12 + self.random.below(4))),
            1 => tag = MsgTag::new(0, untyped.min(7), 1 + self.random.below(63) as usize),
            2 => {
                let timeouts = Timeouts::new(self.time(), self.random.one_of(&[Time::ZERO, Time::period_us(300)]));
                call.registers.general[reg::R8] = timeouts.raw();
            }
            // The bits above the timeouts mean nothing.
            3 | 4 => call.registers.general[reg::R8] |= self.random.next() << 32,
            5 => call.registers.general[reg::RSI] = self.id().raw(),
            6 => call.registers.general[reg::RDX] = self.id().raw(),
            7 => call.registers.general[reg::RDX] = 0,
            // In somebody's name, whom somebody may wait for: senders that the fast path does not look for.
            8 | 9 => {
                let is_busy = |tcb: &Tcb| tcb.id.get() != ROOT.id() && tcb.id.get() != own;
                let busy = self.who_is(|tcb| is_busy(tcb) && tcb.status() == Status::Running);
                call.registers.general[reg::RSI] = busy.map_or(0, |who| self.w().tcb(who).id.get().raw());
                call.registers.general[reg::RDX] = 0;
                let space = self.w().k.tcb(thread).space.get();
                let neighbour = self.who_is(|tcb| tcb.space.get() == space && tcb.id.get() != own);
                let name = neighbour.map_or(own, |who| self.w().tcb(who).id.get());
                tag = tag.with_flags(MsgTag::PROPAGATED);
                self.note(Event::Name(thread, name));
                self.sides().into_iter().for_each(|side| side.w.k.utcb(thread).set_virtual_sender(name));
            }
            _ => {}
        }
        call.registers.general[reg::R9] = tag.raw();
        self.write_words(thread, untyped);
        call
    }

    /// Writes a few of the message registers that are not in registers.
    fn write_words(&mut self, thread: TcbRef, untyped: usize) {
        const LAST: u64 = 60;
        if untyped < 8 {
            return;
        }
        let (at, words) = (8 + self.random.below(LAST - 8) as usize, [(); 4].map(|()| self.random.next()));
        self.note(Event::Words(thread, at, words));
        for side in self.sides() {
            words.into_iter().enumerate().for_each(|(i, word)| side.w.k.utcb(thread).set_mr(at + i, word));
        }
    }

    fn time(&mut self) -> Time {
        match self.random.below(4) {
            0 => Time::ZERO,
            1 => Time::period_us(1 + self.random.below(400)),
            _ => Time::NEVER,
        }
    }

    /// What root changes; `None`: it starts somebody, or sleeps.
    fn control(&mut self) -> Option<Act> {
        let is_others = |tcb: &Tcb| tcb.id.get() != ROOT.id() && tcb.id.get() != S.id();
        let is_blocked = |tcb: &Tcb| is_others(tcb) && tcb.is_active() && tcb.status() != Status::Running;
        let is_halted = |tcb: &Tcb| is_others(tcb) && tcb.is_halted();
        let id = |twins: &Self, who: Who| twins.w().tcb(who).id.get();
        match self.random.below(32) {
            0..=11 => {
                let who = self.who_is(is_blocked)?;
                Some(Act::Exregs(Exregs { control: ExregsControl::ABORT_IPC, ..no_registers(id(self, who)) }))
            }
            12 => {
                let who = EVERYBODY.into_iter().find(|&who| self.is(who, is_halted))?;
                let control = ExregsControl::APPLY_HALT;
                Some(Act::Exregs(Exregs { control, ..no_registers(id(self, who)) }))
            }
            13 => {
                let who = self.who_is(is_others)?;
                let control = ExregsControl::APPLY_HALT | ExregsControl::HALT;
                Some(Act::Exregs(Exregs { control, ..no_registers(id(self, who)) }))
            }
            14..=16 => {
                let who = self.who_is(is_others)?;
                let prio = PrioControl::new(self.random.one_of(&[50, 60, 70, 80, 100, 100, 100]));
                Some(Act::Schedule(ScheduleArgs { prio, ..nothing(id(self, who)) }))
            }
            17 | 18 => {
                let who = self.who_is(is_others)?;
                let cpu = self.random.below(self.w().cpus().len() as u64) as u16;
                let processor = ProcessorControl::new(cpu);
                Some(Act::Schedule(ScheduleArgs { processor, ..nothing(id(self, who)) }))
            }
            19 => {
                let who = self.who_is(is_others)?;
                let preemption = PreemptionControl::new(self.random.one_of(&[100, 255]), self.random.below(300) as u16);
                Some(Act::Schedule(ScheduleArgs { preemption, ..nothing(id(self, who)) }))
            }
            20 => {
                let who = self.who_is(is_others)?;
                let slice = self.random.one_of(&[Time::period_us(80), Time::period_us(10_000), Time::NEVER]);
                let quantum = self.random.one_of(&[Time::NEVER, Time::NEVER, Time::period_us(5_000)]);
                Some(Act::Schedule(ScheduleArgs { time: TimeControl::new(slice, quantum), ..nothing(id(self, who)) }))
            }
            21 => {
                let of = self.random.one_of(&[A, X, Z, N, P]);
                let redirector = self.who_is(is_others).map(|who| id(self, who));
                Some(Act::SpaceControl(SpaceControlArgs { redirector: redirector?, ..self.space_of(of)? }))
            }
            22..=26 => {
                // Redirection ends where there is any.
                let is_redirected = |tcb: &Tcb| {
                    tcb.space.get().is_some_and(|space| !self.fast.w.k.spaces.get(space).redirector().is_nil())
                };
                let of = EVERYBODY.into_iter().find(|&who| self.is(who, is_redirected))?;
                let args = SpaceControlArgs { space: id(self, of), redirector: ThreadId::ANY, ..areas(of) };
                Some(Act::SpaceControl(args))
            }
            27 => {
                let who = self.random.one_of(&EVERYBODY);
                let may_go = who != ROOT && who != S && self.w().tcb(who).exists() && self.random.once_in(2);
                may_go.then(|| Act::ThreadControl(ThreadControlArgs { dest: id(self, who), ..deletion(who) }))
            }
            28 => {
                let who = self.who_is(is_others)?;
                let own = id(self, who);
                let dest = ThreadId::global(own.thread_no(), 1 + self.random.below(3));
                Some(Act::ThreadControl(ThreadControlArgs { dest, space: own, ..no_change(who) }))
            }
            29 | 30 => self.creation(),
            _ => None,
        }
    }

    fn space_of(&self, of: Who) -> Option<SpaceControlArgs> {
        let tcb = self.w().tcb(of);
        tcb.exists().then(|| SpaceControlArgs { space: tcb.id.get(), ..areas(of) })
    }

    /// Makes somebody who is not there, in the space of somebody who is, or in a space of its own.
    fn creation(&mut self) -> Option<Act> {
        let absent = |who: &Who| !self.w().tcb(*who).exists() && !self.w().tcb(*who).is_dying.get();
        let who = EVERYBODY.into_iter().find(absent).filter(|&who| who != ROOT && who != S)?;
        let is_neighbour = |other: &Who| self.is(*other, |_| true) && other.leader() == who.leader();
        let neighbour = EVERYBODY.into_iter().find(is_neighbour);
        let space = neighbour.map_or(who.id(), |other| self.w().tcb(other).id.get());
        let pager = self.w().tcb(ROOT).id.get();
        Some(Act::ThreadControl(match neighbour {
            Some(_) => ThreadControlArgs { pager, space, ..activation(who) },
            // Its space has no UTCB area yet; without one it stays inactive.
            None => ThreadControlArgs { space, utcb_location: Word::MAX, ..activation(who) },
        }))
    }
}

/// Whether the thread waits for its start message.
fn is_to_start(tcb: &Tcb) -> bool {
    tcb.exists() && tcb.status() == Status::Waiting && tcb.purpose() == Purpose::Start
}

/// The caller on processor `cpu` acts.
fn carry_out(side: &mut Side, cpu: usize, act: Act) {
    let caller = side.current(cpu).expect("somebody acts");
    let enter = |side: &mut Side, call: &dyn Fn(&mut Here<'static, Fake>)| side.enter(cpu, |here| call(here));
    match act {
        Act::Exregs(args) => {
            // The pager of a thread may do anything to it.
            let active = side.w.k.thread(args.dest).filter(|&thread| side.w.k.tcb(thread).is_active());
            active.inspect(|&thread| side.w.k.utcb(thread).set_pager(ROOT.id()));
            enter(side, &|here| _ = here.exchange_registers(caller, args));
        }
        Act::Schedule(args) => enter(side, &|here| _ = here.schedule(caller, args)),
        Act::SpaceControl(args) => enter(side, &|here| _ = here.space_control(caller, args)),
        Act::ThreadControl(args) => {
            enter(side, &|here| _ = here.thread_control(caller, args));
            initialise(side, cpu, caller, args);
        }
        Act::Switch(dest) => enter(side, &|here| here.thread_switch(caller, dest)),
        Act::Flags(flags) => side.w.k.utcb(caller).set_preempt_flags(flags.raw()),
        Act::LoadGs => side.processors[cpu].gs = 0,
        Act::UseFpu => side.use_fpu(cpu),
    }
}

/// A thread in a space of its own that is new gets the areas of that space, and becomes active.
fn initialise(side: &mut Side, cpu: usize, caller: TcbRef, args: ThreadControlArgs) {
    let new = side.w.k.thread(args.dest).filter(|&thread| !side.w.k.tcb(thread).is_active());
    let Some(who) = new.and_then(Who::at).filter(|who| who.id() == args.space) else { return };
    if side.current(cpu) != Some(caller) {
        return;
    }
    side.enter(cpu, |here| _ = here.space_control(caller, areas(who)));
    let pager = side.w.tcb(ROOT).id.get();
    side.enter(cpu, |here| _ = here.thread_control(caller, ThreadControlArgs { pager, ..activation(who) }));
}
