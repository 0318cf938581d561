//! Recipes. A message becomes the same generic value as a YAML recipe does and
//! goes through the same validating walk, so the two spellings cannot drift.

use chatvec_core::problem::Problem;
use chatvec_core::recipe::{
    Action, ChatTemplate, Missing, Nonfinite, OutputDtype, Parsed, Recipe, Rule, Selector,
};
use serde_json::{Map, Value, json};

use crate::v1;

/// Validates a recipe from the wire.
///
/// # Errors
/// All problems at once, each with its path in the recipe.
pub fn recipe_from_wire(message: &v1::Recipe) -> Result<Parsed, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut recipe = Map::new();
    insert_text(&mut recipe, "cp", &message.cp);
    recipe.insert(
        "vectors".to_owned(),
        message.vectors.iter().map(vector_value).collect(),
    );
    let rules: Vec<Value> = message
        .rules
        .iter()
        .enumerate()
        .map(|(i, rule)| rule_value(i, rule, &mut problems))
        .collect();
    if !rules.is_empty() {
        recipe.insert("rules".to_owned(), rules.into());
    }
    let mut named = |field: &'static str, value: Option<Option<&'static str>>| match value {
        Some(Some(name)) => {
            recipe.insert(field.to_owned(), name.into());
        }
        Some(None) => problems.push(Problem::new(field, "unspecified or unknown value")),
        None => {}
    };
    named("missing", message.missing.map(missing_name));
    named("nonfinite", message.nonfinite.map(nonfinite_name));
    named(
        "chat_template",
        message.chat_template.map(chat_template_name),
    );
    if let Some(output) = &message.output {
        let output = output_value(output, &mut problems);
        recipe.insert("output".to_owned(), output);
    }
    match Recipe::from_value(&Value::Object(recipe)) {
        Ok(parsed) if problems.is_empty() => Ok(parsed),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

/// An absent field and an empty text are the same on the wire.
fn insert_text(map: &mut Map<String, Value>, field: &str, text: &str) {
    if !text.is_empty() {
        map.insert(field.to_owned(), text.into());
    }
}

fn vector_value(vector: &v1::Vector) -> Value {
    let mut map = Map::new();
    insert_text(&mut map, "chat", &vector.chat);
    insert_text(&mut map, "base", &vector.base);
    // A number that JSON cannot hold becomes null, which the walk rejects.
    map.insert("lambda".to_owned(), json!(vector.weight));
    Value::Object(map)
}

fn rule_value(ordinal: usize, rule: &v1::Rule, problems: &mut Vec<Problem>) -> Value {
    let mut map = Map::new();
    if let Some(glob) = &rule.r#match {
        map.insert("match".to_owned(), glob.as_str().into());
    }
    if !rule.kinds.is_empty() {
        map.insert("kind".to_owned(), json!(rule.kinds));
    }
    match &rule.effect {
        Some(v1::rule::Effect::KeepCp(_)) => {
            map.insert("action".to_owned(), "keep_cp".into());
        }
        Some(v1::rule::Effect::LambdaScale(scale)) => {
            map.insert("lambda_scale".to_owned(), json!(scale));
        }
        None => problems.push(Problem::new(
            format!("rules[{ordinal}]"),
            "neither `keep_cp` nor `lambda_scale`",
        )),
    }
    Value::Object(map)
}

fn output_value(output: &v1::Output, problems: &mut Vec<Problem>) -> Value {
    let mut map = Map::new();
    insert_text(&mut map, "url", &output.url);
    match output.dtype.map(dtype_name) {
        Some(Some(name)) => {
            map.insert("dtype".to_owned(), name.into());
        }
        Some(None) => problems.push(Problem::new("output.dtype", "unspecified or unknown value")),
        None => {}
    }
    if let Some(bytes) = output.shard_size_bytes {
        map.insert("shard_size".to_owned(), bytes.into());
    }
    map.insert("overwrite".to_owned(), output.overwrite.into());
    Value::Object(map)
}

