//! What the kernel must compute, found in another way than the kernel's: by
//! searching the sorted table of all values of a 16-bit format.

use std::sync::OnceLock;

use super::super::Operand;
use super::Case;
use crate::dtype::FloatFormat::{self, Bf16, F16, F32, F64};

/// Mantissa bits and the bits of infinity.
fn fields(format: FloatFormat) -> (u32, u64) {
    match format {
        F64 => (52, 0x7ff0_0000_0000_0000),
        F32 => (23, 0x7f80_0000),
        Bf16 => (7, 0x7f80),
        F16 => (10, 0x7c00),
    }
}

pub(super) fn infinity(format: FloatFormat) -> u64 {
    fields(format).1
}

pub(super) fn sign_bit(format: FloatFormat) -> u64 {
    1 << (format.bytes() * 8 - 1)
}

pub(super) fn canonical_nan(format: FloatFormat) -> u64 {
    infinity(format) | 1 << (fields(format).0 - 1)
}

/// All values from zero up, by their bits; where infinity stands, the number
/// that would be next if exponents had no end.
fn table(format: FloatFormat) -> &'static [f64] {
    static TABLES: [OnceLock<Vec<f64>>; 2] = [OnceLock::new(), OnceLock::new()];
    let (slot, smallest, mantissa) = match format {
        Bf16 => (0, -133, 7),
        F16 => (1, -24, 10),
        F32 | F64 => unreachable!("no table of a wide format"),
    };
    TABLES[slot].get_or_init(|| {
        let mut step = 2_f64.powi(smallest);
        let mut value = 0.0;
        let mut values = Vec::new();
        for bits in 0..=infinity(format) {
            // Every 2^mantissa values the step doubles, but not after the
            // subnormal ones.
            if bits >= 2 << mantissa && bits % (1 << mantissa) == 0 {
                step *= 2.0;
            }
            values.push(value);
            value += step;
        }
        values
    })
}

pub(super) fn value(format: FloatFormat, bits: u64) -> f64 {
    if format == F64 {
        return f64::from_bits(bits);
    }
    if format == F32 {
        return f64::from(f32::from_bits(bits as u32));
    }
    let magnitude = bits & !sign_bit(format);
    let value = match magnitude.cmp(&infinity(format)) {
        std::cmp::Ordering::Less => table(format)[magnitude as usize],
        std::cmp::Ordering::Equal => f64::INFINITY,
        std::cmp::Ordering::Greater => f64::NAN,
    };
    if bits == magnitude { value } else { -value }
}

/// Nearest value, ties to even; beyond half a step over the largest: infinity.
pub(super) fn round(format: FloatFormat, x: f64) -> u64 {
    match format {
        F64 => return x.to_bits(),
        F32 => return u64::from((x as f32).to_bits()),
        Bf16 | F16 => {}
    }
    let table = table(format);
    let above = table.partition_point(|value| *value < x.abs());
    let bits = if above == table.len() {
        infinity(format)
    } else if above == 0 {
        0
    } else {
        // Both differences are exact: the value lies within a factor of two, or
        // below the smallest step.
        let (up, down) = (table[above] - x.abs(), x.abs() - table[above - 1]);
        let odd = above % 2 == 1;
        let chosen = if up > down || (up == down && odd) {
            above - 1
        } else {
            above
        };
        chosen as u64
    };
    bits | if x.is_sign_negative() {
        sign_bit(format)
    } else {
        0
    }
}

/// cp alone in the output's format.
pub(super) fn convert(from: FloatFormat, bits: u64, to: FloatFormat) -> u64 {
    let x = value(from, bits);
    if from == to {
        bits
    } else if x.is_nan() {
        let (from_bits, to_bits) = (fields(from).0, fields(to).0);
        let payload = bits & (infinity(from) ^ (sign_bit(from) - 1));
        let payload = if from_bits > to_bits {
            payload >> (from_bits - to_bits)
        } else {
            payload << (to_bits - from_bits)
        };
        let sign = if bits & sign_bit(from) == 0 {
            0
        } else {
            sign_bit(to)
        };
        sign | canonical_nan(to) | payload
    } else {
        round(to, x)
    }
}

/// One element as it must come out.
pub(super) struct Expected {
    pub(super) out: u64,
    pub(super) unmerged: u64,
    pub(super) nonfinite_inputs: u64,
    pub(super) overflow: bool,
    pub(super) cp: f64,
    pub(super) t: f64,
    /// chat − base, and base, by vector.
    pub(super) vectors: Vec<(f64, f64)>,
}

pub(super) fn element(case: &Case, i: usize) -> Expected {
    let cp_bits = bits_at(case.cp.operand(), i);
    let cp = value(case.cp.format, cp_bits);
    let mut inputs = vec![cp];
    let mut vectors = Vec::new();
    let mut t = 0.0;
    for (lambda, chat, base) in &case.vectors {
        let chat = value(chat.format, bits_at(chat.operand(), i));
        let base = value(base.format, bits_at(base.operand(), i));
        inputs.extend([chat, base]);
        vectors.push((chat - base, base));
        t += lambda * (chat - base);
    }
    let unmerged = convert(case.cp.format, cp_bits, case.out_format);
    let out = if t == 0.0 || cp.is_nan() {
        unmerged
    } else if (cp + t).is_nan() {
        canonical_nan(case.out_format)
    } else {
        round(case.out_format, cp + t)
    };
    let nonfinite_inputs = inputs.iter().filter(|x| !x.is_finite()).count() as u64;
    Expected {
        out,
        unmerged,
        nonfinite_inputs,
        overflow: nonfinite_inputs == 0 && !value(case.out_format, out).is_finite(),
        cp,
        t,
        vectors,
    }
}

pub(super) fn bits_at(operand: Operand<'_>, i: usize) -> u64 {
    let width = operand.format.bytes();
    operand.bytes[i * width..(i + 1) * width]
        .iter()
        .rev()
        .fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}
