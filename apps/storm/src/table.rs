//! Who there is: a slot for each thread that there can be, shared by all spaces that run the program's image.
//!
//! | role | in each group, of which there is one a processor | space | can be deleted, halted |
//! |---|---|---|---|
//! | controller | 1 | root | no |
//! | server | 1 | the city | no |
//! | native | 1 | root | yes |
//! | citizen | 1 | the city | yes |
//! | hermit | 1 | one of its own | yes |
//! | writer | 1 | that of the writers | no |
//!
//! Besides there are pagers and the overseer of the writers, in root's space; threads that keep a space alive; and wild
//! threads, about whose lives nobody keeps books. The first five roles are *participants*: they send each other messages.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use l4::thread::Stack;
use l4::{ThreadId, Time, UTCB_MR0_OFFSET, UTCB_SIZE, Word, kip, time, utcb};

/// Groups at most: on more processors than that threads spread by being moved.
pub const GROUPS_MAX: usize = 32;
/// Pagers at most.
const PAGERS_MAX: usize = 8;
/// Threads about which nobody keeps books.
pub const WILD: usize = 8;

const ROLES: usize = 6;
const FIRST_PAGER: usize = GROUPS_MAX * ROLES;
const OVERSEER: usize = FIRST_PAGER + PAGERS_MAX;
const CITY: usize = OVERSEER + 1;
const WRITERS: usize = CITY + 1;
const FIRST_WILD: usize = WRITERS + 1;
const SLOTS: usize = FIRST_WILD + WILD;

/// First address of the UTCB area of spaces other than root's.
pub const UTCB_AREA_BASE: Word = 0x8000_0000;
/// log2 of the number of UTCBs there.
pub const UTCBS_LOG2: u32 = SLOTS.next_power_of_two().ilog2();

const STACK_SIZE: usize = 0x2000;
/// When somebody who found a lock taken looks again.
const LOCK_AGAIN: Time = Time::period_us(50);

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Does things to others, and takes part.
    Controller,
    /// Answers messages.
    Server,
    /// Takes part in root's space.
    Native,
    /// Takes part in the space of the servers.
    Citizen,
    /// Takes part in a space of its own.
    Hermit,
    /// Writes to a page that is taken away again and again.
    Writer,
    /// Serves page faults.
    Pager,
    /// Takes the page away.
    Overseer,
    /// Keeps a space alive.
    Anchor,
    /// Comes and goes.
    Wild,
}

impl Role {
    const IN_GROUP: [Self; ROLES] =
        [Self::Controller, Self::Server, Self::Native, Self::Citizen, Self::Hermit, Self::Writer];

    /// Whether it lives from the beginning to the end, never halted.
    pub fn is_lasting(self) -> bool {
        !self.is_mortal() && self != Self::Wild
    }

    /// Whether controllers delete and halt it.
    pub fn is_mortal(self) -> bool {
        matches!(self, Self::Native | Self::Citizen | Self::Hermit)
    }

    /// Whether its space is root's.
    pub fn is_in_root(self) -> bool {
        matches!(self, Self::Controller | Self::Native | Self::Pager | Self::Overseer)
    }
}

/// The place of a thread in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

struct Entry {
    /// The version of the id; 0: there is no such thread.
    version: AtomicU64,
    is_started: AtomicBool,
    is_halted: AtomicBool,
    /// A controller is changing its life.
    is_locked: AtomicBool,
    pager: AtomicUsize,
    stack: Stack<STACK_SIZE>,
}

static TABLE: [Entry; SLOTS] = [const {
    Entry {
        version: AtomicU64::new(0),
        is_started: AtomicBool::new(false),
        is_halted: AtomicBool::new(false),
        is_locked: AtomicBool::new(false),
        pager: AtomicUsize::new(0),
        stack: Stack::new(),
    }
}; SLOTS];

/// Lives so far of all threads.
static LIVES: AtomicU64 = AtomicU64::new(0);

/// The number of groups.
pub fn groups() -> usize {
    kip::num_processors().min(GROUPS_MAX)
}

fn pagers() -> usize {
    groups().min(PAGERS_MAX)
}

/// Lives that were begun.
pub fn lives() -> u64 {
    LIVES.load(Ordering::Relaxed)
}

