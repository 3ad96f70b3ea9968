//! Demands for attention: all interleavings of processors that post something and one that does it, looks out and sleeps.
//!
//! The owner is played here as the core's and the image's dispatcher are: it gives attention, takes what was posted, and
//! goes to sleep when there is nothing. The lookout, the demands and what is posted are the core's. Whoever sleeps is woken
//! by an interrupt alone.

use core::sync::atomic::Ordering;

use super::{finds, leak};
use crate::cross::attention::Attention;
use crate::explore::exhaustive::{Bounds, explore};
use crate::explore::mistakes::Mistake;
use crate::explore::{join, processor};
use crate::sync::{AtomicBool, AtomicUsize, Look, spin_loop};
use crate::var::Var;

/// A processor, and those who post to it.
struct Owner {
    attention: Attention,
    /// What each of the others posts: a word that has no order of its own.
    posted: [Var<bool>; 2],
    /// An interrupt has come.
    is_kicked: AtomicBool,
    /// Posters that are not done.
    posters: AtomicUsize,
}

/// How the owner comes to know that there is more.
#[derive(Clone, Copy)]
enum Way {
    /// By demands alone.
    Demands,
    /// It takes what was posted in parts, and reminds itself of the rest.
    Parts,
}

impl Owner {
    fn post(&self, poster: usize) {
        self.posted[poster].set(true);
        if self.attention.demand() {
            self.is_kicked.store(true, Ordering::Release);
        }
        self.posters.fetch_sub(1, Ordering::Release);
    }

    /// The owner does what is posted until all of it is done. It looks only when it was told.
    fn work(&self, count: usize, looks: u32, way: Way) {
        let mut done = 0;
        while done < count {
            if !self.attention.is_quiet() {
                self.attention.give();
                done += self.take();
                if matches!(way, Way::Parts) && done < count {
                    self.attention.demand_of_oneself();
                    self.attention.give();
                    done += self.take();
                }
            } else if !self.attention.look_out(looks, || {}) {
                self.sleep();
            }
        }
    }

    /// How many things were there.
    fn take(&self) -> usize {
        self.posted.iter().filter(|word| word.get() && word.replace(false)).count()
    }

    /// Until an interrupt comes.
    fn sleep(&self) {
        while !self.take_interrupt() {
            let is_over = self.posters.load(Ordering::Acquire) == 0;
            assert!(!is_over || self.is_kicked.load(Ordering::Acquire), "who sleeps is woken for what was posted");
            spin_loop();
        }
    }

    fn take_interrupt(&self) -> bool {
        self.is_kicked.load(Ordering::Acquire) && self.is_kicked.swap(false, Ordering::Acquire)
    }
}

/// So many post one thing each to an owner that looks out so often.
fn posts(name: &str, posters: usize, looks: u32, way: Way, preemptions: Option<usize>) {
    let owner: &Owner = leak(Owner {
        attention: Attention::new(),
        posted: [const { Var::zero() }; 2],
        is_kicked: AtomicBool::new(false),
        posters: AtomicUsize::new(posters),
    });
    let explored = explore(Bounds { words: 20, preemptions, ..Bounds::default() }, move || {
        let others: Vec<_> = (0..posters).map(|poster| processor(move || owner.post(poster))).collect();
        owner.work(posters, looks, way);
        join(others);
    });
    println!("{name}: {explored}");
    assert!(explored.executions > 1 && explored.is_all, "{name}: there is something to explore");
}

fn one() {
    posts("one posts to a processor that goes to sleep", 1, 0, Way::Demands, None);
    posts("one posts to a processor that looks out", 1, 2, Way::Demands, None);
}

fn two() {
    posts("two post to a processor that goes to sleep", 2, 0, Way::Demands, Some(2));
    posts("two post to a processor that looks out", 2, 1, Way::Demands, Some(2));
}

/// A processor that goes to sleep misses nothing that is posted meanwhile.
#[test]
fn nothing_is_missed_by_who_goes_to_sleep() {
    one();
    two();
}

/// Who reminds itself sees all the same what others have posted before, and is told of the rest.
#[test]
fn nothing_is_missed_by_who_reminds_itself() {
    posts("two post to a processor that takes a part", 2, 0, Way::Parts, Some(2));
}

#[test]
fn demand_without_release_and_acquire_is_caught() {
    assert!(finds(Mistake::Weak("cross/attention.rs", Ordering::AcqRel), one));
}

/// Between the last look and sleep somebody may come.
#[test]
fn who_does_not_look_when_it_stops_to_look_out_is_caught() {
    assert!(finds(Mistake::NoSecondLook(Look::Demand), one));
}
