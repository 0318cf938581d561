//! The order of leasing across jobs: start-time fair queueing (Goyal, Vin and
//! Cheng, 1996) over flows.
//!
//! A flow is all the work of one tenant with one priority; its jobs follow each
//! other. Each task has a key, its start on the flow's own clock, and the least
//! key is leased first. The clock advances by a task's bytes over the flow's
//! weight, so flows that have work get bytes in proportion to their weights. A
//! flow that was idle begins where the others stand: it saves nothing up.

use crate::submission::Priority;

/// What a flow's share of the workers depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The tenant's weight, at least 1.
    pub tenant_weight: u32,
    /// The jobs' priority.
    pub priority: Priority,
}

/// Points of priority that double a share.
const POINTS_PER_DOUBLING: f64 = 10.0;

impl Share {
    /// weight · 2^((priority − 50) / 10).
    fn weight(self) -> f64 {
        let points = f64::from(self.priority.number()) - f64::from(Priority::default().number());
        f64::from(self.tenant_weight.max(1)) * (points / POINTS_PER_DOUBLING).exp2()
    }

    /// How far a task of so many bytes advances the flow's clock, at least 1.
    fn advance(self, bytes: u64) -> i64 {
        // A cast from floating point saturates.
        (bytes as f64 / self.weight()).ceil().max(1.0) as i64
    }
}

/// The keys of a new job's tasks, in order, and where the flow's next job may
/// begin. `virtual_time` is the least key that waits in any flow, and
/// `next_key` where this flow's last job ended.
pub fn sched_keys(
    share: Share,
    virtual_time: i64,
    next_key: i64,
    task_bytes: impl IntoIterator<Item = u64>,
) -> (Vec<i64>, i64) {
    let mut clock = virtual_time.max(next_key);
    let keys = task_bytes.into_iter().map(|bytes| {
        let key = clock;
        clock = clock.saturating_add(share.advance(bytes));
        key
    });
    (keys.collect(), clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn share(tenant_weight: u32, priority: u32) -> Share {
        Share {
            tenant_weight,
            priority: Priority::new(priority).unwrap(),
        }
    }

    /// Of the first `count` leases over flows that all begin at 0, how many
    /// each flow gets.
    fn leases(shares: &[Share], count: usize) -> Vec<usize> {
        let flows = shares.iter().enumerate().flat_map(|(flow, share)| {
            let (keys, _) = sched_keys(*share, 0, 0, vec![64 * MIB; count]);
            keys.into_iter().map(move |key| (key, flow))
        });
        let mut order: Vec<_> = flows.collect();
        order.sort_unstable();
        let mut given = vec![0; shares.len()];
        for (_, flow) in &order[..count] {
            given[*flow] += 1;
        }
        given
    }

    #[test]
    fn equal_flows_take_turns() {
        assert_eq!(leases(&[share(1, 50), share(1, 50)], 100), [50, 50]);
    }

    #[test]
    fn ten_points_of_priority_count_like_a_doubled_weight() {
        assert_eq!(leases(&[share(1, 60), share(1, 50)], 90), [60, 30]);
        assert_eq!(leases(&[share(2, 50), share(1, 50)], 90), [60, 30]);
        assert_eq!(leases(&[share(1, 40), share(1, 50)], 90), [30, 60]);
    }

    #[test]
    fn no_flow_with_work_starves() {
        let given = leases(&[share(1, 99), share(1, 0)], 2_000);
        assert!(given[1] > 0, "{given:?}");
    }

    #[test]
    fn a_flow_that_was_idle_begins_where_the_others_stand() {
        let (keys, _) = sched_keys(share(1, 50), 7_000, 300, [10, 10]);
        assert_eq!(keys, [7_000, 7_010]);
    }

    #[test]
    fn jobs_of_one_flow_follow_each_other() {
        let (first, next) = sched_keys(share(1, 50), 0, 0, [10, 20]);
        let (second, _) = sched_keys(share(1, 50), 0, next, [5]);
        assert_eq!((first, second), (vec![0, 10], vec![30]));
    }

    #[test]
    fn every_task_advances_the_clock_and_none_overflows_it() {
        let (keys, next) = sched_keys(share(u32::MAX, 99), 0, 0, [0, 1]);
        assert_eq!((keys, next), (vec![0, 1], 2));
        let (_, next) = sched_keys(share(1, 0), i64::MAX - 1, 0, [u64::MAX]);
        assert_eq!(next, i64::MAX);
    }
}
