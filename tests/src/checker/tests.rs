//! Every invariant has a history that breaks it alone, beside one that keeps all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::story::{LEASE, OUT, PARTS, Story, WEIGHTS};
use super::{Ends, Expectations, Invariant, redone_bytes, violations};
use crate::published::MANIFEST;

fn expected() -> Expectations {
    let files = [
        (MANIFEST, Vec::new()),
        ("model.safetensors", PARTS.concat()),
        ("config.json", b"{}".to_vec()),
    ];
    let files: BTreeMap<_, _> = files.map(|(name, bytes)| (name.to_owned(), bytes)).into();
    Expectations::of_lease(LEASE)
        .golden(Arc::new(files))
        .job("j", Ends::Succeeded)
        .every_job_ends_within(Duration::from_secs(60))
        .redone_at_most(100)
        .settled()
}

/// The invariants that a history breaks, each once.
fn broken(story: &Story) -> Vec<Invariant> {
    let found = violations(&story.record, &expected());
    let mut broken: Vec<_> = found.iter().map(|one| one.invariant).collect();
    broken.dedup();
    broken
}

#[track_caller]
fn breaks(story: &Story, only: Invariant) {
    let found = violations(&story.record, &expected());
    assert_eq!(broken(story), [only], "{found:#?}");
}

#[track_caller]
fn keeps_all(story: &Story) {
    assert_eq!(violations(&story.record, &expected()), []);
}

/// From a lease that is held on: the rest of a job in which nothing goes wrong.
fn finish(story: &mut Story, worker: &str) {
    story.put_parts(worker);
    story.done();
    story.commit();
    story.publish();
}

fn leased() -> Story {
    let mut story = Story::planned();
    story.claim("w.1");
    story.job(|job| job.state = "RUNNING".to_owned());
    story
}

/// A lease that ran out and was given to another worker.
fn leased_again() -> Story {
    let mut story = leased();
    story.wait(LEASE);
    story.take_back(1);
    story.claim("w.2");
    story
}

#[test]
fn a_good_history_breaks_nothing() {
    keeps_all(&Story::good());
    let mut story = leased_again();
    finish(&mut story, "w.2");
    keeps_all(&story);
}

#[test]
fn i1_a_byte_a_missing_file_and_a_strange_one() {
    let mut story = Story::good();
    story.object(WEIGHTS, b"other bytes here");
    breaks(&story, Invariant::GoldenBytes);
    let mut story = Story::good();
    story.record.objects.remove(WEIGHTS);
    breaks(&story, Invariant::GoldenBytes);
    let mut story = Story::good();
    story.object("out/more.json", b"");
    assert_eq!(
        broken(&story),
        [Invariant::GoldenBytes, Invariant::NothingLeft]
    );
}

#[test]
fn i2_a_manifest_before_its_files_or_of_other_parts() {
    let mut story = leased();
    story.put_parts("w.1");
    story.done();
    story.commit();
    story.manifest(b"");
    story.complete();
    story.succeed();
    breaks(&story, Invariant::ManifestLast);
    // The completion names a part that was put over it.
    let mut story = Story::good();
    for request in &mut story.record.history.requests {
        for (number, etag) in &mut request.named_parts {
            if *number == 2 {
                etag.push('x');
            }
        }
    }
    breaks(&story, Invariant::ManifestLast);
}

#[test]
fn i3_two_manifests_of_a_job_and_one_of_a_job_that_failed() {
    let mut story = Story::good();
    story.manifest(b"");
    keeps_all(&story);
    story.manifest(b" ");
    breaks(&story, Invariant::OneManifest);
    let mut story = leased();
    story.put_parts("w.1");
    story.done();
    story.commit();
    story.complete();
    story.manifest(b"");
    story.job(|job| job.state = "FAILED".to_owned());
    let found = broken(&story);
    assert!(found.contains(&Invariant::OneManifest), "{found:?}");
}

