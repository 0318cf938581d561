//! What can happen to a task, as functions from one row to the next.
//!
//! This is the law of leases. The job store follows it in SQL, where several
//! coordinators change rows at once; its tests run random sequences through both
//! and compare every row, and the model of the protocol explores these very
//! functions. Whoever changes one of the three changes all.
//!
//! A transition is given the row, what was asked, and what it looks at [`Around`]
//! the row. It gives the row afterwards, or says why nothing changes. Nothing
//! here knows a clock: every time is an argument.

#[cfg(test)]
mod tests;

use super::failure::{FailureKind, TaskCounters, Verdict, judge};
use super::state::TaskState;
use super::straggler::Others;
use crate::ids::{Attempt, Crc64, Fence, PartOrdinal, WorkerId};
use crate::job::JobState;

/// A task as the protocol sees it: whatever guards it, counts or is timed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    /// Its first part. Never changes.
    pub first_part: PartOrdinal,
    /// How many parts, at least 1. Never changes.
    pub part_count: u32,
    /// Bytes of output that it writes. Never changes.
    pub bytes: u64,
    /// Where it stands.
    pub state: TaskState,
    /// If READY, not leased before this time.
    pub not_before_ms: i64,
    /// The number that whoever holds it must name. Never lowered.
    pub fence: Fence,
    /// Leases given so far.
    pub attempt: Attempt,
    /// What went wrong so far.
    pub counters: TaskCounters,
    /// The worker of the first crash.
    pub first_crash_worker: Option<WorkerId>,
    /// Who holds it, if and only if it is LEASED.
    pub holder: Option<Holder>,
    /// When the latest lease was given.
    pub leased_at_ms: Option<i64>,
    /// When `progress_bytes` last rose, or else when the latest lease was given.
    pub progressed_at_ms: Option<i64>,
    /// Heartbeats of the holder in a row that did not name the lease.
    pub missed_beats: u32,
    /// Bytes written so far, as the holder said.
    pub progress_bytes: u64,
    /// How often it was stolen.
    pub steals: u64,
    /// From whom it was stolen last.
    pub stolen_from: Option<WorkerId>,
    /// Which report made it DONE, if and only if it is DONE.
    pub done: Option<DoneBy>,
    /// The class of the last failure, or of the crash that was one too many.
    pub error: Option<FailureKind>,
    /// Its recorded parts, in order. A repair keeps them until they are reported
    /// again: they say what the bytes have to be.
    pub parts: Vec<RecordedPart>,
    /// When the row last changed.
    pub updated_at_ms: i64,
}

/// Who holds a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// When the lease ends. Until somebody takes it back the holder may still
    /// renew it, or report.
    pub expires_at_ms: i64,
}

/// The report that made a task DONE.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DoneBy {
    /// The fence that it named.
    pub fence: Fence,
    /// Who held the lease.
    pub worker: WorkerId,
}

/// A part as a report recorded it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordedPart {
    /// Its position in the output file.
    pub part: PartOrdinal,
    /// What storage calls it.
    pub part_id: String,
    /// The checksum of its bytes.
    pub crc64: Crc64,
    /// Its length.
    pub bytes: u64,
}

/// What is asked of a task, by a worker or on behalf of the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskOp {
    /// A worker takes it: under a new fence, for `lease_ms` from now. Only a task
    /// that waits and whose time has come, of a job that gives leases; and not
    /// the worker from which it was stolen while there are others.
    Claim {
        /// The worker.
        worker: WorkerId,
        /// The length of the lease.
        lease_ms: i64,
        /// Whether workers beside this one are alive.
        others: Others,
    },
    /// A heartbeat names the lease: it is extended, even if it had expired.
    Extend {
        /// The worker.
        worker: WorkerId,
        /// The fence of its lease.
        fence: Fence,
        /// The length of the lease.
        lease_ms: i64,
        /// Bytes written so far; what counts is the most that was ever said.
        progress_bytes: u64,
    },
    /// A heartbeat of the holder does not name the lease. The second in a row
    /// takes it back, uncharged: the worker never heard of it. A lease that is
    /// younger than [`settled_ms`] is passed over, as the heartbeat may be older.
    Miss {
        /// The worker.
        worker: WorkerId,
        /// The length of a lease.
        lease_ms: i64,
    },
    /// The holder reports success. The first report makes the task DONE, however
    /// late it comes, if nobody took the lease back before. The very same report
    /// again changes nothing and is accepted: its answer was lost.
    Report {
        /// The fence of the lease.
        fence: Fence,
        /// All parts, in order.
        parts: Vec<RecordedPart>,
    },
    /// The holder reports a failure; what follows is [`judge`]'s to say. But a
    /// repair in COMMITTING whose upload is gone is DONE as it was: a finalizer
    /// that was held up may have completed the upload, and the next one looks.
    Fail {
        /// The fence of the lease.
        fence: Fence,
        /// The class.
        kind: FailureKind,
        /// A random number in `0.0..1.0`.
        jitter: f64,
    },
    /// The holder gives it back, uncharged.
    Release {
        /// The fence of the lease.
        fence: Fence,
    },
    /// The coordinator takes it from a holder that did nothing wrong, uncharged
    /// and under a new fence: its report must not count any more.
    TakeAway {
        /// The fence of the lease.
        fence: Fence,
        /// Why.
        why: TakenAway,
    },
    /// The reaper takes it back under a new fence, as the lease has expired: a
    /// crash of the holder, unless the job is not wanted any more.
    Reap {
        /// The fence of the lease that was found to have expired.
        fence: Fence,
    },
}

