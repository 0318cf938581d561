//! Tasks and their leases: fences, reports, late puts, and what is charged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chatvec_core::task::FailureKind;

use super::audit::ago;
use super::record::{Change, Part, Record, StoodStill, Task, TaskKey, name_of};
use super::{ARRIVES_WITHIN, Expectations, Findings, Invariant};
use crate::emulator::Request;

/// The database rounds its clock to milliseconds.
const ROUNDING: Duration = Duration::from_millis(1);

pub(super) fn check(record: &Record, expected: &Expectations, found: &mut Findings) {
    let files = Files::of(record);
    for change in &record.tasks {
        let Some((before, after)) = change.update() else {
            continue;
        };
        let place = || {
            format!(
                "task {} of job {}, {} to {} under fences {} and {}, {}",
                after.task_no,
                after.job_id,
                before.state,
                after.state,
                before.fence,
                after.fence,
                ago(record, change.at()),
            )
        };
        fence_rises(before, after, place, found);
        charges(change.at(), before, after, place, found);
        match (before.is("DONE"), after.is("DONE")) {
            (false, true) => done_by_its_holder(before, after, place, found),
            (true, false) => taken_back_by_a_repair(record, change, after, place, found),
            _ => {}
        }
    }
    parts_were_put(record, &files, found);
    done_under_one_fence(record, &files, found);
    puts_begin_in_time(record, expected, &files, found);
}

/// Whose file an upload or a key is.
struct Files<'a> {
    by_upload: BTreeMap<&'a str, (&'a str, u64)>,
    in_the_bucket: BTreeSet<(&'a str, u64)>,
}

impl<'a> Files<'a> {
    fn of(record: &'a Record) -> Self {
        let uploads = record.uploads.iter();
        let uploads: Vec<_> = uploads.filter_map(|change| change.after.as_ref()).collect();
        let file = |upload: &'a super::Upload| (upload.job_id.as_str(), upload.file_no);
        let by_upload = uploads
            .iter()
            .filter_map(|upload| Some((upload.upload_id.as_deref()?, file(upload))))
            .collect();
        Self {
            by_upload,
            in_the_bucket: uploads.into_iter().map(file).collect(),
        }
    }

    /// The job, file and part, from 0, that a put is of.
    fn part_of(&self, put: &Request) -> Option<(&'a str, u64, u64)> {
        let (job, file) = self.by_upload.get(put.upload_id.as_deref()?)?;
        Some((job, *file, u64::from(put.part_number?) - 1))
    }
}

/// I5.
fn fence_rises(before: &Task, after: &Task, place: impl Fn() -> String, found: &mut Findings) {
    let is_new_lease = after.is("LEASED") && !before.is("LEASED");
    let is_new_holder = after.worker_id.is_some() && after.worker_id != before.worker_id;
    let holds = match is_new_lease || is_new_holder {
        true => after.fence > before.fence,
        false => after.fence >= before.fence,
    };
    found.demand(Invariant::FenceRises, holds, || {
        format!("the fence does not rise: {}", place())
    });
}

/// I6: the row's half.
fn done_by_its_holder(
    before: &Task,
    after: &Task,
    place: impl Fn() -> String,
    found: &mut Findings,
) {
    let is_held = before.is("LEASED") && before.worker_id.is_some();
    let by_holder = is_held && after.done_by == before.worker_id && after.fence == before.fence;
    found.demand(Invariant::ReportsStay, by_holder, || {
        format!(
            "done by {:?} while {:?} held it: {}",
            after.done_by,
            before.worker_id,
            place()
        )
    });
    let same = after.done_fence == Some(after.fence);
    found.demand(Invariant::OneDoneFence, same, || {
        format!("done under fence {:?}: {}", after.done_fence, place())
    });
}

/// I6: what is done stays so, but for a repair.
fn taken_back_by_a_repair(
    record: &Record,
    change: &Change<Task>,
    after: &Task,
    place: impl Fn() -> String,
    found: &mut Findings,
) {
    let mut of_job = record.jobs.iter().filter_map(|job| {
        let row = job.after.as_ref()?;
        (row.job_id == after.job_id && job.at_us <= change.at_us).then_some(row)
    });
    let state = of_job.next_back().map_or("", |job| job.state.as_str());
    let is_repair = after.is("READY") && state == "COMMITTING";
    found.demand(Invariant::ReportsStay, is_repair, || {
        format!("a finished task is taken back in {state}: {}", place())
    });
}

