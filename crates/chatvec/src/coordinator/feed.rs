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
use chatvec_proto::status::Reason;
use chatvec_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::detached::Turns;
use super::store::{JobRow, Store, StoreError};
use super::view::view_of;
use crate::identity;

/// Watchers are told of progress at most this often; of changes of state at once.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
/// Between the beginnings of two looks at the store for one job, at least: many
/// tasks may end at once.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// How long a stream lasts, at most; its end spreads over the last quarter.
/// Clients connect again, and so find their way to a coordinator that is new.
const STREAM_AGE_MAX: Duration = Duration::from_secs(600);

/// The jobs that somebody watches.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    store: Store,
    turns: Turns,
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
    pub(super) fn new(store: Store, turns: Turns, stopping: CancellationToken) -> Self {
        Self {
            store,
            turns,
            stopping,
            feeds: Arc::default(),
        }
    }

    /// The job now, unless its revision is still `after_revision`, then at each
    /// change until it ends, the coordinator stops, the stream is old or the
    /// client's deadline has passed.
    ///
    /// # Errors
    /// If there is no such job, or the store cannot be used.
    pub(super) async fn stream(
        &self,
        job: &JobId,
        after_revision: u64,
        deadline: Option<Instant>,
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
        let old = Instant::now() + STREAM_AGE_MAX.mul_f64(1.0 - identity::jitter() / 4.0);
        let watcher = Watcher {
            feed,
            stopping: self.stopping.clone(),
            end: match deadline {
                Some(deadline) if deadline < old => End::Deadline(deadline),
                _ => End::Age(old),
            },
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
            let next = Instant::now() + LOOK_PERIOD;
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
            tokio::time::sleep_until(next).await;
        }
        self.feeds.lock().expect("no holder panics").remove(&job);
    }

    /// The job if there is news of it: a change of state at once, progress not
    /// too often, and the first progress after a quiet time at once.
    async fn look(&self, job: &JobId, told: Option<&Told>) -> Result<Option<JobView>, Status> {
        let (store, job) = (self.store.clone(), job.clone());
        let known = told.map(|told| (told.revision, told.at.elapsed() < PROGRESS_PERIOD));
        let look = async move {
            let row = store.job(&job).await?;
            let row: JobRow = row.ok_or(StoreError::JobNotFound(job))?;
            match known {
                Some((revision, true)) if revision == row.revision => Ok(None),
                _ => view_of(&store, row).await.map(Some),
            }
        };
        let view = self.turns.detached(look).await?;
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
    end: End,
    is_over: bool,
}

/// When a stream ends at the latest, and why.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It is old: the client comes again.
    Age(Instant),
    /// The client waits no longer.
    Deadline(Instant),
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<v1::WatchJobResponse, Status>, Self)> {
        if self.is_over {
            return None;
        }
        let (End::Age(end) | End::Deadline(end)) = self.end;
        tokio::select! {
            // The end of a job goes before the end of the coordinator.
            biased;
            changed = self.feed.changed() => changed.ok()?,
            () = self.stopping.cancelled() => return None,
            () = tokio::time::sleep_until(end) => {
                let End::Deadline(_) = self.end else { return None };
                self.is_over = true;
                let late = Reason::DeadlineExceeded.status("the deadline of the watch has passed");
                return Some((Err(late), self));
            }
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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio_stream::StreamExt as _;

    use super::super::store::NewJob;
    use super::*;

    /// A store with a job that nobody plans.
    async fn store(folder: &std::path::Path) -> (Store, JobId) {
        let store = Store::open_sqlite(&folder.join("jobs.db")).await.unwrap();
        let recipe = serde_json::json!({
            "cp": "/cp",
            "vectors": [{ "chat": "/chat", "base": "/base", "lambda": 1 }],
            "output": { "url": "/out" },
        });
        let new = NewJob {
            job_id: identity::job_id(),
            request_id: identity::request_id(),
            tenant: chatvec_core::submission::Tenant::default(),
            priority: chatvec_core::submission::Priority::default(),
            labels: chatvec_core::submission::Labels::default(),
            recipe_json: recipe.to_string(),
            recipe_digest: chatvec_core::ids::Digest("digest".to_owned()),
            output_url: "/out".to_owned(),
            output_key: "/out".to_owned(),
            traceparent: None,
        };
        let (row, _) = store.create_job(&new).await.unwrap();
        (store, row.job_id)
    }

    fn watched(store: &Store) -> Watched {
        let turns = Turns::new(1).patient();
        Watched::new(store.clone(), turns, CancellationToken::new())
    }

    #[tokio::test]
    async fn many_watchers_are_one_look_and_the_last_to_leave_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let (store, job) = store(folder.path()).await;
        let watched = watched(&store);
        let mut streams = Vec::new();
        for _ in 0..100 {
            let stream = watched.stream(&job, 0, None).await.unwrap();
            let mut stream = Box::pin(stream);
            let first = stream.next().await.unwrap().unwrap();
            assert_eq!(first.job.unwrap().job_id, job.0);
            streams.push(stream);
        }
        let feed = {
            let feeds = watched.feeds.lock().unwrap();
            assert_eq!(feeds.len(), 1);
            feeds[&job].clone()
        };
        assert_eq!(feed.receiver_count(), 100);
        drop(streams);
        feed.closed().await;
        while !watched.feeds.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_watch_ends_at_its_deadline_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (store, job) = store(folder.path()).await;
        let deadline = Instant::now() + Duration::from_millis(50);
        let watched = watched(&store);
        let stream = watched.stream(&job, 0, Some(deadline)).await.unwrap();
        let mut stream = pin!(stream);
        stream.next().await.unwrap().unwrap();
        let late = stream.next().await.unwrap().unwrap_err();
        assert_eq!(Reason::of(&late), Some(Reason::DeadlineExceeded));
        assert!(Instant::now() >= deadline);
        assert!(stream.next().await.is_none());
    }
}
