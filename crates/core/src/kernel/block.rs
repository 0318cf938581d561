//! A block at a time, in loops that a compiler turns into SIMD.
//!
//! Each tile of a block is decoded to f64, merged, measured and rounded in
//! loops without branches. This is right as long as every output is finite; as
//! a NaN or infinity among the inputs always makes `cp + t` one too, looking at
//! the outputs is enough. Any other block is done again by the scalar path.

use super::decode::{TILE_ELEMENTS, Tile, decode};
use super::lanes::{BlockLanes, LANES, VectorLanes, larger};
use super::round::{TileBytes, encode, largest_finite};
use super::{BLOCK_ELEMENTS, Delta, Job, Scratch, scalar};
use crate::dtype::FloatFormat;
use crate::stats::SliceSums;

/// Buffers for one tile. On unaligned ones every AVX-512 load would touch two
/// cache lines.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Tiles {
    cp: Tile,
    chat: Tile,
    base: Tile,
    t: Tile,
    out: Tile,
    /// cp alone in the output's format, where that is not cp's own.
    unmerged: TileBytes,
}

impl Default for Tiles {
    fn default() -> Self {
        Self {
            cp: [0.0; _],
            chat: [0.0; _],
            base: [0.0; _],
            t: [0.0; _],
            out: [0.0; _],
            unmerged: [0; _],
        }
    }
}

/// Whether a value was met that these loops do not treat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// All outputs are finite in the output's format.
    Finite,
    /// Some output may not be: the bytes and sums mean nothing.
    Beyond,
}

/// Merges all blocks of a job.
#[inline(always)]
pub(super) fn merge_blocks(
    job: &Job<'_>,
    out: &mut [u8],
    scratch: &mut Scratch,
    sums: &mut SliceSums,
) {
    let Scratch { tiles, lanes } = scratch;
    let elements = job.cp.elements();
    for first in (0..elements).step_by(BLOCK_ELEMENTS) {
        let count = BLOCK_ELEMENTS.min(elements - first);
        if merge_block(job, first, count, out, tiles, lanes) == Range::Beyond {
            scalar::merge_block(job, first, count, out, lanes);
        }
        lanes.add_to(count, sums);
    }
}

/// Merges the block of `count` elements from `first`. `out` is the whole job's.
#[inline(always)]
fn merge_block(
    job: &Job<'_>,
    first: usize,
    count: usize,
    out: &mut [u8],
    tiles: &mut Tiles,
    lanes: &mut BlockLanes,
) -> Range {
    lanes.reset(job.deltas.len());
    let width = job.out_format.bytes();
    for first in (first..first + count)
        .step_by(TILE_ELEMENTS)
        .map(|at| (at, TILE_ELEMENTS.min(first + count - at)))
    {
        let (first, count) = first;
        let out = &mut out[first * width..(first + count) * width];
        if merge_tile(job, first, count, out, tiles, lanes) == Range::Beyond {
            return Range::Beyond;
        }
    }
    Range::Finite
}

/// Merges the tile of `count` elements from `first` into `out`.
#[inline(always)]
fn merge_tile(
    job: &Job<'_>,
    first: usize,
    count: usize,
    out: &mut [u8],
    tiles: &mut Tiles,
    lanes: &mut BlockLanes,
) -> Range {
    decode(job.cp, first, count, &mut tiles.cp);
    tiles.t.fill(0.0);
    for (delta, sums) in job.deltas.iter().zip(&mut lanes.vectors) {
        decode(delta.chat, first, count, &mut tiles.chat);
        decode(delta.base, first, count, &mut tiles.base);
        add_delta(delta, tiles, sums);
    }
    if add_t(tiles, lanes, job.out_format) == Range::Beyond {
        return Range::Beyond;
    }
    encode(&tiles.out, job.out_format, out);

    let unmerged = if job.cp.format == job.out_format {
        let width = job.cp.format.bytes();
        &job.cp.bytes[first * width..(first + count) * width]
    } else {
        if range(&tiles.cp, job.out_format) == Range::Beyond {
            return Range::Beyond;
        }
        let unmerged = &mut tiles.unmerged[..out.len()];
        encode(&tiles.cp, job.out_format, unmerged);
        unmerged
    };
    lanes.changed += u64::from(match job.out_format.bytes() {
        2 => differences::<2>(out, unmerged),
        4 => differences::<4>(out, unmerged),
        _ => differences::<8>(out, unmerged),
    });
    Range::Finite
}

