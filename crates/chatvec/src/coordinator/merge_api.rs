//! The clients' service: submit, look, cancel, watch.

use std::pin::Pin;
use std::time::Duration;

use chatvec_core::ids::{JobId, RequestId};
use chatvec_core::problem::Problem;
use chatvec_core::submission::{Labels, Priority, Tenant};
use chatvec_proto::convert::{JobView, ProgressView, job_state, recipe_from_wire};
use chatvec_proto::status::{Reason, bad_recipe};
use chatvec_proto::v1;
use chatvec_proto::v1::merge_service_server::MergeService;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;
use tracing::field::Empty;

use super::detached::{detached, status};
use super::store::{Created, JobFilter, JobPage, NewJob, Store};
use super::view::{job_view, view_of};
use crate::identity;
use crate::storage::Location;
use crate::telemetry;

/// A watcher is told of progress at most this often; changes of state at once.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
/// Between two looks at the store for one watcher, at least.
const LOOK_PERIOD: Duration = Duration::from_millis(10);
/// Jobs on a page where the client names no number.
const PAGE_SIZE_DEFAULT: u32 = 50;
/// Most jobs on a page.
const PAGE_SIZE_MAX: u32 = 500;

/// The service's state.
#[derive(Debug, Clone)]
pub(super) struct MergeApi {
    pub(super) store: Store,
    /// Cancelled when the coordinator stops: streams end.
    pub(super) stopping: CancellationToken,
}

