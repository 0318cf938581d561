//! From the socket to the bucket and back: one function an operation.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{TimeDelta, Utc};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::answer::{Answer, AnswerBody, Ending};
use super::bucket::{Body, Bucket, NamedPart, Object};
use super::call::Call;
use super::content::Content;
use super::fault::{Action, Rule};
use super::history::{Effect, Log, Operation};
use super::refused::{self, Refused};
use super::xml::{self, quoted};
use crate::component::BUCKET;

/// When every object was written, as HTTP says it.
const LONG_AGO: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

/// How far a client's clock may be off.
const SKEW_MAX: TimeDelta = TimeDelta::minutes(15);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<Log>,
    pub(super) rules: Mutex<Vec<Rule>>,
    pub(super) access_keys: Mutex<BTreeSet<String>>,
    pub(super) bucket: Mutex<Changing>,
    /// The most entries of a page of any list.
    pub(super) page_max: usize,
}

/// The bucket, and how often it changed.
#[derive(Debug)]
pub(super) struct Changing {
    pub(super) bucket: Bucket,
    pub(super) changes: u64,
}

/// The connection is closed instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

/// Serves connections until it is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // A client that is gone before it was accepted is no reason to stop.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, Arc::clone(&shared)));
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    // Answers are small, and nobody should wait for them.
    let _otherwise_slow = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            // In a task of its own: what is held happens even if the client
            // does not wait for it.
            let answered = tokio::spawn(shared.answer(request)).await;
            answered.expect("the emulator does not panic")
        }
    });
    let conversation = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // It ends badly whenever a fault or the client wants it so.
    let _ended = conversation.await;
}

impl Shared {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Closed> {
        let (head, incoming) = request.into_parts();
        let call = Call::of(&head);
        let request = call.request();
        let fault = self.fault(&request);
        let action = fault.as_ref().map(|(_, action)| *action);
        let ordinal = self.log.arrived(super::Request {
            fault: action,
            ..request
        });
        let ending = Ending::of(&self.log, ordinal);
        if action == Some(Action::DropBefore) {
            return Err(Closed);
        }
        let body = self.receive(&call, incoming, ordinal, action).await?;
        if let Some((rule, Action::Hold(longest))) = &fault {
            rule.wait(*longest).await;
        }
        let answer = self.decide(&call, body, ordinal, action);
        if action == Some(Action::DropAfter) {
            return Err(Closed);
        }
        if let Some((rule, Action::StallAnswer(longest))) = &fault {
            rule.wait(*longest).await;
        }
        let status = answer.status;
        self.log
            .note(ordinal, |request| request.status = Some(status));
        Ok(answer.sent(fault, ending))
    }

    fn fault(&self, request: &super::Request) -> Option<(Rule, Action)> {
        let rules = lock(&self.rules);
        rules
            .iter()
            .find_map(|rule| Some((rule.clone(), rule.meet(request)?)))
    }

