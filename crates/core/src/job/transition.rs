//! What can happen to a job and its tasks, as functions from one state of their
//! rows to the next.
//!
//! With [`crate::task::Task::after`] this is the whole protocol between
//! coordinators and workers, but for what storage does. See there for who else
//! follows it.

#[cfg(test)]
mod tests;

use super::JobState;
use crate::ids::{Epoch, Fence, TaskOrdinal};
use crate::task::{Around, FailureKind, Task, TaskOp, TaskRefused, TaskState, job_retries_max};

/// A job and its tasks as the protocol sees them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// Where it stands.
    pub state: JobState,
    /// Of the latest coordinator that began to plan or publish it. Never lowered.
    pub epoch: Epoch,
    /// When that one's lease ends; 0 if nobody has one.
    pub epoch_expires_at_ms: i64,
    /// Rises at each change of state, and when finished tasks are reopened.
    pub revision: u64,
    /// Why it failed, if it did.
    pub error: Option<FailureKind>,
    /// Its tasks, once it is planned.
    pub tasks: Vec<Task>,
    /// When the row last changed.
    pub updated_at_ms: i64,
    /// When its plan was stored.
    pub planned_at_ms: Option<i64>,
    /// When its part list was frozen: the point of no return.
    pub committing_at_ms: Option<i64>,
    /// When it ended.
    pub finished_at_ms: Option<i64>,
    /// When its leftovers in storage were removed.
    pub cleaned_at_ms: Option<i64>,
}

/// What is asked of a job. A planner or finalizer names the epoch of its turn:
/// once another has begun a turn, it is refused whatever it asks.
#[derive(Debug, Clone, PartialEq)]
pub enum JobOp {
    /// A coordinator begins to plan it, for `lease_ms` from now: if it is in
    /// PLANNING and nobody else is at it.
    StartPlanning {
        /// The length of the epoch's lease.
        lease_ms: i64,
    },
    /// The plan is stored with its tasks: QUEUED.
    FinishPlanning {
        /// The planner's.
        epoch: Epoch,
        /// New ones, in order.
        tasks: Vec<Task>,
    },
    /// A coordinator begins to publish it, for `lease_ms` from now: if it gives
    /// leases and nobody else is at it.
    StartFinalizing {
        /// The length of the epoch's lease.
        lease_ms: i64,
    },
    /// The coordinator of this epoch goes on, even if its lease had expired.
    RenewEpoch {
        /// Its epoch.
        epoch: Epoch,
        /// The length of the epoch's lease.
        lease_ms: i64,
    },
    /// The coordinator of this epoch lets another begin at once. Of an epoch
    /// that is over this changes nothing, and is not refused.
    ReleaseEpoch {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The point of no return: with every task DONE the job is COMMITTING and its
    /// part list is frozen. In COMMITTING this changes nothing.
    StartCommit {
        /// The finalizer's.
        epoch: Epoch,
    },
    /// The final manifest is written: SUCCEEDED.
    FinishCommit {
        /// The finalizer's.
        epoch: Epoch,
    },
    /// The commit is damaged beyond repair: FAILED.
    FailCommit {
        /// The finalizer's.
        epoch: Epoch,
        /// The class of the damage.
        kind: FailureKind,
    },
    /// Planner or finalizer gives the job up before the commit: FAILED.
    Fail {
        /// The planner's or finalizer's.
        epoch: Epoch,
        /// Why.
        kind: FailureKind,
    },
    /// Bytes of a finished task proved stale before the commit: it is done again
    /// and its parts are forgotten.
    Reopen {
        /// The task.
        task: TaskOrdinal,
    },
    /// Storage lost parts of a job in COMMITTING: the tasks are done again, and
    /// must give the bytes of the frozen parts. The finalizer's turn ends.
    Repair {
        /// The finalizer's.
        epoch: Epoch,
        /// The tasks.
        tasks: Vec<TaskOrdinal>,
    },
    /// The user asks it to stop. Waiting tasks are cancelled at once; while some
    /// task is held it is CANCELLING, then CANCELLED. A repeat changes nothing.
    /// After the point of no return it is refused.
    Cancel,
    /// CANCELLING becomes CANCELLED once nothing is open.
    Settle,
    /// Cancels what a claim that raced with the end of the job left open: READY
    /// tasks in CANCELLING, and every open one after the end.
    Sweep,
    /// What a job that ended without output left in storage is removed.
    MarkCleaned,
    /// One pass of the reaper: leases that were found to have expired, each by
    /// its fence. Either all of them are taken back or none.
    Reap {
        /// The leases.
        leases: Vec<(TaskOrdinal, Fence)>,
    },
    /// Anything else that concerns one task. Its first claim makes the job
    /// RUNNING; if it is given up, or comes out with other bytes than before, the
    /// job is FAILED and everything open is cancelled.
    Task {
        /// The task.
        task: TaskOrdinal,
        /// What is asked of it.
        op: TaskOp,
    },
}

/// Why nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JobRefused {
    /// The job's state does not allow it.
    #[error("the job's state does not allow it")]
    WrongState,
    /// Another coordinator has begun a turn.
    #[error("the epoch is over")]
    EpochLost,
    /// Another coordinator is at it.
    #[error("another coordinator holds the job")]
    EpochHeld,
    /// Some task is not DONE.
    #[error("some task is not done")]
    TasksOpen,
    /// There is no such task.
    #[error("no such task")]
    NoSuchTask,
    /// The task's own reason.
    #[error(transparent)]
    Task(#[from] TaskRefused),
}

impl Job {
    /// A job that was just submitted.
    pub fn new(now_ms: i64) -> Self {
        Self {
            state: JobState::Planning,
            epoch: Epoch(0),
            epoch_expires_at_ms: 0,
            revision: 1,
            error: None,
            tasks: Vec::new(),
            updated_at_ms: now_ms,
            planned_at_ms: None,
            committing_at_ms: None,
            finished_at_ms: None,
            cleaned_at_ms: None,
        }
    }

