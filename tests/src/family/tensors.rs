//! Names and shapes of the tensors of known architectures.

use super::{FamilySpec, Member};

/// A tensor before it has a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

fn named(name: impl Into<String>, shape: &[usize]) -> Named {
    Named {
        name: name.into(),
        shape: shape.to_vec(),
    }
}

/// The tensors of a Llama model, in the order in which they are usually stored.
pub(super) fn llama(spec: &FamilySpec, member: Member) -> Vec<Named> {
    let rows = match member {
        Member::Cp => spec.vocab + spec.cp_extra_rows,
        Member::Chat | Member::Base => spec.vocab,
    };
    let hidden = spec.hidden;
    let kv = hidden / spec.heads * spec.kv_heads;
    let mut tensors = vec![named("model.embed_tokens.weight", &[rows, hidden])];
    for layer in 0..spec.layers {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push(named(format!("model.layers.{layer}.{name}.weight"), shape));
        };
        add("input_layernorm", &[hidden]);
        add("mlp.down_proj", &[hidden, spec.intermediate]);
        add("mlp.gate_proj", &[spec.intermediate, hidden]);
        add("mlp.up_proj", &[spec.intermediate, hidden]);
        add("post_attention_layernorm", &[hidden]);
        add("self_attn.k_proj", &[kv, hidden]);
        add("self_attn.o_proj", &[hidden, hidden]);
        add("self_attn.q_proj", &[hidden, hidden]);
        add("self_attn.v_proj", &[kv, hidden]);
    }
    tensors.push(named("model.norm.weight", &[hidden]));
    if !spec.tied {
        tensors.push(named("lm_head.weight", &[rows, hidden]));
    }
    tensors
}

/// A mixture of experts of 683 billion parameters and more than 91,000 tensors:
/// latent attention, three dense layers, and 59 layers of 512 small experts.
pub(super) fn mixture() -> Vec<Named> {
    const HIDDEN: usize = 7168;
    const DENSE: usize = 18_432;
    const EXPERT: usize = 1024;
    const EXPERTS: usize = 512;
    const VOCAB: usize = 129_280;

    let mut tensors = vec![named("model.embed_tokens.weight", &[VOCAB, HIDDEN])];
    for layer in 0..62 {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push(named(format!("model.layers.{layer}.{name}"), shape));
        };
        add("input_layernorm.weight", &[HIDDEN]);
        add("post_attention_layernorm.weight", &[HIDDEN]);
        add("self_attn.q_a_proj.weight", &[1536, HIDDEN]);
        add("self_attn.q_a_layernorm.weight", &[1536]);
        add("self_attn.q_b_proj.weight", &[24_576, 1536]);
        add("self_attn.kv_a_proj_with_mqa.weight", &[576, HIDDEN]);
        add("self_attn.kv_a_layernorm.weight", &[512]);
        add("self_attn.kv_b_proj.weight", &[32_768, 512]);
        add("self_attn.o_proj.weight", &[HIDDEN, 16_384]);
        let mut feed_forward = |prefix: &str, width: usize| {
            add(&format!("{prefix}.gate_proj.weight"), &[width, HIDDEN]);
            add(&format!("{prefix}.up_proj.weight"), &[width, HIDDEN]);
            add(&format!("{prefix}.down_proj.weight"), &[HIDDEN, width]);
        };
        if layer < 3 {
            feed_forward("mlp", DENSE);
            continue;
        }
        feed_forward("mlp.shared_experts", 2 * EXPERT);
        for expert in 0..EXPERTS {
            feed_forward(&format!("mlp.experts.{expert}"), EXPERT);
        }
        add("mlp.gate.weight", &[EXPERTS, HIDDEN]);
        add("mlp.gate.e_score_correction_bias", &[EXPERTS]);
    }
    tensors.push(named("model.norm.weight", &[HIDDEN]));
    tensors.push(named("lm_head.weight", &[VOCAB, HIDDEN]));
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(tensors: &[Named]) -> usize {
        tensors
            .iter()
            .map(|tensor| tensor.shape.iter().product::<usize>())
            .sum()
    }

    #[test]
    fn presets_have_the_sizes_they_promise() {
        let billions = |spec: &FamilySpec| parameters(&llama(spec, Member::Base)) as f64 / 1e9;
        assert!((billions(&FamilySpec::tiny(0)) - 0.005).abs() < 0.0001);
        assert!((billions(&FamilySpec::demo(0)) - 0.0755).abs() < 0.0005);
        assert!((billions(&FamilySpec::llama_1b(0)) - 1.1).abs() < 0.001);
        assert!((billions(&FamilySpec::llama_4b(0)) - 4.4).abs() < 0.05);
    }

    #[test]
    fn the_mixture_has_ninety_one_thousand_tensors() {
        let tensors = mixture();
        assert!(
            (91_000..92_000).contains(&tensors.len()),
            "{}",
            tensors.len()
        );
        let billions = parameters(&tensors) as f64 / 1e9;
        assert!((682.0..684.0).contains(&billions), "{billions}");
    }
}
