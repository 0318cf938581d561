//! A made-up history of one job, told step by step.

use std::time::Duration;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};

use super::record::{Change, Job, Part, Record, StoodStill, Task, Upload};
use crate::emulator::{Effect, OpenUpload, Operation, Received, Request, StoredObject};
use crate::published::MANIFEST;

/// The lease of every story.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// Between two steps.
const STEP: Duration = Duration::from_millis(100);
/// The output of the one job.
pub(super) const OUT: &str = "out/";
/// Its weight file, of two parts, and its small file.
pub(super) const WEIGHTS: &str = "out/model.safetensors";
const CONFIG: &str = "out/config.json";
/// The parts of the weights.
pub(super) const PARTS: [&[u8]; 2] = [b"first part", b"second"];

/// Who tells it. The job has one task, which writes both parts.
pub(super) struct Story {
    pub(super) record: Record,
    now: Duration,
    tx: u64,
    pub(super) task: Task,
    job: Job,
}

impl Story {
    /// The job is planned, its uploads are open.
    pub(super) fn planned() -> Self {
        let mut story = Self {
            record: Record {
                bucket_url: "s3://bucket/".to_owned(),
                inputs: vec!["family/".to_owned()],
                taken_at: Duration::from_secs(2000),
                audited_at: Duration::from_secs(2000),
                ..Record::default()
            },
            now: Duration::from_secs(1000),
            tx: 0,
            task: Task {
                job_id: "j".to_owned(),
                task_no: 0,
                file_no: 0,
                first_part: 0,
                part_count: 2,
                state: "READY".to_owned(),
                fence: 0,
                attempt: 0,
                failures: 0,
                crashes: 0,
                worker_id: None,
                lease_expires_at_ms: None,
                done_fence: None,
                done_by: None,
                error_kind: None,
            },
            job: Job {
                job_id: "j".to_owned(),
                recipe: r#"{"output":{"overwrite":false}}"#.to_owned(),
                output_url: "s3://bucket/out".to_owned(),
                state: "PLANNING".to_owned(),
                epoch: 0,
                cleaned_at_ms: None,
            },
        };
        let job = story.change(None, Some(story.job.clone()));
        story.record.jobs.push(job);
        for (file_no, key) in [WEIGHTS, CONFIG].into_iter().enumerate() {
            let upload = Upload {
                job_id: "j".to_owned(),
                file_no: file_no as u64,
                epoch: 1,
                url: format!("s3://bucket/{key}"),
                nonce: "nonce".to_owned(),
                upload_id: Some(format!("u{file_no}")),
                state: "OPEN".to_owned(),
            };
            let upload = story.change(None, Some(upload));
            story.record.uploads.push(upload);
        }
        let task = story.change(None, Some(story.task.clone()));
        story.record.tasks.push(task);
        story.job(|job| {
            job.state = "QUEUED".to_owned();
            job.epoch = 1;
        });
        story
    }

    /// From the submission to the manifest, and nothing goes wrong.
    pub(super) fn good() -> Self {
        let mut story = Self::planned();
        story.claim("w.1");
        story.job(|job| job.state = "RUNNING".to_owned());
        story.put_parts("w.1");
        story.beat();
        story.done();
        story.commit();
        story.publish();
        story
    }

    /// Time passes.
    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn change<T>(&mut self, before: Option<T>, after: Option<T>) -> Change<T> {
        self.now += STEP;
        self.tx += 1;
        Change {
            tx: self.tx,
            at_us: self.now.as_micros() as u64,
            before,
            after,
        }
    }

    /// A statement on the task.
    pub(super) fn task(&mut self, edit: impl FnOnce(&mut Task)) {
        let before = self.task.clone();
        edit(&mut self.task);
        let change = self.change(Some(before), Some(self.task.clone()));
        self.record.tasks.push(change);
    }

    /// A statement on the job.
    pub(super) fn job(&mut self, edit: impl FnOnce(&mut Job)) {
        let before = self.job.clone();
        edit(&mut self.job);
        let change = self.change(Some(before), Some(self.job.clone()));
        self.record.jobs.push(change);
    }

    /// The task is leased to a worker.
    pub(super) fn claim(&mut self, worker: &str) {
        let expires = (self.now + STEP + LEASE).as_millis() as u64;
        self.task(|task| {
            task.state = "LEASED".to_owned();
            task.fence += 1;
            task.attempt += 1;
            task.worker_id = Some(format!("{worker}/uuid"));
            task.lease_expires_at_ms = Some(expires);
        });
    }

    /// The lease is renewed.
    pub(super) fn beat(&mut self) {
        let expires = (self.now + STEP + LEASE).as_millis() as u64;
        self.task(|task| task.lease_expires_at_ms = Some(expires));
    }

    /// The lease is taken back.
    pub(super) fn take_back(&mut self, crashes: u64) {
        self.task(|task| {
            task.state = "READY".to_owned();
            task.fence += 1;
            task.crashes += crashes;
            task.worker_id = None;
            task.lease_expires_at_ms = None;
        });
    }

    /// The holder's report is recorded, with its parts.
    pub(super) fn done(&mut self) {
        self.task(|task| {
            task.state = "DONE".to_owned();
            task.done_fence = Some(task.fence);
            task.done_by = task.worker_id.take();
            task.lease_expires_at_ms = None;
        });
        for (part_no, bytes) in (0..).zip(PARTS) {
            let part = Part {
                job_id: "j".to_owned(),
                file_no: 0,
                part_no,
                task_no: 0,
                part_id: format!("<ETag>{}</ETag>", etag(bytes)),
            };
            let last = self.record.tasks.last().expect("just pushed");
            let (tx, at_us) = (last.tx, last.at_us);
            self.record.parts.push(Change {
                tx,
                at_us,
                before: None,
                after: Some(part),
            });
        }
    }

