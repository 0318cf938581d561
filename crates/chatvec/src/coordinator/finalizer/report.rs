//! `chatvec.stats.json`: the statistics of all parts, folded per tensor.

use chatvec_core::ids::TensorOrdinal;
use chatvec_core::stats::SliceSums;
use chatvec_core::stats::report::{Report, TensorInput};
use chatvec_proto::convert::decode_sums;

use super::Finished;

/// The report of a finished job. Parts come in order of file and position, so
/// the folded sums are the same however many workers there were.
pub(super) fn report(finished: &Finished) -> Vec<u8> {
    let tensors = &finished.blueprint.tensors.0;
    let mut folded: Vec<Option<SliceSums>> = vec![None; tensors.len()];
    for part in &finished.parts {
        let sums = decode_sums(&part.part.stats).expect("the store keeps what a report held");
        for (TensorOrdinal(tensor), sums) in sums {
            match &mut folded[tensor as usize] {
                Some(earlier) => earlier.fold(&sums),
                first => *first = Some(sums),
            }
        }
    }
    let dtypes: Vec<_> = tensors
        .iter()
        .map(|tensor| tensor.dtype.to_string())
        .collect();
    let inputs = tensors
        .iter()
        .zip(&dtypes)
        .zip(&folded)
        .map(|((tensor, dtype), sums)| TensorInput {
            name: &tensor.name,
            decision: &tensor.decision,
            dtype,
            shape: &tensor.shape,
            sums: sums.as_ref(),
            lambdas: &tensor.terms,
        });
    let mut report = Report::of(&inputs.collect::<Vec<_>>());
    // What the plan warned of comes first: whoever reads the file may not have
    // seen the plan.
    let planned = finished.blueprint.warnings.iter().cloned();
    report.warnings.splice(..0, planned);
    report.to_json()
}
