//! Serves a coordinator: both services, health and reflection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::channel::Incoming;
use crate::coordinator::{Coordinator, descriptors};

/// How long calls under way may take to end. A client that hangs never closes
/// its connection, and must not keep the coordinator from stopping.
const LAST_CALLS_WAIT: Duration = Duration::from_secs(5);

/// Serves on a listener until `stop`: then health says so, waiting calls
/// return, and calls under way end, or are cut off after five seconds.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    coordinator: &Coordinator,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", ServingStatus::Serving)
        .await;
    let mut reflection = Vec::new();
    for descriptors in [descriptors(), tonic_health::pb::FILE_DESCRIPTOR_SET] {
        reflection.push(descriptors);
    }
    let v1 = reflection_builder(&reflection).build_v1()?;
    let v1alpha = reflection_builder(&reflection).build_v1alpha()?;
    let stopping = coordinator.stopping();
    let stopped = stop.clone();
    let ready = coordinator.ready();
    let until_stop = async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = report_readiness(&reporter, ready) => {}
        }
        reporter
            .set_service_status("", ServingStatus::NotServing)
            .await;
        stopping.cancel();
    };
    let routes = coordinator
        .routes()
        .add_service(health)
        .add_service(v1)
        .add_service(v1alpha);
    let served = Server::builder()
        .add_routes(routes)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), until_stop);
    tokio::select! {
        served = served => served.context("the server failed"),
        () = too_long_after(stop) => {
            tracing::warn!("clients keep their connections open, they are closed");
            Ok(())
        }
    }
}

/// Says of the service what is true of its job store: without it no call can be
/// answered, and clients should ask another coordinator. Returns when the
/// coordinator is gone.
async fn report_readiness(reporter: &HealthReporter, mut ready: watch::Receiver<bool>) {
    while ready.changed().await.is_ok() {
        let status = match *ready.borrow_and_update() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        reporter.set_service_status("", status).await;
    }
}

/// Returns when calls under way had time enough to end.
async fn too_long_after(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_CALLS_WAIT).await;
}

fn reflection_builder<'a>(descriptors: &[&'a [u8]]) -> tonic_reflection::server::Builder<'a> {
    let builder = tonic_reflection::server::Builder::configure();
    descriptors.iter().fold(builder, |builder, one| {
        builder.register_encoded_file_descriptor_set(one)
    })
}

/// Binds the address of a coordinator.
///
/// # Errors
/// If the address is taken or not of this machine.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on `{address}`"))
}

/// Serves callers in this process until `stop`.
///
/// # Errors
/// If a connection cannot be served.
pub async fn serve_in_process(
    coordinator: &Coordinator,
    incoming: Incoming,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    Server::builder()
        .add_routes(coordinator.routes())
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
        .context("the in-process server failed")
}
