use serde_json::json;

use super::fixture::{Family, Tensor, bf16, checkpoint, recipe};
use super::*;
use crate::dtype::Dtype;

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const PROJ: &str = "model.layers.0.self_attn.q_proj.weight";

fn llama() -> Vec<Tensor> {
    vec![
        bf16(EMBED, &[8, 4]),
        bf16(PROJ, &[4, 4]),
        bf16(HEAD, &[8, 4]),
    ]
}

fn tied() -> Vec<Tensor> {
    vec![bf16(EMBED, &[8, 4]), bf16(PROJ, &[4, 4])]
}

fn outcome<'a>(alignment: &'a Alignment, name: &str) -> &'a Outcome {
    &alignment
        .decisions
        .iter()
        .find(|decision| decision.name == name)
        .unwrap()
        .outcome
}

fn keep(alignment: &Alignment, name: &str) -> Option<Keep> {
    match outcome(alignment, name) {
        Outcome::Keep(keep) => Some(*keep),
        Outcome::Merge(_) => None,
    }
}

#[test]
fn every_float_tensor_is_merged_in_cps_order() {
    let family = Family::alike(&llama());
    let alignment = align(&recipe(&json!({})), &family.inputs()).unwrap();
    let names: Vec<_> = alignment
        .decisions
        .iter()
        .map(|decision| decision.name.as_str())
        .collect();
    assert_eq!(names, [EMBED, PROJ, HEAD]);
    assert!(alignment.decisions.iter().all(Decision::is_merged));
    assert!(alignment.warnings.is_empty() && !alignment.untie);
}

#[test]
fn integers_and_known_buffers_are_copied_whatever_the_others_hold() {
    let mut tensors = llama();
    tensors.push((
        "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(),
        Dtype::F32,
        vec![2],
    ));
    tensors.push(("h.0.attn.bias".to_owned(), Dtype::F32, vec![1, 1, 3, 3]));
    tensors.push(("steps".to_owned(), Dtype::I64, vec![]));
    let cp = checkpoint(&tensors, &json!({}));
    let family = Family::new(vec![
        cp,
        checkpoint(&llama(), &json!({})),
        checkpoint(&llama(), &json!({})),
    ]);
    let alignment = align(
        &recipe(&json!({"output": {"url": "/out", "dtype": "f32"}})),
        &family.inputs(),
    )
    .unwrap();
    assert_eq!(
        keep(&alignment, "model.layers.0.self_attn.rotary_emb.inv_freq"),
        Some(Keep::Buffer)
    );
    assert_eq!(keep(&alignment, "h.0.attn.bias"), Some(Keep::Buffer));
    assert_eq!(keep(&alignment, "steps"), Some(Keep::NotFloat));
    let steps = alignment
        .decisions
        .iter()
        .find(|decision| decision.name == "steps")
        .unwrap();
    assert_eq!(
        steps.output,
        Dtype::I64,
        "an output type concerns floats only"
    );
}

#[test]
fn a_real_bias_with_a_masks_name_is_merged() {
    let tensors = vec![bf16("h.0.attn.bias", &[8])];
    let family = Family::alike(&tensors);
    let alignment = align(&recipe(&json!({})), &family.inputs()).unwrap();
    assert!(alignment.decisions[0].is_merged());
}

#[test]
fn all_missing_tensors_and_shapes_are_told_at_once_with_both_shapes() {
    let chat = checkpoint(&[bf16(EMBED, &[9, 4]), bf16(HEAD, &[9, 4])], &json!({}));
    let family = Family::new(vec![
        checkpoint(&llama(), &json!({})),
        chat,
        checkpoint(&llama(), &json!({})),
    ]);
    let problems = align(&recipe(&json!({})), &family.inputs()).unwrap_err();
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "model.embed_tokens.weight: the shape in cp is [8, 4], in `vectors[0].chat` [9, 4]",
            "model.layers.0.self_attn.q_proj.weight: cp has this tensor, `vectors[0].chat` does not",
            "lm_head.weight: the shape in cp is [8, 4], in `vectors[0].chat` [9, 4]",
        ]
    );
    assert!(
        problems[0]
            .hint
            .as_ref()
            .unwrap()
            .contains("kind: [embed, lm_head], action: keep_cp")
    );
    assert!(
        problems[1]
            .hint
            .as_ref()
            .unwrap()
            .contains("missing: keep_cp")
    );
}

