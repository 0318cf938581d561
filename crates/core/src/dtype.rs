//! Element types: the names of safetensors, and which of them can be merged.

use serde::{Deserialize, Serialize};

pub use safetensors::Dtype;

/// The floating-point formats that the kernel reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FloatFormat {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// bfloat16: binary32 cut to 8 bits of precision.
    Bf16,
    /// IEEE 754 binary16.
    F16,
}

impl FloatFormat {
    /// The format of a safetensors type, or `None` where it is not one that merges.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F64 => Some(Self::F64),
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// The safetensors type of this format.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F64 => Dtype::F64,
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
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
}

/// Whether the type is a low-precision code that means nothing without its
/// scale: adding such codes is silent garbage.
pub fn is_quantised(dtype: Dtype) -> bool {
    dtype.bitsize() < 8 || dtype.to_string().starts_with("F8")
}
