//! `chatvec.stats.json`: what the merge did, per tensor and over the model.
//!
//! A number that does not exist (a ratio to nothing, the norm of what
//! overflowed) is `null`: the file never holds NaN or infinity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{SliceSums, VectorSums};
use crate::problem::Problem;

#[cfg(test)]
mod tests;

/// The file's name in the output folder.
pub const FILE_NAME: &str = "chatvec.stats.json";

/// The version of the format.
pub const FORMAT_VERSION: u32 = 1;

/// Above this ratio of norms, ‖x − base‖ / ‖base‖, base is taken for no
/// ancestor of x. Unrelated weights of one distribution give √2; fine-tuning
/// and continual pre-training stay far below a half.
pub const ANCESTRY_RATIO_MAX: f64 = 0.7;

/// What is known of one output tensor.
#[derive(Debug, Clone, Copy)]
pub struct TensorInput<'a> {
    /// Its name.
    pub name: &'a str,
    /// What was decided for it: `merge`, `copy`.
    pub decision: &'a str,
    /// The type of the output, as safetensors names it.
    pub dtype: &'a str,
    /// Its shape.
    pub shape: &'a [u64],
    /// The sums over the whole tensor; `None` where it was copied unread.
    pub sums: Option<&'a SliceSums>,
    /// The effective λ of each vector that took part: its position in the
    /// recipe, and λ × `lambda_scale`.
    pub lambdas: &'a [(u32, f64)],
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Over all measured tensors.
    pub totals: Totals,
    /// What the user should look at.
    pub warnings: Vec<Problem>,
    /// Every output tensor, in the order given.
    pub tensors: Vec<TensorReport>,
}

/// The model as one long vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Output tensors.
    pub tensors: u64,
    /// Those that at least one vector took part in.
    pub merged: u64,
    /// The measures over all measured tensors.
    #[serde(flatten)]
    pub measures: Measures,
}

/// One output tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// What was decided for it.
    pub decision: String,
    /// The type of the output.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// What was measured; `null` where it was copied unread.
    pub measures: Option<Measures>,
}

/// What is measured of a tensor, or of the model. `t = Σ λᵢ(chatᵢ − baseᵢ)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Elements.
    pub elements: u64,
    /// ‖t‖₂: how far the output is from cp.
    pub t_norm: Option<f64>,
    /// max |t|.
    pub t_max: Option<f64>,
    /// ‖cp‖₂.
    pub cp_norm: Option<f64>,
    /// ‖t‖ / ‖cp‖; `null` where cp is zero.
    pub relative_change: Option<f64>,
    /// The share of elements whose bits differ from cp's, 0 to 1.
    pub changed_share: Option<f64>,
    /// Input values that are NaN or infinite.
    pub nonfinite_inputs: u64,
    /// Elements that overflowed the output's type.
    pub overflows: u64,
    /// By vector, in the order of the recipe.
    pub vectors: Vec<VectorMeasures>,
}

/// What is measured of one chat vector in a tensor, or in the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorMeasures {
    /// Its position in the recipe, from 0.
    pub vector: u32,
    /// λ × `lambda_scale`; `null` over the model, where tensors may differ.
    pub lambda: Option<f64>,
    /// ‖chat − base‖₂: what the chat tuning moved.
    pub delta_norm: Option<f64>,
    /// ‖base‖₂.
    pub base_norm: Option<f64>,
    /// ‖cp − base‖₂: what the continual pre-training moved.
    pub drift_norm: Option<f64>,
    /// The cosine between the two moves, −1 to 1; `null` where one is zero.
    pub cosine: Option<f64>,
}

impl Report {
    /// Computes the report. The same inputs in the same order give the same
    /// bits.
    pub fn of(tensors: &[TensorInput<'_>]) -> Self {
        let sums = model_sums(tensors);
        let merged = tensors
            .iter()
            .filter(|tensor| tensor.sums.is_some_and(|sums| !sums.vectors.is_empty()))
            .count();
        Self {
            format_version: FORMAT_VERSION,
            totals: Totals {
                tensors: tensors.len() as u64,
                merged: merged as u64,
                measures: Measures::of(&sums, &[]),
            },
            warnings: warnings(&sums),
            tensors: tensors
                .iter()
                .map(|tensor| TensorReport {
                    name: tensor.name.to_owned(),
                    decision: tensor.decision.to_owned(),
                    dtype: tensor.dtype.to_owned(),
                    shape: tensor.shape.to_vec(),
                    measures: tensor.sums.map(|s| Measures::of(s, tensor.lambdas)),
                })
                .collect(),
        }
    }

    /// The `count` tensors that moved most for their size, the most moved
    /// first. One that was zero and is not any more precedes all others;
    /// what did not move is left out. Equals stand in the file's order.
    pub fn top_changes(&self, count: usize) -> Vec<&TensorReport> {
        let mut moved: Vec<(f64, &TensorReport)> = self
            .tensors
            .iter()
            .filter_map(|tensor| {
                let measures = tensor.measures.as_ref()?;
                let change = match (measures.t_norm, measures.cp_norm) {
                    (Some(0.0), _) => return None,
                    (Some(_), Some(_)) => measures.relative_change.unwrap_or(f64::INFINITY),
                    _ => f64::INFINITY,
                };
                Some((change, tensor))
            })
            .collect();
        moved.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        moved.truncate(count);
        moved.into_iter().map(|(_, tensor)| tensor).collect()
    }

    /// The file's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("text, numbers and lists are always JSON");
        bytes.push(b'\n');
        bytes
    }
}

