//! Random calls from random threads. After each of them the invariants must hold; in the end everybody can be deleted, and
//! all memory has returned.

use std::collections::VecDeque;

use l4_abi::{
    ExregsControl, Fpage, MsgTag, PreemptFlags, PreemptionControl, PrioControl, ProcessorControl, Rights, ThreadId,
    Time, TimeControl, Timeouts, UnmapControl, Word,
};

use super::fast_path::fast_ipc;
use super::invariants;
use super::memory::ledger;
use super::schedule::nothing;
use super::space_control::areas;
use super::world::{
    EVERYBODY, ROOT, S, START_IP, START_SP, UNCHANGED, USER_END, Who, World, activation, deletion, no_change,
    no_registers,
};
use crate::debugger::Then;
use crate::machine::Machine;
use crate::space::Rest;
use crate::syscall::{Exregs, ScheduleArgs, SpaceControlArgs, ThreadControlArgs};
use crate::thread::{Print, Status, Tcb, Work};

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

/// What happens in a step.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The time passes, with a timer interrupt.
    Clock(u64),
    /// Work in the kernel goes on.
    Work,
    /// A thread does something, and so many allocations later one fails.
    Act { who: Who, act: Act, fail_nth: usize },
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
struct Chaos {
    w: World,
    random: Random,
    /// The last events, printed when an invariant breaks.
    trace: VecDeque<Event>,
    seed: u64,
}

