//! Channels to a coordinator: over the network, or inside this process.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Bytes that an in-process connection buffers in each direction.
const DUPLEX_BYTES: usize = 1 << 20;
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel to the coordinator at this address. It connects at the first
/// call, and again after a connection is lost.
///
/// # Errors
/// If the text is no address of a coordinator.
pub fn remote(coordinator: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(coordinator.to_owned()).map_err(|error| {
        anyhow::anyhow!("`{coordinator}` is no address of a coordinator: {error}")
    })?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy())
}

/// The server's end of in-process connections.
pub type Incoming = ReceiverStream<io::Result<DuplexStream>>;

/// A channel to a server in this process: no port is opened.
pub fn in_process() -> (Channel, Incoming) {
    let (sender, receiver) = mpsc::channel(1);
    let connect = service_fn(move |_: Uri| {
        let sender = sender.clone();
        async move {
            let (client, server) = tokio::io::duplex(DUPLEX_BYTES);
            let gone = |_| {
                io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "the coordinator has stopped",
                )
            };
            sender.send(Ok(server)).await.map_err(gone)?;
            Ok::<_, io::Error>(TokioIo::new(client))
        }
    });
    // The address is never looked up.
    let channel = Endpoint::from_static("http://in-process").connect_with_connector_lazy(connect);
    (channel, ReceiverStream::new(receiver))
}
