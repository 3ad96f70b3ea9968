//! Shoot-downs: all interleavings of a processor that takes a page away and one that uses it.
//!
//! The other processor is played here: what it has cached of a page table, when it walks through that again, and that
//! between two of its instructions, and while it spins, a non-maskable interrupt comes in. The protocol is the core's.

use core::sync::atomic::Ordering;
use std::cell::Cell;

use super::{finds, leak};
use crate::cross::shootdown::{self, Batch, Peers, Stale};
use crate::explore::exhaustive::{Bounds, explore};
use crate::explore::mistakes::Mistake;
use crate::explore::{join, on_wait, processor};
use crate::lock::{Held, Lock, rank};
use crate::sync::{AtomicBool, fence, spin_loop};
use crate::var::Var;

/// The space that is worked on; another one that has no pages.
const SPACE: usize = 0x5001;
const OTHER: usize = 0x6002;
const ADDRESS: usize = 0x7000;
/// The processor that uses the page. The first one takes it away.
const USER: usize = 1;

loom::thread_local! {
    static OWN: Cell<usize> = Cell::new(0);
}

/// Two processors and a page.
struct Pair {
    batches: [Batch; 2],
    interrupts: [AtomicBool; 2],
    /// The space that each said to load.
    loaded: [Var<usize>; 2],
    has_identifiers: bool,
    /// Whether the page-table entry is there.
    entry: Var<bool>,
    /// Whether the user has cached it.
    cached: Var<bool>,
    /// Whether the frame behind it was freed.
    is_freed: Var<bool>,
    lock: Lock<{ rank::KERNEL_TABLES }>,
    is_over: AtomicBool,
}

impl Peers for &'static Pair {
    fn count(&self) -> usize {
        2
    }
    fn own(&self) -> usize {
        OWN.with(Cell::get)
    }
    fn batch(&self, cpu: usize) -> &Batch {
        &self.batches[cpu]
    }
    fn is_loaded(&self, cpu: usize, word: usize) -> bool {
        self.loaded[cpu].get() == word
    }
    fn has_identifier(&self, _word: usize) -> bool {
        self.has_identifiers
    }
    fn interrupt(&self, cpu: usize) {
        // It comes no earlier than what was done before it, as the asker's last access was a locked one.
        self.interrupts[cpu].store(true, Ordering::Release);
    }
    fn forget(&self, what: Stale) {
        let is_it = [Stale::Page(SPACE, ADDRESS), Stale::KernelPage(ADDRESS), Stale::All].contains(&what);
        assert!(is_it, "{what:?} was not asked for");
        self.cached.set(false);
    }
}

