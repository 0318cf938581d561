//! The reference: one element after the other, written to be plainly right.
//!
//! It also computes every block that holds or makes a value that is not finite;
//! all rules about NaNs and infinities live here alone.

use super::lanes::{BlockLanes, LANES, larger};
use super::{BLOCK_ELEMENTS, Job, Operand};
use crate::dtype::FloatFormat;
use crate::stats::SliceSums;

/// One merged element.
pub(super) struct Element {
    /// cp's value.
    cp: f64,
    /// Σ λᵢ(chatᵢ − baseᵢ).
    t: f64,
    /// How many of the inputs are NaN or infinite.
    nonfinite_inputs: u64,
    /// The output's bits.
    out: u64,
    /// The bits of cp alone in the output's format.
    unmerged: u64,
    /// Whether `out` is neither NaN nor infinite.
    out_is_finite: bool,
}

impl Element {
    /// Whether the inputs are all finite and the output is not.
    pub(super) fn overflows(&self) -> bool {
        self.nonfinite_inputs == 0 && !self.out_is_finite
    }
}

/// Merges all blocks of a job.
pub(super) fn merge_blocks(
    job: &Job<'_>,
    out: &mut [u8],
    lanes: &mut BlockLanes,
    sums: &mut SliceSums,
) {
    let elements = job.cp.elements();
    for first in (0..elements).step_by(BLOCK_ELEMENTS) {
        let count = BLOCK_ELEMENTS.min(elements - first);
        merge_block(job, first, count, out, lanes);
        lanes.add_to(count, sums);
    }
}

/// Merges the block of `count` elements from `first`. `out` is the whole job's.
#[cold]
#[inline(never)]
pub(super) fn merge_block(
    job: &Job<'_>,
    first: usize,
    count: usize,
    out: &mut [u8],
    lanes: &mut BlockLanes,
) {
    lanes.reset(job.deltas.len());
    let width = job.out_format.bytes();
    for i in first..first + count {
        let element = element(job, i);
        out[i * width..][..width].copy_from_slice(&element.out.to_le_bytes()[..width]);
        lanes.changed += u64::from(element.out != element.unmerged);
        lanes.nonfinite_inputs += element.nonfinite_inputs;
        lanes.overflows += u64::from(element.overflows());
        if element.nonfinite_inputs == 0 {
            measure(job, i, &element, (i - first) % LANES, lanes);
        }
    }
}

/// Adds one element, whose inputs are finite, to the sums.
fn measure(job: &Job<'_>, i: usize, element: &Element, lane: usize, lanes: &mut BlockLanes) {
    let Element { cp, t, .. } = *element;
    lanes.t_sq[lane] += t * t;
    lanes.t_max[lane] = larger(lanes.t_max[lane], t.abs());
    lanes.cp_sq[lane] += cp * cp;
    for (delta, sums) in job.deltas.iter().zip(&mut lanes.vectors) {
        let base = value(delta.base, i);
        let d = value(delta.chat, i) - base;
        let drift = cp - base;
        sums.delta_sq[lane] += d * d;
        sums.base_sq[lane] += base * base;
        sums.drift_sq[lane] += drift * drift;
        sums.delta_dot_drift[lane] += d * drift;
    }
}

/// Merges element `i`.
pub(super) fn element(job: &Job<'_>, i: usize) -> Element {
    let cp = value(job.cp, i);
    let mut t = 0.0;
    let mut nonfinite_inputs = u64::from(!cp.is_finite());
    for delta in job.deltas {
        let chat = value(delta.chat, i);
        let base = value(delta.base, i);
        nonfinite_inputs += u64::from(!chat.is_finite()) + u64::from(!base.is_finite());
        t += delta.lambda * (chat - base);
    }

    let to = Layout::of(job.out_format);
    let unmerged = if job.cp.format == job.out_format {
        bits(job.cp, i)
    } else if cp.is_nan() {
        Layout::of(job.cp.format).convert_nan(bits(job.cp, i), to)
    } else {
        round(cp, job.out_format)
    };
    let sum = cp + t;
    let out = if t == 0.0 || cp.is_nan() {
        unmerged
    } else if sum.is_nan() {
        to.nan()
    } else {
        round(sum, job.out_format)
    };
    Element {
        cp,
        t,
        nonfinite_inputs,
        out,
        unmerged,
        out_is_finite: to.is_finite(out),
    }
}

/// The bits of element `i`, in the low bits of the result.
fn bits(operand: Operand<'_>, i: usize) -> u64 {
    match operand.format {
        FloatFormat::F64 => u64::from_le_bytes(operand.bytes.as_chunks().0[i]),
        FloatFormat::F32 => u64::from(u32::from_le_bytes(operand.bytes.as_chunks().0[i])),
        FloatFormat::Bf16 | FloatFormat::F16 => {
            u64::from(u16::from_le_bytes(operand.bytes.as_chunks().0[i]))
        }
    }
}

