//! The high-precision event timer: a clock of known frequency to compare others with (IA-PC HPET Specification). It interrupts
//! nobody.

use core::ptr::NonNull;

/// Its longest period in femtoseconds: 100 ns.
const PERIOD_MAX_FS: u32 = 100_000_000;
const FEMTOSECONDS: u64 = 1_000_000_000_000_000;
/// The counter is read such that it does not count faster than this, so that 16 bits last for some milliseconds.
const FASTEST_HZ: u64 = 4_000_000;

/// Registers, by offset in words of 32 bits.
const PERIOD: usize = 1;
const CONFIGURATION: usize = 4;
const COUNTER: usize = 0xF0 / 4;
/// In the configuration: the counter counts.
const IS_COUNTING: u32 = 1 << 0;

/// The timer, which counts up.
pub struct Hpet {
    registers: NonNull<u32>,
    rate: Rate,
    /// What the configuration was.
    before: u32,
}

/// How fast the counter is once its lowest bits are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rate {
    left_out: u32,
    frequency_hz: u64,
}

impl Rate {
    /// That of a counter with this period; `None` if no timer has it.
    fn of_period(femtoseconds: u32) -> Option<Self> {
        if femtoseconds == 0 || femtoseconds > PERIOD_MAX_FS {
            return None;
        }
        let frequency_hz = FEMTOSECONDS / u64::from(femtoseconds);
        let left_out = (0..u32::BITS).find(|bits| frequency_hz >> bits <= FASTEST_HZ)?;
        Some(Self { left_out, frequency_hz: frequency_hz >> left_out })
    }
}

impl Hpet {
    /// The timer with these registers; `None` if there is none.
    ///
    /// # Safety
    /// 1. They are the page of a timer's registers, mapped uncached as long as the value lives.
    /// 2. Nobody else drives it meanwhile.
    pub unsafe fn new(registers: NonNull<u32>) -> Option<Self> {
        // SAFETY: by 1. it is mapped; the period is a constant.
        let period = unsafe { registers.as_ptr().wrapping_add(PERIOD).read_volatile() };
        let rate = Rate::of_period(period)?;
        // SAFETY: as above.
        let before = unsafe { registers.as_ptr().wrapping_add(CONFIGURATION).read_volatile() };
        Some(Self { registers, rate, before })
    }

    /// How fast [`Hpet::count`] counts.
    pub const fn frequency_hz(&self) -> u64 {
        self.rate.frequency_hz
    }

    /// Lets it count, if it does not yet.
    pub fn start(&mut self) {
        self.configure(self.before | IS_COUNTING);
    }

    /// Leaves it as it was.
    pub fn stop(&mut self) {
        self.configure(self.before);
    }

    fn configure(&mut self, value: u32) {
        // SAFETY: it is mapped and ours by `new`; the counter has no access to memory.
        unsafe { self.registers.as_ptr().wrapping_add(CONFIGURATION).write_volatile(value) };
    }

    /// The counter at the moment of the call, without the bits that are left out.
    pub fn count(&self) -> u16 {
        // SAFETY: it is mapped by `new`; reading the counter changes nothing.
        let counter = unsafe { self.registers.as_ptr().wrapping_add(COUNTER).read_volatile() };
        (counter >> self.rate.left_out) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_read_slowly_enough_for_16_bits() {
        let check = |period, expected: Option<(u32, u64)>| {
            let rate = expected.map(|(left_out, frequency_hz)| Rate { left_out, frequency_hz });
            assert_eq!(Rate::of_period(period), rate, "{period} fs");
        };
        check(0, None);
        check(PERIOD_MAX_FS + 1, None);
        check(u32::MAX, None);
        check(PERIOD_MAX_FS, Some((2, 2_500_000)));
        check(69_841_279, Some((2, 3_579_544)));
        check(10_000_000, Some((5, 3_125_000)));
        for period in (1..PERIOD_MAX_FS).step_by(7919) {
            let rate = Rate::of_period(period).expect("a timer may have it");
            assert!((FASTEST_HZ / 2..=FASTEST_HZ).contains(&rate.frequency_hz), "{period} fs: {rate:?}");
        }
    }

    /// A timer of memory that does not count by itself.
    #[test]
    fn it_counts_only_while_it_is_used() {
        let mut registers = [0u32; 256];
        let start = NonNull::from(&mut registers).cast::<u32>();
        // SAFETY: the array lives on, and nobody else uses it; one that says nothing is no timer.
        assert!(unsafe { Hpet::new(start) }.is_none());
        registers[PERIOD] = 10_000_000;
        registers[CONFIGURATION] = 2;
        registers[COUNTER] = 0xFFFF_FFE0;
        let start = NonNull::from(&mut registers).cast::<u32>();
        // SAFETY: as above.
        let mut hpet = unsafe { Hpet::new(start) }.expect("it has a period");
        hpet.start();
        assert_eq!(hpet.count(), 0xFFFF);
        // SAFETY: the array is there.
        assert_eq!(unsafe { start.as_ptr().wrapping_add(CONFIGURATION).read_volatile() }, 3);
        hpet.stop();
        assert_eq!(registers[CONFIGURATION], 2);
    }
}
