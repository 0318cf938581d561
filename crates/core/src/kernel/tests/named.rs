//! Single cases: each number rule and each thing that once went wrong elsewhere.

use super::super::*;
use super::{Case, FORMATS, Input, oracle, paths};
use crate::dtype::FloatFormat::{Bf16, F16, F32, F64};

/// One element, one vector, all inputs F64.
fn one(cp: f64, lambda: f64, chat: f64, base: f64, out_format: FloatFormat) -> Case {
    let input = |x: f64| Input::new(F64, 3, [x.to_bits()]);
    Case {
        cp: input(cp),
        vectors: vec![(lambda, input(chat), input(base))],
        out_format,
    }
}

/// All inputs in the output's format.
fn uniform(format: FloatFormat, cp: &[f64], lambda: f64, chat: &[f64], base: &[f64]) -> Case {
    let input = |values: &[f64]| Input::of_values(format, values.iter().copied());
    Case {
        cp: input(cp),
        vectors: vec![(lambda, input(chat), input(base))],
        out_format: format,
    }
}

#[test]
fn a_sum_just_above_a_tie_is_not_rounded_twice() {
    // Half a bf16 step above 1, and a little that f32 does not hold: by way of
    // f32 this becomes a tie and falls to 1.
    let tie = 2_f64.powi(-8);
    assert_eq!(one(1.0, 1.0, tie, 0.0, Bf16).only_output(), 1.0);
    assert_eq!(
        one(1.0, 1.0, tie + 2_f64.powi(-40), 0.0, Bf16).only_output(),
        1.0078125
    );
    assert_eq!(
        one(1.0, 1.0, tie - 2_f64.powi(-40), 0.0, Bf16).only_output(),
        1.0
    );

    let tie = 2_f64.powi(-11);
    assert_eq!(
        one(1.0, 1.0, tie + 2_f64.powi(-40), 0.0, F16).only_output(),
        1.0009765625
    );
}

#[test]
fn ties_go_to_the_even_neighbour() {
    let step = 2_f64.powi(-7);
    assert_eq!(
        one(1.0 + step, 0.5, step, 0.0, Bf16).only_output(),
        1.0 + 2.0 * step
    );
    assert_eq!(
        one(1.0 + 2.0 * step, 0.5, step, 0.0, Bf16).only_output(),
        1.0 + 2.0 * step
    );
    assert_eq!(
        one(-1.0 - step, 0.5, -step, 0.0, Bf16).only_output(),
        -1.0 - 2.0 * step
    );
}

#[test]
fn subnormal_results_are_rounded_to_their_own_step() {
    for (format, exponent) in [(Bf16, -133), (F16, -24), (F32, -149)] {
        let step = 2_f64.powi(exponent);
        assert_eq!(one(step, 0.5, step, 0.0, format).only_output(), 2.0 * step);
        assert_eq!(
            one(2.0 * step, 0.5, step, 0.0, format).only_output(),
            2.0 * step
        );
        assert_eq!(one(step, 0.49, step, 0.0, format).only_output(), step);
        assert_eq!(one(0.0, 0.5, step, 0.0, format).only_output(), 0.0);
        assert_eq!(one(0.0, 0.5000001, step, 0.0, format).only_output(), step);
    }
}

#[test]
fn the_largest_subnormal_rounds_up_to_the_smallest_normal_number() {
    for (format, normal, step) in [(Bf16, -126, -133), (F16, -14, -24), (F32, -126, -149)] {
        let normal = 2_f64.powi(normal);
        let step = 2_f64.powi(step);
        assert_eq!(one(normal, 0.5, -step, 0.0, format).only_output(), normal);
        assert_eq!(
            one(normal, 0.51, -step, 0.0, format).only_output(),
            normal - step
        );
    }
}

#[test]
fn a_result_half_a_step_over_the_largest_number_overflows() {
    for format in [Bf16, F16, F32] {
        let largest = oracle::value(format, oracle::infinity(format) - 1);
        let step = largest - oracle::value(format, oracle::infinity(format) - 2);
        for sign in [1.0, -1.0] {
            let below = one(sign * largest, 0.4999, sign * step, 0.0, format);
            assert_eq!(below.only_output(), sign * largest);
            assert_eq!(below.run(Path::best()).1.overflows, 0);
            let half = one(sign * largest, 0.5, sign * step, 0.0, format);
            assert_eq!(half.only_output(), sign * f64::INFINITY);
            assert_eq!(half.run(Path::best()).1.overflows, 1);
        }
    }
}

