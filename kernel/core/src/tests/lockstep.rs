//! The core and the model of X.2 in lock step: the same calls of whoever runs, and the same is seen of both.
//!
//! Who runs is the scheduler's choice, of both. After each call the following is compared: the result, who runs, which
//! threads there are and what each does, all registers of their UTCBs and what they find when their calls end, and which
//! page is where with which rights ([`compare`]).
//!
//! A run is a list of calls, each by whoever runs then. So any part of it can be carried out again, and the shortest that
//! still differs is told.

mod choose;
mod compare;

use std::collections::BTreeMap;

use l4_abi::{
    Acceptor, Fpage, PrioControl, ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2, Rights, ThreadId, Time,
    TimeControl, Timeouts, USER_FLAGS_MASK, UTCB_ALIGN_LOG2, UTCB_AREA_MIN_LOG2, UTCB_MR0_OFFSET, UnmapControl, Word,
};
use model::{Machine, Model, Purpose, State, control};

use super::fast_path::fast_ipc;
use super::invariants;
use super::machine::{DEFAULT_FLAGS, IPC_RETURN_IP, THREADS};
use super::random::Random;
use super::random::runs::{PATIENCE, commit, fresh, watched};
use super::random::shrink::shortest;
use super::schedule::nothing;
use super::world::{
    A, B, C, D, KIP_AREA, NUMBERS, R, ROOT, S, START_IP, START_SP, UNCHANGED, USER_END, UTCB_AREA, Who, World, X, Y, Z,
};
use crate::machine::{Machine as _, TcbRef};
use crate::syscall::{Exregs, ScheduleArgs, SpaceControlArgs, ThreadControlArgs};

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Call {
    Ipc { to: ThreadId, from: ThreadId, timeouts: Timeouts, message: [Word; 6], window: Word, virtual_sender: ThreadId },
    Fault { address: usize, access: Rights, pager: ThreadId },
    Exception { handler: ThreadId },
    ThreadControl(ThreadControlArgs),
    SpaceControl { space: ThreadId, kip: Fpage, utcb: Fpage },
    Exregs(Exregs),
    Schedule { dest: ThreadId, priority: Option<u8>, slice: Option<Time> },
    Switch(ThreadId),
    Unmap { control: UnmapControl, fpages: [Fpage; 2] },
    Access { address: usize, writes: bool },
    Clock(u64),
}

/// The core and the model.
struct Pair {
    w: World,
    m: Model,
}

impl Pair {
    /// After boot.
    fn boot() -> Self {
        let w = World::bare();
        let machine = Machine {
            user_base: NUMBERS.user_base.into(),
            threads: THREADS as u64,
            mr0: UTCB_MR0_OFFSET as Word,
            utcb_log2: UTCB_ALIGN_LOG2,
            utcb_area_log2: UTCB_AREA_MIN_LOG2,
            user_end: USER_END,
            flags: DEFAULT_FLAGS as Word,
            user_flags: USER_FLAGS_MASK as Word,
            return_ip: IPC_RETURN_IP as Word,
        };
        let end = |base: Word, log2: u32| (base, base + (1 << log2));
        let areas = [end(ROOT_KIP_AREA_BASE, 12), end(ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2)];
        let server = |who: Who| (who.id().raw(), who.utcb_location());
        let mut m = Model::new(machine, server(S), server(ROOT), areas);
        let number = |who: Who| model::word::number(who.id().raw());
        for who in [S, ROOT] {
            let thread = m.threads.get_mut(&number(who)).expect("it is there after boot");
            thread.registers = [START_IP, START_SP, DEFAULT_FLAGS].map(|word| word as Word);
        }
        // sigma0 waits by a call of Ipc.
        m.threads.get_mut(&number(S)).expect("it is there after boot").registers[0] = IPC_RETURN_IP as Word;
        let pair = Self { w, m };
        compare::compare(&pair).expect("both begin alike");
        pair
    }

    /// With a cast of threads in a few spaces, all of them ready but root, which runs.
    fn new() -> Self {
        let mut pair = Self::boot();
        for who in [R, A, B, C, D, X, Y, Z] {
            for call in birth(who) {
                pair.apply(call).expect("both do the same");
            }
        }
        pair
    }

    /// Whoever runs.
    fn running(&self) -> Option<Who> {
        self.w.here().cpu.current.get().thread().map(who_at)
    }

    /// It happens to both.
    ///
    /// # Errors
    /// How they differ then.
    fn apply(&mut self, call: Call) -> Result<(), String> {
        match (call, self.running()) {
            (Call::Clock(us), _) => {
                let until = self.w.k.machine.now_us() + us;
                self.w.clock(until);
                self.m.clock(until);
            }
            (_, None) => return Ok(()),
            (call, Some(who)) if self.is_possible(who, call) => self.call(who, call)?,
            _ => return Ok(()),
        }
        compare::compare(self)
    }

