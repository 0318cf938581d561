//! `chatvec.stats.json`: the statistics of all parts, folded per tensor.

use chatvec_core::ids::TensorOrdinal;
use chatvec_core::stats::{Report, SliceSums, TensorReport};
use chatvec_proto::convert::decode_sums;

use super::Finished;

/// The report of a finished job. Parts come in order of file and position, so
/// the folded sums are the same however many workers there were.
pub(super) fn report(finished: &Finished) -> Vec<u8> {
    let tensors = &finished.blueprint.tensors;
    let mut folded: Vec<Option<SliceSums>> = vec![None; tensors.len()];
    for part in &finished.parts {
        let sums = decode_sums(&part.stats).expect("the store keeps what a report held");
        for (TensorOrdinal(tensor), sums) in sums {
            match &mut folded[tensor as usize] {
                Some(earlier) => earlier.fold(&sums),
                first => *first = Some(sums),
            }
        }
    }
    let reported = tensors.iter().zip(folded).map(|(tensor, sums)| TensorReport {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        decision: tensor.decision.clone(),
        terms: tensor.terms.clone(),
        sums,
    });
    Report::of(reported.collect()).to_json()
}
