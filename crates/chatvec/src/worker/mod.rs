//! The worker: leases tasks, reads, merges, writes, reports.
