//! The shortest part of a list of steps that still fails (Zeller, Hildebrandt: delta debugging).

use std::time::{Duration, Instant};

/// What the search comes to.
#[derive(Debug)]
pub struct Shortest<T> {
    /// The steps that are left. They fail.
    pub steps: Vec<T>,
    /// Whether none of them can be left out alone.
    pub is_minimal: bool,
}

/// Leaves out of `steps`, which fail, whatever can be left out, for `patience` at most.
pub fn shortest<T: Clone>(mut steps: Vec<T>, patience: Duration, mut fails: impl FnMut(&[T]) -> bool) -> Shortest<T> {
    let begin = Instant::now();
    let mut size = steps.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut is_shorter = false;
        while at < steps.len() {
            if begin.elapsed() > patience {
                return Shortest { steps, is_minimal: false };
            }
            let end = (at + size).min(steps.len());
            let rest = [&steps[..at], &steps[end..]].concat();
            if fails(&rest) {
                steps = rest;
                is_shorter = true;
            } else {
                at = end;
            }
        }
        match (size, is_shorter) {
            (1, false) => return Shortest { steps, is_minimal: true },
            (1, true) => {}
            _ => size = size.div_ceil(2),
        }
    }
}

/// Everything that is not needed goes, whatever the order and the size of what is.
#[test]
fn only_what_is_needed_stays() {
    let rows: [&[usize]; 6] = [&[0], &[999], &[17, 18, 19], &[3, 500, 998], &[0, 1, 2, 3, 996, 997, 998, 999], &[]];
    for needed in rows {
        let has_all = |steps: &[usize]| needed.iter().all(|step| steps.contains(step));
        let found = shortest((0..1000).collect(), Duration::MAX, has_all);
        assert_eq!((found.steps.as_slice(), found.is_minimal), (needed, true));
    }
}

/// Without patience what there is stays.
#[test]
fn search_ends_with_its_time() {
    let found = shortest(vec![1, 2, 3], Duration::ZERO, |steps| {
        std::thread::yield_now();
        steps.contains(&2)
    });
    assert!(found.steps.contains(&2));
}