/// Why a lease is taken from a worker, uncharged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TakenAway {
    /// The worker does not know of it.
    Forgotten,
    /// Another worker is to do better.
    Stolen,
    /// The process that held it is proved dead.
    Orphaned,
}

/// What a transition looks at beside the task's own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// The database's time.
    pub now_ms: i64,
    /// Where the job stands.
    pub job: JobState,
    /// How many more charged failures the job's tasks may have together.
    pub retries_left: u64,
}

/// Why nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TaskRefused {
    /// It does not wait, its time has not come, its job gives no leases, or
    /// another worker is to have it.
    #[error("the task cannot be claimed")]
    NotClaimable,
    /// The lease is over, or the caller never held it.
    #[error("the lease is lost")]
    LeaseLost,
    /// The lease is good; what was reported are not the task's parts.
    #[error("the parts are not those of the task")]
    WrongParts,
    /// The lease is good; the parts have other bytes than those that the job
    /// has frozen. Nothing can complete such a job: see
    /// [`Job::after`](crate::job::Job::after).
    #[error("the parts have other bytes than before")]
    OtherBytes,
    /// The lease has not expired, or not for this long.
    #[error("it is too early")]
    TooEarly,
    /// Only a finished task can be done again.
    #[error("the task is not done")]
    NotDone,
}

/// Workers beat so often in the time of a lease, so that two lost heartbeats do
/// not fence a worker at two thirds of it.
pub const BEATS_PER_LEASE: u32 = 6;

/// A lease that so many heartbeats in a row left out is not known to its worker.
pub const MISSED_MAX: u32 = 2;

/// A lease that is older than this is known to its worker, if it ever was:
/// answers and heartbeats are not under way for so long.
pub fn settled_ms(lease_ms: i64) -> i64 {
    i64::from(MISSED_MAX) * lease_ms / i64::from(BEATS_PER_LEASE)
}

impl Task {
    /// A task of a new plan.
    pub fn new(first_part: PartOrdinal, part_count: u32, bytes: u64, now_ms: i64) -> Self {
        Self {
            first_part,
            part_count,
            bytes,
            state: TaskState::Ready,
            not_before_ms: 0,
            fence: Fence(0),
            attempt: Attempt(0),
            counters: TaskCounters::default(),
            first_crash_worker: None,
            holder: None,
            leased_at_ms: None,
            progressed_at_ms: None,
            missed_beats: 0,
            progress_bytes: 0,
            steals: 0,
            stolen_from: None,
            done: None,
            error: None,
            parts: Vec::new(),
            updated_at_ms: now_ms,
        }
    }

    /// Whether it waits or is held: something is left to do, or under way.
    pub fn is_open(&self) -> bool {
        matches!(self.state, TaskState::Ready | TaskState::Leased)
    }

    /// The row after the operation.
    ///
    /// # Errors
    /// Why it is refused; then nothing changes.
    pub fn after(&self, op: &TaskOp, around: &Around) -> Result<Self, TaskRefused> {
        match op {
            TaskOp::Claim {
                worker,
                lease_ms,
                others,
            } => self.claimed(worker, *lease_ms, *others, around),
            TaskOp::Extend {
                worker,
                fence,
                lease_ms,
                progress_bytes,
            } => self.extended(worker, *fence, *lease_ms, *progress_bytes, around),
            TaskOp::Miss { worker, lease_ms } => self.missed(worker, *lease_ms, around),
            TaskOp::Report { fence, parts } => self.reported(*fence, parts, around),
            TaskOp::Fail {
                fence,
                kind,
                jitter,
            } => self.failed(*fence, *kind, *jitter, around),
            TaskOp::Release { fence } => {
                self.held(*fence)?;
                Ok(self.given_back(around))
            }
            TaskOp::TakeAway { fence, why } => self.taken_away(*fence, *why, around),
            TaskOp::Reap { fence } => self.reaped(*fence, around),
        }
    }

