//! The valid recipe: its shape, how it is read, and what its rules say.

use serde_json::Value;

use super::glob::Glob;
use super::kind::Kind;
use super::node::Node;
use super::{node, walk};
use crate::problem::Problem;

/// A merge as the user asks for it: `cp + Σ λ·(chat − base)`, tensor by tensor.
///
/// Valid by construction: only [`Recipe::parse`] and [`Recipe::from_value`] make
/// one. There is at least one vector, every λ and every product of a λ with a
/// scale is finite, no text is empty, and the output is none of the inputs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recipe {
    /// θ_cp: where the checkpoint that is added to lies. It gives names, shapes,
    /// config and tokenizer.
    pub cp: String,
    /// The chat vectors, in the order in which they are added. Never empty.
    pub vectors: Vec<Vector>,
    /// What differs from "merge everything"; the first rule that matches a
    /// tensor decides.
    pub rules: Vec<Rule>,
    /// What to do with a tensor of cp that a chat or a base lacks.
    pub missing: Missing,
    /// What to do with NaN and infinity.
    pub nonfinite: Nonfinite,
    /// Whose chat template the output has; `None`: chat's where chat has one,
    /// else cp's.
    pub chat_template: Option<ChatTemplate>,
    /// Where the output goes, and in which form.
    pub output: Output,
}

/// One chat vector: `lambda × (chat − base)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// Where θ_chat lies.
    pub chat: String,
    /// Where θ_base lies: the checkpoint that chat was tuned from.
    pub base: String,
    /// λ: finite, never −0.0.
    pub lambda: f64,
}

/// One exception: which tensors, and what is done with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The tensors it is about.
    pub select: Selector,
    /// What happens to them.
    pub action: Action,
}

/// Which tensors a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Those whose name the pattern matches.
    Match(Glob),
    /// Those of any of these kinds. Ascending, without repeats, never empty.
    Kinds(Vec<Kind>),
}

/// What a rule does with its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Copy cp's bytes; chat and base are not looked at.
    KeepCp,
    /// Merge with every vector's λ times this number: finite, never −0.0.
    LambdaScale(f64),
}

/// What to do with a tensor of cp that a chat or a base lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// Reject the recipe and name the tensor.
    #[default]
    Error,
    /// Copy cp's bytes.
    KeepCp,
}

/// What to do with NaN or infinity in an input, and with overflow in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nonfinite {
    /// Fail the job and name the tensor.
    #[default]
    Error,
    /// Count them and pass them on.
    Allow,
}

/// Whose chat template and end-of-turn tokens the output has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatTemplate {
    /// The first vector's chat. It must have a template.
    Chat,
    /// The checkpoint that is added to.
    Cp,
}

/// Where the output goes, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The folder or prefix of the finished checkpoint.
    pub url: String,
    /// The element type of its floating-point tensors.
    pub dtype: OutputDtype,
    /// The most bytes of tensor data in one weight file, unless one tensor alone
    /// has more. At least 1,000, at most 2⁵³.
    pub shard_size_bytes: u64,
    /// Whether a checkpoint that already stands at the URL is replaced.
    pub overwrite: bool,
}

/// The element type of the output's floating-point tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputDtype {
    /// Each tensor as in cp.
    #[default]
    Same,
    /// bfloat16.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
}

/// A recipe together with what is odd about it but allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The valid recipe.
    pub recipe: Recipe,
    /// What the user should look at once more, in the order of the document.
    pub warnings: Vec<Problem>,
}

/// The first rule that matches a tensor: its position in the recipe, from 0,
/// and what it does. `None`: no rule matches, the tensor is merged.
pub type RuleOutcome<'a> = Option<(usize, &'a Action)>;

impl Recipe {
    /// Reads a recipe from YAML or JSON text.
    ///
    /// # Errors
    /// Text that is no YAML gives one problem with its line and column; anything
    /// else gives every problem of the recipe, in the order of the document.
    pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
        walk::read(&node::read(text).map_err(|problem| vec![problem])?)
    }

    /// Reads a recipe from a generic value: the way in for protobuf messages and
    /// command-line flags. JSON has no NaN or infinity; a λ that was one arrives
    /// here as null and is rejected as such.
    ///
    /// # Errors
    /// Every problem of the recipe, in the order of the value's fields.
    pub fn from_value(value: &Value) -> Result<Parsed, Vec<Problem>> {
        walk::read(&Node::from(value))
    }

    /// What the rules say of the tensor of this name.
    pub fn decide(&self, tensor: &str) -> RuleOutcome<'_> {
        self.rules
            .iter()
            .enumerate()
            .find(|(_, rule)| rule.select.selects(tensor))
            .map(|(ordinal, rule)| (ordinal, &rule.action))
    }

    /// The same recipe with every URL replaced: cp, then chat and base of each
    /// vector, then the output. For making relative paths absolute. The caller
    /// keeps them distinct and non-empty.
    #[must_use]
    pub fn map_urls(mut self, mut f: impl FnMut(&str) -> String) -> Self {
        self.cp = f(&self.cp);
        for vector in &mut self.vectors {
            vector.chat = f(&vector.chat);
            vector.base = f(&vector.base);
        }
        self.output.url = f(&self.output.url);
        self
    }
}

impl Selector {
    /// Whether the rule is about the tensor of this name.
    pub fn selects(&self, tensor: &str) -> bool {
        match self {
            Self::Match(glob) => glob.matches(tensor),
            Self::Kinds(kinds) => Kind::of(tensor).is_some_and(|kind| kinds.contains(&kind)),
        }
    }
}

/// Gives a plain enum the names that a recipe uses for its values.
macro_rules! names {
    ($enum:ident { $($name:literal => $variant:ident),+ $(,)? }) => {
        impl $enum {
            /// Every value with its name in a recipe, the default first.
            pub const NAMES: &'static [(&'static str, Self)] =
                &[$(($name, Self::$variant)),+];

            /// The name in a recipe.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }
    };
}

names!(Missing { "error" => Error, "keep_cp" => KeepCp });
names!(Nonfinite { "error" => Error, "allow" => Allow });
names!(ChatTemplate { "chat" => Chat, "cp" => Cp });
names!(OutputDtype { "same" => Same, "bf16" => Bf16, "f16" => F16, "f32" => F32 });
