//! The pure part of chatvec: everything that can be computed from bytes and
//! numbers alone. No async, no file, no network, no clock, no randomness; a
//! test in the workspace enforces it.
//!
//! In reading order, from what the user writes to what is published:

pub mod ids;
pub mod problem;

pub mod recipe;

pub mod checkpoint;
pub mod dtype;
pub mod header;

pub mod align;
pub mod plan;

pub mod job;
pub mod submission;
pub mod task;

pub mod kernel;
pub mod stats;

pub mod card;
pub mod manifest;
pub mod sidefile;
