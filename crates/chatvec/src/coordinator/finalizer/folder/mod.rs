//! Publishing into a folder: unfinished files are staged under `OUT/.chatvec/`
//! and renamed into place.
//!
//! Calls block. Run them on threads that may.

mod publish;
mod stage;

pub(super) use publish::publish;
pub(super) use stage::stage;
