//! The threads of a test: a slot for each, with UTCB and stack.
//!
//! Slot 0 is the test itself, the tester. Thread numbers follow that of the supervisor; the version is new for each
//! test, so no id of an earlier one is valid. Each slot has the same UTCB location in every space.
//!
//! What a thread runs is a closure, copied into its slot. It is called by reference, so that a thread can be started
//! over. The result stays in the slot until [`Thread::join`].
//!
//! `[SLOT]`: a slot's start values are written before its thread starts, by the only thread that has it, and not again
//! in this test; its result is written by its thread before that says so by IPC, and read by who got the message.
//!
//! `[ASTRAY]`: threads of tests are the tests' own. A test that sends one somewhere sends it to code that never returns,
//! on the stack of its slot, or to where there is nothing to execute.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};

use l4::arch::RawExregs;
use l4::ipc;
use l4::message::Msg;
use l4::thread::{self, Exchanged, Registers, Stack};
use l4::time::{sleep_forever, timeouts};
use l4::{
    AtomicWord, ExregsControl, ROOT_UTCB_AREA_BASE, ScheduleResult, ThreadId, Time, UTCB_MR0_OFFSET, UTCB_SIZE, Word,
    kip, schedule, utcb,
};

use super::placement;
use super::spaces::Space;
use crate::arch;
use crate::failure::{Failure, Outcome};

/// Threads of one test, itself included.
pub const SLOTS: usize = 24;
const STACK_SIZE: usize = 16 * 1024;
const BODY_WORDS: usize = 24;

/// Priority of the tester.
pub const PRIORITY: u8 = 100;
/// Priority of a thread that runs before the tester goes on.
pub const PRIORITY_FIRST: u8 = 110;
/// Priority of a thread that runs while the tester is blocked.
pub const PRIORITY_LATER: u8 = 90;

/// How long anything may take that needs no time.
pub const PATIENCE: Time = Time::period_us(5_000_000);
/// Label of the question for a thread's result.
const JOIN: Word = 0xFFE;
/// Label of the message with which a test ends.
pub const OVER: Word = 0xFFF;

const TESTER: usize = 0;

struct Start {
    body: [MaybeUninit<Word>; BODY_WORDS],
    /// Calls the body at this address; `None` before there is one.
    call: Option<fn(*const ()) -> Outcome>,
    pager: ThreadId,
    exception_handler: ThreadId,
}

struct Slot {
    stack: Stack<STACK_SIZE>,
    start: UnsafeCell<Start>,
    outcome: UnsafeCell<Outcome>,
    /// Its thread runs code of its own.
    has_begun: AtomicBool,
    /// The priority that its thread was made with.
    priority: AtomicU8,
}

// SAFETY: by [SLOT] nobody reads what somebody else writes at the same time.
unsafe impl Sync for Slot {}

impl Slot {
    const fn new() -> Self {
        let start = Start {
            body: [MaybeUninit::uninit(); BODY_WORDS],
            call: None,
            pager: ThreadId::NIL,
            exception_handler: ThreadId::NIL,
        };
        Self {
            stack: Stack::new(),
            start: UnsafeCell::new(start),
            outcome: UnsafeCell::new(Ok(())),
            has_begun: AtomicBool::new(false),
            priority: AtomicU8::new(0),
        }
    }
}

static ALL_SLOTS: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];
/// Slots in use.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Number of the test.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The id of the first thread, for spaces that have the kernel interface page elsewhere than the library thinks.
static SUPERVISOR: AtomicWord = AtomicWord::new(0);

/// The first thread of the program.
pub fn supervisor() -> ThreadId {
    ThreadId::from_raw(SUPERVISOR.load(Relaxed))
}

/// The thread that runs the test.
pub fn tester() -> Thread {
    Thread { slot: TESTER }
}

/// The global id that slot `slot` has in this test. A version has one of its low six bits set.
fn id_of(slot: usize) -> ThreadId {
    ThreadId::global(supervisor().thread_no() + 1 + slot as Word, Word::from(GENERATION.load(Relaxed)) << 6 | 1)
}

