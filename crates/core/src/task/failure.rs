//! Whatever can go wrong in a task, classified once, and what follows from it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::job::UnknownState;
use crate::problem::Problem;

/// The classes of failure. The class alone decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureKind {
    /// May pass by itself: a reset connection, a short read. Charged and retried.
    Transient,
    /// The worker lacks something, such as disk space. Retried uncharged.
    ResourceExhausted,
    /// The worker is to blame and stops: its machine's clock is wrong. Retried
    /// uncharged, at once.
    Preempted,
    /// A source is not the object that was planned. Permanent.
    SourceChanged,
    /// The data break a rule of the recipe, such as NaN in an input. Permanent.
    BadInput,
    /// The worker cannot read or write what the task names. Permanent.
    PermissionDenied,
    /// The multipart upload of the task's file is not there any more. Permanent,
    /// but in COMMITTING: there another coordinator may have completed it.
    UploadGone,
    /// A bug: something that cannot happen did. Charged and retried.
    Internal,
    /// The task took its workers down again and again. Permanent; workers never
    /// report it, the reaper concludes it.
    SuspectedPoison,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Transient,
        Self::ResourceExhausted,
        Self::Preempted,
        Self::SourceChanged,
        Self::BadInput,
        Self::PermissionDenied,
        Self::UploadGone,
        Self::Internal,
        Self::SuspectedPoison,
    ];

    /// The name used in the database and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "TRANSIENT",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Preempted => "PREEMPTED",
            Self::SourceChanged => "SOURCE_CHANGED",
            Self::BadInput => "BAD_INPUT",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::UploadGone => "UPLOAD_GONE",
            Self::Internal => "INTERNAL",
            Self::SuspectedPoison => "SUSPECTED_POISON",
        }
    }

    /// Whether the failure counts against the task's and the job's retries.
    pub fn is_charged(self) -> bool {
        matches!(self, Self::Transient | Self::Internal)
    }

    /// Whether no retry can help.
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::SourceChanged
                | Self::BadInput
                | Self::PermissionDenied
                | Self::UploadGone
                | Self::SuspectedPoison
        )
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FailureKind {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownState(name.to_owned()))
    }
}

/// What a worker says of a task that it could not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// The class.
    pub kind: FailureKind,
    /// The object, what was expected and what was found, and what to do.
    pub problem: Problem,
}

/// How often a task has gone wrong so far, the current event included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TaskCounters {
    /// Charged failures that workers reported.
    pub failures: u32,
    /// Leases that expired with their worker.
    pub crashes: u32,
    /// Distinct workers among the crashes.
    pub crashed_workers: u32,
}

impl TaskCounters {
    /// Whether the task is suspected of taking down its workers, and so leased
    /// alone: one more crash, and it may be given up. A crash takes down all that
    /// its worker held; the crash that fails a job is to be that of its own task.
    pub fn is_suspect(self) -> bool {
        self.crashes + 1 >= CRASHES_MAX_MANY_WORKERS
    }
}

/// What becomes of a task after a failure or a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// READY again, not before this many milliseconds have passed.
    RetryAfterMs(u64),
    /// FAILED, and the job with it.
    GiveUp,
}

/// Charged failures after which a task is given up.
const FAILURES_MAX: u32 = 5;
/// Crashes after which a task is given up if at least two workers crashed.
const CRASHES_MAX_MANY_WORKERS: u32 = 3;
/// Crashes after which a task is given up if it was always the same worker.
const CRASHES_MAX_ONE_WORKER: u32 = 5;
/// Upper bound of the back-off.
const BACKOFF_MAX_MS: u64 = 60_000;
/// First step of the back-off.
const BACKOFF_FIRST_MS: u64 = 1_000;

