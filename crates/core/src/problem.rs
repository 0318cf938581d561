//! One thing that is wrong with what the user gave, told so that it can be mended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A problem in a recipe or in its inputs. All problems of a job are collected
/// and shown at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The object: a recipe path (`vectors[1].lambda`), a file, or a tensor's name.
    pub subject: String,
    /// What was expected and what was found. Lower case, no full stop.
    pub message: String,
    /// What to do about it, if there is something to say.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// The same problem with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}
