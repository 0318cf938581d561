//! f64 to the bytes of a format, rounded once to nearest even, without a branch
//! per element. The 16-bit formats are rounded on the bits of the f64.

use super::decode::{TILE_ELEMENTS, Tile};
use crate::dtype::FloatFormat;

/// Largest bytes of a tile.
const TILE_BYTES: usize = TILE_ELEMENTS * 8;

/// Room for a tile in any format.
pub(super) type TileBytes = [u8; TILE_BYTES];

/// The largest finite value of a format. A block is left to the scalar path if
/// a value to be rounded lies beyond.
pub(super) fn largest_finite(format: FloatFormat) -> f64 {
    match format {
        FloatFormat::Bf16 => f64::from(f32::from_bits(0x7f7f_0000)),
        FloatFormat::F16 => 65504.0,
        FloatFormat::F32 => f64::from(f32::MAX),
        FloatFormat::F64 => f64::MAX,
    }
}

/// Rounds the front of a tile to `out`, whose length says how many elements.
/// Right for all values up to [`largest_finite`]; bits of others mean nothing.
#[inline(always)]
pub(super) fn encode(tile: &Tile, format: FloatFormat, out: &mut [u8]) {
    match format {
        FloatFormat::Bf16 => encode_with(tile, out, |x| small::<7, 127>(x).to_le_bytes()),
        FloatFormat::F16 => encode_with(tile, out, |x| small::<10, 15>(x).to_le_bytes()),
        #[expect(clippy::cast_possible_truncation, reason = "this is the rounding")]
        FloatFormat::F32 => encode_with(tile, out, |x| (x as f32).to_le_bytes()),
        FloatFormat::F64 => encode_with(tile, out, f64::to_le_bytes),
    }
}

#[inline(always)]
fn encode_with<const WIDTH: usize>(
    tile: &Tile,
    out: &mut [u8],
    bytes: impl Fn(f64) -> [u8; WIDTH],
) {
    for (element, value) in out.as_chunks_mut::<WIDTH>().0.iter_mut().zip(tile) {
        *element = bytes(*value);
    }
}

/// Rounds to a 16-bit format with this many mantissa bits and exponent bias.
#[inline(always)]
fn small<const MANTISSA: u32, const BIAS: u32>(x: f64) -> u16 {
    let dropped = 52 - MANTISSA;
    let magnitude = x.abs().to_bits();

    // Half a unit, less one unless the last bit kept is odd: a tie goes to even.
    // A carry out of the mantissa raises the exponent, as it must.
    let odd = (magnitude >> dropped) & 1;
    let rebias = u64::from(1023 - BIAS) << 52;
    let almost_half = (1_u64 << (dropped - 1)) - 1;
    let normal = magnitude
        .wrapping_add(almost_half.wrapping_sub(rebias))
        .wrapping_add(odd)
        >> dropped;

    // Next to 2^52 units the FPU itself rounds to whole units, which end up in
    // the lowest bits of the sum.
    let units_2_52 = f64::from_bits(u64::from(1023 + 53 - BIAS - MANTISSA) << 52);
    let subnormal = (x.abs() + units_2_52).to_bits();

    let smallest_normal = f64::from_bits(u64::from(1024 - BIAS) << 52);
    let rounded = if x.abs() < smallest_normal {
        subnormal
    } else {
        normal
    };
    let sign = (x.to_bits() >> 48) as u16 & 0x8000;
    sign | rounded as u16
}