    /// The holder, if this is the fence of its lease.
    fn held(&self, fence: Fence) -> Result<&Holder, TaskRefused> {
        let holder = self.holder.as_ref().filter(|_| self.fence == fence);
        holder.ok_or(TaskRefused::LeaseLost)
    }

    fn claimed(
        &self,
        worker: &WorkerId,
        lease_ms: i64,
        others: Others,
        around: &Around,
    ) -> Result<Self, TaskRefused> {
        let is_free = self.state == TaskState::Ready && self.not_before_ms <= around.now_ms;
        let is_reserved = self.stolen_from.as_ref() == Some(worker) && others == Others::Alive;
        if !is_free || is_reserved || !around.job.gives_leases() {
            return Err(TaskRefused::NotClaimable);
        }
        Ok(Self {
            state: TaskState::Leased,
            fence: self.fence.next(),
            attempt: Attempt(self.attempt.0 + 1),
            holder: Some(Holder {
                worker: worker.clone(),
                expires_at_ms: around.now_ms + lease_ms,
            }),
            leased_at_ms: Some(around.now_ms),
            progressed_at_ms: Some(around.now_ms),
            missed_beats: 0,
            progress_bytes: 0,
            updated_at_ms: around.now_ms,
            ..self.clone()
        })
    }

    fn extended(
        &self,
        worker: &WorkerId,
        fence: Fence,
        lease_ms: i64,
        progress_bytes: u64,
        around: &Around,
    ) -> Result<Self, TaskRefused> {
        let holder = self.held(fence)?;
        if holder.worker != *worker {
            return Err(TaskRefused::LeaseLost);
        }
        let rose = progress_bytes > self.progress_bytes;
        Ok(Self {
            holder: Some(Holder {
                expires_at_ms: around.now_ms + lease_ms,
                ..holder.clone()
            }),
            missed_beats: 0,
            progressed_at_ms: if rose {
                Some(around.now_ms)
            } else {
                self.progressed_at_ms
            },
            progress_bytes: self.progress_bytes.max(progress_bytes),
            updated_at_ms: around.now_ms,
            ..self.clone()
        })
    }

    fn missed(
        &self,
        worker: &WorkerId,
        lease_ms: i64,
        around: &Around,
    ) -> Result<Self, TaskRefused> {
        if self.holder.as_ref().map(|holder| &holder.worker) != Some(worker) {
            return Err(TaskRefused::LeaseLost);
        }
        let settled_since = around.now_ms - settled_ms(lease_ms);
        if self
            .leased_at_ms
            .is_none_or(|leased| leased > settled_since)
        {
            return Err(TaskRefused::TooEarly);
        }
        if self.missed_beats + 1 >= MISSED_MAX {
            return self.taken_away(self.fence, TakenAway::Forgotten, around);
        }
        Ok(Self {
            missed_beats: self.missed_beats + 1,
            ..self.clone()
        })
    }

    fn reported(
        &self,
        fence: Fence,
        parts: &[RecordedPart],
        around: &Around,
    ) -> Result<Self, TaskRefused> {
        if self.done.as_ref().is_some_and(|done| done.fence == fence) && self.parts == parts {
            return Ok(self.clone());
        }
        let holder = self.held(fence)?;
        let expected = (self.first_part.0..).take(self.part_count as usize);
        if !parts.iter().map(|part| part.part.0).eq(expected) {
            return Err(TaskRefused::WrongParts);
        }
        let same = |(old, new): (&RecordedPart, &RecordedPart)| {
            (old.crc64, old.bytes) == (new.crc64, new.bytes)
        };
        if !self.parts.iter().zip(parts).all(same) {
            return Err(TaskRefused::OtherBytes);
        }
        Ok(Self {
            state: TaskState::Done,
            done: Some(DoneBy {
                fence,
                worker: holder.worker.clone(),
            }),
            holder: None,
            progress_bytes: self.bytes,
            parts: parts.to_vec(),
            updated_at_ms: around.now_ms,
            ..self.clone()
        })
    }

