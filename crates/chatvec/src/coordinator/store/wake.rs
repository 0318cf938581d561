//! Wakes whoever waits for work or for news of a job, inside this process.
//!
//! A hint only: other processes raise nothing here, and a task whose back-off
//! ends wakes nobody. Waiters also poll.

use tokio::sync::watch;

use super::Store;

/// Two counters; a receiver notices any rise since it last looked, so a wake
/// between two waits is not lost.
#[derive(Debug, Default)]
pub(super) struct Wake {
    tasks_ready: watch::Sender<u64>,
    jobs_changed: watch::Sender<u64>,
}

impl Wake {
    /// Some task may have become READY.
    pub(super) fn tasks_ready(&self) {
        self.tasks_ready.send_modify(|count| *count += 1);
    }

    /// Some job changed its state, or all its tasks may be done.
    pub(super) fn jobs_changed(&self) {
        self.jobs_changed.send_modify(|count| *count += 1);
    }
}

impl Store {
    /// Changes when tasks may have become READY. The value means nothing.
    pub fn tasks_ready(&self) -> watch::Receiver<u64> {
        self.wake.tasks_ready.subscribe()
    }

    /// Changes when a job changed its state or a task of it was finished. The
    /// value means nothing.
    pub fn jobs_changed(&self) -> watch::Receiver<u64> {
        self.wake.jobs_changed.subscribe()
    }
}
