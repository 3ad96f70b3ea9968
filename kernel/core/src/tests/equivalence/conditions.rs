//! What the fast path takes, said in the core's own terms: what bars it, one by one, and what kinds of calls are left.

use std::fmt;

use l4_abi::{MsgTag, ThreadId, UTCB_SIZE, Word};

use super::side::{Call, KERNELS_GS, Side};
use crate::kernel::Kernel;
use crate::kmem::FRAME_SIZE;
use crate::machine::{Machine, TcbRef};
use crate::thread::{Status, Tcb};

/// What bars the fast path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Bar {
    Flags,
    TypedWords,
    ReceiveTimeout,
    NoSuchThread,
    NotWaiting,
    OtherPartner,
    OrdinaryWait,
    OtherProcessor,
    OtherFrom,
    SomebodyQueued,
    Gs,
    FloatingPoint,
    SenderInOthersName,
    Redirector,
    DelayedPreemption,
    HigherReceiver,
}

impl Bar {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Flags,
        Self::TypedWords,
        Self::ReceiveTimeout,
        Self::NoSuchThread,
        Self::NotWaiting,
        Self::OtherPartner,
        Self::OrdinaryWait,
        Self::OtherProcessor,
        Self::OtherFrom,
        Self::SomebodyQueued,
        Self::Gs,
        Self::FloatingPoint,
        Self::SenderInOthersName,
        Self::Redirector,
        Self::DelayedPreemption,
        Self::HigherReceiver,
    ];
}

/// The receiver and the sender of `call` by their global ids, as far as the fast path finds them: for a local id, of a
/// thread of the caller's space whose UTCB is in the same page as the caller's.
fn partners<M: Machine>(k: &Kernel<'_, M>, caller: TcbRef, call: &Call) -> (ThreadId, ThreadId) {
    const IN_PAGE: Word = FRAME_SIZE as Word - UTCB_SIZE as Word;
    let (caller, to, from) = (k.tcb(caller), call.to(), call.from());
    let is_in_page = (caller.local_id.get().raw() ^ to.raw()) & !IN_PAGE == 0;
    let is_named =
        |tcb: &&Tcb| tcb.utcb.get() != 0 && tcb.space.get() == caller.space.get() && tcb.local_id.get() == to;
    match k.tcbs.iter().filter(|_| is_in_page).find(is_named).map(|tcb| tcb.id.get()) {
        // Whoever is named in both ways is the general path's, as is a wait for anybody in the space.
        Some(id) if from == id => (id, ThreadId::ANY_LOCAL),
        Some(id) => (id, if from == to { id } else { from }),
        None => (to, from),
    }
}

/// What bars `call`, of who is in user mode on processor `cpu`; a bit for each [`Bar`].
pub fn bars(side: &Side, cpu: usize, call: &Call) -> u32 {
    let k = side.w.k;
    let caller = side.current(cpu).expect("somebody calls");
    let (tcb, processor) = (k.tcb(caller), &side.processors[cpu]);
    let ((to, from), tag) = (partners(k, caller, call), call.tag());
    let receivers = match k.thread(to) {
        None => Some(Bar::NoSuchThread),
        Some(dest) => {
            let dest = k.tcb(dest);
            let awaits_caller = [Some(tcb.id.get()), Some(ThreadId::ANY)].contains(&dest.waiting_for());
            match dest.status() {
                Status::Waiting if !awaits_caller => Some(Bar::OtherPartner),
                Status::Waiting if dest.waits_for.get().is_nil() => Some(Bar::OrdinaryWait),
                Status::Waiting if dest.home().index() != cpu => Some(Bar::OtherProcessor),
                Status::Waiting => None,
                _ => Some(Bar::NotWaiting),
            }
        }
    };
    let others = [
        (Bar::Flags, tag.raw() & MsgTag::FLAGS != 0),
        (Bar::TypedWords, tag.typed() > 0),
        (Bar::ReceiveTimeout, !call.timeouts().rcv().is_never()),
        (Bar::OtherFrom, from != to && from != ThreadId::ANY && !from.is_nil()),
        (Bar::SomebodyQueued, from == ThreadId::ANY && tcb.send_queue.get().is_some()),
        (Bar::Gs, processor.gs != KERNELS_GS),
        (Bar::FloatingPoint, processor.fpu_is_live),
        (Bar::SenderInOthersName, tcb.propagated_senders.get() > 0),
        (Bar::Redirector, k.spaces.get(tcb.space()).bars_fast_path()),
        (Bar::DelayedPreemption, k.cpus[cpu].delaying.get().is_some()),
        (
            Bar::HigherReceiver,
            from.is_nil() && k.thread(to).is_some_and(|dest| k.tcb(dest).priority() > tcb.priority()),
        ),
    ];
    let others = others.into_iter().filter(|&(_, is_so)| is_so).map(|(bar, _)| bar);
    others.chain(receivers).fold(0, |bars, bar| bars | 1 << bar as usize)
}