#[test]
fn i4_a_done_fence_that_is_not_the_fence_and_a_part_too_few() {
    let mut story = Story::good();
    story.record.parts.pop();
    breaks(&story, Invariant::OneDoneFence);
    let mut story = Story::good();
    for change in &mut story.record.tasks {
        for task in change.before.iter_mut().chain(&mut change.after) {
            task.done_fence = task.done_fence.map(|fence| fence + 1);
        }
    }
    breaks(&story, Invariant::OneDoneFence);
    // Recorded, and no task was done by that.
    let mut story = Story::good();
    let mut late = story.record.parts[0].clone();
    late.tx = 1000;
    story.record.parts.push(late);
    breaks(&story, Invariant::OneDoneFence);
}

#[test]
fn i5_a_holder_without_a_new_fence_and_an_epoch_that_goes_back() {
    let mut story = leased();
    story.wait(LEASE);
    story.take_back(1);
    story.task(|task| task.fence -= 1);
    story.claim("w.2");
    finish(&mut story, "w.2");
    breaks(&story, Invariant::FenceRises);
    let mut story = leased();
    story.task(|task| task.worker_id = Some("w.2/uuid".to_owned()));
    finish(&mut story, "w.2");
    breaks(&story, Invariant::FenceRises);
    let mut story = leased();
    story.job(|job| job.epoch = 0);
    finish(&mut story, "w.1");
    breaks(&story, Invariant::FenceRises);
}

#[test]
fn i6_a_report_of_a_worker_that_lost_its_lease() {
    let taken_over_by = |next: &str| {
        let mut story = leased();
        story.put_parts("w.1");
        story.wait(LEASE);
        story.take_back(1);
        story.claim(next);
        story.done();
        story
    };
    let breaks_at_the_end = |mut story: Story| {
        story.commit();
        story.publish();
        breaks(&story, Invariant::ReportsStay);
    };
    // The first worker's parts count for the second, which has put none.
    breaks_at_the_end(taken_over_by("w.2"));
    // The second puts them when it is too late.
    let mut late = taken_over_by("w.2");
    late.put_parts("w.2");
    breaks_at_the_end(late);
    // Both are one worker.
    breaks_at_the_end(taken_over_by("w.1"));
}

#[test]
fn i6_what_is_done_is_taken_back_by_a_repair_only() {
    let reopened = |commit: bool| {
        let mut story = leased();
        story.put_parts("w.1");
        story.done();
        if commit {
            story.commit();
        }
        story.task(|task| {
            task.state = "READY".to_owned();
            task.fence += 1;
            task.done_fence = None;
            task.done_by = None;
        });
        story.claim("w.1");
        story.put_parts("w.1");
        story.done();
        if !commit {
            story.commit();
        }
        story.publish();
        story
    };
    keeps_all(&reopened(true));
    breaks(&reopened(false), Invariant::ReportsStay);
}

#[test]
fn i7_a_put_after_two_thirds_of_the_lease() {
    let mut story = leased();
    story.wait(LEASE * 5 / 6);
    story.put_part("w.1", 0, PARTS[0]);
    story.take_back(0);
    story.claim("w.2");
    finish(&mut story, "w.2");
    breaks(&story, Invariant::SelfFence);
    // Renewed in between.
    let mut story = leased();
    story.wait(LEASE / 2);
    story.beat();
    story.wait(LEASE / 2);
    finish(&mut story, "w.1");
    keeps_all(&story);
    // Sent in time by a worker that then stood still.
    let mut story = leased();
    story.wait(LEASE);
    story.stood_still("w.1", LEASE);
    story.put_part("w.1", 0, PARTS[0]);
    story.take_back(1);
    story.claim("w.2");
    finish(&mut story, "w.2");
    keeps_all(&story);
    // A part of no task that it ever held.
    let mut story = leased();
    story.put_part("w.1", 7, PARTS[0]);
    finish(&mut story, "w.1");
    breaks(&story, Invariant::SelfFence);
}