    fn failed(
        &self,
        fence: Fence,
        kind: FailureKind,
        jitter: f64,
        around: &Around,
    ) -> Result<Self, TaskRefused> {
        let holder = self.held(fence)?;
        if around.job == JobState::Committing && kind == FailureKind::UploadGone {
            return Ok(Self {
                state: TaskState::Done,
                done: Some(DoneBy {
                    fence,
                    worker: holder.worker.clone(),
                }),
                holder: None,
                progress_bytes: self.bytes,
                error: Some(kind),
                updated_at_ms: around.now_ms,
                ..self.clone()
            });
        }
        let counters = TaskCounters {
            failures: self.counters.failures + u32::from(kind.is_charged()),
            ..self.counters
        };
        let is_burnt = kind.is_charged() && around.retries_left == 0;
        let (state, delay_ms) = match judge(Some(kind), counters, jitter) {
            _ if around.job.is_unwanted() => (TaskState::Cancelled, 0),
            Verdict::RetryAfterMs(delay_ms) if !is_burnt => (TaskState::Ready, delay_ms),
            _ => (TaskState::Failed, 0),
        };
        Ok(Self {
            state,
            counters,
            error: Some(kind),
            not_before_ms: around.now_ms.saturating_add_unsigned(delay_ms),
            ..self.given_back(around)
        })
    }

    fn taken_away(
        &self,
        fence: Fence,
        why: TakenAway,
        around: &Around,
    ) -> Result<Self, TaskRefused> {
        let worker = &self.held(fence)?.worker;
        let is_stolen = why == TakenAway::Stolen;
        Ok(Self {
            fence: self.fence.next(),
            steals: self.steals + u64::from(is_stolen),
            stolen_from: match is_stolen {
                true => Some(worker.clone()),
                false => self.stolen_from.clone(),
            },
            ..self.given_back(around)
        })
    }

    fn reaped(&self, fence: Fence, around: &Around) -> Result<Self, TaskRefused> {
        let holder = self.held(fence)?;
        if holder.expires_at_ms > around.now_ms {
            return Err(TaskRefused::TooEarly);
        }
        let free = Self {
            fence: self.fence.next(),
            not_before_ms: around.now_ms,
            ..self.given_back(around)
        };
        if around.job.is_unwanted() {
            return Ok(free);
        }
        let first = self.first_crash_worker.as_ref().unwrap_or(&holder.worker);
        // Distinct workers are told apart up to two, all that a verdict asks.
        let workers = if *first == holder.worker { 1 } else { 2 };
        let counters = TaskCounters {
            crashes: self.counters.crashes + 1,
            crashed_workers: self.counters.crashed_workers.max(workers),
            ..self.counters
        };
        let crashed = Self {
            counters,
            first_crash_worker: Some(first.clone()),
            ..free
        };
        // A crash is tried again at once: nothing is drawn at random for it.
        Ok(match judge(None, counters, 0.0) {
            Verdict::RetryAfterMs(delay_ms) => Self {
                not_before_ms: around.now_ms.saturating_add_unsigned(delay_ms),
                ..crashed
            },
            Verdict::GiveUp => Self {
                state: TaskState::Failed,
                error: Some(FailureKind::SuspectedPoison),
                ..crashed
            },
        })
    }

    /// Without a holder: it waits again, unless its job is not wanted any more.
    fn given_back(&self, around: &Around) -> Self {
        let state = match around.job.is_unwanted() {
            true => TaskState::Cancelled,
            false => TaskState::Ready,
        };
        Self {
            state,
            holder: None,
            not_before_ms: 0,
            progress_bytes: 0,
            updated_at_ms: around.now_ms,
            ..self.clone()
        }
    }

    /// Not needed any more: whoever holds it has lost it. Nothing becomes of a
    /// task that is not open.
    pub(crate) fn cancelled(&self, now_ms: i64) -> Self {
        if !self.is_open() {
            return self.clone();
        }
        Self {
            state: TaskState::Cancelled,
            fence: self.fence.next(),
            holder: None,
            updated_at_ms: now_ms,
            ..self.clone()
        }
    }

    /// To be done again under a new fence. What is known of its parts stays.
    ///
    /// # Errors
    /// [`TaskRefused::NotDone`].
    pub(crate) fn reopened(&self, now_ms: i64) -> Result<Self, TaskRefused> {
        if self.state != TaskState::Done {
            return Err(TaskRefused::NotDone);
        }
        Ok(Self {
            state: TaskState::Ready,
            fence: self.fence.next(),
            done: None,
            not_before_ms: 0,
            progress_bytes: 0,
            updated_at_ms: now_ms,
            ..self.clone()
        })
    }
}
