//! What the model knows at one moment.

use super::rows::{Exchange, Rows, Table};

/// Everything at one moment. Workers, finalizers and tasks are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct State {
    /// What the job store says.
    pub(super) rows: Rows,
    /// What each worker knows.
    pub(super) workers: [Worker; 2],
    /// A put of each worker that is on its way, for whatever long.
    pub(super) puts: [Option<Put>; 2],
    /// A report of each worker that is on its way.
    pub(super) reports: [Option<Put>; 2],
    /// What the object store has.
    pub(super) storage: Storage,
    /// What each finalizer knows.
    pub(super) finalizers: [Finalizer; 2],
    /// What the reaper has read as expired.
    pub(super) reaper: Option<Lease>,
    /// Of each task the fence of a report that was answered to its worker.
    pub(super) told: [Option<u8>; 2],
    /// Whether the store has lost the task's part since it was put.
    pub(super) lost: [bool; 2],
    /// How many more troubles there may be.
    pub(super) troubles: u8,
}

/// A lease as somebody remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lease {
    pub(super) task: u8,
    pub(super) fence: u8,
}

/// What a worker holds, or believes that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Worker {
    Idle,
    Holding {
        lease: Lease,
        stage: Stage,
        gate: Gate,
        /// The lease has run out, by the store's clock, since it was last renewed.
        lapsed: bool,
    },
}

/// How far a worker has come with its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stage {
    Begun,
    Putting,
    Put(Bytes),
    Reported(Bytes),
}

/// Whether a worker may begin a put: open for two thirds of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Gate {
    Open,
    Shut,
}

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Bytes {
    Right,
    Others,
}

/// Bytes that were, or are to be, put under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Put {
    pub(super) lease: Lease,
    pub(super) bytes: Bytes,
}

/// One upload of one file of two parts, one of each task; the object that it
/// becomes; the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Storage {
    /// The upload's parts; of no meaning once the object is there.
    pub(super) parts: [Option<Bytes>; 2],
    pub(super) object: Option<[Option<Bytes>; 2]>,
    pub(super) manifest: Manifest,
    /// How often the store has taken a final manifest.
    pub(super) finals: u8,
}

/// What stands at the manifest's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Manifest {
    None,
    Claim,
    Final,
}

/// How far a finalizer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Finalizer {
    Idle,
    At { epoch: u8, step: Publishing },
}

/// The steps of publishing. Parts are read when a turn begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Publishing {
    Begun([Option<Bytes>; 2]),
    Frozen([Option<Bytes>; 2]),
    Claimed([Option<Bytes>; 2]),
    /// These parts are not what was recorded.
    Damaged([bool; 2]),
    Completed,
    Sealed,
}

impl State {
    /// The least of the states that differ from this one by names alone: of the
    /// workers, the finalizers and the tasks, which are all alike.
    pub(super) fn form(&self, table: &mut Table) -> Self {
        let by_tasks = self.tasks_exchanged(table);
        let all = [
            *self,
            by_tasks,
            self.workers_exchanged(table),
            by_tasks.workers_exchanged(table),
        ];
        let sorted = all.into_iter().map(|mut state| {
            state.finalizers.sort();
            state
        });
        sorted.min().expect("there are four")
    }

    fn workers_exchanged(mut self, table: &mut Table) -> Self {
        self.rows = table.exchanged(self.rows, Exchange::Workers);
        self.workers.reverse();
        self.puts.reverse();
        self.reports.reverse();
        self
    }

    fn tasks_exchanged(mut self, table: &mut Table) -> Self {
        self.rows = table.exchanged(self.rows, Exchange::Tasks);
        for worker in &mut self.workers {
            if let Worker::Holding { lease, .. } = worker {
                lease.exchange();
            }
        }
        for put in self.puts.iter_mut().chain(&mut self.reports).flatten() {
            put.lease.exchange();
        }
        self.reaper.iter_mut().for_each(Lease::exchange);
        self.storage.parts.reverse();
        self.storage
            .object
            .iter_mut()
            .for_each(|object| object.reverse());
        self.told.reverse();
        self.lost.reverse();
        for finalizer in &mut self.finalizers {
            if let Finalizer::At { step, .. } = finalizer {
                step.exchange();
            }
        }
        self
    }

    /// The worker, if it holds this very lease as far as it knows.
    pub(super) fn holds(&self, worker: usize, lease: Lease) -> bool {
        matches!(self.workers[worker], Worker::Holding { lease: held, .. } if held == lease)
    }
}

impl Lease {
    fn exchange(&mut self) {
        self.task = 1 - self.task;
    }
}

impl Publishing {
    fn exchange(&mut self) {
        match self {
            Self::Begun(parts) | Self::Frozen(parts) | Self::Claimed(parts) => parts.reverse(),
            Self::Damaged(parts) => parts.reverse(),
            Self::Completed | Self::Sealed => {}
        }
    }
}
