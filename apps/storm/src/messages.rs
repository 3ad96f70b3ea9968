//! Messages, and the books about them.
//!
//! Each message says who sends it, in which life, to which life of whom, and as the how manieth of those that got through. So
//! whoever receives one knows whether it is the next, and in the end both sides have counted as many.
//!
//! | word | what |
//! |---|---|
//! | 1 | slot of the sender |
//! | 2 | version of its id |
//! | 3 | version of the id of the receiver |
//! | 4 | number of the message |
//! | 5 | slot of the virtual sender, or that of the sender |
//! | from 6 | words that follow from these |

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dice::{Dice, mix};
use l4::ipc::{self, Outcome};
use l4::message::{Msg, MsgBuffer, accept_strings, accept_untyped};
use l4::{
    Fpage, IpcError, IpcErrorKind, MapItem, MsgTag, Phase, Rights, ThreadId, Time, Timeouts, Word, schedule, time, utcb,
};

use crate::failure::{check, fail, seed};
use crate::life::PATIENCE;
use crate::memory::{ARENA, ARENA_PAGES, Access, PAGE_WORDS, Page};
use crate::pager::START;
use crate::table::{Pairs, Role, Slot, groups, participant, participants, root, slot_of};

/// Label of a message of a participant.
const LABEL: Word = 0xA00;
/// Label of root's question whether a thread is still there, and of the answer.
pub const ROLL: Word = 0xF00;

const HEADER_WORDS: usize = 5;
const EXTRA_WORDS_MAX: usize = 40;
const WORD_BYTES: usize = 8;

/// Pages of a buffer for strings.
const BUFFER_PAGES: usize = 2;
const BUFFER_WORDS: usize = BUFFER_PAGES * PAGE_WORDS;
/// Slots whose threads take part.
const BUFFERS: usize = crate::table::GROUPS_MAX * 6;

type Buffer = [Page; BUFFER_PAGES];

static OUTGOING: [Buffer; BUFFERS] = [const { [const { Page::new() }; BUFFER_PAGES] }; BUFFERS];
static INCOMING: [Buffer; BUFFERS] = [const { [const { Page::new() }; BUFFER_PAGES] }; BUFFERS];

/// Messages that the first thread has sent to a life of the second, as it knows.
static SENT: Pairs = Pairs::new();
/// Messages that the first thread has received from a life of the second.
static RECEIVED: Pairs = Pairs::new();

static MESSAGES: AtomicU64 = AtomicU64::new(0);
static STRINGS: AtomicU64 = AtomicU64::new(0);
static PROPAGATED: AtomicU64 = AtomicU64::new(0);
static ACROSS: AtomicU64 = AtomicU64::new(0);

/// Messages that were received, with strings, in another's name, from another processor.
pub fn counts() -> [u64; 4] {
    [&MESSAGES, &STRINGS, &PROPAGATED, &ACROSS].map(|count| count.load(Relaxed))
}

/// Whether it is the id of root's first thread.
pub fn is_from_root(from: ThreadId) -> bool {
    from == root() || (from.is_local() && slot_of(from).is_none())
}

/// Whether it is a pager's answer to a page fault, or to who asked for a start, out of which the thread was taken meanwhile:
/// whoever waits for anybody gets it.
fn is_late_answer(outcome: Outcome) -> bool {
    let has_label = [0, START].contains(&outcome.tag.label());
    let is_answer = has_label && outcome.tag.untyped() == 0 && !outcome.tag.is_propagated();
    is_answer && slot_of(outcome.from).is_some_and(|slot| slot.role() == Role::Pager)
}

/// Closes the books of a thread whose next life begins.
pub fn forget(slot: Slot) {
    SENT.clear(slot);
    RECEIVED.clear(slot);
}

/// Compares the books, when nobody sends any more.
pub fn compare_books() {
    for (from, to) in (0..participants()).flat_map(|a| (0..participants()).map(move |b| (a, b))) {
        let (Some(from), Some(to)) = (participant(from), participant(to)) else { continue };
        if from.version() == 0 || to.version() == 0 {
            continue;
        }
        let (sent, received) = (SENT.get(from, to, to.version()), RECEIVED.get(to, from, from.version()));
        check(sent == received, format_args!("{from} has sent {sent} messages to {to}, which has {received}"));
    }
}

