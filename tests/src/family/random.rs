//! The values of a tensor, each a function of its position alone.

use safetensors::Dtype;

use super::Member;
use crate::float::Format;

/// Standard deviation of the weights, as models are initialised.
const WEIGHT_SD: f32 = 0.02;
/// Of chat − base: small against the weights, large against their last bit.
const CHAT_SD: f32 = 0.001;
/// Of cp − base.
const CP_SD: f32 = 0.002;

/// Standard deviation of the sum of four independent 16-bit integers.
const LANES_SD: f32 = 37_837.2;
/// Mean of that sum.
const LANES_MEAN: i32 = 4 * 0xffff / 2;

/// The values of one tensor of one member.
pub(super) struct Values {
    base: u64,
    change: Option<(u64, f32)>,
    mean: f32,
}

impl Values {
    pub(super) fn new(seed: u64, member: Member, name: &str) -> Self {
        let key = |stream: u64| {
            // FNV-1a over the name, then mixed with the seed and the stream.
            let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            mix(hash ^ mix(seed ^ mix(stream)))
        };
        Self {
            base: key(0),
            change: match member {
                Member::Base => None,
                Member::Chat => Some((key(1), CHAT_SD)),
                Member::Cp => Some((key(2), CP_SD)),
            },
            // Scales of a normalisation lie around one.
            mean: if name.ends_with("norm.weight") {
                1.0
            } else {
                0.0
            },
        }
    }

    /// Fills `bytes` with the elements from `first` on, rounded to `dtype`.
    pub(super) fn fill(&self, dtype: Dtype, first: u64, bytes: &mut [u8]) {
        match Format::of(dtype) {
            // The one that is written by the gigabyte.
            Some(Format::Bf16) => {
                for (slot, element) in bytes.chunks_exact_mut(2).zip(first..) {
                    slot.copy_from_slice(&to_bf16(self.at(element)).to_le_bytes());
                }
            }
            Some(format) => {
                let count = bytes.len() / format.bytes();
                for (slot, element) in (0..count).zip(first..) {
                    let pattern = format.round(f64::from(self.at(element)));
                    format.store(pattern, bytes, slot);
                }
            }
            None => panic!("a family has floating-point weights, not {dtype:?}"),
        }
    }

    fn at(&self, element: u64) -> f32 {
        let base = self.mean + WEIGHT_SD * normal(self.base, element);
        match self.change {
            Some((key, sd)) => base + sd * normal(key, element),
            None => base,
        }
    }
}

/// Roughly a standard normal variate: the sum of the four 16-bit lanes of a hash.
fn normal(key: u64, element: u64) -> f32 {
    let hash = mix(key.wrapping_add(element.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let sum = (hash & 0xffff) + ((hash >> 16) & 0xffff) + ((hash >> 32) & 0xffff) + (hash >> 48);
    (sum as i32 - LANES_MEAN) as f32 / LANES_SD
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// Rounds a finite value to nearest, ties to even.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_like_weights() {
        let values = Values::new(1, Member::Base, "model.layers.0.mlp.up_proj.weight");
        let count = 100_000_u64;
        let sum: f64 = (0..count).map(|i| f64::from(values.at(i))).sum();
        let squares: f64 = (0..count).map(|i| f64::from(values.at(i)).powi(2)).sum();
        assert!((sum / count as f64).abs() < 3e-4);
        assert!(((squares / count as f64).sqrt() - 0.02).abs() < 3e-4);
    }

    #[test]
    fn the_fast_rounding_is_the_exact_one() {
        let values = Values::new(2, Member::Cp, "model.norm.weight");
        for element in 0..10_000 {
            let value = values.at(element);
            let exact = Format::Bf16.round(f64::from(value));
            assert_eq!(u64::from(to_bf16(value)), exact);
        }
    }

    #[test]
    fn any_piece_has_the_bytes_of_the_whole() {
        let values = Values::new(3, Member::Chat, "a");
        let (mut whole, mut piece) = ([0; 200], [0; 20]);
        values.fill(Dtype::BF16, 0, &mut whole);
        values.fill(Dtype::BF16, 45, &mut piece);
        assert_eq!(whole[90..110], piece);
    }
}
