//! Multipart uploads of output files. A row is written before its upload is
//! created, so that whatever a crash leaves in storage is known here.

use std::fmt;
use std::str::FromStr;

use chatvec_core::ids::{Crc64, FileOrdinal, JobId};
use chatvec_core::job::UnknownState;
use sqlx::any::AnyRow;

use super::decode::stored;
use super::error::exactly_one;
use super::job::lock_job;
use super::{Epoch, Store, StoreError, Tx, decode, values};

/// What became of an upload. The schema's CHECK lists the same names.
///
/// ```text
/// INTENT ──► OPEN ──► COMPLETED
///    └─────────┴────► ABORTED
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// It is about to be created; whether storage knows it is not known.
    Intent,
    /// Parts may be put.
    Open,
    /// The object is there.
    Completed,
    /// Storage has forgotten it.
    Aborted,
}

impl UploadState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Intent, Self::Open, Self::Completed, Self::Aborted];

    /// The name used in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intent => "INTENT",
            Self::Open => "OPEN",
            Self::Completed => "COMPLETED",
            Self::Aborted => "ABORTED",
        }
    }
}

impl fmt::Display for UploadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for UploadState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| UnknownState(name.to_owned()))
    }
}

/// An upload that is about to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// The output file: first the weight files, then the small ones.
    pub file: FileOrdinal,
    /// The URL of the object.
    pub url: String,
    /// What the object will bear as metadata.
    pub nonce: String,
}

/// Which upload: a file has one of each coordinator that took it up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadKey {
    /// The job.
    pub job: JobId,
    /// The output file.
    pub file: FileOrdinal,
    /// Of the coordinator that made it.
    pub epoch: Epoch,
}

/// The one part of a small file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinglePart {
    /// What storage calls it.
    pub part_id: String,
    /// The checksum of its bytes.
    pub crc64: Crc64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// An upload as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// Which it is.
    pub key: UploadKey,
    /// The URL of the object.
    pub url: String,
    /// What the object bears as metadata.
    pub nonce: String,
    /// What storage calls the upload, once it has answered.
    pub upload_id: Option<String>,
    /// What became of it.
    pub state: UploadState,
    /// The one part of a small file, once it is put; never of a weight file.
    pub part: Option<SinglePart>,
    /// What storage says the finished object is, if it is COMPLETED.
    pub etag: Option<String>,
    /// When the row was made, by the database's clock.
    pub created_at_ms: i64,
}

macro_rules! upload_columns {
    () => {
        "job_id, file_no, epoch, url, nonce, upload_id, state, part_id, part_crc64, \
         part_bytes, etag, created_at_ms"
    };
}

const ADD_UPLOADS: &str = "-- add_uploads
    INSERT INTO upload (job_id, epoch, created_at_ms, file_no, url, nonce)
    VALUES ";

const OPEN_UPLOAD: &str = "-- open_upload
    UPDATE upload SET state = 'OPEN', upload_id = $4
    WHERE job_id = $1 AND file_no = $2 AND epoch = $3 AND state = 'INTENT'";

const RECORD_SINGLE_PART: &str = "-- record_single_part
    UPDATE upload SET part_id = $4, part_crc64 = $5, part_bytes = $6
    WHERE job_id = $1 AND file_no = $2 AND epoch = $3 AND state = 'OPEN'";

const COMPLETE_UPLOAD: &str = "-- complete_upload
    UPDATE upload SET state = 'COMPLETED', etag = $4
    WHERE job_id = $1 AND file_no = $2 AND epoch = $3 AND state IN ('OPEN', 'COMPLETED')";

const UPLOAD_ABORTED: &str = "-- upload_aborted
    UPDATE upload SET state = 'ABORTED'
    WHERE job_id = $1 AND file_no = $2 AND epoch = $3
      AND state IN ('INTENT', 'OPEN', 'ABORTED')";

const UPLOADS: &str = concat!(
    "-- uploads
    SELECT ",
    upload_columns!(),
    " FROM upload WHERE job_id = $1 ORDER BY file_no, epoch"
);

const UPLOAD_STATE: &str = "-- upload_state
    SELECT state FROM upload WHERE job_id = $1 AND file_no = $2 AND epoch = $3";

