//! Translations that other processors have cached (X.2, Unmap: they are gone on all processors when the call returns).
//!
//! A processor that changes translations collects what it changed in its own [`Batch`]; before anybody may rely on the
//! change it asks the processors that may have cached something of it, and waits. They are asked by a non-maskable
//! interrupt: a processor answers wherever it is in the kernel, also while it waits for a lock that the asker holds, so
//! the wait is short and nobody waits in a ring. The handler forgets translations and touches nothing else.
//!
//! Asked are only processors that have the space loaded or, with identifiers of spaces (PCID), have had it loaded since
//! they forgot it last. A processor that loads a space says so before it does; who changes a translation looks after it
//! did. So either the one sees the other, or the other finds the changed entry. Between announcement and loading the old
//! space is still loaded, though nobody can tell: its translations go when the new one is loaded, but its tables must stay
//! until then. So when a space goes away, all processors are asked.
//!
//! The kernel itself reaches user memory by page tables, not by translations of its own: while it copies, it says so, and
//! is waited for.
//!
//! The protocol is here, what a processor does about it is the machine's ([`Peers`]).

use crate::sync::{AtomicU32, AtomicUsize, Ordering, fence, spin_loop};
use crate::var::Var;

/// Pages that are forgotten one by one; of more, the whole space is.
pub const PAGES_MAX: usize = 16;
/// Processors there can be, at most.
pub const CPUS_MAX: usize = 256;
/// Identifiers of spaces that there can be, at most.
const IDENTIFIERS: usize = 4096;
const WORD_BITS: usize = usize::BITS as usize;

/// The processors, as one of them sees them.
pub trait Peers {
    /// How many have started.
    fn count(&self) -> usize;
    /// This one.
    fn own(&self) -> usize;
    /// The batch of processor `cpu`, which has started.
    fn batch(&self, cpu: usize) -> &Batch;
    /// Whether processor `cpu` said that it loads the space with `word`, and has not said so of another one since.
    fn is_loaded(&self, cpu: usize, word: usize) -> bool;
    /// Whether the space with `word` keeps its translations while it is not loaded.
    fn has_identifier(&self, word: usize) -> bool;
    /// Interrupts processor `cpu` non-maskably. It calls [`answer`] after this, wherever it is.
    fn interrupt(&self, cpu: usize);
    /// This processor forgets something.
    fn forget(&self, what: Stale);
}

/// What a processor has to forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    /// The page at an address of the space with this word, which lives.
    Page(usize, usize),
    /// A page of the kernel.
    KernelPage(usize),
    /// All translations of user spaces.
    All,
    /// All of the space with this word, which it leaves if it has it loaded.
    Space(usize),
    /// What it has cached of memory: it is written back first.
    Caches,
}

/// What one processor asks others to forget, and who asks it.
pub struct Batch {
    /// Pages of user spaces: the space word and the address.
    words: [Var<usize>; PAGES_MAX],
    addresses: [Var<usize>; PAGES_MAX],
    count: Var<usize>,
    /// A space of which all is to be forgotten, and which must not stay loaded; 0: none.
    whole: Var<usize>,
    /// A page of the kernel; 0: none.
    kernel_page: Var<usize>,
    /// The caches are to be written back, too.
    caches: Var<bool>,
    /// There were more pages than there is room for: all translations of user spaces go.
    is_overfull: Var<bool>,
    /// Processors that have not answered.
    unanswered: AtomicU32,
    /// The processors that ask this one: a bit each.
    askers: [AtomicUsize; CPUS_MAX / WORD_BITS],
    /// Odd while this processor copies user memory.
    copies: AtomicU32,
    /// Spaces by identifier that may be cached here, though not loaded.
    known: [Var<usize>; IDENTIFIERS / WORD_BITS],
}

