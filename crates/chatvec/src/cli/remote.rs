//! A client's end of the wire: deadlines, retries, and errors that say what
//! to do.

use std::fmt;
use std::time::Duration;

use chatvec_core::ids::JobId;
use chatvec_core::problem::Problem;
use chatvec_core::submission::TenantChange;
use chatvec_proto::convert::{ConvertError, JobView, Submission, TaskView, TenantView, WorkerView};
use chatvec_proto::status::{Reason, problems_of};
use chatvec_proto::v1::merge_service_client::MergeServiceClient;
use chatvec_proto::{MESSAGE_BYTES_MAX, v1};
use tonic::{Code, Request, Response, Status};

use super::{Exit, Failure};
use crate::channel::{Connection, Coordinators};
use crate::{identity, telemetry};

/// Deadline of a call. Too short and a busy coordinator looks dead.
const DEADLINE: Duration = Duration::from_secs(10);
/// Tries of a call while the coordinator cannot be reached.
const TRIES_MAX: u32 = 5;
/// Ceiling of the first pause between two tries; doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Tries to take up a stream in a row: about a minute, enough for a
/// coordinator to be replaced.
const STREAM_TRIES_MAX: u32 = 20;
/// Ceiling of every pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Most items that one call returns.
const PAGE_MAX: u32 = 500;

/// Where the coordinator is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Address {
    /// The address of the coordinator, or a list of them by commas: any will do.
    #[arg(
        long,
        value_name = "URL",
        env = "CHATVEC_COORDINATOR",
        default_value = "http://127.0.0.1:7070"
    )]
    coordinator: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.coordinator)
    }
}

impl Address {
    /// Where the coordinators are. Nothing is connected.
    pub(super) fn coordinators(&self) -> Result<Coordinators, Failure> {
        Coordinators::parse(&self.coordinator).map_err(|error| {
            let problem = Problem::new("--coordinator", error.to_string());
            Failure::bad_input(vec![
                problem.with_hint("give an address such as `http://127.0.0.1:7070`"),
            ])
        })
    }
}

/// A coordinator that is called.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    address: String,
    service: MergeServiceClient<Connection>,
}