/// What kind of call it is, for the fast path: one of [`KINDS`].
#[derive(Clone, Copy, Debug)]
pub struct Kind(usize);

/// Kinds of calls.
pub const KINDS: usize = 2 * 2 * 3 * 3;

impl Kind {
    /// The kind of `call`, which nothing bars.
    pub fn of(side: &Side, cpu: usize, call: &Call) -> Self {
        let k = side.w.k;
        let caller = side.current(cpu).expect("somebody calls");
        let (to, from) = partners(k, caller, call);
        let (caller, dest) = (k.tcb(caller), k.tcb(k.thread(to).expect("nothing bars it")));
        let is_open = dest.waiting_for() == Some(ThreadId::ANY);
        let is_within = caller.space.get() == dest.space.get();
        let then = match from {
            ThreadId::NIL => 2,
            ThreadId::ANY => 1,
            _ => 0,
        };
        let words = match call.tag().untyped() {
            0 => 0,
            1..8 => 1,
            _ => 2,
        };
        Self(usize::from(is_open) + 2 * usize::from(is_within) + 4 * (then + 3 * words))
    }

    /// Its number.
    pub fn index(self) -> usize {
        self.0
    }

    /// The kind with this number.
    pub fn at(index: usize) -> Self {
        Self(index)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pick = |bit: usize, words: [&'static str; 2]| words[self.0 >> bit & 1];
        let words = ["no words", "1 to 7 words", "8 to 63 words"][(self.0 >> 2) / 3];
        let awaited = pick(0, ["awaited by name", "awaited by an open wait"]);
        let space = pick(1, ["other space", "same space"]);
        let then = ["call", "reply and open wait", "send alone"][(self.0 >> 2) % 3];
        write!(f, "{then}, {awaited}, {space}, {words}")
    }
}

/// How often what was seen.
pub struct Counts {
    pub calls: u64,
    /// Calls that the fast path took, by kind.
    pub taken: [u64; KINDS],
    /// Calls that it would have taken but for one thing.
    pub barred_by_one: [u64; Bar::ALL.len()],
    /// Calls that several things barred.
    pub barred_by_more: u64,
    /// Calls that nothing barred any more, but something did when the thread went to user mode.
    pub barred_before: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { calls: 0, taken: [0; KINDS], barred_by_one: [0; Bar::ALL.len()], barred_by_more: 0, barred_before: 0 }
    }
}

impl Counts {
    /// Counts a call, which was taken or barred.
    pub fn note(&mut self, kind: Option<Kind>, bars: u32) {
        self.calls += 1;
        match (kind, bars.count_ones()) {
            (Some(kind), _) => self.taken[kind.index()] += 1,
            (None, 0) => self.barred_before += 1,
            (None, 1) => self.barred_by_one[bars.trailing_zeros() as usize] += 1,
            (None, _) => self.barred_by_more += 1,
        }
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.barred_by_more += other.barred_by_more;
        self.barred_before += other.barred_before;
        self.taken.iter_mut().zip(other.taken).for_each(|(sum, count)| *sum += count);
        self.barred_by_one.iter_mut().zip(other.barred_by_one).for_each(|(sum, count)| *sum += count);
    }

    /// The lines of a table: what, how often, and how often of a thousand.
    pub fn lines(&self) -> Vec<String> {
        let line =
            |what: String, count: u64| format!("{count:>9} {:>6.1} {what}", count as f64 * 1000.0 / self.calls as f64);
        let taken = self.taken.iter().enumerate().map(|(index, &count)| (format!("taken: {}", Kind::at(index)), count));
        let barred =
            Bar::ALL.into_iter().map(|bar| (format!("barred by {bar:?} alone"), self.barred_by_one[bar as usize]));
        let rest = [
            ("barred by more than one thing".to_owned(), self.barred_by_more),
            ("not barred any more".to_owned(), self.barred_before),
            ("taken in all".to_owned(), self.taken.iter().sum()),
            ("calls".to_owned(), self.calls),
        ];
        taken.chain(barred).chain(rest).map(|(what, count)| line(what, count)).collect()
    }
}
