//! What may happen in a sequence, and the choice of what happens next.

use chatvec_core::ids::{Crc64, Epoch, JobId, PartOrdinal, TaskOrdinal, WorkerId};
use chatvec_core::job::{Job, JobOp, JobState};
use chatvec_core::task::{FailureKind, Lease, RecordedPart, Task, TaskOp, TaskState};

use super::law::Law;
use super::{OPS, Reaping, TASKS};

/// One call of the store, or what the tests do to it themselves.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Time passes.
    Tick(i64),
    /// What planners, finalizers and users ask.
    OfJob(JobId, JobOp),
    /// What a worker says under a lease that it has, or had.
    OfLease(Lease, TaskOp),
    /// A worker asks for tasks.
    Acquire {
        worker: WorkerId,
        max: u32,
        lease_ms: i64,
    },
    /// A worker names what it holds, with the bytes that it has written.
    Beat {
        worker: WorkerId,
        named: Vec<(Lease, u64)>,
        lease_ms: i64,
    },
    /// Every process is proved dead.
    ReleaseAll,
    /// A pass of the reaper.
    Reap(Reaping),
    /// A pass over stragglers.
    Steal,
    /// A task of a job that is about to end, or has ended, is open again: as if a
    /// claim had raced with the end.
    Strand {
        job: JobId,
        task: TaskOrdinal,
        to: WorkerId,
    },
}

impl Op {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Tick(_) => "tick",
            Self::OfJob(_, op) => name_of(op),
            Self::OfLease(_, TaskOp::Report { .. }) => "complete",
            Self::OfLease(_, TaskOp::Fail { .. }) => "fail",
            Self::OfLease(_, TaskOp::Release { .. }) => "release",
            Self::OfLease(_, op) => unreachable!("no worker asks for {op:?}"),
            Self::Acquire { .. } => "acquire",
            Self::Beat { .. } => "beat",
            Self::ReleaseAll => "release all",
            Self::Reap(_) => "reap",
            Self::Steal => "steal",
            Self::Strand { .. } => "strand",
        }
    }
}

fn name_of(op: &JobOp) -> &'static str {
    match op {
        JobOp::StartPlanning { .. } => "start planning",
        JobOp::FinishPlanning { .. } => "finish planning",
        JobOp::StartFinalizing { .. } => "start finalizing",
        JobOp::RenewEpoch { .. } => "renew epoch",
        JobOp::ReleaseEpoch { .. } => "release epoch",
        JobOp::StartCommit { .. } => "start commit",
        JobOp::FinishCommit { .. } => "finish commit",
        JobOp::FailCommit { .. } => "fail commit",
        JobOp::Fail { .. } => "fail job",
        JobOp::Reopen { .. } => "reopen",
        JobOp::Repair { .. } => "repair",
        JobOp::Cancel => "cancel",
        JobOp::MarkCleaned => "mark cleaned",
        JobOp::Settle | JobOp::Sweep | JobOp::Reap { .. } | JobOp::Task { .. } => {
            unreachable!("{op:?} is a step of another call")
        }
    }
}