impl Remote {
    /// Connects at the first call. Within a runtime.
    pub(super) fn new(address: &Address) -> Result<Self, Failure> {
        let service = MergeServiceClient::new(address.coordinators()?.connect())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self {
            address: address.to_string(),
            service,
        })
    }

    /// Submits a job. A repeat with the same id finds the first job.
    pub(super) async fn create(&self, submission: &Submission) -> Result<JobView, Failure> {
        let message = v1::CreateJobRequest::from(submission);
        let call = |mut service: MergeServiceClient<_>, request| async move {
            service.create_job(request).await
        };
        view(self.call(message, call).await?.job)
    }

    /// A job as it stands.
    pub(super) async fn get(&self, job: &JobId) -> Result<JobView, Failure> {
        let message = v1::GetJobRequest {
            job_id: job.0.clone(),
        };
        let call = |mut service: MergeServiceClient<_>, request| async move {
            service.get_job(request).await
        };
        view(self.call(message, call).await?.job)
    }

    /// Stops a job. One that is stopped stays so: a repeat does no harm.
    pub(super) async fn cancel(&self, job: &JobId) -> Result<JobView, Failure> {
        let message = v1::CancelJobRequest {
            job_id: job.0.clone(),
        };
        let call = |mut service: MergeServiceClient<_>, request| async move {
            service.cancel_job(request).await
        };
        view(self.call(message, call).await?.job)
    }

    /// Removes the record of an ended job. A repeat finds none, so the call is
    /// made once.
    pub(super) async fn delete(&self, job: &JobId) -> Result<(), Failure> {
        let mut request = Request::new(v1::DeleteJobRequest {
            job_id: job.0.clone(),
        });
        request.set_timeout(DEADLINE);
        let deleted = self.service.clone().delete_job(request).await;
        deleted.map(drop).map_err(|status| self.failure(&status))
    }

    /// The newest jobs that are wanted.
    pub(super) async fn list(
        &self,
        wanted: &v1::ListJobsRequest,
        limit: usize,
    ) -> Result<Vec<JobView>, Failure> {
        let call = |mut service: MergeServiceClient<_>, request| async move {
            service.list_jobs(request).await
        };
        pages(limit, |page_size, page_token| async move {
            let message = v1::ListJobsRequest {
                page_size,
                page_token,
                ..wanted.clone()
            };
            let page = self.call(message, call).await?;
            let jobs = page.jobs.into_iter().map(|job| view(Some(job)));
            Ok((jobs.collect::<Result<_, _>>()?, page.next_page_token))
        })
        .await
    }

    /// The tasks of a job that are wanted, in order.
    pub(super) async fn tasks(
        &self,
        wanted: &v1::ListTasksRequest,
        limit: usize,
    ) -> Result<Vec<TaskView>, Failure> {
        let call = |mut service: MergeServiceClient<_>, request| async move {
            service.list_tasks(request).await
        };
        pages(limit, |page_size, page_token| async move {
            let message = v1::ListTasksRequest {
                page_size,
                page_token,
                ..wanted.clone()
            };
            let page = self.call(message, call).await?;
            let tasks = page.tasks.into_iter().map(TaskView::try_from);
            let tasks = tasks.collect::<Result<_, _>>().map_err(unreadable)?;
            Ok((tasks, page.next_page_token))
        })
        .await
    }

    /// The workers that were seen within so many seconds.
    pub(super) async fn workers(&self, seen_within_s: u32) -> Result<Vec<WorkerView>, Failure> {
        let message = v1::ListWorkersRequest { seen_within_s };
        let call = |mut service: MergeServiceClient<_>, request| async move {
            service.list_workers(request).await
        };
        let workers = self.call(message, call).await?.workers.into_iter();
        let views = workers.map(WorkerView::try_from).collect::<Result<_, _>>();
        views.map_err(unreadable)
    }

    /// Every tenant.
    pub(super) async fn tenants(&self) -> Result<Vec<TenantView>, Failure> {
        let call = |mut service: MergeServiceClient<_>, request| async move {
            service.list_tenants(request).await
        };
        let answer = self.call(v1::ListTenantsRequest {}, call).await?;
        let views = answer.tenants.into_iter().map(TenantView::try_from);
        views.collect::<Result<_, _>>().map_err(unreadable)
    }

    /// Changes a tenant, and gives it as it is then. A repeat does no harm.
    pub(super) async fn update_tenant(&self, change: &TenantChange) -> Result<TenantView, Failure> {
        let call = |mut service: MergeServiceClient<_>, request| async move {
            service.update_tenant(request).await
        };
        let message = v1::UpdateTenantRequest::from(change);
        let answer = self.call(message, call).await?;
        TenantView::try_from(answer.tenant.unwrap_or_default()).map_err(unreadable)
    }

    /// Follows a job to its end, and gives it as it is then. A stream that
    /// breaks is taken up after the last change that was seen.
    pub(super) async fn watch(
        &self,
        job: &JobId,
        mut seen: impl FnMut(&JobView) -> Result<(), Failure>,
    ) -> Result<JobView, Failure> {
        // An unknown job, or no coordinator at all, is told at once.
        let mut last = self.get(job).await?;
        seen(&last)?;
        let mut failures = 0;
        while !last.state.is_terminal() {
            let before = last.clone();
            let ended = self.watch_once(job, &mut last, &mut seen).await?;
            failures = if last == before { failures + 1 } else { 0 };
            match ended {
                Some(status) if failures >= STREAM_TRIES_MAX => return Err(self.failure(&status)),
                _ if last.state.is_terminal() => {}
                _ => tokio::time::sleep(pause(failures)).await,
            }
        }
        Ok(last)
    }

    /// One stream to its end; the status if it ended with one that may pass.
    async fn watch_once(
        &self,
        job: &JobId,
        last: &mut JobView,
        seen: &mut impl FnMut(&JobView) -> Result<(), Failure>,
    ) -> Result<Option<Status>, Failure> {
        let message = v1::WatchJobRequest {
            job_id: job.0.clone(),
            after_revision: last.revision,
        };
        let mut changes = match self.service.clone().watch_job(message).await {
            Ok(changes) => changes.into_inner(),
            Err(status) if is_passing(&status) => return Ok(Some(status)),
            Err(status) => return Err(self.failure(&status)),
        };
        loop {
            match changes.message().await {
                Ok(Some(change)) => {
                    *last = view(change.job)?;
                    seen(last)?;
                }
                Ok(None) => return Ok(None),
                Err(status) if is_passing(&status) => return Ok(Some(status)),
                Err(status) => return Err(self.failure(&status)),
            }
        }
    }

    /// Makes an idempotent call, again while the coordinator cannot be reached.
    async fn call<M: Clone, A, F>(
        &self,
        message: M,
        call: impl Fn(MergeServiceClient<Connection>, Request<M>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut tries = 1;
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(DEADLINE);
            telemetry::inject(request.metadata_mut());
            match call(self.service.clone(), request).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if is_passing(&status) && tries < TRIES_MAX => {
                    tracing::debug!(error = %status, "coordinator cannot be reached, the call is repeated");
                    tokio::time::sleep(pause(tries)).await;
                    tries += 1;
                }
                Err(status) => return Err(self.failure(&status)),
            }
        }
    }

    fn failure(&self, status: &Status) -> Failure {
        failure(&self.address, status)
    }
}