impl Pair {
    fn new(has_identifiers: bool) -> &'static Self {
        leak(Self {
            batches: [const { Batch::new() }; 2],
            interrupts: [const { AtomicBool::new(false) }; 2],
            loaded: [const { Var::zero() }; 2],
            has_identifiers,
            entry: Var::new(true),
            cached: Var::zero(),
            is_freed: Var::zero(),
            lock: Lock::new(),
            is_over: AtomicBool::new(false),
        })
    }

    /// A non-maskable interrupt comes in, if there is one.
    fn take_interrupt(&'static self) {
        let interrupt = &self.interrupts[(&self).own()];
        if interrupt.load(Ordering::Relaxed) && interrupt.swap(false, Ordering::Acquire) {
            shootdown::answer(&self);
        }
    }

    /// The user loads the space with `word`, as the way to user mode does; without identifiers it forgets the one before.
    fn load(&'static self, word: usize) {
        if self.has_identifiers {
            self.batches[USER].note_loaded(word);
        }
        self.loaded[USER].set(word);
        // Loading waits for all stores before it (Intel SDM 3A, Serializing Instructions).
        fence(Ordering::SeqCst);
        if !self.has_identifiers {
            self.cached.set(false);
        }
        self.take_interrupt();
    }

    /// An instruction of the user that reads the page: by what is cached, or else by a walk, if the page is there.
    fn use_page(&'static self) {
        if !self.cached.get() {
            self.cached.set(self.entry.get());
        }
        assert!(!self.cached.get() || !self.is_freed.get(), "a page is used by a stale translation");
        self.take_interrupt();
    }

    /// The kernel of the user's processor copies from the page, by a walk of its own.
    fn copy(&'static self) {
        self.batches[USER].begin_copy();
        if self.entry.get() {
            assert!(!self.is_freed.get(), "a copy is made from a frame that is free");
        }
        self.batches[USER].end_copy();
        self.take_interrupt();
    }

    /// The first processor takes the page away and frees its frame.
    fn take_away(&'static self) {
        self.entry.set(false);
        shootdown::add_page(&self, SPACE, ADDRESS);
        shootdown::complete(&self);
        self.is_freed.set(true);
    }

    /// As [`Self::take_away`], of a page of the kernel, with the lock of its tables.
    fn take_kernel_page_away(&'static self) {
        let mut nothing = Held::nothing();
        let _tables = self.lock.lock(&mut nothing);
        self.entry.set(false);
        shootdown::forget_kernel_page(&self, ADDRESS);
        self.is_freed.set(true);
    }

    /// `use_it` on one processor, while the other one does `take_it`.
    fn explore(
        &'static self,
        name: &str,
        use_it: impl Fn() + Copy + Send + Sync + 'static,
        take_it: impl Fn() + Send + Sync + 'static,
    ) {
        let explored = explore(Bounds { words: 120, preemptions: Some(4), ..Bounds::default() }, move || {
            on_wait(|| self.take_interrupt());
            let user = processor(move || {
                OWN.with(|own| own.set(USER));
                use_it();
                while !self.is_over.load(Ordering::Acquire) {
                    spin_loop();
                }
            });
            take_it();
            self.is_over.store(true, Ordering::Release);
            join([user]);
            assert!(self.batches.iter().all(Batch::is_empty));
        });
        println!("{name}: {explored}");
    }
}

fn loads_and_uses() {
    let pair = Pair::new(false);
    let use_it = || {
        pair.load(SPACE);
        pair.use_page();
        pair.use_page();
        pair.load(OTHER);
    };
    pair.explore("a page is taken away from a space that is being loaded", use_it, || pair.take_away());
}

/// Without identifiers of spaces: who loads the space sees that the page is gone, or is asked.
#[test]
fn page_is_taken_away_while_its_space_is_loaded() {
    loads_and_uses();
}

/// With them what was cached outlives the loading of another space.
#[test]
fn page_is_taken_away_from_a_space_that_was_loaded() {
    let pair = Pair::new(true);
    let use_it = || {
        pair.load(SPACE);
        pair.use_page();
        pair.loaded[USER].set(OTHER);
        fence(Ordering::SeqCst);
        pair.take_interrupt();
        pair.load(SPACE);
        pair.use_page();
    };
    pair.explore("a page is taken away from a space with an identifier", use_it, || pair.take_away());
}

fn copies() {
    let pair = Pair::new(false);
    pair.explore("a page is taken away while it is copied", || pair.copy(), || pair.take_away());
}

/// A copy of another processor that began before is waited for.
#[test]
fn page_is_taken_away_while_it_is_copied() {
    copies();
}

/// The asker has a lock for which the asked one spins: that answers all the same.
#[test]
fn kernel_page_is_taken_away_with_a_lock_held() {
    let pair = Pair::new(false);
    let use_it = || {
        pair.use_page();
        let mut nothing = Held::nothing();
        let _tables = pair.lock.lock(&mut nothing);
        pair.use_page();
    };
    pair.explore("a page of the kernel is taken away with a lock held", use_it, || pair.take_kernel_page_away());
}

#[test]
fn shoot_down_without_its_fences_is_caught() {
    for exploration in [loads_and_uses, copies] {
        assert!(finds(Mistake::Weak("cross/shootdown.rs", Ordering::SeqCst), exploration));
    }
}
