use super::*;

const LEASE_MS: i64 = 600;

fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

fn at(now_ms: i64) -> Around {
    Around {
        now_ms,
        job: JobState::Running,
        retries_left: 20,
    }
}

/// In a job that is about to end.
fn unwanted(now_ms: i64) -> Around {
    Around {
        job: JobState::Cancelling,
        ..at(now_ms)
    }
}

/// A task of two parts.
fn ready() -> Task {
    Task::new(PartOrdinal(4), 2, 20, 0)
}

fn claim(by: &str) -> TaskOp {
    TaskOp::Claim {
        worker: worker(by),
        lease_ms: LEASE_MS,
        others: Others::Alive,
    }
}

/// Claimed by `a` at 1000.
fn leased() -> Task {
    ready().after(&claim("a"), &at(1_000)).unwrap()
}

fn parts(crc64: u64) -> Vec<RecordedPart> {
    let part = |part| RecordedPart {
        part: PartOrdinal(part),
        part_id: format!("etag-{part}"),
        crc64: Crc64(crc64),
        bytes: 10,
    };
    vec![part(4), part(5)]
}

fn report(fence: Fence) -> TaskOp {
    TaskOp::Report {
        fence,
        parts: parts(7),
    }
}

fn beat(by: &str, fence: Fence, progress_bytes: u64) -> TaskOp {
    TaskOp::Extend {
        worker: worker(by),
        fence,
        lease_ms: LEASE_MS,
        progress_bytes,
    }
}

fn miss(by: &str) -> TaskOp {
    TaskOp::Miss {
        worker: worker(by),
        lease_ms: LEASE_MS,
    }
}

fn fail(kind: FailureKind) -> TaskOp {
    TaskOp::Fail {
        fence: Fence(1),
        kind,
        jitter: 0.5,
    }
}

fn reap(task: &Task) -> TaskOp {
    TaskOp::Reap { fence: task.fence }
}

/// Claimed and lost by each of these, one after the other.
fn crashed(by: &[&str]) -> Task {
    let mut task = ready();
    for (worker, now_ms) in by.iter().zip((0..).step_by(1_000)) {
        task = task.after(&claim(worker), &at(now_ms)).unwrap();
        task = task.after(&reap(&task), &at(now_ms + LEASE_MS)).unwrap();
    }
    task
}

#[test]
fn a_claim_raises_the_fence_and_begins_a_lease() {
    let task = leased();
    assert_eq!(task.state, TaskState::Leased);
    assert_eq!((task.fence, task.attempt), (Fence(1), Attempt(1)));
    let holder = task.holder.as_ref().unwrap();
    assert_eq!(
        (holder.worker.as_str(), holder.expires_at_ms),
        ("a", 1_000 + LEASE_MS)
    );
    assert_eq!(
        task.after(&claim("b"), &at(5_000)),
        Err(TaskRefused::NotClaimable)
    );
}

#[test]
fn only_jobs_that_give_leases_are_claimed_from() {
    for job in JobState::ALL {
        let around = Around { job, ..at(0) };
        let claimed = ready().after(&claim("a"), &around);
        assert_eq!(claimed.is_ok(), job.gives_leases(), "{job}");
    }
}

#[test]
fn a_task_waits_for_its_time() {
    let failed = leased().after(&fail(FailureKind::Transient), &at(1_100));
    let failed = failed.unwrap();
    assert_eq!(
        (failed.state, failed.not_before_ms),
        (TaskState::Ready, 1_600)
    );
    let early = failed.after(&claim("a"), &at(1_599));
    assert_eq!(early, Err(TaskRefused::NotClaimable));
    assert!(failed.after(&claim("a"), &at(1_600)).is_ok());
}

#[test]
fn a_stolen_task_goes_to_another_worker_as_long_as_there_is_one() {
    let steal = TaskOp::TakeAway {
        fence: Fence(1),
        why: TakenAway::Stolen,
    };
    let stolen = leased().after(&steal, &at(1_100)).unwrap();
    assert_eq!((stolen.fence, stolen.steals), (Fence(2), 1));
    let again = stolen.after(&claim("a"), &at(1_200));
    assert_eq!(again, Err(TaskRefused::NotClaimable));
    assert!(stolen.after(&claim("b"), &at(1_200)).is_ok());
    let alone = TaskOp::Claim {
        worker: worker("a"),
        lease_ms: LEASE_MS,
        others: Others::None,
    };
    assert!(stolen.after(&alone, &at(1_200)).is_ok());
}

