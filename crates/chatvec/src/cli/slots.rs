//! How many tasks fit into a budget of memory.

use chatvec_core::problem::Problem;

use super::text::{binary_size, counted};

/// As many slots as asked for by `flag`, or as are useful, within the memory;
/// `needed` says what so many of them take.
///
/// # Errors
/// If the memory is too little for what is asked for, or for a single one.
pub(super) fn fitting(
    flag: &str,
    asked: Option<u32>,
    useful: u32,
    memory: u64,
    needed: impl Fn(u32) -> u64,
) -> Result<u32, Problem> {
    let slots = asked.unwrap_or_else(|| {
        let mut counts = (1..=useful).rev();
        counts.find(|&slots| needed(slots) <= memory).unwrap_or(1)
    });
    if needed(slots) <= memory {
        return Ok(slots);
    }
    let message = format!(
        "expected at least {} for {}, found {}",
        binary_size(needed(slots)),
        counted(slots.into(), "task"),
        binary_size(memory)
    );
    Err(Problem::new("--memory", message).with_hint(format!("give more, or a smaller `{flag}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(slots: u32) -> u64 {
        50 + 100 * u64::from(slots)
    }

    #[test]
    fn slots_stay_within_the_memory() {
        let fitting = |asked, useful, memory| fitting("--slots", asked, useful, memory, needed);
        assert_eq!(fitting(None, 8, 1000), Ok(8));
        assert_eq!(fitting(None, 12, 10_000), Ok(12));
        assert_eq!(fitting(None, 8, 299), Ok(2));
        assert_eq!(fitting(Some(10), 8, 1050), Ok(10));
    }

    #[test]
    fn a_budget_that_is_too_small_is_refused_with_what_is_needed() {
        let problem = fitting("--slots", None, 8, 149, needed).unwrap_err();
        assert_eq!(
            problem.message,
            "expected at least 150 B for 1 task, found 149 B"
        );
        let problem = fitting("--workers", Some(3), 8, 349, needed).unwrap_err();
        assert!(problem.message.contains("350 B for 3 tasks"));
        assert!(problem.hint.unwrap().ends_with("smaller `--workers`"));
    }
}
