//! Clocks: reading the time-stamp counter, how fast it and the APIC timer run, and conversion to and from microseconds.
//!
//! The kernel's clock is `microseconds = Clocks::tsc_to_us().floor(ticks)`: one multiplication. A deadline is converted
//! by [`Scale::ceil`], so that a timer armed with the result never fires before the clock shows the deadline.

use core::arch::asm;
use core::fmt;
use core::num::NonZero;

use crate::apic::LocalApic;
use crate::cpu::ClaimedClocks;
use crate::hpet::Hpet;
use crate::irq::IrqOff;
use crate::msr::Msr;
use crate::pit::{self, Pit};
use crate::pm_timer::{self, PmTimer};

/// The time-stamp counter. Not ordered with the instructions around it.
#[inline(always)]
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading the counter changes nothing; every processor that the kernel runs on has it.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// The time-stamp counter, read after all that comes before it and before all that comes after.
#[inline]
pub fn tsc_in_order() -> u64 {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    // SAFETY: LFENCE waits, and changes nothing; every processor with SSE2 has it.
    unsafe { asm!("lfence", options(nostack, preserves_flags)) };
    let now = tsc();
    // SAFETY: as above.
    unsafe { asm!("lfence", options(nostack, preserves_flags)) };
    now
}

/// A fixed factor: 64 bits before and 64 bits behind the binary point, rounded up.
///
/// As the factor is rounded up, so is each product, by less than `x / 2^64`: `floor` is exact as long as `x` times the
/// denominator is below 2^64 and can be one too large beyond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    whole: u64,
    fraction: u64,
}

impl Scale {
    /// The factor `numerator / denominator`.
    ///
    /// It fits always: 64 bits before the binary point are the numerator's.
    pub const fn new(numerator: u64, denominator: NonZero<u64>) -> Self {
        let factor = ((numerator as u128) << 64).div_ceil(denominator.get() as u128);
        Self { whole: (factor >> 64) as u64, fraction: factor as u64 }
    }

    /// The part behind the binary point, in units of 2^-64: all of it, if the factor is below one.
    pub const fn fraction(self) -> u64 {
        self.fraction
    }

    /// `x` times the factor, rounded down; `u64::MAX` if it does not fit.
    #[inline(always)]
    pub const fn floor(self, x: u64) -> u64 {
        let fraction = (x as u128 * self.fraction as u128) >> 64;
        x.saturating_mul(self.whole).saturating_add(fraction as u64)
    }

    /// `x` times the factor, rounded up; `u64::MAX` if it does not fit.
    #[inline(always)]
    pub const fn ceil(self, x: u64) -> u64 {
        let product = x as u128 * self.fraction as u128;
        let fraction = (product >> 64) as u64 + (product as u64 != 0) as u64;
        x.saturating_mul(self.whole).saturating_add(fraction)
    }

    /// The ticks by which a 32-bit timer counts down `us` microseconds: at least one, or it would stop. A wait longer than
    /// the timer reaches is cut; whoever armed it finds nothing due and arms it for the rest.
    #[inline(always)]
    pub const fn count_down(self, us: u64) -> u32 {
        match self.ceil(us) {
            0 => 1,
            ticks if ticks <= u32::MAX as u64 => ticks as u32,
            _ => u32::MAX,
        }
    }
}

/// Microseconds of a millisecond, which is what a kilohertz counts by.
const THOUSAND: NonZero<u64> = NonZero::new(1000).expect("it is not zero");

/// How fast the clocks run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clocks {
    /// The time-stamp counter, kHz.
    pub tsc_khz: NonZero<u64>,
    /// The local APIC's timer before its divider, kHz.
    pub apic_khz: NonZero<u64>,
}

impl Clocks {
    /// Microseconds per tick of the time-stamp counter.
    pub const fn tsc_to_us(self) -> Scale {
        Scale::new(THOUSAND.get(), self.tsc_khz)
    }

    /// Ticks of the time-stamp counter per microsecond.
    pub const fn us_to_tsc(self) -> Scale {
        Scale::new(self.tsc_khz.get(), THOUSAND)
    }

