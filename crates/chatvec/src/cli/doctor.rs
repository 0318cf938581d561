//! `chatvec doctor`: what a store does, before a job relies on it.

use std::io::{self, Write};

use chatvec_core::problem::Problem;
use serde::Serialize;

use super::text::write_rows;
use super::{Exit, Failure, OutputFormat, begin, output};
use crate::storage::object::{
    Finding, ObjectError, ObjectStorage, ObjectStorageOptions, ObjectUrl, probe,
};

/// Check what a bucket's store does, with small objects that are removed again.
///
/// Exits 0 where the store keeps every promise that chatvec builds on, and 1
/// where it breaks one.
#[derive(Debug, Clone, clap::Args)]
pub struct DoctorArgs {
    /// A place that may be written, `s3://BUCKET/PREFIX`. Nothing that stands
    /// there is touched.
    #[arg(long, value_name = "URL", value_parser = ObjectUrl::parse)]
    storage: ObjectUrl,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Report {
    url: String,
    promises: Vec<PromiseReport>,
}

#[derive(Debug, Serialize)]
struct PromiseReport {
    name: &'static str,
    kept: bool,
    /// What the store does instead.
    weakness: Option<String>,
    /// What that means.
    meaning: Option<&'static str>,
}

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    let storage = ObjectStorage::new(ObjectStorageOptions::from_environment());
    let bucket = storage
        .bucket(&args.storage)
        .map_err(|error| failed(&error))?;
    let findings = storage.block_on(probe(&bucket, &args.storage));
    let report = Report::of(&args.storage, findings.map_err(|error| failed(&error))?);
    match args.output {
        OutputFormat::Text => output::print(|out| write(&report, out))?,
        OutputFormat::Json => output::print_json(&report)?,
    }
    Ok(if report.promises.iter().all(|promise| promise.kept) {
        Exit::Success
    } else {
        Exit::Failed
    })
}

fn failed(error: &ObjectError) -> Failure {
    let problem: Problem = error.problem();
    match error {
        ObjectError::Unreachable { .. }
        | ObjectError::Throttled { .. }
        | ObjectError::Transient { .. } => Failure::try_again(problem),
        _ => Failure::bad_input(vec![problem]),
    }
}

impl Report {
    fn of(url: &ObjectUrl, findings: Vec<Finding>) -> Self {
        let promise = |finding: Finding| PromiseReport {
            name: finding.promise.name(),
            kept: finding.weakness.is_none(),
            meaning: finding.weakness.as_ref().map(|_| finding.promise.meaning()),
            weakness: finding.weakness,
        };
        Self {
            url: url.to_string(),
            promises: findings.into_iter().map(promise).collect(),
        }
    }
}

fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", report.url)?;
    let rows: Vec<_> = report
        .promises
        .iter()
        .map(|promise| {
            let does = promise.weakness.as_deref().unwrap_or_default();
            let kept = if promise.kept { "kept" } else { "BROKEN" };
            [promise.name, kept, does].map(str::to_owned)
        })
        .collect();
    write_rows(&rows, "  ", out)?;
    for promise in &report.promises {
        if let Some(meaning) = promise.meaning {
            writeln!(out, "{}: {meaning}", promise.name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::object::Promise;

    #[test]
    fn a_broken_promise_is_told_with_what_it_means() {
        let url = ObjectUrl::parse("s3://bucket/x").unwrap();
        let finding = |promise, weakness: Option<&str>| Finding {
            promise,
            weakness: weakness.map(str::to_owned),
        };
        let report = Report::of(
            &url,
            vec![
                finding(Promise::Range, None),
                finding(Promise::Create, Some("overwrites despite If-None-Match")),
            ],
        );
        let mut out = Vec::new();
        write(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let meaning = Promise::Create.meaning();
        assert!(text.contains("ranged-read         kept"), "{text}");
        assert!(
            text.contains("conditional-create  BROKEN  overwrites despite"),
            "{text}"
        );
        assert!(
            text.contains(&format!("conditional-create: {meaning}")),
            "{text}"
        );
    }
}
