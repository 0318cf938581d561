//! What a measurement found, kept so that the tables of the documentation are
//! made from it, and so that one page may use the figures of several runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::page;
use crate::python::repository;

/// Figures with a name, which their marks in a page have too.
pub trait Figures: Serialize + DeserializeOwned {
    /// The name.
    const NAME: &'static str;

    /// The figures as Markdown.
    fn markdown(&self) -> String;

    /// Keeps them for pages and for the projection.
    ///
    /// # Errors
    /// If they cannot be written.
    fn keep(&self) -> anyhow::Result<()> {
        fs::create_dir_all(folder())?;
        Ok(fs::write(
            file(Self::NAME),
            serde_json::to_vec_pretty(self)?,
        )?)
    }

    /// Those of the last run.
    ///
    /// # Errors
    /// If there was none, or one of another version of this tool.
    fn kept() -> anyhow::Result<Self> {
        let file = file(Self::NAME);
        let bytes = fs::read(&file);
        let missing = || format!("no figures of `{}`: measure them first", Self::NAME);
        let figures = serde_json::from_slice(&bytes.with_context(missing)?);
        figures.with_context(|| file.display().to_string())
    }

    /// Puts them into a page.
    ///
    /// # Errors
    /// If the page has no marks for them.
    fn put_into(&self, page: &Path) -> anyhow::Result<()> {
        page::put(page, Self::NAME, &self.markdown())
    }
}

fn file(name: &str) -> PathBuf {
    folder().join(format!("{name}.json"))
}

fn folder() -> PathBuf {
    repository().join("target/bench/figures")
}

/// The value below which this share of the values lies; 0 where there are none.
pub(super) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let ordinal = (values.len() as f64 * share).ceil() as usize;
    let last = values.len().saturating_sub(1);
    let found = values.get(ordinal.saturating_sub(1).min(last));
    found.copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.5), 50.0);
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert_eq!(percentile(&mut values, 1.0), 100.0);
        assert_eq!(percentile(&mut [7.0], 0.01), 7.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }
}