/// I11.
fn charges(
    at: Duration,
    before: &Task,
    after: &Task,
    place: impl Fn() -> String,
    found: &mut Findings,
) {
    let mut demand = |holds: bool, what: &str| {
        found.demand(Invariant::FairCharges, holds, || {
            format!("{what}: {}", place())
        });
    };
    let is_claim = after.is("LEASED") && !before.is("LEASED");
    demand(
        after.attempt == before.attempt + u64::from(is_claim),
        "attempts are not leases",
    );
    if after.crashes != before.crashes {
        let has_ended = before.is("LEASED") && !after.is("LEASED");
        let expired = before.expires_at().is_some_and(|end| end <= at + ROUNDING);
        demand(
            after.crashes == before.crashes + 1 && has_ended && expired,
            "a crash is charged, and no lease had expired",
        );
    }
    if after.failures != before.failures {
        let is_charged = |kind: &String| {
            let kind = kind.parse::<FailureKind>();
            kind.is_ok_and(FailureKind::is_charged)
        };
        demand(
            after.failures == before.failures + 1
                && before.is("LEASED")
                && after.fence == before.fence
                && after.error_kind.as_ref().is_some_and(is_charged),
            "a failure is charged that is none",
        );
    }
}

/// The error of a repair that is done without a report: its upload is gone, and
/// a finalizer looks whether the object is there.
const FOUND_DONE: &str = "UPLOAD_GONE";

