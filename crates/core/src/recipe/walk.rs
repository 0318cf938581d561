//! The one validating walk over a recipe: it goes on after a problem, so that
//! the user hears of all of them at once, in the order of the document.

mod scalar;

use super::fields::{self, Schema};
use super::glob::Glob;
use super::kind::Kind;
use super::node::{Node, quote};
use super::shape::{
    Action, ChatTemplate, Missing, Nonfinite, Output, OutputDtype, Parsed, Recipe, Rule, Selector,
    Vector,
};
use crate::problem::Problem;

/// The default of `output.shard_size`, in bytes.
const SHARD_SIZE_DEFAULT: u64 = 5_000_000_000;

/// Reads a recipe from its tree.
pub(super) fn read(root: &Node) -> Result<Parsed, Vec<Problem>> {
    let mut walk = Walk::default();
    let recipe = walk.recipe(root);
    match recipe {
        Some(recipe) if walk.problems.is_empty() => {
            walk.whole(&recipe);
            if walk.problems.is_empty() {
                Ok(Parsed {
                    recipe,
                    warnings: walk.warnings,
                })
            } else {
                Err(walk.problems)
            }
        }
        _ => Err(walk.problems),
    }
}

/// What has been found so far. A method that returns `None` has reported why.
#[derive(Default)]
struct Walk {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// The fields that a mapping has, or tries to have under a wrong name.
struct Seen<'p> {
    path: &'p str,
    schema: &'static Schema,
    names: Vec<&'static str>,
}

impl Walk {
    fn recipe(&mut self, root: &Node) -> Option<Recipe> {
        if matches!(root, Node::Null) {
            self.problem("recipe", "the recipe is empty")
                .hint("write at least `cp`, `vectors` and `output`");
            return None;
        }
        let mut seen = Seen::new("", &fields::RECIPE);
        let (mut cp, mut vectors, mut rules, mut output) = (None, None, Some(Vec::new()), None);
        let (mut missing, mut nonfinite) = (Some(Missing::Error), Some(Nonfinite::Error));
        let mut chat_template = None;
        for (name, value) in self.mapping("recipe", root)? {
            let at = &seen.enter(name);
            match name.as_str() {
                "cp" => cp = self.url(at, value),
                "vectors" => vectors = self.vectors(at, value),
                "rules" => rules = self.list(at, value, Self::rule),
                "missing" => missing = self.choice(at, value, Missing::NAMES, &["copy_chat"]),
                "nonfinite" => nonfinite = self.choice(at, value, Nonfinite::NAMES, &[]),
                "chat_template" => chat_template = self.chat_template(at, value),
                "output" => output = self.output(at, value),
                _ => self.stranger(at, name, &mut seen),
            }
        }
        self.require(
            &seen,
            "cp",
            "the checkpoint that is added to, as in `cp: /models/cp`",
        );
        self.require(
            &seen,
            "vectors",
            "a list whose entries have `chat`, `base` and `lambda`",
        );
        self.require(
            &seen,
            "output",
            "where to write, as in `output: { url: /models/out }`",
        );
        Some(Recipe {
            cp: cp?,
            vectors: vectors?,
            rules: rules?,
            missing: missing?,
            nonfinite: nonfinite?,
            chat_template,
            output: output?,
        })
    }

    fn vectors(&mut self, at: &str, node: &Node) -> Option<Vec<Vector>> {
        if matches!(node, Node::List(vectors) if vectors.is_empty()) {
            self.problem(at, "expected at least one vector, found none");
            return None;
        }
        self.list(at, node, Self::vector)
    }

    fn vector(&mut self, at: &str, node: &Node) -> Option<Vector> {
        let mut seen = Seen::new(at, &fields::VECTOR);
        let (mut chat, mut base, mut lambda) = (None, None, None);
        for (name, value) in self.mapping(at, node)? {
            let at = &seen.enter(name);
            match name.as_str() {
                "chat" => chat = self.url(at, value),
                "base" => base = self.url(at, value),
                "lambda" => lambda = self.lambda(at, value),
                _ => self.stranger(at, name, &mut seen),
            }
        }
        // A stored vector needs neither chat nor base: one message is enough.
        if !seen.names.contains(&"vector") {
            self.require(&seen, "chat", "the chat-tuned checkpoint");
            self.require(&seen, "base", "the checkpoint that chat was tuned from");
        }
        self.require(&seen, "lambda", "as in `lambda: 1.0`");
        let vector = Vector {
            chat: chat?,
            base: base?,
            lambda: lambda?,
        };
        if same_place(&vector.chat, &vector.base) {
            self.warn(at, "`chat` and `base` are the same: the vector is zero");
        }
        Some(vector)
    }

    fn lambda(&mut self, at: &str, node: &Node) -> Option<f64> {
        if matches!(node, Node::List(_)) {
            self.problem(at, "a list of lambdas is not supported yet")
                .hint("write one number, as in `lambda: 1.0`");
            return None;
        }
        let lambda = self.number(at, node, "1.0")?;
        if lambda == 0.0 {
            self.warn(at, "is zero: the vector is not read and adds nothing");
        } else if lambda < 0.0 {
            self.warn(at, "is negative: the vector is subtracted");
        }
        Some(lambda)
    }

