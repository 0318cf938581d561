//! Tasks that are taken from a worker that is alive: because it is much slower
//! than the others while the job waits for its last tasks, or because the task
//! does not move at all.
//!
//! A steal is not a failure and charges nothing. The task's bytes are the same
//! wherever they are computed, so a wrong guess costs time and no more.

/// From when on a task may be stolen. Both follow the length of a lease, so
/// that short leases make short tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StealLimits {
    /// A slow task keeps its worker for so long at least. Too low: tasks that
    /// have only begun slowly are done twice. Too high: a job waits for its
    /// slowest worker.
    pub slow_after_ms: u64,
    /// A task that does not move keeps its worker for so long at least. Too
    /// low: a hiccup of storage is paid with a task done twice. Too high: a
    /// call that hangs holds up its job.
    pub stuck_after_ms: u64,
}

impl StealLimits {
    /// The limits under leases of this length: two thirds of it, and twice it.
    pub fn of_lease(lease_ms: u64) -> Self {
        Self {
            slow_after_ms: lease_ms * 2 / 3,
            stuck_after_ms: lease_ms * 2,
        }
    }
}

/// How fast the tasks of a job have been so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Tasks of the job.
    pub tasks: u64,
    /// Of these DONE.
    pub done: u64,
    /// Median of the times of the tasks that are DONE, each from its last lease
    /// to its report; 0 if there are none.
    pub median_ms: u64,
    /// Median of their rates in bytes a second; 0 if there are none.
    pub median_rate: u64,
}

/// A task and the live worker that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldTask {
    /// Bytes of output that it writes.
    pub bytes: u64,
    /// Of these written, as the worker says.
    pub progress_bytes: u64,
    /// Since the lease was given.
    pub held_ms: u64,
    /// Since the worker last said that it has written more.
    pub still_ms: u64,
    /// How often the task has been stolen.
    pub steals: u64,
    /// Who else could run it.
    pub others: Others,
}

/// Who could run a task beside the worker that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// At least one worker that is alive.
    Alive,
    /// Nobody.
    None,
}

/// Why a task is stolen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steal {
    /// Its job waits for the last tasks, and this one is far slower than those
    /// before it.
    Slow,
    /// It has not moved for long.
    Stuck,
}

impl Steal {
    /// The name used in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Stuck => "stuck",
        }
    }
}

/// How often a task may be stolen, for whatever reason.
pub const STEALS_MAX: u64 = 3;

/// Whether the task is to be stolen, and why.
///
/// Slow: at least nine tenths of the job's tasks are done, and the task's rate
/// is below a third of the median for more than twice the median time. Only
/// once for a task, and only if somebody else can take it.
///
/// Stuck: no progress for five times what the task should take. Alone, its
/// worker may get it again: a new attempt has new connections.
pub fn steal(pace: &Pace, task: &HeldTask, limits: &StealLimits) -> Option<Steal> {
    if is_stuck(pace, task, limits) {
        Some(Steal::Stuck)
    } else if is_slow(pace, task, limits) {
        Some(Steal::Slow)
    } else {
        None
    }
}

fn is_stuck(pace: &Pace, task: &HeldTask, limits: &StealLimits) -> bool {
    let expected_ms = (task.bytes.saturating_mul(1_000))
        .checked_div(pace.median_rate)
        .unwrap_or(0);
    let patience_ms = limits.stuck_after_ms.max(expected_ms.saturating_mul(5));
    task.steals < STEALS_MAX && task.still_ms > patience_ms
}

