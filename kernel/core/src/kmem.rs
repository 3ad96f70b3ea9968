//! Kernel memory: frames of 4 KiB.
//!
//! Frames come from regions given at boot. A frame that was freed is on a list threaded through the free frames
//! themselves, one that was never used is just above its region's mark, so that boot touches none of them. All of it is
//! guarded by one lock of rank KMEM, held for a few instructions.
//!
//! On machines with several *localities*, parts that lie nearer to some processors than to others, a frame comes from the
//! locality that it is asked for, or from the nearest to it that has one left. How many are left is counted for all
//! together: memory elsewhere is slower, none is worse.
//!
//! Who must not fail half-way reserves frames beforehand: a [`Reserved`] is a claim to a number of frames, which nobody
//! else can get until they are taken or the claim is given back.

use l4_abi::common::LOCALITIES_MAX;

use crate::lock::{Held, Lock, rank};
use crate::machine::{PhysAddr, PhysMem};
use crate::trace::{Event, args};
use crate::var::{Var, Var64};

/// Size of a frame.
pub const FRAME_SIZE: u64 = 4096;
/// Regions there can be.
pub const REGIONS_MAX: usize = 64;

/// Kernel memory.
pub struct Kmem {
    lock: Lock<{ rank::KMEM }>,
    /// For each locality the first frame of its free list; each holds the address of the next one, the last one zero.
    lists: [Var<PhysAddr>; LOCALITIES_MAX],
    /// For each locality all of them, the nearest first, four bits each from the lowest on.
    order: [Var64; LOCALITIES_MAX],
    /// The highest locality.
    last_locality: Var<usize>,
    regions: [Region; REGIONS_MAX],
    free: Var<usize>,
    reserved: Var<usize>,
    total: Var<usize>,
    #[cfg(test)]
    fail_in: Var<usize>,
}

/// Memory of one locality, of which the frames from `next` on were never used.
struct Region {
    start: Var<PhysAddr>,
    next: Var<PhysAddr>,
    end: Var<PhysAddr>,
    locality: Var<usize>,
}

crate::load::load_fields!(Region: start, next, end, locality);
crate::load::load_fields!(Kmem: lists, order, last_locality, regions, free, reserved, total);

impl Region {
    const fn none() -> Self {
        Self { start: Var::zero(), next: Var::zero(), end: Var::zero(), locality: Var::zero() }
    }

    fn contains(&self, frame: PhysAddr) -> bool {
        (self.start.get()..self.end.get()).contains(&frame)
    }
}

const LOCALITY_BITS: u32 = 4;
const _: () = assert!(LOCALITIES_MAX <= 1 << LOCALITY_BITS && LOCALITIES_MAX * LOCALITY_BITS as usize <= 64);

/// The `n`th nearest locality.
fn nth_locality(order: u64, n: usize) -> usize {
    (order >> (n as u32 * LOCALITY_BITS)) as usize & (LOCALITIES_MAX - 1)
}

/// A claim to frames. Must be given back with [`Kmem::give_back`], used up or not.
#[derive(Debug)]
#[must_use = "the frames stay claimed until the claim is given back"]
pub struct Reserved(usize);

impl Reserved {
    /// Frames left in the claim.
    pub fn count(&self) -> usize {
        self.0
    }
}

impl Default for Kmem {
    fn default() -> Self {
        Self::new()
    }
}

impl Kmem {
    /// No memory yet.
    pub const fn new() -> Self {
        Self {
            lock: Lock::new(),
            lists: [const { Var::zero() }; LOCALITIES_MAX],
            order: [const { Var64::zero() }; LOCALITIES_MAX],
            last_locality: Var::zero(),
            regions: [const { Region::none() }; REGIONS_MAX],
            free: Var::zero(),
            reserved: Var::zero(),
            total: Var::zero(),
            #[cfg(test)]
            fail_in: Var::zero(),
        }
    }

    /// Whether `at` is in kernel memory.
    pub fn contains(&self, at: PhysAddr) -> bool {
        self.regions.iter().any(|region| region.contains(at))
    }