#[test]
fn a_rule_that_keeps_cp_lets_shapes_differ() {
    let other = || {
        checkpoint(
            &[
                bf16(EMBED, &[9, 4]),
                bf16(PROJ, &[4, 4]),
                bf16(HEAD, &[9, 4]),
            ],
            &json!({}),
        )
    };
    let family = Family::new(vec![checkpoint(&llama(), &json!({})), other(), other()]);
    let rules = json!({"rules": [{"kind": ["embed", "lm_head"], "action": "keep_cp"}]});
    let alignment = align(&recipe(&rules), &family.inputs()).unwrap();
    assert_eq!(keep(&alignment, EMBED), Some(Keep::Rule(0)));
    assert!(matches!(outcome(&alignment, PROJ), Outcome::Merge(_)));
}

#[test]
fn missing_keep_cp_keeps_exactly_the_tensors_that_some_input_lacks() {
    let chat = checkpoint(&[bf16(EMBED, &[8, 4]), bf16(HEAD, &[8, 4])], &json!({}));
    let family = Family::new(vec![
        checkpoint(&llama(), &json!({})),
        chat,
        checkpoint(&llama(), &json!({})),
    ]);
    let alignment = align(&recipe(&json!({"missing": "keep_cp"})), &family.inputs()).unwrap();
    assert_eq!(keep(&alignment, PROJ), Some(Keep::Missing(0)));
    assert!(matches!(outcome(&alignment, EMBED), Outcome::Merge(_)));
}

#[test]
fn a_float_against_an_integer_is_refused() {
    let chat = checkpoint(&[("w".to_owned(), Dtype::I32, vec![4])], &json!({}));
    let cp = || checkpoint(&[bf16("w", &[4])], &json!({}));
    let family = Family::new(vec![cp(), chat, cp()]);
    let problems = align(&recipe(&json!({})), &family.inputs()).unwrap_err();
    assert!(
        problems[0]
            .message
            .contains("cp stores BF16 numbers, `vectors[0].chat` stores I32"),
        "{}",
        problems[0]
    );
}

#[test]
fn a_vector_scaled_to_zero_is_not_even_looked_at() {
    let lacking = || checkpoint(&[bf16(PROJ, &[4, 4])], &json!({}));
    let family = Family::new(vec![checkpoint(&llama(), &json!({})), lacking(), lacking()]);
    let rules = json!({"rules": [{"match": "*e*_*e*.weight", "lambda_scale": 0.0}, {"match": "lm_head*", "action": "keep_cp"}]});
    let alignment = align(&recipe(&rules), &family.inputs()).unwrap();
    assert_eq!(keep(&alignment, EMBED), Some(Keep::LambdaZero));
    assert!(matches!(outcome(&alignment, PROJ), Outcome::Merge(_)));
}

#[test]
fn lambda_zero_is_a_warning_and_a_recipe_that_keeps_everything_an_error() {
    let family = Family::alike(&llama());
    let zero = json!({"vectors": [{"chat": "/models/1", "base": "/models/2", "lambda": 0.0}]});
    let alignment = align(&recipe(&zero), &family.inputs()).unwrap();
    assert!(
        alignment.warnings[0]
            .message
            .contains("the output equals cp")
    );
    let nothing = json!({"rules": [{"match": "*", "action": "keep_cp"}]});
    let problems = align(&recipe(&nothing), &family.inputs()).unwrap_err();
    assert!(problems[0].message.contains("nothing would be merged"));
}

#[test]
fn an_input_without_a_head_uses_its_embedding_unless_its_config_says_untied() {
    let family = |config| {
        let other = || checkpoint(&tied(), &config);
        Family::new(vec![
            checkpoint(&llama(), &json!({"tie_word_embeddings": false})),
            other(),
            other(),
        ])
    };
    let loose = family(json!({"tie_word_embeddings": true}));
    let alignment = align(&recipe(&json!({})), &loose.inputs()).unwrap();
    let (Outcome::Merge(head), Outcome::Merge(embed)) =
        (outcome(&alignment, HEAD), outcome(&alignment, EMBED))
    else {
        panic!("both are merged");
    };
    assert_eq!(
        head.terms, embed.terms,
        "the head's vector is the embedding's"
    );
    let strict = family(json!({"tie_word_embeddings": false}));
    let problems = align(&recipe(&json!({})), &strict.inputs()).unwrap_err();
    assert_eq!(
        problems.len(),
        2,
        "chat and base lack the head: {problems:?}"
    );
}

