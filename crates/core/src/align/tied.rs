//! Output heads that share their weights with the embedding.
//!
//! The output stores a head exactly when cp does. An input without one uses its
//! embedding in its place, unless its config says that the two are not tied.

use super::{Decision, Input, Inputs, Outcome};
use crate::checkpoint::TensorRef;
use crate::problem::Problem;
use crate::recipe::tied::{heads, tied_embedding_of};
use crate::recipe::{Action, Missing, Recipe};

/// The embedding that stands for `head` in an input that stores none.
pub(super) fn embedding_for<'a>(input: &Input<'a>, head: &str) -> Option<TensorRef<'a>> {
    if input.checkpoint.config.tie_word_embeddings == Some(false) {
        return None;
    }
    tied_embedding_of(head)
        .iter()
        .find_map(|embedding| input.checkpoint.get(embedding))
}

/// Heads that chat and base store and cp does not: their vector would be lost
/// silently.
pub(super) fn lost_heads(recipe: &Recipe, inputs: &Inputs<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for head in heads() {
        let kept = recipe.missing == Missing::KeepCp
            || matches!(recipe.decide(head), Some((_, Action::KeepCp)));
        if kept
            || inputs.cp.checkpoint.get(head).is_some()
            || embedding_for(&inputs.cp, head).is_none()
        {
            continue;
        }
        for (ordinal, vector) in inputs.vectors.iter().enumerate() {
            let stored = |input: &Input<'_>| input.checkpoint.get(head).is_some();
            if recipe.vectors[ordinal].lambda != 0.0 && stored(&vector.chat) && stored(&vector.base)
            {
                problems.push(
                    Problem::new(
                        head,
                        format!("chat and base of `vectors[{ordinal}]` store this head, cp ties it to its embedding"),
                    )
                    .with_hint("leave cp's head as it is: `rules: [{ kind: lm_head, action: keep_cp }]`"),
                );
            }
        }
    }
    problems
}

/// Whether cp stores a head and an embedding that its config ties, and they
/// come out with different deltas.
pub(super) fn must_untie(inputs: &Inputs<'_>, decisions: &[Decision]) -> bool {
    if inputs.cp.checkpoint.config.tie_word_embeddings == Some(false) {
        return false;
    }
    let decision = |name: &str| decisions.iter().find(|decision| decision.name == name);
    heads().any(|head| {
        let embedding = tied_embedding_of(head)
            .iter()
            .find_map(|name| decision(name));
        match (decision(head), embedding) {
            (Some(head), Some(embedding)) => !same_delta(&head.outcome, &embedding.outcome),
            _ => false,
        }
    })
}

fn same_delta(head: &Outcome, embedding: &Outcome) -> bool {
    match (head, embedding) {
        (Outcome::Keep(_), Outcome::Keep(_)) => true,
        (Outcome::Merge(head), Outcome::Merge(embedding)) => head.terms == embedding.terms,
        (Outcome::Keep(_), Outcome::Merge(_)) | (Outcome::Merge(_), Outcome::Keep(_)) => false,
    }
}
