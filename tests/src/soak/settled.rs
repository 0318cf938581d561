//! What must hold when everything has come to its end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::attack::Attack;
use super::jobs::{Job, Jobs, Row};
use super::merges::Merges;
use super::schedule::Size;
use crate::checker::{self, Ends, Expectations};
use crate::cluster::{Cluster, LEASE};

/// Crashes by which a task is given up at the earliest.
const CRASHES_MIN: u64 = 3;
/// Jobs that have left something, and jobs that have not ended.
const LEFT: &str = "SELECT count(*) FROM job
    WHERE finished_at_ms IS NULL OR state IN ('FAILED', 'CANCELLED') AND cleaned_at_ms IS NULL";

/// All that the audit has seen.
const CHANGES: &str = "SELECT row_to_json(change) FROM audit.change ORDER BY seq";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) violations: Vec<String>,
    /// Jobs that failed, and may have.
    pub(super) explained: Vec<String>,
    /// Bytes of weights that were published.
    pub(super) bytes: u64,
    /// Bytes of weights that were put more than once.
    pub(super) redone: u64,
    /// Requests that the store got.
    pub(super) requests: usize,
}

/// Whether coordinators have removed all that ended jobs left.
pub(super) fn is_clean(cluster: &Cluster) -> bool {
    cluster.store().open_uploads().is_empty() && cluster.number(LEFT) == 0
}

/// Looks at every job, and lets the checker look at all that happened.
pub(super) fn check(cluster: &Cluster, jobs: &Jobs, attack: &Attack, merges: &Merges) -> Checked {
    let mut checked = Checked::default();
    let mut expected = Expectations::of_lease(LEASE).settled();
    let mut last: BTreeMap<&str, (u64, Size)> = BTreeMap::new();
    for job in jobs.all() {
        match end_of(job, attack) {
            End::Right => {}
            End::Explained(how) => checked.explained.push(how),
            End::Wrong(how) => checked.violations.push(how),
        }
        let Some(row) = job.row.as_ref() else {
            continue;
        };
        let (ends, finished) = match row.state.as_str() {
            "SUCCEEDED" => (Ends::Succeeded, row.finished_ms.unwrap_or(0)),
            "CANCELLED" => (Ends::Cancelled, 0),
            _ => (Ends::Failed, 0),
        };
        expected = expected.job(&row.job, ends);
        if ends == Ends::Succeeded {
            let size = job.submission.size;
            checked.bytes += merges.weights(size);
            let latest = last.entry(&job.out).or_insert((finished, size));
            if latest.0 < finished {
                *latest = (finished, size);
            }
        }
    }
    for (out, (_, size)) in last {
        expected = expected.golden_of(out, Arc::clone(merges.golden(size)));
    }
    let accepted = jobs.all().iter().filter(|job| job.id().is_some()).count() as u64;
    let there_are = cluster.number("SELECT count(*) FROM job");
    if accepted != there_are {
        checked.violations.push(format!(
            "clients were told of {accepted} jobs, and there are {there_are}"
        ));
    }
    let record = cluster.record();
    let broken = checker::violations(&record, &expected);
    checked
        .violations
        .extend(broken.iter().map(ToString::to_string));
    checked.redone = checker::redone_bytes(&record);
    checked.requests = record.history.requests.len();
    // The same would be looked at once more.
    cluster.unchecked_all();
    checked
}

/// Keeps what database and store have seen, for whoever looks for the cause of a
/// violation.
pub(super) fn keep(cluster: &Cluster, folder: &Path) -> io::Result<()> {
    let changes = cluster.fleet.postgres.query(CHANGES);
    fs::write(folder.join("audit.jsonl"), changes)?;
    let mut requests = BufWriter::new(File::create(folder.join("requests.txt"))?);
    for request in cluster.store().history().requests {
        writeln!(requests, "{request:?}")?;
    }
    requests.flush()
}

enum End {
    Right,
    Explained(String),
    Wrong(String),
}

fn end_of(job: &Job, attack: &Attack) -> End {
    let Some(row) = &job.row else {
        return match job.id() {
            // Refused, as another job had its output.
            None => End::Right,
            Some(_) => End::Wrong(format!("{job} was never seen in the database")),
        };
    };
    match (row.state.as_str(), job.was_cancelled()) {
        ("CANCELLED", true) | ("SUCCEEDED", false) => End::Right,
        ("FAILED", _) => failed(job, row, attack),
        (_, true) => End::Wrong(format!("{job} was cancelled, as a client was told")),
        (_, false) => End::Wrong(format!("{job} ended as nobody wanted")),
    }
}

fn failed(job: &Job, row: &Row, attack: &Attack) -> End {
    let message = row.message.as_deref().unwrap_or_default();
    let kind = row.error.as_deref().unwrap_or_default();
    let is_refused = kind == "BAD_INPUT" && message.starts_with("expected an empty prefix");
    if job.may_find_another() && is_refused {
        return End::Right;
    }
    let how = format!("{job}: {kind} {message}");
    let charged = row.crashes.unwrap_or(0);
    let faults = attack.fired().filter(|fired| {
        fired.fault.may_cost_leases() && job.was_open_between(fired.began, fired.healed)
    });
    let faults: Vec<String> = faults.map(|fired| format!("{:?}", fired.fault)).collect();
    let is_explained =
        kind == "SUSPECTED_POISON" && charged >= CRASHES_MIN && faults.len() as u64 >= charged;
    match is_explained {
        true => End::Explained(format!("{how} ({})", faults.join(", "))),
        false => End::Wrong(how),
    }
}
