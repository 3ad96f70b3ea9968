//! X.2 once more: a small model of what threads see, written from the specification.
//!
//! It has one processor, no memory that could run out and no time of its own, and does each call at once. It knows nothing
//! of the kernel, not even its types: words are words. What the kernel's tests do to the core they do to a [`Model`], too, and
//! compare what both say (`kcore::tests::lockstep`).
//!
//! | part | where |
//! |---|---|
//! | ids, times, tags, fpages as words | [`word`] |
//! | threads, the processor, time | [`sched`] |
//! | messages | [`ipc`] |
//! | the other calls | [`control`] |
//! | who has which page, from whom | [`memory`] |
//!
//! Left out, as the model would not stay small: strings, redirection, interrupts, I/O ports, pages larger than the smallest,
//! memory types, total quanta, and delayed preemption.
#![forbid(unsafe_code)]

pub mod control;
pub mod ipc;
pub mod memory;
pub mod sched;
pub mod word;

use std::collections::BTreeMap;

use memory::Memory;
use sched::Processor;
use word::{Id, Word};

/// Message registers.
pub const MRS: usize = 64;
/// Buffer registers.
pub const BRS: usize = 33;
/// General registers in the message of an exception, behind instruction pointer, stack pointer and flags.
pub const REGISTERS: usize = 17;

/// What the model has to know of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// The first number of users' threads.
    pub user_base: u64,
    /// The number behind the last one that a thread can have.
    pub threads: u64,
    /// Distance of MR0 from the beginning of a UTCB.
    pub mr0: Word,
    /// log2 of the size and of the alignment of a UTCB.
    pub utcb_log2: u32,
    /// log2 of the smallest UTCB area.
    pub utcb_area_log2: u32,
    /// The end of user memory.
    pub user_end: Word,
    /// Flags of a new thread.
    pub flags: Word,
    /// The flags that user code may change.
    pub user_flags: Word,
    /// Where calls of Ipc return to.
    pub return_ip: Word,
}

/// The registers that a thread shares with its user code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Utcb {
    /// Message registers.
    pub mr: [Word; MRS],
    /// Buffer registers.
    pub br: [Word; BRS],
    /// ErrorCode.
    pub error_code: Word,
    /// VirtualSender, and ActualSender.
    pub virtual_sender: Id,
    /// Pager.
    pub pager: Id,
    /// ExceptionHandler.
    pub exception_handler: Id,
    /// UserDefinedHandle.
    pub handle: Word,
    /// MyGlobalId.
    pub my_global_id: Id,
}

impl Utcb {
    fn new(id: Id, pager: Id) -> Self {
        let (mr, br) = ([0; MRS], [0; BRS]);
        Self { mr, br, error_code: 0, virtual_sender: 0, pager, exception_handler: 0, handle: 0, my_global_id: id }
    }
}

/// What a thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It was not activated.
    Inactive,
    /// It runs, is ready, or would be if it were not halted. With `true` it looks for a sender before it goes on.
    Ready(bool),
    /// It waits to send to the thread with this number.
    Sends(u64),
    /// It waits for a message from these.
    Waits(Id),
}

/// Whose message it is that a thread sends or waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Its own, by Ipc.
    Own,
    /// The start message.
    Start,
    /// That of a page fault.
    Fault,
    /// That of an exception.
    Exception,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its global id.
    pub id: Id,
    /// The address of its UTCB, once it was given one.
    pub location: Option<Word>,
    /// The number of its space.
    pub space: usize,
    /// Who may schedule it.
    pub scheduler: Id,
    /// What it does.
    pub state: State,
    /// It does not go on in user mode.
    pub is_halted: bool,
    /// Whose message it is about.
    pub purpose: Purpose,
    /// The message of a fault or exception, or the answer to it.
    pub kernel_message: [Word; MRS],
    /// What comes after a send phase: from whom it receives, and for how long.
    pub then: (Id, u16),
    /// In whose name it sends, and whether that was asked for by propagation.
    pub sends_as: (Id, bool),
    /// When its phase is over.
    pub deadline: Option<u64>,
    /// Among those that are due: when that was to be, and how many timeouts had begun.
    pub(crate) due: (u64, u64),
    /// Who is waiting to send to it, the first first.
    pub senders: Vec<u64>,
    /// Instruction pointer, stack pointer, flags.
    pub registers: [Word; 3],
    /// General registers.
    pub general: [Word; REGISTERS],
    /// From whom its last call of Ipc had a message, if it is over.
    pub from: Option<Id>,
    /// Priority.
    pub priority: u8,
    /// Length of its time slice, and what is left of it; `None`: without end.
    pub slice: (Option<u64>, Option<u64>),
    /// Its UTCB, once it is active.
    pub utcb: Utcb,
}

