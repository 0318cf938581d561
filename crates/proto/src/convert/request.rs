//! What clients ask for, checked: a request becomes a value that is valid, or
//! the list of all that is wrong with it.

use chatvec_core::ids::{JobId, RequestId, TaskOrdinal};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::submission::{self, Labels, Priority, Tenant, TenantChange, Weight};
use chatvec_core::task::TaskState;
use prost::Message as _;

use super::ConvertError;
use super::fleet::task_state;
use super::job::{TimeMs, job_state, labels_to_wire};
use super::recipe::{recipe_from_wire, recipe_to_wire};
use crate::{RECIPE_BYTES_MAX, v1};

/// Jobs on a page where the client names no number, and at most.
const JOBS_PAGE: PageSize = PageSize {
    default: 50,
    max: 500,
};
/// Tasks on a page where the client names no number, and at most.
const TASKS_PAGE: PageSize = PageSize {
    default: 100,
    max: 1000,
};

/// Bytes of a page, at most: clients take messages of 4 MiB unless they are
/// told otherwise. One job or task may be longer.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// A job that a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The client's name for the request; `None` if it gave none.
    pub request: Option<RequestId>,
    /// What is merged.
    pub recipe: Recipe,
    /// To find the job again.
    pub labels: Labels,
    /// How urgent it is.
    pub priority: Priority,
    /// Whom it is accounted to.
    pub tenant: Tenant,
}

/// Which jobs a client wants to see.
#[derive(Debug, Clone, PartialEq)]
pub struct JobsWanted {
    /// In one of these states; empty for any.
    pub states: Vec<JobState>,
    /// With every one of these labels.
    pub labels: Labels,
    /// Of this tenant; `None` for any.
    pub tenant: Option<Tenant>,
    /// At most this many, after the job that ended the page before.
    pub page: Page<(TimeMs, JobId)>,
}

/// Which tasks of a job a client wants to see.
#[derive(Debug, Clone, PartialEq)]
pub struct TasksWanted {
    /// The job.
    pub job: JobId,
    /// In one of these states; empty for any.
    pub states: Vec<TaskState>,
    /// At most this many, after the task that ended the page before.
    pub page: Page<TaskOrdinal>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// At most this many.
    pub limit: u32,
    /// What ended the page before; `None` for the first page.
    pub after: Option<K>,
}

impl TryFrom<v1::CreateJobRequest> for Submission {
    type Error = Vec<Problem>;

    fn try_from(request: v1::CreateJobRequest) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let recipe = problems.all(recipe(request.recipe.as_ref()));
        let id = Some(request.request_id).filter(|id| !id.is_empty());
        let id = id.map(|id| problems.one(submission::request_id(&id)));
        let labels = problems.all(Labels::parse(request.labels));
        let priority = request.priority.map(Priority::new).transpose();
        let priority = problems.one(priority).flatten().unwrap_or_default();
        let tenant = problems.one(tenant(&request.tenant));
        match (recipe, labels, problems.0.is_empty()) {
            (Some(recipe), Some(labels), true) => Ok(Self {
                request: id.flatten(),
                recipe,
                labels,
                priority,
                tenant: tenant.flatten().unwrap_or_default(),
            }),
            _ => Err(problems.0),
        }
    }
}

impl From<&Submission> for v1::CreateJobRequest {
    fn from(submission: &Submission) -> Self {
        let request = submission.request.as_ref();
        Self {
            request_id: request.map(|id| id.0.clone()).unwrap_or_default(),
            recipe: Some(recipe_to_wire(&submission.recipe)),
            labels: labels_to_wire(&submission.labels),
            priority: Some(submission.priority.number().into()),
            tenant: submission.tenant.to_string(),
        }
    }
}

impl TryFrom<v1::PlanJobRequest> for Recipe {
    type Error = Vec<Problem>;

    fn try_from(request: v1::PlanJobRequest) -> Result<Self, Vec<Problem>> {
        recipe(request.recipe.as_ref())
    }
}

impl TryFrom<v1::ListJobsRequest> for JobsWanted {
    type Error = Vec<Problem>;

    fn try_from(request: v1::ListJobsRequest) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let states = problems.states(&request.states, job_state);
        let labels = problems.all(Labels::parse(request.labels));
        let tenant = problems.one(tenant(&request.tenant)).flatten();
        let after = problems.one(after(&request.page_token, |token| {
            let (created, job) = token.split_once('/')?;
            Some((TimeMs(created.parse().ok()?), JobId(job.to_owned())))
        }));
        match (labels, after, problems.0.is_empty()) {
            (Some(labels), Some(after), true) => Ok(Self {
                states,
                labels,
                tenant,
                page: Page {
                    limit: JOBS_PAGE.limit(request.page_size),
                    after,
                },
            }),
            _ => Err(problems.0),
        }
    }
}

impl TryFrom<v1::ListTasksRequest> for TasksWanted {
    type Error = Vec<Problem>;

