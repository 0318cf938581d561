//! The half of publishing that only rolls forward: claim, completed uploads,
//! manifest.
//!
//! The manifest comes first as a claim, by a conditional write, so that no other
//! job can publish below the same prefix, and last as the proof that the
//! checkpoint is complete, under the condition that the claim still stands.

use bytes::Bytes;
use chatvec_core::ids::{FileOrdinal, TaskOrdinal};
use chatvec_core::manifest::{self, FILE_NAME as MANIFEST_NAME, Output, PublishState, Record};
use chatvec_core::problem::Problem;
use chatvec_core::task::FailureKind;
use futures_util::stream::{self, StreamExt as _};

use super::super::record::{is_leftover, nonce, record, weights};
use super::super::{FinalizeError, Finished, Published, failure, taken};
use super::complete::{Completed, Completer};
use super::small_files;
use crate::coordinator::Resources;
use crate::coordinator::store::{Epoch, UploadRow};
use crate::coordinator::weaknesses;
use crate::fault::{self, Failpoint, Mutant};
use crate::storage::OutputPrefix;
use crate::storage::object::Put;

/// Uploads completed at once: a store may take minutes for a large one.
const FILES_AT_ONCE: usize = 16;

/// The turn at publishing of a job that nobody had to take over: the first after
/// the one at planning.
const UNDISTURBED: Epoch = Epoch(2);

/// Makes the checkpoint visible. A repeat goes on where an earlier call
/// stopped, and gives the same manifest.
pub(in super::super) async fn publish(
    resources: &Resources,
    finished: &Finished,
    output: &OutputPrefix,
    epoch: Epoch,
    committing_at_ms: i64,
) -> Result<Published, FinalizeError> {
    let uploads = resources.store.uploads(&finished.row.job_id).await?;
    let publishing = Publishing {
        finished,
        output,
        epoch,
        completer: Completer::new(resources, finished, output, epoch, &uploads),
        uploads: &uploads,
    };
    publishing.run(&record(finished, committing_at_ms)).await
}

/// One job on its way below its prefix.
struct Publishing<'a> {
    finished: &'a Finished,
    output: &'a OutputPrefix,
    epoch: Epoch,
    completer: Completer<'a>,
    uploads: &'a [UploadRow],
}

/// What stands at the manifest's key.
enum Claim {
    /// The job's own claim, with its ETag.
    Held(String),
    /// The job's own final manifest: an earlier coordinator had come to the end.
    Final,
    /// Another's.
    Taken,
}

