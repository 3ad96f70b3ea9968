//! The core as a simulation of a machine: random calls from random threads, page faults, accesses to memory, interrupts and
//! time, on one processor or several, all of it from one seed. After each step the invariants must hold; in the end
//! everybody can be deleted, and all memory has returned.
//!
//! On several processors each step is one processor's: a call of its running thread, a part of the work, the timer. What
//! one was told by another it does in a later step of its own, and a call that waits for others stands still meanwhile. In
//! half of the runs processors also stop in the middle of the core's code ([`super::stage`]).
//!
//! A [`Step`] is what happens and nothing else, so the steps of a run can be carried out again, and so can a part of them,
//! as whatever cannot happen where it stands is left out. [`runs`] runs and checks, and looks for the shortest part that
//! still fails.

use std::collections::BTreeMap;

use l4_abi::{
    ExregsControl, Fpage, MsgTag, PreemptFlags, PreemptionControl, PrioControl, ProcessorControl, Rights, ThreadId,
    Time, TimeControl, Timeouts, UnmapControl, Word,
};

use super::fast_path::fast_ipc;
use super::fingerprint::Fingerprint;
use super::memory::ledger;
use super::schedule::nothing;
use super::space_control::areas;
use super::stage::{Place, Stage};
use super::world::{
    EVERYBODY, ROOT, S, START_IP, START_SP, UNCHANGED, USER_END, Who, World, activation, deletion, no_change,
    no_registers,
};
use crate::debugger::Then;
use crate::machine::{CpuId, Machine, TcbRef};
use crate::space::Rest;
use crate::syscall::{Exregs, ScheduleArgs, SpaceControlArgs, ThreadControlArgs};
use crate::thread::{Arrival, Print, Status, Tcb, Work};
use crate::var::Var;

#[cfg(feature = "explore")]
pub mod explored;
#[cfg(not(feature = "explore"))]
pub mod runs;
#[cfg(not(feature = "explore"))]
pub mod shrink;

/// A generator of numbers (Steele, Lea, Flood: SplitMix).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of a few.
    pub fn one_of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u64) as usize]
    }
}

/// What happens, and what the places follow from where processors pause meanwhile.
#[derive(Clone, Copy, Debug)]
struct Step {
    event: Event,
    pauses: u64,
}

/// What happens in a step.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The time passes, with a timer interrupt.
    Clock(u64),
    /// Work in the kernel of this processor goes on for so many steps.
    Work(usize, usize),
    /// A thread does something, so many allocations later one fails, and the dispatcher takes so many steps.
    Act { who: Who, act: Act, fail_nth: usize, steps: usize },
    /// A processor goes on that waits for others or has stopped.
    GoOn(usize),
    /// A device raises this line.
    Raise(u32),
    /// A thread in user mode reads or writes memory.
    Access { who: Who, address: usize, writes: bool },
    /// All entries come to their ends.
    Finish,
    /// The same, and whatever one was told of it does without being told again. Then nothing is on its way.
    Settle,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Ipc {
        to: ThreadId,
        from: ThreadId,
        timeouts: Timeouts,
        message: [Word; 6],
        buffers: [Word; 3],
        xfer: Timeouts,
        virtual_sender: ThreadId,
        pager: ThreadId,
    },
    Exregs(Exregs),
    ThreadControl(ThreadControlArgs),
    SpaceControl(SpaceControlArgs),
    Schedule(ScheduleArgs),
    Switch(ThreadId),
    /// It sets its PreemptFlags, and has an exception handler.
    Flags(PreemptFlags),
    Unmap {
        control: UnmapControl,
        fpages: [Fpage; 2],
    },
    MemoryControl {
        attributes: [Word; 4],
        fpages: [Fpage; 2],
    },
    PageFault {
        address: usize,
        pager: ThreadId,
    },
    Exception {
        handler: ThreadId,
    },
    Print {
        print: Print,
        argument: usize,
        then: Then,
        handler: ThreadId,
    },
    Input,
}

