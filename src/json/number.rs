//! Exact comparison of JSON numbers, however they are written.

use std::hash::{Hash, Hasher};

/// Larger exponents are compared by their digits.
const MAX_EXPONENT: i64 = 1 << 60;

/// A number's exact value: `0.DIGITS × 10^scale`. `1`, `1.0` and `10e-1` are equal, and nothing passes through a float.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exact<'t> {
    negative: bool,
    /// The significant digits before and after the decimal point, together without leading or trailing zeros.
    digits: (&'t str, &'t str),
    scale: i64,
    /// An exponent too large for `scale`.
    exponent: &'t str,
}

impl<'t> Exact<'t> {
    /// The text must follow JSON's grammar.
    pub(super) fn of(text: &'t str) -> Self {
        let (negative, magnitude) = match text.strip_prefix('-') {
            Some(magnitude) => (true, magnitude),
            None => (false, text),
        };
        let (mantissa, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let whole = whole.trim_start_matches('0');
        let mut scale = i64::try_from(whole.len()).unwrap_or(i64::MAX);
        let mut fraction = fraction.trim_end_matches('0');
        if whole.is_empty() {
            let significant = fraction.trim_start_matches('0');
            scale = -i64::try_from(fraction.len() - significant.len()).unwrap_or(i64::MAX);
            fraction = significant;
        }
        let whole = if fraction.is_empty() {
            whole.trim_end_matches('0')
        } else {
            whole
        };
        if whole.is_empty() && fraction.is_empty() {
            return Self {
                negative: false,
                digits: ("", ""),
                scale: 0,
                exponent: "",
            };
        }
        let exponent = exponent.strip_prefix('+').unwrap_or(exponent);
        let shift = exponent.parse::<i64>().ok();
        let (shift, exponent) = match shift.filter(|shift| shift.abs() <= MAX_EXPONENT) {
            Some(shift) => (shift, ""),
            None => (0, exponent),
        };
        Self {
            negative,
            digits: (whole, fraction),
            scale: scale.saturating_add(shift),
            exponent,
        }
    }

    /// Whether it has no fraction.
    pub(super) fn is_integer(self) -> bool {
        let is_whole = || i64::try_from(self.digit_count()).is_ok_and(|count| count <= self.scale);
        match self.large_exponent() {
            (_, "") => self.digit_count() == 0 || is_whole(),
            (is_negative, _) => !is_negative,
        }
    }

    fn digits(self) -> impl Iterator<Item = u8> + 't {
        self.digits.0.bytes().chain(self.digits.1.bytes())
    }

    fn digit_count(self) -> usize {
        self.digits.0.len() + self.digits.1.len()
    }

    /// The sign and the digits of an exponent that is too large for `scale`.
    fn large_exponent(self) -> (bool, &'t str) {
        match self.exponent.strip_prefix('-') {
            Some(digits) => (true, digits.trim_start_matches('0')),
            None => (false, self.exponent.trim_start_matches('0')),
        }
    }
}

impl PartialEq for Exact<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.negative == other.negative
            && self.scale == other.scale
            && self.digit_count() == other.digit_count()
            && self.large_exponent() == other.large_exponent()
            && self.digits().eq(other.digits())
    }
}

impl Eq for Exact<'_> {}

impl Hash for Exact<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.negative, self.scale, self.digit_count()).hash(hasher);
        self.large_exponent().hash(hasher);
        self.digits().for_each(|digit| hasher.write_u8(digit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_integer_has_no_fraction_however_it_is_written() {
        for integer in [
            "0",
            "-0.0",
            "0e-9",
            "1",
            "10",
            "-1.0",
            "1.50e1",
            "1e400",
            "1e99999999999999999999",
        ] {
            assert!(Exact::of(integer).is_integer(), "{integer}");
        }
        for other in [
            "0.5",
            "1.50e0",
            "10e-2",
            "1e-400",
            "1e-99999999999999999999",
            "9007199254740993.5",
        ] {
            assert!(!Exact::of(other).is_integer(), "{other}");
        }
    }

    #[test]
    fn equal_values_are_equal_however_they_are_written() {
        for same in [
            &["1", "1.0", "10e-1", "0.1E+1", "0.001e3", "1e0", "1e-0"][..],
            &["0", "-0", "0.00", "0e99999999999999999999999"],
            &["-120", "-1.2e2", "-12e1", "-0.00120e5"],
            &[
                "123456789012345678901234567890",
                "12345678901234567890123456789e1",
            ],
            &["1e99999999999999999999999", "1E+099999999999999999999999"],
            &["9007199254740993", "9007199254740993.0"],
        ] {
            for (left, right) in same
                .iter()
                .flat_map(|left| same.iter().map(move |right| (left, right)))
            {
                assert_eq!(Exact::of(left), Exact::of(right), "{left} {right}");
            }
        }
    }

    #[test]
    fn different_values_differ_however_close_they_are() {
        for (left, right) in [
            ("18446744073709551616", "18446744073709551617"),
            ("0.1", "0.1000000000000000055511151231257827"),
            ("1", "-1"),
            ("12", "1.2"),
            ("1e-5", "1e5"),
            ("1e99999999999999999999998", "1e99999999999999999999999"),
            ("1e99999999999999999999999", "1e-99999999999999999999999"),
            ("9007199254740993.5", "9007199254740994"),
        ] {
            assert_ne!(Exact::of(left), Exact::of(right), "{left} {right}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_integers(left in -2000_i64..2000, right in -2000_i64..2000, shift in 0_u32..4) {
            let scaled = format!("{}e-{shift}", right * 10_i64.pow(shift));
            prop_assert_eq!(Exact::of(&left.to_string()) == Exact::of(&scaled), left == right);
        }
    }
}