/// The value of element `i`; exact, as f64 holds every value of every format.
pub(super) fn value(operand: Operand<'_>, i: usize) -> f64 {
    let bits = bits(operand, i);
    match operand.format {
        FloatFormat::F64 => f64::from_bits(bits),
        FloatFormat::F32 => f64::from(f32::from_bits(bits as u32)),
        FloatFormat::Bf16 | FloatFormat::F16 => Layout::of(operand.format).value(bits),
    }
}

/// Rounds a number, which may be infinite, to nearest even.
fn round(x: f64, format: FloatFormat) -> u64 {
    match format {
        FloatFormat::F64 => x.to_bits(),
        FloatFormat::F32 => u64::from((x as f32).to_bits()),
        FloatFormat::Bf16 | FloatFormat::F16 => Layout::of(format).round(x),
    }
}

/// The fields of a format, by IEEE 754 §3.4: sign, exponent, mantissa.
#[derive(Clone, Copy)]
struct Layout {
    mantissa_bits: u32,
    exponent_bits: u32,
}

impl Layout {
    fn of(format: FloatFormat) -> Self {
        let (exponent_bits, mantissa_bits) = match format {
            FloatFormat::F64 => (11, 52),
            FloatFormat::F32 => (8, 23),
            FloatFormat::Bf16 => (8, 7),
            FloatFormat::F16 => (5, 10),
        };
        Self {
            mantissa_bits,
            exponent_bits,
        }
    }

    fn sign_bit(self) -> u64 {
        1 << (self.mantissa_bits + self.exponent_bits)
    }

    fn mantissa_mask(self) -> u64 {
        (1 << self.mantissa_bits) - 1
    }

    /// Positive infinity: every bit of the exponent, none of the mantissa.
    fn infinity(self) -> u64 {
        self.sign_bit() - (1 << self.mantissa_bits)
    }

    fn quiet_bit(self) -> u64 {
        1 << (self.mantissa_bits - 1)
    }

    /// The canonical NaN: positive, quiet, with an empty payload.
    fn nan(self) -> u64 {
        self.infinity() | self.quiet_bit()
    }

    fn is_finite(self, bits: u64) -> bool {
        bits & self.infinity() != self.infinity()
    }

    /// The exponent of the smallest normal number, a power of two.
    fn smallest_exponent(self) -> i32 {
        2 - (1 << (self.exponent_bits - 1))
    }

    /// The value of some bits. For the 16-bit formats.
    fn value(self, bits: u64) -> f64 {
        let field = ((bits & self.infinity()) >> self.mantissa_bits) as i32;
        let mantissa = bits & self.mantissa_mask();
        let magnitude = if !self.is_finite(bits) {
            if mantissa == 0 {
                f64::INFINITY
            } else {
                f64::NAN
            }
        } else {
            let implicit = if field == 0 {
                0
            } else {
                1 << self.mantissa_bits
            };
            let exponent = self.smallest_exponent() + (field - 1).max(0);
            (implicit + mantissa) as f64 * self.unit(exponent)
        };
        if bits & self.sign_bit() == 0 {
            magnitude
        } else {
            -magnitude
        }
    }

    /// Rounds a number, which may be infinite. For the 16-bit formats.
    fn round(self, x: f64) -> u64 {
        let sign = if x.is_sign_negative() {
            self.sign_bit()
        } else {
            0
        };
        let x = x.abs();
        let exponent = ((x.to_bits() >> 52) as i32 - 1023).max(self.smallest_exponent());
        // Division by a power of two is exact, and so is the count of units.
        let units = (x / self.unit(exponent)).round_ties_even() as u64;
        // The implicit bit, if there is one, is part of `units`, and raises the
        // exponent's field by one.
        let field = (exponent - self.smallest_exponent()) as u64;
        let magnitude = units.saturating_add(field << self.mantissa_bits);
        sign | magnitude.min(self.infinity())
    }

    /// The distance between numbers of this exponent.
    fn unit(self, exponent: i32) -> f64 {
        let exponent = exponent - self.mantissa_bits as i32;
        f64::from_bits(((1023 + exponent) as u64) << 52)
    }

    /// A NaN in another format: same sign, top bits of its payload, quiet.
    fn convert_nan(self, bits: u64, to: Self) -> u64 {
        let sign = if bits & self.sign_bit() == 0 {
            0
        } else {
            to.sign_bit()
        };
        let payload = (bits & self.mantissa_mask()) << (52 - self.mantissa_bits);
        sign | to.nan() | (payload >> (52 - to.mantissa_bits))
    }
}
