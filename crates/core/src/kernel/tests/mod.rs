//! Every path against an oracle, bit for bit.

mod named;
mod oracle;

use proptest::prelude::*;

use super::*;
use crate::dtype::FloatFormat::{Bf16, F16, F32, F64};

const FORMATS: [FloatFormat; 4] = [Bf16, F16, F32, F64];

/// Elements at an offset into their buffer, so that no alignment is given.
#[derive(Debug, Clone)]
struct Input {
    format: FloatFormat,
    offset: usize,
    buffer: Vec<u8>,
}

impl Input {
    fn new(format: FloatFormat, offset: usize, bits: impl IntoIterator<Item = u64>) -> Self {
        let mut buffer = vec![0xa5; offset];
        for bits in bits {
            buffer.extend(&bits.to_le_bytes()[..format.bytes()]);
        }
        Self {
            format,
            offset,
            buffer,
        }
    }

    fn of_values(format: FloatFormat, values: impl IntoIterator<Item = f64>) -> Self {
        let bits = values.into_iter().map(|x| {
            let bits = oracle::round(format, x);
            assert_eq!(oracle::value(format, bits), x, "{x} is no {format:?}");
            bits
        });
        Self::new(format, 1, bits)
    }

    fn operand(&self) -> Operand<'_> {
        Operand {
            format: self.format,
            bytes: &self.buffer[self.offset..],
        }
    }
}

/// Everything one merge is given.
#[derive(Debug, Clone)]
struct Case {
    cp: Input,
    /// λ, chat, base.
    vectors: Vec<(f64, Input, Input)>,
    out_format: FloatFormat,
}

impl Case {
    fn elements(&self) -> usize {
        self.cp.operand().elements()
    }

    fn deltas(&self) -> Vec<Delta<'_>> {
        (10..)
            .zip(&self.vectors)
            .map(|(vector, (lambda, chat, base))| Delta {
                vector,
                lambda: *lambda,
                chat: chat.operand(),
                base: base.operand(),
            })
            .collect()
    }

    /// Output and sums of one path, merged in pieces of this many elements.
    fn run_in_pieces(
        &self,
        path: Path,
        piece: usize,
        scratch: &mut Scratch,
    ) -> (Vec<u8>, SliceSums) {
        let elements = self.elements();
        let width = self.out_format.bytes();
        let mut sums = SliceSums::default();
        let mut out = vec![0x5a; 1 + elements * width];
        for first in (0..elements.max(1)).step_by(piece) {
            let last = elements.min(first + piece);
            let cut = |operand: Operand<'_>| {
                first * operand.format.bytes()..last * operand.format.bytes()
            };
            let part = |operand| cut_operand(operand, cut(operand));
            let deltas: Vec<Delta<'_>> = self
                .deltas()
                .into_iter()
                .map(|delta| Delta {
                    chat: part(delta.chat),
                    base: part(delta.base),
                    ..delta
                })
                .collect();
            let out = &mut out[1 + first * width..1 + last * width];
            merge_with(
                path,
                part(self.cp.operand()),
                &deltas,
                self.out_format,
                out,
                scratch,
                &mut sums,
            );
        }
        assert_eq!(out.remove(0), 0x5a, "nothing is written before the output");
        (out, sums)
    }

    fn run(&self, path: Path) -> (Vec<u8>, SliceSums) {
        self.run_in_pieces(path, usize::MAX, &mut Scratch::default())
    }

    /// The one output value of a case with one element, the same on all paths.
    fn only_output(&self) -> f64 {
        self.check();
        let (bytes, _) = self.run(Path::best());
        let bits = oracle::bits_at(
            Operand {
                format: self.out_format,
                bytes: &bytes,
            },
            0,
        );
        oracle::value(self.out_format, bits)
    }

    /// Compares all paths with the oracle.
    fn check(&self) {
        let expected: Vec<_> = (0..self.elements())
            .map(|i| oracle::element(self, i))
            .collect();
        let (_, reference) = self.run(Path::Scalar);
        for path in paths() {
            let (out, sums) = self.run(path);
            for (i, expected) in expected.iter().enumerate() {
                let operand = Operand {
                    format: self.out_format,
                    bytes: &out,
                };
                let bits = oracle::bits_at(operand, i);
                assert_eq!(
                    bits, expected.out,
                    "{path}: {bits:x} for {:x} at {i}",
                    expected.out
                );
            }
            assert_eq!(bits_of(&sums), bits_of(&reference), "{path}");
        }
        check_sums(&reference, &expected);
        assert_eq!(
            first_overflow(self.cp.operand(), &self.deltas(), self.out_format),
            expected.iter().position(|element| element.overflow)
        );
    }
}

