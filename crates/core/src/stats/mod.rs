//! Statistics of a merge: per slice while it is computed, folded per tensor,
//! and the report over the model.

pub mod report;

use serde::{Deserialize, Serialize};

/// What one chat vector contributed to a slice. Elements with a non-finite
/// input count in none of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct VectorSums {
    /// Position of the vector in the recipe.
    pub vector: u32,
    /// Σ (chat − base)².
    pub delta_sq: f64,
    /// Σ base².
    pub base_sq: f64,
    /// Σ (cp − base)².
    pub drift_sq: f64,
    /// Σ (chat − base)(cp − base).
    pub delta_dot_drift: f64,
}

/// What the kernel measures of a slice of one tensor while it merges it.
/// With the formulas of the crate's kernel: `t = Σ λᵢ(chatᵢ − baseᵢ)`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SliceSums {
    /// Elements seen.
    pub elements: u64,
    /// Elements whose output bits differ from cp converted to the output type.
    pub changed: u64,
    /// Inputs (cp, chat or base values) that are NaN or infinite.
    pub nonfinite_inputs: u64,
    /// Elements whose inputs are all finite and whose output is not.
    pub overflows: u64,
    /// Σ t².
    pub t_sq: f64,
    /// max |t|.
    pub t_max: f64,
    /// Σ cp².
    pub cp_sq: f64,
    /// Per vector, in the order of the recipe.
    pub vectors: Vec<VectorSums>,
}

impl SliceSums {
    /// Adds the sums of the slice that follows this one. Folding the same
    /// slices in the same order gives the same bits on every machine.
    ///
    /// # Panics
    /// If both hold vectors and these are not the same ones: slices of
    /// different tensors.
    pub fn fold(&mut self, next: &Self) {
        self.elements += next.elements;
        self.changed += next.changed;
        self.nonfinite_inputs += next.nonfinite_inputs;
        self.overflows += next.overflows;
        self.t_sq += next.t_sq;
        self.t_max = self.t_max.max(next.t_max);
        self.cp_sq += next.cp_sq;
        if self.vectors.is_empty() {
            self.vectors = next
                .vectors
                .iter()
                .map(|v| VectorSums {
                    vector: v.vector,
                    ..VectorSums::default()
                })
                .collect();
        }
        assert_eq!(
            self.vectors.len(),
            next.vectors.len(),
            "slices of one tensor have the same vectors"
        );
        for (mine, theirs) in self.vectors.iter_mut().zip(&next.vectors) {
            assert_eq!(
                mine.vector, theirs.vector,
                "slices of one tensor have the same vectors"
            );
            mine.delta_sq += theirs.delta_sq;
            mine.base_sq += theirs.base_sq;
            mine.drift_sq += theirs.drift_sq;
            mine.delta_dot_drift += theirs.delta_dot_drift;
        }
    }
}
