//! The instruction sets that the blocks are compiled for, and which one runs.

use std::fmt;

use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::{Job, Scratch, block, scalar};
use crate::stats::SliceSums;

/// One way to compute a merge. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Blocks compiled for AVX-512 as Ice Lake and Zen 4 have it.
    Avx512,
    /// Blocks compiled for AVX2.
    Avx2,
    /// Blocks compiled for what every CPU of the target has: SSE2 or NEON.
    Baseline,
    /// One element after the other: the reference, and the path of every block
    /// that holds or makes a value that is not finite.
    Scalar,
}

impl Path {
    /// Every path, the fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Baseline, Self::Scalar];

    /// The fastest path that this CPU has.
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .find(|path| path.is_available())
            .expect("the scalar path runs everywhere")
    }

    /// Whether this CPU can run the path.
    pub fn is_available(self) -> bool {
        match self {
            Self::Avx512 => runs_avx512(),
            Self::Avx2 => runs_avx2(),
            Self::Baseline | Self::Scalar => true,
        }
    }

    /// The instruction set's usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2",
            Self::Baseline if cfg!(target_arch = "x86_64") => "SSE2",
            Self::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            Self::Baseline => "baseline",
            Self::Scalar => "scalar",
        }
    }

    /// Merges all blocks of a job.
    pub(super) fn run(
        self,
        job: &Job<'_>,
        out: &mut [u8],
        scratch: &mut Scratch,
        sums: &mut SliceSums,
    ) {
        assert!(self.is_available(), "this CPU has no {self}");
        match self {
            Self::Avx512 => avx512(job, out, scratch, sums),
            Self::Avx2 => avx2(job, out, scratch, sums),
            Self::Baseline => block::merge_blocks(job, out, scratch, sums),
            Self::Scalar => scalar::merge_blocks(job, out, &mut scratch.lanes, sums),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// `multiversion` asks for more than AVX-512F before it takes such a version, so
// the question which one it takes is put to it, not to the CPU.
#[multiversion(targets("x86_64+avx512f"))]
fn runs_avx512() -> bool {
    target_cfg_f!(target_feature = "avx512f")
}

#[multiversion(targets("x86_64+avx2"))]
fn runs_avx2() -> bool {
    target_cfg_f!(target_feature = "avx2")
}

#[multiversion(targets("x86_64+avx512f"))]
fn avx512(job: &Job<'_>, out: &mut [u8], scratch: &mut Scratch, sums: &mut SliceSums) {
    block::merge_blocks(job, out, scratch, sums);
}

#[multiversion(targets("x86_64+avx2"))]
fn avx2(job: &Job<'_>, out: &mut [u8], scratch: &mut Scratch, sums: &mut SliceSums) {
    block::merge_blocks(job, out, scratch, sums);
}