/// A sequence of numbers that a seed fixes (SplitMix64).
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn of_ten(&mut self, times: u64) -> bool {
        self.below(10) < times
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        match of.len() as u64 {
            0 => None,
            len => Some(of[self.below(len) as usize].clone()),
        }
    }

    fn worker(&mut self) -> WorkerId {
        WorkerId(format!("w{}", self.below(3)))
    }

    fn lease_ms(&mut self) -> i64 {
        [0, 300, 300, 3_000][self.below(4) as usize]
    }

    /// Mostly one of those that are meant.
    fn job(&mut self, law: &Law, meant: impl Fn(&Job) -> bool) -> JobId {
        let all = law.names();
        let fit: Vec<_> = all.iter().filter(|name| meant(&law.jobs[*name])).collect();
        match self.of_ten(8) {
            true => self.pick(&fit).cloned(),
            false => None,
        }
        .unwrap_or_else(|| self.pick(&all).expect("there are jobs"))
    }

    /// So many times of ten the current epoch, else one that is over.
    fn epoch(&mut self, job: &Job, current: u64) -> Epoch {
        match self.of_ten(current) {
            true => job.epoch,
            false => Epoch(self.below(job.epoch.0.max(1))),
        }
    }

    /// Mostly a lease that is good, and often one of a job that nobody wants.
    /// Most leases that were ever given are not good.
    fn lease(&mut self, law: &Law) -> Option<Lease> {
        let is_good = |lease: &&Lease| law.holds(lease);
        let good: Vec<_> = law.leases.iter().filter(is_good).collect();
        let is_unwanted = |lease: &&&Lease| law.jobs[&lease.job].state.is_unwanted();
        let unwanted: Vec<_> = good.iter().filter(is_unwanted).copied().collect();
        match self.below(10) {
            0..2 if !unwanted.is_empty() => self.pick(&unwanted).cloned(),
            0..7 => self.pick(&good).cloned(),
            _ => self.pick(&law.leases),
        }
    }
}

/// How often each kind of operation comes, of a thousand: in even times, while
/// leases pile up, and while jobs are published.
const WEIGHTS: [(Kind, [u64; 3]); 22] = [
    (Kind::Tick, [80, 60, 60]),
    (Kind::StartPlanning, [35, 60, 10]),
    (Kind::FinishPlanning, [35, 60, 10]),
    (Kind::Acquire, [180, 420, 120]),
    (Kind::Beat, [90, 60, 60]),
    (Kind::Complete, [240, 60, 300]),
    (Kind::Fail, [45, 40, 15]),
    (Kind::Release, [30, 30, 20]),
    (Kind::ReleaseAll, [3, 1, 1]),
    (Kind::Reap, [60, 12, 40]),
    (Kind::Steal, [20, 10, 5]),
    (Kind::StartFinalizing, [35, 5, 80]),
    (Kind::RenewEpoch, [10, 5, 10]),
    (Kind::ReleaseEpoch, [10, 5, 20]),
    (Kind::StartCommit, [30, 5, 80]),
    (Kind::FinishCommit, [10, 5, 15]),
    (Kind::FailCommit, [6, 6, 8]),
    (Kind::FailJob, [6, 6, 6]),
    (Kind::Reopen, [15, 5, 5]),
    (Kind::Repair, [15, 5, 50]),
    (Kind::Cancel, [6, 14, 3]),
    (Kind::Ended, [20, 10, 10]),
];

/// Operations of one kind and choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tick,
    StartPlanning,
    FinishPlanning,
    Acquire,
    Beat,
    Complete,
    Fail,
    Release,
    ReleaseAll,
    Reap,
    Steal,
    StartFinalizing,
    RenewEpoch,
    ReleaseEpoch,
    StartCommit,
    FinishCommit,
    FailCommit,
    FailJob,
    Reopen,
    Repair,
    Cancel,
    /// Clean, or strand.
    Ended,
}

/// What comes next.
pub(super) fn next(law: &Law, chance: &mut Chance) -> Op {
    loop {
        // Leases pile up first: it is then that the most jobs have tasks.
        let phase = (law.ops * 6 / OPS + 1) % 3;
        if let Some(op) = of_kind(kind(phase, chance), law, chance) {
            return op;
        }
    }
}

fn kind(phase: usize, chance: &mut Chance) -> Kind {
    let all = WEIGHTS.iter().map(|(_, weights)| weights[phase]).sum();
    let mut at = chance.below(all);
    for (kind, weights) in WEIGHTS {
        match at.checked_sub(weights[phase]) {
            None => return kind,
            Some(rest) => at = rest,
        }
    }
    unreachable!("the weights end where they are summed up")
}

