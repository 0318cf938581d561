//! What a request asks for, read from its head.

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::{DateTime, NaiveDateTime, Utc};
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap, IF_MATCH, IF_NONE_MATCH, RANGE};
use hyper::http::request::Parts;

use super::bucket::Metadata;
use super::history::{Condition, Operation, Request};
use super::xml::{crc64_from_base64, unquoted};

const METADATA: &str = "x-amz-meta-";
const CHECKSUM: &str = "x-amz-checksum-crc64nvme";

/// A request without its body.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) operation: Operation,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) access_key: String,
    pub(super) range: Option<AskedRange>,
    pub(super) condition: Option<Condition>,
    pub(super) metadata: Metadata,
    /// When it was signed, by the client's clock.
    pub(super) signed_at: Option<DateTime<Utc>>,
    /// The checksum that the body must have.
    pub(super) crc64: Option<u64>,
    /// Whether the checksum of an object is to be told.
    pub(super) wants_checksum: bool,
    query: BTreeMap<String, String>,
}

/// A range as it is written; what it means depends on the object's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskedRange {
    /// `bytes=a-b`, both inclusive.
    Between(u64, u64),
    /// `bytes=a-`.
    From(u64),
    /// `bytes=-n`.
    Last(u64),
}

impl Call {
    pub(super) fn of(head: &Parts) -> Self {
        let path = percent_decoded(head.uri.path());
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        let query: BTreeMap<_, _> = query.into_owned().collect();
        let operation = operation(&head.method, key, &query);
        let key = match operation {
            Operation::List | Operation::ListUploads => query.get("prefix").cloned(),
            _ => Some(key.to_owned()),
        };
        Self {
            operation,
            bucket: bucket.to_owned(),
            key: key.unwrap_or_default(),
            access_key: access_key(&head.headers, &query),
            range: text(&head.headers, RANGE.as_str()).and_then(AskedRange::parse),
            condition: condition(&head.headers),
            metadata: metadata(&head.headers),
            signed_at: text(&head.headers, "x-amz-date").and_then(time),
            crc64: text(&head.headers, CHECKSUM).and_then(crc64_from_base64),
            wants_checksum: text(&head.headers, "x-amz-checksum-mode").is_some(),
            query,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    pub(super) fn upload_id(&self) -> &str {
        self.text("uploadId").unwrap_or_default()
    }

    /// The number of a part; zero, which is none, where it is not a number.
    pub(super) fn part_number(&self) -> u32 {
        self.number("partNumber").unwrap_or_default()
    }

    /// Whether a body comes with it that matters.
    pub(super) fn has_body(&self) -> bool {
        matches!(
            self.operation,
            Operation::Put | Operation::PutPart | Operation::CompleteUpload
        )
    }

    /// What the history says of it at its arrival.
    pub(super) fn request(&self) -> Request {
        let range = self.range.and_then(|range| match range {
            AskedRange::Between(first, last) => Some(first..last + 1),
            AskedRange::From(first) => Some(first..u64::MAX),
            AskedRange::Last(_) => None,
        });
        Request {
            access_key: self.access_key.clone(),
            key: self.key.clone(),
            upload_id: self.text("uploadId").map(str::to_owned),
            part_number: self.number("partNumber"),
            range,
            condition: self.condition.clone(),
            metadata: self.metadata.clone(),
            ..Request::empty(self.operation)
        }
    }
}

impl AskedRange {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(last.parse().ok()?)),
            (first, "") => Some(Self::From(first.parse().ok()?)),
            (first, last) => Some(Self::Between(first.parse().ok()?, last.parse().ok()?)),
        }
    }

    /// The bytes that are meant of an object of this size; `None` where there
    /// are none.
    pub(super) fn of_size(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Between(first, last) => first..size.min(last.saturating_add(1)),
            Self::From(first) => first..size,
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

fn operation(method: &Method, key: &str, query: &BTreeMap<String, String>) -> Operation {
    let has = |name| query.contains_key(name);
    match (method.as_str(), key.is_empty()) {
        ("GET", true) if has("uploads") => Operation::ListUploads,
        ("GET", true) if query.get("list-type").is_some_and(|kind| kind == "2") => Operation::List,
        ("HEAD", false) => Operation::Head,
        ("GET", false) if has("uploadId") => Operation::ListParts,
        ("GET", false) => Operation::Get,
        ("PUT", false) if has("uploadId") => Operation::PutPart,
        ("PUT", false) => Operation::Put,
        ("POST", false) if has("uploads") => Operation::CreateUpload,
        ("POST", false) if has("uploadId") => Operation::CompleteUpload,
        ("DELETE", false) if has("uploadId") => Operation::AbortUpload,
        ("DELETE", false) => Operation::Delete,
        _ => Operation::Unknown,
    }
}

/// A time as a signature has it.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ");
    Some(time.ok()?.and_utc())
}

/// Whom the signature names, in a header or in the URL. It is not verified.
fn access_key(headers: &HeaderMap, query: &BTreeMap<String, String>) -> String {
    let header = text(headers, AUTHORIZATION.as_str());
    let credential = header
        .and_then(|header| header.split_once("Credential="))
        .map(|(_, credential)| credential)
        .or(query.get("X-Amz-Credential").map(String::as_str));
    let key = credential.and_then(|credential| credential.split('/').next());
    key.unwrap_or_default().to_owned()
}

fn condition(headers: &HeaderMap) -> Option<Condition> {
    match text(headers, IF_NONE_MATCH.as_str()) {
        Some("*") => Some(Condition::Absent),
        _ => text(headers, IF_MATCH.as_str()).map(|etag| Condition::Match(unquoted(etag))),
    }
}

fn metadata(headers: &HeaderMap) -> Metadata {
    let named = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(METADATA)?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    named.collect()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}
