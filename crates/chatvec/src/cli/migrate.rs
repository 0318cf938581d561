//! `chatvec migrate`: makes a Postgres database ready for this program.

use chatvec_core::problem::Problem;

use super::runtime::block_on;
use super::{Exit, Failure, OutputFormat, begin, output};
use crate::coordinator::store::{Migrated, Store, StoreError};

/// Bring the schema of a Postgres database up to date.
///
/// Run it before the coordinators of a new version; those of the version before
/// go on meanwhile. One run at a time does the work, others wait.
#[derive(Debug, Clone, clap::Args)]
pub struct MigrateArgs {
    /// The database, `postgres://USER@HOST/NAME`.
    #[arg(
        long,
        value_name = "URL",
        env = "CHATVEC_DATABASE_URL",
        hide_env_values = true
    )]
    database: String,
}

pub(super) fn run(args: &MigrateArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(OutputFormat::Text);
    block_on(async {
        let migrated = Store::migrate_postgres(&args.database)
            .await
            .map_err(|error| unusable(&error))?;
        output::print(|out| writeln!(out, "{}", said(migrated)))?;
        Ok(Exit::Success)
    })
}

fn said(migrated: Migrated) -> String {
    match migrated {
        Migrated { from, to } if from == to => format!("schema version {to}: nothing to do"),
        Migrated { from: 0, to } => format!("schema version {to} made"),
        Migrated { from, to } => format!("schema version {to}, before {from}"),
    }
}

/// Why a database cannot be used, as the user should hear of it.
pub(super) fn unusable(error: &StoreError) -> Failure {
    let problem = Problem::new("--database", error.to_string());
    match error {
        StoreError::Schema(schema) => Failure::bad_input(vec![problem.with_hint(schema.hint())]),
        StoreError::Migrate(_) => Failure::Problems {
            exit: Exit::Failed,
            problems: vec![problem],
        },
        _ => Failure::try_again(problem.with_hint("check the URL, and that the database runs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_did() {
        assert_eq!(said(Migrated { from: 0, to: 2 }), "schema version 2 made");
        assert_eq!(
            said(Migrated { from: 1, to: 2 }),
            "schema version 2, before 1"
        );
        assert_eq!(
            said(Migrated { from: 2, to: 2 }),
            "schema version 2: nothing to do"
        );
    }
}