#[test]
fn a_cp_beyond_the_output_format_is_changed_by_whatever_brings_it_back() {
    // The exponent of 2^17 is one too large for F16: cut to 16 bits, the number
    // would look like the −0.0 that comes out.
    let cp = 131_072.0;
    let case = one(cp, 1.0, -cp - 2_f64.powi(-30), 0.0, F16);
    assert_eq!(case.only_output().to_bits(), (-0.0_f64).to_bits());
    let sums = case.run(Path::best()).1;
    assert_eq!((sums.changed, sums.overflows), (1, 0));
}

#[test]
fn an_intermediate_overflow_of_f64_is_counted_and_named() {
    let case = one(0.0, 1.0, f64::MAX, -f64::MAX, F64);
    assert_eq!(case.only_output(), f64::INFINITY);
    let sums = case.run(Path::best()).1;
    assert_eq!((sums.overflows, sums.nonfinite_inputs), (1, 0));
}

#[test]
fn negative_zero_stays_where_nothing_is_added() {
    for format in FORMATS {
        let case = uniform(
            format,
            &[-0.0, 0.0, -0.0],
            0.7,
            &[2.0, 2.0, 1.5],
            &[2.0, 2.0, 1.25],
        );
        case.check();
        let (out, sums) = case.run(Path::best());
        let width = format.bytes();
        assert_eq!(&out[..2 * width], &case.cp.operand().bytes[..2 * width]);
        assert_eq!(sums.changed, 1);
    }
}

#[test]
fn values_that_cancel_give_positive_zero() {
    let out = uniform(Bf16, &[-0.5], 1.0, &[0.5], &[0.0]).only_output();
    assert_eq!(out.to_bits(), 0.0_f64.to_bits());
}

#[test]
fn the_vectors_are_added_in_order_before_cp_is() {
    // (1 + 2^-53) − 1 is 0 in f64, but 1 − 1 + 2^-53 is not.
    let input = |x: f64| Input::new(F64, 0, [x.to_bits()]);
    let tiny = 2_f64.powi(-53);
    let merge = |ds: [f64; 3]| Case {
        cp: input(0.0),
        vectors: ds.map(|d| (1.0, input(d), input(0.0))).into(),
        out_format: F64,
    };
    assert_eq!(merge([1.0, tiny, -1.0]).only_output(), 0.0);
    assert_eq!(merge([1.0, -1.0, tiny]).only_output(), tiny);
}

#[test]
fn no_product_is_fused_with_its_sum() {
    // 0.1 × 10 is 1 when rounded; fused, 5.55e-17 would be left.
    assert_eq!(one(-1.0, 0.1, 10.0, 0.0, F64).only_output(), 0.0);
}

#[test]
fn every_16_bit_pattern_passes_through_a_zero_delta() {
    for format in [Bf16, F16] {
        let all = || Input::new(format, 1, 0..=0xffff);
        let same = Input::new(format, 0, (0..=0xffff_u64).map(|i| i % 0x7c00));
        let identity = Case {
            cp: all(),
            vectors: vec![(0.7, same.clone(), same)],
            out_format: format,
        };
        let alone = Case {
            cp: all(),
            vectors: vec![],
            out_format: format,
        };
        for case in [identity, alone] {
            for path in paths() {
                let (out, sums) = case.run(path);
                assert!(out == case.cp.operand().bytes, "{path} {format:?}");
                assert_eq!(sums.changed, 0);
            }
        }
    }
}

#[test]
fn every_finite_16_bit_pattern_survives_f32_and_f64_and_back() {
    for format in [Bf16, F16] {
        let infinity = oracle::infinity(format);
        let finite = (0..infinity).chain(0x8000..0x8000 + infinity);
        let cp = Input::new(format, 0, finite);
        for wide in [F32, F64] {
            for path in paths() {
                let there = Case {
                    cp: cp.clone(),
                    vectors: vec![],
                    out_format: wide,
                };
                there.check();
                let back = Case {
                    cp: Input {
                        format: wide,
                        offset: 0,
                        buffer: there.run(path).0,
                    },
                    vectors: vec![],
                    out_format: format,
                };
                assert!(back.run(path).0 == cp.operand().bytes, "{path} {format:?}");
            }
        }
    }
}

