//! The side of core: what the law says that an operation answers and leaves.

use std::collections::BTreeMap;

use chatvec_core::ids::{Epoch, Fence, JobId, TaskOrdinal, WorkerId};
use chatvec_core::job::{Job, JobOp, JobRefused, JobState};
use chatvec_core::task::{
    Lease, Others, TakenAway, Task, TaskOp, TaskRefused, TaskState, reap_max,
};

use super::op::Op;
use super::planted::Planted;
use super::{Jobs, Reaping};
use crate::coordinator::store::lease::WORKER_SEEN_MS;
use crate::coordinator::store::{BeatAnswer, FailOutcome, Reaped, Recorded};

/// What a call gave back.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// It was done.
    Done,
    /// Leases, in order.
    Leases(Vec<Lease>),
    /// One for each lease that was named.
    Beats(Vec<BeatAnswer>),
    /// A report of success was good.
    Recorded(Recorded),
    /// A report of failure was good.
    Failed(FailOutcome),
    /// A turn has begun.
    Begun(Epoch),
    /// So many leases were ended.
    Released(u64),
    /// What a pass of the reaper did.
    Reaped(Reaped),
    /// What was stolen.
    Stolen(Vec<(JobId, TaskOrdinal, WorkerId)>),
    /// Nothing changed.
    Refused(JobRefused),
}

/// What suspected tasks mean for a worker that asks for tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It may have others.
    Free,
    /// It gets one of them alone.
    Alone,
    /// It gets nothing: it holds one, or is to finish what it holds.
    InTheWay,
}

/// In how many ways an operation has ended.
pub(super) type Outcomes = Vec<&'static str>;

/// Every job as the law has it.
pub(super) struct Law {
    pub(super) now_ms: i64,
    pub(super) jobs: Jobs,
    /// Every lease ever given, and to whom.
    pub(super) leases: Vec<Lease>,
    /// How many operations there were.
    pub(super) ops: usize,
    holders: Vec<WorkerId>,
    /// In the order of leasing.
    planned: Vec<JobId>,
    seen_at_ms: BTreeMap<WorkerId, i64>,
    planted: Option<Planted>,
}

impl Law {
    pub(super) fn new(planted: Option<Planted>, now_ms: i64) -> Self {
        Self {
            now_ms,
            jobs: Jobs::new(),
            leases: Vec::new(),
            ops: 0,
            holders: Vec::new(),
            planned: Vec::new(),
            seen_at_ms: BTreeMap::new(),
            planted,
        }
    }

    pub(super) fn submitted(&mut self, job: JobId) {
        self.jobs.insert(job, Job::new(self.now_ms));
    }

    pub(super) fn names(&self) -> Vec<JobId> {
        self.jobs.keys().cloned().collect()
    }

    /// Whether the lease is good.
    pub(super) fn holds(&self, lease: &Lease) -> bool {
        let task = self.task(&lease.job, lease.task);
        task.state == TaskState::Leased && task.fence == lease.fence
    }

    /// Every lease that the worker ever had.
    pub(super) fn leases_of<'a>(&'a self, worker: &'a WorkerId) -> impl Iterator<Item = &'a Lease> {
        let all = self.leases.iter().zip(&self.holders);
        all.filter_map(move |(lease, holder)| (holder == worker).then_some(lease))
    }

    /// What the operation answers, and in which ways it ended. Which tasks are
    /// stolen is the store's to choose; that they may be is not.
    pub(super) fn run(&mut self, op: &Op, answer: &Answer) -> (Answer, Outcomes) {
        self.ops += 1;
        match op {
            Op::Tick(ms) => {
                self.now_ms += ms;
                (Answer::Done, vec!["done"])
            }
            Op::OfJob(name, op) => self.of_job(name, op),
            Op::OfLease(lease, op) => self.of_lease(lease, op),
            Op::Acquire {
                worker,
                max,
                lease_ms,
            } => self.acquire(worker, *max as usize, *lease_ms),
            Op::Beat {
                worker,
                named,
                lease_ms,
            } => self.beat(worker, named, *lease_ms),
            Op::ReleaseAll => self.release_all(),
            Op::Reap(reaping) => self.reap(*reaping),
            Op::Steal => self.steal(answer),
            Op::Strand { job, task, to } => {
                self.strand(job, *task, to);
                (Answer::Done, vec!["done"])
            }
        }
    }

    fn task(&self, job: &JobId, task: TaskOrdinal) -> &Task {
        &self.jobs[job].tasks[task.0 as usize]
    }

    /// Every task that is held, and by whom.
    fn held(&self) -> Vec<(JobId, TaskOrdinal, Fence)> {
        let mut held = Vec::new();
        for (name, job) in &self.jobs {
            for (number, task) in (0..).zip(&job.tasks) {
                if task.state == TaskState::Leased {
                    held.push((name.clone(), TaskOrdinal(number), task.fence));
                }
            }
        }
        held
    }

