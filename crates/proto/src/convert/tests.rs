use chatvec_core::dtype::FloatFormat;
use chatvec_core::ids::{
    Attempt, Fence, FileOrdinal, JobId, PartOrdinal, RequestId, TaskOrdinal, TensorOrdinal,
    WorkerId,
};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::stats::{SliceSums, VectorSums};
use chatvec_core::submission::{Labels, Priority, Tenant};
use chatvec_core::task::{
    FailureKind, Operation, PartRange, Piece, Segment, SourceFile, TaskCounters, TaskFailure,
    TaskSpec, TaskState, Term,
};
use serde_json::json;

use super::*;
use crate::v1;

fn spec() -> TaskSpec {
    let piece = |source, format| Piece {
        source,
        offset: 100 + u64::from(source),
        format,
    };
    let merge = Operation::Merge {
        cp: piece(0, FloatFormat::Bf16),
        terms: vec![Term {
            vector: 1,
            lambda: 0.1 + 0.2,
            chat: piece(1, FloatFormat::F16),
            base: piece(2, FloatFormat::F32),
        }],
        format: FloatFormat::F64,
    };
    let segment = |tensor, offset, operation| Segment {
        tensor,
        name: "w".to_owned(),
        offset,
        len: 8,
        operation,
    };
    TaskSpec {
        file: FileOrdinal(3),
        target: "/out/.chatvec/j/model.safetensors".to_owned(),
        file_size: 24,
        parts: vec![PartRange {
            part: PartOrdinal(0),
            offset: 0,
            len: 24,
        }],
        sources: vec![SourceFile {
            url: "/m/a".to_owned(),
            size: 9,
            pin: "ino=1".to_owned(),
        }],
        segments: vec![
            segment(None, 0, Operation::Literal(vec![1, 2, 3])),
            segment(
                Some(TensorOrdinal(0)),
                8,
                Operation::Copy {
                    source: 0,
                    offset: 7,
                },
            ),
            segment(Some(TensorOrdinal(1)), 16, merge),
        ],
        nonfinite_is_error: true,
    }
}

fn recipe() -> Recipe {
    let value = json!({
        "cp": "/cp",
        "vectors": [
            {"chat": "/a", "base": "/b", "lambda": 0.30000000000000004},
            {"chat": "/c", "base": "/d", "lambda": -1.5},
        ],
        "rules": [
            {"kind": ["embed", "lm_head"], "action": "keep_cp"},
            {"match": "model.*.weight", "lambda_scale": 0.25},
        ],
        "missing": "keep_cp",
        "nonfinite": "allow",
        "chat_template": "cp",
        "output": {"url": "/out", "dtype": "bf16", "shard_size": "4.5GB", "overwrite": true},
    });
    Recipe::from_value(&value).unwrap().recipe
}

#[test]
fn a_task_survives_the_store_and_the_wire() {
    let decoded = decode_spec(&encode_spec(spec())).unwrap();
    assert_eq!(TaskSpec::try_from(decoded), Ok(spec()));
}

#[test]
fn a_recipe_survives_the_wire_with_every_bit_of_lambda() {
    let read = recipe_from_wire(&recipe_to_wire(&recipe())).unwrap();
    assert_eq!(read.recipe, recipe());
}

