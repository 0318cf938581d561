//! Spans and logs as others see them: a collector, and whoever reads stderr.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use chatvec_tests::otlp::{Collector, Span};
use chatvec_tests::process::{self, Process};
use serde_json::Value;

use crate::service::scene::{ANY_PORT, Scene, Service, drain, id, tasks};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// A trace that somebody began before.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A job from its submission to its end, each process told `set`; returns what
/// `get` says of the job, and what every process wrote to stderr.
fn run_a_job(scene: &Scene, set: &dyn Fn(&mut Command)) -> (Value, Vec<String>) {
    let service = scene.serve_with(
        ANY_PORT,
        &["--part-size", "1MiB", "--log-format", "json"],
        set,
    );
    let start = |service: &Service, args: &[&str]| {
        let mut command = service.command(args);
        set(&mut command);
        Process::start(command)
    };
    let worker = start(
        &service,
        &["worker", "--slots", "2", "--log-format", "json"],
    );
    let flags = scene.merge("out");
    let args: Vec<&str> = ["submit", "-o", "json", "--wait"]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .collect();
    let submitted = start(&service, &args).wait().expect_code(0);
    let job = submitted.json();
    assert_eq!(job["state"], "SUCCEEDED", "{job:#}");
    let logs = vec![
        submitted.stderr,
        drain(worker).stderr,
        drain(service.process).stderr,
    ];
    (job, logs)
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "spans `{name}` of {spans:#?}");
    found[0]
}

#[test]
fn a_job_is_one_trace_from_its_submission_to_its_publication() {
    let (scene, collector) = (Scene::new(), Collector::start());
    let (job, _) = run_a_job(&scene, &|command| {
        command.env(ENDPOINT, collector.endpoint());
    });
    // Every process has ended, and had sent its spans by then.
    let spans = collector.spans();
    let root = one(&spans, "submit job");
    assert_eq!(root.parent_id, None);
    for span in &spans {
        assert_eq!(span.trace_id, root.trace_id, "{span:#?}");
        assert_eq!(span.attributes["job.id"], id(&job), "{span:#?}");
    }
    for name in ["create job", "plan job", "publish job"] {
        assert_eq!(one(&spans, name).parent_id.as_ref(), Some(&root.span_id));
    }
    let attempts = named(&spans, "run task");
    let ran: BTreeSet<_> = attempts
        .iter()
        .map(|span| &span.attributes["task.id"])
        .collect();
    assert_eq!(ran.len() as u64, tasks(&job, "tasks_total"));
    assert_eq!(ran.len(), attempts.len(), "each task ran once");
    let known: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    for span in &spans {
        let parent = span.parent_id.as_ref();
        assert!(
            parent.is_none_or(|parent| known.contains(parent)),
            "{span:#?}"
        );
    }
}

#[test]
fn spans_say_who_sent_them() {
    let (scene, collector) = (Scene::new(), Collector::start());
    run_a_job(&scene, &|command| {
        command.env(ENDPOINT, collector.endpoint());
        command.env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test");
    });
    let spans = collector.spans();
    for (name, role) in [
        ("submit job", "client"),
        ("plan job", "coordinator"),
        ("run task", "worker"),
    ] {
        let sender = &named(&spans, name)[0].resource;
        assert_eq!(sender["service.name"], "chatvec");
        assert_eq!(sender["chatvec.role"], role);
        assert_eq!(sender["deployment.environment"], "test");
        assert_eq!(sender["service.version"], env!("CARGO_PKG_VERSION"));
    }
    let instances: BTreeSet<_> = spans
        .iter()
        .map(|span| &span.resource["service.instance.id"])
        .collect();
    assert_eq!(instances.len(), 3, "one a process");
}

#[test]
fn a_client_that_was_started_in_a_trace_goes_on_with_it() {
    let (scene, collector) = (Scene::new(), Collector::start());
    let parent = format!("00-{TRACE}-{PARENT}-01");
    run_a_job(&scene, &|command| {
        command
            .env(ENDPOINT, collector.endpoint())
            .env("TRACEPARENT", &parent);
    });
    let spans = collector.spans();
    assert_eq!(one(&spans, "submit job").parent_id.as_deref(), Some(PARENT));
    assert!(
        spans.iter().all(|span| span.trace_id == TRACE),
        "{spans:#?}"
    );
}

