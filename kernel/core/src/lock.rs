//! Locks with ranks.
//!
//! A [`Lock`] guards state that has no single owning processor. The state itself is made of [`crate::var::Var`]s, so the
//! lock is only an order: it hands out a [`Guard`], and functions that need it take `&Guard<RANK>` as proof. Taking a
//! lock consumes (borrows) proof of a lower rank, so a wrong order does not compile. Ranks, in the order in which they
//! may be taken, are in [`rank`]; docs/locks.md lists owners and who may wait.

use crate::sync::{AtomicBool, Look, Ordering, looks_again, spin_loop};

/// The ranks, lowest first.
pub mod rank {
    /// Nothing held: what every kernel entry starts with.
    pub const NONE: u8 = 0;
    /// The tables of one address space may be filled.
    pub const SPACE: u8 = 1;
    /// The ports of all spaces.
    pub const PORTS: u8 = 2;
    /// The mapping trees of one region of physical memory.
    pub const TREE: u8 = 3;
    /// The free list of mapping nodes.
    pub const NODES: u8 = 4;
    /// The page tables of the kernel's own part of the address space.
    pub const KERNEL_TABLES: u8 = 5;
    /// The frames of kernel memory.
    pub const KMEM: u8 = 6;
    /// The interrupt controllers.
    pub const LINES: u8 = 7;
}

/// Proof that the locks held have rank `R` at most. Not `Copy`: while a higher lock is held, the proof is borrowed.
pub struct Held<const R: u8>(());

impl Held<{ rank::NONE }> {
    /// Proof that no lock is held. The image makes one per kernel entry.
    pub const fn nothing() -> Self {
        Held(())
    }
}

/// A spin lock of rank `R`.
#[derive(Default)]
pub struct Lock<const R: u8> {
    taken: AtomicBool,
}

impl<const R: u8> Lock<R> {
    /// A free lock.
    pub const fn new() -> Self {
        Self { taken: AtomicBool::new(false) }
    }

    /// Takes the lock; waits while another processor holds it. The borrow of `below` keeps its holder from taking
    /// anything else of its own rank in between.
    ///
    /// ```
    /// use kcore::lock::{Held, Lock, rank};
    /// let (tree, nodes) = (Lock::<{ rank::TREE }>::new(), Lock::<{ rank::NODES }>::new());
    /// let mut nothing = Held::nothing();
    /// let mut first = tree.lock(&mut nothing);
    /// let second = nodes.lock(first.held());
    /// ```
    /// In the other order it does not compile,
    /// ```compile_fail,E0080
    /// use kcore::lock::{Held, Lock, rank};
    /// let (tree, nodes) = (Lock::<{ rank::TREE }>::new(), Lock::<{ rank::NODES }>::new());
    /// let mut nothing = Held::nothing();
    /// let mut first = nodes.lock(&mut nothing);
    /// let second = tree.lock(first.held());
    /// ```
    /// nor do two of one rank,
    /// ```compile_fail,E0499
    /// use kcore::lock::{Held, Lock, rank};
    /// let (one, other) = (Lock::<{ rank::TREE }>::new(), Lock::<{ rank::TREE }>::new());
    /// let mut nothing = Held::nothing();
    /// let first = one.lock(&mut nothing);
    /// let second = other.lock(&mut nothing);
    /// drop((first, second));
    /// ```
    #[inline]
    pub fn lock<'a, const P: u8>(&'a self, below: &'a mut Held<P>) -> Guard<'a, R> {
        const { assert!(P < R, "locks are taken in rising rank") };
        let Held(()) = below;
        self.take()
    }

    /// Takes the lock that `choose` names, for some reason that `holds` still when it is taken. While there is none, waits
    /// without a lock.
    #[inline(always)]
    pub(crate) fn lock_chosen<'a, const P: u8, T: Copy>(
        below: &'a mut Held<P>,
        choose: impl Fn() -> Option<(&'a Self, T)>,
        holds: impl Fn(T) -> bool,
    ) -> Guard<'a, R> {
        const { assert!(P < R, "locks are taken in rising rank") };
        let Held(()) = below;
        loop {
            if let Some((lock, reason)) = choose() {
                let guard = lock.take();
                if !looks_again(Look::ChosenLock) || holds(reason) {
                    return guard;
                }
            }
            spin_loop();
        }
    }

    /// Whether somebody has it.
    #[cfg(test)]
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    #[inline]
    fn take(&self) -> Guard<'_, R> {
        while self.taken.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        Guard { lock: self, held: Held(()) }
    }
}

/// A taken lock; dropping it gives it back.
pub struct Guard<'a, const R: u8> {
    lock: &'a Lock<R>,
    held: Held<R>,
}

impl<const R: u8> Guard<'_, R> {
    /// The proof needed to take a lock of higher rank.
    #[inline(always)]
    pub fn held(&mut self) -> &mut Held<R> {
        &mut self.held
    }
}

impl<const R: u8> Drop for Guard<'_, R> {
    #[inline]
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::var::Var;

    /// Whoever has the lock is alone: no increment of a word that is not atomic gets lost.
    #[test]
    fn holders_are_alone() {
        let (lock, word) = (Lock::<{ rank::TREE }>::new(), Var::<usize>::zero());
        let count = || {
            let mut nothing = Held::nothing();
            for _ in 0..20_000 {
                let _guard = lock.lock(&mut nothing);
                word.set(word.get() + 1);
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(count))));
        assert_eq!(word.get(), 80_000);
    }

    /// A lock is free again when its guard is gone, and locks of higher ranks can be taken on top.
    #[test]
    fn locks_are_taken_in_rising_rank() {
        let (space, tree, kmem) =
            (Lock::<{ rank::SPACE }>::new(), Lock::<{ rank::TREE }>::new(), Lock::<{ rank::KMEM }>::new());
        let mut nothing = Held::nothing();
        for _ in 0..2 {
            let mut first = space.lock(&mut nothing);
            let mut second = tree.lock(first.held());
            drop(kmem.lock(second.held()));
            drop(kmem.lock(second.held()));
            assert!(space.taken.load(Ordering::Relaxed) && tree.taken.load(Ordering::Relaxed));
        }
        assert!(![&space.taken, &tree.taken, &kmem.taken].into_iter().any(|taken| taken.load(Ordering::Relaxed)));
    }
}
