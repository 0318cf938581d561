//! A worker and a coordinator of different versions.

use std::net::SocketAddr;

use chatvec_proto::status::Reason;
use chatvec_proto::v1;
use chatvec_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use chatvec_tests::process::{self, Process};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A coordinator of a version to come.
struct OfTomorrow;

fn refusal() -> Status {
    Reason::ProtocolVersion.status_of(
        "worker_id",
        "w",
        "worker `w` speaks protocol version 2, expected 9",
    )
}

#[tonic::async_trait]
impl WorkerService for OfTomorrow {
    async fn acquire_tasks(
        &self,
        _: Request<v1::AcquireTasksRequest>,
    ) -> Result<Response<v1::AcquireTasksResponse>, Status> {
        Err(refusal())
    }

    async fn heartbeat(
        &self,
        _: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        Err(refusal())
    }

    async fn report_tasks(
        &self,
        _: Request<v1::ReportTasksRequest>,
    ) -> Result<Response<v1::ReportTasksResponse>, Status> {
        Err(refusal())
    }

    async fn release_tasks(
        &self,
        _: Request<v1::ReleaseTasksRequest>,
    ) -> Result<Response<v1::ReleaseTasksResponse>, Status> {
        Err(refusal())
    }
}

fn serve(runtime: &Runtime, router: tonic::transport::server::Router) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    runtime.spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

#[test]
fn a_worker_that_the_coordinator_is_too_new_for_ends_and_says_what_to_do() {
    let runtime = Runtime::new().expect("a runtime can be made");
    let mut server = Server::builder();
    let address = serve(
        &runtime,
        server.add_service(WorkerServiceServer::new(OfTomorrow)),
    );
    let mut command = process::command(["worker"]);
    command.args(["--coordinator", &address.to_string()]);
    let ended = Process::start(command).wait().expect_code(1);
    for words in [
        &format!("error: {address}: worker `w` speaks protocol version 2, expected 9\n"),
        "  hint: run worker and coordinator of the same version",
    ] {
        assert!(ended.stderr.contains(words), "{ended:#?}");
    }
}

#[test]
fn a_worker_of_something_else_ends_and_says_so() {
    let runtime = Runtime::new().expect("a runtime can be made");
    let (_, health) = tonic_health::server::health_reporter();
    let address = serve(&runtime, Server::builder().add_service(health));
    let mut command = process::command(["worker"]);
    command.args(["--coordinator", &address.to_string()]);
    let ended = Process::start(command).wait().expect_code(1);
    assert!(ended.stderr.contains(&address.to_string()), "{ended:#?}");
    assert!(ended.stderr.contains("hint: "), "{ended:#?}");
}
