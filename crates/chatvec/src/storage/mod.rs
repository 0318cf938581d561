//! Where checkpoints live.

pub mod local;
pub mod pin;
