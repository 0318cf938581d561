//! One suite for every database: each test is a function of a fresh store, and
//! `conformance!` runs the functions it lists on each database. Nothing waits:
//! a lease of no length has expired at once.

mod fixture;

mod commits;
mod jobs;
mod leases;
mod races;
mod reaping;
mod reports;

mod disk;
mod model;

/// Runs the named functions, each on a fresh store of every database.
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
    };
}
use conformance;
