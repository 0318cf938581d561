//! Telling a quantised checkpoint by its types, names and configuration.

use super::{CONFIG_FILE, Checkpoint, TensorRef};
use crate::dtype;
use crate::problem::Problem;

/// Last parts of the names of tensors that only quantised checkpoints have:
/// packed codes, scales and zero points.
const SUFFIXES: [&str; 6] = [
    ".qweight",
    ".qzeros",
    ".absmax",
    ".nested_absmax",
    ".weight_packed",
    ".SCB",
];

/// What such tensors have somewhere in the last part of their names.
const STEMS: [&str; 2] = [".weight_scale", ".quant_state."];

const HINT: &str = "give the checkpoint in its original precision: F64, F32, BF16 or F16";

pub(super) fn find(checkpoint: &Checkpoint) -> Option<Problem> {
    let mut signs = checkpoint.iter().filter_map(|tensor| {
        let sign = sign_of(&tensor)?;
        Some((tensor.entry.name.as_str(), sign))
    });
    let problem = if let Some((name, sign)) = signs.next() {
        let more = match signs.count() {
            0 => String::new(),
            count => format!(" (and {count} more like it)"),
        };
        Problem::new(name, format!("the checkpoint is quantised: {sign}{more}"))
    } else {
        let method = checkpoint.config.quantisation.as_ref()?;
        let message = format!(
            "the checkpoint is quantised: it has a `quantization_config` (method `{method}`)"
        );
        Problem::new(CONFIG_FILE, message)
    };
    Some(problem.with_hint(HINT))
}

fn sign_of(tensor: &TensorRef<'_>) -> Option<String> {
    let entry = tensor.entry;
    let name = entry.name.as_str();
    if dtype::is_quantised(entry.dtype) {
        return Some(format!("the tensor's type is {}", entry.dtype));
    }
    let by_name = SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        || STEMS.iter().any(|stem| name.contains(stem));
    by_name.then(|| "the tensor holds codes or scales".to_owned())
}