/// A planner or finalizer whose job ends under its hands may be creating the
/// upload right now: its lease is waited for.
const UPLOADS_TO_ABORT: &str = concat!(
    "-- uploads_to_abort
    SELECT ",
    upload_columns!(),
    " FROM upload
    WHERE upload.state IN ('INTENT', 'OPEN')
      AND EXISTS (SELECT 1 FROM job WHERE job.job_id = upload.job_id
                  AND (job.epoch > upload.epoch OR job.epoch_expires_at_ms <= {now})
                  AND job.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED'))
      AND NOT EXISTS (SELECT 1 FROM task WHERE task.job_id = upload.job_id
                      AND task.state = 'LEASED')
    UNION ALL
    SELECT ",
    upload_columns!(),
    " FROM upload
    WHERE upload.state IN ('INTENT', 'OPEN')
      AND EXISTS (SELECT 1 FROM upload AS later WHERE later.job_id = upload.job_id
                  AND later.file_no = upload.file_no AND later.epoch > upload.epoch)
      AND EXISTS (SELECT 1 FROM job WHERE job.job_id = upload.job_id
                  AND job.state IN ('PLANNING', 'QUEUED', 'RUNNING', 'COMMITTING'))
    ORDER BY job_id, file_no, epoch"
);

impl Store {
    /// Notes uploads that the planner or finalizer of this epoch is about to
    /// create, as INTENT.
    ///
    /// Transaction `add_uploads`.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] if another coordinator took over,
    /// [`StoreError::WrongState`] if the job has ended or is cancelling.
    pub async fn add_uploads(
        &self,
        job: &JobId,
        epoch: Epoch,
        uploads: &[NewUpload],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        hold(&mut tx, job, epoch).await?;
        for batch in values::slices(uploads) {
            let rows = values::rows(batch.len(), "$1, $2, {now}, ", 3, 3);
            let mut query = sqlx::query(tx.sql(&format!("{ADD_UPLOADS}{rows}")))
                .bind(job.as_str())
                .bind(stored(epoch.0)?);
            for upload in batch {
                query = query
                    .bind(i64::from(upload.file.0))
                    .bind(upload.url.as_str())
                    .bind(upload.nonce.as_str());
            }
            query.execute(tx.connection()).await?;
        }
        tx.commit().await
    }

    /// Storage has created the upload: INTENT becomes OPEN, and leases of the
    /// file's tasks name it from now on. The caller's epoch is that of the key.
    ///
    /// Transaction `open_upload`.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] and [`StoreError::WrongState`] as of
    /// [`Store::add_uploads`], [`StoreError::WrongUploadState`] if it is not
    /// INTENT: then the caller aborts what it has just created.
    pub async fn open_upload(&self, key: &UploadKey, upload_id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        hold(&mut tx, &key.job, key.epoch).await?;
        let done = sqlx::query(tx.sql(OPEN_UPLOAD))
            .bind(key.job.as_str())
            .bind(i64::from(key.file.0))
            .bind(stored(key.epoch.0)?)
            .bind(upload_id)
            .execute(tx.connection())
            .await?;
        moved(&mut tx, key, done.rows_affected(), UploadState::Intent).await?;
        tx.commit().await
    }

    /// The one part of a small file is put. The caller's epoch is that of the key.
    ///
    /// Transaction `record_single_part`.
    ///
    /// # Errors
    /// As of [`Store::open_upload`], if the upload is not OPEN.
    pub async fn record_single_part(
        &self,
        key: &UploadKey,
        part: &SinglePart,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        hold(&mut tx, &key.job, key.epoch).await?;
        let done = sqlx::query(tx.sql(RECORD_SINGLE_PART))
            .bind(key.job.as_str())
            .bind(i64::from(key.file.0))
            .bind(stored(key.epoch.0)?)
            .bind(part.part_id.as_str())
            .bind(part.crc64.0.cast_signed())
            .bind(stored(part.bytes)?)
            .execute(tx.connection())
            .await?;
        moved(&mut tx, key, done.rows_affected(), UploadState::Open).await?;
        tx.commit().await
    }

    /// The finalizer of epoch `held` has proved that the object is there.
    /// Repeating it changes nothing but the ETag.
    ///
    /// Transaction `upload_completed`.
    ///
    /// # Errors
    /// As of [`Store::open_upload`], if the upload is neither OPEN nor COMPLETED.
    pub async fn upload_completed(
        &self,
        key: &UploadKey,
        held: Epoch,
        etag: &str,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        hold(&mut tx, &key.job, held).await?;
        let done = sqlx::query(tx.sql(COMPLETE_UPLOAD))
            .bind(key.job.as_str())
            .bind(i64::from(key.file.0))
            .bind(stored(key.epoch.0)?)
            .bind(etag)
            .execute(tx.connection())
            .await?;
        moved(&mut tx, key, done.rows_affected(), UploadState::Open).await?;
        tx.commit().await
    }

    /// Storage knows nothing of the upload any more. Repeating it changes nothing.
    ///
    /// Transaction `upload_aborted`.
    ///
    /// # Errors
    /// [`StoreError::WrongUploadState`] if it was completed.
    pub async fn upload_aborted(&self, key: &UploadKey) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(tx.sql(UPLOAD_ABORTED))
            .bind(key.job.as_str())
            .bind(i64::from(key.file.0))
            .bind(stored(key.epoch.0)?)
            .execute(tx.connection())
            .await?;
        moved(&mut tx, key, done.rows_affected(), UploadState::Open).await?;
        tx.commit().await
    }

    /// Every upload of the job by file, of each file the latest last.
    pub async fn uploads(&self, job: &JobId) -> Result<Vec<UploadRow>, StoreError> {
        let rows = sqlx::query(self.sql(UPLOADS))
            .bind(job.as_str())
            .fetch_all(self.database())
            .await?;
        rows.iter().map(UploadRow::read).collect()
    }

    /// The uploads that nobody will complete: of jobs that have ended and of
    /// which no task is leased, and those whose file has a later upload.
    pub async fn uploads_to_abort(&self) -> Result<Vec<UploadRow>, StoreError> {
        let rows = sqlx::query(self.sql(UPLOADS_TO_ABORT))
            .fetch_all(self.database())
            .await?;
        rows.iter().map(UploadRow::read).collect()
    }
}

