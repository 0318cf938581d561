//! Defects of the law, one at a time: the comparison has to find each.

use chatvec_core::job::{Job, JobOp, JobRefused};
use chatvec_core::task::{Task, TaskOp, TaskRefused, TaskState};

/// What is wrong with the side of core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// A report counts whatever its fence.
    AnyFence,
    /// A heartbeat does not extend a lease that has expired.
    NoLateBeat,
    /// A crash is not charged.
    FreeCrash,
    /// A cancellation forgets the tasks that wait.
    LeftWaiting,
    /// A commit begins with tasks that are not done.
    OpenCommit,
    /// The fence stays when a lease is taken back.
    SameFence,
    /// A finalizer is believed whatever its epoch.
    AnyEpoch,
    /// A repair takes whatever bytes come out.
    AnyBytes,
    /// A report that is repeated is refused.
    NoRepeat,
}

impl Planted {
    pub(super) const ALL: [Self; 9] = [
        Self::AnyFence,
        Self::NoLateBeat,
        Self::FreeCrash,
        Self::LeftWaiting,
        Self::OpenCommit,
        Self::SameFence,
        Self::AnyEpoch,
        Self::AnyBytes,
        Self::NoRepeat,
    ];

    /// [`Job::after`] with the defect.
    pub(super) fn after(self, job: &Job, op: &JobOp, now_ms: i64) -> Result<Job, JobRefused> {
        let (mut job, mut op) = (job.clone(), op.clone());
        let before = job.clone();
        self.before(&mut job, &mut op, now_ms)?;
        let mut after = job.after(&op, now_ms)?;
        self.afterwards(&before, &op, &mut after);
        Ok(after)
    }

    /// Defects of what is looked at.
    fn before(self, job: &mut Job, op: &mut JobOp, now_ms: i64) -> Result<(), JobRefused> {
        match (self, op) {
            (Self::OpenCommit, JobOp::StartCommit { .. }) => {
                for task in &mut job.tasks {
                    task.state = TaskState::Done;
                }
            }
            (Self::AnyEpoch, JobOp::FinishCommit { epoch } | JobOp::FailCommit { epoch, .. }) => {
                *epoch = job.epoch;
            }
            (_, JobOp::Task { task, op }) => {
                self.before_task(&mut job.tasks[task.0 as usize], op, now_ms)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn before_task(self, row: &mut Task, op: &mut TaskOp, now_ms: i64) -> Result<(), TaskRefused> {
        let holder = row.holder.as_ref();
        let is_late = holder.is_some_and(|holder| holder.expires_at_ms <= now_ms);
        match (self, op) {
            (Self::AnyFence, TaskOp::Report { fence, .. }) => *fence = row.fence,
            (Self::AnyBytes, TaskOp::Report { .. }) if holder.is_some() => row.parts.clear(),
            (Self::NoLateBeat, TaskOp::Extend { .. }) if is_late => {
                return Err(TaskRefused::LeaseLost);
            }
            (Self::NoRepeat, TaskOp::Report { .. }) if row.done.is_some() => {
                return Err(TaskRefused::LeaseLost);
            }
            _ => {}
        }
        Ok(())
    }

    /// Defects of what is made of it.
    fn afterwards(self, before: &Job, op: &JobOp, after: &mut Job) {
        let tasks = before.tasks.iter().zip(&mut after.tasks);
        match (self, op) {
            (Self::FreeCrash, JobOp::Reap { .. }) => {
                tasks.for_each(|(before, after)| after.counters = before.counters);
            }
            (Self::LeftWaiting, JobOp::Cancel) => {
                tasks.for_each(|(before, after)| after.clone_from(before));
            }
            (Self::SameFence, JobOp::Reap { .. }) => {
                tasks.for_each(|(before, after)| after.fence = before.fence);
            }
            _ => {}
        }
    }
}
