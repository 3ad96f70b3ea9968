//! The locks of the mapping trees.
//!
//! A tree lies below one root, and has one lock. Where all roots are superpages at most, that is one of [`FINE`] locks,
//! chosen by the superpage. A larger root needs one lock for all its memory: one of as many *coarse* locks, chosen by its
//! number. Which of the two kinds counts is a matter of a *region*, the memory of all larger pages that have the same
//! coarse lock: fine ones, unless there is a larger root in it.
//!
//! The kind of a region changes under the lock of sigma0's space, whose pages the roots are. A third value of the kind
//! says that a change is under way: then nobody gets a lock of the region, until whoever changes it has had each lock of
//! the old kind once. So nobody has one any more, or gets one later without seeing the new kind.

use super::TreeGuard;
use crate::lock::{Held, Lock, rank};
use crate::sync::{AtomicU8, Ordering};
use crate::var::Var;

/// Locks of each kind.
const FINE: usize = 64;
const COARSE: usize = 64;

/// Which locks count in a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Fine,
    Coarse,
    Changing,
}

/// The locks.
pub(crate) struct TreeLocks {
    fine: [Lock<{ rank::TREE }>; FINE],
    regions: [Region; COARSE],
    /// log2 of the memory of a superpage, and of the next larger page.
    superpage_log2: u32,
    larger_log2: u32,
}

/// The larger pages with one coarse lock.
struct Region {
    kind: AtomicU8,
    coarse: Lock<{ rank::TREE }>,
    /// Larger roots. Changes under the coarse lock; rises under that of sigma0's space, too.
    larger_roots: Var<u32>,
}

impl TreeLocks {
    pub(crate) const fn new(superpage_log2: u32, larger_log2: u32) -> Self {
        let (fine, regions) = ([const { Lock::new() }; FINE], [const { Region::new() }; COARSE]);
        Self { fine, regions, superpage_log2, larger_log2 }
    }

    fn region(&self, frame: u64) -> &Region {
        &self.regions[(frame >> self.larger_log2) as usize % COARSE]
    }

    /// The lock of the trees that map `frame`, in `region`, if there is one now, and its kind.
    #[inline(always)]
    fn choose<'a>(&'a self, frame: u64, region: &'a Region) -> Option<(&'a Lock<{ rank::TREE }>, Kind)> {
        if region.is(Kind::Fine) {
            return Some((&self.fine[(frame >> self.superpage_log2) as usize % FINE], Kind::Fine));
        }
        region.is(Kind::Coarse).then_some((&region.coarse, Kind::Coarse))
    }

    /// Takes the lock of the trees that map `frame`.
    #[inline]
    pub(crate) fn lock<'a, const P: u8>(&'a self, frame: u64, held: &'a mut Held<P>) -> TreeGuard<'a> {
        let region = self.region(frame);
        Lock::lock_chosen(held, || self.choose(frame, region), |kind| region.is(kind))
    }

    /// Whether somebody has the lock of the trees that map `frame`.
    #[cfg(test)]
    pub(crate) fn is_taken(&self, frame: u64) -> bool {
        self.choose(frame, self.region(frame)).is_none_or(|(lock, _)| lock.is_taken())
    }

    /// Makes the locks of the region around `frame` fit for a root there, which is larger than a superpage or not. Larger
    /// ones that are there keep them coarse. Needs the lock of sigma0's space.
    pub(crate) fn prepare(&self, frame: u64, is_larger: bool, held: &mut Held<{ rank::SPACE }>) {
        let region = self.region(frame);
        match region.kind() {
            Kind::Fine if is_larger => {
                region.set_kind(Kind::Changing);
                self.fine.iter().for_each(|lock| drop(lock.lock(held)));
                region.set_kind(Kind::Coarse);
            }
            Kind::Coarse if !is_larger && region.larger_roots.get() == 0 => {
                region.set_kind(Kind::Changing);
                drop(region.coarse.lock(held));
                region.set_kind(Kind::Fine);
            }
            _ => {}
        }
    }

    /// A root at `frame`, larger than a superpage, comes. Needs its lock.
    pub(crate) fn larger_root_came(&self, _tree: &mut TreeGuard<'_>, frame: u64) {
        let roots = &self.region(frame).larger_roots;
        debug_assert!(self.region(frame).kind() == Kind::Coarse, "a larger root has a coarse lock");
        roots.set(roots.get() + 1);
    }

    /// It goes. Needs its lock.
    pub(crate) fn larger_root_went(&self, _tree: &mut TreeGuard<'_>, frame: u64) {
        let roots = &self.region(frame).larger_roots;
        roots.set(roots.get() - 1);
    }
}

