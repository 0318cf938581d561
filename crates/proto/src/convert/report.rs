//! Statistics of parts.

use chatvec_core::ids::TensorOrdinal;
use chatvec_core::stats::{SliceSums, VectorSums};
use prost::Message as _;

use super::ConvertError;
use crate::v1;

/// The bytes that the job store keeps of a part's statistics.
pub fn encode_sums(statistics: &v1::PartStatistics) -> Vec<u8> {
    statistics.encode_to_vec()
}

/// The statistics of a part, by tensor, in output order.
///
/// # Errors
/// If the bytes were not written by [`encode_sums`].
pub fn decode_sums(bytes: &[u8]) -> Result<Vec<(TensorOrdinal, SliceSums)>, ConvertError> {
    let statistics = v1::PartStatistics::decode(bytes)?;
    Ok(statistics.tensors.into_iter().map(Into::into).collect())
}

impl From<(TensorOrdinal, SliceSums)> for v1::TensorSums {
    fn from((tensor, sums): (TensorOrdinal, SliceSums)) -> Self {
        let vector = |sums: VectorSums| v1::VectorSums {
            vector: sums.vector,
            delta_sq: sums.delta_sq,
            base_sq: sums.base_sq,
            drift_sq: sums.drift_sq,
            delta_dot_drift: sums.delta_dot_drift,
        };
        Self {
            tensor: tensor.0,
            elements: sums.elements,
            changed: sums.changed,
            nonfinite_inputs: sums.nonfinite_inputs,
            overflows: sums.overflows,
            t_sq: sums.t_sq,
            t_max: sums.t_max,
            cp_sq: sums.cp_sq,
            vectors: sums.vectors.into_iter().map(vector).collect(),
        }
    }
}

impl From<v1::TensorSums> for (TensorOrdinal, SliceSums) {
    fn from(sums: v1::TensorSums) -> Self {
        let vector = |sums: v1::VectorSums| VectorSums {
            vector: sums.vector,
            delta_sq: sums.delta_sq,
            base_sq: sums.base_sq,
            drift_sq: sums.drift_sq,
            delta_dot_drift: sums.delta_dot_drift,
        };
        let folded = SliceSums {
            elements: sums.elements,
            changed: sums.changed,
            nonfinite_inputs: sums.nonfinite_inputs,
            overflows: sums.overflows,
            t_sq: sums.t_sq,
            t_max: sums.t_max,
            cp_sq: sums.cp_sq,
            vectors: sums.vectors.into_iter().map(vector).collect(),
        };
        (TensorOrdinal(sums.tensor), folded)
    }
}
