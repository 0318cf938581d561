//! The names a recipe may use, those that are still to come, and the names that
//! people bring from elsewhere; for any other name, the nearest known one.

/// The fields of one kind of mapping.
pub(super) struct Schema {
    /// What the mapping is, for messages.
    pub(super) what: &'static str,
    /// The fields that are read.
    pub(super) known: &'static [&'static str],
    /// Fields with a settled meaning that are not read yet.
    pub(super) later: &'static [&'static str],
    /// Names of other tools and of other places.
    pub(super) foreign: &'static [Foreign],
}

/// A name that means something here under another name.
pub(super) struct Foreign {
    /// What people write.
    pub(super) name: &'static str,
    /// The field of the same mapping that it stands for, so that this field is
    /// not called missing as well; empty if there is none.
    pub(super) meant: &'static str,
    /// What to write.
    pub(super) hint: &'static str,
}

const fn foreign(name: &'static str, meant: &'static str, hint: &'static str) -> Foreign {
    Foreign { name, meant, hint }
}

const CP_AND_BASE: &str = "write `cp` for the checkpoint that is added to, and `base` in each \
                           vector for the one that is subtracted";
const IN_VECTORS: &str = "write it in an entry of `vectors`";
const IN_OUTPUT: &str = "write it under `output`";
const LAMBDA: &str = "write `lambda`";
const LAMBDA_IN_VECTORS: &str = "write `lambda` in each entry of `vectors`";
const SCALE: &str = "write `lambda_scale`";
const MATCH: &str = "write `match` with a pattern, or `kind`";
const URL: &str = "write `url`";

/// The recipe itself.
pub(super) const RECIPE: Schema = Schema {
    what: "a recipe",
    known: &[
        "cp",
        "vectors",
        "rules",
        "missing",
        "nonfinite",
        "chat_template",
        "output",
    ],
    later: &[
        "vocab",
        "special_tokens",
        "skeleton",
        "rename",
        "sweep",
        "config_from",
        "preset",
    ],
    foreign: &[
        foreign("base_model", "cp", CP_AND_BASE),
        foreign(
            "models",
            "vectors",
            "write `vectors`: a list whose entries have `chat`, `base` and `lambda`",
        ),
        foreign(
            "merge_method",
            "",
            "leave it out: `cp + lambda × (chat − base)` is the only method",
        ),
        foreign("dtype", "", "write `output: { dtype: … }`"),
        foreign("out_dtype", "", "write `output: { dtype: … }`"),
        foreign("parameters", "", LAMBDA_IN_VECTORS),
        foreign("lambda", "", LAMBDA_IN_VECTORS),
        foreign("alpha", "", LAMBDA_IN_VECTORS),
        foreign("weight", "", LAMBDA_IN_VECTORS),
        foreign(
            "slices",
            "",
            "write `rules` for tensors that are not merged alike",
        ),
        foreign(
            "tokenizer_source",
            "",
            "leave it out: the tokenizer is cp's",
        ),
        foreign("chat", "", IN_VECTORS),
        foreign("base", "", IN_VECTORS),
        foreign("vector", "vectors", "write `vectors`, a list"),
        foreign("url", "", IN_OUTPUT),
        foreign("shard_size", "", IN_OUTPUT),
        foreign("overwrite", "", IN_OUTPUT),
    ],
};

/// An entry of `vectors`.
pub(super) const VECTOR: Schema = Schema {
    what: "a vector",
    known: &["chat", "base", "lambda"],
    later: &["vector"],
    foreign: &[
        foreign("alpha", "lambda", LAMBDA),
        foreign("weight", "lambda", LAMBDA),
        foreign("ratio", "lambda", LAMBDA),
        foreign("scale", "lambda", LAMBDA),
        foreign("λ", "lambda", LAMBDA),
        foreign(
            "lambda_scale",
            "lambda",
            "write `lambda` here; a scale belongs in `rules`",
        ),
        foreign(
            "parameters",
            "lambda",
            "write `lambda` in the vector itself",
        ),
        foreign("base_model", "base", "write `base`"),
        foreign(
            "model",
            "chat",
            "write `chat`, and `base` for the checkpoint it was tuned from",
        ),
    ],
};