    /// A request that changes the bucket.
    pub(super) fn request(&mut self, operation: Operation, key: &str, by: &str) -> &mut Request {
        self.now += STEP;
        let ordinal = self.record.history.requests.len() as u64;
        let at = self.now;
        let mut request = Request::empty(operation);
        request.ordinal = ordinal;
        request.arrived_at = at;
        request.access_key = by.to_owned();
        request.key = key.to_owned();
        request.effect = Some(Effect { ordinal, at });
        self.record.history.requests.push(request);
        self.record
            .history
            .requests
            .last_mut()
            .expect("just pushed")
    }

    /// A worker puts one part.
    pub(super) fn put_part(&mut self, by: &str, ordinal: usize, bytes: &[u8]) {
        let put = self.request(Operation::PutPart, WEIGHTS, by);
        put.upload_id = Some("u0".to_owned());
        put.part_number = Some(ordinal as u32 + 1);
        put.received = Some(received(bytes));
        put.etag = Some(etag(bytes));
    }

    /// A worker puts both parts.
    pub(super) fn put_parts(&mut self, by: &str) {
        for (ordinal, bytes) in PARTS.into_iter().enumerate() {
            self.put_part(by, ordinal, bytes);
        }
    }

    /// The point of no return.
    pub(super) fn commit(&mut self) {
        let put = self.request(Operation::PutPart, CONFIG, "coordinator");
        put.upload_id = Some("u1".to_owned());
        put.part_number = Some(1);
        put.received = Some(received(b"{}"));
        put.etag = Some(etag(b"{}"));
        self.job(|job| {
            job.state = "COMMITTING".to_owned();
            job.epoch += 1;
        });
    }

    /// Files and manifest appear, and the job succeeds.
    pub(super) fn publish(&mut self) {
        self.complete();
        self.manifest(b"");
        self.succeed();
    }

    /// Both uploads are completed.
    pub(super) fn complete(&mut self) {
        let files = [(WEIGHTS, "u0", &PARTS[..]), (CONFIG, "u1", &[b"{}"])];
        for (key, id, parts) in files {
            let numbered = (1..).zip(parts.iter().map(|bytes| etag(bytes)));
            let request = self.request(Operation::CompleteUpload, key, "coordinator");
            request.upload_id = Some(id.to_owned());
            request.named_parts = numbered.collect();
            self.object(key, &parts.concat());
        }
    }

    /// The manifest says complete; `more` makes it another one.
    pub(super) fn manifest(&mut self, more: &[u8]) {
        let file = |path: &str, bytes: &[u8]| {
            let (size, crc) = (bytes.len(), checksum(CrcAlgorithm::Crc64Nvme, bytes));
            format!(r#"{{"path":"{path}","size":{size},"crc64nvme":"{crc:016x}"}}"#)
        };
        let outputs = [
            file("model.safetensors", &PARTS.concat()),
            file("config.json", b"{}"),
        ];
        let outputs = outputs.join(",");
        let text = format!(r#"{{"job":"j","state":"complete","outputs":[{outputs}]}}"#);
        let body = [text.as_bytes(), more].concat();
        let key = format!("{OUT}{MANIFEST}");
        self.object(&key, &body);
        let put = self.request(Operation::Put, &key, "coordinator");
        put.received = Some(received(&body));
        put.object = Some(Bytes::from(body));
    }

    /// The job is SUCCEEDED, its uploads are completed.
    pub(super) fn succeed(&mut self) {
        self.job(|job| job.state = "SUCCEEDED".to_owned());
        for change in self.record.uploads.clone() {
            let completed = change.after.clone().map(|upload| Upload {
                state: "COMPLETED".to_owned(),
                ..upload
            });
            let change = self.change(change.after, completed);
            self.record.uploads.push(change);
        }
    }

    /// An object lies in the bucket.
    pub(super) fn object(&mut self, key: &str, bytes: &[u8]) {
        let object = StoredObject {
            chunks: bytes.chunks(3).map(Bytes::copy_from_slice).collect(),
            etag: etag(bytes),
            crc64: 0,
            metadata: Default::default(),
        };
        self.record.objects.insert(key.to_owned(), object);
    }

    /// An upload is neither completed nor aborted.
    pub(super) fn open_upload(&mut self, key: &str) {
        self.record.open_uploads.push(OpenUpload {
            key: key.to_owned(),
            id: "u9".to_owned(),
            metadata: Default::default(),
            parts: Default::default(),
        });
    }

    /// A worker stood still from so long ago until now.
    pub(super) fn stood_still(&mut self, worker: &str, time: Duration) {
        let (from, to) = (self.now.saturating_sub(time), self.now);
        let stop = StoodStill { from, to };
        self.record.stops.push((worker.to_owned(), stop));
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("{:016x}", checksum(CrcAlgorithm::Crc64Nvme, bytes))
}

fn received(bytes: &[u8]) -> Received {
    Received {
        bytes: bytes.len() as u64,
        md5: String::new(),
        crc64: checksum(CrcAlgorithm::Crc64Nvme, bytes),
    }
}