fn missing_name(value: i32) -> Option<&'static str> {
    match v1::MissingPolicy::try_from(value) {
        Ok(v1::MissingPolicy::Error) => Some("error"),
        Ok(v1::MissingPolicy::KeepCp) => Some("keep_cp"),
        Ok(v1::MissingPolicy::Unspecified) | Err(_) => None,
    }
}

fn nonfinite_name(value: i32) -> Option<&'static str> {
    match v1::NonfinitePolicy::try_from(value) {
        Ok(v1::NonfinitePolicy::Error) => Some("error"),
        Ok(v1::NonfinitePolicy::Allow) => Some("allow"),
        Ok(v1::NonfinitePolicy::Unspecified) | Err(_) => None,
    }
}

fn chat_template_name(value: i32) -> Option<&'static str> {
    match v1::ChatTemplateSource::try_from(value) {
        Ok(v1::ChatTemplateSource::Chat) => Some("chat"),
        Ok(v1::ChatTemplateSource::Cp) => Some("cp"),
        Ok(v1::ChatTemplateSource::Unspecified) | Err(_) => None,
    }
}

fn dtype_name(value: i32) -> Option<&'static str> {
    match v1::OutputDtype::try_from(value) {
        Ok(v1::OutputDtype::Same) => Some("same"),
        Ok(v1::OutputDtype::Bf16) => Some("bf16"),
        Ok(v1::OutputDtype::F16) => Some("f16"),
        Ok(v1::OutputDtype::F32) => Some("f32"),
        Ok(v1::OutputDtype::Unspecified) | Err(_) => None,
    }
}

/// The message of a valid recipe, with defaults spelled out.
pub fn recipe_to_wire(recipe: &Recipe) -> v1::Recipe {
    let vectors = recipe.vectors.iter().map(|vector| v1::Vector {
        chat: vector.chat.clone(),
        base: vector.base.clone(),
        weight: vector.lambda,
    });
    let missing = match recipe.missing {
        Missing::Error => v1::MissingPolicy::Error,
        Missing::KeepCp => v1::MissingPolicy::KeepCp,
    };
    let nonfinite = match recipe.nonfinite {
        Nonfinite::Error => v1::NonfinitePolicy::Error,
        Nonfinite::Allow => v1::NonfinitePolicy::Allow,
    };
    let chat_template = recipe.chat_template.map(|source| match source {
        ChatTemplate::Chat => v1::ChatTemplateSource::Chat.into(),
        ChatTemplate::Cp => v1::ChatTemplateSource::Cp.into(),
    });
    let dtype = match recipe.output.dtype {
        OutputDtype::Same => v1::OutputDtype::Same,
        OutputDtype::Bf16 => v1::OutputDtype::Bf16,
        OutputDtype::F16 => v1::OutputDtype::F16,
        OutputDtype::F32 => v1::OutputDtype::F32,
    };
    v1::Recipe {
        cp: recipe.cp.clone(),
        vectors: vectors.collect(),
        rules: recipe.rules.iter().map(rule_to_wire).collect(),
        missing: Some(missing.into()),
        nonfinite: Some(nonfinite.into()),
        chat_template,
        output: Some(v1::Output {
            url: recipe.output.url.clone(),
            dtype: Some(dtype.into()),
            shard_size_bytes: Some(recipe.output.shard_size_bytes),
            overwrite: recipe.output.overwrite,
        }),
    }
}

fn rule_to_wire(rule: &Rule) -> v1::Rule {
    let (glob, kinds) = match &rule.select {
        Selector::Match(glob) => (Some(glob.to_string()), Vec::new()),
        Selector::Kinds(kinds) => (None, kinds.iter().map(ToString::to_string).collect()),
    };
    let effect = match rule.action {
        Action::KeepCp => v1::rule::Effect::KeepCp(v1::KeepCp {}),
        Action::LambdaScale(scale) => v1::rule::Effect::LambdaScale(scale),
    };
    v1::Rule {
        r#match: glob,
        kinds,
        effect: Some(effect),
    }
}
