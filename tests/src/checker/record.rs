//! What happened, as three witnesses have it: the triggers in the database, the
//! store's history, and whoever started the processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use crate::emulator::{History, OpenUpload, Operation, Request, StoredObject};

/// All that the checker looks at. Every time is the machine's, since 1970.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Changes of tasks, in the order of each task.
    pub tasks: Vec<Change<Task>>,
    /// Changes of jobs, in the order of each job.
    pub jobs: Vec<Change<Job>>,
    /// Changes of uploads, in the order of each upload.
    pub uploads: Vec<Change<Upload>>,
    /// Changes of finished parts, in the order of each part.
    pub parts: Vec<Change<Part>>,
    /// Every request that the store got.
    pub history: History,
    /// What lies in the bucket.
    pub objects: BTreeMap<String, StoredObject>,
    /// The uploads that are neither completed nor aborted.
    pub open_uploads: Vec<OpenUpload>,
    /// What every URL of the bucket begins with.
    pub bucket_url: String,
    /// What the keys begin with that are no job's.
    pub inputs: Vec<String>,
    /// When workers stood still, by the name of each.
    pub stops: Vec<(String, StoodStill)>,
    /// The workers whose requests came to the store by a detour: they may have
    /// been sent long before.
    pub detoured: BTreeSet<String>,
    /// When the databases were asked: what came later may be known in part.
    pub audited_at: Duration,
    /// When the record was complete.
    pub taken_at: Duration,
}

/// A worker that did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoodStill {
    /// From then on.
    pub from: Duration,
    /// Until then.
    pub to: Duration,
}

/// A row before and after a statement; `None` where there was none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Change<T> {
    /// The transaction, unique in its database.
    pub tx: u64,
    /// When the statement changed the row, in microseconds.
    pub at_us: u64,
    /// The row before.
    pub before: Option<T>,
    /// The row after.
    pub after: Option<T>,
}

/// A row of `task`, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Task {
    /// The job.
    pub job_id: String,
    /// Its place in the job.
    pub task_no: u64,
    /// The output file.
    pub file_no: u64,
    /// Its first part, from 0.
    pub first_part: u64,
    /// How many parts.
    pub part_count: u64,
    /// Where it stands.
    pub state: String,
    /// The fence.
    pub fence: u64,
    /// Leases given.
    pub attempt: u64,
    /// Failures charged.
    pub failures: u64,
    /// Crashes charged.
    pub crashes: u64,
    /// Who holds it.
    pub worker_id: Option<String>,
    /// Until when.
    pub lease_expires_at_ms: Option<u64>,
    /// The fence under which it was done.
    pub done_fence: Option<u64>,
    /// Who did it.
    pub done_by: Option<String>,
    /// The class of the last failure.
    pub error_kind: Option<String>,
}

/// A row of `job`, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Job {
    /// Its id.
    pub job_id: String,
    /// The recipe in canonical JSON.
    pub recipe: String,
    /// Where it publishes.
    pub output_url: String,
    /// Where it stands.
    pub state: String,
    /// The epoch of whoever plans or publishes it.
    pub epoch: u64,
    /// When what it left was removed.
    pub cleaned_at_ms: Option<u64>,
}

/// A row of `upload`, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Upload {
    /// The job.
    pub job_id: String,
    /// The output file.
    pub file_no: u64,
    /// Of whoever created it.
    pub epoch: u64,
    /// The object that it may become.
    pub url: String,
    /// What the object will bear.
    pub nonce: String,
    /// What the store calls it.
    pub upload_id: Option<String>,
    /// What became of it.
    pub state: String,
}

/// A row of `part`, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Part {
    /// The job.
    pub job_id: String,
    /// The output file.
    pub file_no: u64,
    /// Its place in the file, from 0.
    pub part_no: u64,
    /// The task that made it.
    pub task_no: u64,
    /// What the store calls it.
    pub part_id: String,
}

/// What tells tasks apart.
pub(super) type TaskKey<'a> = (&'a str, u64);

impl<T> Change<T> {
    /// When it was.
    pub(super) fn at(&self) -> Duration {
        Duration::from_micros(self.at_us)
    }

    /// Both rows, where there were both.
    pub(super) fn update(&self) -> Option<(&T, &T)> {
        Some((self.before.as_ref()?, self.after.as_ref()?))
    }
}

