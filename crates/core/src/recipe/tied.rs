//! Output heads, and the embeddings that stand in for them where they are tied:
//! such a checkpoint stores one table and uses it at both ends.

/// Each output head's name, with the names of the embedding that goes with it,
/// likeliest first. A checkpoint has at most one of them.
const TABLE: &[(&str, &[&str])] = &[
    (
        "lm_head.weight",
        &[
            "model.embed_tokens.weight",
            "model.language_model.embed_tokens.weight",
            "transformer.wte.weight",
            "wte.weight",
            "transformer.word_embeddings.weight",
            "word_embeddings.weight",
            "model.decoder.embed_tokens.weight",
            "backbone.embeddings.weight",
        ],
    ),
    (
        "language_model.lm_head.weight",
        &["language_model.model.embed_tokens.weight"],
    ),
    (
        "model.language_model.lm_head.weight",
        &[
            "model.language_model.embed_tokens.weight",
            "model.language_model.model.embed_tokens.weight",
        ],
    ),
    (
        "language.lm_head.weight",
        &["language.model.embed_tokens.weight"],
    ),
    ("embed_out.weight", &["gpt_neox.embed_in.weight"]),
    (
        "output.weight",
        &["model.tok_embeddings.weight", "tok_embeddings.weight"],
    ),
    (
        "language_model.output.weight",
        &["language_model.model.tok_embeddings.weight"],
    ),
    (
        "transformer.output_layer.weight",
        &["transformer.embedding.word_embeddings.weight"],
    ),
];

/// The names of all known output heads.
pub fn heads() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(head, _)| *head)
}

/// The embeddings that a checkpoint without this head may use in its place,
/// likeliest first; empty for a name that is no known head.
pub fn tied_embedding_of(head: &str) -> &'static [&'static str] {
    TABLE
        .iter()
        .find(|(known, _)| *known == head)
        .map_or(&[], |(_, embeddings)| *embeddings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Kind;

    #[test]
    fn heads_are_heads_and_their_embeddings_are_embeddings() {
        for head in heads() {
            assert_eq!(Kind::of(head), Some(Kind::LmHead), "{head}");
            assert!(!tied_embedding_of(head).is_empty(), "{head}");
            for embedding in tied_embedding_of(head) {
                assert_eq!(Kind::of(embedding), Some(Kind::Embed), "{embedding}");
            }
        }
    }

    #[test]
    fn a_llama_head_is_tied_to_its_embedding() {
        assert_eq!(
            tied_embedding_of("lm_head.weight").first(),
            Some(&"model.embed_tokens.weight")
        );
        assert_eq!(
            tied_embedding_of("embed_out.weight"),
            ["gpt_neox.embed_in.weight"]
        );
    }

    #[test]
    fn a_name_that_is_no_head_has_no_embedding() {
        assert!(tied_embedding_of("model.norm.weight").is_empty());
        assert!(tied_embedding_of("xlm_head.weight").is_empty());
    }
}
