//! An OTLP collector that keeps what it receives: the real protocol, at the
//! other end of which tests look at spans.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::process::until;

/// A collector on a free port of the loopback address, until it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: String,
    spans: Arc<Mutex<Vec<Span>>>,
    _runtime: Runtime,
}

/// A span as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it is: verb and object.
    pub name: String,
    /// The trace, in hexadecimal digits.
    pub trace_id: String,
    /// The span, in hexadecimal digits.
    pub span_id: String,
    /// The span that it is a part of; `None` for the root of a trace.
    pub parent_id: Option<String>,
    /// Its fields.
    pub attributes: BTreeMap<String, String>,
    /// Who sent it.
    pub resource: BTreeMap<String, String>,
}

impl Collector {
    /// Starts to listen.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be started");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let spans = Arc::default();
        let service = TraceServiceServer::new(Keeping {
            spans: Arc::clone(&spans),
        });
        let served = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(served);
        Self {
            address: address.to_string(),
            spans,
            _runtime: runtime,
        }
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far, in the order in which they came.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.spans).clone()
    }

    /// Waits until the spans meet a condition, and returns them.
    ///
    /// # Panics
    /// If they don't in time, naming `what` was waited for.
    pub fn until(&self, what: &str, condition: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        until(what, || condition(&lock(&self.spans)));
        self.spans()
    }
}

fn lock(spans: &Mutex<Vec<Span>>) -> MutexGuard<'_, Vec<Span>> {
    spans.lock().expect("nothing panics while it holds this")
}

struct Keeping {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Keeping {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for group in request.into_inner().resource_spans {
            let resource = texts(group.resource.unwrap_or_default().attributes);
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            lock(&self.spans).extend(spans.map(|span| Span::of(span, &resource)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Span {
    fn of(span: v1::Span, resource: &BTreeMap<String, String>) -> Self {
        Self {
            name: span.name,
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent_id: Some(hex(&span.parent_span_id)).filter(|id| !id.is_empty()),
            attributes: texts(span.attributes),
            resource: resource.clone(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(fields: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    fields
        .into_iter()
        .map(|field| (field.key, text(field.value)))
        .collect()
}
