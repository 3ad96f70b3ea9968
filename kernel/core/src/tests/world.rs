//! A small world on a machine without hardware: the initial servers and a cast of threads in a few spaces, all of them
//! made by the real system calls, and the dispatcher that takes turns with them.

use std::cell::Cell;

use l4_abi::{
    ExregsControl, Fpage, IpcError, MsgTag, ProcessorControl, ROOT_UTCB_AREA_BASE, Rights, ScheduleResult, SysError,
    ThreadId, Timeouts, UTCB_ALIGN_LOG2, UTCB_MR0_OFFSET, UTCB_SIZE, Utcb, Word, protocol,
};

use super::invariants;
use super::machine::{Fake, IPC_RETURN_IP, KMEM_BEGIN, KMEM_END, NODES, SPACES, THREADS, Tables};
use crate::boot::Server;
use crate::cross::claims::Claims;
use crate::kernel::{Here, Kernel, ThreadNumbers};
use crate::kmem::Kmem;
use crate::lock::Held;
use crate::machine::{CpuId, Machine, PhysAddr, TcbRef};
use crate::mapdb::Node;
use crate::pool::Table;
use crate::sched::{Cpu, Current};
use crate::space::{Space, SpaceConfig, Spaces};
use crate::syscall::{Exregs, ExregsResult, ScheduleArgs, SpaceControlArgs, ThreadControlArgs};
use crate::thread::{Purpose, Status, Tcb, Work};
use crate::var::Var;

/// The borders of the thread numbers.
pub const NUMBERS: ThreadNumbers = ThreadNumbers { system_base: 16, user_base: 32 };
/// Where application spaces have their KIP.
pub const KIP_AREA: Fpage = Fpage::new(0x7000_0000, 12, Rights::NONE).expect("aligned");
/// Where application spaces have their UTCBs: 16 of them.
pub const UTCB_AREA: Fpage = Fpage::new(0x7100_0000, 14, Rights::NONE).expect("aligned");
/// The end of user memory.
pub const USER_END: u64 = 1 << 47;
/// Where threads start.
pub const START_IP: usize = 0x40_0000;
/// The stack pointer with which they start.
pub const START_SP: usize = 0x50_0000;
/// No UTCB location in a call of ThreadControl.
pub const UNCHANGED: Word = Word::MAX;

/// Somebody of the cast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    name: &'static str,
    number: u32,
    /// Number of the first thread of its space.
    leader: u32,
}

const fn who(name: &'static str, number: u32, leader: u32) -> Who {
    Who { name, number, leader }
}

/// sigma0.
pub const S: Who = who("s", 32, 32);
/// The root task.
pub const ROOT: Who = who("root", 34, 34);
/// Another thread of the root task.
pub const R: Who = who("r", 35, 34);
/// As [`N`], in the space of the root task.
pub const Q: Who = who("q", 36, 34);
/// Four threads of one space.
pub const A: Who = who("a", 40, 40);
/// See [`A`].
pub const B: Who = who("b", 41, 40);
/// See [`A`].
pub const C: Who = who("c", 42, 40);
/// See [`A`].
pub const D: Who = who("d", 43, 40);
/// Two threads of another space.
pub const X: Who = who("x", 50, 50);
/// See [`X`].
pub const Y: Who = who("y", 51, 50);
/// A thread alone in its space.
pub const Z: Who = who("z", 60, 60);
/// Not there until somebody creates it, in a space of its own.
pub const N: Who = who("n", 70, 70);
/// As [`N`].
pub const P: Who = who("p", 80, 80);
/// Not there until somebody creates it, in the space of [`A`].
pub const M: Who = who("m", 44, 40);

/// Those who are there in the beginning, without the initial servers.
pub const CAST: [Who; 8] = [R, A, B, C, D, X, Y, Z];
/// Everybody who has a name.
pub const EVERYBODY: [Who; 14] = [S, ROOT, R, Q, A, B, C, D, X, Y, Z, N, P, M];

impl Who {
    /// One of many with nothing but a number, which has its space with the thread `leader`.
    pub const fn one_of_a_crowd(number: u32, leader: u32) -> Self {
        who("one of a crowd", number, leader)
    }

    /// Who has this name.
    pub fn named(name: &str) -> Option<Self> {
        EVERYBODY.into_iter().find(|who| who.name == name)
    }