impl Region {
    const fn new() -> Self {
        Self { kind: AtomicU8::new(Kind::Fine as u8), coarse: Lock::new(), larger_roots: Var::zero() }
    }

    fn kind(&self) -> Kind {
        match self.kind.load(Ordering::Acquire) {
            kind if kind == Kind::Fine as u8 => Kind::Fine,
            kind if kind == Kind::Coarse as u8 => Kind::Coarse,
            _ => Kind::Changing,
        }
    }

    #[inline(always)]
    fn is(&self, kind: Kind) -> bool {
        self.kind.load(Ordering::Acquire) == kind as u8
    }

    fn set_kind(&self, kind: Kind) {
        self.kind.store(kind as u8, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB2: u64 = 1 << 21;

    fn locks() -> TreeLocks {
        TreeLocks::new(21, 30)
    }

    fn is_one_lock(locks: &TreeLocks, one: u64, other: u64) -> bool {
        let lock = |frame| locks.choose(frame, locks.region(frame)).map(|(lock, _)| core::ptr::from_ref(lock));
        lock(one) == lock(other)
    }

    /// Superpages have locks of their own until a larger root is prepared, and again when none is left.
    #[test]
    fn locks_are_fine_unless_there_is_a_larger_root() {
        let (locks, mut nothing) = (locks(), Held::nothing());
        let space = Lock::<{ rank::SPACE }>::new();
        let mut guard = space.lock(&mut nothing);
        assert!(!is_one_lock(&locks, GIB, GIB + MIB2));
        for _ in 0..2 {
            locks.prepare(GIB, true, guard.held());
            assert!(is_one_lock(&locks, GIB, 2 * GIB - 1) && !is_one_lock(&locks, GIB, 2 * GIB));
            assert!(!is_one_lock(&locks, 2 * GIB, 2 * GIB + MIB2), "other memory keeps its locks");
            locks.larger_root_came(&mut locks.lock(GIB, guard.held()), GIB);
            locks.prepare(GIB + MIB2, false, guard.held());
            assert!(is_one_lock(&locks, GIB, GIB + MIB2), "the larger root is still there");
            locks.larger_root_went(&mut locks.lock(GIB, guard.held()), GIB);
            locks.prepare(GIB + MIB2, false, guard.held());
            assert!(!is_one_lock(&locks, GIB, GIB + MIB2));
        }
    }

    /// Whoever has the lock of some memory is alone, while the kind of locks changes all the time.
    #[test]
    fn holders_are_alone_while_kinds_change() {
        let (locks, words) = (locks(), [Var::<usize>::zero(), Var::zero()]);
        let frames = [5 * GIB, 5 * GIB + MIB2];
        let count = || {
            let mut nothing = Held::nothing();
            for round in 0..20_000 {
                let _guard = locks.lock(frames[round % 2], &mut nothing);
                let word = &words[round % 2];
                word.set(word.get() + 1);
            }
        };
        let change = || {
            let (space, mut nothing) = (Lock::<{ rank::SPACE }>::new(), Held::nothing());
            for round in 0..500 {
                locks.prepare(5 * GIB, round % 2 == 0, space.lock(&mut nothing).held());
            }
        };
        thread::scope(|scope| {
            (0..3).for_each(|_| drop(scope.spawn(count)));
            scope.spawn(change);
        });
        assert_eq!(words.each_ref().map(Var::get), [30_000, 30_000]);
    }
}