/// A world in which things happen at random.
pub struct Chaos {
    w: World,
    /// What is chosen follows from.
    random: Random,
    /// Where processors pause follows from.
    pauses: Random,
    stage: Stage,
    /// What was seen, and how often.
    sights: BTreeMap<&'static str, usize>,
    /// Processors stop in the middle once in so many places; 0: never.
    often: u64,
    /// What goes wrong behind each step, to see that it is found.
    mistake: Option<fn(World, Event)>,
}

impl Chaos {
    /// A fresh world. Whether processors pause is the seed's choice, too.
    fn new(seed: u64, processors: usize) -> Self {
        let often = if processors > 1 && seed.is_multiple_of(2) { 30 } else { 0 };
        Self {
            w: World::of_processors(processors),
            random: Random(seed),
            pauses: Random(0),
            stage: Stage::new(processors),
            sights: BTreeMap::new(),
            often,
            mistake: None,
        }
    }

    // --- choice ---

    fn who(&mut self) -> Who {
        self.random.one_of(&EVERYBODY)
    }

    /// Somebody of whom this is true, or just anybody.
    fn who_is(&mut self, is_so: impl Fn(&Tcb) -> bool) -> Who {
        let such: Vec<Who> = EVERYBODY.into_iter().filter(|&who| is_so(self.w.tcb(who))).collect();
        if such.is_empty() { self.who() } else { self.random.one_of(&such) }
    }

    /// An id: mostly of somebody who is there.
    fn id(&mut self) -> ThreadId {
        let who = self.who_is(Tcb::exists);
        match self.random.below(40) {
            0 => ThreadId::ANY,
            1 => ThreadId::ANY_LOCAL,
            2 => ThreadId::NIL,
            3 => who.version(self.random.below(4)),
            4 => ThreadId::interrupt(self.random.below(32)),
            5 => ThreadId::from_raw(self.random.next()),
            6..=12 => who.local(),
            _ => self.w.tcb(who).id.get(),
        }
    }

    fn time(&mut self) -> Time {
        match self.random.below(12) {
            0..=2 => Time::NEVER,
            3 | 4 => Time::ZERO,
            5 => Time::from_raw(self.random.next() as u16),
            _ => Time::period_us(self.random.below(3000)),
        }
    }

    fn fpage(&mut self) -> Fpage {
        let size_log2 = self.random.one_of(&[12, 12, 13, 19, 19, 20, 21, 22]);
        let base = (0x100_0000 + (self.random.below(1024) << 12)) >> size_log2 << size_log2;
        let fpage = Fpage::new(base, size_log2, Rights::from_bits_truncate(self.random.next() | 4)).expect("aligned");
        match self.random.below(20) {
            0 => Fpage::NIL,
            1 => Fpage::COMPLETE.with_rights(fpage.rights()),
            2 => Fpage::from_raw(self.random.next() >> 1),
            _ => fpage,
        }
    }

    fn message(&mut self) -> [Word; 6] {
        let (untyped, typed) = match self.random.below(12) {
            0..=5 => (self.random.below(6), 0),
            6..=10 => (self.random.below(2), 2 + 2 * self.random.below(2)),
            _ => (self.random.below(64), self.random.below(64)),
        };
        let tag = MsgTag::new(self.random.below(8), untyped as usize, typed as usize);
        let flags = if self.random.once_in(3) { MsgTag::PROPAGATED } else { 0 };
        let mut message = [tag.with_flags(flags).raw(), 1, 2, 3, 4, 5];
        for item in 0..2 {
            let kind = self.random.one_of(&[8, 8, 10, 14, 0, 0]);
            let fpage = self.fpage();
            let position = 1 + untyped as usize + 2 * item;
            if position + 1 < message.len() {
                let first = if kind == 0 { self.random.below(0x3000) << 10 } else { fpage.base() & !0x3FF };
                message[position] = first | kind;
                message[position + 1] = fpage.raw();
            }
        }
        message
    }