#[test]
fn i8_uploads_and_objects_that_nobody_removes() {
    let mut story = Story::good();
    story.open_upload(WEIGHTS);
    breaks(&story, Invariant::NothingLeft);
    let mut story = Story::good();
    story.object("elsewhere/model.safetensors", b"");
    breaks(&story, Invariant::NothingLeft);
    // While a job runs, what is its own is no leftover.
    let mut story = leased();
    story.open_upload(WEIGHTS);
    assert_eq!(broken(&story), [Invariant::EveryJobEnds]);
    story.open_upload("out/other.safetensors");
    assert_eq!(
        broken(&story),
        [Invariant::NothingLeft, Invariant::EveryJobEnds]
    );
}

#[test]
fn i9_more_is_put_again_than_may_be() {
    let mut story = leased();
    for _ in 0..10 {
        story.put_parts("w.1");
        story.beat();
    }
    finish(&mut story, "w.1");
    assert_eq!(redone_bytes(&story.record), 160);
    breaks(&story, Invariant::BoundedRedo);
}

#[test]
fn i10_a_job_that_does_not_end_ends_otherwise_or_is_gone() {
    breaks(&leased(), Invariant::EveryJobEnds);
    let mut story = leased();
    story.task(|task| task.state = "CANCELLED".to_owned());
    story.job(|job| {
        job.state = "FAILED".to_owned();
        job.cleaned_at_ms = Some(1);
    });
    breaks(&story, Invariant::EveryJobEnds);
    let mut story = Story::good();
    story.job(|job| job.state = "RUNNING".to_owned());
    story.job(|job| job.state = "SUCCEEDED".to_owned());
    breaks(&story, Invariant::EveryJobEnds);
    let mut story = leased();
    story.wait(Duration::from_secs(100));
    story.beat();
    finish(&mut story, "w.1");
    breaks(&story, Invariant::EveryJobEnds);
    let known = Expectations::of_lease(LEASE).job("another", Ends::Succeeded);
    let gone = violations(&Story::good().record, &known);
    assert_eq!(
        gone[0].to_string(),
        "I10 EveryJobEnds: job another is gone, expected Succeeded"
    );
    assert_eq!(gone.len(), 1);
}

#[test]
fn i11_a_crash_that_was_none_an_attempt_too_many_and_a_failure_for_nothing() {
    // The lease has not expired.
    let mut story = leased();
    story.take_back(1);
    story.claim("w.2");
    finish(&mut story, "w.2");
    breaks(&story, Invariant::FairCharges);
    // Taken away uncharged: a steal.
    let mut story = leased();
    story.take_back(0);
    story.claim("w.2");
    finish(&mut story, "w.2");
    keeps_all(&story);
    let mut story = leased();
    story.task(|task| task.attempt += 1);
    finish(&mut story, "w.1");
    breaks(&story, Invariant::FairCharges);
    for (kind, is_charged) in [("TRANSIENT", true), ("PREEMPTED", false)] {
        let mut story = leased();
        story.task(|task| {
            task.failures += 1;
            task.error_kind = Some(kind.to_owned());
        });
        finish(&mut story, "w.1");
        match is_charged {
            true => keeps_all(&story),
            false => breaks(&story, Invariant::FairCharges),
        }
    }
}

#[test]
fn what_a_test_excepts_is_not_told_and_a_prefix_may_have_bytes_of_its_own() {
    let mut story = Story::good();
    story.object(WEIGHTS, b"other");
    let expected = expected();
    let excepted = expected.clone().except(Invariant::GoldenBytes);
    assert_eq!(violations(&story.record, &excepted), []);
    let own = [
        (MANIFEST, Vec::new()),
        ("model.safetensors", b"other".to_vec()),
        ("config.json", b"{}".to_vec()),
    ];
    let own = own.map(|(name, bytes)| (name.to_owned(), bytes)).into();
    let expected = expected.golden_of(OUT, Arc::new(own));
    assert_eq!(violations(&story.record, &expected), []);
}
