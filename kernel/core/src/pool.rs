//! Slots of a table that has memory behind it only where slots are in use.
//!
//! A table is backed page by page. The last slot of a backed page is its *head*: it counts the slots in use and knows
//! the free ones. Pages with a free slot are linked through their heads, so that taking and giving back a slot takes
//! constant time. The page whose last slot in use comes back is released at once: a table costs what is in it, to the
//! byte. Which pages are backed stands in a map of bits, where a new page is the first one that is not; to look for it
//! takes a step for 64 pages, less than to clear a page.
//!
//! A pool has no lock of its own: it is part of what its owner's lock guards.

use crate::kmem::FRAME_SIZE;
use crate::machine::{Index, NoMemory};
use crate::var::{AsWord, Var};

/// A table and the map of its backed pages, all zero at first; of the table only what is backed may be written.
#[derive(Clone, Copy)]
pub struct Table<'k, T> {
    /// The slots: whole pages.
    pub slots: &'k [T],
    /// A bit for each page.
    pub backed: &'k [Var<usize>],
}

/// What a pool needs of a slot besides its use.
pub(crate) trait Pooled: Sized {
    /// How slots are named.
    type Ref: Index;

    /// In a free slot: the next free one of its page.
    fn next_free(&self) -> &Var<Option<Self::Ref>>
    where
        Option<Self::Ref>: AsWord;

    /// What the slot holds as the head of its page.
    fn head(&self) -> Head<'_, Self::Ref>
    where
        Option<Self::Ref>: AsWord;
}

/// The head of a page.
pub(crate) struct Head<'a, R>
where
    Option<R>: AsWord,
{
    /// The heads of the next and of the last page with a free slot.
    pub next: &'a Var<Option<R>>,
    /// See `next`.
    pub prev: &'a Var<Option<R>>,
    /// The first free slot of the page among those that were in use.
    pub free: &'a Var<Option<R>>,
    /// Slots in use, and those that ever were, above [`TOUCHED_SHIFT`].
    pub counts: &'a Var<usize>,
}

const TOUCHED_SHIFT: u32 = 12;
const USED_MASK: usize = (1 << TOUCHED_SHIFT) - 1;

impl<R> Head<'_, R>
where
    Option<R>: AsWord,
{
    fn used(&self) -> usize {
        self.counts.get() & USED_MASK
    }

    /// Slots of the page from here on were not used since it is backed.
    fn touched(&self) -> usize {
        self.counts.get() >> TOUCHED_SHIFT
    }

    fn set(&self, used: usize, touched: usize) {
        self.counts.set(used | touched << TOUCHED_SHIFT);
    }
}

/// The slots of a table.
pub(crate) struct Pool<'k, T: Pooled>
where
    Option<T::Ref>: AsWord,
{
    table: Table<'k, T>,
    /// The head of the first page with a free slot.
    open: Var<Option<T::Ref>>,
    /// All words of the map before this one are full.
    hint: Var<usize>,
}

