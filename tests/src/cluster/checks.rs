//! What a cluster remembers for the checker, and the check at its end.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::{Cluster, Setup};
use crate::checker::{self, Audit, Expectations, Invariant, Record, StoodStill, Violation};
use crate::fleet::{ACCESS_KEY, FAMILY};
use crate::process::{Stop, stops, wall_clock};

/// The audits of a cluster's databases and the names of its workers.
#[derive(Debug)]
pub(super) struct Checks(Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    audits: Vec<Audit>,
    workers: Vec<Worker>,
    expected: Expectations,
}

#[derive(Debug)]
struct Worker {
    process: u32,
    name: String,
    endpoint: Option<String>,
}

impl Checks {
    pub(super) fn new(lease: Duration) -> Self {
        Self(Mutex::new(Remembered {
            audits: Vec::new(),
            workers: Vec::new(),
            expected: Expectations::of_lease(lease),
        }))
    }

    /// Begins to record what happens in a database.
    pub(super) fn audit(&self, database: &str) {
        let mut remembered = self.lock();
        let ordinal = remembered.audits.len() as u64;
        remembered.audits.push(Audit::install(database, ordinal));
    }

    /// A name for the next worker.
    pub(super) fn name_of_worker(&self) -> String {
        format!("{ACCESS_KEY}.worker-{}", self.lock().workers.len())
    }

    /// A worker runs.
    pub(super) fn started(&self, process: u32, name: &str, setup: &Setup) {
        self.lock().workers.push(Worker {
            process,
            name: name.to_owned(),
            endpoint: setup.endpoint().map(str::to_owned),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().expect("nothing panics while it holds this")
    }
}

impl Cluster {
    /// Changes what the check at the cluster's end expects.
    pub fn expect(&self, change: impl FnOnce(Expectations) -> Expectations) {
        let mut remembered = self.checks.lock();
        let expected = remembered.expected.clone();
        remembered.expected = change(expected);
    }

    /// This invariant cannot hold in this cluster, or cannot be seen: the reason
    /// is for whoever reads the test.
    pub fn unchecked(&self, invariant: Invariant, _reason: &str) {
        self.expect(|expected| expected.except(invariant));
    }

    /// Nothing is checked at the cluster's end: somebody has done so before.
    pub fn unchecked_all(&self) {
        for invariant in Invariant::ALL {
            self.unchecked(invariant, "it was checked before");
        }
    }

    /// What has happened so far.
    ///
    /// # Panics
    /// If a database does not answer.
    pub fn record(&self) -> Record {
        let remembered = self.checks.lock();
        let store = self.store();
        let mut record = Record {
            audited_at: wall_clock(),
            ..Record::default()
        };
        for audit in &remembered.audits {
            audit.read_into(&mut record);
        }
        // After the databases: what they know must be in it.
        record.history = store.history();
        record.objects = store.objects();
        record.open_uploads = store.open_uploads();
        record.bucket_url = self.fleet.bucket.url("");
        record.inputs = vec![format!("{FAMILY}/")];
        record.taken_at = wall_clock();
        record.stops = remembered.stops(record.taken_at);
        record.detoured = remembered.detoured(&format!("http://{}", store.address()));
        record
    }

    /// Where what has happened so far breaks an invariant, by what the cluster
    /// expects and these changes of it.
    ///
    /// # Panics
    /// If a database does not answer.
    pub fn violations(&self, change: impl FnOnce(Expectations) -> Expectations) -> Vec<Violation> {
        let record = self.record();
        let mut expected = self.checks.lock().expected.clone();
        if record.needs_golden() {
            expected = expected.golden(self.golden().clone());
        }
        checker::violations(&record, &change(expected))
    }
}

impl Remembered {
    fn stops(&self, now: Duration) -> Vec<(String, StoodStill)> {
        let of = |stop: Stop| {
            let worker = self
                .workers
                .iter()
                .rev()
                .find(|one| one.process == stop.process)?;
            let (from, to) = (stop.from, stop.to.unwrap_or(now));
            Some((worker.name.clone(), StoodStill { from, to }))
        };
        stops().into_iter().filter_map(of).collect()
    }

    fn detoured(&self, store: &str) -> BTreeSet<String> {
        let is_detoured = |worker: &&Worker| {
            let endpoint = worker.endpoint.as_deref();
            endpoint.is_some_and(|endpoint| endpoint != store)
        };
        let detoured = self.workers.iter().filter(is_detoured);
        detoured.map(|worker| worker.name.clone()).collect()
    }
}

/// The global invariants, for every test on a cluster: coordinators and workers
/// have ended, as they were started after it.
impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            checker::assert_none(&self.violations(|expected| expected));
        }
    }
}