/// The word of a string or a message that follows from sender, number and place.
fn pattern(from: Slot, number: u64, at: usize) -> u64 {
    mix((from.index() as u64) << 48 ^ number << 16 ^ at as u64)
}

fn words(buffers: &'static [Buffer; BUFFERS], slot: Slot) -> impl Iterator<Item = &'static AtomicU64> {
    buffers[slot.index()].iter().flat_map(|page| page.words())
}

/// What a message to be sent is.
struct Sending {
    to: Slot,
    version: Word,
    number: u64,
    has_typed: bool,
}

/// What the calling thread knows about itself.
pub struct Me {
    /// Its slot.
    pub slot: Slot,
    /// The version of its id.
    version: Word,
    /// Its dice.
    pub dice: Dice,
    accepts: bool,
}

impl Me {
    /// For the beginning of a life.
    pub fn new() -> Self {
        let (slot, version) = (Slot::me(), utcb().my_global_id().version());
        Self { slot, version, dice: Dice::new(seed(), (slot.index() as u64) << 32 | version), accepts: false }
    }

    // --- what participants do ---

    /// Does something with messages, or nothing for a while.
    pub fn take_part(&mut self) {
        match self.dice.within(0..20) {
            0..=2 => self.send(),
            3..=5 => self.receive_any(),
            6 => self.receive_closed(),
            7..=9 => self.call(),
            10..=11 => self.call_server(),
            12..=13 => self.serve_a_while(),
            14..=15 => (0..self.dice.within(1..5)).for_each(|_| self.touch_arena()),
            16 => schedule::yield_now(),
            17 => schedule::thread_switch(self.partner().id().unwrap_or(ThreadId::NIL)),
            _ => time::sleep(Time::period_us(self.dice.within(1..300) as u64)),
        }
    }

    /// Waits for root's question for good.
    pub fn wait_for_roll(&mut self) -> ! {
        accept_untyped();
        loop {
            if ipc::receive(root()).is_ok_and(|outcome| outcome.tag.label() == ROLL) {
                self.answer_roll();
            }
        }
    }

    /// Answers root's question.
    fn answer_roll(&self) {
        Msg::new(ROLL).load();
        // Root waits for the answer, unless somebody has disturbed this thread: then it asks again.
        let _ = ipc::reply(root());
    }

    fn touch_arena(&mut self) {
        let access = self.dice.one_of(&[Access::Read, Access::Write]);
        ARENA.touch(self.dice.within(0..ARENA_PAGES), access);
    }

    fn partner(&mut self) -> Slot {
        loop {
            let n = self.dice.within(0..participants());
            if let Some(slot) = participant(n).filter(|&slot| slot != self.slot) {
                return slot;
            }
        }
    }

    fn timeout(&mut self) -> Time {
        match self.dice.within(0..4) {
            0 => Time::ZERO,
            1 => Time::period_us(self.dice.within(1..50) as u64),
            2 => time::in_us(self.dice.within(1..2000) as u64).unwrap_or(Time::ZERO),
            _ => Time::period_us(self.dice.within(1..3000) as u64),
        }
    }

    fn send(&mut self) {
        let (to, snd) = (self.partner(), self.timeout());
        let Some((sending, id)) = self.load(to, true) else { return };
        let result = ipc::ipc(id, ThreadId::NIL, Timeouts::new(snd, Time::NEVER)).result();
        self.enter_sent(&sending, result.err(), !snd.is_never());
    }

    fn receive_any(&mut self) {
        let rcv = self.timeout();
        self.accept();
        let from = if self.dice.is(20) { ThreadId::ANY_LOCAL } else { ThreadId::ANY };
        let outcome = ipc::ipc(ThreadId::NIL, from, Timeouts::new(Time::NEVER, rcv)).result();
        self.enter_received(outcome, None);
    }

    fn receive_closed(&mut self) {
        let (from, rcv) = (self.partner(), self.timeout());
        let Some(id) = from.id() else { return };
        self.accept();
        let outcome = ipc::ipc(ThreadId::NIL, id, Timeouts::new(Time::NEVER, rcv)).result();
        self.enter_received(outcome, Some(from));
    }

    fn call(&mut self) {
        let (to, timeouts) = (self.partner(), Timeouts::new(self.timeout(), self.timeout()));
        self.call_with(to, timeouts);
    }

    /// Nothing but a disturbance keeps a server from answering.
    fn call_server(&mut self) {
        let server = Slot::server(self.dice.within(0..groups()));
        if server != self.slot {
            self.call_with(server, Timeouts::new(PATIENCE, PATIENCE));
        }
    }

    fn call_with(&mut self, to: Slot, timeouts: Timeouts) {
        self.accept();
        let is_patient = timeouts.snd() == PATIENCE;
        // Else the answer goes to the other.
        let Some((sending, id)) = self.load(to, !is_patient) else { return };
        let outcome = match self.dice.is(20) {
            true => ipc::lipc(id, id, timeouts).result(),
            false => ipc::ipc(id, id, timeouts).result(),
        };
        if is_patient {
            let is_late = outcome.is_err_and(|error| error.kind == IpcErrorKind::Timeout);
            check(!is_late, format_args!("{} is not answered by {to}", self.slot));
        }
        self.enter_both(&sending, outcome, Some(to));
    }

    /// Receives, answers and receives some times.
    fn serve_a_while(&mut self) {
        let mut answer_to = ThreadId::NIL;
        for _ in 0..self.dice.within(1..6) {
            let rcv = self.timeout();
            match self.reply_wait_timeout(answer_to, rcv) {
                Some(from) => answer_to = from,
                None => return,
            }
        }
    }

    /// Answers a message, unless to nilthread, and waits for the next; who has sent it, if it is to be answered.
    pub fn reply_wait(&mut self, to: ThreadId) -> Option<ThreadId> {
        self.reply_wait_timeout(to, Time::NEVER)
    }

    fn reply_wait_timeout(&mut self, to: ThreadId, rcv: Time) -> Option<ThreadId> {
        self.accept();
        let timeouts = Timeouts::new(Time::ZERO, rcv);
        match slot_of(to).filter(|_| !to.is_nil()) {
            None => {
                let outcome = ipc::ipc(ThreadId::NIL, ThreadId::ANY, timeouts).result();
                self.enter_received(outcome, None)
            }
            Some(slot) => {
                let (sending, id) = self.load(slot, true)?;
                let outcome = ipc::ipc(id, ThreadId::ANY, timeouts).result();
                self.enter_both(&sending, outcome, None)
            }
        }
    }

    // --- messages ---

    /// Decides what is taken from now on besides words.
    fn accept(&mut self) {
        self.accepts = self.dice.is(70);
        if !self.accepts {
            return accept_untyped();
        }
        let at = INCOMING[self.slot.index()][0].address() as usize;
        let (len, half) = (BUFFER_WORDS * WORD_BYTES, BUFFER_WORDS * WORD_BYTES / 2);
        let mut buffers = MsgBuffer::new();
        match self.dice.is(50) {
            true => buffers.append(len, &[at]),
            false => buffers.append(half, &[at, at + half]),
        };
        // What root's space has in the arena is what everybody gets by a page fault: it stays.
        let takes_pages = !self.slot.role().is_in_root() && self.dice.is(70);
        let window = if takes_pages { ARENA.fpage() } else { Fpage::NIL };
        // SAFETY: buffers and arena consist of atomic words; nothing follows from what is in them that is not checked.
        unsafe { accept_strings(window, &buffers) };
    }

    /// Loads a message to `to`, with whatever the dice say, and says to which id it goes; `None` if there is no such
    /// thread. It may be in another's name.
    fn load(&mut self, to: Slot, may_propagate: bool) -> Option<(Sending, ThreadId)> {
        let version = Some(to.version()).filter(|&version| version != 0)?;
        let number = SENT.get(self.slot, to, version) + 1;
        let virtual_sender = self.virtual_sender().filter(|_| may_propagate);
        let kind = self.dice.within(0..8);
        let mut msg = Msg::new(LABEL);
        let named = virtual_sender.map_or(self.slot, |(slot, _)| slot);
        for word in [self.slot.index() as Word, self.version, version, number, named.index() as Word] {
            msg.append_word(word);
        }
        let most = if self.dice.is(70) { 4 } else { EXTRA_WORDS_MAX };
        (0..self.dice.within(0..most)).for_each(|at| {
            msg.append_word(pattern(self.slot, number, at));
        });
        match kind {
            0..=1 => self.append_string(&mut msg, number),
            2 => self.append_page(&mut msg),
            _ => {}
        }
        if let Some((_, id)) = virtual_sender {
            msg.set_tag(msg.tag().with_flags(MsgTag::PROPAGATED));
            utcb().set_virtual_sender(id);
        }
        let patience = self.dice.one_of(&[Time::NEVER, Time::NEVER, Time::ZERO, Time::period_us(200)]);
        utcb().set_xfer_timeouts(Timeouts::new(patience, patience));
        msg.load();
        let is_local = to.role().is_lasting() && to.role().is_in_root() && self.slot.role().is_in_root();
        let id = if is_local && self.dice.is(30) { to.local_id() } else { to.id_of(version) };
        Some((Sending { to, version, number, has_typed: kind <= 2 }, id))
    }

    /// Somebody of the own space in whose name to send: not always.
    fn virtual_sender(&mut self) -> Option<(Slot, ThreadId)> {
        if !self.dice.is(10) {
            return None;
        }
        let slot = self.partner();
        let is_near = match self.slot.role() {
            Role::Citizen => slot.role() == Role::Citizen,
            // Who has called a server would wait for somebody else.
            Role::Server | Role::Hermit => false,
            _ => slot.role().is_in_root(),
        };
        Some((slot, slot.id()?)).filter(|_| is_near)
    }

    fn append_string(&mut self, msg: &mut Msg, number: u64) {
        let most = if self.dice.is(50) { 16 } else { BUFFER_WORDS };
        let len = self.dice.within(1..most);
        let first = self.dice.within(0..BUFFER_WORDS - len + 1);
        for (at, word) in words(&OUTGOING, self.slot).skip(first).take(len).enumerate() {
            word.store(pattern(self.slot, number, at), Relaxed);
        }
        let address = OUTGOING[self.slot.index()][0].address() as usize + first * WORD_BYTES;
        match len.is_multiple_of(2) && self.dice.is(50) {
            true => msg.append_string_at(len / 2 * WORD_BYTES, &[address, address + len / 2 * WORD_BYTES]),
            false => msg.append_string_at(len * WORD_BYTES, &[address]),
        };
    }

    fn append_page(&mut self, msg: &mut Msg) {
        let (from, to) = (self.dice.within(0..ARENA_PAGES), self.dice.within(0..ARENA_PAGES));
        let rights = self.dice.one_of(&[Rights::ALL, Rights::READ | Rights::EXECUTE, Rights::READ | Rights::WRITE]);
        let (page, base) = (ARENA.page(from).fpage(rights), ARENA.page(to).address());
        let is_grant = !self.slot.role().is_in_root() && self.dice.is(30);
        msg.append_map(if is_grant { MapItem::grant(page, base) } else { MapItem::map(page, base) });
    }

    // --- books ---

    fn enter_both(
        &mut self,
        sending: &Sending,
        outcome: Result<Outcome, IpcError>,
        from: Option<Slot>,
    ) -> Option<ThreadId> {
        match outcome {
            Err(error) if error.phase == Phase::Send => {
                self.enter_sent(sending, Some(error), true);
                None
            }
            _ => {
                self.enter_sent(sending, None, true);
                self.enter_received(outcome, from)
            }
        }
    }

    /// Enters a message that was sent, or was not because of the error.
    fn enter_sent(&self, sending: &Sending, error: Option<IpcError>, may_time_out: bool) {
        let Sending { to, version, number, has_typed } = *sending;
        let Some(error) = error else { return SENT.set(self.slot, to, version, number) };
        let is_expected = match error.kind {
            IpcErrorKind::Timeout => may_time_out,
            IpcErrorKind::NonExisting => to.role().is_mortal(),
            IpcErrorKind::Canceled => true,
            _ => has_typed,
        };
        check(is_expected && error.phase == Phase::Send, format_args!("{} sends to {to}: {error:?}", self.slot));
    }

    /// Enters what was received: it is the next message of its sender, and whole. Who is to be answered; nobody if it was
    /// root's question, which is.
    fn enter_received(&self, outcome: Result<Outcome, IpcError>, from: Option<Slot>) -> Option<ThreadId> {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                self.check_receive_error(error, from);
                return None;
            }
        };
        if outcome.tag.label() == ROLL && is_from_root(outcome.from) {
            self.answer_roll();
            return None;
        }
        if is_late_answer(outcome) {
            return None;
        }
        let me = self.slot;
        let tag = outcome.tag;
        check(
            tag.label() == LABEL && tag.untyped() >= HEADER_WORDS,
            format_args!("{me} gets {tag:?} from {:?}", outcome.from),
        );
        let [sender, version, to_version, number, named] = core::array::from_fn(|i| utcb().mr(i + 1));
        let slots = (Slot::at(sender as usize), Slot::at(named as usize));
        let (Some(sender), Some(named)) = slots else {
            fail(format_args!("{me} gets a message of {sender} as {named}"))
        };
        let what = format_args!(
            "{me} gets message {number} of {sender} as {named} to life {}, {tag:?} from {:?}",
            to_version >> 6,
            outcome.from
        );
        check(to_version == self.version, what);
        let last = RECEIVED.get(me, sender, version);
        let what = format_args!("{me} gets message {number} of life {} of {sender}, after {last}", version >> 6);
        check(number == last + 1, what);
        RECEIVED.set(me, sender, version, number);
        self.check_names(outcome, sender, version, named);
        for at in 0..tag.untyped() - HEADER_WORDS {
            let word = utcb().mr(HEADER_WORDS + 1 + at);
            check(word == pattern(sender, number, at), format_args!("{me} gets word {at} wrong from {sender}"));
        }
        self.check_string(tag, sender, number);
        MESSAGES.fetch_add(1, Relaxed);
        PROPAGATED.fetch_add(u64::from(tag.is_propagated()), Relaxed);
        ACROSS.fetch_add(u64::from(tag.is_xcpu()), Relaxed);
        Some(outcome.from)
    }

    /// The kernel's words about who has sent agree with those of the sender.
    fn check_names(&self, outcome: Outcome, sender: Slot, version: Word, named: Slot) {
        let (me, from, is_propagated) = (self.slot, outcome.from, outcome.tag.is_propagated());
        let is =
            |id: ThreadId, slot: Slot| if id.is_local() { id == slot.local_id() } else { slot_of(id) == Some(slot) };
        match is_propagated {
            true => {
                let actual = utcb().actual_sender();
                let what = format_args!("{me} gets a message of {sender} as {named} from {from:?} by {actual:?}");
                check(is(from, named) && is(actual, sender), what);
            }
            false => {
                let is_right = if from.is_local() { is(from, sender) } else { from == sender.id_of(version) };
                check(is_right, format_args!("{me} gets a message of {sender} from {from:?}"));
            }
        }
    }

    fn check_string(&self, tag: MsgTag, sender: Slot, number: u64) {
        let msg = Msg::store(tag);
        let Some((item, addresses)) = msg.string_item(0) else { return };
        let len = item.len_bytes() as usize * addresses.len() / WORD_BYTES;
        check(self.accepts && len <= BUFFER_WORDS, format_args!("{} gets a string of {len} words", self.slot));
        for (at, word) in words(&INCOMING, self.slot).take(len).enumerate() {
            let is_right = word.load(Relaxed) == pattern(sender, number, at);
            check(is_right, format_args!("{} gets word {at} of {len} of a string wrong from {sender}", self.slot));
        }
        STRINGS.fetch_add(1, Relaxed);
    }

    fn check_receive_error(&self, error: IpcError, from: Option<Slot>) {
        let is_expected = match error.kind {
            IpcErrorKind::Timeout | IpcErrorKind::Canceled => true,
            IpcErrorKind::NonExisting => from.is_some_and(|slot| slot.role().is_mortal()),
            // The sender has items, whether they are taken or not.
            IpcErrorKind::Overflow | IpcErrorKind::Aborted => true,
            IpcErrorKind::XferTimeoutInvoker | IpcErrorKind::XferTimeoutPartner => self.accepts,
        };
        check(is_expected && error.phase == Phase::Receive, format_args!("{} receives: {error:?}", self.slot));
    }
}
