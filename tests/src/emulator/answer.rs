//! Answers, and how their bodies go wrong on the way.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::content::Content;
use super::fault::{Action, Rule};
use super::history::Log;
use super::refused::Refused;
use super::xml;

/// The body of an answer. An error in it closes the connection.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    /// What is sent as the length, where it is not that of the content.
    length: Option<u64>,
    content: Content,
}

/// What is done while a body is sent.
enum Step {
    Send(Bytes),
    Wait(Rule),
    Break,
}

/// Notes the end of a request when its answer was sent, or nobody takes it.
pub(super) struct Ending {
    log: Arc<Log>,
    ordinal: u64,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            length: None,
            content: Content::default(),
        }
    }

    pub(super) fn document(status: u16, text: String) -> Self {
        Self::new(status)
            .header(CONTENT_TYPE.as_str(), "application/xml")
            .content(Content::of(vec![text.into()]))
    }

    pub(super) fn refused(refused: Refused, resource: &str, request: u64) -> Self {
        Self::document(refused.status, xml::error(refused, resource, request))
    }

    pub(super) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn content(self, content: Content) -> Self {
        Self { content, ..self }
    }

    /// Tells a length without the bytes, as an answer to HEAD does.
    pub(super) fn length(self, length: u64) -> Self {
        let length = Some(length);
        Self { length, ..self }
    }

    /// As it is sent, with what a fault does to its body.
    pub(super) fn sent(
        mut self,
        fault: Option<(Rule, Action)>,
        ending: Ending,
    ) -> Response<AnswerBody> {
        let length = self.length.unwrap_or(self.content.len());
        let steps = match fault {
            Some((_, Action::FlipBody(at))) => {
                self.content = self.content.flipped(at);
                whole(&self.content)
            }
            Some((_, Action::TruncateBody(at))) => broken(&self.content, at, Step::Break),
            Some((rule, Action::StallBody(at))) => broken(&self.content, at, Step::Wait(rule)),
            _ => whole(&self.content),
        };
        let mut response = Response::builder().status(self.status);
        if self.status != 204 {
            response = response.header(CONTENT_LENGTH, length);
        }
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let body = stream::unfold((steps.into_iter(), ending), next);
        response
            .body(StreamBody::new(body).boxed_unsync())
            .expect("every header is plain text")
    }
}

/// The next piece of a body.
async fn next<I: Iterator<Item = Step>>(
    (mut steps, ending): (I, Ending),
) -> Option<(io::Result<Frame<Bytes>>, (I, Ending))> {
    loop {
        match steps.next()? {
            Step::Send(bytes) => return Some((Ok(Frame::data(bytes)), (steps, ending))),
            Step::Wait(rule) => rule.wait(None).await,
            Step::Break => {
                // What was sent so far leaves while this waits for its turn.
                tokio::task::yield_now().await;
                let broken = io::Error::other("broken off on purpose");
                return Some((Err(broken), (steps, ending)));
            }
        }
    }
}

fn whole(content: &Content) -> Vec<Step> {
    content.chunks().iter().cloned().map(Step::Send).collect()
}

/// The content with something between its first bytes and the others.
fn broken(content: &Content, at: u64, step: Step) -> Vec<Step> {
    let at = at.min(content.len());
    let mut steps = whole(&content.slice(0..at));
    steps.push(step);
    steps.extend(whole(&content.slice(at..content.len())));
    steps
}

impl Ending {
    pub(super) fn of(log: &Arc<Log>, ordinal: u64) -> Self {
        let log = Arc::clone(log);
        Self { log, ordinal }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let now = self.log.now();
        self.log
            .note(self.ordinal, |request| request.ended = Some(now));
    }
}
