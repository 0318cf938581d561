//! Where checkpoints live.

pub mod file;
pub mod local;
mod location;
pub(crate) mod lock;
pub mod object;
mod output;
pub mod pin;
mod source;
mod survey;

pub use location::{Location, LocationError};
pub use object::ObjectStorage;
pub use output::{
    Output, OutputError, OutputFolder, OutputPrefix, PART_BYTES_MIN, Partials, STATE_DIR, Standing,
};
pub use source::{ReadError, read_source};
pub use survey::{SurveyError, Surveyed, survey, survey_all};
