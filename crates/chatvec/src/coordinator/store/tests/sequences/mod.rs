//! The store held to the law: random sequences of operations run on a store and
//! through the transitions of core ([`Job::after`], [`chatvec_core::task::Task::after`]),
//! and after every operation the answers and all rows are the same, to the
//! millisecond. Time is a row of a table, and moves where a sequence says so.
//!
//! That the comparison would find a difference is shown by defects that are
//! planted into the side of core.
//!
//! `CHATVEC_TEST_SEED` repeats one sequence. What was found stays as a named test
//! of its own in the other modules.

mod clock;
mod law;
mod op;
mod planted;
mod real;
mod rows;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use chatvec_core::ids::JobId;
use chatvec_core::job::Job;

use super::fixture::*;
use crate::coordinator::store::Store;
use law::Law;
use op::{Chance, Op};
use planted::Planted;

/// Of one sequence.
const JOBS: usize = 6;
const TASKS: u32 = 5;
const OPS: usize = 300;

/// What `make test` runs.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=20;

/// Every job with its tasks.
type Jobs = BTreeMap<JobId, Job>;

/// What happened in how many places of the sequences: of each kind of operation
/// each way in which it can end.
type Seen = BTreeMap<(&'static str, &'static str), u32>;

/// Every operation and outcome. A sequence that never asks for something, or is
/// never refused it, shows nothing about it.
const WANTED: &[(&str, &[&str])] = &[
    ("tick", &["done"]),
    ("start planning", &["begun", "wrong state", "epoch held"]),
    ("finish planning", &["done", "wrong state", "epoch lost"]),
    (
        "acquire",
        &["leases", "alone", "kept waiting", "nothing", "passed over"],
    ),
    (
        "beat",
        &["extended", "lost", "cancel", "missed", "forgotten"],
    ),
    (
        "complete",
        &[
            "recorded",
            "repeated",
            "repaired",
            "other bytes",
            "wrong parts",
            "lease lost",
        ],
    ),
    (
        "fail",
        &["retried", "kept", "gave up", "cancelled", "lease lost"],
    ),
    ("release", &["ready", "cancelled", "lease lost"]),
    ("release all", &["some", "nothing"]),
    (
        "reap",
        &[
            "crashed",
            "cancelled",
            "gave up",
            "capped",
            "swept",
            "settled",
            "nothing",
            "grace",
        ],
    ),
    ("steal", &["stolen", "nothing"]),
    ("start finalizing", &["begun", "wrong state", "epoch held"]),
    ("renew epoch", &["done", "epoch lost"]),
    ("release epoch", &["done", "passed over"]),
    (
        "start commit",
        &["frozen", "again", "tasks open", "wrong state", "epoch lost"],
    ),
    (
        "finish commit",
        &["done", "tasks open", "wrong state", "epoch lost"],
    ),
    ("fail commit", &["done", "wrong state", "epoch lost"]),
    ("fail job", &["done", "wrong state", "epoch lost"]),
    ("reopen", &["done", "wrong state", "not done"]),
    ("repair", &["done", "wrong state", "epoch lost", "not done"]),
    (
        "cancel",
        &["cancelling", "cancelled", "again", "wrong state"],
    ),
    ("mark cleaned", &["done", "again", "wrong state"]),
    ("strand", &["done"]),
];

/// The first difference between store and law.
#[derive(Debug)]
struct Divergence {
    /// Which operation it was, from 1.
    ops: usize,
    op: Op,
    what: String,
}