impl Batch {
    /// Nothing to forget.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self {
            words: [const { Var::zero() }; PAGES_MAX],
            addresses: [const { Var::zero() }; PAGES_MAX],
            count: Var::zero(),
            whole: Var::zero(),
            kernel_page: Var::zero(),
            caches: Var::zero(),
            is_overfull: Var::zero(),
            unanswered: AtomicU32::new(0),
            askers: [const { AtomicUsize::new(0) }; CPUS_MAX / WORD_BITS],
            copies: AtomicU32::new(0),
            known: [const { Var::zero() }; IDENTIFIERS / WORD_BITS],
        }
    }

    /// Whether there is nothing that [`complete`] has to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.get() == 0 && self.whole.get() == 0
    }

    fn clear(&self) {
        self.count.set(0);
        self.whole.set(0);
        self.is_overfull.set(false);
    }

    /// The word and the bit of the space with `word` among those that are known.
    fn known(&self, word: usize) -> (&Var<usize>, usize) {
        let identifier = word % IDENTIFIERS;
        (&self.known[identifier / WORD_BITS], 1 << (identifier % WORD_BITS))
    }

    /// Notes that the space with this word, which has an identifier, is about to be loaded. For the owner alone.
    pub fn note_loaded(&self, word: usize) {
        let (slot, bit) = self.known(word);
        if slot.get() & bit == 0 {
            slot.set(slot.get() | bit);
        }
    }

    fn forget_known(&self, word: usize) {
        let (slot, bit) = self.known(word);
        slot.set(slot.get() & !bit);
    }

    fn knows(&self, word: usize) -> bool {
        let (slot, bit) = self.known(word);
        slot.get() & bit != 0
    }

    /// The owner is about to look up user pages and copy them.
    pub fn begin_copy(&self) {
        self.copies.store(self.copies.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The copy is done.
    pub fn end_copy(&self) {
        self.copies.store(self.copies.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

/// The page at `address` in the space with `word` has changed, and is forgotten here already.
pub fn add_page(peers: &impl Peers, word: usize, address: usize) {
    if peers.count() == 1 {
        return;
    }
    let batch = peers.batch(peers.own());
    match batch.count.get() {
        PAGES_MAX => batch.is_overfull.set(true),
        index => {
            batch.words[index].set(word);
            batch.addresses[index].set(address);
            batch.count.set(index + 1);
        }
    }
}

/// The space with `word` goes away, and is forgotten here already. Complete when this returns.
pub fn forget_space(peers: &impl Peers, word: usize) {
    if peers.count() > 1 {
        peers.batch(peers.own()).whole.set(word);
        complete(peers);
    }
}

/// All processors forget the page of the kernel at `address`, as this one has. Complete when this returns.
pub fn forget_kernel_page(peers: &impl Peers, address: usize) {
    if peers.count() > 1 {
        let batch = peers.batch(peers.own());
        batch.kernel_page.set(address);
        ask(peers, |_| true);
        batch.kernel_page.set(0);
    }
}

/// All other processors write their caches back and empty them. Complete when this returns.
pub fn flush_caches(peers: &impl Peers) {
    if peers.count() > 1 {
        let batch = peers.batch(peers.own());
        batch.caches.set(true);
        ask(peers, |_| true);
        batch.caches.set(false);
    }
}

/// All processors forget what was added to this one's batch, which is not empty; returns when they have, and when no copy
/// is left that began before.
pub fn complete(peers: &impl Peers) {
    let batch = peers.batch(peers.own());
    fence(Ordering::SeqCst);
    let is_affected = |cpu: usize, word: usize| {
        peers.is_loaded(cpu, word) || peers.has_identifier(word) && peers.batch(cpu).knows(word)
    };
    ask(peers, |cpu| {
        let pages = &batch.words[..batch.count.get()];
        batch.is_overfull.get() || batch.whole.get() != 0 || pages.iter().any(|word| is_affected(cpu, word.get()))
    });
    wait_for_copies(peers);
    batch.clear();
}

/// Asks the other processors that `is_affected`, and waits for them.
fn ask(peers: &impl Peers, is_affected: impl Fn(usize) -> bool) {
    let own = peers.own();
    let batch = peers.batch(own);
    for cpu in (0..peers.count()).filter(|&cpu| cpu != own && is_affected(cpu)) {
        batch.unanswered.fetch_add(1, Ordering::Relaxed);
        peers.batch(cpu).askers[own / WORD_BITS].fetch_or(1 << (own % WORD_BITS), Ordering::Release);
        peers.interrupt(cpu);
    }
    while batch.unanswered.load(Ordering::Acquire) != 0 {
        spin_loop();
    }
}

/// Waits until no other processor is in a copy that began before.
fn wait_for_copies(peers: &impl Peers) {
    let own = peers.own();
    for cpu in (0..peers.count()).filter(|&cpu| cpu != own) {
        let copies = &peers.batch(cpu).copies;
        let seen = copies.load(Ordering::Acquire);
        while seen % 2 == 1 && copies.load(Ordering::Acquire) == seen {
            spin_loop();
        }
    }
}

/// Answers those who ask this processor, in the handler of the non-maskable interrupt; whether somebody did.
pub fn answer(peers: &impl Peers) -> bool {
    let mut is_asked = false;
    for (index, word) in peers.batch(peers.own()).askers.iter().enumerate() {
        while let asking @ 1.. = word.load(Ordering::Relaxed) {
            let bit = asking.trailing_zeros() as usize;
            word.fetch_and(!(1 << bit), Ordering::Acquire);
            forget(peers, peers.batch(index * WORD_BITS + bit));
            is_asked = true;
        }
    }
    is_asked
}

fn forget(peers: &impl Peers, asked: &Batch) {
    if asked.caches.get() {
        peers.forget(Stale::Caches);
    }
    if asked.kernel_page.get() != 0 {
        peers.forget(Stale::KernelPage(asked.kernel_page.get()));
    } else if asked.is_overfull.get() {
        peers.forget(Stale::All);
    } else {
        for index in 0..asked.count.get() {
            peers.forget(Stale::Page(asked.words[index].get(), asked.addresses[index].get()));
        }
    }
    let whole = asked.whole.get();
    if whole != 0 {
        peers.forget(Stale::Space(whole));
        peers.batch(peers.own()).forget_known(whole);
    }
    asked.unanswered.fetch_sub(1, Ordering::Release);
}