    fn act(&mut self, who: Who) -> Act {
        match self.random.below(if who == ROOT { 16 } else { 80 }) {
            0..=4 => Act::ThreadControl(self.thread_control()),
            5 | 6 => {
                let who = self.who_is(|tcb| tcb.exists() && !tcb.is_active());
                let redirector = match self.random.below(4) {
                    0 | 1 => ThreadId::NIL,
                    2 => ThreadId::ANY,
                    _ => self.id(),
                };
                let space = self.id();
                let nothing = SpaceControlArgs { space, kip_area: Fpage::NIL, utcb_area: Fpage::NIL, redirector };
                let areas = SpaceControlArgs { redirector, ..areas(who) };
                Act::SpaceControl(if self.random.once_in(2) { nothing } else { areas })
            }
            7..=13 => Act::Exregs(self.exregs()),
            14 => Act::Schedule(self.schedule()),
            15 if self.random.once_in(2) => {
                let attributes = [(); 4].map(|()| self.random.below(9));
                Act::MemoryControl { attributes, fpages: [self.fpage(), self.fpage()] }
            }
            29..=33 if self.w.cpus().len() > 1 => Act::Schedule(self.migration()),
            15 => Act::Switch(self.id()),
            25..=28 if who != ROOT => Act::Flags(PreemptFlags::from_raw(self.random.next() as u8)),
            16..=18 => Act::PageFault { address: self.random.below(USER_END * 2) as usize, pager: self.id() },
            19..=21 => Act::Exception { handler: self.id() },
            22..=24 => {
                let count = 1 + self.random.below(2) as usize;
                let control =
                    if self.random.once_in(3) { UnmapControl::flush(count) } else { UnmapControl::unmap(count) };
                Act::Unmap { control, fpages: [self.fpage(), self.fpage()] }
            }
            25 | 26 => self.print(),
            27 => Act::Input,
            _ => self.ipc(who),
        }
    }

    fn print(&mut self) -> Act {
        let print = self.random.one_of(&[Print::Char, Print::Text, Print::EnterWithText, Print::UnknownBreakpoint]);
        let argument = self.random.one_of(&[0x100_0FF0, usize::MAX, START_IP]);
        Act::Print { print, argument, then: self.random.one_of(&[Then::GoOn, Then::Stop]), handler: self.id() }
    }

    fn ipc(&mut self, who: Who) -> Act {
        let own = self.w.tcb(who).id.get();
        let to = match self.random.below(4) {
            0 => ThreadId::NIL,
            1 => self.id(),
            _ => {
                let expects = |tcb: &Tcb| [Some(own), Some(ThreadId::ANY)].contains(&tcb.waiting_for());
                let who = self.who_is(expects);
                if expects(self.w.tcb(who)) { who.id() } else { self.random.one_of(&[ThreadId::NIL, who.id()]) }
            }
        };
        let from = match self.random.below(8) {
            0 => ThreadId::NIL,
            1 | 2 => to,
            3..=5 => ThreadId::ANY,
            6 => self.who_is(|tcb| tcb.peer.get() == Some(who.tcb())).id(),
            _ => {
                let other = self.who().id();
                self.random.one_of(&[own, other])
            }
        };
        let window = match self.random.below(4) {
            0 => Fpage::NIL.raw(),
            1 => self.fpage().raw() & !0xF,
            _ => Fpage::COMPLETE.raw(),
        };
        let timeouts = Timeouts::new(self.time(), self.time());
        let strings = if self.random.once_in(2) { 1 } else { 0 };
        let buffers = [window | strings, self.random.below(0x4000) << 10, self.fpage().base()];
        let xfer = Timeouts::new(self.time(), self.time());
        let virtual_sender = match self.random.below(4) {
            0 => to,
            1 | 2 => self.who_is(|tcb| tcb.waiting_for() == Some(own)).id(),
            _ => self.id(),
        };
        let pager = self.who_is(|tcb| tcb.waiting_for() == Some(ThreadId::ANY)).id();
        Act::Ipc { to, from, timeouts, message: self.message(), buffers, xfer, virtual_sender, pager }
    }

