//! A Postgres server for the tests of one module, and a database for each of them.

use chatvec_tests::component::Postgres;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::coordinator::store::Store;

/// The database that every other one is a copy of.
const TEMPLATE: &str = "migrated";

/// A server with the schema of this program.
pub(super) struct Server {
    postgres: Postgres,
}

impl Server {
    /// Starts a server; fails the test where there is no Postgres.
    pub(super) async fn start() -> Self {
        let server = Self {
            postgres: Postgres::start(),
        };
        server.run(&format!("CREATE DATABASE {TEMPLATE}")).await;
        Store::migrate_postgres(&server.url_of(TEMPLATE))
            .await
            .unwrap();
        server
    }

    /// A store of that name with nothing in it.
    pub(super) async fn fresh_store(&self, name: &str) -> Store {
        // A name may have 63 characters, and tests have longer ones.
        let name = &name[..name.len().min(60)];
        self.run(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
            .await;
        Store::open_postgres(&self.url_of(name)).await.unwrap()
    }

    /// The URL of one of its databases.
    pub(super) fn url_of(&self, name: &str) -> String {
        let url = self.postgres.url();
        let (server, _) = url.rsplit_once('/').unwrap();
        format!("{server}/{name}")
    }

    async fn run(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.postgres.url()).await.unwrap();
        connection
            .execute(AssertSqlSafe(statement.to_owned()))
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}
