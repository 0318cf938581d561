//! The crash matrix: one test a row, named after it. Each proves that its fault
//! came, that the bound of its row holds under the cluster's short lease, and
//! that the published bytes are those of a merge that nothing disturbed.
//!
//! Bounds are those of a lease of 30 s, scaled, and [`WORK`] for what does not
//! scale: processes that start, a job that goes on.

mod clients;
mod clocks;
mod coordinators;
mod database;
mod jobs;
mod mutants;
mod network;
mod store;
mod walk;
mod workers;

use std::time::Duration;

use chatvec_tests::cluster::{LEASE, scaled};

/// Between two looks at a condition that takes a process to look at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What the rest of a job takes on a busy machine, next to all waiting.
const WORK: Duration = Duration::from_secs(4);

/// By when work goes on that a dead process held: its lease ends, somebody looks.
fn takeover() -> Duration {
    LEASE + scaled(Duration::from_secs(5)) + WORK
}
