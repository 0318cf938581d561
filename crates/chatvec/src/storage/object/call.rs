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
/// How long a store may have no room before that is a failure.
const THROTTLED_MAX: Duration = Duration::from_secs(600);
/// First step and ceiling of the back-off, which is full jitter over `2ⁿ`.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a request may take besides its body, and the slowest body.
const TIME_FOR_ANSWER: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: u64 = 5_000_000;

/// How long a body may stand still, or the first byte of an answer to a read
/// may take.
const STALL_MAX: Duration = Duration::from_secs(20);

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

/// The time that a request with a body of so many bytes may take.
pub(super) fn time_for(bytes: u64) -> Duration {
    TIME_FOR_ANSWER + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
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
                    if since.elapsed() > THROTTLED_MAX {
                        return Err(error);
                    }
                    refusals += 1;
                    backoff(refusals)
                }
                Again::AfterFailure
                    if call.repeat == Repeat::Freely && failures + 1 < TRIES_MAX =>
                {
                    failures += 1;
                    refused_since = None;
                    backoff(failures)
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
            Ok(Err(_)) => Err(transient(format!("no end after {} s", time_max.as_secs()))),
            Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
            Err(_) => Err(transient("the process is ending".to_owned())),
        }
    }
}

/// Waits for the next piece of an answer, which must not stand still.
pub(super) async fn unless_stalled<T>(
    target: &Target,
    next: impl Future<Output = T>,
) -> Result<T, ObjectError> {
    let next = tokio::time::timeout(STALL_MAX, next).await;
    next.map_err(|_| ObjectError::Transient {
        url: target.url.clone(),
        says: format!("no byte for {} s", STALL_MAX.as_secs()),
    })
}

fn backoff(count: u32) -> Duration {
    let ceiling = BACKOFF_FIRST.saturating_mul(1 << count.min(16));
    ceiling.min(BACKOFF_MAX).mul_f64(jitter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_have_more_time() {
        assert_eq!(time_for(0), Duration::from_secs(30));
        assert_eq!(time_for(64 << 20), Duration::from_secs(43));
    }

    #[test]
    fn the_back_off_grows_to_its_ceiling() {
        assert!(backoff(1) <= Duration::from_millis(400));
        assert!((0..100).all(|count| backoff(count) <= BACKOFF_MAX));
    }
}