    /// The job after the transition.
    fn after(&self, name: &JobId, op: &JobOp) -> Result<Job, JobRefused> {
        let before = &self.jobs[name];
        match self.planted {
            Some(planted) => planted.after(before, op, self.now_ms),
            None => before.after(op, self.now_ms),
        }
    }

    /// The transition itself; a refusal changes nothing.
    fn apply(&mut self, name: &JobId, op: &JobOp) -> Result<(), JobRefused> {
        let after = self.after(name, op)?;
        self.jobs.insert(name.clone(), after);
        Ok(())
    }

    fn of_task(&mut self, name: &JobId, task: TaskOrdinal, op: TaskOp) -> Result<(), JobRefused> {
        self.apply(name, &JobOp::Task { task, op })
    }

    fn of_job(&mut self, name: &JobId, op: &JobOp) -> (Answer, Outcomes) {
        let before = self.jobs[name].clone();
        if let Err(refused) = self.apply(name, op) {
            return (Answer::Refused(refused), vec![outcome_of(refused)]);
        }
        let after = &self.jobs[name];
        if let JobOp::FinishPlanning { .. } = op {
            self.planned.push(name.clone());
        }
        let answer = match op {
            JobOp::StartPlanning { .. } | JobOp::StartFinalizing { .. } => {
                Answer::Begun(after.epoch)
            }
            _ => Answer::Done,
        };
        let outcome = match op {
            JobOp::StartPlanning { .. } | JobOp::StartFinalizing { .. } => "begun",
            JobOp::StartCommit { .. } if before.state != JobState::Committing => "frozen",
            JobOp::StartCommit { .. } => "again",
            JobOp::ReleaseEpoch { epoch } if *epoch != after.epoch => "passed over",
            JobOp::Cancel if before.state == after.state => "again",
            JobOp::Cancel if after.state == JobState::Cancelling => "cancelling",
            JobOp::Cancel => "cancelled",
            JobOp::MarkCleaned if before.cleaned_at_ms.is_some() => "again",
            _ => "done",
        };
        (answer, vec![outcome])
    }

    fn of_lease(&mut self, lease: &Lease, op: &TaskOp) -> (Answer, Outcomes) {
        let job = self.jobs[&lease.job].state;
        let before = self.task(&lease.job, lease.task).clone();
        if let Err(refused) = self.of_task(&lease.job, lease.task, op.clone()) {
            return (Answer::Refused(refused), vec![outcome_of(refused)]);
        }
        let after = self.task(&lease.job, lease.task);
        let (answer, outcome) = match (op, after.state) {
            (TaskOp::Report { .. }, TaskState::Done) if before == *after => {
                (Answer::Recorded(Recorded::AlreadyRecorded), "repeated")
            }
            (TaskOp::Report { .. }, TaskState::Done) if before.parts.is_empty() => {
                (Answer::Recorded(Recorded::Recorded), "recorded")
            }
            (TaskOp::Report { .. }, TaskState::Done) => {
                (Answer::Recorded(Recorded::Recorded), "repaired")
            }
            // To the worker its lease is lost, as its job has failed.
            (TaskOp::Report { .. }, _) => {
                let lost = JobRefused::Task(TaskRefused::LeaseLost);
                assert_eq!(job, JobState::Committing, "parts are frozen only there");
                (Answer::Refused(lost), "other bytes")
            }
            (TaskOp::Fail { .. }, TaskState::Ready) => {
                let not_before_ms = after.not_before_ms;
                let retried = FailOutcome::Retried { not_before_ms };
                (Answer::Failed(retried), "retried")
            }
            (TaskOp::Fail { .. }, TaskState::Done) => (Answer::Failed(FailOutcome::Kept), "kept"),
            (TaskOp::Fail { .. }, TaskState::Failed) => {
                (Answer::Failed(FailOutcome::GaveUp), "gave up")
            }
            (TaskOp::Fail { .. }, _) => (Answer::Failed(FailOutcome::Cancelled), "cancelled"),
            (_, TaskState::Ready) => (Answer::Done, "ready"),
            (_, _) => (Answer::Done, "cancelled"),
        };
        (answer, vec![outcome])
    }

