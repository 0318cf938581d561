//! The chat format: the template, and the token that ends a turn. The two go
//! together, and the token stands in four files.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Source;
use super::config::TEXT_CONFIG;
use super::draft::Draft;
use super::json::{Object, quote};
use super::select::ADDITIONAL_TEMPLATES;
use super::vocabulary::{Found, Wanted, look_up};
use crate::problem::Problem;
use crate::recipe::ChatTemplate;

const TEMPLATE_FILES: [&str; 2] = ["chat_template.jinja", "chat_template.json"];

/// Gives the output chat's template and end-of-turn token, as far as `choice`
/// and the files of chat allow.
pub(super) fn bring(
    draft: &mut Draft<'_>,
    chat: Option<&Source<'_>>,
    choice: Option<ChatTemplate>,
    problems: &mut Vec<Problem>,
) {
    if choice == Some(ChatTemplate::Cp) {
        return;
    }
    let template = match chat.map(Template::of).transpose() {
        Ok(template) => template.flatten(),
        Err(problem) => return problems.push(problem),
    };
    let (Some(chat), Some(template)) = (chat, template) else {
        if choice == Some(ChatTemplate::Chat) {
            problems.push(
                Problem::new(
                    "chat_template",
                    "`chat` is asked for, but chat has no chat template",
                )
                .with_hint("say `chat_template: cp`, or name a chat model that has one"),
            );
        }
        return;
    };
    if let Err(problem) = template.put_into(draft) {
        problems.push(problem);
    }
    if let Err(found) = bring_turn_end(draft, chat) {
        problems.extend(found);
    }
}

/// Where a folder keeps its chat template, or templates.
struct Template {
    /// The value of `chat_template` in `tokenizer_config.json`, as text.
    in_config: Option<String>,
    /// Files of their own.
    files: Vec<String>,
}

impl Template {
    fn of(chat: &Source<'_>) -> Result<Option<Self>, Problem> {
        let config = chat.object("tokenizer_config.json")?;
        let in_config = match config.as_ref().and_then(|c| c.value("chat_template")) {
            None => None,
            Some(value) if is_template(&value) => {
                config.and_then(|c| c.raw("chat_template").map(str::to_owned))
            }
            Some(_) => {
                return Err(chat.problem(
                    "tokenizer_config.json",
                    "expected `chat_template` to be a string, or a list of objects with `name` \
                     and `template`",
                ));
            }
        };
        let files: Vec<String> = chat
            .folder
            .files
            .iter()
            .map(|(path, _)| path)
            .filter(|path| is_template_file(path))
            .cloned()
            .collect();
        Ok((in_config.is_some() || !files.is_empty()).then_some(Self { in_config, files }))
    }

    /// Puts the template where chat keeps it, and takes cp's away everywhere:
    /// loaders prefer one place to another, so cp's must not be left in any.
    fn put_into(&self, draft: &mut Draft<'_>) -> Result<(), Problem> {
        let old: Vec<String> = draft
            .paths()
            .filter(|path| is_template_file(path))
            .map(str::to_owned)
            .collect();
        for path in old {
            draft.skip(&path, "replaced by the chat template of chat");
        }
        for path in &self.files {
            draft.take_from_chat(path);
        }
        if let Some(text) = &self.in_config {
            draft
                .edit_or_create("tokenizer_config.json")?
                .set_raw("chat_template", text);
        } else if let Some(config) = draft.edit("tokenizer_config.json")? {
            config.remove("chat_template");
        }
        Ok(())
    }
}

fn is_template_file(path: &str) -> bool {
    TEMPLATE_FILES.contains(&path)
        || path
            .strip_prefix(ADDITIONAL_TEMPLATES)
            .is_some_and(|name| name.ends_with(".jinja") && !name.contains('/'))
}

fn is_template(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(list) => {
            !list.is_empty()
                && list
                    .iter()
                    .all(|entry| entry["name"].is_string() && entry["template"].is_string())
        }
        _ => false,
    }
}

/// The text of a token that is a string, or an object with `content`.
pub(super) fn token_content(token: &Value) -> Option<&str> {
    token
        .as_str()
        .or_else(|| token.get("content").and_then(Value::as_str))
}

