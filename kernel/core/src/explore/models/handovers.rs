//! Mailboxes, claims, ranked locks and lines that are passed on: all interleavings of two or three processors.

use core::sync::atomic::Ordering;

use super::{finds, leak};
use crate::cross::claims::Claims;
use crate::cross::mailbox::Mailbox;
use crate::cross::raised::Raised;
use crate::explore::exhaustive::{Bounds, explore};
use crate::explore::mistakes::Mistake;
use crate::explore::{join, processor};
use crate::lock::{Held, Lock, rank};
use crate::machine::TcbRef;
use crate::mapdb::trees::TreeLocks;
use crate::sync::{Look, spin_loop};
use crate::thread::Tcb;
use crate::var::Var;

/// Runs `model` and tells how many executions it had.
fn check(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let explored = explore(Bounds { words: 160, preemptions, ..Bounds::default() }, model);
    println!("{name}: {explored}");
    assert!(explored.executions > 1 && explored.is_all, "{name}: there is something to explore");
}

/// Two processors post `each` threads to one mailbox while the owner takes: none is lost or doubled, none overtakes
/// another one of its poster, and the owner sees what was done to each before it was posted.
fn mailbox(each: u32) {
    let mailbox = leak(Mailbox::new());
    let tcbs: &[Tcb] = Vec::leak((0..2 * each).map(|_| Tcb::default()).collect());
    // With more threads there are too many executions.
    let preemptions = (each > 1).then_some(2);
    check("two post to one mailbox", preemptions, move || {
        let post = move |poster: u32| {
            for number in poster * each..(poster + 1) * each {
                tcbs[number as usize].ip.set(0x100 + number as usize);
                mailbox.post(tcbs, TcbRef::new(number));
            }
        };
        let posters = [0, 1].map(|poster| processor(move || post(poster)));
        let mut next = [0, each];
        for _ in 0..2 * each {
            let thread = loop {
                match mailbox.take(tcbs) {
                    Some(thread) => break thread,
                    None => spin_loop(),
                }
            };
            let next = &mut next[thread.index() / each as usize];
            assert_eq!(thread.index() as u32, *next, "threads of one poster arrive in order, once");
            *next += 1;
            assert_eq!(tcbs[thread.index()].ip.get(), 0x100 + thread.index(), "what was done before is seen");
        }
        join(posters);
        assert!(mailbox.is_empty() && mailbox.take(tcbs).is_none());
    });
}

#[test]
fn two_post_to_one_mailbox() {
    mailbox(1);
    mailbox(2);
}

#[test]
fn mailbox_without_release_or_acquire_is_caught() {
    for order in [Ordering::SeqCst, Ordering::Acquire] {
        assert!(finds(Mistake::Weak("cross/mailbox.rs", order), || mailbox(1)), "{order:?}");
    }
}

/// Processors claim slots that are the same or share their claim: each is alone, and sees what the one before did.
fn claims(name: &str, preemptions: Option<usize>, slots: &'static [u32]) {
    let (claims, word) = (leak(Claims::new()), leak(Var::<usize>::zero()));
    check(name, preemptions, move || {
        let claim = move |thread: u32| {
            let _claim = claims.claim(TcbRef::new(thread));
            word.set(word.get() + 1);
        };
        let others: Vec<_> = slots[1..].iter().map(|&thread| processor(move || claim(thread))).collect();
        claim(slots[0]);
        join(others);
        assert_eq!(word.get(), slots.len(), "nobody's work is lost");
    });
}

#[test]
fn processors_claim_one_slot() {
    claims("two claim one slot", None, &[3, 3]);
    claims("two share a claim", None, &[3, 67]);
}

#[test]
fn claims_without_release_or_acquire_are_caught() {
    for order in [Ordering::Release, Ordering::Acquire] {
        let two = || claims("two claim one slot", None, &[3, 3]);
        assert!(finds(Mistake::Weak("cross/claims.rs", order), two), "{order:?}");
    }
}

/// Two processors take locks of rising ranks, one of them from the middle: nobody waits for ever, and each is alone.
fn ranks() {
    let locks = leak((Lock::<{ rank::SPACE }>::new(), Lock::<{ rank::TREE }>::new(), Lock::<{ rank::KMEM }>::new()));
    let words: &[Var<usize>; 2] = leak([Var::zero(), Var::zero()]);
    let add = |word: &Var<usize>| word.set(word.get() + 1);
    check("locks of rising ranks", None, move || {
        let whole = move || {
            let mut nothing = Held::nothing();
            let mut space = locks.0.lock(&mut nothing);
            let mut tree = locks.1.lock(space.held());
            add(&words[0]);
            let _kmem = locks.2.lock(tree.held());
            add(&words[1]);
        };
        let part = move || {
            let mut nothing = Held::nothing();
            let mut tree = locks.1.lock(&mut nothing);
            add(&words[0]);
            let _kmem = locks.2.lock(tree.held());
            add(&words[1]);
        };
        let others = [processor(whole)];
        part();
        join(others);
        assert_eq!(words.each_ref().map(Var::get), [2, 2]);
    });
}

#[test]
fn locks_of_rising_ranks() {
    ranks();
}

#[test]
fn locks_without_release_or_acquire_are_caught() {
    for order in [Ordering::Release, Ordering::Acquire] {
        assert!(finds(Mistake::Weak("src/lock.rs", order), ranks), "{order:?}");
    }
}

/// One processor works on a tree while another one prepares its region for a larger root and works on it under the other
/// kind of lock.
fn kinds() {
    const FRAME: u64 = 5 << 30;
    let (locks, word) = (leak(TreeLocks::new(21, 30)), leak(Var::<usize>::zero()));
    let space = leak(Lock::<{ rank::SPACE }>::new());
    check("the kind of locks changes", Some(3), move || {
        let count = move || {
            let mut nothing = Held::nothing();
            let _tree = locks.lock(FRAME, &mut nothing);
            word.set(word.get() + 1);
        };
        let others = [processor(count)];
        let mut nothing = Held::nothing();
        let mut held = space.lock(&mut nothing);
        locks.prepare(FRAME, true, held.held());
        let tree = locks.lock(FRAME, held.held());
        word.set(word.get() + 1);
        drop(tree);
        join(others);
        assert_eq!(word.get(), 2);
    });
}

#[test]
fn kind_of_locks_changes() {
    kinds();
}

#[test]
fn lock_that_is_not_looked_at_again_is_caught() {
    assert!(finds(Mistake::NoSecondLook(Look::ChosenLock), kinds));
}

/// Two processors pass lines on while the owner takes them: each is taken, and none twice.
#[test]
fn lines_are_passed_on() {
    let raised = leak(Raised::new());
    check("two pass lines on", None, move || {
        let others = [5, 70].map(|line| processor(move || raised.post(line)));
        let mut taken = Vec::new();
        while taken.len() < 2 {
            if raised.is_any() {
                raised.take(|line| taken.push(line));
            }
            spin_loop();
        }
        join(others);
        taken.sort_unstable();
        assert_eq!(taken, [5, 70]);
    });
}
