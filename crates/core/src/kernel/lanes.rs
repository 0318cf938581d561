//! What is measured of one block, in fixed lanes, and how it joins the sums.

use crate::stats::{SliceSums, VectorSums};

/// Lanes of every sum: element `i` of a block adds to lane `i % LANES`. Eight
/// f64 fill one AVX-512 or two AVX2 registers, so that all sums of a loop stay
/// in registers. Another number would change the sums' last bits.
pub(super) const LANES: usize = 8;

/// One sum, or one maximum, by lane.
pub(super) type Lane = [f64; LANES];

/// The sums of one vector.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct VectorLanes {
    pub(super) delta_sq: Lane,
    pub(super) base_sq: Lane,
    pub(super) drift_sq: Lane,
    pub(super) delta_dot_drift: Lane,
}

/// Everything measured of one block. The fields are those of [`SliceSums`].
#[derive(Debug, Default)]
pub(super) struct BlockLanes {
    pub(super) changed: u64,
    pub(super) nonfinite_inputs: u64,
    pub(super) overflows: u64,
    pub(super) t_sq: Lane,
    pub(super) t_max: Lane,
    pub(super) cp_sq: Lane,
    pub(super) vectors: Vec<VectorLanes>,
}

impl BlockLanes {
    /// Zero everywhere, for a block with this many vectors. Allocates only for
    /// more vectors than ever before.
    pub(super) fn reset(&mut self, vectors: usize) {
        let mut kept = std::mem::take(&mut self.vectors);
        kept.clear();
        kept.resize(vectors, VectorLanes::default());
        *self = Self {
            vectors: kept,
            ..Self::default()
        };
    }

    /// Adds a block of this many elements to the running sums of its slice.
    pub(super) fn add_to(&self, elements: usize, sums: &mut SliceSums) {
        sums.elements += elements as u64;
        sums.changed += self.changed;
        sums.nonfinite_inputs += self.nonfinite_inputs;
        sums.overflows += self.overflows;
        add(&mut sums.t_sq, &self.t_sq);
        sums.t_max = self.t_max.into_iter().fold(sums.t_max, larger);
        add(&mut sums.cp_sq, &self.cp_sq);
        for (mine, sums) in self.vectors.iter().zip(&mut sums.vectors) {
            let VectorSums {
                vector: _,
                delta_sq,
                base_sq,
                drift_sq,
                delta_dot_drift,
            } = sums;
            add(delta_sq, &mine.delta_sq);
            add(base_sq, &mine.base_sq);
            add(drift_sq, &mine.drift_sq);
            add(delta_dot_drift, &mine.delta_dot_drift);
        }
    }
}

/// The larger of two values; `so_far` where `value` is a NaN. Unlike
/// [`f64::max`] this is one instruction.
#[inline(always)]
pub(super) fn larger(so_far: f64, value: f64) -> f64 {
    if value > so_far { value } else { so_far }
}

/// Adds the lanes in a fixed tree, then their sum to the running one. The sign
/// of a NaN that arithmetic makes differs between CPUs: it is made canonical.
fn add(running: &mut f64, lanes: &Lane) {
    let [a, b, c, d, e, f, g, h] = *lanes;
    let sum = *running + (((a + b) + (c + d)) + ((e + f) + (g + h)));
    *running = if sum.is_nan() { f64::NAN } else { sum };
}
