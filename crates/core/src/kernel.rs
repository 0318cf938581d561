//! The arithmetic of a merge, one element at a time: slow, and obviously right.
//!
//! `t = λ₁d₁; t += λ₂d₂; …; out = cp + t` with `dᵢ = chatᵢ − baseᵢ`, all in
//! f64, in this order, rounded once to the output format.

use crate::dtype::FloatFormat;
use crate::stats::{SliceSums, VectorSums};

/// Sums are formed per block of this many elements, counted from the first
/// element of a slice. Cut a slice at multiples of it and they stay the same.
pub const BLOCK_ELEMENTS: usize = 2048;

/// A run of encoded elements.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// How they are encoded.
    pub format: FloatFormat,
    /// Their little-endian bytes.
    pub bytes: &'a [u8],
}

/// One chat vector's share: `lambda × (chat − base)`.
#[derive(Debug, Clone, Copy)]
pub struct Delta<'a> {
    /// Position of the vector in the recipe.
    pub vector: u32,
    /// The scale.
    pub lambda: f64,
    /// θ_chat.
    pub chat: Operand<'a>,
    /// θ_base.
    pub base: Operand<'a>,
}

/// Working memory of [`merge`], reused between calls.
#[derive(Debug, Default)]
pub struct Scratch {}

/// Merges a run of elements into `out` and adds what it measures to `sums`.
/// The sums of a slice are the same for any cut at multiples of
/// [`BLOCK_ELEMENTS`] from its first element.
///
/// # Panics
/// If the operands and `out` are not of one length in elements.
pub fn merge(
    cp: Operand<'_>,
    deltas: &[Delta<'_>],
    out_format: FloatFormat,
    out: &mut [u8],
    _scratch: &mut Scratch,
    sums: &mut SliceSums,
) {
    let elements = out.len() / out_format.bytes();
    assert_eq!(cp.bytes.len(), elements * cp.format.bytes());
    if sums.vectors.is_empty() {
        sums.vectors = zeroed(deltas);
    }
    for start in (0..elements).step_by(BLOCK_ELEMENTS) {
        let mut block = SliceSums {
            vectors: zeroed(deltas),
            ..SliceSums::default()
        };
        for i in start..elements.min(start + BLOCK_ELEMENTS) {
            merge_element(i, cp, deltas, out_format, out, &mut block);
        }
        sums.fold(&block);
    }
}

/// The position of the first NaN or infinity, or `None` if all are finite.
pub fn first_nonfinite(operand: Operand<'_>) -> Option<usize> {
    (0..operand.bytes.len() / operand.format.bytes()).find(|&i| !load(operand, i).is_finite())
}

fn zeroed(deltas: &[Delta<'_>]) -> Vec<VectorSums> {
    deltas
        .iter()
        .map(|delta| VectorSums {
            vector: delta.vector,
            ..VectorSums::default()
        })
        .collect()
}

fn merge_element(
    i: usize,
    cp_operand: Operand<'_>,
    deltas: &[Delta<'_>],
    out_format: FloatFormat,
    out: &mut [u8],
    sums: &mut SliceSums,
) {
    let cp = load(cp_operand, i);
    let mut t = 0.0;
    let mut bad = u64::from(!cp.is_finite());
    for (n, delta) in deltas.iter().enumerate() {
        let (chat, base) = (load(delta.chat, i), load(delta.base, i));
        bad += u64::from(!chat.is_finite()) + u64::from(!base.is_finite());
        let product = delta.lambda * (chat - base);
        t = if n == 0 { product } else { t + product };
    }
    let width = out_format.bytes();
    let target = &mut out[i * width..][..width];
    let same_format = out_format == cp_operand.format;
    if same_format {
        target.copy_from_slice(&cp_operand.bytes[i * width..][..width]);
    } else {
        store(cp, out_format, target);
    }
    if t != 0.0 {
        let before = target.to_vec();
        store(cp + t, out_format, target);
        sums.changed += u64::from(before != target);
    }
    sums.elements += 1;
    sums.nonfinite_inputs += bad;
    if bad > 0 {
        return;
    }
    let written = Operand {
        format: out_format,
        bytes: target,
    };
    sums.overflows += u64::from(!load(written, 0).is_finite());
    sums.t_sq += t * t;
    sums.t_max = sums.t_max.max(t.abs());
    sums.cp_sq += cp * cp;
    for (delta, vector) in deltas.iter().zip(&mut sums.vectors) {
        let (chat, base) = (load(delta.chat, i), load(delta.base, i));
        vector.delta_sq += (chat - base) * (chat - base);
        vector.base_sq += base * base;
        vector.drift_sq += (cp - base) * (cp - base);
        vector.delta_dot_drift += (chat - base) * (cp - base);
    }
}

fn load(operand: Operand<'_>, i: usize) -> f64 {
    let width = operand.format.bytes();
    let mut le = [0; 8];
    le[..width].copy_from_slice(&operand.bytes[i * width..][..width]);
    let bits = u64::from_le_bytes(le);
    match operand.format {
        FloatFormat::F64 => f64::from_bits(bits),
        FloatFormat::F32 => f64::from(f32::from_bits(bits as u32)),
        FloatFormat::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
        FloatFormat::F16 => half_to_f64(bits as u16),
    }
}

fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    match exponent {
        0 => sign * mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    }
}

fn store(value: f64, format: FloatFormat, out: &mut [u8]) {
    match format {
        FloatFormat::F64 => out.copy_from_slice(&value.to_le_bytes()),
        FloatFormat::F32 => out.copy_from_slice(&(value as f32).to_le_bytes()),
        FloatFormat::Bf16 => out.copy_from_slice(&(round(value, 8, -126) as u16).to_le_bytes()),
        FloatFormat::F16 => out.copy_from_slice(&(round(value, 11, -14) as u16).to_le_bytes()),
    }
}

/// Rounds to nearest even into a 16-bit format with `precision` significant
/// bits (the hidden one included) and the least normal exponent `e_min`.
fn round(value: f64, precision: i32, e_min: i32) -> u32 {
    let exponent_max = 2 * (1 - e_min) + 1;
    let sign = u32::from(value.is_sign_negative()) << 15;
    let infinity = (exponent_max as u32) << (precision - 1);
    if value.is_nan() {
        return sign | infinity | 1 << (precision - 2);
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || magnitude.is_infinite() {
        return sign | if magnitude == 0.0 { 0 } else { infinity };
    }
    let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(e_min);
    // Scaling by a power of two is exact, so this rounds once.
    let scaled = magnitude * 2f64.powi(precision - 1 - exponent);
    let units = scaled.round_ties_even() as u32;
    let biased = (exponent - e_min) as u32;
    sign | ((biased << (precision - 1)) + units).min(infinity)
}
