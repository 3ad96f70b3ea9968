//! One system call, as the dice say: shaped, so that it gets somewhere, but with whatever a program can put into its
//! registers.

use core::hint::black_box;

use dice::Dice;
use l4::arch::{self, RawExregs};
use l4::{
    Acceptor, ExregsControl, Fpage, MsgTag, PreemptionControl, PrioControl, ProcessorControl, SpaceControl, ThreadId,
    Time, TimeControl, Timeouts, UnmapControl, Word, kip, schedule, thread, utcb,
};

use crate::player::play;
use crate::table::{self, ARENA_LOG2, LOG_WORDS, OWN_UTCB, Player, WILD, WILD_VERSIONS};

/// The kinds of system calls, by name.
pub const KINDS: [&str; 10] = [
    "Ipc",
    "Unmap",
    "Schedule",
    "ExchangeRegisters",
    "ThreadControl",
    "SpaceControl",
    "ThreadSwitch",
    "MemoryControl",
    "ProcessorControl",
    "SystemClock",
];

/// Nobody has a stack here.
const NO_STACK: Word = 0x1000;
/// Compiled code relies on it to be clear.
const DIRECTION_FLAG: Word = 1 << 10;
/// The bits of ExchangeRegisters that set stack and instruction pointer.
const SP_AND_IP: Word = 3 << 3;

/// A control word for threads that share memory with what the program depends on: a stack comes with the place where a thread
/// goes on, and the other way round; flags would change what it decides, in the middle of something.
/// Whoever became their pager could put anything anywhere in root's space.
fn for_natives(control: Word) -> Word {
    let control = control & !(ExregsControl::PAGER.raw() | ExregsControl::FLAGS.raw());
    if control & SP_AND_IP == SP_AND_IP { control } else { control & !SP_AND_IP }
}

/// Who makes the calls.
pub struct Caller {
    player: Player,
    /// It is in root's space. A stranger can be: who deletes it there can make it here.
    is_native: bool,
    dice: Dice,
}

impl Caller {
    /// The calling thread, whose choices follow from the seed, its life and how far it has come: it may be sent here again; `None` if it is no player.
    pub fn new(seed: u64) -> Option<Self> {
        let player = Player::me()?;
        Some(Self {
            player,
            is_native: thread::my_local_id() != table::local_id_of_strangers(),
            dice: Dice::new(seed, (player.index() as u64) << 48 | player.life() << 24 | player.calls()),
        })
    }

    /// Makes a call.
    pub fn step(&mut self) {
        match self.dice.within(0..100) {
            0..=44 => self.ipc(),
            45..=54 => self.unmap(),
            55..=62 => self.schedule(),
            63..=72 => self.exchange_registers(),
            73..=80 => self.thread_control(),
            81..=84 => self.space_control(),
            85..=89 => self.thread_switch(),
            90..=93 => self.memory_control(),
            94..=95 => self.processor_control(),
            96 => self.touch(),
            _ => self.clock(),
        }
    }

    fn note(&self, kind: usize, words: [Word; LOG_WORDS - 1]) {
        self.player.note(kind, words);
    }

    const fn is_native(&self) -> bool {
        self.is_native
    }

    // --- values ---

    /// Any word: often one at some edge.
    fn word(&mut self) -> Word {
        let raw = self.dice.next();
        match self.dice.within(0..8) {
            0 => 0,
            1 => Word::MAX,
            2 => 1 << self.dice.within(0..64),
            3 => (1 << self.dice.within(0..64)) - 1,
            4 => raw & 0xFF,
            5 => raw & 0xFFFF_FFFF,
            _ => raw,
        }
    }

