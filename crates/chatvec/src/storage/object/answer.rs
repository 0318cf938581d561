//! The store's own words, kept until they can be classified.
//!
//! `object_store` turns an answer that is not a success into text. Between it
//! and the socket stands [`Answers`], which turns such an answer into an
//! [`Answer`] first, and lets it travel up as the cause of an HTTP error. Two
//! kinds of answer that say 200 and are none are caught here too: an error in
//! the body of a completed upload, and a whole object for a part of it.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use reqwest::header::RANGE;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

/// An answer that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code} {message}")]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The store's code, such as `SlowDown`; empty where it gave none.
    pub(super) code: String,
    /// What the store says to people.
    pub(super) message: String,
    /// The region that the bucket is in, where the store tells.
    pub(super) region: Option<String>,
}

/// The code of an answer with the whole object where a range was asked for.
pub(super) const RANGE_IGNORED: &str = "RangeIgnored";

/// The longest message that is kept, in characters.
const MESSAGE_MAX: usize = 300;

impl Answer {
    fn of(status: StatusCode, body: &str, region: Option<String>) -> Self {
        let (code, message) = match quick_xml::de::from_str::<ErrorBody>(body) {
            Ok(error) => (error.code, error.message),
            // Google answers some requests in JSON, proxies in HTML.
            Err(_) => (String::new(), body.trim().to_owned()),
        };
        Self {
            status: status.as_u16(),
            code,
            message: message.chars().take(MESSAGE_MAX).collect(),
            region,
        }
    }
}

/// `<Error>` as S3, Google and Azure write it.
#[derive(Debug, Deserialize)]
#[serde(rename = "Error", rename_all = "PascalCase")]
struct ErrorBody {
    code: String,
    #[serde(default)]
    message: String,
}

/// A client whose unsuccessful answers are errors.
#[derive(Debug)]
struct Answers(HttpClient);

#[async_trait]
impl HttpService for Answers {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_ranged = request.headers().contains_key(RANGE);
        let completes = request.method() == Method::POST
            && (request.uri().query()).is_some_and(|query| query.contains("uploadId="));
        let response = self.0.execute(request).await?;
        let status = response.status();
        if is_ranged && status == StatusCode::OK {
            let answer = Answer {
                status: status.as_u16(),
                code: RANGE_IGNORED.to_owned(),
                message: "the whole object instead of a range of it".to_owned(),
                region: None,
            };
            return Err(as_error(answer));
        }
        if status.is_success() && !completes {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let region = parts.headers.get("x-amz-bucket-region");
        let region = region.and_then(|value| value.to_str().ok().map(str::to_owned));
        let body = body.bytes().await?;
        let text = String::from_utf8_lossy(&body);
        if status.is_success() && !text.contains("<Error") {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        Err(as_error(Answer::of(status, text.trim(), region)))
    }
}

fn as_error(answer: Answer) -> HttpError {
    // No kind that the library would repeat.
    HttpError::new(HttpErrorKind::Unknown, answer)
}

/// Makes the one client of a bucket, which the library and we share.
#[derive(Debug, Clone, Default)]
pub(super) struct Connector(Arc<OnceLock<HttpClient>>);

impl Connector {
    /// The client, once the library has connected.
    pub(super) fn client(&self) -> Option<HttpClient> {
        self.0.get().cloned()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        let client = HttpClient::new(Answers(client));
        Ok(self.0.get_or_init(|| client).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_message_are_read_from_the_stores_xml() {
        let body = r#"<?xml version="1.0" encoding="UTF-8"?>
            <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message>
            <RequestId>1</RequestId></Error>"#;
        let answer = Answer::of(StatusCode::SERVICE_UNAVAILABLE, body, None);
        assert_eq!((answer.status, answer.code.as_str()), (503, "SlowDown"));
        assert_eq!(answer.message, "Please reduce your request rate.");
    }

    #[test]
    fn an_answer_that_is_no_xml_is_kept_as_text() {
        let answer = Answer::of(StatusCode::BAD_GATEWAY, &"x".repeat(1_000), None);
        assert_eq!((answer.code.as_str(), answer.message.len()), ("", 300));
    }
}