    /// The parts of kernel memory: begin, end, locality.
    pub fn regions(&self) -> impl Iterator<Item = (PhysAddr, PhysAddr, usize)> {
        let parts = self.regions.iter().map(|region| (region.start.get(), region.end.get(), region.locality.get()));
        parts.filter(|(start, end, _)| start < end)
    }

    /// Frames that are claimed and not taken.
    pub fn reserved_count(&self) -> usize {
        self.reserved.get()
    }

    /// Adds the whole frames from `start` up to `end`, which are in `locality`. The first frame of physical memory is left
    /// out: its address ends the free lists. `false`: there are [`REGIONS_MAX`] regions already, and nothing is added.
    ///
    /// # Panics
    /// If `locality` is not below [`LOCALITIES_MAX`].
    pub fn add_region<const P: u8>(&self, held: &mut Held<P>, start: PhysAddr, end: PhysAddr, locality: usize) -> bool {
        assert!(locality < LOCALITIES_MAX, "kernel memory has at most LOCALITIES_MAX localities");
        let start = start.0.next_multiple_of(FRAME_SIZE).max(FRAME_SIZE);
        let end = end.0 - end.0 % FRAME_SIZE;
        if start >= end {
            return true;
        }
        let _guard = self.lock.lock(held);
        let Some(region) = self.regions.iter().find(|region| region.end.get() == PhysAddr(0)) else { return false };
        region.start.set(PhysAddr(start));
        region.next.set(PhysAddr(start));
        region.end.set(PhysAddr(end));
        region.locality.set(locality);
        let frames = ((end - start) / FRAME_SIZE) as usize;
        self.total.set(self.total.get() + frames);
        self.free.set(self.free.get() + frames);
        true
    }

    /// Says how far localities from 0 to `last` are from each other. Until then all memory is that of locality 0.
    ///
    /// # Panics
    /// If `last` is not below [`LOCALITIES_MAX`].
    pub fn set_localities<const P: u8>(&self, held: &mut Held<P>, last: usize, distance: impl Fn(usize, usize) -> u8) {
        assert!(last < LOCALITIES_MAX, "kernel memory has at most LOCALITIES_MAX localities");
        let _guard = self.lock.lock(held);
        self.last_locality.set(last);
        for from in 0..=last {
            let mut all: [usize; LOCALITIES_MAX] = core::array::from_fn(|to| to);
            // Itself comes first, whatever its distance is said to be; others that are equally far, by number.
            all[..=last].sort_unstable_by_key(|&to| (to != from, distance(from, to), to));
            let order = all.iter().rev().fold(0, |order, &to| order << LOCALITY_BITS | to as u64);
            self.order[from].set(order);
        }
    }

    /// The frames of `locality`, used or not.
    pub fn total_of(&self, locality: usize) -> usize {
        let regions = self.regions.iter().filter(|region| region.locality.get() == locality);
        regions.map(|region| ((region.end.get().0 - region.start.get().0) / FRAME_SIZE) as usize).sum()
    }

    /// The locality that a frame of kernel memory is in.
    pub fn locality_of(&self, frame: PhysAddr) -> usize {
        if self.last_locality.get() == 0 {
            return 0;
        }
        self.regions.iter().find(|region| region.contains(frame)).map_or(0, |region| region.locality.get())
    }

    /// A frame full of zeros, near to the processor that asks; `None` when all that are left are reserved.
    #[cfg_attr(test, track_caller)]
    pub fn alloc<const P: u8>(&self, memory: &impl PhysMem, held: &mut Held<P>) -> Option<PhysAddr> {
        let frame = {
            let _guard = self.lock.lock(held);
            if self.shall_fail() || self.free.get() == self.reserved.get() {
                return None;
            }
            self.take(memory)
        };
        memory.zero_frame(frame);
        self.trace(memory, Event::KmemAlloc, frame);
        Some(frame)
    }