    /// Ticks of the APIC timer, divided by `divisor`, per microsecond.
    pub const fn us_to_apic(self, divisor: NonZero<u64>) -> Scale {
        Scale::new(self.apic_khz.get(), divisor.saturating_mul(THOUSAND))
    }

    /// The clocks from a measurement, which is off by a fraction of a percent, and from what the processor claims, which
    /// is exact or nonsense: a claim counts if the measurement agrees.
    fn settle(measured: Option<Clocks>, claimed: ClaimedClocks) -> Option<Clocks> {
        const TOLERANCE: u64 = 100;
        let agreed = |measured: NonZero<u64>, claim: Option<NonZero<u64>>| match claim {
            Some(claim) if claim.get().abs_diff(measured.get()) <= measured.get() / TOLERANCE => claim,
            _ => measured,
        };
        match measured {
            Some(m) => Some(Clocks {
                tsc_khz: agreed(m.tsc_khz, claimed.tsc_khz),
                apic_khz: agreed(m.apic_khz, claimed.apic_khz),
            }),
            None => Some(Clocks { tsc_khz: claimed.tsc_khz.or(claimed.tsc_about_khz)?, apic_khz: claimed.apic_khz? }),
        }
    }
}

/// By what it is known how fast the clocks run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The timer of the first PC.
    Pit,
    /// The timer of ACPI.
    Acpi,
    /// The high-precision event timer.
    Hpet,
    /// Nothing but what the processor claims.
    Claim,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pit => "measured by the PIT",
            Self::Acpi => "measured by the timer of ACPI",
            Self::Hpet => "measured by the HPET",
            Self::Claim => "as the processor claims",
        })
    }
}

/// Clocks of known frequency, as far as the machine says that there are any.
pub struct References {
    /// The timer of the first PC, which may not count.
    pub pit: Pit,
    /// The timer of ACPI.
    pub acpi: Option<PmTimer>,
    /// The high-precision event timer.
    pub hpet: Option<Hpet>,
}

impl References {
    /// Measures against one of them; `None` if it is not there or does not count.
    fn measure(&mut self, by: By, apic: &LocalApic) -> Option<Clocks> {
        match by {
            By::Pit => {
                self.pit.start();
                let measured = measure(&mut Reference::Pit(&mut self.pit), apic);
                self.pit.stop();
                measured
            }
            By::Acpi => measure(&mut Reference::Acpi(self.acpi.as_mut()?), apic),
            By::Hpet => {
                let hpet = self.hpet.as_mut()?;
                hpet.start();
                let measured = measure(&mut Reference::Hpet(hpet), apic);
                hpet.stop();
                measured
            }
            By::Claim => None,
        }
    }
}

/// Finds out how fast the clocks run: measured in some 8 ms against the first clock of known frequency that counts, `first`
/// before the others, made exact by what the processor claims where both agree within a percent. `None` if none counts and
/// nothing is claimed. Stops the APIC timer.
pub fn calibrate(
    mut references: References,
    first: Option<By>,
    apic: &mut LocalApic,
    _: &mut IrqOff,
) -> Option<(Clocks, By)> {
    apic.start_silent_timer(u32::MAX);
    let order = first.into_iter().chain([By::Pit, By::Acpi, By::Hpet]);
    let mut measured = order.filter_map(|by| references.measure(by, apic).map(|clocks| (clocks, by)));
    let measured = measured.next();
    apic.stop_timer();
    let by = measured.map_or(By::Claim, |(_, by)| by);
    Clocks::settle(measured.map(|(clocks, _)| clocks), ClaimedClocks::detect()).map(|clocks| (clocks, by))
}

