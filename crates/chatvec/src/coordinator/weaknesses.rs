//! What the stores of outputs do not keep, told to whoever publishes there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chatvec_core::ids::JobId;
use chatvec_core::problem::Problem;
use tokio::sync::OnceCell;
use tracing::Instrument as _;

use crate::storage::OutputPrefix;
use crate::storage::object::{Finding, ObjectError, forget_probe, probe_lightly};

/// The warnings of each bucket, found out once in the life of a coordinator:
/// stores seldom learn, and a probe takes a tenth of a tiny job's time.
#[derive(Debug, Clone, Default)]
pub(super) struct Weaknesses {
    known: Arc<Mutex<HashMap<String, Warnings>>>,
}

type Warnings = Arc<OnceCell<Vec<Problem>>>;

impl Weaknesses {
    /// What a job that publishes here should know. The first one to ask for a
    /// bucket probes it, below its own output, where nobody else may be; the
    /// others wait for that.
    ///
    /// A probe that fails says nothing of the store: what fails for good fails
    /// the job elsewhere, with better words, and the next job probes again.
    pub(super) async fn of(&self, output: &OutputPrefix, job: &JobId) -> Vec<Problem> {
        let bucket = output.bucket().url("");
        let warnings = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(bucket.to_string()).or_default())
        };
        let probed = warnings.get_or_try_init(async || {
            let findings = probe(output, job).await?;
            let warnings = findings
                .iter()
                .filter_map(|one: &Finding| one.warning(&bucket));
            let warnings: Vec<_> = warnings.collect();
            for warning in &warnings {
                tracing::warn!(object.url = %bucket, "{warning}");
            }
            Ok::<_, ObjectError>(warnings)
        });
        match probed.await {
            Ok(warnings) => warnings.clone(),
            Err(error) => {
                tracing::info!(object.url = %bucket, %error, "the store could not be probed");
                Vec::new()
            }
        }
    }
}

/// Dropping this stops nothing: a probe that is begun takes its objects with it,
/// whatever becomes of the coordinator's turn.
async fn probe(output: &OutputPrefix, job: &JobId) -> Result<Vec<Finding>, ObjectError> {
    let (bucket, url, job) = (output.bucket().clone(), output.url().clone(), job.clone());
    let probing = async move { probe_lightly(&bucket, &url, job.as_str()).await };
    tokio::spawn(probing.in_current_span())
        .await
        .expect("it does not panic, and the runtime outlives it")
}

/// Removes what a coordinator that died while it probed for this job has left.
pub(super) async fn forget(output: &OutputPrefix, job: &JobId) -> Result<(), ObjectError> {
    forget_probe(output.bucket(), output.url(), job.as_str()).await
}
