//! How Postgres runs a statement that must not slow down with the queue.

use sqlx::Row as _;

use super::fixture::*;
use super::server::Server;
use crate::coordinator::store::lease;

/// A table that has just been filled, of which the planner knows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_takes_the_first_tasks_from_the_index_and_sorts_nothing() {
    let server = Server::start().await;
    let store = server.fresh_store("plans").await;
    queued(&store, "a", 2_000).await;
    for which in [lease::OTHERS, lease::SUSPECTS] {
        let claim = lease::CLAIM.replace("{which}", which);
        let plan = sqlx::query(store.sql(&format!("EXPLAIN {claim}")))
            .bind("w")
            .bind(lease::WORKER_SEEN_MS)
            .bind(i64::MIN)
            .bind(32_i64)
            .bind(LONG_MS)
            .fetch_all(&store.pool)
            .await
            .unwrap();
        let lines: Vec<String> = plan.iter().map(|line| line.get(0)).collect();
        let plan = lines.join("\n");
        assert!(!plan.contains("Sort"), "{plan}");
        // Once for the choice, and by key for the update.
        assert_eq!(
            plan.matches("using task_claim").count() + plan.matches("using task_suspect").count(),
            1,
            "{plan}"
        );
        assert!(plan.contains("task_pkey"), "{plan}");
    }
    store.close().await;
}
