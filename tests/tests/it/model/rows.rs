//! The rows of the job, and what becomes of them: core's transitions, each asked
//! once.

use std::collections::HashMap;
use std::rc::Rc;

use chatvec_core::ids::{Attempt, Crc64, Epoch, Fence, PartOrdinal, TaskOrdinal, WorkerId};
use chatvec_core::job::{Job, JobOp};
use chatvec_core::task::{
    FailureKind, Holder, Others, RecordedPart, TakenAway, Task, TaskOp, TaskState,
};

use super::state::{Bytes, Lease};

/// The model's time stands still: a lease lasts until an action ends it.
pub(super) const NOW_MS: i64 = 0;
/// A lease of this length has not run out, and one that ends now has.
const LEASE_MS: i64 = 1;

/// A job and its tasks, by their number in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rows(u32);

/// What is asked of the rows, or done to them by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    Claim {
        worker: usize,
        task: usize,
    },
    Extend {
        worker: usize,
        lease: Lease,
    },
    Miss {
        worker: usize,
        task: usize,
    },
    Report {
        lease: Lease,
        bytes: Bytes,
    },
    Release(Lease),
    GiveUp(Lease),
    UploadGone(Lease),
    Steal(Lease),
    Reap(Lease),
    /// A defect: whatever the row has become is taken for an expired lease.
    ReapUnseen {
        task: usize,
    },
    Cancel,
    Sweep,
    Begin,
    Freeze {
        epoch: u8,
    },
    Repair {
        epoch: u8,
        tasks: [bool; 2],
    },
    Finish {
        epoch: u8,
    },
    /// Time ends the lease of a task.
    LeaseEnds {
        task: usize,
    },
    /// Time ends the lease of the epoch.
    EpochEnds,
}

/// Two names that are given to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Exchange {
    Workers,
    Tasks,
}

/// Every distinct state of the rows, and what is known to follow from it.
#[derive(Default)]
pub(super) struct Table {
    all: Vec<Rc<Job>>,
    numbers: HashMap<Rc<Job>, Rows>,
    known: HashMap<(Rows, Ask), Option<Rows>>,
    exchanged: HashMap<(Rows, Exchange), Rows>,
}

impl Table {
    /// A job with two tasks of one part each, just planned.
    pub(super) fn planned(&mut self) -> Rows {
        let task = |part| Task::new(PartOrdinal(part), 1, 1, NOW_MS);
        let ops = [
            JobOp::StartPlanning { lease_ms: LEASE_MS },
            JobOp::FinishPlanning {
                epoch: Epoch(1),
                tasks: vec![task(0), task(1)],
            },
        ];
        let job = ops.iter().fold(Job::new(NOW_MS), |job, op| {
            job.after(op, NOW_MS).expect("nobody else plans it")
        });
        self.put(job)
    }

    pub(super) fn job(&self, rows: Rows) -> &Job {
        &self.all[rows.0 as usize]
    }

    /// The rows afterwards; nothing if core refuses.
    pub(super) fn after(&mut self, rows: Rows, ask: Ask) -> Option<Rows> {
        if let Some(known) = self.known.get(&(rows, ask)) {
            return *known;
        }
        let after = after(self.job(rows), ask).map(|job| self.put(job));
        self.known.insert((rows, ask), after);
        after
    }

    /// The same rows under other names.
    pub(super) fn exchanged(&mut self, rows: Rows, exchange: Exchange) -> Rows {
        if let Some(known) = self.exchanged.get(&(rows, exchange)) {
            return *known;
        }
        let exchanged = exchange.of(self.job(rows));
        let exchanged = self.put(exchanged);
        self.exchanged.insert((rows, exchange), exchanged);
        exchanged
    }

    fn put(&mut self, mut job: Job) -> Rows {
        // These count what happened, and decide nothing.
        job.revision = 0;
        for task in &mut job.tasks {
            task.attempt = Attempt(0);
        }
        if let Some(number) = self.numbers.get(&job) {
            return *number;
        }
        let number = Rows(self.all.len() as u32);
        let job = Rc::new(job);
        self.all.push(job.clone());
        self.numbers.insert(job, number);
        number
    }
}

impl Exchange {
    fn of(self, job: &Job) -> Job {
        let mut job = job.clone();
        match self {
            Self::Tasks => {
                job.tasks.swap(0, 1);
                for (number, task) in (0..).zip(&mut job.tasks) {
                    task.first_part = PartOrdinal(number);
                    for part in &mut task.parts {
                        part.part = PartOrdinal(number);
                    }
                }
            }
            Self::Workers => job.tasks.iter_mut().for_each(exchange_workers),
        }
        job
    }
}

fn exchange_workers(task: &mut Task) {
    let holder = task.holder.iter_mut().map(|holder| &mut holder.worker);
    let done = task.done.iter_mut().map(|done| &mut done.worker);
    let named = holder.chain(done);
    for worker in named
        .chain(&mut task.stolen_from)
        .chain(&mut task.first_crash_worker)
    {
        *worker = name(usize::from(*worker == name(0)));
    }
}