    /// Gives a frame back.
    pub fn free<const P: u8>(&self, memory: &impl PhysMem, held: &mut Held<P>, frame: PhysAddr) {
        debug_assert!(frame.0 != 0 && frame.0.is_multiple_of(FRAME_SIZE), "a frame is aligned");
        {
            let _guard = self.lock.lock(held);
            let list = &self.lists[self.locality_of(frame)];
            memory.write(frame, list.get().0 as usize);
            list.set(frame);
            self.free.set(self.free.get() + 1);
            debug_assert!(self.free.get() <= self.total.get(), "a frame is freed once");
        }
        self.trace(memory, Event::KmemFree, frame);
    }

    /// Claims `count` frames; `None` if fewer are free. A claim to none always succeeds.
    #[cfg_attr(test, track_caller)]
    pub fn reserve<const P: u8>(&self, held: &mut Held<P>, count: usize) -> Option<Reserved> {
        if count == 0 {
            return Some(Reserved(0));
        }
        let _guard = self.lock.lock(held);
        if self.shall_fail() || self.free.get() - self.reserved.get() < count {
            return None;
        }
        self.reserved.set(self.reserved.get() + count);
        Some(Reserved(count))
    }

    /// A frame full of zeros out of the claim, near to the processor that asks.
    ///
    /// # Panics
    /// If the claim is used up.
    pub fn alloc_reserved<const P: u8>(
        &self,
        memory: &impl PhysMem,
        held: &mut Held<P>,
        claim: &mut Reserved,
    ) -> PhysAddr {
        claim.0 = claim.0.checked_sub(1).expect("a claim covers what is taken from it");
        let frame = {
            let _guard = self.lock.lock(held);
            self.reserved.set(self.reserved.get() - 1);
            self.take(memory)
        };
        memory.zero_frame(frame);
        self.trace(memory, Event::KmemAlloc, frame);
        frame
    }

    #[inline(always)]
    fn trace(&self, memory: &impl PhysMem, event: Event, frame: PhysAddr) {
        memory.trace(event, || args([frame.0, self.free.get() as u64]));
    }

    /// Gives up what is left of a claim.
    pub fn give_back<const P: u8>(&self, held: &mut Held<P>, claim: Reserved) {
        if claim.0 == 0 {
            return;
        }
        let _guard = self.lock.lock(held);
        self.reserved.set(self.reserved.get() - claim.0);
    }

    /// Frames that are neither used nor reserved.
    pub fn free_count(&self) -> usize {
        self.free.get().saturating_sub(self.reserved.get())
    }

    /// All frames.
    pub fn total(&self) -> usize {
        self.total.get()
    }

    /// Takes a frame, of which there is one, as near as there is. The lock is held.
    fn take(&self, memory: &impl PhysMem) -> PhysAddr {
        self.free.set(self.free.get() - 1);
        let locality = memory.locality();
        let list = &self.lists[locality];
        let first = list.get();
        if first == PhysAddr(0) {
            return self.take_from_next(memory, locality);
        }
        list.set(PhysAddr(memory.read(first) as u64));
        first
    }

    /// The same where nothing is on the list of `locality`.
    #[cold]
    fn take_from_next(&self, memory: &impl PhysMem, locality: usize) -> PhysAddr {
        let order = self.order[locality].get();
        let mut nearest = (0..=self.last_locality.get()).map(|i| nth_locality(order, i));
        nearest.find_map(|at| self.take_in(memory, at)).expect("free frames are on the lists or in regions")
    }

    fn take_in(&self, memory: &impl PhysMem, locality: usize) -> Option<PhysAddr> {
        let list = &self.lists[locality];
        let first = list.get();
        if first != PhysAddr(0) {
            list.set(PhysAddr(memory.read(first) as u64));
            return Some(first);
        }
        let is_fresh = |region: &&Region| region.locality.get() == locality && region.next.get() < region.end.get();
        let region = self.regions.iter().find(is_fresh)?;
        let frame = region.next.get();
        region.next.set(PhysAddr(frame.0 + FRAME_SIZE));
        Some(frame)
    }