    /// Whether somebody may do that here.
    fn is_possible(&self, who: Who, call: Call) -> bool {
        match call {
            // sigma0 owns larger pages than others see.
            Call::Unmap { .. } | Call::Access { .. } => self.w.k.space_of(who.tcb()) != self.w.k.space_of(S.tcb()),
            Call::ThreadControl(args) => is_spared(call) && !self.may_share(args),
            _ => is_spared(call),
        }
    }

    /// Whether a call could give a thread the UTCB of another one: what they then see of each other is undefined.
    fn may_share(&self, args: ThreadControlArgs) -> bool {
        let threads = &self.m.threads;
        let (number, member) = (args.dest.thread_no(), args.space.thread_no());
        let is_local = args.space.is_local() && !args.space.is_nil();
        let own = threads.get(&number);
        let location = match args.utcb_location {
            UNCHANGED => own.and_then(|thread| thread.location),
            location => Some(location),
        };
        let space = if number == member { own } else { threads.get(&member) }.map(|thread| thread.space);
        let is_there = |thread: &model::Thread| thread.location == location && Some(thread.space) == space;
        let meets = threads.iter().any(|(&other, thread)| other != number && is_there(thread));
        location.is_some() && (is_local || meets)
    }

    fn call(&mut self, who: Who, call: Call) -> Result<(), String> {
        let (w, m, number) = (self.w, &mut self.m, u64::from(who.tcb().index() as u32));
        let own = &mut m.threads.get_mut(&number).ok_or("the model does not know who runs")?.utcb;
        match call {
            Call::Ipc { to, from, timeouts, message, window, virtual_sender } => {
                w.set_mrs(who, &message);
                own.mr[..message.len()].copy_from_slice(&message);
                w.utcb(who).set_acceptor(Acceptor::from_raw(window));
                own.br[0] = window;
                w.utcb(who).set_virtual_sender(virtual_sender);
                own.virtual_sender = virtual_sender.raw();
                // Root comes back soon, to let others go on.
                let soon =
                    |time: Time| if time.is_zero() { time } else { Time::period_us(1 + time.raw() as u64 % 400) };
                let is_root = who == ROOT;
                let [snd, rcv] = [timeouts.snd(), timeouts.rcv()].map(|time| if is_root { soon(time) } else { time });
                let timeouts = Timeouts::new(snd, rcv);
                if !fast_ipc(w, who, to, from, timeouts) {
                    w.trap_ipc(who, to, from, timeouts);
                    w.dispatch_steps(STEPS);
                }
                m.ipc(number, to.raw(), from.raw(), timeouts.raw());
            }
            Call::Fault { address, access, pager } => {
                let pager = if who == ROOT { R.id() } else { pager };
                w.utcb(who).set_pager(pager);
                own.pager = pager.raw();
                w.trap(who, |here, thread| here.page_fault(thread, address, access, START_IP));
                w.dispatch_steps(STEPS);
                m.page_fault(number, address as Word, access.bits(), START_IP as Word);
            }
            Call::Exception { handler } => {
                w.utcb(who).set_exception_handler(handler);
                own.exception_handler = handler.raw();
                w.trap(who, |here, thread| here.exception(thread));
                w.dispatch_steps(STEPS);
                m.exception(number);
            }
            Call::ThreadControl(args) => {
                let result = w.trap(who, |here, thread| here.thread_control(thread, args));
                w.dispatch_steps(STEPS);
                let result = result.map_err(|error| u64::from(error.raw()));
                let ids = [args.dest, args.space, args.scheduler, args.pager].map(ThreadId::raw);
                let [dest, space, scheduler, pager] = ids;
                let args = control::ThreadControl { dest, space, scheduler, pager, location: args.utcb_location };
                same("ThreadControl", result, m.thread_control(number, args))?;
            }
            Call::SpaceControl { space, kip, utcb } => {
                let args = SpaceControlArgs { space, kip_area: kip, utcb_area: utcb, redirector: ThreadId::NIL };
                let result = w.trap(who, |here, thread| here.space_control(thread, args));
                w.dispatch_steps(STEPS);
                let result = result.map_err(|error| u64::from(error.raw()));
                same("SpaceControl", result, m.space_control(number, space.raw(), kip.raw(), utcb.raw()))?;
            }
            Call::Exregs(args) => {
                if who == ROOT
                    && let Some(dest) = w.k.thread(args.dest).filter(|&dest| w.k.tcb(dest).is_active())
                {
                    // As their pager it can help everybody.
                    w.k.utcb(dest).set_pager(ROOT.id());
                    let dest = m.threads.get_mut(&(dest.index() as u64)).ok_or("the model lacks a thread")?;
                    dest.utcb.pager = ROOT.id().raw();
                }
                let result = w.trap(who, |here, thread| here.exchange_registers(thread, args));
                w.dispatch_steps(STEPS);
                let result = result.map_err(|error| u64::from(error.raw()));
                let registers = [args.ip, args.sp, args.flags].map(|word| word as Word);
                let (dest, control, pager) = (args.dest.raw(), args.control.raw(), args.pager.raw());
                let theirs = control::Exregs { dest, control, registers, handle: args.handle, pager };
                let theirs = m.exchange_registers(number, theirs);
                let result = result.map(|told| control::Exchanged {
                    other_id: told.thread.raw(),
                    state: told.state.raw(),
                    registers: [told.ip, told.sp, told.flags].map(|word| word as Word),
                    handle: told.handle,
                    pager: told.pager.raw(),
                });
                // The instruction pointer of a thread in a call of Ipc is the kernel's affair.
                let blank = |told: control::Exchanged| control::Exchanged {
                    registers: [0, told.registers[1], told.registers[2]],
                    ..told
                };
                same("ExchangeRegisters", result.map(blank), theirs.map(blank))?;
            }
            Call::Schedule { dest, priority, slice } => {
                let prio = priority.map_or(PrioControl::NO_CHANGE, PrioControl::new);
                let time = slice.map_or(TimeControl::NO_CHANGE, |slice| TimeControl::new(slice, Time::NEVER));
                let args = ScheduleArgs { prio, time, ..nothing(dest) };
                let result = w.trap(who, |here, thread| here.schedule(thread, args));
                w.dispatch_steps(STEPS);
                let result = result.map_err(|error| u64::from(error.raw()));
                let result = result.map(|reply| reply.map(|reply| reply.state.raw()));
                let args = control::Schedule { dest: dest.raw(), priority, slice: slice.map(Time::raw) };
                same("Schedule", result, m.schedule(number, args))?;
            }
            Call::Switch(dest) => {
                w.trap(who, |here, thread| here.thread_switch(thread, dest));
                w.dispatch_steps(STEPS);
                m.thread_switch(number, dest.raw());
            }
            Call::Unmap { control, fpages } => {
                let words = fpages.map(Fpage::raw);
                w.set_mrs(who, &words);
                own.mr[..words.len()].copy_from_slice(&words);
                w.trap(who, |here, thread| here.unmap(thread, control));
                w.dispatch_steps(STEPS);
                m.unmap(number, control.raw());
            }
            Call::Access { address, writes } => {
                let can = w.access(who, address, writes);
                same("an access", can, m.access(number, address as Word, writes))?;
            }
            Call::Clock(_) => {}
        }
        Ok(())
    }
}

