//! Time values.

use crate::common::Time;

#[test]
fn period_is_exact_while_it_fits_ten_bits() {
    for us in [1, 2, 625, 1023] {
        assert_eq!(Time::period_us(us).raw(), us as u16);
    }
}

#[test]
fn period_is_rounded_up_to_what_fits() {
    // asked, given
    let rows = [
        (0, 0),
        (1024, 1024),
        (1025, 1026),
        (10_000, 10_000),
        (1_000_000, 1_000_448),
        (30_000_000, 30_015_488),
        (1023 << 31, 1023 << 31),
    ];
    for (asked, given) in rows {
        assert_eq!(Time::period_us(asked).length_us(), Some(given), "{asked}");
    }
}

#[test]
fn period_is_never_shorter_than_asked_nor_longer_by_a_five_hundredth() {
    for shift in 0..31 {
        for us in [(1u64 << shift) + 1, 3 << shift, (1000 << shift) - 1] {
            let given = Time::period_us(us).length_us().expect("not never");
            assert!(given >= us && given - us <= us / 500, "{us} {given}");
        }
    }
}

#[test]
fn period_beyond_the_longest_is_never() {
    assert_eq!(Time::period_us((1023 << 31) + 1), Time::NEVER);
    assert_eq!(Time::period_us(u64::MAX), Time::NEVER);
}

#[test]
fn zero_has_many_encodings_and_never_one() {
    assert_eq!((Time::NEVER.raw(), Time::ZERO.raw()), (0, 0x0400));
    for raw in [0x0400, 0x0800, 0x7C00] {
        assert!(Time::from_raw(raw).is_zero() && !Time::from_raw(raw).is_never(), "{raw:#x}");
    }
    assert!(!Time::NEVER.is_zero() && Time::NEVER.is_never());
    assert!(!Time::from_raw(0x8400).is_zero(), "a point");
    assert_eq!((Time::NEVER.length_us(), Time::from_raw(0x8001).length_us()), (None, None));
}

#[test]
fn deadline_of_a_period_is_counted_in_64_bits() {
    // raw, now, deadline
    let rows = [
        (0x0000, 5, None),
        (0x0400, 5, Some(5)),
        (0x0271, 1000, Some(1625)),
        (0x1271, 1000, Some(11_000)),
        (0x7FFF, 0, Some(1023 << 31)),
        (0x7FFF, u64::MAX, Some(u64::MAX)),
    ];
    for (raw, now, deadline) in rows {
        assert_eq!(Time::from_raw(raw).deadline_us(now), deadline, "{raw:#x}");
    }
}

#[test]
fn deadline_of_a_point_is_in_this_window_or_the_next() {
    // Exponent 0: windows of 1024 us, c is bit 10 of the clock.
    let rows = [
        (0x8000 | 5, 0, 5),
        (0x8000 | 5, 1023, 5),
        (0x8000 | 0x400 | 5, 1023, 1029),
        (0x8000 | 0x400 | 5, 1024, 1029),
        (0x8000 | 5, 1024, 2053),
        (0x8000 | 1 << 11 | 5, 0, 10),
        (0x8000 | 1 << 11 | 0x400 | 5, 0, 2058),
        (0xF800 | 1, 1 << 25, (1 << 26) + (1 << 15)),
    ];
    for (raw, now, deadline) in rows {
        assert_eq!(Time::from_raw(raw).deadline_us(now), Some(deadline), "{raw:#x} at {now}");
    }
}

/// X.2, Time: the point of the manual's formula, for clocks at and around every border of a window.
#[test]
fn deadline_of_a_point_is_what_the_formula_says() {
    let formula = |now: u64, e: u32, c: u64, m: u64| {
        let window = 1u64 << (e + 10);
        let start = now / window * window;
        if (now >> (e + 10)) % 2 == c { start + (m << e) } else { start + window + (m << e) }
    };
    for (e, c, m) in (0..16).flat_map(|e| [0, 1].into_iter().flat_map(move |c| [0, 1, 512, 1023].map(|m| (e, c, m)))) {
        let time = Time::from_raw((0x8000 | e << 11 | c << 10 | m) as u16);
        assert!(time.is_point() && !time.is_zero() && !time.is_never(), "{time:?}");
        for window in [0u64, 1, 2, 3, 7, 1 << 20] {
            for now in [0, 1, (m << e) as u64, (1 << (e + 10)) - 1].map(|offset| (window << (e + 10)) + offset) {
                let point = formula(now, e, c as u64, m as u64);
                assert_eq!(time.deadline_us(now), Some(point), "{time:?} at {now}");
                assert!(point <= now || point - now < 2 << (e + 10), "a point is near: {time:?} at {now}");
            }
        }
    }
}

/// X.2, Time: each period, by its formula; those with m = 0 are zero, but for never.
#[test]
fn length_of_a_period_is_what_the_formula_says() {
    for raw in 0..0x8000u16 {
        let (time, m, e) = (Time::from_raw(raw), u64::from(raw & 0x3FF), raw >> 10);
        let expected = if raw == 0 { None } else { Some(m * 2u64.pow(e.into())) };
        assert_eq!(time.length_us(), expected, "{raw:#x}");
        assert_eq!((time.is_zero(), time.is_never()), (expected == Some(0), raw == 0), "{raw:#x}");
        assert_eq!(time.deadline_us(7), expected.map(|us| us + 7));
    }
}

#[test]
fn point_comes_when_it_was_asked_for() {
    for now in [0, 1, 1023, 1024, 999_999, 1 << 40] {
        for ahead in [0, 1, 500, 1500, 100_000, 30_000_000] {
            let point = Time::point_us(now, now + ahead).expect("within reach");
            let deadline = point.deadline_us(now).expect("a point is not never");
            assert!(point.is_point() && deadline >= now + ahead, "{now} {ahead}");
            assert!(deadline - (now + ahead) <= ahead / 500 + 1, "{now} {ahead} {deadline}");
            assert_eq!(point.deadline_us(now + ahead / 2), Some(deadline), "still the same later on");
        }
    }
    assert_eq!((Time::point_us(5, 4), Time::point_us(0, 1 << 27)), (None, None));
}
