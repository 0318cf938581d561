//! The states of a job, which of them may follow which, and what happens to a
//! job and its tasks on the way.

mod transition;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use transition::{Job, JobOp, JobRefused};

/// Where a job stands. The database's CHECK constraint lists the same names.
///
/// ```text
/// PLANNING ──► QUEUED ──► RUNNING ──► COMMITTING ──► SUCCEEDED
///    │           │           │            └──► FAILED (proven damage only)
///    ├───────────┴───────────┼──► FAILED
///    └───────────────────────┴──► CANCELLING ──► CANCELLED
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// A coordinator reads headers and decides every tensor.
    Planning,
    /// Planned; no task has been leased yet.
    Queued,
    /// At least one task has been leased.
    Running,
    /// Every task is done and the part list is frozen: the point of no return.
    /// From here the job only rolls forward.
    Committing,
    /// The final manifest is written.
    Succeeded,
    /// Ended without output.
    Failed,
    /// Asked to stop; some task is still leased.
    Cancelling,
    /// Stopped without output.
    Cancelled,
}

impl JobState {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Planning,
        Self::Queued,
        Self::Running,
        Self::Committing,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// The name used in the database, on the wire and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planning => "PLANNING",
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Committing => "COMMITTING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelling => "CANCELLING",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether the job has ended: nothing moves it any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether nobody wants the tasks of a job in this state any more: it has
    /// ended, or is about to.
    pub fn is_unwanted(self) -> bool {
        self == Self::Cancelling || self.is_terminal()
    }

    /// Whether tasks of a job in this state may be leased. In COMMITTING these
    /// are repairs: parts that storage lost and that are put again.
    pub fn gives_leases(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Committing)
    }

    /// Whether `next` may follow this state.
    pub fn may_become(self, next: Self) -> bool {
        use JobState::*;
        matches!(
            (self, next),
            (Planning, Queued)
                | (Queued, Running)
                | (Running, Committing)
                | (Committing, Succeeded | Failed)
                | (Planning | Queued | Running, Failed | Cancelling)
                | (Cancelling, Cancelled)
        )
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no state has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown state `{0}`")]
pub struct UnknownState(pub String);

impl FromStr for JobState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| UnknownState(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_the_same_state() {
        for state in JobState::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert!("DONE".parse::<JobState>().is_err());
    }

    #[test]
    fn nothing_follows_a_terminal_state_and_every_other_state_has_an_exit() {
        for state in JobState::ALL {
            let exits = JobState::ALL
                .into_iter()
                .filter(|next| state.may_become(*next))
                .count();
            assert_eq!(exits == 0, state.is_terminal(), "{state}");
        }
    }

    #[test]
    fn commit_cannot_be_cancelled() {
        assert!(!JobState::Committing.may_become(JobState::Cancelling));
        assert!(!JobState::Committing.may_become(JobState::Running));
    }
}
