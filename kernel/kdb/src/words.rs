//! What a person types as values.

/// A number in hexadecimal, with or without `0x`; in decimal behind a `#`. `_` and `` ` `` may stand between digits.
pub fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix('#') {
        Some(digits) => (digits, 10),
        None => (text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text), 16),
    };
    let mut value: Option<u64> = None;
    for digit in digits.chars().filter(|letter| !matches!(letter, '_' | '`')) {
        let digit = u64::from(digit.to_digit(radix)?);
        value = Some(value.unwrap_or(0).checked_mul(radix.into())?.checked_add(digit)?);
    }
    value
}

/// Whether `text` contains `part`, in letters of either case.
pub fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::{contains, number};

    #[test]
    fn numbers_are_hexadecimal_unless_they_say_otherwise() {
        let rows = [
            ("0", Some(0)),
            ("1f", Some(0x1F)),
            ("0x1F", Some(0x1F)),
            ("#31", Some(31)),
            ("ffffffff`80000000", Some(0xFFFF_FFFF_8000_0000)),
            ("ffffffffffffffff", Some(u64::MAX)),
            ("10000000000000000", None),
            ("", None),
            ("0x", None),
            ("#1f", None),
            ("-1", None),
            ("12 ", None),
        ];
        for (text, expected) in rows {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn parts_are_found_in_any_case() {
        assert!(contains("Deadlock.A", "lock") && contains("x", "") && contains("abC", "Bc"));
        assert!(!contains("abc", "abcd") && !contains("", "a"));
    }
}