    /// Who has this slot.
    pub fn at(thread: TcbRef) -> Option<Self> {
        EVERYBODY.into_iter().find(|who| who.tcb() == thread)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The global id.
    pub fn id(self) -> ThreadId {
        self.version(1)
    }

    /// The global id with another version.
    pub fn version(self, version: Word) -> ThreadId {
        ThreadId::global(self.number.into(), version)
    }

    /// The local id.
    pub fn local(self) -> ThreadId {
        ThreadId::local(self.utcb_location() + UTCB_MR0_OFFSET as Word)
    }

    /// The slot.
    pub fn tcb(self) -> TcbRef {
        TcbRef::new(self.number)
    }

    /// The id of the first thread of its space.
    pub fn leader(self) -> ThreadId {
        ThreadId::global(self.leader.into(), 1)
    }

    /// Where its UTCB is.
    pub fn utcb_location(self) -> Word {
        let is_server = self.leader == S.number || self.leader == ROOT.number;
        let area = if is_server { ROOT_UTCB_AREA_BASE } else { UTCB_AREA.base() };
        area + (Word::from(self.number - self.leader) << UTCB_ALIGN_LOG2)
    }
}

/// The world, seen from one of its processors. A copy is the same world.
#[derive(Clone, Copy)]
pub struct World {
    /// The core's tables.
    pub k: &'static Kernel<'static, Fake>,
    cpu: CpuId,
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn table<T>(len: usize, slot: impl Fn() -> T) -> &'static [T] {
    Vec::leak((0..len).map(|_| slot()).collect())
}

/// What the entry of the machine does first with calls of Ipc: those with words alone to a thread of another processor.
fn send_away(here: &Here<'static, Fake>, thread: TcbRef, (to, from): (ThreadId, ThreadId), timeouts: Timeouts) -> bool {
    const SLOW_TAG_BITS: Word = MsgTag::new(0, 0, 63).raw() | MsgTag::FLAGS;
    let receiver = here.k.thread(to).filter(|&receiver| !here.runs_here(receiver));
    let is_simple = timeouts.rcv().is_never() && here.k.utcb(thread).tag().raw() & SLOW_TAG_BITS == 0;
    let receiver = receiver.filter(|_| is_simple);
    receiver.is_some_and(|receiver| here.send_away(thread, (receiver, to), from, timeouts))
}

thread_local! {
    static SHIFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Does `test` with [`World::spread`] in place of [`World::new`].
pub fn on_several_processors<T>(shift: usize, test: impl FnOnce() -> T) -> T {
    SHIFT.set(Some(shift));
    let result = test();
    SHIFT.set(None);
    result
}

impl World {
    /// The initial servers alone. Root runs, sigma0 waits.
    pub fn bare() -> Self {
        Self::with_slots(THREADS)
    }

    /// The initial servers alone, in a table of so many threads, on one processor.
    pub fn with_slots(threads: usize) -> Self {
        Self::with_processors(threads, 1)
    }

    /// The initial servers on the first of so many processors.
    pub fn with_processors(threads: usize, processors: usize) -> Self {
        let (tcbs, nodes) = (table(threads, Tcb::default), table(NODES, Node::default));
        let kmem = leak(Kmem::new());
        let machine = leak(Fake::new(Tables { tcbs, nodes }, kmem));
        assert!(kmem.add_region(&mut Held::nothing(), KMEM_BEGIN, KMEM_END, 0));
        let cpus: &[&Cpu] = Vec::leak((0..processors).map(|_| leak(Cpu::new()) as &Cpu).collect());
        cpus.iter().for_each(|cpu| cpu.start());
        let config = SpaceConfig { user_end: USER_END, physical_end: u64::MAX, kip: PhysAddr(0x1000) };
        let nodes = Table { slots: nodes, backed: table(1, Var::zero) };
        let spaces = Table { slots: table(SPACES, Space::default), backed: table(1, Var::zero) };
        let spaces = Spaces::new(machine, kmem, spaces, nodes, config);
        let k = leak(Kernel { machine, tcbs, cpus, spaces, kmem, numbers: NUMBERS, creation: Claims::new() });
        let w = Self { k, cpu: CpuId::new(0) };
        assert!(machine.world.set(w).is_ok(), "a machine has one world");
        w.start_server(S, ThreadId::NIL);
        w.start_server(ROOT, S.id());
        assert_eq!((NUMBERS.sigma0(), NUMBERS.root_task()), (S.id(), ROOT.id()));
        w.dispatch();
        w.wait(S, ThreadId::ANY);
        w
    }

    /// The servers and the whole cast, everybody ready. On one processor, unless [`on_several_processors`] asks for more.
    pub fn new() -> Self {
        match SHIFT.get() {
            None => Self::of_processors(1),
            Some(shift) => Self::spread(shift),
        }
    }

    /// The same on the first of so many processors.
    pub fn of_processors(processors: usize) -> Self {
        let w = Self::with_processors(THREADS, processors);
        CAST.into_iter().for_each(|who| w.start(who));
        w
    }

    /// The whole cast on three processors. `shift` says which of them share one.
    pub fn spread(shift: usize) -> Self {
        let w = Self::of_processors(3);
        for (index, who) in [S, R, A, B, C, D, X, Y, Z].into_iter().enumerate() {
            w.place(who, (index + index / 3 * shift) % 3);
        }
        w
    }

    /// The world as seen from processor `cpu`.
    pub fn on(self, cpu: usize) -> Self {
        Self { cpu: CpuId::new(cpu as u32), ..self }
    }

    /// The world as seen from where somebody is at home.
    pub fn at_home_of(self, who: Who) -> Self {
        Self { cpu: self.tcb(who).home(), ..self }
    }

    /// The processor from which the world is seen.
    pub fn cpu(self) -> usize {
        self.cpu.index()
    }

    /// The processors.
    pub fn cpus(self) -> std::ops::Range<usize> {
        0..self.k.cpus.len()
    }

    /// Lets root put somebody on processor `cpu`.
    pub fn place(self, who: Who, cpu: usize) {
        let args = ScheduleArgs { processor: ProcessorControl::new(cpu as u16), ..super::schedule::nothing(who.id()) };
        let done = self.enter(ROOT, |here, root| here.schedule(root, args));
        assert!(done.is_ok(), "{} goes to {cpu}: {done:?}", who.name);
    }

    fn start_server(self, who: Who, pager: ThreadId) {
        let (id, scheduler) = (who.id(), ROOT.id());
        let server = Server { id, ip: START_IP, sp: START_SP, pager, scheduler, is_sigma0: who == S };
        self.here().start_server(server).expect("there is memory");
    }

    /// Lets root create somebody, with its space if there is none, and start it.
    pub fn start(self, who: Who) {
        self.activate(who);
        let words = [protocol::start_tag().raw(), START_IP as Word, START_SP as Word];
        self.send(ROOT, who.id(), &words);
        assert_eq!(self.outcome(who), "ready");
    }

    /// Lets root create somebody, with its space if there is none. It waits for its start message.
    pub fn activate(self, who: Who) {
        if self.k.thread(who.leader()).is_none() {
            self.create(Who::at(TcbRef::new(who.leader)).expect("a space begins with somebody"));
        }
        let done = self.thread_control(ROOT, ThreadControlArgs { pager: ROOT.id(), ..activation(who) });
        assert_eq!(done, Ok(()), "{}", who.name);
    }

    /// Lets root create somebody inactive in a space of its own, which is initialised.
    pub fn create(self, who: Who) {
        let args = ThreadControlArgs { pager: ThreadId::NIL, utcb_location: UNCHANGED, ..activation(who) };
        assert_eq!(self.thread_control(ROOT, args), Ok(()), "{}", who.name);
        let redirector = ThreadId::NIL;
        let args = SpaceControlArgs { space: who.id(), kip_area: KIP_AREA, utcb_area: UTCB_AREA, redirector };
        assert_eq!(self.enter(ROOT, |here, root| here.space_control(root, args)), Ok(()));
    }

    // --- the driver ---

    /// The core at the beginning of a kernel entry.
    pub fn here(self) -> Here<'static, Fake> {
        Here::new(self.k, self.cpu)
    }

    /// Who runs.
    pub fn running(self) -> Option<Who> {
        self.here().cpu.current.get().thread().map(|thread| Who::at(thread).expect("somebody of the cast runs"))
    }

    /// What the dispatcher does after a kernel entry: it works until a thread is in user mode, or nobody is ready. So do
    /// the other processors that were told of something.
    pub fn dispatch(self) {
        if self.cpus().len() > 1 {
            // Who arrives does not get the processor at once for what it has to do there.
            self.finish_all();
            return invariants::check(self.k);
        }
        self.dispatch_steps(100_000);
        invariants::check(self.k);
        for cpu in self.cpus() {
            let current = self.on(cpu).here().cpu.current.get().thread();
            assert!(current.is_none_or(|thread| self.k.tcb(thread).work() == Work::None), "the kernel comes to an end");
        }
    }

    /// What the dispatcher does, with `count` steps of work at most.
    pub fn dispatch_steps(self, count: usize) {
        if self.is_resting()
            && let Some(woken) = self.here().receive_at_rest()
        {
            self.k.machine.take_kick(self.cpu);
            self.k.machine.ipc_return(woken.thread, woken.tcb, woken.from);
            return self.leave(woken.thread);
        }
        for step in 0..=count {
            let mut here = self.here();
            self.k.machine.take_kick(self.cpu);
            let undisputed = here.undisputed();
            if let Some(thread) = undisputed.filter(|_| self.cpus().len() > 1) {
                return self.leave(thread);
            }
            here.attend();
            let chosen = here.choose();
            // Nothing came in between from other processors.
            assert!(undisputed.is_none() || undisputed == chosen, "who is undisputed is chosen");
            match chosen {
                Some(thread) if here.k.tcb(thread).work() != Work::None && step < count => here.step(thread),
                _ if here.is_behind() && step < count => self.let_others_go_on(),
                Some(thread) => return self.leave(thread),
                None => return,
            }
        }
    }

    /// What is left to do may have to wait for another processor of an execution.
    fn let_others_go_on(self) {
        #[cfg(feature = "explore")]
        if crate::explore::has_others() {
            crate::sync::spin_loop();
        }
    }

    /// Whether somebody wants something of the processor, on which nobody runs, as the dispatcher has decided.
    fn is_resting(self) -> bool {
        let here = self.here();
        let is_idle = here.is_idle() && here.cpu.slice_owner.get().is_none() && here.cpu.delaying.get().is_none();
        let is_decided = !here.cpu.must_choose.get();
        is_idle && is_decided && here.cpu.attention.is_demanded() && here.cpu.orphans.get().is_none()
    }

    /// Lets everybody do what is left of the work, wherever it is.
    pub fn finish_all(self) {
        let has_work = |who: &Who| {
            let tcb = self.tcb(*who);
            tcb.exists() && tcb.status() == Status::Running && tcb.work() != Work::None
        };
        self.dispatch_steps(100_000);
        self.settle();
        for _ in 0..10_000 {
            let Some(who) = EVERYBODY.into_iter().find(has_work) else { return };
            self.make_run(who);
            self.at_home_of(who).dispatch_steps(100);
            self.settle();
        }
        panic!("all work comes to an end");
    }

    /// Lets processors run that were told of something, until all have done all.
    pub fn settle(self) {
        let is_wanted = |&cpu: &usize| {
            let w = self.on(cpu);
            self.k.machine.take_kick(w.cpu) || w.here().is_behind()
        };
        for _ in 0..10_000 {
            // Those who came back without a word arrive when somebody comes, or before the processor sleeps.
            let has_mail = |&cpu: &usize| !self.k.cpus[cpu].mailbox.is_empty();
            let Some(cpu) = self.cpus().find(is_wanted).or_else(|| {
                invariants::check_silence(self.k);
                self.cpus().find(has_mail)
            }) else {
                return;
            };
            self.on(cpu).here().receive_before_sleep();
            self.on(cpu).dispatch_steps(100_000);
        }
        panic!("the processors come to an end");
    }

    /// A processor waits for others: those that were told of something, or are behind, attend to it, unless they wait
    /// themselves.
    pub fn let_others_serve(self) {
        for cpu in self.cpus() {
            let w = self.on(cpu);
            let is_asking = w.k.cpus[cpu].questions.is_asking();
            if !is_asking && (w.k.machine.take_kick(w.cpu) || w.here().is_behind()) {
                w.dispatch_steps(0);
            }
        }
    }

    /// The way to user mode settles whether the fast path is free.
    fn leave(self, thread: TcbRef) {
        let is_alone = self.cpus().len() == 1;
        assert!(!is_alone || self.k.machine.has_forgotten(), "what was revoked is forgotten before user code runs");
        self.k.machine.note_space(self.cpu, thread);
        self.k.machine.allows_fast_path[self.cpu()].set(self.here().may_call_fast(thread));
    }

    /// Lets somebody who is ready run, whatever the scheduler thinks.
    pub fn make_run(self, who: Who) {
        let w = self.at_home_of(who);
        let here = w.here();
        let current = here.cpu.current.get().thread();
        if current == Some(who.tcb()) {
            return;
        }
        assert!(self.tcb(who).ready_link.is_linked(), "{} cannot do anything: {}", who.name, self.outcome(who));
        here.charge();
        here.end_delay();
        here.cpu.ready.remove(self.k.tcbs, who.tcb());
        if let Some(current) = current.filter(|&thread| here.is_runnable(thread)) {
            here.cpu.ready.push_front(self.k.tcbs, current);
        }
        here.cpu.current.set(Current::running(who.tcb()));
        here.cpu.slice_owner.set(Some(who.tcb()));
        w.leave(who.tcb());
    }

    /// A kernel entry of somebody, without what the dispatcher does then.
    pub fn trap<T>(self, who: Who, call: impl FnOnce(&mut Here<'static, Fake>, TcbRef) -> T) -> T {
        self.make_run(who);
        assert!(
            self.tcb(who).work() == Work::None && !self.tcb(who).is_halted(),
            "{} is in user mode: {}",
            who.name,
            self.outcome(who)
        );
        call(&mut self.at_home_of(who).here(), who.tcb())
    }

    /// A kernel entry of somebody, up to the first step of work.
    pub fn begin<T>(self, who: Who, call: impl FnOnce(&mut Here<'static, Fake>, TcbRef) -> T) -> T {
        let w = self.at_home_of(who);
        let result = w.trap(who, call);
        w.dispatch_steps(0);
        invariants::check(self.k);
        result
    }

    /// A kernel entry of somebody, to its end.
    pub fn enter<T>(self, who: Who, call: impl FnOnce(&mut Here<'static, Fake>, TcbRef) -> T) -> T {
        let w = self.at_home_of(who);
        let result = w.trap(who, call);
        w.dispatch();
        result
    }

    /// Sets the clock, with all timer interrupts on the way.
    pub fn clock(self, us: u64) {
        let next = || self.cpus().filter_map(|cpu| Some((self.on(cpu).here().next_event()?, cpu))).min();
        while let Some((at, cpu)) = next().filter(|&(at, _)| at <= us) {
            self.k.machine.set_clock(at.max(self.k.machine.now_us()));
            self.on(cpu).here().timer_interrupt();
            self.on(cpu).dispatch();
        }
        self.k.machine.set_clock(us);
    }

    /// Sets the clock, with one timer interrupt that came late.
    pub fn jump(self, us: u64) {
        self.k.machine.set_clock(us);
        for cpu in self.cpus() {
            self.on(cpu).here().timer_interrupt();
            self.on(cpu).dispatch();
        }
    }

    /// Somebody in user mode reads or writes memory. Whether that is a page fault is up to the page tables; if it is none, the
    /// processor has the translation cached from then on, and says in the entry that it used it.
    pub fn access(self, who: Who, address: usize, writes: bool) -> bool {
        let space = self.k.space_of(who.tcb());
        let used = self.k.spaces.access(space, address, writes);
        used.inspect(|page| self.k.machine.cache(self.tcb(who).home(), space, address, page)).is_some()
    }

    /// Checks that no processor has a translation cached that is gone or says less now, unless it is being told.
    pub fn check_translations(self) {
        for ((cpu, space, page), (frame, rights)) in self.k.machine.cached() {
            let now = self.k.spaces.lookup_if_any(space, page);
            let is_right = now.is_some_and(|now| now.phys == frame && now.rights.contains(rights));
            assert!(is_right, "{cpu:?} still knows {page:#x} of {space:?}, which is {now:?}");
        }
    }

    /// A device raises a line.
    pub fn raise(self, line: u32) {
        if let Some(cpu) = self.k.machine.raise(line) {
            self.on(cpu.index()).here().interrupt(line);
            self.on(cpu.index()).dispatch();
        }
    }

    // --- short forms ---

    /// The TCB.
    pub fn tcb(self, who: Who) -> &'static Tcb {
        self.k.tcb(who.tcb())
    }

    /// The UTCB.
    pub fn utcb(self, who: Who) -> &'static Utcb {
        self.k.utcb(who.tcb())
    }

    /// MR0, without the flag X, which depends on where the partners run.
    pub fn tag(self, who: Who) -> MsgTag {
        self.utcb(who).tag().without_flags(MsgTag::XCPU)
    }

    /// The message registers from MR0.
    pub fn set_mrs(self, who: Who, words: &[Word]) {
        words.iter().enumerate().for_each(|(i, &word)| self.utcb(who).set_mr(i, word));
    }

    /// All message registers.
    pub fn mrs(self, who: Who) -> Vec<Word> {
        (0..l4_abi::MR_COUNT).map(|i| self.utcb(who).mr(i)).collect()
    }

    /// Ipc, to its end or to the point where it blocks.
    pub fn ipc(self, who: Who, to: ThreadId, from: ThreadId, timeouts: Timeouts) {
        let w = self.at_home_of(who);
        w.trap_ipc(who, to, from, timeouts);
        w.dispatch();
    }

    /// Ipc, without what the dispatcher does then.
    pub fn trap_ipc(self, who: Who, to: ThreadId, from: ThreadId, timeouts: Timeouts) {
        self.trap(who, |here, thread| {
            here.k.machine.saved(thread).from.set(None);
            here.k.tcb(thread).ip.set(IPC_RETURN_IP);
            if !send_away(here, thread, (to, from), timeouts) {
                here.ipc(thread, to, from, timeouts);
            }
        });
    }

    /// A send without timeout.
    pub fn send(self, who: Who, to: ThreadId, message: &[Word]) {
        self.set_mrs(who, message);
        self.ipc(who, to, ThreadId::NIL, Timeouts::NEVER);
    }

    /// A receive without timeout.
    pub fn wait(self, who: Who, from: ThreadId) {
        self.ipc(who, ThreadId::NIL, from, Timeouts::NEVER);
    }

    /// ThreadControl, to its end.
    pub fn thread_control(self, who: Who, args: ThreadControlArgs) -> Result<(), SysError> {
        self.enter(who, |here, thread| here.thread_control(thread, args))
    }

    /// Deletes somebody.
    pub fn delete(self, who: Who, victim: Who) -> Result<(), SysError> {
        self.thread_control(who, deletion(victim))
    }

    /// ExchangeRegisters with nothing but a control word.
    pub fn exregs(self, who: Who, dest: ThreadId, control: ExregsControl) -> Result<ExregsResult, SysError> {
        self.exchange(who, Exregs { control, ..no_registers(dest) })
    }

    /// ExchangeRegisters.
    pub fn exchange(self, who: Who, args: Exregs) -> Result<ExregsResult, SysError> {
        self.enter(who, |here, thread| here.exchange_registers(thread, args))
    }

    /// What Schedule says of a thread, asked by root, which it does not disturb.
    pub fn state(self, who: Who) -> ScheduleResult {
        let args = super::schedule::nothing(who.id());
        let reply = self.enter(ROOT, |here, root| here.schedule(root, args));
        reply.expect("root may do everything").expect("a thread was named").state
    }

    /// Memory of the kernel that is in use by spaces.
    pub fn frames_used(self) -> usize {
        self.k.kmem.total() - self.k.kmem.free_count() - self.k.machine.backing.count()
    }

    /// What becomes of a line: the state of its interrupt thread, and whether it is masked.
    pub fn line(self, line: u32) -> String {
        let tcb = self.k.tcb(TcbRef::new(line));
        let state = match tcb.status() {
            Status::Inactive => "nobody's".into(),
            Status::Running => "idle".into(),
            Status::PendingSend => format!("queued on {}", self.peer_name(tcb)),
            Status::Waiting => format!("waits for {}", self.name_of(ROOT, tcb.waiting_for().expect("it waits"))),
            status => format!("{status:?}"),
        };
        state + if self.k.machine.is_open(line) { ", open" } else { ", masked" }
    }

    // --- what a thread sees ---

    /// In a few words: where somebody is, or how its last IPC ended.
    ///
    /// `got 1 2 from 'a`: the untyped words, and by which id the sender is known: `'` marks a local one. `by b` says who
    /// sent in its name, `for d` whom a redirected message was for.
    pub fn outcome(self, who: Who) -> String {
        let tcb = self.tcb(who);
        if !tcb.exists() {
            return "gone".into();
        }
        if tcb.is_on_its_way_to(tcb.home()) {
            return format!("on its way to {}", tcb.home().index());
        }
        let place = match tcb.status() {
            Status::Inactive => "inactive".into(),
            Status::PendingSend => format!("{}queued on {}", purpose(tcb), self.peer_name(tcb)),
            Status::Waiting => {
                let partner = tcb.waiting_for().expect("it waits for somebody");
                format!("{}waits for {}", purpose(tcb), self.name_of(who, partner))
            }
            Status::Sending => format!("sends to {}", self.peer_name(tcb)),
            Status::Receiving => format!("receives from {}", self.peer_name(tcb)),
            Status::Running if tcb.work() != Work::None => format!("works on {:?}", tcb.work()),
            Status::Running if tcb.is_halted() => return "halted".into(),
            Status::Running => self.last_ipc(who),
        };
        if tcb.is_halted() { place + ", halted" } else { place }
    }

    fn last_ipc(self, who: Who) -> String {
        let Some(from) = self.k.machine.saved(who.tcb()).from.get() else { return "ready".into() };
        let (utcb, tag) = (self.utcb(who), self.utcb(who).tag());
        if tag.is_error() {
            let error = IpcError::from_raw(utcb.error_code()).expect("an error code says why");
            return format!("{:?} {:?}", error.phase, error.kind);
        }
        if from.is_nil() {
            return "sent".into();
        }
        let words: String = (1..=tag.untyped()).map(|i| format!("{} ", utcb.mr(i))).collect();
        let by =
            if tag.is_propagated() { format!(" by {}", self.name_of(who, utcb.actual_sender())) } else { "".into() };
        let intended = if tag.is_redirected() {
            format!(" for {}", self.name_of(ROOT, utcb.intended_receiver()))
        } else {
            "".into()
        };
        format!("got {words}from {}{by}{intended}", self.name_of(who, from))
    }

    fn peer_name(self, tcb: &Tcb) -> String {
        let peer = tcb.peer.get().expect("there is a partner");
        self.name_of(ROOT, self.k.tcb(peer).id.get())
    }

    /// The name of an id that somebody found.
    fn name_of(self, observer: Who, id: ThreadId) -> String {
        let by_id = |who: &Who| who.id() == id;
        let by_local_id = |who: &Who| who.leader == observer.leader && who.local() == id;
        match id {
            ThreadId::ANY => "any".into(),
            ThreadId::ANY_LOCAL => "local".into(),
            _ if self.k.thread_or_interrupt(id) != self.k.thread(id) => format!("irq{}", id.thread_no()),
            _ => match (EVERYBODY.iter().find(|who| by_id(who)), EVERYBODY.iter().find(|who| by_local_id(who))) {
                (Some(who), _) => who.name.into(),
                (_, Some(who)) => format!("'{}", who.name),
                _ => format!("{id:?}"),
            },
        }
    }
}

fn purpose(tcb: &Tcb) -> &'static str {
    match tcb.purpose() {
        Purpose::User => "",
        Purpose::Start => "start: ",
        Purpose::PageFault | Purpose::IoFault => "fault: ",
        Purpose::Exception => "exception: ",
        Purpose::Preemption => "preemption: ",
        Purpose::PreemptionFault => "preemption fault: ",
        Purpose::Interrupt => "interrupt: ",
        Purpose::Input => "input: ",
    }
}

/// Creates somebody in the space of its leader, inactive; with a pager, active.
pub fn activation(who: Who) -> ThreadControlArgs {
    ThreadControlArgs {
        dest: who.id(),
        space: who.leader(),
        scheduler: ROOT.id(),
        pager: ThreadId::NIL,
        utcb_location: who.utcb_location(),
    }
}

/// Changes nothing of somebody.
pub fn no_change(who: Who) -> ThreadControlArgs {
    ThreadControlArgs {
        dest: who.id(),
        space: who.id(),
        scheduler: ThreadId::NIL,
        pager: ThreadId::NIL,
        utcb_location: UNCHANGED,
    }
}

/// Deletes somebody.
pub fn deletion(who: Who) -> ThreadControlArgs {
    ThreadControlArgs { space: ThreadId::NIL, ..no_change(who) }
}

/// ExchangeRegisters that changes nothing.
pub fn no_registers(dest: ThreadId) -> Exregs {
    Exregs { dest, control: ExregsControl::NONE, sp: 0, ip: 0, flags: 0, handle: 0, pager: ThreadId::NIL }
}

/// A tag of untyped words with a label.
pub fn tag(label: Word, untyped: usize) -> Word {
    MsgTag::new(label, untyped, 0).raw()
}

const _: () = assert!(UTCB_SIZE == 1 << UTCB_ALIGN_LOG2, "UTCBs stand side by side");
