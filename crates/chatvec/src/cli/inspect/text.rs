//! The report for people: aligned columns, nothing that needs colour.

use std::io::{self, Write};

use chatvec_core::problem::Problem;

use super::super::text::{counted, printable, size, write_table};
use super::report::Report;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    write_summary(report, out)?;
    let files = report.files.iter().map(|file| {
        let tensors = counted(file.tensor_count as u64, "tensor");
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
        let tensors = counted(line.tensor_count as u64, "tensor");
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
        counted(report.tensor_count as u64, "tensor"),
        counted(report.files.len() as u64, "file"),
        size(report.tensor_bytes),
        report.tensor_bytes
    )
}

fn write_problem(kind: &str, problem: &Problem, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{kind}: {}", printable(&problem.to_string()))?;
    if let Some(hint) = &problem.hint {
        writeln!(out, "hint: {}", printable(hint))?;
    }
    Ok(())
}
