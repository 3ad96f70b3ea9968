//! Agents: threads that read, write, map and unmap in their space on the tester's request.
//!
//! The tester is their pager and exception handler: so whether an access faults is simply what comes back from the
//! request. After a fault the agent begins anew, waiting for a request.

use l4::ipc::{self, Outcome as IpcOutcome};
use l4::message::Msg;
use l4::protocol::{EXCEPTION, IO_PAGE_FAULT, PAGE_FAULT};
use l4::time::timeouts;
use l4::{ExceptionWord, Fpage, IoFpage, MapItem, MsgTag, Rights, ThreadId, UnmapControl, Word, space, utcb};

use super::memory::{self, is_in_playground, playground};
use super::messages::{accept_in, send_items};
use super::spaces::Space;
use super::threads::{PATIENCE, PRIORITY_LATER, Thread, plan, tester};
use crate::arch::ports::PORT_ACCESSES;
use crate::failure::{Failure, Outcome, check, equal};

/// Requests, by their labels.
mod request {
    use l4::Word;

    /// Words: address. Answer: the word there.
    pub const READ: Word = 1;
    /// Words: address, value.
    pub const WRITE: Word = 2;
    /// Words: address of code.
    pub const EXECUTE: Word = 3;
    /// Typed items: mappings to take.
    pub const TAKE: Word = 4;
    /// Words: receiver, both words of an item. Answer: ErrorCode, or 0.
    pub const PASS: Word = 5;
    /// Words: control, fpages. Answer: the fpages.
    pub const UNMAP: Word = 6;
    /// As [`PASS`], to a receiver that does not answer.
    pub const SEND: Word = 7;
    /// Words: number of an instruction that uses ports, port. Answer: 0.
    pub const USE_PORT: Word = 8;
}

/// What came of an access to memory or ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It was done; the word that was read, or 0.
    Done(Word),
    /// It faulted.
    Fault(Fault),
}

/// A fault, as its message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A page fault.
    Page {
        /// The access that was tried.
        access: Rights,
        /// Where.
        address: Word,
        /// By what instruction.
        ip: Word,
    },
    /// A closed port.
    Port {
        /// The ports that are asked for.
        ports: IoFpage,
        /// By what instruction.
        ip: Word,
    },
    /// An exception.
    Exception {
        /// Its number.
        number: Word,
        /// The instruction.
        ip: Word,
    },
}

/// A thread that serves requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agent {
    thread: Thread,
}

impl Agent {
    /// An agent in a space, which takes mappings anywhere in the playground.
    #[track_caller]
    pub fn new(space: Space) -> Outcome<Self> {
        Self::with_window(space, playground())
    }

    /// An agent in a new space.
    #[track_caller]
    pub fn in_new_space() -> Outcome<Self> {
        Self::new(Space::create()?)
    }

    /// An agent in a space, which takes mappings into this window of the playground.
    #[track_caller]
    pub fn with_window(space: Space, window: Fpage) -> Outcome<Self> {
        let plan = plan().space(space).pager(tester().id()).exception_handler(tester().id());
        Ok(Self { thread: plan.spawn(move || serve(window))? })
    }

    /// The thread.
    pub fn thread(self) -> Thread {
        self.thread
    }

    /// Its global id.
    pub fn id(self) -> ThreadId {
        self.thread.id()
    }

    /// Reads the word at an address of the playground.
    #[track_caller]
    pub fn read(self, address: Word) -> Outcome<Access> {
        self.access(request::READ, &[address])
    }

    /// Writes the word at an address of the playground.
    #[track_caller]
    pub fn write(self, address: Word, value: Word) -> Outcome<Access> {
        self.access(request::WRITE, &[address, value])
    }

    /// Calls the code at an address of the playground, where [`crate::arch::RETURN`] is if anything.
    #[track_caller]
    pub fn execute(self, address: Word) -> Outcome<Access> {
        self.access(request::EXECUTE, &[address])
    }

    /// Uses a port by the instruction of this number among [`PORT_ACCESSES`].
    #[track_caller]
    pub fn use_port(self, instruction: usize, port: u16) -> Outcome<Access> {
        let words = [instruction as Word, port.into()];
        Ok(match self.request_words(request::USE_PORT, &words)? {
            Ok(_) => Access::Done(0),
            Err(fault) => Access::Fault(fault),
        })
    }

    /// The rights to the page at an address of the playground: reads its first word and writes it back.
    #[track_caller]
    pub fn rights_at(self, address: Word) -> Outcome<Rights> {
        match self.read(address)? {
            Access::Fault(_) => Ok(Rights::NONE),
            Access::Done(value) => match self.write(address, value)? {
                Access::Fault(_) => Ok(Rights::READ),
                Access::Done(_) => Ok(Rights::READ_WRITE),
            },
        }
    }