    /// Lets the `n`th allocation or claim from now on fail, 1 being the next.
    #[cfg(test)]
    pub(crate) fn fail_nth(&self, n: usize) {
        self.fail_in.set(n);
    }

    /// Whether that is still to come.
    #[cfg(test)]
    pub(crate) fn is_failure_pending(&self) -> bool {
        self.fail_in.get() > 0
    }

    #[cfg(test)]
    #[track_caller]
    fn shall_fail(&self) -> bool {
        let n = self.fail_in.get();
        self.fail_in.set(n.saturating_sub(1));
        if n == 1 {
            failures::note(core::panic::Location::caller());
        }
        n == 1
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn shall_fail(&self) -> bool {
        false
    }
}

/// Where memory ran out in tests.
#[cfg(test)]
pub(crate) mod failures {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::panic::Location;

    std::thread_local! {
        static PLACES: RefCell<BTreeSet<(&'static str, u32)>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// It ran out here.
    pub(super) fn note(place: &'static Location<'static>) {
        PLACES.with_borrow_mut(|places| places.insert((place.file(), place.line())));
    }

    /// It did not yet.
    pub(crate) fn forget() {
        PLACES.take();
    }

    /// The files and lines where it did.
    pub(crate) fn places() -> BTreeSet<(&'static str, u32)> {
        PLACES.with_borrow(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::trace::Sink;

    /// Memory that starts as garbage and notes which frames were cleared.
    #[derive(Default)]
    struct Fake {
        words: RefCell<BTreeMap<u64, usize>>,
        cleared: RefCell<BTreeSet<u64>>,
        locality: Cell<usize>,
    }

    impl Sink for Fake {}

    impl PhysMem for Fake {
        fn read(&self, at: PhysAddr) -> usize {
            self.words.borrow().get(&at.0).copied().unwrap_or(0x5A5A)
        }
        fn write(&self, at: PhysAddr, word: usize) {
            self.words.borrow_mut().insert(at.0, word);
            self.cleared.borrow_mut().remove(&(at.0 & !(FRAME_SIZE - 1)));
        }
        fn update(&self, _: PhysAddr, _: usize, _: usize) -> usize {
            unreachable!("frames are not page tables")
        }
        fn replace(&self, _: PhysAddr, _: usize, _: usize) -> bool {
            unreachable!("frames are not page tables")
        }
        fn zero_frame(&self, frame: PhysAddr) {
            self.words.borrow_mut().insert(frame.0, 0);
            self.cleared.borrow_mut().insert(frame.0);
        }
        fn locality(&self) -> usize {
            self.locality.get()
        }
    }

    fn kmem(regions: &[(u64, u64)]) -> (Kmem, Fake) {
        let kmem = Kmem::default();
        for (start, end) in regions {
            assert!(kmem.add_region(&mut Held::nothing(), PhysAddr(*start), PhysAddr(*end), 0));
        }
        (kmem, Fake::default())
    }

    /// All frames that there are to get, in the order in which they come.
    fn drain(kmem: &Kmem, memory: &Fake) -> Vec<u64> {
        std::iter::from_fn(|| kmem.alloc(memory, &mut Held::nothing()).map(|frame| frame.0)).collect()
    }

    #[test]
    fn frames_come_from_all_regions_once() {
        let (kmem, memory) = kmem(&[(0x4000, 0x6000), (0x9000, 0xA000), (0x2_0000, 0x2_0000)]);
        assert_eq!((kmem.total(), kmem.free_count()), (3, 3));
        assert_eq!(drain(&kmem, &memory), [0x4000, 0x5000, 0x9000]);
        assert_eq!((kmem.total(), kmem.free_count()), (3, 0));
    }

    /// Two frames in each of three localities, which lie in a row.
    fn three_localities() -> (Kmem, Fake) {
        let kmem = Kmem::default();
        let held = &mut Held::nothing();
        for (locality, start) in [0x4000, 0x8000, 0xC000].into_iter().enumerate() {
            assert!(kmem.add_region(held, PhysAddr(start), PhysAddr(start + 2 * FRAME_SIZE), locality));
        }
        kmem.set_localities(held, 2, |from, to| 10 + 10 * from.abs_diff(to) as u8);
        (kmem, Fake::default())
    }

    #[test]
    fn frames_come_from_where_they_are_asked_for_and_then_from_near() {
        for (locality, expected) in [
            (0, [0x4000, 0x5000, 0x8000, 0x9000, 0xC000, 0xD000]),
            (1, [0x8000, 0x9000, 0x4000, 0x5000, 0xC000, 0xD000]),
            (2, [0xC000, 0xD000, 0x8000, 0x9000, 0x4000, 0x5000]),
        ] {
            let (kmem, memory) = three_localities();
            memory.locality.set(locality);
            assert_eq!(drain(&kmem, &memory), expected, "asked for in {locality}");
            assert_eq!((kmem.total(), kmem.free_count()), (6, 0));
            assert_eq!(kmem.total_of(locality), 2);
        }
    }

    #[test]
    fn freed_frames_go_back_to_where_they_are() {
        let (kmem, memory) = three_localities();
        let held = &mut Held::nothing();
        let frames = drain(&kmem, &memory);
        frames.iter().for_each(|&frame| kmem.free(&memory, held, PhysAddr(frame)));
        let mut claim = kmem.reserve(held, 6).expect("six are free");
        for locality in [2, 2, 1, 1, 0, 0] {
            memory.locality.set(locality);
            let frame = kmem.alloc_reserved(&memory, held, &mut claim);
            assert_eq!(kmem.locality_of(frame), locality);
        }
        kmem.give_back(held, claim);
    }

    #[test]
    fn region_is_cut_to_whole_frames_without_the_first_of_memory() {
        let (kmem, memory) = kmem(&[(0x10, 0x2FFF), (0x7001, 0x7FFF)]);
        assert_eq!(drain(&kmem, &memory), [0x1000]);
    }

    #[test]
    fn freed_frames_come_again_and_are_clear() {
        let (kmem, memory) = kmem(&[(0x4000, 0x8000)]);
        let frames = drain(&kmem, &memory);
        for frame in &frames {
            kmem.free(&memory, &mut Held::nothing(), PhysAddr(*frame));
        }
        assert_eq!(kmem.free_count(), 4);
        let again: BTreeSet<u64> = drain(&kmem, &memory).into_iter().collect();
        assert_eq!(again, frames.into_iter().collect());
        assert_eq!(*memory.cleared.borrow(), again);
    }

    #[test]
    fn reserved_frames_are_nobody_elses() {
        let (kmem, memory) = kmem(&[(0x4000, 0x8000)]);
        let held = &mut Held::nothing();
        let mut claim = kmem.reserve(held, 3).expect("four are free");
        assert_eq!(kmem.free_count(), 1);
        assert!(kmem.reserve(held, 2).is_none());
        assert_eq!(drain(&kmem, &memory).len(), 1);
        assert_ne!(kmem.alloc_reserved(&memory, held, &mut claim), PhysAddr(0));
        assert_eq!((claim.count(), kmem.free_count()), (2, 0));
        kmem.give_back(held, claim);
        assert_eq!(drain(&kmem, &memory).len(), 2);
    }

    #[test]
    #[should_panic = "a claim covers what is taken from it"]
    fn claim_can_be_used_up() {
        let (kmem, memory) = kmem(&[(0x4000, 0x8000)]);
        let mut claim = kmem.reserve(&mut Held::nothing(), 1).expect("four are free");
        kmem.alloc_reserved(&memory, &mut Held::nothing(), &mut claim);
        kmem.alloc_reserved(&memory, &mut Held::nothing(), &mut claim);
    }

    #[test]
    fn chosen_allocation_fails() {
        let (kmem, memory) = kmem(&[(0x4000, 0x8000)]);
        kmem.fail_nth(2);
        let held = &mut Held::nothing();
        let results = [(); 3].map(|()| kmem.alloc(&memory, held).is_some());
        assert_eq!(results, [true, false, true]);
    }
}
