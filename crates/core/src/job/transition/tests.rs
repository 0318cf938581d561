use super::*;
use crate::ids::{Crc64, PartOrdinal, WorkerId};
use crate::task::{Others, RecordedPart, TakenAway};

const LEASE_MS: i64 = 600;

fn task(number: u32) -> Task {
    Task::new(PartOrdinal(number), 1, 10, 0)
}

/// After operations that are all accepted, one a millisecond from `now_ms`.
fn run(job: &Job, now_ms: i64, ops: &[JobOp]) -> Job {
    (ops.iter().zip(now_ms..)).fold(job.clone(), |job, (op, now)| {
        job.after(op, now)
            .unwrap_or_else(|refused| panic!("{op:?}: {refused}"))
    })
}

/// Planned under epoch 1.
fn queued(tasks: u32) -> Job {
    let ops = [
        JobOp::StartPlanning { lease_ms: LEASE_MS },
        JobOp::FinishPlanning {
            epoch: Epoch(1),
            tasks: (0..tasks).map(task).collect(),
        },
    ];
    run(&Job::new(0), 10, &ops)
}

fn of(number: u32, op: TaskOp) -> JobOp {
    JobOp::Task {
        task: TaskOrdinal(number),
        op,
    }
}

fn claim(number: u32) -> JobOp {
    let op = TaskOp::Claim {
        worker: WorkerId("a".to_owned()),
        lease_ms: LEASE_MS,
        others: Others::None,
    };
    of(number, op)
}

fn report(number: u32, fence: u64, crc64: u64) -> JobOp {
    let parts = vec![RecordedPart {
        part: PartOrdinal(number),
        part_id: format!("etag-{number}"),
        crc64: Crc64(crc64),
        bytes: 10,
    }];
    let fence = Fence(fence);
    of(number, TaskOp::Report { fence, parts })
}

/// Both tasks done, and a finalizer at it under epoch 2 until a lease after 30.
fn finished() -> Job {
    let ops = [claim(0), claim(1), report(0, 1, 7), report(1, 1, 7)];
    let done = run(&queued(2), 20, &ops);
    run(&done, 30, &[JobOp::StartFinalizing { lease_ms: LEASE_MS }])
}

fn committing() -> Job {
    run(&finished(), 40, &[JobOp::StartCommit { epoch: Epoch(2) }])
}

#[test]
fn one_coordinator_plans_at_a_time_and_the_next_has_a_higher_epoch() {
    let start = JobOp::StartPlanning { lease_ms: LEASE_MS };
    let first = Job::new(0).after(&start, 10).unwrap();
    assert_eq!(first.epoch, Epoch(1));
    assert_eq!(first.after(&start, 609), Err(JobRefused::EpochHeld));
    let second = first.after(&start, 610).unwrap();
    assert_eq!(second.epoch, Epoch(2));
    let plan = |epoch| JobOp::FinishPlanning {
        epoch: Epoch(epoch),
        tasks: vec![task(0)],
    };
    assert_eq!(second.after(&plan(1), 620), Err(JobRefused::EpochLost));
    let planned = second.after(&plan(2), 620).unwrap();
    assert_eq!(
        (planned.state, planned.epoch_expires_at_ms),
        (JobState::Queued, 0)
    );
    assert_eq!(planned.after(&start, 9_000), Err(JobRefused::WrongState));
}

#[test]
fn an_epoch_is_renewed_after_its_end_until_another_begins() {
    let job = finished();
    let renew = JobOp::RenewEpoch {
        epoch: Epoch(2),
        lease_ms: LEASE_MS,
    };
    let renewed = job.after(&renew, 5_000).unwrap();
    assert_eq!(renewed.epoch_expires_at_ms, 5_000 + LEASE_MS);
    let start = JobOp::StartFinalizing { lease_ms: LEASE_MS };
    let taken_over = job.after(&start, 5_000).unwrap();
    assert_eq!(taken_over.after(&renew, 5_001), Err(JobRefused::EpochLost));
    let release = JobOp::ReleaseEpoch { epoch: Epoch(2) };
    assert_eq!(taken_over.after(&release, 5_001), Ok(taken_over.clone()));
    assert_eq!(job.after(&release, 50).unwrap().epoch_expires_at_ms, 0);
}

#[test]
fn the_first_claim_makes_the_job_running() {
    let job = queued(2);
    let claimed = job.after(&claim(1), 20).unwrap();
    assert_eq!(
        (claimed.state, claimed.revision),
        (JobState::Running, job.revision + 1)
    );
    let claimed = claimed.after(&claim(0), 21).unwrap();
    assert_eq!(claimed.revision, job.revision + 1);
    assert_eq!(job.after(&claim(2), 20), Err(JobRefused::NoSuchTask));
}

