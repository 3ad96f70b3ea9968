//! Circular lists through the TCBs: ready queues, send queues, timeout slots.
//!
//! A list is a head in some [`Var`]; its members are linked by one of the [`Link`]s in their TCB, which the [`Kind`] of the
//! list names. A thread is on at most one list per link. All operations take constant time.

use core::marker::PhantomData;

use crate::inspect::Loose;
use crate::machine::TcbRef;
use crate::thread::Tcb;
use crate::var::Var;

/// Where a list begins; `None` when it is empty.
pub type Head = Var<Option<TcbRef>>;

/// The links of one thread on one kind of list; `next` is `None` while it is on none.
#[derive(Default)]
#[repr(C)]
pub struct Link {
    next: Var<Option<TcbRef>>,
    prev: Var<Option<TcbRef>>,
}

crate::load::load_fields!(Link: next, prev);

impl Link {
    /// Where the thread behind stands, for the fast path of the image: a number and one.
    pub const NEXT_OFFSET: usize = core::mem::offset_of!(Self, next);
    /// The same of the thread before.
    pub const PREV_OFFSET: usize = core::mem::offset_of!(Self, prev);

    /// Whether the thread is on a list of this kind.
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.next.get().is_some()
    }

    /// The words as the fast path of the image finds them: next and previous.
    #[cfg(test)]
    pub fn words(&self) -> [&Head; 2] {
        [&self.next, &self.prev]
    }

    fn next(&self) -> TcbRef {
        self.next.get().expect("a member of a list has a successor")
    }

    fn prev(&self) -> TcbRef {
        self.prev.get().expect("a member of a list has a predecessor")
    }
}

/// A kind of lists. It is a type, as a pointer to a function would be an indirect call, which can be led astray.
pub trait Kind {
    /// The link of these lists.
    fn link(tcb: &Tcb) -> &Link;
}

/// Which of some lists have members: a bit for each, of 64 at most. Most have none, so eight are looked at together first.
pub(crate) fn occupied(heads: &[Head]) -> u64 {
    const TOGETHER: usize = 8;
    let bits = |heads: &[Head]| {
        heads.iter().enumerate().fold(0, |all, (index, head)| all | u64::from(head.get().is_some()) << index)
    };
    let groups = heads.chunks(TOGETHER).enumerate();
    let with_members = groups.filter(|(_, heads)| heads.iter().fold(false, |any, head| any | head.get().is_some()));
    with_members.fold(0, |all, (group, heads)| all | bits(heads) << (group * TOGETHER))
}

/// The bits that are set in a word, the lowest first.
pub(crate) fn set_bits(word: u64) -> impl Iterator<Item = usize> {
    let rest = |&word: &u64| Some(word & (word - 1)).filter(|&rest| rest != 0);
    core::iter::successors(Some(word).filter(|&word| word != 0), rest).map(|word| word.trailing_zeros() as usize)
}

/// One list, for the length of an operation.
pub struct List<'a, K> {
    tcbs: &'a [Tcb],
    head: &'a Head,
    kind: PhantomData<K>,
}

impl<'a, K: Kind> List<'a, K> {
    /// The list that starts at `head`.
    #[inline]
    pub fn new(tcbs: &'a [Tcb], head: &'a Head) -> Self {
        Self { tcbs, head, kind: PhantomData }
    }

    #[inline]
    fn link(&self, thread: TcbRef) -> &'a Link {
        K::link(&self.tcbs[thread.index()])
    }

    /// The first member.
    #[inline]
    pub fn first(&self) -> Option<TcbRef> {
        self.head.get()
    }

    /// The member after `thread`, or `None` if it is the last.
    pub fn after(&self, thread: TcbRef) -> Option<TcbRef> {
        let next = self.link(thread).next();
        (Some(next) != self.head.get()).then_some(next)
    }

    /// Adds `thread`, which is on no list of this kind, at the end.
    pub fn push_back(&self, thread: TcbRef) {
        let link = self.link(thread);
        debug_assert!(!link.is_linked(), "a thread is on one list per link");
        match self.head.get() {
            None => {
                link.next.set(Some(thread));
                link.prev.set(Some(thread));
                self.head.set(Some(thread));
            }
            Some(first) => {
                let last = self.link(first).prev();
                link.next.set(Some(first));
                link.prev.set(Some(last));
                self.link(last).next.set(Some(thread));
                self.link(first).prev.set(Some(thread));
            }
        }
    }

    /// Adds `thread`, which is on no list of this kind, at the front.
    pub fn push_front(&self, thread: TcbRef) {
        self.push_back(thread);
        self.head.set(Some(thread));
    }

    /// Adds all members of `other`, which is then empty, at the end.
    pub fn append(&self, other: &Self) {
        let Some(others) = other.head.replace(None) else { return };
        let Some(first) = self.head.get() else { return self.head.set(Some(others)) };
        let (last, others_last) = (self.link(first).prev(), self.link(others).prev());
        self.link(last).next.set(Some(others));
        self.link(others).prev.set(Some(last));
        self.link(others_last).next.set(Some(first));
        self.link(first).prev.set(Some(others_last));
    }

    /// Takes `thread`, a member, off the list.
    pub fn remove(&self, thread: TcbRef) {
        let link = self.link(thread);
        let (next, prev) = (link.next(), link.prev());
        if next == thread {
            self.head.set(None);
        } else {
            self.link(prev).next.set(Some(next));
            self.link(next).prev.set(Some(prev));
            if self.head.get() == Some(thread) {
                self.head.set(Some(next));
            }
        }
        link.next.set(None);
        link.prev.set(None);
    }
}

