//! What must hold, whatever happens.

use std::fmt;

use chatvec_core::job::{Job, JobState};
use chatvec_core::task::{Task, TaskState};

use super::rows::bytes_of;
use super::state::{Bytes, Manifest, State};

/// What a step may break. The numbers are those of `tests/src/checker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// I2
    ManifestProved,
    /// I3
    OneManifest,
    /// I4
    DoneUnderItsFence,
    /// I5
    FencesRise,
    /// I6
    AnswersStand,
    /// I6, in storage
    BytesStand,
    /// I7
    NoLatePut,
    /// I10
    EndsEmpty,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ManifestProved => {
                "I2: the final manifest stands over an object of the right bytes"
            }
            Self::OneManifest => "I3: one final manifest, of a job that commits or has succeeded",
            Self::DoneUnderItsFence => "I4: a task is done under the fence that was reported",
            Self::FencesRise => "I5: fences only rise, and every claim raises one",
            Self::AnswersStand => "I6: a report that was answered stands until a repair",
            Self::BytesStand => "I6: what a finished task has put stands until the store loses it",
            Self::NoLatePut => "I7: no put begins under a lease that has run out",
            Self::EndsEmpty => "I10: a job that has ended leaves nothing open",
        })
    }
}

/// The rules that a state breaks, whatever led there.
pub(super) fn of_state(state: &State, job: &Job) -> Option<Rule> {
    let storage = &state.storage;
    let is_final = storage.manifest == Manifest::Final;
    let may_be_final = matches!(job.state, JobState::Committing | JobState::Succeeded);
    let told = (0..2).all(|task| {
        let done = job.tasks[task].done.as_ref();
        let fence = done.map(|done| done.fence.0 as u8);
        state.told[task].is_none() || state.told[task] == fence
    });
    let there = (0..2).all(|task| {
        let row = &job.tasks[task];
        let recorded = row.parts.first().map(bytes_of);
        row.state != TaskState::Done
            || storage.object.is_some()
            || state.lost[task]
            || storage.parts[task] == recorded
    });
    let ends_open = job.state.is_terminal() && job.tasks.iter().any(|task| task.is_open());
    let rules = [
        (
            !is_final || storage.object == Some([Some(Bytes::Right); 2]),
            Rule::ManifestProved,
        ),
        (
            storage.finals <= 1
                && (!is_final || may_be_final)
                && (is_final || job.state != JobState::Succeeded),
            Rule::OneManifest,
        ),
        (told, Rule::AnswersStand),
        (there, Rule::BytesStand),
        (!ends_open, Rule::EndsEmpty),
    ];
    rules
        .iter()
        .find_map(|(holds, rule)| (!holds).then_some(*rule))
}

/// The rules that a change of the rows breaks.
pub(super) fn of_change(before: &Job, after: &Job) -> Option<Rule> {
    let rises = |(before, after): (&Task, &Task)| {
        let is_claimed = before.state == TaskState::Ready && after.state == TaskState::Leased;
        match is_claimed {
            true => after.fence > before.fence,
            false => after.fence >= before.fence,
        }
    };
    let holds = before.tasks.iter().zip(&after.tasks).all(rises);
    (!holds).then_some(Rule::FencesRise)
}