    fn try_from(request: v1::ListTasksRequest) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let states = problems.states(&request.states, task_state);
        let after = problems.one(after(&request.page_token, |token| {
            Some(TaskOrdinal(token.parse().ok()?))
        }));
        match (after, problems.0.is_empty()) {
            (Some(after), true) => Ok(Self {
                job: JobId(request.job_id),
                states,
                page: Page {
                    limit: TASKS_PAGE.limit(request.page_size),
                    after,
                },
            }),
            _ => Err(problems.0),
        }
    }
}

impl TryFrom<v1::UpdateTenantRequest> for TenantChange {
    type Error = Vec<Problem>;

    fn try_from(request: v1::UpdateTenantRequest) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let tenant = problems.one(Tenant::parse(&request.tenant));
        let weight = problems.one(request.weight.map(Weight::new).transpose());
        match (tenant, weight) {
            (Some(tenant), Some(weight)) => Ok(Self {
                tenant,
                weight,
                leased_tasks_max: request.leased_tasks_max,
                open_jobs_max: request.open_jobs_max,
            }),
            _ => Err(problems.0),
        }
    }
}

impl From<&TenantChange> for v1::UpdateTenantRequest {
    fn from(change: &TenantChange) -> Self {
        Self {
            tenant: change.tenant.to_string(),
            weight: change.weight.map(Weight::number),
            leased_tasks_max: change.leased_tasks_max,
            open_jobs_max: change.open_jobs_max,
        }
    }
}

impl Page<(TimeMs, JobId)> {
    /// The token of the page after this job.
    pub fn token(created: TimeMs, job: &JobId) -> String {
        format!("{}/{job}", created.0)
    }
}

impl Page<TaskOrdinal> {
    /// The token of the page after this task.
    pub fn token(task: TaskOrdinal) -> String {
        task.to_string()
    }
}

/// The views as messages, as many as a page has room for, and the token of the
/// next page: empty after the last one.
pub fn page<V, M>(views: Vec<V>, limit: u32, token: impl Fn(&V) -> String) -> (Vec<M>, String)
where
    M: From<V> + prost::Message,
{
    let found = views.len();
    let mut messages = Vec::with_capacity(found);
    let (mut bytes, mut last) = (0, String::new());
    for view in views {
        let here = token(&view);
        let message = M::from(view);
        bytes += message.encoded_len();
        if bytes > PAGE_BYTES_MAX && !messages.is_empty() {
            break;
        }
        messages.push(message);
        last = here;
    }
    let is_last_page = found < limit as usize && messages.len() == found;
    (messages, if is_last_page { String::new() } else { last })
}

/// How long a page is.
struct PageSize {
    default: u32,
    max: u32,
}

impl PageSize {
    fn limit(&self, asked: u32) -> u32 {
        match asked {
            0 => self.default,
            size => size.min(self.max),
        }
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn all<T>(&mut self, outcome: Result<T, Vec<Problem>>) -> Option<T> {
        outcome.map_err(|problems| self.0.extend(problems)).ok()
    }

    fn one<T>(&mut self, outcome: Result<T, Problem>) -> Option<T> {
        outcome.map_err(|problem| self.0.push(problem)).ok()
    }

    fn states<S>(
        &mut self,
        given: &[i32],
        read: impl Fn(i32) -> Result<S, ConvertError>,
    ) -> Vec<S> {
        let outcomes = given.iter().enumerate().filter_map(|(i, value)| {
            let unknown =
                |_| Problem::new(format!("states[{i}]"), format!("unknown value {value}"));
            self.one(read(*value).map_err(unknown))
        });
        outcomes.collect()
    }
}

/// The recipe of a request. Its size is looked at first: the walk over a huge
/// one would hold up a thread that other calls need.
fn recipe(message: Option<&v1::Recipe>) -> Result<Recipe, Vec<Problem>> {
    let Some(message) = message else {
        return Err(vec![Problem::new("recipe", "missing")]);
    };
    let size = message.encoded_len();
    if size > RECIPE_BYTES_MAX {
        let message = format!("expected at most {RECIPE_BYTES_MAX} bytes, found {size}");
        return Err(vec![Problem::new("recipe", message)]);
    }
    Ok(recipe_from_wire(message)?.recipe)
}

/// `None` where it is not named.
fn tenant(name: &str) -> Result<Option<Tenant>, Problem> {
    match name {
        "" => Ok(None),
        name => Tenant::parse(name).map(Some),
    }
}

fn after<K>(token: &str, read: impl Fn(&str) -> Option<K>) -> Result<Option<K>, Problem> {
    if token.is_empty() {
        return Ok(None);
    }
    let unknown = || {
        Problem::new("page_token", "no token of this list")
            .with_hint("give the `next_page_token` of the page before, or none for the first page")
    };
    read(token).map(Some).ok_or_else(unknown)
}
