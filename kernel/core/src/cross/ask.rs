//! Questions of one processor to another.
//!
//! What a thread does to another one by a system call other than Ipc happens at the home of the other: the caller's
//! processor asks the other's to do it, and waits. A processor answers questions between two steps of its own work, and
//! while it waits for an answer itself, so that none waits for ever: an answer never needs a question. What would need
//! one is left to the asker ([`Here::see_off`]).
//!
//! A processor has one question at a time, in its own words; a bit at the other one says who asks. So there is no queue
//! that could be full.
//!
//! The running thread of a processor that asks is in the middle of its call: meanwhile it is neither deleted nor given
//! another id or space ([`Reply::Busy`]), and if it is moved it stays until the call is over. Of threads that want to do
//! that to each other in a ring, the one on the processor with the highest number gives up.
//!
//! A question is about a thread by its slot and its id: when it is answered, the thread may have gone. One that goes to
//! and fro may be away again whenever a question comes to where it was. So whoever has not found it seeks it: while
//! somebody does, no thread sets out from the processor where it runs ([`Questions::is_empty`]).

use l4_abi::{SysError, ThreadId};

use crate::kernel::Here;
use crate::machine::{CpuId, Machine, TcbRef};
use crate::sync::{AtomicBool, AtomicUsize, Look, Ordering, looks_again};
use crate::var::{AsWord, Var};

/// Processors there can be, at most.
const CPUS_MAX: usize = 256;
const WORD_BITS: usize = usize::BITS as usize;

/// Words of a question, and of its answer. The last word of a question about a thread is the thread's id, the first its
/// slot.
pub(crate) const WORDS: usize = 10;
const ID: usize = WORDS - 1;
/// The words of a question or an answer.
pub(crate) type Words = [usize; WORDS];

const ASKED: usize = 1;
const SOUGHT: usize = 2;

/// What another processor is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Subject {
    /// To take a thread out of the transfer with one that is leaving it.
    Unwind,
    /// ExchangeRegisters.
    Exregs,
    /// Schedule, without a change of processor.
    Schedule,
    /// Schedule: a change of processor.
    Move,
    /// ThreadControl for a thread that exists.
    Modify,
    /// ThreadControl: deletion.
    Delete,
    /// To fail a few of those who wait to send to a thread that is being deleted.
    FailSenders,
    /// ThreadControl of an interrupt.
    Interrupt,
    /// SpaceControl: to end plain waits in a part of a space's threads.
    EndPlainWaits,
}

impl Subject {
    const ALL: [Self; 9] = [
        Self::Unwind,
        Self::Exregs,
        Self::Schedule,
        Self::Move,
        Self::Modify,
        Self::Delete,
        Self::FailSenders,
        Self::Interrupt,
        Self::EndPlainWaits,
    ];

    /// Whether a question begins with a thread's slot and ends with its id.
    fn is_about_a_thread(self) -> bool {
        matches!(self, Self::Exregs | Self::Schedule | Self::Move | Self::Modify | Self::Delete)
    }
}

impl AsWord for Subject {
    type Cell = crate::sync::AtomicU8;
    fn to_word(self) -> usize {
        self as usize
    }
    fn from_word(word: usize) -> Self {
        Self::ALL[word]
    }
}

/// What comes of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    /// It is done; with these words.
    Done(Words),
    /// There is no such thread any more.
    Gone,
    /// The thread is at home elsewhere by now: ask there.
    Moved,
    /// The thread is leaving its IPC ([`Here::see_off`]): ask again when it is out of that.
    Leaving,
    /// The thread asks itself, and must not be deleted or changed meanwhile: ask again.
    Busy,
}

impl Reply {
    /// The reply as a number and words.
    fn to_words(self) -> (u8, Words) {
        match self {
            Reply::Done(words) => (0, words),
            Reply::Gone => (1, [0; WORDS]),
            Reply::Moved => (2, [0; WORDS]),
            Reply::Leaving => (3, [0; WORDS]),
            Reply::Busy => (4, [0; WORDS]),
        }
    }

