//! One leased task, from its message to its report.

use std::sync::Arc;

use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskFailure, TaskSpec};
use chatvec_proto::v1;

use super::capacity::Grant;
use super::client::internal;
use super::execute::{FinishedPart, Slot, SlotOptions, memory_needed};
use super::failure::Stop;
use super::held::Running;
use super::run::{WhenExhausted, Work, Worker};
use crate::fault::{self, Failpoint};
use crate::telemetry;

impl Worker {
    /// Executes a task and tells the coordinator how it ended. The slot is free
    /// when the coordinator knows, the memory when the task has ended.
    pub(super) async fn run_task(
        &self,
        running: &Arc<Running>,
        task: v1::LeasedTask,
        grant: Grant,
        work: &Work,
    ) {
        let (outcome, _slot) = match task.spec.map(TaskSpec::try_from) {
            Some(Ok(spec)) => {
                let needed = memory_needed(&spec);
                self.capacity.expect(needed);
                match self.capacity.fit(grant, needed).await {
                    Some(grant) => {
                        let running = Arc::clone(running);
                        let outcome = self.execute(running, spec, task.upload_id).await;
                        (outcome, Some(grant.release_memory()))
                    }
                    None => (Err(self.never_fits(&spec, needed)), None),
                }
            }
            Some(Err(error)) => (Err(Stop::Failed(internal("task", error.to_string()))), None),
            None => {
                let message = "the task has no spec".to_owned();
                (Err(Stop::Failed(internal("task", message))), None)
            }
        };
        self.tell(running, outcome, work).await;
    }

    async fn tell(&self, running: &Running, outcome: Result<v1::TaskDone, Stop>, work: &Work) {
        let lease = &running.lease;
        let told = match outcome {
            Ok(done) => work.reporter.done(lease, done).await.map(Some),
            Err(Stop::Failed(failure)) => {
                telemetry::failed(&failure.problem);
                let stops = self.stops_for(&failure);
                let told = work.reporter.failed(lease, failure).await.map(Some);
                if stops {
                    work.stop.cancel();
                }
                told
            }
            Err(Stop::LeaseLost) => {
                tracing::info!("lease lost, the task is dropped");
                return;
            }
            Err(Stop::Cancelled | Stop::Drained) => {
                self.client.release(&self.id.0, lease).await.map(|()| None)
            }
        };
        match told {
            Ok(Some(v1::ReportResult::LeaseLost)) => {
                tracing::info!("the report came after the lease, it does not count");
            }
            Ok(Some(_)) => tracing::debug!("task reported"),
            Ok(None) => tracing::info!("task given back"),
            Err(error) if self.gives_up_on(&error) => work.stop.cancel(),
            Err(error) => {
                tracing::error!(%error, "the coordinator refused the report, the lease will expire");
            }
        }
    }

    /// Runs the task on a thread of its own: reads, arithmetic and writes block.
    async fn execute(
        &self,
        running: Arc<Running>,
        spec: TaskSpec,
        upload_id: String,
    ) -> Result<v1::TaskDone, Stop> {
        fault::hit(Failpoint::TaskBegun, &spec.target)
            .await
            .map_err(Stop::injected)?;
        let slots = Arc::clone(&self.slots);
        let (storage, pool) = (self.storage.clone(), self.pool.clone());
        let work = move || {
            let take = || {
                slots
                    .lock()
                    .expect("nothing panics while it holds this")
                    .pop()
            };
            let mut slot =
                take().unwrap_or_else(|| Slot::new(SlotOptions::default(), storage, pool));
            let outcome = slot.execute(&spec, &upload_id, &running.gate, &running.progress);
            slots
                .lock()
                .expect("nothing panics while it holds this")
                .push(slot);
            let parts = outcome?.into_iter().map(finished_part).collect();
            Ok(v1::TaskDone {
                file: spec.file.0,
                parts,
            })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(panic) => Err(Stop::Failed(internal(
                "task",
                format!("the task panicked: {panic}"),
            ))),
        }
    }

    /// The failure of a task that takes more than all of the memory.
    fn never_fits(&self, spec: &TaskSpec, needed: u64) -> Stop {
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let message = format!(
            "expected a task that fits in this worker's memory of {} MiB, found one that takes {} MiB",
            mebibytes(self.options.memory_bytes),
            mebibytes(needed),
        );
        Stop::Failed(TaskFailure {
            kind: FailureKind::ResourceExhausted,
            problem: Problem::new(&spec.target, message)
                .with_hint("give the workers more by `--memory`, or make the parts smaller"),
        })
    }

    fn stops_for(&self, failure: &TaskFailure) -> bool {
        let stops = match failure.kind {
            // It would fail every task that it takes.
            FailureKind::Preempted => true,
            FailureKind::ResourceExhausted => self.options.exhausted == WhenExhausted::Stop,
            _ => false,
        };
        if stops {
            self.note_exhausted(failure.problem.clone());
        }
        stops
    }
}

fn finished_part(part: FinishedPart) -> v1::FinishedPart {
    v1::FinishedPart {
        part: part.part.0,
        part_id: part.part_id,
        crc64: part.crc.0,
        length: part.len,
        statistics: Some(v1::PartStatistics {
            tensors: part.sums.into_iter().map(Into::into).collect(),
        }),
    }
}