    fn rule(&mut self, at: &str, node: &Node) -> Option<Rule> {
        let mut seen = Seen::new(at, &fields::RULE);
        let (mut select, mut action) = (None, None);
        for (name, value) in self.mapping(at, node)? {
            let at = &seen.enter(name);
            match name.as_str() {
                "match" => select = self.glob(at, value).map(Selector::Match),
                "kind" => select = self.kinds(at, value).map(Selector::Kinds),
                "action" => {
                    let names = &[("keep_cp", Action::KeepCp)];
                    action = self.choice(at, value, names, &["keep_skeleton"]);
                }
                "lambda_scale" => action = self.scale(at, value).map(Action::LambdaScale),
                _ => self.stranger(at, name, &mut seen),
            }
        }
        // The names of both pairs, so that neither half is silently ignored.
        let selectors = ["match", "kind", "layers", "regex"];
        self.require_one(&seen, &selectors, "expected `match` or `kind`");
        let actions = ["action", "lambda_scale"];
        self.require_one(
            &seen,
            &actions,
            "expected `action: keep_cp` or `lambda_scale`",
        );
        Some(Rule {
            select: select?,
            action: action?,
        })
    }

    fn glob(&mut self, at: &str, node: &Node) -> Option<Glob> {
        let text = self.text(at, node, "a pattern such as `model.layers.*.mlp.*`")?;
        match Glob::new(text) {
            Ok(glob) => Some(glob),
            Err(error) => {
                self.problem(at, error.to_string())
                    .hint("write `*` for any run of characters");
                None
            }
        }
    }

    fn kinds(&mut self, at: &str, node: &Node) -> Option<Vec<Kind>> {
        let mut kinds = match node {
            Node::List(names) if names.is_empty() => {
                self.problem(at, "expected at least one kind, found none");
                return None;
            }
            Node::List(_) => self.list(at, node, |walk, at, node| {
                walk.choice(at, node, Kind::NAMES, &[])
            })?,
            _ => vec![self.choice(at, node, Kind::NAMES, &[])?],
        };
        // The order of kinds means nothing, so that it makes no other digest.
        kinds.sort_unstable();
        kinds.dedup();
        Some(kinds)
    }

    fn scale(&mut self, at: &str, node: &Node) -> Option<f64> {
        let scale = self.number(at, node, "0.5")?;
        if scale == 0.0 {
            self.warn(at, "is zero: these tensors stay as they are in cp");
        } else if scale < 0.0 {
            self.warn(at, "is negative: it turns every vector's sign");
        }
        Some(scale)
    }

    fn chat_template(&mut self, at: &str, node: &Node) -> Option<ChatTemplate> {
        let names = ChatTemplate::NAMES;
        let known = |text: &str| names.iter().any(|(name, _)| *name == text);
        match node {
            Node::Map(_) => {
                self.problem(at, "a mapping is not supported yet")
                    .hint("write `chat` or `cp`");
                None
            }
            Node::Text(text) if !known(text) && text.contains(['/', '.']) => {
                let message = format!("the file `{}` is not supported yet", quote(text));
                self.problem(at, message).hint("write `chat` or `cp`");
                None
            }
            _ => self.choice(at, node, names, &[]),
        }
    }

    fn output(&mut self, at: &str, node: &Node) -> Option<Output> {
        if let Node::Text(text) = node {
            let message = format!("expected a mapping, found the text `{}`", quote(text));
            self.problem(at, message).hint("write `output: { url: … }`");
            return None;
        }
        const LATER: &[&str] = &["fp8", "f8_e4m3", "f8_e5m2", "float8_e4m3fn", "float8_e5m2"];
        let mut seen = Seen::new(at, &fields::OUTPUT);
        let (mut url, mut dtype) = (None, Some(OutputDtype::Same));
        let (mut shard_size_bytes, mut overwrite) = (Some(SHARD_SIZE_DEFAULT), Some(false));
        for (name, value) in self.mapping(at, node)? {
            let at = &seen.enter(name);
            match name.as_str() {
                "url" => url = self.output_url(at, value),
                "dtype" => dtype = self.choice(at, value, OutputDtype::NAMES, LATER),
                "shard_size" => shard_size_bytes = self.shard_size(at, value),
                "overwrite" => overwrite = self.boolean(at, value),
                _ => self.stranger(at, name, &mut seen),
            }
        }
        self.require(&seen, "url", "where to write, as in `url: /models/out`");
        Some(Output {
            url: url?,
            dtype: dtype?,
            shard_size_bytes: shard_size_bytes?,
            overwrite: overwrite?,
        })
    }

    fn output_url(&mut self, at: &str, node: &Node) -> Option<String> {
        let url = self.url(at, node)?;
        if url.contains("{lambda}") {
            self.problem(at, "the placeholder `{lambda}` is not supported yet");
            return None;
        }
        Some(url)
    }

    /// What only shows once every field is known to be good.
    fn whole(&mut self, recipe: &Recipe) {
        for (i, rule) in recipe.rules.iter().enumerate() {
            let Action::LambdaScale(scale) = rule.action else {
                continue;
            };
            for (v, vector) in recipe.vectors.iter().enumerate() {
                if !(vector.lambda * scale).is_finite() {
                    let message = format!(
                        "expected a finite product with `vectors[{v}].lambda`, found {:?} × {scale:?}",
                        vector.lambda
                    );
                    self.problem(&format!("rules[{i}].lambda_scale"), message);
                }
            }
        }
        let mut inputs = vec![("cp".to_owned(), &recipe.cp)];
        for (v, vector) in recipe.vectors.iter().enumerate() {
            inputs.push((format!("vectors[{v}].chat"), &vector.chat));
            inputs.push((format!("vectors[{v}].base"), &vector.base));
        }
        let taken = inputs
            .iter()
            .find(|(_, url)| same_place(url, &recipe.output.url));
        if let Some((input, _)) = taken {
            let message = format!("expected a place of its own, found that of `{input}`");
            self.problem("output.url", message);
        }
    }
}

/// Whether two URLs are one but for closing slashes.
fn same_place(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}