fn of_kind(kind: Kind, law: &Law, chance: &mut Chance) -> Option<Op> {
    Some(match kind {
        Kind::Tick => {
            let span = [5, 5, 120, 120, 120, 700, 700, 2_500, 70_000];
            Op::Tick(chance.pick(&span)?)
        }
        Kind::Acquire => Op::Acquire {
            worker: chance.worker(),
            max: 1 + chance.below(8) as u32,
            lease_ms: chance.lease_ms(),
        },
        Kind::Beat => beat(law, chance),
        Kind::Complete => complete(law, chance)?,
        Kind::Fail => fail(law, chance)?,
        Kind::Release => {
            let lease = chance.lease(law)?;
            let fence = lease.fence;
            Op::OfLease(lease, TaskOp::Release { fence })
        }
        Kind::ReleaseAll => Op::ReleaseAll,
        Kind::Reap => Op::Reap(match chance.of_ten(9) {
            true => Reaping::Expired,
            false => Reaping::Grace,
        }),
        Kind::Steal => Op::Steal,
        Kind::Ended => ended(law, chance)?,
        _ => of_job(kind, law, chance),
    })
}

fn of_job(kind: Kind, law: &Law, chance: &mut Chance) -> Op {
    let states: &[JobState] = match kind {
        Kind::StartPlanning | Kind::FinishPlanning => &[JobState::Planning],
        Kind::StartFinalizing | Kind::StartCommit => &[JobState::Running, JobState::Committing],
        Kind::FinishCommit | Kind::FailCommit | Kind::Repair => &[JobState::Committing],
        _ => &[JobState::Queued, JobState::Running],
    };
    let for_all = matches!(kind, Kind::RenewEpoch | Kind::ReleaseEpoch | Kind::Cancel);
    let name = chance.job(law, |job| for_all || states.contains(&job.state));
    let job = &law.jobs[&name];
    // Whoever gives a job up is half the time somebody who was replaced: else few
    // jobs would come far.
    let usual = if matches!(kind, Kind::FailCommit | Kind::FailJob) {
        5
    } else {
        8
    };
    let epoch = chance.epoch(job, usual);
    let lease_ms = chance.lease_ms();
    let bad = FailureKind::BadInput;
    let op = match kind {
        Kind::StartPlanning => JobOp::StartPlanning { lease_ms },
        Kind::FinishPlanning => {
            let tasks = (0..TASKS).map(|number| planned(number, law.now_ms));
            let tasks = tasks.collect();
            JobOp::FinishPlanning { epoch, tasks }
        }
        Kind::StartFinalizing => JobOp::StartFinalizing { lease_ms },
        Kind::RenewEpoch => JobOp::RenewEpoch { epoch, lease_ms },
        Kind::ReleaseEpoch => JobOp::ReleaseEpoch { epoch },
        Kind::StartCommit => JobOp::StartCommit { epoch },
        Kind::FinishCommit => JobOp::FinishCommit { epoch },
        Kind::FailCommit => JobOp::FailCommit { epoch, kind: bad },
        Kind::FailJob => JobOp::Fail { epoch, kind: bad },
        Kind::Reopen => {
            let task = TaskOrdinal(chance.below(TASKS.into()) as u32);
            JobOp::Reopen { task }
        }
        Kind::Repair => {
            let every = (0..TASKS).map(TaskOrdinal);
            let tasks = every.filter(|_| chance.of_ten(3)).collect();
            JobOp::Repair { epoch, tasks }
        }
        Kind::Cancel => JobOp::Cancel,
        other => unreachable!("{other:?} is not asked of a job"),
    };
    // Of a job that has no tasks yet these ask for what cannot be.
    let is_planned = !job.tasks.is_empty();
    match op {
        JobOp::Reopen { .. } | JobOp::Repair { .. } if !is_planned => Op::Tick(5),
        op => Op::OfJob(name, op),
    }
}

/// A task as the fixture's plan has it.
fn planned(number: u32, now_ms: i64) -> Task {
    Task::new(PartOrdinal(number * 2), 2, 20, now_ms)
}

