//! The report for people: aligned columns, nothing that needs colour.

use std::io::{self, Write};

use chatvec_core::problem::Problem;

use super::report::Report;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    write_summary(report, out)?;
    let files = report.files.iter().map(|file| {
        let tensors = counted(file.tensor_count, "tensor");
        [file.name.clone(), size(file.bytes), tensors]
    });
    write_table("files", &files.collect::<Vec<_>>(), out)?;
    let ignored = report.ignored.iter();
    let ignored = ignored.map(|file| [file.name.clone(), file.why.to_string()]);
    write_table("ignored", &ignored.collect::<Vec<_>>(), out)?;
    let ignored = report.ignored_tensors.iter();
    let ignored = ignored.map(|line| [line.name.clone(), line.file.clone()]);
    write_table("ignored tensors", &ignored.collect::<Vec<_>>(), out)?;
    let dtypes = report.dtypes.iter().map(|line| {
        let tensors = counted(line.tensor_count, "tensor");
        [line.dtype.clone(), size(line.bytes), tensors]
    });
    write_table("types", &dtypes.collect::<Vec<_>>(), out)?;
    match &report.tensors {
        None => {
            let shapes = report.shapes.iter().map(|line| {
                let shape = format!("{:?}", line.shape);
                let count = format!("x {}", line.tensor_count);
                [line.pattern.clone(), line.dtype.clone(), shape, count]
            });
            write_table("tensors", &shapes.collect::<Vec<_>>(), out)?;
        }
        Some(tensors) => {
            let tensors = tensors.iter().map(|line| {
                let (name, dtype) = (line.name.clone(), line.dtype.clone());
                let (shape, place) = (
                    format!("{:?}", line.shape),
                    format!("{} at {}", line.file, line.offset),
                );
                [name, dtype, shape, format!("{} B", line.bytes), place]
            });
            write_table("tensors", &tensors.collect::<Vec<_>>(), out)?;
        }
    }
    if let Some(problem) = &report.quantised {
        write_problem("cannot be merged", problem, out)?;
    }
    for warning in &report.warnings {
        write_problem("warning", warning, out)?;
    }
    Ok(())
}

fn write_summary(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", printable(&report.path))?;
    let mut model = report.architectures.join(", ");
    if let Some(model_type) = &report.model_type {
        let separator = if model.is_empty() { "" } else { " " };
        model = format!("{model}{separator}({model_type})");
    }
    if !model.is_empty() {
        writeln!(out, "{}", printable(&model))?;
    }
    match report.tie_word_embeddings {
        Some(true) => writeln!(out, "output head tied to the embedding")?,
        Some(false) => writeln!(out, "output head of its own")?,
        None => {}
    }
    writeln!(
        out,
        "{} in {}, {} ({} bytes)",
        counted(report.tensor_count, "tensor"),
        counted(report.files.len(), "file"),
        size(report.tensor_bytes),
        report.tensor_bytes
    )
}

/// A title and rows of left-aligned columns; nothing without rows.
fn write_table<const N: usize>(
    title: &str,
    rows: &[[String; N]],
    out: &mut dyn Write,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
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
        writeln!(out, "  {}", line.trim_end())?;
    }
    Ok(())
}

fn write_problem(kind: &str, problem: &Problem, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{kind}: {}", printable(&problem.to_string()))?;
    if let Some(hint) = &problem.hint {
        writeln!(out, "hint: {}", printable(hint))?;
    }
    Ok(())
}

/// Names come from files of strangers: control characters must not reach the
/// terminal, where they would rewrite what it shows.
fn printable(text: &str) -> String {
    let escaped = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Decimal units, as disks and downloads have them.
fn size(bytes: u64) -> String {
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
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }
}
