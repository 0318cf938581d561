//! `chatvec submit`: gives a job to a coordinator.

use chatvec_core::ids::RequestId;
use chatvec_core::submission::{self, Priority, Tenant};
use chatvec_proto::convert::{JobView, Submission};

use super::label::{self, Label};
use super::recipe::RecipeArgs;
use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::{Exit, Failure, OutputFormat, begin, output, watch};
use crate::identity;

/// Give a merge to a coordinator.
///
/// Paths are made absolute here; coordinator and workers must know them too.
#[derive(Debug, Clone, clap::Args)]
pub struct SubmitArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    address: Address,
    /// A name of your choice for this request: a repeat with the same name finds the first job.
    #[arg(long, value_name = "ID", value_parser = request_id)]
    request_id: Option<RequestId>,
    /// Something to find the job by, such as model=m1; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label::parse)]
    labels: Vec<Label>,
    /// How urgent it is, from 0 to 99; ten points double the share of the workers.
    #[arg(long, value_name = "N", default_value_t, value_parser = priority)]
    priority: Priority,
    /// Whom the job is accounted to.
    #[arg(long, value_name = "NAME", default_value_t, value_parser = label::tenant)]
    tenant: Tenant,
    /// Wait for the job's end, and fail if it fails.
    #[arg(long)]
    wait: bool,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(args: &SubmitArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    let labels = label::all(&args.labels)?;
    let given = args.recipe.read()?;
    block_on(async {
        let remote = Remote::new(&args.address)?;
        let submission = Submission {
            // Always named, so that a call whose answer was lost can be repeated.
            request: Some(args.request_id.clone().unwrap_or_else(identity::request_id)),
            recipe: given.recipe.clone(),
            labels,
            priority: args.priority,
            tenant: args.tenant.clone(),
        };
        let created = submit(&remote, &submission)
            .await
            .map_err(|failure| match failure {
                Failure::Problems { exit, problems } => Failure::Problems {
                    exit,
                    problems: given.named(problems),
                },
                other => other,
            })?;
        if args.wait {
            output::note(&format!("submitted as {}", created.job));
            return watch::to_the_end(&remote, &created.job, args.output, watch::Show::End).await;
        }
        watch::show(&created, args.output)?;
        Ok(Exit::Success)
    })
}

/// The root of the job's trace, unless the process was started in one.
#[tracing::instrument(name = "submit job", skip_all, fields(job.id = tracing::field::Empty))]
async fn submit(remote: &Remote, submission: &Submission) -> Result<JobView, Failure> {
    let created = remote.create(submission).await?;
    tracing::Span::current().record("job.id", created.job.as_str());
    Ok(created)
}

fn request_id(text: &str) -> Result<RequestId, String> {
    submission::request_id(text).map_err(|problem| problem.message)
}

fn priority(text: &str) -> Result<Priority, String> {
    let number = text.parse().unwrap_or(u32::MAX);
    Priority::new(number).map_err(|_| format!("expected a number from 0 to {}", Priority::MAX))
}