/// One sequence; what it has seen, or where store and law part.
async fn run(store: &Store, seed: u64, planted: Option<Planted>) -> Result<Seen, Box<Divergence>> {
    let mut chance = Chance::new(seed);
    let mut law = Law::new(planted, clock::START_MS);
    clock::begin(store).await;
    for number in 0..JOBS {
        let job = submitted(store, &format!("{seed:020}-{number}")).await;
        law.submitted(job);
    }
    let mut seen = Seen::new();
    let mut rows = rows::read(store).await;
    for _ in 0..OPS {
        let op = op::next(&law, &mut chance);
        for outcome in step(store, &mut law, &mut rows, &op).await? {
            *seen.entry((op.name(), outcome)).or_default() += 1;
        }
    }
    // What is left comes to its end, and holds nothing then.
    for op in op::last(&law) {
        step(store, &mut law, &mut rows, &op).await?;
    }
    for (name, job) in &rows {
        let open = job.tasks.iter().filter(|task| task.is_open()).count();
        assert!(job.state.is_terminal() && open == 0, "{name}: {job:#?}");
    }
    Ok(seen)
}

/// One operation on both sides; in which ways it ended.
async fn step(
    store: &Store,
    law: &mut Law,
    rows: &mut Jobs,
    op: &Op,
) -> Result<Vec<&'static str>, Box<Divergence>> {
    let answer = real::run(store, op).await;
    let (expected, outcomes) = law.run(op, &answer);
    let last = std::mem::replace(rows, rows::read(store).await);
    let what = if answer != expected {
        Some(format!("store: {answer:?}\n  law: {expected:?}"))
    } else if let Some(what) = rows::difference(rows, &law.jobs) {
        Some(what)
    } else if matches!(op, Op::Strand { .. }) {
        // What the tests themselves put there follows no rule.
        None
    } else {
        rules::broken(&last, rows)
    };
    match what {
        None => Ok(outcomes),
        Some(what) => Err(Box::new(Divergence {
            ops: law.ops,
            op: op.clone(),
            what,
        })),
    }
}

async fn every_sequence_leaves_the_rows_that_the_law_says(store: &Store) {
    let store = clock::under_test(store).await;
    let repeated = std::env::var("CHATVEC_TEST_SEED").ok();
    let seeds: Vec<u64> = match &repeated {
        Some(seed) => vec![seed.parse().expect("a seed is a number")],
        None => SEEDS.collect(),
    };
    let mut seen = Seen::new();
    for seed in seeds {
        println!("CHATVEC_TEST_SEED={seed}");
        let one = run(&store, seed, None).await;
        for (outcome, times) in one.unwrap_or_else(|found| found.fail()) {
            *seen.entry(outcome).or_default() += times;
        }
    }
    println!("{seen:#?}");
    if repeated.is_none() {
        assert_eq!(missing(&seen), [], "never happened in any sequence");
    }
    let wanted: BTreeSet<_> = wanted().collect();
    let unknown: Vec<_> = seen.keys().filter(|seen| !wanted.contains(seen)).collect();
    assert!(unknown.is_empty(), "not in the list: {unknown:?}");
}

impl Divergence {
    fn fail(&self) -> ! {
        panic!(
            "after {} operations, {:?}:\n{}",
            self.ops, self.op, self.what
        );
    }
}

fn wanted() -> impl Iterator<Item = (&'static str, &'static str)> {
    WANTED
        .iter()
        .flat_map(|(op, outcomes)| outcomes.iter().map(|outcome| (*op, *outcome)))
}

fn missing(seen: &Seen) -> Vec<(&'static str, &'static str)> {
    wanted().filter(|pair| !seen.contains_key(pair)).collect()
}

/// A comparison that finds nothing wrong must be able to find something: each
/// defect of core's side shows within the sequences.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_defect_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_sqlite(&folder.path().join("jobs.db")).await;
    let store = clock::under_test(&store.unwrap()).await;
    for planted in Planted::ALL {
        let mut found = None;
        for seed in SEEDS {
            found = run(&store, seed, Some(planted)).await.err();
            if found.is_some() {
                break;
            }
        }
        let found = found.unwrap_or_else(|| panic!("{planted:?} is not found"));
        println!(
            "{planted:?}: after {} operations, {:?}",
            found.ops, found.op
        );
    }
}

super::conformance! {
    every_sequence_leaves_the_rows_that_the_law_says,
}