    /// The rows after the operation.
    ///
    /// # Errors
    /// Why it is refused; then nothing changes.
    pub fn after(&self, op: &JobOp, now_ms: i64) -> Result<Self, JobRefused> {
        match op {
            JobOp::StartPlanning { lease_ms } => {
                self.begun(self.state == JobState::Planning, *lease_ms, now_ms)
            }
            JobOp::FinishPlanning { epoch, tasks } => self.planned(*epoch, tasks, now_ms),
            JobOp::StartFinalizing { lease_ms } => {
                self.begun(self.state.gives_leases(), *lease_ms, now_ms)
            }
            JobOp::RenewEpoch { epoch, lease_ms } => {
                self.holds(*epoch)?;
                Ok(Self {
                    epoch_expires_at_ms: now_ms + lease_ms,
                    ..self.clone()
                })
            }
            JobOp::ReleaseEpoch { epoch } => Ok(match self.holds(*epoch) {
                Ok(()) => self.without_coordinator(),
                Err(_) => self.clone(),
            }),
            JobOp::StartCommit { epoch } => self.frozen(*epoch, now_ms),
            JobOp::FinishCommit { epoch } => self.published(*epoch, now_ms),
            JobOp::FailCommit { epoch, kind } => {
                let is_committing = self.state == JobState::Committing;
                self.failed(is_committing, *epoch, *kind, now_ms)
            }
            JobOp::Fail { epoch, kind } => {
                let is_before = self.state != JobState::Committing;
                self.failed(is_before, *epoch, *kind, now_ms)
            }
            JobOp::Reopen { task } => self.reopened(*task, now_ms),
            JobOp::Repair { epoch, tasks } => self.repaired(*epoch, tasks, now_ms),
            JobOp::Cancel => self.cancelled(now_ms),
            JobOp::Settle => Ok(self.settled(now_ms)),
            JobOp::Sweep => Ok(self.swept(now_ms)),
            JobOp::MarkCleaned => self.cleaned(now_ms),
            JobOp::Reap { leases } => self.reaped(leases, now_ms),
            JobOp::Task { task, op } => self.with_task(*task, op, now_ms),
        }
    }

    /// Nothing if the epoch is the current one.
    fn holds(&self, epoch: Epoch) -> Result<(), JobRefused> {
        match self.epoch == epoch {
            true => Ok(()),
            false => Err(JobRefused::EpochLost),
        }
    }

    fn begun(&self, is_its_turn: bool, lease_ms: i64, now_ms: i64) -> Result<Self, JobRefused> {
        if !is_its_turn {
            return Err(JobRefused::WrongState);
        }
        if self.epoch_expires_at_ms > now_ms {
            return Err(JobRefused::EpochHeld);
        }
        Ok(Self {
            epoch: Epoch(self.epoch.0 + 1),
            epoch_expires_at_ms: now_ms + lease_ms,
            updated_at_ms: now_ms,
            ..self.clone()
        })
    }