/// All threads of one role.
pub fn all_of(role: Role) -> impl Iterator<Item = Slot> {
    all().filter(move |slot| slot.role() == role)
}

/// All slots in use on this machine.
pub fn all() -> impl Iterator<Item = Slot> {
    (0..SLOTS).map(Slot).filter(|slot| slot.is_in_use())
}

/// Participant `n` of all, counted from 0; `None` behind the last.
pub fn participant(n: usize) -> Option<Slot> {
    (n < participants()).then(|| Slot::in_group(n / (ROLES - 1), n % (ROLES - 1)))
}

/// How many take part.
pub fn participants() -> usize {
    groups() * (ROLES - 1)
}

/// The thread that `thread_no` names.
fn slot_of_number(thread_no: Word) -> Option<Slot> {
    let first = root().thread_no() + 1;
    usize::try_from(thread_no.checked_sub(first)?).ok().filter(|&index| index < SLOTS).map(Slot)
}

/// The thread of a global id, or of a local one of the calling thread's space.
pub fn slot_of(id: ThreadId) -> Option<Slot> {
    if id.is_global() {
        return slot_of_number(id.thread_no());
    }
    let offset = id.raw().checked_sub(UTCB_MR0_OFFSET as Word + utcb_base(Slot::me().role().is_in_root()))?;
    usize::try_from(offset / UTCB_SIZE as Word).ok().filter(|&index| index < SLOTS).map(Slot)
}

/// Where the UTCB of the first slot is.
fn utcb_base(is_in_root: bool) -> Word {
    if is_in_root { l4::ROOT_UTCB_AREA_BASE + UTCB_SIZE as Word } else { UTCB_AREA_BASE }
}

/// The first thread of the root task.
pub fn root() -> ThreadId {
    kip::root_task_id()
}

impl Slot {
    /// The overseer.
    pub const OVERSEER: Self = Self(OVERSEER);
    /// Keeps the space of servers and citizens.
    pub const CITY: Self = Self(CITY);
    /// Keeps the space of the writers.
    pub const WRITERS: Self = Self(WRITERS);

    fn in_group(group: usize, role: usize) -> Self {
        Self(group * ROLES + role)
    }

    /// The calling thread.
    ///
    /// # Panics
    /// In root's first thread.
    pub fn me() -> Self {
        slot_of_number(utcb().my_global_id().thread_no()).expect("all threads but the first have slots")
    }

    /// The thread with this number in the table.
    pub fn at(index: usize) -> Option<Self> {
        Some(Self(index)).filter(|slot| index < SLOTS && slot.is_in_use())
    }

    /// Its number in the table.
    pub const fn index(self) -> usize {
        self.0
    }

    /// Pager `n`, modulo their number.
    pub fn pager(n: usize) -> Self {
        Self(FIRST_PAGER + n % pagers())
    }

    /// The server of a group.
    pub fn server(group: usize) -> Self {
        Self::in_group(group, 1)
    }

    /// Wild thread `n`.
    pub fn wild(n: usize) -> Self {
        Self(FIRST_WILD + n)
    }

    fn is_in_use(self) -> bool {
        match self.0 {
            index if index < FIRST_PAGER => index / ROLES < groups(),
            index if index < OVERSEER => index - FIRST_PAGER < pagers(),
            _ => true,
        }
    }

    /// What it is for.
    pub fn role(self) -> Role {
        match self.0 {
            index if index < FIRST_PAGER => Role::IN_GROUP[index % ROLES],
            index if index < OVERSEER => Role::Pager,
            OVERSEER => Role::Overseer,
            CITY | WRITERS => Role::Anchor,
            _ => Role::Wild,
        }
    }

    /// Its group, which is also the processor where it begins.
    pub fn group(self) -> usize {
        if self.0 < FIRST_PAGER { self.0 / ROLES } else { self.0 % groups() }
    }

