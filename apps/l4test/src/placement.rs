//! Where the threads of a test run: on processors that follow from a seed, the test's name and the thread's number. So a
//! thread is at the same place whatever else is run.

/// How threads are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What all follows from.
    pub seed: u64,
    /// Processors that there are.
    pub processors: u16,
}

impl Placement {
    /// The processor of thread `slot` of the test with this name, from 0 to `processors` - 1.
    ///
    /// # Panics
    /// If there are no processors.
    pub fn processor(self, test: &str, slot: usize) -> u16 {
        let of_test = test.bytes().fold(mix(self.seed), |hash, byte| mix(hash ^ u64::from(byte)));
        (mix(of_test.wrapping_add(slot as u64)) % u64::from(self.processors)) as u16
    }
}

/// Spreads the bits of a number over all bits of another (the finaliser of SplitMix64).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::Placement;

    fn places(seed: u64, test: &str) -> Vec<u16> {
        let placement = Placement { seed, processors: 4 };
        (0..24).map(|slot| placement.processor(test, slot)).collect()
    }

    #[test]
    fn each_processor_gets_threads_of_a_test() {
        for seed in 0..50 {
            let used: BTreeSet<u16> = places(seed, "ipc::words_arrive").into_iter().collect();
            assert_eq!(used, (0..4).collect(), "seed {seed}");
        }
    }

    #[test]
    fn places_follow_from_seed_and_name() {
        assert_eq!(places(3, "ipc::a"), places(3, "ipc::a"));
        assert_ne!(places(3, "ipc::a"), places(4, "ipc::a"));
        assert_ne!(places(3, "ipc::a"), places(3, "ipc::b"));
    }

    #[test]
    fn one_processor_has_all_threads() {
        assert!((0..24).all(|slot| Placement { seed: 9, processors: 1 }.processor("x", slot) == 0));
    }
}
