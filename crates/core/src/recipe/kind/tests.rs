//! The table against the names that real checkpoints use.

use std::collections::BTreeSet;

use super::Kind::*;
use super::*;

/// Asserts the kind of each of these names.
fn all_are(kind: Option<Kind>, names: &[&str]) {
    for name in names {
        assert_eq!(Kind::of(name), kind, "{name}");
    }
}

#[test]
fn llama_mistral_qwen_gemma_and_phi_names_are_known() {
    all_are(Some(Embed), &["model.embed_tokens.weight"]);
    all_are(Some(LmHead), &["lm_head.weight", "lm_head.bias"]);
    all_are(
        Some(Norm),
        &[
            "model.norm.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.31.post_attention_layernorm.weight",
            "model.layers.0.pre_feedforward_layernorm.weight",
            "model.layers.0.self_attn.q_norm.weight",
            "model.final_layernorm.bias",
        ],
    );
    all_are(
        Some(Attn),
        &[
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.k_proj.bias",
            "model.layers.0.self_attn.qkv_proj.weight",
            "model.layers.0.self_attn.dense.weight",
        ],
    );
    all_are(
        Some(Mlp),
        &[
            "model.layers.0.mlp.gate_proj.weight",
            "model.layers.0.mlp.gate_up_proj.weight",
            "model.layers.0.mlp.fc1.bias",
        ],
    );
}

#[test]
fn mixtures_have_routers_and_experts() {
    all_are(
        Some(Router),
        &[
            "model.layers.0.block_sparse_moe.gate.weight",
            "model.layers.3.mlp.gate.weight",
            "model.layers.3.mlp.gate.e_score_correction_bias",
            "model.layers.0.mlp.router.bias",
            "language_model.model.layers.0.feed_forward.router.weight",
            "model.layers.0.mlp.shared_expert_gate.weight",
        ],
    );
    all_are(
        Some(Expert),
        &[
            "model.layers.0.block_sparse_moe.experts.7.w1.weight",
            "model.layers.3.mlp.experts.0.down_proj.weight",
            "model.layers.0.mlp.experts.gate_up_proj",
            "model.layers.3.mlp.shared_experts.up_proj.weight",
            "model.layers.3.mlp.shared_expert.gate_proj.weight",
            "model.layers.0.block_sparse_moe.input_linear.weight",
        ],
    );
    all_are(
        Some(Norm),
        &["model.layers.3.self_attn.kv_a_layernorm.weight"],
    );
    all_are(
        Some(Attn),
        &["model.layers.3.self_attn.kv_a_proj_with_mqa.weight"],
    );
    all_are(Some(LmHead), &["model.layers.61.shared_head.head.weight"]);
}

#[test]
fn older_families_are_known() {
    all_are(
        Some(Embed),
        &[
            "transformer.wte.weight",
            "wte.weight",
            "transformer.wpe.weight",
            "gpt_neox.embed_in.weight",
            "transformer.word_embeddings.weight",
            "word_embeddings.weight",
            "model.decoder.embed_tokens.weight",
            "model.decoder.embed_positions.weight",
            "model.tok_embeddings.weight",
        ],
    );
    all_are(
        Some(LmHead),
        &[
            "embed_out.weight",
            "output.weight",
            "transformer.output_layer.weight",
        ],
    );
    all_are(
        Some(Norm),
        &[
            "transformer.h.0.ln_1.weight",
            "h.0.ln_2.bias",
            "transformer.ln_f.weight",
            "ln_f.bias",
            "transformer.h.0.ln_attn.weight",
            "gpt_neox.final_layer_norm.weight",
            "word_embeddings_layernorm.weight",
            "transformer.word_embeddings_layernorm.bias",
            "model.decoder.layers.0.self_attn_layer_norm.weight",
            "transformer.norm_f.weight",
            "encoder.layer.0.attention.output.LayerNorm.bias",
        ],
    );
    all_are(
        Some(Attn),
        &[
            "transformer.h.0.attn.c_attn.weight",
            "h.0.attn.c_proj.bias",
            "gpt_neox.layers.0.attention.query_key_value.weight",
            "transformer.h.0.self_attention.query_key_value.weight",
            "model.decoder.layers.0.self_attn.out_proj.weight",
        ],
    );
    all_are(
        Some(Mlp),
        &[
            "transformer.h.0.mlp.c_fc.weight",
            "gpt_neox.layers.0.mlp.dense_h_to_4h.weight",
            "model.decoder.layers.0.fc1.weight",
        ],
    );
}

