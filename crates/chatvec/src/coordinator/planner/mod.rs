//! From a recipe to a plan in the job store: reads headers and indexes, never
//! tensor data, and reports all problems at once.

mod blueprint;
mod draft;
mod inputs;
mod prepare;

pub use blueprint::{Blueprint, PlannedFile, PlannedSide, PlannedTensor, SideContent};
pub use draft::{Draft, draft};
pub use inputs::SurveyedInputs;

use chatvec_core::ids::JobId;
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskFailure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tracing::Instrument as _;

use super::Resources;
use super::epoch::{self, Held};
use super::store::{Epoch, JobError, JobRow, StoreError};
use super::uploads::{self, OpenError};
use super::view::stored_recipe;
use super::weaknesses;
use crate::fault::{self, Failpoint};
use crate::storage::Output;
