//! Where checkpoints live.
