//! `chatvec submit`: gives a job to a coordinator.

use chatvec_core::ids::RequestId;
use chatvec_core::recipe::Recipe;
use chatvec_proto::convert::JobView;

use super::recipe::RecipeArgs;
use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::{Exit, Failure, OutputFormat, output, watch};
use crate::identity;
use crate::telemetry::{self, LogFormat, Role};

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
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    request_id: Option<String>,
    /// Wait for the job's end, and fail if it fails.
    #[arg(long)]
    wait: bool,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(args: &SubmitArgs) -> Result<Exit, Failure> {
    let _telemetry = telemetry::init(Role::Client, LogFormat::Text);
    let given = args.recipe.read()?;
    block_on(async {
        let remote = Remote::new(&args.address)?;
        // Always named, so that a call whose answer was lost can be repeated.
        let request = args
            .request_id
            .clone()
            .map_or_else(identity::request_id, RequestId);
        let created = submit(&remote, &request, &given.recipe)
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
async fn submit(remote: &Remote, request: &RequestId, recipe: &Recipe) -> Result<JobView, Failure> {
    let created = remote.create(request, recipe).await?;
    tracing::Span::current().record("job.id", created.job.as_str());
    Ok(created)
}
