//! The clients' end of the wire: a list of coordinators of which any will do,
//! or one inside this process.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status, TimeoutExpired};
use tower::{Service, ServiceExt as _, service_fn};

use crate::identity;

/// Bytes that an in-process connection buffers in each direction.
const DUPLEX_BYTES: usize = 1 << 20;
/// How long a connection attempt may take. A process that is gone refuses at
/// once; this is for a machine that is gone. Too short and a distant
/// coordinator is never reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection on which a call waits is proven alive this often. Servers close
/// connections that ping much more often.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(20);
/// How long the proof may take before the connection counts as broken.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the coordinators are.
#[derive(Debug, Clone)]
pub struct Coordinators {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Network(Vec<Endpoint>),
    InProcess(mpsc::Sender<io::Result<DuplexStream>>),
}

/// Why a text names no coordinators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A scheme that is not spoken.
    #[error("expected `http://`, found `{0}://`")]
    Scheme(String),
    /// Anything else.
    #[error("expected the address of a coordinator, found `{0}`")]
    Malformed(String),
}

impl Coordinators {
    /// Parses addresses such as `http://a:7070,b:7070`; `http://` may be left
    /// out. Nothing is connected.
    ///
    /// # Errors
    /// The first address that is none.
    pub fn parse(list: &str) -> Result<Self, AddressError> {
        let endpoints = list.split(',').map(str::trim).map(endpoint);
        Ok(Self {
            place: Place::Network(endpoints.collect::<Result<_, _>>()?),
        })
    }

    /// A connection of its own, within a runtime. It connects at the first call
    /// and again after it was lost. Clones of it share it.
    pub fn connect(&self) -> Connection {
        let channels = match &self.place {
            Place::Network(endpoints) => endpoints.iter().map(Endpoint::connect_lazy).collect(),
            Place::InProcess(sender) => vec![in_process_channel(sender.clone())],
        };
        // Many clients with one list begin at different coordinators.
        let first = (identity::jitter() * channels.len() as f64) as usize % channels.len();
        Connection {
            shared: Arc::new(Shared {
                channels,
                current: AtomicUsize::new(first),
            }),
        }
    }
}

fn endpoint(address: &str) -> Result<Endpoint, AddressError> {
    let malformed = || AddressError::Malformed(address.to_owned());
    let url = match address.split_once("://") {
        Some(("http", _)) => address.to_owned(),
        Some((scheme, _)) => return Err(AddressError::Scheme(scheme.to_owned())),
        None => format!("http://{address}"),
    };
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(malformed());
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_PERIOD)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT))
}

/// A connection to whichever coordinator works; the transport of the generated
/// clients. Calls go to one coordinator for as long as it answers. A call that
/// it does not answer fails, and the next call goes to the next coordinator:
/// callers repeat what may be repeated.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    channels: Vec<Channel>,
    current: AtomicUsize,
}

impl Shared {
    /// Turns away from a coordinator. Of several calls that fail together the
    /// first turns, so that none is skipped.
    fn leave(&self, ordinal: usize) {
        let next = (ordinal + 1) % self.channels.len();
        // It fails where another call has turned already.
        let _ = self
            .current
            .compare_exchange(ordinal, next, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Which channel must be ready is known when the call is made.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let ordinal = shared.current.load(Ordering::Acquire);
            let answer = shared.channels[ordinal].clone().oneshot(request).await;
            let is_away = match &answer {
                Ok(response) => is_unavailable(response),
                Err(_) => true,
            };
            if is_away {
                shared.leave(ordinal);
            }
            answer.map_err(status_of)
        })
    }
}

/// What a call ends with that got no answer. The library tells a deadline that
/// has passed as CANCELLED.
fn status_of(error: tonic::transport::Error) -> Status {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return Status::deadline_exceeded("the call's deadline has passed");
        }
        cause = error.source();
    }
    Status::from_error(Box::new(error))
}

/// Whether the answer is a bare status that says to go elsewhere.
fn is_unavailable(response: &Response<Body>) -> bool {
    let status = response.headers().get("grpc-status");
    status.is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::Unavailable)
}

/// The server's end of in-process connections.
pub type Incoming = ReceiverStream<io::Result<DuplexStream>>;

/// A coordinator in this process: no port is opened.
pub fn in_process() -> (Coordinators, Incoming) {
    let (sender, receiver) = mpsc::channel(1);
    let coordinators = Coordinators {
        place: Place::InProcess(sender),
    };
    (coordinators, ReceiverStream::new(receiver))
}

fn in_process_channel(sender: mpsc::Sender<io::Result<DuplexStream>>) -> Channel {
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
    Endpoint::from_static("http://in-process").connect_with_connector_lazy(connect)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    /// A server that answers, at the address that comes back.
    async fn answering() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (_, health) = tonic_health::server::health_reporter();
        let server = tonic::transport::Server::builder().add_service(health);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    /// An address that refuses.
    async fn dead() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    }

    async fn call(connection: &Connection) -> Result<(), Status> {
        let mut health = HealthClient::new(connection.clone());
        health
            .check(HealthCheckRequest::default())
            .await
            .map(|_| ())
    }

    #[test]
    fn addresses_are_a_list_and_may_lack_their_scheme_but_have_no_other() {
        for good in [
            "http://h:1",
            "127.0.0.1:7070",
            "localhost:1",
            "http://a:1, b:2",
        ] {
            assert!(Coordinators::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "https://h:1",
            "grpc://h",
            "http://a b",
            "",
            "a:1,",
            "http://",
        ] {
            assert!(Coordinators::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Coordinators::parse("a:1,https://b")
                .unwrap_err()
                .to_string(),
            "expected `http://`, found `https://`"
        );
    }

    #[tokio::test]
    async fn a_dead_coordinator_costs_one_call_at_most_and_is_not_asked_again() {
        let list = format!("{},{},{}", dead().await, answering().await, dead().await);
        let coordinators = Coordinators::parse(&list).unwrap();
        for _ in 0..10 {
            let connection = coordinators.connect();
            let mut failed = 0;
            while call(&connection).await.is_err() {
                failed += 1;
            }
            // It began with either of the dead ones, or with the living one.
            assert!(failed <= 2, "{failed}");
            for _ in 0..5 {
                call(&connection).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_deadline_that_has_passed_is_told_as_such() {
        // It takes connections and says nothing.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connection = Coordinators::parse(&address).unwrap().connect();
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.set_timeout(Duration::from_millis(50));
        let late = HealthClient::new(connection).check(request).await;
        assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn calls_that_fail_together_turn_once() {
        let list = format!("{},{}", dead().await, answering().await);
        let connection = Coordinators::parse(&list).unwrap().connect();
        connection.shared.current.store(0, Ordering::Release);
        let calls = [call(&connection), call(&connection)];
        for answer in futures_util::future::join_all(calls).await {
            answer.unwrap_err();
        }
        call(&connection).await.unwrap();
    }
}