impl Thread {
    /// Whether it was activated.
    pub fn is_active(&self) -> bool {
        self.state != State::Inactive
    }

    /// Whether the processor can have it.
    pub fn is_runnable(&self) -> bool {
        matches!(self.state, State::Ready(looks) if looks || !self.is_halted)
    }
}

/// A space.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// Begin and end of its KIP and of its UTCB area, once it has them.
    pub areas: Option<[(Word, Word); 2]>,
    /// Its threads may use the privileged calls.
    pub is_privileged: bool,
}

/// Threads, spaces, and the processor.
#[derive(Clone, Debug)]
pub struct Model {
    machine: Machine,
    /// All threads by number.
    pub threads: BTreeMap<u64, Thread>,
    /// All spaces by number.
    pub spaces: BTreeMap<usize, Space>,
    next_space: usize,
    /// Who has which page.
    pub memory: Memory,
    /// Who runs.
    pub processor: Processor,
    /// The time, microseconds.
    pub now: u64,
}

/// The space of sigma0.
pub const SIGMA0: usize = 0;

impl Model {
    /// What there is after boot: sigma0, which waits for anybody, and the root task, which runs. They have these UTCB
    /// locations.
    pub fn new(machine: Machine, sigma0: (Id, Word), root: (Id, Word), areas: [(Word, Word); 2]) -> Self {
        let mut model = Self {
            machine,
            threads: BTreeMap::new(),
            spaces: BTreeMap::new(),
            next_space: 0,
            memory: Memory::default(),
            processor: Processor::default(),
            now: 0,
        };
        for ((id, location), pager) in [(sigma0, 0), (root, sigma0.0)] {
            let space = model.make_space();
            model.spaces.insert(space, Space { areas: Some(areas), is_privileged: true });
            let mut thread = model.new_thread(id, space, root.0);
            thread.location = Some(location);
            thread.utcb = Utcb::new(id, pager);
            thread.priority = 255;
            thread.state = State::Ready(false);
            model.threads.insert(word::number(id), thread);
        }
        model.thread_mut(word::number(sigma0.0)).state = State::Waits(word::ANY);
        let root = word::number(root.0);
        model.processor.running = Some(root);
        model.processor.payer = Some(root);
        model
    }

    fn make_space(&mut self) -> usize {
        let space = self.next_space;
        self.next_space += 1;
        self.spaces.insert(space, Space::default());
        space
    }

    fn new_thread(&self, id: Id, space: usize, scheduler: Id) -> Thread {
        Thread {
            id,
            location: None,
            space,
            scheduler,
            state: State::Inactive,
            is_halted: false,
            purpose: Purpose::Own,
            kernel_message: [0; MRS],
            then: (word::NIL, 0),
            sends_as: (id, false),
            deadline: None,
            due: (0, 0),
            senders: Vec::new(),
            registers: [0, 0, self.machine.flags],
            general: [0; REGISTERS],
            from: None,
            priority: sched::PRIORITY,
            slice: (Some(sched::SLICE_US), Some(sched::SLICE_US)),
            utcb: Utcb::new(id, word::NIL),
        }
    }

    /// The thread with this number, which exists.
    ///
    /// # Panics
    /// If it does not.
    pub fn thread(&self, number: u64) -> &Thread {
        self.threads.get(&number).expect("the thread exists")
    }

    fn thread_mut(&mut self, number: u64) -> &mut Thread {
        self.threads.get_mut(&number).expect("the thread exists")
    }

    /// The thread with exactly this global id (X.2, Thread identifiers).
    fn global(&self, id: Id) -> Option<u64> {
        let number = word::number(id);
        self.threads.get(&number).filter(|thread| !word::is_local(id) && thread.id == id).map(|_| number)
    }

    /// The thread that an id names in a space: by its global id, or an active one of the space by its local id.
    fn named(&self, id: Id, space: usize) -> Option<u64> {
        if !word::is_local(id) {
            return self.global(id);
        }
        let has_it = |thread: &Thread| thread.is_active() && thread.space == space && self.local_id(thread) == Some(id);
        self.threads.iter().find(|(_, thread)| has_it(thread)).map(|(number, _)| *number)
    }

    /// The local id of a thread: the address of its MR0.
    fn local_id(&self, thread: &Thread) -> Option<Id> {
        thread.location.map(|location| location.wrapping_add(self.machine.mr0))
    }

    /// The id by which a thread of `space` knows the thread `number`.
    fn seen_from(&self, number: u64, space: usize) -> Id {
        let thread = self.thread(number);
        let local = self.local_id(thread).filter(|_| thread.space == space && thread.is_active());
        local.unwrap_or(thread.id)
    }

    fn is_privileged(&self, number: u64) -> bool {
        self.spaces[&self.thread(number).space].is_privileged
    }
}