impl UploadRow {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            key: UploadKey {
                job: JobId(decode::text(row, "job_id")?),
                file: FileOrdinal(decode::number(row, "file_no")?),
                epoch: Epoch(decode::number(row, "epoch")?),
            },
            url: decode::text(row, "url")?,
            nonce: decode::text(row, "nonce")?,
            upload_id: decode::text_or_null(row, "upload_id")?,
            state: decode::name(row, "state")?,
            part: SinglePart::read(row)?,
            etag: decode::text_or_null(row, "etag")?,
            created_at_ms: decode::number(row, "created_at_ms")?,
        })
    }
}

impl SinglePart {
    fn read(row: &AnyRow) -> Result<Option<Self>, StoreError> {
        let Some(part_id) = decode::text_or_null(row, "part_id")? else {
            return Ok(None);
        };
        let crc64: i64 = decode::number(row, "part_crc64")?;
        Ok(Some(Self {
            part_id,
            crc64: Crc64(crc64.cast_unsigned()),
            bytes: decode::number(row, "part_bytes")?,
        }))
    }
}

/// Locks the job for a planner or finalizer that still is the one.
async fn hold(tx: &mut Tx, job: &JobId, held: Epoch) -> Result<(), StoreError> {
    let row = lock_job(tx, job).await?;
    row.check_epoch(held)?;
    if row.state.is_unwanted() {
        return Err(row.wrong_state());
    }
    Ok(())
}

/// The check of a write to one upload that has to be in `expected`.
async fn moved(
    tx: &mut Tx,
    key: &UploadKey,
    rows: u64,
    expected: UploadState,
) -> Result<(), StoreError> {
    let state = match rows {
        0 => upload_state(tx, key).await?,
        _ => expected,
    };
    exactly_one(rows, || StoreError::WrongUploadState {
        upload: key.clone(),
        state,
        expected,
    })
}

async fn upload_state(tx: &mut Tx, key: &UploadKey) -> Result<UploadState, StoreError> {
    let row = sqlx::query(tx.sql(UPLOAD_STATE))
        .bind(key.job.as_str())
        .bind(i64::from(key.file.0))
        .bind(stored(key.epoch.0)?)
        .fetch_optional(tx.connection())
        .await?
        .ok_or_else(|| StoreError::UploadNotFound(key.clone()))?;
    decode::name(&row, "state")
}