/// The files that name the end-of-turn token by its text.
const TOKEN_FILES: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// What ends a turn, by the files of one folder.
struct TurnEnd {
    /// By [`TOKEN_FILES`]: the token's text and its JSON.
    tokens: [Option<(String, String)>; 2],
    /// The ids at which generation stops.
    ids: Vec<u64>,
}

impl TurnEnd {
    fn of(source: &Source<'_>) -> Result<Self, Problem> {
        let mut tokens = [None, None];
        for (slot, path) in tokens.iter_mut().zip(TOKEN_FILES) {
            let Some(file) = source.object(path)? else {
                continue;
            };
            *slot = match (file.value("eos_token"), file.raw("eos_token")) {
                (Some(token), Some(json)) => {
                    let text = token_content(&token).ok_or_else(|| {
                        source.problem(
                            path,
                            "expected `eos_token` to be a string or an object with `content`",
                        )
                    })?;
                    Some((text.to_owned(), json.to_owned()))
                }
                _ => None,
            };
        }
        Ok(Self {
            tokens,
            ids: generation_ids(source)?,
        })
    }

    /// The token's text.
    fn token(&self) -> Option<&str> {
        self.tokens
            .iter()
            .flatten()
            .map(|(text, _)| text.as_str())
            .next()
    }

    /// The token's text and its JSON for one of [`TOKEN_FILES`]. Where chat has
    /// it in the other file alone it becomes a plain string: the two files
    /// spell token objects differently.
    fn json_for(&self, file: usize) -> Option<(String, String)> {
        self.tokens[file].clone().or_else(|| {
            let text = self.token()?;
            Some((text.to_owned(), quote(text)))
        })
    }
}

/// The ids at which generation stops: those of the generation config, or else
/// of the config, as loaders take them.
fn generation_ids(source: &Source<'_>) -> Result<Vec<u64>, Problem> {
    for path in ["generation_config.json", "config.json"] {
        let Some(file) = source.object(path)? else {
            continue;
        };
        let nested = file.object(TEXT_CONFIG);
        for object in [Some(&file), nested.as_ref()].into_iter().flatten() {
            let Some(value) = object.value("eos_token_id") else {
                continue;
            };
            let ids: Option<Vec<u64>> = match &value {
                Value::Array(list) => list.iter().map(Value::as_u64).collect(),
                scalar => scalar.as_u64().map(|id| vec![id]),
            };
            match ids {
                Some(ids) if ids.is_empty() => {}
                Some(ids) => return Ok(ids),
                None => {
                    let message = format!(
                        "expected `eos_token_id` to be an id or a list of ids, found {value}"
                    );
                    return Err(source.problem(path, message));
                }
            }
        }
    }
    Ok(Vec::new())
}

/// Makes the output end its turns as chat does, and as cp did.
fn bring_turn_end(draft: &mut Draft<'_>, chat: &Source<'_>) -> Result<(), Vec<Problem>> {
    let cp = draft.cp();
    let (theirs, ours) = match (TurnEnd::of(chat), TurnEnd::of(&cp)) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (theirs, ours) => return Err([theirs.err(), ours.err()].into_iter().flatten().collect()),
    };
    let tokens_agree = theirs.token().is_none_or(|token| {
        ours.token().is_some() && ours.tokens.iter().flatten().all(|(text, _)| text == token)
    });
    let ids_agree = theirs.ids.is_empty() || set(&theirs.ids) == set(&ours.ids);
    if tokens_agree && ids_agree {
        return Ok(());
    }
    let mut ids = mapped_ids(chat, &cp, &theirs)?;
    for id in &ours.ids {
        if !ids.contains(id) {
            ids.push(*id);
        }
    }
    let write = |draft: &mut Draft<'_>| {
        write_tokens(draft, &theirs)?;
        if set(&ids) != set(&ours.ids) {
            write_ids(draft, &ids)?;
        }
        Ok(())
    };
    write(draft).map_err(|problem| vec![problem])
}

fn set(ids: &[u64]) -> BTreeSet<u64> {
    ids.iter().copied().collect()
}