    /// A thread with a fault in a string, and its pager, which can act.
    fn pager_of_a_string(&self) -> Option<(Who, Who)> {
        EVERYBODY.into_iter().find_map(|thread| {
            let tcb = self.w.tcb(thread);
            // It waits, or comes to wait.
            let awaited = self.w.k.thread(tcb.partner.get()).filter(|_| tcb.status() != Status::PendingSend);
            let partner = awaited.or(tcb.peer.get());
            let pager = tcb.outer_peer.get().and(partner)?;
            Some((Who::at(pager).filter(|&who| who != ROOT && self.can_act(who))?, thread))
        })
    }

    /// What `pager` does about the fault of `thread`: it receives or answers it.
    fn answer(&mut self, pager: Who, thread: Who) -> Act {
        let (act, is_queued) = (self.ipc(pager), self.w.tcb(thread).status() == Status::PendingSend);
        match act {
            Act::Ipc { message, buffers, xfer, pager, .. } => Act::Ipc {
                to: if is_queued { ThreadId::NIL } else { self.w.tcb(thread).id.get() },
                from: if is_queued { ThreadId::ANY } else { ThreadId::NIL },
                timeouts: Timeouts::NEVER,
                message: self.random.one_of(&[[0; 6], message]),
                buffers,
                xfer,
                virtual_sender: ThreadId::NIL,
                pager,
            },
            _ => act,
        }
    }

    fn exregs(&mut self) -> Exregs {
        let who = self.who_is(|tcb| tcb.is_halted() || tcb.is_active() && tcb.status() != Status::Running);
        let dest = if self.random.once_in(4) { self.id() } else { self.w.tcb(who).id.get() };
        let control = match self.random.below(8) {
            0 => ExregsControl::from_raw(self.random.below(0x400)),
            1 => ExregsControl::APPLY_HALT,
            _ => ExregsControl::START | ExregsControl::IP | ExregsControl::SP,
        };
        let ip = if self.random.once_in(4) { self.random.next() as usize } else { START_IP };
        Exregs { control, ip, sp: START_SP, flags: usize::MAX, handle: 1, pager: self.id(), ..no_registers(dest) }
    }

    /// Creation and deletion in balance, and whatever else there is.
    fn thread_control(&mut self) -> ThreadControlArgs {
        let who = self.who();
        let location = self.random.one_of(&[UNCHANGED, UNCHANGED, who.utcb_location(), 1, UNCHANGED - 1]);
        let pager = self.random.one_of(&[ROOT.id(), ROOT.id(), ThreadId::NIL]);
        match self.random.below(16) {
            0 => deletion(who),
            1..=9 => {
                let who = self.who_is(|tcb| !tcb.is_active());
                let pager = if self.random.once_in(3) { self.id() } else { ROOT.id() };
                ThreadControlArgs { pager, ..activation(who) }
            }
            10..=12 => {
                let who = self.who_is(|tcb| !tcb.exists());
                ThreadControlArgs { utcb_location: UNCHANGED, ..activation(who) }
            }
            13 => ThreadControlArgs { dest: who.version(1 + self.random.below(3)), pager, ..no_change(who) },
            14 => ThreadControlArgs { space: self.id(), pager, utcb_location: location, ..no_change(who) },
            _ => {
                let (dest, space, scheduler, pager) = (self.id(), self.id(), self.id(), self.id());
                ThreadControlArgs { dest, space, scheduler, pager, utcb_location: location }
            }
        }
    }

