//! The merge itself: `out = cp + Σ λᵢ(chatᵢ − baseᵢ)` over the bytes of one
//! slice of a tensor, with everything measured that the checks need.
//!
//! # Numbers
//!
//! With `dᵢ = chatᵢ − baseᵢ`, per element: `t = λ₁d₁; t += λ₂d₂; …`, then
//! `cp + t`, all in f64, in this order, with no fused operation; the result is
//! rounded once, to nearest even, to the output format. Never by way of f32,
//! which would round twice. A finite result beyond the output's range becomes
//! an infinity by the same rule.
//!
//! - Where `t` is zero of either sign, the output is cp alone in the output
//!   format: its very bits where the format is unchanged (−0.0 and NaN payloads
//!   included). So λ = 0, or a chat that equals its base, is the identity.
//! - Where cp is a NaN, the output is cp alone too. A NaN changes format by
//!   keeping its sign and the top bits of its payload, and becomes quiet.
//! - Where the result is a NaN though cp is none (∞ − ∞, or a NaN in a chat or
//!   base), the output is the positive quiet NaN with an empty payload. IEEE 754
//!   leaves such bits open, and compilers choose them by operand order.
//!
//! # Sums
//!
//! Each block of [`BLOCK_ELEMENTS`] elements is summed in fixed lanes (element
//! `i` in lane `i % 8`), the lanes are added in a fixed tree, and the block's
//! sums are added to the running ones in order. Output and sums are therefore
//! the same bits on every CPU and for every cut at multiples of a block.
//!
//! A sum that overflows f64, which only F64 tensors can do, is infinite; one that is
//! no number at all is the canonical NaN.

mod block;
mod decode;
mod lanes;
mod path;
mod round;
mod scalar;

#[cfg(test)]
mod tests;

pub use path::Path;

use crate::dtype::FloatFormat;
use crate::stats::{SliceSums, VectorSums};

/// The unit of summation: a slice may be merged in pieces, and all sums keep
/// their bits, if every piece but the last has a multiple of this many elements.
pub const BLOCK_ELEMENTS: usize = 2048;

/// Elements of one input: little-endian, packed, at any alignment.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// Format of every element.
    pub format: FloatFormat,
    /// The elements' bytes; the length is a multiple of the format's width.
    pub bytes: &'a [u8],
}

impl Operand<'_> {
    /// Number of elements.
    fn elements(self) -> usize {
        self.bytes.len() / self.format.bytes()
    }
}

/// One chat vector's share of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Delta<'a> {
    /// Position of the vector in the recipe.
    pub vector: u32,
    /// Its scale, finite.
    pub lambda: f64,
    /// The chat-tuned values: as many as cp has.
    pub chat: Operand<'a>,
    /// The values that chat was tuned from: as many as cp has.
    pub base: Operand<'a>,
}

/// Buffers of [`merge`], about 10 KiB. Made once per thread and used again for
/// every call; nothing is carried from one call to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    tiles: Box<block::Tiles>,
    lanes: lanes::BlockLanes,
}

/// Merges one piece of a slice into `out` and adds what it measured to `sums`.
///
/// `out` is in `out_format`, little-endian, at any alignment, and holds as many
/// elements as `cp`. Without deltas it is cp converted. `sums` starts as
/// [`SliceSums::default`] and is passed to the calls for all pieces of a slice
/// in their order; cut as [`BLOCK_ELEMENTS`] says.
///
/// # Panics
/// If operands and output differ in their number of elements, or if `sums`
/// holds other vectors than `deltas`.
pub fn merge(
    cp: Operand<'_>,
    deltas: &[Delta<'_>],
    out_format: FloatFormat,
    out: &mut [u8],
    scratch: &mut Scratch,
    sums: &mut SliceSums,
) {
    merge_with(Path::best(), cp, deltas, out_format, out, scratch, sums);
}

/// [`merge`] on a chosen path: for tests and measurements. All paths give the
/// same bits.
///
/// # Panics
/// As [`merge`], and if this CPU cannot run `path`.
#[doc(hidden)]
pub fn merge_with(
    path: Path,
    cp: Operand<'_>,
    deltas: &[Delta<'_>],
    out_format: FloatFormat,
    out: &mut [u8],
    scratch: &mut Scratch,
    sums: &mut SliceSums,
) {
    let job = Job::new(cp, deltas, out_format);
    assert_eq!(
        out.len(),
        cp.elements() * out_format.bytes(),
        "the output has as many elements as cp"
    );
    adopt_vectors(sums, deltas);
    path.run(&job, out, scratch, sums);
}

/// The instruction set that [`merge`] uses on this CPU, for people to read.
pub fn instruction_set() -> &'static str {
    Path::best().name()
}

/// The first element that is a NaN or infinite. For error messages: slow.
pub fn first_nonfinite(operand: Operand<'_>) -> Option<usize> {
    (0..operand.elements()).find(|&i| !scalar::value(operand, i).is_finite())
}

/// The first element whose inputs are all finite and whose output is not. For
/// error messages: slow.
///
/// # Panics
/// If the operands differ in their number of elements.
pub fn first_overflow(
    cp: Operand<'_>,
    deltas: &[Delta<'_>],
    out_format: FloatFormat,
) -> Option<usize> {
    let job = Job::new(cp, deltas, out_format);
    (0..cp.elements()).find(|&i| scalar::element(&job, i).overflows())
}

/// The inputs of one call, checked to have one length.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    cp: Operand<'a>,
    deltas: &'a [Delta<'a>],
    out_format: FloatFormat,
}

impl<'a> Job<'a> {
    fn new(cp: Operand<'a>, deltas: &'a [Delta<'a>], out_format: FloatFormat) -> Self {
        let elements = cp.elements();
        for operand in deltas
            .iter()
            .flat_map(|delta| [delta.chat, delta.base])
            .chain([cp])
        {
            assert_eq!(
                operand.bytes.len(),
                elements * operand.format.bytes(),
                "every operand has as many whole elements as cp"
            );
        }
        Self {
            cp,
            deltas,
            out_format,
        }
    }
}

/// Gives fresh sums their vectors; checks that used ones have the same.
fn adopt_vectors(sums: &mut SliceSums, deltas: &[Delta<'_>]) {
    if sums.elements == 0 && sums.vectors.is_empty() {
        sums.vectors.extend(deltas.iter().map(|delta| VectorSums {
            vector: delta.vector,
            ..VectorSums::default()
        }));
    }
    assert!(
        sums.vectors
            .iter()
            .map(|sums| sums.vector)
            .eq(deltas.iter().map(|delta| delta.vector)),
        "pieces of one slice have the same vectors"
    );
}