#[test]
fn a_lease_that_is_taken_away_is_uncharged_and_only_a_steal_is_remembered() {
    for why in [TakenAway::Forgotten, TakenAway::Orphaned] {
        let op = TaskOp::TakeAway {
            fence: Fence(1),
            why,
        };
        let task = leased().after(&op, &at(1_100)).unwrap();
        assert_eq!((task.state, task.fence), (TaskState::Ready, Fence(2)));
        assert_eq!((task.steals, task.stolen_from.clone()), (0, None));
        assert_eq!(task.counters, TaskCounters::default());
        assert_eq!(
            task.after(&report(Fence(1)), &at(1_200)),
            Err(TaskRefused::LeaseLost)
        );
    }
}

#[test]
fn a_heartbeat_extends_a_lease_even_after_its_end() {
    let late = leased().after(&beat("a", Fence(1), 5), &at(9_000)).unwrap();
    let holder = late.holder.as_ref().unwrap();
    assert_eq!(holder.expires_at_ms, 9_000 + LEASE_MS);
    assert_eq!(
        (late.progress_bytes, late.progressed_at_ms),
        (5, Some(9_000))
    );
    // One that was overtaken says less, and counts as a sign of life.
    let overtaken = late.after(&beat("a", Fence(1), 4), &at(9_100)).unwrap();
    assert_eq!(
        (overtaken.progress_bytes, overtaken.progressed_at_ms),
        (5, Some(9_000))
    );
}

#[test]
fn a_heartbeat_of_another_worker_or_fence_extends_nothing() {
    for op in [beat("b", Fence(1), 0), beat("a", Fence(0), 0)] {
        let extended = leased().after(&op, &at(1_100));
        assert_eq!(extended, Err(TaskRefused::LeaseLost));
    }
}

#[test]
fn two_heartbeats_without_a_lease_take_it_back() {
    // A third of a lease: by then its answer has come, or never will.
    let settled = at(1_000 + LEASE_MS / 3);
    let young = leased().after(&miss("a"), &at(settled.now_ms - 1));
    assert_eq!(young, Err(TaskRefused::TooEarly));
    assert_eq!(
        leased().after(&miss("b"), &settled),
        Err(TaskRefused::LeaseLost)
    );
    let missed = leased().after(&miss("a"), &settled).unwrap();
    assert_eq!((missed.state, missed.missed_beats), (TaskState::Leased, 1));
    let named = missed.after(&beat("a", Fence(1), 0), &settled).unwrap();
    assert_eq!(named.missed_beats, 0);
    let free = missed.after(&miss("a"), &settled).unwrap();
    assert_eq!((free.state, free.fence), (TaskState::Ready, Fence(2)));
    assert_eq!(free.counters, TaskCounters::default());
}

#[test]
fn the_same_report_again_is_accepted_and_changes_nothing() {
    let done = leased().after(&report(Fence(1)), &at(1_100)).unwrap();
    assert_eq!(done.state, TaskState::Done);
    let by = done.done.as_ref().unwrap();
    assert_eq!((by.fence, by.worker.as_str()), (Fence(1), "a"));
    assert_eq!(done.after(&report(Fence(1)), &at(1_200)), Ok(done.clone()));
    let other = TaskOp::Report {
        fence: Fence(1),
        parts: parts(8),
    };
    assert_eq!(done.after(&other, &at(1_200)), Err(TaskRefused::LeaseLost));
}

#[test]
fn a_late_report_counts_until_the_lease_is_taken_back() {
    let late = at(9_000);
    assert!(leased().after(&report(Fence(1)), &late).is_ok());
    let reaped = leased().after(&reap(&leased()), &late).unwrap();
    assert_eq!(
        reaped.after(&report(Fence(1)), &late),
        Err(TaskRefused::LeaseLost)
    );
    // Nor when the same worker has it again: it is another lease.
    let again = reaped.after(&claim("a"), &late).unwrap();
    assert_eq!(
        again.after(&report(Fence(1)), &late),
        Err(TaskRefused::LeaseLost)
    );
    assert!(again.after(&report(again.fence), &late).is_ok());
}