fn cut_operand(operand: Operand<'_>, range: std::ops::Range<usize>) -> Operand<'_> {
    Operand {
        bytes: &operand.bytes[range],
        ..operand
    }
}

fn paths() -> impl Iterator<Item = Path> {
    Path::ALL.into_iter().filter(|path| path.is_available())
}

/// All numbers of the sums by their bits: `==` would take −0.0 for 0.0.
fn bits_of(sums: &SliceSums) -> Vec<u64> {
    let mut bits = vec![
        sums.elements,
        sums.changed,
        sums.nonfinite_inputs,
        sums.overflows,
    ];
    bits.extend([sums.t_sq, sums.t_max, sums.cp_sq].map(f64::to_bits));
    for v in &sums.vectors {
        bits.push(v.vector.into());
        bits.extend([v.delta_sq, v.base_sq, v.drift_sq, v.delta_dot_drift].map(f64::to_bits));
    }
    bits
}

/// Compares the counts exactly and the sums with naive ones.
fn check_sums(sums: &SliceSums, expected: &[oracle::Expected]) {
    let count =
        |test: fn(&oracle::Expected) -> bool| expected.iter().filter(|e| test(e)).count() as u64;
    assert_eq!(sums.elements, expected.len() as u64);
    assert_eq!(sums.changed, count(|e| e.out != e.unmerged));
    assert_eq!(sums.overflows, count(|e| e.overflow));
    assert_eq!(
        sums.nonfinite_inputs,
        expected.iter().map(|e| e.nonfinite_inputs).sum::<u64>()
    );

    let finite = || expected.iter().filter(|e| e.nonfinite_inputs == 0);
    let near = |sum: f64, terms: &mut dyn Iterator<Item = f64>| {
        let (total, scale) = terms.fold((0.0, 0.0), |(total, scale), x: f64| {
            (total + x, scale + x.abs())
        });
        if f64::is_finite(scale) {
            assert!((sum - total).abs() <= 1e-12 * scale, "{sum} for {total}");
        } else {
            assert!(!sum.is_finite(), "{sum} for {total}");
        }
    };
    near(sums.t_sq, &mut finite().map(|e| e.t * e.t));
    near(sums.cp_sq, &mut finite().map(|e| e.cp * e.cp));
    assert_eq!(sums.t_max, finite().map(|e| e.t.abs()).fold(0.0, f64::max));
    for (i, v) in sums.vectors.iter().enumerate() {
        assert_eq!(v.vector, 10 + i as u32);
        near(v.delta_sq, &mut finite().map(|e| e.vectors[i].0.powi(2)));
        near(v.base_sq, &mut finite().map(|e| e.vectors[i].1.powi(2)));
        near(
            v.drift_sq,
            &mut finite().map(|e| (e.cp - e.vectors[i].1).powi(2)),
        );
        near(
            v.delta_dot_drift,
            &mut finite().map(|e| e.vectors[i].0 * (e.cp - e.vectors[i].1)),
        );
    }
}

/// What the elements of a generated case look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Any bits at all, with many NaNs, infinities and numbers near them.
    Wild,
    /// Zeros, subnormals, and numbers of similar size with few mantissa bits,
    /// whose sums are often ties. Nothing overflows: the fast loops run.
    Tame,
}

