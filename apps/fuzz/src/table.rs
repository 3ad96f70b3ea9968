//! Who there is.
//!
//! | who | how many | space |
//! |---|---|---|
//! | root, which watches | 1 | root |
//! | the pager | 1 | root |
//! | native players | 1 for each processor | root |
//! | strangers | 1 for each processor | one of its own |
//! | wild threads, made by natives | a few | any |
//!
//! Root and the pager are *vital*: natives, who might, do nothing to them. Strangers try.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::{ThreadId, UTCB_MR0_OFFSET, UTCB_SIZE, Word, kip, utcb};

/// Processors with players, at most.
const GROUPS_MAX: usize = 32;
/// Players at most.
pub const PLAYERS_MAX: usize = 2 * GROUPS_MAX;
/// Numbers of wild threads.
pub const WILD: usize = 12;
/// Versions that wild threads have.
pub const WILD_VERSIONS: usize = 3;
const FIRST_PLAYER: Word = 2;
const FIRST_WILD: Word = 256;

/// Where the UTCB of a player in a space of its own is.
pub const OWN_UTCB: Word = 0x8000_0000;

const STACK_WORDS: usize = 2048;
/// Words that players send and receive as strings.
const BUFFER_WORDS: usize = 1024;
/// System calls that are remembered.
const LOG: usize = 6;
/// Words of one of them.
pub const LOG_WORDS: usize = 6;

/// What a player has of its own: whole pages, to which no other space may write. What a stranger receives may go beyond the end
/// of its buffer: what root believes stands before that.
#[repr(C, align(4096))]
pub struct Block {
    /// System calls in this life.
    calls: AtomicU64,
    log: [[AtomicU64; LOG_WORDS]; LOG],
    stack: [AtomicU64; STACK_WORDS],
    /// What it sends and receives.
    pub buffer: [AtomicU64; BUFFER_WORDS],
}

static BLOCKS: [Block; PLAYERS_MAX] = [const {
    Block {
        calls: AtomicU64::new(0),
        log: [const { [const { AtomicU64::new(0) }; LOG_WORDS] }; LOG],
        stack: [const { AtomicU64::new(0) }; STACK_WORDS],
        buffer: [const { AtomicU64::new(0) }; BUFFER_WORDS],
    }
}; PLAYERS_MAX];

/// Lives of the players so far.
static LIVES: [AtomicU64; PLAYERS_MAX] = [const { AtomicU64::new(0) }; PLAYERS_MAX];

/// Pages that everybody may have and map, and strangers grant and lose.
#[repr(C, align(65536))]
pub struct Arena([AtomicU64; 8192]);

static ARENA: Arena = Arena([const { AtomicU64::new(0) }; 8192]);

/// log2 of the arena's size.
pub const ARENA_LOG2: u32 = 16;

/// Its address.
pub fn arena() -> Word {
    (&raw const ARENA).expose_provenance() as Word
}

/// Where natives take what they are sent: of what lies in the arena nothing may get lost, as strangers live on it.
static LAGOON: Arena = Arena([const { AtomicU64::new(0) }; 8192]);

/// The address of the lagoon, which is as large as the arena.
pub fn lagoon() -> Word {
    (&raw const LAGOON).expose_provenance() as Word
}

/// The first thread of the root task.
pub fn root() -> ThreadId {
    kip::root_task_id()
}

/// The pager.
pub fn pager() -> ThreadId {
    ThreadId::global(root().thread_no() + 1, 1)
}

/// Wild thread `n` with one of the versions.
pub fn wild(n: usize, version: usize) -> ThreadId {
    ThreadId::global(root().thread_no() + FIRST_WILD + n as Word, (version as Word) << 6 | 1)
}

/// The local id that a stranger has in its own space.
pub fn local_id_of_strangers() -> ThreadId {
    ThreadId::local(OWN_UTCB + UTCB_MR0_OFFSET as Word)
}

/// The local id in root's space of the `n`th thread after root.
fn local_in_root(n: Word) -> ThreadId {
    ThreadId::local(utcb_location_in_root(n) + UTCB_MR0_OFFSET as Word)
}

/// The UTCB location in root's space of the `n`th thread after root.
pub fn utcb_location_in_root(n: Word) -> Word {
    l4::ROOT_UTCB_AREA_BASE + n * UTCB_SIZE as Word
}

/// Whether the program depends on the thread, or the system does.
pub fn is_vital(id: ThreadId) -> bool {
    if id.is_local() {
        return id == local_in_root(0) || id == local_in_root(1);
    }
    let no = id.thread_no();
    // Below root there are interrupts, which nobody needs, and the kernel's own servers.
    no >= kip::kip().thread_info.system_base() && no <= root().thread_no() + 1
}

