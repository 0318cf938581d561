//! Where checkpoints live.

pub mod file;
pub mod local;
mod location;
pub(crate) mod lock;
pub mod object;
mod output;
pub mod pin;
mod survey;

pub use location::{Location, LocationError};
pub use output::{OutputFolder, Partials, STATE_DIR};
pub use survey::{SurveyError, Surveyed, survey};