/// Steps after which a call is over.
const STEPS: usize = 100_000;

/// Whether both say the same.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, core: T, model: T) -> Result<(), String> {
    if core == model { Ok(()) } else { Err(format!("{what}: the core says {core:x?}, the model {model:x?}")) }
}

fn who_at(thread: TcbRef) -> Who {
    Who::at(thread).unwrap_or(Who::one_of_a_crowd(thread.index() as u32, 0))
}

/// Root must stay to let others go on, and sigma0 the owner of memory. Both are above everybody else.
fn is_spared(call: Call) -> bool {
    let is_server = |id: ThreadId| {
        [S, ROOT].iter().any(|who| id.thread_no() == who.id().thread_no() || id == who.local() || id == who.id())
    };
    match call {
        Call::ThreadControl(args) => !is_server(args.dest),
        Call::Exregs(args) => !is_server(args.dest),
        Call::Schedule { dest, priority, .. } => !is_server(dest) && priority.is_none_or(|priority| priority < 250),
        _ => true,
    }
}

/// The calls by which root makes somebody, with its space if it is the first there.
fn birth(who: Who) -> Vec<Call> {
    let inactive = ThreadControlArgs {
        dest: who.id(),
        space: who.leader(),
        scheduler: ROOT.id(),
        pager: ThreadId::NIL,
        utcb_location: who.utcb_location(),
    };
    let active = ThreadControlArgs { pager: ROOT.id(), utcb_location: UNCHANGED, ..inactive };
    let mut calls = vec![Call::ThreadControl(inactive)];
    if who.id() == who.leader() {
        calls.push(Call::SpaceControl { space: who.id(), kip: KIP_AREA, utcb: UTCB_AREA });
    }
    calls.push(Call::ThreadControl(active));
    let message = [2, START_IP as Word, START_SP as Word, 0, 0, 0];
    let (to, from, timeouts, window) = (who.id(), ThreadId::NIL, Timeouts::new(Time::ZERO, Time::ZERO), 0);
    calls.push(Call::Ipc { to, from, timeouts, message, window, virtual_sender: ThreadId::NIL });
    calls
}

