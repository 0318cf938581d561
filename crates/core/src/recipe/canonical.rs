//! The canonical form of a recipe: defaults spelled out, fields in one order,
//! one spelling for each meaning. The digest is taken over it.
//!
//! The order comes from the structs below and not from `serde_json::Value`,
//! whose order depends on how that crate happens to be built.

use serde::Serialize;
use serde_json::Value;
use serde_saphyr::FlowSeq;
use sha2::{Digest as _, Sha256};

use super::shape::{Action, Recipe, Rule, Selector};
use super::size;
use crate::ids::Digest;

#[derive(Serialize)]
struct Canonical<'a> {
    cp: &'a str,
    vectors: Vec<CanonicalVector<'a>>,
    rules: Vec<CanonicalRule<'a>>,
    missing: &'static str,
    nonfinite: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template: Option<&'static str>,
    output: CanonicalOutput<'a>,
}

#[derive(Serialize)]
struct CanonicalVector<'a> {
    chat: &'a str,
    base: &'a str,
    lambda: f64,
}

/// Of each pair exactly one is there. YAML shows kinds on one line.
#[derive(Default, Serialize)]
struct CanonicalRule<'a> {
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    glob: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<FlowSeq<Vec<&'static str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lambda_scale: Option<f64>,
}

#[derive(Serialize)]
struct CanonicalOutput<'a> {
    url: &'a str,
    dtype: &'static str,
    shard_size: ShardSize,
    overwrite: bool,
}

/// For machines a number of bytes, for people a text such as `5GB`.
#[derive(Serialize)]
#[serde(untagged)]
enum ShardSize {
    Bytes(u64),
    Text(String),
}

impl Recipe {
    /// The canonical form as a generic value: [`Recipe::from_value`] gives the
    /// same recipe back.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self.canonical()).expect("plain structs with text keys are JSON")
    }

    /// SHA-256 of the canonical form's JSON text. Recipes that mean the same have
    /// the same digest, however they were written.
    pub fn digest(&self) -> Digest {
        Digest(hex(&Sha256::digest(self.canonical_json())))
    }

    /// The canonical form as YAML for people to read: [`Recipe::parse`] gives the
    /// same recipe back.
    pub fn to_yaml(&self) -> String {
        let mut canonical = self.canonical();
        canonical.output.shard_size = ShardSize::Text(size::to_text(self.output.shard_size_bytes));
        serde_saphyr::to_string(&canonical).expect("plain structs with text keys are YAML")
    }

    /// The text under the digest.
    pub(super) fn canonical_json(&self) -> String {
        serde_json::to_string(&self.canonical()).expect("plain structs with text keys are JSON")
    }

    fn canonical(&self) -> Canonical<'_> {
        Canonical {
            cp: &self.cp,
            vectors: self
                .vectors
                .iter()
                .map(|vector| CanonicalVector {
                    chat: &vector.chat,
                    base: &vector.base,
                    lambda: vector.lambda,
                })
                .collect(),
            rules: self.rules.iter().map(canonical_rule).collect(),
            missing: self.missing.name(),
            nonfinite: self.nonfinite.name(),
            chat_template: self.chat_template.map(|template| template.name()),
            output: CanonicalOutput {
                url: &self.output.url,
                dtype: self.output.dtype.name(),
                shard_size: ShardSize::Bytes(self.output.shard_size_bytes),
                overwrite: self.output.overwrite,
            },
        }
    }
}

fn canonical_rule(rule: &Rule) -> CanonicalRule<'_> {
    let mut canonical = CanonicalRule::default();
    match &rule.select {
        Selector::Match(glob) => canonical.glob = Some(glob.as_str()),
        Selector::Kinds(kinds) => {
            let names = kinds.iter().map(|kind| kind.name()).collect();
            canonical.kind = Some(FlowSeq(names));
        }
    }
    match rule.action {
        Action::KeepCp => canonical.action = Some("keep_cp"),
        Action::LambdaScale(scale) => canonical.lambda_scale = Some(scale),
    }
    canonical
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