/// Whether root will delete the thread in the end, should a native make or change it now.
pub fn can_be_ended(id: ThreadId) -> bool {
    let is_present = Player::of(id).is_some_and(|player| id.is_local() || id == player.id());
    is_present || id.is_local() || id.thread_no() < kip::kip().thread_info.system_base()
}

/// A player.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Player(usize);

impl Player {
    /// All of them, on this machine.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..2 * kip::num_processors().min(GROUPS_MAX)).map(Self)
    }

    /// One by its number, from 0.
    pub const fn at(index: usize) -> Self {
        Self(index)
    }

    /// The calling thread, if it is one.
    pub fn me() -> Option<Self> {
        Self::of(utcb().my_global_id())
    }

    /// Who has this id in some life, or has the number.
    pub fn of(id: ThreadId) -> Option<Self> {
        if id.is_local() {
            return Self::all().find(|player| player.is_native() && player.local_id() == id);
        }
        let n = id.thread_no().checked_sub(root().thread_no() + FIRST_PLAYER)?;
        Self::all().nth(usize::try_from(n).ok()?)
    }

    /// Its number.
    pub const fn index(self) -> usize {
        self.0
    }

    /// Whether it is in root's space.
    pub const fn is_native(self) -> bool {
        self.0.is_multiple_of(2)
    }

    /// Where it begins.
    pub fn processor(self) -> u16 {
        (self.0 / 2) as u16
    }

    /// Its id in its present life.
    pub fn id(self) -> ThreadId {
        self.id_of(self.life())
    }

    /// Its id in one of its lives.
    pub fn id_of(self, life: u64) -> ThreadId {
        ThreadId::global(root().thread_no() + FIRST_PLAYER + self.0 as Word, life << 6 | 1)
    }

    /// Its local id, in its space.
    pub fn local_id(self) -> ThreadId {
        ThreadId::local(self.utcb_location() + UTCB_MR0_OFFSET as Word)
    }

    /// Its UTCB location, in its space.
    pub fn utcb_location(self) -> Word {
        if self.is_native() { utcb_location_in_root(FIRST_PLAYER + self.0 as Word) } else { OWN_UTCB }
    }

    /// The number of its present life.
    pub fn life(self) -> u64 {
        LIVES[self.0].load(Relaxed)
    }

    /// Its next life begins.
    pub fn begin_life(self) {
        LIVES[self.0].fetch_add(1, Relaxed);
        self.block().calls.store(0, Relaxed);
    }

    /// What it has of its own.
    pub fn block(self) -> &'static Block {
        &BLOCKS[self.0]
    }

    /// Where its stack begins.
    pub fn start_sp(self) -> Word {
        // As the processor's ABI has it where a function begins: a word below a multiple.
        const ALIGN: usize = 16;
        let stack = &self.block().stack;
        let end = stack.as_ptr().expose_provenance() + size_of_val(stack);
        (end / ALIGN * ALIGN - size_of::<Word>()) as Word
    }

    /// Whether the address is in what it has of its own, or in the arena: there it may write.
    pub fn may_write(self, address: Word) -> bool {
        let block = core::ptr::from_ref(self.block()).addr() as Word;
        (block..block + size_of::<Block>() as Word).contains(&address) || address >> ARENA_LOG2 == arena() >> ARENA_LOG2
    }

    /// System calls in its present life, as it says.
    pub fn calls(self) -> u64 {
        self.block().calls.load(Relaxed)
    }

    /// It is about to make a system call of some kind, with these words.
    pub fn note(self, kind: usize, words: [Word; LOG_WORDS - 1]) {
        let block = self.block();
        let entry = &block.log[block.calls.load(Relaxed) as usize % LOG];
        entry[0].store(kind as u64 + 1, Relaxed);
        entry[1..].iter().zip(words).for_each(|(place, word)| place.store(word, Relaxed));
        block.calls.fetch_add(1, Relaxed);
    }

    /// Its last system calls, the last one first: kind and words.
    pub fn last_calls(self) -> impl Iterator<Item = (usize, [Word; LOG_WORDS - 1])> {
        let block = self.block();
        let calls = block.calls.load(Relaxed) as usize;
        (1..=LOG.min(calls)).filter_map(move |back| {
            let entry = &block.log[(calls - back) % LOG];
            let kind = (entry[0].load(Relaxed) as usize).checked_sub(1)?;
            Some((kind, core::array::from_fn(|i| entry[i + 1].load(Relaxed))))
        })
    }
}

impl fmt::Display for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_native() { "native" } else { "stranger" };
        write!(f, "{kind} {} in life {}", self.0, self.life())
    }
}