    /// Fails unless the word at the address is `value`.
    #[track_caller]
    pub fn check_reads(self, address: Word, value: Word) -> Outcome {
        equal(format_args!("the word at {address:#x}"), self.read(address)?, Access::Done(value))
    }

    /// Fails unless there are these rights to the page at the address.
    #[track_caller]
    pub fn check_rights(self, address: Word, rights: Rights) -> Outcome {
        equal(format_args!("what may be done at {address:#x}"), self.rights_at(address)?, rights)
    }

    /// Fails unless there is nothing at the address.
    #[track_caller]
    pub fn check_nothing(self, address: Word) -> Outcome {
        self.check_rights(address, Rights::NONE)
    }

    /// Sends the agent a message with this item of the tester's space; it must come to a success.
    #[track_caller]
    pub fn take(self, item: MapItem) -> Outcome {
        self.take_all(&[item])
    }

    /// Sends the agent a message with these items of the tester's space; it must come to a success.
    #[track_caller]
    pub fn take_all(self, items: &[MapItem]) -> Outcome {
        let mut msg = Msg::new(request::TAKE);
        items.iter().for_each(|&item| {
            msg.append_map(item);
        });
        self.request(&msg)?.map(drop).map_err(unexpected)
    }

    /// Has the agent send this item of its space to another agent.
    #[track_caller]
    pub fn pass(self, to: Self, item: MapItem) -> Outcome {
        let [first, second] = item.words();
        let answer = self.request_words(request::PASS, &[to.id().raw(), first, second])?.map_err(unexpected)?;
        equal("ErrorCode of the agent that maps", answer.word(0), Some(0))
    }

    /// Has the agent send an item of these words to any thread, which need not answer; ErrorCode, or 0.
    #[track_caller]
    pub fn send_raw(self, to: ThreadId, item: [Word; 2]) -> Outcome<Word> {
        let answer = self.request_words(request::SEND, &[to.raw(), item[0], item[1]])?.map_err(unexpected)?;
        Ok(answer.word(0).unwrap_or(0))
    }

    /// Makes a thread of low priority in the agent's space that sends an item of that space again and again.
    #[track_caller]
    pub fn spawn_sender(self, to: Thread, item: MapItem) -> Outcome<Thread> {
        self.spawn_beside(move || {
            loop {
                // The receiver may be gone.
                let _ = send_items(to.id(), &[item]);
            }
        })
    }

    /// Makes a thread of low priority in the agent's space that unmaps an fpage again and again.
    #[track_caller]
    pub fn spawn_unmapper(self, fpage: Fpage) -> Outcome<Thread> {
        self.spawn_beside(move || {
            loop {
                space::unmap_fpage(fpage);
            }
        })
    }

