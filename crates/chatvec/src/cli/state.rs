//! States as flags give them.

use std::str::FromStr;

use chatvec_core::job::JobState;
use chatvec_core::task::TaskState;

/// A state of a job by its name in either case.
pub(super) fn of_job(text: &str) -> Result<JobState, String> {
    by_name(text, JobState::ALL.map(JobState::name))
}

/// A state of a task by its name in either case.
pub(super) fn of_task(text: &str) -> Result<TaskState, String> {
    by_name(text, TaskState::ALL.map(TaskState::name))
}

fn by_name<S: FromStr, const N: usize>(text: &str, names: [&str; N]) -> Result<S, String> {
    text.to_ascii_uppercase().parse().map_err(|_| {
        let names = names.map(str::to_ascii_lowercase);
        format!("expected one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_known_by_its_name_in_either_case() {
        assert_eq!(of_job("running"), Ok(JobState::Running));
        assert_eq!(of_job("FAILED"), Ok(JobState::Failed));
        assert!(of_job("done").unwrap_err().contains("succeeded"));
        assert_eq!(of_task("ready"), Ok(TaskState::Ready));
        assert!(of_task("running").unwrap_err().contains("leased"));
    }
}