impl Drop for Chaos {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}, the last events:", self.seed);
            self.trace.iter().for_each(|event| println!("{event:?}"));
        }
    }
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self { w: World::new(), random: Random(seed), trace: VecDeque::new(), seed }
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
        Act::Ipc { to, from, timeouts, message: self.message(), buffers, xfer, virtual_sender }
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
            ]),
            preemption: PreemptionControl::from_raw(self.random.below(1 << 26)),
            ..nothing(self.id())
        }
    }

    // --- action ---

    /// Somebody who can act: ready, and in user mode.
    fn actor(&mut self) -> Option<Who> {
        let current = self.w.here().cpu.current.get().thread();
        let can_act = |who: &Who| {
            let tcb = self.w.tcb(*who);
            let is_ready = tcb.ready_link.is_linked() || current == Some(who.tcb());
            is_ready && tcb.work() == Work::None && !tcb.owes_message()
        };
        let able: Vec<Who> = EVERYBODY.into_iter().filter(can_act).collect();
        let others: Vec<Who> = able.iter().copied().filter(|&who| who != ROOT).collect();
        let able = if others.is_empty() || self.random.once_in(3) { able } else { others };
        (!able.is_empty()).then(|| self.random.one_of(&able))
    }

    fn event(&mut self) -> Event {
        match self.random.below(16) {
            0 => Event::Clock(self.random.below(4000)),
            1 | 2 => Event::Work,
            _ => {
                let Some(who) = self.actor() else { return Event::Work };
                let fail_nth = if self.random.once_in(8) { 1 + self.random.below(4) as usize } else { 0 };
                Event::Act { who, act: self.act(who), fail_nth }
            }
        }
    }

    fn step(&mut self) {
        let event = self.event();
        if self.trace.len() == 40 {
            self.trace.pop_front();
        }
        self.trace.push_back(event);
        match event {
            Event::Clock(us) => {
                self.w.k.machine.set_clock(self.w.k.machine.now_us() + us);
                self.w.here().timer_interrupt();
            }
            Event::Work => {}
            Event::Act { who, act, fail_nth } => {
                self.w.k.kmem.fail_nth(fail_nth);
                let is_done = spares_root(act) && self.carry_out(who, act);
                self.w.k.kmem.fail_nth(0);
                if is_done {
                    return;
                }
            }
        }
        let steps = if matches!(event, Event::Work) { 9 } else { self.random.one_of(&[0, 0, 1, 2, 9]) };
        self.w.dispatch_steps(steps);
    }

    /// Lets somebody act. True if that was it, without dispatcher.
    fn carry_out(&mut self, who: Who, act: Act) -> bool {
        let w = self.w;
        match act {
            Act::Ipc { to, from, timeouts, message, buffers, xfer, virtual_sender } => {
                w.set_mrs(who, &message);
                buffers.into_iter().enumerate().for_each(|(i, word)| w.utcb(who).set_br(i, word));
                w.utcb(who).set_xfer_timeouts(xfer);
                w.utcb(who).set_virtual_sender(virtual_sender);
                w.make_run(who);
                if fast_ipc(w, who, to, from, timeouts) {
                    return true;
                }
                w.trap_ipc(who, to, from, timeouts);
            }
            Act::Exregs(args) if who == ROOT => {
                // As their pager it can help everybody.
                let active = w.k.thread(args.dest).filter(|&thread| w.k.tcb(thread).is_active());
                active.inspect(|&thread| w.k.utcb(thread).set_pager(ROOT.id()));
                _ = w.trap(who, |here, t| here.exchange_registers(t, args));
            }
            Act::Exregs(args) => _ = w.trap(who, |here, t| here.exchange_registers(t, args)),
            Act::ThreadControl(args) => _ = w.trap(who, |here, t| here.thread_control(t, args)),
            Act::SpaceControl(args) => _ = w.trap(who, |here, t| here.space_control(t, args)),
            Act::Schedule(args) => _ = w.trap(who, |here, t| here.schedule(t, args)),
            Act::Switch(dest) => w.trap(who, |here, t| here.thread_switch(t, dest)),
            Act::Flags(flags) => {
                w.make_run(who);
                w.utcb(who).set_preempt_flags(flags.raw());
                w.utcb(who).set_exception_handler(ROOT.id());
            }
            Act::Unmap { control, fpages } => {
                w.set_mrs(who, &fpages.map(Fpage::raw));
                w.trap(who, |here, t| here.unmap(t, control));
            }
            Act::MemoryControl { attributes, fpages } => {
                w.set_mrs(who, &fpages.map(Fpage::raw));
                _ = w.trap(who, |here, t| here.memory_control(t, 1, attributes));
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
        false
    }

    /// Lets everybody do what is left of the work.
    fn finish(&self) {
        let has_work = |who: &Who| {
            let tcb = self.w.tcb(*who);
            tcb.exists() && tcb.status() == Status::Running && tcb.work() != Work::None
        };
        for _ in 0..10_000 {
            let Some(who) = EVERYBODY.into_iter().find(has_work) else { return };
            self.w.make_run(who);
            self.w.dispatch_steps(100);
        }
        panic!("all work comes to an end");
    }

    /// In the end all work is done, everybody is deleted, and nothing is left.
    fn end(self) {
        let w = self.w;
        self.finish();
        for who in EVERYBODY.into_iter().filter(|&who| who != ROOT && who != S) {
            w.delete(ROOT, who).expect("root may");
            self.finish();
        }
        let census = ledger(w).census;
        let servers = if w.tcb(S).exists() { 2 } else { 1 };
        assert_eq!(census.spaces, servers, "seed {}", self.seed);
        assert_eq!(w.here().cpu.timeouts.count(), w.tcb(S).timeout_link.is_linked().into());
    }
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

fn run(seed: u64, steps: usize) {
    println!("seed {seed}");
    let mut chaos = Chaos::new(seed);
    for step in 0..steps {
        chaos.step();
        match step % 4 {
            0 => invariants::check(chaos.w.k),
            _ => invariants::check_threads(chaos.w.k),
        }
        if step % 512 == 0 {
            let census = chaos.w.k.spaces.check_invariants(Rest::Revoking).expect("all is well");
            assert_eq!(census.frames, chaos.w.frames_used(), "no frame is lost");
        }
    }
    chaos.end();
}

/// 100,000 events, in a few worlds. `KCORE_SEED` adds a seed of one's own.
#[test]
fn random_calls_keep_the_invariants() {
    let own = std::env::var("KCORE_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in [1, 2, 3, 4].into_iter().chain(own) {
        run(seed, 25_000);
    }
}