/// A clock of known frequency.
enum Reference<'a> {
    Pit(&'a mut Pit),
    Acpi(&'a mut PmTimer),
    Hpet(&'a mut Hpet),
}

impl Reference<'_> {
    const fn frequency_hz(&self) -> u64 {
        match self {
            Self::Pit(_) => pit::FREQUENCY_HZ,
            Self::Acpi(_) => pm_timer::FREQUENCY_HZ,
            Self::Hpet(hpet) => hpet.frequency_hz(),
        }
    }

    /// Its ticks, downwards.
    fn count(&mut self) -> u16 {
        match self {
            Self::Pit(pit) => pit.count(),
            Self::Acpi(timer) => !timer.count(),
            Self::Hpet(hpet) => !hpet.count(),
        }
    }
}

/// How far the time-stamp counter of another processor is ahead of this one's: between two bounds, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lead {
    least: i64,
    most: i64,
}

impl Lead {
    /// Nothing is known yet.
    pub const UNKNOWN: Self = Self { least: i64::MIN, most: i64::MAX };

    /// What is known once the other processor has read `there` after this one had read `before` and before it read
    /// `after`.
    #[must_use]
    pub fn narrowed(self, before: u64, there: u64, after: u64) -> Self {
        let least = there.wrapping_sub(after) as i64;
        let most = there.wrapping_sub(before) as i64;
        Self { least: self.least.max(least), most: self.most.min(most) }
    }

    /// Whether it is known to within `ticks`.
    pub fn is_within(self, ticks: i64) -> bool {
        self.most.saturating_sub(self.least) <= ticks
    }

    /// The ticks by which the counter there must go back; `None` if both may be the same.
    pub fn correction(self) -> Option<i64> {
        let is_zero = self.least <= 0 && 0 <= self.most;
        (!is_zero).then(|| self.least + (self.most.saturating_sub(self.least)) / 2)
    }
}

/// Sets the time-stamp counter of this processor back by `ticks`; forward if that is negative.
///
/// # Safety
/// Nobody relies on the counter of this processor yet.
pub unsafe fn set_tsc_back(ticks: i64) {
    // SAFETY: the processor has RDTSC, and with it the register; nobody relies on its value by contract.
    unsafe { Msr::TSC.write(tsc().wrapping_sub(ticks as u64)) };
}

/// All clocks at one moment.
#[derive(Clone, Copy)]
struct Sample {
    reference: u16,
    tsc: u64,
    apic: u32,
    /// How long taking the sample took, in ticks of the time-stamp counter: how far it may be off.
    width: u64,
}

fn measure(reference: &mut Reference<'_>, apic: &LocalApic) -> Option<Clocks> {
    let interval_ticks = (reference.frequency_hz() * 8 / 1000) as u16;
    let from = sharp_sample(reference, apic)?;
    while from.reference.wrapping_sub(reference.count()) < interval_ticks {
        // Reading the timer is slow, on an emulator very slow, and there is nothing to see yet.
        for i in 0..1000 {
            core::hint::black_box(i);
        }
    }
    let to = sharp_sample(reference, apic)?;
    rates(from, to, reference.frequency_hz(), apic.divider().divisor())
}

/// `None` if the reference shows the same as before, a processor that was taken away for as long as it takes to come round,
/// or if one of the clocks does not count.
fn rates(from: Sample, to: Sample, frequency_hz: u64, apic_divisor: NonZero<u64>) -> Option<Clocks> {
    let reference_ticks = u128::from(from.reference.wrapping_sub(to.reference));
    let khz = |ticks: u64| {
        let per_second = (u128::from(ticks) * u128::from(frequency_hz)).checked_div(reference_ticks)?;
        NonZero::new((per_second / 1000) as u64)
    };
    let apic_ticks = u64::from(from.apic.wrapping_sub(to.apic)) * apic_divisor.get();
    Some(Clocks { tsc_khz: khz(to.tsc.wrapping_sub(from.tsc))?, apic_khz: khz(apic_ticks)? })
}

/// The sharpest of a few samples at changes of the reference: a processor that was taken away in the middle of one
/// (by a hypervisor, by system management) leaves a wide sample. `None` if it does not count.
fn sharp_sample(reference: &mut Reference<'_>, apic: &LocalApic) -> Option<Sample> {
    const SAMPLES: usize = 8;
    let mut best: Option<Sample> = None;
    for _ in 0..SAMPLES {
        let sample = sample_at_change(reference, apic)?;
        if best.is_none_or(|b| sample.width < b.width) {
            best = Some(sample);
        }
    }
    best
}

