//! The walk's smaller steps: mappings and their names, lists, and single values.

use super::super::fields::{self, Schema};
use super::super::node::{Node, quote};
use super::super::size;
use super::{Seen, Walk};
use crate::problem::Problem;

/// The smallest `output.shard_size`: below it, headers outweigh the data.
const SHARD_SIZE_MIN: u64 = 1_000;
/// The largest: beyond it, readers of JSON that hold numbers as doubles round.
const SHARD_SIZE_MAX: u64 = 1 << 53;

/// A problem just reported, to which advice can be added.
pub(super) struct Reported<'w>(&'w mut Problem);

impl Reported<'_> {
    pub(super) fn hint(self, hint: impl Into<String>) {
        self.0.hint = Some(hint.into());
    }
}

impl<'p> Seen<'p> {
    pub(super) fn new(path: &'p str, schema: &'static Schema) -> Self {
        Self {
            path,
            schema,
            names: Vec::new(),
        }
    }

    /// Notes the field and gives its path.
    pub(super) fn enter(&mut self, name: &str) -> String {
        let known = self.schema.known.iter().chain(self.schema.later);
        self.names.extend(known.filter(|known| **known == name));
        self.path_of(name)
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            quote(name)
        } else {
            format!("{}.{}", self.path, quote(name))
        }
    }
}

