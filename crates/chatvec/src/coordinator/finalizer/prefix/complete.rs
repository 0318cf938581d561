//! From uploaded parts to one object, whatever the store answers.
//!
//! Stores differ in what they say to a repeated or doubtful completion, so the
//! answer alone decides little: the object's own nonce and checksum do.

use std::collections::BTreeMap;

use chatvec_core::ids::{Crc64, FileOrdinal, PartOrdinal, TaskOrdinal};
use chatvec_core::problem::Problem;
use chatvec_core::task::FailureKind;

use super::super::record::{crc_of_file, nonce};
use super::super::{FinalizeError, Finished, failure};
use crate::coordinator::Resources;
use crate::coordinator::store::{Epoch, JobError, NewUpload, UploadRow, UploadState};
use crate::coordinator::uploads;
use crate::fault::{self, Failpoint, Mutant};
use crate::storage::OutputPrefix;
use crate::storage::object::{Head, ListedPart, ObjectError};

/// What became of one file.
#[derive(Debug)]
pub(super) enum Completed {
    /// The object is there, proved by its nonce.
    Done,
    /// Storage has lost some of it. These tasks make its parts again; there are
    /// none of a small file, which the next round stages again.
    Lost(Vec<TaskOrdinal>),
    /// It can never be completed.
    Damaged(JobError),
}

/// Completes the uploads of one job.
pub(super) struct Completer<'a> {
    resources: &'a Resources,
    finished: &'a Finished,
    output: &'a OutputPrefix,
    epoch: Epoch,
    /// The newest upload of each file.
    uploads: BTreeMap<FileOrdinal, &'a UploadRow>,
}

/// A part as the job store froze it.
#[derive(Debug, Clone)]
struct Frozen {
    part: PartOrdinal,
    part_id: String,
    crc64: Crc64,
    bytes: u64,
    /// Who can make it again; `None` for a small file.
    task: Option<TaskOrdinal>,
}

