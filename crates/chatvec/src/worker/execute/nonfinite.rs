//! Says where a NaN or an infinity was found.

use chatvec_core::dtype::FloatFormat;
use chatvec_core::kernel::{Delta, Operand, first_nonfinite};
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, Operation, Piece, Segment, TaskFailure, TaskSpec};

use crate::worker::failure::Stop;

/// A piece of a slice, merged.
pub(super) struct Merged<'a> {
    pub(super) segment: &'a Segment,
    /// The first element of the piece, counted from that of the segment.
    pub(super) first: u64,
    pub(super) cp: Operand<'a>,
    pub(super) deltas: &'a [Delta<'a>],
    pub(super) out: Operand<'a>,
}

/// The failure for a piece of which the kernel counted a NaN or an infinity.
/// An input is named before the output, which may suffer from it.
pub(super) fn failure(spec: &TaskSpec, merged: &Merged<'_>) -> Stop {
    let name = &merged.segment.name;
    let message = match in_an_input(spec, merged) {
        Some(place) => format!("expected finite values, found {place}"),
        None => format!(
            "expected a result within the range of {}, found {}",
            merged.out.format.dtype(),
            in_the_output(spec, merged)
        ),
    };
    Stop::Failed(TaskFailure {
        kind: FailureKind::BadInput,
        problem: Problem::new(name, message)
            .with_hint("`nonfinite: allow` passes NaN and infinity on"),
    })
}

fn in_an_input(spec: &TaskSpec, merged: &Merged<'_>) -> Option<String> {
    let Operation::Merge { cp, terms, .. } = &merged.segment.operation else {
        return None;
    };
    let vectors = terms.iter().zip(merged.deltas).flat_map(|(term, delta)| {
        let role = |role| format!("`vectors[{}].{role}`", term.vector);
        [
            (role("chat"), term.chat, delta.chat),
            (role("base"), term.base, delta.base),
        ]
    });
    [("`cp`".to_owned(), *cp, merged.cp)]
        .into_iter()
        .chain(vectors)
        .find_map(|(role, piece, operand)| {
            let position = first_nonfinite(operand)?;
            Some(describe(spec, merged, &role, piece, operand, position))
        })
}

fn describe(
    spec: &TaskSpec,
    merged: &Merged<'_>,
    role: &str,
    piece: Piece,
    operand: Operand<'_>,
    position: usize,
) -> String {
    let element = merged.first + position as u64;
    format!(
        "{} in {role}, `{}` at byte {} (element {element} of the slice at output byte {})",
        value(operand, position),
        spec.sources[piece.source as usize].url,
        piece.offset + element * piece.format.bytes() as u64,
        merged.segment.offset,
    )
}

fn in_the_output(spec: &TaskSpec, merged: &Merged<'_>) -> String {
    let position = first_nonfinite(merged.out).expect("the kernel counted it");
    let element = merged.first + position as u64;
    format!(
        "{} at element {element} of the slice at output byte {} of `{}`",
        value(merged.out, position),
        merged.segment.offset,
        spec.target,
    )
}

/// The name of a value that is known not to be finite.
fn value(operand: Operand<'_>, position: usize) -> &'static str {
    let width = operand.format.bytes();
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(&operand.bytes[position * width..][..width]);
    let bits = u64::from_le_bytes(bytes);
    let mantissa_bits = match operand.format {
        FloatFormat::F64 => 52,
        FloatFormat::F32 => 23,
        FloatFormat::Bf16 => 7,
        FloatFormat::F16 => 10,
    };
    let is_negative = bits >> (8 * width - 1) == 1;
    match bits & ((1 << mantissa_bits) - 1) {
        0 if is_negative => "-inf",
        0 => "inf",
        _ => "NaN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_names_its_values() {
        let cases: [(FloatFormat, [u64; 3]); 4] = [
            (FloatFormat::F16, [0x7c00, 0xfc00, 0x7e00]),
            (FloatFormat::Bf16, [0x7f80, 0xff80, 0xffc0]),
            (FloatFormat::F32, [0x7f80_0000, 0xff80_0000, 0x7f80_0001]),
            (
                FloatFormat::F64,
                [0x7ff << 52, 0xfff << 52, (0x7ff << 52) + 1],
            ),
        ];
        for (format, bits) in cases {
            let names = bits.map(|bits| {
                let bytes = &bits.to_le_bytes()[..format.bytes()];
                value(Operand { format, bytes }, 0)
            });
            assert_eq!(names, ["inf", "-inf", "NaN"], "{format:?}");
        }
    }
}