#[test]
fn a_client_without_a_collector_passes_its_trace_on() {
    let (scene, collector) = (Scene::new(), Collector::start());
    let service = scene.serve_with(ANY_PORT, &[], &|command| {
        command.env(ENDPOINT, collector.endpoint());
    });
    let flags = scene.merge("out");
    let args = ["submit"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let mut submit = service.command(args);
    submit.env("TRACEPARENT", format!("00-{TRACE}-{PARENT}-01"));
    Process::start(submit).wait().expect_code(0);
    drain(service.process);
    let spans = collector.spans();
    assert_eq!(one(&spans, "create job").parent_id.as_deref(), Some(PARENT));
    assert_eq!(one(&spans, "create job").trace_id, TRACE);
}

#[test]
fn a_job_of_a_client_that_knows_no_traces_is_one_trace_too() {
    let (scene, collector) = (Scene::new(), Collector::start());
    let service = scene.serve_with(ANY_PORT, &[], &|command| {
        command.env(ENDPOINT, collector.endpoint());
    });
    let job = service.submit(&scene, "out", &[]);
    service.until(&id(&job), "the plan", |job| job["state"] == "QUEUED");
    drain(service.process);
    let spans = collector.spans();
    let root = one(&spans, "create job");
    assert_eq!(root.parent_id, None);
    let planned = one(&spans, "plan job");
    assert_eq!(planned.trace_id, root.trace_id);
    assert_eq!(planned.parent_id.as_ref(), Some(&root.span_id));
}

#[test]
fn a_merge_on_one_machine_is_one_trace() {
    let (scene, collector) = (Scene::new(), Collector::start());
    let flags = scene.merge("out");
    let args = ["merge"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let mut merge = process::command(args);
    merge.env(ENDPOINT, collector.endpoint());
    Process::start(merge).wait().expect_code(0);
    let spans = collector.spans();
    let root = one(&spans, "merge checkpoint");
    assert!(!named(&spans, "run task").is_empty(), "{spans:#?}");
    assert!(
        spans.iter().all(|span| span.trace_id == root.trace_id),
        "{spans:#?}"
    );
}

#[test]
fn nothing_is_exported_where_the_sdk_is_disabled() {
    let (scene, collector) = (Scene::new(), Collector::start());
    run_a_job(&scene, &|command| {
        command
            .env(ENDPOINT, collector.endpoint())
            .env("OTEL_SDK_DISABLED", "true");
    });
    assert_eq!(collector.spans(), []);
}

#[test]
fn a_collector_that_is_away_costs_one_warning_and_no_job() {
    let scene = Scene::new();
    // A port that was free a moment ago: connections are refused.
    let away = Collector::start().endpoint();
    let (_, logs) = run_a_job(&scene, &|command| {
        command.env(ENDPOINT, &away);
    });
    for log in logs {
        let warnings = log.matches("spans cannot be exported").count();
        assert_eq!(warnings, 1, "{log}");
    }
}

#[test]
fn an_endpoint_that_makes_no_sense_is_told_and_ignored() {
    let scene = Scene::new();
    let (_, logs) = run_a_job(&scene, &|command| {
        command.env(ENDPOINT, "https://collector.example");
    });
    for log in logs {
        assert_eq!(log.matches("spans are not exported").count(), 1, "{log}");
    }
}

#[test]
fn a_collector_that_never_answers_holds_no_process_up() {
    let scene = Scene::new();
    // It takes connections into its backlog, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let service = scene.serve_with(ANY_PORT, &[], &|command| {
        command.env(ENDPOINT, &endpoint);
    });
    service.submit(&scene, "out", &[]);
    let begin = Instant::now();
    drain(service.process);
    // The limit of a single export is ten seconds; the end waits for two.
    assert!(begin.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_json_line_names_the_trace_and_the_objects_of_its_message() {
    let (scene, collector) = (Scene::new(), Collector::start());
    let (job, logs) = run_a_job(&scene, &|command| {
        command.env(ENDPOINT, collector.endpoint());
    });
    let trace = collector.spans()[0].trace_id.clone();
    let [_, worker, coordinator] = &logs[..] else {
        panic!("three processes ran")
    };
    let lines = |log: &str| -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).expect("every line is JSON");
        log.lines().map(parse).collect()
    };
    assert!(!lines(worker).is_empty());
    let lines = lines(coordinator);
    for message in ["job created", "job planned", "job published"] {
        let line = lines.iter().find(|line| line["message"] == message);
        let line = line.unwrap_or_else(|| panic!("no `{message}` in {lines:#?}"));
        assert_eq!(line["job.id"], id(&job), "{line:#}");
        assert_eq!(line["trace_id"], trace, "{line:#}");
        assert_eq!(line["span_id"].as_str().map(str::len), Some(16), "{line:#}");
    }
}