impl<'a> Completer<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        finished: &'a Finished,
        output: &'a OutputPrefix,
        epoch: Epoch,
        uploads: &'a [UploadRow],
    ) -> Self {
        let mut newest: BTreeMap<_, &UploadRow> = BTreeMap::new();
        for upload in uploads.iter().filter(|upload| upload.upload_id.is_some()) {
            let known = newest.entry(upload.key.file).or_insert(upload);
            if upload.key.epoch > known.key.epoch {
                *known = upload;
            }
        }
        Self {
            resources,
            finished,
            output,
            epoch,
            uploads: newest,
        }
    }

    /// Completes one file's upload. A file that is complete already stays so.
    pub(super) async fn complete(
        &self,
        file: FileOrdinal,
        name: &str,
    ) -> Result<Completed, FinalizeError> {
        let Some(upload) = self.uploads.get(&file) else {
            let problem = Problem::new(name, "expected an upload, found none");
            return Ok(Completed::Damaged(failure(FailureKind::Internal, problem)));
        };
        if upload.state == UploadState::Completed {
            return Ok(Completed::Done);
        }
        let id = upload
            .upload_id
            .as_deref()
            .expect("chosen because it has one");
        let (bucket, key) = (self.output.bucket(), self.output.key(name));
        let mut frozen = self.frozen(file, upload);
        if fault::is_planted(Mutant::CompleteFromListing) {
            take_over(
                &mut frozen,
                &bucket.list_parts(&key, id).await?.unwrap_or_default(),
            );
        }
        fault::hit(Failpoint::CompleteReady, &upload.url).await?;
        let mut answer = bucket.complete_upload(&key, id, part_ids(&frozen)).await;
        if matches!(answer, Err(ObjectError::InvalidPart { .. })) {
            // A late put of a worker that lost its lease wrote the same bytes
            // under another id, or something is wrong.
            let listed = bucket.list_parts(&key, id).await?;
            let stale = adopt(&mut frozen, &listed.unwrap_or_default());
            if !stale.is_empty() {
                return self.put_again(file, &frozen, &stale, name).await;
            }
            answer = bucket.complete_upload(&key, id, part_ids(&frozen)).await;
        }
        fault::hit(Failpoint::CompleteDone, &upload.url).await?;
        match answer {
            Ok(etag) => self.note(upload, &etag).await,
            Err(error) => match bucket.head(&key).await? {
                Some(head) if self.is_ours(&head, &frozen) => self.note(upload, &head.etag).await,
                _ if matches!(error, ObjectError::UploadGone { .. }) => {
                    self.start_over(file, name, &frozen).await
                }
                _ => Err(error.into()),
            },
        }
    }

    /// Has these tasks run again inside COMMITTING; none where small files alone
    /// are lost.
    pub(super) async fn repair(&self, tasks: &[TaskOrdinal]) -> Result<(), FinalizeError> {
        let (store, job) = (&self.resources.store, &self.finished.row.job_id);
        if !tasks.is_empty() {
            store.repair_tasks(job, self.epoch, tasks).await?;
        }
        Ok(())
    }

    async fn note(&self, upload: &UploadRow, etag: &str) -> Result<Completed, FinalizeError> {
        let store = &self.resources.store;
        store
            .upload_completed(&upload.key, self.epoch, etag)
            .await?;
        fault::hit(Failpoint::CompleteRecorded, &upload.url).await?;
        Ok(Completed::Done)
    }

    /// The parts of a file as they were frozen, in order.
    fn frozen(&self, file: FileOrdinal, upload: &UploadRow) -> Vec<Frozen> {
        if let Some(part) = &upload.part {
            return vec![Frozen {
                part: PartOrdinal(0),
                part_id: part.part_id.clone(),
                crc64: part.crc64,
                bytes: part.bytes,
                task: None,
            }];
        }
        let parts = self.finished.parts.iter();
        parts
            .filter(|row| row.part.file == file)
            .map(|row| Frozen {
                part: row.part.part,
                part_id: row.part.part_id.clone(),
                crc64: row.part.crc64,
                bytes: row.part.bytes,
                task: Some(row.task),
            })
            .collect()
    }

    /// Whether an object is this file: never by its size alone. The nonce is set
    /// when an upload is created, and only a completion with the frozen parts
    /// makes an object of it; the checksum is compared where the store has one.
    fn is_ours(&self, head: &Head, frozen: &[Frozen]) -> bool {
        let size: u64 = frozen.iter().map(|part| part.bytes).sum();
        let crc = match frozen {
            [only] => only.crc64,
            _ => self.crc_of(frozen),
        };
        head.nonce.as_deref() == Some(nonce(self.finished))
            && head.size == size
            && head.crc64.is_none_or(|found| found == crc)
    }

    fn crc_of(&self, frozen: &[Frozen]) -> Crc64 {
        let first = frozen.first().and_then(|part| part.task);
        let row = first.and_then(|task| self.finished.parts.iter().find(|row| row.task == task));
        row.map_or(Crc64(0), |row| crc_of_file(self.finished, row.part.file))
    }

    /// What puts these parts again, into the newest upload of the file.
    async fn put_again(
        &self,
        file: FileOrdinal,
        frozen: &[Frozen],
        stale: &[PartOrdinal],
        name: &str,
    ) -> Result<Completed, FinalizeError> {
        let mut tasks: Vec<TaskOrdinal> = Vec::new();
        for part in frozen.iter().filter(|part| stale.contains(&part.part)) {
            match part.task {
                Some(task) => tasks.push(task),
                None => return self.restage(file, name).await,
            }
        }
        tasks.dedup();
        tracing::warn!(
            job.id = %self.finished.row.job_id,
            file.name = name,
            file.tasks = tasks.len(),
            "parts of a file are gone from its upload, their tasks run again"
        );
        Ok(Completed::Lost(tasks))
    }

    /// Has a small file staged again by the next round.
    async fn restage(&self, file: FileOrdinal, name: &str) -> Result<Completed, FinalizeError> {
        let upload = self.uploads[&file];
        if let Some(id) = &upload.upload_id {
            let key = self.output.key(name);
            self.output.bucket().abort_upload(&key, id).await?;
        }
        self.resources.store.upload_aborted(&upload.key).await?;
        tracing::warn!(
            job.id = %self.finished.row.job_id,
            file.name = name,
            "the upload of a small file is gone, it is staged again"
        );
        Ok(Completed::Lost(Vec::new()))
    }

    /// The upload is gone and the object is not ours: everything is put again
    /// under a new upload.
    async fn start_over(
        &self,
        file: FileOrdinal,
        name: &str,
        frozen: &[Frozen],
    ) -> Result<Completed, FinalizeError> {
        let (store, job) = (&self.resources.store, &self.finished.row.job_id);
        let all: Vec<_> = frozen.iter().map(|part| part.part).collect();
        if frozen.iter().any(|part| part.task.is_none()) {
            return self.restage(file, name).await;
        }
        let intent = NewUpload {
            file,
            url: self.output.url().join(name).to_string(),
            nonce: nonce(self.finished).to_owned(),
        };
        store
            .add_uploads(job, self.epoch, std::slice::from_ref(&intent))
            .await?;
        uploads::open(store, self.output.bucket(), job, self.epoch, &intent).await?;
        self.put_again(file, frozen, &all, name).await
    }
}

fn part_ids(frozen: &[Frozen]) -> Vec<String> {
    frozen.iter().map(|part| part.part_id.clone()).collect()
}

/// Takes over the ids of parts that hold the same bytes; returns the others.
fn adopt(frozen: &mut [Frozen], listed: &[ListedPart]) -> Vec<PartOrdinal> {
    let mut stale = Vec::new();
    for part in frozen {
        let found = listed.iter().find(|listed| listed.part == part.part);
        match found {
            Some(found) if found.part_id == part.part_id => {}
            Some(found) if found.size == part.bytes && found.crc64 == Some(part.crc64) => {
                part.part_id.clone_from(&found.part_id);
            }
            _ => stale.push(part.part),
        }
    }
    stale
}

/// [`Mutant::CompleteFromListing`].
fn take_over(frozen: &mut [Frozen], listed: &[ListedPart]) {
    for part in frozen {
        if let Some(found) = listed.iter().find(|listed| listed.part == part.part) {
            part.part_id.clone_from(&found.part_id);
        }
    }
}
