//! A recipe as a generic tree, in the order of its document.
//!
//! `serde_json::Value` is no substitute: it drops the order of fields, and turns
//! NaN and infinity into null before anybody could name them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::options::NonFiniteFloatPolicy;

use crate::problem::Problem;

/// The longest recipe that is read, in bytes.
const TEXT_MAX_BYTES: usize = 10_000_000;
/// How much of the user's text a message repeats, in characters.
const QUOTE_MAX_CHARS: usize = 60;

/// A value in a recipe.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the document. Names are distinct: the reader rejects
    /// repeated ones.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value as a message names it: "the number `5`", "a list".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Int(value) => format!("the number `{value}`"),
            Self::Float(value) => format!("the number `{value:?}`"),
            Self::Text(text) => format!("the text `{}`", quote(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// The user's text inside a message: on one line, and not at full length.
pub(super) fn quote(text: &str) -> String {
    let mut chars = text.chars();
    let shown: String = chars.by_ref().take(QUOTE_MAX_CHARS).collect();
    let dots = if chars.next().is_some() { "…" } else { "" };
    format!("{}{dots}", shown.escape_debug())
}

/// Reads YAML or JSON. JSON needs no reader of its own: YAML contains it, and
/// the tests hold the reader to that.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    if text.len() > TEXT_MAX_BYTES {
        let message = format!(
            "expected at most {TEXT_MAX_BYTES} bytes, found {}",
            text.len()
        );
        return Err(Problem::new("recipe", message));
    }
    let options = serde_saphyr::options! {
        // `no` and `on` are fine names for a folder; numbers keep one spelling.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| syntax_problem(&error))
}

/// The reader's complaint, with its place first and advice for the usual slips.
fn syntax_problem(error: &serde_saphyr::Error) -> Problem {
    let formatter = serde_saphyr::UserMessageFormatter;
    let message = serde_saphyr::MessageFormatter::format_message(&formatter, error);
    let place = error.location().map_or_else(String::new, |location| {
        format!("line {}, column {}: ", location.line(), location.column())
    });
    let problem = Problem::new("recipe", format!("{place}{message}"));
    if matches!(
        error.without_snippet(),
        serde_saphyr::Error::UnknownAnchor { .. }
    ) {
        problem.with_hint("a text that begins with `*` needs quotes, as in `match: \"*norm*\"`")
    } else if message.contains("found a tab") {
        problem.with_hint("YAML indents with spaces")
    } else {
        problem
    }
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match number.as_i128() {
                Some(value) => Self::Int(value),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(values) => Self::List(values.iter().map(Self::from).collect()),
            Value::Object(fields) => Self::Map(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::from(value)))
                    .collect(),
            ),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Node::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }
}
