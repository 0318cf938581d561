//! Takes back expired leases, and moves tasks away from stragglers.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chatvec_core::task::StealLimits;

use super::Resources;
use super::store::{Reaping, StoreError};

/// Since when the database has answered, again and again.
#[derive(Debug, Default)]
pub(super) struct Contact {
    seen: Mutex<Option<Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Instant,
    last: Instant,
}

impl Contact {
    /// The database has answered at this moment. Workers could not renew their leases
    /// while it was away, and get the time of a lease to do so before any is
    /// taken back.
    ///
    /// Nobody may have asked while it was away, so half a lease without an answer
    /// counts as an outage as well: leases outlive one that is shorter.
    fn answered(&self, last: Instant, lease: Duration) -> Reaping {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let unbroken = seen.filter(|seen| last - seen.last < lease / 2);
        let since = unbroken.map_or(last, |seen| seen.since);
        *seen = Some(Seen { since, last });
        match last - since < lease {
            true => Reaping::Grace,
            false => Reaping::Expired,
        }
    }

    fn lost(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One round.
pub(super) async fn take_back(resources: &Resources, contact: &Contact) -> Result<(), StoreError> {
    let outcome = round(resources, contact).await;
    if outcome.is_err() {
        contact.lost();
    }
    outcome
}

async fn round(resources: &Resources, contact: &Contact) -> Result<(), StoreError> {
    let (store, options) = (&resources.store, &resources.options);
    // The wait for a connection may have spanned an outage. So what the round
    // does is decided after an answer, not before.
    store.ping().await?;
    let reaping = contact.answered(Instant::now(), options.lease());
    let reaped = store.reap(reaping).await?;
    if reaped.expired > 0 {
        tracing::warn!(
            task.expired = reaped.expired,
            task.given_up = reaped.given_up,
            "leases expired"
        );
    }
    if reaping == Reaping::Expired {
        let limits = StealLimits::of_lease(u64::from(options.lease_duration_ms));
        for stolen in store.steal_stragglers(&limits).await? {
            tracing::warn!(
                job.id = %stolen.job,
                task.id = %stolen.task,
                worker.id = %stolen.worker,
                reason = stolen.reason.name(),
                "task taken from its worker"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    /// A reaper whose database answers every 5 s.
    struct Reaper {
        contact: Contact,
        now: Instant,
    }

    impl Reaper {
        fn new() -> Self {
            Self {
                contact: Contact::default(),
                now: Instant::now(),
            }
        }

        fn answered_after(&mut self, time: Duration) -> Reaping {
            self.now += time;
            self.contact.answered(self.now, LEASE)
        }

        /// What the last of these answers allowed.
        fn answers(&mut self, times: usize) -> Reaping {
            let each = std::iter::repeat_with(|| self.answered_after(Duration::from_secs(5)));
            each.take(times).last().expect("some")
        }
    }

    #[test]
    fn leases_are_taken_back_after_the_time_of_one() {
        let mut reaper = Reaper::new();
        assert_eq!(reaper.answers(6), Reaping::Grace);
        assert_eq!(reaper.answers(1), Reaping::Expired);
        assert_eq!(reaper.answers(60), Reaping::Expired);
    }

    #[test]
    fn a_failed_round_begins_the_grace_anew() {
        let mut reaper = Reaper::new();
        assert_eq!(reaper.answers(12), Reaping::Expired);
        reaper.contact.lost();
        assert_eq!(reaper.answers(6), Reaping::Grace);
        assert_eq!(reaper.answers(1), Reaping::Expired);
    }

    /// A round that asked before an outage and is answered after it has not
    /// failed.
    #[test]
    fn an_answer_after_an_outage_begins_the_grace_anew() {
        let mut reaper = Reaper::new();
        assert_eq!(reaper.answers(12), Reaping::Expired);
        assert_eq!(reaper.answered_after(LEASE / 2), Reaping::Grace);
        assert_eq!(reaper.answers(5), Reaping::Grace);
        assert_eq!(reaper.answers(1), Reaping::Expired);
    }

    #[test]
    fn a_slow_answer_is_no_outage() {
        let mut reaper = Reaper::new();
        assert_eq!(reaper.answers(12), Reaping::Expired);
        assert_eq!(reaper.answered_after(LEASE / 3), Reaping::Expired);
    }
}