#[test]
fn a_nan_keeps_sign_and_payload_and_turns_quiet_when_its_format_changes() {
    let convert = |from, bits, to| {
        let case = Case {
            cp: Input::new(from, 0, [bits]),
            vectors: vec![],
            out_format: to,
        };
        case.check();
        let (bytes, _) = case.run(Path::best());
        oracle::bits_at(
            Operand {
                format: to,
                bytes: &bytes,
            },
            0,
        )
    };
    assert_eq!(convert(Bf16, 0xffa5, Bf16), 0xffa5);
    assert_eq!(convert(Bf16, 0xffa5, F32), 0xffe5_0000);
    assert_eq!(convert(F32, 0x7fa5_4321, Bf16), 0x7fe5);
    assert_eq!(convert(F32, 0x7f80_0001, F16), 0x7e00);
    assert_eq!(convert(F16, 0xfd55, F64), 0xfffd_5400_0000_0000);
}

#[test]
fn a_nan_that_the_merge_makes_is_canonical() {
    let infinity = Input::new(Bf16, 0, [0x7f80]);
    let minus = Input::new(Bf16, 0, [0xffc1]);
    let case = Case {
        cp: Input::of_values(Bf16, [1.0]),
        vectors: vec![
            (1.0, infinity.clone(), infinity),
            (1.0, minus.clone(), minus),
        ],
        out_format: Bf16,
    };
    case.check();
    let (out, sums) = case.run(Path::best());
    assert_eq!(out, 0x7fc0_u16.to_le_bytes());
    assert_eq!(
        (sums.nonfinite_inputs, sums.overflows, sums.t_sq),
        (4, 0, 0.0)
    );
    assert_eq!(sums.cp_sq, 0.0, "the element counts in no sum");
}

#[test]
fn every_length_up_to_200_is_merged_whole_at_any_alignment() {
    for length in 0..=200_u64 {
        for format in FORMATS {
            let input = |from: u64, offset| {
                let bits = (from..from + length).map(|i| oracle::round(format, i as f64 / 64.0));
                Input::new(format, offset, bits)
            };
            Case {
                cp: input(1, 1 + length as usize % 3),
                vectors: vec![(0.37, input(7, 3), input(2, 5))],
                out_format: format,
            }
            .check();
        }
    }
}

#[test]
fn the_first_bad_element_is_found_by_its_ordinal() {
    let values = [1.0, 65504.0, f64::INFINITY, f64::NAN];
    let cp = Input::new(F64, 0, values.map(f64::to_bits));
    assert_eq!(first_nonfinite(cp.operand()), Some(2));
    assert_eq!(first_overflow(cp.operand(), &[], F16), None);
    let zeros = Input::of_values(F16, [0.0; 4]);
    let chat = Input::of_values(F16, [16.0; 4]);
    let deltas = [Delta {
        vector: 0,
        lambda: 1.0,
        chat: chat.operand(),
        base: zeros.operand(),
    }];
    assert_eq!(first_overflow(cp.operand(), &deltas, F16), Some(1));
    assert_eq!(first_nonfinite(zeros.operand()), None);
}

#[test]
#[should_panic(expected = "every operand has as many whole elements as cp")]
fn operands_of_different_length_are_refused() {
    let case = uniform(Bf16, &[1.0, 2.0], 1.0, &[1.0, 2.0], &[1.0, 2.0]);
    let mut deltas = case.deltas();
    deltas[0].base.bytes = &deltas[0].base.bytes[..3];
    first_overflow(case.cp.operand(), &deltas, Bf16);
}

#[test]
#[should_panic(expected = "pieces of one slice have the same vectors")]
fn sums_of_other_vectors_are_refused() {
    let case = uniform(F32, &[1.0], 1.0, &[1.0], &[1.0]);
    let mut sums = case.run(Path::Scalar).1;
    let mut out = [0; 4];
    let mut scratch = Scratch::default();
    merge(
        case.cp.operand(),
        &[],
        F32,
        &mut out,
        &mut scratch,
        &mut sums,
    );
}

#[test]
fn the_fastest_path_of_this_cpu_is_named() {
    assert_ne!(instruction_set(), "scalar");
    assert!(paths().any(|path| path.name() == instruction_set()));
}