/// A thread of the running test, or room for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thread {
    slot: usize,
}

impl Thread {
    /// Takes a slot without making a thread: for tests of that.
    pub fn reserve() -> Outcome<Self> {
        let slot = USED.fetch_add(1, Relaxed);
        if slot < SLOTS { Ok(Self { slot }) } else { Err(Failure::new("all slots are in use")) }
    }

    /// The number of its slot.
    pub fn slot(self) -> usize {
        self.slot
    }

    /// Whether it was made to run before the tester goes on.
    pub fn is_first(self) -> bool {
        ALL_SLOTS[self.slot].priority.load(Relaxed) > PRIORITY
    }

    /// Whether it runs code of its own by now.
    pub fn has_begun(self) -> bool {
        ALL_SLOTS[self.slot].has_begun.load(Relaxed)
    }

    /// The calling thread.
    pub fn me() -> Self {
        Self { slot: (utcb().my_global_id().thread_no() - supervisor().thread_no() - 1) as usize }
    }

    /// The global id.
    pub fn id(self) -> ThreadId {
        id_of(self.slot)
    }

    /// Address of the UTCB.
    pub fn utcb_location(self) -> Word {
        ROOT_UTCB_AREA_BASE + (self.slot + 1) as Word * UTCB_SIZE as Word
    }

    /// The local id.
    pub fn local_id(self) -> ThreadId {
        ThreadId::local(self.utcb_location() + UTCB_MR0_OFFSET as Word)
    }

    /// Where the stack begins.
    pub fn stack_top(self) -> Word {
        ALL_SLOTS[self.slot].stack.start_sp()
    }

    /// Waits for the end of the thread's body; its failure is the caller's. For the tester.
    #[track_caller]
    pub fn join(self) -> Outcome {
        Msg::new(JOIN).load();
        ipc::call_timeouts(self.id(), timeouts(PATIENCE, PATIENCE))
            .map_err(|error| Failure::new(format_args!("{self} does not end: {error:?}")))?;
        // SAFETY: [SLOT]: its thread has answered after it wrote the result.
        let outcome = unsafe { *ALL_SLOTS[self.slot].outcome.get() };
        outcome.map_err(|failure| failure.within(self))
    }

    /// Deletes the thread.
    #[track_caller]
    pub fn delete(self) -> Outcome {
        Ok(thread::delete(self.id())?)
    }

    /// Cuts off whatever the thread does and has it begin again.
    #[track_caller]
    pub fn restart(self) -> Outcome {
        // SAFETY: the code is there, and the stack is the slot's; what was on it is not used any more.
        unsafe { thread::start_at(self.id(), self.stack_top(), begin as *const () as Word) }?;
        Ok(())
    }

    /// ExchangeRegisters for a thread of a test, wherever that leads it.
    #[track_caller]
    pub fn exchange(self, control: ExregsControl, new: Registers) -> Outcome<Exchanged> {
        // SAFETY: [ASTRAY].
        Ok(unsafe { thread::exchange_registers(self.id(), control, new) }?)
    }

    /// Has the thread go on with this instruction pointer, out of whatever it does.
    #[track_caller]
    pub fn send_to(self, ip: Word) -> Outcome {
        self.exchange(ExregsControl::START | ExregsControl::IP, Registers { ip, ..Registers::ZERO })?;
        Ok(())
    }

    /// Sends the start message to a thread that waits for it, under the id that it has by now, with its slot's stack.
    #[track_caller]
    pub fn send_start_to(self, id: ThreadId, ip: Word) -> Outcome {
        // SAFETY: [ASTRAY].
        Ok(unsafe { thread::send_start(id, ip, self.stack_top()) }?)
    }

