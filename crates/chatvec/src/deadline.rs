//! The deadline that a client gave its call, kept by the server.
//!
//! The transport keeps it as well, but answers CANCELLED, which tells a client
//! that somebody gave the call up. A stream that has begun to answer ends itself.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use chatvec_proto::status::Reason;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::Service;

/// The header, see the protocol of gRPC over HTTP/2: up to eight digits and a
/// unit.
const HEADER: &str = "grpc-timeout";

/// When the call is over for the client, counted from now; `None` where it set
/// no deadline, or one that cannot be read.
pub(crate) fn of(headers: &HeaderMap) -> Option<Instant> {
    let timeout = timeout(headers.get(HEADER)?.to_str().ok()?)?;
    Instant::now().checked_add(timeout)
}

/// A service that drops the calls whose deadline has passed, and says so.
#[derive(Debug, Clone)]
pub(crate) struct WithDeadlines<S> {
    inner: S,
}

impl<S> WithDeadlines<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for WithDeadlines<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let deadline = of(request.headers());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Some(deadline) = deadline else {
                return answer.await;
            };
            timeout_at(deadline, answer).await.unwrap_or_else(|_late| {
                let late = Reason::DeadlineExceeded.status("the call's deadline has passed");
                Ok(late.into_http())
            })
        })
    }
}

fn timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("10S", Duration::from_secs(10)),
            ("250m", Duration::from_millis(250)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(timeout(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "S",
            "10",
            "10s",
            "-1S",
            "+1S",
            "1.5S",
            "999999999S",
            "1ü",
        ] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline_and_its_work_is_dropped() {
        let (working, dropped) = tokio::sync::oneshot::channel::<()>();
        let mut working = Some(working);
        let mut service = WithDeadlines::new(tower::service_fn(move |_: Request<()>| {
            let working = working.take();
            async move {
                let _working = working;
                std::future::pending::<Result<Response<Body>, Infallible>>().await
            }
        }));
        let request = Request::builder().header(HEADER, "20m").body(()).unwrap();
        let answer = service.call(request).await.unwrap();
        let status = tonic::Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(Reason::of(&status), Some(Reason::DeadlineExceeded));
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        dropped.await.unwrap_err();
    }
}
