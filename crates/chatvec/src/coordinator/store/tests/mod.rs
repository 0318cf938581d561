//! One suite for every database: each test is a function of a fresh store, and
//! `conformance!` runs the functions it lists on each database. Nothing waits:
//! a lease of no length has expired at once.

mod fixture;

mod commits;
mod jobs;
mod leases;
mod overview;
mod races;
mod reaping;
mod reports;
mod retention;
mod steals;
mod uploads;

mod disk;
mod plans;
mod sequences;
mod silence;

mod server;

/// Runs the named functions, each on a fresh store of every database. On SQLite
/// each is a test of its own; on Postgres one test runs all of a module, on one
/// server: a server a test would take longer than the test.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let folder = tempfile::tempdir().unwrap();
                    let path = folder.path().join("jobs.db");
                    let store = crate::coordinator::store::Store::open_sqlite(&path)
                        .await
                        .unwrap();
                    super::$test(&store).await;
                    store.close().await;
                }
            )*
        }

        mod postgres {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn all_of_it() {
                let server = crate::coordinator::store::tests::server::Server::start().await;
                $(
                    // A failure's output ends with the name of what failed.
                    println!("{}", stringify!($test));
                    let store = server.fresh_store(stringify!($test)).await;
                    super::$test(&store).await;
                    store.close().await;
                )*
            }
        }
    };
}
use conformance;
