//! What clients of object storage are made from: variables, named as the
//! stores' own tools name them.

use std::collections::BTreeMap;
use std::time::Duration;

/// Requests that one process has under way to one bucket at most, unless told
/// otherwise: some 40 fill 25 Gbit/s.
const CONCURRENCY_MAX: usize = 64;

/// The slowest that a body may be.
const BYTES_PER_SECOND_MIN: u64 = 5_000_000;

/// The settings of [`ObjectStorage`](super::ObjectStorage).
#[derive(Clone)]
pub struct ObjectStorageOptions {
    /// Variables such as `AWS_ENDPOINT_URL`, by upper-case name.
    variables: BTreeMap<String, String>,
    /// The ceiling of each bucket's limiter. Too low, and the network idles;
    /// too high, and a small store is flooded before it can say so.
    pub(super) concurrency_max: usize,
    pub(super) patience: Patience,
}

/// How long stores are waited for. The usual values are the default; tests of
/// what happens when a store is silent have less.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// What a request may take besides its body.
    pub answer: Duration,
    /// How long a body may stand still, or the first byte of an answer to a read
    /// may take.
    pub stall: Duration,
    /// What completing an upload may take: stores put large objects together
    /// while the client waits.
    pub completion: Duration,
    /// How long a store may have no room before that is a failure.
    pub throttling: Duration,
    /// The first step of the back-off, which is full jitter over `2ⁿ`.
    pub backoff_first: Duration,
    /// The ceiling of the back-off.
    pub backoff_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(20),
            completion: Duration::from_secs(300),
            throttling: Duration::from_secs(600),
            backoff_first: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
        }
    }
}

impl Patience {
    /// The time that a request with a body of so many bytes may take.
    pub(super) fn for_body(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
    }

    /// The longest pause before the n-th repetition.
    pub(super) fn backoff(&self, count: u32) -> Duration {
        let ceiling = self.backoff_first.saturating_mul(1 << count.min(16));
        ceiling.min(self.backoff_max)
    }
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
            patience: Patience::default(),
        }
    }

    /// The same settings with another ceiling of requests under way to a bucket.
    #[must_use]
    pub fn with_concurrency_max(mut self, concurrency_max: usize) -> Self {
        self.concurrency_max = concurrency_max.max(1);
        self
    }

    /// The same settings with other patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
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
            .field("patience", &self.patience)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_have_more_time() {
        let patience = Patience::default();
        assert_eq!(patience.for_body(0), Duration::from_secs(30));
        assert_eq!(patience.for_body(64 << 20), Duration::from_secs(43));
    }

    #[test]
    fn the_back_off_grows_to_its_ceiling() {
        let patience = Patience::default();
        assert_eq!(patience.backoff(1), Duration::from_millis(400));
        assert_eq!(patience.backoff(2), Duration::from_millis(800));
        assert_eq!(patience.backoff(100), patience.backoff_max);
    }
}
