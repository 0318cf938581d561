//! The worker: leases tasks, reads, merges, writes, reports.

pub mod execute;
pub mod failure;
pub mod gate;
