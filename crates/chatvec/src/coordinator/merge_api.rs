//! The clients' service: submit, look, cancel, watch, plan.

use std::path::Path;
use std::pin::Pin;

use chatvec_core::ids::{JobId, TaskOrdinal};
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::submission::TenantChange;
use chatvec_proto::convert::{JobView, JobsWanted, Page, Submission, TasksWanted, TimeMs, page};
use chatvec_proto::status::bad_request;
use chatvec_proto::v1;
use chatvec_proto::v1::merge_service_server::MergeService;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;
use tracing::field::Empty;

use super::detached::Turns;
use super::dry_run::DryRuns;
use super::feed::Watched;
use super::store::{Created, JobFilter, JobPage, NewJob, Store};
use super::view::{job_view, page_of_tasks, tenant_view, view_of, views_of, worker_views};
use crate::deadline;
use crate::identity;
use crate::storage::Location;
use crate::telemetry;

/// How long ago a worker was seen that is listed where the client names no
/// time, in seconds.
const SEEN_WITHIN_S: u32 = 300;

/// The service's state.
#[derive(Debug, Clone)]
pub(super) struct MergeApi {
    pub(super) store: Store,
    pub(super) turns: Turns,
    pub(super) watched: Watched,
    pub(super) dry_runs: DryRuns,
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
        let store = self.store.clone();
        let job = JobId(request.into_inner().job_id);
        let get = async move { job_view(&store, &job).await };
        let view = self.turns.detached(get).await?;
        Ok(Response::new(v1::GetJobResponse {
            job: Some(view.into()),
        }))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let wanted = checked::<JobsWanted, _>(request)?;
        let limit = wanted.page.limit;
        let filter = job_filter(wanted);
        let store = self.store.clone();
        let list = async move {
            let rows = store.jobs(&filter).await?;
            views_of(&store, rows).await
        };
        let views = self.turns.detached(list).await?;
        let token = |view: &JobView| Page::<(TimeMs, JobId)>::token(view.created, &view.job);
        let (jobs, next_page_token) = page(views, limit, token);
        Ok(Response::new(v1::ListJobsResponse {
            jobs,
            next_page_token,
        }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let store = self.store.clone();
        let job = JobId(request.into_inner().job_id);
        let cancel = async move {
            let row = store.cancel_job(&job).await?;
            view_of(&store, row).await
        };
        let view = self.turns.detached(cancel).await?;
        tracing::info!(job.id = %view.job, job.state = %view.state, "job cancelled by request");
        Ok(Response::new(v1::CancelJobResponse {
            job: Some(view.into()),
        }))
    }

    type WatchJobStream = Pin<Box<dyn Stream<Item = Result<v1::WatchJobResponse, Status>> + Send>>;

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let deadline = deadline::of(request.metadata().as_ref());
        let request = request.into_inner();
        let job = JobId(request.job_id);
        let stream = self.watched.stream(&job, request.after_revision, deadline);
        let stream = stream.await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn delete_job(
        &self,
        request: Request<v1::DeleteJobRequest>,
    ) -> Result<Response<v1::DeleteJobResponse>, Status> {
        let store = self.store.clone();
        let job = JobId(request.into_inner().job_id);
        let deleted = job.clone();
        let delete = async move { store.delete_job(&job).await };
        self.turns.detached(delete).await?;
        tracing::info!(job.id = %deleted, "job deleted by request");
        Ok(Response::new(v1::DeleteJobResponse {}))
    }

    async fn plan_job(
        &self,
        request: Request<v1::PlanJobRequest>,
    ) -> Result<Response<v1::PlanJobResponse>, Status> {
        let recipe = checked::<Recipe, _>(request)?;
        absolute_urls(&recipe)?;
        let view = self.dry_runs.plan(recipe).await?;
        Ok(Response::new(view.into()))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let wanted = checked::<TasksWanted, _>(request)?;
        let limit = wanted.page.limit;
        let store = self.store.clone();
        let list = async move { page_of_tasks(&store, &wanted).await };
        let views = self.turns.detached(list).await?;
        let (tasks, next_page_token) =
            page(views, limit, |view| Page::<TaskOrdinal>::token(view.task));
        Ok(Response::new(v1::ListTasksResponse {
            tasks,
            next_page_token,
        }))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let seen_within_s = match request.into_inner().seen_within_s {
            0 => SEEN_WITHIN_S,
            seconds => seconds,
        };
        let store = self.store.clone();
        let list = async move { worker_views(&store, seen_within_s).await };
        let views = self.turns.detached(list).await?;
        Ok(Response::new(v1::ListWorkersResponse {
            workers: views.into_iter().map(Into::into).collect(),
        }))
    }

    async fn list_tenants(
        &self,
        _: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let store = self.store.clone();
        let list = async move { store.tenants().await };
        let tenants = self.turns.detached(list).await?.into_iter();
        Ok(Response::new(v1::ListTenantsResponse {
            tenants: tenants.map(|row| tenant_view(row).into()).collect(),
        }))
    }

    async fn update_tenant(
        &self,
        request: Request<v1::UpdateTenantRequest>,
    ) -> Result<Response<v1::UpdateTenantResponse>, Status> {
        let change = checked::<TenantChange, _>(request)?;
        let store = self.store.clone();
        let update = async move { store.update_tenant(&change).await };
        let view = tenant_view(self.turns.detached(update).await?);
        tracing::info!(tenant.name = %view.tenant, tenant.weight = view.weight,
            tenant.leased_tasks_max = view.leased_tasks_max,
            tenant.open_jobs_max = view.open_jobs_max, "tenant changed by request");
        Ok(Response::new(v1::UpdateTenantResponse {
            tenant: Some(view.into()),
        }))
    }
}

impl MergeApi {
    /// `traceparent` is the client's; without one the job's trace begins here.
    async fn create(
        &self,
        request: v1::CreateJobRequest,
        traceparent: Option<String>,
    ) -> Result<v1::CreateJobResponse, Status> {
        let submission =
            Submission::try_from(request).map_err(|problems| bad_request(&problems))?;
        absolute_urls(&submission.recipe)?;
        let Submission {
            request,
            recipe,
            labels,
            priority,
            tenant,
        } = submission;
        let new = NewJob {
            job_id: identity::job_id(),
            request_id: request.unwrap_or_else(identity::request_id),
            tenant,
            priority,
            labels,
            recipe_json: recipe.to_value().to_string(),
            recipe_digest: recipe.digest(),
            output_key: output_key(&recipe)?,
            output_url: recipe.output.url,
            traceparent: traceparent.or_else(telemetry::traceparent),
        };
        let store = self.store.clone();
        let create = async move {
            // A repeat of a request finds its job whatever has become of the output since.
            let (row, created) = store.create_job(&new).await?;
            if created == Created::Created {
                tracing::info!(job.id = %row.job_id, job.output = %row.output_url, "job created");
            }
            view_of(&store, row).await
        };
        let view = self.turns.detached(create).await?;
        tracing::Span::current().record("job.id", view.job.as_str());
        Ok(v1::CreateJobResponse {
            job: Some(view.into()),
        })
    }
}

/// The valid request, or a status with all that is wrong with it.
fn checked<V, M>(request: Request<M>) -> Result<V, Status>
where
    V: TryFrom<M, Error = Vec<Problem>>,
{
    V::try_from(request.into_inner()).map_err(|problems| bad_request(&problems))
}

fn job_filter(wanted: JobsWanted) -> JobFilter {
    let page_after = wanted.page.after.map(|(created, job_id)| JobPage {
        created_at_ms: created.0,
        job_id,
    });
    JobFilter {
        states: wanted.states,
        labels: wanted.labels,
        tenant: wanted.tenant,
        limit: wanted.page.limit,
        page_after,
    }
}

/// The one name of the output, by which no two jobs write to it.
fn output_key(recipe: &Recipe) -> Result<String, Status> {
    let location = Location::parse(&recipe.output.url, Path::new("/"));
    location.map(|location| location.key()).map_err(|error| {
        let problems = error.problems().into_iter().map(|problem| Problem {
            subject: "output.url".to_owned(),
            ..problem
        });
        bad_request(&problems.collect::<Vec<_>>())
    })
}

/// A service has no current folder that its clients could mean.
fn absolute_urls(recipe: &Recipe) -> Result<(), Status> {
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
    let problems: Vec<_> = relative
        .map(|(path, url)| {
            Problem::new(
                path,
                format!("expected an absolute path or a URL, found `{url}`"),
            )
            .with_hint("`chatvec submit` makes the paths of a recipe absolute")
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(bad_request(&problems))
    }
}
