//! Serves a coordinator: both services, health and reflection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::layer::layer_fn;

use crate::channel::Incoming;
use crate::coordinator::{Coordinator, descriptors};
use crate::deadline::WithDeadlines;

/// How long calls under way may take to end. A client that hangs never closes
/// its connection, and must not keep the coordinator from stopping.
const LAST_CALLS_WAIT: Duration = Duration::from_secs(5);

/// A connection is proven alive this often, also one on which nobody calls: the
/// watches of a machine that vanished would stay for ever. Too short and slow
/// networks break healthy connections.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(20);
/// How long the proof may take before the connection is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at once on one connection, watches among them: whoever watches more
/// jobs than this over one connection could make no other call.
const CALLS_PER_CONNECTION: u32 = 4096;

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
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = builder(KEEPALIVE_PERIOD, KEEPALIVE_TIMEOUT)
        .layer(layer_fn(WithDeadlines::<Routes>::new))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, until_stop);
    tokio::select! {
        served = served => served.context("the server failed"),
        () = too_long_after(stop) => {
            tracing::warn!("clients keep their connections open, they are closed");
            Ok(())
        }
    }
}

fn builder(keepalive_period: Duration, keepalive_timeout: Duration) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(keepalive_period))
        .http2_keepalive_timeout(Some(keepalive_timeout))
        .max_concurrent_streams(CALLS_PER_CONNECTION)
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    /// How HTTP/2 begins, and a frame of settings with none in it.
    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// A server that loses patience soon.
    async fn strict_server() -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, health) = tonic_health::server::health_reporter();
        let mut server = builder(Duration::from_millis(50), Duration::from_millis(200));
        let server = server.add_service(health);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        address
    }

    #[tokio::test]
    async fn a_connection_whose_other_end_is_dead_is_closed() {
        let mut connection = TcpStream::connect(strict_server().await).await.unwrap();
        connection.write_all(HELLO).await.unwrap();
        // It reads, as a dead machine's kernel might, and answers nothing.
        let mut heard = Vec::new();
        let end = connection.read_to_end(&mut heard);
        let end = tokio::time::timeout(Duration::from_secs(30), end).await;
        end.expect("the server gives up").unwrap();
        // The head of a ping: its length in three bytes, and its type.
        const PING: [u8; 4] = [0, 0, 8, 6];
        let was_pinged = heard.windows(PING.len()).any(|head| head == PING);
        assert!(was_pinged, "{heard:?}");
    }

    #[tokio::test]
    async fn a_watch_of_a_client_that_lives_outlasts_the_keepalive() {
        let url = format!("http://{}", strict_server().await);
        let channel = tonic::transport::Endpoint::from_shared(url).unwrap();
        let mut health = HealthClient::new(channel.connect().await.unwrap());
        let watch = health.watch(HealthCheckRequest::default()).await;
        let mut watch = watch.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        let more = tokio::time::timeout(Duration::from_secs(1), watch.message()).await;
        more.expect_err("nothing changes and nothing breaks");
    }
}
