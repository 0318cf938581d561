//! Sizes of buffers and parts as flags give them: `64MiB`.

use chatvec_core::plan::PartSize;

/// The units, largest first, each with its power of two.
const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Bytes in a text such as `64MiB` or `4096`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, power) = UNITS
        .iter()
        .find_map(|(unit, power)| Some((text.strip_suffix(unit)?.trim_end(), *power)))
        .unwrap_or((text, 0));
    let expected = || "expected a size such as `64MiB`, `1GiB` or a number of bytes".to_owned();
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(1 << power).ok_or_else(expected)
}

/// The size of a part.
pub(super) fn part_size(text: &str) -> Result<PartSize, String> {
    PartSize::new(bytes(text)?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_or_plain_bytes() {
        for (text, expected) in [
            ("64MiB", 64 << 20),
            ("1 GiB", 1 << 30),
            ("8KiB", 8192),
            ("4096", 4096),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "MiB",
            "64MB",
            "64M",
            "-1",
            "+1",
            "1.5GiB",
            "99999999999GiB",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_is_whole_pages() {
        assert_eq!(part_size("64MiB"), Ok(PartSize::DEFAULT));
        assert!(part_size("0").is_err());
        assert!(part_size("5000").unwrap_err().contains("multiple of 4096"));
    }
}