/// I6, the store's half: whoever is said to have done a task had put each of its
/// parts by then, under that lease.
fn parts_were_put(record: &Record, files: &Files<'_>, found: &mut Findings) {
    let mut claimed: BTreeMap<(TaskKey<'_>, u64), Duration> = BTreeMap::new();
    let mut reported: BTreeMap<(u64, TaskKey<'_>), Vec<&Part>> = BTreeMap::new();
    for change in &record.parts {
        if let Some(part) = &change.after
            && files.in_the_bucket.contains(&(&part.job_id, part.file_no))
        {
            let key = (change.tx, (part.job_id.as_str(), part.task_no));
            reported.entry(key).or_default().push(part);
        }
    }
    let mut puts: BTreeMap<_, Vec<&Request>> = BTreeMap::new();
    for put in record.puts() {
        if let Some(part) = files.part_of(put) {
            puts.entry(part).or_default().push(put);
        }
    }
    for change in &record.tasks {
        let Some((before, after)) = change.update() else {
            continue;
        };
        let key = after.key();
        if after.is("LEASED") && !before.is("LEASED") {
            claimed.insert((key, after.fence), change.at());
        }
        let is_report = after.is("DONE") && !before.is("DONE");
        if !is_report
            || !files
                .in_the_bucket
                .contains(&(&after.job_id, after.file_no))
        {
            continue;
        }
        let parts = reported.remove(&(change.tx, key)).unwrap_or_default();
        if parts.is_empty() && after.error_kind.as_deref() == Some(FOUND_DONE) {
            continue;
        }
        let numbers: BTreeSet<u64> = parts.iter().map(|part| part.part_no).collect();
        let all = after.first_part..after.first_part + after.part_count;
        found.demand(Invariant::OneDoneFence, numbers.into_iter().eq(all), || {
            format!(
                "task {} of job {} is done with {} parts, expected {}",
                after.task_no,
                after.job_id,
                parts.len(),
                after.part_count
            )
        });
        let since = claimed.get(&(key, before.fence)).copied();
        let holder = before.worker_id.as_deref();
        for part in parts {
            let of_part = (after.job_id.as_str(), part.file_no, part.part_no);
            let puts = puts.get(&of_part).map_or(&[][..], Vec::as_slice);
            let is_its = puts.iter().any(|put| {
                holder.and_then(name_of) == Some(&put.access_key)
                    && since.is_some_and(|since| put.arrived_at + ROUNDING >= since)
                    && put.arrived_at <= change.at() + ROUNDING
                    && put
                        .etag
                        .as_ref()
                        .is_some_and(|etag| part.part_id.contains(etag))
            });
            found.demand(Invariant::ReportsStay, is_its, || {
                format!(
                    "task {} of job {} is done by {holder:?} under fence {}, which had not put \
                     part {} of file {} since it got the lease: another's report counted",
                    after.task_no, after.job_id, before.fence, part.part_no, part.file_no
                )
            });
        }
    }
    for ((_, (job, task)), parts) in reported {
        found.add(
            Invariant::OneDoneFence,
            format!(
                "{} parts of task {task} of job {job} were recorded and it was not done by that",
                parts.len()
            ),
        );
    }
}

/// I4, as the rows stand in the end.
fn done_under_one_fence(record: &Record, files: &Files<'_>, found: &mut Findings) {
    let parts = record.last_of_parts();
    for task in record
        .last_of_tasks()
        .values()
        .filter(|task| task.is("DONE"))
    {
        found.demand(
            Invariant::OneDoneFence,
            task.done_fence == Some(task.fence),
            || {
                format!(
                    "task {} of job {} is done under fence {:?} and has fence {}",
                    task.task_no, task.job_id, task.done_fence, task.fence
                )
            },
        );
        if !files.in_the_bucket.contains(&(&task.job_id, task.file_no)) {
            continue;
        }
        for number in task.first_part..task.first_part + task.part_count {
            let part = parts.get(&(task.job_id.as_str(), task.file_no, number));
            let is_its = part.is_some_and(|part| part.task_no == task.task_no);
            found.demand(Invariant::OneDoneFence, is_its, || {
                format!(
                    "task {} of job {} is done, and part {number} of file {} is not its",
                    task.task_no, task.job_id, task.file_no
                )
            });
        }
    }
}

/// I7.
fn puts_begin_in_time(
    record: &Record,
    expected: &Expectations,
    files: &Files<'_>,
    found: &mut Findings,
) {
    let mut leases: BTreeMap<(&str, &str, u64), Vec<Lease<'_>>> = BTreeMap::new();
    for change in &record.tasks {
        let lease = change.after.as_ref().and_then(|task| {
            Some((
                name_of(task.worker_id.as_deref()?)?,
                task,
                task.expires_at()?,
            ))
        });
        if let Some((name, task, expires)) = lease {
            let of_file = (name, task.job_id.as_str(), task.file_no);
            leases.entry(of_file).or_default().push(Lease {
                task,
                given: change.at(),
                // Counted from the moment at which the database gave it.
                until: expires.saturating_sub(expected.lease / 3),
            });
        }
    }
    let workers = record.worker_ids();
    let workers: BTreeSet<&str> = workers.into_iter().filter_map(name_of).collect();
    for put in record.history.of(crate::emulator::Operation::PutPart) {
        let name = put.access_key.as_str();
        let is_seen = workers.contains(name) && !record.detoured.contains(name);
        if !is_seen || put.arrived_at > record.audited_at {
            continue;
        }
        let Some((job, file, part)) = files.part_of(put) else {
            found.add(
                Invariant::SelfFence,
                format!(
                    "`{name}` put a part of `{}` to an upload of no job",
                    put.key
                ),
            );
            continue;
        };
        let of_file = leases
            .get(&(name, job, file))
            .map_or(&[][..], Vec::as_slice);
        let of_part = of_file.iter().filter(|lease| lease.task.writes(part));
        let in_time = |lease: &Lease<'_>| lease.covers(put.arrived_at, stops_of(record, name));
        if of_part.clone().any(in_time) {
            continue;
        }
        let latest = of_part.map(|lease| lease.until).max();
        let late = latest.map_or("without a lease".to_owned(), |until| {
            let late = put.arrived_at.saturating_sub(until);
            format!("{late:?} after the limit of its last lease")
        });
        found.add(
            Invariant::SelfFence,
            format!("`{name}` began to put part {part} of `{}` {late}", put.key),
        );
    }
}

/// A lease as it was given or renewed.
struct Lease<'a> {
    task: &'a Task,
    given: Duration,
    until: Duration,
}

impl Lease<'_> {
    /// Whether a put that arrives then may have begun under it.
    fn covers(&self, arrived: Duration, mut stops: impl Iterator<Item = StoodStill>) -> bool {
        let limit = self.until + ARRIVES_WITHIN;
        let has_begun = self.given <= arrived + ROUNDING;
        // A worker that stood still sends late what it had begun before.
        let was_stopped =
            |stop: StoodStill| stop.from <= limit && arrived <= stop.to + ARRIVES_WITHIN;
        has_begun && (arrived <= limit || stops.any(was_stopped))
    }
}

fn stops_of<'a>(record: &'a Record, name: &'a str) -> impl Iterator<Item = StoodStill> + 'a {
    let stops = record.stops.iter();
    stops
        .filter(move |(of, _)| of == name)
        .map(|(_, stop)| *stop)
}
