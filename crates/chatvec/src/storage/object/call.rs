//! The one loop that sends every request.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::ObjectError;
use super::bucket::{Shared, Target};
use super::error::Again;
use crate::identity::jitter;

/// How often a request is sent that fails for a reason that may pass.
const TRIES_MAX: u32 = 5;

/// Whether a request whose fate is unknown is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is the same as once.
    Freely,
    /// Only where the store says that it did nothing. Of everything else the
    /// caller must find out what came of it.
    WhenRefused,
}

/// A request, before it is sent.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// What is done, as a verb and an object, for the log.
    pub(super) action: &'static str,
    /// To which object.
    pub(super) target: &'a Target,
    /// How often.
    pub(super) repeat: Repeat,
    /// After how long a try is given up.
    pub(super) time_max: Duration,
}

impl Shared {
    /// Sends a request until it is answered, or must not be sent again.
    ///
    /// `attempt` makes the request anew for each try; it runs on the I/O
    /// runtime, whichever thread waits for it. Dropping the call aborts it.
    pub(super) async fn call<T, F>(
        &self,
        call: Call<'_>,
        attempt: impl FnMut() -> F + Send,
    ) -> Result<T, ObjectError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ObjectError>> + Send + 'static,
    {
        let sent = self.call_while(call, || true, attempt).await?;
        Ok(sent.expect("nothing kept it from being sent"))
    }

    /// As [`Self::call`], and asks `may_start` right before each try. `None`
    /// where the answer was no.
    pub(super) async fn call_while<T, F>(
        &self,
        call: Call<'_>,
        may_start: impl Fn() -> bool + Send,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Result<Option<T>, ObjectError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ObjectError>> + Send + 'static,
    {
        let (mut failures, mut refusals) = (0, 0);
        let mut refused_since = None;
        let mut asked_for_credentials = false;
        loop {
            let place = self.limiter.place().await;
            if !may_start() {
                return Ok(None);
            }
            let error = match self.send(&call, attempt()).await {
                Ok(value) => return Ok(Some(value)),
                Err(error) => error,
            };
            let wait = match error.again() {
                Again::AfterThrottling => {
                    place.refused();
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > self.patience.throttling {
                        return Err(error);
                    }
                    refusals += 1;
                    self.backoff(refusals)
                }
                Again::AfterFailure
                    if call.repeat == Repeat::Freely && failures + 1 < TRIES_MAX =>
                {
                    failures += 1;
                    refused_since = None;
                    self.backoff(failures)
                }
                Again::WithFreshCredentials if !asked_for_credentials => {
                    asked_for_credentials = true;
                    match &self.forget_credentials {
                        Some(forget) => forget(),
                        None => return Err(error),
                    }
                    Duration::ZERO
                }
                _ => return Err(error),
            };
            drop(place);
            tracing::warn!(
                object.url = call.target.url,
                error = %error.failure().problem.message,
                retry.after_ms = wait.as_millis() as u64,
                "failed to {}, trying again", call.action
            );
            tokio::time::sleep(wait).await;
        }
    }

    async fn send<T: Send + 'static>(
        &self,
        call: &Call<'_>,
        attempt: impl Future<Output = Result<T, ObjectError>> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let time_max = call.time_max;
        let attempt = async move { tokio::time::timeout(time_max, attempt).await };
        let attempt = self.io.spawn(attempt.in_current_span());
        let transient = |says| ObjectError::Transient {
            url: call.target.url.clone(),
            says,
        };
        match AbortOnDropHandle::new(attempt).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(transient(format!(
                "no end after {} s",
                time_max.as_secs_f64()
            ))),
            Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
            Err(_) => Err(transient("the process is ending".to_owned())),
        }
    }

    /// Waits for the next piece of an answer, which must not stand still.
    pub(super) async fn unless_stalled<T>(
        &self,
        target: &Target,
        next: impl Future<Output = T>,
    ) -> Result<T, ObjectError> {
        let longest = self.patience.stall;
        let next = tokio::time::timeout(longest, next).await;
        next.map_err(|_| ObjectError::Transient {
            url: target.url.clone(),
            says: format!("no byte for {} s", longest.as_secs_f64()),
        })
    }

    fn backoff(&self, count: u32) -> Duration {
        self.patience.backoff(count).mul_f64(jitter())
    }
}