    fn from_words(number: u8, words: Words) -> Self {
        match number {
            0 => Reply::Done(words),
            1 => Reply::Gone,
            2 => Reply::Moved,
            3 => Reply::Leaving,
            _ => Reply::Busy,
        }
    }
}

/// What a processor asks, and who asks it.
pub struct Questions {
    /// The processors that ask this one: a bit each.
    askers: [AtomicUsize; CPUS_MAX / WORD_BITS],
    /// Whether there may be any ([`ASKED`]), and how many processors seek a thread that runs here, [`SOUGHT`] for each.
    callers: AtomicUsize,
    /// The own question, and then its answer.
    subject: Var<Subject>,
    words: [Var<usize>; WORDS],
    answer: Var<u8>,
    /// The own question is not answered.
    is_open: AtomicBool,
    /// This processor waits for an answer, or for the time to ask again: its running thread is in the middle of a call.
    is_asking: Var<bool>,
    /// It is answering another one.
    is_serving: Var<bool>,
    /// The processor whose running thread is busy, so that this one has to ask it again.
    waits_for: Var<Option<CpuId>>,
}

impl Questions {
    /// No question.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self {
            askers: [const { AtomicUsize::new(0) }; CPUS_MAX / WORD_BITS],
            callers: AtomicUsize::new(0),
            subject: Var::zero(),
            words: [const { Var::zero() }; WORDS],
            answer: Var::zero(),
            is_open: AtomicBool::new(false),
            is_asking: Var::zero(),
            is_serving: Var::zero(),
            waits_for: Var::zero(),
        }
    }

    /// Whether the running thread is in the middle of a call that waits for others.
    pub fn is_asking(&self) -> bool {
        self.is_asking.get()
    }

    /// Whether this processor is answering another one.
    pub(crate) fn is_serving(&self) -> bool {
        self.is_serving.get()
    }

    /// The processor that this one has to ask again, as its thread is busy.
    #[cfg(test)]
    pub fn waits_for(&self) -> Option<CpuId> {
        self.waits_for.get()
    }

    /// Whether nobody asks, and nobody seeks a thread that runs here. Only a hint for others than the owner.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.callers.load(Ordering::Relaxed) == 0
    }

    /// Whether somebody seeks a thread that runs here.
    pub(crate) fn is_sought(&self) -> bool {
        self.callers.load(Ordering::Relaxed) >= SOUGHT
    }

    /// Notes that processor `asker` asks.
    fn add_asker(&self, asker: CpuId) {
        let (word, bit) = (asker.index() / WORD_BITS, asker.index() % WORD_BITS);
        self.askers[word].fetch_or(1 << bit, Ordering::Release);
        self.callers.fetch_or(ASKED, Ordering::Release);
    }

    /// The processors that ask now, each once.
    fn take_askers(&self) -> impl Iterator<Item = CpuId> + '_ {
        // Before it looks: who comes after the look says so again.
        self.callers.fetch_and(!ASKED, Ordering::Acquire);
        self.askers.iter().enumerate().filter(|(_, word)| word.load(Ordering::Relaxed) != 0).flat_map(
            |(index, word)| {
                let asking = word.swap(0, Ordering::Acquire);
                let bits = (0..WORD_BITS).filter(move |bit| asking >> bit & 1 != 0);
                bits.map(move |bit| CpuId::new((index * WORD_BITS + bit) as u32))
            },
        )
    }

    fn set_words(&self, words: Words) {
        for (slot, word) in self.words.iter().zip(words) {
            slot.set(word);
        }
    }

    fn words(&self) -> Words {
        core::array::from_fn(|index| self.words[index].get())
    }
}

