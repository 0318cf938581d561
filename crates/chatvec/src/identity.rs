//! Ids and jitter: the only place that draws random numbers.

use chatvec_core::ids::{JobId, RequestId, WorkerId};
use uuid::Uuid;

use crate::fault;

#[expect(
    clippy::disallowed_methods,
    reason = "ids are made here and nowhere else"
)]
fn fresh() -> Uuid {
    Uuid::new_v4()
}

/// An id for a new job.
pub fn job_id() -> JobId {
    JobId(fresh().to_string())
}

/// An id for this process as a worker.
pub fn worker_id() -> WorkerId {
    WorkerId(fault::named_worker(fresh().to_string()))
}

/// An id for this process in its traces.
pub fn instance_id() -> String {
    fresh().to_string()
}

/// A name for one `CreateJob` call.
pub fn request_id() -> RequestId {
    RequestId(fresh().to_string())
}

/// A number in `0.0..1.0`, for back-offs that must not keep step.
pub fn jitter() -> f64 {
    (fresh().as_u128() >> 64) as u64 as f64 / u64::MAX as f64
}

/// The name of this machine, for people who look at a list of workers.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