#[test]
fn a_head_that_only_chat_and_base_store_is_an_error_unless_kept() {
    let untied = || checkpoint(&llama(), &json!({}));
    let family = Family::new(vec![checkpoint(&tied(), &json!({})), untied(), untied()]);
    let problems = align(&recipe(&json!({})), &family.inputs()).unwrap_err();
    assert_eq!(problems[0].subject, HEAD);
    let kept = json!({"rules": [{"kind": "lm_head", "action": "keep_cp"}]});
    assert!(align(&recipe(&kept), &family.inputs()).is_ok());
}

#[test]
fn a_tied_cp_is_untied_when_head_and_embedding_get_different_deltas() {
    let untied = || checkpoint(&llama(), &json!({"tie_word_embeddings": false}));
    let cp = |tie: bool| checkpoint(&llama(), &json!({ "tie_word_embeddings": tie }));
    let differing = Family::new(vec![cp(true), untied(), untied()]);
    assert!(
        align(&recipe(&json!({})), &differing.inputs())
            .unwrap()
            .untie
    );
    let untied_already = Family::new(vec![cp(false), untied(), untied()]);
    assert!(
        !align(&recipe(&json!({})), &untied_already.inputs())
            .unwrap()
            .untie
    );
    let same = || checkpoint(&tied(), &json!({"tie_word_embeddings": true}));
    let same = Family::new(vec![cp(true), same(), same()]);
    assert!(!align(&recipe(&json!({})), &same.inputs()).unwrap().untie);
    let kept = json!({"rules": [{"kind": "lm_head", "action": "keep_cp"}]});
    assert!(align(&recipe(&kept), &same.inputs()).unwrap().untie);
}

#[test]
fn tensors_that_cp_lacks_are_listed_and_float_ones_warned_of() {
    let mut more = llama();
    more.push(bf16("extra.weight", &[3]));
    more.push(("extra.ids".to_owned(), Dtype::I64, vec![3]));
    let family = Family::new(vec![
        checkpoint(&llama(), &json!({})),
        checkpoint(&more, &json!({})),
        checkpoint(&llama(), &json!({})),
    ]);
    let alignment = align(&recipe(&json!({})), &family.inputs()).unwrap();
    let mut ignored: Vec<_> = alignment
        .ignored
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    ignored.sort_unstable();
    assert_eq!(ignored, ["extra.ids", "extra.weight"]);
    assert_eq!(alignment.warnings.len(), 1);
    assert_eq!(
        alignment.warnings[0].to_string(),
        "vectors[0].chat: cp has no tensor `extra.weight`: ignored"
    );
}

#[test]
fn a_quantised_input_is_refused_with_its_role() {
    let quantised = checkpoint(&[("w".to_owned(), Dtype::F8_E4M3, vec![4])], &json!({}));
    let plain = || checkpoint(&[bf16("w", &[4])], &json!({}));
    let family = Family::new(vec![plain(), quantised, plain()]);
    let problems = align(&recipe(&json!({})), &family.inputs()).unwrap_err();
    assert!(
        problems[0].subject.starts_with("vectors[0].chat: "),
        "{}",
        problems[0]
    );
}

#[test]
fn a_rule_that_decides_nothing_is_warned_of() {
    let family = Family::alike(&llama());
    let rules = json!({"rules": [
        {"match": "lm_head*", "action": "keep_cp"},
        {"match": "model.layer.*", "action": "keep_cp"},
        {"kind": "lm_head", "lambda_scale": 0.5},
    ]});
    let alignment = align(&recipe(&rules), &family.inputs()).unwrap();
    let told: Vec<_> = alignment
        .warnings
        .iter()
        .map(|warning| warning.subject.as_str())
        .collect();
    assert_eq!(told, ["rules[1]", "rules[2]"]);
}