impl<'k, T: Pooled> Pool<'k, T>
where
    Option<T::Ref>: AsWord,
{
    /// Slots of a page, its head included.
    pub const PER_PAGE: usize = FRAME_SIZE as usize / size_of::<T>();
    /// Slots of a page that can be used.
    const CAPACITY: usize = Self::PER_PAGE - 1;

    /// A pool of which nothing is backed.
    pub fn new(table: Table<'k, T>) -> Self {
        const {
            assert!((FRAME_SIZE as usize).is_multiple_of(size_of::<T>()), "slots do not cross pages");
            assert!(Self::CAPACITY > 1 && Self::PER_PAGE < 1 << TOUCHED_SHIFT);
        }
        Self { table, open: Var::zero(), hint: Var::zero() }
    }

    /// The slot.
    #[inline(always)]
    pub fn get(&self, slot: T::Ref) -> &'k T {
        &self.table.slots[slot.index()]
    }

    /// The slot, if there is one of that number.
    pub fn at(&self, slot: T::Ref) -> Option<&'k T> {
        self.table.slots.get(slot.index())
    }

    /// Slots of the table, backed or not.
    pub fn len(&self) -> usize {
        self.table.slots.len()
    }

    /// A free slot, which is from now on in use. `back` puts zeroed memory behind the page that begins with the slot it is
    /// given, if that is necessary.
    ///
    /// # Errors
    /// [`NoMemory`]: `back` failed, or the table is full.
    pub fn alloc(&self, back: impl FnOnce(T::Ref) -> Result<(), NoMemory>) -> Result<T::Ref, NoMemory> {
        if self.open.get().is_none() {
            self.open_page(back)?;
        }
        self.alloc_backed().ok_or(NoMemory)
    }

    /// A free slot that has memory behind it, which is from now on in use; `None` if there is none.
    #[inline(always)]
    pub fn alloc_backed(&self) -> Option<T::Ref> {
        let head_ref = self.open.get()?;
        let head = self.get(head_ref).head();
        let counts = head.counts.get() + 1;
        let (slot, counts) = match head.free.get() {
            Some(slot) => {
                head.free.set(self.get(slot).next_free().replace(None));
                (slot, counts)
            }
            None => {
                let slot = self.first_of(head_ref) + (counts >> TOUCHED_SHIFT);
                (Index::new(slot as u32), counts + (1 << TOUCHED_SHIFT))
            }
        };
        head.counts.set(counts);
        if counts & USED_MASK == Self::CAPACITY {
            self.close(head_ref);
        }
        Some(slot)
    }

    /// Takes back a slot. If it was the last in use of its page, `release` takes the memory away behind the page that
    /// begins with the slot it is given: from then on the page reads as zero.
    pub fn free(&self, slot: T::Ref, release: impl FnOnce(T::Ref)) {
        let head_ref = self.head_of(slot);
        let head = self.get(head_ref).head();
        let used = head.used();
        if used == Self::CAPACITY {
            self.open(head_ref);
        }
        if used > 1 {
            self.get(slot).next_free().set(head.free.replace(Some(slot)));
            return head.set(used - 1, head.touched());
        }
        self.close(head_ref);
        let first = self.first_of(slot);
        let (word, bit) = Self::place(first / Self::PER_PAGE);
        self.table.backed[word].set(self.table.backed[word].get() & !bit);
        self.hint.set(self.hint.get().min(word));
        release(Index::new(first as u32));
    }

    /// All slots of backed pages but the heads.
    pub fn backed(&self) -> impl Iterator<Item = T::Ref> {
        let pages = (0..self.pages()).filter(|&page| {
            let (word, bit) = Self::place(page);
            self.table.backed[word].get() & bit != 0
        });
        let slots = |page| (0..Self::CAPACITY).map(move |slot| Index::new((page * Self::PER_PAGE + slot) as u32));
        pages.flat_map(slots)
    }

    /// How many pages are backed.
    pub fn backed_pages(&self) -> usize {
        self.table.backed.iter().map(|word| word.get().count_ones() as usize).sum()
    }

    /// The slots of the page that begins with `first`, without the head.
    pub fn slots_of(&self, first: T::Ref) -> &'k [T] {
        &self.table.slots[first.index()..][..Self::CAPACITY]
    }

    /// Backs the first page that is not, and makes it the first with free slots.
    fn open_page(&self, back: impl FnOnce(T::Ref) -> Result<(), NoMemory>) -> Result<(), NoMemory> {
        let mut word = self.hint.get();
        while self.table.backed.get(word).ok_or(NoMemory)?.get() == usize::MAX {
            word += 1;
        }
        self.hint.set(word);
        let map = &self.table.backed[word];
        let bit = map.get().trailing_ones();
        let page = word * usize::BITS as usize + bit as usize;
        if page >= self.pages() {
            return Err(NoMemory);
        }
        let first: T::Ref = Index::new((page * Self::PER_PAGE) as u32);
        back(first)?;
        map.set(map.get() | 1 << bit);
        let head_ref = self.head_of(first);
        let head = self.get(head_ref).head();
        head.free.set(None);
        head.set(0, 0);
        self.open(head_ref);
        Ok(())
    }

    /// Links a page with free slots.
    fn open(&self, head_ref: T::Ref) {
        let head = self.get(head_ref).head();
        let second = self.open.replace(Some(head_ref));
        head.prev.set(None);
        head.next.set(second);
        if let Some(second) = second {
            self.get(second).head().prev.set(Some(head_ref));
        }
    }

    /// Unlinks a page.
    #[inline(never)]
    fn close(&self, head_ref: T::Ref) {
        let head = self.get(head_ref).head();
        let (next, prev) = (head.next.get(), head.prev.get());
        match prev {
            Some(prev) => self.get(prev).head().next.set(next),
            None => self.open.set(next),
        }
        if let Some(next) = next {
            self.get(next).head().prev.set(prev);
        }
    }

    fn pages(&self) -> usize {
        self.table.slots.len() / Self::PER_PAGE
    }

    fn first_of(&self, slot: T::Ref) -> usize {
        slot.index() / Self::PER_PAGE * Self::PER_PAGE
    }

    fn head_of(&self, slot: T::Ref) -> T::Ref {
        Index::new((self.first_of(slot) + Self::CAPACITY) as u32)
    }

    /// Word and bit of a page in the map.
    fn place(page: usize) -> (usize, usize) {
        (page / usize::BITS as usize, 1 << (page % usize::BITS as usize))
    }
}

