//! What was published, what was put, and what is left in the bucket.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum_combine};
use serde::Deserialize;

use super::record::{Job, Record, Upload};
use super::{Expectations, Findings, Invariant};
use crate::emulator::{Operation, Request, StoredObject};
use crate::published::{Files, MANIFEST, OF_THE_JOB};

pub(super) fn check(record: &Record, expected: &Expectations, found: &mut Findings) {
    published_is_golden(record, expected, found);
    manifests_come_last(record, found);
    one_manifest_a_job(record, found);
    nothing_is_left(record, expected, found);
    if let Some(most) = expected.redone_bytes_max {
        let redone = redone_bytes(record);
        found.demand(Invariant::BoundedRedo, redone <= most, || {
            format!("{redone} bytes were put again, expected at most {most}")
        });
    }
}

/// A manifest, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Manifest {
    job: String,
    state: String,
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    path: String,
    size: u64,
    crc64nvme: String,
}

impl Manifest {
    fn of(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// What a request has put, if that is a manifest that says complete.
    fn complete_by(put: &Request) -> Option<(Self, &Bytes)> {
        let is_manifest = put.operation == Operation::Put
            && put.effect.is_some()
            && put.key.rsplit('/').next() == Some(MANIFEST);
        let body = put.object.as_ref().filter(|_| is_manifest)?;
        let manifest = Self::of(body)?;
        (manifest.state == "complete").then_some((manifest, body))
    }
}

/// I1. Below a prefix stands what the last job has published that succeeded
/// there.
fn published_is_golden(record: &Record, expected: &Expectations, found: &mut Findings) {
    let mut published: BTreeMap<String, &Job> = BTreeMap::new();
    for change in &record.jobs {
        let job = change.after.as_ref().filter(|job| job.state == "SUCCEEDED");
        if let Some((job, prefix)) = job.and_then(|job| Some((job, record.prefix_of(job)?))) {
            published.insert(prefix, job);
        }
    }
    for (prefix, job) in published {
        let mut wrong = |what: String| {
            let id = &job.job_id;
            found.add(
                Invariant::GoldenBytes,
                format!("`{prefix}` of job {id}: {what}"),
            );
        };
        let below = record.objects.range(prefix.clone()..);
        let below = below.take_while(|(key, _)| key.starts_with(&prefix));
        let files: BTreeMap<&str, &StoredObject> = below
            .map(|(key, object)| (&key[prefix.len()..], object))
            .collect();
        match files
            .get(MANIFEST)
            .map(|object| Manifest::of(&object.bytes()))
        {
            Some(Some(manifest)) if manifest.state == "complete" => {}
            Some(_) => wrong("its manifest is not complete".to_owned()),
            None => wrong("it has no manifest".to_owned()),
        }
        let Some(golden) = expected.golden_at(&prefix) else {
            continue;
        };
        for difference in differences(&files, golden) {
            wrong(difference);
        }
    }
}

fn differences(files: &BTreeMap<&str, &StoredObject>, golden: &Files) -> Vec<String> {
    let mut all = Vec::new();
    for (name, bytes) in golden {
        let is_of_the_job = OF_THE_JOB.contains(&name.as_str());
        match files.get(name.as_str()) {
            None => all.push(format!("`{name}` is missing")),
            Some(_) if is_of_the_job => {}
            Some(object) if is_same(object, bytes) => {}
            Some(_) => all.push(format!("`{name}` has other bytes")),
        }
    }
    let others = files.keys().filter(|name| !golden.contains_key(**name));
    all.extend(others.map(|name| format!("`{name}` does not belong there")));
    all
}

fn is_same(object: &StoredObject, mut bytes: &[u8]) -> bool {
    object.chunks.iter().all(|chunk| {
        let (begin, rest) = bytes.split_at(chunk.len().min(bytes.len()));
        bytes = rest;
        begin == chunk
    }) && bytes.is_empty()
}

/// What a key held after one change of the bucket.
#[derive(Debug, Clone, Copy)]
struct Version {
    size: u64,
    crc64: u64,
}

/// I2, by the order of the bucket's changes.
fn manifests_come_last(record: &Record, found: &mut Findings) {
    let mut standing: BTreeMap<&str, Option<Version>> = BTreeMap::new();
    let mut parts: BTreeMap<(&str, u32), Vec<&Request>> = BTreeMap::new();
    for change in record.history.effects() {
        if let Some((manifest, _)) = Manifest::complete_by(change) {
            let prefix = change.key.trim_end_matches(MANIFEST);
            for output in &manifest.outputs {
                let key = format!("{prefix}{}", output.path);
                let version = standing.get(key.as_str()).copied().flatten();
                let is_there = version.is_some_and(|version| output.is(version));
                found.demand(Invariant::ManifestLast, is_there, || {
                    format!(
                        "`{}` says complete when `{key}` is {version:?}, which it lists with \
                         {} bytes and CRC {}",
                        change.key, output.size, output.crc64nvme
                    )
                });
            }
        }
        match change.operation {
            Operation::PutPart => {
                if let Some((id, number)) = change.upload_id.as_deref().zip(change.part_number) {
                    parts.entry((id, number)).or_default().push(change);
                }
            }
            Operation::CompleteUpload => {
                standing.insert(&change.key, completed(change, &parts));
            }
            Operation::Put => {
                let version = change.received.as_ref().map(|received| Version {
                    size: received.bytes,
                    crc64: received.crc64,
                });
                standing.insert(&change.key, version);
            }
            Operation::Delete => {
                standing.remove(change.key.as_str());
            }
            _ => {}
        }
    }
}

impl Output {
    fn is(&self, version: Version) -> bool {
        let crc64 = u64::from_str_radix(&self.crc64nvme, 16);
        self.size == version.size && crc64 == Ok(version.crc64)
    }
}

/// What a completion makes of the parts that it names; `None` where one of them
/// was never put.
fn completed(
    completion: &Request,
    parts: &BTreeMap<(&str, u32), Vec<&Request>>,
) -> Option<Version> {
    let id = completion.upload_id.as_deref()?;
    let mut whole = Version { size: 0, crc64: 0 };
    for (number, etag) in &completion.named_parts {
        let puts = parts.get(&(id, *number))?;
        let put = puts
            .iter()
            .rev()
            .find(|put| put.etag.as_ref() == Some(etag))?;
        let part = put.received.as_ref()?;
        whole.crc64 = match whole.size {
            0 => part.crc64,
            _ => checksum_combine(CrcAlgorithm::Crc64Nvme, whole.crc64, part.crc64, part.bytes),
        };
        whole.size += part.bytes;
    }
    Some(whole)
}

/// I3.
fn one_manifest_a_job(record: &Record, found: &mut Findings) {
    let jobs = record.last_of_jobs();
    let mut bodies: BTreeMap<String, BTreeSet<&Bytes>> = BTreeMap::new();
    let mut last: BTreeMap<&str, String> = BTreeMap::new();
    for change in record.history.effects() {
        if change.operation == Operation::Delete {
            last.remove(change.key.as_str());
        }
        let Some((manifest, body)) = Manifest::complete_by(change) else {
            continue;
        };
        // A checkpoint that the test itself has put there.
        let Some(job) = jobs.get(manifest.job.as_str()) else {
            continue;
        };
        let of_job = bodies.entry(manifest.job.clone()).or_default();
        of_job.insert(body);
        found.demand(Invariant::OneManifest, of_job.len() == 1, || {
            format!(
                "job {} has published {} manifests",
                job.job_id,
                of_job.len()
            )
        });
        let publishes = ["COMMITTING", "SUCCEEDED"].contains(&job.state.as_str());
        found.demand(Invariant::OneManifest, publishes, || {
            format!("job {} has published and is {}", job.job_id, job.state)
        });
        if let Some(before) = last.insert(&change.key, manifest.job.clone()) {
            let may = before == manifest.job || job.overwrites();
            found.demand(Invariant::OneManifest, may, || {
                format!("job {} has published over job {before}", job.job_id)
            });
        }
    }
}

/// Bytes of parts of weights that were put more than once, beyond the first time.
pub fn redone_bytes(record: &Record) -> u64 {
    let mut seen = BTreeSet::new();
    let mut redone = 0;
    for put in record
        .puts()
        .filter(|put| put.key.ends_with(".safetensors"))
    {
        let bytes = put.received.as_ref().map_or(0, |received| received.bytes);
        // A job that publishes where another did puts its parts for the first time.
        let nonce = record.job_of_upload(put.upload_id.as_deref());
        if !seen.insert((&put.key, nonce, put.part_number)) {
            redone += bytes;
        }
    }
    redone
}

impl Record {
    fn job_of_upload(&self, id: Option<&str>) -> Option<&str> {
        let mut uploads = self
            .uploads
            .iter()
            .filter_map(|change| change.after.as_ref());
        let upload = uploads.find(|upload| id.is_some() && upload.upload_id.as_deref() == id)?;
        Some(&upload.job_id)
    }
}

/// I8. What coordinators still have to remove, by their own rows, is excused
/// until everything is settled.
fn nothing_is_left(record: &Record, expected: &Expectations, found: &mut Findings) {
    let jobs = record.last_of_jobs();
    let uploads = record.last_of_uploads();
    let mut files: BTreeMap<&str, Vec<&Upload>> = BTreeMap::new();
    for upload in uploads.values() {
        if let Some(key) = record.key_of(&upload.url) {
            files.entry(key).or_default().push(upload);
        }
    }
    let is_to_come = |upload: &&Upload| {
        let job = jobs.get(upload.job_id.as_str());
        let is_open = ["INTENT", "OPEN"].contains(&upload.state.as_str());
        is_open && !(expected.is_settled && job.is_some_and(|job| job.is_terminal()))
    };
    for open in &record.open_uploads {
        let of_file = files.get(open.key.as_str()).map_or(&[][..], Vec::as_slice);
        let excused = of_file.iter().copied().any(|upload| is_to_come(&upload));
        found.demand(
            Invariant::NothingLeft,
            excused || is_input(record, &open.key),
            || format!("an upload of `{}` is left, `{}`", open.key, open.id),
        );
    }
    let stray = stray_objects(record, expected, &jobs);
    for key in stray {
        found.add(Invariant::NothingLeft, format!("`{key}` is left"));
    }
}

fn is_input(record: &Record, key: &str) -> bool {
    record.inputs.iter().any(|input| key.starts_with(input))
}

/// Objects that are no input, listed by no complete manifest, and not of a job
/// that is still to publish or to be cleaned up.
fn stray_objects<'a>(
    record: &'a Record,
    expected: &Expectations,
    jobs: &BTreeMap<&str, &Job>,
) -> Vec<&'a str> {
    let mut known = BTreeSet::new();
    for (key, object) in &record.objects {
        let Some(prefix) = key.strip_suffix(MANIFEST) else {
            continue;
        };
        let manifest = Manifest::of(&object.bytes());
        if let Some(manifest) = manifest.filter(|manifest| manifest.state == "complete") {
            known.insert(key.clone());
            let outputs = manifest.outputs.iter();
            known.extend(outputs.map(|output| format!("{prefix}{}", output.path)));
        }
    }
    let at_work = jobs.values().filter(|job| match job.state.as_str() {
        "SUCCEEDED" => false,
        "FAILED" | "CANCELLED" => job.cleaned_at_ms.is_none() && !expected.is_settled,
        _ => true,
    });
    let at_work: Vec<String> = at_work.filter_map(|job| record.prefix_of(job)).collect();
    let keys = record.objects.keys();
    keys.filter(|key| {
        !known.contains(*key)
            && !is_input(record, key)
            && !at_work.iter().any(|prefix| key.starts_with(prefix))
    })
    .map(String::as_str)
    .collect()
}
