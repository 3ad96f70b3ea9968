//! Threads on their way to a processor.
//!
//! A thread that goes on at another processor is posted to that processor's [`Mailbox`]: any processor may post, the
//! owner alone takes. The mailbox is a stack threaded through the TCBs, which the owner empties at once and turns round,
//! so threads arrive in the order in which one poster posted them. A thread is in one mailbox at most, so there is always
//! room. Posting is the release, taking the acquire: what the poster did before, the owner sees after.

use crate::machine::TcbRef;
use crate::sync::{AtomicU32, Ordering};
use crate::thread::Tcb;
use crate::var::{AsWord, Var};

/// The threads that were posted to one processor and have not arrived.
pub struct Mailbox {
    /// The one posted last.
    top: AtomicU32,
    /// The first of those taken from there, in their order, that have not been given out.
    taken: Var<Option<TcbRef>>,
    /// The last of them, if there is a first.
    last_taken: Var<Option<TcbRef>>,
}

crate::load::load_fields!(Mailbox: top, taken, last_taken);

impl Mailbox {
    /// No thread.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self { top: AtomicU32::new(0), taken: Var::zero(), last_taken: Var::zero() }
    }

    fn thread(word: u32) -> Option<TcbRef> {
        AsWord::from_word(word as usize)
    }

    /// Posts `thread`, which is in no mailbox and from now on the owner's to change.
    pub fn post(&self, tcbs: &[Tcb], thread: TcbRef) {
        self.post_as((thread, &tcbs[thread.index()]));
    }

    /// The same, by somebody who has its TCB.
    #[inline(always)]
    pub fn post_as(&self, (thread, tcb): (TcbRef, &Tcb)) {
        let link = &tcb.mail_link;
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            link.set(Self::thread(top));
            let word = Some(thread).to_word() as u32;
            match self.top.compare_exchange_weak(top, word, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Whether nobody has arrived. Only a hint for others than the owner.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.taken.get().is_none() && self.top.load(Ordering::Relaxed) == 0
    }

    /// The next thread that has arrived. For the owner alone.
    #[inline(always)]
    pub fn take(&self, tcbs: &[Tcb]) -> Option<TcbRef> {
        if self.taken.get().is_none() {
            if self.top.load(Ordering::Relaxed) == 0 {
                return None;
            }
            let last = Self::thread(self.top.swap(0, Ordering::Acquire));
            if last.is_some_and(|last| tcbs[last.index()].mail_link.get().is_none()) {
                // The only one.
                return last;
            }
            self.append(tcbs, last);
        }
        let first = self.taken.get()?;
        self.taken.set(tcbs[first.index()].mail_link.replace(None));
        Some(first)
    }

    /// The one posted last: when it was taken, all have been that were posted before now. For the owner alone.
    pub fn last(&self, tcbs: &[Tcb]) -> Option<TcbRef> {
        self.turn_round(tcbs);
        self.taken.get().and(self.last_taken.get())
    }

    /// Where the two lists of those who are in it begin: those who were taken and not given out, and the one posted last.
    pub(crate) fn heads(&self) -> [Option<TcbRef>; 2] {
        [self.taken.get(), Self::thread(self.top.load(Ordering::Relaxed))]
    }

    /// Everybody who is in it.
    #[cfg(test)]
    pub fn members(&self, tcbs: &[Tcb]) -> Vec<TcbRef> {
        let from = |first| core::iter::successors(first, |thread: &TcbRef| tcbs[thread.index()].mail_link.get());
        from(self.taken.get()).chain(from(Self::thread(self.top.load(Ordering::Relaxed)))).collect()
    }

    /// Takes all that were posted, the first of them first, behind those that have not been given out.
    fn turn_round(&self, tcbs: &[Tcb]) {
        if self.top.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.append(tcbs, Self::thread(self.top.swap(0, Ordering::Acquire)));
    }

    /// Puts those who were taken, of whom `last` was posted last, behind those that have not been given out.
    #[inline(never)]
    fn append(&self, tcbs: &[Tcb], last: Option<TcbRef>) {
        let (mut next, mut first) = (last, None);
        while let Some(thread) = next {
            next = tcbs[thread.index()].mail_link.replace(first);
            first = Some(thread);
        }
        match self.taken.get().and(self.last_taken.get()) {
            Some(before) => tcbs[before.index()].mail_link.set(first),
            None => self.taken.set(first),
        }
        self.last_taken.set(last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use super::*;

    fn tcbs(count: usize) -> Vec<Tcb> {
        (0..count).map(|_| Tcb::default()).collect()
    }

    fn take_all(mailbox: &Mailbox, tcbs: &[Tcb]) -> Vec<usize> {
        core::iter::from_fn(|| mailbox.take(tcbs)).map(TcbRef::index).collect()
    }

    #[test]
    fn threads_arrive_in_the_order_in_which_they_were_posted() {
        let (mailbox, tcbs) = (Mailbox::new(), tcbs(8));
        let post = |i| mailbox.post(&tcbs, TcbRef::new(i));
        assert!(mailbox.is_empty());
        [3, 0, 7].into_iter().for_each(post);
        assert!(!mailbox.is_empty());
        assert_eq!(mailbox.take(&tcbs), Some(TcbRef::new(3)));
        // Somebody posts while the others are being given out.
        [5, 3].into_iter().for_each(post);
        assert_eq!(mailbox.last(&tcbs), Some(TcbRef::new(3)));
        [4, 1].into_iter().for_each(post);
        assert_eq!(take_all(&mailbox, &tcbs), [0, 7, 5, 3, 4, 1]);
        assert_eq!(mailbox.last(&tcbs), None);
        assert!(mailbox.is_empty());
        assert_eq!(mailbox.take(&tcbs), None);
    }

    /// Each thread goes round between two processors many times; none is lost, none doubled, and no poster's threads
    /// overtake each other.
    #[test]
    fn many_posters_lose_nobody() {
        const POSTERS: usize = 3;
        const EACH: usize = 20_000;
        let tcbs = tcbs(POSTERS * EACH);
        let mailbox = Mailbox::new();
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        thread::scope(|scope| {
            for poster in 0..POSTERS {
                let (mailbox, tcbs) = (&mailbox, &tcbs);
                scope.spawn(move || {
                    for i in poster * EACH..(poster + 1) * EACH {
                        mailbox.post(tcbs, TcbRef::new(i as u32));
                    }
                });
            }
            let mut arrived = 0;
            while arrived < POSTERS * EACH {
                let Some(thread) = mailbox.take(&tcbs) else { continue };
                let before = last.insert(thread.index() / EACH, thread.index());
                assert!(before.is_none_or(|before| before < thread.index()), "threads do not overtake each other");
                arrived += 1;
            }
        });
        assert!(mailbox.is_empty());
    }
}