/// The ids that chat's end-of-turn tokens have in cp's vocabulary, in chat's
/// order: those at which its generation stops, then that of its `eos_token`.
fn mapped_ids(
    chat: &Source<'_>,
    cp: &Source<'_>,
    theirs: &TurnEnd,
) -> Result<Vec<u64>, Vec<Problem>> {
    let one = |problem| vec![problem];
    let mut problems = Vec::new();
    let mut tokens: Vec<String> = Vec::new();
    let known = look_up(chat, &Wanted::Ids(&theirs.ids)).map_err(one)?;
    let all_texts = theirs.ids.iter().map(|id| match known.token(*id) {
        Some(token) => Ok(token.to_owned()),
        None => Err(unknown(chat, &known, &format!("the end-of-turn id {id}"))),
    });
    for text in all_texts.chain(theirs.token().map(|token| Ok(token.to_owned()))) {
        match text {
            Ok(token) if tokens.contains(&token) => {}
            Ok(token) => tokens.push(token),
            Err(problem) => problems.push(problem),
        }
    }
    let wanted = tokens.iter().cloned().collect();
    let known = look_up(cp, &Wanted::Tokens(&wanted)).map_err(one)?;
    let mut ids = Vec::new();
    for token in &tokens {
        match known.id(token) {
            Some(id) if ids.contains(&id) => {}
            Some(id) => ids.push(id),
            None => problems.push(unknown(
                cp,
                &known,
                &format!("chat's end-of-turn token `{token}`"),
            )),
        }
    }
    if problems.is_empty() {
        Ok(ids)
    } else {
        Err(problems)
    }
}

/// What is said of a token or an id that was not found.
fn unknown(source: &Source<'_>, found: &Found, what: &str) -> Problem {
    let role = source.role;
    let keep = "say `chat_template: cp` to keep cp's chat format";
    if found.complete {
        Problem::new(
            "chat_template",
            format!("{what} is not in the vocabulary of {role}"),
        )
        .with_hint(format!("{keep}, or extend the tokenizer of {role}"))
    } else {
        let message = format!(
            "{what} cannot be looked up: {role} has neither `tokenizer.json` nor `vocab.json`"
        );
        Problem::new("chat_template", message)
            .with_hint(format!("{keep}, or add the `tokenizer.json` of {role}"))
    }
}

/// Writes chat's token where cp names another, in the form that chat has it.
fn write_tokens(draft: &mut Draft<'_>, theirs: &TurnEnd) -> Result<(), Problem> {
    for (position, path) in TOKEN_FILES.into_iter().enumerate() {
        let Some((text, json)) = theirs.json_for(position) else {
            continue;
        };
        if let Some(file) = draft.edit(path)? {
            let present = file.value("eos_token");
            if present.as_ref().and_then(token_content) != Some(&text) {
                file.set_raw("eos_token", &json);
            }
        }
    }
    Ok(())
}

/// Settings that a loader derives from the config where there is no generation
/// config, and that would be lost by writing one without them.
const DERIVED_SETTINGS: [&str; 3] = ["bos_token_id", "pad_token_id", "decoder_start_token_id"];

/// Writes the ids into the generation config, which is created where cp has
/// none, and into the config wherever it names some.
fn write_ids(draft: &mut Draft<'_>, ids: &[u64]) -> Result<(), Problem> {
    let mut derived = Vec::new();
    if let Some(config) = draft.edit("config.json")? {
        replace_ids(config, ids, 1);
        config.edit_nested(TEXT_CONFIG, 1, |text| {
            replace_ids(text, ids, 2);
            Ok::<_, Problem>(())
        })?;
        derived = DERIVED_SETTINGS
            .iter()
            .filter(|key| config.value(key).is_some())
            .filter_map(|key| Some((*key, config.raw(key)?.to_owned())))
            .collect();
    }
    let is_new = !draft.cp().has("generation_config.json");
    let generation = draft.edit_or_create("generation_config.json")?;
    if is_new {
        for (key, text) in &derived {
            generation.set_raw(key, text);
        }
    }
    generation.set_raw("eos_token_id", &ids_text(ids, 1));
    Ok(())
}

fn replace_ids(config: &mut Object, ids: &[u64], depth: usize) {
    if config.raw("eos_token_id").is_some() {
        config.set_raw("eos_token_id", &ids_text(ids, depth));
    }
}

/// One id as a number, several as a list, one a line.
fn ids_text(ids: &[u64], depth: usize) -> String {
    if let [id] = ids {
        return id.to_string();
    }
    let indent = "  ".repeat(depth);
    let lines: Vec<String> = ids.iter().map(|id| format!("{indent}  {id}")).collect();
    format!("[\n{}\n{indent}]", lines.join(",\n"))
}
