//! The plan for people.

use std::io::{self, Write};

use super::super::output::write_warnings;
use super::super::text::{binary_size, counted, printable, size, write_table};
use super::report::{Report, SideFiles};

/// Ignored tensors that are listed where not every tensor is.
const IGNORED_SHOWN: usize = 10;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "would merge into {}", printable(&report.output))?;
    writeln!(
        out,
        "{} of {} merged, {} to read, {} to write, {} of {} in {}",
        report.merged_count,
        counted(report.tensor_count as u64, "tensor"),
        size(report.bytes_read),
        size(report.bytes_written),
        counted(report.part_count, "part"),
        binary_size(report.part_bytes),
        counted(report.task_count as u64, "task"),
    )?;
    let inputs = report.inputs.iter().map(|input| {
        let tensors = counted(input.tensor_count as u64, "tensor");
        [
            input.role.clone(),
            input.path.clone(),
            tensors,
            size(input.bytes),
        ]
    });
    write_table("inputs", &inputs.collect::<Vec<_>>(), out)?;
    let decisions = report.decisions.iter();
    let decisions = decisions.map(|line| {
        [
            line.decision.clone(),
            counted(line.tensor_count as u64, "tensor"),
            size(line.bytes),
        ]
    });
    write_table("decisions", &decisions.collect::<Vec<_>>(), out)?;
    if let Some(tensors) = &report.tensors {
        let tensors = tensors.iter().map(|line| {
            [
                line.name.clone(),
                line.dtype.clone(),
                format!("{:?}", line.shape),
                line.decision.clone(),
            ]
        });
        write_table("tensors", &tensors.collect::<Vec<_>>(), out)?;
    }
    write_ignored(report, out)?;
    let files = report
        .files
        .iter()
        .map(|file| [file.name.clone(), size(file.bytes)]);
    write_table("weight files", &files.collect::<Vec<_>>(), out)?;
    write_side_files(&report.side_files, out)?;
    if !report.warnings.is_empty() {
        writeln!(out)?;
    }
    write_warnings(&report.warnings, out)
}

fn write_ignored(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let shown = if report.tensors.is_some() {
        usize::MAX
    } else {
        IGNORED_SHOWN
    };
    let ignored = report.ignored.iter().take(shown);
    let ignored = ignored.map(|line| {
        [
            line.name.clone(),
            line.dtype.clone(),
            format!("only in {}", line.role),
        ]
    });
    write_table("ignored tensors", &ignored.collect::<Vec<_>>(), out)?;
    let more = report.ignored.len().saturating_sub(shown);
    if more > 0 {
        writeln!(out, "  and {more} more, see --tensors")?;
    }
    Ok(())
}

fn write_side_files(files: &SideFiles, out: &mut dyn Write) -> io::Result<()> {
    let groups = [
        (&files.from_cp, "copied from cp"),
        (&files.from_chat, "copied from chat"),
        (&files.rewritten, "rewritten"),
        (&files.generated, "generated"),
    ];
    let taken = groups.into_iter().flat_map(|(paths, what)| {
        paths
            .iter()
            .map(move |path| [path.clone(), what.to_owned()])
    });
    let skipped = files
        .skipped
        .iter()
        .map(|skipped| [skipped.path.clone(), format!("left out: {}", skipped.why)]);
    write_table("side files", &taken.chain(skipped).collect::<Vec<_>>(), out)
}
