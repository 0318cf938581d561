//! Where checkpoints live.

pub mod file;
mod location;
pub mod pin;
mod survey;

pub use location::{Location, LocationError};
pub use survey::{SurveyError, Surveyed, survey};
