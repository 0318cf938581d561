//! Sizes as people write them: `5GB`, `4.5GB`, `500MB`, or a number of bytes.

/// The units, decimal as on the model hubs, largest first.
const UNITS: [(&str, u32); 4] = [("TB", 12), ("GB", 9), ("MB", 6), ("KB", 3)];

/// Bytes in a text such as `4.5GB` or `5000000000`, worked out without rounding.
/// `None`: no such size, not a whole number of bytes, or more than a u64 holds.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (number, zeros) = UNITS
        .iter()
        .find_map(|(unit, zeros)| Some((text.strip_suffix(unit)?.trim_end(), *zeros)))
        .unwrap_or((text, 0));
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let missing_zeros = zeros.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    let all_digits: u64 = format!("{whole}{fraction}").parse().ok()?;
    all_digits.checked_mul(10_u64.checked_pow(missing_zeros)?)
}

/// The shortest exact text for a size: `5GB`, `4500MB`, or plain bytes.
/// [`parse`] gives the same number back.
pub(super) fn to_text(bytes: u64) -> String {
    UNITS
        .iter()
        .map(|(unit, zeros)| (unit, 10_u64.pow(*zeros)))
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(
            || bytes.to_string(),
            |(unit, factor)| format!("{}{unit}", bytes / factor),
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_decimal_and_exact() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("4.5GB", 4_500_000_000),
            ("500MB", 500_000_000),
            ("500 MB", 500_000_000),
            ("1.000001MB", 1_000_001),
            ("0.50KB", 500),
            ("1.0000KB", 1000),
            ("2TB", 2_000_000_000_000),
            ("1000", 1000),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_of_bytes_is_rejected() {
        for text in [
            "",
            "GB",
            "5GiB",
            "5gb",
            "5G",
            "-5GB",
            "+5GB",
            "1.5",
            "1.0001KB",
            "1.GB",
            ".5GB",
            "1e9",
            "5 000",
            "1,5GB",
            "18446744073709551616",
            "99999999999TB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_is_exact() {
        assert_eq!(to_text(5_000_000_000), "5GB");
        assert_eq!(to_text(4_500_000_000), "4500MB");
        assert_eq!(to_text(5_368_709_120), "5368709120");
        assert_eq!(to_text(0), "0");
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes: u64, zeros in 0..15_u32) {
            let bytes = bytes / 10_u64.pow(zeros) * 10_u64.pow(zeros);
            prop_assert_eq!(parse(&to_text(bytes)), Some(bytes));
        }
    }
}
