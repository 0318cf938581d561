//! The history checker: whether what happened, by the record of three
//! witnesses, kept the promises that must hold whatever fails.
//!
//! [`Audit`] is the witness in the database, the emulator's history that of the
//! store, and a test knows what it wanted: [`Expectations`]. Every
//! [`Cluster`](crate::cluster::Cluster) has an audit from its start, and is
//! checked when it is dropped.
//!
//! What it cannot see: which fence a report named. It tells a report that must
//! not count by the parts that it made count: nobody put them under the lease by
//! which the task is done.

mod audit;
mod jobs;
mod leases;
mod output;
mod record;

#[cfg(test)]
mod story;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::published::Files;

pub use audit::Audit;
pub use output::redone_bytes;
pub use record::{Change, Job, Part, Record, StoodStill, Task, Upload};

/// How much later than it was sent a request may arrive, and how much the
/// readings of two clocks of one machine may differ.
pub const ARRIVES_WITHIN: Duration = Duration::from_millis(500);

/// What must hold in every history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// An output that is published has the bytes that one process makes alone.
    GoldenBytes,
    /// No manifest says complete before every file that it lists is.
    ManifestLast,
    /// One complete manifest a job, and only of a job that succeeds.
    OneManifest,
    /// Every part is recorded by the report that made its task done, under one
    /// fence.
    OneDoneFence,
    /// Fences and epochs never go back, and every new holder gets a new fence.
    FenceRises,
    /// A task is done by whoever holds it and has put its parts, and stays done
    /// unless a repair takes it back.
    ReportsStay,
    /// No worker begins a put when two thirds of its lease are over.
    SelfFence,
    /// No upload and no object is left behind.
    NothingLeft,
    /// Not more is done again than a fault explains.
    BoundedRedo,
    /// Every job ends as it should, in time, on a way that the states allow.
    EveryJobEnds,
    /// Attempts, failures and crashes are counted as they happened.
    FairCharges,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::GoldenBytes,
        Self::ManifestLast,
        Self::OneManifest,
        Self::OneDoneFence,
        Self::FenceRises,
        Self::ReportsStay,
        Self::SelfFence,
        Self::NothingLeft,
        Self::BoundedRedo,
        Self::EveryJobEnds,
        Self::FairCharges,
    ];
}

/// By number and name: `I1 GoldenBytes`.
impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{} {self:?}", *self as usize + 1)
    }
}

/// A place where an invariant does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// What was found instead.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// How a job must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// With a checkpoint.
    Succeeded,
    /// Without one, by an error.
    Failed,
    /// Without one, by the user.
    Cancelled,
    /// It was cancelled, and may have been quicker.
    CancelledOrSucceeded,
}

/// What only who submitted the jobs knows.
#[derive(Debug, Clone)]
pub struct Expectations {
    lease: Duration,
    golden: Option<Arc<Files>>,
    golden_of: BTreeMap<String, Arc<Files>>,
    jobs: BTreeMap<String, Ends>,
    job_time_max: Option<Duration>,
    redone_bytes_max: Option<u64>,
    is_settled: bool,
    excepted: Vec<Invariant>,
}

impl Expectations {
    /// Leases of this length, and nothing more than must always hold.
    pub fn of_lease(lease: Duration) -> Self {
        Self {
            lease,
            golden: None,
            golden_of: BTreeMap::new(),
            jobs: BTreeMap::new(),
            job_time_max: None,
            redone_bytes_max: None,
            is_settled: false,
            excepted: Vec::new(),
        }
    }

    /// What every job makes that publishes below no prefix of
    /// [`Expectations::golden_of`]. Of a job that succeeded, and for which
    /// neither is known, only the manifest is compared.
    #[must_use]
    pub fn golden(self, files: Arc<Files>) -> Self {
        let golden = Some(files);
        Self { golden, ..self }
    }

    /// What jobs make that publish below this prefix.
    #[must_use]
    pub fn golden_of(mut self, prefix: &str, files: Arc<Files>) -> Self {
        let prefix = prefix.trim_end_matches('/');
        self.golden_of.insert(format!("{prefix}/"), files);
        self
    }

    /// A job that a client was told of must be there, and must have ended so.
    #[must_use]
    pub fn job(mut self, job: &str, ends: Ends) -> Self {
        self.jobs.insert(job.to_owned(), ends);
        self
    }

    /// Every job that there is must have ended within this time of its
    /// submission.
    #[must_use]
    pub fn every_job_ends_within(self, time: Duration) -> Self {
        let job_time_max = Some(time);
        Self {
            job_time_max,
            ..self
        }
    }

    /// At most so many bytes of weights are put more than once.
    #[must_use]
    pub fn redone_at_most(self, bytes: u64) -> Self {
        let redone_bytes_max = Some(bytes);
        Self {
            redone_bytes_max,
            ..self
        }
    }

    /// Coordinators have had the time to remove what ended jobs left: nothing of
    /// it is excused as still to be removed.
    #[must_use]
    pub fn settled(self) -> Self {
        let is_settled = true;
        Self { is_settled, ..self }
    }

    /// This invariant is not asked for. The caller says why, in a comment.
    #[must_use]
    pub fn except(mut self, invariant: Invariant) -> Self {
        self.excepted.push(invariant);
        self
    }

    fn golden_at(&self, prefix: &str) -> Option<&Files> {
        let own = self.golden_of.get(prefix);
        own.or(self.golden.as_ref()).map(AsRef::as_ref)
    }
}

/// Every place where a history breaks an invariant, in the order of
/// [`Invariant::ALL`].
pub fn violations(record: &Record, expected: &Expectations) -> Vec<Violation> {
    let mut found = Findings::default();
    output::check(record, expected, &mut found);
    leases::check(record, expected, &mut found);
    jobs::check(record, expected, &mut found);
    let mut violations = found.0;
    violations.retain(|one| !expected.excepted.contains(&one.invariant));
    violations.sort_by_key(|one| one.invariant);
    violations
}

/// Demands that there is none.
///
/// # Panics
/// With all of them, if there is one.
#[track_caller]
pub fn assert_none(violations: &[Violation]) {
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(
        violations.is_empty(),
        "{} invariants are broken:\n{}",
        list.len(),
        list.join("\n")
    );
}

/// What a check has found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, invariant: Invariant, what: impl Into<String>) {
        let what = what.into();
        self.0.push(Violation { invariant, what });
    }

    /// Adds one unless something holds.
    fn demand(&mut self, invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.add(invariant, what());
        }
    }
}