/// Adds one vector to `t` and to its sums.
#[inline(always)]
fn add_delta(delta: &Delta<'_>, tiles: &mut Tiles, sums: &mut VectorLanes) {
    let lambda = delta.lambda;
    // Locals stay in registers; the caller's sums are memory.
    let mut lanes = *sums;
    let t = tiles.t.as_chunks_mut::<LANES>().0.iter_mut();
    let cp = tiles.cp.as_chunks::<LANES>().0;
    let chat = tiles.chat.as_chunks::<LANES>().0;
    let base = tiles.base.as_chunks::<LANES>().0;
    for (((t, cp), chat), base) in t.zip(cp).zip(chat).zip(base) {
        for lane in 0..LANES {
            let d = chat[lane] - base[lane];
            let drift = cp[lane] - base[lane];
            t[lane] += lambda * d;
            lanes.delta_sq[lane] += d * d;
            lanes.base_sq[lane] += base[lane] * base[lane];
            lanes.drift_sq[lane] += drift * drift;
            lanes.delta_dot_drift[lane] += d * drift;
        }
    }
    *sums = lanes;
}

/// Adds `t` to cp, and both to the sums.
#[inline(always)]
fn add_t(tiles: &mut Tiles, lanes: &mut BlockLanes, format: FloatFormat) -> Range {
    let limit = largest_finite(format);
    let (mut t_sq, mut t_max, mut cp_sq) = (lanes.t_sq, lanes.t_max, lanes.cp_sq);
    let mut beyond = [0_u64; LANES];
    let out = tiles.out.as_chunks_mut::<LANES>().0.iter_mut();
    let cp = tiles.cp.as_chunks::<LANES>().0;
    let t = tiles.t.as_chunks::<LANES>().0;
    for ((out, cp), t) in out.zip(cp).zip(t) {
        for lane in 0..LANES {
            let (cp, t) = (cp[lane], t[lane]);
            t_sq[lane] += t * t;
            t_max[lane] = larger(t_max[lane], t.abs());
            cp_sq[lane] += cp * cp;
            // The sum would turn −0.0 into 0.0.
            out[lane] = if t == 0.0 { cp } else { cp + t };
            beyond[lane] |= outside(out[lane], limit);
        }
    }
    (lanes.t_sq, lanes.t_max, lanes.cp_sq) = (t_sq, t_max, cp_sq);
    Range::of(beyond)
}

/// Whether all values of a tile are finite in a format.
#[inline(always)]
fn range(tile: &Tile, format: FloatFormat) -> Range {
    let limit = largest_finite(format);
    let mut beyond = [0_u64; LANES];
    for values in tile.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            beyond[lane] |= outside(values[lane], limit);
        }
    }
    Range::of(beyond)
}

/// All bits set if a value is larger than the limit, or a NaN.
#[inline(always)]
fn outside(value: f64, limit: f64) -> u64 {
    if value.abs() <= limit { 0 } else { u64::MAX }
}

impl Range {
    #[inline(always)]
    fn of(beyond: [u64; LANES]) -> Self {
        if beyond.iter().any(|lane| *lane != 0) {
            Self::Beyond
        } else {
            Self::Finite
        }
    }
}

/// How many elements of a tile differ in any bit.
#[inline(always)]
fn differences<const WIDTH: usize>(a: &[u8], b: &[u8]) -> u16 {
    let a = a.as_chunks::<WIDTH>().0;
    let b = b.as_chunks::<WIDTH>().0;
    a.iter().zip(b).map(|(a, b)| u16::from(a != b)).sum()
}