    fn planned(&self, epoch: Epoch, tasks: &[Task], now_ms: i64) -> Result<Self, JobRefused> {
        self.holds(epoch)?;
        Ok(Self {
            tasks: tasks.to_vec(),
            planned_at_ms: Some(now_ms),
            ..self.moved(JobState::Queued, now_ms)?.without_coordinator()
        })
    }

    fn frozen(&self, epoch: Epoch, now_ms: i64) -> Result<Self, JobRefused> {
        self.holds(epoch)?;
        if !self.state.gives_leases() {
            return Err(JobRefused::WrongState);
        }
        self.all_done()?;
        // A job without a task was never leased from, and passes through RUNNING.
        let running = match self.state {
            JobState::Committing => return Ok(self.clone()),
            JobState::Queued => self.moved(JobState::Running, now_ms)?,
            _ => self.clone(),
        };
        Ok(Self {
            committing_at_ms: Some(now_ms),
            ..running.moved(JobState::Committing, now_ms)?
        })
    }

    fn published(&self, epoch: Epoch, now_ms: i64) -> Result<Self, JobRefused> {
        self.holds(epoch)?;
        if self.state != JobState::Committing {
            return Err(JobRefused::WrongState);
        }
        self.all_done()?;
        let ended = self.moved(JobState::Succeeded, now_ms)?;
        Ok(ended.without_coordinator())
    }

    fn failed(
        &self,
        is_its_turn: bool,
        epoch: Epoch,
        kind: FailureKind,
        now_ms: i64,
    ) -> Result<Self, JobRefused> {
        self.holds(epoch)?;
        if !is_its_turn {
            return Err(JobRefused::WrongState);
        }
        let ended = self.moved(JobState::Failed, now_ms)?;
        Ok(Self {
            error: Some(kind),
            ..ended.without_coordinator().without_open_tasks(now_ms)
        })
    }

    fn reopened(&self, task: TaskOrdinal, now_ms: i64) -> Result<Self, JobRefused> {
        if !matches!(self.state, JobState::Queued | JobState::Running) {
            return Err(JobRefused::WrongState);
        }
        let reopened = Task {
            parts: Vec::new(),
            ..self.task(task)?.reopened(now_ms)?
        };
        Ok(self.with(task, reopened).touched(now_ms))
    }

    fn repaired(
        &self,
        epoch: Epoch,
        tasks: &[TaskOrdinal],
        now_ms: i64,
    ) -> Result<Self, JobRefused> {
        self.holds(epoch)?;
        if self.state != JobState::Committing {
            return Err(JobRefused::WrongState);
        }
        let mut after = self.without_coordinator();
        for task in tasks {
            let reopened = after.task(*task)?.reopened(now_ms)?;
            after = after.with(*task, reopened);
        }
        Ok(after.touched(now_ms))
    }

    fn cancelled(&self, now_ms: i64) -> Result<Self, JobRefused> {
        if matches!(self.state, JobState::Cancelling | JobState::Cancelled) {
            return Ok(self.clone());
        }
        let cancelling = self.moved(JobState::Cancelling, now_ms)?;
        Ok(cancelling.swept(now_ms).settled(now_ms))
    }

    fn settled(&self, now_ms: i64) -> Self {
        if self.state != JobState::Cancelling || self.tasks.iter().any(Task::is_open) {
            return self.clone();
        }
        self.put_into(JobState::Cancelled, now_ms)
    }

    fn swept(&self, now_ms: i64) -> Self {
        let sweeps = |task: &Task| match self.state {
            JobState::Cancelling => task.state == TaskState::Ready,
            JobState::Failed | JobState::Cancelled => self.cleaned_at_ms.is_none(),
            _ => false,
        };
        let sweep = |task: &Task| match sweeps(task) {
            true => task.cancelled(now_ms),
            false => task.clone(),
        };
        Self {
            tasks: self.tasks.iter().map(sweep).collect(),
            ..self.clone()
        }
    }

