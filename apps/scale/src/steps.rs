//! Which of many numbers are measured.

/// Up to this number each is measured, and then each second, fourth and so on power of two.
const DENSE: usize = 16;

/// Whether `n` of at most `most` is measured: all small numbers, powers of two, and the last.
pub fn is_measured(n: usize, most: usize) -> bool {
    n <= DENSE || n == most || n.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::is_measured;

    #[test]
    fn small_numbers_powers_of_two_and_the_last_are_measured() {
        let measured = |most: usize| -> Vec<usize> { (0..=most).filter(|&n| is_measured(n, most)).collect() };
        assert_eq!(measured(5), [0, 1, 2, 3, 4, 5]);
        assert_eq!(measured(70)[14..], [14, 15, 16, 32, 64, 70]);
    }
}
