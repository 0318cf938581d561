//! Where a task stands, and the lease as a value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, Fence, JobId, TaskOrdinal};
use crate::job::UnknownState;

/// Where a task stands. The database's CHECK constraint lists the same names.
///
/// ```text
///            ┌── retry, release, reap ──┐
///            ▼                          │
///          READY ──── acquire ────► LEASED ──► DONE ──► READY (a part proved stale)
///            │                         ├─────► FAILED
///            └────────► CANCELLED ◄────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    /// Waiting for a worker, perhaps not before a given time.
    Ready,
    /// Held by one worker until its lease expires.
    Leased,
    /// Every part of it is written and recorded.
    Done,
    /// Given up: the job fails with it.
    Failed,
    /// Not needed any more.
    Cancelled,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::Leased,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name used in the database, on the wire and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Leased => "LEASED",
            Self::Done => "DONE",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether `next` may follow this state.
    pub fn may_become(self, next: Self) -> bool {
        use TaskState::*;
        matches!(
            (self, next),
            (Ready, Leased | Cancelled)
                | (Leased, Done | Ready | Failed | Cancelled)
                | (Done, Ready)
        )
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TaskState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| UnknownState(name.to_owned()))
    }
}

/// The right to run one task for a bounded time. Nobody can report on a task
/// without holding one: it carries the fence that the report is checked against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job of the task.
    pub job: JobId,
    /// The task.
    pub task: TaskOrdinal,
    /// The number that this lease's reports must name.
    pub fence: Fence,
    /// Which lease of the task this is.
    pub attempt: Attempt,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_the_same_state() {
        for state in TaskState::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
    }

    #[test]
    fn a_done_task_only_goes_back_to_ready() {
        let exits: Vec<_> = TaskState::ALL
            .into_iter()
            .filter(|next| TaskState::Done.may_become(*next))
            .collect();
        assert_eq!(exits, [TaskState::Ready]);
    }
}
