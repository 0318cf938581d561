//! The coordinator as a server: its port, its state, and how it stops.

use chatvec_tests::process::{self, Process};
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::scene::{ANY_PORT, Scene, drain};

#[test]
fn a_client_that_hangs_keeps_no_coordinator_from_stopping() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let runtime = client_runtime();
    let endpoint = service.endpoint();
    let call = runtime.block_on(async {
        let mut client = ServerReflectionClient::new(endpoint.connect().await.unwrap());
        client
            .server_reflection_info(tokio_stream::pending())
            .await
            .unwrap()
    });
    // Nothing drives the client's end of the connection any more.
    let stopped = drain(service.process);
    assert!(
        stopped
            .stderr
            .contains("clients keep their connections open"),
        "{stopped:#?}"
    );
    drop(call);
}

#[test]
fn a_second_coordinator_on_the_same_state_may_try_later() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let mut command = process::command(["serve", "--listen", ANY_PORT, "--state"]);
    command.arg(scene.path("state"));
    let second = Process::start(command).wait().expect_code(75);
    assert!(
        second
            .stderr
            .contains(&format!("(pid {})", service.process.id())),
        "{second:#?}"
    );
    assert!(second.stderr.contains("hint: "), "{second:#?}");
    drain(service.process);
}

#[test]
fn a_coordinator_that_is_not_there_is_told_with_advice() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let address = service.address.clone();
    drain(service.process);
    let flags = scene.merge("out");
    let submit: Vec<&str> = std::iter::once("submit")
        .chain(flags.iter().map(String::as_str))
        .collect();
    for args in [
        &["get", "x"][..],
        &["list"],
        &["watch", "x"],
        &["cancel", "x"],
        &submit,
    ] {
        let mut command = process::command(args);
        command.args(["--coordinator", &address]);
        let failed = Process::start(command).wait().expect_code(75);
        assert!(
            failed.stderr.contains(&format!(
                "error: {address}: the coordinator cannot be reached: "
            )),
            "{failed:#?}"
        );
        assert!(
            failed.stderr.contains("hint: start one by `chatvec serve`"),
            "{failed:#?}"
        );
    }
}

#[test]
fn health_and_reflection_answer() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let (endpoint, runtime) = (service.endpoint(), client_runtime());
    let (health, names) = runtime.block_on(async {
        let channel = endpoint.connect().await.unwrap();
        let check = HealthCheckRequest {
            service: String::new(),
        };
        let health = HealthClient::new(channel.clone())
            .check(check)
            .await
            .unwrap();
        (health.into_inner().status(), services(channel).await)
    });
    // Its end closes the connection.
    drop(runtime);
    assert_eq!(health, ServingStatus::Serving);
    for name in [
        "chatvec.v1.MergeService",
        "chatvec.v1.WorkerService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    let stopped = drain(service.process);
    assert!(
        !stopped.stderr.contains("closed"),
        "nobody had to be cut off: {stopped:#?}"
    );
}

/// Drives a client in this process, on the thread that waits for it alone.
fn client_runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime can be made")
}

/// What the services of an address are called, by reflection.
async fn services(channel: Channel) -> Vec<String> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers
        .expect("a stream")
        .into_inner()
        .message()
        .await
        .expect("an answer");
    match answer.and_then(|answer| answer.message_response) {
        Some(MessageResponse::ListServicesResponse(list)) => list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        other => panic!("a list of services is expected, found {other:?}"),
    }
}
