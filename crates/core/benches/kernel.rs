//! Speed of the merge kernel: GB of output per second on one core, for every
//! path that this CPU has. `cargo bench -p chatvec-core --bench kernel`; names
//! of a case and of a path choose rows: `-- bf16 AVX2`.
//!
//! "cache" merges one piece again and again; "DRAM" goes through buffers that
//! no cache holds, in pieces of the size that workers use. Each number is the
//! median of many short runs, with the best beside it; all statistics are measured as in a real merge.

#![expect(clippy::print_stdout, reason = "a table for people is the product")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use chatvec_core::dtype::FloatFormat::{self, Bf16, F16, F32};
use chatvec_core::kernel::{Delta, Operand, Path, Scratch, merge_with};
use chatvec_core::stats::SliceSums;

const RUNS: usize = 51;
const RUN_TIME: Duration = Duration::from_millis(3);
const CACHED_ELEMENTS: usize = 32 * 1024;
const DRAM_ELEMENTS: usize = 16 * 1024 * 1024;
const PIECE_ELEMENTS: usize = 64 * 1024;

/// One kind of merge.
struct Case {
    name: &'static str,
    cp: FloatFormat,
    /// Formats of chat and base, by vector.
    vectors: &'static [(FloatFormat, FloatFormat)],
    out: FloatFormat,
}

const CASES: [Case; 6] = [
    Case {
        name: "bf16",
        cp: Bf16,
        vectors: &[(Bf16, Bf16)],
        out: Bf16,
    },
    Case {
        name: "f16",
        cp: F16,
        vectors: &[(F16, F16)],
        out: F16,
    },
    Case {
        name: "f32",
        cp: F32,
        vectors: &[(F32, F32)],
        out: F32,
    },
    Case {
        name: "mixed f32+bf16-f16 to bf16",
        cp: F32,
        vectors: &[(Bf16, F16)],
        out: Bf16,
    },
    Case {
        name: "bf16, 2 vectors",
        cp: Bf16,
        vectors: &[(Bf16, Bf16), (Bf16, Bf16)],
        out: Bf16,
    },
    Case {
        name: "bf16, no vector",
        cp: Bf16,
        vectors: &[],
        out: Bf16,
    },
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    println!("GB of output per second, one core: median (best)\n");
    println!("{:28} {:>8} {:>14} {:>14}", "", "", "cache", "DRAM");
    for case in CASES {
        for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
            if wanted
                .iter()
                .all(|word| [case.name, path.name()].contains(&word.as_str()))
            {
                let [cached, cached_best] = speed(&case, path, CACHED_ELEMENTS);
                let [dram, dram_best] = speed(&case, path, DRAM_ELEMENTS);
                println!(
                    "{:28} {:>8} {cached:>6.2} ({cached_best:>5.2}) {dram:>6.2} ({dram_best:>5.2})",
                    case.name,
                    path.name(),
                );
            }
        }
    }
}

/// GB of output per second: the median of the runs, and the best.
fn speed(case: &Case, path: Path, elements: usize) -> [f64; 2] {
    let mut seed = 1;
    let cp = weights(case.cp, elements, &mut seed);
    let vectors: Vec<(Vec<u8>, Vec<u8>)> = case
        .vectors
        .iter()
        .map(|(chat, base)| {
            (
                weights(*chat, elements, &mut seed),
                weights(*base, elements, &mut seed),
            )
        })
        .collect();
    let mut out = vec![0; elements * case.out.bytes()];
    let mut scratch = Scratch::default();
    let mut pass = || {
        let mut sums = SliceSums::default();
        for first in (0..elements).step_by(PIECE_ELEMENTS) {
            let range = first..elements.min(first + PIECE_ELEMENTS);
            let part = |format: FloatFormat, bytes| operand(format, bytes, &range);
            let deltas: Vec<Delta<'_>> = case
                .vectors
                .iter()
                .zip(&vectors)
                .map(|((chat_format, base_format), (chat, base))| Delta {
                    vector: 0,
                    lambda: 0.7,
                    chat: part(*chat_format, chat),
                    base: part(*base_format, base),
                })
                .collect();
            let width = case.out.bytes();
            let out = &mut out[range.start * width..range.end * width];
            merge_with(
                path,
                part(case.cp, &cp),
                &deltas,
                case.out,
                out,
                &mut scratch,
                &mut sums,
            );
        }
        black_box(&sums);
    };

    pass();
    let mut speeds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let mut passes = 0.0;
            while start.elapsed() < RUN_TIME {
                pass();
                passes += 1.0;
            }
            let bytes = passes * (elements * case.out.bytes()) as f64;
            bytes / start.elapsed().as_secs_f64() / 1e9
        })
        .collect();
    speeds.sort_by(f64::total_cmp);
    [speeds[RUNS / 2], speeds[RUNS - 1]]
}

fn operand<'a>(
    format: FloatFormat,
    bytes: &'a [u8],
    range: &std::ops::Range<usize>,
) -> Operand<'a> {
    let width = format.bytes();
    Operand {
        format,
        bytes: &bytes[range.start * width..range.end * width],
    }
}

/// Values spread like weights: mostly of order 0.02, some much smaller.
fn weights(format: FloatFormat, elements: usize, seed: &mut u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(elements * format.bytes());
    for _ in 0..elements {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let uniform = (*seed >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let weight = 0.05 * uniform * uniform.abs();
        match format {
            FloatFormat::F64 => bytes.extend(f64::from(weight).to_le_bytes()),
            F32 => bytes.extend(weight.to_le_bytes()),
            Bf16 => bytes.extend(&weight.to_le_bytes()[2..]),
            F16 => bytes.extend(half(weight).to_le_bytes()),
        }
    }
    bytes
}

/// An f16 near a value below one: cut, not rounded.
fn half(value: f32) -> u16 {
    let units = (value.abs() * 16_777_216.0) as u32;
    let sign = u16::from(value.is_sign_negative()) << 15;
    let extra = units.max(1).ilog2().saturating_sub(10);
    sign | ((extra << 10) + (units >> extra)) as u16
}
