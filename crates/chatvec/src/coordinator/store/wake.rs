//! Wakes whoever waits for work or for news of a job: in this process, and, on
//! Postgres, in every other one.
//!
//! A hint only: a signal can be lost, and a task whose back-off ends wakes
//! nobody. Waiters also poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::Store;
use super::in_time::in_time;
use crate::identity;

/// Between two signals of one kind from one process: many tasks may end at once.
const SIGNAL_PERIOD: Duration = Duration::from_millis(20);
/// A listener that heard nothing for so long looks whether it is still heard.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long it waits for an answer, and before it tries to connect again.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What processes tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    /// Some task may have become READY.
    TasksReady,
    /// Some job changed its state, or all its tasks may be done.
    JobsChanged,
}

impl Topic {
    const ALL: [Self; 2] = [Self::TasksReady, Self::JobsChanged];

    /// The name of its channel.
    fn channel(self) -> &'static str {
        match self {
            Self::TasksReady => "chatvec_tasks_ready",
            Self::JobsChanged => "chatvec_jobs_changed",
        }
    }
}

/// Two counters; a receiver notices any rise since it last looked, so a wake
/// between two waits is not lost.
#[derive(Debug, Default)]
struct Counters {
    tasks_ready: watch::Sender<u64>,
    jobs_changed: watch::Sender<u64>,
}

impl Counters {
    fn raise(&self, topic: Topic) {
        let counter = match topic {
            Topic::TasksReady => &self.tasks_ready,
            Topic::JobsChanged => &self.jobs_changed,
        };
        counter.send_modify(|count| *count += 1);
    }
}

/// The wake-ups of one store.
#[derive(Debug, Default)]
pub(super) struct Wake {
    counters: Arc<Counters>,
    others: Option<Others>,
}

/// The way to the other processes.
#[derive(Debug)]
struct Others {
    outbox: Arc<Outbox>,
    tasks: [AbortHandle; 2],
}

/// What is to be told; telling it takes a while, and once is enough.
#[derive(Debug, Default)]
struct Outbox {
    waiting: [AtomicBool; 2],
    filled: Notify,
}

impl Wake {
    /// Wakes the other processes on the same database as well. Within a runtime.
    pub(super) fn across_processes(signals: PgPool) -> Self {
        let counters = Arc::<Counters>::default();
        let outbox = Arc::<Outbox>::default();
        // By which a process knows its own signals.
        let sender = identity::worker_id().0;
        let tell = tell(signals.clone(), Arc::clone(&outbox), sender.clone());
        let listen = listen(signals, Arc::clone(&counters), sender);
        let tasks = [
            tokio::spawn(tell).abort_handle(),
            tokio::spawn(listen).abort_handle(),
        ];
        Self {
            counters,
            others: Some(Others { outbox, tasks }),
        }
    }

    /// Some task may have become READY.
    pub(super) fn tasks_ready(&self) {
        self.raise(Topic::TasksReady);
    }

    /// Some job changed its state, or all its tasks may be done.
    pub(super) fn jobs_changed(&self) {
        self.raise(Topic::JobsChanged);
    }

    fn raise(&self, topic: Topic) {
        self.counters.raise(topic);
        if let Some(others) = &self.others {
            others.outbox.waiting[topic as usize].store(true, Ordering::Release);
            others.outbox.filled.notify_one();
        }
    }

    /// Ends the talk with other processes.
    pub(super) fn close(&self) {
        for task in self.others.iter().flat_map(|others| &others.tasks) {
            task.abort();
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store {
    /// Changes when tasks may have become READY. The value means nothing.
    pub fn tasks_ready(&self) -> watch::Receiver<u64> {
        self.wake.counters.tasks_ready.subscribe()
    }

    /// Changes when a job changed its state or a task of it was finished. The
    /// value means nothing.
    pub fn jobs_changed(&self) -> watch::Receiver<u64> {
        self.wake.counters.jobs_changed.subscribe()
    }
}

const TELL: &str = "-- tell
    SELECT pg_notify($1, $2)";

const STILL_HEARD: &str = "-- still_heard
    SELECT 1";

/// Sends what is in the outbox, apart from every transaction: a signal inside
/// of one would make all commits wait for each other.
async fn tell(signals: PgPool, outbox: Arc<Outbox>, sender: String) {
    loop {
        outbox.filled.notified().await;
        for topic in Topic::ALL {
            if !outbox.waiting[topic as usize].swap(false, Ordering::AcqRel) {
                continue;
            }
            let told = sqlx::query(TELL)
                .bind(topic.channel())
                .bind(&sender)
                .execute(&signals);
            if let Err(error) = in_time(told).await {
                tracing::debug!(%error, "other coordinators could not be woken, they will look by themselves");
            }
        }
        tokio::time::sleep(SIGNAL_PERIOD).await;
    }
}

/// Hears the other processes, and connects again whenever the connection breaks.
async fn listen(signals: PgPool, counters: Arc<Counters>, own: String) {
    loop {
        if let Err(error) = listen_once(&signals, &counters, &own).await {
            tracing::debug!(%error, "wake-ups of other coordinators cannot be heard just now");
        }
        tokio::time::sleep(ANSWER_MAX.mul_f64(0.5 + identity::jitter() / 2.0)).await;
    }
}

async fn listen_once(signals: &PgPool, counters: &Counters, own: &str) -> Result<(), sqlx::Error> {
    let mut listener = in_time(PgListener::connect_with(signals)).await?;
    in_time(listener.listen_all(Topic::ALL.map(Topic::channel))).await?;
    // Whatever was said before is news.
    Topic::ALL
        .into_iter()
        .for_each(|topic| counters.raise(topic));
    loop {
        match tokio::time::timeout(SILENCE_MAX, listener.try_recv()).await {
            Ok(Ok(Some(signal))) if signal.payload() == own => {}
            Ok(Ok(Some(signal))) => Topic::ALL
                .into_iter()
                .filter(|topic| topic.channel() == signal.channel())
                .for_each(|topic| counters.raise(topic)),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_silence) => {
                let answer = sqlx::query(STILL_HEARD).execute(&mut listener);
                if tokio::time::timeout(ANSWER_MAX, answer).await.is_err() {
                    return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }
}
