//! Floating-point formats, written for the reader and not for speed: the exact
//! value of any encoding, and the one correct rounding to it.

use safetensors::Dtype;

/// A binary floating-point format of IEEE 754's layout: sign, exponent, fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// binary64.
    F64,
    /// binary32.
    F32,
    /// The upper half of binary32.
    Bf16,
    /// binary16.
    F16,
}

impl Format {
    /// The format of a safetensors type, or `None` where elements are not of
    /// this layout.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F64 => Some(Self::F64),
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Bits of the exponent field and of the fraction field.
    fn fields(self) -> (u32, u32) {
        match self {
            Self::F64 => (11, 52),
            Self::F32 => (8, 23),
            Self::Bf16 => (8, 7),
            Self::F16 => (5, 10),
        }
    }

    /// Reads the element at `ordinal` of little-endian `bytes`, as its bit pattern.
    pub fn load(self, bytes: &[u8], ordinal: usize) -> u64 {
        let width = self.bytes();
        let mut pattern = [0_u8; 8];
        pattern[..width].copy_from_slice(&bytes[ordinal * width..][..width]);
        u64::from_le_bytes(pattern)
    }

    /// Writes a bit pattern as the element at `ordinal`.
    pub fn store(self, pattern: u64, bytes: &mut [u8], ordinal: usize) {
        let width = self.bytes();
        bytes[ordinal * width..][..width].copy_from_slice(&pattern.to_le_bytes()[..width]);
    }

    /// The exact value of a bit pattern; binary64 holds every value of every
    /// format here.
    pub fn decode(self, pattern: u64) -> f64 {
        match self {
            Self::F64 => f64::from_bits(pattern),
            Self::F32 => f64::from(f32::from_bits(pattern as u32)),
            Self::Bf16 => f64::from(f32::from_bits((pattern as u32) << 16)),
            Self::F16 => decode_binary16(pattern as u16),
        }
    }

    /// The bit pattern nearest to `value`, ties to even. Overflow gives
    /// infinity, and NaN the format's quiet NaN without payload.
    pub fn round(self, value: f64) -> u64 {
        let (exponent_bits, fraction_bits) = self.fields();
        let width = 1 + exponent_bits + fraction_bits;
        let sign = u64::from(value.is_sign_negative()) << (width - 1);
        let infinity = ((1_u64 << exponent_bits) - 1) << fraction_bits;
        if value.is_nan() {
            return sign | infinity | (1 << (fraction_bits - 1));
        }
        if value.is_infinite() {
            return sign | infinity;
        }
        if value == 0.0 {
            return sign;
        }

        // |value| = significand × 2^scale, exactly.
        let (significand, scale) = split(value);
        let bias = (1_i32 << (exponent_bits - 1)) - 1;
        // The weight of the last bit of a subnormal of the format …
        let smallest = 1 - bias - fraction_bits as i32;
        // … and of the last bit that the format keeps of this value.
        let leading = scale + 63 - significand.leading_zeros() as i32;
        let target = (leading - fraction_bits as i32).max(smallest);

        let units = round_shift(significand, target - scale);
        // `units` of a normal number includes the leading bit, which the format
        // leaves out: adding it to the exponent field makes the field one more,
        // which is how the format counts.
        let magnitude = (((target - smallest) as u64) << fraction_bits) + units;
        sign | magnitude.min(infinity)
    }
}

/// The finite, non-zero `value` without its sign, as an integer times a power of two.
fn split(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    match exponent {
        0 => (fraction, -1074),
        _ => (fraction | (1 << 52), exponent - 1075),
    }
}

/// `significand / 2^drop`, rounded to the nearest integer, ties to even.
fn round_shift(significand: u64, drop: i32) -> u64 {
    if drop <= 0 {
        return significand << -drop;
    }
    if drop >= 64 {
        // Less than half of one unit, as no significand has more than 53 bits.
        return 0;
    }
    let kept = significand >> drop;
    let rest = significand & ((1 << drop) - 1);
    let half = 1 << (drop - 1);
    let up = rest > half || (rest == half && kept % 2 == 1);
    kept + u64::from(up)
}

fn decode_binary16(pattern: u16) -> f64 {
    let exponent = i32::from((pattern >> 10) & 0x1f);
    let fraction = f64::from(pattern & 0x3ff);
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    };
    if pattern >> 15 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixteen_bit_pattern_rounds_to_itself() {
        for format in [Format::Bf16, Format::F16] {
            for pattern in 0..=u64::from(u16::MAX) {
                let value = format.decode(pattern);
                if !value.is_nan() {
                    assert_eq!(format.round(value), pattern, "{format:?} {pattern:#06x}");
                }
            }
        }
    }

    #[test]
    fn midpoints_go_to_the_even_neighbour_and_their_surroundings_to_the_nearer() {
        for format in [Format::Bf16, Format::F16] {
            let (exponent_bits, fraction_bits) = format.fields();
            let infinity = ((1_u64 << exponent_bits) - 1) << fraction_bits;
            for low in 0..infinity - 1 {
                let middle = (format.decode(low) + format.decode(low + 1)) / 2.0;
                assert_eq!(format.round(middle), low + low % 2);
                assert_eq!(format.round(middle.next_down()), low);
                assert_eq!(format.round(middle.next_up()), low + 1);
            }
        }
    }

    #[test]
    fn the_largest_value_and_half_a_unit_overflow_to_infinity() {
        assert_eq!(Format::F16.round(65_519.999), 0x7bff);
        assert_eq!(Format::F16.round(65_520.0), 0x7c00);
        assert_eq!(Format::F16.round(-1e300), 0xfc00);
        assert_eq!(Format::Bf16.round(f64::MAX), 0x7f80);
    }

    #[test]
    fn binary32_agrees_with_the_language() {
        let mut bits = 0x0123_4567_89ab_cdef_u64;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Exponents round the whole range of binary32, subnormals included.
            let exponent = 860 + (bits >> 40) % 300;
            let value = f64::from_bits((bits & 0x800f_ffff_ffff_ffff) | (exponent << 52));
            let expected = u64::from((value as f32).to_bits());
            assert_eq!(Format::F32.round(value), expected, "{value:e}");
        }
    }

    #[test]
    fn signs_survive_in_zeros_and_underflow() {
        assert_eq!(Format::Bf16.round(-0.0), 0x8000);
        assert_eq!(Format::F16.round(-1e-300), 0x8000);
        assert_eq!(Format::F16.round(f64::NAN) & 0x7fff, 0x7e00);
    }
}
