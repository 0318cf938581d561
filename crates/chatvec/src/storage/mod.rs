//! Where checkpoints live.

pub mod location;
pub mod pinned;
pub mod survey;