    /// Word `index` of the stack of a thread that sleeps, from the top down.
    pub fn stack_word(self, index: usize) -> Word {
        assert!(index < STACK_SIZE / size_of::<Word>(), "the stack ends");
        // SAFETY: a word of the slot's stack; its thread does not write meanwhile.
        unsafe { arch::read_at(self.stack_top() - ((index + 1) * size_of::<Word>()) as Word) }
    }

    /// What the thread does, as Schedule says.
    #[track_caller]
    pub fn state(self) -> Outcome<ScheduleResult> {
        use l4::{PreemptionControl, PrioControl, ProcessorControl, TimeControl};
        let unchanged = (ProcessorControl::NO_CHANGE, PrioControl::NO_CHANGE, PreemptionControl::NO_CHANGE);
        let found = schedule::schedule(self.id(), TimeControl::NO_CHANGE, unchanged.0, unchanged.1, unchanged.2)?;
        Ok(found.0)
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slot {
            TESTER => f.write_str("the tester"),
            slot => write!(f, "thread {slot}"),
        }
    }
}

/// How a thread is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    space: Space,
    pager: ThreadId,
    exception_handler: ThreadId,
    priority: u8,
}

/// A thread in the program's space that runs before the caller goes on; a fault of it fails the test.
pub fn plan() -> Plan {
    Plan { space: Space::own(), pager: supervisor(), exception_handler: supervisor(), priority: PRIORITY_FIRST }
}

impl Plan {
    /// In this space.
    pub fn space(self, space: Space) -> Self {
        Self { space, ..self }
    }

    /// Page faults go to this thread, once the program's image is there.
    pub fn pager(self, pager: ThreadId) -> Self {
        Self { pager, ..self }
    }

    /// Exceptions go to this thread.
    pub fn exception_handler(self, exception_handler: ThreadId) -> Self {
        Self { exception_handler, ..self }
    }

    /// With this priority.
    pub fn priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    /// Makes the thread and starts it.
    #[track_caller]
    pub fn spawn<F: Fn() -> Outcome + Copy + Send + 'static>(self, body: F) -> Outcome<Thread> {
        let thread = Thread::reserve()?;
        self.spawn_in(thread, body)?;
        Ok(thread)
    }

    #[track_caller]
    fn spawn_in<F: Fn() -> Outcome + Copy + Send + 'static>(self, thread: Thread, body: F) -> Outcome {
        self.store(thread, body);
        let slot = &ALL_SLOTS[thread.slot];
        slot.has_begun.store(false, Relaxed);
        slot.priority.store(self.priority, Relaxed);
        let space = self.space.specifier();
        thread::thread_control(thread.id(), space, supervisor(), supervisor(), Some(thread.utcb_location()))?;
        schedule::set_priority(thread.id(), self.priority)?;
        placement::place(thread)?;
        thread.restart()?;
        if self.priority > PRIORITY {
            placement::settle();
        }
        Ok(())
    }

    fn store<F: Fn() -> Outcome + Copy + Send + 'static>(self, thread: Thread, body: F) {
        const {
            assert!(size_of::<F>() <= BODY_WORDS * size_of::<Word>() && align_of::<F>() <= align_of::<Word>());
        }
        let mut start = Start {
            body: [MaybeUninit::uninit(); BODY_WORDS],
            call: Some(|body| {
                // SAFETY: called with the address of the copy made below, which stays as long as the test lasts.
                let body = unsafe { &*body.cast::<F>() };
                body()
            }),
            pager: self.pager,
            exception_handler: self.exception_handler,
        };
        // SAFETY: there is room for it, aligned, by the assertion.
        unsafe { start.body.as_mut_ptr().cast::<F>().write(body) };
        // SAFETY: [SLOT]: the slot is the caller's, and its thread has not started.
        unsafe { *ALL_SLOTS[thread.slot].start.get() = start };
    }
}

/// Gives the last `count` slots that were taken back, whose threads are deleted.
pub fn give_back(count: usize) {
    USED.fetch_sub(count, Relaxed);
}

/// Makes a thread that runs now, until it blocks.
#[track_caller]
pub fn spawn<F: Fn() -> Outcome + Copy + Send + 'static>(body: F) -> Outcome<Thread> {
    plan().spawn(body)
}