    #[track_caller]
    fn spawn_beside<F: Fn() -> Outcome + Copy + Send + 'static>(self, body: F) -> Outcome<Thread> {
        plan().space(Space::of(self.id())).priority(PRIORITY_LATER).spawn(body)
    }

    /// Has the agent unmap fpages; their access status.
    #[track_caller]
    pub fn unmap<const N: usize>(self, fpages: [Fpage; N]) -> Outcome<[Rights; N]> {
        self.unmap_by(UnmapControl::unmap(N), fpages)
    }

    /// Has the agent flush fpages of the playground; their access status.
    #[track_caller]
    pub fn flush<const N: usize>(self, fpages: [Fpage; N]) -> Outcome<[Rights; N]> {
        check(fpages.iter().all(|&fpage| is_in_playground(fpage)), "only the playground is flushed")?;
        self.unmap_by(UnmapControl::flush(N), fpages)
    }

    /// Has the agent flush ports.
    #[track_caller]
    pub fn flush_ports(self, ports: IoFpage) -> Outcome {
        self.unmap_by(UnmapControl::flush(1), [ports.fpage()]).map(drop)
    }

    #[track_caller]
    fn unmap_by<const N: usize>(self, control: UnmapControl, fpages: [Fpage; N]) -> Outcome<[Rights; N]> {
        let mut msg = Msg::new(request::UNMAP);
        msg.append_word(control.raw());
        fpages.iter().for_each(|fpage| {
            msg.append_word(fpage.raw());
        });
        let answer = self.request(&msg)?.map_err(unexpected)?;
        let mut status = [Rights::NONE; N];
        for (i, fpage) in fpages.into_iter().enumerate() {
            let after = Fpage::from_raw(answer.word(i).unwrap_or(0));
            status[i] = after.rights();
            equal("the fpage after Unmap", after.with_rights(Rights::NONE), fpage.with_rights(Rights::NONE))?;
        }
        Ok(status)
    }

    #[track_caller]
    fn access(self, label: Word, words: &[Word]) -> Outcome<Access> {
        assert!(playground().contains(words[0]), "only the playground is accessed");
        Ok(match self.request_words(label, words)? {
            Ok(answer) => Access::Done(answer.word(0).unwrap_or(0)),
            Err(fault) => Access::Fault(fault),
        })
    }

    #[track_caller]
    fn request_words(self, label: Word, words: &[Word]) -> Outcome<Result<Msg, Fault>> {
        self.request(&Msg::of_words(MsgTag::new(label, 0, 0), words))
    }

    /// The answer to a request, or the fault that came instead.
    #[track_caller]
    fn request(self, msg: &Msg) -> Outcome<Result<Msg, Fault>> {
        msg.load();
        let outcome = ipc::call_timeouts(self.id(), timeouts(PATIENCE, PATIENCE))
            .map_err(|error| Failure::new(format_args!("{} does not answer: {error:?}", self.thread)))?;
        let words = [utcb().mr(1), utcb().mr(2), utcb().mr(ExceptionWord::Exception as usize)];
        let fault = match outcome.tag.protocol() {
            PAGE_FAULT => {
                let access = Rights::from_bits_truncate(outcome.tag.parameter());
                Fault::Page { access, address: words[0], ip: words[1] }
            }
            IO_PAGE_FAULT => {
                let ports = Fpage::from_raw(words[0]).as_io();
                let ports = ports.ok_or_else(|| Failure::new(format_args!("a fault at {:#x}", words[0])))?;
                Fault::Port { ports, ip: words[1] }
            }
            EXCEPTION => Fault::Exception { number: words[2], ip: words[0] },
            _ => return Ok(Ok(Msg::store(outcome.tag))),
        };
        self.thread.restart()?;
        Ok(Err(fault))
    }
}

#[track_caller]
fn unexpected(fault: Fault) -> Failure {
    Failure::new(format_args!("the agent faults: {fault:x?}"))
}

/// What an agent does.
fn serve(window: Fpage) -> Outcome {
    accept_in(window);
    let mut next = ipc::wait();
    loop {
        let Ok(received) = next else {
            next = ipc::wait();
            continue;
        };
        answer(received).load();
        next = ipc::reply_wait(received.from);
    }
}

fn answer(received: IpcOutcome) -> Msg {
    let request = Msg::store(received.tag);
    let words = request.words();
    let mut answer = Msg::new(0);
    match (request.tag().label(), words) {
        (request::READ, &[address]) => {
            answer.append_word(memory::read(address));
        }
        (request::WRITE, &[address, value]) => memory::write(address, value),
        (request::EXECUTE, &[address]) => memory::execute(address),
        (request::USE_PORT, &[instruction, port]) => {
            if let Some(access) = PORT_ACCESSES.get(instruction as usize) {
                access.execute(port as u16);
            }
        }
        (request::PASS, &[to, first, second]) => {
            let to = ThreadId::from_raw(to);
            answer.append_word(send_item(to, to, [first, second]));
        }
        (request::SEND, &[to, first, second]) => {
            answer.append_word(send_item(ThreadId::from_raw(to), ThreadId::NIL, [first, second]));
        }
        (request::UNMAP, [control, fpages @ ..]) => unmap(&mut answer, UnmapControl::from_raw(*control), fpages),
        _ => {}
    }
    answer
}

/// Sends an item and waits for an answer from `answerer`, unless that is nilthread; ErrorCode, or 0.
fn send_item(to: ThreadId, answerer: ThreadId, item: [Word; 2]) -> Word {
    let mut msg = Msg::new(request::TAKE);
    if let Some(item) = MapItem::from_words(item) {
        msg.append_map(item);
    }
    msg.load();
    ipc::ipc(to, answerer, timeouts(PATIENCE, PATIENCE)).result().err().map_or(0, |error| error.raw())
}

fn unmap(answer: &mut Msg, control: UnmapControl, words: &[Word]) {
    let mut fpages = [Fpage::NIL; 16];
    let fpages = &mut fpages[..words.len().min(16)];
    fpages.iter_mut().zip(words).for_each(|(fpage, word)| *fpage = Fpage::from_raw(*word));
    if control.is_flush() {
        // SAFETY: the tester flushes ports and the playground only, where no object of this program is.
        unsafe { space::flush(fpages) };
    } else {
        space::unmap(fpages);
    }
    fpages.iter().for_each(|fpage| {
        answer.append_word(fpage.raw());
    });
}