/// The bytes of a recorded part.
pub(super) fn bytes_of(part: &RecordedPart) -> Bytes {
    match part.crc64 {
        Crc64(0) => Bytes::Right,
        _ => Bytes::Others,
    }
}

pub(super) fn name(worker: usize) -> WorkerId {
    WorkerId(worker.to_string())
}

/// Whether every task of the job is DONE.
pub(super) fn all_done(job: &Job) -> bool {
    job.tasks.iter().all(|task| task.state == TaskState::Done)
}

fn after(job: &Job, ask: Ask) -> Option<Job> {
    let mut timed = job.clone();
    match ask {
        Ask::LeaseEnds { task } => {
            timed.tasks[task].holder.as_mut()?.expires_at_ms = NOW_MS;
            return Some(timed);
        }
        Ask::EpochEnds => {
            timed.epoch_expires_at_ms = NOW_MS;
            return Some(timed);
        }
        Ask::Sweep => {
            let swept = job.after(&JobOp::Sweep, NOW_MS).ok()?;
            return swept.after(&JobOp::Settle, NOW_MS).ok();
        }
        Ask::ReapUnseen { task } => {
            let row = &mut timed.tasks[task];
            row.state = TaskState::Leased;
            row.done = None;
            row.holder = Some(Holder {
                worker: name(0),
                expires_at_ms: NOW_MS,
            });
            let fence = row.fence;
            return timed
                .after(&of_task(task, TaskOp::Reap { fence }), NOW_MS)
                .ok();
        }
        _ => {}
    }
    job.after(&op_of(ask), NOW_MS).ok()
}

fn op_of(ask: Ask) -> JobOp {
    let epoch_of = |epoch: u8| Epoch(epoch.into());
    match ask {
        Ask::Cancel => JobOp::Cancel,
        Ask::Begin => JobOp::StartFinalizing { lease_ms: LEASE_MS },
        Ask::Freeze { epoch } => JobOp::StartCommit {
            epoch: epoch_of(epoch),
        },
        Ask::Finish { epoch } => JobOp::FinishCommit {
            epoch: epoch_of(epoch),
        },
        Ask::Repair { epoch, tasks } => JobOp::Repair {
            epoch: epoch_of(epoch),
            tasks: (0..2)
                .filter(|task| tasks[*task])
                .map(|task| TaskOrdinal(task as u32))
                .collect(),
        },
        Ask::Reap(lease) => JobOp::Reap {
            leases: vec![(TaskOrdinal(lease.task.into()), fence_of(lease))],
        },
        Ask::Claim { worker, task } => of_task(
            task,
            TaskOp::Claim {
                worker: name(worker),
                lease_ms: LEASE_MS,
                others: Others::Alive,
            },
        ),
        Ask::Miss { worker, task } => of_task(
            task,
            TaskOp::Miss {
                worker: name(worker),
                lease_ms: LEASE_MS,
            },
        ),
        Ask::Extend { worker, lease } => under(
            lease,
            TaskOp::Extend {
                worker: name(worker),
                fence: fence_of(lease),
                lease_ms: LEASE_MS,
                progress_bytes: 0,
            },
        ),
        Ask::Report { lease, bytes } => {
            let parts = vec![recorded(lease.task, bytes)];
            let fence = fence_of(lease);
            under(lease, TaskOp::Report { fence, parts })
        }
        Ask::Release(lease) => {
            let fence = fence_of(lease);
            under(lease, TaskOp::Release { fence })
        }
        Ask::GiveUp(lease) => under(lease, failure(lease, FailureKind::BadInput)),
        Ask::UploadGone(lease) => under(lease, failure(lease, FailureKind::UploadGone)),
        Ask::Steal(lease) => {
            let (fence, why) = (fence_of(lease), TakenAway::Stolen);
            under(lease, TaskOp::TakeAway { fence, why })
        }
        Ask::LeaseEnds { .. } | Ask::EpochEnds | Ask::Sweep | Ask::ReapUnseen { .. } => {
            unreachable!("{ask:?} is more than one operation, or none")
        }
    }
}

fn of_task(task: usize, op: TaskOp) -> JobOp {
    JobOp::Task {
        task: TaskOrdinal(task as u32),
        op,
    }
}

fn under(lease: Lease, op: TaskOp) -> JobOp {
    of_task(lease.task.into(), op)
}

fn fence_of(lease: Lease) -> Fence {
    Fence(lease.fence.into())
}

fn failure(lease: Lease, kind: FailureKind) -> TaskOp {
    TaskOp::Fail {
        fence: fence_of(lease),
        kind,
        jitter: 0.0,
    }
}

/// A part as a report names it.
fn recorded(task: u8, bytes: Bytes) -> RecordedPart {
    let (id, crc64) = match bytes {
        Bytes::Right => ("right", 0),
        Bytes::Others => ("others", 1),
    };
    RecordedPart {
        part: PartOrdinal(task.into()),
        part_id: id.to_owned(),
        crc64: Crc64(crc64),
        bytes: 1,
    }
}
