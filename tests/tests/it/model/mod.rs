//! The protocol in the small, explored whole: two tasks of one part each, two
//! workers, two finalizers, an object store, and messages that are late, lost or
//! repeated. What becomes of the rows is not written down again here: it is
//! [`chatvec_core::job::Job::after`], which the job store is compared with.
//!
//! Troubles are what does not happen by itself: a death, a lease that runs out
//! under its worker, a theft, a part that the store loses, a takeover, a
//! cancellation. Every combination of so many in every order is explored; delays,
//! losses and repeats of messages are free.

mod act;
mod action;
mod explore;
mod publish;
mod rows;
mod rule;
mod state;

use std::cell::RefCell;
use std::time::Instant;

use act::Model;
use action::Action;
use explore::{Explored, explore};
use rule::Rule;
use state::Bytes;

/// A defect of the protocol. The first six are those that
/// `chatvec::fault::Mutant` plants into the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    NoFenceGuard,
    GuardByWorkerOnly,
    NoSelfFence,
    CompleteFromListing,
    ReaperWithoutRecheck,
    ManifestBeforeFiles,
    /// A finalizer is believed whatever its epoch.
    NoEpochGuard,
    /// The final manifest is put whatever stands there.
    UnconditionalManifest,
    /// A worker that repairs into an upload that is an object already has failed.
    GoneUploadFails,
}

/// What is explored.
#[derive(Debug, Clone, Copy)]
struct Config {
    mutant: Option<Mutant>,
    /// What a worker puts after its lease has run out: the same bytes, as chatvec
    /// promises, or others.
    late_bytes: Bytes,
    /// How many troubles there may be.
    troubles: u8,
    /// Rules that are not looked at.
    unwatched: &'static [Rule],
}

/// Explored whole in some seconds; three take minutes.
const TROUBLES: u8 = 2;

const SOUND: Config = Config {
    mutant: None,
    late_bytes: Bytes::Right,
    troubles: TROUBLES,
    unwatched: &[],
};

#[expect(clippy::print_stdout, reason = "what was explored is a result")]
fn explored(config: Config) -> Explored<Action, Rule> {
    let began = Instant::now();
    let mut model = Model::new(config);
    let first = model.first();
    let model = RefCell::new(model);
    let found = explore(
        first,
        |state| state.form(&mut model.borrow_mut().table),
        |state| model.borrow_mut().steps(state),
        |state| model.borrow().table.job(state.rows).state.is_terminal(),
    );
    println!(
        "{config:?}: {} states, {} steps, depth {}, {:.1} s",
        found.states,
        found.steps,
        found.depth,
        began.elapsed().as_secs_f64()
    );
    if let Some((rule, way)) = &found.broken {
        println!("broken: {rule}");
        told(way);
    }
    if let Some(way) = &found.trapped {
        println!("no end can be reached any more:");
        told(way);
    }
    found
}

#[expect(clippy::print_stdout, reason = "a counterexample is a result")]
fn told(way: &[Action]) {
    for (number, action) in (1..).zip(way) {
        println!("{number:4}. {action}");
    }
}

/// Explores whole; the first rule that is broken, and whether an end stays within
/// reach of every state.
fn first_broken(config: Config) -> Option<Rule> {
    let found = explored(config);
    if found.broken.is_none() {
        assert_eq!(found.trapped, None, "no end can be reached any more");
    }
    found.broken.map(|(rule, _)| rule)
}

fn with(mutant: Mutant) -> Option<Rule> {
    first_broken(Config {
        mutant: Some(mutant),
        ..SOUND
    })
}

#[test]
fn whatever_happens_every_rule_holds_and_an_end_stays_within_reach() {
    assert_eq!(first_broken(SOUND), None);
}

#[test]
fn without_the_fence_a_report_counts_under_the_lease_of_another() {
    assert_eq!(with(Mutant::NoFenceGuard), Some(Rule::DoneUnderItsFence));
}

#[test]
fn by_the_workers_name_alone_its_old_report_counts_under_its_new_lease() {
    assert_eq!(
        with(Mutant::GuardByWorkerOnly),
        Some(Rule::DoneUnderItsFence)
    );
}

#[test]
fn without_the_self_fence_puts_begin_too_late() {
    assert_eq!(with(Mutant::NoSelfFence), Some(Rule::NoLatePut));
}

/// Either of the two promises is enough: that nobody puts late, or that whoever
/// does puts the same bytes. A lease that is stolen has not run out: its worker may
/// put until it hears of that, and there the second promise stands alone.
#[test]
fn late_puts_do_harm_only_with_other_bytes_and_without_the_self_fence() {
    let late = |mutant, late_bytes| {
        first_broken(Config {
            mutant,
            late_bytes,
            troubles: 1,
            unwatched: &[Rule::NoLatePut],
        })
    };
    let unfenced = Some(Mutant::NoSelfFence);
    assert_eq!(late(unfenced, Bytes::Others), Some(Rule::BytesStand));
    assert_eq!(late(unfenced, Bytes::Right), None);
    assert_eq!(late(None, Bytes::Others), None);
}

#[test]
fn completed_from_whatever_parts_exist_a_file_may_lack_some() {
    assert_eq!(
        with(Mutant::CompleteFromListing),
        Some(Rule::ManifestProved)
    );
}

#[test]
fn a_reaper_that_does_not_look_again_undoes_a_report() {
    assert_eq!(with(Mutant::ReaperWithoutRecheck), Some(Rule::AnswersStand));
}

#[test]
fn a_manifest_before_the_files_is_final_over_nothing() {
    assert_eq!(
        with(Mutant::ManifestBeforeFiles),
        Some(Rule::ManifestProved)
    );
}

#[test]
fn without_the_epoch_a_finalizer_that_was_replaced_undoes_a_report() {
    assert_eq!(with(Mutant::NoEpochGuard), Some(Rule::AnswersStand));
}

#[test]
fn without_its_condition_a_second_manifest_is_put() {
    assert_eq!(with(Mutant::UnconditionalManifest), Some(Rule::OneManifest));
}

/// Found by this model: a finalizer that was replaced may complete the upload that
/// its successor has put again.
#[test]
fn a_repair_that_fails_for_want_of_its_upload_fails_a_job_that_is_published() {
    assert_eq!(with(Mutant::GoneUploadFails), Some(Rule::OneManifest));
}
