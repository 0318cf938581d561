//! Reports what became of tasks; those that are ready together go in one call.

use chatvec_core::ids::WorkerId;
use chatvec_core::task::{Lease, TaskFailure};
use chatvec_proto::v1;
use chatvec_proto::v1::task_report::Outcome;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::client::WorkerClient;
use crate::fault::{self, Failpoint};

/// Most reports in one call. Each may hold the statistics of many tensors, and
/// a message has a limit.
const REPORTS_MAX: usize = 16;

/// Takes reports. As each task waits for the answer to its own, there are never
/// more unanswered ones than slots, however long the coordinator is away.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    sender: mpsc::UnboundedSender<Pending>,
}

#[derive(Debug)]
struct Pending {
    report: v1::TaskReport,
    answer: oneshot::Sender<Result<v1::ReportResult, Status>>,
}

impl Reporter {
    /// A reporter whose calls are made by a task of the current runtime; it
    /// ends with the last clone of the reporter.
    pub(super) fn start(client: WorkerClient, worker: WorkerId) -> Self {
        let (sender, mut pending) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while pending.recv_many(&mut batch, REPORTS_MAX).await > 0 {
                send(&client, &worker, std::mem::take(&mut batch)).await;
            }
        });
        Self { sender }
    }

    /// Reports a task as done; returns when the coordinator has answered.
    pub(super) async fn done(
        &self,
        lease: &Lease,
        done: v1::TaskDone,
    ) -> Result<v1::ReportResult, Status> {
        fault::hit(Failpoint::ReportReady, &lease.job).await?;
        let result = self.report(lease, Outcome::Done(done)).await?;
        fault::hit(Failpoint::ReportAnswered, &lease.job).await?;
        Ok(result)
    }

    /// Reports a task as failed.
    pub(super) async fn failed(
        &self,
        lease: &Lease,
        failure: TaskFailure,
    ) -> Result<v1::ReportResult, Status> {
        self.report(lease, Outcome::Failed(failure.into())).await
    }

    async fn report(&self, lease: &Lease, outcome: Outcome) -> Result<v1::ReportResult, Status> {
        let report = v1::TaskReport {
            lease: Some(lease.clone().into()),
            outcome: Some(outcome),
        };
        let (answer, answered) = oneshot::channel();
        let stopped = || Status::internal("the reporter has stopped");
        self.sender
            .send(Pending { report, answer })
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

async fn send(client: &WorkerClient, worker: &WorkerId, batch: Vec<Pending>) {
    let reports = batch.iter().map(|one| one.report.clone()).collect();
    match client.report(&worker.0, reports).await {
        Ok(results) => {
            for (one, result) in batch.into_iter().zip(results) {
                one.answer(Ok(result));
            }
        }
        // One that is refused must not take the others with it. Those that were
        // recorded are recorded: a repeat does no harm.
        Err(_) if batch.len() > 1 => {
            for one in batch {
                let alone = client.report(&worker.0, vec![one.report.clone()]).await;
                one.answer(alone.map(|results| results[0]));
            }
        }
        Err(error) => {
            for one in batch {
                one.answer(Err(error.clone()));
            }
        }
    }
}

impl Pending {
    fn answer(self, answer: Result<v1::ReportResult, Status>) {
        // The task may have stopped waiting: the worker ends.
        let _ = self.answer.send(answer);
    }
}
