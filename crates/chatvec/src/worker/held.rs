//! The leases that this worker holds right now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chatvec_core::ids::{Fence, JobId, TaskOrdinal};
use chatvec_core::task::Lease;

use super::gate::LeaseGate;

/// One lease under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) lease: Lease,
    /// Says whether writes may still start.
    pub(super) gate: Arc<LeaseGate>,
    /// Bytes of output written so far.
    pub(super) progress: AtomicU64,
}

type Key = (JobId, TaskOrdinal, Fence);

/// Every lease under way; shared by the loop that acquires, the threads that
/// execute and the heartbeat.
#[derive(Debug, Default)]
pub(super) struct Held {
    running: Mutex<BTreeMap<Key, Arc<Running>>>,
}

impl Held {
    pub(super) fn begin(&self, lease: Lease, gate: LeaseGate) -> Arc<Running> {
        let running = Arc::new(Running {
            lease,
            gate: Arc::new(gate),
            progress: AtomicU64::new(0),
        });
        self.lock()
            .insert(key(&running.lease), Arc::clone(&running));
        running
    }

    pub(super) fn end(&self, lease: &Lease) {
        self.lock().remove(&key(lease));
    }

    pub(super) fn all(&self) -> Vec<Arc<Running>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Running>>> {
        self.running
            .lock()
            .expect("no thread panics while it holds the map")
    }
}

impl Running {
    pub(super) fn progress_bytes(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }
}

fn key(lease: &Lease) -> Key {
    (lease.job.clone(), lease.task, lease.fence)
}
