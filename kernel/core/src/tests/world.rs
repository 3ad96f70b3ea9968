//! A small world on a machine without hardware: the initial servers and a cast of threads in a few spaces, all of them
//! made by the real system calls, and the dispatcher that takes turns with them.

use l4_abi::{
    ExregsControl, Fpage, IpcError, MsgTag, ROOT_UTCB_AREA_BASE, Rights, ScheduleResult, SysError, ThreadId, Timeouts,
    UTCB_ALIGN_LOG2, UTCB_MR0_OFFSET, UTCB_SIZE, Utcb, Word, protocol,
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
use crate::syscall::{Exregs, ExregsResult, SpaceControlArgs, ThreadControlArgs};
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

/// The world. A copy is the same world.
#[derive(Clone, Copy)]
pub struct World {
    /// The core's tables.
    pub k: &'static Kernel<'static, Fake>,
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn table<T>(len: usize, slot: impl Fn() -> T) -> &'static [T] {
    Vec::leak((0..len).map(|_| slot()).collect())
}

impl World {
    /// The initial servers alone. Root runs, sigma0 waits.
    pub fn bare() -> Self {
        Self::with_slots(THREADS)
    }

    /// The initial servers alone, in a table of so many threads.
    pub fn with_slots(threads: usize) -> Self {
        let (tcbs, nodes) = (table(threads, Tcb::default), table(NODES, Node::default));
        let kmem = leak(Kmem::new());
        let machine = leak(Fake::new(Tables { tcbs, nodes }, kmem));
        kmem.add_region(&mut Held::nothing(), KMEM_BEGIN, KMEM_END);
        let cpus: &[&Cpu] = leak([leak(Cpu::new()) as &Cpu]);
        cpus[0].start();
        let config = SpaceConfig { user_end: USER_END, physical_end: u64::MAX, kip: PhysAddr(0x1000) };
        let nodes = Table { slots: nodes, backed: table(1, Var::zero) };
        let spaces = Table { slots: table(SPACES, Space::default), backed: table(1, Var::zero) };
        let spaces = Spaces::new(machine, kmem, spaces, nodes, config);
        let w =
            Self { k: leak(Kernel { machine, tcbs, cpus, spaces, kmem, numbers: NUMBERS, creation: Claims::new() }) };
        w.start_server(S, ThreadId::NIL);
        w.start_server(ROOT, S.id());
        assert_eq!((NUMBERS.sigma0(), NUMBERS.root_task()), (S.id(), ROOT.id()));
        w.dispatch();
        w.wait(S, ThreadId::ANY);
        w
    }

    /// The servers and the whole cast, everybody ready.
    pub fn new() -> Self {
        let w = Self::bare();
        CAST.into_iter().for_each(|who| w.start(who));
        w
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
        Here::new(self.k, CpuId::new(0))
    }

    /// Who runs.
    pub fn running(self) -> Option<Who> {
        self.here().cpu.current.get().thread().map(|thread| Who::at(thread).expect("somebody of the cast runs"))
    }

    /// What the dispatcher does after a kernel entry: it works until a thread is in user mode, or nobody is ready.
    pub fn dispatch(self) {
        self.dispatch_steps(100_000);
        invariants::check(self.k);
        let current = self.here().cpu.current.get().thread();
        assert!(current.is_none_or(|thread| self.k.tcb(thread).work() == Work::None), "the kernel comes to an end");
    }

    /// As [`Self::dispatch`], with `count` steps of work at most.
    pub fn dispatch_steps(self, count: usize) {
        for step in 0..=count {
            let mut here = self.here();
            match here.choose() {
                Some(thread) if here.k.tcb(thread).work() != Work::None && step < count => here.step(thread),
                Some(thread) => return self.leave(thread),
                None => return,
            }
        }
    }

    /// The way to user mode settles whether the fast path is free.
    fn leave(self, thread: TcbRef) {
        self.k.machine.allows_fast_path.set(self.here().may_call_fast(thread));
    }

    /// Lets somebody who is ready run, whatever the scheduler thinks.
    pub fn make_run(self, who: Who) {
        let here = self.here();
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
        self.leave(who.tcb());
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
        call(&mut self.here(), who.tcb())
    }

    /// A kernel entry of somebody, up to the first step of work.
    pub fn begin<T>(self, who: Who, call: impl FnOnce(&mut Here<'static, Fake>, TcbRef) -> T) -> T {
        let result = self.trap(who, call);
        self.dispatch_steps(0);
        invariants::check(self.k);
        result
    }

    /// A kernel entry of somebody, to its end.
    pub fn enter<T>(self, who: Who, call: impl FnOnce(&mut Here<'static, Fake>, TcbRef) -> T) -> T {
        let result = self.trap(who, call);
        self.dispatch();
        result
    }

    /// Sets the clock, with all timer interrupts on the way.
    pub fn clock(self, us: u64) {
        while let Some(at) = self.here().next_event().filter(|&at| at <= us) {
            self.k.machine.set_clock(at.max(self.k.machine.now_us()));
            self.here().timer_interrupt();
            self.dispatch();
        }
        self.k.machine.set_clock(us);
    }

    /// Sets the clock, with one timer interrupt that came late.
    pub fn jump(self, us: u64) {
        self.k.machine.set_clock(us);
        self.here().timer_interrupt();
        self.dispatch();
    }

    /// A device raises a line.
    pub fn raise(self, line: u32) {
        if self.k.machine.raise(line) {
            self.here().interrupt(line);
            self.dispatch();
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
        self.trap_ipc(who, to, from, timeouts);
        self.dispatch();
    }

    /// Ipc, without what the dispatcher does then.
    pub fn trap_ipc(self, who: Who, to: ThreadId, from: ThreadId, timeouts: Timeouts) {
        self.trap(who, |here, thread| {
            here.k.machine.saved(thread).from.set(None);
            here.k.tcb(thread).ip.set(IPC_RETURN_IP);
            here.ipc(thread, to, from, timeouts);
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