impl Walk {
    pub(super) fn problem(&mut self, at: &str, message: impl Into<String>) -> Reported<'_> {
        self.problems.push(Problem::new(at, message));
        let last = self.problems.len() - 1;
        Reported(&mut self.problems[last])
    }

    pub(super) fn warn(&mut self, at: &str, message: &str) {
        self.warnings.push(Problem::new(at, message));
    }

    fn expected(&mut self, at: &str, expected: &str, node: &Node) -> Reported<'_> {
        self.problem(
            at,
            format!("expected {expected}, found {}", node.describe()),
        )
    }

    pub(super) fn mapping<'n>(&mut self, at: &str, node: &'n Node) -> Option<&'n [(String, Node)]> {
        if let Node::Map(fields) = node {
            return Some(fields);
        }
        let message = format!("expected a mapping, found {}", node.describe());
        self.problem(at, message);
        None
    }

    /// Every entry of a list by `read`; `None` if any of them is bad.
    pub(super) fn list<T>(
        &mut self,
        at: &str,
        node: &Node,
        mut read: impl FnMut(&mut Self, &str, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Node::List(entries) = node else {
            let problem = self.expected(at, "a list", node);
            if let Node::Map(_) = node {
                problem.hint("begin each entry with `- `");
            }
            return None;
        };
        let read: Vec<Option<T>> = entries
            .iter()
            .enumerate()
            .map(|(i, entry)| read(self, &format!("{at}[{i}]"), entry))
            .collect();
        read.into_iter().collect()
    }

    /// Reports a field that is not read, and notes which one was meant.
    pub(super) fn stranger(&mut self, at: &str, name: &str, seen: &mut Seen<'_>) {
        let Schema {
            what,
            known,
            later,
            foreign,
        } = seen.schema;
        if later.contains(&name) {
            self.problem(at, format!("field `{name}` is not supported yet"));
            return;
        }
        let problem = self.problem(at, format!("unknown field `{}`", quote(name)));
        if let Some(foreign) = foreign.iter().find(|foreign| foreign.name == name) {
            seen.names.push(foreign.meant);
            problem.hint(foreign.hint);
        } else if let Some(nearest) = fields::nearest(name, known.iter().copied()) {
            seen.names.push(nearest);
            problem.hint(format!("did you mean `{nearest}`?"));
        } else if let Some(nearest) = fields::nearest(name, later.iter().copied()) {
            problem.hint(format!("if `{nearest}` is meant: it is not supported yet"));
        } else {
            problem.hint(format!("{what} has the fields {}", ticked(known, "and")));
        }
    }

    /// Reports the field as missing unless it was seen, if only misspelt.
    pub(super) fn require(&mut self, seen: &Seen<'_>, name: &str, hint: &str) {
        if !seen.names.contains(&name) {
            self.problem(&seen.path_of(name), "this field is missing")
                .hint(hint);
        }
    }

    /// Reports unless exactly one of the fields was seen.
    pub(super) fn require_one(&mut self, seen: &Seen<'_>, names: &[&str], expected: &str) {
        let found: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| seen.names.contains(name))
            .collect();
        match found.len() {
            0 => drop(self.problem(seen.path, format!("{expected}, found neither"))),
            1 => {}
            _ => {
                let found = ticked(&found, "and");
                self.problem(seen.path, format!("{expected}, found {found}"))
                    .hint("write two rules");
            }
        }
    }

    pub(super) fn text<'n>(&mut self, at: &str, node: &'n Node, expected: &str) -> Option<&'n str> {
        let Node::Text(text) = node else {
            let problem = self.expected(at, expected, node);
            if let Node::Int(_) | Node::Float(_) | Node::Bool(_) = node {
                problem.hint("put it in quotes if it is a name");
            }
            return None;
        };
        if text.is_empty() {
            self.problem(at, format!("expected {expected}, found an empty text"));
            return None;
        }
        let flaw = if text.trim() != text {
            "white space at an end of"
        } else if text.contains(char::is_control) {
            "a control character in"
        } else {
            return Some(text);
        };
        let message = format!("expected {expected}, found {flaw} `{}`", quote(text));
        self.problem(at, message);
        None
    }

    pub(super) fn url(&mut self, at: &str, node: &Node) -> Option<String> {
        self.text(at, node, "a path or URL").map(str::to_owned)
    }

    /// A finite number, with −0.0 read as 0.0: they mean the same, and recipes
    /// that mean the same have one digest.
    pub(super) fn number(&mut self, at: &str, node: &Node, example: &str) -> Option<f64> {
        let number = match node {
            Node::Int(value) => *value as f64,
            Node::Float(value) => *value,
            _ => {
                let problem = self.expected(at, &format!("a number such as `{example}`"), node);
                if matches!(node, Node::Text(text) if text.parse::<f64>().is_ok()) {
                    problem.hint("write it plainly: no quotes, no leading zeros");
                }
                return None;
            }
        };
        if !number.is_finite() {
            self.problem(at, format!("expected a finite number, found `{number}`"));
            return None;
        }
        Some(number + 0.0)
    }

    pub(super) fn boolean(&mut self, at: &str, node: &Node) -> Option<bool> {
        if let Node::Bool(value) = node {
            return Some(*value);
        }
        self.expected(at, "`true` or `false`", node);
        None
    }

    /// One of a few names. Those of `later` are known, but not read yet.
    pub(super) fn choice<T: Copy>(
        &mut self,
        at: &str,
        node: &Node,
        names: &[(&'static str, T)],
        later: &[&str],
    ) -> Option<T> {
        let known: Vec<&'static str> = names.iter().map(|(name, _)| *name).collect();
        let Node::Text(text) = node else {
            self.expected(at, &ticked(&known, "or"), node);
            return None;
        };
        if let Some((_, value)) = names.iter().find(|(name, _)| name == text) {
            return Some(*value);
        }
        if later.contains(&text.as_str()) {
            self.problem(at, format!("`{text}` is not supported yet"))
                .hint(format!("write {}", ticked(&known, "or")));
            return None;
        }
        let problem = self.expected(at, &ticked(&known, "or"), node);
        // The usual long names of the same types.
        let meant = match text.as_str() {
            "bfloat16" => Some("bf16"),
            "float16" | "fp16" | "half" => Some("f16"),
            "float32" | "fp32" | "float" => Some("f32"),
            _ => None,
        };
        let meant = meant.filter(|meant| known.contains(meant));
        if let Some(meant) = meant.or_else(|| fields::nearest(text, known)) {
            problem.hint(format!("did you mean `{meant}`?"));
        }
        None
    }

    pub(super) fn shard_size(&mut self, at: &str, node: &Node) -> Option<u64> {
        let expected = "a size such as `5GB`, `500MB` or a number of bytes";
        let bytes = match node {
            Node::Int(value) => u64::try_from(*value).ok(),
            Node::Text(text) => size::parse(text),
            _ => None,
        };
        let Some(bytes) = bytes else {
            let problem = self.expected(at, expected, node);
            match node {
                Node::Text(text) if text.ends_with("iB") => {
                    problem.hint("units are decimal: `KB`, `MB`, `GB`, `TB`");
                }
                Node::Text(_) => problem.hint("units are `KB`, `MB`, `GB`, `TB`, after a number"),
                _ => {}
            }
            return None;
        };
        if !(SHARD_SIZE_MIN..=SHARD_SIZE_MAX).contains(&bytes) {
            let message =
                format!("expected from {SHARD_SIZE_MIN} to {SHARD_SIZE_MAX} bytes, found {bytes}");
            self.problem(at, message);
            return None;
        }
        Some(bytes)
    }
}

/// Names in backticks: "`a`, `b` or `c`".
fn ticked(names: &[&str], last: &str) -> String {
    let ticked: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match ticked.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}