impl Publishing<'_> {
    async fn run(&self, record: &Record) -> Result<Published, FinalizeError> {
        let outputs = match self.outputs() {
            Ok(outputs) => outputs,
            Err(damage) => return Ok(damage),
        };
        let complete = Published::Complete {
            files: outputs.len(),
        };
        let claim = match self.claim(record).await? {
            Claim::Held(etag) => etag,
            Claim::Final => return Ok(complete),
            Claim::Taken => return Ok(self.taken()),
        };
        let url = self.output.url();
        fault::hit(Failpoint::OutputClaimed, url).await?;
        let body = Bytes::from(manifest::complete(record, &outputs));
        if fault::is_planted(Mutant::ManifestBeforeFiles) {
            self.seal(body.clone(), &claim).await?;
        }
        let blueprint = &self.finished.blueprint;
        let weights = (0u32..).map(FileOrdinal).zip(&blueprint.files);
        let weights = weights.map(|(ordinal, file)| (ordinal, file.name.as_str()));
        if let Some(end) = self.complete_all(weights.collect()).await? {
            return Ok(end);
        }
        fault::hit(Failpoint::WeightsComplete, url).await?;
        let (index, sides): (Vec<_>, Vec<_>) = small_files(self.finished)
            .partition(|(_, path)| blueprint.index.as_ref().is_some_and(|i| i.path == *path));
        if let Some(end) = self.complete_all(sides).await? {
            return Ok(end);
        }
        fault::hit(Failpoint::SidesComplete, url).await?;
        if self.finished.overwrite {
            self.remove_leftovers().await?;
        }
        if let Some(end) = self.complete_all(index).await? {
            return Ok(end);
        }
        if self.epoch > UNDISTURBED {
            // A probe of a coordinator that died may have come to the store late.
            weaknesses::forget(self.output, &self.finished.row.job_id).await?;
        }
        fault::hit(Failpoint::ManifestReady, url).await?;
        match self.seal(body, &claim).await? {
            true => Ok(complete),
            false => Ok(self.taken()),
        }
    }

    /// Every file of the output with its checksum: a pure function of the frozen
    /// parts and the staged files.
    fn outputs(&self) -> Result<Vec<Output>, Published> {
        let mut outputs = weights(self.finished);
        for (ordinal, path) in small_files(self.finished) {
            let staged = self
                .uploads
                .iter()
                .filter(|upload| upload.key.file == ordinal)
                .find_map(|upload| upload.part.as_ref());
            let Some(part) = staged else {
                let problem = Problem::new(path, "expected a staged file, found none");
                return Err(Published::Refused(failure(FailureKind::Internal, problem)));
            };
            outputs.push(Output::new(path, part.bytes, part.crc64));
        }
        Ok(outputs)
    }

    /// Puts the manifest below the prefix as a claim, unless it is there already.
    async fn claim(&self, record: &Record) -> Result<Claim, FinalizeError> {
        let (bucket, key) = (self.output.bucket(), self.output.key(MANIFEST_NAME));
        let body = Bytes::from(manifest::claim(record));
        // Twice at most: an unclear answer to the first put may have been a yes.
        for _ in 0..2 {
            let standing = self.output.manifest().await?;
            let put = match &standing {
                None => {
                    bucket
                        .put_new(&key, body.clone(), nonce(self.finished))
                        .await?
                }
                Some((bytes, etag)) => match manifest::parse(bytes) {
                    Ok(ours) if ours.job == self.finished.row.job_id => {
                        return Ok(match ours.state {
                            PublishState::Publishing => Claim::Held(etag.clone()),
                            PublishState::Complete => Claim::Final,
                        });
                    }
                    // Only the very manifest that stood there at planning may go.
                    _ if self.finished.overwrite
                        && self.finished.blueprint.standing.as_ref() == Some(etag) =>
                    {
                        bucket
                            .put_over(&key, body.clone(), nonce(self.finished), etag)
                            .await?
                    }
                    _ => return Ok(Claim::Taken),
                },
            };
            if let Put::Done { etag } = put {
                return Ok(Claim::Held(etag));
            }
        }
        Ok(Claim::Taken)
    }

    /// Completes the uploads of these files; what ends or delays the job, if
    /// something does. One file's trouble keeps no other from being repaired.
    async fn complete_all(
        &self,
        files: Vec<(FileOrdinal, &str)>,
    ) -> Result<Option<Published>, FinalizeError> {
        let completions: Vec<_> = files
            .into_iter()
            .map(|(ordinal, name)| self.completer.complete(ordinal, name))
            .collect();
        let completed: Vec<_> = stream::iter(completions)
            .buffer_unordered(FILES_AT_ONCE)
            .collect()
            .await;
        let (mut lost, mut trouble) = (None::<Vec<TaskOrdinal>>, None);
        for one in completed {
            match one {
                Ok(Completed::Done) => {}
                Ok(Completed::Lost(tasks)) => lost.get_or_insert_default().extend(tasks),
                Ok(Completed::Damaged(damage)) => return Ok(Some(Published::Refused(damage))),
                Err(error) => trouble = Some(error),
            }
        }
        if let Some(tasks) = lost {
            self.completer.repair(&tasks).await?;
            return Ok(Some(Published::Repairing));
        }
        trouble.map_or(Ok(None), Err)
    }

    async fn remove_leftovers(&self) -> Result<(), FinalizeError> {
        for name in self.output.sizes().await?.into_keys() {
            if !name.contains('/') && is_leftover(self.finished, &name) {
                self.output.bucket().delete(&self.output.key(&name)).await?;
            }
        }
        Ok(())
    }

    /// Replaces the claim by the final manifest; whether it was still there.
    async fn seal(&self, body: Bytes, claim: &str) -> Result<bool, FinalizeError> {
        let (bucket, key) = (self.output.bucket(), self.output.key(MANIFEST_NAME));
        let nonce = nonce(self.finished);
        if let Put::Done { .. } = bucket.put_over(&key, body.clone(), nonce, claim).await? {
            return Ok(true);
        }
        // An earlier coordinator, or a put whose answer was lost, came first.
        let standing = self.output.manifest().await?;
        Ok(standing.is_some_and(|(bytes, _)| bytes == body))
    }

    fn taken(&self) -> Published {
        let place = self.output.url().join(MANIFEST_NAME).to_string();
        taken(
            place,
            "submit the job with another output; if the other job is dead, remove this object first",
        )
    }
}