    fn schedule(&mut self) -> ScheduleArgs {
        let time = TimeControl::new(self.time(), self.time());
        ScheduleArgs {
            time: self.random.one_of(&[TimeControl::NO_CHANGE, time]),
            prio: PrioControl::from_raw(self.random.below(0x200)),
            processor: self.random.one_of(&[
                ProcessorControl::NO_CHANGE,
                ProcessorControl::new(0),
                ProcessorControl::new(1),
                ProcessorControl::new(2),
                ProcessorControl::new(3),
            ]),
            preemption: PreemptionControl::from_raw(self.random.below(1 << 26)),
            ..nothing(self.id())
        }
    }

    /// A change of processor and nothing else.
    fn migration(&mut self) -> ScheduleArgs {
        let cpu = self.random.below(self.w.cpus().len() as u64) as u16;
        let who = self.who_is(|tcb| tcb.is_active() && tcb.status() != Status::Running);
        let dest = if self.random.once_in(2) { self.id() } else { self.w.tcb(who).id.get() };
        ScheduleArgs { processor: ProcessorControl::new(cpu), ..nothing(dest) }
    }

    // --- action ---

    /// Whether somebody can act: ready, and in user mode, on a processor that is in no entry.
    fn can_act(&self, who: Who) -> bool {
        let tcb = self.w.tcb(who);
        let cpu = tcb.home();
        let current = self.w.k.cpus[cpu.index()].current.get().thread();
        let is_ready = tcb.ready_link.is_linked() || current == Some(who.tcb());
        let is_in_user_mode = tcb.work() == Work::None && !tcb.owes_message() && tcb.affinity() == cpu;
        self.is_free(cpu.index()) && tcb.is_at(cpu) && is_ready && is_in_user_mode
    }

    fn is_free(&self, cpu: usize) -> bool {
        self.stage.place(cpu) == Place::Done
    }

    /// Somebody who can act.
    fn actor(&mut self) -> Option<Who> {
        let able: Vec<Who> = EVERYBODY.into_iter().filter(|&who| self.can_act(who)).collect();
        let others: Vec<Who> = able.iter().copied().filter(|&who| who != ROOT).collect();
        let able = if others.is_empty() || self.random.once_in(3) { able } else { others };
        (!able.is_empty()).then(|| self.random.one_of(&able))
    }

    fn event(&mut self) -> Event {
        let cpu = self.random.below(self.w.cpus().len() as u64) as usize;
        if !self.is_free(cpu) {
            return Event::GoOn(cpu);
        }
        match self.random.below(if self.w.cpus().len() > 1 { 28 } else { 18 }) {
            0 => Event::Clock(self.random.below(4000)),
            16 => Event::Raise(4 + self.random.below(12) as u32),
            17 => self.access(),
            1 | 2 | 18.. => Event::Work(cpu, 9),
            _ => {
                let Some(who) = self.actor() else { return Event::Work(cpu, 9) };
                let fail_nth = if self.random.once_in(8) { 1 + self.random.below(4) as usize } else { 0 };
                let pager = if self.random.once_in(2) { self.pager_of_a_string() } else { None };
                let (who, act) = match pager {
                    Some((pager, thread)) => (pager, self.answer(pager, thread)),
                    None => (who, self.act(who)),
                };
                Event::Act { who, act, fail_nth, steps: self.random.one_of(&[0, 0, 1, 2, 9]) }
            }
        }
    }

    /// Somebody reads or writes where others may have mapped something.
    fn access(&mut self) -> Event {
        let Some(who) = self.actor() else { return Event::Clock(1) };
        let address = 0x100_0000 + (self.random.below(1024) << 12) as usize;
        Event::Access { who, address, writes: self.random.once_in(2) }
    }

    /// Lets a processor do something.
    fn enter(&mut self, cpu: usize, entry: impl FnOnce() + Send + 'static) {
        if self.w.cpus().len() == 1 {
            return entry();
        }
        let seed = self.pauses.next();
        self.stage.begin(cpu, seed, self.often, entry);
    }

    /// What happens next.
    fn next_step(&mut self) -> Step {
        Step { event: self.event(), pauses: self.random.next() }
    }

