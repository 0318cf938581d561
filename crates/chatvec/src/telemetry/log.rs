//! The log: text for people, or one JSON object a line.

use std::fmt;
use std::io::{self, IsTerminal as _};

use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use super::Role;

/// The variable that sets what is logged, such as `debug` or `chatvec=debug`.
const LEVEL_VARIABLE: &str = "CHATVEC_LOG";

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    pub(super) fn layer<S>(self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        match self {
            Self::Text => {
                let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                lines
                    .with_ansi(io::stderr().is_terminal() && !no_color)
                    .boxed()
            }
            Self::Json => lines
                .fmt_fields(JsonFields::new())
                .event_format(JsonLines)
                .boxed(),
        }
    }
}

/// What is logged.
pub(super) fn filter(role: Role) -> EnvFilter {
    let given = std::env::var(LEVEL_VARIABLE)
        .ok()
        .filter(|text| !text.is_empty());
    EnvFilter::new(given.as_deref().unwrap_or(role.default_level()))
}

/// One flat object an event: when, how grave, who and what, then the fields of
/// the spans that it happened in, from the outermost, then its own. An inner
/// field wins over an outer one of the same name.
struct JsonLines;

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line(Map::new());
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            // Written by `JsonFields`: an object, or nothing for no fields.
            let fields = fields.and_then(|fields| serde_json::from_str(fields).ok());
            line.0.extend(fields.unwrap_or_else(Map::new));
            line.0.insert("span".to_owned(), span.name().into());
        }
        event.record(&mut line);
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        line.record_text("timestamp", timestamp);
        line.record_text("level", metadata.level().to_string());
        line.record_text("target", metadata.target().to_owned());
        let context = opentelemetry::Context::current();
        let span = context.span().span_context().clone();
        if span.is_valid() {
            line.record_text("trace_id", span.trace_id().to_string());
            line.record_text("span_id", span.span_id().to_string());
        }
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

/// A line while its fields are gathered.
struct Line(Map<String, Value>);

impl Line {
    fn record_text(&mut self, name: &str, text: String) {
        self.0.insert(name.to_owned(), text.into());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_text(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_text(field.name(), value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while `work` runs, line by line.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_is_flat_and_carries_the_fields_of_its_spans() {
        let lines = logged(|| {
            let job = tracing::info_span!("plan job", job.id = "j", task.id = 1);
            let _job = job.enter();
            let task = tracing::info_span!("run task", task.id = 7);
            let _task = task.enter();
            tracing::warn!(
                task.bytes = 12_u64,
                ratio = 0.5,
                done = true,
                "half \"done\""
            );
        });
        let [line] = &lines[..] else {
            panic!("expected one line, found {lines:?}")
        };
        assert_eq!(line["message"], "half \"done\"");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], module_path!());
        assert_eq!(line["span"], "run task");
        assert_eq!(line["job.id"], "j");
        assert_eq!(line["task.id"], 7, "the inner span wins");
        assert_eq!(line["task.bytes"], 12);
        assert_eq!(line["ratio"], 0.5);
        assert_eq!(line["done"], true);
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(line.get("trace_id"), None, "no trace is active");
    }

    #[test]
    fn a_line_outside_of_spans_has_its_own_fields_only() {
        let lines = logged(|| tracing::info!(server.address = %"h:1", "coordinator listens"));
        assert_eq!(lines[0]["server.address"], "h:1");
        assert_eq!(lines[0].get("span"), None);
    }
}
