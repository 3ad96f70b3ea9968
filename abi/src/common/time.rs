//! Time values.

/// A point or period of time in 16 bits (X.2, Time).
///
/// Bits of a period, lowest first: m 10, e 5, zero 1; it lasts m * 2^e microseconds. Bits of a point: m 10, c 1, e 4,
/// one 1; see [`Time::deadline_us`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Time(u16);

const MANTISSA_BITS: u32 = 10;
const MANTISSA_MASK: u16 = (1 << MANTISSA_BITS) - 1;
const PERIOD_EXPONENT_MAX: u32 = 31;
const POINT_EXPONENT_MAX: u32 = 15;
const POINT: u16 = 1 << 15;

impl Time {
    /// No limit.
    pub const NEVER: Self = Self(0);
    /// The period of length zero.
    pub const ZERO: Self = Self(0x0400);

    /// The time with these bits.
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The bits.
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// The shortest period that lasts at least `us` microseconds; [`Self::NEVER`] beyond the longest (25 days).
    pub const fn period_us(us: u64) -> Self {
        if us == 0 {
            return Self::ZERO;
        }
        let mut exponent = 0;
        while exponent <= PERIOD_EXPONENT_MAX {
            let mantissa = div_up_pow2(us, exponent);
            if mantissa <= MANTISSA_MASK as u64 {
                return Self((exponent << MANTISSA_BITS) as u16 | mantissa as u16);
            }
            exponent += 1;
        }
        Self::NEVER
    }

    /// The first representable point not before `at_us`, for a clock that shows `now_us`; `None` if it has passed or is
    /// too far ahead (33 to 67 seconds).
    pub const fn point_us(now_us: u64, at_us: u64) -> Option<Self> {
        if at_us < now_us {
            return None;
        }
        let mut exponent = 0;
        while exponent <= POINT_EXPONENT_MAX {
            let steps = div_up_pow2(at_us, exponent);
            let (window, window_now) = (steps >> MANTISSA_BITS, now_us >> (exponent + MANTISSA_BITS));
            if window - window_now <= 1 {
                let carry = (window as u16 & 1) << MANTISSA_BITS;
                return Some(Self(POINT | (exponent as u16) << 11 | carry | steps as u16 & MANTISSA_MASK));
            }
            exponent += 1;
        }
        None
    }

    /// Whether there is no limit.
    pub const fn is_never(self) -> bool {
        self.0 == 0
    }

    /// Whether this is a period of length zero, in any of its encodings.
    pub const fn is_zero(self) -> bool {
        !self.is_point() && !self.is_never() && self.mantissa() == 0
    }

    /// Whether this is a point, not a period.
    pub const fn is_point(self) -> bool {
        self.0 & POINT != 0
    }

    /// Length of a period in microseconds; `None` for never and for points.
    pub const fn length_us(self) -> Option<u64> {
        if self.is_never() || self.is_point() {
            return None;
        }
        Some(self.mantissa() << (self.0 >> MANTISSA_BITS))
    }

    /// The clock value at which this time has come, for a clock that shows `now_us`; `None` for never.
    ///
    /// A point names a moment within the present window of 2^(e+10) microseconds or the next one: c is the lowest bit of
    /// the window's number.
    pub const fn deadline_us(self, now_us: u64) -> Option<u64> {
        if self.is_never() {
            return None;
        }
        if let Some(length) = self.length_us() {
            return Some(now_us.saturating_add(length));
        }
        let exponent = (self.0 >> 11 & 0xF) as u32;
        let window = 1u64 << (exponent + MANTISSA_BITS);
        let in_this_window = (now_us & window != 0) == (self.0 & 1 << MANTISSA_BITS != 0);
        let start = now_us & !(window - 1);
        let start = if in_this_window { start } else { start.saturating_add(window) };
        Some(start.saturating_add(self.mantissa() << exponent))
    }

    const fn mantissa(self) -> u64 {
        (self.0 & MANTISSA_MASK) as u64
    }
}

/// `value / 2^shift`, rounded up, without overflow.
const fn div_up_pow2(value: u64, shift: u32) -> u64 {
    (value >> shift) + (value & ((1 << shift) - 1) != 0) as u64
}