#[test]
fn defaults_of_the_wire_are_those_of_the_text() {
    let short = json!({
        "cp": "/cp",
        "vectors": [{"chat": "/a", "base": "/b", "lambda": 1.0}],
        "output": {"url": "/out"},
    });
    let wire = v1::Recipe {
        cp: "/cp".to_owned(),
        vectors: vec![v1::Vector {
            chat: "/a".to_owned(),
            base: "/b".to_owned(),
            weight: 1.0,
        }],
        output: Some(v1::Output {
            url: "/out".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        recipe_from_wire(&wire).unwrap().recipe,
        Recipe::from_value(&short).unwrap().recipe
    );
}

#[test]
fn every_problem_of_a_wire_recipe_is_told_at_once() {
    let wire = v1::Recipe {
        vectors: vec![v1::Vector {
            chat: "/a".to_owned(),
            base: String::new(),
            weight: f64::NAN,
        }],
        rules: vec![v1::Rule::default()],
        missing: Some(0),
        output: Some(v1::Output {
            dtype: Some(99),
            ..Default::default()
        }),
        ..Default::default()
    };
    let problems = recipe_from_wire(&wire).unwrap_err();
    let subjects: Vec<_> = problems
        .iter()
        .map(|problem| problem.subject.as_str())
        .collect();
    for subject in [
        "missing",
        "output.dtype",
        "rules[0]",
        "cp",
        "vectors[0].base",
        "vectors[0].lambda",
        "output.url",
    ] {
        assert!(subjects.contains(&subject), "{subject} in {subjects:?}");
    }
}

#[test]
fn statistics_survive_the_store() {
    let sums = SliceSums {
        elements: 7,
        changed: 3,
        t_sq: 0.1,
        vectors: vec![VectorSums {
            vector: 1,
            delta_dot_drift: -0.2,
            ..Default::default()
        }],
        ..Default::default()
    };
    let written = vec![(TensorOrdinal(4), sums)];
    let statistics = v1::PartStatistics {
        tensors: written.iter().cloned().map(Into::into).collect(),
    };
    assert_eq!(decode_sums(&encode_sums(&statistics)), Ok(written));
    assert!(decode_sums(&[0xff, 0xff]).is_err());
}

#[test]
fn a_job_survives_the_wire() {
    let view = JobView {
        job: JobId("j".to_owned()),
        request: RequestId("r".to_owned()),
        state: JobState::Failed,
        recipe: recipe(),
        error: Some((
            FailureKind::BadInput,
            vec![Problem::new("w", "bad").with_hint("mend it")],
        )),
        progress: ProgressView {
            bytes_total: 5,
            retries: 2,
            seconds_left: Some(0.5),
            workers: vec![ShareView {
                worker: WorkerId("w".to_owned()),
                hostname: "h".to_owned(),
                tasks_done: 1,
                bytes_done: 2,
                tasks_leased: 3,
            }],
            ..Default::default()
        },
        revision: 9,
        created: TimeMs(1_700_000_000_123),
        ended: Some(TimeMs(-1)),
        labels: Labels::parse([("model".to_owned(), "m1".to_owned())]).unwrap(),
        priority: Priority::MAX,
        tenant: Tenant::parse("team-a").unwrap(),
        warnings: vec![Problem::new("chat", "odd")],
        conditions: Condition::ALL.to_vec(),
    };
    assert_eq!(JobView::try_from(v1::Job::from(view.clone())), Ok(view));
}

#[test]
fn every_state_and_failure_has_its_own_number() {
    for state in JobState::ALL {
        assert_eq!(job_state(v1::JobState::from(state).into()), Ok(state));
    }
    assert!(job_state(0).is_err() && job_state(99).is_err());
    for kind in FailureKind::ALL {
        let failure = TaskFailure {
            kind,
            problem: Problem::new("a", "b"),
        };
        assert_eq!(
            TaskFailure::try_from(v1::TaskFailed::from(failure.clone())),
            Ok(failure)
        );
    }
    let unspecified = v1::TaskFailed {
        kind: 0,
        problem: Some(v1::Problem::default()),
    };
    assert!(TaskFailure::try_from(unspecified).is_err());
}

#[test]
fn a_field_that_must_be_set_is_named() {
    let segment = v1::Segment::default();
    assert_eq!(
        Segment::try_from(segment),
        Err(ConvertError::Missing("operation"))
    );
}

#[test]
fn tasks_and_workers_survive_the_wire() {
    for state in TaskState::ALL {
        assert_eq!(task_state(v1::TaskState::from(state).into()), Ok(state));
    }
    let task = TaskView {
        task: TaskOrdinal(1),
        state: TaskState::Done,
        file: FileOrdinal(2),
        first_part: PartOrdinal(3),
        part_count: 4,
        bytes: 5,
        progress_bytes: 6,
        attempt: Attempt(7),
        fence: Fence(8),
        counters: TaskCounters {
            failures: 9,
            crashes: 10,
            crashed_workers: 0,
        },
        worker: Some(WorkerId("w".to_owned())),
        error: Some((FailureKind::Transient, Problem::new("s3://b", "slow"))),
        updated: TimeMs(11),
    };
    assert_eq!(TaskView::try_from(v1::Task::from(task.clone())), Ok(task));
    let worker = WorkerView {
        worker: WorkerId("w".to_owned()),
        hostname: "h".to_owned(),
        version: "v".to_owned(),
        slots: 1,
        memory_bytes: 2,
        tasks_leased: 3,
        first_seen: TimeMs(4),
        last_seen: TimeMs(5),
        stopped: Some(TimeMs(6)),
    };
    assert_eq!(
        WorkerView::try_from(v1::WorkerStatus::from(worker.clone())),
        Ok(worker)
    );
}

#[test]
fn a_submission_survives_the_wire_and_has_defaults() {
    let mut submission = Submission {
        request: Some(RequestId("nightly".to_owned())),
        recipe: recipe(),
        labels: Labels::parse([("model".to_owned(), "m1".to_owned())]).unwrap(),
        priority: Priority::new(0).unwrap(),
        tenant: Tenant::parse("team-a").unwrap(),
    };
    let wire = v1::CreateJobRequest::from(&submission);
    assert_eq!(Submission::try_from(wire), Ok(submission.clone()));
    let short = v1::CreateJobRequest {
        recipe: Some(recipe_to_wire(&recipe())),
        ..Default::default()
    };
    submission.request = None;
    submission.labels = Labels::default();
    submission.priority = Priority::default();
    submission.tenant = Tenant::default();
    assert_eq!(Submission::try_from(short), Ok(submission));
}

#[test]
fn every_problem_of_a_submission_is_told_at_once() {
    let wire = v1::CreateJobRequest {
        request_id: "a\nb".to_owned(),
        recipe: Some(v1::Recipe::default()),
        labels: [("Model".to_owned(), String::new())].into(),
        priority: Some(100),
        tenant: "A".to_owned(),
    };
    let problems = Submission::try_from(wire).unwrap_err();
    let subjects: Vec<_> = problems.iter().map(|one| one.subject.as_str()).collect();
    for subject in ["request_id", "cp", "labels[Model]", "priority", "tenant"] {
        assert!(subjects.contains(&subject), "{subject} in {subjects:?}");
    }
}

#[test]
fn a_recipe_that_is_too_large_is_refused_by_its_size() {
    let mut large = recipe_to_wire(&recipe());
    large.cp = "x".repeat(10_000_000);
    let wire = v1::CreateJobRequest {
        recipe: Some(large),
        ..Default::default()
    };
    let problems = Submission::try_from(wire).unwrap_err();
    assert_eq!(
        (problems.len(), problems[0].subject.as_str()),
        (1, "recipe")
    );
    assert!(
        problems[0]
            .message
            .starts_with("expected at most 1048576 bytes, found 10000")
    );
}

#[test]
fn a_page_ends_where_a_message_is_full_and_names_what_comes_next() {
    let view = |job: &str, bytes: usize| {
        let json = json!({
            "cp": format!("/{}", "c".repeat(bytes)),
            "vectors": [{"chat": "/a", "base": "/b", "lambda": 1.0}],
            "output": {"url": "/out"},
        });
        JobView {
            job: JobId(job.to_owned()),
            request: RequestId("r".to_owned()),
            state: JobState::Planning,
            recipe: Recipe::from_value(&json).unwrap().recipe,
            error: None,
            progress: ProgressView::default(),
            revision: 1,
            created: TimeMs(5),
            ended: None,
            labels: Labels::default(),
            priority: Priority::default(),
            tenant: Tenant::default(),
            warnings: Vec::new(),
            conditions: Vec::new(),
        }
    };
    let token = |view: &JobView| Page::<(TimeMs, JobId)>::token(view.created, &view.job);
    let small = vec![view("a", 1), view("b", 1)];
    let (jobs, next): (Vec<v1::Job>, _) = page(small.clone(), 3, token);
    assert_eq!((jobs.len(), next.as_str()), (2, ""));
    let (jobs, next): (Vec<v1::Job>, _) = page(small, 2, token);
    assert_eq!((jobs.len(), next.as_str()), (2, "5/b"));
    let large = vec![view("a", 900_000), view("b", 900_000), view("c", 900_000)];
    let (jobs, next): (Vec<v1::Job>, _) = page(large, 50, token);
    assert_eq!((jobs.len(), next.as_str()), (2, "5/b"));
    let wanted = JobsWanted::try_from(v1::ListJobsRequest {
        page_token: next,
        ..Default::default()
    });
    let after = wanted.unwrap().page.after;
    assert_eq!(after, Some((TimeMs(5), JobId("b".to_owned()))));
}

#[test]
fn lists_refuse_what_they_do_not_know() {
    let jobs = v1::ListJobsRequest {
        states: vec![0, 99],
        page_token: "tomorrow".to_owned(),
        labels: [(String::new(), String::new())].into(),
        tenant: "a b".to_owned(),
        ..Default::default()
    };
    assert_eq!(JobsWanted::try_from(jobs).unwrap_err().len(), 5);
    let tasks = v1::ListTasksRequest {
        states: vec![7],
        page_token: "-1".to_owned(),
        ..Default::default()
    };
    assert_eq!(TasksWanted::try_from(tasks).unwrap_err().len(), 2);
    let many = v1::ListJobsRequest {
        page_size: u32::MAX,
        ..Default::default()
    };
    assert_eq!(JobsWanted::try_from(many).unwrap().page.limit, 500);
}