    async fn receive(
        &self,
        call: &Call,
        mut incoming: Incoming,
        ordinal: u64,
        action: Option<Action>,
    ) -> Result<Body, Closed> {
        let mut chunks = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| Closed)?;
            chunks.extend(frame.into_data());
        }
        let content = Content::of(chunks);
        let content = match action {
            Some(Action::CorruptReceived(at)) => content.flipped(at),
            _ => content,
        };
        let body = Body::of(content);
        if call.has_body() {
            self.log.note(ordinal, |request| {
                request.received = Some(body.received());
                request.object = match call.operation {
                    Operation::Put => body.content.small(),
                    _ => None,
                };
            });
        }
        Ok(body)
    }

    /// Carries out a request, unless a fault stands in the way.
    fn decide(&self, call: &Call, body: Body, ordinal: u64, action: Option<Action>) -> Answer {
        let refuse = |refused| Answer::refused(refused, &call.key, ordinal);
        match action {
            Some(Action::Refuse(refusal)) => refuse(refusal.into()),
            Some(Action::RefuseInOk(refusal)) => refuse(refusal.into()).status(200),
            Some(Action::RefuseAfter(refusal)) => {
                let _unsaid = self.carry_out(call, body, ordinal, action);
                refuse(refusal.into())
            }
            _ => {
                let carried_out = self.carry_out(call, body, ordinal, action);
                carried_out.unwrap_or_else(refuse)
            }
        }
    }

    fn carry_out(
        &self,
        call: &Call,
        mut body: Body,
        ordinal: u64,
        action: Option<Action>,
    ) -> Result<Answer, Refused> {
        if !lock(&self.access_keys).contains(&call.access_key) {
            return Err(refused::UNKNOWN_KEY);
        }
        let skew = call.signed_at.map(|signed| (Utc::now() - signed).abs());
        if skew.is_some_and(|skew| skew > SKEW_MAX) {
            return Err(refused::TIME_TOO_SKEWED);
        }
        if call.bucket != BUCKET {
            return Err(refused::NO_SUCH_BUCKET);
        }
        if call.crc64.is_some_and(|crc64| crc64 != body.crc64) {
            return Err(refused::BAD_DIGEST);
        }
        if let Some(Action::CorruptStored(at)) = action {
            body.content = body.content.flipped(at);
        }
        match call.operation {
            Operation::Head => self.head(call, ordinal),
            Operation::Get => self.get(call, ordinal, action),
            Operation::Put => self.put(call, body, ordinal, action),
            Operation::Delete => {
                let mut changing = self.bucket();
                if changing.bucket.delete(&call.key) {
                    self.changed(&mut changing, ordinal, None);
                }
                Ok(Answer::new(204))
            }
            Operation::List => Ok(self.list(call)),
            Operation::CreateUpload => Ok(self.create_upload(call, ordinal)),
            Operation::PutPart => self.put_part(call, body, ordinal),
            Operation::CompleteUpload => self.complete_upload(call, &body, ordinal),
            Operation::AbortUpload => {
                let mut changing = self.bucket();
                changing.bucket.abort(&call.key, call.upload_id())?;
                self.changed(&mut changing, ordinal, None);
                Ok(Answer::new(204))
            }
            Operation::ListParts => self.list_parts(call),
            Operation::ListUploads => Ok(self.list_uploads(call)),
            Operation::Unknown => Err(refused::NOT_IMPLEMENTED),
        }
    }

    fn head(&self, call: &Call, ordinal: u64) -> Result<Answer, Refused> {
        let changing = self.bucket();
        let object = changing.bucket.object(&call.key, call.condition.as_ref())?;
        self.read(ordinal, object);
        Ok(of_object(200, object, call).length(object.content.len()))
    }

    fn get(&self, call: &Call, ordinal: u64, action: Option<Action>) -> Result<Answer, Refused> {
        let changing = self.bucket();
        let object = changing.bucket.object(&call.key, call.condition.as_ref())?;
        self.read(ordinal, object);
        let range = call.range.filter(|_| action != Some(Action::IgnoreRange));
        let Some(range) = range else {
            return Ok(of_object(200, object, call).content(object.content.clone()));
        };
        let size = object.content.len();
        let range = range.of_size(size).ok_or(refused::INVALID_RANGE)?;
        let what = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        Ok(of_object(206, object, call)
            .header(CONTENT_RANGE.as_str(), what)
            .content(object.content.slice(range)))
    }

    fn put(
        &self,
        call: &Call,
        body: Body,
        ordinal: u64,
        action: Option<Action>,
    ) -> Result<Answer, Refused> {
        let mut changing = self.bucket();
        let metadata = call.metadata.clone();
        let condition = call.condition.as_ref();
        let condition = condition.filter(|_| action != Some(Action::IgnoreCondition));
        let put = changing.bucket.put(&call.key, body, metadata, condition);
        let etag = put?;
        self.changed(&mut changing, ordinal, Some(&etag));
        Ok(written(&etag, call))
    }

    fn list(&self, call: &Call) -> Answer {
        let changing = self.bucket();
        let after = call.text("continuation-token").or(call.text("start-after"));
        let after = after.unwrap_or_default();
        let listed = changing
            .bucket
            .list(&call.key, call.text("delimiter"), after);
        let max_keys = self.page(call, "max-keys");
        let mut page = xml::ListBucketResult {
            name: BUCKET.to_owned(),
            prefix: call.key.clone(),
            max_keys,
            is_truncated: listed.len() > max_keys,
            ..Default::default()
        };
        if page.is_truncated {
            page.next_continuation_token = Some(listed[max_keys - 1].place().to_owned());
        }
        listed
            .into_iter()
            .take(max_keys)
            .for_each(|listed| page.push(listed));
        Answer::document(200, xml::document("ListBucketResult", &page))
    }

    fn create_upload(&self, call: &Call, ordinal: u64) -> Answer {
        let mut changing = self.bucket();
        let metadata = call.metadata.clone();
        let upload_id = changing.bucket.create_upload(&call.key, metadata);
        self.changed(&mut changing, ordinal, None);
        let id = upload_id.clone();
        self.log
            .note(ordinal, |request| request.upload_id = Some(id));
        let created = xml::InitiateMultipartUploadResult {
            bucket: BUCKET,
            key: &call.key,
            upload_id: &upload_id,
        };
        let document = xml::document("InitiateMultipartUploadResult", &created);
        Answer::document(200, document)
    }

    fn put_part(&self, call: &Call, body: Body, ordinal: u64) -> Result<Answer, Refused> {
        let mut changing = self.bucket();
        let (id, number) = (call.upload_id(), call.part_number());
        let etag = changing.bucket.put_part(&call.key, id, number, body)?;
        self.changed(&mut changing, ordinal, Some(&etag));
        Ok(written(&etag, call))
    }

    fn complete_upload(&self, call: &Call, body: &Body, ordinal: u64) -> Result<Answer, Refused> {
        let named = xml::named_parts(&body.content.chunks().concat())?;
        let names = named.iter().map(NamedPart::name).collect();
        self.log
            .note(ordinal, |request| request.named_parts = names);
        let mut changing = self.bucket();
        let (id, condition) = (call.upload_id(), call.condition.as_ref());
        let completed = changing.bucket.complete(&call.key, id, &named, condition);
        let (etag, has_changed) = completed?;
        if has_changed {
            self.changed(&mut changing, ordinal, Some(&etag));
        }
        let completed = xml::CompleteMultipartUploadResult {
            location: format!("/{BUCKET}/{}", call.key),
            bucket: BUCKET,
            key: &call.key,
            etag: quoted(&etag),
        };
        let document = xml::document("CompleteMultipartUploadResult", &completed);
        Ok(Answer::document(200, document))
    }

    fn list_parts(&self, call: &Call) -> Result<Answer, Refused> {
        let changing = self.bucket();
        let id = call.upload_id();
        let upload = changing.bucket.upload(&call.key, id)?;
        let marker = call.number("part-number-marker").unwrap_or(0);
        let max_parts = self.page(call, "max-parts");
        let behind = || upload.parts.range(marker + 1..);
        let listed = behind().take(max_parts);
        let part: Vec<_> = listed
            .map(|(number, part)| xml::ListedPart::of(*number, part))
            .collect();
        let is_truncated = behind().count() > max_parts;
        let last = part.last().map(|part| part.part_number);
        let page = xml::ListPartsResult {
            bucket: BUCKET,
            key: &call.key,
            upload_id: id,
            max_parts,
            is_truncated,
            next_part_number_marker: last.filter(|_| is_truncated),
            part,
        };
        let document = xml::document("ListPartsResult", &page);
        Ok(Answer::document(200, document))
    }

    fn list_uploads(&self, call: &Call) -> Answer {
        let changing = self.bucket();
        let marker = |name| call.text(name).unwrap_or_default().to_owned();
        let markers = (marker("key-marker"), marker("upload-id-marker"));
        let max_uploads = self.page(call, "max-uploads");
        let behind = || {
            let open = changing.bucket.uploads().keys();
            open.filter(|open| open.0.starts_with(&call.key) && **open > markers)
        };
        let upload: Vec<_> = behind()
            .take(max_uploads)
            .map(|(key, upload_id)| xml::ListedUpload {
                key: key.clone(),
                upload_id: upload_id.clone(),
                initiated: xml::LAST_MODIFIED,
            })
            .collect();
        let is_truncated = behind().count() > max_uploads;
        let last = upload.last().filter(|_| is_truncated);
        let page = xml::ListMultipartUploadsResult {
            bucket: BUCKET,
            prefix: &call.key,
            max_uploads,
            is_truncated,
            next_key_marker: last.map(|last| last.key.clone()),
            next_upload_id_marker: last.map(|last| last.upload_id.clone()),
            upload,
        };
        let document = xml::document("ListMultipartUploadsResult", &page);
        Answer::document(200, document)
    }

    /// How many entries a page has.
    fn page(&self, call: &Call, name: &str) -> usize {
        call.number(name).unwrap_or(usize::MAX).min(self.page_max)
    }

    pub(super) fn bucket(&self) -> MutexGuard<'_, Changing> {
        lock(&self.bucket)
    }

    /// Notes a change while the bucket is locked, so that the order of changes
    /// is the recorded one.
    fn changed(&self, changing: &mut Changing, ordinal: u64, etag: Option<&str>) {
        let effect = Effect {
            ordinal: changing.changes,
            at: self.log.now(),
        };
        changing.changes += 1;
        self.log.note(ordinal, |request| {
            request.effect = Some(effect);
            request.etag = etag.map(str::to_owned);
        });
    }

    fn read(&self, ordinal: u64, object: &Object) {
        let etag = object.etag.clone();
        self.log.note(ordinal, |request| request.etag = Some(etag));
    }
}

/// An answer with all that is told of an object, but its bytes.
fn of_object(status: u16, object: &Object, call: &Call) -> Answer {
    let mut answer = Answer::new(status)
        .header(ETAG.as_str(), quoted(&object.etag))
        .header(LAST_MODIFIED.as_str(), LONG_AGO)
        .header(CONTENT_TYPE.as_str(), "application/octet-stream")
        .header("accept-ranges", "bytes");
    for (name, value) in &object.metadata {
        answer = answer.header(&format!("x-amz-meta-{name}"), value);
    }
    if call.wants_checksum && call.range.is_none() {
        answer = answer
            .header(
                "x-amz-checksum-crc64nvme",
                xml::crc64_to_base64(object.crc64),
            )
            .header("x-amz-checksum-type", "FULL_OBJECT");
    }
    answer
}

/// The answer to bytes that were written.
fn written(etag: &str, call: &Call) -> Answer {
    let answer = Answer::new(200).header(ETAG.as_str(), quoted(etag));
    match call.crc64 {
        Some(crc64) => answer.header("x-amz-checksum-crc64nvme", xml::crc64_to_base64(crc64)),
        None => answer,
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}