/// Bits of a format from a random number.
fn pattern(kind: Kind, format: FloatFormat, random: u64) -> u64 {
    let low = random >> 8;
    let infinity = oracle::infinity(format);
    let sign = if random & 0x80 == 0 {
        0
    } else {
        oracle::sign_bit(format)
    };
    let width_mask = u64::MAX >> (64 - 8 * format.bytes());
    match (kind, random & 7) {
        (_, 0) => sign,
        (_, 1) => sign | (low & 3),
        (Kind::Wild, 2) => sign | infinity,
        (Kind::Wild, 3) => sign | infinity | (low & (infinity >> 1) & !infinity) | 1,
        (Kind::Wild, 4) => sign | (infinity - 1 - (low & 3)),
        (Kind::Wild, _) => low.wrapping_mul(0x9e37_79b9_7f4a_7c15) & width_mask,
        // All mantissa bits in a small range of exponents, then few bits.
        (Kind::Tame, 2 | 3) => {
            let x = (low as f64 / (1_u64 << 56) as f64 - 0.5)
                * 2_f64.powi((random & 0x70) as i32 / 4 - 20);
            oracle::round(format, x)
        }
        (Kind::Tame, _) => oracle::round(format, (low & 0x1ff) as f64 / 256.0) | sign,
    }
}

fn formats() -> impl Strategy<Value = FloatFormat> {
    prop::sample::select(FORMATS.to_vec())
}

fn lambdas() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 0.5, 1.0 / 512.0, 0.7]),
        -3.0..3.0,
    ]
}

fn cases(kind: Kind, lengths: std::ops::Range<usize>) -> impl Strategy<Value = Case> {
    let vector = (lambdas(), formats(), formats(), prop::bool::weighted(0.3));
    let shape = (
        formats(),
        formats(),
        prop::bool::ANY,
        prop::collection::vec(vector, 0..4),
    );
    let rows = prop::collection::vec(prop::array::uniform7(any::<u64>()), lengths);
    (shape, rows, 0_usize..8).prop_map(move |((cp, out, same, vectors), rows, offset)| {
        let input = |format, column: usize| {
            Input::new(
                format,
                (offset + column) % 8,
                rows.iter().map(|row| pattern(kind, format, row[column])),
            )
        };
        let uniform = |format| if same { cp } else { format };
        Case {
            cp: input(cp, 0),
            vectors: vectors
                .iter()
                .enumerate()
                .map(|(i, (lambda, chat, base, identical))| {
                    let chat = input(uniform(*chat), 1 + 2 * i);
                    let base = if *identical {
                        chat.clone()
                    } else {
                        input(uniform(*base), 2 + 2 * i)
                    };
                    (*lambda, chat, base)
                })
                .collect(),
            out_format: uniform(out),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_path_agrees_with_the_oracle_on_finite_numbers(case in cases(Kind::Tame, 1..90)) {
        case.check();
    }

    #[test]
    fn every_path_agrees_with_the_oracle_on_any_bits(case in cases(Kind::Wild, 1..40)) {
        case.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pieces_cut_at_blocks_give_the_bits_of_one_call(
        case in cases(Kind::Tame, 1..5 * BLOCK_ELEMENTS),
        blocks in 1_usize..4,
        poison in any::<Option<prop::sample::Index>>(),
    ) {
        let mut case = case;
        if let Some(at) = poison {
            // One block takes the scalar path, its neighbours do not.
            let width = case.cp.format.bytes();
            let end = case.cp.offset + (at.index(case.elements()) + 1) * width;
            case.cp.buffer[end - 2..end].fill(0x7f);
        }
        let mut scratch = Scratch::default();
        let (out, sums) = case.run(Path::Scalar);
        for path in paths() {
            let pieces = case.run_in_pieces(path, blocks * BLOCK_ELEMENTS, &mut scratch);
            prop_assert!(pieces.0 == out);
            prop_assert_eq!(bits_of(&pieces.1), bits_of(&sums));
        }
    }
}
