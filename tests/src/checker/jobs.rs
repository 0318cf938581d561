//! Jobs: their states, their epochs, and how they end.

use std::collections::BTreeMap;
use std::time::Duration;

use chatvec_core::job::JobState;

use super::audit::ago;
use super::record::{Job, Record};
use super::{Ends, Expectations, Findings, Invariant};

pub(super) fn check(record: &Record, expected: &Expectations, found: &mut Findings) {
    for change in &record.jobs {
        let Some((before, after)) = change.update() else {
            continue;
        };
        let place = || {
            let (id, ago) = (&after.job_id, ago(record, change.at()));
            format!("job {id}, {} to {}, {ago}", before.state, after.state)
        };
        found.demand(Invariant::FenceRises, after.epoch >= before.epoch, || {
            format!("the epoch goes back: {}", place())
        });
        found.demand(Invariant::EveryJobEnds, may_become(before, after), || {
            format!("no such way: {}", place())
        });
    }
    let last = record.last_of_jobs();
    for (job, ends) in &expected.jobs {
        let state = last
            .get(job.as_str())
            .map_or("gone", |job| job.state.as_str());
        found.demand(Invariant::EveryJobEnds, ends.allow(state), || {
            format!("job {job} is {state}, expected {ends:?}")
        });
    }
    if let Some(longest) = expected.job_time_max {
        end_in_time(record, longest, &last, found);
    }
}

fn may_become(before: &Job, after: &Job) -> bool {
    let [from, to] = [before, after].map(|job| job.state.parse::<JobState>());
    match (from, to) {
        (Ok(from), Ok(to)) => from == to || from.may_become(to),
        _ => false,
    }
}

/// I10: by the clock of the database, from the first row to the last state.
fn end_in_time(
    record: &Record,
    longest: Duration,
    last: &BTreeMap<&str, &Job>,
    found: &mut Findings,
) {
    let mut begun = BTreeMap::new();
    let mut ended = BTreeMap::new();
    for change in &record.jobs {
        let Some(job) = &change.after else { continue };
        let id = job.job_id.as_str();
        begun.entry(id).or_insert(change.at());
        if job.is_terminal() {
            ended.entry(id).or_insert(change.at());
        }
    }
    for (id, job) in last {
        let end = ended.get(id).copied().unwrap_or(record.taken_at);
        let took = end.saturating_sub(begun[id]);
        let in_time = job.is_terminal() && took <= longest;
        found.demand(Invariant::EveryJobEnds, in_time, || {
            format!(
                "job {id} is {} after {took:?}, expected its end within {longest:?}",
                job.state
            )
        });
    }
}

impl Ends {
    fn allow(self, state: &str) -> bool {
        match self {
            Self::Succeeded => state == "SUCCEEDED",
            Self::Failed => state == "FAILED",
            Self::Cancelled => state == "CANCELLED",
            Self::CancelledOrSucceeded => state == "CANCELLED" || state == "SUCCEEDED",
        }
    }
}
