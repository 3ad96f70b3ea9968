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

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use kcore::machine::CpuId;
use kcore::var::Var;
use khal::irq::IrqOff;

use crate::area::{self, Area};
use crate::config::MAX_CPUS;
use crate::machine::{HARDWARE, local_apic};
use crate::{KERNEL, layout};

/// Pages that are forgotten one by one; of more, the whole space is.
const PAGES_MAX: usize = 16;
const WORD_BITS: usize = usize::BITS as usize;

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
    askers: [AtomicUsize; 256 / WORD_BITS],
    /// Odd while this processor copies user memory.
    copies: AtomicU32,
    /// Spaces by identifier that may be cached here, though not loaded.
    known: [Var<usize>; 4096 / WORD_BITS],
}

impl Batch {
    /// Nothing to forget.
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
            askers: [const { AtomicUsize::new(0) }; 256 / WORD_BITS],
            copies: AtomicU32::new(0),
            known: [const { Var::zero() }; 4096 / WORD_BITS],
        }
    }

    fn is_empty(&self) -> bool {
        self.count.get() == 0 && self.whole.get() == 0
    }

    fn clear(&self) {
        self.count.set(0);
        self.whole.set(0);
        self.is_overfull.set(false);
    }

    /// Notes that the space with this word is about to be loaded.
    pub fn note_loaded(&self, word: usize) {
        let identifier = word & (4096 - 1);
        let slot = &self.known[identifier / WORD_BITS];
        let bit = 1 << (identifier % WORD_BITS);
        if slot.get() & bit == 0 {
            slot.set(slot.get() | bit);
        }
    }

    fn forget_known(&self, word: usize) {
        let identifier = word & (4096 - 1);
        let slot = &self.known[identifier / WORD_BITS];
        slot.set(slot.get() & !(1 << (identifier % WORD_BITS)));
    }

    fn knows(&self, word: usize) -> bool {
        let identifier = word & (4096 - 1);
        self.known[identifier / WORD_BITS].get() >> (identifier % WORD_BITS) & 1 != 0
    }
}

/// The processors that have started; before the core is there, none but the first changes anything.
fn count() -> usize {
    KERNEL.get().cpus.len()
}

fn area_of(cpu: usize) -> &'static Area {
    // SAFETY: the processors that the core knows have areas.
    unsafe { area::of(CpuId::new(cpu as u32)) }
}

/// The page at `address` in the space with `word` has changed, and is forgotten here already.
pub fn add_page(word: usize, address: usize) {
    let batch = &area::here().batch;
    if count() == 1 {
        return;
    }
    match batch.count.get() {
        PAGES_MAX => batch.is_overfull.set(true),
        index => {
            batch.words[index].set(word);
            batch.addresses[index].set(address);
            batch.count.set(index + 1);
        }
    }
}

/// The space with `word` goes away. Complete when this returns.
pub fn forget_space(word: usize) {
    if count() > 1 {
        area::here().batch.whole.set(word);
        complete();
    }
}

/// All processors forget the page of the kernel at `address`. Complete when this returns.
pub fn forget_kernel_page(address: usize) {
    if count() > 1 {
        let batch = &area::here().batch;
        batch.kernel_page.set(address);
        ask(|_| true);
        batch.kernel_page.set(0);
    }
}

/// All other processors write their caches back and empty them. Complete when this returns.
pub fn flush_caches() {
    if count() > 1 {
        let batch = &area::here().batch;
        batch.caches.set(true);
        ask(|_| true);
        batch.caches.set(false);
    }
}

/// All processors forget what was added; returns when they have.
#[inline]
pub fn complete() {
    if !area::here().batch.is_empty() {
        complete_batch();
    }
}

fn complete_batch() {
    let batch = &area::here().batch;
    fence(Ordering::SeqCst);
    let is_affected = |other: &Area, word: usize| {
        let has_identifier = HARDWARE.get().has_identifier(word);
        other.space_word.get() == word || has_identifier && other.batch.knows(word)
    };
    ask(|other| {
        let whole = batch.whole.get();
        let pages = &batch.words[..batch.count.get()];
        batch.is_overfull.get() || whole != 0 || pages.iter().any(|word| is_affected(other, word.get()))
    });
    wait_for_copies();
    batch.clear();
}

/// Asks the other processors that `is_affected`, and waits for them.
fn ask(is_affected: impl Fn(&Area) -> bool) {
    let (own, batch) = (area::cpu().index(), &area::here().batch);
    // SAFETY: interrupts are off in the kernel, and no other token is in use here.
    let irq = unsafe { IrqOff::assume() };
    for cpu in (0..count()).filter(|&cpu| cpu != own) {
        let other = area_of(cpu);
        if is_affected(other) {
            batch.unanswered.fetch_add(1, Ordering::Relaxed);
            other.batch.askers[own / WORD_BITS].fetch_or(1 << (own % WORD_BITS), Ordering::Release);
            local_apic().interrupt_non_maskably(other.apic_id.get(), &irq);
        }
    }
    while batch.unanswered.load(Ordering::Acquire) != 0 {
        core::hint::spin_loop();
    }
}

/// Waits until no other processor is in a copy that began before.
fn wait_for_copies() {
    let own = area::cpu().index();
    for cpu in (0..count()).filter(|&cpu| cpu != own) {
        let copies = &area_of(cpu).batch.copies;
        let seen = copies.load(Ordering::Acquire);
        while seen % 2 == 1 && copies.load(Ordering::Acquire) == seen {
            core::hint::spin_loop();
        }
    }
}

/// This processor is about to look up user pages and copy them.
pub fn begin_copy() {
    let copies = &area::here().batch.copies;
    copies.store(copies.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// The copy is done.
pub fn end_copy() {
    let copies = &area::here().batch.copies;
    copies.store(copies.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

/// Answers those who ask this processor, in the handler of the non-maskable interrupt; whether somebody did.
pub fn answer() -> bool {
    let mut is_asked = false;
    for (index, word) in area::here().batch.askers.iter().enumerate() {
        while let asking @ 1.. = word.load(Ordering::Relaxed) {
            let bit = asking.trailing_zeros() as usize;
            word.fetch_and(!(1 << bit), Ordering::Acquire);
            forget(&area_of(index * WORD_BITS + bit).batch);
            is_asked = true;
        }
    }
    is_asked
}

fn forget(asked: &Batch) {
    let hardware = HARDWARE.get();
    if asked.caches.get() {
        khal::cache::flush();
    }
    if asked.kernel_page.get() != 0 {
        khal::tlb::invalidate_page(asked.kernel_page.get());
    } else if asked.is_overfull.get() {
        khal::tlb::invalidate_all();
    } else {
        for index in 0..asked.count.get() {
            hardware.forget_page_here(asked.words[index].get(), asked.addresses[index].get());
        }
    }
    let whole = asked.whole.get();
    if whole != 0 {
        hardware.forget_space_here(whole);
        area::here().batch.forget_known(whole);
    }
    asked.unanswered.fetch_sub(1, Ordering::Release);
}

const _: () = assert!(MAX_CPUS <= 256 && layout::AREA_BYTES.is_power_of_two());