    fn cleaned(&self, now_ms: i64) -> Result<Self, JobRefused> {
        if !matches!(self.state, JobState::Failed | JobState::Cancelled) {
            return Err(JobRefused::WrongState);
        }
        Ok(Self {
            cleaned_at_ms: self.cleaned_at_ms.or(Some(now_ms)),
            updated_at_ms: now_ms,
            ..self.clone()
        })
    }

    fn reaped(&self, leases: &[(TaskOrdinal, Fence)], now_ms: i64) -> Result<Self, JobRefused> {
        let mut after = self.clone();
        for (task, fence) in leases {
            let op = TaskOp::Reap { fence: *fence };
            let reaped = after.task(*task)?.after(&op, &self.around(now_ms))?;
            after = after.with(*task, reaped);
        }
        let is_new = |(before, after): (&Task, &Task)| before.state != after.state;
        let given_up = self
            .tasks
            .iter()
            .zip(&after.tasks)
            .any(|tasks| is_new(tasks) && tasks.1.state == TaskState::Failed);
        Ok(match given_up {
            true => after.given_up(FailureKind::SuspectedPoison, now_ms),
            false => after,
        })
    }

    fn with_task(&self, task: TaskOrdinal, op: &TaskOp, now_ms: i64) -> Result<Self, JobRefused> {
        let after = match self.task(task)?.after(op, &self.around(now_ms)) {
            Err(TaskRefused::OtherBytes) => {
                return Ok(self.given_up(FailureKind::Internal, now_ms));
            }
            other => self.with(task, other?),
        };
        let changed = after.task(task)?;
        Ok(match (changed.state, changed.error) {
            (TaskState::Leased, _) if self.state == JobState::Queued => {
                after.put_into(JobState::Running, now_ms)
            }
            (TaskState::Failed, Some(kind)) => after.given_up(kind, now_ms),
            _ => after,
        })
    }

    fn task(&self, task: TaskOrdinal) -> Result<&Task, JobRefused> {
        let found = self.tasks.get(task.0 as usize);
        found.ok_or(JobRefused::NoSuchTask)
    }

    fn around(&self, now_ms: i64) -> Around {
        let spent: u64 = (self.tasks.iter())
            .map(|task| u64::from(task.counters.failures))
            .sum();
        Around {
            now_ms,
            job: self.state,
            retries_left: job_retries_max(self.tasks.len() as u64).saturating_sub(spent),
        }
    }

    fn all_done(&self) -> Result<(), JobRefused> {
        let is_done = |task: &Task| task.state == TaskState::Done;
        match self.tasks.iter().all(is_done) {
            true => Ok(()),
            false => Err(JobRefused::TasksOpen),
        }
    }

    fn with(&self, ordinal: TaskOrdinal, task: Task) -> Self {
        let mut after = self.clone();
        after.tasks[ordinal.0 as usize] = task;
        after
    }

    /// In another state, if that may follow.
    fn moved(&self, next: JobState, now_ms: i64) -> Result<Self, JobRefused> {
        match self.state.may_become(next) {
            true => Ok(self.put_into(next, now_ms)),
            false => Err(JobRefused::WrongState),
        }
    }

    /// In another state, which is known to follow.
    fn put_into(&self, next: JobState, now_ms: i64) -> Self {
        debug_assert!(self.state.may_become(next), "{} to {next}", self.state);
        let ended = next.is_terminal().then_some(now_ms);
        Self {
            state: next,
            finished_at_ms: ended.or(self.finished_at_ms),
            ..self.touched(now_ms)
        }
    }

    fn touched(&self, now_ms: i64) -> Self {
        Self {
            revision: self.revision + 1,
            updated_at_ms: now_ms,
            ..self.clone()
        }
    }

    fn without_coordinator(&self) -> Self {
        Self {
            epoch_expires_at_ms: 0,
            ..self.clone()
        }
    }

    fn without_open_tasks(&self, now_ms: i64) -> Self {
        Self {
            tasks: (self.tasks.iter())
                .map(|task| task.cancelled(now_ms))
                .collect(),
            ..self.clone()
        }
    }

    /// FAILED because of one of its tasks, unless it is on another way out: then
    /// a second failure says nothing new.
    fn given_up(&self, kind: FailureKind, now_ms: i64) -> Self {
        if !self.state.gives_leases() {
            return self.clone();
        }
        Self {
            error: Some(kind),
            ..self
                .put_into(JobState::Failed, now_ms)
                .without_open_tasks(now_ms)
        }
    }
}
