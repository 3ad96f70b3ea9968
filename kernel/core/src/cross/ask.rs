//! Questions of one processor to another.
//!
//! What a thread does to another one by a system call other than Ipc happens at the home of the other: the caller's
//! processor asks the other's to do it, and waits. A processor answers questions between two steps of its own work, and
//! while it waits for an answer itself, so that none waits for ever: an answer never needs a question. What would need
//! one is said in the answer ([`Reply::Elsewhere`]), and the asker turns there first.
//!
//! A processor has one question at a time, in its own words; a bit at the other one says who asks. So there is no queue
//! that could be full.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use l4_abi::SysError;

use crate::kernel::Here;
use crate::machine::{CpuId, Machine, TcbRef};
use crate::var::{AsWord, Var};

/// Processors there can be, at most.
const CPUS_MAX: usize = 256;
const WORD_BITS: usize = usize::BITS as usize;

/// Words of a question, and of its answer.
pub(crate) const WORDS: usize = 10;
/// The words of a question or an answer.
pub(crate) type Words = [usize; WORDS];

/// What another processor is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Subject {
    /// To take a thread out of the IPC it is in.
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
}

impl AsWord for Subject {
    type Cell = core::sync::atomic::AtomicU8;
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
    /// The thread is at home elsewhere by now: ask there.
    Moved,
    /// First this thread, at home elsewhere, has to leave the IPC it is in.
    Elsewhere(TcbRef),
    /// The thread asks itself, and must not be deleted or moved meanwhile: ask again.
    Busy,
}

const DONE: usize = 0;
const MOVED: usize = 1;
const ELSEWHERE: usize = 2;
const BUSY: usize = 3;

/// What a processor asks, and who asks it.
pub struct Questions {
    /// The processors that ask this one: a bit each.
    askers: [AtomicUsize; CPUS_MAX / WORD_BITS],
    /// The own question, and then its answer.
    subject: Var<Subject>,
    words: [Var<usize>; WORDS],
    answer: Var<u8>,
    /// The own question is not answered.
    is_open: AtomicBool,
    /// This processor waits for an answer.
    is_asking: Var<bool>,
    /// Somebody was answered "busy" because of this processor's running thread.
    is_wanted: Var<bool>,
}

impl Questions {
    /// No question.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self {
            askers: [const { AtomicUsize::new(0) }; CPUS_MAX / WORD_BITS],
            subject: Var::zero(),
            words: [const { Var::zero() }; WORDS],
            answer: Var::zero(),
            is_open: AtomicBool::new(false),
            is_asking: Var::zero(),
            is_wanted: Var::zero(),
        }
    }

    /// The next processor that asks.
    fn take_asker(&self) -> Option<CpuId> {
        for (index, word) in self.askers.iter().enumerate() {
            let asking = word.load(Ordering::Relaxed);
            if asking != 0 {
                let bit = asking.trailing_zeros() as usize;
                word.fetch_and(!(1 << bit), Ordering::Acquire);
                return Some(CpuId::new((index * WORD_BITS + bit) as u32));
            }
        }
        None
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
    /// Has `subject` done to `thread`, whose id is `id`, at its home; `None` if the thread is gone, or if this processor's
    /// own thread is to be deleted by one that it wants to delete.
    pub(crate) fn at_home_of(&mut self, thread: TcbRef, subject: Subject, words: Words) -> Option<Words> {
        let id = self.k.tcb(thread).id.get();
        loop {
            if self.k.tcb(thread).id.get() != id {
                return None;
            }
            let home = self.k.tcb(thread).home();
            match self.ask(home, subject, words) {
                Reply::Done(words) => return Some(words),
                Reply::Moved => self.wait_a_moment(),
                Reply::Elsewhere(partner) => self.free(partner),
                // In a ring of those who want each other at least one has a higher number than whom it asks.
                Reply::Busy if self.cpu.questions.is_wanted.get() && self.id > home => return None,
                Reply::Busy => self.wait_a_moment(),
            }
        }
    }

    /// Has `thread` leave the IPC it is in, if it is still in it.
    fn free(&mut self, thread: TcbRef) {
        let words = words([thread.index()]);
        let home = self.k.tcb(thread).home();
        let _ = self.ask(home, Subject::Unwind, words);
    }

    /// Somebody else has to come further first: does what others may wait for meanwhile.
    pub(crate) fn wait_a_moment(&mut self) {
        self.serve();
        self.release_orphans();
        self.k.machine.relax();
    }

    /// Asks processor `cpu`, which may be this one, and waits for the answer.
    pub(crate) fn ask(&mut self, cpu: CpuId, subject: Subject, words: Words) -> Reply {
        if cpu == self.id {
            self.receive_all_arrivals();
            return self.reply(subject, words);
        }
        let own = &self.cpu.questions;
        own.subject.set(subject);
        own.set_words(words);
        own.is_asking.set(true);
        own.is_open.store(true, Ordering::Relaxed);
        let there = self.k.cpus[cpu.index()];
        let (word, bit) = (self.id.index() / WORD_BITS, self.id.index() % WORD_BITS);
        there.questions.askers[word].fetch_or(1 << bit, Ordering::Release);
        self.tell(cpu);
        while own.is_open.load(Ordering::Acquire) {
            self.serve();
            self.k.machine.relax();
        }
        own.is_asking.set(false);
        let words = own.words();
        match usize::from(own.answer.get()) {
            DONE => Reply::Done(words),
            MOVED => Reply::Moved,
            ELSEWHERE => Reply::Elsewhere(TcbRef::new(words[0] as u32)),
            _ => Reply::Busy,
        }
    }

    /// Answers those who ask this processor. Threads that were posted here before they asked arrive first.
    pub fn serve(&mut self) {
        while let Some(asker) = self.cpu.questions.take_asker() {
            self.receive_all_arrivals();
            let question = &self.k.cpus[asker.index()].questions;
            let reply = self.reply(question.subject.get(), question.words());
            let (answer, words) = match reply {
                Reply::Done(words) => (DONE, words),
                Reply::Moved => (MOVED, [0; WORDS]),
                Reply::Elsewhere(thread) => (ELSEWHERE, words([thread.index()])),
                Reply::Busy => (BUSY, [0; WORDS]),
            };
            question.set_words(words);
            question.answer.set(answer as u8);
            question.is_open.store(false, Ordering::Release);
        }
    }

    /// Whether `thread` is this processor's running one, and waits for an answer: nobody may pull it away from under that.
    /// Then it knows that it is wanted.
    pub(crate) fn is_asking(&self, thread: TcbRef) -> bool {
        let is_asking = self.cpu.questions.is_asking.get() && self.cpu.current.get().thread() == Some(thread);
        if is_asking {
            self.cpu.questions.is_wanted.set(true);
        }
        is_asking
    }

    /// The running thread has its answers.
    pub(crate) fn end_asking(&self) {
        self.cpu.questions.is_wanted.set(false);
    }

    /// Does what `subject` says, here.
    fn reply(&mut self, subject: Subject, words: Words) -> Reply {
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

/// The first words of a question or answer; the rest is zero.
pub(crate) fn words<const N: usize>(first: [usize; N]) -> Words {
    let mut words = [0; WORDS];
    words[..N].copy_from_slice(&first);
    words
}