#[test]
fn the_point_of_no_return_is_passed_with_every_task_done_and_only_then() {
    let commit = JobOp::StartCommit { epoch: Epoch(2) };
    let job = committing();
    assert_eq!(
        (job.state, job.committing_at_ms),
        (JobState::Committing, Some(40))
    );
    assert_eq!(job.after(&commit, 41), Ok(job.clone()));
    let open = run(&queued(2), 20, &[claim(0), report(0, 1, 7)]);
    let open = run(&open, 30, &[JobOp::StartFinalizing { lease_ms: 0 }]);
    assert_eq!(open.after(&commit, 40), Err(JobRefused::TasksOpen));
    let late = JobOp::StartCommit { epoch: Epoch(1) };
    assert_eq!(finished().after(&late, 40), Err(JobRefused::EpochLost));
}

#[test]
fn a_job_without_tasks_passes_through_running() {
    let ops = [
        JobOp::StartFinalizing { lease_ms: 0 },
        JobOp::StartCommit { epoch: Epoch(2) },
    ];
    let job = run(&queued(0), 20, &ops);
    assert_eq!(job.state, JobState::Committing);
    assert_eq!(job.revision, queued(0).revision + 2);
}

#[test]
fn a_commit_ends_under_its_epoch_and_with_every_task_done() {
    let finish = |epoch| JobOp::FinishCommit {
        epoch: Epoch(epoch),
    };
    let job = committing();
    assert_eq!(job.after(&finish(1), 50), Err(JobRefused::EpochLost));
    let ended = job.after(&finish(2), 50).unwrap();
    assert_eq!(
        (ended.state, ended.finished_at_ms),
        (JobState::Succeeded, Some(50))
    );
    assert_eq!(ended.after(&finish(2), 51), Err(JobRefused::WrongState));
    let repair = JobOp::Repair {
        epoch: Epoch(2),
        tasks: vec![TaskOrdinal(1)],
    };
    let repairing = run(&job, 50, &[repair]);
    assert_eq!(repairing.after(&finish(2), 51), Err(JobRefused::TasksOpen));
}

#[test]
fn a_repair_has_its_tasks_done_again_with_the_same_bytes() {
    let repair = |tasks: &[u32]| JobOp::Repair {
        epoch: Epoch(2),
        tasks: tasks.iter().copied().map(TaskOrdinal).collect(),
    };
    let job = run(&committing(), 50, &[repair(&[1])]);
    assert_eq!(
        (job.state, job.epoch_expires_at_ms),
        (JobState::Committing, 0)
    );
    assert_eq!(
        (job.tasks[1].state, job.tasks[1].fence),
        (TaskState::Ready, Fence(2))
    );
    let again = run(&job, 60, &[claim(1), report(1, 3, 7)]);
    assert_eq!(again.state, JobState::Committing);
    // Other bytes than the frozen ones are damage that nothing mends.
    let damaged = run(&job, 60, &[claim(1), report(1, 3, 8)]);
    assert_eq!(
        (damaged.state, damaged.error),
        (JobState::Failed, Some(FailureKind::Internal))
    );
    assert_eq!(damaged.tasks[1].state, TaskState::Cancelled);
    // All of the tasks or none, and only in COMMITTING.
    let refused = job.after(&repair(&[0, 1]), 60);
    assert_eq!(refused, Err(JobRefused::Task(TaskRefused::NotDone)));
    let refused = finished().after(&repair(&[1]), 60);
    assert_eq!(refused, Err(JobRefused::WrongState));
}

#[test]
fn what_proved_stale_before_the_commit_is_forgotten_and_done_again() {
    let reopen = JobOp::Reopen {
        task: TaskOrdinal(0),
    };
    let job = run(&finished(), 40, std::slice::from_ref(&reopen));
    assert_eq!(job.tasks[0].state, TaskState::Ready);
    assert!(job.tasks[0].parts.is_empty());
    assert!(run(&job, 50, &[claim(0), report(0, 3, 8)]).error.is_none());
    assert_eq!(
        job.after(&reopen, 41),
        Err(JobRefused::Task(TaskRefused::NotDone))
    );
    assert_eq!(committing().after(&reopen, 50), Err(JobRefused::WrongState));
}

#[test]
fn a_cancel_waits_for_what_is_held_and_can_be_repeated() {
    let job = run(&queued(2), 20, &[claim(0), JobOp::Cancel]);
    assert_eq!(job.state, JobState::Cancelling);
    assert_eq!(
        (job.tasks[0].state, job.tasks[1].state),
        (TaskState::Leased, TaskState::Cancelled)
    );
    assert_eq!(job.after(&JobOp::Cancel, 30), Ok(job.clone()));
    assert_eq!(job.after(&JobOp::Settle, 30), Ok(job.clone()));
    let release = of(0, TaskOp::Release { fence: Fence(1) });
    let job = run(&job, 30, &[release, JobOp::Settle]);
    assert_eq!(
        (job.state, job.finished_at_ms),
        (JobState::Cancelled, Some(31))
    );
    assert_eq!(job.after(&JobOp::Cancel, 40), Ok(job.clone()));
}

#[test]
fn a_cancel_is_refused_after_the_point_of_no_return_and_after_another_end() {
    assert_eq!(
        committing().after(&JobOp::Cancel, 50),
        Err(JobRefused::WrongState)
    );
    let fail = JobOp::Fail {
        epoch: Epoch(2),
        kind: FailureKind::BadInput,
    };
    let failed = run(&finished(), 40, &[fail]);
    assert_eq!(
        failed.after(&JobOp::Cancel, 50),
        Err(JobRefused::WrongState)
    );
}

