//! Bytes to f64, a tile at a time, without a branch per element.
//!
//! Every function here is inlined into each version of the block loop, which
//! compiles it for that version's instructions.

use super::Operand;
use crate::dtype::FloatFormat;

/// Elements that are decoded, computed and rounded together. A handful of f64
/// buffers of this length stay in the first-level cache.
pub(super) const TILE_ELEMENTS: usize = 512;

/// Values of one tile.
pub(super) type Tile = [f64; TILE_ELEMENTS];

/// Decodes the elements `first..first + count` of an operand into the front of
/// a tile, and fills its rest with zeros: these add nothing to any sum.
#[inline(always)]
pub(super) fn decode(operand: Operand<'_>, first: usize, count: usize, tile: &mut Tile) {
    let width = operand.format.bytes();
    let bytes = &operand.bytes[first * width..(first + count) * width];
    match operand.format {
        FloatFormat::Bf16 => decode_with(bytes, tile, |b| bf16(u16::from_le_bytes(b))),
        FloatFormat::F16 => decode_with(bytes, tile, |b| f16(u16::from_le_bytes(b))),
        FloatFormat::F32 => decode_with(bytes, tile, |b| f64::from(f32::from_le_bytes(b))),
        FloatFormat::F64 => decode_with(bytes, tile, f64::from_le_bytes),
    }
    tile[count..].fill(0.0);
}

#[inline(always)]
fn decode_with<const WIDTH: usize>(
    bytes: &[u8],
    tile: &mut Tile,
    value: impl Fn([u8; WIDTH]) -> f64,
) {
    for (value_out, element) in tile.iter_mut().zip(bytes.as_chunks::<WIDTH>().0) {
        *value_out = value(*element);
    }
}

#[inline(always)]
fn bf16(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// Moves the fields of a half to their places in an f32. A subnormal half is
/// given the exponent of the smallest normal one, whose implicit bit is then
/// subtracted: all exact, and no subnormal f32 (slow on some CPUs) is made.
#[inline(always)]
fn f16(bits: u16) -> f64 {
    const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
    const REBIAS: u32 = (127 - 15) << 23;
    let sign = u32::from(bits & 0x8000) << 16;
    let fields = u32::from(bits & 0x7fff) << 13;
    let subnormal = f32::from_bits(fields + SMALLEST_NORMAL) - f32::from_bits(SMALLEST_NORMAL);
    let normal = fields + REBIAS;
    let magnitude = if fields < 1 << 23 {
        subnormal.to_bits()
    } else if fields >= 31 << 23 {
        // Infinity or NaN: the largest exponent of f32.
        normal + REBIAS
    } else {
        normal
    };
    f64::from(f32::from_bits(sign | magnitude))
}