#[test]
fn in_a_multimodal_model_the_tower_and_the_projector_come_first() {
    all_are(
        Some(Vision),
        &[
            "vision_tower.vision_model.encoder.layers.0.layer_norm1.weight",
            "model.vision_tower.patch_conv.weight",
            "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
            "visual.blocks.0.norm1.weight",
            "model.visual.blocks.0.mlp.gate_proj.weight",
            "vision_model.embeddings.patch_embedding.weight",
            "model.image_newline",
            "model.embed_tokens_extend.image_embed.img_processor.head.probe",
        ],
    );
    all_are(
        Some(Projector),
        &[
            "multi_modal_projector.linear_1.weight",
            "model.multi_modal_projector.mm_soft_emb_norm.weight",
            "model.mm_projector.0.weight",
            "visual.merger.mlp.0.weight",
            "model.visual.merger.ln_q.weight",
            "mlp1.0.weight",
        ],
    );
    all_are(
        Some(Embed),
        &[
            "language_model.model.embed_tokens.weight",
            "model.language_model.embed_tokens.weight",
        ],
    );
    all_are(Some(LmHead), &["language_model.lm_head.weight"]);
    all_are(Some(Norm), &["language_model.model.norm.weight"]);
    all_are(
        Some(Attn),
        &["language_model.model.layers.3.cross_attn.q_proj.weight"],
    );
}

#[test]
fn names_that_only_look_alike_have_no_kind() {
    all_are(
        None,
        &[
            "",
            "weight",
            "model.layers.0.outputs.weight",
            "model.normaliser",
            "television_tower.weight",
            "model.layers.61.eh_proj.weight",
        ],
    );
}

#[test]
fn every_kind_has_one_row_in_the_table_and_one_name() {
    let rows: Vec<_> = TABLE.iter().map(|(kind, _)| *kind).collect();
    let kinds: BTreeSet<_> = rows.iter().copied().collect();
    assert_eq!(rows.len(), kinds.len());
    assert_eq!(kinds, Kind::NAMES.iter().map(|(_, kind)| *kind).collect());
    for (name, kind) in Kind::NAMES {
        assert_eq!(kind.name(), *name);
    }
}

#[test]
fn no_pattern_stands_twice() {
    let patterns: Vec<_> = TABLE.iter().flat_map(|(_, patterns)| *patterns).collect();
    let distinct: BTreeSet<_> = patterns.iter().collect();
    assert_eq!(patterns.len(), distinct.len());
}

/// The rows `| kind | patterns |` of the user's page, patterns in backticks.
fn table_of_the_page() -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../../../../docs/recipes.md");
    let (_, after) = page
        .split_once("<!-- kinds -->")
        .expect("the page marks the table");
    let (table, _) = after.split_once("<!-- /kinds -->").expect("the table ends");
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let mut quoted = line.split('`').skip(1).step_by(2).map(str::to_owned);
            (quoted.next().expect("a kind"), quoted.collect())
        })
        .collect()
}

#[test]
fn the_users_page_shows_this_very_table() {
    let expected: Vec<(String, Vec<String>)> = TABLE
        .iter()
        .map(|(kind, patterns)| {
            let patterns = patterns.iter().map(|p| (*p).to_owned()).collect();
            (kind.name().to_owned(), patterns)
        })
        .collect();
    assert_eq!(table_of_the_page(), expected);
}