/// The status as the user should hear of it.
fn failure(address: &str, status: &Status) -> Failure {
    let problems = problems_of(status);
    if !problems.is_empty() {
        return Failure::bad_input(problems);
    }
    let exit = match Reason::of(status) {
        Some(Reason::BadRequest | Reason::RequestIdReused | Reason::JobNotFound) => Exit::BadInput,
        Some(
            Reason::CommitInProgress
            | Reason::JobEnded
            | Reason::ProtocolVersion
            | Reason::Internal,
        ) => Exit::Failed,
        Some(
            Reason::OutputInUse
            | Reason::TenantLimit
            | Reason::JobActive
            | Reason::DeadlineExceeded
            | Reason::Unavailable,
        ) => Exit::TryAgain,
        None if is_passing(status) => Exit::TryAgain,
        None => Exit::Failed,
    };
    let problem = match (exit, Reason::of(status)) {
        (Exit::TryAgain, None) => Problem::new(
            address,
            format!("the coordinator cannot be reached: {}", reached(status)),
        )
        .with_hint("start one by `chatvec serve`, or give its address by --coordinator"),
        (_, Some(Reason::RequestIdReused)) => Problem::new("--request-id", status.message())
            .with_hint(
                "give another name; the same name finds the first job with its own recipe alone",
            ),
        (_, Some(Reason::OutputInUse)) => Problem::new("output.url", status.message())
            .with_hint("wait until that job has ended and what it left is removed, cancel it, or give another output"),
        _ => Problem::new(address, status.message()),
    };
    Failure::Problems {
        exit,
        problems: vec![problem],
    }
}

/// The innermost cause: `connection refused` says more than `transport error`.
fn reached(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match status.code() {
        Code::DeadlineExceeded => format!("no answer within {} s", DEADLINE.as_secs()),
        _ if std::error::Error::source(status).is_some() => cause.to_string(),
        _ => status.message().to_owned(),
    }
}

/// Whether the same call may succeed later.
fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        // A connection that breaks under a call surfaces as UNKNOWN with a transport error.
        || (status.code() == Code::Unknown && std::error::Error::source(status).is_some())
}

