use super::*;

fn sums(t_sq: f64, cp_sq: f64, vectors: Vec<VectorSums>) -> SliceSums {
    SliceSums {
        elements: 4,
        changed: 1,
        t_sq,
        t_max: t_sq.sqrt(),
        cp_sq,
        vectors,
        ..SliceSums::default()
    }
}

fn vector(vector: u32, delta_sq: f64, base_sq: f64, drift_sq: f64, dot: f64) -> VectorSums {
    VectorSums {
        vector,
        delta_sq,
        base_sq,
        drift_sq,
        delta_dot_drift: dot,
    }
}

fn tensor<'a>(name: &'a str, sums: Option<&'a SliceSums>) -> TensorInput<'a> {
    TensorInput {
        name,
        decision: if sums.is_some() { "merge" } else { "copy" },
        dtype: "BF16",
        shape: &[2, 2],
        sums,
        lambdas: &[(0, 0.5), (1, -1.0)],
    }
}

#[test]
fn norms_ratios_and_cosines_are_those_of_the_sums() {
    let sums = sums(9.0, 36.0, vec![vector(0, 4.0, 100.0, 16.0, -4.0)]);
    let report = Report::of(&[tensor("w", Some(&sums))]);
    let measures = report.tensors[0].measures.as_ref().unwrap();
    assert_eq!(measures.t_norm, Some(3.0));
    assert_eq!(measures.cp_norm, Some(6.0));
    assert_eq!(measures.relative_change, Some(0.5));
    assert_eq!(measures.changed_share, Some(0.25));
    let first = &measures.vectors[0];
    assert_eq!(first.lambda, Some(0.5));
    assert_eq!(
        (first.delta_norm, first.base_norm, first.drift_norm),
        (Some(2.0), Some(10.0), Some(4.0))
    );
    assert_eq!(first.cosine, Some(-0.5));
    assert_eq!(report.warnings, []);
}

#[test]
fn totals_add_tensors_with_different_vectors() {
    let both = sums(
        9.0,
        0.0,
        vec![
            vector(0, 1.0, 2.0, 0.0, 0.0),
            vector(1, 5.0, 60.0, 0.0, 0.0),
        ],
    );
    let second = sums(16.0, 1.0, vec![vector(1, 4.0, 40.0, 1.0, 2.0)]);
    let report = Report::of(&[
        tensor("a", Some(&both)),
        tensor("ids", None),
        tensor("b", Some(&second)),
    ]);
    assert_eq!((report.totals.tensors, report.totals.merged), (3, 2));
    let measures = &report.totals.measures;
    assert_eq!((measures.elements, measures.t_norm), (8, Some(5.0)));
    assert_eq!(measures.t_max, Some(4.0));
    assert_eq!(measures.vectors[1].delta_norm, Some(3.0));
    assert_eq!(measures.vectors[1].base_norm, Some(10.0));
    assert_eq!(measures.vectors[1].lambda, None);
    assert_eq!(report.tensors[1].measures, None);
}

#[test]
fn the_file_never_holds_nan_or_infinity() {
    let zero = sums(0.0, 0.0, vec![vector(0, 0.0, 0.0, 0.0, 0.0)]);
    let huge = sums(
        f64::INFINITY,
        f64::NAN,
        vec![vector(0, f64::INFINITY, 1.0, f64::INFINITY, f64::NAN)],
    );
    let report = Report::of(&[
        tensor("zero", Some(&zero)),
        tensor("huge", Some(&huge)),
        tensor("none", Some(&SliceSums::default())),
    ]);
    let json = report.to_json();
    let back: Report = serde_json::from_slice(&json).unwrap();
    assert_eq!(back, report);
    let measures = report.tensors[0].measures.as_ref().unwrap();
    assert_eq!(measures.relative_change, None);
    assert_eq!(measures.vectors[0].cosine, None);
    let measures = report.tensors[1].measures.as_ref().unwrap();
    assert_eq!((measures.t_norm, measures.cp_norm), (None, None));
    let text = String::from_utf8(json).unwrap();
    assert!(!text.contains("NaN") && !text.contains("inf\"") && !text.contains("Infinity"));
}

#[test]
fn a_merge_that_changes_nothing_is_warned_about() {
    let sums = sums(0.0, 1.0, vec![vector(0, 0.0, 1.0, 0.0, 0.0)]);
    let report = Report::of(&[tensor("w", Some(&sums))]);
    assert_eq!(report.warnings.len(), 1);
    assert!(
        report.warnings[0]
            .message
            .contains("all differences are zero")
    );
    // Copies alone are no such merge.
    assert_eq!(Report::of(&[tensor("ids", None)]).warnings, []);
}

#[test]
fn a_base_that_is_no_ancestor_is_named_with_its_vector() {
    let sums = sums(
        1.0,
        100.0,
        vec![
            vector(0, 1.0, 100.0, 48.9, 0.0),
            vector(2, 200.0, 100.0, 200.0, 0.0),
        ],
    );
    let report = Report::of(&[tensor("w", Some(&sums))]);
    let subjects: Vec<&str> = report.warnings.iter().map(|w| w.subject.as_str()).collect();
    assert_eq!(subjects, ["vectors[2].base", "vectors[2].base"]);
    assert_eq!(
        report.warnings[0].message,
        "seems not to be the ancestor of chat: ‖chat − base‖ / ‖base‖ is 1.41, expected at most 0.7"
    );
    assert!(report.warnings[1].message.contains("ancestor of cp"));
}

#[test]
fn the_greatest_relative_changes_come_first() {
    let (small, large, from_zero, still) = (
        sums(1.0, 100.0, vec![]),
        sums(4.0, 4.0, vec![]),
        sums(1e-9, 0.0, vec![]),
        sums(0.0, 4.0, vec![]),
    );
    let report = Report::of(&[
        tensor("small", Some(&small)),
        tensor("still", Some(&still)),
        tensor("large", Some(&large)),
        tensor("twin", Some(&large)),
        tensor("from_zero", Some(&from_zero)),
        tensor("copied", None),
    ]);
    let names = |count| -> Vec<&str> {
        let top = report.top_changes(count).into_iter();
        top.map(|tensor| tensor.name.as_str()).collect()
    };
    assert_eq!(names(9), ["from_zero", "large", "twin", "small"]);
    assert_eq!(names(2), ["from_zero", "large"]);
}
