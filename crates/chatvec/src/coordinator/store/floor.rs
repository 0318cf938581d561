//! Where a claim begins to look for tasks.
//!
//! An index keeps every task that was ever READY for as long as any transaction
//! of the database is open, and a claim that begins at its end passes over them
//! all. So a claim begins at the first task that was READY after the last claim
//! of this process. What has become READY before that place is found because a
//! wake-up tells of it, because a claim that finds too little looks everywhere,
//! and, where neither comes, because now and then a claim looks everywhere
//! anyway.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long claims may pass over a task that nobody told of, at least.
const REST_MIN: Duration = Duration::from_millis(250);
/// After a look everywhere that took long, claims rest from it this much longer.
const REST_FACTOR: u32 = 10;

/// The place, which is forgotten often. A hint: nothing is lost with it.
#[derive(Debug, Default)]
pub(super) struct Floor {
    known: Mutex<Option<Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    key: i64,
    /// The count of wake-ups when it was found.
    wake: u64,
    until: Instant,
}

/// One claim's view of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// The least `sched_key` to look at.
    pub(super) from: i64,
    wake: u64,
    begun: Instant,
}

impl Search {
    /// Looks everywhere from now on.
    pub(super) fn widen(&mut self) {
        self.from = i64::MIN;
        self.begun = Instant::now();
    }

    pub(super) fn is_wide(&self) -> bool {
        self.from == i64::MIN
    }
}

impl Floor {
    /// Where a claim begins that starts now, after so many wake-ups.
    pub(super) fn search(&self, wake: u64) -> Search {
        let begun = Instant::now();
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.filter(|known| known.wake == wake && begun < known.until);
        Search {
            from: known.map_or(i64::MIN, |known| known.key),
            wake,
            begun,
        }
    }

    /// After a claim, this was the least key of a READY task from where it looked.
    pub(super) fn found(&self, search: &Search, key: i64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if search.is_wide() {
            let took = search.begun.elapsed();
            *known = Some(Known {
                key,
                wake: search.wake,
                until: search.begun + REST_MIN.max(took * REST_FACTOR),
            });
        } else if let Some(known) = known.as_mut().filter(|known| known.wake == search.wake) {
            known.key = known.key.max(key);
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_claim_begins_at_the_first_task_that_the_last_one_left() {
        let floor = Floor::default();
        let first = floor.search(1);
        assert!(first.is_wide());
        floor.found(&first, 10);
        let second = floor.search(1);
        assert_eq!(second.from, 10);
        floor.found(&second, 20);
        // One that began earlier and ends later does not take it back.
        floor.found(&second, 15);
        assert_eq!(floor.search(1).from, 20);
    }

    #[test]
    fn a_wake_up_or_a_while_makes_claims_look_everywhere() {
        let floor = Floor::default();
        floor.found(&floor.search(1), 10);
        assert!(floor.search(2).is_wide());
        let old = Search {
            begun: Instant::now() - REST_MIN * 2,
            ..floor.search(2)
        };
        floor.found(&old, 10);
        // Its rest is counted from when it began, and is as long as it took.
        assert!(!floor.search(2).is_wide());
        *floor.known.lock().unwrap() = Some(Known {
            key: 10,
            wake: 2,
            until: Instant::now(),
        });
        assert!(floor.search(2).is_wide());
    }

    #[test]
    fn what_was_found_before_a_wake_up_is_no_place_to_begin_after_it() {
        let floor = Floor::default();
        floor.found(&floor.search(1), 10);
        let before = floor.search(1);
        floor.found(&floor.search(2), 5);
        floor.found(&before, 30);
        assert_eq!(floor.search(2).from, 5);
    }
}