    /// It happens, if it can.
    fn take(&mut self, step: Step) {
        self.pauses = Random(step.pauses);
        if self.is_possible(step.event) {
            self.carry_out(step.event);
            // A thread that is moved to root's UTCB brings its flags along, and root would tell itself of its preemption.
            self.w.utcb(ROOT).set_preempt_flags(0);
            self.note_sights();
            if let Some(mistake) = self.mistake {
                mistake(self.w, step.event);
            }
        }
    }

    fn is_possible(&self, event: Event) -> bool {
        match event {
            Event::Work(cpu, _) => self.is_free(cpu),
            Event::GoOn(cpu) => !self.is_free(cpu),
            Event::Act { who, .. } | Event::Access { who, .. } => self.can_act(who),
            Event::Clock(_) | Event::Raise(_) | Event::Finish | Event::Settle => true,
        }
    }

    /// Whether no processor is in an entry.
    fn is_quiet(&self) -> bool {
        self.w.cpus().all(|cpu| self.is_free(cpu))
    }

    /// Counts what happens between processors.
    fn note_sights(&mut self) {
        if self.w.cpus().len() == 1 {
            return;
        }
        for who in EVERYBODY {
            let tcb = self.w.tcb(who);
            let is_moved = tcb.affinity() != tcb.home();
            let sight = match (tcb.is_at(tcb.home()), tcb.status(), tcb.work()) {
                _ if !tcb.exists() => continue,
                (false, ..) => match tcb.arrival.get() {
                    Arrival::None => unreachable!("it is on its way"),
                    Arrival::Ready => "goes on",
                    Arrival::Send => "goes to send",
                    Arrival::Receive => "comes to receive",
                    Arrival::Transfer => "goes on with a string",
                    Arrival::Cut => "goes to end a string",
                    Arrival::VirtualSender => "goes to whom it sent for",
                    Arrival::Moved => "was moved",
                },
                (_, Status::PendingSend, _) if self.w.k.cpus.iter().any(|cpu| cpu.orphans.get().is_some()) => "orphan",
                (_, _, Work::SendPhase) => "put off",
                (_, Status::Running, Work::Transfer) if is_moved => "in a string elsewhere",
                _ if tcb.outer_peer.get().is_some_and(|peer| self.w.k.tcb(peer).home() != tcb.home()) => {
                    "with a fault elsewhere"
                }
                _ => continue,
            };
            *self.sights.entry(sight).or_default() += 1;
        }
        for cpu in self.w.k.cpus.iter().filter(|cpu| cpu.questions.is_asking()) {
            let sight = if cpu.questions.waits_for().is_some() { "busy" } else { "asks" };
            *self.sights.entry(sight).or_default() += 1;
        }
    }

    fn carry_out(&mut self, event: Event) {
        let w = self.w;
        match event {
            Event::Clock(us) => {
                w.k.machine.set_clock(w.k.machine.now_us() + us);
                for cpu in w.cpus().filter(|&cpu| self.stage.place(cpu) == Place::Done).collect::<Vec<_>>() {
                    self.enter(cpu, move || {
                        w.on(cpu).here().timer_interrupt();
                        w.on(cpu).dispatch_steps(0);
                    });
                }
            }
            Event::Work(cpu, steps) => self.enter(cpu, move || w.on(cpu).dispatch_steps(steps)),
            Event::GoOn(cpu) => _ = self.stage.go_on(cpu),
            Event::Raise(line) => {
                let Some(cpu) = w.k.machine.raise(line).map(CpuId::index) else { return };
                // It comes in when the entry is over.
                if !self.is_free(cpu) {
                    self.finish_entries();
                }
                self.enter(cpu, move || {
                    w.on(cpu).here().interrupt(line);
                    w.on(cpu).dispatch_steps(0);
                });
            }
            Event::Act { who, act, fail_nth, steps } => {
                let cpu = w.tcb(who).home().index();
                // To look at everything takes long, and others may change something on several processors.
                let is_compared = w.cpus().len() == 1 && act.can_be_refused() && self.pauses.once_in(8);
                self.enter(cpu, move || {
                    w.make_run(who);
                    prepare(w, who, act);
                    let before = is_compared.then(|| Fingerprint::of(w));
                    w.k.kmem.fail_nth(fail_nth);
                    let came = if spares_root(act) { carry_out(w, who, act) } else { Came::Through };
                    w.k.kmem.fail_nth(0);
                    if let Some(before) = before.filter(|_| came == Came::Refused) {
                        let difference = before.difference(&Fingerprint::of(w));
                        assert_eq!(difference, None, "{act:?} of {} is refused", who.name());
                    }
                    if came != Came::Fast {
                        w.on(cpu).dispatch_steps(steps);
                    }
                });
            }
            Event::Access { who, address, writes } => _ = w.access(who, address, writes),
            Event::Finish => self.finish_entries(),
            Event::Settle => {
                self.finish_entries();
                w.settle();
            }
        }
    }

