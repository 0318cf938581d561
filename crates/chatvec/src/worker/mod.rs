//! The worker: leases tasks, reads, merges, writes, reports.
//!
//! A worker has no database and no state of its own: whatever it knows it got
//! with a lease. Its memory is its budget, whatever the model's size.

mod capacity;
mod client;
pub mod execute;
mod failure;
pub mod gate;
mod heartbeat;
mod held;
mod report;
mod run;
mod task;

pub use client::WorkerClient;
pub use failure::Stop;
pub use run::{WhenExhausted, Worker, WorkerEnd, WorkerOptions, memory_of_slots};