impl Measures {
    fn of(sums: &SliceSums, lambdas: &[(u32, f64)]) -> Self {
        Self {
            elements: sums.elements,
            t_norm: finite(sums.t_sq.sqrt()),
            t_max: finite(sums.t_max),
            cp_norm: finite(sums.cp_sq.sqrt()),
            relative_change: ratio(sums.t_sq.sqrt(), sums.cp_sq.sqrt()),
            changed_share: ratio(sums.changed as f64, sums.elements as f64),
            nonfinite_inputs: sums.nonfinite_inputs,
            overflows: sums.overflows,
            vectors: sums
                .vectors
                .iter()
                .map(|vector| VectorMeasures::of(vector, lambdas))
                .collect(),
        }
    }
}

impl VectorMeasures {
    fn of(sums: &VectorSums, lambdas: &[(u32, f64)]) -> Self {
        let lambda = lambdas.iter().find(|(vector, _)| *vector == sums.vector);
        // The roots first: the product of the squares could overflow or vanish.
        let norms = sums.delta_sq.sqrt() * sums.drift_sq.sqrt();
        Self {
            vector: sums.vector,
            lambda: lambda.and_then(|(_, lambda)| finite(*lambda)),
            delta_norm: finite(sums.delta_sq.sqrt()),
            base_norm: finite(sums.base_sq.sqrt()),
            drift_norm: finite(sums.drift_sq.sqrt()),
            // Rounding may leave the quotient just outside the range of cosines.
            cosine: ratio(sums.delta_dot_drift, norms).map(|cosine| cosine.clamp(-1.0, 1.0)),
        }
    }
}

/// Adds up the tensors in their order. Tensors need not have the same vectors.
fn model_sums(tensors: &[TensorInput<'_>]) -> SliceSums {
    let mut model = SliceSums::default();
    let mut vectors: BTreeMap<u32, SliceSums> = BTreeMap::new();
    for sums in tensors.iter().filter_map(|tensor| tensor.sums) {
        model.fold(&SliceSums {
            vectors: Vec::new(),
            ..sums.clone()
        });
        for vector in &sums.vectors {
            vectors.entry(vector.vector).or_default().fold(&SliceSums {
                vectors: vec![*vector],
                ..SliceSums::default()
            });
        }
    }
    model.vectors = vectors
        .into_values()
        .flat_map(|sums| sums.vectors)
        .collect();
    model
}

/// What looks wrong in the model as a whole.
fn warnings(model: &SliceSums) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if model.vectors.is_empty() {
        return warnings;
    }
    if model.t_sq == 0.0 {
        warnings.push(
            Problem::new(
                "vectors",
                "every merged tensor equals cp: all differences are zero",
            )
            .with_hint("chat and base may be the same model, or their vectors cancel out"),
        );
    }
    for vector in &model.vectors {
        let base = vector.base_sq.sqrt();
        let relatives = [
            ("chat", vector.delta_sq.sqrt()),
            ("cp", vector.drift_sq.sqrt()),
        ];
        for (relative, distance) in relatives {
            if let Some(ratio) = ratio(distance, base).filter(|r| *r > ANCESTRY_RATIO_MAX) {
                let message = format!(
                    "seems not to be the ancestor of {relative}: ‖{relative} − base‖ / ‖base‖ \
                     is {ratio:.2}, expected at most {ANCESTRY_RATIO_MAX}"
                );
                warnings.push(
                    Problem::new(format!("vectors[{}].base", vector.vector), message)
                        .with_hint("unrelated models give about 1.41; check which base this is"),
                );
            }
        }
    }
    warnings
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole != 0.0).then(|| part / whole).and_then(finite)
}
