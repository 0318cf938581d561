//! How a command ends, and the exit code that says so.

use std::process::ExitCode;

use chatvec_core::problem::Problem;
use chatvec_core::task::FailureKind;

/// The exit codes. Scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done: 0.
    Success,
    /// It failed, and a repeat would fail again: 1.
    Failed,
    /// What the user gave cannot work: 2, as for a wrong flag.
    BadInput,
    /// It may work later without any change to the command: 75.
    TryAgain,
    /// Stopped by a signal: 130.
    Interrupted,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            // EX_TEMPFAIL of sysexits.h.
            Self::TryAgain => 75,
            // 128 + SIGINT, as shells have it.
            Self::Interrupted => 130,
        }
    }

    /// How a command ends whose job failed.
    pub(super) fn of_kind(kind: FailureKind) -> Self {
        match kind {
            FailureKind::BadInput => Self::BadInput,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Problems that the user can look at, at least one.
    #[error("{} problems", .problems.len())]
    Problems {
        /// The exit code.
        exit: Exit,
        /// All of them.
        problems: Vec<Problem>,
    },
    /// Stopped by a signal.
    #[error("{0}")]
    Interrupted(String),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// What the user gave cannot work.
    pub(super) fn bad_input(problems: Vec<Problem>) -> Self {
        Self::Problems {
            exit: Exit::BadInput,
            problems,
        }
    }

    /// It may work later.
    pub(super) fn try_again(problem: Problem) -> Self {
        Self::Problems {
            exit: Exit::TryAgain,
            problems: vec![problem],
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Problems { exit, .. } => *exit,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::Other(_) => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_stay_what_scripts_rely_on() {
        let codes = [
            Exit::Success,
            Exit::Failed,
            Exit::BadInput,
            Exit::TryAgain,
            Exit::Interrupted,
        ];
        assert_eq!(codes.map(Exit::code), [0, 1, 2, 75, 130]);
    }

    #[test]
    fn only_a_job_with_bad_input_is_the_users_to_mend() {
        let bad: Vec<_> = FailureKind::ALL
            .into_iter()
            .filter(|kind| Exit::of_kind(*kind) == Exit::BadInput)
            .collect();
        assert_eq!(bad, [FailureKind::BadInput]);
    }

    #[test]
    fn each_failure_knows_its_exit_code() {
        let problem = || Problem::new("cp", "no such folder");
        assert_eq!(Failure::bad_input(vec![problem()]).exit(), Exit::BadInput);
        assert_eq!(Failure::try_again(problem()).exit(), Exit::TryAgain);
        assert_eq!(
            Failure::Interrupted(String::new()).exit(),
            Exit::Interrupted
        );
        assert_eq!(Failure::from(anyhow::anyhow!("x")).exit(), Exit::Failed);
    }
}
