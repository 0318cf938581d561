//! What clients of object storage are made from: variables, named as the
//! stores' own tools name them.

use std::collections::BTreeMap;

/// Requests that one process has under way to one bucket at most, unless told
/// otherwise: some 40 fill 25 Gbit/s.
const CONCURRENCY_MAX: usize = 64;

/// The settings of [`ObjectStorage`](super::ObjectStorage).
#[derive(Clone)]
pub struct ObjectStorageOptions {
    /// Variables such as `AWS_ENDPOINT_URL`, by upper-case name.
    variables: BTreeMap<String, String>,
    /// The ceiling of each bucket's limiter. Too low, and the network idles;
    /// too high, and a small store is flooded before it can say so.
    pub(super) concurrency_max: usize,
}

impl ObjectStorageOptions {
    /// From this process's environment: everything that begins with `AWS_`,
    /// `GOOGLE_` or `AZURE_`.
    pub fn from_environment() -> Self {
        Self::from_variables(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// From these variables alone.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_ours = |name: &str| {
            ["AWS_", "GOOGLE_", "AZURE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        let variables = variables.into_iter();
        Self {
            // Set to nothing means not set, as in the stores' own tools.
            variables: variables
                .filter(|(name, value)| is_ours(name) && !value.is_empty())
                .collect(),
            concurrency_max: CONCURRENCY_MAX,
        }
    }

    /// The same settings with another ceiling of requests under way to a bucket.
    #[must_use]
    pub fn with_concurrency_max(mut self, concurrency_max: usize) -> Self {
        self.concurrency_max = concurrency_max.max(1);
        self
    }

    /// The variables of one kind of store, by the library's lower-case names.
    pub(super) fn of(&self, prefix: &'static str) -> impl Iterator<Item = (String, &str)> {
        let variables = self.variables.iter();
        variables
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }
}

impl std::fmt::Debug for ObjectStorageOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_struct("ObjectStorageOptions")
            .field("variables", &self.variables.keys())
            .field("concurrency_max", &self.concurrency_max)
            .finish()
    }
}