    fn acquire(&mut self, worker: &WorkerId, max: usize, lease_ms: i64) -> (Answer, Outcomes) {
        self.seen_at_ms.insert(worker.clone(), self.now_ms);
        let since = self.now_ms - WORKER_SEEN_MS;
        let mut seen = self.seen_at_ms.iter();
        let others = match seen.any(|(other, at_ms)| other != worker && *at_ms > since) {
            true => Others::Alive,
            false => Others::None,
        };
        let claim = TaskOp::Claim {
            worker: worker.clone(),
            lease_ms,
            others,
        };
        let mut outcomes = Outcomes::new();
        let (tasks, standing) = self.for_claim(worker, &claim);
        let max = match standing {
            Standing::Free => max,
            Standing::Alone => max.min(1),
            Standing::InTheWay => 0,
        };
        let mut leases = Vec::new();
        for (name, task) in tasks {
            if leases.len() == max {
                break;
            }
            if self.of_task(&name, task, claim.clone()).is_err() {
                outcomes.push("passed over");
                continue;
            }
            let claimed = self.task(&name, task);
            leases.push(Lease {
                job: name,
                task,
                fence: claimed.fence,
                attempt: claimed.attempt,
            });
        }
        outcomes.push(match standing {
            Standing::InTheWay => "kept waiting",
            Standing::Alone if !leases.is_empty() => "alone",
            _ if leases.is_empty() => "nothing",
            _ => "leases",
        });
        self.leases.extend(leases.iter().cloned());
        self.holders.resize(self.leases.len(), worker.clone());
        (Answer::Leases(leases), outcomes)
    }

    /// The tasks that wait, in the order of leasing: those that are suspected of
    /// taking down their workers, where one of them is for this worker, or else
    /// the others.
    fn for_claim(
        &self,
        worker: &WorkerId,
        claim: &TaskOp,
    ) -> (Vec<(JobId, TaskOrdinal)>, Standing) {
        let (mut suspects, mut others) = (Vec::new(), Vec::new());
        let (mut holds, mut holds_suspect, mut is_wanted) = (false, false, false);
        for name in &self.planned {
            for (number, task) in (0..).zip(&self.jobs[name].tasks) {
                let key = (name.clone(), TaskOrdinal(number));
                let is_suspect = task.counters.is_suspect();
                let holder = task.holder.as_ref();
                if holder.is_some_and(|holder| holder.worker == *worker) {
                    holds = true;
                    holds_suspect |= is_suspect;
                }
                if task.state != TaskState::Ready {
                    continue;
                }
                if !is_suspect {
                    others.push(key);
                    continue;
                }
                let op = JobOp::Task {
                    task: key.1,
                    op: claim.clone(),
                };
                is_wanted |= self.after(name, &op).is_ok();
                suspects.push(key);
            }
        }
        match () {
            () if holds_suspect || (is_wanted && holds) => (suspects, Standing::InTheWay),
            () if is_wanted => (suspects, Standing::Alone),
            () => (others, Standing::Free),
        }
    }

    fn beat(
        &mut self,
        worker: &WorkerId,
        named: &[(Lease, u64)],
        lease_ms: i64,
    ) -> (Answer, Outcomes) {
        self.seen_at_ms.insert(worker.clone(), self.now_ms);
        let mut outcomes = Outcomes::new();
        let mut extended = Vec::new();
        let mut answers = Vec::new();
        for (lease, progress_bytes) in named {
            let op = TaskOp::Extend {
                worker: worker.clone(),
                fence: lease.fence,
                lease_ms,
                progress_bytes: *progress_bytes,
            };
            let is_held = self.of_task(&lease.job, lease.task, op).is_ok();
            let (answer, outcome) = match self.jobs[&lease.job].state.is_unwanted() {
                _ if !is_held => (BeatAnswer::Lost, "lost"),
                true => (BeatAnswer::Cancel, "cancel"),
                false => (BeatAnswer::Extended, "extended"),
            };
            if is_held {
                extended.push((lease.job.clone(), lease.task));
            }
            answers.push(answer);
            outcomes.push(outcome);
        }
        for (name, task, _) in self.held() {
            if extended.contains(&(name.clone(), task)) {
                continue;
            }
            let worker = worker.clone();
            let miss = TaskOp::Miss { worker, lease_ms };
            if self.of_task(&name, task, miss).is_ok() {
                let is_held = self.task(&name, task).state == TaskState::Leased;
                outcomes.push(if is_held { "missed" } else { "forgotten" });
            }
        }
        (Answer::Beats(answers), outcomes)
    }

    fn release_all(&mut self) -> (Answer, Outcomes) {
        let held = self.held();
        for (name, task, fence) in &held {
            let why = TakenAway::Orphaned;
            let fence = *fence;
            let taken = self.of_task(name, *task, TaskOp::TakeAway { fence, why });
            taken.expect("it is held");
        }
        let outcome = if held.is_empty() { "nothing" } else { "some" };
        (Answer::Released(held.len() as u64), vec![outcome])
    }