    /// An address: of something, or of nothing.
    fn address(&mut self) -> Word {
        let offset = self.dice.within(0..1 << ARENA_LOG2) as Word;
        match self.dice.within(0..12) {
            0..=4 => table::arena() + offset,
            5 => self.player.start_sp() & !0xFFF,
            6 => self.player.block().buffer.as_ptr().expose_provenance() as Word + offset % 8000,
            7 => core::ptr::from_ref(kip()).addr() as Word + offset % 4096,
            8 => self.player.utcb_location() + offset % 512,
            // The border to what is not canonical, and the kernel.
            9 => (1 << 47) - 1 - offset % 64,
            10 => self.dice.one_of(&[0xFFFF_8000_0000_0000, 0xFFFF_FFFF_8060_0000, Word::MAX - 7]) + offset % 8,
            _ => self.word(),
        }
    }

    /// Where a thread may be sent: it goes on with calls there, or faults at once.
    fn ip(&mut self) -> Word {
        match self.dice.within(0..16) {
            0..=12 => play as extern "C" fn() -> ! as usize as Word,
            // What is in the arena is no code that root's space could survive.
            13 if !self.is_native() => table::arena() + (1 << ARENA_LOG2) - 1,
            _ => self.dice.one_of(&[0, 8, 1 << 47, (1 << 47) - 1, Word::MAX, 0xFFFF_FFFF_8060_0000]),
        }
    }

    /// Where a thread is sent, and its stack. In root's space nobody may have the stack of somebody else, or write through
    /// a stack into what others need.
    fn start(&mut self, dest: ThreadId) -> (Word, Word) {
        let ip = self.ip();
        let own = Player::of(dest).map_or(NO_STACK, Player::start_sp);
        (ip, if self.is_native() || self.dice.is(50) { own } else { self.address() })
    }

    /// Any id.
    fn any_id(&mut self) -> ThreadId {
        let players = Player::all().count();
        let player = Player::at(self.dice.within(0..players));
        match self.dice.within(0..24) {
            0..=9 => player.id(),
            10..=12 => player.local_id(),
            13 => player.id_of(player.life().saturating_sub(1)),
            14 => self.player.id(),
            15..=16 => table::wild(self.dice.within(0..WILD), self.dice.within(0..WILD_VERSIONS)),
            17 => table::pager(),
            18 => self.dice.one_of(&[table::root(), kip::sigma0_id()]),
            19 => self.dice.one_of(&[ThreadId::NIL, ThreadId::ANY, ThreadId::ANY_LOCAL]),
            20 => ThreadId::interrupt(self.dice.within(0..40) as Word),
            21 => ThreadId::from_raw(player.local_id().raw() ^ (1 << self.dice.within(0..16))),
            _ => ThreadId::from_raw(self.word()),
        }
    }

    /// An id to which the caller may do what it likes.
    fn id(&mut self) -> ThreadId {
        let id = self.any_id();
        if self.is_native() && table::is_vital(id) { self.player.id() } else { id }
    }

    /// A timeout: mostly a short one, as nobody gets further while the caller waits.
    fn time(&mut self) -> Time {
        match self.dice.within(0..200) {
            0 => Time::NEVER,
            1 => Time::from_raw(self.dice.next() as u16),
            2..=20 => l4::time::in_us(self.dice.within(1..200) as u64).unwrap_or(Time::ZERO),
            21..=140 => Time::ZERO,
            _ => Time::period_us(self.dice.within(1..50) as u64),
        }
    }

    fn timeouts(&mut self) -> Timeouts {
        Timeouts::new(self.time(), self.time())
    }

    /// An fpage of a place that is as large as the arena.
    fn fpage_in(&mut self, place: Word) -> Word {
        let size_log2 = self.dice.within(12..ARENA_LOG2 as usize + 1);
        let base = place + (self.dice.within(0..16) as Word) * 4096;
        base >> size_log2 << size_log2 | (size_log2 as Word) << 4 | self.dice.next() & 7
    }

