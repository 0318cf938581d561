//! Clients that ask twice, and that vanish: rows 25 to 27.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use chatvec_proto::v1::ListJobsRequest;
use chatvec_proto::v1::merge_service_client::MergeServiceClient;
use chatvec_tests::cluster::{Cluster, Row, Setup};
use chatvec_tests::fleet::{addresses, submission};
use chatvec_tests::process::{Signal, until_every};
use futures_util::future::join_all;
use tonic::transport::Endpoint;

/// Clients that ask for the same job at once.
const CLIENTS: usize = 100;
/// Rounds of a storm of resets, and calls under way at each.
const STORM: (u64, u64) = (100, 100);

#[test]
fn row_25_duplicate_submissions() {
    let mut row = Row::new(
        25,
        "100 clients submit one request at once, and a coordinator is killed meanwhile",
    );
    let cluster = Cluster::tiny();
    let coordinators = [(); 2].map(|()| cluster.serve(&Setup::default()));
    let both = addresses(&coordinators);
    let jobs: BTreeSet<String> = thread::scope(|scope| {
        let submit = || cluster.submit(&both, "out", &["--request-id", "nightly"]);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(submit)).collect();
        cluster.until_true("the job to be there", "SELECT count(*) > 0 FROM job");
        coordinators[0].process.signal(Signal::KILL);
        let ids = clients
            .into_iter()
            .map(|client| client.join().expect("its panic is on stderr"));
        ids.collect()
    });
    row.at_most("jobs that clients were told", 1, jobs.len() as u64);
    row.at_most(
        "jobs that there are",
        1,
        cluster.number("SELECT count(*) FROM job"),
    );
    row.record();
}

#[test]
fn row_26_request_id_with_another_recipe() {
    let mut row = Row::new(26, "a request's id comes again with another recipe");
    let cluster = Cluster::tiny();
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    cluster.submit(address, "out", &["--request-id", "nightly"]);
    let merge = cluster.merge("elsewhere");
    let args = submission(&merge, &["--request-id", "nightly"]);
    let refused = cluster.fleet.client(address, &args).expect_code(2);
    assert!(
        refused
            .stderr
            .contains("was used before with another recipe"),
        "{refused:#?}"
    );
    row.at_most(
        "jobs that there are",
        1,
        cluster.number("SELECT count(*) FROM job"),
    );
    row.holds("the client is told which id it was");
    row.record();
}

#[test]
fn row_27_clients_vanish_in_the_middle_of_calls() {
    let mut row = Row::new(
        27,
        "the connections of 10,000 calls are reset in the middle",
    );
    let cluster = Cluster::tiny();
    let coordinator = cluster.serve(&Setup::default());
    let proxy = cluster.coordinator_proxy(&coordinator);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime can be made");
    let (rounds, calls) = STORM;
    let mut failed = 0;
    for _ in 0..rounds {
        let endpoint = Endpoint::from_shared(format!("http://{}", proxy.address()));
        failed += runtime.block_on(async {
            let channel = endpoint.expect("an address").connect().await;
            let client = MergeServiceClient::new(channel.expect("it listens"));
            let calls = (0..calls).map(|_| {
                let mut client = client.clone();
                async move { client.list_jobs(ListJobsRequest::default()).await }
            });
            let reset = async {
                // Some of the calls have come to the coordinator by now.
                tokio::time::sleep(Duration::from_millis(10)).await;
                proxy.reset_all();
            };
            let (answers, ()) = tokio::join!(join_all(calls), reset);
            answers.iter().filter(|answer| answer.is_err()).count() as u64
        });
    }
    assert!(failed > rounds, "the fault came: {failed} calls failed");
    let open = "SELECT count(*) = 0 FROM pg_stat_activity
                WHERE state LIKE 'idle in transaction%' AND application_name LIKE 'chatvec%'";
    until_every(
        Duration::from_millis(100),
        "all transactions to end",
        || cluster.fleet.postgres.query(open) == "t",
    );
    row.holds("no transaction stays open");
    let connections =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'chatvec%'";
    row.at_most(
        "connections to the database",
        18,
        cluster.number(connections),
    );
    let _worker = cluster.worker(&coordinator.address, &Setup::default());
    let job = cluster.submit(&coordinator.address, "out", &[]);
    cluster.succeeds(&coordinator.address, &job, "out");
    row.holds("the coordinator works on");
    row.record();
}
