//! A thousand clients that watch at once.

use chatvec::channel::Connection;
use chatvec_proto::v1;
use chatvec_proto::v1::merge_service_client::MergeServiceClient;
use futures_util::future::join_all;

use super::scene::Api;

const WATCHERS: usize = 1000;
const JOBS: usize = 10;
/// Sessions of one coordinator on its database, at most: see `docs/fleet.md`.
const SESSIONS_MAX: u32 = 18;
/// What all these watchers may cost the coordinator.
const MEMORY_MAX: u64 = 64 << 20;

/// A watch that has begun; the state that it told last.
async fn begin(
    client: &MergeServiceClient<Connection>,
    job: &str,
) -> (tonic::Streaming<v1::WatchJobResponse>, v1::JobState) {
    let request = v1::WatchJobRequest {
        job_id: job.to_owned(),
        after_revision: 0,
    };
    let watch = client.clone().watch_job(request).await;
    let mut watch = watch.expect("a watch").into_inner();
    let first = watch.message().await.expect("an answer");
    let state = first.and_then(|first| first.job).expect("a job").state();
    (watch, state)
}

#[test]
fn a_thousand_watchers_see_the_end_and_cost_few_connections_and_little_memory() {
    let api = Api::start(&[]);
    let jobs: Vec<String> = (0..JOBS).map(|n| api.queued(&format!("out-{n}"))).collect();
    let before = api.service.process.peak_resident_bytes();
    // One connection for most of them, and some for the others.
    let _runtime = api.runtime.enter();
    let connections: Vec<_> = (0..5).map(|_| api.client()).collect();
    let watches = (0..WATCHERS).map(|n| {
        let connection = if n % 2 == 0 { 0 } else { n % 5 };
        begin(&connections[connection], &jobs[n % JOBS])
    });
    let watches = api.runtime.block_on(join_all(watches));
    assert!(
        watches
            .iter()
            .all(|(_, state)| *state == v1::JobState::Queued)
    );
    // On a connection that is full of watches, calls are answered.
    let mut client = connections[0].clone();
    let others = api.runtime.block_on(async {
        for job_id in jobs.iter().cloned() {
            let cancel = v1::CancelJobRequest { job_id };
            client.cancel_job(cancel).await.expect("cancelled");
        }
        let ends = watches
            .into_iter()
            .map(|(mut watch, mut state)| async move {
                while let Some(change) = watch.message().await.expect("an answer") {
                    state = change.job.expect("a job").state();
                }
                state
            });
        join_all(ends).await
    });
    assert_eq!(others.len(), WATCHERS);
    for state in others {
        assert_eq!(state, v1::JobState::Cancelled);
    }
    let sessions = api.sessions("true");
    assert!(sessions <= SESSIONS_MAX, "{sessions} sessions");
    let cost = api.service.process.peak_resident_bytes() - before;
    assert!(cost <= MEMORY_MAX, "{cost} bytes");
    api.until_database_rests();
}