/// The members of a list whose links cannot be relied on: ends where they lead nowhere, or in a circle that does not come
/// back to the first.
pub struct Walk<'a> {
    tcbs: &'a [Tcb],
    link: fn(&Tcb) -> &Link,
    head: Option<TcbRef>,
    next: Option<TcbRef>,
    /// Somebody who was passed, and how many more are passed before it is somebody else: twice as many each time. Who
    /// comes by there again walks in a circle.
    mark: Option<TcbRef>,
    until_mark: usize,
    stride: usize,
}

impl<'a> Walk<'a> {
    /// The list that begins with `head` and runs through the links that `link` selects.
    pub fn new(tcbs: &'a [Tcb], head: Option<TcbRef>, link: fn(&Tcb) -> &Link) -> Self {
        Self { tcbs, link, head, next: head, mark: None, until_mark: 1, stride: 1 }
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<TcbRef, Loose>;

    fn next(&mut self) -> Option<Self::Item> {
        let thread = self.next.take()?;
        let Some(tcb) = self.tcbs.get(thread.index()) else { return Some(Err(Loose::Outside)) };
        let Some(next) = (self.link)(tcb).next.get() else { return Some(Err(Loose::Unlinked)) };
        if self.mark == Some(thread) {
            return Some(Err(Loose::Endless));
        }
        self.until_mark -= 1;
        if self.until_mark == 0 {
            self.stride = self.stride.saturating_mul(2);
            (self.mark, self.until_mark) = (Some(thread), self.stride);
        }
        self.next = Some(next).filter(|next| Some(*next) != self.head);
        Some(Ok(thread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::Sending;
    use crate::sched::ready_queue::Ready;

    /// A list of five threads at most, and what is on it, front to back.
    struct Five {
        tcbs: [Tcb; 5],
        head: Head,
    }

    impl Five {
        fn new() -> Self {
            Self { tcbs: Default::default(), head: Head::zero() }
        }

        fn list(&self) -> List<'_, Sending> {
            List::new(&self.tcbs, &self.head)
        }

        #[track_caller]
        fn check(&self, expected: &[usize]) {
            let list = self.list();
            let members = core::iter::successors(list.first(), |&member| list.after(member));
            assert_eq!(members.map(TcbRef::index).collect::<std::vec::Vec<_>>(), expected);
            let linked = |i: &usize| self.tcbs[*i].send_link.is_linked();
            assert!((0..5).all(|i| linked(&i) == expected.contains(&i)), "others are on no list");
        }
    }

    /// Members come in the order in which they were added at the end.
    #[test]
    fn members_keep_their_order() {
        let five = Five::new();
        five.check(&[]);
        for (i, expected) in [(3, &[3][..]), (0, &[3, 0]), (4, &[3, 0, 4]), (1, &[3, 0, 4, 1])] {
            five.list().push_back(TcbRef::new(i));
            five.check(expected);
        }
        five.list().push_front(TcbRef::new(2));
        five.check(&[2, 3, 0, 4, 1]);
    }

    /// The first, the last, one in the middle and the only one can leave, and come again.
    #[test]
    fn members_can_leave_anywhere() {
        let five = Five::new();
        (0..5).for_each(|i| five.list().push_back(TcbRef::new(i)));
        for (i, expected) in [(2, &[0, 1, 3, 4][..]), (0, &[1, 3, 4]), (4, &[1, 3]), (1, &[3]), (3, &[])] {
            five.list().remove(TcbRef::new(i));
            five.check(expected);
        }
        five.list().push_front(TcbRef::new(4));
        five.check(&[4]);
    }

    /// One thread can be on lists of several kinds.
    #[test]
    fn links_are_independent() {
        let (five, ready) = (Five::new(), Head::zero());
        let other = List::<Ready>::new(&five.tcbs, &ready);
        five.list().push_back(TcbRef::new(1));
        other.push_back(TcbRef::new(1));
        other.push_back(TcbRef::new(2));
        five.check(&[1]);
        other.remove(TcbRef::new(1));
        five.check(&[1]);
        assert_eq!(other.first(), Some(TcbRef::new(2)));
    }

    /// A walk gives the members of a sound list, and ends in one that is damaged anywhere, saying why.
    #[test]
    fn walks_end() {
        let walk =
            |five: &Five| Walk::new(&five.tcbs, five.head.get(), |tcb| &tcb.send_link).collect::<std::vec::Vec<_>>();
        let five = Five::new();
        assert_eq!(walk(&five), []);
        (0..5).for_each(|i| five.list().push_back(TcbRef::new(i)));
        let member = |i| Ok(TcbRef::new(i));
        assert_eq!(walk(&five), [0, 1, 2, 3, 4].map(member));
        let next = |i: usize| &five.tcbs[i].send_link.next;
        next(2).set(Some(TcbRef::new(77)));
        assert_eq!(walk(&five), [member(0), member(1), member(2), Err(Loose::Outside)]);
        next(2).set(None);
        assert_eq!(walk(&five), [member(0), member(1), Err(Loose::Unlinked)]);
        next(2).set(Some(TcbRef::new(1)));
        assert_eq!(walk(&five).last(), Some(&Err(Loose::Endless)));
        next(2).set(Some(TcbRef::new(2)));
        assert_eq!(walk(&five).last(), Some(&Err(Loose::Endless)));
    }
}
