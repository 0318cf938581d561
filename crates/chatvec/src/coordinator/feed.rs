//! Jobs that clients watch: however many watch one job, one task looks at the
//! store for them all.
//!
//! A watcher holds no task and no queue. It is a stream that is asked for its
//! next message when the connection has room, and gives the job as it stands
//! then: a slow client misses what is over and keeps nothing waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chatvec_core::ids::JobId;
use chatvec_proto::convert::{JobView, ProgressView};
use chatvec_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::detached::detached;
use super::store::{JobRow, Store, StoreError};
use super::view::view_of;
use crate::identity;

/// Watchers are told of progress at most this often; of changes of state at once.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
/// Between two looks at the store for one job, at least: many tasks may end at once.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// How long a stream lasts, at most; its end spreads over the last quarter.
/// Clients connect again, and so find their way to a coordinator that is new.
const STREAM_AGE_MAX: Duration = Duration::from_secs(600);

/// The jobs that somebody watches.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    store: Store,
    /// Cancelled when the coordinator stops: streams end.
    stopping: CancellationToken,
    /// One entry for each job that is looked at. Whoever finds one follows it;
    /// who finds none begins to look.
    feeds: Arc<Mutex<HashMap<JobId, Feed>>>,
}

/// What all watchers of a job see; `None` before the first look.
type Feed = watch::Sender<Option<Result<News, Status>>>;

/// A job as it stands.
#[derive(Debug, Clone)]
struct News {
    job: Arc<v1::Job>,
    is_end: bool,
}

impl Watched {
    pub(super) fn new(store: Store, stopping: CancellationToken) -> Self {
        Self {
            store,
            stopping,
            feeds: Arc::default(),
        }
    }

    /// The job now, unless its revision is still `after_revision`, then at each
    /// change until it ends, the coordinator stops or the stream is old.
    ///
    /// # Errors
    /// If there is no such job, or the store cannot be used.
    pub(super) async fn stream(
        &self,
        job: &JobId,
        after_revision: u64,
    ) -> Result<impl Stream<Item = Result<v1::WatchJobResponse, Status>> + use<>, Status> {
        let mut feed = self.follow(job);
        let first = feed.wait_for(Option::is_some).await.ok();
        let first = first.and_then(|news| news.clone());
        match first {
            // An unknown job is an error of the call, not of the stream.
            Some(Err(refused)) => return Err(refused),
            Some(Ok(news)) if news.job.revision == after_revision && !news.is_end => {}
            // What is there counts as unseen. A feed that is closed ends the stream.
            _ => feed.mark_changed(),
        }
        let age = STREAM_AGE_MAX.mul_f64(1.0 - identity::jitter() / 4.0);
        let watcher = Watcher {
            feed,
            stopping: self.stopping.clone(),
            until: Instant::now() + age,
            is_over: false,
        };
        Ok(futures_util::stream::unfold(watcher, Watcher::next))
    }

    /// Follows whoever looks at the job already, or begins to look.
    fn follow(&self, job: &JobId) -> watch::Receiver<Option<Result<News, Status>>> {
        let mut feeds = self.feeds.lock().expect("no holder panics");
        if let Some(feed) = feeds.get(job) {
            return feed.subscribe();
        }
        let (feed, follower) = watch::channel(None);
        feeds.insert(job.clone(), feed.clone());
        tokio::spawn(self.clone().look_after(job.clone(), feed));
        follower
    }

    /// Looks at a job until it ends, nobody watches any more, or the store
    /// cannot be used: then the watchers are told, and come again.
    async fn look_after(self, job: JobId, feed: Feed) {
        let mut changed = self.store.jobs_changed();
        let mut told = None;
        loop {
            changed.borrow_and_update();
            match self.look(&job, told.as_ref()).await {
                Ok(None) => {}
                Ok(Some(view)) => {
                    told = Some(Told::now(&view));
                    let is_end = view.state.is_terminal();
                    let job = Arc::new(view.into());
                    feed.send_replace(Some(Ok(News { job, is_end })));
                    if is_end {
                        break;
                    }
                }
                Err(refused) => {
                    feed.send_replace(Some(Err(refused)));
                    break;
                }
            }
            tokio::select! {
                () = feed.closed() => if self.forget_unwatched(&job, &feed) { return },
                () = self.stopping.cancelled() => break,
                () = tokio::time::sleep(PROGRESS_PERIOD) => continue,
                _ = changed.changed() => {}
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
        self.feeds.lock().expect("no holder panics").remove(&job);
    }

    /// The job if there is news of it: a change of state at once, progress not
    /// too often, and the first progress after a quiet time at once.
    async fn look(&self, job: &JobId, told: Option<&Told>) -> Result<Option<JobView>, Status> {
        let (store, job) = (self.store.clone(), job.clone());
        let known = told.map(|told| (told.revision, told.at.elapsed() < PROGRESS_PERIOD));
        let view = detached(async move {
            let row = store.job(&job).await?;
            let row: JobRow = row.ok_or(StoreError::JobNotFound(job))?;
            match known {
                Some((revision, true)) if revision == row.revision => Ok(None),
                _ => view_of(&store, row).await.map(Some),
            }
        })
        .await?;
        Ok(view.filter(|view| told.is_none_or(|told| told.is_outdated_by(view))))
    }

    /// Ends a feed that nobody follows. A follower may have come just now.
    fn forget_unwatched(&self, job: &JobId, feed: &Feed) -> bool {
        let mut feeds = self.feeds.lock().expect("no holder panics");
        let is_unwatched = feed.receiver_count() == 0;
        if is_unwatched {
            feeds.remove(job);
        }
        is_unwatched
    }
}

/// What the watchers of a job were told last.
struct Told {
    revision: u64,
    progress: ProgressView,
    conditions: usize,
    at: Instant,
}

impl Told {
    fn now(view: &JobView) -> Self {
        Self {
            revision: view.revision,
            progress: view.progress.clone(),
            conditions: view.conditions.len(),
            at: Instant::now(),
        }
    }

    fn is_outdated_by(&self, view: &JobView) -> bool {
        self.revision != view.revision
            || self.progress != view.progress
            || self.conditions != view.conditions.len()
    }
}

/// One client's stream.
struct Watcher {
    feed: watch::Receiver<Option<Result<News, Status>>>,
    stopping: CancellationToken,
    until: Instant,
    is_over: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<v1::WatchJobResponse, Status>, Self)> {
        if self.is_over {
            return None;
        }
        tokio::select! {
            // The end of a job goes before the end of the coordinator.
            biased;
            changed = self.feed.changed() => changed.ok()?,
            () = self.stopping.cancelled() => return None,
            () = tokio::time::sleep_until(self.until) => return None,
        }
        let news = self.feed.borrow_and_update().clone()?;
        let message = match news {
            Ok(news) => {
                self.is_over = news.is_end;
                let job = Some(v1::Job::clone(&news.job));
                Ok(v1::WatchJobResponse { job })
            }
            Err(refused) => {
                self.is_over = true;
                Err(refused)
            }
        };
        Some((message, self))
    }
}