    fn entry(self) -> &'static Entry {
        &TABLE[self.0]
    }

    /// The version of its id; 0: it does not exist.
    pub fn version(self) -> Word {
        self.entry().version.load(Ordering::Acquire)
    }

    /// Its id in the life with this version.
    pub fn id_of(self, version: Word) -> ThreadId {
        ThreadId::global(root().thread_no() + 1 + self.0 as Word, version)
    }

    /// Its id, if it exists.
    pub fn id(self) -> Option<ThreadId> {
        Some(self.version()).filter(|&version| version != 0).map(|version| self.id_of(version))
    }

    /// The id that it is going to have: another for each life.
    pub fn next_id(self) -> ThreadId {
        // One of the low six bits is set.
        self.id_of((LIVES.fetch_add(1, Ordering::Relaxed) + 1) << 6 | 1)
    }

    /// Address of its UTCB, in whichever space it is.
    pub fn utcb_location(self) -> Word {
        utcb_base(self.role().is_in_root()) + self.0 as Word * UTCB_SIZE as Word
    }

    /// Its local id.
    pub fn local_id(self) -> ThreadId {
        ThreadId::local(self.utcb_location() + UTCB_MR0_OFFSET as Word)
    }

    /// Its stack pointer at the start.
    pub fn start_sp(self) -> Word {
        self.entry().stack.start_sp()
    }

    /// Notes that it exists under this id, with this pager, and has not started.
    pub fn set_alive(self, id: ThreadId, pager: Self) {
        let entry = self.entry();
        entry.is_started.store(false, Ordering::Relaxed);
        entry.is_halted.store(false, Ordering::Relaxed);
        entry.pager.store(pager.0, Ordering::Relaxed);
        entry.version.store(id.version(), Ordering::Release);
    }

    /// Notes that it does not exist any more.
    pub fn set_dead(self) {
        self.entry().version.store(0, Ordering::Release);
    }

    /// Whether it has got its start message in this life.
    pub fn is_started(self) -> bool {
        self.entry().is_started.load(Ordering::Acquire)
    }

    /// Notes that it has.
    pub fn set_started(self) {
        self.entry().is_started.store(true, Ordering::Release);
    }

    /// Whether it is halted. For who has it locked.
    pub fn is_halted(self) -> bool {
        self.entry().is_halted.load(Ordering::Relaxed)
    }

    /// Notes that it is halted or resumed. For who has it locked.
    pub fn set_halted(self, is_halted: bool) {
        self.entry().is_halted.store(is_halted, Ordering::Relaxed);
    }

    /// Its pager.
    pub fn its_pager(self) -> Self {
        Self(self.entry().pager.load(Ordering::Relaxed))
    }

    /// Locks its life, if nobody else has.
    pub fn try_lock(self) -> Option<Lock> {
        let is_free = !self.entry().is_locked.swap(true, Ordering::Acquire);
        // Not `then_some`: a lock that is made is dropped, and so given up.
        is_free.then(|| Lock(self))
    }

    /// Locks its life; waits for others, asleep: who has the lock, or whom that one waits for, may have a lower priority.
    pub fn lock(self) -> Lock {
        loop {
            match self.try_lock() {
                Some(lock) => return lock,
                None => time::sleep(LOCK_AGAIN),
            }
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} (life {})", self.role(), self.0, self.version() >> 6)
    }
}

/// The right to change a thread's life. Only threads that are never deleted lock.
pub struct Lock(Slot);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.entry().is_locked.store(false, Ordering::Release);
    }
}

/// A number for each ordered pair of threads, with the life of one of them.
pub struct Pairs([[AtomicU64; SLOTS]; SLOTS]);

impl Pairs {
    /// Zero everywhere.
    pub const fn new() -> Self {
        Self([const { [const { AtomicU64::new(0) }; SLOTS] }; SLOTS])
    }

    /// The number of `a` about the life of `b` with this version; 0 if it has none.
    pub fn get(&self, a: Slot, b: Slot, version: Word) -> u64 {
        let word = self.0[a.0][b.0].load(Ordering::Relaxed);
        if word >> 32 == version { word & u64::from(u32::MAX) } else { 0 }
    }

    /// Sets it.
    pub fn set(&self, a: Slot, b: Slot, version: Word, number: u64) {
        self.0[a.0][b.0].store(version << 32 | number, Ordering::Relaxed);
    }

    /// Forgets all numbers of `a`.
    pub fn clear(&self, a: Slot) {
        self.0[a.0].iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}