/// Makes a thread that runs when the caller blocks.
#[track_caller]
pub fn spawn_later<F: Fn() -> Outcome + Copy + Send + 'static>(body: F) -> Outcome<Thread> {
    plan().priority(PRIORITY_LATER).spawn(body)
}

/// The body of a thread that never blocks.
pub fn spin_forever() -> Outcome {
    loop {
        core::hint::spin_loop();
    }
}

/// Where every thread begins. In another space the first instruction faults, and the supervisor maps the image.
extern "C" fn begin() -> ! {
    let slot = &ALL_SLOTS[Thread::me().slot];
    // SAFETY: [SLOT]: written before this thread started, and not again.
    let start = unsafe { &*slot.start.get() };
    utcb().set_pager(start.pager);
    utcb().set_exception_handler(start.exception_handler);
    slot.has_begun.store(true, Relaxed);
    let outcome = start.call.map_or(Ok(()), |call| call(start.body.as_ptr().cast()));
    // SAFETY: [SLOT]: nobody reads it before this thread says so.
    unsafe { *slot.outcome.get() = outcome };
    tell_result()
}

/// The tester tells the supervisor that there is a result; others wait for the tester's question.
fn tell_result() -> ! {
    if Thread::me() == tester() {
        Msg::new(OVER).load();
        // If this does not get through, the supervisor notices at the end of its patience.
        let _ = ipc::send(supervisor());
        sleep_forever();
    }
    loop {
        if ipc::receive(tester().id()).is_ok_and(|question| question.tag.label() == JOIN) {
            Msg::new(JOIN).load();
            // The tester waits for the answer, or has given up. A redirector may have to come back first.
            let _ = ipc::send_timeout(tester().id(), PATIENCE);
        }
    }
}

/// What ExchangeRegisters answers about no thread at all, of which everything is asked to stay.
pub fn raw_inspect(id: ThreadId) -> RawExregs {
    let raw = RawExregs { thread: id, control: 0, sp: 1, ip: 2, flags: 3, handle: 4, pager: ThreadId::from_raw(5) };
    // SAFETY: nothing is written, aborted or halted.
    unsafe { l4::arch::exchange_registers(id, ExregsControl::NONE, raw) }
}

// --- for the supervisor ---

/// Forgets the threads of the last test.
pub fn begin_test() {
    SUPERVISOR.store(kip::root_task_id().raw(), Relaxed);
    GENERATION.fetch_add(1, Relaxed);
    USED.store(0, Relaxed);
    ALL_SLOTS.iter().for_each(|slot| slot.priority.store(0, Relaxed));
}

/// Starts the test.
pub fn spawn_tester<F: Fn() -> Outcome + Copy + Send + 'static>(body: F) -> Outcome {
    let thread = Thread::reserve()?;
    plan().priority(PRIORITY).spawn_in(thread, body)
}

/// What the test came to, after the tester said that it is over.
pub fn tester_outcome() -> Outcome {
    // SAFETY: [SLOT]: the tester has said that it is done.
    unsafe { *ALL_SLOTS[TESTER].outcome.get() }
}

/// Deletes all threads of the test, and their spaces by that.
pub fn delete_all() {
    for slot in 0..SLOTS {
        // There may be no such thread, which is no error.
        let _ = thread::delete(id_of(slot));
    }
}

/// The threads that the test may have made.
pub fn living() -> impl Iterator<Item = Thread> {
    (0..USED.load(Relaxed).min(SLOTS)).map(|slot| Thread { slot })
}

/// A thread by any of its ids, for messages.
pub fn name(id: ThreadId) -> impl fmt::Display {
    let is_it = move |thread: &Thread| id == thread.id() || id == thread.local_id();
    fmt::from_fn(move |f| match living().find(is_it) {
        Some(thread) => write!(f, "{thread}"),
        None => write!(f, "{id:?}"),
    })
}