#[tonic::async_trait]
impl MergeService for MergeApi {
    async fn create_job(
        &self,
        request: Request<v1::CreateJobRequest>,
    ) -> Result<Response<v1::CreateJobResponse>, Status> {
        let client = telemetry::traceparent_of(request.metadata());
        let span = tracing::info_span!("create job", job.id = Empty);
        let span = telemetry::continued(span, client.as_deref());
        let created = self.create(request.into_inner(), client);
        Ok(Response::new(created.instrument(span).await?))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let view = self.view(JobId(request.into_inner().job_id)).await?;
        Ok(Response::new(v1::GetJobResponse {
            job: Some(view.into()),
        }))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let request = request.into_inner();
        let states = request.states.iter().map(|state| job_state(*state));
        let states = states
            .collect::<Result<_, _>>()
            .map_err(|error| Reason::BadRequest.status(error.to_string()))?;
        let limit = match request.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size => size.min(PAGE_SIZE_MAX),
        };
        let filter = JobFilter {
            states,
            limit,
            page_after: page_after(&request.page_token)?,
            ..JobFilter::default()
        };
        let store = self.store.clone();
        let (views, next_page_token) = detached(async move {
            let rows = store.jobs(&filter).await?;
            let full = rows.len() == limit as usize;
            let next = rows
                .last()
                .filter(|_| full)
                .map(|row| format!("{}/{}", row.created_at_ms, row.job_id));
            let mut views = Vec::with_capacity(rows.len());
            for row in rows {
                views.push(view_of(&store, row).await?);
            }
            Ok((views, next.unwrap_or_default()))
        })
        .await?;
        Ok(Response::new(v1::ListJobsResponse {
            jobs: views.into_iter().map(Into::into).collect(),
            next_page_token,
        }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let store = self.store.clone();
        let job = JobId(request.into_inner().job_id);
        let view = detached(async move {
            let row = store.cancel_job(&job).await?;
            view_of(&store, row).await
        })
        .await?;
        tracing::info!(job.id = %view.job, job.state = %view.state, "job cancelled by request");
        Ok(Response::new(v1::CancelJobResponse {
            job: Some(view.into()),
        }))
    }

    async fn delete_job(
        &self,
        _request: Request<v1::DeleteJobRequest>,
    ) -> Result<Response<v1::DeleteJobResponse>, Status> {
        Err(Status::unimplemented("under construction"))
    }

    async fn plan_job(
        &self,
        _request: Request<v1::PlanJobRequest>,
    ) -> Result<Response<v1::PlanJobResponse>, Status> {
        Err(Status::unimplemented("under construction"))
    }

    async fn list_tasks(
        &self,
        _request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        Err(Status::unimplemented("under construction"))
    }

    async fn list_workers(
        &self,
        _request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        Err(Status::unimplemented("under construction"))
    }

    type WatchJobStream = Pin<Box<dyn Stream<Item = Result<v1::WatchJobResponse, Status>> + Send>>;

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let request = request.into_inner();
        let job = JobId(request.job_id);
        // An unknown job is an error of the call, not of the stream.
        self.view(job.clone()).await?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(watch(self.clone(), job, request.after_revision, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl MergeApi {
    /// `traceparent` is the client's; without one the job's trace begins here.
    async fn create(
        &self,
        request: v1::CreateJobRequest,
        traceparent: Option<String>,
    ) -> Result<v1::CreateJobResponse, Status> {
        let wire = request
            .recipe
            .ok_or_else(|| Reason::BadRequest.status("field `recipe` is missing"))?;
        let recipe = recipe_from_wire(&wire)
            .map_err(|problems| bad_recipe(&problems))?
            .recipe;
        let relative = relative_urls(&recipe);
        if !relative.is_empty() {
            return Err(bad_recipe(&relative));
        }
        let request_id = match request.request_id {
            empty if empty.is_empty() => identity::request_id(),
            named => RequestId(named),
        };
        let new = NewJob {
            job_id: identity::job_id(),
            request_id,
            tenant: Tenant::default(),
            priority: Priority::default(),
            labels: Labels::default(),
            recipe_json: recipe.to_value().to_string(),
            recipe_digest: recipe.digest(),
            output_url: recipe.output.url.clone(),
            output_key: recipe.output.url.trim_end_matches('/').to_owned(),
            traceparent: traceparent.or_else(telemetry::traceparent),
        };
        let store = self.store.clone();
        let view = detached(async move {
            // A repeat of a request finds its job whatever has become of the output since.
            let (row, created) = store.create_job(&new).await?;
            if created == Created::Created {
                tracing::info!(job.id = %row.job_id, job.output = %row.output_url, "job created");
            }
            view_of(&store, row).await
        })
        .await?;
        tracing::Span::current().record("job.id", view.job.as_str());
        Ok(v1::CreateJobResponse {
            job: Some(view.into()),
        })
    }

    async fn view(&self, job: JobId) -> Result<JobView, Status> {
        let store = self.store.clone();
        detached(async move { job_view(&store, &job).await }).await
    }
}

/// Sends the job at each change until it ends, the client goes away or the
/// coordinator stops.
async fn watch(
    api: MergeApi,
    job: JobId,
    after_revision: u64,
    sender: mpsc::Sender<Result<v1::WatchJobResponse, Status>>,
) {
    let mut changed = api.store.jobs_changed();
    let mut seen = Seen {
        revision: after_revision,
        progress: None,
        at: Instant::now(),
    };
    loop {
        changed.borrow_and_update();
        let view = match job_view(&api.store, &job).await {
            Ok(view) => view,
            Err(error) => {
                // The client may have gone; then there is nobody to tell.
                let _gone = sender.send(Err(status(&error))).await;
                return;
            }
        };
        let ended = view.state.is_terminal();
        if seen.is_news(&view) || ended {
            seen = Seen {
                revision: view.revision,
                progress: Some(view.progress),
                at: Instant::now(),
            };
            let message = v1::WatchJobResponse {
                job: Some(view.into()),
            };
            if sender.send(Ok(message)).await.is_err() || ended {
                return;
            }
        }
        tokio::select! {
            () = sender.closed() => return,
            () = api.stopping.cancelled() => return,
            () = tokio::time::sleep(PROGRESS_PERIOD) => continue,
            _ = changed.changed() => {}
        }
        // Many tasks may end at once; a look at the store serves them all.
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// What a watcher was told last.
struct Seen {
    revision: u64,
    progress: Option<ProgressView>,
    at: Instant,
}

impl Seen {
    /// A change of state is told at once, progress not too often, and the first
    /// progress after a quiet time at once.
    fn is_news(&self, view: &JobView) -> bool {
        let is_quiet = self.at.elapsed() >= PROGRESS_PERIOD;
        match self.progress {
            None => view.revision != self.revision,
            Some(progress) => {
                view.revision != self.revision || (progress != view.progress && is_quiet)
            }
        }
    }
}

/// A service has no current folder that its clients could mean.
fn relative_urls(recipe: &chatvec_core::recipe::Recipe) -> Vec<Problem> {
    let inputs = recipe.vectors.iter().enumerate().flat_map(|(i, vector)| {
        [
            (format!("vectors[{i}].chat"), &vector.chat),
            (format!("vectors[{i}].base"), &vector.base),
        ]
    });
    let all = std::iter::once(("cp".to_owned(), &recipe.cp)).chain(inputs);
    let all = all.chain(std::iter::once((
        "output.url".to_owned(),
        &recipe.output.url,
    )));
    let relative = all.filter(|(_, url)| !Location::is_absolute(url));
    relative
        .map(|(path, url)| {
            Problem::new(
                path,
                format!("expected an absolute path or a URL, found `{url}`"),
            )
            .with_hint("`chatvec submit` makes the paths of a recipe absolute")
        })
        .collect()
}

fn page_after(token: &str) -> Result<Option<JobPage>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token.split_once('/').and_then(|(created, job)| {
        Some(JobPage {
            created_at_ms: created.parse().ok()?,
            job_id: JobId(job.to_owned()),
        })
    });
    match parsed {
        Some(page) => Ok(Some(page)),
        None => {
            Err(Reason::BadRequest.status(format!("`{token}` is no page token of this service")))
        }
    }
}