    /// Lets all entries come to their ends.
    fn finish_entries(&mut self) {
        let w = self.w;
        for _ in 0..10_000 {
            if self.is_quiet() {
                return;
            }
            for cpu in w.cpus() {
                if !self.is_free(cpu) {
                    self.stage.go_on(cpu);
                } else if w.k.machine.take_kick(CpuId::new(cpu as u32)) || w.on(cpu).here().is_behind() {
                    self.enter(cpu, move || w.on(cpu).dispatch_steps(0));
                }
            }
        }
        panic!("all kernel entries come to an end");
    }

    /// In the end all work is done, everybody is deleted, and nothing is left.
    fn end(mut self) {
        let w = self.w;
        self.finish_entries();
        w.finish_all();
        for who in EVERYBODY.into_iter().filter(|&who| who != ROOT && who != S) {
            w.delete(ROOT, who).expect("root may");
            w.finish_all();
        }
        let census = ledger(w).census;
        let servers = if w.tcb(S).exists() { 2 } else { 1 };
        assert_eq!(census.spaces, servers, "spaces that are left");
        let timeouts: usize = w.k.cpus.iter().map(|cpu| cpu.timeouts.count()).sum();
        assert_eq!(timeouts, w.tcb(S).timeout_link.is_linked().into());
    }
}

impl Act {
    /// Whether it is a system call that has errors.
    fn can_be_refused(self) -> bool {
        matches!(
            self,
            Self::Exregs(_)
                | Self::ThreadControl(_)
                | Self::SpaceControl(_)
                | Self::Schedule(_)
                | Self::MemoryControl { .. }
        )
    }
}

/// What came of an act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    /// The fast path took it: there is nothing for the dispatcher to do.
    Fast,
    /// It was an error.
    Refused,
    /// Anything else.
    Through,
}

impl<T, E> From<Result<T, E>> for Came {
    fn from(result: Result<T, E>) -> Self {
        if result.is_ok() { Self::Through } else { Self::Refused }
    }
}

/// What user code does before a call that is compared with what was before it.
fn prepare(w: World, who: Who, act: Act) {
    match act {
        Act::MemoryControl { fpages, .. } => w.set_mrs(who, &fpages.map(Fpage::raw)),
        Act::Exregs(args) if who == ROOT => {
            // As their pager it can help everybody.
            let active = w.k.thread(args.dest).filter(|&thread| w.k.tcb(thread).is_active());
            active.inspect(|&thread| w.k.utcb(thread).set_pager(ROOT.id()));
        }
        _ => {}
    }
}