impl<M: Machine> Here<'_, M> {
    /// Has `subject` done to `thread`, by a question that begins with its slot, at its home; `None` if the thread is gone, or
    /// if this processor's own thread has to give up as it is in a ring of those who want each other.
    pub(crate) fn at_home_of(&mut self, thread: TcbRef, subject: Subject, words: Words) -> Option<Words> {
        let tcb = self.k.tcb(thread);
        let id = tcb.id.get();
        if id.is_nil() {
            return None;
        }
        let mut question = words;
        question[ID] = id.raw() as usize;
        let mut sought = None;
        let answer = loop {
            let home = tcb.home();
            match self.ask(home, subject, question) {
                Reply::Done(words) => break Some(words),
                Reply::Gone => break None,
                Reply::Busy => {
                    self.cpu.questions.waits_for.set(Some(home));
                    if self.is_last_of_ring() {
                        break None;
                    }
                }
                Reply::Moved => {
                    self.cpu.questions.waits_for.set(None);
                    self.seek(&mut sought, Some(tcb.affinity()));
                }
                Reply::Leaving => {
                    self.cpu.questions.waits_for.set(None);
                    self.see_off(thread, id);
                }
            }
            self.wait_a_moment();
        };
        self.seek(&mut sought, None);
        self.cpu.questions.waits_for.set(None);
        answer
    }

    /// From now on this processor seeks a thread that runs at `cpu`, and no more one at `sought`.
    fn seek(&self, sought: &mut Option<CpuId>, cpu: Option<CpuId>) {
        // From here nobody sets out meanwhile.
        let cpu = cpu.filter(|&cpu| cpu != self.id);
        if *sought == cpu {
            return;
        }
        if let Some(old) = core::mem::replace(sought, cpu) {
            self.k.cpus[old.index()].questions.callers.fetch_sub(SOUGHT, Ordering::Release);
            // It has to look again, or it would go on reminding itself.
            self.k.machine.kick(old);
        }
        if let Some(new) = cpu {
            self.k.cpus[new.index()].questions.callers.fetch_add(SOUGHT, Ordering::Release);
            self.tell(new);
        }
    }

    /// Whether this processor is in a ring of those whose threads wait for each other, and has the highest number in it.
    fn is_last_of_ring(&self) -> bool {
        let mut next = self.cpu.questions.waits_for.get();
        for _ in 0..self.k.cpus.len() {
            match next {
                Some(cpu) if cpu == self.id => return true,
                Some(cpu) if cpu < self.id => next = self.k.cpus[cpu.index()].questions.waits_for.get(),
                _ => return false,
            }
        }
        false
    }

    /// If `thread`, as long as its id is `id`, is leaving its IPC, has its partner come for that, and waits until it is out.
    pub(crate) fn see_off(&mut self, thread: TcbRef, id: ThreadId) {
        let tcb = self.k.tcb(thread);
        while tcb.is_leaving.get() && tcb.id.get() == id {
            // It may go on to another processor before it is asked. At that of `thread` it leaves by itself.
            if let Some(partner) = tcb.peer.get() {
                let home = self.k.tcb(partner).home();
                let _ = self.ask(home, Subject::Unwind, words([partner.index(), thread.index()]));
            }
            self.wait_a_moment();
        }
    }

    /// Somebody else has to come further first: does what others may wait for meanwhile.
    pub(crate) fn wait_a_moment(&mut self) {
        self.cpu.questions.is_asking.set(true);
        self.serve();
        self.receive_posted();
        self.release_orphans();
        self.k.machine.relax();
        self.cpu.questions.is_asking.set(false);
    }

    /// Asks processor `cpu`, which may be this one, and waits for the answer.
    pub(crate) fn ask(&mut self, cpu: CpuId, subject: Subject, words: Words) -> Reply {
        let own = &self.cpu.questions;
        own.is_asking.set(true);
        let is_here = !M::IS_MULTIPROCESSOR || cpu == self.id;
        let reply = if is_here { self.ask_here(subject, words) } else { self.ask_there(cpu, subject, words) };
        own.is_asking.set(false);
        reply
    }

    fn ask_here(&mut self, subject: Subject, words: Words) -> Reply {
        self.receive_posted();
        self.reply(subject, words)
    }

    fn ask_there(&mut self, cpu: CpuId, subject: Subject, words: Words) -> Reply {
        let own = &self.cpu.questions;
        own.subject.set(subject);
        own.set_words(words);
        own.is_open.store(true, Ordering::Relaxed);
        let there = self.k.cpus[cpu.index()];
        there.questions.add_asker(self.id);
        self.tell(cpu);
        if there.questions.is_sought() {
            // It reminds itself again and again, so it may be in user mode all the same.
            self.k.machine.kick(cpu);
        }
        while own.is_open.load(Ordering::Acquire) {
            self.serve();
            self.k.machine.relax();
        }
        Reply::from_words(own.answer.get(), own.words())
    }

    /// Answers those who ask this processor now. Threads that were posted here before they asked arrive first.
    #[inline]
    pub fn serve(&mut self) {
        if M::IS_MULTIPROCESSOR && !self.cpu.questions.is_empty() {
            self.answer_askers();
        }
    }

    #[inline(never)]
    fn answer_askers(&mut self) {
        let own = &self.cpu.questions;
        for asker in own.take_askers() {
            self.receive_posted();
            let question = &self.k.cpus[asker.index()].questions;
            own.is_serving.set(true);
            let reply = self.reply(question.subject.get(), question.words());
            own.is_serving.set(false);
            // What it did to mappings is done when the asker goes on.
            self.k.machine.complete();
            let (number, words) = reply.to_words();
            question.set_words(words);
            question.answer.set(number);
            question.is_open.store(false, Ordering::Release);
        }
    }

    /// Whether `thread` is this processor's running one, and in the middle of a call.
    pub(crate) fn is_asking(&self, thread: TcbRef) -> bool {
        self.cpu.questions.is_asking.get() && self.cpu.current.get().thread() == Some(thread)
    }

    /// Whether that is so while another processor wants something of it.
    pub(crate) fn is_busy(&self, thread: TcbRef) -> bool {
        self.cpu.questions.is_serving() && self.is_asking(thread)
    }

    /// Does what `subject` says, here.
    fn reply(&mut self, subject: Subject, words: Words) -> Reply {
        let is_it = || self.k.tcb(TcbRef::new(words[0] as u32)).id.get().raw() as usize == words[ID];
        if subject.is_about_a_thread() && looks_again(Look::Id) && !is_it() {
            return Reply::Gone;
        }
        match subject {
            Subject::Unwind => self.unwind_here(words),
            Subject::Exregs => self.exregs_here(words),
            Subject::Schedule => self.schedule_here(words),
            Subject::Move => self.move_here(words),
            Subject::Modify => self.modify_here(words),
            Subject::Delete => self.delete_here(words),
            Subject::FailSenders => self.fail_senders_here(words),
            Subject::Interrupt => self.interrupt_here(words),
            Subject::EndPlainWaits => self.end_plain_waits_here(words),
        }
    }
}

/// Success or an error as a word.
pub(crate) fn to_word(result: Result<(), SysError>) -> usize {
    result.map_or_else(|error| usize::from(error.raw()), |()| 0)
}

/// The result that such a word stands for.
pub(crate) fn from_word(word: usize) -> Result<(), SysError> {
    SysError::from_raw(word as u64).map_or(Ok(()), Err)
}

/// A question about the thread that has this id.
pub(crate) fn question<const N: usize>(id: ThreadId, first: [usize; N]) -> Words {
    let mut words = words(first);
    words[ID] = id.raw() as usize;
    words
}

/// The first words of a question or answer; the rest is zero.
pub(crate) fn words<const N: usize>(first: [usize; N]) -> Words {
    let mut words = [0; WORDS];
    words[..N].copy_from_slice(&first);
    words
}
