//! Whether a lease may still start a write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use super::failure::Stop;
use crate::fault::{self, Mutant};

/// Milliseconds since boot, time asleep included: a suspended machine must not
/// believe in a lease that ran out meanwhile.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let millis = Duration::new(
        now.tv_sec.cast_unsigned(),
        u32::try_from(now.tv_nsec).expect("nanoseconds of a time are below 10⁹"),
    )
    .as_millis();
    u64::try_from(millis).expect("no machine is up for 500 million years")
}

/// Says whether one lease may still start a write. The heartbeat moves it, the
/// task's thread asks it before each write.
///
/// Writes may start until two thirds of the lease have passed since the request
/// that got or renewed it was *sent*. The rest of the lease is for the write
/// that is under way: it ends before another worker can hold the task.
#[derive(Debug)]
pub struct LeaseGate {
    deadline_ms: AtomicU64,
    lost: AtomicBool,
    cancelled: AtomicBool,
    draining: AtomicBool,
    given_up: AtomicBool,
    /// Cancelled when somebody closes the gate, for whoever waits for the network.
    closed: CancellationToken,
    #[cfg(test)]
    probe: Option<probe::Probe>,
}

impl LeaseGate {
    /// The gate of a lease that was asked for at `sent_at_ms`, a reading of
    /// [`boottime_ms`], and given for `lease`.
    pub fn new(sent_at_ms: u64, lease: Duration) -> Self {
        Self {
            deadline_ms: AtomicU64::new(deadline_ms(sent_at_ms, lease)),
            lost: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            closed: CancellationToken::new(),
            #[cfg(test)]
            probe: None,
        }
    }

    /// A good heartbeat, sent at `sent_at_ms`, renewed the lease for `lease`.
    /// Answers that come in the wrong order never shorten it.
    pub fn extend(&self, sent_at_ms: u64, lease: Duration) {
        self.deadline_ms
            .fetch_max(deadline_ms(sent_at_ms, lease), Ordering::AcqRel);
    }

    /// Another worker may hold the task. Nothing opens the gate again.
    pub fn set_lost(&self) {
        self.lost.store(true, Ordering::Release);
        self.closed.cancel();
    }

    /// The job is not wanted any more.
    pub fn set_cancelled(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.closed.cancel();
    }

    /// This worker stops: no further part is begun.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// This worker stops, and cannot wait for the part under way.
    pub fn set_given_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.closed.cancel();
    }

    /// Returns when somebody has closed the gate. A lease that runs out does
    /// not: whatever it was waited for may still be worth something once it is
    /// renewed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Asked before each part.
    ///
    /// # Errors
    /// [`Stop::Drained`] as soon as the worker stops.
    pub fn may_begin_part(&self) -> Result<(), Stop> {
        match self.draining.load(Ordering::Acquire) {
            true => Err(Stop::Drained),
            false => Ok(()),
        }
    }

    /// Asked before each write.
    ///
    /// # Errors
    /// [`Stop::LeaseLost`] also if the lease has not been renewed in time.
    pub fn may_write(&self) -> Result<(), Stop> {
        #[cfg(test)]
        if let Some(probe) = &self.probe {
            probe.call(self);
        }
        self.may_write_at(boottime_ms())
    }

    fn may_write_at(&self, now_ms: u64) -> Result<(), Stop> {
        let is_late = now_ms >= self.deadline_ms.load(Ordering::Acquire)
            && !fault::is_planted(Mutant::NoSelfFence);
        if is_late || self.lost.load(Ordering::Acquire) {
            Err(Stop::LeaseLost)
        } else if self.cancelled.load(Ordering::Acquire) {
            Err(Stop::Cancelled)
        } else if self.given_up.load(Ordering::Acquire) {
            Err(Stop::Drained)
        } else {
            Ok(())
        }
    }
}

fn deadline_ms(sent_at_ms: u64, lease: Duration) -> u64 {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    // Divided first: the longest lease must not overflow.
    sent_at_ms.saturating_add(lease_ms / 3 * 2)
}

/// Lets a test act at an exact point of a task.
#[cfg(test)]
pub(crate) mod probe {
    use super::*;

    type Act = Box<dyn Fn(u64, &LeaseGate) + Send + Sync>;

    pub(crate) struct Probe {
        calls: AtomicU64,
        act: Act,
    }

    impl Probe {
        pub(super) fn call(&self, gate: &LeaseGate) {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            (self.act)(call, gate);
        }
    }

    impl std::fmt::Debug for Probe {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Probe").finish_non_exhaustive()
        }
    }

    impl LeaseGate {
        /// An open gate that calls `act` each time before it answers, with the
        /// number of times it has been asked before.
        pub(crate) fn probed(act: impl Fn(u64, &LeaseGate) + Send + Sync + 'static) -> Self {
            let mut gate = Self::new(boottime_ms(), Duration::MAX);
            gate.probe = Some(Probe {
                calls: AtomicU64::new(0),
                act: Box::new(act),
            });
            gate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    #[test]
    fn writes_start_until_two_thirds_of_the_lease_have_passed() {
        let gate = LeaseGate::new(1_000, LEASE);
        assert_eq!(gate.may_write_at(20_999), Ok(()));
        assert_eq!(gate.may_write_at(21_000), Err(Stop::LeaseLost));
    }

    #[test]
    fn a_heartbeat_extends_and_an_older_one_does_not_shorten() {
        let gate = LeaseGate::new(1_000, LEASE);
        gate.extend(11_000, LEASE);
        gate.extend(5_000, LEASE);
        assert_eq!(gate.may_write_at(30_999), Ok(()));
        assert_eq!(gate.may_write_at(31_000), Err(Stop::LeaseLost));
    }

    #[test]
    fn a_lost_lease_stays_lost_whatever_the_heartbeat_says() {
        let gate = LeaseGate::new(1_000, LEASE);
        gate.set_lost();
        gate.extend(2_000, LEASE);
        assert_eq!(gate.may_write_at(2_000), Err(Stop::LeaseLost));
    }

    #[test]
    fn a_drain_lets_the_part_under_way_be_written_and_none_begin() {
        let gate = LeaseGate::new(boottime_ms(), LEASE);
        assert_eq!(gate.may_begin_part(), Ok(()));
        gate.set_draining();
        assert_eq!(gate.may_write(), Ok(()));
        assert_eq!(gate.may_begin_part(), Err(Stop::Drained));
        assert!(!gate.closed.is_cancelled());
    }

    #[test]
    fn whoever_closes_the_gate_wakes_those_who_wait() {
        for close in [
            LeaseGate::set_lost,
            LeaseGate::set_cancelled,
            LeaseGate::set_given_up,
        ] {
            let gate = LeaseGate::new(1_000, LEASE);
            close(&gate);
            assert!(gate.closed.is_cancelled());
        }
    }

    #[test]
    fn cancel_and_giving_up_close_the_gate_and_loss_is_told_first() {
        let gate = LeaseGate::new(1_000, LEASE);
        gate.set_given_up();
        assert_eq!(gate.may_write_at(1_000), Err(Stop::Drained));
        gate.set_cancelled();
        assert_eq!(gate.may_write_at(1_000), Err(Stop::Cancelled));
        gate.set_lost();
        assert_eq!(gate.may_write_at(1_000), Err(Stop::LeaseLost));
    }

    #[test]
    fn the_longest_lease_does_not_overflow() {
        let gate = LeaseGate::new(boottime_ms(), Duration::MAX);
        assert_eq!(gate.may_write(), Ok(()));
    }
}
