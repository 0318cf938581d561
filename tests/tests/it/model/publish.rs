//! From a state to what finalizers can do next.

use super::Mutant;
use super::act::Next;
use super::action::Action;
use super::rows::{Ask, NOW_MS, all_done, bytes_of};
use super::state::{Bytes, Finalizer, Manifest, Publishing, State};

impl Next<'_> {
    pub(super) fn finalizer(&mut self, number: usize) {
        let Finalizer::At { epoch, step } = self.from.finalizers[number] else {
            self.begin(number);
            return;
        };
        match step {
            Publishing::Begun(parts) => {
                let freeze = Ask::Freeze {
                    epoch: self.epoch_taken(epoch),
                };
                let frozen = Some((epoch, Publishing::Frozen(parts)));
                self.of_rows(Action::Freeze(number), number, freeze, frozen);
            }
            Publishing::Frozen(parts) => self.claim_output(number, epoch, parts),
            Publishing::Claimed(parts) => {
                self.complete(number, epoch, parts);
                if self.is_planted(Mutant::ManifestBeforeFiles) {
                    self.seal(number, epoch, step);
                }
            }
            Publishing::Damaged(parts) => self.repair(number, epoch, parts),
            Publishing::Completed => self.seal(number, epoch, Publishing::Sealed),
            Publishing::Sealed => {
                let finish = Ask::Finish {
                    epoch: self.epoch_taken(epoch),
                };
                self.of_rows(Action::Finish(number), number, finish, None);
            }
        }
        if let Some(mut state) = self.trouble() {
            state.finalizers[number] = Finalizer::Idle;
            self.push(Action::FinalizerDies(number), state);
        }
    }

    /// A paused finalizer loses its epoch; one that is dead has lost it already.
    pub(super) fn epoch_ends(&mut self) {
        let job = self.job();
        if job.epoch_expires_at_ms <= NOW_MS {
            return;
        }
        let is_alive = self.from.finalizers.iter().any(|finalizer| {
            matches!(finalizer, Finalizer::At { epoch, .. } if u64::from(*epoch) == job.epoch.0)
        });
        let state = match is_alive {
            true => self.trouble(),
            false => Some(self.from),
        };
        if let (Some(state), Some(rows)) = (state, self.after(Ask::EpochEnds)) {
            self.push(Action::EpochEnds, State { rows, ..state });
        }
    }

    /// The epoch that the store compares: the finalizer's, unless a defect says so.
    fn epoch_taken(&self, epoch: u8) -> u8 {
        match self.is_planted(Mutant::NoEpochGuard) {
            true => self.job().epoch.0 as u8,
            false => epoch,
        }
    }

    fn with(&self, number: usize, next: Option<(u8, Publishing)>) -> State {
        let mut state = self.from;
        state.finalizers[number] = match next {
            Some((epoch, step)) => Finalizer::At { epoch, step },
            None => Finalizer::Idle,
        };
        state
    }

    /// What a finalizer asks of the store: refused, its turn is over.
    fn of_rows(
        &mut self,
        action: Action,
        number: usize,
        ask: Ask,
        accepted: Option<(u8, Publishing)>,
    ) {
        let state = match self.after(ask) {
            Some(rows) => State {
                rows,
                ..self.with(number, accepted)
            },
            None => self.with(number, None),
        };
        self.push(action, state);
    }

    fn begin(&mut self, number: usize) {
        if !all_done(self.job()) {
            return;
        }
        if let Some(rows) = self.after(Ask::Begin) {
            let job = self.model.table.job(rows);
            let parts = [0, 1].map(|task| {
                let parts: &[_] = &job.tasks[task].parts;
                parts.first().map(bytes_of)
            });
            let begun = Some((job.epoch.0 as u8, Publishing::Begun(parts)));
            let state = State {
                rows,
                ..self.with(number, begun)
            };
            self.push(Action::Begin(number), state);
        }
    }

    fn claim_output(&mut self, number: usize, epoch: u8, parts: [Option<Bytes>; 2]) {
        let step = match self.from.storage.manifest {
            Manifest::Final => Publishing::Sealed,
            Manifest::None | Manifest::Claim => Publishing::Claimed(parts),
        };
        let mut state = self.with(number, Some((epoch, step)));
        if state.storage.manifest == Manifest::None {
            state.storage.manifest = Manifest::Claim;
        }
        self.push(Action::ClaimOutput(number), state);
    }

    /// The store completes an upload from exactly the parts that are named.
    fn complete(&mut self, number: usize, epoch: u8, named: [Option<Bytes>; 2]) {
        let storage = self.from.storage;
        let there = match self.is_planted(Mutant::CompleteFromListing) {
            true => storage.parts,
            false => named,
        };
        let step = match storage.object {
            Some(object) if object == there => Publishing::Completed,
            Some(_) if self.is_planted(Mutant::CompleteFromListing) => Publishing::Completed,
            // Not ours: nobody knows what to do, and the next turn looks again.
            Some(_) => return self.push(Action::Complete(number), self.with(number, None)),
            None if storage.parts == there => Publishing::Completed,
            None => Publishing::Damaged([0, 1].map(|part| storage.parts[part] != there[part])),
        };
        let mut state = self.with(number, Some((epoch, step)));
        if step == Publishing::Completed && storage.object.is_none() {
            state.storage.object = Some(there);
            state.storage.parts = [None; 2];
        }
        self.push(Action::Complete(number), state);
    }

    fn repair(&mut self, number: usize, epoch: u8, damaged: [bool; 2]) {
        let repair = Ask::Repair {
            epoch: self.epoch_taken(epoch),
            tasks: damaged,
        };
        let mut state = self.with(number, None);
        if let Some(rows) = self.after(repair) {
            state.rows = rows;
            // Only the finalizer whose turn it is may undo what was answered.
            let has_turn = self.job().epoch.0 == u64::from(epoch);
            for task in (0..2).filter(|task| damaged[*task] && has_turn) {
                state.told[task] = None;
            }
        }
        self.push(Action::Repair(number), state);
    }

    /// The final manifest is written where the claim still stands; where it is
    /// final already it has the same bytes.
    fn seal(&mut self, number: usize, epoch: u8, then: Publishing) {
        let mut state = self.with(number, Some((epoch, then)));
        let is_conditional = !self.is_planted(Mutant::UnconditionalManifest);
        if state.storage.manifest == Manifest::Claim || !is_conditional {
            state.storage.manifest = Manifest::Final;
            state.storage.finals = state.storage.finals.saturating_add(1).min(2);
        }
        self.push(Action::Seal(number), state);
    }
}