/// Decides what becomes of a task. `kind` is the reported failure, or `None`
/// for a lease that expired. `jitter` is a number in `0.0..1.0` drawn by the
/// caller: the back-off is full jitter over `1 s · 2ⁿ`, at most a minute.
pub fn judge(kind: Option<FailureKind>, counters: TaskCounters, jitter: f64) -> Verdict {
    let spent = counters.failures >= FAILURES_MAX
        || (counters.crashes >= CRASHES_MAX_MANY_WORKERS && counters.crashed_workers >= 2)
        || counters.crashes >= CRASHES_MAX_ONE_WORKER;
    match kind {
        Some(kind) if kind.is_permanent() => Verdict::GiveUp,
        Some(FailureKind::Preempted) => Verdict::RetryAfterMs(0),
        Some(kind) if !kind.is_charged() => Verdict::RetryAfterMs(backoff_ms(1, jitter)),
        _ if spent => Verdict::GiveUp,
        Some(_) => Verdict::RetryAfterMs(backoff_ms(counters.failures, jitter)),
        None => Verdict::RetryAfterMs(0),
    }
}

fn backoff_ms(count: u32, jitter: f64) -> u64 {
    let ceiling = (BACKOFF_FIRST_MS << count.saturating_sub(1).min(16)).min(BACKOFF_MAX_MS);
    (ceiling as f64 * jitter.clamp(0.0, 1.0)) as u64
}

/// The most charged retries that a job of `tasks` tasks may spend before it fails.
pub fn job_retries_max(tasks: u64) -> u64 {
    (tasks / 20).max(20)
}

/// The most leases that one pass of the reaper takes back, of so many that are
/// given: if the database's clock jumps, all expire at once, and most of their
/// holders are alive and renew them before a later pass.
pub fn reap_max(leases: u64) -> u64 {
    (leases / 10).max(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(failures: u32, crashes: u32, crashed_workers: u32) -> TaskCounters {
        TaskCounters {
            failures,
            crashes,
            crashed_workers,
        }
    }

    #[test]
    fn a_permanent_failure_is_never_retried() {
        assert_eq!(
            judge(Some(FailureKind::BadInput), counters(0, 0, 0), 0.5),
            Verdict::GiveUp
        );
    }

    #[test]
    fn a_drain_is_retried_at_once_however_often() {
        let verdict = judge(Some(FailureKind::Preempted), counters(4, 2, 1), 0.9);
        assert_eq!(verdict, Verdict::RetryAfterMs(0));
    }

    #[test]
    fn the_fifth_charged_failure_is_the_last() {
        assert!(matches!(
            judge(Some(FailureKind::Transient), counters(4, 0, 0), 0.5),
            Verdict::RetryAfterMs(4_000)
        ));
        assert_eq!(
            judge(Some(FailureKind::Transient), counters(5, 0, 0), 0.5),
            Verdict::GiveUp
        );
    }

    #[test]
    fn a_task_is_suspected_before_it_is_given_up() {
        for crashes in 0..=CRASHES_MAX_ONE_WORKER {
            for workers in 0..=crashes.min(2) {
                let next = counters(0, crashes + 1, (workers + 1).min(2));
                let is_last = judge(None, next, 0.0) == Verdict::GiveUp;
                let is_suspect = counters(0, crashes, workers).is_suspect();
                assert!(!is_last || is_suspect, "{crashes} crashes on {workers}");
            }
        }
        assert!(!counters(4, 1, 1).is_suspect());
    }

    #[test]
    fn three_crashes_on_two_workers_or_five_on_one_are_poison() {
        assert_eq!(
            judge(None, counters(0, 3, 1), 0.0),
            Verdict::RetryAfterMs(0)
        );
        assert_eq!(judge(None, counters(0, 3, 2), 0.0), Verdict::GiveUp);
        assert_eq!(judge(None, counters(0, 5, 1), 0.0), Verdict::GiveUp);
    }

    #[test]
    fn a_jobs_retries_are_bounded_by_five_per_cent_or_twenty() {
        assert_eq!(job_retries_max(10), 20);
        assert_eq!(job_retries_max(2_000), 100);
    }

    #[test]
    fn a_pass_takes_back_a_tenth_of_the_leases_or_sixteen() {
        assert_eq!(reap_max(0), 16);
        assert_eq!(reap_max(169), 16);
        assert_eq!(reap_max(2_000), 200);
    }
}