/// Carries out calls; how both differ, if they do.
fn differ(calls: &[Call]) -> Option<String> {
    let mut pair = Pair::new();
    let found = watched(|| calls.iter().find_map(|&call| pair.apply(call).err()));
    found.unwrap_or_else(|failure| Some(failure.message))
}

/// What was seen, and how often.
type Sights = BTreeMap<&'static str, usize>;

/// Notes what is to be seen of a pair.
fn note_sights(pair: &Pair, sights: &mut Sights) {
    let mut note = |sight: &'static str, is_seen: bool| *sights.entry(sight).or_default() += usize::from(is_seen);
    let any = |is_so: &dyn Fn(&model::Thread) -> bool| pair.m.threads.values().any(is_so);
    note("blocked senders", any(&|thread| matches!(thread.state, State::Sends(_))));
    note("queues", any(&|thread| thread.senders.len() > 1));
    note("faults", any(&|thread| thread.purpose == Purpose::Fault));
    note("exceptions", any(&|thread| thread.purpose == Purpose::Exception));
    note("starts", any(&|thread| thread.purpose == Purpose::Start));
    note("halted threads", any(&|thread| thread.is_halted));
    note("postponed messages", any(&|thread| thread.state == State::Ready(true)));
    note("later versions", any(&|thread| thread.id as u32 > 1));
    note("donated time", pair.m.processor.payer != pair.m.processor.running);
    note("idle", pair.m.processor.running.is_none());
    note("pages", pair.m.memory.mappings().count() > 5);
    note("pages without all rights", pair.m.memory.mappings().any(|page| page.rights != 7));
    let Some(running) = pair.m.processor.running.map(|number| pair.m.thread(number)) else { return };
    let tag = running.utcb.mr[0];
    let is_error = tag & model::word::ERROR != 0 && running.from == Some(0);
    let error = running.utcb.error_code >> 1;
    note("messages", running.from.is_some_and(|from| from != 0));
    note("messages in others' names", running.from.is_some_and(|from| from != 0) && tag & model::word::PROPAGATED != 0);
    note("timeouts", is_error && error == 1);
    note("non-existing partners", is_error && error == 2);
    note("cancelled", is_error && error == 3);
    note("overflows", is_error && error == 4);
}

/// So many calls of a seed. Notes what was seen.
fn run(seed: u64, steps: usize, sights: &mut Sights) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut pair = Pair::new();
    let mut calls = Vec::new();
    for step in 0..steps {
        let call = choose::call(&mut random, &pair);
        calls.push(call);
        let applied = watched(|| pair.apply(call)).unwrap_or_else(|failure| Err(failure.message));
        if let Err(difference) = applied {
            report(seed, calls, &difference);
        }
        note_sights(&pair, sights);
        if step % 64 == 0 {
            invariants::check(pair.w.k);
        }
    }
}

/// Tells of a difference with the shortest calls that still show one.
fn report(seed: u64, calls: Vec<Call>, difference: &str) -> ! {
    println!("{difference}\nseed {seed}, commit {}, after {} calls", commit(), calls.len());
    let found = shortest(calls, PATIENCE, |calls| differ(calls).is_some());
    println!("the shortest that still differ are {}:", found.steps.len());
    let mut pair = Pair::new();
    for call in &found.steps {
        let who = pair.running().map_or("nobody", Who::name);
        println!("{who}: {call:x?}");
        let applied = watched(|| pair.apply(*call)).unwrap_or_else(|failure| Err(failure.message));
        if let Err(difference) = applied {
            panic!("{difference}");
        }
    }
    panic!("they differ only after what was left out");
}

/// 150,000 calls in a few worlds, a third of them from a fresh seed.
#[test]
fn core_and_model_do_the_same() {
    let (mut sights, fresh) = (Sights::new(), fresh());
    for seed in (1..=20).chain(fresh..fresh + 10) {
        run(seed, 5000, &mut sights);
    }
    println!("{sights:?}");
    assert!(sights.values().all(|&count| count >= 50), "{sights:?}");
}

/// The comparison sees: a word of a UTCB, an id, a right, who runs.
#[test]
fn differences_are_seen() {
    let check = |what: &str, spoil: fn(&mut Model)| {
        let mut pair = Pair::new();
        spoil(&mut pair.m);
        let difference = compare::compare(&pair).expect_err(what);
        assert!(difference.contains(what), "{difference}");
    };
    check("MR7", |m| m.threads.get_mut(&A_NUMBER).expect("a is there").utcb.mr[7] = 1);
    check("id", |m| m.threads.get_mut(&A_NUMBER).expect("a is there").id += 1);
    check("does", |m| m.threads.get_mut(&A_NUMBER).expect("a is there").is_halted = true);
    check("who runs", |m| m.processor.running = Some(A_NUMBER));
    check("thread 40", |m| drop(m.threads.remove(&A_NUMBER)));
}

const A_NUMBER: u64 = 40;
