//! The kinds of tensors, told from their names alone.
//!
//! [`TABLE`] is all there is: the first pattern that matches gives the kind.

use std::fmt;

use super::glob;

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Embedding tables of tokens and, in older models, of positions.
    Embed,
    /// The output head.
    LmHead,
    /// Normalisation weights, those inside attention included.
    Norm,
    /// Attention: projections and their biases.
    Attn,
    /// Dense feed-forward blocks.
    Mlp,
    /// What chooses or weighs the experts of a mixture.
    Router,
    /// The experts of a mixture, shared ones included.
    Expert,
    /// Everything in the image encoder.
    Vision,
    /// What connects the image encoder to the language model.
    Projector,
}

/// The table of name patterns, in order of precedence: the first pattern that
/// matches decides. So a norm inside a vision tower is [`Kind::Vision`], a norm
/// inside attention is [`Kind::Norm`], and an expert's gate is [`Kind::Router`].
pub const TABLE: &[(Kind, &[&str])] = &[
    (
        Kind::Projector,
        &[
            "multi_modal_projector.*",
            "*.multi_modal_projector.*",
            "mm_projector.*",
            "*.mm_projector.*",
            "visual.merger.*",
            "*.visual.merger.*",
            "visual.deepstack_merger_list.*",
            "*.visual.deepstack_merger_list.*",
            "vision_language_adapter.*",
            "*.vision_embed_tokens.img_projection.*",
            "*.embed_tokens_extend.image_embed.img_projection.*",
            "*.vision_backbone.image_projector.*",
            "model.connector.*",
            "language_projection.*",
            "projector.*",
            "mlp1.*",
        ],
    ),
    (
        Kind::Vision,
        &[
            "vision_tower.*",
            "*.vision_tower.*",
            "vision_model.*",
            "*.vision_model.*",
            "vision_encoder.*",
            "*.vision_encoder.*",
            "visual.*",
            "*.visual.*",
            "vision.*",
            "*.vision.*",
            "*.vision_embed_tokens.*",
            "*.embed_tokens_extend.image_embed.*",
            "*.vision_backbone.*",
            "image_newline",
            "*.image_newline",
        ],
    ),
    (
        Kind::Norm,
        &[
            "*norm.weight",
            "*norm.bias",
            "*norm.scale",
            "*LayerNorm.*",
            "*norms.*",
            "*.norm_1.*",
            "*.norm_2.*",
            "*norm_f.*",
            "*.ln_1.*",
            "*.ln_2.*",
            "*.ln_attn.*",
            "*.ln_mlp.*",
            "ln_f.*",
            "*.ln_f.*",
        ],
    ),
    (
        Kind::Router,
        &[
            "*.mlp.gate.*",
            "*.block_sparse_moe.gate.*",
            "*.feed_forward.gate.*",
            "*.router.*",
            "*.shared_expert_gate.*",
            "*.e_score_correction_bias",
        ],
    ),
    (
        Kind::Expert,
        &[
            "*.experts.*",
            "*.shared_expert.*",
            "*.shared_experts.*",
            "*.shared_mlp.*",
            "*.block_sparse_moe.*",
        ],
    ),
    (
        Kind::Embed,
        &[
            "*embed_tokens.weight",
            "*embed_tokens_per_layer.weight",
            "*tok_embeddings.weight",
            "*word_embeddings.weight",
            "*embed_in.weight",
            "*embed_positions.weight",
            "wte.weight",
            "*.wte.weight",
            "wpe.weight",
            "*.wpe.weight",
            "backbone.embeddings.weight",
        ],
    ),
    (
        Kind::LmHead,
        &[
            "lm_head.*",
            "*.lm_head.*",
            "output.weight",
            "language_model.output.weight",
            "*.output_layer.weight",
            "embed_out.*",
            "*.embed_out.*",
            "*.shared_head.head.weight",
        ],
    ),
    (
        Kind::Attn,
        &[
            "*.self_attn.*",
            "*.self_attention.*",
            "*.cross_attn.*",
            "*.linear_attn.*",
            "*.attention.*",
            "*.attn.*",
            "*.q_proj.*",
            "*.k_proj.*",
            "*.v_proj.*",
            "*.o_proj.*",
        ],
    ),
    (
        Kind::Mlp,
        &[
            "*.mlp.*",
            "*.feed_forward.*",
            "*.ffn.*",
            "*.gate_proj.*",
            "*.up_proj.*",
            "*.down_proj.*",
            "*.gate_up_proj.*",
            "*.fc1.*",
            "*.fc2.*",
        ],
    ),
];

impl Kind {
    /// Every kind with its name in a recipe.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("embed", Self::Embed),
        ("lm_head", Self::LmHead),
        ("norm", Self::Norm),
        ("attn", Self::Attn),
        ("mlp", Self::Mlp),
        ("router", Self::Router),
        ("expert", Self::Expert),
        ("vision", Self::Vision),
        ("projector", Self::Projector),
    ];

    /// The kind of the tensor of this name, by [`TABLE`]; `None` where no
    /// pattern matches.
    pub fn of(tensor: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|(_, patterns)| patterns.iter().any(|p| glob::matches(p, tensor)))
            .map(|(kind, _)| *kind)
    }

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::LmHead => "lm_head",
            Self::Norm => "norm",
            Self::Attn => "attn",
            Self::Mlp => "mlp",
            Self::Router => "router",
            Self::Expert => "expert",
            Self::Vision => "vision",
            Self::Projector => "projector",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
