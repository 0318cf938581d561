//! What changes in `config.json`, and what of it travels with a chat vector
//! without standing in any weight.

use serde_json::Value;

use super::Source;
use super::draft::Draft;
use super::json::{Object, quote};
use crate::dtype::FloatFormat;
use crate::problem::Problem;

/// The config of the language model inside that of a multimodal one.
pub(super) const TEXT_CONFIG: &str = "text_config";

/// Edits the declared type of the weights and the tie of the head.
pub(super) fn edit(
    draft: &mut Draft<'_>,
    output_dtype: Option<FloatFormat>,
    untie: bool,
) -> Result<(), Problem> {
    if output_dtype.is_none() && !untie {
        return Ok(());
    }
    let cp = draft.cp();
    let Some(config) = draft.edit("config.json")? else {
        return Ok(());
    };
    if let Some(format) = output_dtype {
        declare_dtype(config, format, 0)
            .map_err(|key| cp.problem("config.json", format!("expected `{key}` to be a string")))?;
    }
    if untie {
        config.set_raw("tie_word_embeddings", "false");
        config.edit_nested(TEXT_CONFIG, 1, |text| {
            if text.raw("tie_word_embeddings").is_some() {
                text.set_raw("tie_word_embeddings", "false");
            }
            Ok::<_, Problem>(())
        })?;
    }
    Ok(())
}

/// Writes the type wherever the config declares one, nested configs included.
/// The error is the key of a declaration that is no string.
fn declare_dtype(config: &mut Object, format: FloatFormat, depth: usize) -> Result<(), String> {
    for key in ["dtype", "torch_dtype"] {
        match config.raw(key) {
            None => {}
            Some(text) if text.starts_with('"') || text == "null" => {
                config.set_raw(key, &quote(torch_name(format)));
            }
            Some(_) => return Err(key.to_owned()),
        }
    }
    let nested: Vec<String> = config
        .keys()
        .filter(|key| key.ends_with("_config") && *key != "quantization_config")
        .map(str::to_owned)
        .collect();
    for key in nested {
        config
            .edit_nested(&key, depth + 1, |inner| {
                declare_dtype(inner, format, depth + 1)
            })
            .map_err(|inner| format!("{key}.{inner}"))?;
    }
    Ok(())
}

/// What configs call the type.
fn torch_name(format: FloatFormat) -> &'static str {
    match format {
        FloatFormat::F64 => "float64",
        FloatFormat::F32 => "float32",
        FloatFormat::Bf16 => "bfloat16",
        FloatFormat::F16 => "float16",
    }
}

/// Settings that change what the same weights compute.
const TRAVELLING: [&str; 6] = [
    "architectures",
    "model_type",
    "max_position_embeddings",
    "sliding_window",
    "hidden_act",
    "hidden_activation",
];

/// A warning for each setting in which cp differs from the model that the chat
/// vector was made of: the vector was trained under the other value. Both
/// spellings of rotary embeddings (`rope_parameters`, or `rope_theta` with
/// `rope_scaling`) are compared by what they mean.
pub(super) fn differences(cp: &Source<'_>, other: &Source<'_>) -> Result<Vec<Problem>, Problem> {
    let (Some(ours), Some(theirs)) = (cp.object("config.json")?, other.object("config.json")?)
    else {
        return Ok(Vec::new());
    };
    let mut pairs: Vec<(&str, Option<Value>, Option<Value>)> = TRAVELLING
        .iter()
        .map(|key| (*key, setting(&ours, key), setting(&theirs, key)))
        .collect();
    let (our_rope, their_rope) = (Rope::of(&ours), Rope::of(&theirs));
    pairs.push(("rope_theta", our_rope.theta, their_rope.theta));
    pairs.push(("rope_scaling", our_rope.scaling, their_rope.scaling));
    let warnings = pairs
        .into_iter()
        .filter(|(_, ours, theirs)| !same(ours.as_ref(), theirs.as_ref()))
        .map(|(key, ours, theirs)| {
            let message = format!(
                "`{key}` is {} in cp and {} in {}",
                shown(ours.as_ref()),
                shown(theirs.as_ref()),
                other.role,
            );
            cp.problem("config.json", message)
                .with_hint("the output keeps cp's; check that both models share one ancestor")
        });
    Ok(warnings.collect())
}

/// A setting, at the top or else in the config of the language model.
fn setting(config: &Object, key: &str) -> Option<Value> {
    config
        .value(key)
        .or_else(|| config.object(TEXT_CONFIG)?.value(key))
}

/// What a config says of its rotary embeddings.
struct Rope {
    theta: Option<Value>,
    scaling: Option<Value>,
}

impl Rope {
    fn of(config: &Object) -> Self {
        let parameters = setting(config, "rope_parameters");
        let theta = parameters
            .as_ref()
            .and_then(|all| all.get("rope_theta").cloned())
            .or_else(|| setting(config, "rope_theta"));
        let mut scaling = parameters.or_else(|| setting(config, "rope_scaling"));
        if let Some(Value::Object(members)) = &mut scaling {
            members.remove("rope_theta");
            if let Some(kind) = members.remove("type") {
                members.entry("rope_type").or_insert(kind);
            }
            if members.get("rope_type").is_some_and(|t| t == "default") {
                members.remove("rope_type");
            }
            if members.is_empty() {
                scaling = None;
            }
        }
        Self { theta, scaling }
    }
}

/// Equality of values, in which `500000` and `500000.0` are the same number.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.len() == b.len() && a.iter().all(|(key, value)| same(Some(value), b.get(key)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        _ => a == b,
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| format!("`{value}`"))
}
