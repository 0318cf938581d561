//! Coordinators on Postgres and workers between buckets, each a process of its
//! own, as clients see them.

mod bad_days;
mod bad_input;
mod coordinators;
mod jobs;
mod outputs;
mod repairs;
mod scene;
mod stores;
mod workers;
