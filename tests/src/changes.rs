//! What a merge changed most, told from the statistics that it left.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::table::Table;

/// The part of `chatvec.stats.json` that is shown.
#[derive(Deserialize)]
struct Statistics {
    tensors: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    measures: Option<Measures>,
}

#[derive(Deserialize)]
struct Measures {
    relative_change: Option<f64>,
    changed_share: Option<f64>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    cosine: Option<f64>,
}

/// A table of the `count` tensors that moved farthest from cp, relative to their
/// own size; cosines are those of the first vector.
///
/// # Errors
/// If the output folder has no statistics, or they are malformed.
pub fn greatest(out: &Path, count: usize) -> anyhow::Result<String> {
    let path = out.join("chatvec.stats.json");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let statistics: Statistics = serde_json::from_slice(&bytes)
        .with_context(|| format!("malformed statistics in {}", path.display()))?;
    let mut changes: Vec<(f64, &Tensor, &Measures)> = statistics
        .tensors
        .iter()
        .filter_map(|tensor| {
            let measures = tensor.measures.as_ref()?;
            Some((measures.relative_change?, tensor, measures))
        })
        .collect();
    changes.sort_by(|a, b| b.0.total_cmp(&a.0));

    let mut table = Table::new(&["tensor", "‖t‖ / ‖cp‖", "changed", "cos(τ, cp − base)"]);
    for (change, tensor, measures) in changes.into_iter().take(count) {
        let or_dash = |value: Option<f64>, show: fn(f64) -> String| {
            value.map_or_else(|| "–".to_owned(), show)
        };
        let cosine = measures.vectors.first().and_then(|vector| vector.cosine);
        table.row(&[
            tensor.name.clone(),
            format!("{change:.4}"),
            or_dash(measures.changed_share, |share| {
                format!("{:.1} %", share * 100.0)
            }),
            or_dash(cosine, |cosine| format!("{cosine:+.3}")),
        ]);
    }
    Ok(table.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_changes_come_first_and_what_was_not_measured_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let tensor = |name: &str, change: f64| {
            serde_json::json!({ "name": name, "measures": {
                "relative_change": change, "changed_share": 0.5, "vectors": [{ "cosine": null }],
            }})
        };
        let statistics = serde_json::json!({ "tensors": [
            tensor("a", 0.1),
            { "name": "copied", "measures": null },
            tensor("b", 0.3),
            tensor("c", 0.2),
        ]});
        fs::write(
            folder.path().join("chatvec.stats.json"),
            statistics.to_string(),
        )
        .expect("written");
        let table = greatest(folder.path(), 2).expect("a table");
        let names: Vec<_> = table.lines().skip(2).map(|line| &line[2..3]).collect();
        assert_eq!(names, ["b", "c"]);
        assert!(table.contains("50.0 %"), "{table}");
    }
}