/// Lets somebody act who is prepared.
fn carry_out(w: World, who: Who, act: Act) -> Came {
    match act {
        Act::Ipc { to, from, timeouts, message, buffers, xfer, virtual_sender, pager } => {
            w.set_mrs(who, &message);
            buffers.into_iter().enumerate().for_each(|(i, word)| w.utcb(who).set_br(i, word));
            w.utcb(who).set_xfer_timeouts(xfer);
            w.utcb(who).set_virtual_sender(virtual_sender);
            w.utcb(who).set_pager(pager);
            w.make_run(who);
            if fast_ipc(w, who, to, from, timeouts) {
                return Came::Fast;
            }
            w.trap_ipc(who, to, from, timeouts);
        }
        Act::Exregs(args) => return w.trap(who, |here, t| here.exchange_registers(t, args)).into(),
        Act::ThreadControl(args) => return w.trap(who, |here, t| here.thread_control(t, args)).into(),
        Act::SpaceControl(args) => return w.trap(who, |here, t| here.space_control(t, args)).into(),
        Act::Schedule(args) => return w.trap(who, |here, t| here.schedule(t, args)).into(),
        Act::Switch(dest) => w.trap(who, |here, t| here.thread_switch(t, dest)),
        Act::Flags(flags) => {
            w.make_run(who);
            // A thread that was put on root's UTCB would have root tell itself of its preemption, and wait for itself.
            if !core::ptr::eq(w.utcb(who), w.utcb(ROOT)) {
                w.utcb(who).set_preempt_flags(flags.raw());
                w.utcb(who).set_exception_handler(ROOT.id());
            }
        }
        Act::Unmap { control, fpages } => {
            w.set_mrs(who, &fpages.map(Fpage::raw));
            w.trap(who, |here, t| here.unmap(t, control));
        }
        Act::MemoryControl { attributes, .. } => {
            return w.trap(who, |here, t| here.memory_control(t, 1, attributes)).into();
        }
        Act::PageFault { address, pager } => {
            w.utcb(who).set_pager(pager);
            w.trap(who, |here, t| here.page_fault(t, address, Rights::READ, START_IP));
        }
        Act::Exception { handler } => {
            w.utcb(who).set_exception_handler(handler);
            w.trap(who, |here, t| here.exception(t));
        }
        Act::Print { print, argument, then, handler } => {
            w.utcb(who).set_exception_handler(handler);
            w.trap(who, |here, t| here.print(t, print, argument, then));
        }
        Act::Input => w.trap(who, |here, t| here.sleep_for_input(t)),
    }
    Came::Through
}

/// What the trace tells of somebody.
fn state(who: Who, tcb: &Tcb) -> String {
    let (home, affinity) = (tcb.home().index(), tcb.affinity().index());
    let way = if tcb.is_at(tcb.home()) { "at".into() } else { format!("{:?} to", tcb.arrival.get()) };
    let (status, purpose, work) = (tcb.status(), tcb.purpose(), tcb.work());
    let name = |thread: &Var<Option<TcbRef>>| thread.get().map(TcbRef::index);
    let (peer, outer, id) = (name(&tcb.peer), name(&tcb.outer_peer), tcb.id.get().version());
    let halted = if tcb.is_halted() { ", halted" } else { "" };
    let name = who.name();
    format!(
        "{name} v{id} {way} {home}/{affinity}: {status:?}, {purpose:?}, {work:?}, peer {peer:?}, outer {outer:?}{halted}"
    )
}

/// Somebody must stay to create and resume the others.
fn spares_root(act: Act) -> bool {
    let is_root = |id: ThreadId| id.thread_no() == ROOT.id().thread_no() || id == ROOT.local();
    let is_sigma0 = |id: ThreadId| id.thread_no() == S.id().thread_no();
    match act {
        Act::ThreadControl(args) => !is_root(args.dest) && !is_sigma0(args.dest),
        Act::Exregs(args) => !is_root(args.dest),
        // At the end of a quantum they would tell themselves.
        Act::Schedule(args) => (!is_root(args.dest) && !is_sigma0(args.dest)) || args.time.is_no_change(),
        Act::Flags(_) => true,
        _ => true,
    }
}
