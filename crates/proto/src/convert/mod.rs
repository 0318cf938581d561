//! Between wire messages and core's types. Nothing else in the product knows
//! both.

mod fleet;
mod job;
mod recipe;
mod report;
mod request;
mod task;

pub use fleet::{PlanView, PlannedFileView, TaskView, TenantView, WorkerView, task_state};
pub use job::{Condition, JobView, ProgressView, ShareView, TimeMs, job_state, labels_to_wire};
pub use recipe::{recipe_from_wire, recipe_to_wire};
pub use report::{decode_sums, encode_sums};
pub use request::{JobsWanted, Page, Submission, TasksWanted, page};
pub use task::{decode_spec, encode_spec};

/// A message that breaks the contract: a field that is missing or has a value
/// that the contract does not name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be set is not.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// An enumeration holds `UNSPECIFIED` or a number that it does not name.
    #[error("field `{field}` has the unknown value {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The number on the wire.
        value: i32,
    },
    /// A field holds a value that the contract excludes.
    #[error("field `{0}` has a value out of its range")]
    OutOfRange(&'static str),
    /// The bytes are no such message.
    #[error("stored message cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
}

fn required<T>(value: Option<T>, field: &'static str) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing(field))
}

#[cfg(test)]
mod tests;
