//! From a state to everything that can happen next: workers, messages and time.
//! What becomes of the rows is core's to say.

use chatvec_core::ids::Fence;
use chatvec_core::job::{Job, JobState};
use chatvec_core::task::{Holder, Task, TaskState};

use super::action::Action;
use super::explore::Step;
use super::rows::{Ask, NOW_MS, Rows, Table, name};
use super::rule::{self, Rule};
use super::state::{Bytes, Finalizer, Gate, Lease, Manifest, Put, Stage, State, Storage, Worker};
use super::{Config, Mutant};

/// The model under one configuration.
pub(super) struct Model {
    pub(super) config: Config,
    pub(super) table: Table,
}

/// What can happen in one state, as it is collected.
pub(super) struct Next<'a> {
    pub(super) model: &'a mut Model,
    pub(super) from: State,
    steps: Vec<Step<State, Action, Rule>>,
}

impl Model {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            table: Table::default(),
        }
    }

    pub(super) fn first(&mut self) -> State {
        State {
            rows: self.table.planned(),
            workers: [Worker::Idle; 2],
            puts: [None; 2],
            reports: [None; 2],
            storage: Storage {
                parts: [None; 2],
                object: None,
                manifest: Manifest::None,
                finals: 0,
            },
            finalizers: [Finalizer::Idle; 2],
            reaper: None,
            told: [None; 2],
            lost: [false; 2],
            troubles: self.config.troubles,
        }
    }

    pub(super) fn steps(&mut self, from: &State) -> Vec<Step<State, Action, Rule>> {
        let mut next = Next {
            model: self,
            from: *from,
            steps: Vec::new(),
        };
        for worker in 0..2 {
            match from.workers[worker] {
                Worker::Idle => next.idle(worker),
                Worker::Holding { .. } => next.holding(worker),
            }
            next.put_on_its_way(worker);
            next.report_on_its_way(worker);
        }
        for task in 0..2 {
            next.task(task);
        }
        next.take_back();
        next.user_and_sweep();
        for finalizer in 0..2 {
            next.finalizer(finalizer);
        }
        next.epoch_ends();
        next.steps
    }
}