fn is_slow(pace: &Pace, task: &HeldTask, limits: &StealLimits) -> bool {
    let patience_ms = limits.slow_after_ms.max(pace.median_ms.saturating_mul(2));
    let rate = task.progress_bytes.saturating_mul(1_000) / task.held_ms.max(1);
    task.steals == 0
        && task.others == Others::Alive
        && pace.done.saturating_mul(10) >= pace.tasks.saturating_mul(9)
        && task.held_ms > patience_ms
        && rate.saturating_mul(3) < pace.median_rate
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StealLimits = StealLimits {
        slow_after_ms: 20_000,
        stuck_after_ms: 60_000,
    };
    const MIB: u64 = 1 << 20;

    /// Ten tasks, nine of them done in 16 s at 4 MiB/s.
    fn pace() -> Pace {
        Pace {
            tasks: 10,
            done: 9,
            median_ms: 16_000,
            median_rate: 4 * MIB,
        }
    }

    /// The tenth, held for 40 s in which it has written at 1 MiB/s.
    fn slow() -> HeldTask {
        HeldTask {
            bytes: 64 * MIB,
            progress_bytes: 40 * MIB,
            held_ms: 40_000,
            still_ms: 0,
            steals: 0,
            others: Others::Alive,
        }
    }

    /// A task that has stood still for 81 s; by the median it takes 16 s.
    fn stuck() -> HeldTask {
        HeldTask {
            still_ms: 81_000,
            held_ms: 100_000,
            progress_bytes: 60 * MIB,
            ..slow()
        }
    }

    fn early() -> Pace {
        Pace { done: 1, ..pace() }
    }

    #[test]
    fn a_slow_task_is_stolen_when_the_job_waits_for_the_last_tenth() {
        assert_eq!(steal(&pace(), &slow(), &LIMITS), Some(Steal::Slow));
        let pace = Pace { done: 8, ..pace() };
        assert_eq!(steal(&pace, &slow(), &LIMITS), None);
    }

    #[test]
    fn a_task_is_slow_below_a_third_of_the_median_rate() {
        // 40 s at a third of 4 MiB/s.
        let third = 40 * 4 * MIB / 3;
        for (progress_bytes, expected) in [(third - MIB, Some(Steal::Slow)), (third + MIB, None)] {
            let task = HeldTask {
                progress_bytes,
                ..slow()
            };
            assert_eq!(steal(&pace(), &task, &LIMITS), expected);
        }
    }

    #[test]
    fn a_slow_task_keeps_its_worker_for_twice_the_median_time_and_the_limit() {
        let held = |held_ms| HeldTask {
            held_ms,
            progress_bytes: 0,
            ..slow()
        };
        assert_eq!(steal(&pace(), &held(32_000), &LIMITS), None);
        assert_eq!(steal(&pace(), &held(32_001), &LIMITS), Some(Steal::Slow));
        let quick = Pace {
            median_ms: 100,
            ..pace()
        };
        assert_eq!(steal(&quick, &held(20_000), &LIMITS), None);
        assert_eq!(steal(&quick, &held(20_001), &LIMITS), Some(Steal::Slow));
    }

    #[test]
    fn slowness_is_a_reason_only_once_and_only_with_another_worker() {
        let again = HeldTask {
            steals: 1,
            ..slow()
        };
        assert_eq!(steal(&pace(), &again, &LIMITS), None);
        let alone = HeldTask {
            others: Others::None,
            ..slow()
        };
        assert_eq!(steal(&pace(), &alone, &LIMITS), None);
    }

    #[test]
    fn a_task_that_stands_still_is_stolen_at_any_time_of_the_job() {
        assert_eq!(steal(&early(), &stuck(), &LIMITS), Some(Steal::Stuck));
        let alone = HeldTask {
            others: Others::None,
            ..stuck()
        };
        assert_eq!(steal(&early(), &alone, &LIMITS), Some(Steal::Stuck));
    }

    #[test]
    fn a_task_may_stand_still_for_five_times_its_expected_time_and_the_limit() {
        let still = |still_ms| HeldTask {
            still_ms,
            ..stuck()
        };
        assert_eq!(steal(&early(), &still(80_000), &LIMITS), None);
        // Nothing is known of the pace before the first task is done.
        let unknown = Pace {
            done: 0,
            median_ms: 0,
            median_rate: 0,
            ..pace()
        };
        assert_eq!(steal(&unknown, &still(60_000), &LIMITS), None);
        assert_eq!(steal(&unknown, &still(60_001), &LIMITS), Some(Steal::Stuck));
    }

    #[test]
    fn a_task_is_stolen_three_times_at_most() {
        let steals = |steals| HeldTask { steals, ..stuck() };
        assert_eq!(steal(&early(), &steals(2), &LIMITS), Some(Steal::Stuck));
        assert_eq!(steal(&pace(), &steals(3), &LIMITS), None);
    }

    #[test]
    fn the_limits_follow_the_lease() {
        assert_eq!(StealLimits::of_lease(30_000), LIMITS);
    }
}
