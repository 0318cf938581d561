//! Aligns the tensors of all inputs with those of cp, and decides every one:
//! merge, copy or reject.
//!
//! cp is the skeleton: the output has exactly cp's tensors, with cp's names and
//! shapes. A vector whose λ × `lambda_scale` is zero is neither looked at nor
//! read for that tensor.

mod decision;
mod input;
mod tied;

pub use decision::{Alignment, Decision, IgnoredTensor, Keep, Merge, Outcome, VectorTerm};
pub use input::{Input, Inputs, Role, TensorAt, VectorInputs};

use crate::checkpoint::TensorRef;
use crate::dtype::FloatFormat;
use crate::problem::Problem;
use crate::recipe::{Action, Kind, Missing, Recipe};

/// Decides every tensor of cp.
///
/// # Errors
/// All problems at once: tensors that are absent, of another shape or type,
/// quantised checkpoints, heads that would be lost, or nothing to merge at all.
pub fn align(recipe: &Recipe, inputs: &Inputs<'_>) -> Result<Alignment, Vec<Problem>> {
    let mut problems = quantised(inputs);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut decisions = Vec::with_capacity(inputs.cp.checkpoint.len());
    for tensor in inputs.cp.checkpoint.iter() {
        match decide(recipe, inputs, &tensor) {
            Ok(decision) => decisions.push(decision),
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(tied::lost_heads(recipe, inputs));
    let mut warnings = Vec::new();
    if problems.is_empty() && !decisions.iter().any(Decision::is_merged) {
        if recipe.vectors.iter().all(|vector| vector.lambda == 0.0) {
            warnings.push(Problem::new(
                "vectors",
                "every lambda is zero: the output equals cp",
            ));
        } else {
            problems.push(
                Problem::new("recipe", "nothing would be merged: every tensor of cp is kept")
                    .with_hint("`chatvec plan` lists each tensor with the reason; check the rules and the inputs"),
            );
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    warnings.extend(idle_rules(recipe, &decisions));
    let untie = tied::must_untie(inputs, &decisions);
    let ignored = ignored(inputs);
    warnings.extend(ignored_floats(&ignored));
    Ok(Alignment {
        decisions,
        ignored,
        warnings,
        untie,
    })
}

/// A rule that decides nothing is most likely misspelt, and what it was to
/// keep would be merged.
fn idle_rules(recipe: &Recipe, decisions: &[Decision]) -> Vec<Problem> {
    let mut is_idle = vec![true; recipe.rules.len()];
    if !is_idle.is_empty() {
        for (rule, _) in decisions
            .iter()
            .filter_map(|decision| recipe.decide(&decision.name))
        {
            is_idle[rule] = false;
        }
    }
    let idle = is_idle.iter().enumerate().filter(|(_, is_idle)| **is_idle);
    idle.map(|(rule, _)| {
        Problem::new(format!("rules[{rule}]"), "decides no tensor of cp")
            .with_hint("`chatvec inspect DIR --tensors` lists the names; of several rules that match the first decides")
    })
    .collect()
}

fn quantised(inputs: &Inputs<'_>) -> Vec<Problem> {
    let found = inputs.all().filter_map(|(role, input)| {
        let problem = input.checkpoint.quantised()?;
        Some(Problem {
            subject: format!("{role}: {}", problem.subject),
            ..problem
        })
    });
    let mut problems: Vec<Problem> = found.collect();
    problems.dedup();
    problems
}

fn decide(
    recipe: &Recipe,
    inputs: &Inputs<'_>,
    tensor: &TensorRef<'_>,
) -> Result<Decision, Vec<Problem>> {
    let entry = tensor.entry;
    let decision = |outcome| Decision {
        name: entry.name.clone(),
        dtype: entry.dtype,
        shape: entry.shape.clone(),
        cp: inputs.cp.locate(tensor),
        output: output_dtype(recipe, entry, &outcome),
        outcome,
    };
    let Some(format) = FloatFormat::of(entry.dtype) else {
        return Ok(decision(Outcome::Keep(Keep::NotFloat)));
    };
    if is_buffer(&entry.name, &entry.shape) {
        return Ok(decision(Outcome::Keep(Keep::Buffer)));
    }
    let (rule, scale) = match recipe.decide(&entry.name) {
        Some((rule, Action::KeepCp)) => return Ok(decision(Outcome::Keep(Keep::Rule(rule)))),
        Some((rule, Action::LambdaScale(scale))) => (Some(rule), *scale),
        None => (None, 1.0),
    };
    // Exactly: there is such a list for each of a hundred thousand tensors.
    let mut terms = Vec::with_capacity(recipe.vectors.len());
    let mut problems = Vec::new();
    for (ordinal, vector) in recipe.vectors.iter().enumerate() {
        let lambda = vector.lambda * scale;
        if lambda == 0.0 {
            continue;
        }
        let sides = &inputs.vectors[ordinal];
        let mut resolve = |role: Role, input: &Input<'_>| match counterpart(input, role, tensor) {
            Ok(at) => Some(at),
            Err(Mismatch::Absent(_)) if recipe.missing == Missing::KeepCp => None,
            Err(Mismatch::Absent(problem) | Mismatch::Different(problem)) => {
                problems.push(problem);
                None
            }
        };
        let chat = resolve(Role::Chat(ordinal), &sides.chat);
        let base = resolve(Role::Base(ordinal), &sides.base);
        match (chat, base) {
            (Some(chat), Some(base)) => terms.push(VectorTerm {
                vector: ordinal,
                lambda,
                chat,
                base,
            }),
            // With `missing: keep_cp` a tensor that any input lacks stays as it is in cp.
            _ if problems.is_empty() => return Ok(decision(Outcome::Keep(Keep::Missing(ordinal)))),
            _ => {}
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if terms.is_empty() {
        return Ok(decision(Outcome::Keep(Keep::LambdaZero)));
    }
    Ok(decision(Outcome::Merge(Merge {
        rule,
        format,
        terms,
    })))
}

/// The type of the output tensor: cp's own, or the one the recipe names for
/// every float tensor that is not a buffer.
fn output_dtype(
    recipe: &Recipe,
    entry: &crate::header::TensorEntry,
    outcome: &Outcome,
) -> crate::dtype::Dtype {
    match (recipe.output.dtype.format(), outcome) {
        (
            Some(format),
            Outcome::Merge(_) | Outcome::Keep(Keep::Rule(_) | Keep::Missing(_) | Keep::LambdaZero),
        ) => format.dtype(),
        _ => entry.dtype,
    }
}

/// Why an input has no usable counterpart of a tensor.
enum Mismatch {
    Absent(Problem),
    Different(Problem),
}

fn counterpart(
    input: &Input<'_>,
    role: Role,
    tensor: &TensorRef<'_>,
) -> Result<TensorAt, Mismatch> {
    let wanted = tensor.entry;
    let found = input
        .checkpoint
        .get(&wanted.name)
        .or_else(|| tied::embedding_for(input, &wanted.name));
    let Some(found) = found else {
        return Err(Mismatch::Absent(
            Problem::new(&wanted.name, format!("cp has this tensor, `{role}` does not")).with_hint(
                "`missing: keep_cp` keeps cp's tensor where another input lacks it; a rule can keep just this one",
            ),
        ));
    };
    let entry = found.entry;
    if entry.shape != wanted.shape {
        let message = format!(
            "the shape in cp is {:?}, in `{role}` {:?}",
            wanted.shape, entry.shape
        );
        return Err(Mismatch::Different(
            Problem::new(&wanted.name, message).with_hint(shape_hint(&wanted.name)),
        ));
    }
    match FloatFormat::of(entry.dtype) {
        Some(_) => Ok(input.locate(&found)),
        None => Err(Mismatch::Different(
            Problem::new(
                &wanted.name,
                format!(
                    "cp stores {} numbers, `{role}` stores {}, which cannot be merged",
                    wanted.dtype, entry.dtype
                ),
            )
            .with_hint(format!(
                "keep cp's tensor: `rules: [{{ match: \"{}\", action: keep_cp }}]`",
                wanted.name
            )),
        )),
    }
}

fn shape_hint(name: &str) -> &'static str {
    match Kind::of(name) {
        Some(Kind::Embed | Kind::LmHead) => {
            "the vocabularies differ; keep cp's rows: `rules: [{ kind: [embed, lm_head], action: keep_cp }]`"
        }
        _ => {
            "the inputs must be models of one family and size; keep cp's tensor with a rule `action: keep_cp`"
        }
    }
}

/// Buffers that models compute for themselves: never merged, whatever their type.
fn is_buffer(name: &str, shape: &[u64]) -> bool {
    const SUFFIXES: [&str; 5] = [
        "rotary_emb.inv_freq",
        ".cos_cached",
        ".sin_cached",
        "position_ids",
        "masked_bias",
    ];
    // A causal mask is stored as `attn.bias`, the name of a real bias in other models.
    let is_mask = (name.ends_with("attn.bias") || name.ends_with("attention.bias"))
        && matches!(shape, [1, 1, rows, columns] if rows == columns);
    is_mask || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn ignored(inputs: &Inputs<'_>) -> Vec<IgnoredTensor> {
    let mut ignored = Vec::new();
    for (role, input) in inputs.all().filter(|(role, _)| *role != Role::Cp) {
        for tensor in input.checkpoint.iter() {
            if inputs.cp.checkpoint.get(&tensor.entry.name).is_none() {
                ignored.push(IgnoredTensor {
                    role,
                    name: tensor.entry.name.clone(),
                    dtype: tensor.entry.dtype,
                });
            }
        }
    }
    ignored
}

/// One warning for each input that has float tensors which cp lacks: what
/// they hold does not reach the output.
fn ignored_floats(ignored: &[IgnoredTensor]) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for group in ignored.chunk_by(|a, b| a.role == b.role) {
        let floats: Vec<_> = group
            .iter()
            .filter(|tensor| FloatFormat::of(tensor.dtype).is_some())
            .collect();
        if let Some(first) = floats.first() {
            let more = if floats.len() > 1 {
                format!(" and {} more", floats.len() - 1)
            } else {
                String::new()
            };
            warnings.push(Problem::new(
                first.role.to_string(),
                format!("cp has no tensor `{}`{more}: ignored", first.name),
            ));
        }
    }
    warnings
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