    /// An fpage. That of a native lies in arena or lagoon: root's space must keep the rest.
    fn fpage(&mut self) -> Word {
        if self.is_native() && self.dice.is(30) {
            return self.fpage_in(table::lagoon());
        }
        if self.is_native() || self.dice.is(50) {
            return self.fpage_in(table::arena());
        }
        match self.dice.within(0..6) {
            0 => Fpage::COMPLETE.raw() | 7,
            1 => Fpage::NIL.raw(),
            // An I/O fpage.
            2 => self.dice.next() & 0xFFFF_0000 | (self.dice.within(0..17) as Word) << 10 | 2 << 4 | 7,
            3 => self.address() >> 12 << 12 | (self.dice.within(0..64) as Word) << 4 | self.dice.next() & 15,
            4 => self.word() & 0x3FF | 1 << 40,
            _ => self.word(),
        }
    }

    /// Fpages in message registers from the first on; how many.
    fn load_fpages(&mut self) -> usize {
        let count = if self.dice.is(90) { self.dice.within(1..5) } else { self.dice.within(0..64) };
        for i in 0..count {
            let fpage = self.fpage();
            utcb().set_mr(i, fpage);
        }
        count
    }

    // --- calls ---

    fn ipc(&mut self) {
        let (to, from) = match self.dice.within(0..8) {
            0..=2 => {
                let partner = self.any_id();
                (partner, partner)
            }
            3 => (ThreadId::NIL, ThreadId::ANY),
            4 => (self.any_id(), ThreadId::ANY),
            5 => (self.any_id(), ThreadId::NIL),
            6 => (ThreadId::NIL, self.any_id()),
            _ => (self.any_id(), self.any_id()),
        };
        let timeouts = self.timeouts();
        self.load_message(to);
        self.load_buffers();
        // In the pager's name a native could put anything anywhere in root's space.
        let virtual_sender = self.id();
        utcb().set_virtual_sender(virtual_sender);
        let xfer = self.timeouts();
        utcb().set_xfer_timeouts(xfer);
        self.note(0, [to.raw(), from.raw(), timeouts.raw(), utcb().mr(0), utcb().mr(1)]);
        let is_local = self.dice.is(10);
        let outcome = if is_local { l4::ipc::lipc(to, from, timeouts) } else { l4::ipc::ipc(to, from, timeouts) };
        black_box(outcome.tag);
    }

    /// A message of words and items, or of anything.
    fn load_message(&mut self, to: ThreadId) {
        let untyped = if self.dice.is(80) { self.dice.within(0..8) } else { self.dice.within(0..64) };
        let typed = if self.dice.is(60) { 0 } else { self.dice.within(0..64 - untyped) & !1 };
        let mut tag = MsgTag::new(self.dice.next() >> 16, untyped, typed);
        match self.dice.within(0..10) {
            0 => tag = tag.with_flags(MsgTag::PROPAGATED),
            1 => tag = MsgTag::from_raw(self.word()),
            _ => {}
        }
        for at in 1..=untyped {
            let word = self.word();
            utcb().set_mr(at, word);
        }
        if self.dice.is(20) {
            let (ip, sp) = self.start(to);
            utcb().set_mr(1, ip);
            utcb().set_mr(2, sp);
        } else if self.is_native() {
            // Whoever takes it for a start message must not begin in the middle of something.
            utcb().set_mr(1, 0);
        }
        let mut at = untyped + 1;
        while at < untyped + typed && at + 1 < 64 {
            let [first, second] = self.item();
            utcb().set_mr(at, first);
            utcb().set_mr(at + 1, second);
            at += 2;
        }
        utcb().set_mr(0, tag.raw());
    }

    /// Two words of an item. Natives grant nothing, and send nothing but the arena and their buffer.
    fn item(&mut self) -> [Word; 2] {
        let native_string = self.player.block().buffer.as_ptr().expose_provenance() as Word;
        let more = self.dice.next() & 1;
        match self.dice.within(0..8) {
            0..=2 => {
                let send_base = self.address() & !0x3FF;
                let grant = if self.is_native() { 0 } else { self.dice.next() & 2 };
                [send_base | 8 | grant | more, self.fpage()]
            }
            3..=6 => {
                let len = if self.dice.is(80) { self.dice.within(0..4000) as Word } else { self.word() >> 42 };
                let parts = if self.dice.is(80) { 0 } else { self.dice.next() & 0x1F };
                let address = if self.is_native() { native_string } else { self.address() };
                [len << 10 | parts << 4 | more, address]
            }
            _ if self.is_native() => [8, self.fpage()],
            _ => [self.word(), self.word()],
        }
    }