impl Next<'_> {
    pub(super) fn is_planted(&self, mutant: Mutant) -> bool {
        self.model.config.mutant == Some(mutant)
    }

    pub(super) fn job(&self) -> &Job {
        self.model.table.job(self.from.rows)
    }

    fn row(&self, task: usize) -> &Task {
        &self.job().tasks[task]
    }

    /// What core makes of the rows; nothing if it refuses.
    pub(super) fn after(&mut self, ask: Ask) -> Option<Rows> {
        self.model.table.after(self.from.rows, ask)
    }

    /// The same state with one trouble less, if there may be one.
    pub(super) fn trouble(&self) -> Option<State> {
        let troubles = self.from.troubles.checked_sub(1)?;
        Some(State {
            troubles,
            ..self.from
        })
    }

    pub(super) fn push(&mut self, action: Action, state: State) {
        self.push_with(action, state, None);
    }

    /// With a rule that the action itself has broken.
    fn push_with(&mut self, action: Action, state: State, broken: Option<Rule>) {
        if state == self.from && broken.is_none() {
            return;
        }
        let (before, after) = (self.job(), self.model.table.job(state.rows));
        let broken = broken
            .or_else(|| rule::of_change(before, after))
            .or_else(|| rule::of_state(&state, after))
            .filter(|rule| !self.model.config.unwatched.contains(rule));
        self.steps.push(Step {
            action,
            state,
            broken,
        });
    }

    fn idle(&mut self, worker: usize) {
        for task in 0..2 {
            let Some(rows) = self.after(Ask::Claim { worker, task }) else {
                continue;
            };
            let fence = self.model.table.job(rows).tasks[task].fence.0 as u8;
            let task_number = task as u8;
            let mut state = State { rows, ..self.from };
            state.workers[worker] = Worker::Holding {
                lease: Lease {
                    task: task_number,
                    fence,
                },
                stage: Stage::Begun,
                gate: Gate::Open,
                lapsed: false,
            };
            self.push(Action::Claim(worker, task), state);
            if let Some(trouble) = self.trouble() {
                let state = State { rows, ..trouble };
                self.push(Action::ClaimUnheard(worker, task), state);
            }
        }
    }

    fn holding(&mut self, worker: usize) {
        let Worker::Holding {
            lease,
            stage,
            gate,
            lapsed,
        } = self.from.workers[worker]
        else {
            return;
        };
        let fences_itself = !self.is_planted(Mutant::NoSelfFence);
        if stage == Stage::Begun && gate == Gate::Open && self.from.puts[worker].is_none() {
            let late = lapsed && self.model.config.late_bytes == Bytes::Others;
            let bytes = if late { Bytes::Others } else { Bytes::Right };
            let mut state = self.at_stage(worker, Stage::Putting);
            state.puts[worker] = Some(Put { lease, bytes });
            let broken = lapsed.then_some(Rule::NoLatePut);
            self.push_with(Action::BeginPut(worker), state, broken);
        }
        if let (Stage::Put(bytes), None) = (stage, self.from.reports[worker]) {
            let mut state = self.at_stage(worker, Stage::Reported(bytes));
            state.reports[worker] = Some(Put { lease, bytes });
            self.push(Action::Report(worker), state);
        }
        if gate == Gate::Open && fences_itself {
            let mut state = self.from;
            state.workers[worker] = Worker::Holding {
                lease,
                stage,
                gate: Gate::Shut,
                lapsed,
            };
            self.push(Action::ShutGate(worker), state);
        }
        self.beat(worker, lease, stage);
        self.end_early(worker, lease, stage);
    }

    fn beat(&mut self, worker: usize, lease: Lease, stage: Stage) {
        let mut state = self.from;
        state.workers[worker] = Worker::Idle;
        if let Some(rows) = self.after(Ask::Extend { worker, lease }) {
            state.rows = rows;
            if self.model.table.job(rows).state.is_unwanted() {
                let released = self.model.table.after(rows, Ask::Release(lease));
                state.rows = released.expect("the lease was just renewed");
            } else {
                state.workers[worker] = Worker::Holding {
                    lease,
                    stage,
                    gate: Gate::Open,
                    lapsed: false,
                };
            }
        }
        self.push(Action::Beat(worker), state);
    }

    /// The worker drains, fails, or dies.
    fn end_early(&mut self, worker: usize, lease: Lease, stage: Stage) {
        let Some(mut state) = self.trouble() else {
            return;
        };
        state.workers[worker] = Worker::Idle;
        self.push(Action::WorkerDies(worker), state);
        if let Some(rows) = self.after(Ask::Release(lease)) {
            self.push(Action::GiveBack(worker), State { rows, ..state });
        }
        if stage == Stage::Begun
            && let Some(rows) = self.after(Ask::GiveUp(lease))
        {
            self.push(Action::GiveUp(worker), State { rows, ..state });
        }
    }

    fn at_stage(&self, worker: usize, stage: Stage) -> State {
        let mut state = self.from;
        if let Worker::Holding {
            lease,
            gate,
            lapsed,
            ..
        } = state.workers[worker]
        {
            state.workers[worker] = Worker::Holding {
                lease,
                stage,
                gate,
                lapsed,
            };
        }
        state
    }

    /// Whether the worker waits for the answer to this.
    fn waits(&self, worker: usize, put: Put, expected: Stage) -> bool {
        let is_at = matches!(
            self.from.workers[worker],
            Worker::Holding { stage, .. } if stage == expected
        );
        is_at && self.from.holds(worker, put.lease)
    }

    fn put_on_its_way(&mut self, worker: usize) {
        let Some(put) = self.from.puts[worker] else {
            return;
        };
        let waits = self.waits(worker, put, Stage::Putting);
        let stage = |this: &Self, stage| match waits {
            true => this.at_stage(worker, stage),
            false => this.from,
        };
        let mut lost = stage(self, Stage::Begun);
        lost.puts[worker] = None;
        self.push(Action::PutLost(worker), lost);
        if self.from.storage.object.is_some() {
            self.put_too_late(worker, put, waits);
            return;
        }
        let task = usize::from(put.lease.task);
        let stored = |mut state: State| {
            state.puts[worker] = None;
            state.storage.parts[task] = Some(put.bytes);
            state.lost[task] = false;
            state
        };
        let heard = stored(stage(self, Stage::Put(put.bytes)));
        self.push(Action::PutArrives(worker), heard);
        if waits {
            let unheard = stored(stage(self, Stage::Begun));
            self.push(Action::PutUnheard(worker), unheard);
        }
    }

    /// The upload is an object already. The worker says so, if it still waits.
    fn put_too_late(&mut self, worker: usize, put: Put, waits: bool) {
        let mut state = self.from;
        state.puts[worker] = None;
        if waits {
            state.workers[worker] = Worker::Idle;
            let says = match self.is_planted(Mutant::GoneUploadFails) {
                true => Ask::GiveUp(put.lease),
                false => Ask::UploadGone(put.lease),
            };
            if let Some(rows) = self.after(says) {
                state.rows = rows;
            }
        }
        self.push(Action::PutArrives(worker), state);
    }

    fn report_on_its_way(&mut self, worker: usize) {
        let Some(report) = self.from.reports[worker] else {
            return;
        };
        let waits = self.waits(worker, report, Stage::Reported(report.bytes));
        let mut lost = match waits {
            true => self.at_stage(worker, Stage::Put(report.bytes)),
            false => self.from,
        };
        lost.reports[worker] = None;
        self.push(Action::ReportLost(worker), lost);

        let task = usize::from(report.lease.task);
        let rows = self.after(Ask::Report {
            lease: self.lease_taken(worker, report.lease),
            bytes: report.bytes,
        });
        let mut heard = State {
            rows: rows.unwrap_or(self.from.rows),
            ..self.from
        };
        let mut broken = None;
        if let Some(done) = &self.model.table.job(heard.rows).tasks[task].done
            && rows.is_some_and(|rows| rows != self.from.rows)
            && done.fence != Fence(report.lease.fence.into())
        {
            broken = Some(Rule::DoneUnderItsFence);
        }
        self.push_with(Action::ReportUnheard(worker), heard, broken);
        heard.reports[worker] = None;
        if waits {
            heard.workers[worker] = Worker::Idle;
            let is_good = rows.is_some() && self.is_done(heard.rows, task);
            heard.told[task] = match is_good {
                true => Some(report.lease.fence),
                false => heard.told[task],
            };
        }
        self.push_with(Action::ReportArrives(worker), heard, broken);
    }

    fn is_done(&self, rows: Rows, task: usize) -> bool {
        self.model.table.job(rows).tasks[task].state == TaskState::Done
    }

    /// The lease that the store compares: the report's, unless a defect says so.
    fn lease_taken(&self, worker: usize, lease: Lease) -> Lease {
        let row = self.row(lease.task.into());
        let holder = row.holder.as_ref();
        let is_forgotten = match self.model.config.mutant {
            Some(Mutant::NoFenceGuard) => row.state == TaskState::Leased,
            Some(Mutant::GuardByWorkerOnly) => {
                holder.is_some_and(|holder| holder.worker == name(worker))
            }
            _ => false,
        };
        match is_forgotten {
            true => lease_of(lease.task, row),
            false => lease,
        }
    }

    /// What time, the reaper and the store's losses do to a task.
    fn task(&mut self, task: usize) {
        let row = self.row(task);
        let is_done = row.state == TaskState::Done;
        if let Some(holder) = row.holder.clone() {
            self.held(lease_of(task as u8, row), &holder);
        }
        let is_put = self.from.storage.parts[task].is_some() && self.from.storage.object.is_none();
        if is_put
            && is_done
            && let Some(mut state) = self.trouble()
        {
            state.storage.parts[task] = None;
            state.lost[task] = true;
            self.push(Action::LosePart(task), state);
        }
    }

    fn held(&mut self, lease: Lease, holder: &Holder) {
        let task = usize::from(lease.task);
        let worker = usize::from(holder.worker == name(1));
        let knows = self.from.holds(worker, lease);
        if holder.expires_at_ms > NOW_MS {
            self.lease_ends(task, worker, knows);
        } else if self.from.reaper.is_none() {
            let mut state = self.from;
            state.reaper = Some(lease);
            self.push(Action::ReadExpired(task), state);
        }
        if !knows && let Some(rows) = self.after(Ask::Miss { worker, task }) {
            let state = State { rows, ..self.from };
            self.push(Action::BeatWithout(worker, task), state);
        }
        if let (Some(rows), Some(trouble)) = (self.after(Ask::Steal(lease)), self.trouble()) {
            self.push(Action::Steal(task), State { rows, ..trouble });
        }
    }

    /// Only after the gate of whoever knows of the lease was shut: two thirds of
    /// a lease, counted from before it was asked for, are over before the whole.
    fn lease_ends(&mut self, task: usize, worker: usize, knows: bool) {
        let mut state = self.from;
        if knows {
            let Some(trouble) = self.trouble() else {
                return;
            };
            state = trouble;
            if let Worker::Holding { gate, lapsed, .. } = &mut state.workers[worker] {
                if *gate == Gate::Open && !self.is_planted(Mutant::NoSelfFence) {
                    return;
                }
                *lapsed = true;
            }
        }
        if let Some(rows) = self.after(Ask::LeaseEnds { task }) {
            self.push(Action::LeaseEnds(task), State { rows, ..state });
        }
    }

    fn take_back(&mut self) {
        let Some(lease) = self.from.reaper else {
            return;
        };
        let task = usize::from(lease.task);
        let rows = match self.is_planted(Mutant::ReaperWithoutRecheck) {
            true => self.after(Ask::ReapUnseen { task }),
            false => self.after(Ask::Reap(lease)),
        };
        let state = State {
            rows: rows.unwrap_or(self.from.rows),
            reaper: None,
            ..self.from
        };
        self.push(Action::TakeBack, state);
    }

    fn user_and_sweep(&mut self) {
        if let (Some(rows), Some(trouble)) = (self.after(Ask::Cancel), self.trouble())
            && rows != self.from.rows
        {
            self.push(Action::Cancel, State { rows, ..trouble });
        }
        if self.job().state != JobState::Succeeded
            && let Some(rows) = self.after(Ask::Sweep)
        {
            self.push(Action::Sweep, State { rows, ..self.from });
        }
    }
}

fn lease_of(task: u8, row: &Task) -> Lease {
    Lease {
        task,
        fence: row.fence.0 as u8,
    }
}