#[test]
fn a_report_names_exactly_the_tasks_parts() {
    let mut lists = [parts(7), parts(7), parts(7)];
    lists[0].pop();
    lists[1].reverse();
    lists[2][1].part = PartOrdinal(6);
    for parts in lists {
        let op = TaskOp::Report {
            fence: Fence(1),
            parts: parts.clone(),
        };
        let refused = leased().after(&op, &at(1_100));
        assert_eq!(refused, Err(TaskRefused::WrongParts));
        // To whoever holds nothing it is not told what would be right.
        let op = TaskOp::Report {
            fence: Fence(0),
            parts,
        };
        let refused = leased().after(&op, &at(1_100));
        assert_eq!(refused, Err(TaskRefused::LeaseLost));
    }
}

#[test]
fn a_repaired_task_has_to_give_the_same_bytes_under_whatever_id() {
    let done = leased().after(&report(Fence(1)), &at(1_100)).unwrap();
    let open = done.reopened(1_200).unwrap();
    assert_eq!((open.state, open.fence), (TaskState::Ready, Fence(2)));
    let held = open.after(&claim("b"), &at(1_300)).unwrap();
    let with = |parts| TaskOp::Report {
        fence: Fence(3),
        parts,
    };
    let mut renamed = parts(7);
    renamed[0].part_id = "another".to_owned();
    let again = held.after(&with(renamed.clone()), &at(1_400)).unwrap();
    assert_eq!((again.state, again.parts), (TaskState::Done, renamed));
    assert_eq!(
        held.after(&with(parts(8)), &at(1_400)),
        Err(TaskRefused::OtherBytes)
    );
}

#[test]
fn only_a_finished_task_is_reopened() {
    for task in [ready(), leased(), leased().cancelled(1_100)] {
        assert_eq!(task.reopened(1_200), Err(TaskRefused::NotDone));
    }
}

#[test]
fn a_failure_is_charged_by_its_kind() {
    let failed = leased().after(&fail(FailureKind::Preempted), &at(1_100));
    let failed = failed.unwrap();
    assert_eq!(
        (failed.state, failed.not_before_ms),
        (TaskState::Ready, 1_100)
    );
    assert_eq!(failed.counters.failures, 0);
    let failed = leased().after(&fail(FailureKind::BadInput), &at(1_100));
    assert_eq!(failed.unwrap().state, TaskState::Failed);
    let failed = leased().after(&fail(FailureKind::Internal), &at(1_100));
    assert_eq!(failed.unwrap().counters.failures, 1);
}

#[test]
fn a_repair_whose_upload_is_gone_is_done_as_it_was_and_any_other_task_has_failed() {
    let done = leased().after(&report(Fence(1)), &at(1_100)).unwrap();
    let open = done.reopened(1_200).unwrap();
    let held = open.after(&claim("b"), &at(1_300)).unwrap();
    let gone = TaskOp::Fail {
        fence: held.fence,
        kind: FailureKind::UploadGone,
        jitter: 0.5,
    };
    let committing = Around {
        job: JobState::Committing,
        ..at(1_400)
    };
    let kept = held.after(&gone, &committing).unwrap();
    assert_eq!((kept.state, &kept.parts), (TaskState::Done, &done.parts));
    assert_eq!(kept.counters, TaskCounters::default());
    let failed = held.after(&gone, &at(1_400)).unwrap();
    assert_eq!(failed.state, TaskState::Failed);
}

#[test]
fn a_charged_failure_beyond_the_jobs_is_the_last() {
    let burnt = Around {
        retries_left: 0,
        ..at(1_100)
    };
    let failed = leased().after(&fail(FailureKind::Transient), &burnt);
    assert_eq!(failed.unwrap().state, TaskState::Failed);
    let failed = leased().after(&fail(FailureKind::Preempted), &burnt);
    assert_eq!(failed.unwrap().state, TaskState::Ready);
}