fn beat(law: &Law, chance: &mut Chance) -> Op {
    let worker = chance.worker();
    let mut named = Vec::new();
    for lease in law.leases_of(&worker) {
        // Most of what it holds, and some of what it has lost.
        let often = if law.holds(lease) { 6 } else { 1 };
        if chance.of_ten(often) {
            named.push((lease.clone(), chance.below(30)));
        }
    }
    Op::Beat {
        worker,
        named,
        lease_ms: chance.lease_ms(),
    }
}

fn complete(law: &Law, chance: &mut Chance) -> Option<Op> {
    let lease = chance.lease(law)?;
    let first = lease.task.0 * 2;
    let (renamed, differs) = (chance.of_ten(2), chance.of_ten(1));
    let part = |part: u32| RecordedPart {
        part: PartOrdinal(part),
        part_id: match renamed {
            true => format!("etag-{part}-{}", lease.fence),
            false => format!("etag-{part}"),
        },
        crc64: Crc64(u64::MAX - u64::from(part) - u64::from(differs)),
        bytes: 10,
    };
    let mut parts: Vec<_> = (first..first + 2).map(part).collect();
    match chance.below(20) {
        0 => parts.truncate(1),
        1 => parts.reverse(),
        _ => {}
    }
    let fence = lease.fence;
    Some(Op::OfLease(lease, TaskOp::Report { fence, parts }))
}

fn fail(law: &Law, chance: &mut Chance) -> Option<Op> {
    let lease = chance.lease(law)?;
    let mut kind = chance.pick(&FailureKind::ALL)?;
    if kind.is_permanent() && chance.of_ten(8) {
        kind = FailureKind::Transient;
    }
    if law.jobs[&lease.job].state == JobState::Committing && chance.of_ten(5) {
        kind = FailureKind::UploadGone;
    }
    let op = TaskOp::Fail {
        fence: lease.fence,
        kind,
        jitter: chance.pick(&[0.0, 0.25, 0.9])?,
    };
    Some(Op::OfLease(lease, op))
}

fn ended(law: &Law, chance: &mut Chance) -> Option<Op> {
    let name = chance.job(law, |job| job.state.is_unwanted());
    let job = &law.jobs[&name];
    let is_open = job.tasks.iter().any(Task::is_open);
    let cancelled: Vec<_> = (0u32..)
        .zip(&job.tasks)
        .filter(|(_, task)| task.state == TaskState::Cancelled)
        .map(|(number, _)| TaskOrdinal(number))
        .collect();
    // Only a sweep finds it, so not after the cleaning.
    let strands = job.cleaned_at_ms.is_none() && job.state != JobState::Succeeded;
    if strands && chance.of_ten(5) {
        return Some(Op::Strand {
            job: name,
            task: chance.pick(&cancelled)?,
            to: chance.worker(),
        });
    }
    // The janitor waits for what is open.
    let cleans = !is_open || !job.state.is_unwanted();
    cleans.then_some(Op::OfJob(name, JobOp::MarkCleaned))
}

/// What brings every job to its end.
pub(super) fn last(law: &Law) -> Vec<Op> {
    let mut ops = vec![Op::Tick(100_000)];
    for (name, job) in &law.jobs {
        let of_job = |op| Op::OfJob(name.clone(), op);
        let epoch = Epoch(job.epoch.0 + 1);
        match job.state {
            JobState::Committing => ops.extend([
                of_job(JobOp::StartFinalizing { lease_ms: 0 }),
                of_job(JobOp::FailCommit {
                    epoch,
                    kind: FailureKind::BadInput,
                }),
            ]),
            state if state.is_unwanted() => {}
            _ => ops.push(of_job(JobOp::Cancel)),
        }
    }
    ops.extend([Op::ReleaseAll, Op::Reap(Reaping::Expired)]);
    ops
}
