//! How numbers, names and tables look.

use std::io::{self, Write};
use std::time::Duration;

/// A title and rows of left-aligned columns; nothing without rows.
pub(super) fn write_table<const N: usize>(
    title: &str,
    rows: &[[String; N]],
    out: &mut dyn Write,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    write_rows(rows, "  ", out)
}

/// Rows of left-aligned columns.
pub(super) fn write_rows<const N: usize>(
    rows: &[[String; N]],
    indent: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(printable(cell).chars().count());
        }
    }
    for row in rows {
        let cells = widths.iter().zip(row);
        let cells = cells.map(|(width, cell)| format!("{:width$}", printable(cell)));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{indent}{}", line.trim_end())?;
    }
    Ok(())
}

/// Names come from files of strangers: control characters must not reach the
/// terminal, where they would rewrite what it shows.
pub(super) fn printable(text: &str) -> String {
    let escaped = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// `1 tensor`, `2 tensors`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Decimal units, as disks and downloads have them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        // What would round to 1000.00 of a unit is one of the next.
        if value < 999.995 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    format!("{value:.2} {unit}")
}

/// Binary units where the size is whole in one, as sizes of buffers and parts
/// are given; else decimal ones.
pub(super) fn binary_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(
        || size(bytes),
        |(unit, factor)| format!("{} {unit}", bytes / factor),
    )
}

/// A duration in two units at most: `0.35 s`, `12.3 s`, `4 min 05 s`, `2 h 07 min`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let whole = seconds.round() as u64;
    if seconds < 9.995 {
        format!("{seconds:.2} s")
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    }
}

/// A duration without fractions: `12 s`, `4 min 05 s`, `2 h 07 min`.
pub(super) fn whole_seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        _ => duration(time),
    }
}

/// Bytes a second; 0 for no time at all.
pub(super) fn rate(bytes: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        (bytes as f64 / seconds) as u64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_and_never_reach_a_thousand_of_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (999_994, "999.99 kB"),
            (999_996, "1.00 MB"),
            (16_060_522_496, "16.06 GB"),
            (u64::MAX, "18446744.07 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_size_that_was_given_in_binary_units_is_shown_so() {
        assert_eq!(binary_size(64 << 20), "64 MiB");
        assert_eq!(binary_size(1 << 30), "1 GiB");
        assert_eq!(binary_size(3_000_000), "3.00 MB");
        assert_eq!(binary_size(0), "0 B");
    }

    #[test]
    fn durations_have_two_units_at_most_and_none_overflows() {
        for (millis, text) in [
            (0, "0.00 s"),
            (350, "0.35 s"),
            (9_999, "10.0 s"),
            (59_999, "1 min 00 s"),
            (245_000, "4 min 05 s"),
            (3_599_800, "1 h 00 min"),
            (7_620_000, "2 h 07 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_rate_over_no_time_is_no_division_by_zero() {
        assert_eq!(rate(10, Duration::ZERO), 0);
        assert_eq!(rate(10, Duration::from_millis(500)), 20);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }
}