/// Full jitter under a ceiling that doubles.
fn pause(failures: u32) -> Duration {
    let ceiling = PAUSE_FIRST
        .saturating_mul(1 << failures.min(10))
        .min(PAUSE_MAX);
    ceiling.mul_f64(identity::jitter())
}

fn view(job: Option<v1::Job>) -> Result<JobView, Failure> {
    JobView::try_from(job.unwrap_or_default()).map_err(unreadable)
}

fn unreadable(error: ConvertError) -> Failure {
    let error = anyhow::Error::from(error);
    error
        .context("the coordinator's answer cannot be read: is it of another version?")
        .into()
}

/// The items of a list, page by page: no more than `limit`. `page` gets the size
/// and the token of each.
async fn pages<T, F>(limit: usize, page: impl Fn(u32, String) -> F) -> Result<Vec<T>, Failure>
where
    F: Future<Output = Result<(Vec<T>, String), Failure>>,
{
    let mut items = Vec::new();
    let mut token = String::new();
    loop {
        let size = u32::try_from(limit - items.len())
            .unwrap_or(PAGE_MAX)
            .min(PAGE_MAX);
        let (more, next) = page(size, token).await?;
        items.extend(more);
        if next.is_empty() || items.len() >= limit {
            return Ok(items);
        }
        token = next;
    }
}

#[cfg(test)]
mod tests {
    use chatvec_proto::status::bad_request;

    use super::*;

    #[test]
    fn each_status_has_its_exit_code() {
        for (status, exit) in [
            (
                bad_request(&[Problem::new("cp", "missing")]),
                Exit::BadInput,
            ),
            (Reason::BadRequest.status("x"), Exit::BadInput),
            (Reason::JobNotFound.status("x"), Exit::BadInput),
            (Reason::RequestIdReused.status("x"), Exit::BadInput),
            (Reason::CommitInProgress.status("x"), Exit::Failed),
            (Reason::JobEnded.status("x"), Exit::Failed),
            (Reason::OutputInUse.status("x"), Exit::TryAgain),
            (Reason::TenantLimit.status("x"), Exit::TryAgain),
            (Reason::JobActive.status("x"), Exit::TryAgain),
            (Reason::Internal.status("x"), Exit::Failed),
            (Reason::Unavailable.status("x"), Exit::TryAgain),
            (Status::unavailable("x"), Exit::TryAgain),
            (Status::deadline_exceeded("x"), Exit::TryAgain),
            (Status::unimplemented("x"), Exit::Failed),
        ] {
            assert_eq!(failure("a", &status).exit(), exit, "{status:?}");
        }
    }

    #[test]
    fn a_coordinator_that_is_away_is_named_with_advice() {
        let Failure::Problems { problems, .. } =
            failure("http://h:1", &Status::unavailable("refused"))
        else {
            panic!("it has a problem")
        };
        assert_eq!(problems[0].subject, "http://h:1");
        assert!(
            problems[0]
                .hint
                .as_deref()
                .unwrap()
                .contains("chatvec serve")
        );
    }

    #[test]
    fn an_address_that_is_none_is_bad_input() {
        let address = Address {
            coordinator: "https://h:1".to_owned(),
        };
        assert_eq!(address.coordinators().unwrap_err().exit(), Exit::BadInput);
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_or_its_limit() {
        // Pages of at most three, of seven items.
        let page = |size: u32, token: String| async move {
            let from: usize = token.parse().unwrap_or(0);
            let to = (from + (size as usize).min(3)).min(7);
            let next = if to < 7 {
                to.to_string()
            } else {
                String::new()
            };
            Ok(((from..to).collect::<Vec<_>>(), next))
        };
        assert_eq!(pages(100, page).await.unwrap(), Vec::from_iter(0..7));
        assert_eq!(pages(5, page).await.unwrap(), Vec::from_iter(0..5));
    }

    #[test]
    fn pauses_are_bounded() {
        for failures in [0, 1, 5, 40] {
            assert!(pause(failures) <= PAUSE_MAX);
        }
    }
}
