//! What a soak has to say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::Kind;
use crate::emulator::Profile;
use crate::table::Table;

/// After so long a soak every kind of fault should have come.
const LONG: Duration = Duration::from_secs(300);

/// The summary of a soak.
#[derive(Debug, Clone)]
pub struct Report {
    /// By which it is repeated.
    pub seed: u64,
    /// How long faults came.
    pub time: Duration,
    /// The store that was imitated.
    pub profile: Profile,
    /// Faults that were begun.
    pub begun: usize,
    /// Faults that came, by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Jobs by their ends.
    pub ends: BTreeMap<String, u64>,
    /// Submissions of a request that was submitted already.
    pub duplicates: u64,
    /// Submissions refused as another job had the output.
    pub refused: u64,
    /// Cancellations that were refused as they came too late.
    pub late_cancels: u64,
    /// Starts of coordinators that ended as the database was away.
    pub failed_starts: u64,
    /// Jobs that failed, and the faults that explain it.
    pub explained: Vec<String>,
    /// Bytes of weights that were published.
    pub bytes: u64,
    /// Bytes of weights that were put more than once.
    pub redone: u64,
    /// Requests that the store got.
    pub requests: usize,
    /// The longest time from the end of all faults to the next finished task.
    pub longest_recovery: Duration,
    /// The longest time in which no task was finished and one could be, faults and
    /// all.
    pub longest_standstill: Duration,
    /// From the end of the last fault to that of the last job.
    pub settled_in: Duration,
    /// The most memory of a worker and of a coordinator, in bytes.
    pub peaks: [u64; 2],
    /// Everything that must not be.
    pub violations: Vec<String>,
    /// Where logs, schedule and audit lie.
    pub folder: PathBuf,
}

impl Report {
    /// Kinds of faults of which none came.
    pub fn missing(&self) -> Vec<&'static str> {
        let kinds = Kind::ALL.into_iter();
        let missing = kinds.filter(|kind| self.faults.get(kind).copied().unwrap_or(0) == 0);
        missing.map(Kind::name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["soak", ""]);
        let mut row = |name: &str, value: String| table.row(&[name.to_owned(), value]);
        row("seed", self.seed.to_string());
        row("store", format!("{:?}", self.profile));
        row("seconds", self.time.as_secs().to_string());
        for (kind, count) in &self.faults {
            row(&format!("fault: {}", kind.name()), count.to_string());
        }
        let came: u64 = self.faults.values().sum();
        row(
            "faults that came, of those begun",
            format!("{came} of {}", self.begun),
        );
        for (state, count) in &self.ends {
            row(&format!("jobs: {state}"), count.to_string());
        }
        row("submissions repeated", self.duplicates.to_string());
        row(
            "submissions refused, output in use",
            self.refused.to_string(),
        );
        row("cancels that came too late", self.late_cancels.to_string());
        row("starts without a database", self.failed_starts.to_string());
        row("requests to the store", self.requests.to_string());
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        row("published", mb(self.bytes));
        row("put again", mb(self.redone));
        let s = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        row("longest recovery", s(self.longest_recovery));
        row("longest standstill", s(self.longest_standstill));
        row(
            "from the last fault to the last job's end",
            s(self.settled_in),
        );
        let [worker, coordinator] = self.peaks;
        row("most memory of a worker", mb(worker));
        row("most memory of a coordinator", mb(coordinator));
        row("violations", self.violations.len().to_string());
        write!(f, "{table}")?;
        for explained in &self.explained {
            writeln!(f, "\nexplained by its faults: {explained}")?;
        }
        let missing = self.missing();
        if self.time >= LONG && !missing.is_empty() {
            writeln!(
                f,
                "\nin so long a soak these never came: {}",
                missing.join(", ")
            )?;
        }
        if !self.violations.is_empty() {
            writeln!(f)?;
            for violation in &self.violations {
                writeln!(f, "violation: {violation}")?;
            }
            writeln!(f, "\nlogs, schedule and audit: {}", self.folder.display())?;
            let (time, seed) = (self.time.as_secs(), self.seed);
            writeln!(f, "again: make soak SECONDS={time} SEED={seed}")?;
        }
        Ok(())
    }
}