    /// What is taken besides words. Natives take into the lagoon and their buffer alone.
    fn load_buffers(&mut self) {
        let window = if self.is_native() { self.fpage_in(table::lagoon()) } else { self.fpage() };
        let acceptor = match self.dice.within(0..4) {
            0 => 0,
            1 => window & !0xF | 1,
            2 if !self.is_native() => self.word(),
            _ => window & !0xF,
        };
        utcb().set_acceptor(Acceptor::from_raw(acceptor));
        let own = self.player.block().buffer.as_ptr().expose_provenance() as Word;
        for at in (1..if self.dice.is(90) { 7 } else { 32 }).step_by(2) {
            let more = self.dice.next() & 1;
            let len = if self.is_native() { 4000 } else { self.word() >> 42 };
            let address = if self.is_native() { own } else { self.address() };
            utcb().set_br(at, len << 10 | more);
            utcb().set_br(at + 1, address);
        }
    }

    fn unmap(&mut self) {
        let count = self.load_fpages();
        // What a native flushed would be gone for all of root's space.
        let control = if self.is_native() { count as Word & 0x3F } else { self.dice.next() & 0x40 | count as Word };
        let control = if self.dice.is(5) && !self.is_native() { self.word() } else { control };
        self.note(1, [control, utcb().mr(0), utcb().mr(1), utcb().mr(2), 0]);
        // SAFETY: a native flushes nothing. A stranger that loses what it needs faults, and is begun anew at worst.
        unsafe { arch::unmap(UnmapControl::from_raw(control)) };
    }

    fn schedule(&mut self) {
        let dest = self.id();
        let mut value = |all: Word| if self.dice.is(50) { Word::MAX } else { self.word() & all };
        let (time, processor, preemption) = (value(Word::MAX), value(0x1F), value(0x00FF_FFFF));
        // Nobody must come before root.
        let prio = if self.dice.is(50) { Word::MAX } else { self.dice.within(0..200) as Word };
        self.note(2, [dest.raw(), time, processor, prio, preemption]);
        let result = arch::schedule(
            dest,
            TimeControl::from_raw(time),
            ProcessorControl::from_raw(processor),
            PrioControl::from_raw(prio),
            PreemptionControl::from_raw(preemption),
        );
        black_box(result);
    }

    fn exchange_registers(&mut self) {
        let (dest, control) = (self.id(), self.dice.next() & if self.dice.is(90) { 0x3FF } else { Word::MAX });
        // Whoever halts itself is begun anew: not all the time.
        let control = if self.dice.is(95) { control & !1 } else { control };
        let control = if self.is_native() { for_natives(control) } else { control };
        let (ip, sp) = self.start(dest);
        let new = RawExregs {
            thread: dest,
            control,
            sp,
            ip,
            flags: self.word() & !DIRECTION_FLAG,
            handle: self.word(),
            pager: self.any_id(),
        };
        self.note(3, [dest.raw(), control, new.sp, new.ip, new.flags]);
        // SAFETY: players go on at the beginning, fault, or are begun anew; root and pager are spared.
        let old = unsafe { arch::exchange_registers(dest, ExregsControl::from_raw(control), new) };
        black_box(old.control);
    }