#[cfg(test)]
impl<T: Pooled> Pool<'_, T>
where
    Option<T::Ref>: AsWord,
{
    /// Checks the lists and counts of all pages; returns how many slots are in use and how many pages backed.
    ///
    /// # Panics
    /// Where something is wrong.
    pub fn check(&self) -> (usize, usize) {
        let heads: std::collections::BTreeSet<usize> = self.backed().map(|slot| self.head_of(slot).index()).collect();
        let (mut open, mut last, mut next) = (std::collections::BTreeSet::new(), None, self.open.get());
        while let Some(head_ref) = next {
            assert!(open.insert(head_ref.index()), "the list of open pages ends");
            let head = self.get(head_ref).head();
            assert_eq!(head.prev.get().map(Index::index), last, "open pages know each other");
            (last, next) = (Some(head_ref.index()), head.next.get());
        }
        let mut all = 0;
        for &index in &heads {
            let head = self.get(Index::new(index as u32)).head();
            let (mut free, mut next) = (Self::CAPACITY - head.touched(), head.free.get());
            while let Some(slot) = next {
                assert_eq!(self.head_of(slot).index(), index, "a page has its own free slots");
                free += 1;
                assert!(free <= Self::CAPACITY, "the list of free slots ends");
                next = self.get(slot).next_free().get();
            }
            assert_eq!(head.used() + free, Self::CAPACITY, "each slot is free or in use");
            assert!(head.used() > 0, "a page without a slot in use is not backed");
            assert_eq!(open.contains(&index), free > 0, "a page with free slots is open");
            all += head.used();
        }
        assert!(open.is_subset(&heads), "open pages are backed");
        (all, heads.len())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::machine::SpaceRef;

    /// 16 slots a page, as large as they must be for that.
    #[derive(Default)]
    #[repr(align(256))]
    struct Slot {
        links: [Var<Option<SpaceRef>>; 4],
        counts: Var<usize>,
    }

    impl Pooled for Slot {
        type Ref = SpaceRef;
        fn next_free(&self) -> &Var<Option<SpaceRef>> {
            &self.links[3]
        }
        fn head(&self) -> Head<'_, SpaceRef> {
            let [next, prev, free, _] = &self.links;
            Head { next, prev, free, counts: &self.counts }
        }
    }

    /// A pool of some pages, and which of them are backed.
    struct World {
        slots: Vec<Slot>,
        map: Vec<Var<usize>>,
    }

    impl World {
        fn new(pages: usize) -> Self {
            let slots = (0..pages * 16).map(|_| Slot::default()).collect();
            Self { slots, map: (0..pages.div_ceil(64)).map(|_| Var::zero()).collect() }
        }

        fn pool(&self) -> Pool<'_, Slot> {
            Pool::new(Table { slots: &self.slots, backed: &self.map })
        }
    }

    /// Slots are given out once, pages are backed when they are needed and released with their last slot.
    #[test]
    fn pages_come_and_go_with_their_slots() {
        let world = World::new(3);
        let (pool, pages) = (world.pool(), RefCell::new(BTreeSet::new()));
        let back = |first: SpaceRef| {
            assert!(pages.borrow_mut().insert(first.index()), "a page is backed once");
            Ok(())
        };
        let release = |first: SpaceRef| assert!(pages.borrow_mut().remove(&first.index()), "a backed page is released");
        for order in 0..4 {
            let mut slots: Vec<SpaceRef> = (0..45).map(|_| pool.alloc(back).expect("three pages of 15")).collect();
            assert_eq!(pool.check(), (45, 3));
            assert_eq!(slots.iter().map(|slot| slot.index()).collect::<BTreeSet<_>>().len(), 45);
            assert_eq!(pool.alloc(back), Err(NoMemory), "the table is full");
            match order {
                0 => {}
                1 => slots.reverse(),
                2 => slots.sort_by_key(|slot| slot.index() % 7),
                _ => slots.sort_by_key(|slot| slot.index() % 16),
            }
            for (freed, &slot) in slots.iter().enumerate() {
                pool.free(slot, release);
                let (used, backed) = pool.check();
                assert_eq!((used, backed), (44 - freed, pages.borrow().len()), "order {order}");
            }
            assert!(pages.borrow().is_empty());
        }
    }

    /// A slot that comes back is the next to be given out, in a page that is there; only then is another one backed.
    #[test]
    fn pages_are_filled_before_others_are_backed() {
        let world = World::new(3);
        let pool = world.pool();
        let slots: Vec<SpaceRef> = (0..31).map(|_| pool.alloc(|_| Ok(())).expect("three pages of 15")).collect();
        pool.free(slots[4], |_| panic!("others of the page are in use"));
        pool.free(slots[20], |_| panic!("others of the page are in use"));
        let refuse = |_| Err(NoMemory);
        assert_eq!([(); 2].map(|()| pool.alloc(refuse)), [Ok(slots[20]), Ok(slots[4])]);
        for _ in 0..14 {
            pool.alloc(refuse).expect("the third page has 14 more");
        }
        assert_eq!((pool.alloc(refuse), pool.check()), (Err(NoMemory), (45, 3)));
    }

    /// Without memory nothing changes; the first page that is not backed is the next, beyond any number of others.
    #[test]
    fn gaps_are_found_again() {
        let world = World::new(130);
        let pool = world.pool();
        assert_eq!((pool.alloc(|_| Err(NoMemory)), pool.check()), (Err(NoMemory), (0, 0)));
        let slots: Vec<SpaceRef> = (0..130 * 15).map(|_| pool.alloc(|_| Ok(())).expect("a page")).collect();
        for page in [129, 64, 2, 63] {
            let mut gone = None;
            for slot in &slots[page * 15..][..15] {
                pool.free(*slot, |first| gone = Some(first.index()));
            }
            assert_eq!(gone, Some(page * 16));
        }
        for page in [2, 63, 64, 129] {
            let firsts: Vec<_> =
                (0..15).map(|_| pool.alloc(|first| (assert_eq!(first.index(), page * 16), Ok(())).1)).collect();
            assert!(firsts.iter().all(Result::is_ok));
        }
        assert_eq!(pool.check(), (130 * 15, 130));
    }
}
