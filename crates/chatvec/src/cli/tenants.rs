//! `chatvec tenants`: whom jobs are accounted to, their shares and their limits.

use chatvec_core::submission::{Tenant, TenantChange, Weight};
use chatvec_proto::convert::TenantView;
use serde::Serialize;

use super::label;
use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::text::write_rows;
use super::{Exit, Failure, OutputFormat, begin, output};

/// Show tenants, or change their shares of the workers and their limits.
#[derive(Debug, Clone, clap::Args)]
pub struct TenantsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    /// List every tenant with its share, its limits, and what it uses.
    List(ListArgs),
    /// Change a tenant; what is not named stays. A tenant that is not there yet is made.
    Set(SetArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    address: Address,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Clone, clap::Args)]
#[group(id = "change", required = true, multiple = true, args = ["weight", "open_jobs_max", "leased_tasks_max"])]
struct SetArgs {
    /// The tenant.
    #[arg(value_name = "NAME", value_parser = label::tenant)]
    tenant: Tenant,
    /// Its share of the workers, relative to the other tenants'. Tasks that wait
    /// already keep their places.
    #[arg(long, value_name = "N", value_parser = weight)]
    weight: Option<Weight>,
    /// Most jobs of it that have not ended; `none` for no limit. Too low and its
    /// clients are refused.
    #[arg(long, value_name = "N", value_parser = limit)]
    open_jobs_max: Option<u32>,
    /// Most tasks of it that are leased at once; `none` for no limit. Too low and
    /// workers idle.
    #[arg(long, value_name = "N", value_parser = limit)]
    leased_tasks_max: Option<u32>,
    #[command(flatten)]
    address: Address,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct TenantsJson {
    tenants: Vec<TenantJson>,
}

/// A tenant in JSON.
#[derive(Debug, Serialize)]
struct TenantJson {
    tenant: String,
    weight: u32,
    open_jobs: u64,
    /// Null for no limit.
    open_jobs_max: Option<u32>,
    leased_tasks: u64,
    /// Null for no limit.
    leased_tasks_max: Option<u32>,
}

impl From<&TenantView> for TenantJson {
    fn from(view: &TenantView) -> Self {
        Self {
            tenant: view.tenant.to_string(),
            weight: view.weight,
            open_jobs: view.open_jobs,
            open_jobs_max: view.open_jobs_max,
            leased_tasks: view.leased_tasks,
            leased_tasks_max: view.leased_tasks_max,
        }
    }
}

pub(super) fn run(args: &TenantsArgs) -> Result<Exit, Failure> {
    match &args.action {
        Action::List(args) => {
            let _telemetry = begin(args.output);
            let tenants = block_on(async { Remote::new(&args.address)?.tenants().await })?;
            match args.output {
                OutputFormat::Text => show(&tenants)?,
                OutputFormat::Json => output::print_json(&TenantsJson {
                    tenants: tenants.iter().map(TenantJson::from).collect(),
                })?,
            }
        }
        Action::Set(args) => {
            let _telemetry = begin(args.output);
            let change = TenantChange {
                tenant: args.tenant.clone(),
                weight: args.weight,
                leased_tasks_max: args.leased_tasks_max,
                open_jobs_max: args.open_jobs_max,
            };
            let changed =
                block_on(async { Remote::new(&args.address)?.update_tenant(&change).await })?;
            match args.output {
                OutputFormat::Text => show(&[changed])?,
                OutputFormat::Json => output::print_json(&TenantJson::from(&changed))?,
            }
        }
    }
    Ok(Exit::Success)
}

fn show(tenants: &[TenantView]) -> Result<(), Failure> {
    let title = ["TENANT", "WEIGHT", "OPEN JOBS", "LEASED TASKS"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(title)
        .chain(tenants.iter().map(row))
        .collect();
    output::print(|out| write_rows(&rows, "", out))
}

fn row(view: &TenantView) -> [String; 4] {
    let used = |used: u64, limit: Option<u32>| match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => used.to_string(),
    };
    [
        view.tenant.to_string(),
        view.weight.to_string(),
        used(view.open_jobs, view.open_jobs_max),
        used(view.leased_tasks, view.leased_tasks_max),
    ]
}

/// A limit, 0 for none.
fn limit(text: &str) -> Result<u32, String> {
    let number = match text {
        "none" => Some(0),
        _ => text.parse().ok().filter(|number| *number > 0),
    };
    number.ok_or_else(|| "expected a number from 1, or `none`".to_owned())
}

fn weight(text: &str) -> Result<Weight, String> {
    let expected = || format!("expected a number from 1 to {}", Weight::MAX.number());
    let number = text.parse().map_err(|_| expected())?;
    Weight::new(number).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_a_line_with_what_it_uses_of_its_limits() {
        let tenant = TenantView {
            tenant: Tenant::default(),
            weight: 4,
            leased_tasks_max: None,
            open_jobs_max: Some(10),
            leased_tasks: 7,
            open_jobs: 3,
        };
        assert_eq!(row(&tenant).join("|"), "default|4|3 of 10|7");
        let json = serde_json::to_value(TenantJson::from(&tenant)).unwrap();
        assert_eq!(json["leased_tasks_max"], serde_json::Value::Null);
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(limit("none"), Ok(0));
        assert_eq!(limit("3"), Ok(3));
        for bad in ["0", "-1", "", "many"] {
            assert!(limit(bad).unwrap_err().contains("`none`"), "{bad}");
        }
        for bad in ["0", "1000001", "x"] {
            assert!(weight(bad).unwrap_err().contains("1 to 1000000"), "{bad}");
        }
    }
}
