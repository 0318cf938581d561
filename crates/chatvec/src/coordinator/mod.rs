//! The coordinator: plans jobs, gives out tasks, publishes checkpoints.

pub mod store;