    fn reap(&mut self, reaping: Reaping) -> (Answer, Outcomes) {
        let before = self.jobs.clone();
        let mut outcomes = Outcomes::new();
        let expired = match reaping {
            Reaping::Expired => self.expired(&mut outcomes),
            Reaping::Grace => BTreeMap::new(),
        };
        let mut reaped = Reaped::default();
        for (name, leases) in expired {
            reaped.expired += leases.len() as u64;
            let tasks: Vec<_> = leases.iter().map(|(task, _)| *task).collect();
            self.apply(&name, &JobOp::Reap { leases })
                .expect("they have expired");
            for number in tasks {
                let outcome = match self.task(&name, number).state {
                    TaskState::Failed => "gave up",
                    TaskState::Cancelled => "cancelled",
                    _ => "crashed",
                };
                reaped.given_up += u64::from(outcome == "gave up");
                outcomes.push(outcome);
            }
        }
        for name in self.names() {
            let open = |job: &Job| job.tasks.iter().filter(|task| task.is_open()).count();
            let left = open(&self.jobs[&name]);
            self.apply(&name, &JobOp::Sweep)
                .expect("it is never refused");
            reaped.swept += (left - open(&self.jobs[&name])) as u64;
            self.apply(&name, &JobOp::Settle)
                .expect("it is never refused");
            let is_settled = before[&name].state == JobState::Cancelling
                && self.jobs[&name].state == JobState::Cancelled;
            outcomes.extend(is_settled.then_some("settled"));
        }
        outcomes.extend((reaped.swept > 0).then_some("swept"));
        if outcomes.is_empty() {
            outcomes.push(match reaping {
                Reaping::Expired => "nothing",
                Reaping::Grace => "grace",
            });
        }
        (Answer::Reaped(reaped), outcomes)
    }

    /// The leases that one pass takes back: those that expired first.
    fn expired(&self, outcomes: &mut Outcomes) -> BTreeMap<JobId, Vec<(TaskOrdinal, Fence)>> {
        let held = self.held();
        let max = reap_max(held.len() as u64) as usize;
        let mut expired: Vec<_> = held
            .into_iter()
            .filter_map(|(name, task, fence)| {
                let holder = self.task(&name, task).holder.as_ref()?;
                let at_ms = holder.expires_at_ms;
                (at_ms <= self.now_ms).then_some((at_ms, name, task, fence))
            })
            .collect();
        expired.sort();
        if expired.len() > max {
            outcomes.push("capped");
            expired.truncate(max);
        }
        let mut by_job: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, name, task, fence) in expired {
            by_job.entry(name).or_default().push((task, fence));
        }
        by_job
    }

    fn steal(&mut self, answer: &Answer) -> (Answer, Outcomes) {
        let Answer::Stolen(chosen) = answer else {
            return (Answer::Stolen(Vec::new()), vec!["nothing"]);
        };
        let mut stolen = Vec::new();
        for (name, task, worker) in chosen {
            let row = self.task(name, *task);
            let (fence, why) = (row.fence, TakenAway::Stolen);
            let is_alive = row.holder.as_ref().is_some_and(|holder| {
                holder.worker == *worker && holder.expires_at_ms > self.now_ms
            });
            let take = TaskOp::TakeAway { fence, why };
            if is_alive && self.of_task(name, *task, take).is_ok() {
                stolen.push((name.clone(), *task, worker.clone()));
            }
        }
        let outcome = if stolen.is_empty() {
            "nothing"
        } else {
            "stolen"
        };
        (Answer::Stolen(stolen), vec![outcome])
    }

    /// Waiting in a job that is about to end; held in one that has ended.
    fn strand(&mut self, name: &JobId, task: TaskOrdinal, to: &WorkerId) {
        let job = self.jobs.get_mut(name).expect("it is one of the jobs");
        let is_held = job.state.is_terminal();
        let row = &mut job.tasks[task.0 as usize];
        row.state = TaskState::Ready;
        if is_held {
            row.state = TaskState::Leased;
            row.holder = Some(chatvec_core::task::Holder {
                worker: to.clone(),
                expires_at_ms: self.now_ms + 300,
            });
            self.leases.push(Lease {
                job: name.clone(),
                task,
                fence: row.fence,
                attempt: row.attempt,
            });
            self.holders.push(to.clone());
        }
    }
}

fn outcome_of(refused: JobRefused) -> &'static str {
    match refused {
        JobRefused::WrongState => "wrong state",
        JobRefused::EpochLost => "epoch lost",
        JobRefused::EpochHeld => "epoch held",
        JobRefused::TasksOpen => "tasks open",
        JobRefused::NoSuchTask => "no such task",
        JobRefused::Task(TaskRefused::LeaseLost) => "lease lost",
        JobRefused::Task(TaskRefused::WrongParts) => "wrong parts",
        JobRefused::Task(TaskRefused::NotDone) => "not done",
        JobRefused::Task(other) => unreachable!("nobody is told that {other}"),
    }
}