impl Task {
    pub(super) fn key(&self) -> TaskKey<'_> {
        (&self.job_id, self.task_no)
    }

    pub(super) fn is(&self, state: &str) -> bool {
        self.state == state
    }

    /// Whether the part of this number, from 0, is one of its.
    pub(super) fn writes(&self, part_no: u64) -> bool {
        (self.first_part..self.first_part + self.part_count).contains(&part_no)
    }

    /// When its lease ends.
    pub(super) fn expires_at(&self) -> Option<Duration> {
        self.lease_expires_at_ms.map(Duration::from_millis)
    }
}

impl Job {
    /// Whether it has come to an end.
    pub(super) fn is_terminal(&self) -> bool {
        ["SUCCEEDED", "FAILED", "CANCELLED"].contains(&self.state.as_str())
    }

    /// Whether it may replace a checkpoint.
    pub(super) fn overwrites(&self) -> bool {
        let recipe: serde_json::Value = serde_json::from_str(&self.recipe).unwrap_or_default();
        recipe["output"]["overwrite"] == true
    }
}

impl Record {
    /// Each job as it stands, by id. Rows that were deleted stay as they were.
    pub(super) fn last_of_jobs(&self) -> BTreeMap<&str, &Job> {
        let rows = self.jobs.iter().filter_map(|change| change.after.as_ref());
        rows.map(|job| (job.job_id.as_str(), job)).collect()
    }

    /// Each task as it stands, without those whose rows were deleted.
    pub(super) fn last_of_tasks(&self) -> BTreeMap<TaskKey<'_>, &Task> {
        let mut last = BTreeMap::new();
        for change in &self.tasks {
            match (&change.before, &change.after) {
                (_, Some(task)) => drop(last.insert(task.key(), task)),
                (Some(task), None) => drop(last.remove(&task.key())),
                (None, None) => {}
            }
        }
        last
    }

    /// Each finished part as it stands, by job, file and place.
    pub(super) fn last_of_parts(&self) -> BTreeMap<(&str, u64, u64), &Part> {
        let mut last = BTreeMap::new();
        for change in &self.parts {
            let key = |part: &'_ Part| (part.file_no, part.part_no);
            match (&change.before, &change.after) {
                (_, Some(part)) => {
                    let (file, number) = key(part);
                    last.insert((part.job_id.as_str(), file, number), part);
                }
                (Some(part), None) => {
                    let (file, number) = key(part);
                    last.remove(&(part.job_id.as_str(), file, number));
                }
                (None, None) => {}
            }
        }
        last
    }

    /// Each upload as it stands.
    pub(super) fn last_of_uploads(&self) -> BTreeMap<(&str, u64, u64), &Upload> {
        let rows = self
            .uploads
            .iter()
            .filter_map(|change| change.after.as_ref());
        rows.map(|upload| {
            let key = (upload.job_id.as_str(), upload.file_no, upload.epoch);
            (key, upload)
        })
        .collect()
    }

    /// The key of a URL of the bucket; `None` where it is elsewhere.
    pub(super) fn key_of<'a>(&self, url: &'a str) -> Option<&'a str> {
        url.strip_prefix(&self.bucket_url)
    }

    /// What the keys of a job's files begin with, if it publishes in the bucket.
    pub(super) fn prefix_of(&self, job: &Job) -> Option<String> {
        let key = self.key_of(&job.output_url)?;
        Some(format!("{}/", key.trim_end_matches('/')))
    }

    /// Whether a job has published.
    pub fn needs_golden(&self) -> bool {
        let mut rows = self.jobs.iter().filter_map(|change| change.after.as_ref());
        rows.any(|job| job.state == "SUCCEEDED")
    }

    /// Puts of parts of weight files that changed the bucket.
    pub(super) fn puts(&self) -> impl Iterator<Item = &Request> {
        let puts = self.history.of(Operation::PutPart);
        puts.filter(|put| put.effect.is_some())
    }

    /// Every worker that the database has seen at a task, by its id.
    pub(super) fn worker_ids(&self) -> BTreeSet<&str> {
        let rows = self.tasks.iter().filter_map(|change| change.after.as_ref());
        rows.filter_map(|task| task.worker_id.as_deref()).collect()
    }
}

/// The name by which the store knows a worker: its id begins with it.
pub(super) fn name_of(worker_id: &str) -> Option<&str> {
    Some(worker_id.rsplit_once('/')?.0)
}
