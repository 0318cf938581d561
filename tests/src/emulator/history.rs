//! What an emulator was asked, in order, and what it did and said.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Action;
use crate::process::wall_clock;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// HeadObject.
    Head,
    /// GetObject.
    Get,
    /// PutObject.
    Put,
    /// DeleteObject.
    Delete,
    /// ListObjectsV2.
    List,
    /// CreateMultipartUpload.
    CreateUpload,
    /// UploadPart.
    PutPart,
    /// CompleteMultipartUpload.
    CompleteUpload,
    /// AbortMultipartUpload.
    AbortUpload,
    /// ListParts.
    ListParts,
    /// ListMultipartUploads.
    ListUploads,
    /// Something that the emulator does not know.
    Unknown,
}

/// What a write demands of what stands there, or a read of what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `If-None-Match: *`: nothing may stand there.
    Absent,
    /// `If-Match`: the object of this ETag, which is written without quotes.
    Match(String),
}

/// The bytes that came with a request, as they arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// How many.
    pub bytes: u64,
    /// Their MD5, in hexadecimal digits.
    pub md5: String,
    /// Their CRC-64/NVME.
    pub crc64: u64,
}

/// When a request changed the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// Its place among all changes of the bucket, counted from zero. A request
    /// that was held comes after those that overtook it.
    pub ordinal: u64,
    /// When, counted from the start of the emulator.
    pub at: Duration,
}

/// A request and what became of it. All times count from the start of the
/// emulator, by the monotonic clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its place among all requests, by arrival, counted from zero.
    pub ordinal: u64,
    /// When its head had arrived.
    pub arrived: Duration,
    /// The same by the machine's clock, since 1970: to be compared with what a
    /// database on this machine says.
    pub arrived_at: Duration,
    /// When the last byte of the answer was handed to the connection, or it was
    /// given up; `None` while it is under way.
    pub ended: Option<Duration>,
    /// What it asked for.
    pub operation: Operation,
    /// Who asked: the name of the access key. Empty where none was given.
    pub access_key: String,
    /// The object's key; of a list, the prefix.
    pub key: String,
    /// The upload: named by the request, or created by it.
    pub upload_id: Option<String>,
    /// The number of the part, from one.
    pub part_number: Option<u32>,
    /// The bytes that were asked for, as the request says.
    pub range: Option<Range<u64>>,
    /// What it demanded.
    pub condition: Option<Condition>,
    /// The user metadata of a new object or upload, by name without the prefix.
    pub metadata: BTreeMap<String, String>,
    /// The parts that a completion names: number and ETag without quotes.
    pub named_parts: Vec<(u32, String)>,
    /// The body, once it had arrived whole.
    pub received: Option<Received>,
    /// The bytes of a small object that is put as a whole.
    pub object: Option<Bytes>,
    /// When it changed the bucket; `None` where it did not.
    pub effect: Option<Effect>,
    /// The ETag, without quotes, of what was written or read.
    pub etag: Option<String>,
    /// The status of the answer; `None` where none was given.
    pub status: Option<u16>,
    /// The fault that it met.
    pub fault: Option<Action>,
}

/// All requests up to a moment, by arrival.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The requests; the n-th has the ordinal n.
    pub requests: Vec<Request>,
}

impl History {
    /// The requests of one kind.
    pub fn of(&self, operation: Operation) -> impl Iterator<Item = &Request> {
        self.requests
            .iter()
            .filter(move |request| request.operation == operation)
    }

    /// The requests that changed the bucket, in the order of their changes.
    pub fn effects(&self) -> Vec<&Request> {
        let mut changed: Vec<(u64, &Request)> = self
            .requests
            .iter()
            .filter_map(|request| Some((request.effect?.ordinal, request)))
            .collect();
        changed.sort_by_key(|(ordinal, _)| *ordinal);
        changed.into_iter().map(|(_, request)| request).collect()
    }
}

impl Request {
    /// A request of which nothing is known yet.
    pub(crate) fn empty(operation: Operation) -> Self {
        Self {
            ordinal: 0,
            arrived: Duration::ZERO,
            arrived_at: Duration::ZERO,
            ended: None,
            operation,
            access_key: String::new(),
            key: String::new(),
            upload_id: None,
            part_number: None,
            range: None,
            condition: None,
            metadata: BTreeMap::new(),
            named_parts: Vec::new(),
            received: None,
            object: None,
            effect: None,
            etag: None,
            status: None,
            fault: None,
        }
    }

    /// Whether it was carried out and its caller told so.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status < 300)
    }
}

/// Where requests are recorded while they come.
#[derive(Debug)]
pub(super) struct Log {
    start: Instant,
    requests: Mutex<Vec<Request>>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            requests: Mutex::default(),
        }
    }

    /// The time on the history's clock.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Records an arrival, and returns its ordinal.
    pub(super) fn arrived(&self, mut request: Request) -> u64 {
        let mut requests = self.lock();
        request.ordinal = requests.len() as u64;
        request.arrived = self.now();
        request.arrived_at = wall_clock();
        requests.push(request);
        requests.len() as u64 - 1
    }

    /// Adds to what is known of a request.
    pub(super) fn note(&self, ordinal: u64, note: impl FnOnce(&mut Request)) {
        let mut requests = self.lock();
        note(&mut requests[ordinal as usize]);
    }

    pub(super) fn history(&self) -> History {
        let requests = self.lock().clone();
        History { requests }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests
            .lock()
            .expect("nothing panics while it holds this")
    }
}
