//! What holds of every change of the rows, whatever the law says: so that a
//! mistake that store and law have in common does not hide.

use chatvec_core::job::{Job, JobState};
use chatvec_core::task::{Task, TaskState};

use super::Jobs;

/// The first rule that the change breaks.
pub(super) fn broken(old: &Jobs, new: &Jobs) -> Option<String> {
    let change_of_job = |(name, new): (_, &Job)| {
        let old = &old[name];
        let what = of_job(old, new).or_else(|| {
            let tasks = old.tasks.iter().zip(&new.tasks);
            tasks.into_iter().find_map(|(old, new)| of_task(old, new))
        });
        what.map(|what| format!("{name}: {what}\n{old:#?}\n{new:#?}"))
    };
    new.iter().find_map(change_of_job)
}

fn of_job(old: &Job, new: &Job) -> Option<&'static str> {
    // One call may pass through a state in between: cancelling, or running.
    let via = |state: JobState| old.state.may_become(state) && state.may_become(new.state);
    let is_reached = old.state == new.state
        || old.state.may_become(new.state)
        || JobState::ALL.into_iter().any(via);
    let all_done = new.tasks.iter().all(|task| task.state == TaskState::Done);
    first_broken(&[
        (is_reached, "a state that may not follow"),
        (new.epoch >= old.epoch, "an epoch was lowered"),
        (new.revision >= old.revision, "a revision was lowered"),
        (
            old.state == new.state || new.revision > old.revision,
            "a state changed and the revision did not",
        ),
        (
            new.state != JobState::Succeeded || all_done,
            "it succeeded with something left to do",
        ),
        (
            old.committing_at_ms.is_none() || old.committing_at_ms == new.committing_at_ms,
            "the point of no return has moved",
        ),
    ])
}

fn of_task(old: &Task, new: &Task) -> Option<&'static str> {
    let is_claimed = new.attempt != old.attempt;
    let frozen = |task: &Task| -> Vec<_> {
        let parts = task.parts.iter();
        parts.map(|part| (part.part, part.crc64)).collect()
    };
    let is_done = new.state == TaskState::Done;
    first_broken(&[
        (
            old.state == new.state || old.state.may_become(new.state),
            "a state that may not follow",
        ),
        (new.fence >= old.fence, "a fence was lowered"),
        (
            !is_claimed || new.fence > old.fence,
            "a claim kept the fence",
        ),
        (
            !is_claimed || new.attempt.0 == old.attempt.0 + 1,
            "an attempt is missing",
        ),
        (
            old.state != TaskState::Done || !is_done || old.done == new.done,
            "a finished task was finished by another",
        ),
        (
            !is_done || new.done.as_ref().map(|done| done.fence) == Some(new.fence),
            "it is done under another fence than its own",
        ),
        (
            !is_done || old.parts.is_empty() || frozen(old) == frozen(new),
            "recorded bytes have changed",
        ),
    ])
}

fn first_broken(rules: &[(bool, &'static str)]) -> Option<&'static str> {
    rules
        .iter()
        .find_map(|(holds, what)| (!holds).then_some(*what))
}
