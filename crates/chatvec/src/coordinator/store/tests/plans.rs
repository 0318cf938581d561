//! How Postgres runs a statement that must not slow down with the queue.

use sqlx::Row as _;

use super::fixture::*;
use super::server::Server;
use crate::coordinator::store::lease;

/// The planner was last told of a table where no task waits: its statistics are
/// from the end of one job, and now there is another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_updates_what_it_has_chosen_by_key() {
    let server = Server::start().await;
    let store = server.fresh_store("plans").await;
    queued(&store, "old", 2_000).await;
    for statement in [
        "UPDATE task SET state = 'DONE', done_fence = fence",
        "UPDATE job SET state = 'CANCELLED', finished_at_ms = updated_at_ms",
        "VACUUM ANALYZE",
    ] {
        sqlx::query(statement).execute(&store.pool).await.unwrap();
    }
    queued(&store, "new", 2_000).await;
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
        let (_, joined) = plan.rsplit_once("CTE Scan on c").expect("they are joined");
        assert!(joined.contains("task_pkey"), "{plan}");
    }
    store.close().await;
}