/// An entry of `rules`.
pub(super) const RULE: Schema = Schema {
    what: "a rule",
    known: &["match", "kind", "action", "lambda_scale"],
    later: &["layers", "regex"],
    foreign: &[
        foreign("filter", "match", MATCH),
        foreign("name", "match", MATCH),
        foreign("pattern", "match", MATCH),
        foreign("glob", "match", MATCH),
        foreign("tensor", "match", MATCH),
        foreign("lambda", "lambda_scale", SCALE),
        foreign("alpha", "lambda_scale", SCALE),
        foreign("weight", "lambda_scale", SCALE),
        foreign("scale", "lambda_scale", SCALE),
        foreign("keep_cp", "action", "write `action: keep_cp`"),
    ],
};

/// The mapping `output`.
pub(super) const OUTPUT: Schema = Schema {
    what: "`output`",
    known: &["url", "dtype", "shard_size", "overwrite"],
    later: &[],
    foreign: &[
        foreign("path", "url", URL),
        foreign("dir", "url", URL),
        foreign("out_dtype", "dtype", "write `dtype`"),
        foreign("max_shard_size", "shard_size", "write `shard_size`"),
        foreign("force", "overwrite", "write `overwrite: true`"),
    ],
};

/// The candidate nearest to a misspelt name, if it is near enough to be meant:
/// at most one slip in three letters, and always one. Case does not count, and
/// a hyphen is as good as an underscore.
pub(super) fn nearest(
    name: &str,
    candidates: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let name: Vec<char> = name
        .to_lowercase()
        .replace(['-', ' '], "_")
        .chars()
        .collect();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.chars().collect();
            let longest = name.len().max(letters.len());
            // Lengths that differ by more than the limit need no comparison.
            let limit = (longest / 3).max(1);
            let distance = (name.len().abs_diff(letters.len()) <= limit)
                .then(|| edit_distance(&name, &letters))?;
            (distance <= limit).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be inserted, deleted, replaced, or swapped with their
/// neighbour to turn one word into the other (optimal string alignment).
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(a: &str, b: &str) -> usize {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        edit_distance(&a, &b)
    }

    #[test]
    fn a_slip_is_one_letter_more_less_other_or_swapped() {
        assert_eq!(distance("lambda", "lambda"), 0);
        assert_eq!(distance("lamda", "lambda"), 1);
        assert_eq!(distance("lambdaa", "lambda"), 1);
        assert_eq!(distance("lanbda", "lambda"), 1);
        assert_eq!(distance("lamdba", "lambda"), 1);
        assert_eq!(distance("", "cp"), 2);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_nearest_name_is_found_and_a_strange_one_has_none() {
        let nearest = |name| nearest(name, RECIPE.known.iter().copied());
        assert_eq!(nearest("vectrs"), Some("vectors"));
        assert_eq!(nearest("chat-template"), Some("chat_template"));
        assert_eq!(nearest("Output"), Some("output"));
        assert_eq!(nearest("CP"), Some("cp"));
        assert_eq!(nearest("learning_rate"), None);
        assert_eq!(nearest("x"), None);
        assert_eq!(nearest(&"a".repeat(100_000)), None);
    }

    #[test]
    fn the_users_page_names_what_is_to_come_and_every_field() {
        let page = include_str!("../../../../docs/recipes.md");
        let (fields, later) = page
            .split_once("## Not supported yet")
            .expect("the page has this section");
        for schema in [RECIPE, VECTOR, RULE, OUTPUT] {
            for name in schema.known {
                let told = [
                    format!("`{name}`"),
                    format!("`{name}: "),
                    format!(".{name}`"),
                ];
                assert!(told.iter().any(|told| fields.contains(told)), "{name}");
            }
            for name in schema.later {
                assert!(later.contains(&format!("`{name}`")), "{name}");
            }
        }
    }

    #[test]
    fn every_name_has_one_meaning() {
        for schema in [RECIPE, VECTOR, RULE, OUTPUT] {
            let foreign = schema.foreign.iter().map(|foreign| foreign.name);
            let mut names: Vec<_> = foreign
                .chain(schema.known.iter().copied())
                .chain(schema.later.iter().copied())
                .collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", schema.what);
            for foreign in schema.foreign {
                assert!(
                    foreign.meant.is_empty() || schema.known.contains(&foreign.meant),
                    "{}",
                    foreign.name
                );
            }
        }
    }
}
