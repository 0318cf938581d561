//! The service as processes: a coordinator, workers and clients, over loopback.

mod api;
mod automation;
mod coordinator;
mod faults;
mod jobs;
pub(crate) mod scene;
