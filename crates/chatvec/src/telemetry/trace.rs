//! Spans: their export to a collector, and the trace that they belong to.
//!
//! Between processes a trace travels as a W3C `traceparent`: in the metadata
//! of a call, on the row of a job and with each leased task.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{RetryPolicy, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::resource::{
    EnvResourceDetector, SdkProvidedResourceDetector, TelemetryResourceDetector,
};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::{Builder, Runtime};
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::Role;
use crate::identity;

/// The name under which a trace travels, in metadata and in the environment.
const TRACEPARENT: &str = "traceparent";
/// How long the last spans may take at the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The export of spans, with threads of its own: it is there before the
/// command's runtime and after it.
#[derive(Debug)]
pub(super) struct Export {
    provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

impl Export {
    /// As the environment says; `None` if it names no collector.
    ///
    /// # Errors
    /// If what it says makes no sense.
    pub(super) fn from_environment(role: Role) -> anyhow::Result<Option<Self>> {
        let set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let is_named = set(opentelemetry_otlp::OTEL_EXPORTER_OTLP_ENDPOINT)
            || set(opentelemetry_otlp::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT);
        // The SDK leaves this variable to its users.
        let is_disabled = std::env::var("OTEL_SDK_DISABLED")
            .is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        if !is_named || is_disabled {
            return Ok(None);
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .context("the runtime cannot be started")?;
        // The channel's tasks go to the runtime that it is made in.
        let entered = runtime.enter();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            // One more try meets a connection that the collector had closed.
            // More would keep a command waiting for a collector that is away.
            .with_retry_policy(RetryPolicy::recommended().with_max_retries(1))
            .build()?;
        drop(entered);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Told::new(exporter))
            .with_resource(resource(role))
            .build();
        Ok(Some(Self {
            provider,
            runtime: Some(runtime),
        }))
    }

    /// The layer that turns this program's spans into exported ones. Nobody
    /// else's: the exporter's own calls would call for the next export.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("chatvec"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target("chatvec", LevelFilter::INFO))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        // Spans that nobody took in time are lost, and that was told.
        let _flushed = self.provider.shutdown_with_timeout(FLUSH_MAX);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Who sends the spans. What the environment says wins over what is built in.
fn resource(role: Role) -> Resource {
    let detected = Resource::builder_empty()
        .with_detector(Box::new(SdkProvidedResourceDetector))
        .build();
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", identity::instance_id()),
        KeyValue::new("host.name", identity::hostname()),
        KeyValue::new("chatvec.role", role.name()),
    ];
    let name = detected
        .get(&"service.name".into())
        .filter(|name| !name.as_str().starts_with("unknown_service"))
        .unwrap_or_else(|| "chatvec".into());
    Resource::builder_empty()
        .with_attributes(own)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_service_name(name)
        .build()
}

/// An exporter whose failures are told once, until it works again.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    is_failing: AtomicBool,
}

impl<E> Told<E> {
    fn new(exporter: E) -> Self {
        Self {
            exporter,
            is_failing: AtomicBool::new(false),
        }
    }

    fn tell(&self, outcome: &OTelSdkResult) {
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "spans cannot be exported and are dropped, until it works again");
            }
            Ok(()) if was_failing => tracing::info!("spans are exported again"),
            _ => {}
        }
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        self.tell(&outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> Result<(), OTelSdkError> {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The span as a part of the trace that `traceparent` names, if it names one;
/// it must not have been entered. Otherwise a span of the trace around it.
pub fn continued(span: Span, traceparent: Option<&str>) -> Span {
    if let Some(parent) = traceparent.and_then(parse) {
        let parent = Context::new().with_remote_span_context(parent);
        // Fails where no spans are exported, and then there is nothing to continue.
        let _not_exported = span.set_parent(parent);
    }
    span
}

/// Marks the span that goes on in this thread as failed. A log line says so
/// where the failure is handled, which may be in another process.
pub fn failed(why: &impl fmt::Display) {
    Span::current().set_status(Status::error(why.to_string()));
}

/// The trace that goes on in this thread, as a `traceparent`. `None` if none does.
pub fn traceparent() -> Option<String> {
    let context = Context::current();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| format(span))
}

/// The `traceparent` that came with a call, if it is a valid one.
pub fn traceparent_of(metadata: &MetadataMap) -> Option<String> {
    let text = metadata.get(TRACEPARENT)?.to_str().ok()?;
    parse(text).as_ref().map(format)
}

/// Gives a call the trace that goes on in this thread, if one does.
pub fn inject(metadata: &mut MetadataMap) {
    if let Some(traceparent) = traceparent() {
        let value = MetadataValue::try_from(traceparent).expect("it is ASCII");
        metadata.insert(TRACEPARENT, value);
    }
}

/// The trace that the process was started in.
pub(super) fn parent_of_process() -> Option<Context> {
    let text = std::env::var(TRACEPARENT.to_uppercase()).ok()?;
    Some(Context::new().with_remote_span_context(parse(&text)?))
}

/// Reads a `traceparent` as <https://www.w3.org/TR/trace-context/> says: of a
/// later version the fields that this one knows, and no id of zeros.
fn parse(text: &str) -> Option<SpanContext> {
    let mut fields = text.split('-');
    let mut hex = |digits: usize| {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let field = fields.next()?;
        (field.len() == digits && field.bytes().all(is_digit)).then_some(field)
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let is_known = match version {
        "ff" => false,
        "00" => fields.next().is_none(),
        _ => true,
    };
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        flags & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    (is_known && context.is_valid()).then_some(context)
}

fn format(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags() & TraceFlags::SAMPLED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(text: &str) -> Option<String> {
        parse(text).as_ref().map(format)
    }

    #[test]
    fn a_valid_traceparent_is_read_and_written_as_it_was() {
        assert_eq!(read(VALID).as_deref(), Some(VALID));
        let unsampled = VALID.replace("-01", "-00");
        assert_eq!(read(&unsampled), Some(unsampled));
    }

    #[test]
    fn what_a_later_version_adds_is_left_out() {
        let later = VALID.replacen("00-", "cc-", 1);
        for later in [later.clone(), format!("{later}-what-else")] {
            assert_eq!(read(&later).as_deref(), Some(VALID), "{later}");
        }
        let more_flags = VALID.replace("-01", "-ff");
        assert_eq!(read(&more_flags).as_deref(), Some(VALID));
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let [trace, span] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
        for bad in [
            String::new(),
            "00".to_owned(),
            format!("{VALID}-more"),
            format!(" {VALID}"),
            format!("ff-{trace}-{span}-01"),
            format!("0x-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", &trace[1..]),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}"),
            format!("00-{}é-{span}-01", &trace[2..]),
        ] {
            assert_eq!(read(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_call_carries_the_trace_that_goes_on() {
        let mut metadata = MetadataMap::new();
        inject(&mut metadata);
        assert_eq!(traceparent_of(&metadata), None, "no trace goes on");
        let parent = parse(VALID).expect("it is valid");
        let _entered = Context::new().with_remote_span_context(parent).attach();
        inject(&mut metadata);
        assert_eq!(traceparent_of(&metadata).as_deref(), Some(VALID));
    }
}