#[test]
fn whoever_gives_a_job_up_names_its_epoch_and_its_half() {
    let kind = FailureKind::BadInput;
    let epoch = Epoch(2);
    let before = JobOp::Fail { epoch, kind };
    let after = JobOp::FailCommit { epoch, kind };
    assert_eq!(finished().after(&after, 50), Err(JobRefused::WrongState));
    assert_eq!(committing().after(&before, 50), Err(JobRefused::WrongState));
    assert_eq!(run(&finished(), 50, &[before]).state, JobState::Failed);
    assert_eq!(run(&committing(), 50, &[after]).state, JobState::Failed);
    let late = JobOp::Fail {
        epoch: Epoch(1),
        kind,
    };
    assert_eq!(finished().after(&late, 50), Err(JobRefused::EpochLost));
}

#[test]
fn a_task_that_is_given_up_fails_its_job_and_cancels_the_others() {
    use TaskState::{Cancelled, Failed};
    let fail = TaskOp::Fail {
        fence: Fence(1),
        kind: FailureKind::SourceChanged,
        jitter: 0.0,
    };
    let job = run(&queued(3), 20, &[claim(0), claim(1), of(0, fail)]);
    assert_eq!(
        (job.state, job.error),
        (JobState::Failed, Some(FailureKind::SourceChanged))
    );
    let states: Vec<_> = job.tasks.iter().map(|task| task.state).collect();
    assert_eq!(states, [Failed, Cancelled, Cancelled]);
}

#[test]
fn charged_failures_of_all_tasks_together_are_bounded() {
    let mut job = queued(30);
    for number in 0..30 {
        let fail = TaskOp::Fail {
            fence: Fence(1),
            kind: FailureKind::Transient,
            jitter: 0.0,
        };
        job = run(&job, 20, &[claim(number), of(number, fail)]);
        let may_go_on = u64::from(number) < job_retries_max(30);
        assert_eq!(job.state == JobState::Running, may_go_on, "{number}");
        if !may_go_on {
            return;
        }
    }
    panic!("the job goes on after {} failures", job_retries_max(30));
}

#[test]
fn a_pass_of_the_reaper_takes_back_all_of_its_leases_before_a_job_fails() {
    let leases = |job: &Job, tasks: &[u32]| JobOp::Reap {
        leases: (tasks.iter())
            .map(|task| (TaskOrdinal(*task), job.tasks[*task as usize].fence))
            .collect(),
    };
    let mut job = queued(2);
    for _ in 0..4 {
        job = run(&job, 1_000, &[claim(0)]);
        job = run(&job, 2_000, &[leases(&job, &[0])]);
        job.tasks[0].not_before_ms = 0;
    }
    let job = run(&job, 3_000, &[claim(0), claim(1)]);
    assert_eq!(
        job.after(&leases(&job, &[0, 1]), 3_001),
        Err(JobRefused::Task(TaskRefused::TooEarly))
    );
    let failed = run(&job, 4_000, &[leases(&job, &[0, 1])]);
    assert_eq!(
        (failed.state, failed.error),
        (JobState::Failed, Some(FailureKind::SuspectedPoison))
    );
    // It was taken back as a crash, and then cancelled.
    let other = &failed.tasks[1];
    assert_eq!(
        (other.state, other.counters.crashes, other.fence),
        (TaskState::Cancelled, 1, Fence(3))
    );
}

#[test]
fn a_sweep_cancels_what_raced_with_the_end_of_the_job() {
    let job = run(&queued(2), 20, &[claim(0), JobOp::Cancel]);
    let mut raced = job.clone();
    raced.tasks[1].state = TaskState::Ready;
    let swept = run(&raced, 30, &[JobOp::Sweep]);
    assert_eq!(
        (swept.tasks[0].state, swept.tasks[1].state),
        (TaskState::Leased, TaskState::Cancelled)
    );
    let take = TaskOp::TakeAway {
        fence: Fence(1),
        why: TakenAway::Orphaned,
    };
    let mut ended = run(&job, 30, &[of(0, take), JobOp::Settle]);
    assert_eq!(ended.state, JobState::Cancelled);
    ended.tasks[1].state = TaskState::Ready;
    let swept = run(&ended, 40, &[JobOp::Sweep]);
    assert_eq!(swept.tasks[1].state, TaskState::Cancelled);
}

#[test]
fn only_what_ended_without_output_is_cleaned_and_the_first_time_stays() {
    let job = run(&queued(1), 20, &[JobOp::Cancel, JobOp::MarkCleaned]);
    let again = run(&job, 50, &[JobOp::MarkCleaned]);
    assert_eq!((again.cleaned_at_ms, again.updated_at_ms), (Some(21), 50));
    assert_eq!(
        finished().after(&JobOp::MarkCleaned, 50),
        Err(JobRefused::WrongState)
    );
}