    fn thread_control(&mut self) {
        let dest = match self.dice.within(0..10) {
            0 => Some(self.id()).filter(|&id| !self.is_native() || table::can_be_ended(id)),
            _ => None,
        };
        let dest = match dest {
            Some(id) => id,
            None => table::wild(self.dice.within(0..WILD), self.dice.within(0..WILD_VERSIONS)),
        };
        let (space, scheduler, pager) = (self.id(), self.id(), self.id());
        let space = match self.dice.within(0..6) {
            0 => ThreadId::NIL,
            1..=2 => dest,
            3 => table::root(),
            _ => space,
        };
        let scheduler = if self.dice.is(60) { table::root() } else { scheduler };
        // As above: the pager of who may be in root's space.
        let pager = match self.dice.within(0..3) {
            0 => ThreadId::NIL,
            _ if self.is_native() && space != dest => table::pager(),
            1 => self.player.id(),
            _ => pager,
        };
        let utcb = match self.dice.within(0..4) {
            0 => Word::MAX,
            1 => OWN_UTCB + 512 * self.dice.within(0..8) as Word,
            // Behind those of players, in root's space.
            2 => table::utcb_location_in_root(100 + self.dice.within(0..16) as Word),
            _ => self.address(),
        };
        self.note(4, [dest.raw(), space.raw(), scheduler.raw(), pager.raw(), utcb]);
        black_box(arch::thread_control(dest, space, scheduler, pager, utcb));
    }

    fn space_control(&mut self) {
        let space = match self.dice.within(0..3) {
            0 => self.id(),
            _ => table::wild(self.dice.within(0..WILD), self.dice.within(0..WILD_VERSIONS)),
        };
        // Root's space would be redirected as a whole.
        let is_strangers = Player::of(space).is_some_and(|player| !player.is_native());
        let redirector = if self.is_native() && !is_strangers { ThreadId::NIL } else { self.any_id() };
        let (kip_area, utcb_area) = match self.dice.within(0..3) {
            0 => (self.word(), self.word()),
            1 => (core::ptr::from_ref(kip()).addr() as Word | 12 << 4, self.fpage()),
            _ => (core::ptr::from_ref(kip()).addr() as Word | 12 << 4, OWN_UTCB | 12 << 4),
        };
        let control = match self.dice.within(0..10) {
            0..=6 => 0,
            7 => SpaceControl::quota(Some(self.dice.within(0..200) as Word)).raw(),
            _ => self.word(),
        };
        // Root's space must be able to have threads.
        let control = if is_strangers { control } else { control & !SpaceControl::QUOTA.raw() };
        self.note(5, [space.raw(), control, kip_area, utcb_area, redirector.raw()]);
        let result = arch::space_control(
            space,
            SpaceControl::from_raw(control),
            Fpage::from_raw(kip_area),
            Fpage::from_raw(utcb_area),
            redirector,
        );
        black_box(result);
    }

    fn thread_switch(&mut self) {
        let dest = if self.dice.is(30) { ThreadId::NIL } else { self.any_id() };
        self.note(6, [dest.raw(), 0, 0, 0, 0]);
        schedule::thread_switch(dest);
    }

    fn memory_control(&mut self) {
        let control = self.load_fpages() as Word;
        let control = if self.dice.is(10) { self.word() } else { control };
        let attributes = [(); 4].map(|()| if self.dice.is(80) { self.dice.next() & 7 } else { self.word() });
        self.note(7, [control, utcb().mr(0), attributes[0], attributes[1], attributes[2]]);
        black_box(arch::memory_control(control, attributes));
    }

    fn processor_control(&mut self) {
        let words = [(); 4].map(|()| self.word());
        self.note(8, [words[0], words[1], words[2], words[3], 0]);
        black_box(arch::processor_control(words[0], words[1], words[2], words[3]));
    }

    /// Reads memory, be it the kernel's: then it is begun anew.
    fn touch(&mut self) {
        let offset = self.dice.within(0..1 << ARENA_LOG2) & !7;
        let at: *const u64 = core::ptr::with_exposed_provenance(match self.dice.is(80) {
            true => table::arena() as usize + offset,
            false => self.address() as usize & !7,
        });
        self.note(9, [at.addr() as Word, 0, 0, 0, 0]);
        // SAFETY: what is read means nothing; where nothing can be read, the thread faults and is begun anew.
        black_box(unsafe { at.read_volatile() });
    }

    fn clock(&mut self) {
        self.note(9, [0; LOG_WORDS - 1]);
        black_box(l4::time::system_clock_us());
    }
}