#[test]
fn a_lease_is_reaped_when_it_has_expired_and_not_before() {
    let end = 1_000 + LEASE_MS;
    let early = leased().after(&reap(&leased()), &at(end - 1));
    assert_eq!(early, Err(TaskRefused::TooEarly));
    let reaped = leased().after(&reap(&leased()), &at(end)).unwrap();
    assert_eq!((reaped.state, reaped.fence), (TaskState::Ready, Fence(2)));
    assert_eq!(reaped.counters.crashes, 1);
    assert_eq!(reaped.first_crash_worker, Some(worker("a")));
    // What was read before a heartbeat or a report is read again.
    let renewed = leased().after(&beat("a", Fence(1), 0), &at(end)).unwrap();
    assert_eq!(
        renewed.after(&reap(&renewed), &at(end)),
        Err(TaskRefused::TooEarly)
    );
    let done = leased().after(&report(Fence(1)), &at(end)).unwrap();
    assert_eq!(
        done.after(&reap(&leased()), &at(end)),
        Err(TaskRefused::LeaseLost)
    );
}

#[test]
fn a_task_that_takes_down_two_workers_is_given_up_sooner_than_one() {
    let told_apart = crashed(&["a", "b", "a"]);
    assert_eq!(told_apart.state, TaskState::Failed);
    assert_eq!(told_apart.error, Some(FailureKind::SuspectedPoison));
    assert_eq!(told_apart.counters.crashed_workers, 2);
    assert_eq!(crashed(&["a"; 4]).state, TaskState::Ready);
    assert_eq!(crashed(&["a"; 5]).state, TaskState::Failed);
}

#[test]
fn whatever_ends_a_lease_of_an_unwanted_job_cancels_the_task() {
    let around = unwanted(9_000);
    let release = TaskOp::Release { fence: Fence(1) };
    let take = TaskOp::TakeAway {
        fence: Fence(1),
        why: TakenAway::Forgotten,
    };
    let bad = fail(FailureKind::BadInput);
    for op in [release, take, bad, reap(&leased())] {
        let task = leased().after(&op, &around).unwrap();
        assert_eq!(task.state, TaskState::Cancelled, "{op:?}");
        assert_eq!(task.counters, TaskCounters::default(), "{op:?}");
    }
}

#[test]
fn a_cancelled_task_is_lost_to_its_holder_and_a_finished_one_is_not_cancelled() {
    let task = leased().cancelled(1_100);
    assert_eq!((task.state, task.fence), (TaskState::Cancelled, Fence(2)));
    assert_eq!(
        task.after(&report(Fence(1)), &at(1_200)),
        Err(TaskRefused::LeaseLost)
    );
    let done = leased().after(&report(Fence(1)), &at(1_100)).unwrap();
    assert_eq!(done.cancelled(1_200), done);
}

/// One operation of each kind by whoever held fence 1.
fn every_op() -> Vec<TaskOp> {
    let fence = Fence(1);
    let why = TakenAway::Stolen;
    vec![
        claim("b"),
        beat("a", fence, 3),
        miss("a"),
        report(fence),
        fail(FailureKind::Internal),
        TaskOp::Release { fence },
        TaskOp::TakeAway { fence, why },
        TaskOp::Reap { fence },
    ]
}

#[test]
fn no_operation_breaks_what_always_holds_of_a_row() {
    let mut rows = vec![ready(), leased(), leased().cancelled(1_100)];
    rows.push(leased().after(&report(Fence(1)), &at(1_100)).unwrap());
    rows.push(
        leased()
            .after(&fail(FailureKind::BadInput), &at(1_100))
            .unwrap(),
    );
    rows.push(
        leased()
            .after(&TaskOp::Release { fence: Fence(1) }, &at(1_100))
            .unwrap(),
    );
    for row in rows {
        for op in every_op() {
            for around in [at(9_000), unwanted(9_000)] {
                let Ok(after) = row.after(&op, &around) else {
                    continue;
                };
                let moves = row.state.may_become(after.state) || row.state == after.state;
                assert!(moves, "{op:?}: {} became {}", row.state, after.state);
                assert!(after.fence >= row.fence, "{op:?}");
                let is_leased = after.state == TaskState::Leased;
                assert_eq!(after.holder.is_some(), is_leased, "{op:?}");
                let is_done = after.state == TaskState::Done;
                assert_eq!(after.done.is_some(), is_done, "{op:?}");
                let crashes = after.counters.crashes > 0;
                assert_eq!(after.first_crash_worker.is_some(), crashes, "{op:?}");
            }
        }
    }
}