fn sample_at_change(reference: &mut Reference<'_>, apic: &LocalApic) -> Option<Sample> {
    /// Far more polls than fit between two ticks of a clock that counts.
    const PATIENCE_POLLS: usize = 10_000;
    let before = reference.count();
    for _ in 0..PATIENCE_POLLS {
        let (tsc, apic) = (tsc(), apic.timer_ticks_left());
        let now = reference.count();
        if now != before {
            return Some(Sample { reference: now, tsc, apic, width: self::tsc() - tsc });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(khz: u64) -> NonZero<u64> {
        NonZero::new(khz).expect("a clock runs")
    }

    const SPEEDS_KHZ: [u64; 7] = [24_000, 33_333, 1_000_000, 1_193_182, 2_112_000, 2_999_997, 5_800_001];

    #[test]
    fn products_are_rounded_as_asked() {
        let check = |numerator, denominator, x, floor, ceil| {
            let scale = Scale::new(numerator, at(denominator));
            assert_eq!((scale.floor(x), scale.ceil(x)), (floor, ceil), "{x} * {numerator} / {denominator}");
        };
        check(1, 1, 17, 17, 17);
        check(1, 2, 7, 3, 4);
        check(1000, 3_000_000, 3_000_000, 1000, 1001);
        check(1000, 2_112_000, 2_111_999, 999, 1000);
        check(3_000_000, 1000, 5, 15_000, 15_000);
        check(7, 3, 0, 0, 0);
    }

    #[test]
    fn products_that_do_not_fit_saturate() {
        let scale = Scale::new(3_000_000, THOUSAND);
        assert_eq!(scale.ceil(u64::MAX), u64::MAX);
        assert_eq!(scale.floor(u64::MAX / 2), u64::MAX);
        assert_eq!(Scale::new(3, at(2)).ceil(u64::MAX), u64::MAX);
        assert_eq!(Scale::new(1, at(1)).ceil(u64::MAX), u64::MAX);
    }

    #[test]
    fn timer_of_32_bits_waits_as_long_as_it_can() {
        for apic_khz in SPEEDS_KHZ {
            let scale = Clocks { tsc_khz: at(1), apic_khz: at(apic_khz) }.us_to_apic(at(2));
            let rows = [(0, 1), (1, scale.ceil(1)), (10_000, scale.ceil(10_000))];
            rows.into_iter()
                .for_each(|(us, ticks)| assert_eq!(u64::from(scale.count_down(us)), ticks.max(1), "{us} us"));
            for us in [1 << 40, (1023 << 31) + 5, u64::MAX] {
                assert_eq!(scale.count_down(us), u32::MAX, "{us} us");
            }
            // The longest wait takes a few turns of the timer, each of which brings it nearer.
            let (longest_us, mut left_us, mut turns) = (1023u64 << 31, 1023u64 << 31, 0);
            while left_us > 0 {
                let turn_us = (u128::from(scale.count_down(left_us)) * 2000 / u128::from(apic_khz)) as u64;
                assert!(turn_us > 0, "{left_us} of {longest_us} us are left");
                left_us = left_us.saturating_sub(turn_us);
                turns += 1;
            }
            assert!(turns <= 1 + longest_us / 1_400_000, "{turns} turns at {apic_khz} kHz");
        }
    }

    /// What SystemClock promises to timeouts: when the timer fires, the clock shows the deadline or a little more.
    #[test]
    fn the_clock_has_reached_a_deadline_when_its_ticks_are_over() {
        for tsc_khz in SPEEDS_KHZ {
            let clocks = Clocks { tsc_khz: at(tsc_khz), apic_khz: at(tsc_khz) };
            for deadline_us in [0, 1, 2, 999, 1000, 123_457, 3_600_000_000, 86_400_000_000 * 365] {
                let shown = clocks.tsc_to_us().floor(clocks.us_to_tsc().ceil(deadline_us));
                assert!((deadline_us..=deadline_us + 1).contains(&shown), "{tsc_khz} kHz, {deadline_us} us: {shown}");
            }
        }
    }

    #[test]
    fn the_clock_is_exact_for_the_first_minutes_and_never_behind() {
        for tsc_khz in SPEEDS_KHZ {
            let scale = Clocks { tsc_khz: at(tsc_khz), apic_khz: at(1) }.tsc_to_us();
            for ticks in (0..60).map(|second| second * tsc_khz * 1000 + second % 7) {
                assert_eq!(scale.floor(ticks), ticks * 1000 / tsc_khz, "{tsc_khz} kHz, {ticks} ticks");
            }
            let exact = |ticks: u64| (u128::from(ticks) * 1000 / u128::from(tsc_khz)) as u64;
            for ticks in [u64::MAX, u64::MAX / 3, 1 << 50] {
                assert!((0..=1).contains(&(scale.floor(ticks) - exact(ticks))), "{tsc_khz} kHz, {ticks} ticks");
            }
        }
    }

    #[test]
    fn claims_count_only_if_measured_too() {
        let clocks = |tsc, apic| Clocks { tsc_khz: at(tsc), apic_khz: at(apic) };
        let claims = |tsc: Option<_>, apic: Option<_>, tsc_about: Option<_>| ClaimedClocks {
            tsc_khz: tsc.map(at),
            apic_khz: apic.map(at),
            tsc_about_khz: tsc_about.map(at),
        };
        let check = |measured, claimed, settled| assert_eq!(Clocks::settle(measured, claimed), settled);
        let measured = Some(clocks(2_111_800, 24_010));
        check(measured, claims(None, None, None), measured);
        check(measured, claims(Some(2_112_000), Some(24_000), None), Some(clocks(2_112_000, 24_000)));
        check(measured, claims(Some(3_000_000), Some(1), Some(2_100_000)), measured);
        check(None, claims(Some(2_112_000), Some(24_000), None), Some(clocks(2_112_000, 24_000)));
        check(None, claims(None, Some(24_000), Some(2_100_000)), Some(clocks(2_100_000, 24_000)));
        check(None, claims(Some(2_112_000), None, None), None);
        check(None, claims(None, None, None), None);
    }

    #[test]
    fn a_lead_is_known_as_well_as_the_sharpest_look() {
        let check = |looks: &[(u64, u64, u64)], expected| {
            let lead =
                looks.iter().fold(Lead::UNKNOWN, |lead, &(before, there, after)| lead.narrowed(before, there, after));
            assert_eq!(lead.correction(), expected, "{looks:?}");
        };
        check(&[], None);
        check(&[(100, 150, 200)], None);
        check(&[(100, 100, 200), (300, 350, 400)], None);
        check(&[(100, 1150, 200)], Some(1000));
        check(&[(100, 1150, 200), (300, 1330, 340)], Some(1010));
        check(&[(5000, 10, 5020)], Some(-5000));
        check(&[(u64::MAX - 5, 4, 4)], None);
    }

    #[test]
    fn rates_follow_from_two_samples_across_a_wrap_of_the_pit() {
        let from = Sample { reference: 1000, tsc: 5_000_000, apic: u32::MAX, width: 0 };
        // 11931.82 PIT ticks are 10 ms.
        let to =
            Sample { reference: 1000u16.wrapping_sub(11_932), tsc: 35_000_000, apic: u32::MAX - 625_000, width: 0 };
        let rates_to = |to| rates(from, to, pit::FREQUENCY_HZ, at(16));
        assert_eq!(rates_to(to), Some(Clocks { tsc_khz: at(2_999_954), apic_khz: at(999_984) }));
        assert_eq!(rates_to(Sample { reference: from.reference, ..to }), None, "it came round");
        assert_eq!(rates_to(Sample { apic: from.apic, ..to }), None, "the timer of the APIC does not count");
    }
}
