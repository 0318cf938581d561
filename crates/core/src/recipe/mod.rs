//! The recipe: what the user asks of a merge, read once and valid ever after.
//!
//! ```text
//! text ──► node (a tree that keeps the document's order) ──► walk ──► Recipe
//! protobuf, flags ──► serde_json::Value ──► node ─────────────┘
//! ```
//!
//! There is one validating walk, so every way in has the same rules and the
//! same messages, and it lists every problem at once. The user's page on all of
//! this is `docs/recipes.md`.

mod shape;

mod fields;
mod node;
mod size;
mod walk;

mod canonical;

pub mod glob;
pub mod kind;
pub mod tied;

#[cfg(test)]
mod tests;

pub use glob::Glob;
pub use kind::Kind;
pub use shape::{
    Action, ChatTemplate, Missing, Nonfinite, Output, OutputDtype, Parsed, Recipe, Rule,
    RuleOutcome, Selector, Vector,
};
